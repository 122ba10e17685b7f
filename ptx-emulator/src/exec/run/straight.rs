//! Straight runs of instructions without a check that records anything: row operations, and those others that are
//! common, touch only registers and shared memory, and have nothing to report. All else ends the run.

use crate::exec::matrix::ldmatrix;
use crate::exec::matrix::mma;
use crate::exec::matrix::wmma;
use crate::exec::memory::shared::Shared;
use crate::exec::run::block::{Block, Context};
use crate::exec::run::rows::{Other, RunCount, run_rows};
use crate::exec::run::warp::{OpenCopy, Warp};
use crate::exec::sync::lanes;
use crate::isa::op::{Load, Op, Store};
use crate::launch::MmaModel;
use crate::machine::regs::{FULL, LANES, Regs};
use crate::machine::simd::{Level, dispatch};

/// What a straight run works on beside the registers of its warp.
pub(crate) struct Surroundings<'a> {
    level: Level,
    model: MmaModel,
    shared: &'a mut Shared,
    /// Committed groups of copies of each lane.
    groups: &'a mut [u32; LANES],
    /// Copies that a wait could complete.
    copies: bool,
    /// Instructions that are not row operations until the turn of the warp ends.
    left: &'a mut u64,
    /// Converging instructions executed.
    ticks: u32,
    /// Other instructions than row operations are left to the caller, who times them one by one.
    rows_only: bool,
}

impl<'a> Surroundings<'a> {
    fn new(
        context: &Context<'_>,
        shared: &'a mut Shared,
        (groups, copies): (&'a mut [u32; LANES], &[Box<OpenCopy>]),
        left: &'a mut u64,
        rows_only: bool,
    ) -> Surroundings<'a> {
        let (level, model, copies) = (context.level, context.launch.mma_model, !copies.is_empty());
        Surroundings { level, model, shared, groups, copies, left, ticks: 0, rows_only }
    }

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
            Op::Matrix(op) => active == FULL && ldmatrix::plain(self.level, regs, self.shared, op) && self.tick(),
            Op::Wmma(op) => active == FULL && wmma::plain(self.level, regs, self.shared, op) && self.tick(),
            Op::Shuffle(op) => active == FULL && lanes::plain(self.level, regs, op) && self.tick(),
            Op::CopyCommit if active == FULL => {
                self.groups.iter_mut().for_each(|group| *group += 1);
                true
            }
            Op::CopyWait { .. } => !self.copies,
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
fn refuse_load(_: &mut Regs, _: &Shared, _: &Load, _: u32) -> bool {
    false
}

#[inline(always)]
fn refuse_store(_: &Regs, _: &mut Shared, _: &Store, _: u32) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
use crate::exec::memory::words_avx512::{load as load_avx512, store as store_avx512};

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
    pub(crate) fn run_straight(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        stop: usize,
        active: u32,
        left: &mut u64,
    ) -> (usize, RunCount) {
        let rows_only = context.launch.profile || context.launch.counts || context.launch.checks.races;
        let Warp { index, regs, groups, copies, .. } = warp;
        let mut around = Surroundings::new(context, &mut self.shared, (groups, copies), left, rows_only);
        let insts = &context.kernel.program.insts;
        let other = |regs: &mut Regs, op: &Op, active| around.execute(regs, op, active);
        let out = run_rows::<false>(context.level, regs, insts, pc, stop, active, other);
        let ticks = around.ticks;
        self.clocks.advance(*index, ticks);
        out
    }

    /// What a straight run does with an instruction that is not a row operation, for the profile, which times each on
    /// its own; false, and nothing done, when it is for [`Block::step`] to do.
    pub(crate) fn profiled_step(&mut self, context: &Context<'_>, warp: &mut Warp, active: u32, op: &Op) -> bool {
        let checks = context.launch.checks;
        if !context.launch.profile || checks.races || checks.uninitialised {
            return false;
        }
        let mut left = u64::MAX;
        let Warp { index, regs, groups, copies, .. } = warp;
        let mut around = Surroundings::new(context, &mut self.shared, (groups, copies), &mut left, false);
        let done = around.execute(regs, op, active) != Other::Refused;
        let ticks = around.ticks;
        self.clocks.advance(*index, ticks);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::op::Order;
    use crate::isa::slot::{Class, Slot};
    use crate::isa::space::{Addr, Space};
    use crate::machine::regs::{Row, Row64};

    const BYTES: usize = 4096;

    /// Where the lanes of a round access memory, `bytes` each: neighbours, groups of four, one place, or anywhere.
    fn places(round: u32, bytes: u32, mut next: impl FnMut() -> u32) -> [u32; LANES] {
        let mut at = [0; LANES];
        let mut start = 0;
        let room = BYTES as u32 - 64 - 32 * bytes;
        for (l, at) in at.iter_mut().enumerate() {
            let fresh = match round % 4 {
                0 | 2 => l == 0,
                1 => l % 4 == 0,
                _ => true,
            };
            if fresh {
                start = 64 + next() % room / bytes * bytes;
            }
            let step = [l as u32, l as u32 % 4, 0, 0][round as usize % 4];
            *at = start + step * bytes;
        }
        at
    }

    #[test]
    fn shared_words_move_as_they_do_one_by_one() {
        let mut state = 3u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let able = Level::all().len() == 3;
        for round in 0..600u32 {
            let count = [1, 2, 4][round as usize / 4 % 3];
            let bytes = 4 * count as u32;
            let mut at = places(round, bytes, &mut next);
            let active = [FULL, next() | 1 << 7, 1 << 31][round as usize / 12 % 3];
            // Some rounds are not for this path: outside the variable, or not aligned.
            let wrong = round % 7 == 6;
            if wrong {
                let lane = active.trailing_zeros() as usize;
                at[lane] = [60, BYTES as u32, at[lane] + 2, u32::MAX - 3][round as usize / 7 % 4];
            }
            let wide = round % 5 == 4;
            let offset = next() % 256;
            let row = |value: &dyn Fn(usize) -> u32| Row(std::array::from_fn(value));
            let mut w = vec![row(&|l| at[l].wrapping_sub(offset))];
            w.extend((0..4).map(|_| Row(std::array::from_fn(|_| next()))));
            let d = vec![Row64(std::array::from_fn(|l| u64::from(at[l]).wrapping_sub(u64::from(offset))))];
            let regs = Regs::plain(w, d);
            let memory: Vec<u8> = (0..BYTES).map(|_| next() as u8).collect();
            let base = Slot { class: if wide { Class::D } else { Class::W }, row: 0 };
            let addr = Addr { space: Space::Shared, base, offset: i64::from(offset) };
            let slots: Vec<Slot> = (0..count).map(|i| Slot { class: Class::W, row: 1 + i as u16 }).collect();
            let order = Order::default();
            let load = Load { addr, bytes: 4, signed: false, dst: slots.clone(), order, non_coherent: false };
            let store = Store { addr, bytes: 4, src: slots, order };

            let (mut loaded, mut stored) = (regs.clone(), memory.clone());
            for l in (0..LANES).filter(|l| active >> l & 1 == 1 && !wrong && able) {
                for i in 0..count {
                    let place = at[l] as usize + 4 * i;
                    let word = u32::from_le_bytes([0, 1, 2, 3].map(|b| memory[place + b]));
                    loaded.w[1 + i].0[l] = word;
                    stored[place..place + 4].copy_from_slice(&regs.w[1 + i].0[l].to_le_bytes());
                }
            }
            let values = |regs: &Regs| regs.w.iter().flat_map(|row| row.0).collect::<Vec<_>>();
            let what = format!("round {round}, {count} words, lanes {active:#x}");
            let mut after = regs.clone();
            let mut shared = Shared::unchecked(memory);
            assert_eq!(load_words(Level::detect(), &mut after, &shared, &load, active), able && !wrong, "{what}");
            assert_eq!(values(&after), values(&loaded), "load, {what}");
            assert_eq!(store_words(Level::detect(), &regs, &mut shared, &store, active), able && !wrong, "{what}");
            assert!(shared.bytes == stored, "store, {what}");
        }
    }
}
