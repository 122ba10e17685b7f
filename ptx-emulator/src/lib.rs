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
//! # A device that lasts
//!
//! A host program has one device for many modules and launches. [`Memory::default`] is such a device without a module;
//! [`Memory::load`] parses one and places its variables beside those of others ([`Module::symbol`]). Buffers come and go
//! ([`Memory::alloc`], [`Memory::free`]): an address is never given twice, and whoever uses one that was freed is told its
//! name. [`Memory::locate`] leads from an address to its buffer, [`Memory::copy`] keeps what is undefined so, and
//! [`Memory::undefined`] says which bytes nobody wrote. [`Module::entry`] lowers a kernel once. [`Kernel::pack`] makes the
//! parameter block from one value a parameter, as `cudaLaunchKernel` is given them.
//!
//! ```
//! use ptx_emulator::{Launch, Memory, run};
//!
//! let source = ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry store(.param .u64 to, .param .u32 value)
//! { .reg .b64 %rd<2>; .reg .b32 %r<2>; ld.param.u64 %rd1, [to]; ld.param.u32 %r1, [value]; st.global.u32 [%rd1], %r1; ret; }";
//! let mut memory = Memory::default();
//! let module = memory.load(source)?;
//! let kernel = module.entry("store")?;
//! let to = memory.alloc("to", 8)?;
//! let params = kernel.pack(&[&to.address().to_le_bytes(), &7u32.to_le_bytes()]).expect("a pointer and a word");
//! assert!(run(&kernel, &memory, &Launch::new([1; 3], [1; 3], params))?.is_clean());
//! assert_eq!(memory.undefined(to, 0..8)?, [4..8]);
//! memory.free(to)?;
//! assert_eq!(memory.describe(to.address()), "to + 0x0 of 8 bytes, which was freed");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Not executed, refused when the kernel is loaded: bulk copies by tensor map but for whole tiles, bulk copies that
//! reduce into shared memory, sparse products, recursive calls, textures and surfaces, allocation on the device.
//! Every launch counts as cooperative. A call through a register tries every function whose address is taken and
//! whose parameters fit. What a kernel prints is collected in [`Outcome::printed`].
//!
//! # Counts
//!
//! With [`Launch::counts`] set, [`Outcome::counts`] says what the blocks did, in all and by source line: sectors of global
//! memory, passes and conflicts of shared memory's banks, divergence, products, PTX instructions by class ([`Counts`]).
//! Nothing that a launch computes or finds changes. Sectors and products are what a profiler counted of three kernels on an H200.
//!
//! # What a clean run does not prove
//!
//! - Another schedule may show what this one did not: run several ([`Schedule`]).
//! - A `bar.warp.sync` of some lanes orders the whole warp here. Ordering between blocks is by block, not by thread; what
//!   atomics and fences order within a block is by lane for the lanes of one warp, by warp for others.
//! - Global memory remembers the last writer and two readers per word, of two blocks if two have read: of several races on
//!   one word, some may go unnamed.
//! - Without the check for races, what several blocks write unordered is left to the host's threads.
//! - What is undefined is known by the bit in registers and local memory, by the byte in shared and global memory.
//! - Approximate functions are within 1 ulp of the truth, not bit-equal to the hardware's. Every other
//!   instruction form in [`conformance`] was compared with an H100 and agrees in every bit, the sums of its tensor cores
//!   ([`MmaModel::Sm90`]) and `wgmma` with the layouts of its operands among them; the models of Ampere and Ada are
//!   published ones that were not compared with silicon here.
//! - What a fence of the asynchronous proxy covers is known by the warp, not by the lane. A `wgmma` reads its operands and
//!   a bulk copy its source when they are issued; whoever changes them before the wait is reported. What `cp.async` wrote
//!   and was waited for needs no such fence: the ISA's text leaves that open, and CUTLASS's Hopper main loops that fill
//!   their ring by `cp.async` (`sm90_mma_multistage_gmma_*`), FlashAttention-3 (`paged_kv.h`) and Triton (its pass
//!   FenceInsertion looks at stores from registers alone) rely on it.
//! - Of what a bulk copy that reduces adds, an H100 was asked one thing: its sums of `f32` and `f16` keep subnormal
//!   numbers, where those of `red` flush them. The ISA does not say.
//! - An H100 begins a `wgmma` when all four warps of the warpgroup have come. The ISA promises less, and here each warp's
//!   part is computed as that comes: what another had still to write is missed, and the race is reported.
//! - A map that a kernel makes (`tensormap.replace`) is read as it is when a copy begins: that nobody fenced it
//!   (`fence.proxy.tensormap`) is not found.
//! - A `mov` of a register of a product between its fence and its wait only passes it on, as nvcc's assembler takes
//!   it; any other use is reported.
//! - `wmma.load` and `wmma.store` have no lane of their own per byte: a plain access by the same warp
//!   without `bar.warp.sync` between is a WARNING.
//!
//! # Hopper kernels of others
//!
//! Of 30 kernels of CUTLASS, DeepGEMM, ThunderKittens and FlashAttention-3 (forward and backward), compiled for
//! sm_90a and launched as their hosts do, 29 load and 27 agree with a float64 reference. Refused is CUTLASS's sparse
//! product; its grouped one loads and was not launched. What is found in eight is that nobody fences an
//! mbarrier between its `init` and the first copy that it is told of, as NVIDIA's programming guide wants. CuTe's
//! first tutorial (`wgmma_sm90.cu`) has no barrier between its wait for `cp.async` and its product, so that a warp
//! reads what others have not waited for: it relies on a warpgroup's product beginning when all four warps are there,
//! which the ISA does not say and is not modelled. With one `bar.sync` there it is right and nothing is found.
//!
//! # Blocks
//!
//! A [`Schedule`] has one outcome, whatever the host's threads: outputs, findings and their texts. Blocks run at the same
//! time, but what orders them (strong accesses to global memory, their end, a wait) happens in turns, by rounds of a block's own
//! instructions. Where a race between blocks shows, its outcome was luck: what was written is put back, and one thread
//! runs the blocks in turns. Reads of memory that nobody has written are not recorded; where somebody does later, the
//! launch begins anew, too, and records them.
//!
//! # Adding an instruction
//!
//! Start with a failing case in `tests/instructions.rs` (or the test of its family) and a line in
//! `conformance/table.rs`, which a machine with a GPU answers (`cargo xtask golden`); until then
//! `conformance::UNANSWERED` says why it has no answer. A row operation is
//! one line in the table of `isa/alu_table.rs` and an arm in `lower/` that takes every modifier it
//! understands from `lower::mods`; what is left over is refused by itself. Anything that touches
//! memory or other lanes is a variant of `isa::op::Op` with a handler in `exec/`, and says in
//! `isa/reads_writes.rs` which registers it reads and writes. A row operation whose result is defined although a
//! source is not has a rule in `isa/undefined.rs`; without one, its whole result is undefined then.

#![warn(missing_docs)]

mod buffer;
mod check;
pub mod conformance;
mod counts;
mod exec;
mod isa;
mod launch;
mod lower;
mod machine;
mod memory;
mod module;
mod num;
mod parse;
mod program;
mod report;
mod tensor;
mod tensor_map;

pub use buffer::Buffer;
pub use counts::{ClassCount, Counts, LineCounts, Tally};
pub use exec::run::grid::run;
pub use launch::{BlockFilter, Checks, EmuError, Launch, Limits, MmaModel, Outcome, Params, ProfileLine, Schedule};
pub use lower::LoadError;
pub use memory::{Memory, MemoryError};
pub use module::{Kernel, Module};
pub use parse::ParseError;
pub use report::{Finding, Kind, Severity, Site, findings_to_json};
pub use tensor_map::{MAP_BYTES, TensorElement, TensorMap, TensorMapError};
