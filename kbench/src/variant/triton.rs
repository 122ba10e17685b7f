//! A Triton function as a gate file declares it, and what its compiler is told on a shape: the types of its arguments, and
//! of each what Triton's JIT would have it know, which is whether it is one, or a multiple of 16. Shapes that agree share a build.
//! Leaves to others: calling Triton.

use kernel_spec::dtype::Dtype;
use kernel_spec::expr::{Expr, Lookup, Value};
use kernel_spec::launch::{Argument, Launch};
use serde::Serialize;

use super::table::{DeclaredLaunch, VariantTable};
use super::{Param, Variant};
use crate::key::BadKey;
use crate::names::Names;
use crate::operator::declared::Declared;

/// Threads of a warp.
const WARP: u32 = 32;
/// What Triton takes where nothing is said.
const NUM_WARPS: i64 = 4;
const NUM_STAGES: i64 = 3;
/// Addresses and integers that are multiples of this are known to be.
const MULTIPLE: i64 = 16;

/// A function and how it is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its launch; the block follows from the warps, and the compiler may have a say in it.
    pub launch: DeclaredLaunch,
    /// Warps of a program.
    pub num_warps: Expr,
    /// Stages of the software pipeline.
    pub num_stages: Expr,
}

impl Function {
    /// Of a variant's table.
    pub(super) fn of(
        name: String,
        table: &mut VariantTable,
        missing: impl Fn(&str, &str) -> BadKey,
    ) -> Result<Function, BadKey> {
        let num_warps = table.num_warps.take().unwrap_or_else(|| Expr::constant(NUM_WARPS));
        let threads = format!("{WARP} * ({num_warps})");
        let block = threads.parse().map_err(|_| missing("num_warps", "give the warps of a program"))?;
        let launch = DeclaredLaunch {
            entry: name,
            params: table.params.take().ok_or_else(|| missing("params", "list what the function takes, in order"))?,
            grid: table
                .grid
                .take()
                .ok_or_else(|| missing("grid", "give the number of programs, one to three extents"))?,
            block: vec![block],
            shared: None,
            cluster: None,
            cooperative: false,
            pdl: false,
        };
        let num_stages = table.num_stages.take().unwrap_or_else(|| Expr::constant(NUM_STAGES));
        Ok(Function { launch, num_warps, num_stages })
    }

    /// What Triton cannot be given.
    pub(super) fn check(&self, key: &dyn Fn(&str) -> String) -> Result<(), BadKey> {
        let odd = |param: &&Param| matches!(param, Param::Struct { .. } | Param::Map { .. });
        match self.launch.params.iter().position(|param| odd(&param)) {
            Some(i) => {
                BadKey::refuse(key(&format!("params[{i}]")), "Triton takes tensors, numbers and null: pass its members")
            }
            None => Ok(()),
        }
    }
}

/// What the compiler is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Specialised {
    /// Values of `tl.constexpr` parameters, by name.
    pub constants: Vec<(String, Value)>,
    /// Warps of a program.
    pub num_warps: u32,
    /// Stages of the software pipeline.
    pub num_stages: u32,
    /// The other parameters in order.
    pub arguments: Vec<Told>,
}

/// What the compiler is told of one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its type in Triton's words: `*fp16`, `i32`; empty for null, which is a constant.
    pub kind: String,
    /// What is known of its value.
    pub known: Known,
}

/// What the JIT looks at in an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// An integer that is one becomes a constant.
    One,
    /// An address or integer is a multiple of 16.
    Multiple,
    /// Neither.
    Nothing,
}

impl Variant {
    /// What Triton is told on a shape, by the numbers of its launch.
    pub(super) fn specialised(
        &self,
        function: &Function,
        operator: &Declared,
        names: &Names,
    ) -> Result<Specialised, BadKey> {
        let constant = |name: &str| names.get(name).map(|value| (name.to_owned(), value));
        let positive = |expr: &Expr, part: &str| names.small(expr, 1, &self.key(part));
        let num_warps = positive(&function.num_warps, "num_warps")?;
        if !num_warps.is_power_of_two() {
            return BadKey::refuse(self.key("num_warps"), format!("is {num_warps}, and must be a power of two"));
        }
        Ok(Specialised {
            constants: self.define.keys().filter_map(constant).collect(),
            num_warps,
            num_stages: positive(&function.num_stages, "num_stages")?,
            arguments: function.launch.params.iter().map(|param| self.told(operator, param)).collect(),
        })
    }

    fn told(&self, operator: &Declared, param: &Param) -> Told {
        let dtype = |name: &str| {
            let given = operator.inputs.get(name).map(|i| i.dtype).or(operator.outputs.get(name).map(|o| o.dtype));
            given.or(self.scratch.get(name).map(|s| s.dtype))
        };
        let kind = match param {
            Param::Tensor(name) => dtype(name).map(|dtype| format!("*{}", pointee(dtype))).unwrap_or_default(),
            Param::Scalar { dtype, .. } => number(*dtype).to_owned(),
            Param::Null | Param::Struct { .. } | Param::Map { .. } => String::new(),
        };
        Told { kind, known: Known::Nothing }
    }
}

impl Specialised {
    /// With what the JIT would know of a launch's arguments. Every tensor begins at a multiple of 16.
    pub(super) fn by(mut self, launch: &Launch) -> Specialised {
        for (told, argument) in self.arguments.iter_mut().zip(&launch.params) {
            told.known = match argument {
                Argument::Tensor(_) => Known::Multiple,
                Argument::Scalar { value: Value::Int(1), dtype, .. } if is_integer(*dtype) => Known::One,
                Argument::Scalar { value: Value::Int(n), dtype, .. } if is_integer(*dtype) && n % MULTIPLE == 0 => {
                    Known::Multiple
                }
                _ => Known::Nothing,
            };
        }
        self
    }
}

fn is_integer(dtype: Dtype) -> bool {
    !dtype.is_float() && dtype != Dtype::Bool
}

/// A type that is pointed to.
fn pointee(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Bool => "i1",
        other => number(other),
    }
}

/// A type in Triton's words.
fn number(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "fp64",
        Dtype::F32 => "fp32",
        Dtype::F16 => "fp16",
        Dtype::Bf16 => "bf16",
        Dtype::E4m3 => "fp8e4nv",
        Dtype::E5m2 => "fp8e5",
        Dtype::I8 => "i8",
        Dtype::U8 => "u8",
        Dtype::I16 => "i16",
        Dtype::U16 => "u16",
        Dtype::I32 => "i32",
        Dtype::U32 => "u32",
        Dtype::I64 => "i64",
        Dtype::U64 => "u64",
        Dtype::Bool => "u1",
    }
}
