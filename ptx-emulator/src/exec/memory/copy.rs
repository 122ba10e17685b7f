//! `cp.async`: groups per thread, data visible as late as the model allows.
//!
//! With the in-flight check the destination holds poison from issue to wait, so a kernel that
//! reads too early computes NaN as well as being reported. Without it the copy is immediate and
//! leaves nothing open.

use crate::exec::memory::shared::Shared;
use crate::exec::memory::target::Use;
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::{OpenArrive, OpenCopy, Warp};
use crate::isa::op::CopyAsync;
use crate::isa::slot::Class;
use crate::isa::space::{Addr, Space};
use crate::machine::regs::{FULL, LANES, d, each_lane, w};
use crate::machine::simd::{Level, dispatch};
use crate::memory::Allocation;
use crate::report::{Kind, RawSite, Severity};

impl Block {
    pub(crate) fn copy_async(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        copy: &CopyAsync,
    ) -> Flow {
        if self.copy_plain(context, warp, active, copy) {
            return Flow::Next;
        }
        let mut sizes = [copy.bytes; LANES];
        if let Some(row) = copy.src_bytes {
            // A source size above the copy size has no meaning; the hardware cuts it.
            sizes = w(&warp.regs, row).map(|v| v.min(copy.bytes));
        }
        let reading = sizes.iter().enumerate().fold(0, |m, (l, &s)| m | u32::from(s > 0) << l) & active;
        let mut open = Box::new(OpenCopy {
            sequence: warp.issued,
            lanes: 0,
            groups: warp.groups,
            dst: [0; LANES],
            bytes: copy.bytes,
            pc: pc as u32,
            src: [0; LANES],
            src_bytes: sizes,
            data: [[0; 16]; LANES],
            defined: [u16::MAX; LANES],
        });
        let mut readable = active & !reading;
        // A source of size 0 is not touched, so its address may be anything.
        let read = Use::weak(pc, copy.bytes, false);
        let uniform = sizes == [copy.bytes; LANES] || reading == 0;
        let source_use = if uniform { read } else { Use { bytes: 4, ..read } };
        if !uniform {
            self.check_partial_sources(context, warp, pc, reading, &copy.src, &sizes);
        }
        self.for_each_target(context, warp, reading, &copy.src, source_use, |block, warp, target| {
            block.shadow_global(context, warp, target, source_use, 0);
            readable |= target.lanes;
            each_lane(target.lanes, |l| {
                open.src[l] = target.at[l];
                let allocation = context.memory.at(target.allocation[l] as usize);
                let at = target.at[l] - allocation.base;
                let size = u64::from(sizes[l]).min(allocation.bytes - at);
                open.defined[l] = read_source(allocation, at, size, &mut open.data[l]);
            });
        });
        let usage = Use::weak(pc, copy.bytes, true);
        self.for_each_target(context, warp, readable, &copy.dst, usage, |block, warp, target| {
            open.lanes |= target.lanes;
            for (to, at) in open.dst.iter_mut().zip(&target.at) {
                *to = *at as u32;
            }
            block.issue(context, warp, target.lanes, usage, &open);
        });
        warp.issued += 1;
        if context.launch.checks.in_flight && open.lanes != 0 {
            warp.copies.push(open);
        }
        Flow::Next
    }

    /// Copies of 16 bytes, each whole or only zeros, when nothing is recorded about them and nothing is wrong with
    /// them; otherwise does nothing and returns false.
    fn copy_plain(&mut self, context: &Context<'_>, warp: &Warp, active: u32, copy: &CopyAsync) -> bool {
        let recorded = context.launch.checks.in_flight || context.shadow.is_some() || !self.shared.is_plain();
        if recorded || copy.bytes != 16 || copy.src.space != Space::Global || copy.src.base.class != Class::D {
            return false;
        }
        let mut reading = active;
        if let Some(row) = copy.src_bytes {
            let (whole, empty) = wholes(context.level, w(&warp.regs, row));
            if active & !(whole | empty) != 0 {
                return false;
            }
            reading &= whole;
        }
        let Some(to) = self.places(context, warp, active, &copy.dst, 16) else { return false };
        if reading == 0 {
            each_lane(active, |l| self.shared.bytes[to[l] as usize..][..16].fill(0));
            return true;
        }
        let (base, offset) = (d(&warp.regs, copy.src.base.row), copy.src.offset as u64);
        let first = base[reading.trailing_zeros() as usize & 31].wrapping_add(offset);
        // All sources are in the buffer of the first, or the copies are for the general path to judge.
        let found = context.memory.find(first, 16).filter(|found| found.base.is_multiple_of(16));
        let Some(allocation) = found else { return false };
        let Some(from) = sources(context.level, base, offset.wrapping_sub(allocation.base), allocation.bytes, reading)
        else {
            return false;
        };
        let bytes = self.shared.bytes.as_mut_slice();
        if reading == FULL {
            for (&to, &from) in to.iter().zip(&from) {
                copy_words(allocation, from, &mut bytes[to as usize..][..16]);
            }
            return true;
        }
        each_lane(active, |l| {
            let to = &mut bytes[to[l] as usize..][..16];
            if reading >> l & 1 == 1 {
                copy_words(allocation, from[l], to);
            } else {
                to.fill(0);
            }
        });
        true
    }

    /// Bounds of sources whose sizes differ by lane.
    fn check_partial_sources(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        pc: usize,
        lanes: u32,
        addr: &Addr,
        sizes: &[u32; LANES],
    ) {
        let at = Self::addresses(warp, addr);
        each_lane(lanes, |l| {
            if context.memory.find(at[l], u64::from(sizes[l])).is_none() {
                self.report_lane(context, warp, Kind::OutOfBounds, pc, "read", 1 << l, || {
                    format!("out of bounds: {}-byte global read at 0x{:x}", sizes[l], at[l])
                });
            }
        });
    }

    /// Begins copies to places that are free of errors: they end at once unless that is checked.
    fn issue(&mut self, context: &Context<'_>, warp: &Warp, lanes: u32, usage: Use, open: &OpenCopy) {
        let late = context.launch.checks.in_flight;
        let base = self.epoch(warp, usage.pc).copied();
        let base = if late { base.in_flight() } else { base };
        self.shadow_rows(context, warp, &open.dst, (lanes, 0), base, usage);
        each_lane(lanes, |l| {
            if late {
                self.shared.begin_copy(open.dst[l], open.bytes);
            } else {
                deliver(&mut self.shared, open.dst[l], &open.data[l][..open.bytes as usize], open.defined[l]);
            }
        });
    }

    /// Completes the copies of some lanes on behalf of their threads. What another copy is still in flight to stays
    /// poisoned.
    fn complete(&mut self, context: &Context<'_>, warp: &Warp, open: &OpenCopy, lanes: u32) {
        self.check_sources(context, warp, open, lanes);
        let me = self.epoch(warp, open.pc as usize).copied();
        each_lane(lanes, |l| {
            let (dst, me) = (open.dst[l], me.with_lane(l as u32));
            self.shared.end_copy(dst, open.bytes, |shared, at, size| {
                let from = (at - dst) as usize;
                deliver(shared, at, &open.data[l][from..from + size as usize], open.defined[l] >> from);
                if let Some(shadow) = &mut shared.shadow {
                    shadow.complete(at, size, me);
                }
            });
        });
    }

    /// The hardware may have read the sources at any time until now.
    fn check_sources(&mut self, context: &Context<'_>, warp: &Warp, open: &OpenCopy, lanes: u32) {
        let mut near = 0;
        each_lane(lanes, |l| {
            let size = open.src_bytes[l] as usize;
            let Some(index) = context.memory.index_near(near, open.src[l], size as u64).filter(|_| size > 0) else {
                return;
            };
            near = index;
            let allocation = context.memory.at(index);
            let at = open.src[l] - allocation.base;
            if size == 16 && at.is_multiple_of(16) {
                let now = allocation.words::<4>(at);
                if open.data[l] == bytemuck::must_cast::<_, [u8; 16]>(now.map(u32::to_le)) {
                    return;
                }
            }
            let mut now = [0; 16];
            read_source(allocation, at, size as u64, &mut now);
            if now[..size] != open.data[l][..size] {
                let site = RawSite { role: "copies", pc: open.pc, warp: warp.index as u32, lane: l as u32 };
                self.report(context, Kind::SourceChanged, Severity::Error, &[site], || {
                    format!("source of a cp.async in {} changed before the copy was complete", allocation.name)
                });
            }
        });
    }

    /// Completes those copies of a warp that `due` says are, by the lanes of each.
    fn complete_due(&mut self, context: &Context<'_>, warp: &mut Warp, due: impl Fn(&Warp, &OpenCopy) -> u32) {
        let mut copies = std::mem::take(&mut warp.copies);
        for open in &mut copies {
            let lanes = open.lanes & due(warp, open);
            if lanes != 0 {
                self.complete(context, warp, open, lanes);
                open.lanes &= !lanes;
            }
        }
        copies.retain(|open| open.lanes != 0);
        warp.copies = copies;
    }

    /// `wait_group` and `wait_all` for the lanes of `active`.
    pub(crate) fn copy_wait(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        _pc: usize,
        active: u32,
        pending: Option<u32>,
    ) -> Flow {
        if warp.copies.is_empty() {
            return Flow::Next;
        }
        self.complete_due(context, warp, |warp, open| match pending {
            // The newest `pending` committed groups may stay open; uncommitted copies too.
            Some(pending) => active & before(&open.groups, &warp.groups, pending),
            None => active,
        });
        Flow::Next
    }

    /// `cp.async.mbarrier.arrive`: remembered until the copies before it are complete.
    pub(crate) fn copy_arrive(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        addr: &Addr,
        noinc: bool,
    ) -> Flow {
        let usage = Use { strong: true, ..Use::weak(pc, 8, false) };
        self.for_each_target(context, warp, active, addr, usage, |block, warp, target| {
            if target.space != Space::Shared {
                block.report_lane(context, warp, Kind::MbarrierMisuse, pc, "arrives", target.lanes, || {
                    "mbarrier outside shared memory".into()
                });
                return;
            }
            each_lane(target.lanes, |l| {
                let addr = target.at[l] as u32;
                if !noinc {
                    block.mbar_expect_arrival(context, warp, pc, l as u32, addr);
                }
                let after = warp.issued;
                warp.arrives.push(OpenArrive { lane: l as u32, addr, after, pc: pc as u32 });
            });
        });
        self.progressed();
        Flow::Next
    }

    /// Completes the oldest asynchronous arrivals: called when every warp waits, which is as
    /// late as the model allows. True if anything happened.
    pub(crate) fn complete_late(&mut self, context: &Context<'_>) -> bool {
        if self.complete_fetch(context) {
            return true;
        }
        let mut any = false;
        for at in 0..self.warps.len() {
            let Some(mut warp) = self.warps[at].take() else {
                continue;
            };
            if !warp.arrives.is_empty() {
                let first = warp.arrives.remove(0);
                let same = |a: &OpenArrive| a.pc == first.pc && a.addr == first.addr && a.after == first.after;
                let (now, later) = std::mem::take(&mut warp.arrives).into_iter().partition(same);
                warp.arrives = later;
                let mut now: Vec<OpenArrive> = now;
                now.insert(0, first);
                for arrive in now {
                    self.finish_arrive(context, &mut warp, arrive);
                }
                any = true;
            }
            self.warps[at] = Some(warp);
        }
        any
    }

    fn finish_arrive(&mut self, context: &Context<'_>, warp: &mut Warp, arrive: OpenArrive) {
        self.complete_due(context, warp, |_, open| if open.sequence < arrive.after { 1 << arrive.lane } else { 0 });
        self.mbar_arrive_async(context, warp, arrive);
        self.progressed();
    }

    /// Exiting lanes leave no copy behind unseen.
    pub(crate) fn drop_copies(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, lanes: u32) {
        // Copies that an asynchronous arrival will complete are accounted for.
        let covered = warp.arrives.iter().fold(0u32, |m, a| m | 1 << a.lane);
        let Some(open) = warp.copies.iter().find(|open| lanes & !covered & open.lanes != 0) else { return };
        let lane = (lanes & !covered & open.lanes).trailing_zeros();
        if context.launch.checks.in_flight {
            let sites = [
                RawSite { role: "copies", pc: open.pc, warp: warp.index as u32, lane },
                RawSite { role: "exits", pc: pc as u32, warp: warp.index as u32, lane },
            ];
            self.report(context, Kind::UnwaitedCopy, Severity::Warning, &sites, || {
                "a thread exits with a cp.async it never waited for".into()
            });
        }
    }

    /// Value of a 32-bit slot of one lane.
    pub(crate) fn word(warp: &Warp, row: u16, lane: usize) -> u32 {
        warp.regs.w[usize::from(row)].0[lane]
    }
}

/// Lanes whose group is older than the newest `pending` that they committed.
#[inline]
fn before(groups: &[u32; LANES], committed: &[u32; LANES], pending: u32) -> u32 {
    let due = |l: usize| groups[l] < committed[l].saturating_sub(pending);
    (0..LANES).fold(0, |lanes, l| lanes | u32::from(due(l)) << l)
}

/// Puts the bytes of a copy in place; bit `i` of `defined` says whether byte `i` is.
fn deliver(shared: &mut Shared, dst: u32, data: &[u8], defined: u16) {
    let (at, size) = (dst as usize, data.len());
    shared.bytes[at..at + size].copy_from_slice(data);
    let all = ((1u32 << size) - 1) as u16;
    shared.define(dst, size as u32, true);
    if defined & all != all {
        for i in (0..size as u32).filter(|i| defined >> i & 1 == 0) {
            shared.define(dst + i, 1, false);
        }
    }
}

/// Copies 16 bytes of a buffer from a checked offset.
#[inline(always)]
fn copy_words(allocation: &Allocation, from: u64, to: &mut [u8]) {
    for (to, word) in to.as_chunks_mut::<4>().0.iter_mut().zip(allocation.words::<4>(from)) {
        *to = word.to_le_bytes();
    }
}

/// Lanes that copy all of 16 bytes, and lanes that copy none.
#[inline(always)]
fn whole_or_none(sizes: &[u32; LANES]) -> (u32, u32) {
    let (mut whole, mut none) = (0, 0);
    for (l, &size) in sizes.iter().enumerate() {
        whole |= u32::from(size >= 16) << l;
        none |= u32::from(size == 0) << l;
    }
    (whole, none)
}

dispatch! {
    /// [`whole_or_none`] compiled for `level`.
    fn wholes(sizes: &[u32; LANES]) -> (u32, u32) = whole_or_none;
}

/// Offsets of 16-byte sources in a buffer of `bytes`, if those of the lanes that read are inside and aligned.
#[inline(always)]
fn source_offsets(base: &[u64; LANES], offset: u64, bytes: u64, reading: u32) -> Option<[u64; LANES]> {
    let room = bytes.checked_sub(16)?;
    let mut at = [0; LANES];
    let mut wrong = 0;
    for (l, (at, base)) in at.iter_mut().zip(base).enumerate() {
        *at = base.wrapping_add(offset);
        wrong |= u32::from((*at > room) | (*at % 16 != 0)) << l;
    }
    (wrong & reading == 0).then_some(at)
}

dispatch! {
    /// [`source_offsets`] compiled for `level`.
    fn sources(base: &[u64; LANES], offset: u64, bytes: u64, reading: u32) -> Option<[u64; LANES]> = source_offsets;
}

/// Copies `size` bytes from global memory; returns a bit per byte, set where it is defined. The
/// bytes behind stay zero and count as defined.
pub(super) fn read_source(allocation: &Allocation, at: u64, size: u64, data: &mut [u8; 16]) -> u16 {
    if size == 16 && at.is_multiple_of(16) && allocation.is_defined(at, 16) {
        for (i, word) in data.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&(allocation.load(at + 4 * i as u64, 4) as u32).to_le_bytes());
        }
        return u16::MAX;
    }
    let mut defined = u16::MAX;
    for i in 0..size {
        data[i as usize] = allocation.load(at + i, 1) as u8;
        if !allocation.is_defined(at + i, 1) {
            defined &= !(1 << i);
        }
    }
    defined
}
