//! What a search writes down: its plan, one line for each thing that happened, and the evidence about its finalists.
//! `tune.jsonl` is only ever appended to; what was evaluated before a kill is read back and never done again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::space::{Dimension, Toggles};
use crate::deferral::Deferral;
use crate::evidence::{Builds, Checks, Samples};
use crate::profile::{KernelProfile, Settings};
use crate::suite::{Suite, VariantPatch};
use stats::Interval;

/// What a search was asked to do; `tune-plan.json`. Everything that decides which configurations are tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The suite that control, limits and architecture come from.
    pub suite: String,
    /// The variant that every time is compared with.
    pub control: String,
    /// The shape that is timed.
    pub shape: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Configurations to evaluate at most, rejected ones included.
    pub budget: u32,
    /// Elites to keep.
    pub elites: usize,
    /// Evaluations without a change of the elites after which the search has converged.
    pub patience: u32,
    /// Seconds after which nothing new is proposed; 0 is no limit.
    pub time_limit_s: u64,
    /// Whether the rest of the space is evaluated after the search.
    pub exhaustive: bool,
    /// Whether elites are profiled, and what that says is heeded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ncu: bool,
    /// The command of the external proposer, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposer: Option<String>,
    /// What is searched over.
    pub dimensions: Vec<Dimension>,
    /// Configurations that make sense.
    pub valid: usize,
    /// Where the search begins: registered variants that lie in the space.
    pub starts: Vec<Toggles>,
}

/// Who proposed a configuration, in words.
pub type Origin = String;

/// A configuration to evaluate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its name.
    pub name: String,
    /// Its toggles.
    pub toggles: Toggles,
    /// Where it comes from: a start, a mutation of an elite, the proposer.
    pub origin: Origin,
}

/// How the evaluation of a configuration ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Outcome {
    /// A hard gate fails, or the family refuses the combination.
    Rejected {
        /// What rejected it: `refused`, `build`, `identity`, `resources`, `correctness`, `performance`.
        stage: String,
        /// Which gate, with its figure.
        reason: String,
    },
    /// Every hard gate holds, and there is no time.
    Untimed(Deferral),
    /// Every hard gate holds, and it was timed beside the control.
    Timed(Figures),
}

/// Times and resources of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Median kernel time in microseconds.
    pub p50_us: f64,
    /// The control's, in the same rounds.
    pub control_p50_us: f64,
    /// Time over the control's, paired by round: what configurations are ranked by. Times of different jobs or devices
    /// are never compared with each other, only through the control beside them.
    pub over_control: Interval,
    /// Registers of the gated entry, on the suite's architecture.
    pub registers: u32,
    /// Static plus dynamic shared memory of it, in bytes.
    pub shared_bytes: u32,
    /// The devices that shared its rounds, by their unique ids.
    pub gpus: Vec<String>,
    /// SHA-256 of the verified output of the timed shape, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_sha256: Option<String>,
}

/// One evaluated configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The generation that proposed it.
    pub generation: u32,
    /// Its place there.
    pub slot: u32,
    /// Its name.
    pub name: String,
    /// Its toggles.
    pub toggles: Toggles,
    /// Where it came from.
    pub origin: Origin,
    /// What came of it.
    pub outcome: Outcome,
}

impl Evaluation {
    /// Time over the control's, where it has one.
    pub fn score(&self) -> Option<f64> {
        match &self.outcome {
            Outcome::Timed(figures) => Some(figures.over_control.estimate),
            _ => None,
        }
    }
}

/// The part of a run that a generation belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Guided by what was learned.
    #[default]
    Search,
    /// What the search left, evaluated without choice.
    Sweep,
}

/// Configurations that were proposed together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number, from 0.
    pub index: u32,
    /// What it is part of.
    pub phase: Phase,
    /// The configurations.
    pub proposals: Vec<Proposal>,
    /// What went wrong with the external proposer, so that the built-in one took over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Why no more was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stopped {
    /// The budget is spent.
    Budget,
    /// The elites did not change for as long as the plan's patience.
    Converged,
    /// The time limit.
    TimeLimit,
    /// Nothing is left to try.
    SpaceExhausted,
}

impl Stopped {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Stopped::Budget => "budget spent",
            Stopped::Converged => "converged",
            Stopped::TimeLimit => "time limit",
            Stopped::SpaceExhausted => "nothing left to try",
        }
    }
}

/// An elite under the profiler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profiled {
    /// How the profiler was run; absent when it was not.
    pub settings: Option<Settings>,
    /// What it said; the variant is the configuration's name.
    pub kernel: KernelProfile,
}

/// What time is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// Looking for devices and compilers.
    SetUp,
    /// Waiting for builds.
    Builds,
    /// Launches, with the start of their processes.
    Launches,
    /// The comparison with float64.
    Errors,
    /// Timing, with the start of its process.
    Timing,
    /// The profiler.
    Profiling,
}

impl Activity {
    /// Every activity of a device.
    pub const OF_A_DEVICE: [Activity; 5] =
        [Activity::Builds, Activity::Launches, Activity::Errors, Activity::Timing, Activity::Profiling];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Activity::SetUp => "set-up",
            Activity::Builds => "waits for builds",
            Activity::Launches => "launches",
            Activity::Errors => "float64",
            Activity::Timing => "timing",
            Activity::Profiling => "profiler",
        }
    }
}

/// One stretch of time, in seconds since its session began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// On what.
    pub activity: Activity,
    /// Begin.
    pub from: f64,
    /// End.
    pub to: f64,
}

/// The part of a session that time is spent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Before the first proposal.
    SetUp,
    /// Search, and sweep.
    Search,
    /// Finals.
    Finals,
}

/// A line of `tune.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// The search begins, or goes on after an interruption.
    Session {
        /// When, RFC 3339, UTC.
        started: String,
        /// Unique ids of the devices that measure.
        gpus: Vec<String>,
    },
    /// Configurations were proposed.
    Generation(Generation),
    /// One was evaluated.
    Evaluation(Box<Evaluation>),
    /// An elite was profiled, or could not be.
    Profiled(Box<Profiled>),
    /// A phase is over.
    End {
        /// Which.
        phase: Phase,
        /// Why.
        stopped: Stopped,
        /// Seconds since this session began.
        seconds: f64,
    },
    /// What a device, or all of them, was busy with. No result depends on it.
    Spent {
        /// In which part of the session.
        stage: Stage,
        /// The device's unique id; absent where it was no device's time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<String>,
        /// Configurations that it was spent on.
        configurations: usize,
        /// On what, one after the other.
        spans: Vec<Span>,
    },
}

/// Reads the lines back. A last line that a kill cut short is left out; any other that is no line is an error.
pub fn parse_journal(text: &str) -> Result<Vec<Line>, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse =
        |(i, line): (usize, &str)| serde_json::from_str(line).map_err(|error| format!("line {}: {error}", i + 1));
    whole.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(parse).collect()
}

/// Consecutive rounds of one sitting: on one device, with modules and buffers that stayed where they were. Where they lie
/// decides half a percent of the time of a kernel of ten microseconds, alike in all rounds of a sitting and anew in the
/// next, so that sittings are independent of each other and rounds of one are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rounds {
    /// The device's unique id.
    pub gpu: String,
    /// First round.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// The evidence about the finalists: they met each other and the control in the same rounds; `tune-finals.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finals {
    /// The suite that they met under; absent when there was nobody to meet.
    pub suite: Option<Suite>,
    /// What ptxas said.
    pub builds: Builds,
    /// Errors against float64.
    pub checks: Checks,
    /// Blocks.
    pub samples: Samples,
    /// How each finalist is made from a registered variant.
    pub patches: BTreeMap<String, VariantPatch>,
    /// Sittings: which device ran which rounds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<Rounds>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> Line {
        Line::Evaluation(Box::new(Evaluation {
            generation: 0,
            slot: 1,
            name: name.into(),
            toggles: Toggles::from([("stages".into(), 2)]),
            origin: "start".into(),
            outcome: Outcome::Rejected { stage: "resources".into(), reason: "spills 8 bytes".into() },
        }))
    }

    #[test]
    fn a_line_that_a_kill_cut_short_is_left_out() {
        let text: String = ["a", "b"].map(|n| serde_json::to_string(&line(n)).unwrap() + "\n").concat();
        assert_eq!(parse_journal(&text).unwrap(), [line("a"), line("b")]);
        assert_eq!(parse_journal(&text[..text.len() - 9]).unwrap(), [line("a")]);
        assert_eq!(parse_journal("").unwrap(), []);
        assert!(parse_journal(&format!("{{}}\n{text}")).unwrap_err().starts_with("line 1: "));
    }

    #[test]
    fn lines_survive_a_round_trip() {
        let figures = Figures {
            p50_us: 9.5,
            control_p50_us: 14.0,
            over_control: Interval { estimate: 0.68, low: 0.67, high: 0.69 },
            registers: 96,
            shared_bytes: 20_608,
            gpus: vec!["GPU-0".into()],
            output_sha256: Some("00".into()),
        };
        for outcome in [Outcome::Timed(figures), Outcome::Untimed(Deferral::because("emulated"))] {
            let Line::Evaluation(mut evaluation) = line("a") else { unreachable!() };
            evaluation.outcome = outcome;
            let text = serde_json::to_string(&Line::Evaluation(evaluation.clone())).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), Line::Evaluation(evaluation));
        }
    }
}
