//! The protocol between the pipeline and `sdpa-runner`: one job as the first line of the runner's standard input, then
//! events on its standard output, one JSON line each, the last of them `Done` or `Error`. The runner ends itself when
//! its standard input closes, so that it never outlives the pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ceilings::Ceilings;
use crate::evidence::{Device, Errors, GpuState, LaunchOutcome, LaunchRecord, Operands, Peers, Samples};
use crate::shape::Problem;
use crate::suite::Suite;

/// Exit status of a runner whose last line was `Done`.
pub const EXIT_DONE: i32 = 0;
/// Exit status of a runner whose last line was `Error`.
pub const EXIT_ERROR: i32 = 1;
/// Exit status of a runner that could not read its job.
pub const EXIT_BAD_JOB: i32 = 2;

/// A module to load, and what it must say of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Variant.
    pub variant: String,
    /// The cubin, which a GPU loads.
    pub image: PathBuf,
    /// The PTX that the cubin was assembled from, which the emulator executes.
    pub ptx: PathBuf,
    /// The toggles that it was asked for; a module that contradicts them is refused.
    pub toggles: BTreeMap<String, u32>,
    /// How to launch its entry functions.
    pub launches: Vec<LaunchRecord>,
}

/// A peer process to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCommand {
    /// Name, e.g. `torch`.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// What executes a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Executor {
    /// The first CUDA device.
    Gpu,
    /// The PTX on the CPU, with every check.
    Emulator,
}

/// What the runner is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
pub enum Job {
    /// Describe the device.
    Probe,
    /// Run one variant on problems and write its outputs. No reference exists in this process.
    Launch(LaunchJob),
    /// Compare written outputs with float64 attention. No device is touched.
    Errors(ErrorsJob),
    /// Time variants and peers against each other.
    Bench(Box<BenchJob>),
    /// Launch one variant for a profiler that watches.
    Profile(ProfileJob),
    /// Measure what the device can do at most.
    Ceilings(CeilingsJob),
}

/// See [`Job::Ceilings`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CeilingsJob {
    /// The cubin of `ceilings.cu` for this device.
    pub image: PathBuf,
}

/// See [`Job::Launch`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchJob {
    /// What to run.
    pub module: Module,
    /// On what.
    pub problems: Vec<Problem>,
    /// Outputs go to `<out_dir>/<problem id>.f16`, raw little-endian FP16.
    pub out_dir: PathBuf,
    /// On what it is run.
    pub executor: Executor,
    /// How often each of these problems, by id, is launched again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replays: BTreeMap<String, u32>,
    /// On the emulator, a grid of more CTAs than this is sampled; which rows the sample computed goes to
    /// `<out_dir>/<problem id>.rows.json`, a list of [`Rows`].
    pub max_ctas: Option<u32>,
}

/// Consecutive query rows of one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Batch times heads, flattened.
    pub head: u32,
    /// First row.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// See [`Job::Errors`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorsJob {
    /// Problems, in order.
    pub problems: Vec<Problem>,
    /// The directory of each subject's outputs; a file may be absent.
    pub outputs: BTreeMap<String, PathBuf>,
    /// What subjects were given, which is what their kernel error is measured against; row-major where absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub operands: BTreeMap<String, Operands>,
    /// The subject that others are compared with.
    pub control: String,
    /// How many rows are compared of each of these problems, by id; all of the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sampled: BTreeMap<String, u32>,
    /// An element is bad when its end-to-end error exceeds this.
    pub bad_element: f64,
}

/// See [`Job::Bench`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchJob {
    /// What to time and when to stop. Input sets are those of the suite's seeds.
    pub suite: Suite,
    /// Modules of the variants to time.
    pub modules: Vec<Module>,
    /// SHA-256 of verified outputs: variant, then problem id.
    pub verified: BTreeMap<String, BTreeMap<String, String>>,
    /// Peers to start.
    pub peers: Vec<PeerCommand>,
    /// Where tensors for peers and their outputs go.
    pub work_dir: PathBuf,
    /// Seed of the order of blocks.
    pub order_seed: u64,
}

/// See [`Job::Profile`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileJob {
    /// What to launch, on a GPU.
    pub module: Module,
    /// On what.
    pub problem: Problem,
    /// How often; the outcome is that of the last launch.
    pub launches: u32,
}

/// A line that the runner writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Work goes on.
    Progress {
        /// Steps done.
        done: u64,
        /// Steps planned.
        total: u64,
        /// What is being done, in a few words.
        what: String,
    },
    /// A subject is about to be timed: if the runner is lost now, this is who was running.
    Timing {
        /// Shape.
        shape: String,
        /// Variant or peer.
        subject: String,
    },
    /// One launch ended.
    Launched {
        /// How.
        outcome: LaunchOutcome,
    },
    /// One output was compared.
    Compared {
        /// Whose.
        subject: String,
        /// On what.
        problem: Problem,
        /// With which result.
        errors: Errors,
    },
    /// The device, as found.
    Device {
        /// The device.
        device: Device,
        /// Its state now.
        state: GpuState,
        /// Other processes that compute on it, as `pid name`.
        others: Vec<String>,
    },
    /// There is no device; why, and what to do: "why; remedy".
    NoDevice {
        /// Why.
        why: String,
    },
    /// Everything that was timed.
    Timed {
        /// Blocks.
        samples: Box<Samples>,
        /// Peers.
        peers: Box<Peers>,
    },
    /// What the device can do at most.
    Ceilings {
        /// All rates.
        ceilings: Box<Ceilings>,
    },
    /// The job is done.
    Done,
    /// The job cannot be done; one line.
    Error {
        /// Why.
        why: String,
    },
}

impl BenchJob {
    /// The directory that a subject's outputs are written to; a subject may hold a slash.
    pub fn output_dir(work_dir: &std::path::Path, subject: &str) -> PathBuf {
        work_dir.join(subject.replace('/', "-"))
    }
}

/// The file of an output within a subject's directory.
pub fn output_file(problem: &Problem) -> String {
    format!("{}.f16", problem.id())
}

/// The file that says which rows of an output were computed; absent when all were.
pub fn rows_file(problem: &Problem) -> String {
    format!("{}.rows.json", problem.id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Distribution;

    #[test]
    fn lines_survive_a_round_trip() {
        let problem = Problem { shape: "tiny".parse().unwrap(), seed: 3, distribution: Distribution::MaximumLast };
        let job = Job::Errors(ErrorsJob {
            problems: vec![problem.clone()],
            outputs: BTreeMap::from([("stage0".into(), "out".into())]),
            operands: BTreeMap::from([("stage0".into(), Operands::HopperImages)]),
            control: "stage0".into(),
            sampled: BTreeMap::from([(problem.id(), 64)]),
            bad_element: 0.06,
        });
        let line = serde_json::to_string(&job).unwrap();
        assert!(line.starts_with(r#"{"job":"errors""#) && !line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Job>(&line).unwrap(), job);
        assert_eq!(output_file(&problem), "tiny.seed3.maximum-last.f16");
    }
}
