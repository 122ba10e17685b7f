//! `wgmma`: the products of a warpgroup, their fences, groups and waits.

use super::mods::Mods;
use super::operands::{arity, operand};
use super::tensor::{accumulator, aligned_sync, element, type_words};
use super::{Lower, Lowered};
use crate::isa::engines::{FactorA, Wgmma};
use crate::isa::op::{Acc, Elem, Op};
use crate::parse::ast::{Inst as AstInst, Operand, Ty};

impl Lower<'_> {
    /// `wgmma.*`.
    pub(super) fn warpgroup(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if mods.flag("fence") {
            aligned_sync(mods)?;
            arity(inst, 0..=0)?;
            return self.emit(Op::WgmmaFence);
        }
        if mods.flag("commit_group") {
            aligned_sync(mods)?;
            arity(inst, 0..=0)?;
            return self.emit(Op::WgmmaCommit);
        }
        if mods.flag("wait_group") {
            aligned_sync(mods)?;
            arity(inst, 1..=1)?;
            let Operand::Int(pending @ 0..=0xffff) = *operand(inst, 0)? else {
                return Err("the group count must be an immediate".into());
            };
            return self.emit(Op::WgmmaWait { pending: pending as u32, rows: Vec::new() });
        }
        if !mods.flag("mma_async") {
            return Err("this wgmma operation is not supported".into());
        }
        self.warpgroup_product(inst, mods)
    }

    fn warpgroup_product(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if mods.flag("sp") {
            return Err("sparse products are not supported".into());
        }
        aligned_sync(mods)?;
        let (n, k) = mods.pick(shape).ok_or("a shape m64nNkK is missing")?;
        let satfinite = mods.flag("satfinite");
        let words = type_words(mods)?;
        let [d_word, a_word, b_word] = words.as_slice() else {
            return Err("three types are expected".into());
        };
        let (acc, d_ty) = accumulator(d_word)?;
        let (a_elem, b_elem) = (element(a_word)?, element(b_word)?);
        check_types(n, k, a_elem, b_elem, acc)?;
        if satfinite && acc != Acc::S32 {
            return Err("modifier `.satfinite` is for integers".into());
        }
        let d = self.rows(operand(inst, 0)?, if acc == Acc::F16 { n / 4 } else { n / 2 }, d_ty, true)?;
        let a = match operand(inst, 1)? {
            vector @ Operand::Vector(_) => FactorA::Registers(self.rows(vector, 4, Ty::B32, false)?),
            descriptor => FactorA::Shared(self.src(descriptor, Ty::B64)?),
        };
        let b = self.src(operand(inst, 2)?, Ty::B64)?;
        let adds = self.src(operand(inst, 3)?, Ty::Pred)?;
        let in_registers = matches!(a, FactorA::Registers(_));
        let (negates, transposed) = options(inst, a_elem, in_registers)?;
        self.emit(Op::Wgmma(Box::new(Wgmma {
            n,
            k,
            a_elem,
            b_elem,
            acc,
            d,
            a,
            b,
            adds,
            negates,
            transposed,
            satfinite,
            unfenced: None,
        })))
    }
}

/// n and k of `m64nNkK`.
fn shape(word: &str) -> Option<(usize, usize)> {
    let (n, k) = word.strip_prefix("m64n")?.split_once('k')?;
    Some((n.parse().ok()?, k.parse().ok()?))
}

fn check_types(n: usize, k: usize, a: Elem, b: Elem, acc: Acc) -> Lowered {
    let fp8 = |e: Elem| matches!(e, Elem::E4m3 | Elem::E5m2);
    let integer = |e: Elem| matches!(e, Elem::S8 | Elem::U8);
    let fits = match (a, b) {
        (Elem::F16, Elem::F16) => k == 16 && acc != Acc::S32,
        (Elem::Bf16, Elem::Bf16) => k == 16 && acc == Acc::F32,
        (Elem::Tf32, Elem::Tf32) => k == 8 && acc == Acc::F32,
        _ if fp8(a) && fp8(b) => k == 32 && acc != Acc::S32,
        _ if integer(a) && integer(b) => k == 32 && acc == Acc::S32,
        _ => false,
    };
    // Integers have fewer widths.
    let width = n.is_multiple_of(8) && (8..=256).contains(&n) && (!integer(a) || n <= 24 || n.is_multiple_of(16));
    if fits && width { Ok(()) } else { Err("this combination of shape and types does not exist".into()) }
}

/// What follows the predicate: signs of the factors, and which of them are transposed.
fn options(inst: &AstInst, elem: Elem, in_registers: bool) -> Lowered<([bool; 2], [bool; 2])> {
    let half = matches!(elem, Elem::F16 | Elem::Bf16);
    let (signs, turns) = match elem {
        Elem::S8 | Elem::U8 => (0, 0),
        _ if half => (2, if in_registers { 1 } else { 2 }),
        _ => (2, 0),
    };
    arity(inst, 4 + signs + turns..=4 + signs + turns)?;
    let mut negates = [false; 2];
    for (i, negates) in negates.iter_mut().enumerate().take(signs) {
        *negates = match *operand(inst, 4 + i)? {
            Operand::Int(1) => false,
            Operand::Int(-1) => true,
            _ => return Err("the sign of a factor is 1 or -1".into()),
        };
    }
    let mut transposed = [false; 2];
    for (i, at) in (2 - turns..2).enumerate() {
        transposed[at] = match *operand(inst, 4 + signs + i)? {
            Operand::Int(0) => false,
            Operand::Int(1) => true,
            _ => return Err("a factor is transposed by 0 or 1".into()),
        };
    }
    Ok((negates, transposed))
}
