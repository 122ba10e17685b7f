//! The process of host code, with a stand-in for PyTorch: what it is asked, what it must leave, and every cheat of the list
//! that shows only while it is timed. Those that show in a checked launch are tried through the binary, which confines it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kbench::evidence::{Cache, HostCode, Mode};
use kbench::job::{CallLimits, Callable, Task};
use kbench::operator::{Distribution, Operator as Kind, Problem, Shape};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::json;

use super::*;
use crate::launch::sha256_hex;
use crate::python;

const ELEMENTS: i64 = 4096;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The gate file's folder, its operator, and how a function of `cheats.py` is called there; nothing without numpy.
fn task(function: &str) -> Option<(Task, Callable)> {
    static SEEN: OnceLock<Option<Vec<String>>> = OnceLock::new();
    let python = SEEN.get_or_init(python::python).clone()?;
    let folder = root().join("sdpa-runner/tests/data/callable");
    let readable = python::paths(&python);
    let operator: Kind = serde_json::from_value(json!({
        "axes": ["n"],
        "reference": "product.py",
        "inputs": {"x": {"shape": ["n"], "dtype": "f32"}, "w": {"shape": ["n"], "dtype": "f32"}},
        "outputs": {"y": {"shape": ["n"], "dtype": "f32"}},
    }))
    .unwrap();
    let call = Callable {
        argv: python
            .into_iter()
            .chain(["-u".to_owned(), root().join("kbench/peers/callable.py").display().to_string()])
            .collect(),
        environment: [("PYTHONPATH".to_owned(), folder.display().to_string())].into(),
        readable,
        source: "cheats.py".to_owned(),
        function: function.to_owned(),
        values: BTreeMap::new(),
        limits: CallLimits { first_s: 60.0, then_s: 60.0, memory_bytes: 8 << 30 },
    };
    Some((Task { operator, folder, ..Task::default() }, call))
}

fn problems() -> Vec<Problem> {
    let shape = Shape { name: "s".to_owned(), axes: [("n".to_owned(), ELEMENTS)].into() };
    (0..3).map(|seed| Problem { shape: shape.clone(), seed, distribution: Distribution::Normal }).collect()
}

/// What came of a function that was timed: its samples by mode, blocks that are wrong, and how it could be timed.
struct Came {
    timed: Vec<(Mode, Timed)>,
    wrong: BTreeSet<usize>,
    code: kbench::evidence::HostCode,
}

/// Times a function in some rounds, as a job does, and has its answers computed again.
fn timed(function: &str) -> Option<Result<Came>> {
    let (task, call) = task(function)?;
    let mut operator = operators::of(&task);
    let problems = problems();
    let sets: Vec<Vec<Handed>> = problems.iter().map(|problem| operator.handed(problem).unwrap()).collect();
    let product = |set: &Vec<Handed>| {
        let floats =
            |at: usize| held(&set[at]).unwrap().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word));
        floats(0).zip(floats(1)).flat_map(|(x, w)| (x * w).to_le_bytes()).collect::<Vec<u8>>()
    };
    let right = problems.iter().zip(&sets).map(|(problem, set)| (problem.id(), sha256_hex(&product(set)))).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut times = || {
        let (mut blocks, mut wrong) = (Vec::new(), BTreeSet::new());
        let (mut processes, mut known) = (Processes::default(), HostCode::default());
        // Two distributions of one shape.
        for _ in 0..2 {
            let wanted = Wanted {
                task: &task,
                call: &call,
                who: function,
                problems: &problems,
                sets: sets.clone(),
                warmup: 2,
                within: |_| 6,
                flush: 1 << 16,
                known,
            };
            let mut guest = Guest::start(wanted, &mut processes, &mut rng)?;
            guest.sit(&mut rng)?;
            for _ in 0..4 {
                for mode in Mode::ALL {
                    guest.pause();
                    let block = guest.block(mode, Cache::Hot, blocks.len(), &mut rng)?;
                    blocks.extend(block.map(|block| (mode, block)));
                }
            }
            known = guest.code.clone();
            wrong.extend(guest.conclude(&right, &mut processes, &mut rng)?);
        }
        Ok(Came { wrong, timed: blocks, code: known })
    };
    Some(times())
}

/// What a block leaves of the judge's clock unexplained, in milliseconds: the median of those of a mode.
fn unexplained(came: &Came, mode: Mode) -> f64 {
    let of = came.timed.iter().filter(|(own, _)| *own == mode);
    let left: Vec<f64> = of.map(|(_, block)| (block.outer.unexplained_us(&block.us)) / 1e3).collect();
    stats::median(&left).unwrap()
}

#[test]
fn honest_functions_are_timed_by_both_timers_and_answer_the_same_again() {
    for function in ["honest", "honest_return", "works_at_import", "with_a_patched_clock"] {
        let Some(came) = timed(function) else { return };
        let came = came.unwrap_or_else(|error| panic!("{function}: {error:#}"));
        assert_eq!((came.timed.len(), came.wrong.len()), (16, 0), "{function}");
        assert!(came.code.not_captured.is_empty() && came.code.same_inputs.is_empty(), "{function}: {:?}", came.code);
        assert_eq!((came.code.not_sealed, came.code.versions["torch"].as_str()), (None, "2.11.0+stand-in"));
    }
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_clock_that_was_patched_in_place_or_work_on_another_stream_leaves_the_judges_clock_unexplained() {
    for function in ["with_a_patched_event", "on_a_side_stream"] {
        let Some(came) = timed(function) else { return };
        let came = came.unwrap_or_else(|error| panic!("{function}: {error:#}"));
        // Six calls of ten milliseconds.
        assert!(unexplained(&came, Mode::Call) > 50.0, "{function}");
    }
    // Patched where the driver does not look any more, it has no effect: the time is the true one.
    let Some(came) = timed("with_a_patched_clock") else { return };
    let came = came.unwrap();
    let all = came.timed.iter().all(|(_, block)| block.us.iter().all(|us| *us > 9_000.0));
    assert!(all && unexplained(&came, Mode::Kernel) < 20.0);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn what_was_kept_by_value_or_is_done_at_first_only_is_another_output() {
    for function in ["caches_by_value", "honest_at_first", "caches_by_pointer"] {
        let Some(came) = timed(function) else { return };
        let is_caught = match came {
            Ok(came) => !came.wrong.is_empty(),
            Err(error) => error.to_string().contains("is not the verified one"),
        };
        assert!(is_caught, "{function}");
    }
}

#[test]
fn what_cannot_be_captured_is_timed_by_call_alone_and_says_why() {
    let Some(came) = timed("waits_for_the_device") else { return };
    let came = came.unwrap();
    assert!(came.wrong.is_empty() && came.timed.iter().all(|(mode, _)| *mode == Mode::Call) && came.timed.len() == 8);
    assert!(came.code.not_captured["s"].contains("not permitted when stream is capturing"), "{:?}", came.code);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn what_shows_only_when_it_is_timed_ends_the_talk_with_its_reason() {
    let cases = [
        ("reuses_its_output", "returns memory that an earlier call returned"),
        ("starts_a_process", "PermissionError"),
        ("forks", "PermissionError"),
        ("writes_into_an_input", "an input was written while timed"),
    ];
    for (function, why) in cases {
        let Some(came) = timed(function) else { return };
        let error = came.err().unwrap_or_else(|| panic!("{function} was timed")).to_string();
        assert!(error.contains(why), "{function}: {error}");
    }
}

#[test]
fn no_device_and_no_torch_are_deferred_with_their_remedy() {
    let Some((task, call)) = task("honest") else { return };
    let with = |name: &str, value: &str| {
        let environment = [call.environment.clone(), [(name.to_owned(), value.to_owned())].into()];
        let call = Callable { environment: environment.into_iter().flatten().collect(), ..call.clone() };
        let error = Host::start(&task, "v", &call).err().unwrap();
        error.downcast_ref::<Deferral>().unwrap_or_else(|| panic!("{error:#}")).clone()
    };
    let no_device = with("CALLABLE_TORCH", "no-device");
    assert!(no_device.why.contains("sees no CUDA device") && no_device.remedy.contains("nvidia-smi"), "{no_device}");
    let no_torch = with("PYTHONPATH", "/nowhere");
    assert_eq!((no_torch.why.as_str(), no_torch.remedy.as_str()), ("torch is not installed", "pip install torch"));
}
