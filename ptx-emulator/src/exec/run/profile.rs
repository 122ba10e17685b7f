//! Where the host's time goes, by family of instructions; off unless the launch asks.

use std::time::{Duration, Instant};

use crate::isa::op::Op;
use crate::isa::space::Space;
use crate::launch::ProfileLine;

const FAMILIES: [&str; 8] = [
    "row arithmetic",
    "branches",
    "shared loads and stores",
    "other loads and stores",
    "asynchronous copies",
    "matrix moves",
    "matrix products",
    "synchronisation and lanes",
];

/// Index of a family.
fn family(op: &Op) -> usize {
    match op {
        Op::Alu(_) => 0,
        Op::Bra { .. } | Op::Exit | Op::Trap | Op::Yield => 1,
        Op::Load(load) if load.addr.space == Space::Shared => 2,
        Op::Store(store) if store.addr.space == Space::Shared => 2,
        Op::Load(_) | Op::Store(_) | Op::Atom(_) | Op::IsSpace { .. } | Op::Print(_) | Op::AssertFail { .. } => 3,
        Op::CopyAsync(_) | Op::CopyCommit | Op::CopyWait { .. } | Op::CopyArrive { .. } => 4,
        Op::Bulk(_) | Op::Tensor(_) | Op::BulkCommit | Op::BulkWait { .. } => 4,
        Op::Matrix(_) | Op::MoveMatrix { .. } | Op::Wmma(_) => 5,
        Op::Mma(_) | Op::Wgmma(_) | Op::WgmmaFence | Op::WgmmaCommit | Op::WgmmaWait { .. } | Op::Held(_) => 6,
        Op::Fence { .. }
        | Op::Clock { .. }
        | Op::ActiveMask { .. }
        | Op::Barrier(_)
        | Op::WarpSync { .. }
        | Op::Shuffle(_)
        | Op::Vote(_)
        | Op::Reduce(_)
        | Op::Match(_)
        | Op::Mbar(_)
        | Op::Elect(_)
        | Op::ProxyFence { .. }
        | Op::Cluster(_) => 7,
    }
}

/// Times of one block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    on: bool,
    lines: [(u64, Duration); FAMILIES.len()],
}

impl Profile {
    pub(crate) fn new(on: bool) -> Profile {
        Profile { on, ..Profile::default() }
    }

    /// Starts a measurement if profiling is on.
    #[inline(always)]
    pub(crate) fn start(&self) -> Option<Instant> {
        self.on.then(Instant::now)
    }

    /// Books the time since `start` on a run of row operations.
    #[inline(always)]
    pub(crate) fn rows(&mut self, start: Option<Instant>, instructions: u64) {
        if let Some(start) = start {
            self.book(0, start, instructions);
        }
    }

    /// Books the time since `start` on one other instruction.
    #[inline(always)]
    pub(crate) fn one(&mut self, start: Option<Instant>, op: &Op) {
        if let Some(start) = start {
            self.book(family(op), start, 1);
        }
    }

    fn book(&mut self, at: usize, start: Instant, instructions: u64) {
        let line = &mut self.lines[at];
        line.0 += instructions;
        line.1 += start.elapsed();
    }

    /// Adds the times of another block.
    pub(crate) fn merge(&mut self, other: &Profile) {
        for (line, more) in self.lines.iter_mut().zip(&other.lines) {
            line.0 += more.0;
            line.1 += more.1;
        }
    }

    /// Families that occurred, most expensive first.
    pub(crate) fn finish(&self) -> Vec<ProfileLine> {
        let mut lines: Vec<ProfileLine> = FAMILIES
            .iter()
            .zip(&self.lines)
            .filter(|(_, line)| line.0 > 0)
            .map(|(family, line)| ProfileLine { family, instructions: line.0, seconds: line.1.as_secs_f64() })
            .collect();
        lines.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        lines
    }
}
