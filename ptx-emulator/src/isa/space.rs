//! State spaces, their windows in the generic address space, and addresses.

use crate::isa::slot::Slot;

/// Start of the shared window in the generic address space.
pub(crate) const SHARED_WINDOW: u64 = 0x7e00_0000_0000;
/// Start of the local window in the generic address space.
pub(crate) const LOCAL_WINDOW: u64 = 0x7d00_0000_0000;
/// Start of the kernel parameters in the generic address space.
pub(crate) const PARAM_WINDOW: u64 = 0x7c00_0000_0000;
/// Size of each window in bytes.
pub(crate) const WINDOW_BYTES: u64 = 1 << 32;
/// First address of module variables.
pub(crate) const SYMBOL_BASE: u64 = 0x0010_0000_0000;

/// Shared memory that the system keeps for itself and lends to cooperative groups, zeroed when a block starts.
pub(crate) const RESERVED_BYTES: u32 = 1024;

/// Shared memory that one block of a cluster has at most: what lies beyond is that of the block of rank 0, then of rank 1,
/// and so on, whoever asks.
pub(crate) const PEER_BYTES: u32 = 1 << 24;

/// The rank of the block that a shared address is in, where the address says so.
pub(crate) fn peer_of(at: u32) -> Option<u32> {
    (at / PEER_BYTES).checked_sub(1)
}

/// A shared address within its block.
pub(crate) fn without_peer(at: u32) -> u32 {
    at % PEER_BYTES
}

/// State space of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Generic,
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// Base row plus offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addr {
    pub(crate) space: Space,
    pub(crate) base: Slot,
    pub(crate) offset: i64,
}
