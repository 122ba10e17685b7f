//! What a launch asks for and what it gives back.

use serde::Serialize;

use crate::counts::Counts;
use crate::report::{Finding, Severity};

/// Order in which the warps of a block run, and in which blocks act on what they share. One schedule has one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Each warp in turn for a short while; so each block.
    RoundRobin,
    /// Each warp as far as it can go, lowest first: the largest skew between warps. Blocks go further than in turn.
    Greedy,
    /// As greedy, highest warp first, and of those that are live the highest block.
    Reverse,
    /// Random switches after memory and synchronisation instructions, and rounds of random length in random order for
    /// blocks; the seed replays the run.
    Seeded(u64),
}

/// How tensor-core sums are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmaModel {
    /// A chain of f32 fused multiply-adds: fast, and for f16 about as accurate as the hardware.
    /// Far too accurate for FP8 on Ada and for Hopper's wgmma.
    Fast,
    /// Ampere: products and addend aligned and cut to 24 fraction bits, two halves chained.
    Sm80,
    /// Ada: as Ampere for 16-bit factors; FP8 sums keep 13 fraction bits.
    Sm89,
    /// Hopper `mma.sync`: 25 fraction bits.
    Sm90,
    /// [`MmaModel::Fast`] for 16-bit factors, where it is within the hardware's own error, and
    /// [`MmaModel::Sm89`] for FP8, where it is not.
    FastExceptFp8,
}

/// Checks that cost time. Bounds, alignment, barriers and limits are always checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Races by happens-before, in shared and global memory.
    pub races: bool,
    /// Bytes of an asynchronous copy stay poisoned until the wait; touching them is reported.
    pub in_flight: bool,
    /// Undefined registers and memory, reported where they matter.
    pub uninitialised: bool,
}

impl Checks {
    /// Every check.
    pub fn all() -> Checks {
        Checks { races: true, in_flight: true, uninitialised: true }
    }

    /// Only what is always checked; for speed.
    pub fn none() -> Checks {
        Checks { races: false, in_flight: false, uninitialised: false }
    }
}

/// Bounds on a run, so that it always ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instructions one warp may execute.
    pub warp_instructions: u64,
    /// Instructions all warps together may execute, give or take a few million; beyond it the launch is given up.
    pub instructions: u64,
    /// Turns in which only unchanging values were polled before giving up.
    pub idle_turns: u32,
    /// Blocks that may be live at once; waiting for a later one is reported.
    pub resident_blocks: usize,
    /// Shared memory of a block in bytes, static and dynamic.
    pub shared_bytes: usize,
    /// Threads of the host; 0 takes all. What a launch computes and finds does not depend on it.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            warp_instructions: 100_000_000,
            instructions: u64::MAX,
            idle_turns: 2000,
            resident_blocks: 256,
            shared_bytes: 227 << 10,
            threads: 0,
        }
    }
}

/// Which blocks of the grid run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockFilter {
    /// The whole grid.
    All,
    /// Only these, as `x, y, z`; a sample, and results say so by their count.
    Only(Vec<[u32; 3]>),
}

/// One kernel launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks per dimension.
    pub grid: [u32; 3],
    /// Threads per dimension.
    pub block: [u32; 3],
    /// Blocks of a cluster per dimension; 1, 1, 1 is none.
    pub cluster: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared_bytes: u32,
    /// Parameter block, laid out as [`crate::Kernel::parameters`] says; see [`Params`].
    pub params: Vec<u8>,
    /// Order of the warps and blocks.
    pub schedule: Schedule,
    /// Optional checks.
    pub checks: Checks,
    /// Rounding of tensor-core sums.
    pub mma_model: MmaModel,
    /// Blocks to run.
    pub blocks: BlockFilter,
    /// What the kernel reads as the number of multiprocessors (`%nsmid`).
    pub sm_count: u32,
    /// Bounds on the run.
    pub limits: Limits,
    /// Measure where the host's time goes; slows the run down.
    pub profile: bool,
    /// Count what the launch does; see [`Outcome::counts`]. Slows the run down, and changes nothing else.
    pub counts: bool,
}

impl Launch {
    /// A launch with all checks, greedy schedule, one multiprocessor and default limits.
    pub fn new(grid: [u32; 3], block: [u32; 3], params: Vec<u8>) -> Launch {
        Launch {
            grid,
            block,
            cluster: [1; 3],
            dynamic_shared_bytes: 0,
            params,
            schedule: Schedule::Greedy,
            checks: Checks::all(),
            mma_model: MmaModel::FastExceptFp8,
            blocks: BlockFilter::All,
            sm_count: 1,
            limits: Limits::default(),
            profile: false,
            counts: false,
        }
    }
}

/// Builds a parameter block: each value at its own alignment, as the CUDA ABI lays it out.
#[derive(Clone, Debug, Default)]
pub struct Params {
    bytes: Vec<u8>,
}

impl Params {
    /// An empty block.
    pub fn new() -> Params {
        Params::default()
    }

    /// Appends raw bytes at an alignment.
    #[must_use]
    pub fn bytes(mut self, align: usize, value: &[u8]) -> Params {
        self.bytes.resize(self.bytes.len().next_multiple_of(align.max(1)), 0);
        self.bytes.extend_from_slice(value);
        self
    }

    /// Appends a pointer.
    #[must_use]
    pub fn pointer(self, buffer: crate::Buffer) -> Params {
        self.u64(buffer.address())
    }

    /// Appends a 64-bit value.
    #[must_use]
    pub fn u64(self, value: u64) -> Params {
        self.bytes(8, &value.to_le_bytes())
    }

    /// Appends a 32-bit integer.
    #[must_use]
    pub fn i32(self, value: i32) -> Params {
        self.bytes(4, &value.to_le_bytes())
    }

    /// Appends a 32-bit float.
    #[must_use]
    pub fn f32(self, value: f32) -> Params {
        self.bytes(4, &value.to_le_bytes())
    }

    /// The finished block.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A launch that cannot be started or carried through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmuError {
    /// The parameter block has the wrong size.
    #[error("failed to launch `{kernel}`: {given} parameter bytes given, {wanted} expected")]
    Parameters {
        /// Name of the kernel.
        kernel: String,
        /// Bytes given.
        given: usize,
        /// Bytes expected.
        wanted: usize,
    },
    /// Grid, block or shared memory beyond the hardware's or the caller's limits.
    #[error("failed to launch `{kernel}`: {message}")]
    Shape {
        /// Name of the kernel.
        kernel: String,
        /// Which limit.
        message: String,
    },
    /// A block in the filter is not in the grid.
    #[error("failed to launch `{kernel}`: block {block:?} is outside the grid")]
    NoSuchBlock {
        /// Name of the kernel.
        kernel: String,
        /// The block asked for.
        block: [u32; 3],
    },
    /// The checker's clock of a warp ran out (16 million synchronisations).
    #[error("failed to check `{kernel}`: a warp synchronised more than 2^24 times")]
    ClockExhausted {
        /// Name of the kernel.
        kernel: String,
    },
    /// The launch takes longer than the caller wants to wait, and nothing wrong was found until then.
    #[error("failed to run `{kernel}` to its end: it executed more than {limit} warp instructions")]
    Budget {
        /// Name of the kernel.
        kernel: String,
        /// The caller's limit.
        limit: u64,
    },
    /// The host could not provide its worker threads.
    #[error("failed to start the worker threads: {0}")]
    Threads(String),
}

/// Time of one family of instructions, summed over all threads of the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileLine {
    /// Name of the family.
    pub family: &'static str,
    /// Warp-wide instructions executed.
    pub instructions: u64,
    /// Host seconds; the timer's own cost of some 20 ns per entry is included.
    pub seconds: f64,
}

/// Result of a run that came to its end, with whatever it found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Distinct problems, worst first.
    pub findings: Vec<Finding>,
    /// What the kernel printed, block after block; at most about a megabyte of it.
    pub printed: String,
    /// Warp-wide instructions executed.
    pub instructions: u64,
    /// The same counted per active lane.
    pub lane_instructions: u64,
    /// Blocks executed.
    pub blocks_run: u64,
    /// Blocks in the grid.
    pub blocks_in_grid: u64,
    /// Where the time went, if the launch asked.
    pub profile: Vec<ProfileLine>,
    /// What the blocks that were run did, if the launch asked.
    pub counts: Option<Counts>,
    /// Host seconds of the run.
    pub seconds: f64,
}

impl Outcome {
    /// Findings of severity ERROR.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.severity == Severity::Error)
    }

    /// Whether nothing of severity WARNING or ERROR was found.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|f| f.severity == Severity::Info)
    }
}
