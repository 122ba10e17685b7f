//! Runs of row operations, with taint and without.

use crate::isa::alu_table::{AluInst, AluOp, execute};
use crate::isa::op::{Inst, NO_GUARD, Op};
use crate::isa::slot::Class;
use crate::machine::regs::{FULL, LANES, Regs, Row, Row64};
use crate::machine::simd::{Level, dispatch};

/// Taint of a selection, exact per lane: compilers select undefined values away. Read before the
/// operation, which may overwrite its sources.
#[inline(always)]
fn chosen_taint(regs: &Regs, inst: &AluInst) -> u32 {
    let (a, b, c) = (usize::from(inst.a), usize::from(inst.b), usize::from(inst.c));
    match inst.op {
        AluOp::SelW => regs.tp[c] | (regs.p[c] & regs.tw[a]) | (!regs.p[c] & regs.tw[b]),
        AluOp::SelD => regs.tp[c] | (regs.p[c] & regs.td[a]) | (!regs.p[c] & regs.td[b]),
        _ => 0,
    }
}

/// Replaces the union of all source taints by the exact taint of a selection.
#[inline(always)]
fn set_chosen_taint(regs: &mut Regs, inst: &AluInst, taint: u32, mask: u32) {
    match inst.op {
        AluOp::SelW => regs.taint_w(inst.d, taint, mask),
        AluOp::SelD => regs.taint_d(inst.d, taint, mask),
        _ => {}
    }
}

/// What the result of an operation held before: the operation is executed by all lanes, and those without it get back
/// what they had.
struct Kept {
    w: Row,
    d: Row64,
    p: u32,
}

impl Kept {
    #[inline(always)]
    fn take(&mut self, regs: &Regs, inst: &AluInst) {
        let at = usize::from(inst.d);
        match inst.op.result() {
            Class::W => self.w = regs.w[at],
            Class::D => self.d = regs.d[at],
            Class::P => self.p = regs.p[at],
        }
    }

    /// Restores the lanes that are not in `mask`.
    #[inline(always)]
    fn put_back(&self, regs: &mut Regs, inst: &AluInst, mask: u32) {
        match inst.op.result() {
            Class::W => regs.set_w(inst.d, &self.w.0, !mask),
            Class::D => regs.set_d(inst.d, &self.d.0, !mask),
            Class::P => regs.set_p(inst.d, self.p, !mask),
        }
    }
}

/// What a straight run of row operations did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunCount {
    /// Instructions executed.
    pub(crate) insts: u64,
    /// Sum of their active lanes.
    pub(crate) lanes: u64,
}

/// What became of an instruction that is not a row operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// Nothing was done; the run ends before it.
    Refused,
    Done,
    /// Done, and the run ends behind it.
    Last,
}

/// Executes row operations from `pc`, and what `other` does not refuse of the rest, until `stop`; returns the new pc.
#[inline(always)]
pub(crate) fn run_rows<const CHECK: bool>(
    regs: &mut Regs,
    insts: &[Inst],
    pc: usize,
    stop: usize,
    active: u32,
    mut other: impl FnMut(&mut Regs, &Op, u32) -> Other,
) -> (usize, RunCount) {
    let Some(window) = insts.get(pc..stop.min(insts.len())) else {
        return (pc, RunCount::default());
    };
    let mut done = window.len();
    // Lanes that guards leave out: counted apart, since few instructions have one.
    let mut left_out = 0;
    let mut kept = Kept { w: Row([0; LANES]), d: Row64([0; LANES]), p: 0 };
    for (i, Inst { op, guard }) in window.iter().enumerate() {
        let mut mask = active;
        if *guard != NO_GUARD {
            mask &= guard_bits(regs, *guard);
            left_out += u64::from((active & !mask).count_ones());
        }
        let Op::Alu(alu) = op else {
            match other(regs, op, mask) {
                Other::Done => continue,
                Other::Last => done = i + 1,
                Other::Refused => {
                    left_out -= u64::from((active & !mask).count_ones());
                    done = i;
                }
            }
            break;
        };
        let (mut doubt, mut chosen) = (0, 0);
        if CHECK {
            if *guard != NO_GUARD {
                doubt = active & regs.tp[usize::from(*guard >> 1)];
            }
            chosen = chosen_taint(regs, alu);
        }
        if mask != FULL {
            if mask | doubt == 0 {
                continue;
            }
            kept.take(regs, alu);
        }
        execute::<CHECK>(regs, alu, mask, doubt);
        if mask != FULL {
            kept.put_back(regs, alu, mask);
        }
        if CHECK {
            set_chosen_taint(regs, alu, chosen, mask & !doubt);
        }
    }
    let insts = done as u64;
    (pc + done, RunCount { insts, lanes: insts * u64::from(active.count_ones()) - left_out })
}

/// Lanes whose guard holds.
#[inline(always)]
pub(crate) fn guard_bits(regs: &Regs, guard: u16) -> u32 {
    if guard == NO_GUARD {
        return FULL;
    }
    let bits = regs.p[usize::from(guard >> 1)];
    if guard & 1 == 1 { !bits } else { bits }
}

#[inline(always)]
fn only_rows<const CHECK: bool>(
    regs: &mut Regs,
    insts: &[Inst],
    pc: usize,
    stop: usize,
    active: u32,
) -> (usize, RunCount) {
    run_rows::<CHECK>(regs, insts, pc, stop, active, |_, _, _| Other::Refused)
}

dispatch! {
    /// Row operations with taint, up to another kind of instruction.
    pub(crate) fn run_checked(regs: &mut Regs, insts: &[Inst], pc: usize, stop: usize, active: u32) -> (usize, RunCount) = only_rows::<true>;
}

#[cfg(test)]
dispatch! {
    /// Row operations without taint, up to another kind of instruction.
    pub(crate) fn run_plain(regs: &mut Regs, insts: &[Inst], pc: usize, stop: usize, active: u32) -> (usize, RunCount) = only_rows::<false>;
}
