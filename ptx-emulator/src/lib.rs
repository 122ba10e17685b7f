//! Executes PTX on the CPU with checking modes. Knows nothing of attention.
//!
//! A [`Module`] is parsed from text, a [`Kernel`] is taken from it (what cannot be executed
//! faithfully is refused there, by name and line), [`Memory`] holds buffers, and [`run`] executes
//! a [`Launch`] and returns an [`Outcome`] with [`Finding`]s.
//!
//! ```
//! use ptx_emulator::{Launch, Memory, Module, Params, run};
//!
//! let source = "
//! .version 9.0
//! .target sm_89
//! .address_size 64
//! .visible .entry twice(.param .u64 twice_param_0)
//! {
//!     .reg .b32 %r<4>;
//!     .reg .b64 %rd<4>;
//!     ld.param.u64 %rd1, [twice_param_0];
//!     mov.u32 %r1, %tid.x;
//!     shl.b32 %r2, %r1, 1;
//!     mul.wide.u32 %rd2, %r1, 4;
//!     add.s64 %rd3, %rd1, %rd2;
//!     st.global.u32 [%rd3], %r2;
//!     ret;
//! }";
//! let module = Module::parse(source)?;
//! let kernel = module.entry("twice")?;
//! let mut memory = Memory::new(&module);
//! let out = memory.alloc("out", 64 * 4)?;
//! let launch = Launch::new([1, 1, 1], [64, 1, 1], Params::new().pointer(out).finish());
//! let outcome = run(&kernel, &memory, &launch)?;
//! assert!(outcome.is_clean());
//! assert_eq!(memory.read(out)?[4 * 63], 126);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Not executed, refused when the kernel is loaded: wgmma, TMA and other bulk copies, clusters,
//! indirect and recursive calls, `vprintf`, textures and surfaces.

mod check;
mod exec;
mod launch;
mod lower;
mod memory;
mod module;
mod num;
mod parse;
mod program;
mod report;
mod tensor;

pub use exec::profile::ProfileLine;
pub use exec::run::run;
pub use launch::{BlockFilter, Checks, EmuError, Launch, Limits, MmaModel, Outcome, Params, Schedule};
pub use lower::LoadError;
pub use memory::{Buffer, Memory, MemoryError};
pub use module::{Kernel, Module};
pub use parse::ParseError;
pub use report::{Finding, Kind, Severity, Site, findings_to_json};
