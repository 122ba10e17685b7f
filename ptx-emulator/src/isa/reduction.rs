//! What a bulk copy that reduces does to each element of its destination.

use crate::isa::op::AtomOp;
use crate::tensor_map::TensorElement;

/// `.redOp`; with the type of the elements it is an operation on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
}

impl Reduction {
    /// By its word in PTX.
    pub(crate) fn parse(word: &str) -> Option<Reduction> {
        Some(match word {
            "add" => Reduction::Add,
            "min" => Reduction::Min,
            "max" => Reduction::Max,
            "inc" => Reduction::Inc,
            "dec" => Reduction::Dec,
            "and" => Reduction::And,
            "or" => Reduction::Or,
            "xor" => Reduction::Xor,
            _ => return None,
        })
    }

    /// The operation on elements of this type; none where there is none, or the emulator lacks it (minima and maxima of
    /// 16-bit floats).
    pub(crate) fn on(self, element: TensorElement) -> Option<AtomOp> {
        use TensorElement as E;
        Some(match (self, element) {
            (Reduction::Add, E::F16) => AtomOp::AddF16x2,
            (Reduction::Add, E::Bf16) => AtomOp::AddBf16x2,
            (Reduction::Add, E::F32) => AtomOp::AddF32,
            (Reduction::Add, E::F64) => AtomOp::AddF64,
            (Reduction::Add, E::U32 | E::S32 | E::U64 | E::S64) => AtomOp::Add,
            (Reduction::Min, E::U32 | E::U64) => AtomOp::MinU,
            (Reduction::Min, E::S32 | E::S64) => AtomOp::MinS,
            (Reduction::Max, E::U32 | E::U64) => AtomOp::MaxU,
            (Reduction::Max, E::S32 | E::S64) => AtomOp::MaxS,
            (Reduction::Inc, E::U32) => AtomOp::Inc,
            (Reduction::Dec, E::U32) => AtomOp::Dec,
            (Reduction::And, E::U32 | E::S32 | E::U64 | E::S64) => AtomOp::And,
            (Reduction::Or, E::U32 | E::S32 | E::U64 | E::S64) => AtomOp::Or,
            (Reduction::Xor, E::U32 | E::S32 | E::U64 | E::S64) => AtomOp::Xor,
            _ => return None,
        })
    }
}
