//! What was done to shared memory since all warps of a block last met, in short: most accesses need no look at the
//! cells of the shadow, and most reads none of their own.
//!
//! Whatever came before an era is ordered before all lanes of all warps. A region that nobody wrote in this era holds
//! nothing that stands against a read, and a read is of interest only to a write of this era: it waits in a list until
//! one comes near, and is dropped with the era.

use super::clock::{Epoch, MAX_AGENTS};
use crate::machine::regs::LANES;

/// Bytes of a region as a power of two.
const REGION: u32 = 8;
/// Beyond all eras: something is in flight there.
pub(super) const ALWAYS: u32 = u32::MAX >> ERA_AT;
/// Bits for the sizes of cells.
const SIZES: u32 = 5;
/// Where the era stands above the sizes.
const ERA_AT: u32 = 2 * SIZES;
/// Reads that wait at most.
const WAITING: usize = 1024;
/// Places that say where reads stand that wait.
const PLACES: usize = 2048;
/// Neighbouring places in which one read is looked for.
const NEAR: usize = 4;

/// A read by the lanes of one instruction.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) at: [u32; LANES],
    pub(super) lanes: u32,
    /// Bytes of each lane.
    pub(super) size: u32,
    /// The epoch of all but for the lane.
    pub(super) me: Epoch,
    /// The largest age that was past for the lanes of the warp.
    pub(super) limit: u64,
}

impl Read {
    /// Whether another read is the same once more.
    #[inline(always)]
    fn is_again(&self, other: &Read) -> bool {
        let same = self.at.iter().zip(&other.at).fold(true, |same, (a, b)| same & (a == b));
        same && (self.lanes, self.size) == (other.lanes, other.size) && self.me.is_alike(other.me)
    }
}

/// The bytes from the first to the last that an instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    low: u32,
    end: u32,
}

impl Extent {
    /// All bytes.
    pub(super) const ALL: Extent = Extent { low: 0, end: u32::MAX };

    /// Of `size` bytes of each lane.
    #[inline(always)]
    pub(super) fn of(at: &[u32; LANES], lanes: u32, size: u32) -> Extent {
        let (mut low, mut high) = (u32::MAX, 0);
        for (l, &at) in at.iter().enumerate() {
            let used = lanes >> l & 1 == 1;
            low = low.min(if used { at } else { u32::MAX });
            high = high.max(if used { at } else { 0 });
        }
        Extent { low, end: high + size }
    }

    /// The bytes from one to before another.
    pub(super) fn of_bytes(low: u32, end: u32) -> Extent {
        Extent { low, end }
    }

    /// Their number.
    #[inline(always)]
    pub(super) fn bytes(self) -> u32 {
        self.end - self.low
    }

    /// Its parts of `1 << shift` bytes.
    #[inline(always)]
    pub(super) fn span(self, shift: u32) -> std::ops::Range<usize> {
        (self.low >> shift) as usize..((self.end - 1) >> shift) as usize + 1
    }
}

/// The sizes of the cells that a line was used in, as powers of two, a bit each: in one era, ever, and that era above.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes(u32);

impl Sizes {
    /// Adds a use in an era.
    #[inline(always)]
    pub(super) fn add(&mut self, era: u32, shift: u32) {
        let kept = if self.0 >> ERA_AT >= era { self.0 } else { era << ERA_AT | self.0 & (ALL << SIZES) };
        self.0 = kept | 1 << shift | 1 << (SIZES + shift);
    }

    /// The sizes of uses in an era or beyond.
    #[inline(always)]
    pub(super) fn in_era(self, era: u32) -> u8 {
        if self.0 >> ERA_AT >= era { (self.0 & ALL) as u8 } else { 0 }
    }

    /// The sizes of all uses.
    #[inline(always)]
    pub(super) fn ever(self) -> u8 {
        (self.0 >> SIZES & ALL) as u8
    }

    /// Ends a use, the last of which is in an era.
    #[inline(always)]
    pub(super) fn end(&mut self, era: u32) {
        self.0 = era << ERA_AT | self.0 & (ALL << SIZES | ALL);
    }
}

/// Every size.
const ALL: u32 = (1 << SIZES) - 1;

/// The uses of a region in the era in which it last had one.
#[derive(Clone, Copy, Debug)]
struct Uses {
    era: u32,
    /// The agent that alone had them, or [`MANY`].
    agent: u32,
    /// The largest age of its uses.
    age: u64,
}

/// No agent in particular.
const MANY: u32 = u32::MAX;

impl Uses {
    const NONE: Uses = Uses { era: 0, agent: MANY, age: 0 };

    /// Adds a use by `me`.
    #[inline(always)]
    fn add(&mut self, era: u32, me: Epoch) {
        if self.era < era {
            *self = Uses { era, agent: me.warp(), age: me.age() };
            return;
        }
        self.age = self.age.max(me.age());
        if self.agent != me.warp() {
            self.agent = MANY;
        }
    }

    /// Whether a use of this era may not be past for an access of `me`, by the ages that are past of each agent. What one
    /// warp keeps for itself is told without a look at the cells.
    #[inline(always)]
    fn matters(&self, era: u32, me: Epoch, past: &[u64; MAX_AGENTS]) -> bool {
        self.era >= era && (self.agent != me.warp() || self.age > past[me.warp() as usize % MAX_AGENTS])
    }
}

/// Whether the regions of an access were used in this era by accesses that may not be past.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) written: bool,
    pub(super) read: bool,
}

/// The eras of regions, and the reads that wait.
#[derive(Debug)]
pub(super) struct Recent {
    era: u32,
    /// The era of the last write; beyond all once a copy was in flight.
    last_write: u32,
    /// Of each region.
    written: Vec<Uses>,
    read: Vec<Uses>,
    /// Words of each region that a copy is in flight to.
    open: Vec<u16>,
    /// The largest age of an access of each agent, but for what is in flight.
    newest: [u64; MAX_AGENTS],
    waiting: Vec<Read>,
    extents: Vec<Extent>,
    /// Where a read may stand in `waiting`, by its addresses.
    places: Box<[u16; PLACES]>,
}

impl Recent {
    pub(super) fn new(bytes: usize) -> Recent {
        let regions = bytes.div_ceil(1 << REGION);
        Recent {
            era: 1,
            last_write: 0,
            written: vec![Uses::NONE; regions],
            read: vec![Uses::NONE; regions],
            open: vec![0; regions],
            newest: [0; MAX_AGENTS],
            waiting: Vec::new(),
            extents: Vec::new(),
            places: Box::new([0; PLACES]),
        }
    }

    #[inline(always)]
    pub(super) fn era(&self) -> u32 {
        self.era
    }

    /// All sizes that lines were used in, in this era.
    #[inline(always)]
    pub(super) fn sizes(&self, lines: &[Sizes]) -> u8 {
        lines.iter().fold(0, |all, line| all | line.in_era(self.era))
    }

    /// What the regions of an access of `me` were used for, but for what is past. Only a write asks for reads.
    #[inline(always)]
    pub(super) fn used(&self, extent: Extent, write: bool, me: Epoch, past: &[u64; MAX_AGENTS]) -> Used {
        let any = |regions: &[Uses]| {
            regions[extent.span(REGION)].iter().fold(false, |any, uses| any | uses.matters(self.era, me, past))
        };
        Used { written: self.last_write >= self.era && any(&self.written), read: write && any(&self.read) }
    }

    /// Notes that an access was made that is not in flight.
    #[inline(always)]
    pub(super) fn note(&mut self, extent: Extent, write: bool, me: Epoch) {
        let era = self.era;
        if write {
            self.last_write = self.last_write.max(era);
        }
        let regions = if write { &mut self.written } else { &mut self.read };
        regions[extent.span(REGION)].iter_mut().for_each(|uses| uses.add(era, me));
        self.note_age(me);
    }

    #[inline(always)]
    fn note_age(&mut self, me: Epoch) {
        let newest = &mut self.newest[me.warp() as usize % MAX_AGENTS];
        *newest = (*newest).max(me.age());
    }

    /// Notes that a word that was not in flight is now.
    #[inline(always)]
    pub(super) fn begin_copy(&mut self, word: usize) {
        let region = word >> (REGION - 2);
        self.open[region] = self.open[region].saturating_add(1);
        self.last_write = ALWAYS;
        self.written[region] = Uses { era: ALWAYS, agent: MANY, age: 0 };
    }

    /// Notes that a word is in flight no longer, which makes it a write of `me`.
    #[inline(always)]
    pub(super) fn end_copy(&mut self, word: usize, me: Epoch) {
        let region = word >> (REGION - 2);
        self.open[region] = self.open[region].saturating_sub(1);
        if self.open[region] == 0 {
            self.written[region].era = self.era;
        }
        self.note_age(me);
    }

    /// Begins another era, if all that was done is past for those that go on, by the ages that are past for each.
    pub(super) fn settle<'a>(&mut self, mut pasts: impl Iterator<Item = &'a [u64; MAX_AGENTS]>) {
        let before = |past: &[u64; MAX_AGENTS]| {
            self.newest.iter().zip(past).fold(true, |all, (newest, past)| all & (newest <= past))
        };
        if pasts.all(before) && self.era < ALWAYS - 1 {
            self.era += 1;
            self.waiting.clear();
            self.extents.clear();
        }
    }

    /// Lets a read wait; false, and nothing done, if there is no room. It takes the place of one that the same lanes made
    /// before: of both, cells would keep this one.
    #[inline(always)]
    pub(super) fn wait(&mut self, extent: Extent, read: &Read) -> bool {
        let key = extent.low ^ extent.end << 3 ^ read.at[1] << 5;
        let first = (key.wrapping_mul(0x9e37_79b1) >> 16) as usize;
        let mut free = first % PLACES;
        for place in (first..first + NEAR).map(|place| place % PLACES) {
            let at = usize::from(self.places[place]);
            match self.extents.get(at) {
                Some(other) if *other == extent && self.waiting[at].is_again(read) => {
                    (self.waiting[at].me, self.waiting[at].limit) = (read.me, read.limit);
                    return true;
                }
                Some(_) => {}
                None => free = place,
            }
        }
        let room = self.waiting.len() < WAITING;
        if room {
            self.places[free] = self.waiting.len() as u16;
            self.waiting.push(read.clone());
            self.extents.push(extent);
        }
        room
    }

    /// Takes a read that waits and has bytes of `extent`, of the first `left`, which then counts those before it. Reads
    /// come in no order.
    #[inline(always)]
    pub(super) fn take(&mut self, extent: Extent, left: &mut usize) -> Option<Read> {
        let waiting = &self.extents[..self.extents.len().min(*left)];
        let at = waiting.iter().rposition(|other| other.low < extent.end && extent.low < other.end)?;
        *left = at;
        self.extents.swap_remove(at);
        Some(self.waiting.swap_remove(at))
    }
}
