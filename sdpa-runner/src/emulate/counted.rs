//! One launch as it was counted, in the form that is written.

use ptx_emulator::{Counts, Launch, Outcome};
use serde::Serialize;

/// What a launch did, with its shape.
#[derive(Serialize)]
pub struct Counted {
    entry: String,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared_bytes: u32,
    /// CTAs that were run, and those of the grid: fewer where the launch was sampled.
    blocks_run: u64,
    blocks_in_grid: u64,
    #[serde(flatten)]
    counts: Counts,
}

impl Counted {
    /// Nothing where the launch was not counted.
    pub fn of(launch: &Launch, entry: &str, outcome: &Outcome) -> Option<Counted> {
        Some(Counted {
            entry: entry.to_owned(),
            grid: launch.grid,
            block: launch.block,
            dynamic_shared_bytes: launch.dynamic_shared_bytes,
            blocks_run: outcome.blocks_run,
            blocks_in_grid: outcome.blocks_in_grid,
            counts: outcome.counts.clone()?,
        })
    }
}
