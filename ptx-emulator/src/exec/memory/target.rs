//! Where a memory instruction points: address resolution, bounds and alignment.

use crate::exec::run::block::{Block, Context};
use crate::exec::run::warp::Warp;
use crate::isa::op::Order;
use crate::isa::slot::Class;
use crate::isa::space::{Addr, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Space, WINDOW_BYTES};
use crate::machine::regs::{FULL, LANES, each_lane};
use crate::machine::simd::{Level, dispatch};
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
    pub(crate) volatile: bool,
    /// Whole-warp access without a lane of its own per byte.
    pub(crate) collective: bool,
}

impl Use {
    /// A weak access of whole elements by lanes of their own.
    pub(crate) fn weak(pc: usize, bytes: u32, write: bool) -> Use {
        Use { pc, bytes, align: bytes, write, strong: false, volatile: false, collective: false }
    }

    /// As [`Use::weak`], with the ordering of the instruction.
    pub(crate) fn ordered(pc: usize, bytes: u32, write: bool, order: Order) -> Use {
        Use {
            strong: order.strong,
            volatile: order.volatile,
            collective: order.collective,
            ..Use::weak(pc, bytes, write)
        }
    }
}

/// Name of an access in reports.
pub(crate) fn verb(write: bool) -> &'static str {
    if write { "write" } else { "read" }
}

/// Lowest and highest address and the union of their bits.
#[inline(always)]
fn all_lanes(at: &[u64; LANES]) -> (u64, u64, u64) {
    at.iter().fold((u64::MAX, 0, 0), |(low, high, bits), &a| (low.min(a), high.max(a), bits | a))
}

dispatch! {
    /// [`all_lanes`] compiled for `level`.
    fn extent(at: &[u64; LANES]) -> (u64, u64, u64) = all_lanes;
}

/// [`all_lanes`] of the lanes in use.
fn partial_extent(target: &Target) -> (u64, u64, u64) {
    let (mut low, mut high, mut bits) = (u64::MAX, 0, 0);
    each_lane(target.lanes, |l| {
        low = low.min(target.at[l]);
        high = high.max(target.at[l]);
        bits |= target.at[l];
    });
    (low, high, bits)
}

impl Block {
    /// Base row plus offset, per lane.
    #[inline(always)]
    pub(crate) fn addresses(warp: &Warp, addr: &Addr) -> [u64; LANES] {
        let row = usize::from(addr.base.row);
        let mut at = [0; LANES];
        match addr.base.class {
            Class::D => {
                for (to, base) in at.iter_mut().zip(&warp.regs.d[row].0) {
                    *to = base.wrapping_add(addr.offset as u64);
                }
            }
            _ => {
                for (to, base) in at.iter_mut().zip(&warp.regs.w[row].0) {
                    *to = u64::from(base.wrapping_add(addr.offset as u32));
                }
            }
        }
        at
    }

    /// Reports lanes whose address is not defined. They access it all the same: a check never changes a result.
    pub(crate) fn check_addresses(&mut self, context: &Context<'_>, warp: &Warp, active: u32, addr: &Addr, usage: Use) {
        let tainted = warp.regs.taint(addr.base) & active;
        if context.launch.checks.uninitialised && tainted != 0 {
            self.report_lane(context, warp, Kind::UninitialisedAddress, usage.pc, verb(usage.write), tainted, || {
                "uninitialised value used as an address".into()
            });
        }
    }

    /// Resolves, checks and passes the lanes of each state space to `act`.
    #[inline]
    pub(crate) fn for_each_target(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        active: u32,
        addr: &Addr,
        usage: Use,
        act: impl FnMut(&mut Block, &mut Warp, &Target),
    ) {
        self.check_addresses(context, warp, active, addr, usage);
        let at = Self::addresses(warp, addr);
        self.for_each_address(context, warp, active, addr.space, at, usage, act);
    }

    /// As [`Block::for_each_target`], for addresses that are already known.
    #[expect(clippy::too_many_arguments, reason = "the state of one access, passed through once")]
    #[inline]
    pub(crate) fn for_each_address(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        mut lanes: u32,
        space: Space,
        at: [u64; LANES],
        usage: Use,
        mut act: impl FnMut(&mut Block, &mut Warp, &Target),
    ) {
        let mut target = Target { space, at, lanes, allocation: [0; LANES] };
        if space != Space::Generic {
            self.validate(context, warp, &mut target, usage);
            if target.lanes != 0 {
                act(self, warp, &target);
            }
            return;
        }
        while lanes != 0 {
            target.space = space_of(at[lanes.trailing_zeros() as usize]);
            target.lanes = 0;
            each_lane(lanes, |l| target.lanes |= u32::from(space_of(at[l]) == target.space) << l);
            lanes &= !target.lanes;
            let window = match target.space {
                Space::Shared => SHARED_WINDOW,
                Space::Local => LOCAL_WINDOW,
                Space::Param => PARAM_WINDOW,
                _ => 0,
            };
            for (to, from) in target.at.iter_mut().zip(&at) {
                *to = from.wrapping_sub(window);
            }
            self.validate(context, warp, &mut target, usage);
            if target.lanes != 0 {
                act(self, warp, &target);
            }
        }
    }

    /// Drops lanes whose access is misaligned or out of bounds, with a report.
    fn validate(&mut self, context: &Context<'_>, warp: &Warp, target: &mut Target, usage: Use) {
        if target.lanes == 0 {
            return;
        }
        let (low, high, bits) =
            if target.lanes == FULL { extent(context.level, &target.at) } else { partial_extent(target) };
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
            _ => match context.memory.index_near(self.buffer, low, span) {
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
            _ => context.memory.describe(address),
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
}
