//! Logic, shifts and bit fields.

use super::mods::Mods;
use super::operands::{arity, class_of, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::AluOp;
use crate::isa::slot::Class;
use crate::parse::ast::{Inst as AstInst, Operand, Ty};

impl Lower<'_> {
    pub(super) fn logic(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let ty = mods.ty().ok_or("a type is missing")?;
        use AluOp::*;
        let op = match (inst.opcode.as_str(), class_of(ty)) {
            ("and", Class::W) => AndW,
            ("and", Class::D) => AndD,
            ("and", Class::P) => AndP,
            ("or", Class::W) => OrW,
            ("or", Class::D) => OrD,
            ("or", Class::P) => OrP,
            ("xor", Class::W) => XorW,
            ("xor", Class::D) => XorD,
            ("xor", Class::P) => XorP,
            ("not", Class::W) if ty.bytes() == 2 => Not16,
            ("not", Class::W) => NotW,
            ("not", Class::D) => NotD,
            ("not", Class::P) => NotP,
            ("cnot", Class::W) => Cnot,
            _ => return Err(format!("type .{ty:?} is not supported").to_lowercase()),
        };
        let sources = if matches!(inst.opcode.as_str(), "not" | "cnot") { 1 } else { 2 };
        self.uniform(inst, op, ty, sources, 0)
    }

    pub(super) fn shift(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let ty = mods.ty().ok_or("a type is missing")?;
        use AluOp::*;
        let op = match (inst.opcode.as_str(), ty.bytes(), ty.signed()) {
            ("shl", 2, _) => Shl16,
            ("shl", 4, _) => ShlW,
            ("shl", 8, _) => ShlD,
            ("shr", 2, true) => ShrS16,
            ("shr", 2 | 4, false) => ShrU32,
            ("shr", 4, true) => ShrS32,
            ("shr", 8, true) => ShrS64,
            ("shr", 8, false) => ShrU64,
            _ => return Err(format!("type .{ty:?} is not supported").to_lowercase()),
        };
        arity(inst, 3..=3)?;
        let d = self.dst(operand(inst, 0)?, ty)?;
        let a = self.src(operand(inst, 1)?, ty)?;
        let n = self.src(operand(inst, 2)?, Ty::U32)?;
        self.alu(op, d, &[a, n], 0)
    }

    pub(super) fn three_words(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        use AluOp::*;
        match inst.opcode.as_str() {
            "shf" => {
                let left = mods.flag("l");
                if !left && !mods.flag("r") {
                    return Err("`.l` or `.r` is missing".into());
                }
                let wrap = mods.flag("wrap");
                if !wrap && !mods.flag("clamp") {
                    return Err("`.wrap` or `.clamp` is missing".into());
                }
                mods.flag("b32");
                let op = match (left, wrap) {
                    (true, true) => ShfLWrap,
                    (true, false) => ShfLClamp,
                    (false, true) => ShfRWrap,
                    (false, false) => ShfRClamp,
                };
                self.uniform(inst, op, Ty::B32, 3, 0)
            }
            "prmt" => {
                mods.flag("b32");
                let modes = ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"];
                let mode = mods.pick(|w| modes.iter().position(|m| *m == w));
                match mode {
                    Some(mode) => self.uniform(inst, PrmtMode, Ty::B32, 3, mode as u16 + 1),
                    None => self.uniform(inst, Prmt, Ty::B32, 3, 0),
                }
            }
            "lop3" => {
                mods.flag("b32");
                arity(inst, 5..=5)?;
                let Operand::Int(table @ 0..=255) = *operand(inst, 4)? else {
                    return Err("the table must be an immediate of 8 bits".into());
                };
                let d = self.dst(operand(inst, 0)?, Ty::B32)?;
                let mut rows = [0; 3];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = self.src(operand(inst, i + 1)?, Ty::B32)?;
                }
                self.alu(Lop3, d, &rows, table as u16)
            }
            _ => {
                let two = inst.opcode == "dp2a";
                let high = two && mods.flag("hi");
                if two && !high && !mods.flag("lo") {
                    return Err("`.lo` or `.hi` is missing".into());
                }
                let (Some(a @ (Ty::U32 | Ty::S32)), Some(b @ (Ty::U32 | Ty::S32))) = (mods.ty(), mods.ty()) else {
                    return Err("two types of 32 bits are expected".into());
                };
                let x = u16::from(a == Ty::S32) | u16::from(b == Ty::S32) << 1 | u16::from(high) << 2;
                self.uniform(inst, if two { Dp2a } else { Dp4a }, Ty::B32, 3, x)
            }
        }
    }

    /// `bmsk`: ones from a position on.
    pub(super) fn bit_mask(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let wrap = mods.flag("wrap");
        if !wrap && !mods.flag("clamp") {
            return Err("`.wrap` or `.clamp` is missing".into());
        }
        match mods.ty() {
            Some(Ty::B32) => self.uniform(inst, AluOp::Bmsk, Ty::B32, 2, u16::from(wrap)),
            _ => Err("only .b32 is supported".into()),
        }
    }

    pub(super) fn bit_field(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        use AluOp::*;
        let shift_amount = inst.opcode == "bfind" && mods.flag("shiftamt");
        let ty = mods.ty().ok_or("a type is missing")?;
        if !matches!(ty.bytes(), 4 | 8) {
            return Err(format!("type .{ty:?} is not supported").to_lowercase());
        }
        let wide = ty.bytes() == 8;
        let pick = |narrow, double| if wide { double } else { narrow };
        let signed = u16::from(ty.signed());
        match inst.opcode.as_str() {
            "brev" => self.uniform(inst, pick(Brev, BrevD), ty, 1, 0),
            "bfe" => {
                arity(inst, 4..=4)?;
                let d = self.dst(operand(inst, 0)?, ty)?;
                let a = self.src(operand(inst, 1)?, ty)?;
                let (b, c) = (self.src_word(operand(inst, 2)?)?, self.src_word(operand(inst, 3)?)?);
                self.alu(pick(BfeW, BfeD), d, &[a, b, c], signed)
            }
            "bfi" => {
                arity(inst, 5..=5)?;
                let d = self.dst(operand(inst, 0)?, ty)?;
                let a = self.src(operand(inst, 1)?, ty)?;
                let base = self.src(operand(inst, 2)?, ty)?;
                let (b, c) = (self.src_word(operand(inst, 3)?)?, self.src_word(operand(inst, 4)?)?);
                // The row operation inserts into its destination, which may also be a source.
                let temp = self.temp(class_of(ty))?;
                self.alu(pick(MovW, MovD), temp, &[base], 0)?;
                self.alu(pick(BfiW, BfiD), temp, &[a, b, c], 0)?;
                self.alu(pick(MovW, MovD), d, &[temp], 0)
            }
            opcode => {
                let (op, x) = match opcode {
                    "clz" => (pick(Clz, ClzD), 0),
                    "popc" => (pick(Popc, PopcD), 0),
                    _ => (pick(Bfind, BfindD), signed | u16::from(shift_amount) << 1),
                };
                arity(inst, 2..=2)?;
                let d = self.dst(operand(inst, 0)?, Ty::B32)?;
                let a = self.src(operand(inst, 1)?, ty)?;
                self.alu(op, d, &[a], x)
            }
        }
    }
}
