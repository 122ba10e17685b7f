//! Instructions that start work of engines beside the warps: the tensor core of a warpgroup, and bulk copies.

use crate::isa::op::{Acc, AtomOp, Elem};
use crate::isa::reduction::Reduction;
use crate::isa::slot::Slot;
use crate::isa::space::Addr;

/// The engines that a kernel can make use of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Engines {
    /// `wgmma` reads its operands.
    pub(crate) tensor: bool,
    /// Bulk copies from shared memory, whose end is that of a group.
    pub(crate) groups: bool,
    /// Bulk copies whose end an mbarrier tells.
    pub(crate) copies: bool,
    /// Blocks of a cluster reach into each other's memory.
    pub(crate) cluster: bool,
}

/// Rows of the first factor of a warpgroup's product, 16 a warp.
pub(crate) const WARPGROUP_ROWS: usize = 64;

/// The first factor of `wgmma`.
#[derive(Clone, Debug)]
pub(crate) enum FactorA {
    /// Fragments of each warp's 16 rows.
    Registers(Vec<u16>),
    /// 64-bit row with the matrix descriptor.
    Shared(u16),
}

/// `wgmma.mma_async`: 64 rows by `n` columns, of which each warp of the warpgroup has 16 rows.
#[derive(Clone, Debug)]
pub(crate) struct Wgmma {
    pub(crate) n: usize,
    /// Depth of the product: 8, 16 or 32.
    pub(crate) k: usize,
    pub(crate) a_elem: Elem,
    pub(crate) b_elem: Elem,
    pub(crate) acc: Acc,
    pub(crate) d: Vec<u16>,
    pub(crate) a: FactorA,
    /// 64-bit row with the descriptor of the second factor.
    pub(crate) b: u16,
    /// Predicate: whether the product is added to what `d` holds.
    pub(crate) adds: u16,
    pub(crate) negates: [bool; 2],
    /// Whether a factor in shared memory lies with the other dimension than k innermost.
    pub(crate) transposed: [bool; 2],
    pub(crate) satfinite: bool,
    /// The last access to its registers that no `wgmma.fence` orders before it.
    pub(crate) unfenced: Option<u32>,
}

/// Stands before an instruction that touches registers which a product may still be reading or writing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Registers that it reads or writes.
    pub(crate) reads: Vec<u16>,
    pub(crate) writes: Vec<u16>,
    /// Whether it is a move of one of them, which only passes it on.
    pub(crate) moves: bool,
}

/// Which way a bulk copy goes, and what tells of its end.
#[derive(Clone, Debug)]
pub(crate) enum BulkWay {
    /// From global to shared memory; the mbarrier gets the bytes. With a mask row, to every block of the cluster named.
    Fetch { barrier: Addr, multicast: Option<u16> },
    /// From shared to global memory, as part of a bulk group of the thread. With a reduction, elements of so many
    /// bytes are combined with what is there.
    Send { reduction: Option<(AtomOp, u32)> },
    /// From shared memory to that of another block of the cluster, whose mbarrier gets the bytes.
    Pass { barrier: Addr },
}

/// `cp.async.bulk` of bytes in a row.
#[derive(Clone, Debug)]
pub(crate) struct BulkCopy {
    pub(crate) way: BulkWay,
    pub(crate) dst: Addr,
    pub(crate) src: Addr,
    /// Row with the number of bytes, a multiple of 16.
    pub(crate) bytes: u16,
}

/// Which way a copy of a box goes.
#[derive(Clone, Debug)]
pub(crate) enum TensorWay {
    /// To shared memory; the mbarrier gets the bytes. With a mask row, to every block of the cluster named.
    Load { barrier: Addr, multicast: Option<u16> },
    /// From shared memory, as part of a bulk group of the thread; with a reduction, combined with what is there.
    Store { reduction: Option<Reduction> },
}

/// `cp.async.bulk.tensor`.
#[derive(Clone, Debug)]
pub(crate) struct TensorCopy {
    pub(crate) way: TensorWay,
    pub(crate) shared: Addr,
    /// Address of the tensor map.
    pub(crate) map: Addr,
    /// Of the box's first element, innermost first.
    pub(crate) coordinates: Vec<u16>,
}

/// What an operation that concerns the whole cluster does.
#[derive(Clone, Debug)]
pub(crate) enum ClusterOp {
    /// `barrier.cluster.arrive`; `relaxed` orders no memory.
    Arrive { relaxed: bool },
    /// `barrier.cluster.wait`.
    Wait,
    /// `mapa`: the address, here a shared one, of the same variable in the block of a rank.
    Map { dst: Slot, src: Slot, rank: u16, generic: bool },
    /// `getctarank`: which block of the cluster a shared address is in.
    Rank { dst: u16, src: Slot, generic: bool },
}
