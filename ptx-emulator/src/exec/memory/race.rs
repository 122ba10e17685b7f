//! Races and ordering: shadow updates of an access and what atomics and fences publish.

use crate::check::clock::{Epoch, Relation};
use crate::check::global::{GlobalAccess, GlobalConflict, Held};
use crate::check::lanes::distinct_reads;
use crate::check::runs::Access;
use crate::check::shadow::{self, Clash, Conflict};
use crate::exec::memory::target::{Target, Use, verb};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::warp::Warp;
use crate::isa::op::Order;
use crate::isa::space::Space;
use crate::machine::regs::{LANES, each_lane};
use crate::report::{Kind, RawSite, Severity};

impl Block {
    /// Checks and records a shared access of each lane; `same` says whether a store changes
    /// nothing there.
    pub(crate) fn shadow_shared(&mut self, context: &Context<'_>, warp: &Warp, target: &Target, usage: Use, same: u32) {
        if self.shared.shadow.is_some() {
            self.shadow_offsets(context, warp, &target.at.map(|at| at as u32), target.lanes, usage, same);
        }
    }

    /// As [`Block::shadow_shared`], at the offsets `at` of `lanes`.
    pub(crate) fn shadow_offsets(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        at: &[u32; LANES],
        lanes: u32,
        usage: Use,
        same: u32,
    ) {
        let base = self.usage_epoch(warp, usage);
        self.shadow_rows(context, warp, at, (lanes, same), base, usage);
    }

    /// Checks and records accesses of `lanes` whose epoch is `base` but for the lane.
    pub(crate) fn shadow_rows(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        at: &[u32; LANES],
        (lanes, same): (u32, u32),
        base: Epoch,
        usage: Use,
    ) {
        let Some(mut shadow) = self.shared.shadow.take() else {
            return;
        };
        let mut conflicts: Vec<Conflict> = Vec::new();
        let view = self.view(warp);
        let access = Access { at, lanes, same, size: usage.bytes, write: usage.write, me: base };
        shadow::access(context.level, &mut shadow, &view, &access, &mut conflicts);
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
        if usage.volatile {
            epoch = epoch.volatile();
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
        let volatile = usage.volatile && self.usage_epoch(warp, usage).both_volatile(earlier);
        let severity = match (conflict.clash, conflict.relation) {
            (Clash::InFlight, _) => Severity::Error,
            _ if volatile => Severity::Info,
            _ if conflict.same_value && conflict.clash == Clash::WriteWrite => Severity::Info,
            (_, Relation::Converged) => Severity::Warning,
            _ => Severity::Error,
        };
        let sites = [
            self.site_of(first, earlier),
            RawSite { role: second, pc: usage.pc as u32, warp: warp.index as u32, lane: conflict.lane },
        ];
        let place = self.shared_name(context, conflict.offset);
        let is_warp = self.agents.is_warp(earlier.warp());
        self.report(context, kind, severity, &sites, || match conflict.clash {
            Clash::InFlight => format!("{} of bytes still in flight: {place}", verb(usage.write)),
            _ if volatile => format!("{UNORDERED_VOLATILE} ({first} then {second}) on {place}"),
            _ if !is_warp => format!("race (asynchronous {first} then {second}) on {place}"),
            _ => format!("race ({first} then {second}, {}) on {place}", relation_text(conflict.relation)),
        });
    }

    /// To be told of every write to global memory before it is done: keeps what it overwrites.
    pub(crate) fn before_write(&self, context: &Context<'_>, target: &Target, bytes: u32) {
        let (Some(shadow), Some(retry), Space::Global) = (&context.shadow, &context.retry, target.space) else {
            return;
        };
        let mut begun = None;
        each_lane(target.lanes, |l| {
            let index = target.allocation[l] as usize;
            let offset = target.at[l] - context.memory.at(index).base;
            if begun != Some(index) && shadow.begin_write(index) {
                retry.record(index);
            }
            begun = Some(index);
            retry.save(context.memory, index, offset, u64::from(bytes));
        });
    }

    /// Checks and records a global access of each lane.
    pub(crate) fn shadow_global(&mut self, context: &Context<'_>, warp: &Warp, target: &Target, usage: Use, same: u32) {
        let Some(shadow) = &context.shadow else {
            return;
        };
        let base = self.usage_epoch(warp, usage);
        let (mut lanes, several) =
            if usage.write { (target.lanes, 0) } else { distinct_reads(&target.at, target.lanes) };
        if !usage.write && !usage.strong {
            let mut passed = None;
            each_lane(lanes, |l| {
                let index = target.allocation[l];
                let pass = passed
                    .filter(|(of, _)| *of == index)
                    .map_or_else(|| shadow.passes_read(index as usize), |(_, pass)| pass);
                passed = Some((index, pass));
                lanes &= !(u32::from(pass) << l);
            });
        }
        let mut conflicts = Vec::new();
        let view = self.view(warp);
        let mut held = Held::default();
        each_lane(lanes, |l| {
            let index = target.allocation[l] as usize;
            let allocation = context.memory.at(index);
            if allocation.read_only {
                return;
            }
            let offset = target.at[l] - allocation.base;
            let me = if several >> l & 1 == 1 { base.with_lane(l as u32).several() } else { base.with_lane(l as u32) };
            let access = GlobalAccess { allocation: index, offset, size: usage.bytes, write: usage.write, me };
            if let Some(conflict) = shadow.access(&mut held, access, &self.block_clock, &view) {
                conflicts.push((l, me, conflict));
            }
        });
        drop(held);
        for (l, me, conflict) in conflicts {
            // Strong accesses take turns: what they do unordered was no luck.
            let luck = conflict.other_block.is_some() && !(me.is_strong() && conflict.earlier.is_strong());
            if let Some(retry) = context.retry.as_ref().filter(|_| luck) {
                retry.raced();
            }
            self.report_global(context, warp, target, usage, (l, me), conflict, same >> l & 1 == 1);
        }
    }

    #[cold]
    #[expect(clippy::too_many_arguments, reason = "the parts of a report")]
    fn report_global(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        target: &Target,
        usage: Use,
        (l, me): (usize, Epoch),
        conflict: GlobalConflict,
        same: bool,
    ) {
        let (kind, first, second) = match conflict.clash {
            Clash::WriteWrite => (Kind::RaceWriteWrite, "write", "write"),
            Clash::ReadAfterWrite => (Kind::RaceReadAfterWrite, "write", "read"),
            _ => (Kind::RaceWriteAfterRead, "read", "write"),
        };
        let volatile = me.both_volatile(conflict.earlier);
        let severity = match conflict.relation {
            _ if volatile => Severity::Info,
            _ if same && conflict.clash == Clash::WriteWrite => Severity::Info,
            Relation::Converged => Severity::Warning,
            _ => Severity::Error,
        };
        let earlier = conflict.earlier;
        let sites = [
            RawSite { role: first, pc: earlier.pc(), warp: earlier.warp(), lane: earlier.lane() },
            RawSite { role: second, pc: usage.pc as u32, warp: warp.index as u32, lane: l as u32 },
        ];
        let allocation = context.memory.at(target.allocation[l] as usize);
        let (name, own, offset) = (&allocation.name, self.linear, target.at[l] - allocation.base);
        self.report(context, kind, severity, &sites, || {
            let who = match conflict.other_block {
                Some(block) => format!("blocks {block} and {own}"),
                None => relation_text(conflict.relation).to_owned(),
            };
            let what = if volatile { UNORDERED_VOLATILE } else { "race" };
            format!("{what} ({first} then {second}, {who}) on global {name}+0x{offset:x}")
        });
    }

    /// Notes the lanes of a strong store that are the first to write undefined global memory; before it is written.
    pub(crate) fn note_first(&self, context: &Context<'_>, target: &Target, bytes: u32) {
        let wanted = target.space == Space::Global && context.launch.checks.uninitialised;
        let Some(shadow) = context.shadow.as_ref().filter(|_| wanted) else { return };
        each_lane(target.lanes, |l| {
            let allocation = context.memory.at(target.allocation[l] as usize);
            if !allocation.is_defined(target.at[l] - allocation.base, bytes) {
                shadow.note_first(target.at[l], &self.block_clock);
            }
        });
    }

    /// Reports a strong load that may find undefined memory, although the first store came before it in this run. Asked
    /// before what the load itself teaches is known.
    pub(crate) fn check_first(&mut self, context: &Context<'_>, warp: &Warp, target: &Target, pc: usize) {
        let wanted = target.space == Space::Global && context.launch.checks.uninitialised;
        let Some(shadow) = context.shadow.as_ref().filter(|_| wanted) else { return };
        let (mut lanes, mut other) = (0, 0);
        each_lane(target.lanes, |l| {
            if let Some(block) = shadow.unordered_first(target.at[l], &self.block_clock) {
                (lanes, other) = (lanes | 1 << l, block);
            }
        });
        if lanes != 0 {
            self.report_lane(context, warp, Kind::UninitialisedRead, pc, "read", lanes, || {
                format!(
                    "read of memory that is uninitialised until block {other} writes it, which nothing orders before"
                )
            });
        }
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
            self.synchronise_at(warp.index, l, key, read, write, order);
            if target.space == Space::Global
                && let Some(shadow) = &context.shadow
            {
                shadow.synchronise(target.at[l], &mut self.block_clock, read, write, order.acquire, order.release);
            }
        });
    }

    fn synchronise_at(&mut self, warp: usize, lane: usize, key: u64, read: bool, write: bool, order: Order) {
        let Block { clocks, orders, published, .. } = self;
        if read && let Some(place) = published.get(&key) {
            if order.acquire {
                orders.acquire(clocks, warp, lane, place);
            } else {
                orders.observe(warp, lane, place);
            }
        }
        if write && order.release {
            orders.release(clocks, warp, lane, published.entry(key).or_default());
        } else if write {
            orders.expose(warp, lane, published.entry(key).or_default());
        }
    }

    /// A memory fence of the lanes of `active`.
    pub(crate) fn fence(&mut self, warp: usize, active: u32, device: bool) {
        self.orders.fence(&mut self.clocks, warp, active);
        if device {
            self.block_clock.fence();
        }
    }
}

/// Volatile accesses are strong, so that they do not race, but order nothing.
const UNORDERED_VOLATILE: &str = "volatile accesses without a fence or a warp barrier between them";

fn relation_text(relation: Relation) -> &'static str {
    match relation {
        Relation::Ordered => "ordered",
        Relation::Converged => "lanes of one warp, only a converging instruction between them",
        Relation::SameWarp => "lanes of one warp",
        Relation::OtherWarp => "two warps",
    }
}
