//! The pipeline: orchestration, no arithmetic. What a figure means is kbench's, what touches a device is the runner's.

pub mod build;
pub mod console;
pub mod cubin;
pub mod files;
pub mod layout;
pub mod ptxas;
pub mod runner;
pub mod toolchain;
