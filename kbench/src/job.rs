//! The protocol between the pipeline and `sdpa-runner`: one job as the first line of the runner's standard input, then
//! events on its standard output, one JSON line each, the last of them `Done` or `Error`. The runner ends itself when
//! its standard input closes, so that it never outlives the pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kernel_spec::expr::Value;
use kernel_spec::launch::Step;
use kernel_spec::schedule::Schedule;
use serde::{Deserialize, Serialize};

use crate::ceilings::Ceilings;
use crate::deferral::Deferral;
use crate::evidence::{Device, Errors, GpuState, LaunchOutcome, LaunchRecord, Operands, Peers, Samples};
use crate::operator::{Operator, Problem};
use crate::subject::Subject;
use crate::suite::Suite;

/// Exit status of a runner whose last line was `Done`.
pub const EXIT_DONE: i32 = 0;
/// Exit status of a runner whose last line was `Error`.
pub const EXIT_ERROR: i32 = 1;
/// Exit status of a runner that could not read its job.
pub const EXIT_BAD_JOB: i32 = 2;

/// What is computed, and where the files are that say so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Axes, tensors, distributions.
    pub operator: Operator,
    /// The folder of the gate file, from which reference, check and generate are read.
    #[serde(default)]
    pub folder: PathBuf,
    /// The interpreter for them, with its arguments.
    #[serde(default)]
    pub python: Vec<String>,
    /// Environment of that interpreter.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// What that interpreter and its packages are read from, besides the system's own folders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readable: Vec<PathBuf>,
    /// Where inputs lie that `generate` made: `<generated>/<inputs key>/<input>.bin`, dense, little-endian. The built-in
    /// operator keeps tensors there that one process draws for all.
    #[serde(default)]
    pub generated: PathBuf,
}

/// A module to load, and what it must say of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Module {
    /// Variant.
    pub variant: String,
    /// Its build; of several, any.
    pub files: Files,
    /// The toggles that it was asked for; a module that contradicts them is refused.
    pub toggles: BTreeMap<String, u32>,
    /// How to launch its entry functions.
    pub launches: Vec<LaunchRecord>,
    /// What is done on each shape, by name, where a gate file says so instead; with the build for that shape.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub planned: BTreeMap<String, Planned>,
    /// Host code that is called instead, where the variant is some; then there are no files and no launches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Callable>,
    /// Whose codes and scales entries that take them row by row are given: their own, or those that another form holds.
    #[serde(default, skip_serializing_if = "Operands::is_row_major")]
    pub quantised_as: Operands,
}

/// A Python function on tensors that does its own launches, and the process in which it is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Callable {
    /// The driver: program and arguments.
    pub argv: Vec<String>,
    /// Variables that it is started with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// What the driver, Python and its packages are read from, besides the system's own folders and the gate file's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readable: Vec<PathBuf>,
    /// The file, from the gate file's folder.
    pub source: String,
    /// The function in it.
    pub function: String,
    /// What it may be handed besides tensors, by shape.
    pub values: BTreeMap<String, BTreeMap<String, Value>>,
    /// What its process may use.
    pub limits: CallLimits,
}

/// What the process of a callable may use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallLimits {
    /// Seconds for its import and for the first call on a shape, when compilers run.
    pub first_s: f64,
    /// Seconds for anything else.
    pub then_s: f64,
    /// Memory of the host that it and what it started may hold, in bytes.
    pub memory_bytes: u64,
}

/// What a variant of a gate file does on one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The build for this shape.
    pub files: Files,
    /// What the host does, in order; entries by their symbols in the PTX.
    pub steps: Vec<Step>,
    /// Memory besides inputs and outputs.
    pub scratch: Vec<Scratch>,
}

impl Planned {
    /// The key of what is done on a shape with one seed, where that differs by seed.
    pub fn key_of_seed(shape: &str, seed: u64) -> String {
        format!("{shape}.seed{seed}")
    }
}

/// Memory that a variant uses besides inputs and outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scratch {
    /// By which steps name it.
    pub name: String,
    /// Its size.
    pub bytes: usize,
    /// Zeroed once instead of poisoned before each launch: a kernel leaves it as it wants to find it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub zero_once: bool,
}

/// One build, for whoever executes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The cubin, which a GPU loads.
    pub image: PathBuf,
    /// The PTX that the cubin was assembled from, which the emulator executes; machine code alone has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ptx: Option<PathBuf>,
}

impl Module {
    /// What is done on a problem, where a gate file says so.
    pub fn planned(&self, problem: &Problem) -> Option<&Planned> {
        let name = &problem.shape.name;
        self.planned.get(&Planned::key_of_seed(name, problem.seed)).or_else(|| self.planned.get(name))
    }

    /// The build that runs on a problem.
    pub fn files(&self, problem: &Problem) -> &Files {
        self.planned(problem).map_or(&self.files, |planned| &planned.files)
    }
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
    /// The same with the sums of Hopper's tensor cores, bit for bit: slow, and for comparing with a GPU's answers.
    EmulatedHopper,
}

// Lines are read and written here and nowhere else: each program that did it for itself would compile readers and writers of
// every type in them, which took longer than the rest of the runner.

impl Job {
    /// A job from the line that holds it.
    pub fn from_line(line: &str) -> serde_json::Result<Job> {
        serde_json::from_str(line)
    }

    /// The line that holds it, without its end.
    pub fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

impl Event {
    /// An event from the line that holds it.
    pub fn from_line(line: &[u8]) -> serde_json::Result<Event> {
        serde_json::from_slice(line)
    }

    /// The line that holds it, without its end.
    pub fn to_line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// So many steps are done of so many; what comes now, in a few words.
    pub fn progress(done: usize, total: usize, what: &str) -> Event {
        Event::Progress { done: done as u64, total: total as u64, what: what.to_owned() }
    }
}

/// What the runner is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
pub enum Job {
    /// Describe the device.
    Probe,
    /// Describe every device that is visible, in CUDA's order, without opening any.
    Devices,
    /// Run one variant on problems and write its outputs. No reference exists in this process.
    Launch(LaunchJob),
    /// The same for several variants on one list of problems and by one executor, in one process: its start, or drawing the
    /// inputs, takes longer than their launches. On a GPU it breaks off at the first fault of any of them.
    LaunchBatch {
        /// A job for each variant.
        jobs: Vec<LaunchJob>,
    },
    /// Stay: keep one context, and run launch batches and bench jobs as they come, one a line, each to its own `Done`. Opening
    /// a context takes longer than most of these jobs, and the driver opens those of all GPUs one after the other. The first
    /// job that fails is the last.
    Resident,
    /// Compare written outputs with float64 attention. No device is touched.
    Errors(ErrorsJob),
    /// Stay: take errors jobs as they come, one a line, each to its own `Done`, and keep the references in between.
    Comparer,
    /// Time variants and peers against each other.
    Bench(Box<BenchJob>),
    /// Launch one variant for a profiler that watches.
    Profile(ProfileJob),
    /// Run the emulator's conformance probes on the GPU: the answer of the i-th, in bytes, goes to `<out_dir>/<i>.bin`.
    Conformance {
        /// Where answers go.
        out_dir: PathBuf,
    },
    /// Measure what the device can do at most.
    Ceilings(CeilingsJob),
    /// Have a declared operator's `generate` make the inputs of problems. No device is touched.
    Generate(GenerateJob),
}

/// See [`Job::Generate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerateJob {
    /// What is computed; files go to its `generated` folder.
    pub task: Task,
    /// Whose inputs are made.
    pub problems: Vec<Problem>,
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
    /// What is computed.
    #[serde(default)]
    pub task: Task,
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
    /// `<out_dir>/<problem id>.rows.json`, which parts that is, as the operator writes them.
    pub max_ctas: Option<u32>,
    /// On the emulator, the schedules that are run with every check; outputs are the first one's. Where empty: greedy
    /// with every check, and one seeded without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    /// On the emulator, whether its checks are left out, since only outputs are asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchecked: bool,
    /// On the emulator, what each launch of the first schedule does is counted and goes to `<out_dir>/<problem id>.counts.json`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counts: bool,
    /// Threads of the host that the emulator may take, and then only what nobody else wants of them; 0 takes all.
    #[serde(default, skip_serializing_if = "is_unlimited")]
    pub threads: u32,
}

fn is_unlimited(threads: &u32) -> bool {
    *threads == 0
}

/// See [`Job::Errors`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorsJob {
    /// What is computed.
    #[serde(default)]
    pub task: Task,
    /// Problems, in order.
    pub problems: Vec<Problem>,
    /// The directory of each subject's outputs; a file may be absent.
    pub outputs: BTreeMap<String, PathBuf>,
    /// What subjects were given, which is what their kernel error is measured against; row-major where absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub operands: BTreeMap<String, Operands>,
    /// The subject that others are compared with.
    pub control: String,
    /// Where the control's outputs lie on what a subject was given, by subject, where that is not what the control is
    /// given. Of large problems alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub control_on: BTreeMap<String, PathBuf>,
    /// How many rows are compared of each of these problems, by id; all of the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sampled: BTreeMap<String, u32>,
    /// What those rows are drawn by.
    #[serde(default)]
    pub row_seed: u64,
    /// An element is bad when its end-to-end error exceeds this.
    pub bad_element: f64,
    /// Only the references are computed, which a comparer then has: there are no outputs yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ahead: bool,
    /// Threads of the host that it may take, and then only what nobody else wants of them; 0 takes all.
    #[serde(default, skip_serializing_if = "is_unlimited")]
    pub threads: u32,
}

/// See [`Job::Bench`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchJob {
    /// What to time and when to stop. Input sets are those of the suite's seeds.
    pub suite: Suite,
    /// What is computed.
    #[serde(default)]
    pub task: Task,
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
    /// Draws, for each sitting, memory that is taken before modules and buffers, the order of the modules and that of the
    /// outputs, so that they lie elsewhere than in another sitting: kernels of ten microseconds differ by half a percent with
    /// it. 0 draws none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub placement: u64,
    /// Where it times its shapes together with others, each on another GPU; all of them are its own without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// Whether it is a search's, whose result is validated: nothing is timed with a cold L2, and where there are fewer
    /// different inputs than launches of a block, two launches have the same. A kernel could then copy the first one's answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_search: bool,
}

/// Shapes that several bench jobs time together, each shape in one of them: whoever names a shape's file first has it. So
/// whatever is compared with each other was timed on one GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// A folder with a file for each shape that somebody took, which says who.
    pub folder: PathBuf,
    /// Who asks. A job that begins gives back what was taken in its name: nothing that was measured then is kept.
    pub worker: String,
}

fn is_zero(placement: &u64) -> bool {
    *placement == 0
}

/// See [`Job::Profile`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileJob {
    /// What is computed.
    #[serde(default)]
    pub task: Task,
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
        subject: Subject,
    },
    /// The device failed for good while a subject was on it: nothing else is launched, and the job ends.
    Fault {
        /// Shape.
        shape: String,
        /// Variant.
        subject: Subject,
        /// What the driver says.
        why: String,
    },
    /// One launch ended.
    Launched {
        /// How.
        outcome: LaunchOutcome,
    },
    /// One launch of a batch ended well.
    LaunchedOf {
        /// Variant.
        variant: String,
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
    /// There is no device.
    NoDevice(Deferral),
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

/// The file of what emulated launches were counted to do: a JSON list, one a launch, in their order.
pub fn counts_file(problem: &Problem) -> String {
    format!("{}.counts.json", problem.id())
}

/// The file of an emulated launch's findings: a JSON list, each with the schedule that replays it.
pub fn findings_file(problem: &Problem) -> String {
    format!("{}.findings.json", problem.id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Distribution;

    #[test]
    fn lines_survive_a_round_trip() {
        let problem = Problem { shape: "tiny".parse().unwrap(), seed: 3, distribution: Distribution::MaximumLast };
        let job = Job::Errors(ErrorsJob {
            // Of the built-in operator too: without the folder every process would draw the same inputs again.
            task: Task { generated: "generated".into(), ..Task::default() },
            problems: vec![problem.clone()],
            outputs: BTreeMap::from([("stage0".into(), "out".into())]),
            operands: BTreeMap::from([("stage0".into(), Operands::HopperImages)]),
            control: "stage0".into(),
            control_on: BTreeMap::from([("hopper".into(), "beside".into())]),
            sampled: BTreeMap::from([(problem.id(), 64)]),
            row_seed: u64::MAX,
            bad_element: 0.06,
            ahead: false,
            threads: 0,
        });
        let line = serde_json::to_string(&job).unwrap();
        assert!(line.starts_with(r#"{"job":"errors""#) && !line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Job>(&line).unwrap(), job);
        assert_eq!(output_file(&problem), "tiny.seed3.maximum-last.f16");
    }
}
