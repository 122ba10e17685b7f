//! State of one warp: rows, fragments of diverged lanes, open copies, local storage.

use crate::isa::op::Special;
use crate::isa::slot::Class;
use crate::machine::regs::{FULL, LANES, Regs, Row64};
use crate::memory::GRID_WORKSPACE;
use crate::program::{Program, RowInit};

/// Why a fragment does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// May run.
    Ready,
    /// Took many backward branches; runs again when the others had their turn.
    Parked,
    /// Stands at a warp-wide instruction until the other lanes arrive.
    Converging,
    /// Waits at a barrier of the block.
    Barrier(u8),
}

/// Lanes that share a program counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment {
    pub(crate) pc: usize,
    pub(crate) mask: u32,
    pub(crate) state: State,
    /// Backward branches since the last turn.
    pub(crate) loops: u32,
    /// Go on at a warp-wide instruction although lanes are missing.
    pub(crate) forced: bool,
}

/// A `cp.async` of some lanes that was issued and not waited for.
#[derive(Clone, Debug)]
pub(crate) struct OpenCopy {
    /// Number of the instruction within its warp, in issue order.
    pub(crate) sequence: u64,
    /// Lanes whose copies are open.
    pub(crate) lanes: u32,
    pub(crate) groups: [u32; LANES],
    pub(crate) dst: [u32; LANES],
    /// Bytes that a lane copies.
    pub(crate) bytes: u32,
    pub(crate) pc: u32,
    /// Global sources and the numbers of bytes read from them; the rest is zero.
    pub(crate) src: [u64; LANES],
    pub(crate) src_bytes: [u32; LANES],
    pub(crate) data: [[u8; 16]; LANES],
    /// Source bytes that were defined, as a bit per byte.
    pub(crate) defined: [u16; LANES],
}

/// `cp.async.mbarrier.arrive`: fires when all earlier copies of the lane are complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenArrive {
    pub(crate) lane: u32,
    pub(crate) addr: u32,
    /// The sequence number of the next copy of the warp.
    pub(crate) after: u64,
    pub(crate) pc: u32,
}

/// A product of a warpgroup that no wait has ended, as far as it is the warp's.
#[derive(Clone, Debug)]
pub(crate) struct OpenProduct {
    pub(crate) pc: u32,
    /// Number of its group, from 1.
    pub(crate) group: u32,
    /// What its accumulator will hold, register by register, and which lanes of it are undefined.
    pub(crate) sums: Vec<[u32; LANES]>,
    pub(crate) taint: Vec<u32>,
    /// Registers that some of the accumulator's were moved to, and which of them.
    pub(crate) moved: Vec<(u16, usize)>,
    /// Whether a later product has taken up the accumulator's own registers, and only those moved to are left.
    pub(crate) taken_up: bool,
}

/// A bulk copy out of shared memory that no wait has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenSend {
    pub(crate) lane: u32,
    pub(crate) group: u32,
    /// Number of the copy within its warp, from 1.
    pub(crate) sequence: u32,
}

/// One warp of a block.
#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) index: usize,
    pub(crate) regs: Regs,
    pub(crate) fragments: Vec<Fragment>,
    /// Lanes that exist.
    pub(crate) lanes: u32,
    pub(crate) exited: u32,
    #[expect(clippy::vec_box, reason = "each is over a kilobyte, and they leave in any order")]
    pub(crate) copies: Vec<Box<OpenCopy>>,
    pub(crate) arrives: Vec<OpenArrive>,
    /// Sequence number of the next copy.
    pub(crate) issued: u64,
    /// Committed groups of each lane.
    pub(crate) groups: [u32; LANES],
    /// Products in flight, groups of them committed, and the instructions whose first factor is read from registers, with
    /// their groups.
    pub(crate) products: Vec<OpenProduct>,
    pub(crate) products_committed: u32,
    pub(crate) factors: Vec<(u32, u32)>,
    /// Bulk copies out of shared memory: those open, the groups of each lane, and all begun.
    pub(crate) sends: Vec<OpenSend>,
    pub(crate) send_groups: [u32; LANES],
    pub(crate) sent: u32,
    /// Arrivals at the barrier of the cluster.
    pub(crate) cluster_arrivals: u64,
    /// Local storage of all lanes, one after the other.
    pub(crate) local: Vec<u8>,
    /// Undefined bits of each byte of `local`; empty when not tracked.
    pub(crate) local_unknown: Vec<u8>,
    /// Instructions executed, against the limit.
    pub(crate) executed: u64,
    /// A volatile, atomic or barrier-test read happened since the last backward branch.
    pub(crate) polled: bool,
    /// A test of a barrier failed, or the program asked to sleep: let others run.
    pub(crate) wants_rest: bool,
}

/// Position of a warp in its launch, for special registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) block: [u32; 3],
    pub(crate) block_dim: [u32; 3],
    pub(crate) grid_dim: [u32; 3],
    /// Blocks of a cluster.
    pub(crate) cluster: [u32; 3],
    pub(crate) dynamic_shared: u32,
    pub(crate) total_shared: u32,
    pub(crate) sm: u32,
    pub(crate) sm_count: u32,
}

impl Warp {
    /// A warp at the first instruction, constant rows filled, everything else undefined; `tracked` says whether what is
    /// undefined is remembered.
    pub(crate) fn new(index: usize, program: &Program, at: &Position, tracked: bool) -> Warp {
        let threads = at.block_dim.iter().product::<u32>();
        let remaining = (threads - index as u32 * 32).min(32);
        let lanes = if remaining == 32 { FULL } else { (1 << remaining) - 1 };
        let rows = |count: usize| count.max(1);
        let mut regs = Regs::undefined(rows(program.w_rows), rows(program.d_rows), rows(program.p_rows), tracked);
        fill_constants(&mut regs, program, index as u32, at);
        let local = program.local_bytes as usize * LANES;
        Warp {
            index,
            regs,
            fragments: vec![Fragment { pc: 0, mask: lanes, state: State::Ready, loops: 0, forced: false }],
            lanes,
            exited: 0,
            copies: Vec::new(),
            arrives: Vec::new(),
            issued: 0,
            groups: [0; LANES],
            products: Vec::new(),
            products_committed: 0,
            factors: Vec::new(),
            sends: Vec::new(),
            send_groups: [0; LANES],
            sent: 0,
            cluster_arrivals: 0,
            local: vec![0xff; local],
            local_unknown: vec![0xff; if tracked { local } else { 0 }],
            executed: 0,
            polled: false,
            wants_rest: false,
        }
    }

    /// Lanes that have not exited.
    pub(crate) fn alive(&self) -> u32 {
        self.lanes & !self.exited
    }

    /// Whether every lane has exited.
    pub(crate) fn done(&self) -> bool {
        self.alive() == 0
    }

    /// The ready fragment with the lowest program counter; parked ones only if no other.
    pub(crate) fn choose(&mut self) -> Option<usize> {
        let lowest = |fragments: &[Fragment], state: State| {
            let ready = fragments.iter().enumerate().filter(|(_, f)| f.state == state);
            ready.min_by_key(|(_, f)| f.pc).map(|(i, _)| i)
        };
        if let Some(at) = lowest(&self.fragments, State::Ready) {
            return Some(at);
        }
        for fragment in &mut self.fragments {
            if fragment.state == State::Parked {
                fragment.state = State::Ready;
                fragment.loops = 0;
            }
        }
        lowest(&self.fragments, State::Ready)
    }

    /// Lowest program counter above `pc` among the other fragments that may be joined.
    pub(crate) fn next_meeting(&self, current: usize, pc: usize) -> usize {
        let others = self
            .fragments
            .iter()
            .enumerate()
            .filter(|(i, f)| *i != current && f.pc > pc && !matches!(f.state, State::Barrier(_)));
        others.map(|(_, f)| f.pc).min().unwrap_or(usize::MAX)
    }

    /// Joins fragments that stand at the same instruction; returns the new index of `current`.
    pub(crate) fn merge(&mut self, current: usize) -> usize {
        if self.fragments.len() == 1 {
            return current;
        }
        let pc = self.fragments[current].pc;
        let mut at = current;
        let mut i = 0;
        while i < self.fragments.len() {
            let other = self.fragments[i];
            if i == at || other.pc != pc || matches!(other.state, State::Barrier(_)) {
                i += 1;
                continue;
            }
            self.fragments[at].mask |= other.mask;
            self.fragments[at].loops = self.fragments[at].loops.max(other.loops);
            self.fragments.swap_remove(i);
            if at == self.fragments.len() {
                at = i;
                // The moved fragment is the current one; look at this place no more.
                i += 1;
            }
        }
        at
    }

    /// Splits the current fragment at a branch: `taken` lanes go to `target`.
    pub(crate) fn split(&mut self, current: usize, taken: u32, target: usize) {
        let fragment = &mut self.fragments[current];
        fragment.mask &= !taken;
        fragment.pc += 1;
        let loops = fragment.loops;
        self.fragments.push(Fragment { pc: target, mask: taken, state: State::Ready, loops, forced: false });
    }

    /// Retires lanes; the fragment disappears when none are left.
    pub(crate) fn exit(&mut self, current: usize, lanes: u32) {
        self.exited |= lanes;
        let fragment = &mut self.fragments[current];
        fragment.mask &= !lanes;
        fragment.pc += 1;
        if fragment.mask == 0 {
            self.fragments.swap_remove(current);
        }
    }

    /// Lets the fragments behind barrier `id` go on with the next instruction.
    pub(crate) fn release(&mut self, id: u8) {
        for fragment in &mut self.fragments {
            if fragment.state == State::Barrier(id) {
                fragment.state = State::Ready;
                fragment.pc += 1;
                fragment.loops = 0;
            }
        }
    }
}

/// Rank of a block within its cluster.
pub(crate) fn rank(block: [u32; 3], cluster: [u32; 3]) -> u32 {
    let [x, y, z] = std::array::from_fn(|axis| block[axis] % cluster[axis]);
    x + cluster[0] * (y + cluster[1] * z)
}

fn fill_constants(regs: &mut Regs, program: &Program, warp: u32, at: &Position) {
    for (slot, init) in &program.inits {
        let row = usize::from(slot.row);
        regs.define(*slot, FULL);
        let mut values = [0; LANES];
        match *init {
            RowInit::Const(value) => values = [value; LANES],
            RowInit::Special(special) => {
                for (lane, value) in values.iter_mut().enumerate() {
                    *value = u64::from(special_value(special, warp, lane as u32, at));
                }
            }
        }
        match slot.class {
            Class::W => {
                for (to, value) in regs.w[row].0.iter_mut().zip(values) {
                    *to = value as u32;
                }
            }
            Class::D => {
                regs.d[row] = Row64(values);
            }
            Class::P => {
                regs.p[row] = if values[0] != 0 { FULL } else { 0 };
            }
        }
    }
}

fn special_value(special: Special, warp: u32, lane: u32, at: &Position) -> u32 {
    let thread = warp * 32 + lane;
    let [x, y, _] = at.block_dim;
    match special {
        Special::Tid(0) => thread % x,
        Special::Tid(1) => thread / x % y,
        Special::Tid(_) => thread / (x * y),
        Special::Ntid(axis) => at.block_dim[usize::from(axis)],
        Special::Ctaid(axis) => at.block[usize::from(axis)],
        Special::Nctaid(axis) => at.grid_dim[usize::from(axis)],
        Special::LaneId => lane,
        Special::LanePlace { group, member, start } => lane / 4 * group + lane % 4 * member + start,
        Special::WarpId => warp,
        Special::WarpCount => at.block_dim.iter().product::<u32>().div_ceil(32),
        Special::SmId => at.sm,
        Special::SmCount => at.sm_count,
        Special::GridId => 0,
        Special::LaneMaskEq => 1 << lane,
        Special::LaneMaskLe => (2u64 << lane).wrapping_sub(1) as u32,
        Special::LaneMaskLt => (1 << lane) - 1,
        Special::LaneMaskGe => FULL << lane,
        Special::LaneMaskGt => (u64::from(FULL) << (lane + 1)) as u32,
        Special::ClusterId(axis) => at.block[usize::from(axis)] / at.cluster[usize::from(axis)],
        Special::ClusterCount(axis) => at.grid_dim[usize::from(axis)] / at.cluster[usize::from(axis)],
        Special::ClusterCta(axis) => at.block[usize::from(axis)] % at.cluster[usize::from(axis)],
        Special::ClusterCtas(axis) => at.cluster[usize::from(axis)],
        Special::ClusterRank => rank(at.block, at.cluster),
        Special::ClusterSize => at.cluster.iter().product(),
        Special::IsClustered => u32::from(at.cluster != [1; 3]),
        Special::DynamicShared => at.dynamic_shared,
        Special::TotalShared => at.total_shared,
        Special::GridWorkspaceHigh => (GRID_WORKSPACE >> 32) as u32,
        Special::GridWorkspaceLow => GRID_WORKSPACE as u32,
    }
}
