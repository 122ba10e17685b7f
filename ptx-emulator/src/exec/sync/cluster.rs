//! The blocks of a cluster: their barrier, and what one does in the shared memory of another.
//!
//! While a block runs, it holds the others of its cluster; one thread of the host runs them all. In the clocks of a block,
//! each other block is one agent, whose time passes when it publishes what it did. What a block knows of another's own
//! agents is kept beside.

use std::sync::Arc;

use crate::check::clock::{EngineView, Epoch, Stamp};
use crate::exec::memory::bulk::OpenFetch;
use crate::exec::memory::target::{space_of, verb};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::{State, Warp};
use crate::isa::engines::ClusterOp;
use crate::isa::op::{Load, Store};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{Addr, PEER_BYTES, SHARED_WINDOW, Space, peer_of, without_peer};
use crate::machine::regs::{LANES, each_lane};
use crate::report::{Kind, RawSite, Severity};

/// What one block told when the barrier of the cluster completed.
#[derive(Clone, Debug, Default)]
struct News {
    stamp: Stamp,
    time: u32,
    /// Some warp arrived without releasing what it did.
    relaxed: bool,
}

/// A block as a member of its cluster.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// Time of what the block does in the memory of others.
    pub(crate) time: u32,
    /// Warps that arrived at the barrier, and those that exited.
    arrived: usize,
    exited: usize,
    /// Completed barriers.
    generation: u64,
    stamp: Stamp,
    relaxed: bool,
    news: Arc<Vec<News>>,
    /// Times of the agents of each other block that are ordered before this one.
    known: Vec<Stamp>,
    /// Has waited for the others once: they are there.
    met: bool,
}

impl Member {
    pub(crate) fn new() -> Member {
        Member { time: 1, ..Member::default() }
    }
}

/// The later of both times of every agent.
pub(crate) fn join(into: &mut Stamp, from: &Stamp) {
    into.resize(from.len().max(into.len()), 0);
    into.iter_mut().zip(from).for_each(|(into, from)| *into = (*into).max(*from));
}

impl Block {
    pub(crate) fn cluster(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &ClusterOp,
    ) -> Flow {
        match *op {
            ClusterOp::Arrive { relaxed } => self.cluster_arrive(context, warp, current, pc, active, relaxed),
            ClusterOp::Wait => self.cluster_wait(context, warp, current, pc, active),
            ClusterOp::Map { dst, src, rank, generic } => {
                let window = if generic { SHARED_WINDOW } else { 0 };
                let at = Self::addresses(warp, &Addr { space: Space::Shared, base: src, offset: 0 });
                let ranks: [u32; LANES] = std::array::from_fn(|l| Self::word(warp, rank, l));
                let own = self.rank;
                self.set_slot(warp, dst, active, |l| {
                    let place = u64::from(without_peer(at[l].wrapping_sub(window) as u32));
                    // An own address stays what it is.
                    let peer = if ranks[l] == own { 0 } else { u64::from(ranks[l] + 1) * u64::from(PEER_BYTES) };
                    window + place + peer
                });
                Flow::Next
            }
            ClusterOp::Rank { dst, src, generic } => {
                let window = if generic { SHARED_WINDOW } else { 0 };
                let at = Self::addresses(warp, &Addr { space: Space::Shared, base: src, offset: 0 });
                let own = self.rank;
                self.set_slot(warp, Slot { class: Class::W, row: dst }, active, |l| {
                    u64::from(peer_of(at[l].wrapping_sub(window) as u32).unwrap_or(own))
                });
                Flow::Next
            }
        }
    }

    fn cluster_arrive(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        relaxed: bool,
    ) -> Flow {
        let members = warp.alive();
        if let Some(flow) = self.converge(context, warp, current, pc, active, members) {
            return flow;
        }
        if warp.cluster_arrivals > self.member.generation {
            self.report_lane(context, warp, Kind::ClusterMisuse, pc, "arrives", active, || {
                "the warp arrives twice at the barrier of the cluster before it completed".into()
            });
            return Flow::Next;
        }
        warp.cluster_arrivals += 1;
        if relaxed || !context.launch.checks.races {
            self.member.relaxed |= relaxed;
            self.clocks.tick(warp.index);
        } else {
            self.clocks.release(warp.index, &mut self.member.stamp);
        }
        self.member.arrived += 1;
        self.complete_cluster();
        self.progressed();
        Flow::Next
    }

    fn cluster_wait(&mut self, context: &Context<'_>, warp: &mut Warp, current: usize, pc: usize, active: u32) -> Flow {
        let members = warp.alive();
        if let Some(flow) = self.converge(context, warp, current, pc, active, members) {
            return flow;
        }
        if warp.cluster_arrivals == 0 {
            self.report_lane(context, warp, Kind::ClusterMisuse, pc, "waits", active, || {
                "the warp waits at the barrier of the cluster without having arrived".into()
            });
            return Flow::Next;
        }
        if self.member.generation < warp.cluster_arrivals {
            warp.wants_rest = true;
            warp.fragments[current].state = State::Parked;
            return Flow::Wait;
        }
        self.member.met = true;
        if context.launch.checks.races {
            let news = self.member.news.clone();
            for (rank, news) in news.iter().enumerate() {
                self.learn(warp.index, rank, news);
            }
            self.clocks.sync_warp(warp.index);
        } else {
            self.clocks.tick(warp.index);
        }
        Flow::Next
    }

    /// What a barrier tells a warp of the block of a rank.
    fn learn(&mut self, warp: usize, rank: usize, news: &News) {
        if rank == self.rank as usize {
            self.clocks.acquire(warp, &news.stamp);
            return;
        }
        join(self.known_of(rank), &news.stamp);
        if !news.relaxed && self.agents.has_peers() {
            self.clocks.complete(warp, self.agents.peer(rank), news.time);
        }
    }

    /// Times of the agents of another block that are ordered before this one.
    fn known_of(&mut self, rank: usize) -> &mut Stamp {
        let known = &mut self.member.known;
        known.resize(known.len().max(rank + 1), Stamp::new());
        &mut known[rank]
    }

    /// Takes in what a block of the cluster published up to a time, and what is known of its agents.
    pub(crate) fn hear(&mut self, warp: usize, rank: usize, stamp: &Stamp, time: u32) {
        join(self.known_of(rank), stamp);
        self.clocks.complete(warp, self.agents.peer(rank), time);
    }

    /// A warp has exited; it counts as arrived for ever.
    pub(crate) fn leave_cluster(&mut self) {
        self.member.exited += 1;
        self.complete_cluster();
    }

    /// Ends the barrier if all warps of all blocks have arrived or exited.
    fn complete_cluster(&mut self) {
        let missing = |block: &Block| block.member.arrived + block.member.exited < block.warps.len();
        let peers = || self.peers.iter().flatten();
        let nobody = self.member.arrived + peers().map(|peer| peer.member.arrived).sum::<usize>() == 0;
        if nobody || missing(self) || peers().any(|peer| missing(peer)) {
            return;
        }
        let count = self.peers.len().max(1);
        let mut news = vec![News::default(); count];
        let mut collect = |block: &mut Block| {
            block.publish_inits();
            let member = &mut block.member;
            let stamp = std::mem::take(&mut member.stamp);
            news[block.rank as usize] = News { stamp, time: member.time, relaxed: member.relaxed };
            (member.arrived, member.relaxed) = (0, false);
            member.time += 1;
            member.generation += 1;
        };
        collect(self);
        self.peers.iter_mut().flatten().for_each(|peer| collect(peer));
        let news = Arc::new(news);
        for peer in self.peers.iter_mut().flatten() {
            peer.member.news = news.clone();
            peer.progressed();
        }
        self.member.news = news;
    }

    /// Lanes whose shared address is in another block.
    pub(crate) fn remote_lanes(&self, warp: &Warp, addr: &Addr, active: u32) -> u32 {
        if !self.agents.has_peers() || !matches!(addr.space, Space::Shared | Space::Generic) {
            return 0;
        }
        let at = Self::addresses(warp, addr);
        let mut remote = 0;
        each_lane(active, |l| {
            let found = remote_place(addr.space, at[l]).is_some_and(|(rank, _)| rank != self.rank);
            remote |= u32::from(found) << l;
        });
        remote
    }

    /// Calls `act` with this block and the one of a rank, if that is there.
    pub(crate) fn with_peer<T>(
        &mut self,
        context: &Context<'_>,
        site: RawSite,
        rank: u32,
        act: impl FnOnce(&mut Block, &mut Block) -> T,
    ) -> Option<T> {
        let Some(mut peer) = self.peers.get_mut(rank as usize).and_then(Option::take) else {
            self.report(context, Kind::ClusterMisuse, Severity::Error, &[site], || {
                format!("there is no other block of rank {rank} in the cluster")
            });
            return None;
        };
        if !self.member.met {
            self.report(context, Kind::ClusterMisuse, Severity::Error, &[site], || {
                format!("nothing says that the block of rank {rank} has started: no barrier of the cluster before")
            });
        }
        let mut out = None;
        if peer.member.exited == peer.warps.len() {
            self.report(context, Kind::ClusterMisuse, Severity::Error, &[site], || {
                format!("the block of rank {rank} has exited, and its shared memory with it")
            });
        } else {
            out = Some(act(self, &mut peer));
        }
        self.peers[rank as usize] = Some(peer);
        out
    }

    /// What this block knows of another.
    fn view_of(&mut self, peer: &Block) -> EngineView {
        let mut known = self.known_of(peer.rank as usize).clone();
        known.resize(peer.agents.count, 0);
        EngineView::of_peer(known)
    }

    /// Checks and records an access of this block to the memory of another; false if it is not inside.
    fn touch(&mut self, context: &Context<'_>, peer: &mut Block, site: RawSite, at: u32, bytes: u32) -> bool {
        let write = site.role == "write";
        if !at.is_multiple_of(bytes) || !peer.shared.covers(at, bytes) {
            let kind = if at.is_multiple_of(bytes) { Kind::OutOfBounds } else { Kind::Misaligned };
            let place = peer.shared_name(context, at);
            self.report(context, kind, Severity::Error, &[site], || {
                format!("{bytes}-byte {} of another block's {place}, which is not inside or aligned", verb(write))
            });
            return false;
        }
        let agent = peer.agents.peer(self.rank as usize);
        peer.issuers[agent] = site.warp;
        let me = Epoch::new(site.pc, self.member.time, agent as u32);
        let view = self.view_of(peer);
        peer.engine_access_of(context, &view, site, &[(at, bytes)], write, me);
        true
    }

    /// A store to the memory of other blocks, by the lanes of `lanes`.
    pub(crate) fn remote_store(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, lanes: u32, store: &Store) {
        let at = Self::addresses(warp, &store.addr);
        let total = store.bytes * store.src.len() as u32;
        each_lane(lanes, |l| {
            let Some((rank, at)) = remote_place(store.addr.space, at[l]) else { return };
            let site = RawSite { role: "write", pc: pc as u32, warp: warp.index as u32, lane: l as u32 };
            self.with_peer(context, site, rank, |own, peer| {
                if !own.touch(context, peer, site, at, total) {
                    return;
                }
                for (i, slot) in store.src.iter().enumerate() {
                    let (value, _) = crate::exec::memory::access::source(warp, *slot, store.bytes);
                    let at = at + i as u32 * store.bytes;
                    peer.shared.store(at, store.bytes, value[l]);
                    peer.shared.define_bits(at, store.bytes, warp.regs.unknown(*slot)[l]);
                }
                peer.progressed();
            });
        });
        self.progressed();
    }

    /// A load from the memory of other blocks, by the lanes of `lanes`.
    pub(crate) fn remote_load(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, lanes: u32, load: &Load) {
        let at = Self::addresses(warp, &load.addr);
        let total = load.bytes * load.dst.len() as u32;
        let mut values = vec![[u64::MAX; LANES]; load.dst.len()];
        let mut unknown = vec![[u64::MAX; LANES]; load.dst.len()];
        each_lane(lanes, |l| {
            let Some((rank, at)) = remote_place(load.addr.space, at[l]) else { return };
            let site = RawSite { role: "read", pc: pc as u32, warp: warp.index as u32, lane: l as u32 };
            self.with_peer(context, site, rank, |own, peer| {
                if !own.touch(context, peer, site, at, total) {
                    return;
                }
                for (i, (values, unknown)) in values.iter_mut().zip(&mut unknown).enumerate() {
                    let at = at + i as u32 * load.bytes;
                    values[l] = peer.shared.load(at, load.bytes);
                    let missing = |byte: &u32| !peer.shared.is_defined(at + byte, 1);
                    unknown[l] = (0..load.bytes).filter(missing).fold(0, |bits, byte| bits | 0xff << (8 * byte));
                }
            });
        });
        for (i, slot) in load.dst.iter().enumerate() {
            crate::exec::memory::access::write_loaded(warp, *slot, load, &values[i], lanes);
            if context.launch.checks.uninitialised {
                let unknown = Some(unknown[i]);
                crate::exec::memory::access::set_loaded_unknown(warp, *slot, load, unknown, lanes, lanes);
            }
        }
    }

    /// Begins a fetch to the memory of another block.
    pub(crate) fn remote_fetch(&mut self, context: &Context<'_>, peer: &mut Block, fetch: OpenFetch) {
        let bytes = fetch.content.bytes.len() as u32;
        if !peer.has_room(context, fetch.site, fetch.dst, bytes, true) {
            return;
        }
        peer.check_told(context, fetch.site, fetch.barrier);
        let agent = peer.barrier_agent(fetch.barrier);
        peer.issuers[agent] = fetch.site.warp;
        let mut me = Epoch::new(fetch.site.pc, peer.agent_times[agent] + 1, agent as u32);
        if context.launch.checks.in_flight {
            me = me.in_flight();
        }
        let view = self.view_of(peer);
        let site = RawSite { role: "write", ..fetch.site };
        peer.engine_access_of(context, &view, site, &[(fetch.dst, bytes)], true, me);
        peer.take_fetch(context, fetch);
        peer.progressed();
    }
}

/// Rank of the block and place in its shared memory of an address that names another block.
pub(crate) fn remote_place(space: Space, at: u64) -> Option<(u32, u32)> {
    let at = match space {
        Space::Shared => u32::try_from(at).ok()?,
        Space::Generic if space_of(at) == Space::Shared => (at - SHARED_WINDOW) as u32,
        _ => return None,
    };
    peer_of(at).map(|rank| (rank, without_peer(at)))
}
