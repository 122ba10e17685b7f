//! Extended-precision arithmetic: `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`.
//!
//! The carry flag is a predicate row of the kernel; each instruction becomes plain row operations
//! and comparisons that find the carry. There is one flag, the carry out of the adder, and a subtraction
//! adds the complement: it leaves "no borrow" there, so that `sub.cc` may be followed by `addc`.

use super::mods::Mods;
use super::operands::{arity, class_of, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::AluOp;
use crate::isa::slot::Class;
use crate::parse::ast::{Inst as AstInst, Ty};

/// Comparison class "less" of the row operations.
const LESS: u16 = 1;

impl Lower<'_> {
    /// Lowers an instruction of this family; false if the opcode belongs elsewhere.
    pub(super) fn lower_carry(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered<bool> {
        let carry_in = matches!(inst.opcode.as_str(), "addc" | "subc" | "madc");
        let carry_out = inst.modifiers.iter().any(|word| word == "cc");
        let plain = matches!(inst.opcode.as_str(), "add" | "sub" | "mad");
        if !(carry_in || carry_out && plain) {
            return Ok(false);
        }
        mods.flag("cc");
        let part = mods.pick(|w| match w {
            "lo" => Some(false),
            "hi" => Some(true),
            _ => None,
        });
        let ty = mods.ty().ok_or("a type is missing")?;
        if !matches!(ty.bytes(), 4 | 8) || ty.float() || ty == Ty::Pred {
            return Err(format!("type .{ty:?} is not supported").to_lowercase());
        }
        if part.is_some() && !inst.opcode.starts_with("mad") {
            return Err("`.lo` and `.hi` belong to products".into());
        }
        let subtract = inst.opcode.starts_with("sub");
        let (d, a, b) = if inst.opcode.starts_with("mad") {
            arity(inst, 4..=4)?;
            let high = part.ok_or("`.lo` or `.hi` is missing")?;
            let product = self.product(inst, ty, high)?;
            (self.dst(operand(inst, 0)?, ty)?, product, self.src(operand(inst, 3)?, ty)?)
        } else {
            arity(inst, 3..=3)?;
            let d = self.dst(operand(inst, 0)?, ty)?;
            (d, self.src(operand(inst, 1)?, ty)?, self.src(operand(inst, 2)?, ty)?)
        };
        self.with_carry(ty, d, [a, b], subtract, carry_in, carry_out)?;
        Ok(true)
    }

    fn product(&mut self, inst: &AstInst, ty: Ty, high: bool) -> Lowered<u16> {
        let op = match (class_of(ty), high, ty.signed()) {
            (Class::D, false, _) => AluOp::MulD,
            (Class::D, true, false) => AluOp::MulHiU64,
            (Class::D, true, true) => AluOp::MulHiS64,
            (_, false, _) => AluOp::MulW,
            (_, true, false) => AluOp::MulHiU32,
            (_, true, true) => AluOp::MulHiS32,
        };
        let rows = [self.src(operand(inst, 1)?, ty)?, self.src(operand(inst, 2)?, ty)?];
        let product = self.temp(class_of(ty))?;
        self.alu(op, product, &rows, 0)?;
        Ok(product)
    }

    /// `d = a + b + carry`, and the carry of it; a subtraction adds the complement of `b` and 1 where no carry is taken.
    fn with_carry(&mut self, ty: Ty, d: u16, [a, b]: [u16; 2], subtract: bool, take: bool, give: bool) -> Lowered {
        use AluOp::*;
        let class = class_of(ty);
        let wide = class == Class::D;
        let pick = |narrow, double| if wide { double } else { narrow };
        let (add, below) = (pick(AddW, AddD), pick(SetpU32, SetpU64));
        let flag = self.carry_flag()?;
        let b = if subtract {
            let complement = self.temp(class)?;
            self.alu(pick(NotW, NotD), complement, &[b], 0)?;
            complement
        } else {
            b
        };
        let incoming = match (take, subtract) {
            (true, _) => {
                let (one, zero) = (self.constant(class, 1)?, self.constant(class, 0)?);
                let row = self.temp(class)?;
                self.alu(pick(SelW, SelD), row, &[one, zero, flag], 0)?;
                Some(row)
            }
            (false, true) => Some(self.constant(class, 1)?),
            (false, false) => None,
        };
        let mut result = self.temp(class)?;
        let mut carry = self.temp(Class::P)?;
        self.alu(add, result, &[a, b], 0)?;
        // A sum is below its first term exactly if it wrapped.
        self.alu(below, carry, &[result, a], LESS)?;
        if let Some(incoming) = incoming {
            let first = std::mem::replace(&mut result, self.temp(class)?);
            let first_carry = std::mem::replace(&mut carry, self.temp(Class::P)?);
            self.alu(add, result, &[first, incoming], 0)?;
            let second_carry = self.temp(Class::P)?;
            self.alu(below, second_carry, &[result, first], LESS)?;
            self.alu(OrP, carry, &[first_carry, second_carry], 0)?;
        }
        if give {
            self.alu(MovP, flag, &[carry], 0)?;
        }
        self.alu(pick(MovW, MovD), d, &[result], 0)
    }

    fn carry_flag(&mut self) -> Lowered<u16> {
        match self.carry {
            Some(row) => Ok(row),
            None => {
                let row = self.temp(Class::P)?;
                self.carry = Some(row);
                Ok(row)
            }
        }
    }
}
