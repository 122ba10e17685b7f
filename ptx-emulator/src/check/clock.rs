//! Vector clocks of the warps of a block, and the epochs stored in shadow cells.

use super::agents::Agents;
use super::lanes::LaneOrder;

/// Who touched a byte, when and from where; 0 is nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch(pub(crate) u64);

const T_AT: u32 = 20;
const T_BITS: u32 = 24;
const LANE_AT: u32 = 44;
const WARP_AT: u32 = 49;
/// The bits of an agent.
const WARPS: u64 = MAX_AGENTS as u64 - 1;
const MULTI: u64 = 1 << 56;
const COLLECTIVE: u64 = 1 << 57;
const STRONG: u64 = 1 << 58;
const IN_FLIGHT: u64 = 1 << 59;
const VOLATILE: u64 = 1 << 60;
const COPIED: u64 = 1 << 61;
const VALID: u64 = 1 << 62;

/// Agents of a block at most: its warps, and the engines that work for them.
pub(crate) const MAX_AGENTS: usize = 128;

/// The largest [`Epoch::age`] of an access at time `t` or before.
fn oldest(t: u32) -> u64 {
    ((u64::from(t) + 1) << T_AT) - 1
}

/// Largest clock value of a warp; a run that needs more is refused.
pub(crate) const MAX_CLOCK: u32 = (1 << T_BITS) - 1;

/// Bits that two accesses of one lane have in common.
const SAME_LANE: u64 = 31 << LANE_AT | WARPS << WARP_AT | MULTI | COLLECTIVE;

/// Epochs of many accesses at once, as the plain numbers that they are: shadows keep those, and compare and write them
/// by the row. To be inlined where an instruction set was chosen.
pub(crate) mod row {
    use super::{COLLECTIVE, COPIED, Epoch, IN_FLIGHT, LANE_AT, MAX_AGENTS, MULTI, SAME_LANE, WARP_AT, WARPS};
    use crate::machine::regs::{LANES, lane_numbers};

    const AGE: u64 = IN_FLIGHT | ((1 << LANE_AT) - 1);

    /// Whether an access is ordered before one of `lane`, itself an epoch: it is past, or of that very lane.
    #[inline(always)]
    fn is_before(old: u64, limit: u64, lane: u64) -> bool {
        (old & AGE <= limit) | ((old ^ lane) & SAME_LANE | old & IN_FLIGHT == 0)
    }

    #[inline(always)]
    fn limit_of(old: u64, past: &[u64; MAX_AGENTS]) -> u64 {
        past[(old >> WARP_AT) as usize % MAX_AGENTS]
    }

    /// `me` as an access of the lane `i` lanes behind its own.
    #[inline(always)]
    fn lane_of(me: u64, i: usize) -> u64 {
        me + ((i as u64) << LANE_AT)
    }

    /// Whether all accesses are past, by the ages that are past of each warp.
    #[inline(always)]
    pub(crate) fn are_past(cells: &[u64], past: &[u64; MAX_AGENTS]) -> bool {
        cells.iter().fold(true, |all, &old| all & (old & AGE <= limit_of(old, past)))
    }

    /// Whether all accesses are past and visible to an engine, by the ages that are `visible` of each warp; of what was
    /// copied, those that are `ordered` suffice.
    pub(crate) fn are_visible(cells: &[u64], visible: &[u64; MAX_AGENTS], ordered: &[u64; MAX_AGENTS]) -> bool {
        let side = |old: u64| if old & COPIED == 0 { visible } else { ordered };
        cells.iter().fold(true, |all, &old| all & (old & AGE <= limit_of(old, side(old))))
    }

    /// Whether all accesses are past or of the lane itself that accesses the cell now: `per_lane` cells belong to the
    /// lane of `me`, the next to the next.
    #[inline(always)]
    pub(crate) fn are_before(cells: &[u64], past: &[u64; MAX_AGENTS], me: Epoch, per_lane: usize) -> bool {
        let mut all = true;
        for (i, cells) in cells.chunks(per_lane.max(1)).enumerate() {
            let lane = lane_of(me.0, i);
            for &old in cells {
                all &= is_before(old, limit_of(old, past), lane);
            }
        }
        all
    }

    /// Whether all reads are past, or made by the whole warp of `me` as its access is: fragments read by a warp are in
    /// registers before it can store others.
    #[inline(always)]
    pub(crate) fn are_past_reads(cells: &[u64], past: &[u64; MAX_AGENTS], me: Epoch) -> bool {
        let whole = |old: u64| (old ^ me.0) & (WARPS << WARP_AT | COLLECTIVE) == 0;
        cells.iter().fold(true, |all, &old| all & ((old & AGE <= limit_of(old, past)) | whole(old)))
    }

    /// The lanes whose cell, `1 << shift` bytes around their place and `skip` more, is past or their own.
    #[inline(always)]
    pub(crate) fn lanes_before(
        cells: &[u64],
        (at, skip, shift): (&[u32; LANES], u32, u32),
        lanes: u32,
        past: &[u64; MAX_AGENTS],
        me: Epoch,
    ) -> u32 {
        let mut old = [0; LANES];
        for l in lane_numbers(lanes) {
            old[l] = cells[((at[l] + skip) >> shift) as usize];
        }
        let before = |(l, &old): (usize, &u64)| u32::from(is_before(old, limit_of(old, past), lane_of(me.0, l))) << l;
        old.iter().enumerate().map(before).fold(0, |all, lane| all | lane)
    }

    /// Whether a cell is of another lane of the same instruction.
    #[inline(always)]
    pub(crate) fn is_of_twin(old: u64, mine: Epoch) -> bool {
        (old ^ mine.0) & !(31 << LANE_AT | MULTI) == 0 && (old ^ mine.0) >> LANE_AT & 31 != 0
    }

    /// Makes every cell the access of its lane.
    #[inline(always)]
    pub(crate) fn write(cells: &mut [u64], me: Epoch, per_lane: usize) {
        if per_lane >= cells.len() {
            return cells.fill(me.0);
        }
        for (i, cells) in cells.chunks_mut(per_lane.max(1)).enumerate() {
            cells.fill(lane_of(me.0, i));
        }
    }

    /// As [`write`], for the reads of one warp, of which the newest is kept: where another of its lanes read, and that
    /// is not past, the cell is of several lanes.
    #[inline(always)]
    pub(crate) fn read(cells: &mut [u64], limit: u64, me: Epoch, per_lane: usize) {
        for (i, cells) in cells.chunks_mut(per_lane.max(1)).enumerate() {
            let lane = lane_of(me.0, i);
            for old in cells {
                let newest = if *old & AGE > lane & AGE { *old } else { lane };
                *old = newest | if is_before(*old, limit, lane) { 0 } else { MULTI };
            }
        }
    }

    /// As [`read`], by the whole warp at once.
    #[inline(always)]
    pub(crate) fn read_whole(cells: &mut [u64], me: Epoch) {
        for old in cells {
            *old = if *old & AGE > me.0 & AGE { *old } else { me.0 };
        }
    }
}

impl Epoch {
    /// An access of a lane; the lane can be replaced with [`Epoch::with_lane`].
    pub(crate) fn new(pc: u32, t: u32, warp: u32) -> Epoch {
        Epoch(
            VALID | u64::from(pc & 0xf_ffff) | u64::from(t & MAX_CLOCK) << T_AT | (u64::from(warp) & WARPS) << WARP_AT,
        )
    }

    #[inline(always)]
    pub(crate) fn with_lane(self, lane: u32) -> Epoch {
        Epoch(self.0 & !(31 << LANE_AT) | u64::from(lane & 31) << LANE_AT)
    }

    /// Part of a warp-wide access whose lane assignment is not specified.
    pub(crate) fn collective(self) -> Epoch {
        Epoch(self.0 | COLLECTIVE)
    }

    /// Atomic or volatile.
    pub(crate) fn strong(self) -> Epoch {
        Epoch(self.0 | STRONG)
    }

    /// Volatile: strong, but ordered by nothing of its own.
    pub(crate) fn volatile(self) -> Epoch {
        Epoch(self.0 | VOLATILE)
    }

    /// Issued but not complete.
    pub(crate) fn in_flight(self) -> Epoch {
        Epoch(self.0 | IN_FLIGHT)
    }

    /// Written by `cp.async`: once it is ordered, engines of the asynchronous proxy see it, too.
    pub(crate) fn copied(self) -> Epoch {
        Epoch(self.0 | COPIED)
    }

    pub(crate) fn is_copied(self) -> bool {
        self.0 & COPIED != 0
    }

    /// Several lanes of the warp did the same.
    #[inline(always)]
    pub(crate) fn several(self) -> Epoch {
        Epoch(self.0 | MULTI)
    }

    #[inline(always)]
    pub(crate) fn exists(self) -> bool {
        self.0 != 0
    }

    /// Whether both differ at most by time and instruction.
    #[inline(always)]
    pub(crate) fn is_alike(self, other: Epoch) -> bool {
        (self.0 ^ other.0) >> LANE_AT == 0
    }

    /// Orders the accesses of one warp by time; beyond all times while the access is in flight.
    #[inline(always)]
    pub(crate) fn age(self) -> u64 {
        self.0 & (IN_FLIGHT | ((1 << LANE_AT) - 1))
    }

    pub(crate) fn pc(self) -> u32 {
        (self.0 & 0xf_ffff) as u32
    }

    #[inline(always)]
    pub(crate) fn t(self) -> u32 {
        ((self.0 >> T_AT) as u32) & MAX_CLOCK
    }

    #[inline(always)]
    pub(crate) fn lane(self) -> u32 {
        ((self.0 >> LANE_AT) as u32) & 31
    }

    #[inline(always)]
    pub(crate) fn warp(self) -> u32 {
        (self.0 >> WARP_AT & WARPS) as u32
    }

    pub(crate) fn is_collective(self) -> bool {
        self.0 & COLLECTIVE != 0
    }

    #[inline(always)]
    pub(crate) fn is_strong(self) -> bool {
        self.0 & STRONG != 0
    }

    fn is_volatile(self) -> bool {
        self.0 & VOLATILE != 0
    }

    /// Both are volatile: no data race, but nothing says which comes first.
    pub(crate) fn both_volatile(self, other: Epoch) -> bool {
        self.is_volatile() && other.is_volatile()
    }

    /// Both are strong, and one is an atomic or says how it is ordered: what they do unordered is meant.
    pub(crate) fn may_meet(self, other: Epoch) -> bool {
        self.is_strong() && other.is_strong() && !self.both_volatile(other)
    }

    #[inline(always)]
    pub(crate) fn is_in_flight(self) -> bool {
        self.0 & IN_FLIGHT != 0
    }

    #[inline(always)]
    pub(crate) fn is_several(self) -> bool {
        self.0 & MULTI != 0
    }
}

/// What each warp knows of every agent: `known[a][b]` is the time of `b` that `a` has seen.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    agents: usize,
    /// Times that a row holds: of every agent, and once more as far as the asynchronous proxy sees them.
    width: usize,
    known: Vec<u32>,
    /// For each warp, and each agent by number, the largest [`Epoch::age`] that is ordered before
    /// all its lanes: its knowledge of the others, and of itself the time before its lanes last met.
    past: Vec<[u64; MAX_AGENTS]>,
    /// Own time; advances at every release and at every converging instruction.
    now: Vec<u32>,
    /// Accesses of the warp before this time are ordered before all its lanes.
    synced: Vec<u32>,
}

/// A copied row of [`Clocks`], the state of a synchronisation object.
pub(crate) type Stamp = Vec<u32>;

impl Clocks {
    pub(crate) fn new(agents: &Agents) -> Clocks {
        let Agents { warps, count, proxied, .. } = *agents;
        let width = if proxied { 2 * count } else { count };
        let past = vec![[oldest(0); MAX_AGENTS]; warps];
        Clocks {
            agents: count,
            width,
            known: vec![0; warps * width],
            past,
            now: vec![1; warps],
            synced: vec![0; warps],
        }
    }

    #[inline(always)]
    pub(crate) fn now(&self, warp: usize) -> u32 {
        self.now[warp]
    }

    /// The last time before the lanes of `warp` met.
    #[inline(always)]
    pub(crate) fn met(&self, warp: usize) -> u32 {
        self.synced[warp].saturating_sub(1)
    }

    /// What `warp` knows, to judge other accesses by; `lanes` is what its lanes know of each other.
    #[inline(always)]
    pub(crate) fn view<'a>(&'a self, warp: usize, lanes: Option<&'a LaneOrder>) -> View<'a> {
        let known = &self.known[warp * self.width..][..self.agents];
        let (now, synced) = (self.now[warp], self.synced[warp]);
        View { warp: warp as u32, now, synced, known, past: &self.past[warp], lanes }
    }

    /// Time passes without ordering anything: a converging instruction.
    pub(crate) fn tick(&mut self, warp: usize) {
        self.advance(warp, 1);
    }

    /// As `ticks` times [`Clocks::tick`].
    pub(crate) fn advance(&mut self, warp: usize, ticks: u32) {
        self.now[warp] = self.now[warp].saturating_add(ticks).min(MAX_CLOCK);
    }

    /// All lanes of the warp are ordered with each other.
    pub(crate) fn sync_warp(&mut self, warp: usize) {
        self.tick(warp);
        self.synced[warp] = self.now[warp];
        self.past[warp][warp] = oldest(self.synced[warp] - 1);
    }

    /// Publishes everything `warp` did or knows into `stamp`.
    pub(crate) fn release(&mut self, warp: usize, stamp: &mut Stamp) {
        stamp.resize(self.width, 0);
        let known = &self.known[warp * self.width..(warp + 1) * self.width];
        for (to, from) in stamp.iter_mut().zip(known) {
            *to = (*to).max(*from);
        }
        stamp[warp] = stamp[warp].max(self.now[warp]);
        self.tick(warp);
    }

    /// `warp` learns what `stamp` holds.
    pub(crate) fn acquire(&mut self, warp: usize, stamp: &Stamp) {
        let known = &mut self.known[warp * self.width..(warp + 1) * self.width];
        known.iter_mut().zip(stamp).for_each(|(known, stamp)| *known = (*known).max(*stamp));
        for (other, (known, past)) in known.iter().zip(&mut self.past[warp]).enumerate().take(self.agents) {
            if other != warp {
                *past = oldest(*known);
            }
        }
    }

    /// The largest [`Epoch::age`] that is past for a warp, of each agent.
    pub(crate) fn past(&self, warp: usize) -> &[u64; MAX_AGENTS] {
        &self.past[warp]
    }

    /// `warp` learns that an engine has ended what it began up to time `t`, which is visible to everyone.
    pub(crate) fn complete(&mut self, warp: usize, agent: usize, t: u32) {
        let known = &mut self.known[warp * self.width..(warp + 1) * self.width];
        for at in [agent, self.agents + agent] {
            if let Some(known) = known.get_mut(at) {
                *known = (*known).max(t);
            }
        }
        self.past[warp][agent] = oldest(known[agent]);
    }

    /// Whether the time `t` of another warp is ordered before `warp`.
    pub(crate) fn knows(&self, warp: usize, other: usize, t: u32) -> bool {
        self.known[warp * self.width + other] >= t
    }

    /// What `warp` did or knows becomes visible to the asynchronous proxy.
    pub(crate) fn fence_proxy(&mut self, warp: usize) {
        if self.width > self.agents {
            let (known, visible) = self.known[warp * self.width..(warp + 1) * self.width].split_at_mut(self.agents);
            visible.iter_mut().zip(known).for_each(|(visible, known)| *visible = (*visible).max(*known));
            visible[warp] = self.now[warp];
        }
        self.tick(warp);
    }

    /// What an engine that `warp` starts may rely on.
    pub(crate) fn engine(&self, warp: usize) -> EngineView {
        let row = &self.known[warp * self.width..(warp + 1) * self.width];
        let (mut known, mut visible) = (row[..self.agents].to_vec(), row[row.len() - self.agents..].to_vec());
        known[warp] = self.now[warp];
        if self.width == self.agents {
            visible[warp] = self.now[warp];
        }
        EngineView { known: Side::of(known), visible: Side::of(visible) }
    }

    /// Whether a warp's clock has run out.
    pub(crate) fn exhausted(&self) -> bool {
        self.now.iter().any(|&t| t >= MAX_CLOCK)
    }
}

/// Times of all agents that are ordered before something.
#[derive(Clone, Debug)]
struct Side {
    known: Vec<u32>,
    past: [u64; MAX_AGENTS],
}

impl Side {
    fn of(known: Vec<u32>) -> Side {
        let mut past = [oldest(0); MAX_AGENTS];
        past.iter_mut().zip(&known).for_each(|(past, t)| *past = oldest(*t));
        Side { known, past }
    }

    fn view(&self) -> View<'_> {
        View { warp: u32::MAX, now: 0, synced: 0, known: &self.known, past: &self.past, lanes: None }
    }
}

/// The knowledge that an engine acts on: that of the warp that started it.
#[derive(Clone, Debug)]
pub(crate) struct EngineView {
    known: Side,
    visible: Side,
}

impl EngineView {
    /// Of another block, whose agents have been seen up to these times.
    pub(crate) fn of_peer(known: Vec<u32>) -> EngineView {
        let side = Side::of(known);
        EngineView { known: side.clone(), visible: side }
    }

    /// What is ordered before it.
    pub(crate) fn ordered(&self) -> View<'_> {
        self.known.view()
    }

    /// What of that it can see.
    pub(crate) fn visible(&self) -> View<'_> {
        self.visible.view()
    }
}

/// How an earlier access stands to a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Ordered,
    /// Same warp, other lane, a converging instruction in between.
    Converged,
    /// Same warp, other lane, nothing in between.
    SameWarp,
    OtherWarp,
}

/// The knowledge of one warp at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) warp: u32,
    now: u32,
    synced: u32,
    known: &'a [u32],
    past: &'a [u64; MAX_AGENTS],
    lanes: Option<&'a LaneOrder>,
}

impl View<'_> {
    /// The largest [`Epoch::age`] that is past, of each warp.
    #[inline(always)]
    pub(crate) fn past(&self) -> &[u64; MAX_AGENTS] {
        self.past
    }

    /// Whether atomics and fences may order lanes of the warp with each other.
    #[inline(always)]
    pub(crate) fn has_lane_order(&self) -> bool {
        self.lanes.is_some()
    }

    /// Whether `earlier` is complete and ordered before every lane, or is nobody: the usual case,
    /// in which an access needs no further look.
    #[inline(always)]
    pub(crate) fn is_past(&self, earlier: Epoch) -> bool {
        earlier.age() <= self.past[earlier.warp() as usize % MAX_AGENTS]
    }

    /// Whether atomics and fences order an access of the same warp before `lane`.
    fn by_lanes(&self, earlier: Epoch, lane: u32) -> bool {
        let alone = !earlier.is_several() && !earlier.is_collective();
        self.lanes.is_some_and(|order| order.is_ordered(alone.then(|| earlier.lane()), earlier.t(), lane))
    }

    /// Relation of `earlier` to an access of `lane` now.
    #[inline(always)]
    pub(crate) fn relation(&self, earlier: Epoch, lane: u32) -> Relation {
        let t = earlier.t();
        if earlier.warp() != self.warp {
            let seen = self.known.get(earlier.warp() as usize).copied().unwrap_or(0);
            return if t <= seen { Relation::Ordered } else { Relation::OtherWarp };
        }
        let own = earlier.lane() == lane && !earlier.is_several() && !earlier.is_collective();
        if own || t < self.synced || self.by_lanes(earlier, lane) {
            Relation::Ordered
        } else if t < self.now || earlier.is_collective() {
            Relation::Converged
        } else {
            Relation::SameWarp
        }
    }
}
