//! The parts of a suite: candidates, and what each table limits. Leaves to others: which rules hold between them.

use std::collections::BTreeMap;

use kernel_spec::expr::Value;
use serde::{Deserialize, Deserializer, Serialize};

use crate::operator::Distribution;
use crate::ordered::Ordered;

/// A candidate of a suite. In a file, its name alone will do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Its name in the registry, or a key of [`Suite::variants`].
    pub variant: String,
    /// Tried only when this other candidate does not spill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless_spills: Option<String>,
    /// Instead of [`Suite::max_difference_from_control`], for this candidate; 0 asks for the same bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_difference_from_control: Option<f64>,
    /// Instead of [`Suite::resources`], for this candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceLimits>,
}

impl Candidate {
    /// A candidate without conditions or limits of its own.
    pub fn of(variant: &str) -> Candidate {
        Candidate {
            variant: variant.to_owned(),
            unless_spills: None,
            max_difference_from_control: None,
            resources: None,
        }
    }
}

/// A variant that only this suite knows: a registered one with some toggles changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantPatch {
    /// The registered variant it starts from.
    pub base: String,
    /// Toggles by name, e.g. `stages = 3`.
    #[serde(default)]
    pub toggles: BTreeMap<String, u32>,
}

/// Candidates of a file, each a name or a table.
pub(super) fn candidates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Candidate>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NameOrTable {
        Name(String),
        Table(Candidate),
    }
    let given = Vec::<NameOrTable>::deserialize(deserializer)?;
    let candidate = |given| match given {
        NameOrTable::Name(name) => Candidate::of(&name),
        NameOrTable::Table(candidate) => candidate,
    };
    Ok(given.into_iter().map(candidate).collect())
}

/// Limits on what ptxas reports for the entry functions that are gated; what is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimits {
    /// Registers per thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_registers: Option<u32>,
    /// Static plus dynamic shared memory, in KiB of 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_shared_kib: Option<u32>,
    /// Bytes of spill stores plus spill loads; gates every entry function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_spill_bytes: Option<u32>,
    /// Stack of a thread in bytes, calls included; gates every entry function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_stack_bytes: Option<u32>,
}

/// Limits on errors against float64 attention; see DESIGN section 5 for why each is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorrectnessLimits {
    /// Largest kernel error of a kernel that keeps P in FP16.
    pub kernel_max_f16: f64,
    /// Largest kernel error of a kernel that rounds P to e4m3.
    pub kernel_max_e4m3: f64,
    /// Largest mean kernel error, where that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_mean: Option<f64>,
    /// Largest kernel error on the other distributions, whatever the size of the output; without it they are held to
    /// the usual limit relative to that size, and to no mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stress_max: Option<f64>,
    /// Where quantising alone costs an output more than [`Self::stress_max`], the largest kernel error on the other distributions may be
    /// this part of the largest that quantising costs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stress_of_floor: Option<f64>,
    /// The mean kernel error on the other distributions may be this part of the mean magnitude of the output, where that is more than
    /// [`Self::kernel_mean`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stress_mean_of_output: Option<f64>,
    /// Largest kernel error on inputs whose output is a plain mean of rows of V, relative to that output's magnitude: an
    /// FP16 output keeps 2^-11 of it and a tensor core's sum 2^-13 a step, whatever the format of P is.
    pub exact_max: f64,
    /// Largest mean end-to-end error.
    pub end_to_end_mean: f64,
    /// An element is bad when its end-to-end error exceeds this.
    pub bad_element: f64,
    /// Largest share of bad elements.
    pub bad_share: f64,
    /// End-to-end maximum may exceed the quantisation floor by this much.
    pub floor_allowance: f64,
    /// Limits that do not depend on how large an output is; where absent, as in runs before they were, nothing is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proportion: Option<ProportionLimits>,
}

/// Limits on kernel errors in proportion to the output. What the format of P explains is taken as it is: a rounding errs by a
/// part of its value that is drawn anew for each, so a row's errors are that part of the row, and a gain averages out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProportionLimits {
    /// Largest gain or loss of a kernel that keeps P in FP16, besides what few rows leave to chance.
    pub slope_f16: f64,
    /// The same of a kernel that rounds P to e4m3.
    pub slope_e4m3: f64,
    /// Largest root mean square of a row's errors over that of the row, with P in FP16: four times the 2^-11 by which P and
    /// the output are each off at most.
    pub row_f16: f64,
    /// The same with P in e4m3, which is off by 2^-4 at most where it is rounded, and by 0.09 where a power of two is read off
    /// its code. Measured on a right kernel of that kind: at most 0.061 and 0.066 over all rows of two shapes.
    pub row_e4m3: f64,
    /// A mean error may be this many times the control's, where both have P in one format.
    pub times_control: f64,
    /// Largest difference from the control's output where only some rows are compared with float64, in any eight columns,
    /// over the root mean square of the row: a block that was not written is as far as the row is large, and two ways of
    /// quantising the same inputs are a tenth of it apart.
    pub block: f64,
}

impl Default for ProportionLimits {
    fn default() -> Self {
        ProportionLimits {
            slope_f16: 0.002,
            slope_e4m3: 0.005,
            row_f16: 0.002,
            row_e4m3: 0.09,
            times_control: 4.0,
            block: 0.5,
        }
    }
}

impl Default for CorrectnessLimits {
    fn default() -> Self {
        CorrectnessLimits {
            kernel_max_f16: 0.01,
            kernel_max_e4m3: 0.06,
            kernel_mean: None,
            stress_max: None,
            stress_of_floor: None,
            stress_mean_of_output: None,
            exact_max: 0.004,
            end_to_end_mean: 0.02,
            bad_element: 0.06,
            bad_share: 0.01,
            floor_allowance: 0.02,
            proportion: None,
        }
    }
}

/// Candidate against control: the relative gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerformanceLimit {
    /// Where it holds.
    pub shape: String,
    /// `1 - candidate/control` of paired medians must be at least this, over the whole interval.
    pub min_latency_reduction: f64,
    /// The only candidate that it holds for; all of them without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// A variant or peer to compare with, instead of the control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
}

impl PerformanceLimit {
    /// Whether a candidate has to keep it.
    pub fn holds_for(&self, candidate: &str) -> bool {
        self.candidate.as_deref().is_none_or(|only| only == candidate)
    }
}

/// A time in microseconds; it belongs to one device and one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbsoluteLimit {
    /// Device name as the driver gives it.
    pub device: String,
    /// Where it holds.
    pub shape: String,
    /// Largest p50 of kernel time, in microseconds.
    pub max_p50_us: f64,
    /// Whether a run on another device, where the limit says nothing, leaves it open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

/// Candidate against somebody else's kernels, on every timed shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerLimit {
    /// A candidate's time over that of every peer must be at most this, over the whole interval.
    pub max_ratio: f64,
    /// Shapes on which the same must hold from FP16 originals, with the quantiser's time in it, against `baseline`.
    #[serde(default)]
    pub from_originals: Vec<String>,
    /// The peer that a user would otherwise call, e.g. `torch/default`.
    pub baseline: String,
    /// Peers to measure besides PyTorch, where they are installed: `cudnn`, `fa3`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The peer, e.g. `cudnn/fp8`, that a candidate's end-to-end error must not exceed on any timed shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_worse_than: Option<String>,
    /// A peer, and how far a candidate's errors may exceed its, in every timed distribution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<PeerAccuracy>,
}

/// End-to-end errors against a peer's on the same inputs, as root mean squares over that of the result: what both round shows in
/// the proportion, however large outputs are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerAccuracy {
    /// Whose, e.g. `fa3/fp8`.
    pub peer: String,
    /// A candidate's error over the peer's is at most this.
    pub max_ratio: f64,
}

/// Shapes too large to be checked and timed like the others: the first seed only, against part of the reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargeShapes {
    /// Which.
    pub shapes: Vec<String>,
    /// Query rows that the float64 reference is computed for, spread over all heads.
    pub reference_rows: u32,
    /// Instead of [`Timing::rounds`]; a sitting has at least one.
    pub rounds: u32,
}

/// Shapes that are checked with the first seed alone, on some distributions. What quantising costs there is not asked: rows of
/// few keys carry it whole, whatever the kernel is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OddShapes {
    /// Which.
    pub shapes: Vec<String>,
    /// What inputs are drawn like.
    #[serde(default)]
    pub distributions: Vec<Distribution>,
}

/// How often a candidate's output must repeat, bit for bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayLimit {
    /// Replays of a CUDA graph of one launch.
    pub count: u32,
    /// On which shapes, with the first seed.
    pub shapes: Vec<String>,
}

/// What a profile must show; asked only when a profile was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileLimit {
    /// Where it holds.
    pub shape: String,
    /// The only candidate that it holds for; all of them without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// The tensor pipe works in at least this share of active cycles, in percent.
    pub min_tensor_percent: f64,
    /// Or else device memory is used to less than this share of its peak, in percent; without it there is no else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub or_dram_below_percent: Option<f64>,
}

impl ProfileLimit {
    /// Whether a candidate has to keep it.
    pub fn holds_for(&self, candidate: &str) -> bool {
        self.candidate.as_deref().is_none_or(|only| only == candidate)
    }
}

/// What would make a merge excellent; never part of the decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aspiration {
    /// Where.
    pub shape: String,
    /// Against which peer, e.g. `torch/default`.
    pub peer: String,
    /// Wanted speedup over it, as a ratio of paired medians.
    pub min_speedup: f64,
}

/// What the machine code of every candidate must and must not be made of, by mnemonic without modifiers. Judged on the
/// suite's architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineCode {
    /// In every attention entry, e.g. `QGMMA`.
    pub require: Vec<String>,
    /// In no entry, e.g. `LDL`.
    #[serde(default)]
    pub forbid: Vec<String>,
}

/// How samples are taken. A sitting is of one shape and one timed distribution: it loads every module and places every buffer
/// anew, elsewhere than the others, and then takes a few rounds; where kernels lie is part of the noise, so the unit of every
/// interval is the sitting. What the runner keeps, and the judge takes for granted:
///
/// - a round times every subject once (the control twice, the second time as [`crate::subject::Arm::Again`]) in random
///   order, with each timer; no ratio leaves its round;
/// - on one shape, in one distribution and state of the L2, rounds are numbered on through the sittings: a number is one
///   round of one sitting;
/// - [`Suite::rounds_of_sitting`] rounds a sitting, [`Timing::sittings`] sittings before the first verdict, and as many
///   again while `judge::open_distributions` names the distribution, at most [`Suite::looks`] times in all;
/// - a cold block ([`crate::evidence::Cache::Cold`]) of each subject, the control's second one too, in one round a sitting,
///   by the timer of calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Sittings that the first rounds are spread over; a recorded run that does not say was measured in one.
    pub sittings: u32,
    /// Rounds before the first verdict, of all sittings together; each round times every subject once, in random order.
    pub rounds: u32,
    /// Rounds after which an inconclusive gate stays so.
    pub max_rounds: u32,
    /// Launches of a block.
    pub launches: u32,
    /// Untimed launches before a block.
    pub warmup: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { sittings: 16, rounds: 32, max_rounds: 96, launches: 20, warmup: 3 }
    }
}

impl Timing {
    /// Whether placement is not in the noise: so it was measured before there were sittings, and is judged as it was then.
    pub fn is_of_one_sitting(&self) -> bool {
        self.sittings <= 1
    }
}

fn no_sampling() -> u32 {
    u32::MAX
}

/// What a search may vary of a gate file's variants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    /// Values of a definition, by name.
    #[serde(skip_serializing_if = "Ordered::is_empty")]
    pub define: Ordered<Vec<Value>>,
    /// Values of a launch value, by name.
    #[serde(rename = "let", skip_serializing_if = "Ordered::is_empty")]
    pub values: Ordered<Vec<Value>>,
    /// Whole settings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<Ordered<Value>>,
}

/// What runs on several kinds of device must come to together. A kind that is not named is required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetRule {
    /// Kinds that must say MERGE.
    pub require: Vec<String>,
    /// Kinds whose verdict may be missing or left open; what they find still counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_defer: Vec<String>,
}

/// How much slower a candidate may be anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regressions {
    /// `candidate/control - 1` may be at most this on every timed shape.
    pub max_slowdown: f64,
}

/// What of a suite's correctness may be judged on the emulator, where there is no GPU. Time never may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emulation {
    /// Shapes that are emulated; the others wait for a GPU.
    pub shapes: Vec<String>,
    /// Larger grids are sampled down to this many CTAs, spread evenly over the grid; a declared operator's never are.
    #[serde(default = "no_sampling")]
    pub max_ctas: u32,
}
