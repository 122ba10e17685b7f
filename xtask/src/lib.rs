//! The pipeline: orchestration, no arithmetic. What a figure means is kbench's, what touches a device is the runner's.

pub mod build;
pub mod ceilings;
pub mod console;
pub mod cubin;
pub mod disassembly;
pub mod dist;
pub mod doctor;
pub mod environment;
pub mod export;
pub mod files;
mod float64;
pub mod golden;
pub mod inspect;
pub mod layout;
pub mod ncu;
pub mod peers;
pub mod plan;
pub mod profile;
pub mod ptxas;
pub mod run_dir;
pub mod runner;
pub mod sanitize;
pub mod selftest;
pub mod toolchain;
pub mod tune;
pub mod validate;
