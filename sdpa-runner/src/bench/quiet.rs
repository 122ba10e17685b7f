//! Whether somebody else works on the device: a kernel looks at the clock for five milliseconds, and is set aside while another
//! process has its turn. Leaves to others: whose fault that is.

use std::time::Duration;

use anyhow::Result;

use crate::cuda::{Buffer, Gpu, LoadedModule, cause};

const PTX: &str = include_str!("quiet.ptx");
/// What may lie between two looks. Alone a kernel looks every microsecond or sooner; a turn of another takes more than this.
const MOST: Duration = Duration::from_micros(100);

pub struct Quiet {
    module: LoadedModule,
    longest: Buffer,
}

impl Quiet {
    pub fn new() -> Result<Quiet> {
        Ok(Quiet { module: LoadedModule::assembled(PTX)?, longest: Buffer::filled(8, 0)? })
    }

    /// For how long another process had the device at once, if one did.
    pub fn disturbed(&self, gpu: &Gpu) -> Result<Option<Duration>> {
        self.module.launch_on_pointers(gpu, "quiet", [1, 1], &mut [self.longest.address()])?;
        let mut nanoseconds = [0; 8];
        self.longest.read_into(&mut nanoseconds).map_err(cause)?;
        let longest = Duration::from_nanos(u64::from_le_bytes(nanoseconds));
        Ok((longest > MOST).then_some(longest))
    }
}
