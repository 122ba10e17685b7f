//! The interpreter: warps of a block as coroutines over decoded instructions.
//!
//! `run` is the way of a launch down to one instruction; the other folders are the families of instructions.

mod matrix;
mod memory;
#[cfg(test)]
mod random_programs;
pub(crate) mod run;
mod sync;
