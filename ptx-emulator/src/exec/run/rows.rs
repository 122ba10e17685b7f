//! Runs of row operations, with taint and without.

use crate::isa::alu_table::{AluInst, OpRows, execute};
use crate::isa::op::{Inst, NO_GUARD, Op};
use crate::isa::slot::{Class, Slot};
use crate::isa::undefined::{after, before};
use crate::machine::regs::{FULL, LANES, Regs, Row, Row64};
use crate::machine::simd::{Level, dispatch};

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
    fn restore(&self, regs: &mut Regs, inst: &AluInst, mask: u32) {
        match inst.op.result() {
            Class::W => regs.set_w(inst.d, &self.w.0, !mask),
            Class::D => regs.set_d(inst.d, &self.d.0, !mask),
            Class::P => regs.set_p(inst.d, self.p, !mask),
        }
    }
}

dispatch! {
    /// [`Kept::restore`] compiled for `level`.
    fn put_back(kept: &Kept, regs: &mut Regs, inst: &AluInst, mask: u32) = Kept::restore;
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
    level: Level,
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
        let mut doubt = 0;
        if CHECK && *guard != NO_GUARD {
            doubt = active & regs.tp(*guard >> 1);
        }
        if mask != FULL {
            if mask | doubt == 0 {
                continue;
            }
            kept.take(regs, alu);
        }
        let mut pending = None;
        if CHECK {
            let Taint { sources, result } = Taint::of(regs, alu);
            if sources & mask | doubt != 0 {
                pending = Some(before(regs, alu));
            } else if result & mask != 0 {
                regs.define(Slot { class: alu.op.result(), row: alu.d }, mask);
            }
        }
        execute(level, regs, alu);
        if CHECK && let Some(pending) = &pending {
            after(regs, alu, pending, mask, doubt);
        }
        if mask != FULL {
            put_back(level, &kept, regs, alu, mask);
        }
    }
    let insts = done as u64;
    (pc + done, RunCount { insts, lanes: insts * u64::from(active.count_ones()) - left_out })
}

/// Lanes of the rows of an operation that are not wholly defined.
struct Taint {
    sources: u32,
    result: u32,
}

impl Taint {
    /// Without a branch that depends on the operation: which comes next cannot be foretold.
    #[inline(always)]
    fn of(regs: &Regs, inst: &AluInst) -> Taint {
        let OpRows { result, sources: [first, second, third], reads_result } = *inst.op.rows();
        let result = regs.taint(Slot { class: result, row: inst.d });
        let sources = regs.taint_of(first, inst.a) | regs.taint_of(second, inst.b) | regs.taint_of(third, inst.c);
        Taint { sources: sources | result & reads_result, result }
    }
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

/// Row operations with taint, up to another kind of instruction.
pub(crate) fn run_checked(
    level: Level,
    regs: &mut Regs,
    insts: &[Inst],
    pc: usize,
    stop: usize,
    active: u32,
) -> (usize, RunCount) {
    run_rows::<true>(level, regs, insts, pc, stop, active, |_, _, _| Other::Refused)
}

/// Row operations without taint, up to another kind of instruction.
#[cfg(test)]
pub(crate) fn run_plain(
    level: Level,
    regs: &mut Regs,
    insts: &[Inst],
    pc: usize,
    stop: usize,
    active: u32,
) -> (usize, RunCount) {
    run_rows::<false>(level, regs, insts, pc, stop, active, |_, _, _| Other::Refused)
}
