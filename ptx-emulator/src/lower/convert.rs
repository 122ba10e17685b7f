//! `cvt` and `cvt.pack` forms.

use super::mods::Mods;
use super::operands::{arity, class_of, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::{AluOp, X_BITS_AT, X_FTZ, X_PAYLOAD, X_SAT, X_SIGNED, X_SRC_SIGNED};
use crate::isa::slot::{Class, Slot};
use crate::num::float::Round;
use crate::parse::ast::{Inst as AstInst, Operand, Ty};

/// Modifiers of a conversion.
struct Conversion {
    round: Option<Round>,
    integral: bool,
    ftz: bool,
    sat: bool,
    satfinite: bool,
    relu: bool,
}

impl Conversion {
    fn parse(mods: &mut Mods<'_>) -> Conversion {
        let mut integral = false;
        let round = mods.pick(|w| match w {
            "rn" | "rni" => Some((Round::Nearest, w == "rni")),
            "rz" | "rzi" => Some((Round::Zero, w == "rzi")),
            "rm" | "rmi" => Some((Round::Down, w == "rmi")),
            "rp" | "rpi" => Some((Round::Up, w == "rpi")),
            _ => None,
        });
        if let Some((_, true)) = round {
            integral = true;
        }
        Conversion {
            round: round.map(|r| r.0),
            integral,
            ftz: mods.flag("ftz"),
            satfinite: mods.flag("satfinite"),
            relu: mods.flag("relu"),
            sat: mods.flag("sat"),
        }
    }

    /// The small immediate shared by conversion operations.
    fn x(&self, to: Ty, from: Ty) -> u16 {
        let flag = |on: bool, bit: u16| if on { bit } else { 0 };
        self.round.map_or(0, Round::code)
            | flag(self.ftz, X_FTZ)
            | flag(self.sat || self.satfinite, X_SAT)
            | flag(to.signed(), X_SIGNED)
            | flag(from.signed(), X_SRC_SIGNED)
            | (8 * to.bytes() as u16) << X_BITS_AT
    }
}

impl Lower<'_> {
    /// Lowers an instruction of this family; false if the opcode belongs elsewhere.
    pub(super) fn lower_convert(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered<bool> {
        if inst.opcode != "cvt" {
            return Ok(false);
        }
        if mods.flag("pack") {
            self.pack_integers(inst, mods)?;
            return Ok(true);
        }
        if mods.flag("tf32") {
            return match (mods.flag("rna"), mods.ty()) {
                (true, Some(Ty::F32)) => self.uniform(inst, AluOp::F32ToTf32, Ty::B32, 1, 0).map(|()| true),
                _ => Err("only `.rna.tf32.f32` is supported".into()),
            };
        }
        let conversion = Conversion::parse(mods);
        let small = |w: &str| matches!(w, "e4m3x2" | "e5m2x2").then(|| w == "e5m2x2");
        // The order of the two types matters, so look at the first of them.
        let first_small = inst
            .modifiers
            .iter()
            .find_map(|w| if small(w).is_some() { Some(true) } else { Ty::parse(w).map(|_| false) });
        if let Some(e5m2) = mods.pick(small) {
            let ty = mods.ty().ok_or("a second type is missing")?;
            self.fp8(inst, &conversion, e5m2, ty, first_small == Some(true))?;
            return Ok(true);
        }
        let (Some(to), Some(from)) = (mods.ty(), mods.ty()) else {
            return Err("two types are expected".into());
        };
        if matches!(to, Ty::F16x2 | Ty::Bf16x2) {
            self.pack_halves(inst, &conversion, to, from)?;
        } else {
            self.scalar(inst, &conversion, to, from)?;
        }
        Ok(true)
    }

    fn fp8(&mut self, inst: &AstInst, c: &Conversion, e5m2: bool, ty: Ty, narrowing: bool) -> Lowered {
        use AluOp::*;
        if c.round != Some(Round::Nearest) || c.integral || c.ftz || c.sat {
            return Err("only `.rn` conversions of FP8 exist".into());
        }
        if narrowing != c.satfinite {
            return Err("`.satfinite` belongs to conversions to FP8".into());
        }
        if c.relu {
            return Err("modifier `.relu` is not supported for FP8".into());
        }
        match (narrowing, ty) {
            (true, Ty::F32) => {
                arity(inst, 3..=3)?;
                let d = self.dst(operand(inst, 0)?, Ty::B16)?;
                let rows = [self.src(operand(inst, 1)?, ty)?, self.src(operand(inst, 2)?, ty)?];
                self.alu(if e5m2 { F32x2ToE5m2x2 } else { F32x2ToE4m3x2 }, d, &rows, 0)
            }
            (true, Ty::F16x2) => {
                arity(inst, 2..=2)?;
                let d = self.dst(operand(inst, 0)?, Ty::B16)?;
                let row = self.src(operand(inst, 1)?, ty)?;
                self.alu(if e5m2 { F16x2ToE5m2x2 } else { F16x2ToE4m3x2 }, d, &[row], 0)
            }
            (false, Ty::F16x2) => {
                arity(inst, 2..=2)?;
                let d = self.dst(operand(inst, 0)?, ty)?;
                let row = self.src(operand(inst, 1)?, Ty::B16)?;
                self.alu(if e5m2 { E5m2x2ToF16x2 } else { E4m3x2ToF16x2 }, d, &[row], 0)
            }
            _ => Err(format!("FP8 with .{ty:?} is not supported").to_lowercase()),
        }
    }

    /// Two f32 into one packed register; the first source is the upper half.
    fn pack_halves(&mut self, inst: &AstInst, c: &Conversion, to: Ty, from: Ty) -> Lowered {
        use AluOp::*;
        let Some(round) = c.round else {
            return Err("a rounding mode is missing".into());
        };
        if from != Ty::F32 || c.integral || c.ftz || c.sat {
            return Err("these modifiers are not supported for packed results".into());
        }
        arity(inst, 3..=3)?;
        let d = self.dst(operand(inst, 0)?, to)?;
        let rows = [self.src(operand(inst, 1)?, from)?, self.src(operand(inst, 2)?, from)?];
        let brain = to == Ty::Bf16x2;
        if round == Round::Nearest && !c.satfinite {
            self.alu(if brain { F32x2ToBf16x2 } else { F32x2ToF16x2 }, d, &rows, 0)?;
        } else {
            let op = if brain { F32ToBf16Round } else { F32ToF16Round };
            let (high, low) = (self.temp(Class::W)?, self.temp(Class::W)?);
            let x = c.x(to, from);
            self.alu(op, high, &rows[..1], x)?;
            self.alu(op, low, &rows[1..], x)?;
            self.alu(Pack16, d, &[low, high], 0)?;
        }
        if c.relu {
            self.alu(if brain { ReluBf16 } else { ReluF16 }, d, &[d], 0)?;
        }
        Ok(())
    }

    /// `cvt.pack.sat`: two saturated integers into one register, the second one lowest, above them what `c` holds.
    fn pack_integers(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        use AluOp::*;
        if !mods.flag("sat") {
            return Err("`.sat` is missing".into());
        }
        let (Some(to), Some(Ty::S32)) = (mods.ty(), mods.ty()) else {
            return Err("a narrow type and .s32 are expected".into());
        };
        let bits = match to {
            Ty::U8 | Ty::S8 => 8,
            Ty::U16 | Ty::S16 => 16,
            _ => return Err(format!("packing of .{to:?} is not supported").to_lowercase()),
        };
        let third = mods.flag("b32");
        if bits == 8 && !third {
            return Err("`.b32` and a third source are missing".into());
        }
        arity(inst, if third { 4..=4 } else { 3..=3 })?;
        let x = if to.signed() { X_SIGNED } else { 0 } | X_SRC_SIGNED | bits << X_BITS_AT;
        let mut parts = [0; 2];
        for (i, part) in parts.iter_mut().enumerate() {
            let source = self.src(operand(inst, 1 + i)?, Ty::S32)?;
            let wide = self.temp(Class::D)?;
            self.alu(SextD, wide, &[source], 0)?;
            *part = self.temp(Class::W)?;
            self.alu(ClampIntW, *part, &[wide], x)?;
        }
        let [high, low] = parts;
        let d = self.dst(operand(inst, 0)?, Ty::B32)?;
        if bits == 16 {
            return match third {
                true => Err("there is no room for a third source".into()),
                false => self.alu(Pack16, d, &[low, high], 0),
            };
        }
        let rest = self.src(operand(inst, 3)?, Ty::B32)?;
        let pair = self.temp(Class::W)?;
        let (eight, shifted) = (self.constant(Class::W, 8)?, self.temp(Class::W)?);
        self.alu(ShlW, shifted, &[high, eight], 0)?;
        self.alu(OrW, pair, &[shifted, low], 0)?;
        self.alu(Pack16, d, &[pair, rest], 0)
    }

    fn scalar(&mut self, inst: &AstInst, c: &Conversion, to: Ty, from: Ty) -> Lowered {
        arity(inst, 2..=2)?;
        if to == Ty::Pred || from == Ty::Pred {
            return Err("predicates cannot be converted".into());
        }
        if (c.relu || c.satfinite) && (!matches!(to, Ty::F16 | Ty::Bf16) || from != Ty::F32) {
            return Err("`.relu` and `.satfinite` belong to conversions from .f32 to 16 bits".into());
        }
        if c.ftz && to != Ty::F32 && from != Ty::F32 {
            return Err("modifier `.ftz` needs an .f32".into());
        }
        let d = self.dst_at_least(operand(inst, 0)?, to)?;
        let bytes = self.width(operand(inst, 0)?, d.class);
        let s = self.narrowed(operand(inst, 1)?, from)?;
        match (to.float(), from.float()) {
            (false, false) => self.int_to_int((d, bytes), s, to, from, c),
            (false, true) => self.float_to_int((d, bytes), s, to, from, c),
            (true, false) => self.int_to_float(d, s, to, from, c),
            (true, true) => self.float_to_float(d, s, to, from, c),
        }
    }

    /// The source at its own width: the register may be wider than the type.
    fn narrowed(&mut self, operand: &Operand, from: Ty) -> Lowered<Slot> {
        let mut slot = self.src_at_least(operand, from)?;
        if slot.class == Class::D && from.bytes() < 8 {
            let row = self.temp(Class::W)?;
            self.alu(AluOp::TruncD, row, &[slot.row], 0)?;
            slot = Slot { class: Class::W, row };
        }
        let op = match (from.bytes(), from.signed()) {
            (1, true) => AluOp::ExtS8,
            (1, false) => AluOp::ExtU8,
            (2, true) => AluOp::ExtS16,
            (2, false) => AluOp::ExtU16,
            _ => return Ok(slot),
        };
        let row = self.temp(Class::W)?;
        self.alu(op, row, &[slot.row], 0)?;
        Ok(Slot { class: Class::W, row })
    }

    /// A row widened to 64 bits by the sign of the source type.
    fn widened(&mut self, s: Slot, from: Ty) -> Lowered<u16> {
        if s.class == Class::D {
            return Ok(s.row);
        }
        let row = self.temp(Class::D)?;
        self.alu(if from.signed() { AluOp::SextD } else { AluOp::ZextD }, row, &[s.row], 0)?;
        Ok(row)
    }

    /// Stores the low bits of `row` as an integer of type `to` in a register that may be wider: a signed value is
    /// extended to the whole register by its sign, any other by zeros. `bytes` is the width of the register.
    fn store_int(&mut self, (d, bytes): (Slot, u32), row: Slot, to: Ty) -> Lowered {
        use AluOp::*;
        if to.bytes() == 8 {
            let whole = self.widened(row, to)?;
            return self.alu(MovD, d.row, &[whole], 0);
        }
        let word = match row.class {
            Class::D => {
                let word = self.temp(Class::W)?;
                self.alu(TruncD, word, &[row.row], 0)?;
                word
            }
            _ => row.row,
        };
        let extend = match (to.bytes(), to.signed()) {
            (1, true) => ExtS8,
            (1, false) => ExtU8,
            (2, true) => ExtS16,
            (2, false) => ExtU16,
            _ => MovW,
        };
        match (d.class, bytes) {
            (Class::D, _) => {
                let whole = self.temp(Class::W)?;
                self.alu(extend, whole, &[word], 0)?;
                self.alu(if to.signed() { SextD } else { ZextD }, d.row, &[whole], 0)
            }
            (_, 2) if extend == ExtS8 => {
                let whole = self.temp(Class::W)?;
                self.alu(ExtS8, whole, &[word], 0)?;
                self.alu(ExtU16, d.row, &[whole], 0)
            }
            // Rows of 16-bit registers keep zeros above their value.
            (_, 2) => self.alu(if to.bytes() == 2 { ExtU16 } else { extend }, d.row, &[word], 0),
            _ => self.alu(extend, d.row, &[word], 0),
        }
    }

    fn int_to_int(&mut self, d: (Slot, u32), s: Slot, to: Ty, from: Ty, c: &Conversion) -> Lowered {
        use AluOp::*;
        if c.round.is_some() || c.ftz {
            return Err("integer conversions do not round".into());
        }
        let holds_all = match (to.signed(), from.signed()) {
            (true, false) => to.bytes() > from.bytes(),
            (false, true) => false,
            _ => to.bytes() >= from.bytes(),
        };
        if c.sat && holds_all {
            return Err("`.sat` does not fit a type that holds every value of the source".into());
        }
        if c.sat {
            let wide = self.widened(s, from)?;
            let class = class_of(to);
            let row = self.temp(class)?;
            self.alu(if class == Class::D { ClampIntD } else { ClampIntW }, row, &[wide], c.x(to, from))?;
            return self.store_int(d, Slot { class, row }, to);
        }
        if to.bytes() == 8 {
            let row = self.widened(s, from)?;
            return self.store_int(d, Slot { class: Class::D, row }, to);
        }
        self.store_int(d, s, to)
    }

    fn float_to_int(&mut self, d: (Slot, u32), s: Slot, to: Ty, from: Ty, c: &Conversion) -> Lowered {
        use AluOp::*;
        if !c.integral {
            return Err("an integer rounding mode is missing".into());
        }
        let x = c.x(to, from);
        let wide = to.bytes() == 8;
        let class = if wide { Class::D } else { Class::W };
        let s = self.half_as_f32(s, from)?;
        let op = match (from == Ty::F64, wide) {
            (true, false) => F64ToIntW,
            (true, true) => F64ToIntD,
            // Flushing cannot change a truncation.
            (false, false) if to == Ty::S32 && c.round == Some(Round::Zero) => F32ToS32Rz,
            (false, false) => F32ToIntW,
            (false, true) => F32ToIntD,
        };
        let row = self.temp(class)?;
        self.alu(op, row, &[s.row], x)?;
        self.store_int(d, Slot { class, row }, to)
    }

    /// Widens f16 and bf16 sources to f32, NaN with its payload: on the way to another type.
    fn half_as_f32(&mut self, s: Slot, from: Ty) -> Lowered<Slot> {
        let op = match from {
            Ty::F16 => AluOp::F16ToF32,
            Ty::Bf16 => AluOp::Bf16ToF32,
            _ => return Ok(s),
        };
        let row = self.temp(Class::W)?;
        self.alu(op, row, &[s.row], X_PAYLOAD)?;
        Ok(Slot { class: Class::W, row })
    }

    fn int_to_float(&mut self, d: Slot, s: Slot, to: Ty, from: Ty, c: &Conversion) -> Lowered {
        use AluOp::*;
        let Some(round) = c.round else {
            return Err("a rounding mode is missing".into());
        };
        if c.integral || c.sat && to == Ty::Bf16 {
            return Err("these modifiers do not fit the types".into());
        }
        self.int_to_number(d, s, to, from, round, c)?;
        match (c.sat, to) {
            (true, Ty::F32) => self.alu(F32Flush, d.row, &[d.row], X_SAT),
            // Rounding to a whole number leaves a whole number as it is.
            (true, Ty::F64) => self.alu(F64Integral, d.row, &[d.row], X_SAT),
            (true, _) => self.alu(SatF16, d.row, &[d.row], 0),
            _ => Ok(()),
        }
    }

    fn int_to_number(&mut self, d: Slot, s: Slot, to: Ty, from: Ty, round: Round, c: &Conversion) -> Lowered {
        use AluOp::*;
        if to == Ty::F32 && round == Round::Nearest && s.class == Class::W {
            let op = if from.signed() { S32ToF32 } else { U32ToF32 };
            return self.alu(op, d.row, &[s.row], 0);
        }
        let wide = self.widened(s, from)?;
        let op = match to {
            Ty::F32 => IntToF32,
            Ty::F64 => IntToF64,
            Ty::F16 => IntToF16,
            Ty::Bf16 => IntToBf16,
            _ => return Err(format!("type .{to:?} is not supported").to_lowercase()),
        };
        self.alu(op, d.row, &[wide], c.x(to, from))
    }

    fn float_to_float(&mut self, d: Slot, s: Slot, to: Ty, from: Ty, c: &Conversion) -> Lowered {
        use AluOp::*;
        let x = c.x(to, from);
        if c.sat && (to == Ty::Bf16 || c.satfinite || c.relu) {
            return Err("modifier `.sat` is not supported here".into());
        }
        let op = match (to, from) {
            (Ty::F32, Ty::F32) if c.integral => F32Integral,
            (Ty::F32, Ty::F32) => F32Flush,
            (Ty::F64, Ty::F64) if c.integral => F64Integral,
            (Ty::F16, Ty::F16) if c.integral => F16Integral,
            (Ty::F16, Ty::F16) if c.sat && c.round.is_none() => return self.alu(SatF16, d.row, &[s.row], 0),
            _ if c.integral => return Err("an integer rounding mode does not fit the types".into()),
            (Ty::F32 | Ty::F64, Ty::F16 | Ty::Bf16) | (Ty::F64, Ty::F32) if c.round.is_some() => {
                return Err("an exact conversion does not round".into());
            }
            (Ty::F32, Ty::F16) => return self.widen_half(d, s, F16ToF32, c),
            (Ty::F32, Ty::Bf16) => return self.widen_half(d, s, Bf16ToF32, c),
            (Ty::F64, Ty::F32) => F32ToF64,
            (Ty::F32, Ty::F64) if c.round.is_some() => F64ToF32,
            (Ty::F16, Ty::F64) if c.round.is_some() => F64ToF16,
            (Ty::F16, Ty::F32) if c.round == Some(Round::Nearest) && !c.satfinite => F32ToF16,
            (Ty::Bf16, Ty::F32) if c.round == Some(Round::Nearest) && !c.satfinite => F32ToBf16,
            (Ty::F16, Ty::F32) if c.round.is_some() => F32ToF16Round,
            (Ty::Bf16, Ty::F32) if c.round.is_some() => F32ToBf16Round,
            (Ty::F64, Ty::F16 | Ty::Bf16) => {
                let word = self.half_as_f32(s, from)?;
                return self.alu(F32ToF64, d.row, &[word.row], x);
            }
            _ => {
                return Err(format!("conversion from .{from:?} to .{to:?} is not supported").to_lowercase());
            }
        };
        if c.ftz && matches!(to, Ty::F16 | Ty::Bf16) && from == Ty::F32 {
            // Subnormal f32 inputs are far below the smallest f16 but not below bf16's.
            let row = self.temp(Class::W)?;
            self.alu(F32Flush, row, &[s.row], X_FTZ)?;
            self.alu(op, d.row, &[row], x)?;
        } else {
            self.alu(op, d.row, &[s.row], x)?;
        }
        match (c.relu, to) {
            (true, Ty::F16) => self.relu_scalar(d, ReluF16),
            (true, _) => self.relu_scalar(d, ReluBf16),
            (false, Ty::F16) if c.sat => self.alu(SatF16, d.row, &[d.row], 0),
            _ => Ok(()),
        }
    }

    fn relu_scalar(&mut self, d: Slot, op: AluOp) -> Lowered {
        self.alu(op, d.row, &[d.row], 0)?;
        self.alu(AluOp::ExtU16, d.row, &[d.row], 0)
    }

    fn widen_half(&mut self, d: Slot, s: Slot, op: AluOp, c: &Conversion) -> Lowered {
        self.alu(op, d.row, &[s.row], 0)?;
        if c.sat || c.ftz {
            let x = if c.sat { X_SAT } else { 0 } | if c.ftz { X_FTZ } else { 0 };
            self.alu(AluOp::F32Flush, d.row, &[d.row], x)?;
        }
        Ok(())
    }
}
