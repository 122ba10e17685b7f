//! Moves, integer arithmetic and addresses.

use super::memory::vector_count;
use super::mods::Mods;
use super::operands::{arity, class_of, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::AluOp;
use crate::isa::op::Op;
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Space};
use crate::parse::ast::{Inst as AstInst, Operand, Ty};

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
            "shf" | "prmt" | "lop3" | "dp4a" | "dp2a" => self.three_words(inst, mods)?,
            "sad" => self.sad(inst, mods)?,
            "mul24" | "mad24" => self.multiply24(inst, mods)?,
            "bmsk" => self.bit_mask(inst, mods)?,
            "szext" => {
                let wrap = mods.pick(|word| ["clamp", "wrap"].iter().position(|mode| *mode == word));
                let (Some(wrap), Some(ty @ (Ty::U32 | Ty::S32))) = (wrap, mods.ty()) else {
                    return Err("`.clamp` or `.wrap` and a type of 32 bits are expected".into());
                };
                self.uniform(inst, AluOp::Szext, ty, 2, wrap as u16 | u16::from(ty.signed()) << 1)?;
            }
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
        let count = vector_count(mods);
        let ty = mods.ty().ok_or("a type is missing")?;
        let (to, from) = (operand(inst, 0)?, operand(inst, 1)?);
        if count > 1 {
            return self.mov_vector(to, from, ty, count);
        }
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

    /// `mov.v2` and longer: all sources are read before anything is written.
    fn mov_vector(&mut self, to: &Operand, from: &Operand, ty: Ty, count: usize) -> Lowered {
        let (to, from) = (Self::vector(to), Self::vector(from));
        if to.len() != count || from.len() != count {
            return Err(format!("{} and {} registers given, {count} expected", to.len(), from.len()));
        }
        let op = match class_of(ty) {
            Class::W => AluOp::MovW,
            Class::D => AluOp::MovD,
            Class::P => return Err("there are no vectors of predicates".into()),
        };
        let mut rows = Vec::with_capacity(count);
        for part in from {
            let (source, temp) = (self.src(part, ty)?, self.temp(class_of(ty))?);
            self.alu(op, temp, &[source], 0)?;
            rows.push(temp);
        }
        for (part, row) in to.iter().zip(rows) {
            let d = self.dst(part, ty)?;
            self.alu(op, d, &[row], 0)?;
        }
        Ok(())
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

/// Whether the instruction works on floats: those forms live in another file.
fn names_float(inst: &AstInst) -> bool {
    inst.modifiers.iter().any(|word| Ty::parse(word).is_some_and(Ty::float))
}
