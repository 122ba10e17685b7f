//! Beginning a launch anew: when two blocks raced while several of the host's threads ran blocks, so that what happened
//! was luck, and when memory was written of which reads had not been recorded. Knows what every piece of memory held
//! before it was first written.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::memory::{Memory, PIECE_BYTES, Piece};

/// What to do otherwise in the next attempt.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// One thread runs all blocks in their order.
    pub(crate) serial: bool,
    /// Allocations of which reads are recorded from the beginning.
    pub(crate) recorded: Vec<bool>,
}

/// What one attempt keeps for the next.
#[derive(Debug)]
pub(crate) struct Retry {
    wanted: AtomicBool,
    serial: AtomicBool,
    recorded: Vec<AtomicBool>,
    /// Whether blocks run at the same time in this attempt.
    parallel: bool,
    saved: Vec<Vec<OnceLock<Piece>>>,
}

impl Retry {
    pub(crate) fn new(memory: &Memory, plan: &Plan) -> Retry {
        let pieces = |i: usize| {
            let allocation = memory.at(i);
            let count = if allocation.read_only { 0 } else { allocation.bytes.div_ceil(PIECE_BYTES) };
            (0..count).map(|_| OnceLock::new()).collect()
        };
        Retry {
            wanted: AtomicBool::new(false),
            serial: AtomicBool::new(plan.serial),
            recorded: plan.recorded.iter().map(|&recorded| AtomicBool::new(recorded)).collect(),
            parallel: !plan.serial,
            saved: (0..memory.count()).map(pieces).collect(),
        }
    }

    /// Whether this attempt is to end.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Two blocks raced; where threads ran them, what was found is found again in the order of the schedule.
    pub(crate) fn raced(&self) {
        if self.parallel {
            self.serial.store(true, Relaxed);
            self.wanted.store(true, Relaxed);
        }
    }

    /// An allocation is written of which reads were not recorded.
    pub(crate) fn record(&self, allocation: usize) {
        self.recorded[allocation].store(true, Relaxed);
        self.wanted.store(true, Relaxed);
    }

    /// Keeps what an access is going to overwrite.
    pub(crate) fn save(&self, memory: &Memory, allocation: usize, offset: u64, bytes: u64) {
        for at in offset / PIECE_BYTES..=(offset + bytes - 1) / PIECE_BYTES {
            if let Some(piece) = self.saved[allocation].get(at as usize) {
                piece.get_or_init(|| memory.at(allocation).piece(at));
            }
        }
    }

    /// Puts back what was written, and says how to try again, if that is wanted.
    pub(crate) fn again(self, memory: &Memory) -> Option<Plan> {
        if !self.is_wanted() {
            return None;
        }
        for (i, pieces) in self.saved.into_iter().enumerate() {
            for (at, piece) in pieces.into_iter().enumerate() {
                if let Some(piece) = piece.into_inner() {
                    memory.at(i).put_back(at as u64, &piece);
                }
            }
        }
        let recorded = self.recorded.into_iter().map(AtomicBool::into_inner).collect();
        Some(Plan { serial: self.serial.into_inner(), recorded })
    }
}
