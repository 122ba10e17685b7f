//! Instructions that touch memory: where they point, what they move, and what the checks say of it.

pub(crate) mod access;
pub(crate) mod atom;
pub(crate) mod bulk;
mod copy;
mod engine;
mod global_access;
mod race;
pub(crate) mod shared;
pub(crate) mod shared_access;
pub(crate) mod target;
mod tensor_copy;
#[cfg(target_arch = "x86_64")]
pub(crate) mod words_avx512;
