//! A decoded kernel: what the lowering hands to the interpreter.

use crate::isa::engines::Engines;
use crate::isa::op::{Inst, Special};
use crate::isa::slot::Slot;
use crate::parse::ast::Pos;

/// Initial value of a constant row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RowInit {
    Const(u64),
    Special(Special),
}

/// A named piece of shared memory.
#[derive(Clone, Debug)]
pub(crate) struct SharedVar {
    pub(crate) name: String,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

/// A kernel parameter.
#[derive(Clone, Debug)]
pub(crate) struct ParamVar {
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

/// Where an instruction comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin {
    /// Line of the PTX text.
    pub(crate) line: u32,
    /// Index into [`Program::sources`], or `u32::MAX`.
    pub(crate) source: u32,
    /// The first of those that a PTX instruction became.
    pub(crate) leads: bool,
}

/// A source position, innermost first, then the callers it was inlined into.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceChain(pub(crate) Vec<Pos>);

/// A kernel ready to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) insts: Vec<Inst>,
    pub(crate) origins: Vec<Origin>,
    /// Opcode with modifiers, per instruction, for reports.
    pub(crate) texts: Vec<u32>,
    pub(crate) text_table: Vec<String>,
    pub(crate) sources: Vec<SourceChain>,
    pub(crate) w_rows: usize,
    pub(crate) d_rows: usize,
    pub(crate) p_rows: usize,
    pub(crate) inits: Vec<(Slot, RowInit)>,
    pub(crate) shared: Vec<SharedVar>,
    /// Offset of the dynamic part; everything before it is static.
    pub(crate) shared_static_bytes: u32,
    pub(crate) uses_dynamic_shared: bool,
    /// Offset of the shared memory that the system reserves, where the kernel names it.
    pub(crate) reserved_shared: Option<u32>,
    pub(crate) local_bytes: u32,
    pub(crate) params: Vec<ParamVar>,
    pub(crate) param_bytes: u32,
    pub(crate) max_threads: Option<u64>,
    pub(crate) required_block: Option<[u32; 3]>,
    pub(crate) required_cluster: Option<[u32; 3]>,
    /// Engines that it makes use of.
    pub(crate) engines: Engines,
}
