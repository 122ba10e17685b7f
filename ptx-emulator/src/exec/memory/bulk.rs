//! `cp.async.bulk`: bytes in a row, copied by an engine that tells an mbarrier, or a group of the thread, when it is done.
//!
//! With the in-flight check, what is fetched arrives when every warp waits, which is as late as can be, and until then its
//! place holds poison. Without it a copy is immediate. What is sent to global memory is there at once; its source counts
//! as read until the thread has waited for the group.

use crate::check::clock::Epoch;
use crate::exec::memory::copy::read_source;
use crate::exec::memory::target::{Target, Use};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::{OpenSend, Warp};
use crate::isa::engines::{BulkCopy, BulkWay};
use crate::isa::op::AtomOp;
use crate::isa::space::{Space, peer_of, without_peer};
use crate::launch::Schedule;
use crate::machine::regs::{LANES, each_lane};
use crate::report::{Kind, RawSite, Severity};

/// Bytes that sizes and addresses are multiples of.
const GRAIN: u32 = 16;

/// Bytes, and of each 16 which are defined.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) defined: Vec<u16>,
}

/// A fetch that has not arrived.
#[derive(Clone, Debug)]
pub(crate) struct OpenFetch {
    pub(crate) site: RawSite,
    pub(crate) dst: u32,
    /// The mbarrier that gets the bytes.
    pub(crate) barrier: u32,
    pub(crate) content: Content,
    /// Global source, if it is in global memory.
    pub(crate) src: Option<u64>,
}

impl Block {
    pub(crate) fn bulk(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        active: u32,
        op: &BulkCopy,
    ) -> Flow {
        each_lane(active, |l| {
            let bytes = Self::word(warp, op.bytes, l);
            let (dst, src) = (Self::addresses(warp, &op.dst)[l], Self::addresses(warp, &op.src)[l]);
            let site = RawSite { role: "copies", pc: pc as u32, warp: warp.index as u32, lane: l as u32 };
            if bytes % GRAIN != 0 || dst % u64::from(GRAIN) != 0 || src % u64::from(GRAIN) != 0 {
                self.report(context, Kind::Misaligned, Severity::Error, &[site], || {
                    format!("bulk copy of {bytes} bytes from 0x{src:x} to 0x{dst:x}: all are multiples of 16")
                });
                return;
            }
            if bytes == 0 {
                return;
            }
            for (addr, write) in [(&op.dst, true), (&op.src, false)] {
                self.check_addresses(context, warp, 1 << l, addr, Use::weak(pc, GRAIN, write));
            }
            match &op.way {
                BulkWay::Send { reduction } => {
                    self.send(context, warp, site, (dst, src as u32), bytes, *reduction);
                }
                BulkWay::Fetch { barrier, multicast } => {
                    let barrier = Self::addresses(warp, barrier)[l] as u32;
                    let mask = multicast.map(|row| Self::word(warp, row, l) & 0xffff);
                    self.fetch(context, warp, site, (dst as u32, src), bytes, barrier, mask);
                }
                BulkWay::Pass { barrier } => {
                    let barrier = Self::addresses(warp, barrier)[l] as u32;
                    self.pass(context, warp, site, (dst as u32, src as u32), bytes, barrier);
                }
            }
        });
        self.progressed();
        Flow::Next
    }

    /// Whether shared memory of the block holds so many bytes there; reports if not.
    pub(crate) fn has_room(&mut self, context: &Context<'_>, site: RawSite, at: u32, bytes: u32, write: bool) -> bool {
        if self.shared.covers(at, bytes) {
            return true;
        }
        let place = self.shared_name(context, at);
        let what = if write { "write" } else { "read" };
        self.report(context, Kind::OutOfBounds, Severity::Error, &[RawSite { role: what, ..site }], || {
            format!("out of bounds: bulk copy of {bytes} bytes, {what} at {place}")
        });
        false
    }

    /// Calls `act` with every 16 bytes of global memory, by so many lanes at once; false if they are not in one buffer.
    fn global_pieces(
        &mut self,
        context: &Context<'_>,
        site: RawSite,
        (at, bytes): (u64, u32),
        write: bool,
        mut act: impl FnMut(&mut Block, &Target),
    ) -> bool {
        let found = context.memory.index_of(at, u64::from(bytes));
        let found = found.filter(|&index| !(write && context.memory.at(index).read_only));
        let Some(index) = found else {
            let what = if write { "write" } else { "read" };
            let place = context.memory.nearest(at).map_or_else(String::new, |near| format!(" near {}", near.name));
            self.report(context, Kind::OutOfBounds, Severity::Error, &[RawSite { role: what, ..site }], || {
                format!("out of bounds: bulk copy of {bytes} bytes, global {what} at 0x{at:x}{place}")
            });
            return false;
        };
        let step = GRAIN * LANES as u32;
        for first in (0..bytes).step_by(step as usize) {
            let count = (bytes - first).min(step) / GRAIN;
            let lanes = if count == 32 { u32::MAX } else { (1 << count) - 1 };
            let at = std::array::from_fn(|l| at + u64::from(first) + 16 * l as u64);
            act(self, &Target { space: Space::Global, at, lanes, allocation: [index as u32; LANES] });
        }
        true
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one copy")]
    fn fetch(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        site: RawSite,
        (dst, src): (u32, u64),
        bytes: u32,
        barrier: u32,
        multicast: Option<u32>,
    ) {
        let mut content = Content::default();
        let usage = Use::weak(site.pc as usize, GRAIN, false);
        let inside = self.global_pieces(context, site, (src, bytes), false, |block, target| {
            block.shadow_global(context, warp, target, usage, 0);
            each_lane(target.lanes, |l| {
                let allocation = context.memory.at(target.allocation[l] as usize);
                let mut piece = [0; GRAIN as usize];
                let at = target.at[l] - allocation.base;
                content.defined.push(read_source(allocation, at, u64::from(GRAIN), &mut piece));
                content.bytes.extend_from_slice(&piece);
            });
        });
        if !inside {
            return;
        }
        self.distribute(context, warp, OpenFetch { site, dst, barrier, content, src: Some(src) }, multicast);
    }

    /// Begins a fetch to wherever its destination is, or to that place in every block of a mask.
    pub(crate) fn distribute(&mut self, context: &Context<'_>, warp: &Warp, fetch: OpenFetch, multicast: Option<u32>) {
        let site = fetch.site;
        match multicast {
            None => self.fetch_to(context, warp, fetch),
            Some(mask) => {
                for rank in (0..16).filter(|rank| mask >> rank & 1 == 1) {
                    let fetch = fetch.clone();
                    if rank == self.rank {
                        self.begin_fetch(context, warp, fetch);
                    } else {
                        self.with_peer(context, site, rank, |own, peer| own.remote_fetch(context, peer, fetch));
                    }
                }
            }
        }
    }

    /// Begins a fetch to wherever its destination is.
    fn fetch_to(&mut self, context: &Context<'_>, warp: &Warp, fetch: OpenFetch) {
        let rank = peer_of(fetch.dst).unwrap_or(self.rank);
        let fetch = OpenFetch { dst: without_peer(fetch.dst), barrier: without_peer(fetch.barrier), ..fetch };
        if rank == self.rank {
            self.begin_fetch(context, warp, fetch);
        } else {
            self.with_peer(context, fetch.site, rank, |own, peer| own.remote_fetch(context, peer, fetch));
        }
    }

    /// Begins a fetch to this block's memory by a warp of its own.
    fn begin_fetch(&mut self, context: &Context<'_>, warp: &Warp, fetch: OpenFetch) {
        let bytes = fetch.content.bytes.len() as u32;
        if !self.has_room(context, fetch.site, fetch.dst, bytes, true) {
            return;
        }
        self.check_told(context, fetch.site, fetch.barrier);
        let agent = self.barrier_agent(fetch.barrier);
        self.issuers[agent] = warp.index as u32;
        let mut me = Epoch::new(fetch.site.pc, self.agent_times[agent] + 1, agent as u32);
        if context.launch.checks.in_flight {
            me = me.in_flight();
        }
        self.engine_access(context, warp, fetch.site.pc as usize, &[(fetch.dst, bytes)], true, me);
        self.take_fetch(context, fetch);
    }

    /// What was checked is under way, or here at once.
    pub(crate) fn take_fetch(&mut self, context: &Context<'_>, fetch: OpenFetch) {
        if context.launch.checks.in_flight {
            self.shared.begin_copy(fetch.dst, fetch.content.bytes.len() as u32);
            self.fetches.push(fetch);
        } else {
            self.arrive_fetch(context, &fetch);
        }
    }

    /// Ends one fetch: called when every warp waits. True if there was one.
    pub(crate) fn complete_fetch(&mut self, context: &Context<'_>) -> bool {
        let count = self.fetches.len();
        if count == 0 {
            return false;
        }
        let at = match context.launch.schedule {
            Schedule::Greedy | Schedule::RoundRobin => 0,
            Schedule::Reverse => count - 1,
            Schedule::Seeded(_) => self.random() as usize % count,
        };
        let fetch = self.fetches.remove(at);
        self.check_fetched(context, &fetch);
        self.arrive_fetch(context, &fetch);
        true
    }

    /// The source may have been read at any time until now.
    fn check_fetched(&mut self, context: &Context<'_>, fetch: &OpenFetch) {
        let bytes = fetch.content.bytes.len() as u64;
        let Some(src) = fetch.src else { return };
        let Some(allocation) = context.memory.find(src, bytes) else { return };
        let mut now = [0; GRAIN as usize];
        let pieces = fetch.content.bytes.chunks_exact(GRAIN as usize).enumerate();
        let changed = pieces.into_iter().any(|(i, old)| {
            let at = src - allocation.base + u64::from(GRAIN) * i as u64;
            read_source(allocation, at, u64::from(GRAIN), &mut now);
            now[..] != *old
        });
        if changed {
            self.report(context, Kind::SourceChanged, Severity::Error, &[fetch.site], || {
                format!("source of a bulk copy in {} changed before the copy was complete", allocation.name)
            });
        }
    }

    /// Puts the bytes in place and tells the mbarrier.
    fn arrive_fetch(&mut self, context: &Context<'_>, fetch: &OpenFetch) {
        let agent = self.barrier_agent(fetch.barrier);
        self.agent_times[agent] += 1;
        let t = self.agent_times[agent];
        let me = Epoch::new(fetch.site.pc, t, agent as u32).collective();
        let (dst, content) = (fetch.dst, &fetch.content);
        let size = content.bytes.len() as u32;
        if context.launch.checks.in_flight {
            self.shared.end_copy(dst, size, |shared, at, size| {
                let from = (at - dst) as usize;
                shared.bytes[at as usize..][..size as usize].copy_from_slice(&content.bytes[from..][..size as usize]);
                shared.define(at, size, true);
                if let Some(shadow) = &mut shared.shadow {
                    shadow.complete(at, size, me);
                }
            });
        } else {
            self.shared.bytes[dst as usize..][..size as usize].copy_from_slice(&content.bytes);
            self.shared.define(dst, size, true);
        }
        for (i, defined) in content.defined.iter().enumerate().filter(|(_, defined)| **defined != u16::MAX) {
            let at = dst + GRAIN * i as u32;
            (0..GRAIN).filter(|byte| defined >> byte & 1 == 0).for_each(|byte| self.shared.define(at + byte, 1, false));
        }
        self.mbar_deliver(context, fetch.site, fetch.barrier, size, (agent, t));
        self.progressed();
    }

    /// Reads shared memory for a copy out of it.
    pub(crate) fn shared_content(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        site: RawSite,
        (src, bytes): (u32, u32),
        t: u32,
    ) -> Content {
        let me = Epoch::new(site.pc, t, self.agents.group(warp.index) as u32);
        self.engine_access(context, warp, site.pc as usize, &[(src, bytes)], false, me);
        let defined = (0..bytes / GRAIN).map(|i| {
            let at = src + GRAIN * i;
            (0..GRAIN).fold(0, |bits, byte| bits | u16::from(self.shared.is_defined(at + byte, 1)) << byte)
        });
        Content { defined: defined.collect(), bytes: self.shared.bytes[src as usize..][..bytes as usize].to_vec() }
    }

    fn send(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        site: RawSite,
        (dst, src): (u64, u32),
        bytes: u32,
        reduction: Option<(AtomOp, u32)>,
    ) {
        if !self.has_room(context, site, src, bytes, false) {
            return;
        }
        let content = self.shared_content(context, warp, site, (src, bytes), warp.sent + 1);
        if context.launch.checks.uninitialised && content.defined.iter().any(|defined| *defined != u16::MAX) {
            self.report(context, Kind::UninitialisedStore, Severity::Error, &[site], || {
                "uninitialised bytes copied to global memory".into()
            });
        }
        let usage = Use::weak(site.pc as usize, GRAIN, true);
        let mut grains = content.bytes.chunks_exact(GRAIN as usize);
        let mut pieces = content.bytes.as_chunks::<8>().0.iter();
        self.global_pieces(context, site, (dst, bytes), true, |block, target| {
            if let Some(operation) = reduction {
                each_lane(target.lanes, |l| {
                    let place = (target.allocation[l] as usize, target.at[l]);
                    let data = grains.next().unwrap_or_default();
                    block.reduce_elements(context, warp, site, place, operation, data);
                });
                return;
            }
            block.before_write(context, target, GRAIN);
            each_lane(target.lanes, |l| {
                let allocation = context.memory.at(target.allocation[l] as usize);
                let at = target.at[l] - allocation.base;
                for (i, piece) in pieces.by_ref().take(2).enumerate() {
                    allocation.store(at + 8 * i as u64, 8, u64::from_le_bytes(*piece));
                }
                allocation.define(at, GRAIN);
            });
            block.shadow_global(context, warp, target, usage, 0);
        });
        self.note_sent(warp, site.lane);
    }

    /// A copy out of shared memory begins.
    pub(crate) fn note_sent(&self, warp: &mut Warp, lane: u32) {
        warp.sent += 1;
        warp.sends.push(OpenSend { lane, group: warp.send_groups[lane as usize], sequence: warp.sent });
    }

    /// To the memory of another block of the cluster.
    fn pass(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        site: RawSite,
        (dst, src): (u32, u32),
        bytes: u32,
        barrier: u32,
    ) {
        if !self.has_room(context, site, src, bytes, false) {
            return;
        }
        // Time 0 is always past: that the source stays is not looked at.
        let content = self.shared_content(context, warp, site, (src, bytes), 0);
        self.fetch_to(context, warp, OpenFetch { site, dst, barrier, content, src: None });
    }

    /// `cp.async.bulk.wait_group` for the lanes of `active`.
    pub(crate) fn bulk_wait(&mut self, warp: &mut Warp, active: u32, pending: u32) -> Flow {
        let committed = warp.send_groups;
        warp.sends.retain(|open| {
            let lane = open.lane as usize;
            active >> lane & 1 == 0 || open.group >= committed[lane].saturating_sub(pending)
        });
        let first_open = warp.sends.iter().map(|open| open.sequence).min();
        if self.agents.proxied && warp.sent > 0 {
            let done = first_open.map_or(warp.sent, |first| first - 1);
            self.clocks.complete(warp.index, self.agents.group(warp.index), done);
        }
        Flow::Next
    }
}
