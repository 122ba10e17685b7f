//! Shadow of global memory: races between blocks and within one.
//!
//! Blocks are ordered by scalar clocks that atomics with fences carry from one to another. Kept of each word are its
//! last write and two reads, of two blocks where two have read it: no race is invented, and where several blocks read
//! what another writes unordered, one of them is found, whoever came first. Words of which halves or bytes are
//! written are told apart into those.
//!
//! Reads of an allocation that nobody has written are not recorded at first: most are of inputs. Whoever writes to such
//! an allocation later is told so, and the launch begins anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock::{Epoch, Relation, View};
use super::shadow::Clash;
use crate::memory::Memory;

/// Bytes per lock.
const CHUNK_BYTES: u64 = 1024;

/// One access to a cell.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    epoch: Epoch,
    block: u32,
    /// Clock of the block at the access.
    time: u32,
}

/// Cells of neighbouring bytes.
#[derive(Debug, Default)]
struct Chunk {
    /// Bytes of a cell, as a power of two: words, or less where less was accessed.
    shift: u32,
    /// Empty until something is recorded here.
    writes: Vec<Mark>,
    /// Empty until a read is.
    reads: Vec<[Mark; 2]>,
}

/// Doubles each cell until there are as many as wanted.
fn split<T: Copy>(cells: &mut Vec<T>, factor: usize) {
    *cells = cells.iter().flat_map(|cell| std::iter::repeat_n(*cell, factor)).collect();
}

impl Chunk {
    /// Makes cells of at most `1 << shift` bytes.
    fn refine(&mut self, shift: u32) {
        if self.writes.is_empty() {
            self.shift = shift;
            self.writes = vec![Mark::default(); (CHUNK_BYTES >> shift) as usize];
        } else if self.shift > shift {
            let factor = 1 << (self.shift - shift);
            split(&mut self.writes, factor);
            split(&mut self.reads, factor);
            self.shift = shift;
        }
    }

    /// The cells of some bytes of the chunk.
    fn range(&self, from: u64, to: u64) -> std::ops::Range<usize> {
        (from >> self.shift) as usize..((to - 1) >> self.shift) as usize + 1
    }
}

/// What an instruction keeps from lane to lane: the chunk that it works on, and what is known of the block that it last
/// asked for.
#[derive(Default)]
pub(crate) struct Held<'a> {
    chunk: Option<(usize, u64, MutexGuard<'a, Chunk>)>,
    known: Option<(u32, u32)>,
}

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

    /// Whether the time of another block is ordered before this one now.
    fn knows(&self, block: u32, time: u32) -> bool {
        self.seen.get(&block).is_some_and(|&seen| seen >= time)
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

/// Whether reads of one allocation are recorded.
#[derive(Debug)]
struct Use {
    always: bool,
    /// Something was read that was not recorded.
    read: AtomicBool,
    written: AtomicBool,
}

/// Shadow of all allocations, shared by the threads that run blocks.
#[derive(Debug)]
pub(crate) struct GlobalShadow {
    chunks: Vec<Vec<Mutex<Chunk>>>,
    uses: Vec<Use>,
    sync: Mutex<HashMap<u64, HashMap<u32, u32>>>,
    /// Block and time of the first strong store to an address that held nothing defined.
    first: Mutex<HashMap<u64, (u32, u32)>>,
}

impl GlobalShadow {
    /// The shadow of a launch that records all reads of the allocations that `recorded` names.
    pub(crate) fn new(memory: &Memory, recorded: &[bool]) -> GlobalShadow {
        let chunks = (0..memory.count())
            .map(|i| (0..memory.at(i).bytes.div_ceil(CHUNK_BYTES)).map(|_| Mutex::default()).collect())
            .collect();
        let unused = |&always| Use { always, read: AtomicBool::new(false), written: AtomicBool::new(false) };
        let uses = recorded.iter().map(unused).collect();
        GlobalShadow { chunks, uses, sync: Mutex::default(), first: Mutex::default() }
    }

    /// Whether a weak read of an allocation need not be recorded, since nobody has written there.
    #[inline]
    pub(crate) fn passes_read(&self, allocation: usize) -> bool {
        let Use { always, read, written } = &self.uses[allocation];
        if *always || written.load(SeqCst) {
            return false;
        }
        if read.load(SeqCst) {
            return true;
        }
        // Of a reader and a writer at the same time, one sees the other.
        read.store(true, SeqCst);
        !written.load(SeqCst)
    }

    /// Notes that an allocation is going to be written; whether it is too late, because it was read unrecorded.
    pub(crate) fn begin_write(&self, allocation: usize) -> bool {
        let Use { always, read, written } = &self.uses[allocation];
        if !written.load(SeqCst) {
            written.store(true, SeqCst);
        }
        !always && read.load(SeqCst)
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
        let shift = (offset | u64::from(size) | 4).trailing_zeros();
        let mark = Mark { epoch: me, block: clock.block, time: clock.time };
        let mut found = None;
        while at < end {
            let index = at / CHUNK_BYTES;
            let next = end.min((index + 1) * CHUNK_BYTES);
            self.hold(held, allocation, index);
            let Held { chunk, known } = &mut *held;
            let Some((.., chunk)) = chunk else { break };
            let mut judge = Judge { mark, clock, view, known };
            chunk.refine(shift);
            let range = chunk.range(at % CHUNK_BYTES, next - index * CHUNK_BYTES);
            let Chunk { writes, reads, .. } = &mut **chunk;
            if !write && reads.is_empty() {
                reads.resize(writes.len(), Default::default());
            }
            for cell in range {
                let conflict = judge.touch(&mut writes[cell], reads.get_mut(cell), write);
                found = found.or(conflict);
            }
            at = next;
        }
        found
    }

    /// Locks a chunk unless it is the one that is held; never two at a time.
    fn hold<'a>(&'a self, held: &mut Held<'a>, allocation: usize, index: u64) {
        if held.chunk.as_ref().is_some_and(|(a, i, _)| (*a, *i) == (allocation, index)) {
            return;
        }
        held.chunk = None;
        let chunk = self.chunks[allocation][index as usize].lock().unwrap_or_else(PoisonError::into_inner);
        held.chunk = Some((allocation, index, chunk));
    }

    /// Whether anything of the allocation was written in this launch.
    pub(crate) fn is_any_written(&self, allocation: usize) -> bool {
        self.uses[allocation].written.load(SeqCst)
    }

    /// Whether some of the bytes were written in this launch.
    pub(crate) fn written(&self, allocation: usize, offset: u64, size: u32) -> bool {
        let chunk = &self.chunks[allocation][(offset / CHUNK_BYTES) as usize];
        let chunk = chunk.lock().unwrap_or_else(PoisonError::into_inner);
        let from = offset % CHUNK_BYTES;
        let cells = chunk.range(from, CHUNK_BYTES.min(from + u64::from(size)));
        chunk.writes.get(cells).is_some_and(|cells| cells.iter().any(|write| write.epoch.exists()))
    }

    /// Notes a strong store to an address that holds nothing defined yet.
    pub(crate) fn note_first(&self, address: u64, clock: &BlockClock) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.entry(address).or_insert((clock.block, clock.time));
    }

    /// The block of the first strong store to an address, if nothing that `clock` knows orders it before.
    pub(crate) fn unordered_first(&self, address: u64, clock: &BlockClock) -> Option<u32> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let &(block, time) = first.get(&address)?;
        (block != clock.block && !clock.knows(block, time)).then_some(block)
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

/// An access beside those that were before it.
struct Judge<'a> {
    mark: Mark,
    clock: &'a BlockClock,
    view: &'a View<'a>,
    known: &'a mut Option<(u32, u32)>,
}

impl Judge<'_> {
    /// How an earlier access stands to this one.
    #[inline]
    fn relation(&mut self, old: Mark) -> Relation {
        if old.block == self.mark.block {
            if self.view.is_past(old.epoch) {
                return Relation::Ordered;
            }
            return self.view.relation(old.epoch, self.mark.epoch.lane());
        }
        let seen = match *self.known {
            Some((block, seen)) if block == old.block => seen,
            _ => {
                let seen = self.clock.seen.get(&old.block).copied().unwrap_or(0);
                *self.known = Some((old.block, seen));
                seen
            }
        };
        if old.time <= seen { Relation::Ordered } else { Relation::OtherWarp }
    }

    #[inline]
    fn judge(&mut self, old: Mark, clash: Clash) -> Option<GlobalConflict> {
        if !old.epoch.exists() || old.epoch.may_meet(self.mark.epoch) {
            return None;
        }
        let relation = self.relation(old);
        let other_block = (old.block != self.mark.block).then_some(old.block);
        let conflict = GlobalConflict { clash, earlier: old.epoch, relation, other_block };
        (relation != Relation::Ordered).then_some(conflict)
    }

    /// Checks and updates a cell.
    #[inline]
    fn touch(&mut self, last: &mut Mark, reads: Option<&mut [Mark; 2]>, write: bool) -> Option<GlobalConflict> {
        if !write {
            let conflict = self.judge(*last, Clash::ReadAfterWrite);
            if let Some(reads) = reads {
                self.note_read(reads);
            }
            return conflict;
        }
        let mut conflict = self.judge(*last, Clash::WriteWrite);
        if let Some(reads) = reads.filter(|reads| reads[0].epoch.exists()) {
            // Another block's goes before one's own: it is of such a race that the launch is begun anew in order.
            for read in *reads {
                let found = self.judge(read, Clash::WriteAfterRead);
                let is_of_another =
                    |conflict: &Option<GlobalConflict>| conflict.is_some_and(|c| c.other_block.is_some());
                let gives_way = !is_of_another(&conflict) && is_of_another(&found);
                conflict = if gives_way { found } else { conflict.or(found) };
            }
            *reads = Default::default();
        }
        *last = self.mark;
        conflict
    }

    /// Whether this read says all that an earlier one says of what a later write may clash with.
    fn stands_for(&mut self, old: Mark) -> bool {
        let (own, me) = (old.epoch, self.mark.epoch);
        let weaker = me.is_strong() && !own.is_strong();
        let twin = old.block == self.mark.block && own.warp() == me.warp();
        !own.exists() || !weaker && (twin || self.relation(old) == Relation::Ordered)
    }

    /// Keeps a read beside those that it does not stand for. Of three, one is forgotten: of two of one block, or a strong
    /// one, or the oldest. So there are two blocks if two have read.
    fn note_read(&mut self, reads: &mut [Mark; 2]) {
        let mut mark = self.mark;
        let [older, newer] = *reads;
        if !older.epoch.exists() {
            reads[0] = mark;
            return;
        }
        let covered = [older, newer].map(|old| self.stands_for(old));
        for old in [older, newer] {
            let twin = old.epoch.exists() && old.block == mark.block && old.epoch.warp() == mark.epoch.warp();
            if twin && self.relation(old) != Relation::Ordered {
                mark.epoch = mark.epoch.several();
            }
        }
        *reads = match covered {
            [true, true] => [mark, Mark::default()],
            [true, false] => [newer, mark],
            [false, true] => [older, mark],
            [false, false] => {
                let all = [older, newer, mark];
                let alone = |i: usize| (0..3).all(|j| j == i || all[j].block != all[i].block);
                let worth = |i: &usize| (alone(*i), !all[*i].epoch.is_strong(), *i);
                match (0..3).min_by_key(worth) {
                    Some(0) => [newer, mark],
                    Some(1) => [older, mark],
                    _ => [older, newer],
                }
            }
        };
    }
}
