//! The machine that instructions run on: register rows of a warp, and the host's instruction sets.

pub(crate) mod regs;
pub(crate) mod simd;
pub(crate) mod slot;
