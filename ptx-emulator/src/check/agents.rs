//! Who accesses the shared memory of a block: its warps, and the engines that work for them on their own.
//!
//! Each is a component of the vector clocks. Where the asynchronous proxy is in use, a clock has two halves: what a warp
//! knows, and, behind it, what of that is also visible to the engines, which a proxy fence carries over.

use super::clock::MAX_AGENTS;
use crate::isa::engines::Engines;

/// Largest number of blocks in a cluster.
pub(crate) const MAX_CLUSTER: usize = 16;
/// Most mbarriers that are told apart as the origin of what was copied; more share an agent, and hide some races.
const MAX_BARRIERS: usize = 32;

/// Numbers of the agents of one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agents {
    pub(crate) warps: usize,
    tensor: usize,
    groups: usize,
    peers: usize,
    barriers: usize,
    pub(crate) count: usize,
    pub(crate) proxied: bool,
}

impl Agents {
    /// Those of so many warps.
    pub(crate) fn new(warps: usize, engines: Engines) -> Agents {
        let size = |used: bool, count: usize| if used { count } else { 0 };
        let tensor = warps;
        let groups = tensor + size(engines.tensor, warps);
        let peers = groups + size(engines.groups, warps);
        let barriers = peers + size(engines.cluster, MAX_CLUSTER);
        let count = barriers + size(engines.copies, MAX_BARRIERS.min(MAX_AGENTS.saturating_sub(barriers)).max(1));
        let proxied = engines.tensor || engines.groups || engines.copies;
        Agents { warps, tensor, groups, peers, barriers, count: count.min(MAX_AGENTS), proxied }
    }

    /// Those that read: all but what mbarriers tell of.
    pub(crate) fn readers(&self) -> usize {
        self.barriers
    }

    /// The tensor core as it works for a warp.
    pub(crate) fn tensor(&self, warp: usize) -> usize {
        self.tensor + warp
    }

    /// What reads shared memory for the bulk groups of a warp.
    pub(crate) fn group(&self, warp: usize) -> usize {
        self.groups + warp
    }

    /// Whether other blocks of a cluster may reach in.
    pub(crate) fn has_peers(&self) -> bool {
        self.barriers > self.peers
    }

    /// Another block of the cluster.
    pub(crate) fn peer(&self, rank: usize) -> usize {
        self.peers + rank
    }

    /// What copies on behalf of the `n`th mbarrier.
    pub(crate) fn barrier(&self, n: usize) -> usize {
        let room = self.count - self.barriers;
        if room == 0 { self.count - 1 } else { self.barriers + n % room }
    }

    /// Whether the agent is a warp of the block itself.
    pub(crate) fn is_warp(&self, agent: u32) -> bool {
        (agent as usize) < self.warps
    }

    /// The warp that an engine works for, where that is fixed.
    pub(crate) fn owner(&self, agent: u32) -> Option<u32> {
        let agent = agent as usize;
        match agent {
            _ if agent < self.tensor => Some(agent),
            _ if agent < self.groups => Some(agent - self.tensor),
            _ if agent < self.peers => Some(agent - self.groups),
            _ => None,
        }
        .map(|warp| warp as u32)
    }
}
