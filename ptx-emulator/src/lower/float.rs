//! Floating-point arithmetic and approximations.

use super::mods::Mods;
use super::operands::{arity, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::{AluOp, X_FTZ, X_SAT};
use crate::isa::slot::Class;
use crate::num::float::Round;
use crate::parse::ast::{Inst as AstInst, Ty};

/// Rounding word of an arithmetic instruction.
pub(super) fn rounding(mods: &mut Mods<'_>) -> Option<Round> {
    mods.pick(|w| match w {
        "rn" => Some(Round::Nearest),
        "rz" => Some(Round::Zero),
        "rm" => Some(Round::Down),
        "rp" => Some(Round::Up),
        _ => None,
    })
}

impl Lower<'_> {
    /// Lowers an instruction of this family; false if the opcode belongs elsewhere.
    pub(super) fn lower_float(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered<bool> {
        match inst.opcode.as_str() {
            "add" | "sub" | "mul" | "fma" | "mad" => self.arithmetic(inst, mods)?,
            "min" | "max" | "neg" | "abs" | "copysign" => self.sign_and_order(inst, mods)?,
            "div" | "rcp" | "sqrt" | "rsqrt" => self.division(inst, mods)?,
            "ex2" | "lg2" | "sin" | "cos" | "tanh" => self.approximation(inst, mods)?,
            "testp" => self.testp(inst, mods)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn arithmetic(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let round = rounding(mods).unwrap_or(Round::Nearest);
        let (ftz, sat) = (mods.flag("ftz"), mods.flag("sat"));
        let ty = mods.ty().ok_or("a type is missing")?;
        let opcode = if inst.opcode == "mad" { "fma" } else { inst.opcode.as_str() };
        match ty {
            Ty::F32 if round != Round::Nearest || sat => self.rounded32(inst, opcode, round, ftz, sat),
            Ty::F32 => {
                use AluOp::*;
                let op = match (opcode, ftz) {
                    ("add", false) => AddF32,
                    ("add", true) => AddF32Ftz,
                    ("sub", false) => SubF32,
                    ("sub", true) => SubF32Ftz,
                    ("mul", false) => MulF32,
                    ("mul", true) => MulF32Ftz,
                    (_, false) => FmaF32,
                    (_, true) => FmaF32Ftz,
                };
                self.uniform(inst, op, ty, sources(opcode), 0)
            }
            Ty::F64 if round == Round::Nearest && !ftz && !sat => {
                let op = match opcode {
                    "add" => AluOp::AddF64,
                    "sub" => AluOp::SubF64,
                    "mul" => AluOp::MulF64,
                    _ => AluOp::FmaF64,
                };
                self.uniform(inst, op, ty, sources(opcode), 0)
            }
            Ty::F64 if !ftz && !sat => self.rounded64(inst, opcode, round),
            Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 if round == Round::Nearest && !ftz && !sat => {
                self.half_arithmetic(inst, mods, opcode, ty)
            }
            _ => Err(format!("this rounding, flushing or saturation of .{ty:?} is not supported").to_lowercase()),
        }
    }

    /// Directed rounding and saturation through the general fused form.
    fn rounded32(&mut self, inst: &AstInst, opcode: &str, round: Round, ftz: bool, sat: bool) -> Lowered {
        let x = round.code() | if ftz { X_FTZ } else { 0 } | if sat { X_SAT } else { 0 };
        let count = sources(opcode);
        arity(inst, count + 1..=count + 1)?;
        let d = self.dst(operand(inst, 0)?, Ty::F32)?;
        let mut rows = Vec::new();
        for i in 1..=count {
            rows.push(self.src(operand(inst, i)?, Ty::F32)?);
        }
        let one = self.constant(Class::W, 0x3f80_0000)?;
        let minus_one = self.constant(Class::W, 0xbf80_0000)?;
        let minus_zero = self.constant(Class::W, 0x8000_0000)?;
        let args = match opcode {
            "add" => [rows[0], one, rows[1]],
            "sub" => [rows[1], minus_one, rows[0]],
            // x * y + -0 keeps the sign of a zero product; rounding down makes -0 of any two zeros that differ.
            "mul" if round == Round::Down => [rows[0], rows[1], self.constant(Class::W, 0)?],
            "mul" => [rows[0], rows[1], minus_zero],
            _ => [rows[0], rows[1], rows[2]],
        };
        self.alu(AluOp::FmaF32Round, d, &args, x)
    }

    /// Directed rounding of f64 through the general fused form.
    fn rounded64(&mut self, inst: &AstInst, opcode: &str, round: Round) -> Lowered {
        let count = sources(opcode);
        arity(inst, count + 1..=count + 1)?;
        let d = self.dst(operand(inst, 0)?, Ty::F64)?;
        let mut rows = Vec::new();
        for i in 1..=count {
            rows.push(self.src(operand(inst, i)?, Ty::F64)?);
        }
        let one = self.constant(Class::D, 1f64.to_bits())?;
        let minus_one = self.constant(Class::D, (-1f64).to_bits())?;
        let args = match opcode {
            "add" => [rows[0], one, rows[1]],
            "sub" => [rows[1], minus_one, rows[0]],
            "mul" => {
                // x * y + -0 keeps the sign of a zero product; rounding down makes -0 of any two zeros that differ.
                let zero = if round == Round::Down { 0f64 } else { -0f64 };
                [rows[0], rows[1], self.constant(Class::D, zero.to_bits())?]
            }
            _ => [rows[0], rows[1], rows[2]],
        };
        self.alu(AluOp::FmaF64Round, d, &args, round.code())
    }

    fn half_arithmetic(&mut self, inst: &AstInst, mods: &mut Mods<'_>, opcode: &str, ty: Ty) -> Lowered {
        use AluOp::*;
        let relu = opcode == "fma" && mods.flag("relu");
        let brain = matches!(ty, Ty::Bf16 | Ty::Bf16x2);
        let op = match (opcode, brain, relu) {
            ("add", false, _) => AddF16,
            ("add", true, _) => AddBf16,
            ("sub", false, _) => SubF16,
            ("sub", true, _) => SubBf16,
            ("mul", false, _) => MulF16,
            ("mul", true, _) => MulBf16,
            (_, false, false) => FmaF16,
            (_, true, false) => FmaBf16,
            (_, false, true) => FmaReluF16,
            (_, true, true) => FmaReluBf16,
        };
        self.uniform(inst, op, ty, sources(opcode), 0)?;
        self.clear_upper_half(inst, ty)
    }

    /// Scalar 16-bit results keep the upper half of their row zero.
    fn clear_upper_half(&mut self, inst: &AstInst, ty: Ty) -> Lowered {
        if ty.bytes() != 2 {
            return Ok(());
        }
        let d = self.dst(operand(inst, 0)?, ty)?;
        self.alu(AluOp::ExtU16, d, &[d], 0)
    }

    fn sign_and_order(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        use AluOp::*;
        let (ftz, nan) = (mods.flag("ftz"), mods.flag("NaN"));
        let ty = mods.ty().ok_or("a type is missing")?;
        let x = if ftz { X_FTZ } else { 0 };
        let max = inst.opcode == "max";
        if nan && !matches!(inst.opcode.as_str(), "min" | "max") {
            return Err("modifier `.NaN` is not supported here".into());
        }
        match (inst.opcode.as_str(), ty) {
            ("min" | "max", Ty::F32) => {
                let op = match (max, nan, ftz) {
                    (false, false, false) => MinF32,
                    (false, false, true) => MinF32Ftz,
                    (true, false, false) => MaxF32,
                    (true, false, true) => MaxF32Ftz,
                    (false, true, _) => MinF32Nan,
                    (true, true, _) => MaxF32Nan,
                };
                self.uniform(inst, op, ty, 2, x)
            }
            ("min", Ty::F64) if !ftz && !nan => self.uniform(inst, MinF64, ty, 2, 0),
            ("max", Ty::F64) if !ftz && !nan => self.uniform(inst, MaxF64, ty, 2, 0),
            ("min" | "max", Ty::F16 | Ty::F16x2) if ftz => {
                arity(inst, 3..=3)?;
                let rows = [self.src(operand(inst, 1)?, ty)?, self.src(operand(inst, 2)?, ty)?];
                let rows = self.flushed16(rows)?;
                let d = self.dst(operand(inst, 0)?, ty)?;
                self.alu(MinMaxF16, d, &rows, u16::from(max) | u16::from(nan) << 1)?;
                self.clear_upper_half(inst, ty)
            }
            ("min" | "max", Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2) if !ftz => {
                let brain = matches!(ty, Ty::Bf16 | Ty::Bf16x2);
                let x = u16::from(max) | u16::from(nan) << 1;
                self.uniform(inst, if brain { MinMaxBf16 } else { MinMaxF16 }, ty, 2, x)?;
                self.clear_upper_half(inst, ty)
            }
            ("neg", Ty::F32) => self.uniform(inst, NegF32, ty, 1, x),
            ("abs", Ty::F32) => self.uniform(inst, AbsF32, ty, 1, x),
            ("neg", Ty::F64) if !ftz => self.uniform(inst, NegF64, ty, 1, 0),
            ("abs", Ty::F64) if !ftz => self.uniform(inst, AbsF64, ty, 1, 0),
            ("neg" | "abs", Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2) if !ftz => {
                arity(inst, 2..=2)?;
                let d = self.dst(operand(inst, 0)?, ty)?;
                let a = self.src(operand(inst, 1)?, ty)?;
                let x = u16::from(matches!(ty, Ty::Bf16 | Ty::Bf16x2));
                if inst.opcode == "abs" {
                    return self.alu(Abs16x2, d, &[a], x);
                }
                let signs = self.constant(Class::W, if ty.bytes() == 2 { 0x8000 } else { 0x8000_8000 })?;
                self.alu(Neg16x2, d, &[a, signs], x)
            }
            ("copysign", Ty::F32) if !ftz => self.uniform(inst, CopysignF32, ty, 2, 0),
            _ => Err(format!("type .{ty:?} with these modifiers is not supported").to_lowercase()),
        }
    }

    fn division(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let approx = mods.flag("approx");
        let full = mods.flag("full");
        let round = rounding(mods);
        let ftz = mods.flag("ftz");
        let ty = mods.ty().ok_or("a type is missing")?;
        let count = if inst.opcode == "div" { 2 } else { 1 };
        let x = round.map_or(0, Round::code) | if ftz { X_FTZ } else { 0 };
        use AluOp::*;
        let op = match (inst.opcode.as_str(), ty, approx, full, round) {
            ("div", Ty::F32, true, false, None) => DivF32Approx,
            ("div", Ty::F32, false, true, None) => DivF32Full,
            ("div", Ty::F32, false, false, Some(_)) => DivF32,
            ("div", Ty::F64, false, false, Some(Round::Nearest)) if !ftz => DivF64,
            ("rcp", Ty::F32, true, false, None) => RcpF32Approx,
            ("rcp", Ty::F32, false, false, Some(_)) => RcpF32,
            ("sqrt", Ty::F32, true, false, None) | ("sqrt", Ty::F32, false, false, Some(_)) => SqrtF32,
            ("sqrt", Ty::F64, false, false, Some(Round::Nearest)) if !ftz => SqrtF64,
            ("rsqrt", Ty::F32, true, false, None) => RsqrtF32,
            ("div", Ty::F64, false, false, Some(_)) if !ftz => DivF64Round,
            ("sqrt", Ty::F64, false, false, Some(_)) if !ftz => SqrtF64Round,
            ("rcp", Ty::F64, true, false, None) if ftz => RcpF64Approx,
            ("rsqrt", Ty::F64, true, false, None) => RsqrtF64Approx,
            ("rcp", Ty::F64, false, false, Some(round)) if !ftz => {
                arity(inst, 2..=2)?;
                let d = self.dst(operand(inst, 0)?, ty)?;
                let a = self.src(operand(inst, 1)?, ty)?;
                let one = self.constant(Class::D, 1f64.to_bits())?;
                let op = if round == Round::Nearest { DivF64 } else { DivF64Round };
                return self.alu(op, d, &[one, a], x);
            }
            _ => {
                return Err(format!("type .{ty:?} with these modifiers is not supported").to_lowercase());
            }
        };
        self.uniform(inst, op, ty, count, x)
    }

    fn approximation(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if !mods.flag("approx") {
            return Err("`.approx` is missing".into());
        }
        let ftz = mods.flag("ftz");
        let ty = mods.ty().ok_or("a type is missing")?;
        let x = if ftz { X_FTZ } else { 0 };
        use AluOp::*;
        let op = match (inst.opcode.as_str(), ty) {
            ("ex2", Ty::F32) if ftz => Ex2F32Ftz,
            ("ex2", Ty::F32) => Ex2F32,
            ("lg2", Ty::F32) => Lg2F32,
            ("sin", Ty::F32) => SinF32,
            ("cos", Ty::F32) => CosF32,
            ("tanh", Ty::F32) if !ftz => TanhF32,
            ("ex2", Ty::F16 | Ty::F16x2) if !ftz => Ex2F16,
            ("ex2", Ty::Bf16 | Ty::Bf16x2) if ftz => Ex2Bf16,
            ("tanh", Ty::F16 | Ty::F16x2) if !ftz => TanhF16,
            ("tanh", Ty::Bf16 | Ty::Bf16x2) if !ftz => TanhBf16,
            _ => {
                return Err(format!("type .{ty:?} with these modifiers is not supported").to_lowercase());
            }
        };
        self.uniform(inst, op, ty, 1, x)?;
        self.clear_upper_half(inst, ty)
    }

    fn testp(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let names = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"];
        let property = mods.pick(|w| names.iter().position(|n| *n == w));
        let property = property.ok_or("a property is missing")? as u16;
        if mods.ty() != Some(Ty::F32) {
            return Err("only .f32 is supported".into());
        }
        arity(inst, 2..=2)?;
        let d = self.dst(operand(inst, 0)?, Ty::Pred)?;
        let a = self.src(operand(inst, 1)?, Ty::F32)?;
        self.alu(AluOp::TestpF32, d, &[a], property)
    }
}

/// Source operands of an arithmetic opcode.
fn sources(opcode: &str) -> usize {
    if opcode == "fma" { 3 } else { 2 }
}
