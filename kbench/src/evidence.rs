//! The run schema: what builders, runners and peers report, and what judging reads. Plain data; every file of a run
//! directory other than logs and binaries is one of these. Leaves to others: how any of it was obtained.

mod builds;
mod errors;
mod timed;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::deferral::Deferral;
use crate::operator::{Cost, Problem, Unit};

pub use builds::{BuildFailure, BuildRecord, Builds, EntryBuild, LaunchRecord, Operands};
pub use errors::{Errors, Floor, OutputErrors, Proportion, WholeOutput};
pub use timed::{Block, Cache, GpuState, HostCode, Mode, Outer, PeerBackend, Peers, Samples, TimingFailure};

/// The device that cases ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Name as the driver gives it, e.g. `NVIDIA H200`.
    pub name: String,
    /// Universally unique id, `GPU-...`.
    pub uuid: String,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub sm_count: u32,
    /// Highest SM clock, in MHz.
    pub max_sm_clock_mhz: u32,
    /// Device memory in bytes.
    pub memory_bytes: u64,
    /// Bytes that device memory moves in a microsecond at its highest clock; absent in records that did not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes_per_us: Option<f64>,
    /// L2 size in bytes.
    pub l2_bytes: u64,
    /// Largest opt-in shared memory of a CTA, in bytes.
    pub max_shared_bytes: u32,
    /// CUDA version of the driver, e.g. `13.0`.
    pub cuda_driver: String,
    /// What NVML adds; absent where NVML is.
    pub nvml: Option<NvmlDevice>,
}

impl Device {
    /// The architecture that ptxas must target for this device.
    pub fn arch(&self) -> String {
        format!("sm_{}{}", self.capability.0, self.capability.1)
    }

    /// A time in microseconds that no kernel can go below: the operations on their unit at one instruction a clock on
    /// every SM at the highest clock, and the bytes that do not fit the L2 at the memory's highest rate. A bound, not an estimate: real kernels stay well above.
    pub fn floor_us(&self, cost: &Cost) -> f64 {
        let flop_per_clock_per_sm = match (cost.unit, self.capability) {
            (Unit::F8Tensor | Unit::I8Tensor, (8, 0)) => 4096.0,
            (Unit::F8Tensor | Unit::I8Tensor, (8, _)) => 2048.0,
            (Unit::F8Tensor | Unit::I8Tensor, (9, _)) => 8192.0,
            (Unit::F8Tensor | Unit::I8Tensor, _) => 16384.0,
            (Unit::F16Tensor, (8, 0)) => 2048.0,
            (Unit::F16Tensor, (8, _)) => 1024.0,
            (Unit::F16Tensor, (9, _)) => 4096.0,
            (Unit::F16Tensor, _) => 8192.0,
            (Unit::Tf32Tensor, (8, 0)) => 1024.0,
            (Unit::Tf32Tensor, (8, _)) => 512.0,
            (Unit::Tf32Tensor, (9, _)) => 2048.0,
            (Unit::Tf32Tensor, _) => 4096.0,
            (Unit::F32, _) | (Unit::F64Tensor, _) => 256.0,
            (Unit::F64, _) => 128.0,
        };
        let per_us = flop_per_clock_per_sm * f64::from(self.sm_count) * f64::from(self.max_sm_clock_mhz);
        // What fits the L2 may be there already.
        let moved = (cost.bytes - self.l2_bytes as f64).max(0.0);
        let memory = self.memory_bytes_per_us.filter(|rate| *rate > 0.0).map_or(0.0, |rate| moved / rate);
        (cost.flops / per_us).max(memory)
    }
}

/// The state of the device as NVML gives it, once per run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NvmlDevice {
    /// Driver version, e.g. `580.159.04`.
    pub driver: String,
    /// ECC on, off, or not supported.
    pub ecc: Option<bool>,
    /// Enforced power limit in watts.
    pub power_limit_w: Option<f64>,
    /// Persistence mode.
    pub persistence: Option<bool>,
}

/// How one case of one variant ended on the device. No reference is involved yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchOutcome {
    /// Which problem.
    pub problem: Problem,
    /// Why it failed, in one line with its likely cause; `None` when an output exists.
    pub failure: Option<String>,
    /// SHA-256 of the output bytes, hex.
    pub output_sha256: Option<String>,
    /// Whether a second launch gave the same bytes.
    pub repeat_equal: bool,
    /// Whether the inputs were left alone.
    pub inputs_unchanged: bool,
    /// Whether the guard bands around the output were left alone.
    pub guards_intact: bool,
    /// CTAs that ran, of how many, where only a sample did; absent when all ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_ctas: Option<(u32, u32)>,
    /// What the emulator's checks found, errors and warnings; always empty on a GPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// The entry function that ran, where a module has several for one head dimension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The kernels that host code launched, as the profiler of its own process named them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<String>,
    /// Further launches, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replays: Option<Replays>,
    /// Why the executor could not run it although nothing is known to be wrong with the kernel, and what can. `failure`
    /// says so too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferred: Option<Deferral>,
}

/// Replays of a graph of one launch, each into a poisoned output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// How many.
    pub count: u32,
    /// How many of them left other bytes than the first launch, by a 64-bit digest.
    pub different: u32,
}

impl LaunchOutcome {
    /// The outcome of a launch that gave no output.
    pub fn failed(problem: &Problem, why: &str) -> LaunchOutcome {
        LaunchOutcome {
            problem: problem.clone(),
            failure: Some(why.to_owned()),
            output_sha256: None,
            repeat_equal: false,
            inputs_unchanged: false,
            guards_intact: false,
            sampled_ctas: None,
            findings: Vec::new(),
            entry: None,
            kernels: Vec::new(),
            replays: None,
            deferred: None,
        }
    }

    /// The outcome of a launch that this executor could not run, whatever the kernel is.
    pub fn deferred(problem: &Problem, deferral: Deferral) -> LaunchOutcome {
        LaunchOutcome { deferred: Some(deferral.clone()), ..LaunchOutcome::failed(problem, &deferral.to_string()) }
    }
}

/// One case: how the launch ended and what its output was worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckedCase {
    /// Variant.
    pub variant: String,
    /// The launch.
    pub launch: LaunchOutcome,
    /// The errors; absent when there is no output.
    pub errors: Option<Errors>,
}

/// What [`Checks::device`] says when the cases were emulated.
pub const EMULATOR: &str = "emulator";

/// `check.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    /// `gpu: NVIDIA H200`, or [`EMULATOR`]; absent when nothing ran.
    pub device: Option<String>,
    /// Why nothing ran.
    pub deferred: Option<Deferral>,
    /// Whether what a GPU hides was looked for apart: `memory.json` says what came of it. Older runs did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memory_apart: bool,
    /// What the rows of large shapes were drawn by, taken from the system after everything was built: nobody who wrote a
    /// kernel knew which they would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_seed: Option<u64>,
    /// All cases.
    pub cases: Vec<CheckedCase>,
}
/// `ENV.json`: where and with what a run was made. A figure that could not be had is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// When the run began, RFC 3339, UTC.
    pub started: String,
    /// The command line.
    pub command: Vec<String>,
    /// Commit of the sources.
    pub commit: Option<String>,
    /// Whether tracked or untracked files differed from the commit.
    pub dirty: Option<bool>,
    /// SHA-256 of those differences, hex.
    pub diff_sha256: Option<String>,
    /// Compiler of the pipeline.
    pub rustc: Option<String>,
    /// CUDA compiler.
    pub nvcc: Option<String>,
    /// CUDA assembler.
    pub ptxas: Option<String>,
    /// Where the CUDA compiler came from.
    pub toolchain: Option<String>,
    /// The device.
    pub device: Option<Device>,
    /// Clocks, temperature and power when the run began.
    pub device_state: Option<GpuState>,
    /// Further GPUs of its model that shared the work, by `--gpus`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_devices: Vec<Device>,
    /// What held the scripts and sources of a gate file, a line a part, or why nothing did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confinement: Vec<String>,
    /// Versions of peers: python, torch, cudnn, cuda.
    pub peers: BTreeMap<String, String>,
    /// Operating system and kernel.
    pub os: Option<String>,
    /// Processor and number of threads.
    pub cpu: Option<String>,
}
