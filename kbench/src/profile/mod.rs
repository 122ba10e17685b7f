//! What Nsight Compute says of a kernel: the figures that are asked for and their metrics on each chip (`metrics`), its
//! CSV (`csv`), and what the figures mean (`diagnosis`). Leaves to others: running the profiler, and the gate.

mod csv;
mod diagnosis;
mod metrics;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::deferral::Deferral;
use crate::operator::Problem;

pub use csv::{CsvError, read};
pub use diagnosis::{Bound, Condition, Diagnosis, Finding, Quantity, RULES, Rule, diagnose};
pub use metrics::{Figure, Unit, available, choose};

/// How the profiler was run. None of it is taken from the user's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Version of ncu, e.g. `2025.3.1.0`.
    pub version: String,
    /// `none`: the clocks are as they are when kernels are timed, not locked to the base clock.
    pub clock_control: String,
    /// `none`: the caches are as the launch before left them, as when kernels are timed.
    pub cache_control: String,
    /// `kernel`: the launch is repeated, with its memory restored, until every metric is collected.
    pub replay_mode: String,
    /// Launches of the kernel before the one that is profiled.
    pub warmup_launches: u32,
}

/// One figure, as ncu gave it and in the figure's own unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// In [`Figure::unit`].
    pub value: f64,
    /// The metric it was read from.
    pub metric: String,
    /// The cell of the CSV, as it stands there.
    pub raw: String,
    /// The unit that the CSV gives for it.
    pub raw_unit: String,
}

/// A reason for which warps did not issue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Reason, e.g. `long_scoreboard`.
    pub reason: String,
    /// Warps that waited for it, on average, whenever an instruction was issued.
    pub warps_per_issue: f64,
    /// Its share of all reasons, 0 to 1.
    pub share: f64,
}

/// What the CSV of one profiled launch says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The kernel that ncu names.
    pub kernel: String,
    /// Grid as ncu prints it, e.g. `(16, 16, 1)`.
    pub grid: String,
    /// CTA size as ncu prints it.
    pub block: String,
    /// Figures that were measured.
    pub figures: BTreeMap<Figure, Measured>,
    /// Figures that were not, each with its reason. None of them is zero.
    pub missing: BTreeMap<Figure, String>,
    /// Stall reasons, the largest first.
    pub stalls: Vec<Stall>,
}

impl Reading {
    /// A figure in its own unit.
    pub fn value(&self, figure: Figure) -> Option<f64> {
        self.figures.get(&figure).map(|measured| measured.value)
    }

    /// Share of some stall reasons together; `None` when stalls were not measured.
    pub fn stall_share(&self, reasons: &[&str]) -> Option<f64> {
        let of = |stall: &&Stall| reasons.contains(&stall.reason.as_str());
        (!self.stalls.is_empty()).then(|| self.stalls.iter().filter(of).map(|stall| stall.share).sum())
    }
}

/// One variant under the profiler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelProfile {
    /// Variant.
    pub variant: String,
    /// On what.
    pub problem: Problem,
    /// Why it was not profiled.
    pub deferred: Option<Deferral>,
    /// SHA-256 of the output of the profiled launch, hex.
    pub output_sha256: Option<String>,
    /// The report, relative to the run directory.
    pub report: Option<String>,
    /// The CSV that ncu makes of the report, relative to the run directory; every figure is in it.
    pub csv: Option<String>,
    /// What the CSV says.
    pub reading: Option<Reading>,
}

impl KernelProfile {
    /// One that could not be had.
    pub fn deferred(variant: &str, problem: &Problem, deferral: Deferral) -> KernelProfile {
        KernelProfile {
            variant: variant.to_owned(),
            problem: problem.clone(),
            deferred: Some(deferral),
            output_sha256: None,
            report: None,
            csv: None,
            reading: None,
        }
    }
}

/// `profile.json`; absent where no profile was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Why nothing was profiled.
    pub deferred: Option<Deferral>,
    /// How ncu was run; absent when it was not.
    pub settings: Option<Settings>,
    /// Every variant that was asked for.
    pub kernels: Vec<KernelProfile>,
}

impl Profile {
    /// The profile of a variant on a shape.
    pub fn get(&self, variant: &str, shape: &str) -> Option<&KernelProfile> {
        self.kernels.iter().find(|k| k.variant == variant && k.problem.shape.name == shape)
    }
}
