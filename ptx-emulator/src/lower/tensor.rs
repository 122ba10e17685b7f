//! Tensor-core instructions: `ldmatrix`, `stmatrix`, `movmatrix`, `mma`, `wmma`.

use super::memory::space;
use super::mods::Mods;
use super::operands::{arity, operand};
use super::{Lower, Lowered};
use crate::isa::op::{Acc, Elem, Matrix, Mma, MmaHalf, Op};
use crate::isa::space::Space;
use crate::parse::ast::{Inst as AstInst, Operand, Ty};

impl Lower<'_> {
    /// Lowers an instruction of this family; false if the opcode belongs elsewhere.
    pub(super) fn lower_tensor(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered<bool> {
        match inst.opcode.as_str() {
            "ldmatrix" => self.matrix(inst, mods, false)?,
            "stmatrix" => self.matrix(inst, mods, true)?,
            "movmatrix" => self.movmatrix(inst, mods)?,
            "mma" => self.mma(inst, mods)?,
            "wmma" => self.wmma(inst, mods)?,
            "wgmma" => self.warpgroup(inst, mods)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn rows(&mut self, operand: &Operand, count: usize, ty: Ty, to: bool) -> Lowered<Vec<u16>> {
        let parts = Self::vector(operand);
        if parts.len() != count {
            return Err(format!("{} registers given, {count} expected", parts.len()));
        }
        parts.iter().map(|part| if to { self.dst(part, ty) } else { self.src(part, ty) }).collect()
    }

    fn matrix(&mut self, inst: &AstInst, mods: &mut Mods<'_>, store: bool) -> Lowered {
        aligned_sync(mods)?;
        if !mods.flag("m8n8") {
            return Err("only shape m8n8 is supported".into());
        }
        let count = mods.pick(|w| match w {
            "x1" => Some(1),
            "x2" => Some(2),
            "x4" => Some(4),
            _ => None,
        });
        let count = count.ok_or("`.x1`, `.x2` or `.x4` is missing")?;
        let trans = mods.flag("trans");
        let space = space(mods);
        if !matches!(space, Space::Shared | Space::Generic) {
            return Err("matrices are in shared memory".into());
        }
        if !mods.flag("b16") {
            return Err("only .b16 is supported".into());
        }
        arity(inst, 2..=2)?;
        let (list, place) = if store { (1, 0) } else { (0, 1) };
        let regs = self.rows(operand(inst, list)?, count, Ty::B32, !store)?;
        let addr = self.address(operand(inst, place)?, space)?;
        self.emit(Op::Matrix(Box::new(Matrix { store, trans, addr, regs })))
    }

    fn movmatrix(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        aligned_sync(mods)?;
        if !mods.flag("m8n8") || !mods.flag("trans") || !mods.flag("b16") {
            return Err("only `.m8n8.trans.b16` exists".into());
        }
        arity(inst, 2..=2)?;
        let dst = self.dst(operand(inst, 0)?, Ty::B32)?;
        let src = self.src(operand(inst, 1)?, Ty::B32)?;
        self.emit(Op::MoveMatrix { dst, src })
    }

    fn mma(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        aligned_sync(mods)?;
        if mods.flag("m8n8k4") {
            return self.mma_f64(inst, mods);
        }
        let k = mods.pick(|w| match w {
            "m16n8k4" => Some(4),
            "m16n8k8" => Some(8),
            "m16n8k16" => Some(16),
            "m16n8k32" => Some(32),
            _ => None,
        });
        let k = k.ok_or("only shapes m16n8k4, m16n8k8, m16n8k16, m16n8k32 and m8n8k4 of f64 are supported")?;
        if !mods.flag("row") || !mods.flag("col") {
            return Err("only `.row.col` exists".into());
        }
        mods.flag("kind::f8f6f4");
        let satfinite = mods.flag("satfinite");
        let words = type_words(mods)?;
        let [d_word, a_word, b_word, c_word] = words.as_slice() else {
            return Err("four types are expected".into());
        };
        let (d_acc, d_ty) = accumulator(d_word)?;
        let (c_acc, c_ty) = accumulator(c_word)?;
        let (a_elem, b_elem) = (element(a_word)?, element(b_word)?);
        check_mma(k, a_elem, b_elem, c_acc, d_acc)?;
        if satfinite && c_acc != Acc::S32 {
            return Err("modifier `.satfinite` is for integers".into());
        }
        let words_per_k = a_elem.words(k);
        arity(inst, 4..=4)?;
        let registers = |acc: Acc| if acc == Acc::F16 { 2 } else { 4 };
        let d = self.rows(operand(inst, 0)?, registers(d_acc), d_ty, true)?;
        let a = self.rows(operand(inst, 1)?, 2 * words_per_k, Ty::B32, false)?;
        let b = self.rows(operand(inst, 2)?, words_per_k, Ty::B32, false)?;
        let c = self.rows(operand(inst, 3)?, registers(c_acc), c_ty, false)?;
        let halves = vec![MmaHalf { b, c, d }];
        self.emit(Op::Mma(Box::new(Mma { k, a_elem, b_elem, c_acc, d_acc, a, halves, satfinite })))
    }
}

pub(super) fn aligned_sync(mods: &mut Mods<'_>) -> Lowered {
    if mods.flag("sync") && mods.flag("aligned") {
        return Ok(());
    }
    Err("`.sync.aligned` is missing".into())
}

/// True for column-major.
pub(super) fn layout(mods: &mut Mods<'_>) -> Lowered<bool> {
    mods.pick(|w| match w {
        "row" => Some(false),
        "col" => Some(true),
        _ => None,
    })
    .ok_or_else(|| "`.row` or `.col` is missing".into())
}

/// The remaining type words, in order.
pub(super) fn type_words(mods: &mut Mods<'_>) -> Lowered<Vec<String>> {
    let known = |w: &str| {
        let small = matches!(w, "e4m3" | "e5m2" | "f16" | "bf16" | "tf32" | "f32" | "f64" | "s32" | "s8" | "u8");
        small.then(|| w.to_owned())
    };
    let mut words = Vec::new();
    while let Some(word) = mods.pick(known) {
        words.push(word);
    }
    Ok(words)
}

pub(super) fn element(word: &str) -> Lowered<Elem> {
    Ok(match word {
        "f16" => Elem::F16,
        "bf16" => Elem::Bf16,
        "tf32" => Elem::Tf32,
        "e4m3" => Elem::E4m3,
        "e5m2" => Elem::E5m2,
        "s8" => Elem::S8,
        "u8" => Elem::U8,
        _ => return Err(format!("factor type .{word} is not supported")),
    })
}

pub(super) fn accumulator(word: &str) -> Lowered<(Acc, Ty)> {
    Ok(match word {
        "f32" => (Acc::F32, Ty::F32),
        "f16" => (Acc::F16, Ty::B32),
        "s32" => (Acc::S32, Ty::B32),
        _ => return Err(format!("accumulator type .{word} is not supported")),
    })
}

fn check_mma(k: usize, a: Elem, b: Elem, c: Acc, d: Acc) -> Lowered {
    let integer = |e: Elem| matches!(e, Elem::S8 | Elem::U8);
    let fp8 = |e: Elem| matches!(e, Elem::E4m3 | Elem::E5m2);
    let float_acc = |e: Acc| e != Acc::S32;
    let fits = match (a, b) {
        (Elem::F16, Elem::F16) => matches!(k, 8 | 16) && float_acc(c) && float_acc(d),
        (Elem::Tf32, Elem::Tf32) => matches!(k, 4 | 8) && c == Acc::F32 && d == Acc::F32,
        (Elem::Bf16, Elem::Bf16) => matches!(k, 8 | 16) && c == Acc::F32 && d == Acc::F32,
        _ if fp8(a) && fp8(b) => matches!(k, 16 | 32) && float_acc(c) && float_acc(d),
        _ if integer(a) && integer(b) => matches!(k, 16 | 32) && c == Acc::S32 && d == Acc::S32,
        _ => false,
    };
    if fits { Ok(()) } else { Err("this combination of shape and types does not exist".into()) }
}
