//! Tensor-core arithmetic on plain arrays: fragment layouts and the models of the sums.

pub(crate) mod fragment;
#[cfg(target_arch = "x86_64")]
pub(crate) mod fragment_avx512;
pub(crate) mod half16;
#[cfg(target_arch = "x86_64")]
mod half16_avx512;
pub(crate) mod layout;
pub(crate) mod sum;
pub(crate) mod warpgroup;
