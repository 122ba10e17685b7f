//! Tensor-core arithmetic on plain arrays: fragment layouts and the models of the sums.

pub(crate) mod fragment;
pub(crate) mod half16;
pub(crate) mod layout;
pub(crate) mod sum;
