//! End to end: the `xtask` binary, the real compilers and kernels. One test program, so that it is linked once.

mod accept;
mod against;
mod cli;
mod command_line;
mod common;
mod culprit;
mod emulate;
mod emulated_hopper;
mod evidence;
mod gate_file;
mod golden;
mod hopper;
mod host_code;
mod machine_code;
mod memory;
mod mutants;
mod ncu;
mod pull_request;
mod sanitize;
mod several_gpus;
mod triton;
mod tune;
mod unfinished;
mod wheel;
mod width;
