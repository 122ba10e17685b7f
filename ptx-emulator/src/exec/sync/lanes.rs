//! Operations across the lanes of a warp: shuffles, votes, reductions, matches.
//!
//! They converge the lanes they name but order no memory accesses.

use crate::exec::memory::access::source;
use crate::exec::memory::atom::combine;
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::Warp;
use crate::isa::op::{Elect, Match, Reduce, Shuffle, ShuffleMode, Vote, VoteMode};
use crate::isa::slot::{Class, Slot};
use crate::machine::regs::{FULL, LANES, Regs, each_lane, w};
use crate::machine::simd::{Level, dispatch};
use crate::report::{Kind, RawSite, Severity};

impl Block {
    /// Waits for every lane named by an executing lane; then calls `act` once per group of lanes
    /// with the same member mask.
    #[expect(clippy::too_many_arguments, reason = "position of the instruction and its action")]
    pub(super) fn grouped(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        members: u16,
        mut act: impl FnMut(&mut Block, &mut Warp, u32),
    ) -> Flow {
        let masks = *w(&warp.regs, members);
        let uniform = masks.iter().fold(true, |same, mask| same & (*mask == masks[0]));
        let mut union = masks[0];
        if !uniform {
            union = 0;
            each_lane(active, |l| union |= masks[l]);
        }
        if let Some(flow) = self.converge(context, warp, current, pc, active, union) {
            return flow;
        }
        self.clocks.tick(warp.index);
        if uniform {
            act(self, warp, active);
            return Flow::Next;
        }
        let mut rest = active;
        while rest != 0 {
            let mask = masks[rest.trailing_zeros() as usize];
            let mut group = 0;
            each_lane(rest, |l| group |= u32::from(masks[l] == mask) << l);
            if mask & active != group {
                let lane = rest.trailing_zeros();
                let site = RawSite { role: "executes", pc: pc as u32, warp: warp.index as u32, lane };
                self.report(context, Kind::SyncDivergence, Severity::Error, &[site], || {
                    format!("lanes {group:#010x} name {mask:#010x}, of which others are here with another mask")
                });
            }
            act(self, warp, group);
            rest &= !group;
        }
        Flow::Next
    }

    pub(crate) fn shuffle(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Shuffle,
    ) -> Flow {
        self.grouped(context, warp, current, pc, active, op.members, |block, warp, group| {
            let tracked = context.launch.checks.uninitialised;
            let choice = warp.regs.tw(op.lane) | warp.regs.tw(op.clamp);
            let source = Slot { class: Class::W, row: op.src };
            let unknown = (tracked && warp.regs.taint(source) != 0).then(|| warp.regs.unknown(source));
            let Shuffled { from, valid, stray } = shuffled(context.level, &mut warp.regs, op, group);
            if stray != 0 {
                block.report_lane(context, warp, Kind::SyncDivergence, pc, "shuffles", stray, || {
                    "shuffle reads a lane that does not take part".into()
                });
            }
            if tracked {
                warp.regs.taint_w(op.dst, choice, group);
                if let Some(unknown) = unknown {
                    let moved = from.map(|j| unknown[(j & 31) as usize]);
                    warp.regs.set_unknown(Slot { class: Class::W, row: op.dst }, &moved, group & !choice);
                }
            }
            if let Some(p) = op.in_range {
                warp.regs.set_p(p, valid, group);
                warp.regs.taint_p(p, choice, group);
            }
        })
    }

    pub(crate) fn vote(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Vote,
    ) -> Flow {
        self.grouped(context, warp, current, pc, active, op.members, |block, warp, group| {
            let row = usize::from(op.src);
            let bits = (warp.regs.p[row] ^ if op.negated { FULL } else { 0 }) & group;
            // Lanes whose say is not defined; the others may decide without them.
            let open = warp.regs.tp(op.src) & group;
            let (yes, no) = (bits & !open, !bits & group & !open);
            let (value, unknown) = match op.mode {
                VoteMode::All => (u64::from(bits == group), u64::from(open != 0 && no == 0)),
                VoteMode::Any => (u64::from(bits != 0), u64::from(open != 0 && yes == 0)),
                VoteMode::Uniform => {
                    (u64::from(bits == group || bits == 0), u64::from(open != 0 && (yes == 0 || no == 0)))
                }
                VoteMode::Ballot => (u64::from(bits), u64::from(open)),
            };
            block.set_slot(warp, op.dst, group, |_| value);
            if unknown != 0 {
                warp.regs.set_unknown(op.dst, &[unknown; LANES], group);
            }
        })
    }

    /// `elect.sync`: the lowest of the lanes that meet.
    pub(crate) fn elect(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Elect,
    ) -> Flow {
        self.grouped(context, warp, current, pc, active, op.members, |block, warp, group| {
            let leader = group.trailing_zeros() as usize;
            if let Some(row) = op.lane {
                block.set_slot(warp, Slot { class: Class::W, row }, group, |_| leader as u64);
            }
            if let Some(row) = op.elected {
                block.set_slot(warp, Slot { class: Class::P, row }, group, |l| u64::from(l == leader));
            }
        })
    }

    pub(crate) fn reduce(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Reduce,
    ) -> Flow {
        self.grouped(context, warp, current, pc, active, op.members, |_, warp, group| {
            let src = *w(&warp.regs, op.src);
            let mut total: Option<u64> = None;
            each_lane(group, |l| {
                let value = u64::from(src[l]);
                total = Some(total.map_or(value, |old| combine(op.op, 4, old, value, 0)));
            });
            let tainted = warp.regs.tw(op.src) & group != 0;
            warp.regs.set_w(op.dst, &[total.unwrap_or(0) as u32; LANES], group);
            warp.regs.taint_w(op.dst, if tainted { FULL } else { 0 }, group);
        })
    }

    pub(crate) fn match_lanes(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Match,
    ) -> Flow {
        self.grouped(context, warp, current, pc, active, op.members, |block, warp, group| {
            let (values, taint) = source(warp, op.src, 8);
            let mut same = [0u32; LANES];
            each_lane(group, |l| each_lane(group, |j| same[l] |= u32::from(values[l] == values[j]) << j));
            let all = same[group.trailing_zeros() as usize] == group;
            let dst = Slot { class: Class::W, row: op.dst };
            block.set_slot(warp, dst, group, |l| {
                u64::from(match (op.all, all) {
                    (false, _) => same[l],
                    (true, true) => group,
                    (true, false) => 0,
                })
            });
            if let Some(p) = op.pred {
                block.set_slot(warp, Slot { class: Class::P, row: p }, group, |_| u64::from(all));
            }
            if taint & group != 0 {
                crate::exec::memory::access::set_taint(warp, dst, FULL, group);
            }
        })
    }
}

/// A shuffle by all lanes that names them all, without taint; false, and nothing done, for another.
pub(crate) fn plain(level: Level, regs: &mut Regs, op: &Shuffle) -> bool {
    let all = w(regs, op.members).iter().fold(FULL, |all, members| all & members) == FULL;
    if all {
        let valid = shuffled(level, regs, op, FULL).valid;
        if let Some(p) = op.in_range {
            regs.set_p(p, valid, FULL);
        }
    }
    all
}

/// How a shuffle went, for every lane.
pub(crate) struct Shuffled {
    /// Lane that each reads from.
    pub(crate) from: [u32; LANES],
    /// Lanes whose source is in range.
    pub(crate) valid: u32,
    /// Lanes of the group whose source does not belong to it.
    pub(crate) stray: u32,
}

#[inline(always)]
fn shuffle_rows(regs: &mut Regs, op: &Shuffle, group: u32) -> Shuffled {
    match op.mode {
        ShuffleMode::Up => shuffle_mode(regs, op, group, ShuffleMode::Up),
        ShuffleMode::Down => shuffle_mode(regs, op, group, ShuffleMode::Down),
        ShuffleMode::Xor => shuffle_mode(regs, op, group, ShuffleMode::Xor),
        ShuffleMode::Index => shuffle_mode(regs, op, group, ShuffleMode::Index),
    }
}

/// The loop over the lanes with a mode that the compiler knows.
#[inline(always)]
fn shuffle_mode(regs: &mut Regs, op: &Shuffle, group: u32, mode: ShuffleMode) -> Shuffled {
    let (src, lanes, clamps) = (w(regs, op.src), w(regs, op.lane), w(regs, op.clamp));
    let mut found = Shuffled { from: [0; LANES], valid: 0, stray: 0 };
    let mut out = [0; LANES];
    for l in 0..LANES {
        let (from, ok) = shuffle_source(mode, l as u32, lanes[l], clamps[l]);
        found.from[l] = from;
        found.valid |= u32::from(ok) << l;
        found.stray |= (!(group >> (from & 31)) & 1) << l;
    }
    for (out, from) in out.iter_mut().zip(&found.from) {
        *out = src[(from & 31) as usize];
    }
    regs.set_w(op.dst, &out, group);
    found.stray &= group;
    found
}

#[cfg(target_arch = "x86_64")]
use crate::exec::sync::lanes_avx512::shuffle as shuffle_avx512;

dispatch! {
    /// Moves the values for the lanes of `group`.
    fn shuffled(regs: &mut Regs, op: &Shuffle, group: u32) -> Shuffled = shuffle_rows, avx512: shuffle_avx512;
}

/// Lane that `lane` reads from, and whether it is in range; out of range reads the own lane.
#[inline(always)]
pub(crate) fn shuffle_source(mode: ShuffleMode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, segment) = (b & 31, (c >> 8) & 31);
    let limit = (lane & segment) | (c & 31 & !segment);
    let (from, ok) = match mode {
        ShuffleMode::Up => {
            let from = lane as i32 - b as i32;
            (from as u32, from >= limit as i32)
        }
        ShuffleMode::Down => (lane + b, lane + b <= limit),
        ShuffleMode::Xor => (lane ^ b, lane ^ b <= limit),
        ShuffleMode::Index => {
            let from = (lane & segment) | (b & !segment);
            (from, from <= limit)
        }
    };
    if ok { (from, true) } else { (lane, false) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::regs::Row;

    #[test]
    fn shuffles_are_the_same_at_every_level() {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for round in 0..400 {
            let mode = [ShuffleMode::Up, ShuffleMode::Down, ShuffleMode::Xor, ShuffleMode::Index][round % 4];
            // Rows 0 to 2: values, offsets and clamps as compilers write them or not.
            let mut rows = vec![Row([0; LANES]); 4];
            let (offset, clamp) = (next(), [31, 0, 0x1c1f, 0x181f, 0x1003, next()][round / 4 % 6]);
            for l in 0..LANES {
                let free = round % 5 == 0;
                rows[0].0[l] = next();
                rows[1].0[l] = if free { next() } else { offset };
                rows[2].0[l] = if free { next() } else { clamp };
            }
            let group = if round % 3 == 0 { FULL } else { next() | 1 };
            let op = Shuffle { mode, dst: 3, in_range: None, src: 0, lane: 1, clamp: 2, members: 0 };
            let result = |level| {
                let w = rows.clone();
                let mut regs = Regs::plain(w, vec![]);
                let Shuffled { from, valid, stray } = shuffled(level, &mut regs, &op, group);
                (regs.w[3].0, from, valid, stray)
            };
            let wanted = result(Level::base());
            for l in 0..LANES {
                let (from, ok) = shuffle_source(mode, l as u32, rows[1].0[l], rows[2].0[l]);
                assert_eq!((wanted.1[l], wanted.2 >> l & 1 == 1), (from, ok), "{mode:?} lane {l}");
            }
            for level in Level::all() {
                assert_eq!(result(level), wanted, "{mode:?} {level:?}");
            }
        }
    }
}
