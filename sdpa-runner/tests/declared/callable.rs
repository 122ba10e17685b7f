//! Host code in a launch job, through the binary that confines it, with a stand-in for PyTorch: what honest functions leave,
//! and every cheat of the list that shows in a checked launch. Those that show while it is timed have tests within the runner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use confine::Part;
use kbench::evidence::LaunchOutcome;
use kbench::job::{CallLimits, Callable, Executor, Files, Job, LaunchJob, Module, Task, output_file};
use kbench::operator::{Operator, Problem};
use serde_json::json;

use super::cheats::{CHEATS, End};
use super::confined::enforced;
use super::{outcomes, problem, python};

const LIMITS: CallLimits = CallLimits { first_s: 60.0, then_s: 60.0, memory_bytes: 1 << 30 };

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What a function of `cheats.py` comes to on some problems; nothing without numpy.
fn called(function: &str, executor: Executor, limits: CallLimits, room: &Path) -> Option<Vec<LaunchOutcome>> {
    let python = python::python()?;
    let folder = root().join("sdpa-runner/tests/data/callable");
    let operator: Operator = serde_json::from_value(json!({
        "axes": ["n"],
        "reference": "product.py",
        "inputs": {"x": {"shape": ["n"], "dtype": "f32"}, "w": {"shape": ["n"], "dtype": "f32"}},
        "outputs": {"y": {"shape": ["n"], "dtype": "f32"}},
    }))
    .unwrap();
    let driver = root().join("kbench/peers/callable.py").display().to_string();
    let call = Callable {
        argv: python.iter().cloned().chain(["-u".to_owned(), driver]).collect(),
        environment: [("PYTHONPATH".to_owned(), folder.display().to_string())].into(),
        readable: python::paths(&python).into_iter().chain([root().join("kbench/peers")]).collect(),
        source: "cheats.py".to_owned(),
        function: function.to_owned(),
        values: BTreeMap::new(),
        limits,
    };
    let module = Module {
        variant: function.to_owned(),
        files: Files { image: PathBuf::new(), ptx: None },
        toggles: BTreeMap::new(),
        launches: Vec::new(),
        planned: BTreeMap::new(),
        call: Some(call),
        quantised_as: Default::default(),
    };
    let job = Job::Launch(LaunchJob {
        task: Task { operator, folder, ..Task::default() },
        module,
        problems: problems(),
        out_dir: room.join(function),
        executor,
        replays: BTreeMap::new(),
        max_ctas: None,
        schedules: Vec::new(),
        unchecked: false,
        counts: false,
        threads: 0,
    });
    Some(outcomes(&job))
}

fn problems() -> Vec<Problem> {
    (0..2).map(|seed| problem("s", &[("n", 65_537)], seed)).collect()
}

/// Whether a function left the right product of every problem; the honest one says what that is.
fn is_right(function: &str, room: &Path) -> bool {
    let read = |who: &str, problem: &Problem| std::fs::read(room.join(who).join(output_file(problem))).ok();
    problems().iter().all(|problem| read(function, problem).is_some_and(|own| Some(own) == read("honest", problem)))
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn every_cheat_that_a_checked_launch_shows_is_named_and_the_honest_pass() {
    let room = tempfile::tempdir().unwrap();
    let confinement = enforced();
    let is_enforced = |name: &str| {
        let part = if name == "opens_a_socket" { &confinement.network } else { &confinement.files };
        !["opens_a_socket", "reads_outside", "writes_outside"].contains(&name) || matches!(part, Part::By(_))
    };
    for (name, end) in CHEATS.iter().filter(|(name, _)| is_enforced(name)) {
        let limits = match *name {
            "never_returns" => CallLimits { first_s: 3.0, ..LIMITS },
            "takes_all_memory" => CallLimits { memory_bytes: 400 << 20, ..LIMITS },
            _ => LIMITS,
        };
        let Some(came) = called(name, Executor::Gpu, limits, room.path()) else { return };
        let first = &came[0];
        let kept = first.inputs_unchanged && first.guards_intact && first.repeat_equal;
        match end {
            End::Refused(words) => {
                let why = first.failure.as_deref().unwrap_or_else(|| panic!("{name} was not refused"));
                assert!(why.contains(words) && why.contains(&format!("`{name}` of cheats.py")), "{name}: {why}");
                assert!(first.deferred.is_none() && !why.contains('\n'), "{name}: {why}");
            }
            End::Wrong => assert!(first.failure.is_none() && !is_right(name, room.path()), "{name}: {came:?}"),
            End::WroteInput => assert!(!first.inputs_unchanged && first.failure.is_none(), "{name}: {came:?}"),
            // What shows only while it is timed is right before.
            End::Passes
            | End::TimedOutput
            | End::RefusedWhenTimed(_)
            | End::OwnClock
            | End::DeviceBusy
            | End::Unseen(_) => {
                assert!(came.len() == 2 && kept && is_right(name, room.path()), "{name}: {came:?}");
                assert_eq!(first.kernels, ["elementwise_kernel"], "{name}");
            }
        }
    }
    assert!(!Path::new("/var/tmp/left-by-a-callable").exists());
}

#[test]
fn who_took_all_that_it_may_is_not_waited_for_again() {
    let room = tempfile::tempdir().unwrap();
    let limits = CallLimits { first_s: 2.0, ..LIMITS };
    let Some(came) = called("never_returns", Executor::Gpu, limits, room.path()) else { return };
    let failures: Vec<&str> = came.iter().filter_map(|outcome| outcome.failure.as_deref()).collect();
    assert_eq!(failures, ["`never_returns` of cheats.py took longer than 2 s"; 2]);
}

#[test]
fn the_emulator_defers_it_with_the_reason_and_starts_nothing() {
    let room = tempfile::tempdir().unwrap();
    let Some(came) = called("never_returns", Executor::Emulator, LIMITS, room.path()) else { return };
    assert_eq!(came.len(), 2);
    for outcome in came {
        let why = outcome.deferred.expect("it is deferred");
        assert_eq!(why.why, "`never_returns` is host code, which runs on a GPU only");
        assert!(!why.remedy.is_empty());
    }
}
