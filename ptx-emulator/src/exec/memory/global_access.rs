//! Loads of global memory whose lanes are all in one buffer and aligned, each word read once; everything that needs a
//! report, a generic address or an ordering is left to `access`.

use std::sync::atomic::Ordering::Relaxed;

use crate::check::global::GlobalShadow;
use crate::exec::memory::access::{set_loaded_unknown, write_loaded};
use crate::exec::memory::target::{Target, Use};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::warp::Warp;
use crate::isa::op::Load;
use crate::isa::slot::Class;
use crate::isa::space::Space;
use crate::machine::regs::{LANES, d, each_lane};
use crate::machine::simd::{Level, dispatch};
use crate::memory::Allocation;

/// Addresses of the lanes of one instruction.
struct Places {
    /// Lanes that are not active repeat an active one.
    at: [u64; LANES],
    low: u64,
    high: u64,
    /// Union of the bits of all addresses.
    bits: u64,
    /// Each lane follows the one before without a gap.
    contiguous: bool,
}

#[inline(always)]
fn active_places(base: &[u64; LANES], offset: u64, active: u32, bytes: u32) -> Places {
    let stand_in = base[active.trailing_zeros() as usize & 31];
    let mut at = [0; LANES];
    for (l, (to, from)) in at.iter_mut().zip(base).enumerate() {
        let address = if active >> l & 1 == 1 { *from } else { stand_in };
        *to = address.wrapping_add(offset);
    }
    let (low, high, bits) =
        at.iter().fold((u64::MAX, 0, 0), |(low, high, bits), &a| (low.min(a), high.max(a), bits | a));
    let first = at[0];
    let step = u64::from(bytes);
    let contiguous = at.iter().enumerate().fold(true, |c, (l, &a)| c & (a.wrapping_sub(first) == l as u64 * step));
    Places { at, low, high, bits, contiguous }
}

dispatch! {
    /// [`Places`] compiled for `level`.
    fn places(base: &[u64; LANES], offset: u64, active: u32, bytes: u32) -> Places = active_places;
}

impl Block {
    /// A load of `N` elements per lane; false, and nothing done, when it is for [`Block::load`] to do.
    pub(crate) fn load_global<const N: usize>(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        load: &Load,
    ) -> bool {
        let addr = &load.addr;
        let fits = addr.space == Space::Global && addr.base.class == Class::D && load.dst.len() == N;
        if !fits || load.order.strong || load.order.collective {
            return false;
        }
        let tracked = context.launch.checks.uninitialised;
        if tracked && warp.regs.taint(addr.base) & active != 0 {
            return false;
        }
        let total = load.bytes * N as u32;
        let places = places(context.level, d(&warp.regs, addr.base.row), addr.offset as u64, active, total);
        let span = (places.high - places.low).saturating_add(u64::from(total));
        if places.bits & u64::from(total - 1) != 0 {
            return false;
        }
        let Some(index) = context.memory.index_near(self.buffer, places.low, span) else { return false };
        self.buffer = index;
        let allocation = context.memory.at(index);
        // What nobody has written needs no record, and no look whether it was written.
        let recorded = |shadow: &GlobalShadow| !allocation.read_only && !shadow.passes_read(index);
        if context.shadow.as_ref().is_some_and(recorded) {
            let target =
                Target { space: Space::Global, at: places.at, lanes: active, allocation: [index as u32; LANES] };
            let usage = Use::weak(pc, total, false);
            if load.non_coherent {
                self.check_non_coherent(context, warp, &target, usage);
            }
            self.shadow_global(context, warp, &target, usage, 0);
        }
        if load.bytes == 4 && load.dst.iter().all(|slot| slot.class == Class::W) {
            let rows = words::<N>(allocation, &places, span);
            for (slot, row) in load.dst.iter().zip(&rows) {
                warp.regs.set_w(slot.row, row, active);
            }
        } else {
            for (i, slot) in load.dst.iter().enumerate() {
                let offset = u64::from(i as u32 * load.bytes).wrapping_sub(allocation.base);
                let values = places.at.map(|at| allocation.load(at.wrapping_add(offset), load.bytes));
                write_loaded(warp, *slot, load, &values, active);
            }
        }
        if tracked {
            for (i, slot) in load.dst.iter().enumerate() {
                let offset = u64::from(i as u32 * load.bytes);
                let unknown = unknown(allocation, &places.at, active, offset, load.bytes);
                set_loaded_unknown(warp, *slot, load, unknown, active, active);
            }
        }
        true
    }
}

/// `N` neighbouring words of every lane, all of which are in `span` bytes from the lowest on.
#[inline]
fn words<const N: usize>(allocation: &Allocation, places: &Places, span: u64) -> [[u32; LANES]; N] {
    let Places { at, low, high, contiguous, .. } = places;
    if low == high {
        return allocation.words::<N>(low - allocation.base).map(|word| [word; LANES]);
    }
    let words = allocation.word_range(low - allocation.base, span);
    let mut rows = [[0; LANES]; N];
    if *contiguous {
        for (l, words) in words.as_chunks::<N>().0.iter().enumerate().take(LANES) {
            for (row, word) in rows.iter_mut().zip(words) {
                row[l] = word.load(Relaxed);
            }
        }
        return rows;
    }
    for (l, at) in at.iter().enumerate() {
        let words = &words[((at - low) / 4) as usize..][..N];
        for (row, word) in rows.iter_mut().zip(words) {
            row[l] = word.load(Relaxed);
        }
    }
    rows
}

/// Undefined bits of the elements at `offset` behind each lane's own place, if there are any.
fn unknown(allocation: &Allocation, at: &[u64; LANES], active: u32, offset: u64, bytes: u32) -> Option<[u64; LANES]> {
    if allocation.is_all_defined() {
        return None;
    }
    let mut found = None;
    each_lane(active, |l| {
        let at = at[l] - allocation.base + offset;
        if !allocation.is_defined(at, bytes) {
            let lane = &mut found.get_or_insert([0; LANES])[l];
            for i in (0..bytes).filter(|i| !allocation.is_defined(at + u64::from(*i), 1)) {
                *lane |= 0xff << (8 * i);
            }
        }
    });
    found
}
