//! The parsed module: declarations and instructions in one generic shape.
//!
//! Registers and variables are resolved to indices here because their scopes are known only
//! while parsing; opcodes and modifiers stay text until lowering.

use std::collections::HashMap;

/// Fundamental type of a register, variable or instruction modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
}

impl Ty {
    /// The type named by a modifier such as `u32`.
    pub(crate) fn parse(text: &str) -> Option<Ty> {
        Some(match text {
            "pred" => Ty::Pred,
            "b8" => Ty::B8,
            "b16" => Ty::B16,
            "b32" => Ty::B32,
            "b64" => Ty::B64,
            "u8" => Ty::U8,
            "u16" => Ty::U16,
            "u32" => Ty::U32,
            "u64" => Ty::U64,
            "s8" => Ty::S8,
            "s16" => Ty::S16,
            "s32" => Ty::S32,
            "s64" => Ty::S64,
            "f16" => Ty::F16,
            "f16x2" => Ty::F16x2,
            "bf16" => Ty::Bf16,
            "bf16x2" => Ty::Bf16x2,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            _ => return None,
        })
    }

    /// Size in bytes; predicates count as one.
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Ty::Pred | Ty::B8 | Ty::U8 | Ty::S8 => 1,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16 => 2,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F16x2 | Ty::Bf16x2 | Ty::F32 => 4,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 8,
        }
    }

    /// Whether the type is a signed integer.
    pub(crate) fn signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    /// Whether the type is one of the floating-point formats.
    pub(crate) fn float(self) -> bool {
        matches!(self, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 | Ty::F32 | Ty::F64)
    }
}

/// State space of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum VarSpace {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// One register of a function.
#[derive(Clone, Debug)]
pub(crate) struct RegDecl {
    pub(crate) name: String,
    pub(crate) ty: Ty,
}

/// A variable: module level, shared, local depot or parameter.
#[derive(Clone, Debug)]
pub(crate) struct Var {
    pub(crate) name: String,
    pub(crate) space: VarSpace,
    pub(crate) align: u32,
    /// Size in bytes; 0 for `extern` arrays whose size the launch gives.
    pub(crate) bytes: u64,
    pub(crate) init: Vec<InitItem>,
    pub(crate) external: bool,
    pub(crate) line: u32,
}

/// A piece of an initialiser.
#[derive(Clone, Debug)]
pub(crate) enum InitItem {
    /// Little-endian bytes.
    Bytes(Vec<u8>),
    /// The 64-bit address of a symbol plus an offset.
    Address(String, i64),
}

/// Which piece of a 32-bit register an operand names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) first_bit: u32,
    pub(crate) bits: u32,
}

/// A formal parameter or return value of a function.
#[derive(Clone, Debug)]
pub(crate) enum Formal {
    /// Index into [`Function::vars`].
    Var(usize),
    /// Indices into [`Function::regs`]: one, or the elements of a vector register.
    Regs(Vec<usize>),
}

/// An instruction operand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// Index into [`Function::regs`].
    Reg(usize),
    /// A byte or half of a 32-bit register, as the video instructions name it.
    Part(usize, Part),
    /// A register plus a constant.
    Sum(usize, i64),
    /// Index into [`Function::vars`].
    Var(usize, i64),
    /// Special register such as `%tid.x`.
    Special(String),
    /// Label, function, module-level variable or keyword, plus an offset.
    Name(String, i64),
    Int(i64),
    F32(u32),
    F64(u64),
    /// `_`
    Sink,
    /// `[base + offset]`; the base is a register, variable, name or integer.
    Addr(Box<Operand>, i64),
    /// `{a, b, …}`
    Vector(Vec<Operand>),
    /// `(a, b, …)`
    List(Vec<Operand>),
    /// `p|q`
    Pair(Box<Operand>, Box<Operand>),
    /// `!p`
    Not(Box<Operand>),
}

/// One instruction, its opcode split at the dots.
#[derive(Clone, Debug)]
pub(crate) struct Inst {
    /// Guard register and whether it is negated.
    pub(crate) guard: Option<(usize, bool)>,
    pub(crate) opcode: String,
    pub(crate) modifiers: Vec<String>,
    pub(crate) operands: Vec<Operand>,
    pub(crate) line: u32,
    /// Index into [`Function::locs`], if a `.loc` came before.
    pub(crate) loc: Option<usize>,
    /// Scope the instruction stands in, for labels.
    pub(crate) scope: usize,
}

/// A position in a CUDA source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pos {
    pub(crate) file: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A `.loc` directive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loc {
    pub(crate) pos: Pos,
    pub(crate) inlined_at: Option<Pos>,
}

/// A label: the scope it was declared in, its name and the instruction it stands before.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) scope: usize,
    pub(crate) name: String,
    pub(crate) at: usize,
}

/// A kernel or device function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) entry: bool,
    /// False for prototypes and external functions.
    pub(crate) defined: bool,
    pub(crate) params: Vec<Formal>,
    pub(crate) returns: Vec<Formal>,
    pub(crate) regs: Vec<RegDecl>,
    pub(crate) vars: Vec<Var>,
    pub(crate) insts: Vec<Inst>,
    pub(crate) labels: Vec<Label>,
    /// Parent of each scope; scope 0 is the body and its own parent.
    pub(crate) scope_parent: Vec<usize>,
    pub(crate) locs: Vec<Loc>,
    /// `.branchtargets` and `.calltargets`: the label before the directive and the names behind it.
    pub(crate) targets: HashMap<String, Vec<String>>,
    /// `.maxntid` or `.reqntid`, product of the dimensions.
    pub(crate) max_threads: Option<u64>,
    /// `.reqntid`, per dimension.
    pub(crate) required_block: Option<[u32; 3]>,
    /// `.reqnctapercluster`, per dimension.
    pub(crate) required_cluster: Option<[u32; 3]>,
    pub(crate) line: u32,
}

/// A parsed translation unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unit {
    pub(crate) target: String,
    pub(crate) files: HashMap<u32, String>,
    pub(crate) vars: Vec<Var>,
    pub(crate) functions: Vec<Function>,
}

/// Name of a module variable that is declared inside a function; unique in the module.
pub(crate) fn static_name(function: &Function, var: usize) -> String {
    format!("{}.{}.{var}", function.name, function.vars[var].name)
}
