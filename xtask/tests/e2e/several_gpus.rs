//! A validation that several GPUs share, from the command line: what one GPU would have left, each shape timed on one of them.
//! The runner is a stand-in; compilers, gates and decision are the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Dist, Ran};

const SUITE: [&str; 4] = ["validate", "--stage3", "--peers", "none"];

/// A machine with two GPUs.
fn dist() -> Dist {
    let dist = Dist::timing();
    dist.write("gpus", "2");
    dist
}

fn validate(dist: &Dist, more: &[&str]) -> (Ran, PathBuf) {
    for log in ["timed.log", "launched.log"] {
        let _ = std::fs::remove_file(dist.path(log));
    }
    let ran = dist.run(&[&SUITE, more].concat());
    let run = dist.runs().pop().unwrap_or_else(|| panic!("{}", ran.stderr));
    (ran, run)
}

fn read(run: &Path, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(run.join(file)).unwrap()).unwrap()
}

/// Every block but for its times, sorted.
fn blocks(run: &Path) -> Vec<String> {
    let samples = read(run, "samples.json");
    let what = |block: &Value| {
        let mut block = block.as_object().unwrap().clone();
        block.remove("us");
        serde_json::to_string(&block).unwrap()
    };
    let mut blocks: Vec<String> = samples["blocks"].as_array().unwrap().iter().map(what).collect();
    blocks.sort();
    blocks
}

/// Every case in order.
fn cases(run: &Path) -> Vec<Value> {
    read(run, "check.json")["cases"].as_array().unwrap().clone()
}

/// Gates by variant and figure, and their states.
fn states(run: &Path) -> Vec<String> {
    let gates = read(run, "gates.json");
    let state = |gate: &Value| format!("{} {} {}: {}", gate["variant"], gate["figure"], gate["place"], gate["state"]);
    gates.as_array().unwrap().iter().map(state).collect()
}

/// Which GPU timed which shape.
fn gpus(run: &Path) -> BTreeMap<String, String> {
    serde_json::from_value(read(run, "samples.json")["gpus"].clone()).unwrap()
}

fn holds(dist: &Dist, run: &Path) {
    dist.run(&["verify", &run.display().to_string()]).expect(0);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn two_gpus_leave_what_one_would_and_no_pair_is_split() {
    let dist = dist();
    let (one, on_one) = validate(&dist, &[]);
    let launches = |dist: &Dist| {
        let log = std::fs::read_to_string(dist.path("launched.log")).unwrap();
        log.lines()
            .map(|line| line.split_once(' ').map(|(gpu, what)| (gpu.to_owned(), what.to_owned())).unwrap())
            .collect()
    };
    let launched_by_one: Vec<(String, String)> = launches(&dist);
    let (two, on_two) = validate(&dist, &["--gpus", "all"]);
    assert_eq!(
        (one.status, cases(&on_one).len()),
        (two.status, cases(&on_two).len()),
        "{}\n{}",
        one.stdout,
        two.stdout
    );
    assert_eq!(states(&on_one), states(&on_two));
    // Runs draw a seed of their own, which is all that their cases differ by.
    let places = |run: &Path| -> Vec<String> {
        let place = |case: &Value| {
            let problem = &case["launch"]["problem"];
            format!("{} {} {}", case["variant"], problem["shape"]["name"], problem["distribution"])
        };
        cases(run).iter().map(place).collect()
    };
    assert_eq!(places(&on_one), places(&on_two));
    assert_eq!(blocks(&on_one), blocks(&on_two));

    let launched: Vec<(String, String)> = launches(&dist);
    let whose: BTreeSet<&str> = launched.iter().map(|(gpu, _)| gpu.as_str()).collect();
    let what: BTreeSet<&str> = launched.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(whose, BTreeSet::from(["0", "1"]), "both launch");
    assert_eq!((what.len(), launched.len()), (launched_by_one.len(), launched_by_one.len()), "each once");

    let (gpus, environment) = (gpus(&on_two), read(&on_two, "ENV.json"));
    let whose: BTreeSet<&str> = gpus.values().map(String::as_str).collect();
    assert_eq!(whose, BTreeSet::from(["GPU-0", "GPU-1"]), "both time");
    assert_eq!(gpus.len(), 3, "every shape of the suite: {gpus:?}");
    assert_eq!(
        (&environment["device"]["uuid"], &environment["other_devices"][0]["uuid"]),
        (&"GPU-0".into(), &"GPU-1".into())
    );
    assert!(two.stderr.lines().filter(|line| line.trim_start().starts_with("time ")).count() == 1, "{}", two.stderr);
    let report = std::fs::read_to_string(on_two.join("REPORT.md")).unwrap();
    assert!(report.contains("2 GPUs NVIDIA TEST"), "{report}");
    holds(&dist, &on_one);
    holds(&dist, &on_two);
    assert_eq!(read(&on_one, "samples.json").get("gpus"), None);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_gpu_whose_process_dies_takes_its_shapes_again_and_who_breaks_one_is_fixed() {
    let dist = dist();
    let (_, whole) = validate(&dist, &["--gpus", "2"]);
    dist.write("dies", "1");
    let (ran, run) = validate(&dist, &["--gpus", "2"]);
    assert!(!dist.path("dies").exists(), "it died: {}", ran.stderr);
    assert_eq!(blocks(&run), blocks(&whole), "nothing is lost, and nothing is there twice");
    assert_eq!(states(&run), states(&whole));
    holds(&dist, &run);

    dist.write("breaks", "stage3b stage3b hidden");
    let (on_one, _) = validate(&dist, &[]);
    let (on_two, run) = validate(&dist, &["--gpus", "2"]);
    for ran in [&on_one, &on_two] {
        assert!(ran.status == 1 && !ran.lines(&["FIX stage3b"]).is_empty(), "{}", ran.stdout);
    }
    holds(&dist, &run);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_shared_run_goes_on_with_the_gpus_that_it_began_with() {
    let dist = dist();
    dist.write("hangs", "");
    let mut child = dist.start(&[&SUITE[..], &["--gpus", "2"]].concat());
    let deadline = Instant::now() + Duration::from_secs(120);
    // Both of them are timing.
    while std::fs::read_to_string(dist.path("timed.log")).map_or(0, |log| log.lines().count()) < 6 {
        assert!(Instant::now() < deadline, "it never timed");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(said.contains("builds and checks are kept, times are not") && said.contains(" --gpus 2"), "{said}");
    std::fs::remove_file(dist.path("hangs")).unwrap();
    let run = dist.runs().pop().unwrap();
    let path = run.display().to_string();
    for other in [&["validate", "--resume", &path][..], &["validate", "--resume", &path, "--gpus", "1,0"]] {
        let ran = dist.run(&[other, &["--peers", "none"]].concat()).expect(2);
        assert!(ran.stderr.contains("or device are not those it began with"), "{}", ran.stderr);
    }
    dist.run(&["validate", "--resume", &path, "--peers", "none", "--gpus", "2"]);
    holds(&dist, &run);
    assert_eq!(gpus(&run).len(), 3);
}

#[test]
fn gpus_that_are_not_there_are_one_line() {
    let dist = dist();
    for (asked, words) in [
        (&["--gpus", "3"][..], "--gpus 3: there are 2 of NVIDIA TEST here"),
        (&["--gpus", "0,5"], "`5` is none of 0 (GPU-0), 1 (GPU-1)"),
        (&["--gpus", "none"], "use all, how many, or a list"),
        (&["--gpus", "2", "--device", "emulator"], "--device emulator uses none"),
    ] {
        let ran = dist.run(&[&SUITE, asked].concat()).expect(2);
        assert!(ran.stderr.contains(words), "{asked:?}: {}", ran.stderr);
        assert!(dist.runs().is_empty(), "nothing is left behind");
    }
}
