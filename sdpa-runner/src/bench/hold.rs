//! Holds the stream while the host queues what is timed: launches of a few microseconds would otherwise wait for the host
//! between their events, and a block's median would be that of the host's pace, which scatters by a tenth from block to block.

use std::ffi::c_void;

use anyhow::Result;
use cudarc::driver::sys::CUfunction;

use crate::cuda::{Gpu, LoadedModule, cause};

const PTX: &str = include_str!("hold.ptx");
/// What the host needs for a launch, a step of a launch or an event at most, as a rule, in nanoseconds.
const CALL_NS: u64 = 4_000;
/// The longest that it waits, in nanoseconds: what takes the host longer takes the device longer, too.
const MOST_NS: u64 = 2_000_000;

pub struct Hold {
    function: CUfunction,
    _module: LoadedModule,
}

impl Hold {
    pub fn new() -> Result<Hold> {
        let module = LoadedModule::assembled(PTX)?;
        Ok(Hold { function: module.function("hold")?, _module: module })
    }

    /// Keeps the stream busy for as long as the host needs to queue so many calls of the driver.
    pub fn until_queued(&self, gpu: &Gpu, calls: usize) -> Result<()> {
        let mut ns = (CALL_NS * calls as u64).min(MOST_NS);
        let mut arguments = [std::ptr::from_mut(&mut ns).cast::<c_void>()];
        // SAFETY: one 64-bit parameter, as the kernel declares, which is copied during the call.
        unsafe { gpu.launch(self.function, [1, 1], &mut arguments) }.map_err(cause)
    }
}
