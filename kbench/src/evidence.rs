//! The run schema: what builders, runners and peers report, and what judging reads. Plain data; every file of a run
//! directory other than logs and binaries is one of these. Leaves to others: how any of it was obtained.

mod timed;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::deferral::Deferral;
use crate::operator::{Cost, Problem, Shape, Unit};
use crate::resources::EntryResources;
pub use timed::{Block, Cache, GpuState, Mode, PeerBackend, Peers, Samples, TimingFailure};

/// What an entry function takes, and so what its errors are measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operands {
    /// e4m3 as the tensors lie, with the largest magnitude of a head at 448.
    #[default]
    RowMajor,
    /// Shared-memory images from the project's own quantiser, with scale targets of 16 for Q and K.
    HopperImages,
    /// The FP16 originals: the quantiser itself.
    Originals,
}

impl Operands {
    /// Whether it is the usual form, which records leave out.
    pub fn is_row_major(&self) -> bool {
        *self == Operands::RowMajor
    }
}

/// How to launch one entry function; everything that the host needs to know of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// Entry function in the module.
    pub entry: String,
    /// The symbol that says what the entry was compiled with.
    pub config_symbol: String,
    /// Sizes of a shape that it is for, by axis; any size of the others.
    pub serves: BTreeMap<String, i64>,
    /// What it takes.
    #[serde(default, skip_serializing_if = "Operands::is_row_major")]
    pub operands: Operands,
    /// Query rows per CTA: the grid is `[ceil(seq_q / tile_q), batch * heads, 1]` for row-major operands.
    pub tile_q: u32,
    /// CTA size.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub dynamic_smem_bytes: u32,
    /// Zeroed device memory that the kernel wants, in bytes.
    pub workspace_bytes: u32,
}

impl LaunchRecord {
    /// Whether it is for a shape.
    pub fn serves(&self, shape: &Shape) -> bool {
        self.serves.iter().all(|(axis, size)| shape.axes.get(axis) == Some(size))
    }
}

/// One entry function of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryBuild {
    /// What ptxas said.
    pub resources: EntryResources,
    /// What the module said of itself.
    pub launch: LaunchRecord,
    /// SHA-256 of the entry's machine code, hex.
    pub code_sha256: String,
    /// Whether limits on registers and shared memory gate it; every entry is gated on spills and on fitting the chip.
    pub gated: bool,
}

/// One variant built for one architecture, or the reason why it could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Variant.
    pub variant: String,
    /// Target, e.g. `sm_89`.
    pub arch: String,
    /// The content key: a hash over sources, flags and tools.
    pub key: String,
    /// The toggles it was asked for.
    pub toggles: BTreeMap<String, u32>,
    /// nvcc's version.
    pub nvcc: String,
    /// ptxas' version.
    pub ptxas: String,
    /// SHA-256 of what is launched with it on every shape, hex; empty where the variant's family decides that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan_sha256: String,
    /// Whether it adds floats atomically, so that the order of sums, and the last bits, may differ between launches.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adds_floats_atomically: bool,
    /// SHA-256 of the PTX, hex.
    pub ptx_sha256: String,
    /// SHA-256 of the cubin, hex.
    pub cubin_sha256: String,
    /// Device memory of the module's own variables, in bytes: what a kernel could remember between launches.
    pub global_bytes: u32,
    /// Entry functions, in the family's order.
    pub entries: Vec<EntryBuild>,
    /// Advisories and warnings that ptxas printed.
    pub warnings: Vec<String>,
    /// Toggles that the module contradicts, one sentence each.
    pub toggle_mismatches: Vec<String>,
    /// Machine instructions by entry function and mnemonic; absent where nothing disassembled them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<BTreeMap<String, BTreeMap<String, u32>>>,
}

impl BuildRecord {
    /// What its attention entries take.
    pub fn operands(&self) -> Operands {
        self.entries.iter().map(|e| e.launch.operands).find(|o| *o != Operands::Originals).unwrap_or_default()
    }

    /// The first entry for a shape.
    pub fn entry(&self, shape: &Shape) -> Option<&EntryBuild> {
        self.entries.iter().find(|e| e.launch.serves(shape))
    }

    /// The entry of this name; the first for the shape where none is named.
    pub fn entry_named(&self, name: Option<&str>, shape: &Shape) -> Option<&EntryBuild> {
        match name {
            Some(name) => self.entries.iter().find(|e| e.launch.entry == name),
            None => self.entry(shape),
        }
    }

    /// Spill bytes over all entries.
    pub fn spill_bytes(&self) -> u64 {
        let spill = |e: &EntryBuild| u64::from(e.resources.spill_store_bytes) + u64::from(e.resources.spill_load_bytes);
        self.entries.iter().map(spill).sum()
    }
}

/// A variant that could not be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFailure {
    /// Variant.
    pub variant: String,
    /// Target.
    pub arch: String,
    /// The compiler's first error, with file and line.
    pub error: String,
}

/// Everything the build step produced; `builds.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builds {
    /// What was built, for the suite's architecture and, when there is a GPU, for the device's.
    pub records: Vec<BuildRecord>,
    /// What was not.
    pub failures: Vec<BuildFailure>,
    /// Why nothing could be built.
    pub deferred: Option<Deferral>,
    /// Why nothing could be disassembled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_disassembled: Option<Deferral>,
}

impl Builds {
    /// The build of a variant for an architecture.
    pub fn get(&self, variant: &str, arch: &str) -> Option<&BuildRecord> {
        self.records.iter().find(|b| b.variant == variant && b.arch == arch)
    }

    /// Every build of a variant for an architecture.
    pub fn all(&self, variant: &str, arch: &str) -> impl Iterator<Item = &BuildRecord> {
        self.records.iter().filter(move |b| b.variant == variant && b.arch == arch)
    }

    /// Why a variant was not built for an architecture.
    pub fn failure(&self, variant: &str, arch: &str) -> Option<&BuildFailure> {
        self.failures.iter().find(|f| f.variant == variant && f.arch == arch)
    }
}

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
            replays: None,
            deferred: None,
        }
    }

    /// The outcome of a launch that this executor could not run, whatever the kernel is.
    pub fn deferred(problem: &Problem, deferral: Deferral) -> LaunchOutcome {
        LaunchOutcome { deferred: Some(deferral.clone()), ..LaunchOutcome::failed(problem, &deferral.to_string()) }
    }
}

/// Errors of one output against float64 attention. Maxima are over finite elements; NaN and Inf are counted apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Output elements.
    pub elements: u64,
    /// NaN in the output.
    pub nan: u64,
    /// Infinities in the output.
    pub inf: u64,
    /// Kernel error: against float64 on the dequantised inputs.
    pub kernel_max: f64,
    /// Mean kernel error.
    pub kernel_mean: f64,
    /// Where in the output the worst kernel error is, or the first element that is not finite.
    pub worst_at: Vec<u32>,
    /// Quantisation floor: float64 on dequantised inputs against float64 on the originals.
    pub floor_max: f64,
    /// Largest end-to-end error: against float64 on the FP16 originals.
    pub end_to_end_max: f64,
    /// Mean end-to-end error.
    pub end_to_end_mean: f64,
    /// Share of elements whose end-to-end error exceeds the suite's `bad_element`.
    pub bad_share: f64,
    /// Largest magnitude of the float64 result on the dequantised inputs.
    pub reference_amax: f64,
    /// Largest difference from the control's output, when that exists.
    pub from_control_max: Option<f64>,
    /// Errors by output, where a gate file declares the operator; the figures above are then the worst over all outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputErrors>,
    /// What a checker says of the outputs, by figure, where there is one instead of a reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// The rows that were compared, as head (batch times heads, flattened) and row; absent when all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_rows: Option<Vec<[u32; 2]>>,
}

/// Errors of one output of a declared operator against its reference. Infinity equal to the reference's is right and has
/// no error; NaN, and an infinity where the reference has none, count as not finite. Maxima are over the other elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputErrors {
    /// Its name.
    pub output: String,
    /// Elements.
    pub elements: u64,
    /// Elements that are not the reference's: by bits for integers and bools; NaN or a wrong infinity for floats.
    pub wrong: u64,
    /// Place of the worst element, or of the first that is wrong.
    pub worst_at: Vec<u32>,
    /// Largest |error|.
    pub max: f64,
    /// Mean |error|.
    pub mean: f64,
    /// Largest |error| / |reference|; where the reference is 0, an error counts as `f64::MAX`.
    pub relative: f64,
    /// Root mean square of the errors over that of the reference.
    pub relative_rms: f64,
    /// Largest |error| of a row over the largest |reference| of that row; a row is the last axis.
    pub row_relative: f64,
    /// Largest |reference|.
    pub reference_amax: f64,
    /// Whether gaps between strided elements still hold what they held.
    pub gaps_intact: bool,
}

impl OutputErrors {
    /// A figure by the name that limits have.
    pub fn figure(&self, name: &str) -> f64 {
        match name {
            "max" => self.max,
            "mean" => self.mean,
            "relative" => self.relative,
            "relative_rms" => self.relative_rms,
            "row_relative" => self.row_relative,
            _ => f64::NAN,
        }
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
    /// Versions of peers: python, torch, cudnn, cuda.
    pub peers: BTreeMap<String, String>,
    /// Operating system and kernel.
    pub os: Option<String>,
    /// Processor and number of threads.
    pub cpu: Option<String>,
}
