//! Shadow of shared memory: who wrote and read what last, to find races by happens-before.
//!
//! Cells are kept for lines of 16 bytes, words, halves and bytes at the same time. An access is noted in the largest
//! cells that it fills, and judged by those of every size that was used on its lines. Nothing is forgotten when
//! something of another size comes: what was noted stays true. Neighbouring lanes are looked at as one row of cells;
//! only where that row is not past is every lane judged on its own.

use super::clock::{EngineView, Epoch, MAX_AGENTS, Relation, View, row};
use crate::machine::regs::{LANES, each_lane};
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

/// The accesses of one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    pub(crate) at: &'a [u32; LANES],
    pub(crate) lanes: u32,
    /// Lanes that stand for others which read the same.
    pub(crate) several: u32,
    /// Lanes that wrote the value that was there.
    pub(crate) same: u32,
    /// Bytes of each lane.
    pub(crate) size: u32,
    pub(crate) write: bool,
    /// The epoch of all but for the lane.
    pub(crate) me: Epoch,
}

/// Accesses of neighbouring lanes to neighbouring bytes, or one access.
#[derive(Clone, Copy, Debug)]
struct Run {
    offset: u32,
    size: u32,
    /// Lanes, from that of `me` on.
    lanes: u32,
    write: bool,
    same: u32,
    me: Epoch,
}

impl Run {
    fn end(&self) -> u32 {
        self.offset + self.size * self.lanes
    }
}

/// Splits the lanes of an instruction into runs that follow each other without a gap, and judges and records them.
#[inline(always)]
fn access_lanes(shadow: &mut Shadow, view: &View<'_>, access: &Access<'_>, found: &mut Vec<Conflict>) {
    let Access { at, lanes, several, same, size, write, me } = *access;
    let follows = (1..LANES).fold(0u32, |set, l| set | u32::from(at[l].wrapping_sub(at[l - 1]) == size) << l);
    let alone = if me.is_collective() { u32::MAX } else { several | several << 1 };
    let joined = follows & lanes & lanes << 1 & !alone;
    let mut starts = lanes & !joined;
    if size <= 1 << WORD && !me.is_collective() && !me.is_in_flight() && !view.has_lane_order() {
        let single = starts & !(joined >> 1);
        starts &= !single;
        shadow.single_lanes(view, access, single, found);
    }
    while starts != 0 {
        let first = starts.trailing_zeros();
        starts &= starts - 1;
        let lanes = 1 + (!(joined >> first >> 1)).trailing_zeros().min(31);
        let me = me.with_lane(first);
        let me = if several >> first & 1 == 1 { me.several() } else { me };
        shadow.run(view, Run { offset: at[first as usize], size, lanes, write, same, me }, found);
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
const LINE: u32 = 4;
/// Bytes of a word, as a power of two.
const WORD: u32 = 2;
/// The sizes of cells, as powers of two.
const SIZES: [u32; 4] = [LINE, WORD, 1, 0];
/// Bytes of a region, of which it is known when each warp last read there, as a power of two.
const REGION: u32 = 8;

/// Cells of one size; made when the first is used.
#[derive(Debug, Default)]
struct Cells {
    writes: Vec<u64>,
    /// Those of the first warp, then those of the next.
    reads: Vec<u64>,
}

/// Shadow of one block's shared memory.
#[derive(Debug)]
pub(crate) struct Shadow {
    warps: usize,
    bytes: u32,
    /// By the size of a cell.
    cells: [Cells; LINE as usize + 1],
    /// Sizes in which each line was written, a bit each.
    written: Vec<u8>,
    /// Sizes in which each line was read.
    read: Vec<u8>,
    /// The largest age of a read of each warp in each region.
    latest: Vec<u64>,
}

/// The cells that some bytes lie in.
#[inline(always)]
fn span(shift: u32, from: u32, to: u32) -> std::ops::Range<usize> {
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
            written: vec![0; lines],
            read: vec![0; lines],
            latest: vec![0; warps * bytes.div_ceil(1 << REGION)],
        }
    }

    #[inline(always)]
    fn count(&self, shift: u32) -> usize {
        (self.bytes >> shift) as usize
    }

    /// Cells of a size, made if there are none.
    #[inline(always)]
    fn made(&mut self, shift: u32) -> &mut Cells {
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

    #[inline(always)]
    fn run(&mut self, view: &View<'_>, run: Run, found: &mut Vec<Conflict>) {
        let Run { offset, write, .. } = run;
        let lines = span(LINE, offset, run.end());
        let sizes = |of: &[u8]| of[lines.clone()].iter().fold(0, |all, sizes| all | sizes);
        let written = sizes(&self.written);
        let read = if write { sizes(&self.read) } else { 0 };
        if !self.is_ordered(view, &run, written, read) {
            self.judge(view, &run, written, read, found);
        }
        self.record(view, &run);
    }

    /// Notes a run of accesses that was judged.
    #[inline(always)]
    fn record(&mut self, view: &View<'_>, run: &Run) {
        let Run { offset, size, write, me, .. } = *run;
        let lines = span(LINE, offset, run.end());
        // What is in flight ends word by word.
        let largest = if me.is_in_flight() { WORD } else { LINE };
        let shift = (offset | size | 1 << largest).trailing_zeros();
        let shift = if shift == 3 { WORD } else { shift };
        let (range, per_lane, warp) = (span(shift, offset, run.end()), (size >> shift) as usize, me.warp() as usize);
        let count = self.count(shift);
        let cells = self.made(shift);
        if write {
            row::write(&mut cells.writes[range], me, per_lane);
            self.written[lines].iter_mut().for_each(|sizes| *sizes |= 1 << shift);
            return;
        }
        let cells = &mut cells.reads[warp * count..][range];
        if me.is_collective() {
            cells.fill(me.0);
        } else if view.has_lane_order() {
            newer_reads(cells, view, me, per_lane);
        } else {
            row::read(cells, view.past()[warp], me, per_lane);
        }
        self.read[lines].iter_mut().for_each(|sizes| *sizes |= 1 << shift);
        for region in span(REGION, offset, run.end()) {
            self.latest[region * self.warps + warp] = me.age();
        }
    }

    /// As many runs of one lane each, of at most a word: looked at together, and recorded one after another.
    #[inline(always)]
    fn single_lanes(&mut self, view: &View<'_>, access: &Access<'_>, lanes: u32, found: &mut Vec<Conflict>) {
        let Access { at, several, same, size, write, me, .. } = *access;
        let (past, own, warp, me) = (view.past(), size.trailing_zeros(), me.warp() as usize, me.with_lane(0));
        let (mut written, mut read) = (0, 0);
        each_lane(lanes, |l| {
            written |= self.written[(at[l] >> LINE) as usize];
            read |= self.read[(at[l] >> LINE) as usize];
        });
        let read = if write { read } else { 0 };
        let before = |cells: &[u64], shift: u32| {
            let parts = 1 << own.saturating_sub(shift);
            let part = |i: u32| row::lanes_before(cells, (at, i << shift, shift), lanes, past, me);
            (0..parts).fold(u32::MAX, |all, i| all & part(i))
        };
        let mut clear = u32::MAX;
        for shift in SIZES.into_iter().filter(|shift| written >> shift & 1 == 1) {
            clear &= before(&self.cells[shift as usize].writes, shift);
        }
        for (warp, &limit) in past.iter().enumerate().take(if read == 0 { 0 } else { self.warps }) {
            let mut latest = 0;
            each_lane(lanes, |l| latest = latest.max(self.latest[(at[l] >> REGION) as usize * self.warps + warp]));
            for shift in SIZES.into_iter().filter(|shift| latest > limit && read >> shift & 1 == 1) {
                clear &= before(&self.cells[shift as usize].reads[warp * self.count(shift)..], shift);
            }
        }
        let count = self.count(own);
        self.made(own);
        each_lane(lanes, |l| {
            let (line, cell, region) = ((at[l] >> LINE) as usize, (at[l] >> own) as usize, (at[l] >> REGION) as usize);
            let mine = me.with_lane(l as u32);
            let mine = if several >> l & 1 == 1 { mine.several() } else { mine };
            // A lane before it may have written to the same place.
            if clear >> l & 1 == 0 || write && row::is_of_twin(self.cells[own as usize].writes[cell], mine) {
                let run = Run { offset: at[l], size, lanes: 1, write, same, me: mine };
                self.judge(view, &run, self.written[line], if write { self.read[line] } else { 0 }, found);
            }
            let cells = &mut self.cells[own as usize];
            if write {
                cells.writes[cell] = mine.0;
                self.written[line] |= 1 << own;
            } else {
                let cell = warp * count + cell;
                row::read(&mut cells.reads[cell..=cell], past[warp], mine, 1);
                self.read[line] |= 1 << own;
                self.latest[region * self.warps + warp] = me.age();
            }
        });
    }

    /// Whether nothing that was noted stands against an access: the usual case.
    #[inline(always)]
    fn is_ordered(&self, view: &View<'_>, run: &Run, written: u8, read: u8) -> bool {
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
    fn judge(&self, view: &View<'_>, run: &Run, written: u8, read: u8, conflicts: &mut Vec<Conflict>) {
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

    /// Judges and records an access by an engine: writes before it must be visible to its proxy, reads before it need only
    /// be ordered.
    pub(crate) fn engine_access(
        &mut self,
        view: &EngineView,
        (offset, size): (u32, u32),
        write: bool,
        me: Epoch,
        found: &mut Vec<Conflict>,
    ) {
        let run = Run { offset, size, lanes: 1, write, same: 0, me: me.collective() };
        let lines = span(LINE, offset, run.end());
        let written = self.written[lines.clone()].iter().fold(0, |all, sizes| all | sizes);
        let read = if write { self.read[lines].iter().fold(0, |all, sizes| all | sizes) } else { 0 };
        let (visible, ordered) = (view.visible(), view.ordered());
        if !self.is_ordered(&visible, &run, written, 0) {
            self.judge(&visible, &run, written, 0, found);
        }
        if read != 0 && !self.is_ordered(&ordered, &run, 0, read) {
            self.judge(&ordered, &run, 0, read, found);
        }
        self.record(&visible, &run);
    }

    /// Marks the words of a finished asynchronous copy as written by `me`.
    pub(crate) fn complete(&mut self, offset: u32, size: u32, me: Epoch) {
        let range = span(WORD, offset, offset + size);
        self.made(WORD).writes[range].fill(me.0);
    }
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
            let Step::Touch { warp, lane, lanes, offset, step, size, write } = *step else { continue };
            let view = clocks.view(warp, None);
            let me = Epoch::new(pc as u32, clocks.now(warp), warp as u32).with_lane(lane);
            let mut found: Vec<Conflict> = Vec::new();
            let at: [u32; LANES] = std::array::from_fn(|l| offset + (l as u32).saturating_sub(lane) * step);
            let active = ((1 << lanes) - 1) << lane;
            let all = Access { at: &at, lanes: active, several: 0, same: 0, size, write, me };
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
