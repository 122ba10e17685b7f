//! Order that atomics and fences make: what a synchronisation object carries from one thread to another.
//!
//! Other warps are known as wholes, the lanes of a warp each on their own: a lock that the lanes of one warp hand to
//! each other orders them, also by way of another warp.

use std::collections::BTreeMap;

use super::agents::Agents;
use super::clock::{Clocks, Stamp};
use super::lanes::{LaneOrder, LaneTimes, join};
use crate::machine::regs::{LANES, each_lane};

/// What was published at an address, or is on its way: times of warps, and of the lanes that published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    warps: Stamp,
    lanes: BTreeMap<usize, LaneTimes>,
}

impl Published {
    /// Adds that an engine has ended what it began up to time `t`; `agents` are those of the block.
    pub(crate) fn complete(&mut self, agents: &Agents, agent: usize, t: u32) {
        self.warps.resize((2 * agents.count).max(self.warps.len()), 0);
        for at in [agent, agents.count + agent] {
            self.warps[at] = self.warps[at].max(t);
        }
    }

    fn join(&mut self, other: &Published) {
        self.warps.resize(other.warps.len().max(self.warps.len()), 0);
        self.warps.iter_mut().zip(&other.warps).for_each(|(to, from)| *to = (*to).max(*from));
        for (warp, times) in &other.lanes {
            join(self.lanes.entry(*warp).or_insert([0; LANES]), times);
        }
    }
}

/// What the lanes of every warp of a block know of each other, and what a warp knows of lanes of others.
#[derive(Debug)]
pub(crate) struct Orders {
    lanes: Vec<Option<Box<LaneOrder>>>,
    /// Lanes of other warps, known to the warp as a whole.
    carried: Vec<BTreeMap<usize, LaneTimes>>,
    pending: Vec<Published>,
    fenced: Vec<Option<Published>>,
}

impl Orders {
    pub(crate) fn new(warps: usize) -> Orders {
        Orders {
            lanes: vec![None; warps],
            carried: vec![BTreeMap::new(); warps],
            pending: vec![Published::default(); warps],
            fenced: vec![None; warps],
        }
    }

    /// What the lanes of `warp` know of each other, if anything.
    pub(crate) fn of(&self, warp: usize) -> Option<&LaneOrder> {
        self.lanes[warp].as_deref()
    }

    fn of_mut(&mut self, warp: usize) -> &mut LaneOrder {
        self.lanes[warp].get_or_insert_with(LaneOrder::new)
    }

    fn carry(&mut self, warp: usize, from: &BTreeMap<usize, LaneTimes>) {
        for (other, times) in from.iter().filter(|(other, _)| **other != warp) {
            join(self.carried[warp].entry(*other).or_insert([0; LANES]), times);
        }
    }

    /// Everything that is ordered before `lane` now, its own accesses among it.
    fn times(&mut self, clocks: &Clocks, warp: usize, lane: usize) -> LaneTimes {
        let (now, met) = (clocks.now(warp), clocks.met(warp));
        let mut times = self.of_mut(warp).known[lane].map(|time| time.max(met));
        times[lane] = now;
        times
    }

    /// Publishes into `place` everything that `lane` did or knows.
    pub(crate) fn release(&mut self, clocks: &mut Clocks, warp: usize, lane: usize, place: &mut Published) {
        let times = self.times(clocks, warp, lane);
        clocks.release(warp, &mut place.warps);
        join(place.lanes.entry(warp).or_insert([0; LANES]), &times);
        for (other, times) in &self.carried[warp] {
            join(place.lanes.entry(*other).or_insert([0; LANES]), times);
        }
    }

    /// `lane` learns what `place` holds.
    pub(crate) fn acquire(&mut self, clocks: &mut Clocks, warp: usize, lane: usize, place: &Published) {
        clocks.acquire(warp, &place.warps);
        self.carry(warp, &place.lanes);
        if let Some(times) = place.lanes.get(&warp) {
            join(&mut self.of_mut(warp).known[lane], times);
        }
    }

    /// A strong load that is no acquire: what it saw counts from the next fence on.
    pub(crate) fn observe(&mut self, warp: usize, lane: usize, place: &Published) {
        self.pending[warp].join(place);
        if let Some(times) = place.lanes.get(&warp) {
            join(&mut self.of_mut(warp).pending[lane], times);
        }
    }

    /// A strong store that is no release publishes the state at the last fence.
    pub(crate) fn expose(&mut self, warp: usize, lane: usize, place: &mut Published) {
        let Some(fenced) = &self.fenced[warp] else { return };
        place.join(fenced);
        if let Some(order) = self.of(warp).filter(|order| order.fenced[lane] != [0; LANES]) {
            join(place.lanes.entry(warp).or_insert([0; LANES]), &order.fenced[lane]);
        }
    }

    /// A fence by the lanes of `active`.
    pub(crate) fn fence(&mut self, clocks: &mut Clocks, warp: usize, active: u32) {
        let pending = std::mem::take(&mut self.pending[warp]);
        clocks.acquire(warp, &pending.warps);
        self.carry(warp, &pending.lanes);
        each_lane(active, |l| {
            let order = self.of_mut(warp);
            let learnt = std::mem::replace(&mut order.pending[l], [0; LANES]);
            join(&mut order.known[l], &learnt);
            let times = self.times(clocks, warp, l);
            self.of_mut(warp).fenced[l] = times;
        });
        let mut state = Published { warps: Stamp::new(), lanes: self.carried[warp].clone() };
        clocks.release(warp, &mut state.warps);
        self.fenced[warp] = Some(state);
    }
}
