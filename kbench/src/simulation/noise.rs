//! What spoils times, drawn: of blocks, of sittings, of a whole run. Leaves to others: what is timed in it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use stats::shuffled;

/// A kind of noise. It falls on the time of each block by itself, so that a ratio has it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// Log-normal, 1%.
    LogNormal,
    /// Times rise by 30% over the run, and wander besides; 0.5% from block to block.
    Drifting,
    /// 30% of blocks take 5% longer; 0.3% from block to block.
    Bimodal,
    /// Student's t with two degrees of freedom, 0.5%: some blocks are off by a tenth and more.
    HeavyTailed,
    /// Each variant is slower or faster by this in each sitting, log-normal; 0.3% from block to block.
    Placed {
        /// In tenths of a percent.
        permille: u32,
    },
}

impl Noise {
    /// All that are simulated.
    pub const ALL: [Noise; 6] = [
        Noise::LogNormal,
        Noise::Drifting,
        Noise::Bimodal,
        Noise::HeavyTailed,
        Noise::Placed { permille: 3 },
        Noise::Placed { permille: 10 },
    ];

    /// Its name in the table.
    pub fn name(self) -> String {
        match self {
            Noise::LogNormal => "log-normal".to_owned(),
            Noise::Drifting => "drifting".to_owned(),
            Noise::Bimodal => "bimodal".to_owned(),
            Noise::HeavyTailed => "heavy-tailed".to_owned(),
            Noise::Placed { permille } => format!("placed, {}%", f64::from(permille) / 10.0),
        }
    }
}

/// The noise of one run.
pub(super) struct Source {
    noise: Noise,
    rng: ChaCha8Rng,
    spare: Option<f64>,
    /// Logarithm of what everybody's time has drifted by.
    drift: f64,
}

/// Blocks over which a run drifts by 30%.
const DRIFT_BLOCKS: f64 = 200.0;

impl Source {
    pub fn new(noise: Noise, seed: u64) -> Source {
        Source { noise, rng: ChaCha8Rng::seed_from_u64(seed), spare: None, drift: 0.0 }
    }

    /// Above 0 and below 1.
    fn uniform(&mut self) -> f64 {
        (f64::from(self.rng.next_u32()) + 0.5) / 2f64.powi(32)
    }

    /// Standard normal, two at a time.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (radius, angle) = ((-2.0 * self.uniform().ln()).sqrt(), std::f64::consts::TAU * self.uniform());
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// The order of a round.
    pub fn order(&mut self) -> Vec<usize> {
        shuffled(&mut self.rng, 3)
    }

    /// What a place does to a variant's times.
    pub fn place(&mut self) -> f64 {
        match self.noise {
            Noise::Placed { permille } => (f64::from(permille) / 1000.0 * self.normal()).exp(),
            _ => 1.0,
        }
    }

    /// What chance does to the next block's time.
    pub fn block(&mut self) -> f64 {
        match self.noise {
            Noise::LogNormal => (0.01 * self.normal()).exp(),
            Noise::Drifting => {
                self.drift += 0.3 / DRIFT_BLOCKS + 0.002 * self.normal();
                (self.drift + 0.005 * self.normal()).exp()
            }
            Noise::Bimodal => {
                let slow = if self.uniform() < 0.3 { 1.05 } else { 1.0 };
                slow * (0.003 * self.normal()).exp()
            }
            Noise::HeavyTailed => {
                let student = self.normal() / (-self.uniform().ln()).sqrt();
                (0.005 * student).clamp(-1.0, 1.0).exp()
            }
            Noise::Placed { .. } => (0.003 * self.normal()).exp(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stats::{Summary, median};

    #[test]
    fn noise_is_as_wide_as_it_says_and_changes_no_median_of_ratios() {
        for noise in Noise::ALL {
            let mut source = Source::new(noise, 7);
            let ratios: Vec<f64> = (0..4000).map(|_| source.place() * source.block() / source.block()).collect();
            assert!((median(&ratios).unwrap() - 1.0).abs() < 0.003, "{noise:?}");
        }
        let mut placed = Source::new(Noise::Placed { permille: 10 }, 7);
        let places: Vec<f64> = (0..4000).map(|_| placed.place()).collect();
        let spread = Summary::of(&places).unwrap().std;
        assert!((spread - 0.01).abs() < 0.0005, "{spread}");
    }
}
