//! Kernels of gate files, with the real compilers. One test program, so that it is linked once.

mod accepted;
mod compile;
mod examples;
mod init;
mod plan;
