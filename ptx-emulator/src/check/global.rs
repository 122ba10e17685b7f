//! Shadow of global memory: races between blocks and within one.
//!
//! Blocks are ordered by scalar clocks that atomics with fences carry from one to another. One
//! writer and one reader are kept per word with the bytes they touched, so races may be missed
//! but none are invented.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock::{Epoch, Relation, View};
use super::shadow::Clash;
use crate::memory::Memory;

/// Words per lock.
const CHUNK_WORDS: u64 = 256;

/// One access to a word; small, since every word has two.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    epoch: Epoch,
    block: u32,
    /// Clock of the block at the access, then a bit per byte of the word, then [`MORE`].
    rest: u32,
}

const TIME_BITS: u32 = 27;
const LAST_TIME: u32 = (1 << TIME_BITS) - 1;
/// Readers of other blocks were forgotten.
const MORE: u32 = 1 << 31;

impl Mark {
    fn new(epoch: Epoch, clock: &BlockClock, bytes: u32) -> Mark {
        Mark { epoch, block: clock.block, rest: clock.time.min(LAST_TIME) | bytes << TIME_BITS }
    }

    fn time(self) -> u32 {
        self.rest & LAST_TIME
    }

    fn bytes(self) -> u32 {
        self.rest >> TIME_BITS & 0xf
    }

    fn more(self) -> bool {
        self.rest & MORE != 0
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    write: Mark,
    read: Mark,
}

type Cells = Option<Box<[Cell]>>;
type Chunk = Mutex<Cells>;

/// The chunk that an instruction works on, kept from lane to lane.
#[derive(Default)]
pub(crate) struct Held<'a>(Option<(usize, u64, MutexGuard<'a, Cells>)>);

/// One access of one lane inside one allocation.
#[derive(Clone, Copy)]
pub(crate) struct GlobalAccess {
    pub(crate) allocation: usize,
    pub(crate) offset: u64,
    pub(crate) size: u32,
    pub(crate) write: bool,
    pub(crate) me: Epoch,
}

/// Times of other blocks that are ordered before a block, and its own clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockClock {
    pub(crate) block: u32,
    pub(crate) time: u32,
    seen: HashMap<u32, u32>,
    /// State published by the next strong store: a copy made at the last fence.
    fenced: Option<HashMap<u32, u32>>,
    /// Learnt from strong loads, in force from the next fence on.
    pending: HashMap<u32, u32>,
}

fn join(into: &mut HashMap<u32, u32>, from: &HashMap<u32, u32>) {
    for (&block, &time) in from {
        let entry = into.entry(block).or_insert(0);
        *entry = (*entry).max(time);
    }
}

impl BlockClock {
    pub(crate) fn new(block: u32) -> BlockClock {
        BlockClock { block, time: 1, ..BlockClock::default() }
    }

    fn snapshot(&mut self) -> HashMap<u32, u32> {
        let mut all = self.seen.clone();
        all.insert(self.block, self.time);
        self.time += 1;
        all
    }

    /// A fence by any thread of the block.
    pub(crate) fn fence(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        join(&mut self.seen, &pending);
        self.fenced = Some(self.snapshot());
    }
}

/// A conflict in global memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GlobalConflict {
    pub(crate) clash: Clash,
    pub(crate) earlier: Epoch,
    /// Relation within the block; `OtherWarp` also for another block.
    pub(crate) relation: Relation,
    pub(crate) other_block: Option<u32>,
}

/// Shadow of all allocations, shared by the threads that run blocks.
#[derive(Debug)]
pub(crate) struct GlobalShadow {
    chunks: Vec<Vec<Chunk>>,
    /// Whether an allocation was written to.
    written: Vec<AtomicBool>,
    sync: Mutex<HashMap<u64, HashMap<u32, u32>>>,
    /// Block and time of the first strong store to an address that held nothing defined.
    first: Mutex<HashMap<u64, (u32, u32)>>,
}

impl GlobalShadow {
    pub(crate) fn new(memory: &Memory) -> GlobalShadow {
        let chunks = (0..memory.count())
            .map(|i| {
                let count = memory.at(i).bytes.div_ceil(4 * CHUNK_WORDS);
                (0..count).map(|_| Mutex::new(None)).collect()
            })
            .collect();
        let written = (0..memory.count()).map(|_| AtomicBool::new(false)).collect();
        GlobalShadow { chunks, written, sync: Mutex::default(), first: Mutex::default() }
    }

    /// Records an access; returns the first conflict.
    pub(crate) fn access<'a>(
        &'a self,
        held: &mut Held<'a>,
        access: GlobalAccess,
        clock: &BlockClock,
        view: &View<'_>,
    ) -> Option<GlobalConflict> {
        let GlobalAccess { allocation, offset, size, write, me } = access;
        let (mut at, end) = (offset, offset + u64::from(size));
        if write && !self.written[allocation].load(Relaxed) {
            self.written[allocation].store(true, Relaxed);
        }
        let mut found = None;
        while at < end {
            let index = at / 4 / CHUNK_WORDS;
            let chunk_end = end.min((index + 1) * 4 * CHUNK_WORDS);
            let cells = self.chunk(held, allocation, index);
            while at < chunk_end {
                let word = at / 4;
                let next = (word * 4 + 4).min(chunk_end);
                let bytes = (1u32 << (next - word * 4)) - (1u32 << (at - word * 4));
                let mark = Mark::new(me, clock, bytes);
                found = found.or(touch(&mut cells[(word % CHUNK_WORDS) as usize], mark, write, clock, view));
                at = next;
            }
        }
        found
    }

    /// The cells of a chunk, locked unless it is the one that is held; never two at a time.
    fn chunk<'a, 'h>(&'a self, held: &'h mut Held<'a>, allocation: usize, index: u64) -> &'h mut [Cell] {
        if held.0.as_ref().is_none_or(|(a, i, _)| (*a, *i) != (allocation, index)) {
            held.0 = None;
        }
        let (.., cells) = held.0.get_or_insert_with(|| {
            let lock = &self.chunks[allocation][index as usize];
            (allocation, index, lock.lock().unwrap_or_else(PoisonError::into_inner))
        });
        cells.get_or_insert_with(|| vec![Cell::default(); CHUNK_WORDS as usize].into())
    }

    /// Whether anything of the allocation was written in this launch.
    pub(crate) fn is_any_written(&self, allocation: usize) -> bool {
        self.written[allocation].load(Relaxed)
    }

    /// Whether some byte of the word was written in this launch.
    pub(crate) fn written(&self, allocation: usize, offset: u64) -> bool {
        let word = offset / 4;
        let chunk = &self.chunks[allocation][(word / CHUNK_WORDS) as usize];
        let cells = chunk.lock().unwrap_or_else(PoisonError::into_inner);
        cells.as_ref().is_some_and(|c| c[(word % CHUNK_WORDS) as usize].write.epoch.exists())
    }

    /// Notes a strong store to an address that holds nothing defined yet; before the store can be seen.
    pub(crate) fn note_first(&self, address: u64, clock: &BlockClock) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.entry(address).or_insert((clock.block, clock.time));
    }

    /// The block of the first strong store to an address, if nothing that `clock` knows orders it before. What the block
    /// has learnt from strong loads counts as ordered before the fence, too.
    pub(crate) fn unordered_first(&self, address: u64, clock: &BlockClock) -> Option<u32> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let &(block, time) = first.get(&address)?;
        let knows = |of: &HashMap<u32, u32>| of.get(&block).is_some_and(|&seen| seen >= time);
        let ordered = block == clock.block || knows(&clock.seen) || knows(&clock.pending);
        (!ordered).then_some(block)
    }

    /// Ordering effect of a strong access at an address.
    pub(crate) fn synchronise(
        &self,
        address: u64,
        clock: &mut BlockClock,
        read: bool,
        write: bool,
        acquire: bool,
        release: bool,
    ) {
        let mut sync = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        if read && let Some(stamp) = sync.get(&address) {
            join(if acquire { &mut clock.seen } else { &mut clock.pending }, stamp);
        }
        if write {
            let published = if release { Some(clock.snapshot()) } else { clock.fenced.clone() };
            if let Some(published) = published {
                join(sync.entry(address).or_default(), &published);
            }
        }
    }
}

fn touch(cell: &mut Cell, mark: Mark, write: bool, clock: &BlockClock, view: &View<'_>) -> Option<GlobalConflict> {
    let judge = |old: Mark, clash: Clash| {
        let apart = old.bytes() & mark.bytes() == 0;
        if !old.epoch.exists() || apart || old.epoch.may_meet(mark.epoch) {
            return None;
        }
        if old.block != mark.block {
            let seen = clock.seen.get(&old.block).copied().unwrap_or(0);
            let ordered = old.time() <= seen || old.more() && !clock.seen.is_empty();
            let conflict = GlobalConflict {
                clash,
                earlier: old.epoch,
                relation: Relation::OtherWarp,
                other_block: Some(old.block),
            };
            return (!ordered).then_some(conflict);
        }
        let relation = view.relation(old.epoch, mark.epoch.lane());
        let conflict = GlobalConflict { clash, earlier: old.epoch, relation, other_block: None };
        (relation != Relation::Ordered).then_some(conflict)
    };
    if write {
        let conflict = judge(cell.write, Clash::WriteWrite).or(judge(cell.read, Clash::WriteAfterRead));
        *cell = Cell { write: mark, read: Mark::default() };
        return conflict;
    }
    let conflict = judge(cell.write, Clash::ReadAfterWrite);
    let old = cell.read;
    let lost = old.epoch.exists() && (old.more() || old.block != mark.block);
    cell.read = Mark { rest: mark.rest | if lost { MORE } else { 0 }, ..mark };
    conflict
}
