//! What was timed: blocks with the device's state around them, subjects that could not be timed, and peers. Part of the run
//! schema. Leaves to others: what a variant's launches left (`evidence`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Device, Errors};
use crate::deferral::Deferral;
use crate::operator::Distribution;
use crate::subject::Subject;

/// How launches are timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each launch between two events: what a caller sees.
    Call,
    /// Launches of a CUDA graph, elapsed over count: the kernel itself.
    #[default]
    Kernel,
}

impl Mode {
    /// Both modes.
    pub const ALL: [Mode; 2] = [Mode::Kernel, Mode::Call];

    /// Whether it is the one that decides, which gates leave out.
    pub fn is_kernel(&self) -> bool {
        *self == Mode::Kernel
    }

    /// The name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Call => "call",
            Mode::Kernel => "kernel",
        }
    }
}

/// What NVML said around a block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuState {
    /// SM clock in MHz.
    pub sm_clock_mhz: Option<u32>,
    /// Temperature in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Power in watts.
    pub power_w: Option<f64>,
    /// Reasons that spoil a comparison: thermal or hardware slowdown.
    pub throttle: Vec<String>,
    /// Whether the power limit holds the clock down. It is recorded, not rejected: a 72 W card works there all the
    /// time, and both arms of a round do alike.
    pub power_capped: bool,
}

/// How the L2 was before each launch of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Nothing is flushed between launches.
    #[default]
    Hot,
    /// Other memory was written through it: nothing that the launch reads is there.
    Cold,
}

impl Cache {
    /// Whether it is the usual state, which records leave out.
    pub fn is_hot(&self) -> bool {
        *self == Cache::Hot
    }
}

/// One timed block: a number of launches of one subject, one after another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Shape name.
    pub shape: String,
    /// What its inputs were drawn like.
    #[serde(default, skip_serializing_if = "Distribution::is_normal")]
    pub distribution: Distribution,
    /// Which sitting: modules and buffers of all subjects lie in the same places for its rounds, and elsewhere in another.
    #[serde(default)]
    pub sitting: u32,
    /// How the L2 was.
    #[serde(default, skip_serializing_if = "Cache::is_hot")]
    pub cache: Cache,
    /// Who.
    pub subject: Subject,
    /// Which timer.
    pub mode: Mode,
    /// Round: blocks of one round are compared with each other.
    pub round: u32,
    /// Position within the round's random order.
    pub slot: u32,
    /// Samples in microseconds per launch.
    pub us: Vec<f64>,
    /// State before the block.
    pub before: GpuState,
    /// State after the block.
    pub after: GpuState,
    /// What the judge's own clock said of a block that another process timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<Outer>,
    /// Whether the outputs after the block equalled the verified ones; true for peers, whose outputs are checked once.
    pub outputs_verified: bool,
}

/// A block of another process from outside: from the question to the answer, with the device idle at both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outer {
    /// Microseconds of all of it.
    pub wall_us: f64,
    /// Microseconds that a block takes in that process by itself: measured before the user's code was there.
    #[serde(default)]
    pub beside_us: f64,
    /// Launches in it.
    pub launches: u32,
}

impl Outer {
    /// Launches at most in a block that another process times: more than a kernel's, whose times need no second clock.
    pub const MOST_LAUNCHES: u32 = 200;

    /// What the samples of its block say that all launches took, in microseconds.
    pub fn said_us(&self, samples: &[f64]) -> f64 {
        samples.iter().sum::<f64>() / samples.len().max(1) as f64 * f64::from(self.launches)
    }

    /// What neither they nor the block itself explain, in microseconds.
    pub fn unexplained_us(&self, samples: &[f64]) -> f64 {
        self.wall_us - self.beside_us - self.said_us(samples)
    }
}

impl Block {
    /// Why the block must not be compared, if so.
    pub fn rejected(&self) -> Option<String> {
        let reasons: Vec<&str> = self.before.throttle.iter().chain(&self.after.throttle).map(String::as_str).collect();
        (!reasons.is_empty()).then(|| format!("clock held down: {}", reasons.join(", ")))
    }
}

/// A subject that could not be timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimingFailure {
    /// Shape name.
    pub shape: String,
    /// Who.
    pub subject: Subject,
    /// Why, in one line.
    pub why: String,
}

fn is_zero(seed: &u64) -> bool {
    *seed == 0
}

/// How host code of a gate file was timed: a process of its own that launches for itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostCode {
    /// Versions that its process told: torch, cuda, cudnn, python.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// Why it could have started processes while it was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_sealed: Option<String>,
    /// Why nobody could see whether it kept the device busy while others were timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_quiet: Option<String>,
    /// Why there is no kernel time of a shape: a CUDA graph of its calls could not be made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub not_captured: BTreeMap<String, String>,
    /// Inputs of which no block has new values, because only `generate` can make some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub same_inputs: Vec<String>,
}

impl HostCode {
    /// Adds what is known of it from other shapes, or from another GPU.
    pub fn join(&mut self, other: HostCode) {
        self.not_captured.extend(other.not_captured);
        self.not_sealed = self.not_sealed.take().or(other.not_sealed);
        self.not_quiet = self.not_quiet.take().or(other.not_quiet);
        (self.same_inputs, self.versions) = (other.same_inputs, other.versions);
    }
}

/// `samples.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// The device, the first of several; absent when nothing ran.
    pub device: Option<Device>,
    /// Why nothing ran.
    pub deferred: Option<Deferral>,
    /// How caches were: `hot-l2` = nothing is flushed between launches; a block that says otherwise is cold.
    pub cache_mode: String,
    /// Input sets that launches drew on.
    pub input_sets: u32,
    /// Draws the order of blocks and the places of every sitting; 0 in runs that did not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seed: u64,
    /// The unique id of the GPU that timed each shape, where several shared them; all were timed on the device without.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpus: BTreeMap<String, String>,
    /// Variants that are host code, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host_code: BTreeMap<String, HostCode>,
    /// All blocks, dropped ones included.
    pub blocks: Vec<Block>,
    /// What could not be timed.
    pub failures: Vec<TimingFailure>,
}

impl Samples {
    /// Why a variant has no kernel time of a shape, where it is host code of which there is no CUDA graph.
    pub fn not_captured(&self, variant: &str, shape: &str) -> Option<&str> {
        self.host_code.get(variant)?.not_captured.get(shape).map(String::as_str)
    }
}

/// One backend of a peer on one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerBackend {
    /// Shape name.
    pub shape: String,
    /// The inputs that it was given.
    #[serde(default, skip_serializing_if = "Distribution::is_normal")]
    pub distribution: Distribution,
    /// `torch/flash`.
    pub subject: String,
    /// Which kernels ran, as the profiler named them.
    pub kernels: Vec<String>,
    /// Which backend the default picked, when this is the default.
    pub resolved: Option<String>,
    /// Why it does not run here, if so.
    pub unavailable: Option<String>,
    /// Errors of its output (FP16 inputs): only the end-to-end figures mean something.
    pub errors: Option<Errors>,
}

/// `peers.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// Whether peers were asked for.
    pub wanted: bool,
    /// Why there are none.
    pub deferred: Option<Deferral>,
    /// Those that could not be measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, Deferral>,
    /// Versions by name: torch, cudnn, cuda, python.
    pub versions: BTreeMap<String, String>,
    /// All backends on all timed shapes, in every timed distribution.
    pub backends: Vec<PeerBackend>,
}
