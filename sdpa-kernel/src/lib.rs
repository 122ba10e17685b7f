//! The attention kernels (`cuda/`), the registry of their variants, and the layout of what crosses to the device.
//! Leaves to others: compiling (xtask), launching (sdpa-runner), judging (kbench). It knows none of them.

#![warn(missing_docs)]

pub mod abi;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(test)]
mod header;
pub mod hopper;
pub mod registry;
pub mod sample;
pub mod space;
pub mod toggles;
mod variant;
