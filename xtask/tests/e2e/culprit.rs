//! What goes wrong while variants are timed, from the command line: the device fails, the runner dies or ends without a word.
//! The runner is a stand-in; compilers, gates and decision are the real ones.

use crate::common::{Dist, Ran};

/// A control and two candidates.
const SUITE: [&str; 5] = ["validate", "--stage3", "--peers", "none", "--full"];

fn validate(dist: &Dist, more: &[&str]) -> Ran {
    let _ = std::fs::remove_file(dist.path("timed.log"));
    dist.run(&[&SUITE, more].concat())
}

/// What was timed, one job after the other.
fn timed(dist: &Dist) -> Vec<String> {
    let log = std::fs::read_to_string(dist.path("timed.log")).unwrap_or_default();
    log.lines().filter_map(|line| line.split(' ').nth(3).map(str::to_owned)).collect()
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn who_breaks_the_device_is_fixed_and_the_others_are_timed_without_it() {
    let dist = Dist::timing();
    for (breaks, words) in [
        ("stage3b stage3a alone", "launched alone: an illegal address"),
        ("stage3b stage2 alone", "launched alone: an illegal address"),
        ("stage3b stage3b alone", "illegal memory access"),
        ("stage3b stage3b hidden", "launched alone it does not fail"),
    ] {
        dist.write("breaks", breaks);
        let ran = validate(&dist, &[]).expect(1);
        assert!(!ran.lines(&["FIX stage3b: timing"]).is_empty(), "{breaks}: {}", ran.stdout);
        assert!(ran.lines(&["FIX stage3a"]).is_empty() && !ran.stdout.contains("MERGE"), "{breaks}: {}", ran.stdout);
        assert!(!ran.lines(&["stage3b", "timed on every shape", words, "FAIL"]).is_empty(), "{breaks}: {}", ran.stdout);
        // The innocent one has a verdict on time, from a process in which the culprit was not.
        assert!(
            !ran.lines(&["stage3a", "latency reduction on mission", "FAIL"]).is_empty(),
            "{breaks}: {}",
            ran.stdout
        );
        assert_eq!(timed(&dist)[3..], ["stage2", "stage3a"], "{breaks}");
    }
    std::fs::remove_file(dist.path("breaks")).unwrap();

    // A process that is killed says nothing by itself; who was being timed has failed.
    dist.write("kills", "stage3a");
    let ran = validate(&dist, &[]).expect(1);
    assert!(!ran.lines(&["stage3a", "timed on every shape", "signal 9", "FAIL"]).is_empty(), "{}", ran.stdout);
    assert!(!ran.lines(&["stage3b", "latency reduction on mission", "PASS"]).is_empty(), "{}", ran.stdout);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_runner_that_ends_without_a_word_is_an_error_that_nothing_passes_over() {
    let dist = Dist::timing();
    for (job, words) in [
        ("probe", "the runner was lost while it opened the device"),
        ("errors", "comparing with float64 broke off"),
        ("bench", "the runner was lost before anybody was timed"),
    ] {
        dist.write("ends", job);
        let ran = validate(&dist, &["--allow-deferred"]).expect(2);
        let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(matches!(errors.as_slice(), [line] if line.contains(words)), "{job}: {}", ran.stderr);
        assert!(!ran.stdout.contains("PASS"), "{job}");
    }
    dist.write("ends", "launch");
    validate(&dist, &["--allow-deferred"]).expect(1);
    std::fs::remove_file(dist.path("ends")).unwrap();

    // Nor is the control to blame for what shows in its turn alone.
    dist.write("breaks", "stage2 stage2 hidden");
    let ran = validate(&dist, &["--allow-deferred"]).expect(2);
    assert!(ran.stderr.contains("timing broke off twice while the control was running"), "{}", ran.stderr);
    std::fs::remove_file(dist.path("breaks")).unwrap();

    // What was checked is there, and a resumed run keeps its seed.
    let seed = |run: &std::path::Path| {
        let suite = std::fs::read_to_string(run.join("suite.toml")).unwrap();
        suite.lines().find(|line| line.starts_with("fresh_seed = ")).map(str::to_owned).expect("a fresh seed")
    };
    let run = dist.runs().into_iter().find(|run| !run.join("manifest.json").exists()).expect("an interrupted run");
    let before = seed(&run);
    let path = run.display().to_string();
    let ran = dist.run(&["validate", "--resume", &path, "--peers", "none"]);
    assert!(run.join("manifest.json").exists(), "{}", ran.stderr);
    assert_eq!(seed(&run), before);
    dist.run(&["verify", &path]).expect(0);
    let others = dist.runs().into_iter().filter(|other| *other != run && other.join("manifest.json").exists());
    assert!(others.into_iter().all(|other| seed(&other) != before), "each run draws its own");
}
