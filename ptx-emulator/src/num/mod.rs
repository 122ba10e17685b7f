//! Scalar arithmetic of PTX as pure functions on register bits.
//!
//! Every function is total (no panic on any bits) and branch-light, so that the row loops of the
//! interpreter vectorise. 16-bit values travel zero-extended in 32 bits.

pub(crate) mod convert;
pub(crate) mod double;
pub(crate) mod float;
pub(crate) mod int;
pub(crate) mod small;
