//! Moves, integer arithmetic, comparisons and selections.

use super::mods::Mods;
use super::operands::{arity, class_of, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::AluOp;
use crate::isa::op::Op;
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Space};
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
    /// Lowers an instruction of this family; false if the opcode belongs elsewhere.
    pub(super) fn lower_alu(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered<bool> {
        match inst.opcode.as_str() {
            "mov" => self.mov(inst, mods)?,
            "add" | "sub" | "min" | "max" | "neg" | "abs" | "div" | "rem" if !names_float(inst) => {
                self.integer(inst, mods)?;
            }
            "mul" | "mad" if !names_float(inst) => self.multiply(inst, mods)?,
            "and" | "or" | "xor" | "not" | "cnot" => self.logic(inst, mods)?,
            "shl" | "shr" => self.shift(inst, mods)?,
            "shf" | "prmt" | "lop3" | "sad" | "dp4a" => self.three_words(inst, mods)?,
            "bfe" | "bfi" | "bfind" | "brev" | "clz" | "popc" => self.bit_field(inst, mods)?,
            "setp" => self.setp(inst, mods)?,
            "set" => self.set(inst, mods)?,
            "selp" | "slct" => self.select(inst, mods)?,
            "cvta" => self.cvta(inst, mods)?,
            "isspacep" => self.isspacep(inst, mods)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Emits `op d, a, b, …` with all operands of one type.
    pub(super) fn uniform(&mut self, inst: &AstInst, op: AluOp, ty: Ty, sources: usize, x: u16) -> Lowered {
        arity(inst, sources + 1..=sources + 1)?;
        let d = self.dst(operand(inst, 0)?, ty)?;
        let mut rows = Vec::with_capacity(sources);
        for i in 1..=sources {
            rows.push(self.src(operand(inst, i)?, ty)?);
        }
        self.alu(op, d, &rows, x)
    }

    fn mov(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        arity(inst, 2..=2)?;
        let ty = mods.ty().ok_or("a type is missing")?;
        let (to, from) = (operand(inst, 0)?, operand(inst, 1)?);
        if let Operand::Vector(parts) = from {
            return self.pack(to, parts, ty);
        }
        if let Operand::Vector(parts) = to {
            return self.unpack(parts, from, ty);
        }
        let d = self.dst(to, ty)?;
        if let Operand::Special(name) = from
            && let "%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo" = name.as_str()
        {
            return self.emit(Op::Clock { dst: Slot { class: class_of(ty), row: d } });
        }
        let s = self.src(from, ty)?;
        let op = match class_of(ty) {
            Class::W => AluOp::MovW,
            Class::D => AluOp::MovD,
            Class::P => AluOp::MovP,
        };
        self.alu(op, d, &[s], 0)
    }

    /// `mov.b64 d, {lo, hi}` and narrower: element 0 is the low part.
    fn pack(&mut self, to: &Operand, parts: &[Operand], ty: Ty) -> Lowered {
        let d = self.dst(to, ty)?;
        match (ty.bytes(), parts) {
            (8, [lo, hi]) => {
                let rows = [self.src(lo, Ty::B32)?, self.src(hi, Ty::B32)?];
                self.alu(AluOp::PackD, d, &rows, 0)
            }
            (4, [lo, hi]) => {
                let rows = [self.src(lo, Ty::B16)?, self.src(hi, Ty::B16)?];
                self.alu(AluOp::Pack16, d, &rows, 0)
            }
            (8, [a, b, c, e]) => {
                let mut words = [0; 2];
                for (word, (lo, hi)) in words.iter_mut().zip([(a, b), (c, e)]) {
                    let rows = [self.src(lo, Ty::B16)?, self.src(hi, Ty::B16)?];
                    *word = self.temp(Class::W)?;
                    self.alu(AluOp::Pack16, *word, &rows, 0)?;
                }
                self.alu(AluOp::PackD, d, &words, 0)
            }
            _ => Err("this packing is not supported".into()),
        }
    }

    fn unpack(&mut self, parts: &[Operand], from: &Operand, ty: Ty) -> Lowered {
        let s = self.src(from, ty)?;
        // A destination may be the source itself, so the source is kept until both are read.
        match (ty.bytes(), parts) {
            (8, [lo, hi]) => {
                let keep = self.temp(Class::D)?;
                self.alu(AluOp::MovD, keep, &[s], 0)?;
                for (part, op) in [(lo, AluOp::TruncD), (hi, AluOp::HighD)] {
                    let d = self.dst(part, Ty::B32)?;
                    self.alu(op, d, &[keep], 0)?;
                }
                Ok(())
            }
            (4, [lo, hi]) => {
                let keep = self.temp(Class::W)?;
                self.alu(AluOp::MovW, keep, &[s], 0)?;
                for (part, op) in [(lo, AluOp::ExtU16), (hi, AluOp::High16)] {
                    let d = self.dst(part, Ty::B16)?;
                    self.alu(op, d, &[keep], 0)?;
                }
                Ok(())
            }
            (8, [_, _, _, _]) => {
                for (i, op) in [AluOp::TruncD, AluOp::HighD].into_iter().enumerate() {
                    let word = self.temp(Class::W)?;
                    self.alu(op, word, &[s], 0)?;
                    for (j, op) in [AluOp::ExtU16, AluOp::High16].into_iter().enumerate() {
                        let d = self.dst(&parts[2 * i + j], Ty::B16)?;
                        self.alu(op, d, &[word], 0)?;
                    }
                }
                Ok(())
            }
            _ => Err("this unpacking is not supported".into()),
        }
    }

    fn integer(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let ty = mods.ty().ok_or("a type is missing")?;
        let opcode = inst.opcode.as_str();
        let sat = mods.flag("sat");
        use AluOp::*;
        let (signed, bytes) = (ty.signed(), ty.bytes());
        let op = match (opcode, bytes, signed) {
            ("add", 4, true) if sat => AddSatS32,
            ("sub", 4, true) if sat => SubSatS32,
            _ if sat => return Err("modifier `.sat` is not supported here".into()),
            ("add", 2, _) => Add16,
            ("add", 4, _) => AddW,
            ("add", 8, _) => AddD,
            ("sub", 2, _) => Sub16,
            ("sub", 4, _) => SubW,
            ("sub", 8, _) => SubD,
            ("min", 2, true) => MinS16,
            ("min", 2 | 4, false) => MinU32,
            ("min", 4, true) => MinS32,
            ("min", 8, true) => MinS64,
            ("min", 8, false) => MinU64,
            ("max", 2, true) => MaxS16,
            ("max", 2 | 4, false) => MaxU32,
            ("max", 4, true) => MaxS32,
            ("max", 8, true) => MaxS64,
            ("max", 8, false) => MaxU64,
            ("neg", 2, _) => Neg16,
            ("neg", 4, _) => NegW,
            ("neg", 8, _) => NegD,
            ("abs", 2, _) => AbsS16,
            ("abs", 4, _) => AbsS32,
            ("abs", 8, _) => AbsS64,
            ("div", 2, true) => DivS16,
            ("div", 2, false) => DivU16,
            ("div", 4, true) => DivS32,
            ("div", 4, false) => DivU32,
            ("div", 8, true) => DivS64,
            ("div", 8, false) => DivU64,
            ("rem", 2, true) => RemS16,
            ("rem", 2 | 4, false) => RemU32,
            ("rem", 4, true) => RemS32,
            ("rem", 8, true) => RemS64,
            ("rem", 8, false) => RemU64,
            _ => return Err(format!("type .{ty:?} is not supported").to_lowercase()),
        };
        let sources = if matches!(opcode, "neg" | "abs") { 1 } else { 2 };
        self.uniform(inst, op, ty, sources, 0)
    }

    fn multiply(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let ty = mods.ty().ok_or("a type is missing")?;
        let half = mods.pick(|w| match w {
            "lo" | "hi" | "wide" => Some(w.to_owned()),
            _ => None,
        });
        let half = half.ok_or("`.lo`, `.hi` or `.wide` is missing")?;
        let mad = inst.opcode == "mad";
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

    /// Emits a comparison into predicate row `d`.
    fn compare(&mut self, d: u16, a: &Operand, b: &Operand, ty: Ty, classes: u16, ftz: bool) -> Lowered {
        use AluOp::*;
        if ftz && ty != Ty::F32 {
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
        let rows = [self.src(a, ty)?, self.src(b, ty)?];
        self.alu(op, d, &rows, classes)
    }

    fn setp(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let (ty, classes) = comparison_mods(mods)?;
        let ftz = mods.flag("ftz");
        let combine = mods.pick(|w| match w {
            "and" => Some((AluOp::AndP, AluOp::AndNotP)),
            "or" => Some((AluOp::OrP, AluOp::OrNotP)),
            "xor" => Some((AluOp::XorP, AluOp::XnorP)),
            _ => None,
        });
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

    fn set(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let classes_of = |w: &str| comparison(w, true).or_else(|| comparison(w, false));
        let classes = mods.pick(classes_of).ok_or("a comparison is missing")?;
        let ftz = mods.flag("ftz");
        let (Some(out), Some(ty)) = (mods.ty(), mods.ty()) else {
            return Err("two types are expected".into());
        };
        arity(inst, 3..=3)?;
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
            return self.set_packed(inst, d, ty, classes, one);
        }
        let p = self.temp(Class::P)?;
        self.compare(p, operand(inst, 1)?, operand(inst, 2)?, ty, classes, ftz)?;
        self.alu(AluOp::SelW, d, &[one, zero, p], 0)
    }

    /// The constant in row `one` in each half whose comparison holds.
    fn set_packed(&mut self, inst: &AstInst, d: u16, ty: Ty, classes: u16, one: u16) -> Lowered {
        let op = if ty == Ty::F16x2 { AluOp::SetpF16 } else { AluOp::SetpBf16 };
        let rows = [self.src(operand(inst, 1)?, ty)?, self.src(operand(inst, 2)?, ty)?];
        let zero = self.constant(Class::W, 0)?;
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
            let p = self.temp(Class::P)?;
            self.alu(op, p, &parts, classes)?;
            *half = self.temp(Class::W)?;
            self.alu(AluOp::SelW, *half, &[one, zero, p], 0)?;
        }
        self.alu(AluOp::Pack16, d, &halves, 0)
    }

    fn select(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
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

    fn cvta(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let to = mods.flag("to");
        let space = mods.pick(|w| match w {
            "global" | "const" => Some(0),
            "shared" | "shared::cta" => Some(SHARED_WINDOW),
            "local" => Some(LOCAL_WINDOW),
            "param" => Some(PARAM_WINDOW),
            _ => None,
        });
        let window = space.ok_or("a state space is missing")?;
        let ty = mods.ty().ok_or("a type is missing")?;
        if ty.bytes() != 8 {
            return Err("only 64-bit addresses are supported".into());
        }
        arity(inst, 2..=2)?;
        let d = self.dst(operand(inst, 0)?, ty)?;
        let a = self.src(operand(inst, 1)?, ty)?;
        if window == 0 {
            return self.alu(AluOp::MovD, d, &[a], 0);
        }
        let base = self.constant(Class::D, window)?;
        self.alu(if to { AluOp::SubD } else { AluOp::AddD }, d, &[a, base], 0)
    }

    fn isspacep(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let space = mods.pick(|w| match w {
            "global" => Some(Space::Global),
            "const" => Some(Space::Const),
            "shared" | "shared::cta" => Some(Space::Shared),
            "local" => Some(Space::Local),
            "param" => Some(Space::Param),
            _ => None,
        });
        let space = space.ok_or("a state space is missing")?;
        arity(inst, 2..=2)?;
        let dst = self.dst(operand(inst, 0)?, Ty::Pred)?;
        let row = self.src(operand(inst, 1)?, Ty::B64)?;
        self.emit(Op::IsSpace { dst, addr: Slot { class: Class::D, row }, space })
    }
}

/// Comparison word and operand type of `setp`.
fn comparison_mods(mods: &mut Mods<'_>) -> Lowered<(Ty, u16)> {
    let ty = mods.ty().ok_or("a type is missing")?;
    let classes = mods.pick(|w| comparison(w, ty.float())).ok_or("a comparison is missing")?;
    Ok((ty, classes))
}

/// Whether the instruction works on floats: those forms live in another file.
fn names_float(inst: &AstInst) -> bool {
    inst.modifiers.iter().any(|word| Ty::parse(word).is_some_and(Ty::float))
}
