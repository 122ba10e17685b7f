//! Operations with their operands.
//!
//! Operands are row indices; immediates, symbol addresses and special registers are constant
//! rows filled when a warp starts, so that no operand kind is decided at run time.

use crate::isa::alu_table::AluInst;
use crate::isa::engines::{BulkCopy, ClusterOp, Held, TensorCopy, Wgmma};
use crate::isa::slot::Slot;
use crate::isa::space::{Addr, Space};

/// Guard value of an unguarded instruction; otherwise `2 * predicate + negated`.
pub(crate) const NO_GUARD: u16 = u16::MAX;

/// One decoded instruction.
#[derive(Clone, Debug)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    pub(crate) guard: u16,
}

/// Operation with its operands.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alu(AluInst),
    Bra {
        target: u32,
    },
    Exit,
    Trap,
    /// `nanosleep` and the like: let another warp run.
    Yield,
    /// Memory fence; `true` when it reaches beyond the block.
    Fence {
        device: bool,
    },
    Clock {
        dst: Slot,
    },
    ActiveMask {
        dst: u16,
    },
    IsSpace {
        dst: u16,
        addr: Slot,
        space: Space,
    },
    Load(Box<Load>),
    Store(Box<Store>),
    Atom(Box<Atom>),
    CopyAsync(Box<CopyAsync>),
    CopyCommit,
    /// Waits until at most `pending` groups are open; `None` waits for everything.
    CopyWait {
        pending: Option<u32>,
    },
    /// `cp.async.mbarrier.arrive`.
    CopyArrive {
        addr: Addr,
        noinc: bool,
    },
    Barrier(Box<Barrier>),
    WarpSync {
        mask: u16,
    },
    Shuffle(Box<Shuffle>),
    Vote(Box<Vote>),
    Reduce(Box<Reduce>),
    Match(Box<Match>),
    Matrix(Box<Matrix>),
    MoveMatrix {
        dst: u16,
        src: u16,
    },
    Mma(Box<Mma>),
    Wmma(Box<WmmaMove>),
    Mbar(Box<Mbar>),
    /// `elect.sync`: one lane of those named.
    Elect(Box<Elect>),
    /// `fence.proxy.async`, or `fence.mbarrier_init` for the barriers alone.
    ProxyFence {
        barriers_only: bool,
    },
    Wgmma(Box<Wgmma>),
    WgmmaFence,
    WgmmaCommit,
    /// Waits until at most `pending` groups are open; `rows` are the accumulators that may be among them.
    WgmmaWait {
        pending: u32,
        rows: Vec<u16>,
    },
    Held(Box<Held>),
    Bulk(Box<BulkCopy>),
    Tensor(Box<TensorCopy>),
    BulkCommit,
    /// Waits until at most `pending` bulk groups are open.
    BulkWait {
        pending: u32,
    },
    Cluster(Box<ClusterOp>),
    Print(Box<Print>),
    AssertFail {
        message: Slot,
        file: Slot,
        line: Slot,
    },
}

/// `elect.sync`.
#[derive(Clone, Debug)]
pub(crate) struct Elect {
    /// The lane elected.
    pub(crate) lane: Option<u16>,
    /// Predicate: whether it is this one.
    pub(crate) elected: Option<u16>,
    pub(crate) members: u16,
}

/// Ordering qualifiers of an access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// Volatile, relaxed or stronger: not torn, never a race with another strong access.
    pub(crate) strong: bool,
    pub(crate) acquire: bool,
    pub(crate) release: bool,
    pub(crate) volatile: bool,
    /// Part of an access that the warp makes as a whole: no byte belongs to one lane.
    pub(crate) collective: bool,
}

/// `ld`.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) addr: Addr,
    /// Bytes of one element.
    pub(crate) bytes: u32,
    pub(crate) signed: bool,
    pub(crate) dst: Vec<Slot>,
    pub(crate) order: Order,
    /// `ld.global.nc`: must not see writes of the same launch.
    pub(crate) non_coherent: bool,
}

/// `st`.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) addr: Addr,
    pub(crate) bytes: u32,
    pub(crate) src: Vec<Slot>,
    pub(crate) order: Order,
}

/// `vprintf`.
#[derive(Clone, Debug)]
pub(crate) struct Print {
    pub(crate) format: Slot,
    /// Address of the values, each at its own alignment.
    pub(crate) values: Slot,
    /// Number of values printed.
    pub(crate) dst: u16,
}

/// Read-modify-write operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomOp {
    Add,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    Inc,
    Dec,
    Exch,
    Cas,
    AddF32,
    AddF64,
    AddF16x2,
    AddBf16x2,
}

/// `atom` and `red`.
#[derive(Clone, Debug)]
pub(crate) struct Atom {
    pub(crate) op: AtomOp,
    pub(crate) addr: Addr,
    pub(crate) bytes: u32,
    /// What the address is a multiple of: `bytes`, or those of the whole vector that it is the first of.
    pub(crate) align: u32,
    /// Old value; none for `red`.
    pub(crate) dst: Option<Slot>,
    pub(crate) a: Slot,
    /// The value to store, for `cas`.
    pub(crate) b: Option<Slot>,
    pub(crate) order: Order,
}

/// `cp.async`.
#[derive(Clone, Debug)]
pub(crate) struct CopyAsync {
    pub(crate) dst: Addr,
    pub(crate) src: Addr,
    pub(crate) bytes: u32,
    /// Bytes actually read; the rest is zero-filled.
    pub(crate) src_bytes: Option<u16>,
}

/// What a barrier instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Sync,
    Arrive,
    RedPopc,
    RedAnd,
    RedOr,
}

/// `bar` and `barrier`.
#[derive(Clone, Debug)]
pub(crate) struct Barrier {
    pub(crate) kind: BarrierKind,
    pub(crate) id: u16,
    /// Row with the thread count; all threads of the block if absent.
    pub(crate) count: Option<u16>,
    /// Result of a reduction: predicate, or word for `popc`.
    pub(crate) dst: Option<Slot>,
    pub(crate) src: Option<(u16, bool)>,
    /// `.aligned`: the whole warp executes it together.
    pub(crate) aligned: bool,
}

/// Lane selection of a shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Xor,
    Index,
}

/// `shfl.sync`.
#[derive(Clone, Debug)]
pub(crate) struct Shuffle {
    pub(crate) mode: ShuffleMode,
    pub(crate) dst: u16,
    pub(crate) in_range: Option<u16>,
    pub(crate) src: u16,
    pub(crate) lane: u16,
    pub(crate) clamp: u16,
    pub(crate) members: u16,
}

/// What a vote computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

/// `vote.sync`.
#[derive(Clone, Debug)]
pub(crate) struct Vote {
    pub(crate) mode: VoteMode,
    pub(crate) dst: Slot,
    pub(crate) src: u16,
    pub(crate) negated: bool,
    pub(crate) members: u16,
}

/// `redux.sync`.
#[derive(Clone, Debug)]
pub(crate) struct Reduce {
    pub(crate) op: AtomOp,
    pub(crate) dst: u16,
    pub(crate) src: u16,
    pub(crate) members: u16,
}

/// `match.sync`.
#[derive(Clone, Debug)]
pub(crate) struct Match {
    pub(crate) all: bool,
    pub(crate) dst: u16,
    pub(crate) pred: Option<u16>,
    pub(crate) src: Slot,
    pub(crate) members: u16,
}

/// `ldmatrix` and `stmatrix`.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) store: bool,
    pub(crate) trans: bool,
    pub(crate) addr: Addr,
    pub(crate) regs: Vec<u16>,
}

/// Element type of a matrix operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elem {
    F16,
    Bf16,
    /// 19 bits of an f32; the others are not read.
    Tf32,
    E4m3,
    E5m2,
    S8,
    U8,
}

impl Elem {
    /// Whether one element is a byte.
    pub(crate) fn is_byte(self) -> bool {
        !matches!(self, Elem::F16 | Elem::Bf16 | Elem::Tf32)
    }

    /// Registers of the second factor of a product of depth `k`; the first has twice as many.
    pub(crate) fn words(self, k: usize) -> usize {
        match self {
            Elem::F16 | Elem::Bf16 => k / 8,
            Elem::Tf32 => k / 4,
            Elem::E4m3 | Elem::E5m2 | Elem::S8 | Elem::U8 => k / 16,
        }
    }
}

/// Accumulator type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acc {
    F32,
    F16,
    S32,
}

/// `mma.sync` with `n` of 8, and `wmma.mma` as the pair of them that the hardware runs.
#[derive(Clone, Debug)]
pub(crate) struct Mma {
    /// Depth of the product: 4, 8, 16 or 32.
    pub(crate) k: usize,
    pub(crate) a_elem: Elem,
    pub(crate) b_elem: Elem,
    pub(crate) c_acc: Acc,
    pub(crate) d_acc: Acc,
    pub(crate) a: Vec<u16>,
    /// Registers of each 8-column half.
    pub(crate) halves: Vec<MmaHalf>,
    /// Integer accumulation clamps instead of wrapping.
    pub(crate) satfinite: bool,
}

/// Operands of one 16x8 result.
#[derive(Clone, Debug)]
pub(crate) struct MmaHalf {
    pub(crate) b: Vec<u16>,
    pub(crate) c: Vec<u16>,
    pub(crate) d: Vec<u16>,
}

/// Which fragment a wmma load or store moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frag {
    /// 16x16 of 16-bit elements, first factor.
    A,
    /// 16x16 of 16-bit elements, second factor.
    B,
    /// 16x16 accumulator of f32.
    AccF32,
    /// 16x16 accumulator of f16.
    AccF16,
}

/// `wmma.load` and `wmma.store` of m16n16k16.
#[derive(Clone, Debug)]
pub(crate) struct WmmaMove {
    pub(crate) store: bool,
    pub(crate) frag: Frag,
    pub(crate) column_major: bool,
    pub(crate) addr: Addr,
    /// Row with the leading dimension in elements; tightly packed if absent.
    pub(crate) stride: Option<u16>,
    pub(crate) regs: Vec<u16>,
}

/// Operation on an mbarrier object.
#[derive(Clone, Debug)]
pub(crate) enum MbarOp {
    Init {
        count: u16,
    },
    Inval,
    /// Arrival by `count` (1 if absent), returning the phase token.
    Arrive {
        count: Option<u16>,
        state: Option<u16>,
        drop: bool,
    },
    /// Raises the bytes expected in the current phase, then arrives unless `only`.
    ExpectTx {
        bytes: u16,
        state: Option<u16>,
        only: bool,
    },
    /// Lowers the bytes expected, as a copy does that delivers them.
    CompleteTx {
        bytes: u16,
    },
    /// True when the phase of the token has ended. `try_wait` does not suspend either.
    TestState {
        dst: u16,
        state: u16,
    },
    /// True when the phase of that parity has ended.
    TestParity {
        dst: u16,
        parity: u16,
    },
    PendingCount {
        dst: u16,
        state: u16,
    },
}

/// `mbarrier.*`.
#[derive(Clone, Debug)]
pub(crate) struct Mbar {
    pub(crate) op: MbarOp,
    /// Object; absent for `pending_count`.
    pub(crate) addr: Option<Addr>,
}

/// Values known only when a warp starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    /// Multiples of `lane / 4` and `lane % 4` and a constant: where a lane's element of a fragment is.
    LanePlace {
        group: u32,
        member: u32,
        start: u32,
    },
    WarpId,
    WarpCount,
    SmId,
    SmCount,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    DynamicShared,
    TotalShared,
    /// Place, size and number of clusters, along an axis.
    ClusterId(u8),
    ClusterCount(u8),
    ClusterCta(u8),
    ClusterCtas(u8),
    /// Rank of the block within its cluster, and blocks of the cluster.
    ClusterRank,
    ClusterSize,
    /// Whether the launch asked for clusters.
    IsClustered,
    /// Address of the words with which `grid.sync()` counts blocks.
    GridWorkspaceHigh,
    GridWorkspaceLow,
}
