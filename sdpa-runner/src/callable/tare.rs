//! What a block takes by itself: the question and the answer, the launch of a graph, what lies between two calls, the writes
//! of a cold one. Measured in the process of host code before that is there, so it may be taken off what the samples leave of the judge's clock.

use anyhow::Result;
use kbench::evidence::Mode;

/// Launches of the blocks that are measured; what lies between calls grows with their number.
const FEW: usize = 1;
const MANY: usize = 20;
/// Launches of a cold block, before each of which memory is written.
const COLD: usize = 5;
/// Blocks of each kind. The shortest counts: what it takes longer now and then is no excuse.
const BLOCKS: usize = 10;

/// Microseconds of a block beside its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tare {
    graph_us: f64,
    calls_us: [f64; 2],
    cold_us: f64,
}

impl Tare {
    /// Takes the shortest of some blocks of each kind.
    pub(super) fn measure(flush: usize, mut block: impl FnMut(Mode, usize, usize) -> Result<f64>) -> Result<Tare> {
        let mut least = |mode, launches, flush| {
            let mut least = f64::INFINITY;
            for _ in 0..BLOCKS {
                least = least.min(block(mode, launches, flush)?);
            }
            Ok::<_, anyhow::Error>(least.max(0.0))
        };
        Ok(Tare {
            graph_us: least(Mode::Kernel, MANY, 0)?,
            calls_us: [least(Mode::Call, FEW, 0)?, least(Mode::Call, MANY, 0)?],
            cold_us: least(Mode::Call, COLD, flush)?,
        })
    }

    /// Of a block of so many launches, each behind a write of so many bytes.
    pub(super) fn beside_us(&self, mode: Mode, launches: usize, flush: usize) -> f64 {
        let [few, many] = self.calls_us;
        match mode {
            _ if flush > 0 => self.cold_us * launches.min(COLD) as f64 / COLD as f64,
            Mode::Kernel => self.graph_us,
            Mode::Call => few + f64::max(many - few, 0.0) / (MANY - FEW) as f64 * launches.saturating_sub(FEW) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_block_counts_and_what_lies_between_calls_grows_with_them() {
        let mut asked = 0;
        let tare = Tare::measure(7, |mode, launches, flush| {
            asked += 1;
            let late = if asked % 3 == 0 { 0.0 } else { 500.0 } + 10.0 * flush as f64 * launches as f64;
            Ok(late + if mode == Mode::Call { 100.0 + 2.0 * launches as f64 } else { 150.0 })
        });
        let tare = tare.unwrap();
        assert_eq!([1, 20, 60].map(|launches| tare.beside_us(Mode::Call, launches, 0)), [102.0, 140.0, 220.0]);
        assert_eq!([1, 60].map(|launches| tare.beside_us(Mode::Kernel, launches, 0)), [150.0, 150.0]);
        assert_eq!([5, 3].map(|launches| tare.beside_us(Mode::Call, launches, 7)), [460.0, 276.0]);
        assert_eq!(Tare::default().beside_us(Mode::Call, 20, 0), 0.0, "who was not measured has no excuse");
    }
}
