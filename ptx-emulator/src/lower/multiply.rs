//! Integer products, dot products and sums of differences.

use super::mods::Mods;
use super::operands::{arity, class_of, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::AluOp;
use crate::isa::slot::Class;
use crate::parse::ast::{Inst as AstInst, Ty};

impl Lower<'_> {
    pub(super) fn multiply(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let ty = mods.ty().ok_or("a type is missing")?;
        let half = mods.pick(|w| match w {
            "lo" | "hi" | "wide" => Some(w.to_owned()),
            _ => None,
        });
        let half = half.ok_or("`.lo`, `.hi` or `.wide` is missing")?;
        let mad = inst.opcode == "mad";
        if mods.flag("sat") {
            if !mad || half != "hi" || ty != Ty::S32 {
                return Err("modifier `.sat` is for `mad.hi.s32` only".into());
            }
            return self.saturating_mad(inst, AluOp::MulHiS32, ty, 0);
        }
        use AluOp::*;
        let wide = half == "wide";
        let op = match (half.as_str(), ty.bytes(), ty.signed(), mad) {
            ("lo", 2, _, false) => Mul16,
            ("lo", 2, _, true) => Mad16,
            ("lo", 4, _, false) => MulW,
            ("lo", 4, _, true) => MadW,
            ("lo", 8, _, false) => MulD,
            ("lo", 8, _, true) => MadD,
            ("hi", 2, false, _) => MulHiU16,
            ("hi", 2, true, _) => MulHiS16,
            ("hi", 4, false, _) => MulHiU32,
            ("hi", 4, true, _) => MulHiS32,
            ("hi", 8, false, _) => MulHiU64,
            ("hi", 8, true, _) => MulHiS64,
            ("wide", 2, false, _) => MulWideU16,
            ("wide", 2, true, _) => MulWideS16,
            ("wide", 4, false, false) => MulWideU32,
            ("wide", 4, true, false) => MulWideS32,
            ("wide", 4, false, true) => MadWideU32,
            ("wide", 4, true, true) => MadWideS32,
            _ => return Err(format!("type .{ty:?} is not supported").to_lowercase()),
        };
        let out = match (wide, ty.bytes()) {
            (true, 2) => Ty::B32,
            (true, _) => Ty::B64,
            _ => ty,
        };
        arity(inst, if mad { 4..=4 } else { 3..=3 })?;
        let d = self.dst(operand(inst, 0)?, out)?;
        let a = self.src(operand(inst, 1)?, ty)?;
        let b = self.src(operand(inst, 2)?, ty)?;
        if !mad {
            return self.alu(op, d, &[a, b], 0);
        }
        let c = self.src(operand(inst, 3)?, out)?;
        if matches!(op, Mad16 | MadW | MadD | MadWideU32 | MadWideS32) {
            return self.alu(op, d, &[a, b, c], 0);
        }
        // The rare forms are a product and a sum.
        let product = self.temp(class_of(out))?;
        self.alu(op, product, &[a, b], 0)?;
        let add = match out.bytes() {
            2 => Add16,
            4 => AddW,
            _ => AddD,
        };
        self.alu(add, d, &[product, c], 0)
    }

    /// A product and a sum that clamps.
    fn saturating_mad(&mut self, inst: &AstInst, op: AluOp, ty: Ty, x: u16) -> Lowered {
        arity(inst, 4..=4)?;
        let rows = [self.src(operand(inst, 1)?, ty)?, self.src(operand(inst, 2)?, ty)?];
        let addend = self.src(operand(inst, 3)?, ty)?;
        let product = self.temp(Class::W)?;
        self.alu(op, product, &rows, x)?;
        let d = self.dst(operand(inst, 0)?, ty)?;
        self.alu(AluOp::AddSatS32, d, &[product, addend], 0)
    }

    /// `mul24` and `mad24`.
    pub(super) fn multiply24(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let high = mods.flag("hi");
        if !high && !mods.flag("lo") {
            return Err("`.lo` or `.hi` is missing".into());
        }
        let sat = mods.flag("sat");
        let ty = mods.ty().ok_or("a type is missing")?;
        if !matches!(ty, Ty::U32 | Ty::S32) {
            return Err(format!("type .{ty:?} is not supported").to_lowercase());
        }
        let x = u16::from(ty.signed()) | u16::from(high) << 1;
        if inst.opcode == "mul24" {
            return match sat {
                true => Err("modifier `.sat` is not supported here".into()),
                false => self.uniform(inst, AluOp::Mul24, ty, 2, x),
            };
        }
        if sat {
            return match (high, ty) {
                (true, Ty::S32) => self.saturating_mad(inst, AluOp::Mul24, ty, x),
                _ => Err("modifier `.sat` is for `mad24.hi.s32` only".into()),
            };
        }
        arity(inst, 4..=4)?;
        let rows = [self.src(operand(inst, 1)?, ty)?, self.src(operand(inst, 2)?, ty)?];
        let addend = self.src(operand(inst, 3)?, ty)?;
        let product = self.temp(Class::W)?;
        self.alu(AluOp::Mul24, product, &rows, x)?;
        let d = self.dst(operand(inst, 0)?, ty)?;
        self.alu(AluOp::AddW, d, &[product, addend], 0)
    }

    /// `sad`: the larger less the smaller, and a sum.
    pub(super) fn sad(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        use AluOp::*;
        let ty = mods.ty().ok_or("a type is missing")?;
        let (max, min, sub, add) = match ty {
            Ty::U32 => return self.uniform(inst, SadU32, ty, 3, 0),
            Ty::S32 => return self.uniform(inst, SadS32, ty, 3, 0),
            Ty::U16 => (MaxU32, MinU32, Sub16, Add16),
            Ty::S16 => (MaxS16, MinS16, Sub16, Add16),
            Ty::U64 => (MaxU64, MinU64, SubD, AddD),
            Ty::S64 => (MaxS64, MinS64, SubD, AddD),
            _ => return Err(format!("type .{ty:?} is not supported").to_lowercase()),
        };
        arity(inst, 4..=4)?;
        let rows = [self.src(operand(inst, 1)?, ty)?, self.src(operand(inst, 2)?, ty)?];
        let addend = self.src(operand(inst, 3)?, ty)?;
        let class = class_of(ty);
        let (larger, smaller, difference) = (self.temp(class)?, self.temp(class)?, self.temp(class)?);
        self.alu(max, larger, &rows, 0)?;
        self.alu(min, smaller, &rows, 0)?;
        self.alu(sub, difference, &[larger, smaller], 0)?;
        let d = self.dst(operand(inst, 0)?, ty)?;
        self.alu(add, d, &[difference, addend], 0)
    }
}
