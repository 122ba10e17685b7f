//! Loads and stores: address resolution, bounds, alignment, definedness, races.

use super::block::{Block, Context};
use super::regs::{FULL, LANES, each_lane};
use super::step::Flow;
use super::warp::Warp;
use crate::check::clock::{Epoch, Relation};
use crate::check::shadow::{Access, Clash, Conflict};
use crate::program::{
    Addr, Class, LOCAL_WINDOW, Load, Order, PARAM_WINDOW, SHARED_WINDOW, Slot, Space, Store, WINDOW_BYTES,
};
use crate::report::{Kind, RawSite, Severity};

/// Space that a generic address falls into.
#[inline(always)]
pub(crate) fn space_of(address: u64) -> Space {
    let inside = |window: u64| address.wrapping_sub(window) < WINDOW_BYTES;
    if inside(SHARED_WINDOW) {
        Space::Shared
    } else if inside(LOCAL_WINDOW) {
        Space::Local
    } else if inside(PARAM_WINDOW) {
        Space::Param
    } else {
        Space::Global
    }
}

/// Addresses of one space and the lanes that use them.
pub(crate) struct Target {
    pub(crate) space: Space,
    pub(crate) at: [u64; LANES],
    pub(crate) lanes: u32,
    /// Allocation of each lane, for global memory.
    pub(crate) allocation: [u32; LANES],
}

/// One memory instruction as the checks see it.
#[derive(Clone, Copy)]
pub(crate) struct Use {
    pub(crate) pc: usize,
    /// Bytes each lane touches.
    pub(crate) bytes: u32,
    /// Required alignment in bytes, a power of two.
    pub(crate) align: u32,
    pub(crate) write: bool,
    pub(crate) strong: bool,
    /// Whole-warp access without a lane of its own per byte.
    pub(crate) collective: bool,
}

/// Name of an access in reports.
fn verb(write: bool) -> &'static str {
    if write { "write" } else { "read" }
}

impl Block {
    /// Base row plus offset, per lane.
    #[inline(always)]
    pub(crate) fn addresses(warp: &Warp, addr: &Addr) -> [u64; LANES] {
        let row = usize::from(addr.base.row);
        match addr.base.class {
            Class::D => {
                let base = &warp.regs.d[row].0;
                std::array::from_fn(|l| base[l].wrapping_add(addr.offset as u64))
            }
            _ => {
                let base = &warp.regs.w[row].0;
                std::array::from_fn(|l| u64::from(base[l].wrapping_add(addr.offset as u32)))
            }
        }
    }

    fn address_taint(warp: &Warp, addr: &Addr) -> u32 {
        let row = usize::from(addr.base.row);
        match addr.base.class {
            Class::D => warp.regs.td[row],
            _ => warp.regs.tw[row],
        }
    }

    /// Resolves, checks and passes the lanes of each state space to `act`.
    pub(crate) fn for_each_target(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        active: u32,
        addr: &Addr,
        usage: Use,
        mut act: impl FnMut(&mut Block, &mut Warp, &Target),
    ) {
        let at = Self::addresses(warp, addr);
        let mut lanes = active;
        if context.launch.checks.uninitialised {
            let tainted = Self::address_taint(warp, addr) & active;
            if tainted != 0 {
                self.report_lane(
                    context,
                    warp,
                    Kind::UninitialisedAddress,
                    usage.pc,
                    verb(usage.write),
                    tainted,
                    || "uninitialised value used as an address".into(),
                );
                lanes &= !tainted;
            }
        }
        if addr.space != Space::Generic {
            self.one_space(context, warp, lanes, addr.space, at, usage, &mut act);
            return;
        }
        while lanes != 0 {
            let space = space_of(at[lanes.trailing_zeros() as usize]);
            let mut group = 0;
            each_lane(lanes, |l| group |= u32::from(space_of(at[l]) == space) << l);
            let window = match space {
                Space::Shared => SHARED_WINDOW,
                Space::Local => LOCAL_WINDOW,
                Space::Param => PARAM_WINDOW,
                _ => 0,
            };
            let inner = at.map(|a| a.wrapping_sub(window));
            self.one_space(context, warp, group, space, inner, usage, &mut act);
            lanes &= !group;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the state of one access, passed through once")]
    #[inline]
    fn one_space(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        lanes: u32,
        space: Space,
        at: [u64; LANES],
        usage: Use,
        act: &mut impl FnMut(&mut Block, &mut Warp, &Target),
    ) {
        let mut target = Target { space, at, lanes, allocation: [0; LANES] };
        self.validate(context, warp, &mut target, usage);
        if target.lanes != 0 {
            act(self, warp, &target);
        }
    }

    /// Drops lanes whose access is misaligned or out of bounds, with a report.
    fn validate(&mut self, context: &Context<'_>, warp: &Warp, target: &mut Target, usage: Use) {
        if target.lanes == 0 {
            return;
        }
        let (mut low, mut high, mut bits) = (u64::MAX, 0, 0);
        if target.lanes == FULL {
            for address in target.at {
                low = low.min(address);
                high = high.max(address);
                bits |= address;
            }
        } else {
            each_lane(target.lanes, |l| {
                low = low.min(target.at[l]);
                high = high.max(target.at[l]);
                bits |= target.at[l];
            });
        }
        let size = u64::from(usage.bytes);
        let align = u64::from(usage.align);
        let span = (high - low).saturating_add(size);
        if bits & (align - 1) == 0 && self.span_is_valid(context, warp, target, low, span, usage.write) {
            return;
        }
        let lanes = target.lanes;
        each_lane(lanes, |l| {
            let address = target.at[l];
            let lane = 1 << l;
            if address & (align - 1) != 0 {
                target.lanes &= !lane;
                self.report_lane(context, warp, Kind::Misaligned, usage.pc, verb(usage.write), lane, || {
                    format!("misaligned {size}-byte {} at 0x{address:x}", verb(usage.write))
                });
                return;
            }
            let mut single = Target { space: target.space, at: target.at, lanes: lane, allocation: [0; LANES] };
            if self.span_is_valid(context, warp, &mut single, address, size, usage.write) {
                target.allocation[l] = single.allocation[l];
                return;
            }
            target.lanes &= !lane;
            self.report_bounds(context, warp, target.space, address, l, usage);
        });
    }

    /// Whether one range of the space holds the whole span; notes the allocation.
    fn span_is_valid(
        &self,
        context: &Context<'_>,
        warp: &Warp,
        target: &mut Target,
        low: u64,
        span: u64,
        write: bool,
    ) -> bool {
        match target.space {
            Space::Shared => match (u32::try_from(low), u32::try_from(span)) {
                (Ok(low), Ok(span)) => self.shared.covers(low, span),
                _ => false,
            },
            Space::Local => {
                let limit = (warp.local.len() / LANES) as u64;
                low >= 16 && span <= limit && low <= limit - span
            }
            Space::Param => {
                let limit = context.launch.params.len() as u64;
                !write && span <= limit && low <= limit - span
            }
            _ => match context.memory.index_of(low, span) {
                Some(index) => {
                    target.allocation = [index as u32; LANES];
                    !(write && context.memory.at(index).read_only)
                }
                None => false,
            },
        }
    }

    fn report_bounds(&mut self, context: &Context<'_>, warp: &Warp, space: Space, address: u64, l: usize, usage: Use) {
        let (size, what) = (usage.bytes, verb(usage.write));
        let read_only = context.memory.find(address, u64::from(size)).is_some_and(|a| a.read_only);
        if read_only && usage.write && !matches!(space, Space::Shared | Space::Local | Space::Param) {
            self.report_lane(context, warp, Kind::ReadOnlyStore, usage.pc, what, 1 << l, || {
                format!("store to constant memory at 0x{address:x}")
            });
            return;
        }
        let place = match space {
            Space::Shared => {
                let offset = u32::try_from(address).unwrap_or(u32::MAX);
                format!(
                    "{} ({} bytes in the block's window)",
                    self.shared_name(context, offset),
                    self.shared.bytes.len()
                )
            }
            Space::Local => format!("local 0x{address:x}"),
            Space::Param => format!("parameters + 0x{address:x} of {}", context.launch.params.len()),
            _ => match context.memory.nearest(address) {
                Some(a) if address >= a.base + a.bytes => {
                    format!(
                        "{} + 0x{:x}, {} bytes past a {}-byte buffer",
                        a.name,
                        address - a.base,
                        address - a.base - a.bytes,
                        a.bytes
                    )
                }
                Some(a) if address >= a.base => {
                    format!("{} + 0x{:x} of {} bytes", a.name, address - a.base, a.bytes)
                }
                Some(a) => format!("0x{address:x}, {} bytes before {}", a.base - address, a.name),
                None => format!("0x{address:x}"),
            },
        };
        self.report_lane(context, warp, Kind::OutOfBounds, usage.pc, what, 1 << l, || {
            format!("out of bounds: {size}-byte {what} at {place}")
        });
    }

    /// Reports an ERROR of one instruction; the first lane of `lanes` is named.
    #[expect(clippy::too_many_arguments, reason = "the parts of a report")]
    pub(crate) fn report_lane(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        kind: Kind,
        pc: usize,
        role: &'static str,
        lanes: u32,
        describe: impl FnOnce() -> String,
    ) {
        let lane = lanes.trailing_zeros();
        let site = RawSite { role, pc: pc as u32, warp: warp.index as u32, lane };
        self.report(context, kind, Severity::Error, &[site], describe);
    }

    /// Checks and records a shared access of each lane; `same` says whether a store changes
    /// nothing there.
    pub(crate) fn shadow_shared(&mut self, context: &Context<'_>, warp: &Warp, target: &Target, usage: Use, same: u32) {
        let Some(mut shadow) = self.shared.shadow.take() else {
            return;
        };
        let mut conflicts: Vec<Conflict> = Vec::new();
        let base = self.usage_epoch(warp, usage);
        let view = self.clocks.view(warp.index);
        each_lane(target.lanes, |l| {
            let access = Access {
                offset: target.at[l] as u32,
                size: usage.bytes,
                write: usage.write,
                same_value: (same >> l) & 1 == 1,
                me: base.with_lane(l as u32),
            };
            shadow.access(&view, access, &mut |conflict| conflicts.push(conflict));
        });
        self.shared.shadow = Some(shadow);
        for conflict in conflicts {
            self.report_conflict(context, warp, conflict, usage);
        }
    }

    fn usage_epoch(&self, warp: &Warp, usage: Use) -> Epoch {
        let mut epoch = self.epoch(warp, usage.pc);
        if usage.strong {
            epoch = epoch.strong();
        }
        if usage.collective {
            epoch = epoch.collective();
        }
        epoch
    }

    pub(crate) fn report_conflict(&mut self, context: &Context<'_>, warp: &Warp, conflict: Conflict, usage: Use) {
        let earlier = conflict.earlier;
        let (kind, first, second) = match conflict.clash {
            Clash::WriteWrite => (Kind::RaceWriteWrite, "write", "write"),
            Clash::ReadAfterWrite => (Kind::RaceReadAfterWrite, "write", "read"),
            Clash::WriteAfterRead => (Kind::RaceWriteAfterRead, "read", "write"),
            Clash::InFlight => (Kind::InFlight, "copies to", verb(usage.write)),
        };
        let severity = match (conflict.clash, conflict.relation) {
            (Clash::InFlight, _) => Severity::Error,
            _ if conflict.same_value && conflict.clash == Clash::WriteWrite => Severity::Info,
            (_, Relation::Converged) => Severity::Warning,
            _ => Severity::Error,
        };
        let sites = [
            RawSite { role: first, pc: earlier.pc(), warp: earlier.warp(), lane: earlier.lane() },
            RawSite { role: second, pc: usage.pc as u32, warp: warp.index as u32, lane: conflict.lane },
        ];
        let place = self.shared_name(context, conflict.offset);
        self.report(context, kind, severity, &sites, || match conflict.clash {
            Clash::InFlight => format!("{} of bytes still in flight: {place}", verb(usage.write)),
            _ => format!("race ({first} then {second}, {}) on {place}", relation_text(conflict.relation)),
        });
    }

    /// Checks and records a global access of each lane.
    pub(crate) fn shadow_global(&mut self, context: &Context<'_>, warp: &Warp, target: &Target, usage: Use, same: u32) {
        let Some(shadow) = &context.shadow else {
            return;
        };
        let base = self.usage_epoch(warp, usage);
        each_lane(target.lanes, |l| {
            let index = target.allocation[l] as usize;
            let allocation = context.memory.at(index);
            if allocation.read_only {
                return;
            }
            let offset = target.at[l] - allocation.base;
            let me = base.with_lane(l as u32);
            let view = self.clocks.view(warp.index);
            let found = shadow.access(index, offset, usage.bytes, usage.write, me, &self.block_clock, &view);
            let Some(conflict) = found else { return };
            let (kind, first, second) = match conflict.clash {
                Clash::WriteWrite => (Kind::RaceWriteWrite, "write", "write"),
                Clash::ReadAfterWrite => (Kind::RaceReadAfterWrite, "write", "read"),
                _ => (Kind::RaceWriteAfterRead, "read", "write"),
            };
            let severity = match conflict.relation {
                _ if (same >> l) & 1 == 1 && conflict.clash == Clash::WriteWrite => Severity::Info,
                Relation::Converged => Severity::Warning,
                _ => Severity::Error,
            };
            let earlier = conflict.earlier;
            let sites = [
                RawSite { role: first, pc: earlier.pc(), warp: earlier.warp(), lane: earlier.lane() },
                RawSite { role: second, pc: usage.pc as u32, warp: warp.index as u32, lane: l as u32 },
            ];
            let (name, own) = (&allocation.name, self.linear);
            self.report(context, kind, severity, &sites, || {
                let who = match conflict.other_block {
                    Some(block) => format!("blocks {block} and {own}"),
                    None => relation_text(conflict.relation).to_owned(),
                };
                format!("race ({first} then {second}, {who}) on global {name}+0x{offset:x}")
            });
        });
    }

    /// Ordering effect of a strong access.
    pub(crate) fn synchronise(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        target: &Target,
        read: bool,
        write: bool,
        order: Order,
    ) {
        if !context.launch.checks.races || !order.strong {
            return;
        }
        each_lane(target.lanes, |l| {
            let key = match target.space {
                Space::Shared => target.at[l],
                _ => target.at[l] | 1 << 63,
            };
            self.synchronise_at(warp.index, key, read, write, order);
            if target.space == Space::Global
                && let Some(shadow) = &context.shadow
            {
                shadow.synchronise(target.at[l], &mut self.block_clock, read, write, order.acquire, order.release);
            }
        });
    }

    fn synchronise_at(&mut self, warp: usize, key: u64, read: bool, write: bool, order: Order) {
        if read && let Some(stamp) = self.sync_stamps.get(&key) {
            if order.acquire {
                self.clocks.acquire(warp, stamp);
            } else {
                let pending = self.pending_acquire[warp].get_or_insert_with(Vec::new);
                pending.resize(stamp.len().max(pending.len()), 0);
                pending.iter_mut().zip(stamp).for_each(|(p, s)| *p = (*p).max(*s));
            }
        }
        if !write {
            return;
        }
        if order.release {
            let mut stamp = self.sync_stamps.remove(&key).unwrap_or_default();
            self.clocks.release(warp, &mut stamp);
            self.sync_stamps.insert(key, stamp);
        } else if let Some(fenced) = &self.fenced[warp] {
            let stamp = self.sync_stamps.entry(key).or_default();
            stamp.resize(fenced.len().max(stamp.len()), 0);
            stamp.iter_mut().zip(fenced).for_each(|(s, f)| *s = (*s).max(*f));
        }
    }

    /// A memory fence of one warp.
    pub(crate) fn fence(&mut self, warp: usize, device: bool) {
        if let Some(pending) = self.pending_acquire[warp].take() {
            self.clocks.acquire(warp, &pending);
        }
        let mut stamp = Vec::new();
        self.clocks.release(warp, &mut stamp);
        self.fenced[warp] = Some(stamp);
        if device {
            self.block_clock.fence();
        }
    }

    pub(crate) fn load(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, active: u32, load: &Load) -> Flow {
        let total = load.bytes * load.dst.len() as u32;
        let usage = Use { pc, bytes: total, align: total, write: false, strong: load.order.strong, collective: false };
        let mut values = [[u64::MAX; LANES]; 4];
        let mut undefined = [active; 4];
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
            block.synchronise(context, warp, target, true, false, load.order);
            for (i, (out, taint)) in values.iter_mut().zip(&mut undefined).enumerate().take(load.dst.len()) {
                let offset = i as u64 * u64::from(load.bytes);
                *taint &= !target.lanes;
                *taint |= block.gather(context, warp, target, offset, load.bytes, out);
            }
        });
        for (i, slot) in load.dst.iter().enumerate() {
            write_loaded(warp, *slot, load, &values[i], active);
            if context.launch.checks.uninitialised {
                set_taint(warp, *slot, undefined[i], active);
            }
        }
        Flow::Next
    }

    fn check_non_coherent(&mut self, context: &Context<'_>, warp: &Warp, target: &Target, usage: Use) {
        let Some(shadow) = &context.shadow else {
            return;
        };
        let mut stale = 0;
        each_lane(target.lanes, |l| {
            let index = target.allocation[l] as usize;
            let offset = target.at[l] - context.memory.at(index).base;
            stale |= u32::from(shadow.written(index, offset)) << l;
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
        let mut undefined = 0;
        let tracked = context.launch.checks.uninitialised;
        match target.space {
            Space::Shared => each_lane(target.lanes, |l| {
                let at = (target.at[l] + offset) as u32;
                out[l] = self.shared.load(at, bytes);
                undefined |= u32::from(tracked && !self.shared.is_defined(at, bytes)) << l;
            }),
            Space::Local => each_lane(target.lanes, |l| {
                let at = warp.local.len() / LANES * l + (target.at[l] + offset) as usize;
                let end = at + bytes as usize;
                out[l] = little_endian(&warp.local[at..end]);
                undefined |= u32::from(tracked && !warp.local_defined[at..end].iter().all(|&d| d)) << l;
            }),
            Space::Param => each_lane(target.lanes, |l| {
                let at = (target.at[l] + offset) as usize;
                out[l] = little_endian(&context.launch.params[at..at + bytes as usize]);
            }),
            _ => each_lane(target.lanes, |l| {
                let allocation = context.memory.at(target.allocation[l] as usize);
                let at = target.at[l] + offset - allocation.base;
                out[l] = allocation.load(at, bytes);
                undefined |= u32::from(tracked && !allocation.is_defined(at, bytes)) << l;
            }),
        }
        undefined
    }

    pub(crate) fn store(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        store: &Store,
    ) -> Flow {
        let total = store.bytes * store.src.len() as u32;
        let usage = Use { pc, bytes: total, align: total, write: true, strong: store.order.strong, collective: false };
        let checks = context.launch.checks;
        self.for_each_target(context, warp, active, &store.addr, usage, |block, warp, target| {
            let mut same = target.lanes;
            let mut old = [0; LANES];
            for (i, slot) in store.src.iter().enumerate() {
                let (value, taint) = source(warp, *slot, store.bytes);
                let offset = i as u64 * u64::from(store.bytes);
                if checks.races || store.order.strong {
                    block.gather(context, warp, target, offset, store.bytes, &mut old);
                    each_lane(target.lanes, |l| same &= !(u32::from(old[l] != value[l]) << l));
                }
                let tainted = taint & target.lanes;
                if checks.uninitialised && tainted != 0 && target.space == Space::Global {
                    block.report_lane(context, warp, Kind::UninitialisedStore, pc, "write", tainted, || {
                        "uninitialised value stored to global memory".into()
                    });
                }
                block.scatter(context, warp, target, offset, store.bytes, &value, taint);
            }
            match target.space {
                Space::Shared => block.shadow_shared(context, warp, target, usage, same),
                Space::Local => {}
                _ => block.shadow_global(context, warp, target, usage, same),
            }
            block.synchronise(context, warp, target, false, true, store.order);
            if store.order.strong && same != target.lanes {
                block.progressed_globally(context);
            }
        });
        Flow::Next
    }

    /// Writes one element per lane and marks it defined unless its value is not.
    #[expect(clippy::too_many_arguments, reason = "the parts of one store")]
    fn scatter(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        target: &Target,
        offset: u64,
        bytes: u32,
        value: &[u64; LANES],
        taint: u32,
    ) {
        match target.space {
            Space::Shared => each_lane(target.lanes, |l| {
                let at = (target.at[l] + offset) as u32;
                self.shared.store(at, bytes, value[l]);
                self.shared.define(at, bytes, (taint >> l) & 1 == 0);
            }),
            Space::Local => each_lane(target.lanes, |l| {
                let at = warp.local.len() / LANES * l + (target.at[l] + offset) as usize;
                let end = at + bytes as usize;
                warp.local[at..end].copy_from_slice(&value[l].to_le_bytes()[..bytes as usize]);
                warp.local_defined[at..end].fill((taint >> l) & 1 == 0);
            }),
            _ => each_lane(target.lanes, |l| {
                let allocation = context.memory.at(target.allocation[l] as usize);
                let at = target.at[l] + offset - allocation.base;
                allocation.store(at, bytes, value[l]);
                allocation.define(at, bytes);
            }),
        }
    }
}

fn relation_text(relation: Relation) -> &'static str {
    match relation {
        Relation::Ordered => "ordered",
        Relation::Converged => "lanes of one warp, only a converging instruction between them",
        Relation::SameWarp => "lanes of one warp",
        Relation::OtherWarp => "two warps",
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Values and taint of a source register, cut to the element size.
#[inline(always)]
pub(crate) fn source(warp: &Warp, slot: Slot, bytes: u32) -> ([u64; LANES], u32) {
    let row = usize::from(slot.row);
    let mask = if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
    match slot.class {
        Class::D => (warp.regs.d[row].0.map(|v| v & mask), warp.regs.td[row]),
        Class::W => (warp.regs.w[row].0.map(|v| u64::from(v) & mask), warp.regs.tw[row]),
        Class::P => (std::array::from_fn(|l| u64::from(warp.regs.p[row] >> l & 1)), warp.regs.tp[row]),
    }
}

/// Extends loaded values to the register: 8 and 16 bits by sign or zero.
#[inline(always)]
fn write_loaded(warp: &mut Warp, slot: Slot, load: &Load, values: &[u64; LANES], active: u32) {
    let unused = 64 - 8 * load.bytes.min(8);
    let extend = |v: u64| {
        if load.signed { (((v << unused) as i64) >> unused) as u64 } else { (v << unused) >> unused }
    };
    match slot.class {
        Class::D => {
            let out = values.map(extend);
            warp.regs.set_d(slot.row, &out, active);
        }
        _ => {
            let out = values.map(|v| extend(v) as u32);
            warp.regs.set_w(slot.row, &out, active);
        }
    }
}

/// Sets the taint of a destination.
pub(crate) fn set_taint(warp: &mut Warp, slot: Slot, taint: u32, active: u32) {
    match slot.class {
        Class::D => warp.regs.taint_d(slot.row, taint, active),
        Class::W => warp.regs.taint_w(slot.row, taint, active),
        Class::P => warp.regs.taint_p(slot.row, taint, active),
    }
}
