//! The profile step: which variants are profiled on which shapes, in a run whose outputs were verified first; and reading
//! a profile back. Leaves to others: how the profiler is run (`ncu`), the gate and the diagnosis (kbench).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use kbench::deferral::Deferral;
use kbench::evidence::Checks;
use kbench::exit::Exit;
use kbench::gate::{Gate, Kind, State};
use kbench::job::{Executor, Module};
use kbench::operator::{Distribution, Problem, Shape};
use kbench::profile::{Diagnosis, KernelProfile, Profile, diagnose, read};
use kbench::report::{Format, profile_section};
use kbench::suite::Suite;
use serde::Serialize;

use crate::console::Step;
use crate::ncu::Ncu;
use crate::run_dir::RunDir;
use crate::work::Work;

/// Profiles what was verified, where there is a GPU; a finished profile of an interrupted run is kept.
pub fn profile(work: &Work, run: &RunDir, checks: &Checks) -> Result<Profile> {
    let finished: Option<Profile> = run.read_written("profile.json")?;
    if let Some(finished) = finished.filter(|profile| profile.deferred.is_none()) {
        return Ok(finished);
    }
    let no_counters =
        || Deferral::new("the emulator has no performance counters", "run on a machine with an NVIDIA GPU");
    let why = match work.executor {
        Some(Executor::Emulator | Executor::EmulatedHopper) => {
            Some(work.found.why_not.clone().unwrap_or_else(no_counters))
        }
        Some(Executor::Gpu) | None => work.why_nothing_is_checked(),
    };
    match why {
        Some(why) => Ok(Profile { deferred: Some(why), ..Profile::default() }),
        None => profile_here(work, &run.path, checks),
    }
}

/// Profiles control and candidates on the shapes that the suite gates, or on the first that it times. Files go to
/// the folder `profile` in `dir`.
fn profile_here(work: &Work, dir: &Path, checks: &Checks) -> Result<Profile> {
    let ncu = match Ncu::find(&work.runner.logs)? {
        Ok(ncu) => ncu,
        Err(obstacle) => return Ok(Profile { deferred: Some(obstacle), ..Profile::default() }),
    };
    let (suite, modules) = (&work.plan.suite, work.kernels());
    let pairs = pairs(suite, &modules);
    let step = Step::begin("profile", pairs.len() as u64);
    let mut kernels = Vec::new();
    for (module, shape) in pairs {
        step.advance(&format!("{} on {shape}", module.variant));
        let problem = Problem { shape, seed: suite.seeds[0], distribution: Distribution::Normal };
        let verified = |c: &&kbench::evidence::CheckedCase| {
            c.variant == module.variant && c.launch.problem == problem && c.errors.is_some()
        };
        // A kernel that faults would take ncu with it, and figures of a wrong kernel mean nothing.
        kernels.push(if checks.cases.iter().any(|case| verified(&case)) {
            ncu.profile(work.runner, &work.plan.task, module, &problem, dir)?
        } else {
            let why = format!("its output on {} was not verified", problem.id());
            KernelProfile::deferred(&module.variant, &problem, Deferral::new(why, "see the correctness gates"))
        });
    }
    let had = kernels.iter().filter(|k| k.reading.is_some()).count();
    step.end(&format!("{had} of {} kernels, ncu {}", kernels.len(), ncu.settings.version));
    Ok(Profile { deferred: None, settings: Some(ncu.settings), kernels })
}

/// Control and candidates beside each other on every shape that is gated for one of them.
fn pairs<'a>(suite: &Suite, modules: &'a [Module]) -> Vec<(&'a Module, Shape)> {
    let mut pairs = Vec::new();
    for shape in shapes(suite) {
        let here: Vec<_> = suite.profile.iter().filter(|limit| limit.shape == shape.name).collect();
        let wanted = |variant: &str| {
            let candidate = suite.candidates.iter().any(|c| c.variant == variant);
            let limited = here.is_empty() || here.iter().any(|limit| limit.holds_for(variant));
            variant == suite.control || (candidate && limited)
        };
        let modules = modules.iter().filter(|module| wanted(&module.variant));
        pairs.extend(modules.map(|module| (module, shape.clone())));
    }
    pairs
}

/// Shapes of the profile's limits that this run checks; without limits, the first shape that it times or checks.
fn shapes(suite: &Suite) -> Vec<Shape> {
    if suite.profile.is_empty() {
        let mut shapes: Vec<Shape> = suite.time().into_iter().chain(suite.check()).collect();
        // What DESIGN calls the mission, where it is there.
        shapes.sort_by_key(|shape| shape.name != "mission");
        shapes.truncate(1);
        return shapes;
    }
    suite.check().into_iter().filter(|shape| suite.profile.iter().any(|limit| limit.shape == shape.name)).collect()
}

/// What a run says of the profile.
#[derive(Serialize)]
pub struct Profiled {
    pub run: PathBuf,
    pub profile: Profile,
    /// The gates on it.
    pub gates: Vec<Gate>,
    /// What holds each profiled variant back.
    pub diagnoses: BTreeMap<String, Diagnosis>,
    /// All of it in words.
    #[serde(skip)]
    pub text: String,
}

impl Profiled {
    /// Whether a gate on the profile fails, and else whether each of them was measured and there is one.
    pub fn exit(&self) -> Exit {
        let of_gate = |gate: &Gate| match gate.state {
            State::Pass => Exit::Good,
            State::Fail => Exit::Fix,
            State::Deferred { .. } | State::Inconclusive { .. } => Exit::Deferred,
        };
        let none = self.gates.is_empty().then_some(Exit::Deferred);
        Exit::of_all(self.gates.iter().map(of_gate).chain(none))
    }

    /// The profile of a run in which one was asked for.
    pub fn of(run: &RunDir) -> Result<Profiled> {
        let profile: Profile = run.read_json("profile.json")?;
        let gates: Vec<Gate> = run.read_json("gates.json")?;
        let gates: Vec<Gate> = gates.into_iter().filter(|gate| gate.kind == Kind::Profile).collect();
        let of = |kernel: &KernelProfile| Some((kernel.variant.clone(), diagnose(kernel.reading.as_ref()?)));
        let diagnoses = profile.kernels.iter().filter_map(of).collect();
        let narrow = Format::Narrow(crate::console::columns());
        let mut text = profile_section(Some(&profile), true, narrow);
        for gate in &gates {
            let measured = if gate.measured.is_empty() { String::new() } else { format!("{}, ", gate.measured) };
            text.push_str(&format!(
                "{} {}: {measured}wanted {}: {}\n",
                gate.variant, gate.figure, gate.threshold, gate.state
            ));
        }
        Ok(Profiled { run: run.path.clone(), profile, gates, diagnoses, text: text.trim_end().to_owned() })
    }
}

/// Profiles whose figures are not those of the CSV beside them, which is what ncu wrote.
pub fn faults<'k>(run: &RunDir, kernels: impl Iterator<Item = &'k KernelProfile>) -> Vec<String> {
    let fault = |kernel: &KernelProfile| {
        let recorded = kernel.reading.as_ref()?;
        let name = format!("profile of {} on {}", kernel.variant, kernel.problem.id());
        let Some(csv) = &kernel.csv else { return Some(format!("{name}: no CSV is named for its figures")) };
        let text = match run.raw_text(csv) {
            Ok(text) => text,
            Err(error) => return Some(format!("{name}: `{csv}` cannot be read: {error:#}")),
        };
        match read(&text) {
            Err(error) => Some(format!("{name}: `{csv}`: {error}")),
            Ok(reading) if reading != *recorded => Some(format!("{name}: its figures are not those of `{csv}`")),
            Ok(_) => None,
        }
    };
    kernels.filter_map(fault).collect()
}
