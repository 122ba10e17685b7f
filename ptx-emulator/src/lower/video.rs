//! The scalar video instructions: pieces of registers, a sum of 34 bits, saturation, a second operation.

use super::mods::Mods;
use super::operands::{arity, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::{AluOp, X_BITS_AT, X_SIGNED, X_SRC_SIGNED};
use crate::isa::slot::Class;
use crate::parse::ast::{Inst as AstInst, Operand, Part, Ty};

impl Lower<'_> {
    /// Lowers an instruction of this family; false if the opcode belongs elsewhere.
    pub(super) fn lower_video(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered<bool> {
        use AluOp::*;
        match inst.opcode.as_str() {
            "vadd" => self.video(inst, mods, |lower, d, [a, b]| lower.alu(AddD, d, &[a, b], 0))?,
            "vsub" => self.video(inst, mods, |lower, d, [a, b]| lower.alu(SubD, d, &[a, b], 0))?,
            "vmin" => self.video(inst, mods, |lower, d, [a, b]| lower.alu(MinS64, d, &[a, b], 0))?,
            "vmax" => self.video(inst, mods, |lower, d, [a, b]| lower.alu(MaxS64, d, &[a, b], 0))?,
            "vabsdiff" => self.video(inst, mods, |lower, d, [a, b]| {
                let difference = lower.temp(Class::D)?;
                lower.alu(SubD, difference, &[a, b], 0)?;
                lower.alu(AbsS64, d, &[difference], 0)
            })?,
            "vshl" | "vshr" => {
                let wrap = mods.flag("wrap");
                if !wrap && !mods.flag("clamp") {
                    return Err("`.wrap` or `.clamp` is missing".into());
                }
                if inst.opcode == "vshl" && inst.modifiers.iter().any(|word| word == "sat") {
                    // The shifted value may need more than 64 bits.
                    return Err("modifier `.sat` is not supported here".into());
                }
                let op = if inst.opcode == "vshl" { ShlD } else { ShrS64 };
                self.video(inst, mods, |lower, d, [a, b]| {
                    let (word, amount) = (lower.temp(Class::W)?, lower.temp(Class::W)?);
                    lower.alu(TruncD, word, &[b], 0)?;
                    let limit = lower.constant(Class::W, if wrap { 31 } else { 32 })?;
                    lower.alu(if wrap { AndW } else { MinU32 }, amount, &[word, limit], 0)?;
                    lower.alu(op, d, &[a, amount], 0)
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Sources in, `act` in 64 bits, and the result saturated, combined or merged.
    fn video(
        &mut self,
        inst: &AstInst,
        mods: &mut Mods<'_>,
        act: impl FnOnce(&mut Self, u16, [u16; 2]) -> Lowered,
    ) -> Lowered {
        let mut next = || match mods.ty() {
            Some(ty @ (Ty::U32 | Ty::S32)) => Ok(ty),
            _ => Err("three types of 32 bits are expected".to_owned()),
        };
        let (to, a_ty, b_ty) = (next()?, next()?, next()?);
        // A sum of unsigned numbers in a whole register wraps on an H100, `.sat` or not; a difference saturates.
        let whole = !matches!(operand(inst, 0)?, Operand::Part(..));
        let wraps = whole && inst.opcode == "vadd" && [to, a_ty, b_ty] == [Ty::U32; 3];
        let sat = mods.flag("sat") && !wraps;
        let second = mods.pick(|w| match (w, to.signed()) {
            ("add", _) => Some(AluOp::AddW),
            ("min", true) => Some(AluOp::MinS32),
            ("min", false) => Some(AluOp::MinU32),
            ("max", true) => Some(AluOp::MaxS32),
            ("max", false) => Some(AluOp::MaxU32),
            _ => None,
        });
        let part = match operand(inst, 0)? {
            Operand::Part(_, part) => Some(*part),
            _ => None,
        };
        if part.is_some() && second.is_some() {
            return Err("a second operation does not go with a piece of the destination".into());
        }
        let third = part.is_some() || second.is_some();
        arity(inst, if third { 4..=4 } else { 3..=3 })?;
        let a = self.piece(operand(inst, 1)?, a_ty)?;
        let b = self.piece(operand(inst, 2)?, b_ty)?;
        let c = if third { self.src(operand(inst, 3)?, to)? } else { 0 };
        let wide = self.temp(Class::D)?;
        act(self, wide, [a, b])?;
        let value = self.temp(Class::W)?;
        if sat {
            let bits = part.map_or(32, |p| p.bits) as u16;
            let x = if to.signed() { X_SIGNED } else { 0 } | X_SRC_SIGNED | bits << X_BITS_AT;
            self.alu(AluOp::ClampIntW, value, &[wide], x)?;
        } else {
            self.alu(AluOp::TruncD, value, &[wide], 0)?;
        }
        match (second, part) {
            (Some(op), _) => {
                let d = self.dst(operand(inst, 0)?, to)?;
                self.alu(op, d, &[value, c], 0)
            }
            (None, Some(part)) => self.merge(operand(inst, 0)?, to, value, c, part),
            (None, None) => {
                let d = self.dst(operand(inst, 0)?, to)?;
                self.alu(AluOp::MovW, d, &[value], 0)
            }
        }
    }

    /// A source or a piece of it, extended by its type to 64 bits.
    fn piece(&mut self, source: &Operand, ty: Ty) -> Lowered<u16> {
        let row = match source {
            Operand::Part(reg, part) => {
                let whole = self.src(&Operand::Reg(*reg), ty)?;
                let first = self.constant(Class::W, u64::from(part.first_bit))?;
                let bits = self.constant(Class::W, u64::from(part.bits))?;
                let row = self.temp(Class::W)?;
                self.alu(AluOp::BfeW, row, &[whole, first, bits], u16::from(ty.signed()))?;
                row
            }
            whole => self.src(whole, ty)?,
        };
        let wide = self.temp(Class::D)?;
        self.alu(if ty.signed() { AluOp::SextD } else { AluOp::ZextD }, wide, &[row], 0)?;
        Ok(wide)
    }

    /// Puts `value` into a piece of the destination, the rest of which is `c`.
    fn merge(&mut self, to: &Operand, ty: Ty, value: u16, c: u16, part: Part) -> Lowered {
        let Operand::Part(reg, _) = to else {
            return Err("the destination is not a piece of a register".into());
        };
        let d = self.dst(&Operand::Reg(*reg), ty)?;
        let first = self.constant(Class::W, u64::from(part.first_bit))?;
        let bits = self.constant(Class::W, u64::from(part.bits))?;
        // The row operation inserts into its destination, which may also be a source.
        let temp = self.temp(Class::W)?;
        self.alu(AluOp::MovW, temp, &[c], 0)?;
        self.alu(AluOp::BfiW, temp, &[value, first, bits], 0)?;
        self.alu(AluOp::MovW, d, &[temp], 0)
    }
}
