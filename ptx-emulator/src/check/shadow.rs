//! Shadow of shared memory: who wrote and read what last, to find races by happens-before.
//!
//! Cells are kept for lines of 16 bytes, words, halves and bytes at the same time. An access is noted in the largest
//! cells that it fills, and judged by those of every size that was used on its lines. Nothing is forgotten when
//! something of another size comes: what was noted stays true. Neighbouring lanes are looked at as one row of cells;
//! only where that row is not past is every lane judged on its own. Where nothing was done since all warps met, no cell
//! is looked at; reads are noted when a write comes near.

use super::clock::{Epoch, MAX_AGENTS, Relation, View, row};
use super::recent::{ALWAYS, Extent, Read, Recent, Sizes, Used};
use super::runs::{Access, Lanes, Run};
use crate::machine::regs::{LANES, lane_numbers};
use crate::machine::simd::{Level, dispatch};

/// What a conflicting pair did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    WriteWrite,
    ReadAfterWrite,
    WriteAfterRead,
    /// The earlier access is an asynchronous copy that is not complete.
    InFlight,
}

/// A conflict found by an access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub(crate) clash: Clash,
    pub(crate) relation: Relation,
    pub(crate) earlier: Epoch,
    pub(crate) lane: u32,
    /// First byte of the word, or the byte, concerned.
    pub(crate) offset: u32,
    /// The store wrote the value that was there.
    pub(crate) same_value: bool,
}

/// Judges and records the lanes of an instruction, or lets them wait.
#[inline(always)]
fn access_lanes(shadow: &mut Shadow, view: &View<'_>, access: &Access<'_>, found: &mut Vec<Conflict>) {
    let Access { at, lanes, size, write, me, .. } = *access;
    if lanes == 0 {
        return;
    }
    let extent = Extent::of(at, lanes, size);
    let used = shadow.recent.used(extent, write, me, view.past());
    if view.has_lane_order() {
        // From now on, order is not what it was for those that wait.
        shadow.note_waiting(Extent::ALL);
    } else if write && used.read {
        shadow.note_waiting(extent);
    }
    if write {
        shadow.write(view, access, used, extent, found);
    } else {
        shadow.read(view, access, used.written, extent, found);
    }
    if !me.is_in_flight() {
        shadow.recent.note(extent, write, me);
    }
}

dispatch! {
    /// Records the accesses of an instruction, and adds every conflict to `found`.
    pub(crate) fn access(shadow: &mut Shadow, view: &View<'_>, access: &Access<'_>, found: &mut Vec<Conflict>) = access_lanes;
}

/// Something earlier that stands against the access of a lane, and the bytes concerned.
struct Doubt {
    from: u32,
    to: u32,
    clash: Clash,
    relation: Relation,
    earlier: Epoch,
}

impl Doubt {
    /// Whether it is the same of the same warp, only newer.
    fn covers(&self, other: &Doubt) -> bool {
        let place = self.from <= other.from && other.to <= self.to;
        let kind = self.clash == other.clash && self.earlier.warp() == other.earlier.warp();
        place && kind && self.earlier.age() > other.earlier.age()
    }
}

/// Bytes of a line, the largest cell, as a power of two.
pub(super) const LINE: u32 = 4;
/// Bytes of a word, as a power of two.
pub(super) const WORD: u32 = 2;
/// The sizes of cells, as powers of two.
pub(crate) const SIZES: [u32; 4] = [LINE, WORD, 1, 0];
/// Bytes of a region, of which it is known when each warp last read there, as a power of two.
pub(super) const REGION: u32 = 8;

/// Cells of one size; made when the first is used.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) writes: Vec<u64>,
    /// Those of the first warp, then those of the next.
    pub(super) reads: Vec<u64>,
}

/// Shadow of one block's shared memory.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(super) warps: usize,
    pub(super) bytes: u32,
    /// By the size of a cell.
    pub(super) cells: [Cells; LINE as usize + 1],
    /// Sizes in which each line was written in the era in which it last was.
    pub(super) written: Vec<Sizes>,
    /// Sizes in which each line was read.
    pub(super) read: Vec<Sizes>,
    /// The largest age of a read of each warp in each region.
    pub(super) latest: Vec<u64>,
    pub(super) recent: Recent,
}

/// The cells that some bytes lie in.
#[inline(always)]
pub(super) fn span(shift: u32, from: u32, to: u32) -> std::ops::Range<usize> {
    (from >> shift) as usize..((to - 1) >> shift) as usize + 1
}

impl Shadow {
    pub(crate) fn new(bytes: usize, warps: usize) -> Shadow {
        let lines = bytes.div_ceil(1 << LINE);
        let warps = warps.max(1);
        Shadow {
            warps,
            bytes: (lines << LINE) as u32,
            cells: Default::default(),
            written: vec![Sizes::default(); lines],
            read: vec![Sizes::default(); lines],
            latest: vec![0; warps * bytes.div_ceil(1 << REGION)],
            recent: Recent::new(lines << LINE),
        }
    }

    #[inline(always)]
    pub(super) fn count(&self, shift: u32) -> usize {
        (self.bytes >> shift) as usize
    }

    /// Cells of a size, made if there are none.
    #[inline(always)]
    pub(super) fn made(&mut self, shift: u32) -> &mut Cells {
        if self.cells[shift as usize].writes.is_empty() {
            self.make(shift);
        }
        &mut self.cells[shift as usize]
    }

    #[cold]
    fn make(&mut self, shift: u32) {
        let count = self.count(shift);
        self.cells[shift as usize] = Cells { writes: vec![0; count], reads: vec![0; count * self.warps] };
    }

    /// Tells that warps have met, with the ages that are past for each warp that goes on.
    pub(crate) fn settle<'a>(&mut self, pasts: impl Iterator<Item = &'a [u64; MAX_AGENTS]>) {
        self.recent.settle(pasts);
    }

    /// Notes the reads that wait and touch some bytes.
    #[inline(always)]
    pub(super) fn note_waiting(&mut self, extent: Extent) {
        let mut left = usize::MAX;
        while let Some(read) = self.recent.take(extent, &mut left) {
            self.note_read(&read, None);
        }
    }

    /// Notes a read; without a view, as one that the later ones of its warp may be noted already.
    #[inline(always)]
    fn note_read(&mut self, read: &Read, view: Option<&View<'_>>) {
        let mut lanes = Lanes::of(&read.at, read.lanes, read.size, false, read.me);
        if view.is_none() && read.size <= 1 << LINE && !read.me.is_collective() {
            let single = lanes.take_single();
            self.record_single_reads(read, (single, lanes.several));
        }
        for run in lanes.runs(false, 0, read.me) {
            self.record_read(&run, read.limit, view);
        }
    }

    /// Judges a read if something was written since all warps met, and lets it wait.
    #[inline(always)]
    fn read(&mut self, view: &View<'_>, access: &Access<'_>, written: bool, extent: Extent, found: &mut Vec<Conflict>) {
        let Access { at, lanes, size, same, me, .. } = *access;
        let read = Read { at: *at, lanes, size, me, limit: view.past()[me.warp() as usize % MAX_AGENTS] };
        if written {
            let used = Used { written, read: false };
            let mut runs = Lanes::of(at, lanes, size, false, me);
            if is_of_lanes(view, size, me) {
                let single = runs.take_single();
                let clear = self.lanes_clear(view, access, (single, extent), used);
                for l in lane_numbers(single & !clear) {
                    self.judge_lane(view, access, (l, runs.several >> l & 1 == 1), found);
                }
            }
            for run in runs.runs(false, same, me) {
                self.judge_run(view, &run, used, found);
            }
        }
        if view.has_lane_order() {
            return self.note_read(&read, Some(view));
        }
        // To note few is as quick as to let them wait.
        let few =
            extent.bytes() <= LANES as u32 * size && Lanes::of(at, lanes, size, false, me).starts.count_ones() <= 2;
        if few || !self.recent.wait(extent, &read) {
            self.note_read(&read, None);
        }
    }

    /// Judges a write by what was done since all warps met, and records it.
    #[inline(always)]
    fn write(&mut self, view: &View<'_>, access: &Access<'_>, used: Used, extent: Extent, found: &mut Vec<Conflict>) {
        let Access { at, lanes, size, same, me, .. } = *access;
        let mut runs = Lanes::of(at, lanes, size, true, me);
        // Which lanes found their value in place was seen in the order of lanes: where two may meet, that order is kept.
        if is_of_lanes(view, size, me) && runs.may_be_parted() {
            let single = runs.take_single();
            self.write_single(view, access, (single, extent, runs.apart), used, found);
        }
        // A lane may clash with another of its instruction.
        let used = Used { written: used.written || !runs.apart, ..used };
        for run in runs.runs(true, same, me) {
            self.judge_run(view, &run, used, found);
            self.record_write(&run);
        }
    }

    /// Sizes in which lines were written and read in this era, as far as they matter.
    #[inline(always)]
    pub(super) fn sizes(&self, lines: std::ops::Range<usize>, used: Used) -> (u8, u8) {
        let written = if used.written { self.recent.sizes(&self.written[lines.clone()]) } else { 0 };
        (written, if used.read { self.recent.sizes(&self.read[lines]) } else { 0 })
    }

    /// Judges a run unless it needs no look.
    #[inline(always)]
    fn judge_run(&self, view: &View<'_>, run: &Run, used: Used, found: &mut Vec<Conflict>) {
        let (written, read) = self.sizes(span(LINE, run.offset, run.end()), used);
        if written | read != 0 && !self.is_ordered(view, run, written, read) {
            self.judge(view, run, written, read, found);
        }
    }

    #[inline(always)]
    pub(super) fn record_write(&mut self, run: &Run) {
        let shift = cell_size(run);
        let (range, per_lane) = (span(shift, run.offset, run.end()), (run.size >> shift) as usize);
        self.made(shift);
        let Shadow { cells, written, recent, .. } = self;
        let first = range.start;
        let cells = &mut cells[shift as usize].writes[range];
        let mut era = recent.era();
        if run.me.is_in_flight() {
            era = ALWAYS;
            begin_copies(recent, cells, first);
        }
        row::write(cells, run.me, per_lane);
        for line in &mut written[span(LINE, run.offset, run.end())] {
            line.add(era, shift);
        }
    }

    #[inline(always)]
    pub(super) fn record_read(&mut self, run: &Run, limit: u64, view: Option<&View<'_>>) {
        let Run { offset, me, .. } = *run;
        let (shift, warp) = (cell_size(run), me.warp() as usize);
        let (range, per_lane, count) =
            (span(shift, offset, run.end()), (run.size >> shift) as usize, self.count(shift));
        let cells = &mut self.made(shift).reads[warp * count..][range];
        match view {
            _ if me.is_collective() => row::read_whole(cells, me),
            Some(view) => newer_reads(cells, view, me, per_lane),
            None => row::read(cells, limit, me, per_lane),
        }
        let era = self.recent.era();
        for line in &mut self.read[span(LINE, offset, run.end())] {
            line.add(era, shift);
        }
        for region in span(REGION, offset, run.end()) {
            let latest = &mut self.latest[region * self.warps + warp];
            *latest = me.age().max(*latest);
        }
    }

    /// Whether nothing that was noted stands against an access: the usual case.
    #[inline(always)]
    pub(super) fn is_ordered(&self, view: &View<'_>, run: &Run, written: u8, read: u8) -> bool {
        let past = view.past();
        let mut ordered = true;
        for shift in SIZES {
            if written >> shift & 1 == 1 {
                let cells = &self.cells[shift as usize].writes[span(shift, run.offset, run.end())];
                ordered &= is_clear(shift, cells, past, run);
            }
        }
        if read == 0 {
            return ordered;
        }
        for (warp, &limit) in past.iter().enumerate().take(self.warps) {
            let latest = span(REGION, run.offset, run.end()).map(|region| self.latest[region * self.warps + warp]);
            if latest.fold(0, u64::max) <= limit {
                continue;
            }
            for shift in SIZES {
                if read >> shift & 1 == 1 {
                    let reads = &self.cells[shift as usize].reads[warp * self.count(shift)..];
                    let reads = &reads[span(shift, run.offset, run.end())];
                    ordered &= match run.me.is_collective() {
                        true => row::are_past_reads(reads, past, run.me),
                        false => is_clear(shift, reads, past, run),
                    };
                }
            }
        }
        ordered
    }

    /// Judges every lane by what is not past, the newest of each warp and kind.
    #[cold]
    #[inline(never)]
    pub(super) fn judge(&self, view: &View<'_>, run: &Run, written: u8, read: u8, conflicts: &mut Vec<Conflict>) {
        let Run { offset, size, lanes, write, same, me } = *run;
        let mut found: Vec<Doubt> = Vec::new();
        for i in 0..lanes {
            let (from, to) = (offset + i * size, offset + (i + 1) * size);
            let me = if me.is_collective() { me } else { me.with_lane(me.lane() + i) };
            let lane = if me.is_collective() { u32::MAX } else { me.lane() };
            found.clear();
            for shift in SIZES {
                let cells = &self.cells[shift as usize];
                for cell in span(shift, from, to) {
                    let bounds = (from.max((cell as u32) << shift), to.min((cell as u32 + 1) << shift));
                    let mut note = |clash, relation, earlier| {
                        found.push(Doubt { from: bounds.0, to: bounds.1, clash, relation, earlier });
                    };
                    if written >> shift & 1 == 1 {
                        judge_write(Epoch(cells.writes[cell]), view, (me, lane, write), &mut note);
                    }
                    if read >> shift & 1 == 1 {
                        let reads = (0..self.warps).map(|warp| cells.reads[warp * self.count(shift) + cell]);
                        reads.for_each(|read| judge_read(Epoch(read), view, (me, lane), &mut note));
                    }
                }
            }
            for doubt in found.iter().filter(|doubt| !found.iter().any(|newer| newer.covers(doubt))) {
                let &Doubt { clash, relation, earlier, .. } = doubt;
                for offset in (doubt.from..doubt.to).step_by(1 << WORD) {
                    let same_value = !me.is_collective() && same >> me.lane() & 1 == 1;
                    conflicts.push(Conflict { clash, relation, earlier, lane, offset, same_value });
                }
            }
        }
    }
}

/// Whether lanes can be looked at each on its own.
#[inline(always)]
fn is_of_lanes(view: &View<'_>, size: u32, me: Epoch) -> bool {
    size <= 1 << LINE && !me.is_collective() && !view.has_lane_order()
}

/// Notes that words from `first` on are going to be in flight.
#[inline(always)]
pub(super) fn begin_copies(recent: &mut Recent, cells: &[u64], first: usize) {
    for (i, cell) in cells.iter().enumerate() {
        if !Epoch(*cell).is_in_flight() {
            recent.begin_copy(first + i);
        }
    }
}

/// The size of the cells that a run is noted in, as a power of two.
#[inline(always)]
fn cell_size(run: &Run) -> u32 {
    // What is in flight ends word by word.
    let largest = if run.me.is_in_flight() { WORD } else { LINE };
    let shift = (run.offset | run.size | 1 << largest).trailing_zeros();
    if shift == 3 { WORD } else { shift }
}

/// Whether cells of one size hold nothing that stands against a run.
#[inline(always)]
fn is_clear(shift: u32, cells: &[u64], past: &[u64; MAX_AGENTS], run: &Run) -> bool {
    // A larger cell than the bytes of a lane is of that lane only if it is alone.
    match run.size >> shift {
        _ if run.me.is_collective() => row::are_past(cells, past),
        0 if run.lanes > 1 => row::are_past(cells, past),
        per_lane => row::are_before(cells, past, run.me, per_lane as usize),
    }
}

fn judge_write(
    old: Epoch,
    view: &View<'_>,
    (me, lane, write): (Epoch, u32, bool),
    note: &mut impl FnMut(Clash, Relation, Epoch),
) {
    if view.is_past(old) {
        return;
    }
    let relation = view.relation(old, lane);
    if old.is_in_flight() {
        note(Clash::InFlight, relation, old);
    } else if relation != Relation::Ordered && !old.may_meet(me) {
        note(if write { Clash::WriteWrite } else { Clash::ReadAfterWrite }, relation, old);
    }
}

fn judge_read(old: Epoch, view: &View<'_>, (me, lane): (Epoch, u32), note: &mut impl FnMut(Clash, Relation, Epoch)) {
    if view.is_past(old) || old.may_meet(me) {
        return;
    }
    let relation = view.relation(old, lane);
    // Fragments read by the whole warp are in registers before it can store others.
    let whole = relation == Relation::Converged && old.is_collective() && me.is_collective();
    if relation != Relation::Ordered && !whole {
        note(Clash::WriteAfterRead, relation, old);
    }
}

/// As [`row::read`], where more than times says how lanes are ordered.
#[inline(never)]
fn newer_reads(cells: &mut [u64], view: &View<'_>, me: Epoch, per_lane: usize) {
    for (i, cell) in cells.iter_mut().enumerate() {
        let lane = me.with_lane(me.lane() + (i / per_lane) as u32);
        *cell = newer_read(Epoch(*cell), view, lane).0;
    }
}

/// The newer read of a warp, marked when other lanes read since the last synchronisation.
fn newer_read(old: Epoch, view: &View<'_>, me: Epoch) -> Epoch {
    let ordered = view.is_past(old) || view.relation(old, me.lane()) == Relation::Ordered;
    if ordered { me } else { me.several() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::agents::Agents;
    use crate::check::clock::Clocks;
    use crate::isa::engines::Engines;
    use proptest::prelude::*;

    const WARPS: usize = 3;
    const BYTES: u32 = 32;

    #[derive(Clone, Debug)]
    enum Step {
        /// Lanes from `lane` on.
        Touch {
            warp: usize,
            lane: u32,
            lanes: u32,
            offset: u32,
            /// From lane to lane.
            step: u32,
            size: u32,
            write: bool,
        },
        /// All warps meet.
        Barrier,
        /// One warp publishes, another learns.
        Signal {
            from: usize,
            to: usize,
        },
        WarpSync {
            warp: usize,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let sizes = prop::sample::select(vec![1u32, 2, 4, 4, 8, 16]);
        let touch = (0..WARPS, 0..3u32, 1..5u32, 0..BYTES, 0..3u32, sizes, any::<bool>()).prop_map(
            |(warp, lane, lanes, offset, step, size, write)| {
                let (offset, step) = (offset / size * size, step * size);
                let most = (BYTES - offset - size).checked_div(step).map_or(lanes, |gaps| gaps + 1);
                // All lanes that read one place count as one.
                let lanes = if step == 0 { 1 } else { lanes.min(most) };
                Step::Touch { warp, lane, lanes, offset, step, size, write }
            },
        );
        let step = prop_oneof![
            8 => touch,
            1 => Just(Step::Barrier),
            2 => (0..WARPS, 0..WARPS).prop_map(|(from, to)| Step::Signal { from, to }),
            1 => (0..WARPS).prop_map(|warp| Step::WarpSync { warp }),
        ];
        prop::collection::vec(step, 1..60)
    }

    fn order(clocks: &mut Clocks, step: &Step) {
        match *step {
            Step::Barrier => {
                let mut stamp = Vec::new();
                (0..WARPS).for_each(|warp| clocks.release(warp, &mut stamp));
                for warp in 0..WARPS {
                    clocks.acquire(warp, &stamp);
                    clocks.sync_warp(warp);
                }
            }
            Step::Signal { from, to } => {
                let mut stamp = Vec::new();
                clocks.release(from, &mut stamp);
                clocks.acquire(to, &stamp);
            }
            Step::WarpSync { warp } => clocks.sync_warp(warp),
            Step::Touch { .. } => {}
        }
    }

    /// Against a detector that keeps every access: what the shadow reports is a race, and the first race of two warps on
    /// a byte is never missed.
    fn compare(level: Level, steps: &[Step]) -> Result<(), TestCaseError> {
        let mut clocks = Clocks::new(&Agents::new(WARPS, Engines::default()));
        let mut shadow = Shadow::new(BYTES as usize, WARPS);
        let mut history: Vec<(u32, bool, Epoch)> = Vec::new();
        let mut raced = [false; BYTES as usize];
        for (pc, step) in steps.iter().enumerate() {
            order(&mut clocks, step);
            shadow.settle((0..WARPS).map(|warp| clocks.past(warp)));
            let Step::Touch { warp, lane, lanes, offset, step, size, write } = *step else { continue };
            let view = clocks.view(warp, None);
            let me = Epoch::new(pc as u32, clocks.now(warp), warp as u32).with_lane(lane);
            let mut found: Vec<Conflict> = Vec::new();
            let at: [u32; LANES] = std::array::from_fn(|l| offset + (l as u32).saturating_sub(lane) * step);
            let active = ((1 << lanes) - 1) << lane;
            let all = Access { at: &at, lanes: active, same: 0, size, write, me };
            access(level, &mut shadow, &view, &all, &mut found);
            let bytes = |i: u32| (0..size).map(move |byte| (offset + i * step + byte, lane + i));
            let touched = || (0..lanes).flat_map(bytes);
            for (byte, lane) in touched() {
                // Within a warp another warp may order two lanes through signals, which
                // the relation does not see; so only pairs of warps must be found.
                let raced_now = history.iter().any(|(at, wrote, old)| {
                    *at == byte && (*wrote || write) && view.relation(*old, lane) == Relation::OtherWarp
                });
                let here = |c: &Conflict| c.offset == byte || (c.offset / 4 == byte / 4 && size >= 2);
                if raced_now && !raced[byte as usize] {
                    prop_assert!(found.iter().any(here), "missed the first race of byte {}", byte);
                }
                raced[byte as usize] |= raced_now;
            }
            for conflict in &found {
                let real = history.iter().any(|(at, wrote, old)| {
                    touched().any(|(byte, lane)| byte == *at && lane == conflict.lane)
                        && (*wrote || write)
                        && old.pc() == conflict.earlier.pc()
                        && view.relation(*old, conflict.lane) != Relation::Ordered
                });
                // A read marked as made by several lanes stands for one of the others.
                prop_assert!(real || conflict.earlier.is_several(), "invented {:?}", conflict);
            }
            history.extend(touched().map(|(byte, lane)| (byte, write, me.with_lane(lane))));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_detector_that_forgets_nothing(steps in steps()) {
            for level in Level::all() {
                compare(level, &steps)?;
            }
        }
    }
}
