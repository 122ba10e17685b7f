//! Loads and stores of shared memory whose lanes are all in bounds and aligned, moved by whole
//! words; everything that needs a report, a generic address or an ordering is left to `memory`.

use crate::exec::memory::access::{set_loaded_unknown, source, write_loaded};
use crate::exec::memory::shared::Shared;
use crate::exec::memory::target::Use;
use crate::exec::run::block::{Block, Context};
use crate::exec::run::warp::Warp;
use crate::isa::op::{Load, Store};
use crate::isa::slot::Class;
use crate::isa::space::{Addr, Space};
use crate::machine::regs::{FULL, LANES, Regs, d, each_lane, w};
use crate::machine::simd::{Level, dispatch};

/// Shared offsets of the lanes of one instruction.
#[derive(Clone, Copy)]
struct Offsets {
    /// Lanes that are not active repeat an active one.
    at: [u32; LANES],
    low: u32,
    high: u32,
    /// Union of the bits of all offsets.
    bits: u32,
    /// All offsets fit 32 bits.
    fit: bool,
    /// Each lane follows the one before without a gap.
    contiguous: bool,
}

#[inline(always)]
fn offsets(base: impl Fn(usize) -> u64, active: u32, bytes: u32) -> Offsets {
    let stand_in = base(active.trailing_zeros() as usize & 31);
    let mut at = [0; LANES];
    let (mut low, mut high, mut bits, mut beyond) = (u32::MAX, 0, 0, 0);
    for (l, at) in at.iter_mut().enumerate() {
        let address = if active >> l & 1 == 1 { base(l) } else { stand_in };
        beyond |= address >> 32;
        *at = address as u32;
        low = low.min(*at);
        high = high.max(*at);
        bits |= *at;
    }
    let first = at[0];
    let contiguous = at.iter().enumerate().fold(true, |c, (l, &a)| c & (a.wrapping_sub(first) == l as u32 * bytes));
    Offsets { at, low, high, bits, fit: beyond == 0, contiguous }
}

#[inline(always)]
fn narrow(base: &[u32; LANES], offset: u32, active: u32, bytes: u32) -> Offsets {
    offsets(|l| u64::from(base[l].wrapping_add(offset)), active, bytes)
}

#[inline(always)]
fn wide(base: &[u64; LANES], offset: u64, active: u32, bytes: u32) -> Offsets {
    offsets(|l| base[l].wrapping_add(offset), active, bytes)
}

dispatch! {
    /// [`Offsets`] of 32-bit addresses.
    fn offsets_w(base: &[u32; LANES], offset: u32, active: u32, bytes: u32) -> Offsets = narrow;
}

dispatch! {
    /// [`Offsets`] of 64-bit addresses.
    fn offsets_d(base: &[u64; LANES], offset: u64, active: u32, bytes: u32) -> Offsets = wide;
}

impl Offsets {
    /// The bytes between the lowest and the highest access of `bytes`.
    fn span(&self, bytes: u32) -> (u32, u32) {
        (self.low, (self.high - self.low).saturating_add(bytes))
    }

    /// Undefined bits of the elements at `offset` behind each lane's own place, if there are any.
    fn unknown(&self, shared: &Shared, active: u32, offset: u32, bytes: u32) -> Option<[u64; LANES]> {
        if shared.are_defined(&self.at, offset, bytes) {
            return None;
        }
        let mut found = None;
        each_lane(active, |l| {
            let at = self.at[l] + offset;
            if !shared.is_defined(at, bytes) {
                let lane = &mut found.get_or_insert([0; LANES])[l];
                for i in (0..bytes).filter(|i| !shared.is_defined(at + i, 1)) {
                    *lane |= 0xff << (8 * i);
                }
            }
        });
        found
    }
}

/// Where an instruction of `bytes` per lane accesses shared memory, if nothing is wrong with that.
#[inline]
fn valid_offsets(level: Level, regs: &Regs, shared: &Shared, active: u32, addr: &Addr, bytes: u32) -> Option<Offsets> {
    if addr.space != Space::Shared {
        return None;
    }
    let found = match addr.base.class {
        Class::D => offsets_d(level, d(regs, addr.base.row), addr.offset as u64, active, bytes),
        _ => offsets_w(level, w(regs, addr.base.row), addr.offset as u32, active, bytes),
    };
    let (low, span) = found.span(bytes);
    let valid = found.fit && found.bits & (bytes - 1) == 0 && shared.covers(low, span);
    valid.then_some(found)
}

/// As [`Block::places`], where no address can be undefined.
#[inline]
pub(crate) fn places(
    level: Level,
    regs: &Regs,
    shared: &Shared,
    active: u32,
    addr: &Addr,
    bytes: u32,
) -> Option<[u32; LANES]> {
    valid_offsets(level, regs, shared, active, addr, bytes).map(|found| found.at)
}

impl Block {
    /// Where an instruction of `bytes` per lane accesses shared memory, if nothing is wrong with it.
    fn offsets(&self, context: &Context<'_>, warp: &Warp, active: u32, addr: &Addr, bytes: u32) -> Option<Offsets> {
        if context.launch.checks.uninitialised && warp.regs.taint(addr.base) & active != 0 {
            return None;
        }
        valid_offsets(context.level, &warp.regs, &self.shared, active, addr, bytes)
    }

    /// Offsets of accesses of `bytes` per lane to shared memory, if nothing is wrong with them.
    pub(crate) fn places(
        &self,
        context: &Context<'_>,
        warp: &Warp,
        active: u32,
        addr: &Addr,
        bytes: u32,
    ) -> Option<[u32; LANES]> {
        self.offsets(context, warp, active, addr, bytes).map(|found| found.at)
    }

    /// A load of `N` elements per lane; false, and nothing done, when it is for [`Block::load`] to do.
    pub(crate) fn load_shared<const N: usize>(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        load: &Load,
    ) -> bool {
        let total = load.bytes * N as u32;
        if load.order.strong || load.order.collective || load.dst.len() != N {
            return false;
        }
        let Some(from) = self.offsets(context, warp, active, &load.addr, total) else { return false };
        let usage = Use::weak(pc, total, false);
        self.shadow_offsets(context, warp, &from.at, active, usage, 0);
        let words = load.bytes == 4 && load.dst.iter().all(|slot| slot.class == Class::W);
        if words {
            let rows = read_words::<N>(&self.shared.bytes, &from);
            for (slot, row) in load.dst.iter().zip(&rows) {
                warp.regs.set_w(slot.row, row, active);
            }
        } else {
            for (i, slot) in load.dst.iter().enumerate() {
                let values = from.at.map(|at| self.shared.load(at + i as u32 * load.bytes, load.bytes));
                write_loaded(warp, *slot, load, &values, active);
            }
        }
        if context.launch.checks.uninitialised {
            let (low, span) = from.span(total);
            let whole = self.shared.is_whole(low, span);
            for (i, slot) in load.dst.iter().enumerate() {
                let offset = i as u32 * load.bytes;
                let unknown = if whole { None } else { from.unknown(&self.shared, active, offset, load.bytes) };
                set_loaded_unknown(warp, *slot, load, unknown, active, active);
            }
        }
        true
    }

    /// A store of `N` elements per lane; false, and nothing done, when it is for [`Block::store`] to do.
    pub(crate) fn store_shared<const N: usize>(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        store: &Store,
    ) -> bool {
        let total = store.bytes * N as u32;
        if store.order.strong || store.order.collective || store.src.len() != N {
            return false;
        }
        let Some(to) = self.offsets(context, warp, active, &store.addr, total) else { return false };
        let usage = Use::weak(pc, total, true);
        let mut same = active;
        let mut taint = 0;
        if store.bytes == 4 && store.src.iter().all(|slot| slot.class == Class::W) {
            let rows: [&[u32; LANES]; N] = std::array::from_fn(|i| w(&warp.regs, store.src[i].row));
            if self.shared.shadow.is_some() {
                same &= replace_words::<N>(&mut self.shared.bytes, &to, rows, active);
            } else {
                write_words(&mut self.shared.bytes, &to, rows, active);
            }
            taint = store.src.iter().fold(0, |t, slot| t | warp.regs.tw(slot.row));
        } else {
            for (i, slot) in store.src.iter().enumerate() {
                let (value, undefined) = source(warp, *slot, store.bytes);
                taint |= undefined;
                let offset = i as u32 * store.bytes;
                let shared = &mut self.shared;
                each_lane(active, |l| {
                    // Of two lanes that write one place, the second finds what the first wrote.
                    let changes = shared.load(to.at[l] + offset, store.bytes) != value[l];
                    same &= !(u32::from(changes) << l);
                    shared.store(to.at[l] + offset, store.bytes, value[l]);
                });
            }
        }
        if context.launch.checks.uninitialised {
            self.define_stored(warp, &to, active, store, taint & active);
        }
        self.shadow_offsets(context, warp, &to.at, active, usage, same);
        true
    }

    /// Marks stored elements as defined unless their value is not.
    fn define_stored(&mut self, warp: &Warp, to: &Offsets, active: u32, store: &Store, taint: u32) {
        let total = store.bytes * store.src.len() as u32;
        let (low, span) = to.span(total);
        if taint == 0 && self.shared.is_whole(low, span) {
            return;
        }
        if taint == 0 && to.contiguous && active == FULL {
            self.shared.define(low, span, true);
        } else if taint == 0 {
            each_lane(active, |l| self.shared.define(to.at[l], total, true));
        } else {
            for (i, slot) in store.src.iter().enumerate() {
                let unknown = warp.regs.unknown(*slot);
                let offset = i as u32 * store.bytes;
                each_lane(active, |l| self.shared.define_bits(to.at[l] + offset, store.bytes, unknown[l]));
            }
        }
    }
}

/// `N` neighbouring words of every lane.
#[inline]
fn read_words<const N: usize>(bytes: &[u8], from: &Offsets) -> [[u32; LANES]; N] {
    let mut rows = [[0; LANES]; N];
    let (low, span) = from.span(4 * N as u32);
    let window = &bytes[low as usize..(low + span) as usize];
    if from.contiguous {
        for (l, lane) in window.chunks_exact(4 * N).enumerate().take(LANES) {
            for (row, word) in rows.iter_mut().zip(lane.as_chunks::<4>().0) {
                row[l] = u32::from_le_bytes(*word);
            }
        }
        return rows;
    }
    for (l, at) in from.at.iter().enumerate() {
        let lane = &window[(at - low) as usize..][..4 * N];
        for (row, word) in rows.iter_mut().zip(lane.as_chunks::<4>().0) {
            row[l] = u32::from_le_bytes(*word);
        }
    }
    rows
}

/// The inverse of [`read_words`] for the lanes of `active`, in their order.
#[inline]
fn write_words<const N: usize>(bytes: &mut [u8], to: &Offsets, rows: [&[u32; LANES]; N], active: u32) {
    let (low, span) = to.span(4 * N as u32);
    let window = &mut bytes[low as usize..(low + span) as usize];
    if to.contiguous && active == FULL {
        for (l, lane) in window.chunks_exact_mut(4 * N).enumerate().take(LANES) {
            for (row, word) in rows.iter().zip(lane.as_chunks_mut::<4>().0) {
                *word = row[l].to_le_bytes();
            }
        }
        return;
    }
    each_lane(active, |l| {
        let lane = &mut window[(to.at[l] - low) as usize..][..4 * N];
        for (row, word) in rows.iter().zip(lane.as_chunks_mut::<4>().0) {
            *word = row[l].to_le_bytes();
        }
    });
}

/// As [`write_words`]; returns the lanes that found their words in place, be it from a lane before them.
#[inline]
fn replace_words<const N: usize>(bytes: &mut [u8], to: &Offsets, rows: [&[u32; LANES]; N], active: u32) -> u32 {
    let mut same = 0;
    if to.contiguous && active == FULL {
        let old = read_words::<N>(bytes, to);
        for (l, bit) in (0..LANES).map(|l| (l, 1 << l)) {
            let kept = old.iter().zip(rows).fold(true, |kept, (old, new)| kept & (old[l] == new[l]));
            same |= if kept { bit } else { 0 };
        }
        write_words(bytes, to, rows, active);
        return same;
    }
    let (low, span) = to.span(4 * N as u32);
    let window = &mut bytes[low as usize..(low + span) as usize];
    each_lane(active, |l| {
        let lane = &mut window[(to.at[l] - low) as usize..][..4 * N];
        let mut kept = true;
        for (row, word) in rows.iter().zip(lane.as_chunks_mut::<4>().0) {
            let new = row[l].to_le_bytes();
            kept &= *word == new;
            *word = new;
        }
        same |= u32::from(kept) << l;
    });
    same
}
