//! Loads and stores: values, definedness, and the checks of each access.

use crate::exec::memory::target::{Target, Use};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::Warp;
use crate::isa::op::{Load, Store};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::Space;
use crate::machine::regs::{LANES, each_lane};
use crate::report::Kind;

impl Block {
    pub(crate) fn load(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, active: u32, load: &Load) -> Flow {
        let remote = self.remote_lanes(warp, &load.addr, active);
        if remote != 0 {
            self.remote_load(context, warp, pc, remote, load);
            return if remote == active { Flow::Next } else { self.load(context, warp, pc, active & !remote, load) };
        }
        let whole = match load.dst.len() {
            1 => self.load_shared::<1>(context, warp, pc, active, load),
            2 => self.load_shared::<2>(context, warp, pc, active, load),
            4 => self.load_shared::<4>(context, warp, pc, active, load),
            _ => false,
        };
        let whole = whole
            || match load.dst.len() {
                1 => self.load_global::<1>(context, warp, pc, active, load),
                2 => self.load_global::<2>(context, warp, pc, active, load),
                4 => self.load_global::<4>(context, warp, pc, active, load),
                _ => false,
            };
        if whole {
            return Flow::Next;
        }
        match load.dst.len() {
            1 => self.load_elements::<1>(context, warp, pc, active, load),
            2 => self.load_elements::<2>(context, warp, pc, active, load),
            4 => self.load_elements::<4>(context, warp, pc, active, load),
            _ => self.load_elements::<8>(context, warp, pc, active, load),
        }
    }

    /// A load of up to `N` elements per lane.
    fn load_elements<const N: usize>(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        load: &Load,
    ) -> Flow {
        let total = load.bytes * load.dst.len() as u32;
        let usage = Use::ordered(pc, total, false, load.order);
        let mut values = [[u64::MAX; LANES]; N];
        // Bits that are not defined, once one is found.
        let mut unknown: [Option<[u64; LANES]>; N] = [None; N];
        let mut read = 0;
        warp.polled |= load.order.strong;
        self.for_each_target(context, warp, active, &load.addr, usage, |block, warp, target| {
            match target.space {
                Space::Shared => block.shadow_shared(context, warp, target, usage, 0),
                Space::Local | Space::Param => {}
                _ => {
                    if load.non_coherent {
                        block.check_non_coherent(context, warp, target, usage);
                    }
                    block.shadow_global(context, warp, target, usage, 0);
                }
            }
            read |= target.lanes;
            for (i, (out, unknown)) in values.iter_mut().zip(&mut unknown).enumerate().take(load.dst.len()) {
                let offset = i as u64 * u64::from(load.bytes);
                let lanes = block.gather(context, warp, target, offset, load.bytes, out);
                if lanes != 0 {
                    let unknown = unknown.get_or_insert([0; LANES]);
                    each_lane(lanes, |l| {
                        unknown[l] = block.unknown_at(context, warp, target, l, offset, load.bytes);
                    });
                }
            }
            if load.order.strong {
                block.check_first(context, warp, target, pc);
                block.synchronise(context, warp, target, true, false, load.order);
            }
        });
        for (i, slot) in load.dst.iter().enumerate() {
            write_loaded(warp, *slot, load, &values[i], active);
            if context.launch.checks.uninitialised {
                set_loaded_unknown(warp, *slot, load, unknown[i], active, read);
            }
        }
        Flow::Next
    }

    pub(crate) fn check_non_coherent(&mut self, context: &Context<'_>, warp: &Warp, target: &Target, usage: Use) {
        let Some(shadow) = &context.shadow else {
            return;
        };
        let mut stale = 0;
        each_lane(target.lanes, |l| {
            let index = target.allocation[l] as usize;
            let offset = target.at[l] - context.memory.at(index).base;
            stale |= u32::from(shadow.is_any_written(index) && shadow.written(index, offset, usage.bytes)) << l;
        });
        if stale != 0 {
            self.report_lane(context, warp, Kind::NonCoherentRead, usage.pc, "read", stale, || {
                "non-coherent load of memory written in the same launch".into()
            });
        }
    }

    /// Reads one element per lane; returns the lanes that read undefined bytes.
    #[inline]
    fn gather(
        &self,
        context: &Context<'_>,
        warp: &Warp,
        target: &Target,
        offset: u64,
        bytes: u32,
        out: &mut [u64; LANES],
    ) -> u32 {
        let (mut undefined, mut value) = (0, 0);
        let tracked = context.launch.checks.uninitialised;
        match target.space {
            Space::Shared if bytes == 4 => {
                // The usual case, with the size known to the compiler.
                each_lane(target.lanes, |l| out[l] = self.shared.load((target.at[l] + offset) as u32, 4));
                if tracked {
                    each_lane(target.lanes, |l| {
                        let at = (target.at[l] + offset) as u32;
                        undefined |= u32::from(!self.shared.is_defined(at, 4)) << l;
                    });
                }
            }
            Space::Shared => each_lane(target.lanes, |l| {
                let at = (target.at[l] + offset) as u32;
                out[l] = self.shared.load(at, bytes);
                undefined |= u32::from(tracked && !self.shared.is_defined(at, bytes)) << l;
            }),
            Space::Local => each_lane(target.lanes, |l| {
                let at = warp.local.len() / LANES * l + (target.at[l] + offset) as usize;
                let end = at + bytes as usize;
                out[l] = little_endian(&warp.local[at..end]);
                undefined |= u32::from(tracked && warp.local_unknown[at..end].iter().any(|&bits| bits != 0)) << l;
            }),
            Space::Param => {
                // Most often all lanes read the same parameter.
                let mut last = None;
                each_lane(target.lanes, |l| {
                    if last != Some(target.at[l]) {
                        let at = (target.at[l] + offset) as usize;
                        value = little_endian(&context.launch.params[at..at + bytes as usize]);
                        last = Some(target.at[l]);
                    }
                    out[l] = value;
                });
            }
            _ => each_lane(target.lanes, |l| {
                let allocation = context.memory.at(target.allocation[l] as usize);
                let at = target.at[l] + offset - allocation.base;
                out[l] = allocation.load(at, bytes);
                undefined |= u32::from(tracked && !allocation.is_defined(at, bytes)) << l;
            }),
        }
        undefined
    }

    /// Undefined bits of an element that one lane reads.
    #[cold]
    fn unknown_at(
        &self,
        context: &Context<'_>,
        warp: &Warp,
        target: &Target,
        l: usize,
        offset: u64,
        bytes: u32,
    ) -> u64 {
        let by_byte = |defined: &dyn Fn(u32) -> bool| {
            (0..bytes).fold(0, |unknown, i| unknown | if defined(i) { 0 } else { 0xff << (8 * i) })
        };
        match target.space {
            Space::Shared => by_byte(&|i| self.shared.is_defined((target.at[l] + offset) as u32 + i, 1)),
            Space::Local => {
                let at = warp.local.len() / LANES * l + (target.at[l] + offset) as usize;
                little_endian(&warp.local_unknown[at..at + bytes as usize])
            }
            Space::Param => 0,
            _ => {
                let allocation = context.memory.at(target.allocation[l] as usize);
                let at = target.at[l] + offset - allocation.base;
                by_byte(&|i| allocation.is_defined(at + u64::from(i), 1))
            }
        }
    }

    pub(crate) fn store(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        store: &Store,
    ) -> Flow {
        let remote = self.remote_lanes(warp, &store.addr, active);
        if remote != 0 {
            self.remote_store(context, warp, pc, remote, store);
            return if remote == active { Flow::Next } else { self.store(context, warp, pc, active & !remote, store) };
        }
        let whole = match store.src.len() {
            1 => self.store_shared::<1>(context, warp, pc, active, store),
            2 => self.store_shared::<2>(context, warp, pc, active, store),
            4 => self.store_shared::<4>(context, warp, pc, active, store),
            _ => false,
        };
        if whole {
            return Flow::Next;
        }
        let total = store.bytes * store.src.len() as u32;
        let usage = Use::ordered(pc, total, true, store.order);
        let checks = context.launch.checks;
        self.for_each_target(context, warp, active, &store.addr, usage, |block, warp, target| {
            let mut same = target.lanes;
            block.before_write(context, target, total);
            if store.order.strong {
                block.note_first(context, target, total);
            }
            for (i, slot) in store.src.iter().enumerate() {
                let (value, taint) = source(warp, *slot, store.bytes);
                let offset = i as u64 * u64::from(store.bytes);
                let tainted = taint & target.lanes;
                if checks.uninitialised && tainted != 0 && target.space == Space::Global {
                    block.report_lane(context, warp, Kind::UninitialisedStore, pc, "write", tainted, || {
                        "uninitialised value stored to global memory".into()
                    });
                }
                same &= block.scatter(context, warp, target, offset, (*slot, store.bytes), &value, taint);
            }
            match target.space {
                Space::Shared => block.shadow_shared(context, warp, target, usage, same),
                Space::Local => {}
                _ => {
                    each_lane(target.lanes, |l| {
                        let allocation = context.memory.at(target.allocation[l] as usize);
                        allocation.define(target.at[l] - allocation.base, total);
                    });
                    block.shadow_global(context, warp, target, usage, same);
                }
            }
            block.synchronise(context, warp, target, false, true, store.order);
            if store.order.strong && same != target.lanes {
                block.progressed_in(context, target.space);
            }
        });
        Flow::Next
    }

    /// Writes one element per lane, one lane after another; what is in the block is marked defined unless its value is
    /// not. Returns the lanes that found their value in place, be it from a lane before them.
    #[expect(clippy::too_many_arguments, reason = "the parts of one store")]
    fn scatter(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        target: &Target,
        offset: u64,
        (slot, bytes): (Slot, u32),
        value: &[u64; LANES],
        taint: u32,
    ) -> u32 {
        let unknown = if taint == 0 { [0; LANES] } else { warp.regs.unknown(slot) };
        let mut same = 0;
        match target.space {
            Space::Shared => each_lane(target.lanes, |l| {
                let at = (target.at[l] + offset) as u32;
                same |= u32::from(self.shared.load(at, bytes) == value[l]) << l;
                self.shared.store(at, bytes, value[l]);
                self.shared.define_bits(at, bytes, unknown[l]);
            }),
            Space::Local => each_lane(target.lanes, |l| {
                let at = warp.local.len() / LANES * l + (target.at[l] + offset) as usize;
                let end = at + bytes as usize;
                warp.local[at..end].copy_from_slice(&value[l].to_le_bytes()[..bytes as usize]);
                if let Some(bits) = warp.local_unknown.get_mut(at..end) {
                    bits.copy_from_slice(&unknown[l].to_le_bytes()[..bytes as usize]);
                }
            }),
            _ => each_lane(target.lanes, |l| {
                let allocation = context.memory.at(target.allocation[l] as usize);
                let at = target.at[l] + offset - allocation.base;
                same |= u32::from(allocation.load(at, bytes) == value[l]) << l;
                allocation.store(at, bytes, value[l]);
            }),
        }
        same
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Values of a source register, cut to the element size, and the lanes that are not defined up to there.
#[inline(always)]
pub(crate) fn source(warp: &Warp, slot: Slot, bytes: u32) -> ([u64; LANES], u32) {
    let row = usize::from(slot.row);
    let mask = if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
    let mut out = [0; LANES];
    match slot.class {
        Class::D => {
            for (to, from) in out.iter_mut().zip(&warp.regs.d[row].0) {
                *to = from & mask;
            }
        }
        Class::W => {
            for (to, from) in out.iter_mut().zip(&warp.regs.w[row].0) {
                *to = u64::from(*from) & mask;
            }
        }
        Class::P => {
            for (l, to) in out.iter_mut().enumerate() {
                *to = u64::from(warp.regs.p[row] >> l & 1);
            }
        }
    }
    (out, warp.regs.taint_within(slot, mask))
}

/// Extends a loaded element to 64 bits, by sign or zero.
#[inline(always)]
fn extended(load: &Load, value: u64) -> u64 {
    let unused = 64 - 8 * load.bytes.min(8);
    if load.signed { (((value << unused) as i64) >> unused) as u64 } else { (value << unused) >> unused }
}

/// Extends loaded values to the register: 8 and 16 bits by sign or zero.
#[inline(always)]
pub(crate) fn write_loaded(warp: &mut Warp, slot: Slot, load: &Load, values: &[u64; LANES], active: u32) {
    match slot.class {
        Class::D => {
            let mut out = [0; LANES];
            for (to, from) in out.iter_mut().zip(values) {
                *to = extended(load, *from);
            }
            warp.regs.set_d(slot.row, &out, active);
        }
        _ if load.bytes == 4 => {
            let mut out = [0; LANES];
            for (to, from) in out.iter_mut().zip(values) {
                *to = *from as u32;
            }
            warp.regs.set_w(slot.row, &out, active);
        }
        _ => {
            let mut out = [0; LANES];
            for (to, from) in out.iter_mut().zip(values) {
                *to = extended(load, *from) as u32;
            }
            warp.regs.set_w(slot.row, &out, active);
        }
    }
}

/// Notes what is not defined of a loaded element: nothing of it where a lane could not read.
pub(crate) fn set_loaded_unknown(
    warp: &mut Warp,
    slot: Slot,
    load: &Load,
    unknown: Option<[u64; LANES]>,
    active: u32,
    read: u32,
) {
    let Some(mut unknown) = unknown.or_else(|| (active & !read != 0).then_some([0; LANES])) else {
        return set_taint(warp, slot, 0, active);
    };
    for (l, bits) in unknown.iter_mut().enumerate() {
        *bits = if read >> l & 1 == 1 { extended(load, *bits) } else { u64::MAX };
    }
    warp.regs.set_unknown(slot, &unknown, active);
}

/// Makes a destination wholly undefined in the lanes of `taint`, and defined in the other active ones.
pub(crate) fn set_taint(warp: &mut Warp, slot: Slot, taint: u32, active: u32) {
    match slot.class {
        Class::D => warp.regs.taint_d(slot.row, taint, active),
        Class::W => warp.regs.taint_w(slot.row, taint, active),
        Class::P => warp.regs.taint_p(slot.row, taint, active),
    }
}
