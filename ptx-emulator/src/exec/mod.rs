//! The interpreter: warps of a block as coroutines over decoded instructions.
//!
//! `warp` holds fragments and picks what to run, `step` executes one instruction, `block`
//! schedules the warps; the other files are the families of instructions.

pub(crate) mod alu;
#[cfg(test)]
mod alu_levels;
mod atom;
mod barrier;
pub(crate) mod block;
mod copy;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lanes_avx512;
mod matrix;
mod mbarrier;
mod memory;
mod mma;
pub(crate) mod profile;
mod race;
pub(crate) mod regs;
mod rows;
pub(crate) mod run;
mod shared;
mod shared_access;
pub(crate) mod simd;
mod step;
mod straight;
mod target;
pub(crate) mod warp;
mod wmma;
#[cfg(target_arch = "x86_64")]
mod words_avx512;
