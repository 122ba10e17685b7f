//! Instructions in which lanes, warps or threads meet.

pub(crate) mod barrier;
pub(crate) mod cluster;
pub(crate) mod lanes;
#[cfg(target_arch = "x86_64")]
mod lanes_avx512;
pub(crate) mod mbarrier;
