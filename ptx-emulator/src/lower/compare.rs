//! Comparisons and selections.

use super::mods::Mods;
use super::operands::{arity, class_of, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::AluOp;
use crate::isa::slot::Class;
use crate::parse::ast::{Inst as AstInst, Operand, Ty};

/// Comparison classes as the row operations take them.
const LT: u16 = 1;
const EQ: u16 = 2;
const GT: u16 = 4;
const UNORDERED: u16 = 8;

/// Accepted classes of a comparison word; unsigned words are the same classes.
fn comparison(word: &str, float: bool) -> Option<u16> {
    let ordered = match word {
        "eq" => EQ,
        "ne" => LT | GT,
        "lt" => LT,
        "le" => LT | EQ,
        "gt" => GT,
        "ge" => GT | EQ,
        "lo" if !float => LT,
        "ls" if !float => LT | EQ,
        "hi" if !float => GT,
        "hs" if !float => GT | EQ,
        "equ" if float => EQ | UNORDERED,
        "neu" if float => LT | GT | UNORDERED,
        "ltu" if float => LT | UNORDERED,
        "leu" if float => LT | EQ | UNORDERED,
        "gtu" if float => GT | UNORDERED,
        "geu" if float => GT | EQ | UNORDERED,
        "num" if float => LT | EQ | GT,
        "nan" if float => UNORDERED,
        _ => return None,
    };
    Some(ordered)
}

impl Lower<'_> {
    /// Emits a comparison into predicate row `d`.
    fn compare(&mut self, d: u16, a: &Operand, b: &Operand, ty: Ty, classes: u16, ftz: bool) -> Lowered {
        use AluOp::*;
        if ftz && !matches!(ty, Ty::F32 | Ty::F16) {
            return Err(format!("flushing of .{ty:?} is not supported").to_lowercase());
        }
        let op = match ty {
            Ty::S16 => SetpS16,
            Ty::U16 | Ty::B16 | Ty::U32 | Ty::B32 => SetpU32,
            Ty::S32 => SetpS32,
            Ty::U64 | Ty::B64 => SetpU64,
            Ty::S64 => SetpS64,
            Ty::F32 if ftz => SetpF32Ftz,
            Ty::F32 => SetpF32,
            Ty::F64 => SetpF64,
            Ty::F16 => SetpF16,
            Ty::Bf16 => SetpBf16,
            _ => return Err(format!("comparison of .{ty:?} is not supported").to_lowercase()),
        };
        let mut rows = [self.src(a, ty)?, self.src(b, ty)?];
        if ftz && ty == Ty::F16 {
            rows = self.flushed16(rows)?;
        }
        self.alu(op, d, &rows, classes)
    }

    /// f16 values, subnormal ones as zeros.
    pub(super) fn flushed16(&mut self, mut rows: [u16; 2]) -> Lowered<[u16; 2]> {
        for row in &mut rows {
            let temp = self.temp(Class::W)?;
            self.alu(AluOp::Flush16x2, temp, &[*row], 0)?;
            *row = temp;
        }
        Ok(rows)
    }

    pub(super) fn setp(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let (ty, classes) = comparison_mods(mods)?;
        let ftz = mods.flag("ftz");
        let combine = boolean(mods);
        arity(inst, if combine.is_some() { 4..=4 } else { 3..=3 })?;
        let (p, q) = match operand(inst, 0)? {
            Operand::Pair(p, q) => (p.as_ref(), Some(q.as_ref())),
            single => (single, None),
        };
        if combine.is_none() && q.is_none() {
            let d = self.dst(p, Ty::Pred)?;
            return self.compare(d, operand(inst, 1)?, operand(inst, 2)?, ty, classes, ftz);
        }
        let result = self.temp(Class::P)?;
        self.compare(result, operand(inst, 1)?, operand(inst, 2)?, ty, classes, ftz)?;
        let third = match combine {
            Some(_) => {
                // A destination may also be the third operand.
                let source = self.src(operand(inst, 3)?, Ty::Pred)?;
                let keep = self.temp(Class::P)?;
                self.alu(AluOp::MovP, keep, &[source], 0)?;
                Some(keep)
            }
            None => None,
        };
        let d = self.dst(p, Ty::Pred)?;
        match (combine, third) {
            (Some((op, _)), Some(c)) => self.alu(op, d, &[result, c], 0)?,
            _ => self.alu(AluOp::MovP, d, &[result], 0)?,
        }
        let Some(q) = q else { return Ok(()) };
        let d = self.dst(q, Ty::Pred)?;
        match (combine, third) {
            (Some((_, op)), Some(c)) => self.alu(op, d, &[result, c], 0),
            _ => self.alu(AluOp::NotP, d, &[result], 0),
        }
    }

    pub(super) fn set(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let classes_of = |w: &str| comparison(w, true).or_else(|| comparison(w, false));
        let classes = mods.pick(classes_of).ok_or("a comparison is missing")?;
        let ftz = mods.flag("ftz");
        let (Some(out), Some(ty)) = (mods.ty(), mods.ty()) else {
            return Err("two types are expected".into());
        };
        let combine = boolean(mods);
        arity(inst, if combine.is_some() { 4..=4 } else { 3..=3 })?;
        let combine = match combine {
            Some((op, _)) => Some((op, self.src(operand(inst, 3)?, Ty::Pred)?)),
            None => None,
        };
        let packed = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
        if ftz && packed {
            return Err(format!("flushing of .{ty:?} is not supported").to_lowercase());
        }
        let one = match (out, packed) {
            (Ty::U32 | Ty::S32, false) => 0xffff_ffff,
            (Ty::U32 | Ty::S32, true) => 0xffff,
            (Ty::F32, false) => 0x3f80_0000,
            (Ty::F16, false) | (Ty::F16x2, true) => 0x3c00,
            (Ty::Bf16, false) | (Ty::Bf16x2, true) => 0x3f80,
            _ => return Err(format!("result type .{out:?} is not supported").to_lowercase()),
        };
        let (one, zero) = (self.constant(Class::W, one)?, self.constant(Class::W, 0)?);
        let d = self.dst(operand(inst, 0)?, out)?;
        if packed {
            return self.set_packed(inst, d, ty, classes, ftz, [one, zero], combine);
        }
        let mut p = self.temp(Class::P)?;
        self.compare(p, operand(inst, 1)?, operand(inst, 2)?, ty, classes, ftz)?;
        if let Some((op, other)) = combine {
            let both = self.temp(Class::P)?;
            self.alu(op, both, &[p, other], 0)?;
            p = both;
        }
        self.alu(AluOp::SelW, d, &[one, zero, p], 0)
    }

    /// The constant in row `one` in each half whose comparison holds.
    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    fn set_packed(
        &mut self,
        inst: &AstInst,
        d: u16,
        ty: Ty,
        classes: u16,
        ftz: bool,
        [one, zero]: [u16; 2],
        combine: Option<(AluOp, u16)>,
    ) -> Lowered {
        let op = if ty == Ty::F16x2 { AluOp::SetpF16 } else { AluOp::SetpBf16 };
        let mut rows = [self.src(operand(inst, 1)?, ty)?, self.src(operand(inst, 2)?, ty)?];
        if ftz && ty != Ty::F16x2 {
            return Err(format!("flushing of .{ty:?} is not supported").to_lowercase());
        }
        if ftz {
            rows = self.flushed16(rows)?;
        }
        let mut halves = [0; 2];
        for (high, half) in halves.iter_mut().enumerate() {
            let mut parts = rows;
            if high == 1 {
                for part in &mut parts {
                    let temp = self.temp(Class::W)?;
                    self.alu(AluOp::High16, temp, &[*part], 0)?;
                    *part = temp;
                }
            }
            let mut p = self.temp(Class::P)?;
            self.alu(op, p, &parts, classes)?;
            if let Some((op, other)) = combine {
                let both = self.temp(Class::P)?;
                self.alu(op, both, &[p, other], 0)?;
                p = both;
            }
            *half = self.temp(Class::W)?;
            self.alu(AluOp::SelW, *half, &[one, zero, p], 0)?;
        }
        self.alu(AluOp::Pack16, d, &halves, 0)
    }

    pub(super) fn select(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let ty = mods.ty().ok_or("a type is missing")?;
        arity(inst, 4..=4)?;
        let d = self.dst(operand(inst, 0)?, ty)?;
        let a = self.src(operand(inst, 1)?, ty)?;
        let b = self.src(operand(inst, 2)?, ty)?;
        let class = class_of(ty);
        if inst.opcode == "slct" {
            if class != Class::W || mods.ty() != Some(Ty::S32) {
                return Err("only 32-bit operands with an .s32 selector are supported".into());
            }
            let c = self.src(operand(inst, 3)?, Ty::S32)?;
            return self.alu(AluOp::SlctW, d, &[a, b, c], 0);
        }
        let c = self.src(operand(inst, 3)?, Ty::Pred)?;
        match class {
            Class::W => self.alu(AluOp::SelW, d, &[a, b, c], 0),
            Class::D => self.alu(AluOp::SelD, d, &[a, b, c], 0),
            Class::P => Err("predicates cannot be selected".into()),
        }
    }
}

/// Comparison word and operand type of `setp`.
fn comparison_mods(mods: &mut Mods<'_>) -> Lowered<(Ty, u16)> {
    let ty = mods.ty().ok_or("a type is missing")?;
    let classes = mods.pick(|w| comparison(w, ty.float())).ok_or("a comparison is missing")?;
    Ok((ty, classes))
}

/// Operations that combine a comparison, and its opposite, with a predicate.
fn boolean(mods: &mut Mods<'_>) -> Option<(AluOp, AluOp)> {
    mods.pick(|w| match w {
        "and" => Some((AluOp::AndP, AluOp::AndNotP)),
        "or" => Some((AluOp::OrP, AluOp::OrNotP)),
        "xor" => Some((AluOp::XorP, AluOp::XnorP)),
        _ => None,
    })
}
