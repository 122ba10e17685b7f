//! Straight runs of instructions without a check that records anything: row operations, and those others that are
//! common, touch only registers and shared memory, and have nothing to report. All else ends the run.

use super::block::{Block, Context};
use super::mma;
use super::regs::{FULL, Regs};
use super::rows::{Other, RunCount, run_rows};
use super::shared::Shared;
use super::simd::{Level, dispatch};
use super::warp::Warp;
use super::wmma;
use crate::launch::MmaModel;
use crate::program::{Inst, Load, Op, Store};

/// What a straight run works on beside the registers of its warp.
pub(crate) struct Surroundings<'a> {
    level: Level,
    model: MmaModel,
    shared: &'a mut Shared,
    /// Instructions that are not row operations until the turn of the warp ends.
    left: &'a mut u64,
    /// Converging instructions executed.
    ticks: u32,
    /// Other instructions than row operations are left to the caller, who times them one by one.
    rows_only: bool,
}

impl Surroundings<'_> {
    /// Executes an instruction that is not a row operation for the lanes of `active`. Kept out of the loop over row
    /// operations, whose state then stays in registers.
    #[inline(never)]
    fn execute(&mut self, regs: &mut Regs, op: &Op, active: u32) -> Other {
        if self.rows_only || active == 0 {
            return Other::Refused;
        }
        let done = match op {
            Op::Load(op) => load_words(self.level, regs, self.shared, op, active),
            Op::Store(op) => store_words(self.level, regs, self.shared, op, active),
            Op::Mma(op) => active == FULL && mma::plain(self.level, self.model, regs, op) && self.tick(),
            Op::Wmma(op) => active == FULL && wmma::plain(self.level, regs, self.shared, op) && self.tick(),
            _ => false,
        };
        if !done {
            return Other::Refused;
        }
        *self.left -= 1;
        if *self.left == 0 { Other::Last } else { Other::Done }
    }

    fn tick(&mut self) -> bool {
        self.ticks += 1;
        true
    }
}

#[inline(always)]
fn run(
    around: &mut Surroundings<'_>,
    regs: &mut Regs,
    insts: &[Inst],
    pc: usize,
    stop: usize,
    active: u32,
) -> (usize, RunCount) {
    run_rows::<false>(regs, insts, pc, stop, active, |regs, op, active| around.execute(regs, op, active))
}

dispatch! {
    /// [`run_rows`] without taint, and with the other instructions of a straight run.
    fn run_straight(around: &mut Surroundings<'_>, regs: &mut Regs, insts: &[Inst], pc: usize, stop: usize, active: u32) -> (usize, RunCount) = run;
}

#[inline(always)]
fn refuse_load(_: &mut Regs, _: &Shared, _: &Load, _: u32) -> bool {
    false
}

#[inline(always)]
fn refuse_store(_: &Regs, _: &mut Shared, _: &Store, _: u32) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
use super::words_avx512::{load as load_avx512, store as store_avx512};

dispatch! {
    /// A load of words of shared memory; false, and nothing done, when it is for [`Block::load`] to do.
    fn load_words(regs: &mut Regs, shared: &Shared, load: &Load, active: u32) -> bool = refuse_load, avx512: load_avx512;
}

dispatch! {
    /// A store of words to shared memory; false, and nothing done, when it is for [`Block::store`] to do.
    fn store_words(regs: &Regs, shared: &mut Shared, store: &Store, active: u32) -> bool = refuse_store, avx512: store_avx512;
}

impl Block {
    /// Runs on from `pc` until another kind of instruction, `stop`, or the end of `left`; returns the new pc.
    pub(super) fn run_straight(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        stop: usize,
        active: u32,
        left: &mut u64,
    ) -> (usize, RunCount) {
        let mut around = Surroundings {
            level: context.level,
            model: context.launch.mma_model,
            shared: &mut self.shared,
            left,
            ticks: 0,
            rows_only: context.launch.profile || context.launch.checks.races,
        };
        let insts = &context.kernel.program.insts;
        let out = run_straight(context.level, &mut around, &mut warp.regs, insts, pc, stop, active);
        let ticks = around.ticks;
        self.clocks.advance(warp.index, ticks);
        out
    }
}
