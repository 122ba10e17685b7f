//! The parts of the pipeline that stand alone: the CUDA compilers and what they say.

pub mod ptxas;
pub mod toolchain;
