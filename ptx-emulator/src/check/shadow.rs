//! Shadow of shared memory: last write and reads since, per 4-byte granule or per byte.
//!
//! A granule is split into bytes the first time a smaller access touches it (neighbouring FP8
//! values belong to different threads) and joined again by a whole-granule write.

use super::clock::{Epoch, Relation, View};

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
    /// First byte of the granule or byte concerned.
    pub(crate) offset: u32,
    /// The store wrote the value that was there.
    pub(crate) same_value: bool,
}

/// Reads are one epoch, or the index of a set with one epoch per warp.
const SET: u64 = 1 << 63;

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    write: Epoch,
    read: u64,
}

/// One access of one lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) offset: u32,
    pub(crate) size: u32,
    pub(crate) write: bool,
    pub(crate) same_value: bool,
    pub(crate) me: Epoch,
}

impl Access {
    /// Lane that owns the access; a collective one has none.
    #[inline(always)]
    fn lane(&self) -> u32 {
        if self.me.is_collective() { u32::MAX } else { self.me.lane() }
    }
}

/// Read sets of cells that several warps read.
#[derive(Debug)]
struct ReadSets {
    warps: usize,
    slots: Vec<Epoch>,
    free: Vec<u64>,
}

impl ReadSets {
    fn take(&mut self) -> u64 {
        if let Some(index) = self.free.pop() {
            let at = index as usize * self.warps;
            self.slots[at..at + self.warps].fill(Epoch::default());
            return index;
        }
        let index = (self.slots.len() / self.warps) as u64;
        self.slots.resize(self.slots.len() + self.warps, Epoch::default());
        index
    }

    fn get(&self, index: u64) -> &[Epoch] {
        let at = index as usize * self.warps;
        &self.slots[at..at + self.warps]
    }

    fn get_mut(&mut self, index: u64) -> &mut [Epoch] {
        let at = index as usize * self.warps;
        &mut self.slots[at..at + self.warps]
    }
}

/// Shadow of one block's shared memory.
#[derive(Debug)]
pub(crate) struct Shadow {
    granules: Vec<Cell>,
    split: Vec<bool>,
    /// Four cells per granule, made when the first granule is split.
    bytes: Vec<Cell>,
    sets: ReadSets,
}

impl Shadow {
    pub(crate) fn new(bytes: usize, warps: usize) -> Shadow {
        let granules = bytes.div_ceil(4);
        Shadow {
            granules: vec![Cell::default(); granules],
            split: vec![false; granules],
            bytes: Vec::new(),
            sets: ReadSets { warps: warps.max(1), slots: Vec::new(), free: Vec::new() },
        }
    }

    /// Records an access and passes every conflict to `report`.
    #[inline]
    pub(crate) fn access(&mut self, view: &View<'_>, access: Access, report: &mut impl FnMut(Conflict)) {
        let (mut at, end) = (access.offset, access.offset + access.size);
        while at < end {
            let granule = (at / 4) as usize;
            let next = ((at / 4) * 4 + 4).min(end);
            let whole = at.is_multiple_of(4) && next - at == 4;
            if whole && !self.split[granule] {
                let cell = &mut self.granules[granule];
                touch(cell, &mut self.sets, view, at, &access, report);
            } else {
                self.access_bytes(view, granule, at, next, &access, report);
                if whole && access.write {
                    self.granules[granule] = Cell { write: access.me, read: 0 };
                    self.split[granule] = false;
                }
            }
            at = next;
        }
    }

    fn access_bytes(
        &mut self,
        view: &View<'_>,
        granule: usize,
        from: u32,
        to: u32,
        access: &Access,
        report: &mut impl FnMut(Conflict),
    ) {
        if !self.split[granule] {
            self.split_granule(granule);
        }
        for at in from..to {
            touch(&mut self.bytes[at as usize], &mut self.sets, view, at, access, report);
        }
    }

    fn split_granule(&mut self, granule: usize) {
        if self.bytes.is_empty() {
            self.bytes = vec![Cell::default(); self.granules.len() * 4];
        }
        let cell = std::mem::take(&mut self.granules[granule]);
        self.split[granule] = true;
        for i in 0..4 {
            let mut copy = cell;
            if i > 0 && cell.read & SET != 0 {
                let own = self.sets.take();
                let (from, to) = ((cell.read & !SET) as usize, own as usize);
                let warps = self.sets.warps;
                self.sets.slots.copy_within(from * warps..(from + 1) * warps, to * warps);
                copy.read = own | SET;
            }
            self.bytes[granule * 4 + i] = copy;
        }
    }

    /// Marks the bytes of a finished asynchronous copy as written by `me`.
    pub(crate) fn complete(&mut self, offset: u32, size: u32, me: Epoch) {
        let mut at = offset;
        while at < offset + size {
            let granule = (at / 4) as usize;
            if self.split[granule] {
                self.bytes[at as usize].write = me;
                at += 1;
            } else {
                self.granules[granule].write = me;
                at = (at / 4) * 4 + 4;
            }
        }
    }
}

/// Checks and updates one cell.
#[inline(always)]
fn touch(
    cell: &mut Cell,
    sets: &mut ReadSets,
    view: &View<'_>,
    offset: u32,
    access: &Access,
    report: &mut impl FnMut(Conflict),
) {
    let lane = access.lane();
    let mut clash = |clash: Clash, relation: Relation, earlier: Epoch| {
        report(Conflict { clash, relation, earlier, lane: access.me.lane(), offset, same_value: access.same_value });
    };
    if cell.write.exists() {
        let relation = view.relation(cell.write, lane);
        if cell.write.is_in_flight() {
            clash(Clash::InFlight, relation, cell.write);
        } else if relation != Relation::Ordered && !(cell.write.is_strong() && access.me.is_strong()) {
            let kind = if access.write { Clash::WriteWrite } else { Clash::ReadAfterWrite };
            clash(kind, relation, cell.write);
        }
    }
    if access.write {
        check_reads(cell, sets, view, access, &mut clash);
        if cell.read & SET != 0 {
            sets.free.push(cell.read & !SET);
        }
        *cell = Cell { write: access.me, read: 0 };
    } else {
        record_read(cell, sets, view, access.me);
    }
}

fn check_reads(
    cell: &Cell,
    sets: &ReadSets,
    view: &View<'_>,
    access: &Access,
    clash: &mut impl FnMut(Clash, Relation, Epoch),
) {
    let mut check = |read: Epoch| {
        if !read.exists() || (read.is_strong() && access.me.is_strong()) {
            return;
        }
        let mut relation = view.relation(read, access.lane());
        if relation == Relation::Converged && read.is_collective() && access.me.is_collective() {
            // Fragments read by the whole warp are in registers before it can store others.
            relation = Relation::Ordered;
        }
        if relation != Relation::Ordered {
            clash(Clash::WriteAfterRead, relation, read);
        }
    };
    if cell.read & SET != 0 {
        sets.get(cell.read & !SET).iter().for_each(|read| check(*read));
    } else {
        check(Epoch(cell.read));
    }
}

/// Remembers a read, keeping every earlier one that a later write could still race with.
#[inline(always)]
fn record_read(cell: &mut Cell, sets: &mut ReadSets, view: &View<'_>, me: Epoch) {
    if cell.read & SET != 0 {
        let slot = &mut sets.get_mut(cell.read & !SET)[me.warp() as usize];
        *slot = merge(*slot, view, me);
        return;
    }
    let old = Epoch(cell.read);
    if !old.exists() || old.warp() == me.warp() || view.relation(old, me.lane()) == Relation::Ordered {
        cell.read = merge(old, view, me).0;
        return;
    }
    let index = sets.take();
    let set = sets.get_mut(index);
    set[old.warp() as usize] = old;
    set[me.warp() as usize] = me;
    cell.read = index | SET;
}

/// The newer read of a warp, marked when other lanes read since the last synchronisation.
#[inline(always)]
fn merge(old: Epoch, view: &View<'_>, me: Epoch) -> Epoch {
    let same_warp = old.exists() && old.warp() == me.warp();
    if same_warp && view.relation(old, me.lane()) != Relation::Ordered { me.several() } else { me }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::clock::Clocks;
    use proptest::prelude::*;

    const WARPS: usize = 3;
    const BYTES: u32 = 12;

    #[derive(Clone, Debug)]
    enum Step {
        Touch {
            warp: usize,
            lane: u32,
            offset: u32,
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
        let touch = (0..WARPS, 0..3u32, 0..BYTES, prop::sample::select(vec![1u32, 2, 4]), any::<bool>()).prop_map(
            |(warp, lane, offset, size, write)| Step::Touch { warp, lane, offset: offset / size * size, size, write },
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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a detector that keeps every access: what the shadow reports is a race, and the
        /// first race of two warps on a byte is never missed.
        #[test]
        fn agrees_with_a_detector_that_forgets_nothing(steps in steps()) {
            let mut clocks = Clocks::new(WARPS);
            let mut shadow = Shadow::new(BYTES as usize, WARPS);
            let mut history: Vec<(u32, bool, Epoch)> = Vec::new();
            let mut raced = [false; BYTES as usize];
            for (pc, step) in steps.iter().enumerate() {
                order(&mut clocks, step);
                let Step::Touch { warp, lane, offset, size, write } = *step else { continue };
                let view = clocks.view(warp);
                let me = Epoch::new(pc as u32, clocks.now(warp), warp as u32).with_lane(lane);
                let mut found: Vec<Conflict> = Vec::new();
                let access = Access { offset, size, write, same_value: false, me };
                shadow.access(&view, access, &mut |conflict| found.push(conflict));
                for byte in offset..offset + size {
                    // Within a warp another warp may order two lanes through signals, which
                    // the relation does not see; so only pairs of warps must be found.
                    let raced_now = history.iter().any(|(at, wrote, old)| {
                        *at == byte && (*wrote || write) && view.relation(*old, lane) == Relation::OtherWarp
                    });
                    let here = |c: &&Conflict| c.offset == byte || (c.offset == byte / 4 * 4 && size == 4);
                    let reported: Vec<&Conflict> = found.iter().filter(here).collect();
                    if raced_now && !raced[byte as usize] {
                        prop_assert!(!reported.is_empty(), "missed the first race of byte {}", byte);
                    }
                    raced[byte as usize] |= raced_now;
                }
                for conflict in &found {
                    let real = history.iter().any(|(at, wrote, old)| {
                        (offset..offset + size).contains(at)
                            && (*wrote || write)
                            && old.pc() == conflict.earlier.pc()
                            && view.relation(*old, lane) != Relation::Ordered
                    });
                    // A read marked as made by several lanes stands for one of the others.
                    prop_assert!(real || conflict.earlier.is_several(), "invented {:?}", conflict);
                }
                history.extend((offset..offset + size).map(|byte| (byte, write, me)));
            }
        }
    }
}
