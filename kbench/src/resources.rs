//! What ptxas reports of one entry function. Leaves to others: reading it out of a log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What ptxas reports of one entry function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryResources {
    /// Entry function.
    pub entry: String,
    /// Target.
    pub arch: String,
    /// Registers per thread.
    pub registers: u32,
    /// Static shared memory in bytes.
    pub static_smem_bytes: u32,
    /// Spill stores in bytes.
    pub spill_store_bytes: u32,
    /// Spill loads in bytes.
    pub spill_load_bytes: u32,
    /// Stack frame in bytes.
    pub stack_frame_bytes: u32,
    /// Barriers.
    pub barriers: u32,
    /// Constant memory in bytes by bank.
    pub constant_bytes: BTreeMap<u32, u32>,
}
