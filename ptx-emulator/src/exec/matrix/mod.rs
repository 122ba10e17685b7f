//! Matrix fragments: moved by `ldmatrix` and wmma, multiplied by mma.

pub(crate) mod ldmatrix;
pub(crate) mod mma;
mod wgmma;
pub(crate) mod wmma;
