//! A suite: which variants meet on which shapes, and the thresholds that decide. Read from TOML; parsing has no
//! effects, and everything that can be wrong with the file is said in one line that names the key.
//! Leaves to others: whether the variants it names exist (the registry's question).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::deferral::Deferral;
use crate::operator::{Distribution, NoShape, Operator, Problem, Shape};
use crate::subject::is_peer;

/// A suite file is wrong.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// Not TOML, a wrong type, a missing or an unknown key.
    #[error("{}", one_line(.0))]
    Syntax(#[from] toml::de::Error),
    /// A shape that has no such name.
    #[error("{key}: {source}")]
    Shape {
        /// The key that names it.
        key: &'static str,
        /// Which shape.
        source: NoShape,
    },
    /// A value that cannot work.
    #[error("{key}: {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
}

/// toml's own message spans several lines with a picture; keep its position and its sentence.
fn one_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let position = text.lines().next().unwrap_or_default().trim_start_matches("TOML parse error ").to_owned();
    format!("{position}: {}", error.message().replace('\n', ", "))
}

/// A candidate of a suite.
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

/// Limits on what ptxas reports for the D=64 entry function.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimits {
    /// Registers per thread.
    pub max_registers: u32,
    /// Static plus dynamic shared memory, in KiB of 1024 bytes.
    pub max_shared_kib: u32,
    /// Bytes of spill stores plus spill loads; gates every entry function.
    pub max_spill_bytes: u32,
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
}

impl Default for CorrectnessLimits {
    fn default() -> Self {
        CorrectnessLimits {
            kernel_max_f16: 0.01,
            kernel_max_e4m3: 0.06,
            kernel_mean: None,
            stress_max: None,
            exact_max: 0.004,
            end_to_end_mean: 0.02,
            bad_element: 0.06,
            bad_share: 0.01,
            floor_allowance: 0.02,
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
}

/// Shapes too large to be checked and timed like the others: the first seed only, against part of the reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargeShapes {
    /// Which.
    pub shapes: Vec<String>,
    /// Query rows that the float64 reference is computed for, spread over all heads.
    pub reference_rows: u32,
    /// Instead of [`Timing::rounds`].
    pub rounds: u32,
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

/// How samples are taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Rounds before the first verdict; each round times every subject once, in random order.
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
        Timing { rounds: 16, max_rounds: 64, launches: 20, warmup: 3 }
    }
}

/// What of a suite's correctness may be judged on the emulator, where there is no GPU. Time never may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emulation {
    /// Shapes that are emulated; the others wait for a GPU.
    pub shapes: Vec<String>,
    /// Larger grids are sampled down to this many CTAs, spread evenly over the grid.
    pub max_ctas: u32,
}

/// A suite file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Its name; the file is `<name>.toml`.
    pub name: String,
    /// One line on what is tried.
    pub about: String,
    /// What is computed.
    #[serde(default, skip_serializing_if = "Operator::is_attention")]
    pub operator: Operator,
    /// The accepted variant.
    pub control: String,
    /// The variants that want to replace it.
    pub candidates: Vec<Candidate>,
    /// Earlier variants, checked and timed beside the control so that the ladder is measured in one run.
    #[serde(default)]
    pub baselines: Vec<String>,
    /// Variants that only this suite knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variants: BTreeMap<String, VariantPatch>,
    /// The architecture whose ptxas figures are gated, e.g. `sm_89`.
    pub arch: String,
    /// Seeds of the inputs.
    pub seeds: Vec<u64>,
    /// Shapes whose correctness is gated.
    pub check_shapes: Vec<String>,
    /// Shapes that every other input distribution is checked on, with the first seed.
    #[serde(default)]
    pub stress_shapes: Vec<String>,
    /// Shapes that are timed.
    pub time_shapes: Vec<String>,
    /// Of these shapes, the large ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large: Option<LargeShapes>,
    /// Where and how often outputs must repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replays: Option<ReplayLimit>,
    /// Resource limits.
    pub resources: ResourceLimits,
    /// Correctness limits.
    #[serde(default)]
    pub correctness: CorrectnessLimits,
    /// With this, a candidate's output may differ from the control's by at most this much on any gated element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_difference_from_control: Option<f64>,
    /// What may be emulated; without it nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulation: Option<Emulation>,
    /// Relative performance gates.
    #[serde(default)]
    pub performance: Vec<PerformanceLimit>,
    /// Absolute performance gates.
    #[serde(default)]
    pub absolute: Vec<AbsoluteLimit>,
    /// Gates on what the profiler says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profile: Vec<ProfileLimit>,
    /// Peers that must be slower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeerLimit>,
    /// What would be excellent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aspiration: Option<Aspiration>,
    /// What candidates' machine code must and must not be made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_code: Option<MachineCode>,
    /// How samples are taken.
    #[serde(default)]
    pub timing: Timing,
    /// What the command line left out of the suite. A run of part of a suite can never end in MERGE.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub narrowed: Vec<Deferral>,
}

impl Suite {
    /// Parses and validates the text of a suite file.
    pub fn parse(text: &str) -> Result<Suite, SuiteError> {
        let suite: Suite = toml::from_str(text)?;
        suite.validate()?;
        Ok(suite)
    }

    /// Every rule that the types do not already hold. Also called after the command line changed something.
    pub fn validate(&self) -> Result<(), SuiteError> {
        let value = |key, why: &str| Err(SuiteError::Value { key, why: why.to_owned() });
        if self.candidates.is_empty() {
            return value("candidates", "name at least one variant to judge");
        }
        if self.seeds.is_empty() {
            return value("seeds", "give at least one seed");
        }
        let unique: std::collections::BTreeSet<u64> = self.seeds.iter().copied().collect();
        if unique.len() != self.seeds.len() {
            return value("seeds", "a seed is named twice: it would count as two cases");
        }
        if self.check_shapes.is_empty() {
            return value("check_shapes", "give at least one shape: nothing is merged unchecked");
        }
        for (key, names) in [
            ("check_shapes", &self.check_shapes),
            ("stress_shapes", &self.stress_shapes),
            ("time_shapes", &self.time_shapes),
        ] {
            self.shapes_of(key, names)?;
        }
        if let Some(emulation) = &self.emulation {
            self.shapes_of("emulation.shapes", &emulation.shapes)?;
            if emulation.max_ctas == 0 {
                return value("emulation.max_ctas", "must be at least 1");
            }
        }
        self.validate_parts()?;
        let mut seen = std::collections::BTreeSet::new();
        for name in self.variant_names() {
            if !seen.insert(name) {
                return value(
                    "candidates",
                    &format!("`{name}` is named twice: control, candidates and baselines differ"),
                );
            }
        }
        if let Some(patch) = self.variants.keys().find(|name| !seen.contains(name.as_str())) {
            return value("variants", &format!("`{patch}` is defined but neither control, candidate nor baseline"));
        }
        for limit in &self.performance {
            if self.narrowed.is_empty() && !self.time_shapes.contains(&limit.shape) {
                return value("performance.shape", &format!("`{}` is gated but not in time_shapes", limit.shape));
            }
            let named = limit.candidate.as_ref();
            if let Some(name) = named.filter(|name| !self.candidates.iter().any(|c| &c.variant == *name)) {
                return value("performance.candidate", &format!("`{name}` is no candidate of this suite"));
            }
            // A peer's name, which only the run can know.
            let rival = limit.against.as_ref().filter(|name| !is_peer(name));
            if let Some(name) = rival.filter(|name| !seen.contains(name.as_str())) {
                return value("performance.against", &format!("`{name}` is no variant of this suite, nor a peer"));
            }
            if !(0.0..1.0).contains(&limit.min_latency_reduction) {
                return value("performance.min_latency_reduction", "is a share: at least 0 and below 1");
            }
        }
        for limit in &self.profile {
            if self.narrowed.is_empty() && !self.check_shapes.contains(&limit.shape) {
                return value("profile.shape", &format!("`{}` is gated but not in check_shapes", limit.shape));
            }
            let named = limit.candidate.as_ref();
            if let Some(name) = named.filter(|name| !self.candidates.iter().any(|c| &c.variant == *name)) {
                return value("profile.candidate", &format!("`{name}` is no candidate of this suite"));
            }
            let percents = [Some(limit.min_tensor_percent), limit.or_dram_below_percent];
            if !percents.iter().flatten().all(|percent| (0.0..=100.0).contains(percent)) {
                return value("profile", "limits are percentages: from 0 to 100");
            }
        }
        let timed = |shape: &String| !self.narrowed.is_empty() || self.time_shapes.contains(shape);
        if let Some(limit) = self.absolute.iter().find(|limit| !timed(&limit.shape)) {
            return value("absolute.shape", &format!("`{}` is gated but not in time_shapes", limit.shape));
        }
        let from_originals = self.peers.iter().flat_map(|limit| &limit.from_originals);
        if let Some(shape) = from_originals.into_iter().find(|shape| !timed(shape)) {
            return value("peers.from_originals", &format!("`{shape}` is gated but not in time_shapes"));
        }
        if self.peers.as_ref().is_some_and(|limit| !(limit.max_ratio > 0.0 && limit.max_ratio <= 1.0)) {
            return value("peers.max_ratio", "is a ratio of times: above 0 and at most 1");
        }
        if let Some(wanted) = self.aspiration.as_ref().filter(|a| !timed(&a.shape)) {
            return value("aspiration.shape", &format!("`{}` is not in time_shapes", wanted.shape));
        }
        let known = |name: &String| self.candidates.iter().any(|c| c.variant == *name) || self.baselines.contains(name);
        if let Some(other) = self.candidates.iter().filter_map(|c| c.unless_spills.as_ref()).find(|name| !known(name)) {
            return value("candidates.unless_spills", &format!("`{other}` is no candidate or baseline of this suite"));
        }
        let mnemonic = |m: &&String| m.is_empty() || !m.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let mut named = self.machine_code.iter().flat_map(|code| code.require.iter().chain(&code.forbid));
        if let Some(wrong) = named.find(mnemonic) {
            return value("machine_code", &format!("`{wrong}` is no mnemonic: name one like QMMA, without modifiers"));
        }
        let timing = &self.timing;
        if timing.launches == 0 || timing.rounds == 0 {
            return value("timing", "launches (--iters) and rounds must be at least 1");
        }
        if let Some(shape) = self.time_shapes.iter().find(|s| !self.check_shapes.contains(s)) {
            return value(
                "time_shapes",
                &format!("`{shape}` is timed but not in check_shapes: nothing is timed unchecked"),
            );
        }
        if (timing.rounds as usize) < crate::stats::MIN_ROUNDS || timing.max_rounds < timing.rounds {
            return value("timing", "rounds must be at least 8, and max_rounds at least rounds");
        }
        Ok(())
    }

    /// Tables that name some of the checked shapes.
    fn validate_parts(&self) -> Result<(), SuiteError> {
        let value = |key, why: &str| Err(SuiteError::Value { key, why: why.to_owned() });
        let parts = [
            ("large.shapes", self.large.as_ref().map(|large| &large.shapes)),
            ("replays.shapes", self.replays.as_ref().map(|replays| &replays.shapes)),
        ];
        for (key, shapes) in parts {
            let shapes = shapes.map(Vec::as_slice).unwrap_or_default();
            self.shapes_of(key, shapes)?;
            let unchecked = shapes.iter().find(|s| self.narrowed.is_empty() && !self.check_shapes.contains(s));
            if let Some(shape) = unchecked {
                return value(key, &format!("`{shape}` is not in check_shapes"));
            }
        }
        if self.large.as_ref().is_some_and(|l| l.reference_rows == 0 || (l.rounds as usize) < crate::stats::MIN_ROUNDS)
        {
            return value("large", "reference_rows must be at least 1, and rounds at least 8");
        }
        if self.replays.as_ref().is_some_and(|replays| replays.count == 0) {
            return value("replays.count", "must be at least 1");
        }
        Ok(())
    }

    /// The rules for a shape, if it is a large one.
    pub fn large(&self, shape: &str) -> Option<&LargeShapes> {
        self.large.as_ref().filter(|large| large.shapes.iter().any(|s| s == shape))
    }

    /// The seeds that a shape is run with.
    pub fn seeds_on(&self, shape: &str) -> &[u64] {
        if self.large(shape).is_some() { &self.seeds[..1] } else { &self.seeds }
    }

    /// Rounds before the first verdict on a shape.
    pub fn rounds_on(&self, shape: &str) -> u32 {
        self.large(shape).map_or(self.timing.rounds, |large| large.rounds)
    }

    /// How often the output on a problem must repeat.
    pub fn replays_of(&self, problem: &Problem) -> Option<u32> {
        let of_kind = problem.seed == self.seeds[0] && problem.distribution == Distribution::Normal;
        let limit = self.replays.as_ref().filter(|limit| of_kind && limit.shapes.contains(&problem.shape.name))?;
        Some(limit.count)
    }

    /// The resource limits of a variant.
    pub fn resources_of(&self, variant: &str) -> &ResourceLimits {
        let candidate = self.candidates.iter().find(|c| c.variant == variant);
        candidate.and_then(|c| c.resources.as_ref()).unwrap_or(&self.resources)
    }

    /// How far a variant's output may be from the control's, where that is limited.
    pub fn max_difference(&self, variant: &str) -> Option<f64> {
        let candidate = self.candidates.iter().find(|c| c.variant == variant)?;
        candidate.max_difference_from_control.or(self.max_difference_from_control)
    }

    /// Control, candidates, baselines: every variant in the order of the reports.
    pub fn variant_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.control.as_str())
            .chain(self.candidates.iter().map(|c| c.variant.as_str()))
            .chain(self.baselines.iter().map(String::as_str))
    }

    /// The shapes of `check_shapes`.
    pub fn check(&self) -> Vec<Shape> {
        self.shapes_of("check_shapes", &self.check_shapes).unwrap_or_default()
    }

    /// The shapes of `stress_shapes`.
    pub fn stress(&self) -> Vec<Shape> {
        self.shapes_of("stress_shapes", &self.stress_shapes).unwrap_or_default()
    }

    /// The shapes of `time_shapes`.
    pub fn time(&self) -> Vec<Shape> {
        self.shapes_of("time_shapes", &self.time_shapes).unwrap_or_default()
    }

    /// The shape of a name.
    pub fn shape(&self, name: &str) -> Result<Shape, NoShape> {
        self.operator.shape(name)
    }

    fn shapes_of(&self, key: &'static str, names: &[String]) -> Result<Vec<Shape>, SuiteError> {
        names.iter().map(|name| self.shape(name).map_err(|source| SuiteError::Shape { key, source })).collect()
    }
}

#[cfg(test)]
mod tests;
