//! Kernels that a gate file names, as far as compilers know them: what is in a source, what it is made of, and what comes
//! out of it. Leaves to others: gate files themselves, which are kbench's, and running anything on a device.

mod atomics;
pub mod compile;
mod draft_text;
mod guess;
pub mod init;
pub mod names;
pub mod plan;
mod source_text;
pub mod sources;
mod wrapper;
