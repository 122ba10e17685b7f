//! The fleet end to end: the binary, a Slurm cluster that is thrown away afterwards, emulated kinds of device and tiny gate
//! files; a search by several workers; and, with stand-ins for Slurm and the jobs, a fleet of a thousand tasks.

mod cluster;
mod many;
mod room;
mod search;

use std::sync::{Mutex, MutexGuard};

/// Tests that time something, or fill a machine, come one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
