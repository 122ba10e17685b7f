//! CUDA without a GPU: the runtime's and the driver's functions for programs that were compiled for a GPU, carried out by
//! the emulator with its checks. One library stands for both, found under the names `libcudart.so.13` and `libcuda.so.1`, so
//! that a program that uses both sees one device.
//!
//! `device` is that device; `runtime` and `driver` are the two ways to name it. What is not here is refused by name at the
//! call. Findings go where `settings` says.

mod device;
mod driver;
mod fatbin;
mod ffi;
mod lz4;
mod runtime;
mod settings;
mod status;
