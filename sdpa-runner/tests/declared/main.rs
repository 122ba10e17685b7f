//! The runner on operators that a gate file declares: jobs go in, events come out, and PTX runs on the emulator.

mod callable;
mod cheats;
mod checking;
mod confined;
mod generating;
mod launching;
mod python;
mod reference;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kbench::evidence::{Errors, LaunchOutcome};
use kbench::job::{ErrorsJob, Event, Executor, Files, Job, LaunchJob, Module, Planned, Task, output_file};
use kbench::operator::{Distribution, Operator, Problem, Shape};
use kernel_spec::dtype::Dtype;
use kernel_spec::launch::Step;
use serde_json::{Value, json};

/// A folder of a gate file, and what the runner is asked about it.
struct Gate {
    folder: tempfile::TempDir,
    task: Task,
}

impl Gate {
    /// With this table `[operator]`. There may be no Python, where none is needed.
    fn new(operator: Value) -> Gate {
        let folder = tempfile::tempdir().unwrap();
        let operator: Operator = serde_json::from_value(operator).unwrap();
        let task = Task {
            operator,
            folder: folder.path().to_owned(),
            python: Vec::new(),
            environment: BTreeMap::new(),
            readable: Vec::new(),
            generated: folder.path().join("generated"),
        };
        Gate { folder, task }
    }

    /// With a Python that has numpy; `None` where there is none.
    fn with_python(operator: Value) -> Option<Gate> {
        let python = python::python()?;
        let mut gate = Gate::new(operator);
        gate.task.readable = python::paths(&python);
        gate.task.python = python;
        Some(gate)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves a subject's output of a problem: all outputs, one behind the other.
    fn leave(&self, subject: &str, problem: &Problem, bytes: &[u8]) {
        std::fs::create_dir_all(self.path(subject)).unwrap();
        std::fs::write(self.path(subject).join(output_file(problem)), bytes).unwrap();
    }

    /// What the runner says of a variant that is launched on the emulator.
    fn launch(&self, variant: &str, ptx: &str, problems: &[Problem], planned: &dyn Fn(&Problem) -> Planned) -> Job {
        let file = self.path(&format!("{variant}.ptx"));
        std::fs::write(&file, ptx).unwrap();
        let files = Files { image: PathBuf::new(), ptx: Some(file) };
        let plan = |problem: &Problem| {
            let planned = Planned { files: files.clone(), ..planned(problem) };
            (problem.shape.name.clone(), planned)
        };
        let planned = problems.iter().map(plan).collect();
        let module = Module {
            variant: variant.to_owned(),
            files: files.clone(),
            toggles: BTreeMap::new(),
            launches: Vec::new(),
            planned,
            call: None,
            quantised_as: Default::default(),
        };
        Job::Launch(LaunchJob {
            threads: 0,
            task: self.task.clone(),
            module,
            problems: problems.to_vec(),
            out_dir: self.path(variant),
            executor: Executor::Emulator,
            replays: BTreeMap::new(),
            max_ctas: None,
            schedules: Vec::new(),
            unchecked: false,
            counts: false,
        })
    }

    /// Compares what these subjects left; the first is the control.
    fn errors(&self, subjects: &[&str], problems: &[Problem]) -> Result<BTreeMap<(String, String), Errors>, String> {
        let job = Job::Errors(ErrorsJob {
            task: self.task.clone(),
            problems: problems.to_vec(),
            outputs: subjects.iter().map(|s| ((*s).to_owned(), self.path(s))).collect(),
            operands: BTreeMap::new(),
            control: subjects[0].to_owned(),
            control_on: BTreeMap::new(),
            sampled: BTreeMap::new(),
            row_seed: 0,
            bad_element: 0.06,
            ahead: false,
            threads: 0,
        });
        let compared = run(&job)?.into_iter().filter_map(|event| match event {
            Event::Compared { subject, problem, errors } => Some(((subject, problem.id()), errors)),
            _ => None,
        });
        Ok(compared.collect())
    }
}

/// Runs a job; answers with its events, or with its last word where that is an error.
fn run(job: &Job) -> Result<Vec<Event>, String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sdpa-runner"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the runner starts");
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", serde_json::to_string(job).unwrap()).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let events: Vec<Event> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let status = child.wait().unwrap();
    match events.last() {
        Some(Event::Done) => Ok(events),
        Some(Event::Error { why }) => {
            assert!(!why.contains('\n'), "{why}");
            Err(why.clone())
        }
        last => panic!("{status}, {last:?}"),
    }
}

fn outcomes(job: &Job) -> Vec<LaunchOutcome> {
    let outcome = |event| match event {
        Event::Launched { outcome } => Some(outcome),
        _ => None,
    };
    run(job).unwrap().into_iter().filter_map(outcome).collect()
}

fn problem(name: &str, axes: &[(&str, i64)], seed: u64) -> Problem {
    let axes = axes.iter().map(|(axis, size)| ((*axis).to_owned(), *size)).collect();
    Problem { shape: Shape { name: name.to_owned(), axes }, seed, distribution: Distribution::Normal }
}

/// Elements, little-endian.
fn bytes(dtype: Dtype, values: &[f64]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| dtype.encode(*value, &mut out));
    out
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// The plan of one launch.
fn planned(grid: u32, block: u32, entry: &str, params: Value) -> Planned {
    let launch = json!({"launch": {"entry": entry, "grid": [grid, 1, 1], "block": [block, 1, 1], "params": params}});
    let step: Step = serde_json::from_value(launch).unwrap();
    Planned { files: Files { image: PathBuf::new(), ptx: None }, steps: vec![step], scratch: Vec::new() }
}
