//! `tune` from the command line, with a stand-in for the runner whose times are a function of the toggles: the compilers,
//! the registry and the gates on resources are the real ones. Nothing here was measured.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{Dist, NO_GPU, Ran, files};
use crate::ncu::{REPLAYS, WORKS, stand_in};
use kbench::tune::{Line, Outcome, Tuned, parse_journal};

/// A part of the space that compiles quickly and that the resource limits mostly let pass.
const NARROW: [&str; 12] = [
    "--set",
    "loader=2",
    "--set",
    "softmax=2",
    "--set",
    "exp=0",
    "--set",
    "tile_k=32",
    "--set",
    "producer_warps=0",
    "--patience",
    "1000",
];

/// A dist folder whose runner claims so many GPUs.
struct Fake {
    dist: Dist,
}

impl Fake {
    fn new() -> Fake {
        Fake { dist: Dist::timing() }
    }

    fn tune(&self, out: &str, more: &[&str]) -> Ran {
        let out = self.dist.path(out).display().to_string();
        self.dist.run(&[&["tune", "--out", &out], NARROW.as_slice(), more].concat())
    }

    /// The only run under a folder.
    fn run_in(&self, out: &str) -> PathBuf {
        let mut runs = std::fs::read_dir(self.dist.path(out)).into_iter().flatten().flatten();
        runs.next().expect("a run directory").path()
    }

    /// What was timed in the search, with one seed, in order: device, placement and variant. The control is in every job.
    fn timed(&self) -> Vec<[String; 3]> {
        let log = std::fs::read_to_string(self.dist.path("timed.log")).unwrap_or_default();
        let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let of_search = log.lines().map(fields).filter(|f| f[1] == "1" && f[3] != "stage2");
        of_search.map(|f| [f[0].clone(), f[2].clone(), f[3].clone()]).collect()
    }
}

fn lines(run: &Path) -> Vec<Line> {
    parse_journal(&std::fs::read_to_string(run.join("tune.jsonl")).unwrap_or_default()).unwrap()
}

/// Names of evaluated configurations, in the order of their arrival.
fn evaluated(run: &Path) -> Vec<String> {
    let name = |line: Line| match line {
        Line::Evaluation(evaluation) => Some(evaluation.name),
        _ => None,
    };
    lines(run).into_iter().filter_map(name).collect()
}

/// Names of proposed configurations, generation by generation.
fn proposed(run: &Path) -> Vec<String> {
    let names = |line: Line| match line {
        Line::Generation(generation) => generation.proposals.into_iter().map(|p| p.name).collect(),
        _ => Vec::new(),
    };
    lines(run).into_iter().flat_map(names).collect()
}

fn result(run: &Path) -> Tuned {
    serde_json::from_slice(&std::fs::read(run.join("elite.json")).unwrap()).unwrap()
}

fn unique(names: &[String]) -> usize {
    names.iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_search_names_the_fastest_survives_a_kill_and_repeats_nothing() {
    let fake = Fake::new();

    // Killed at ten evaluations, it goes on from there.
    let out = fake.dist.path("killed").display().to_string();
    let arguments = [&["tune", "--out", &out, "--budget", "16"], NARROW.as_slice()].concat();
    let mut child = fake.dist.start(&arguments);
    let deadline = Instant::now() + Duration::from_secs(480);
    let count = || {
        std::fs::read_dir(&out).is_ok_and(|mut d| d.next().is_some_and(|r| evaluated(&r.unwrap().path()).len() >= 10))
    };
    while !count() {
        assert!(Instant::now() < deadline, "ten evaluations were never reached");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let run = fake.run_in("killed");
    let before = evaluated(&run);
    assert!((10..16).contains(&before.len()), "{before:?}");
    assert!(!run.join("elite.json").exists() && !run.join("manifest.json").exists());
    fake.dist.write("timed.log", "");
    let resumed = fake.dist.run(&["tune", "--resume", &run.display().to_string()]).expect(0);
    let all = evaluated(&run);
    assert_eq!((all.len(), unique(&all), &all[..before.len()]), (16, 16, before.as_slice()));
    let again: Vec<String> = fake.timed().into_iter().map(|[_, _, name]| name).collect();
    assert!(again.iter().all(|name| !before.contains(name)), "{again:?} was timed before the kill: {before:?}");
    assert!(result(&run).sessions == 2 && resumed.stdout.contains("winner `"), "{}", resumed.stdout);
    assert!(fake.dist.run(&["tune", "--resume", &run.display().to_string()]).expect(2).stderr.contains("is whole"));

    // The same search without the kill proposes the same; a wrong configuration is rejected with its reason.
    let whole = fake.tune("whole", &["--budget", "16"]).expect(0);
    let other = fake.run_in("whole");
    assert_eq!(proposed(&other), proposed(&run));
    let tuned = result(&other);
    assert!(!whole.lines(&["correctness", "kernel error max", "wanted <= 0.01"]).is_empty(), "{}", whole.stdout);
    for line in lines(&other) {
        let Line::Evaluation(e) = line else { continue };
        let wrong = e.toggles["stages"] == 2 && e.toggles["swizzle"] == 1;
        assert!(!wrong || matches!(e.outcome, Outcome::Rejected { .. }), "{e:?}");
    }
    let winner = tuned.winner.as_ref().unwrap();
    assert!(winner.curse.abs() < 0.01 && winner.figures.over_control.high < 1.0);
    assert_eq!(tuned.elites.len(), 3);

    // On two GPUs both measure, and the same is proposed and found.
    fake.dist.write("gpus", "2");
    fake.dist.write("timed.log", "");
    let ran = fake.tune("two", &["--budget", "16"]).expect(0);
    assert!(!ran.lines(&["finals: sittings 32 on GPU-0, 32 on GPU-1; every ratio"]).is_empty(), "{}", ran.stdout);
    let two = fake.run_in("two");
    assert_eq!((proposed(&two), result(&two).winner.unwrap().name), (proposed(&other), winner.name.clone()));
    assert_eq!(result(&two).gpus.len(), 2);
    // The GPUs share the sittings of every configuration, no two of which are placed alike.
    for name in evaluated(&two) {
        let sittings: Vec<[String; 3]> = fake.timed().into_iter().filter(|[.., timed]| *timed == name).collect();
        let placements: std::collections::BTreeSet<&String> =
            sittings.iter().map(|[_, placement, _]| placement).collect();
        let on = |gpu: &str| sittings.iter().filter(|[on, ..]| on == gpu).count();
        assert!(sittings.is_empty() || (on("0"), on("1"), placements.len()) == (16, 16, 32), "{sittings:?}");
    }
    // In the finals too, and all finalists and the control are in each round.
    let finals: kbench::tune::Finals =
        serde_json::from_slice(&std::fs::read(two.join("tune-finals.json")).unwrap()).unwrap();
    let rounds: Vec<(&str, u32, u32)> = finals.rounds.iter().map(|r| (r.gpu.as_str(), r.first, r.count)).collect();
    assert_eq!((rounds.len(), &rounds[..3]), (64, [("GPU-0", 0, 2), ("GPU-1", 2, 2), ("GPU-0", 4, 2)].as_slice()));
    for round in 0..128 {
        let of_round = finals.samples.blocks.iter().filter(|b| b.round == round);
        let subjects: std::collections::BTreeSet<_> = of_round.map(|b| &b.subject).collect();
        assert_eq!(subjects.len(), finals.patches.len() + 2, "round {round}: {subjects:?}");
    }
    let cases: Vec<(&str, String)> =
        finals.checks.cases.iter().map(|c| (c.variant.as_str(), c.launch.problem.id())).collect();
    let each: std::collections::BTreeSet<_> = cases.iter().collect();
    assert_eq!(each.len(), cases.len(), "every case was checked once");
    for case in ["wide-causal.seed2.normal", "cross.seed1.normal", "cross-wide.seed0.permutation"] {
        assert_eq!(cases.iter().filter(|(_, id)| id == case).count(), finals.patches.len() + 1, "{case}");
    }

    // The whole space is no better.
    fake.tune("sweep", &["--budget", "16", "--exhaustive"]).expect(0);
    let swept = result(&fake.run_in("sweep"));
    let sweep = swept.sweep.unwrap();
    assert_eq!(sweep.evaluated, swept.plan.valid);
    assert!(sweep.within_margin && sweep.search_over_best < 1.001, "{sweep:?}");

    // The winner as a candidate of the suite, with where it comes from in the run.
    let path = other.display().to_string();
    let validated = fake.dist.run(&["validate", "--stage5", "--smoke", "--tuned", &path, "--peers", "none", "--full"]);
    assert!(!validated.lines(&["tuned", "own machine code", "PASS"]).is_empty(), "{}", validated.stdout);
    let last = fake.dist.runs().pop().unwrap();
    assert!(last.join("tune.jsonl").is_file() && last.join("elite.json").is_file());
    fake.dist.run(&["verify", &last.display().to_string()]).expect(0);
    // A run that judged another variant under the winner's name is found out.
    let suite = std::fs::read_to_string(last.join("suite.toml")).unwrap();
    let section = suite.find("[variants.tuned.toggles]").expect("the winner is a variant of the suite");
    let foreign = suite[section..].replacen("loader = 2", "loader = 1", 1);
    assert_ne!(foreign, suite[section..]);
    std::fs::write(last.join("suite.toml"), format!("{}{foreign}", &suite[..section])).unwrap();
    let faults = fake.dist.run(&["verify", &last.display().to_string()]).expect(1).stdout;
    assert!(faults.contains("is not the winner that elite.json names"), "{faults}");
    let none = fake.dist.run(&["validate", "--stage5", "--tuned", &fake.dist.path("kbench").display().to_string()]);
    assert!(none.expect(2).stderr.contains("is not a run directory"));

    // Sealed, verified, listed; what was changed afterwards is seen.
    fake.dist.run(&["verify", &path]).expect(0);
    assert!(fake.dist.run(&["report", &path]).expect(0).stdout.contains(&format!("winner `{}`", winner.name)));
    let history = fake.dist.run(&["history", "--runs", &fake.dist.path("whole").display().to_string()]).expect(0);
    assert!(history.stdout.contains(&format!("winner {}", winner.name)), "{}", history.stdout);
    let text = std::fs::read_to_string(other.join("elite.json")).unwrap();
    std::fs::write(other.join("elite.json"), text.replace(&winner.name, "somebody-else")).unwrap();
    let faults = fake.dist.run(&["verify", &path]).expect(1).stdout;
    assert!(faults.contains("elite.json was changed") && faults.contains("recorded as `somebody-else`"), "{faults}");
    let refused = fake.dist.run(&["validate", "--stage5", "--tuned", &path]).expect(2);
    assert!(refused.stderr.contains("is not what it was: elite.json was changed"), "{}", refused.stderr);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_proposer_is_heard_and_a_bad_one_is_dropped_with_a_warning() {
    let fake = Fake::new();
    let wanted = r#"{"loader":2,"softmax":2,"scheduler":1,"tile_q":128,"tile_k":32,"producer_warps":0,"stages":3,"exp":0,"swizzle":1}"#;
    fake.dist.write("good.sh", &format!("while read line; do echo '{{\"candidates\":[{wanted}]}}'; done\n"));
    fake.dist.write("mute.sh", "read line; sleep 60\n");
    fake.dist.write("wrong.sh", "while read line; do echo 'hello'; done\n");
    fake.dist.write("dead.sh", "exit 3\n");
    let with = |script: &str| {
        let command = format!("sh '{}'", fake.dist.path(script).display());
        let out = format!("out-{script}");
        // Only the one that says nothing is waited for in vain.
        let patience = if script == "mute.sh" { "1" } else { "30" };
        let ran = fake.tune(&out, &["--budget", "4", "--proposer", &command, "--proposer-timeout", patience]).expect(0);
        (ran.stdout, fake.run_in(&out))
    };
    let (_, run) = with("good.sh");
    let first = lines(&run).into_iter().find_map(|line| match line {
        Line::Generation(generation) => generation.proposals.into_iter().next(),
        _ => None,
    });
    let first = first.unwrap();
    assert_eq!((first.origin.as_str(), first.toggles["tile_q"], first.toggles["swizzle"]), ("proposer", 128, 1));
    for (script, warning) in [
        ("mute.sh", "said nothing for 1 s and was stopped; the built-in search goes on without it"),
        ("wrong.sh", "the proposer's answer `hello` is none"),
        ("dead.sh", "the proposer ended"),
    ] {
        let (stdout, run) = with(script);
        assert!(stdout.contains(warning), "{script}: {stdout}");
        assert!(result(&run).warnings.iter().any(|w| w.contains(warning)));
        assert_eq!(evaluated(&run).len(), 4, "{script}");
    }
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_kernel_that_kills_its_process_while_timed_or_is_wrong_on_a_shape_that_is_not_timed_is_no_elite() {
    let fake = Fake::new();
    let killer = "ld2-sm2-pe1-q64-k32-pw0-st3-ex0-sw0";
    fake.dist.write("kills", killer);
    let ran = fake.tune("out", &["--budget", "4"]).expect(0);
    assert!(!ran.lines(&["timed on every shape", "signal 9", killer]).is_empty(), "{}", ran.stdout);
    let tuned = result(&fake.run_in("out"));
    assert!(tuned.winner.is_some_and(|w| w.name != killer) && tuned.timed >= 2);

    std::fs::remove_file(fake.dist.path("kills")).unwrap();
    fake.dist.write("timed.log", "");
    let wrong = "ld2-sm2-pe1-q64-k32-pw0-st3-ex0-sw0";
    fake.dist.write("wrong-at-128", wrong);
    let ran = fake.tune("wrong", &["--budget", "4"]).expect(0);
    assert!(!ran.lines(&["correctness", "kernel error max (", "wide", wrong]).is_empty(), "{}", ran.stdout);
    assert!(!fake.timed().is_empty() && fake.timed().iter().all(|[.., name]| name != wrong));
    let tuned = result(&fake.run_in("wrong"));
    assert!(tuned.elites.iter().all(|e| e.name != wrong) && tuned.winner.is_some());
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_kernel_that_faults_in_company_is_rejected_alone() {
    let fake = Fake::new();
    let faulty = "ld2-sm2-pe1-q64-k32-pw0-st3-ex0-sw0";
    fake.dist.write("faults", faulty);
    let ran = fake.tune("out", &["--budget", "4"]).expect(0);
    assert!(!ran.lines(&["correctness", "an illegal address", faulty]).is_empty(), "{}", ran.stdout);
    let tuned = result(&fake.run_in("out"));
    assert!(tuned.winner.is_some_and(|w| w.name != faulty) && tuned.timed >= 2);
    let alone = std::fs::read_to_string(fake.dist.path("alone.log")).unwrap();
    assert!(alone.lines().any(|name| name == faulty) && alone.lines().any(|name| name != faulty), "{alone}");
    // In company nobody is launched alone, and every part of the session says what it spent its time on.
    std::fs::remove_file(fake.dist.path("faults")).unwrap();
    fake.dist.write("alone.log", "");
    let ran = fake.tune("well", &["--budget", "4"]).expect(0);
    assert_eq!(std::fs::read_to_string(fake.dist.path("alone.log")).unwrap(), "");
    for part in ["│ set-up ", "│ search, GPU-0 ", "│ finals, GPU-0 "] {
        assert_eq!(ran.lines(&[part]).len(), 1, "{part}: {}", ran.stdout);
    }
    let tuned = result(&fake.run_in("well"));
    let timing = |s: &&kbench::tune::Spent| s.seconds.contains_key(&kbench::tune::Activity::Timing);
    assert_eq!(tuned.spent.iter().filter(timing).count(), 2, "{:?}", tuned.spent);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn profiles_of_elites_reach_the_proposer_the_search_and_the_record() {
    let fake = Fake::new();
    // What a real ncu wrote of another kernel stands for each: only the way of the figures is looked at.
    let replays = REPLAYS.replace("$(basename \"$2\" .ncu-rep)", "ws-p1.mission.seed0.normal");
    let bin = stand_in(&fake.dist, &format!("{replays}{WORKS}"));
    let requests = fake.dist.path("requests");
    fake.dist.write(
        "hears.sh",
        &format!(
            "while read -r line; do printf '%s\\n' \"$line\" >> '{}'; echo '{{\"candidates\":[]}}'; done\n",
            requests.display()
        ),
    );
    let proposer = format!("sh '{}'", fake.dist.path("hears.sh").display());
    let out = fake.dist.path("out").display().to_string();
    let own = ["tune", "--out", &out, "--budget", "16", "--ncu", "--proposer", &proposer];
    let ran = fake.dist.run_with(&bin, &[own.as_slice(), &NARROW].concat()).expect(0);
    let (run, calls) =
        (fake.run_in("out"), || std::fs::read_to_string(fake.dist.path("ncu-data/calls")).unwrap().lines().count());
    let tuned = result(&run);
    assert!(tuned.profiles.len() >= 3 && calls() == tuned.profiles.len(), "{} calls, {}", calls(), ran.stdout);
    assert!(tuned.elites.iter().all(|e| tuned.profiles.contains_key(&e.name)), "{:?}", tuned.profiles.keys());
    assert!(!ran.lines(&["profile of `", "-bound, ", "what to try speaks of "]).is_empty(), "{}", ran.stdout);
    // Every elite that a request names comes with its diagnosis and figures, and the search heeds it.
    let heard = std::fs::read_to_string(&requests).unwrap();
    let heard: Vec<serde_json::Value> = heard.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with_elites: Vec<_> = heard.iter().filter(|r| !r["elites"].as_array().unwrap().is_empty()).collect();
    assert!(!with_elites.is_empty());
    for request in with_elites {
        for elite in request["elites"].as_array().unwrap() {
            let profile = &request["profiles"][elite["name"].as_str().unwrap()];
            assert!(profile["headline"].as_str().unwrap().contains("-bound, "), "{profile}");
            assert!(profile["diagnosis"]["findings"][0]["next"][0].is_string(), "{profile}");
            assert!(profile["figures"]["tensor-active"].is_number(), "{profile}");
        }
    }
    let origins = lines(&run).into_iter().filter_map(|line| match line {
        Line::Generation(generation) => Some(generation.proposals),
        _ => None,
    });
    assert!(origins.flatten().any(|p| p.origin.contains("as the profile of")), "{:?}", lines(&run));

    // It is evidence: in the run, held to ncu's own CSV, also in a run that judges the winner, and not measured again by a
    // session that goes on.
    let path = run.display().to_string();
    fake.dist.run(&["verify", &path]).expect(0);
    fake.dist.run(&["validate", "--stage5", "--smoke", "--tuned", &path, "--peers", "none"]);
    let judged = fake.dist.runs().pop().unwrap();
    assert!(files(&judged).iter().any(|f| f.starts_with("profile/") && f.ends_with(".csv")));
    fake.dist.run(&["verify", &judged.display().to_string()]).expect(0);
    // As it was before it was sealed: what was written is listed, as its seal lists it.
    std::fs::copy(run.join("manifest.json"), run.join("written.json")).unwrap();
    for file in ["manifest.json", "elite.json", "tune-finals.json"] {
        std::fs::remove_file(run.join(file)).unwrap();
    }
    let before = calls();
    fake.dist.run_with(&bin, &["tune", "--resume", &path]).expect(0);
    assert_eq!((calls(), result(&run).profiles.len()), (before, tuned.profiles.len()));
    fake.dist.run(&["verify", &path]).expect(0);
    let kernel = lines(&run).into_iter().find_map(|line| match line {
        Line::Profiled(profiled) => Some(profiled.kernel),
        _ => None,
    });
    let kernel = kernel.unwrap();
    let csv = run.join(kernel.csv.unwrap());
    let raw = &kernel.reading.unwrap().figures[&kbench::profile::Figure::TensorActive].raw;
    let text = std::fs::read_to_string(&csv).unwrap();
    std::fs::write(&csv, text.replacen(&format!("\"{raw}\""), "\"99.5\"", 1)).unwrap();
    let faults = fake.dist.run(&["verify", &path]).expect(1).stdout;
    assert!(faults.contains("its figures are not those of `profile/"), "{faults}");

    // An obstacle ends the profiling with one line, and not the search.
    let refuses = "echo '==ERROR== ERR_NVGPUCTRPERM - no permission' > \"$log\"; \"$@\"";
    let bin = stand_in(&fake.dist, &format!("{REPLAYS}{refuses}"));
    let out = fake.dist.path("refused").display().to_string();
    let own = ["tune", "--out", &out, "--budget", "4", "--ncu"];
    let ran = fake.dist.run_with(&bin, &[own.as_slice(), &NARROW].concat()).expect(0);
    assert_eq!(ran.lines(&["profiles: DEFERRED (no permission to read", "; run as root"]).len(), 1, "{}", ran.stdout);
    assert!(result(&fake.run_in("refused")).winner.is_some());
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn without_a_gpu_nothing_is_searched_and_wrong_words_are_one_line() {
    let dist = Dist::new(NO_GPU);
    let ran = dist.run(&["tune"]).expect(3);
    assert!(ran.stdout.contains("DEFERRED (no CUDA driver library on this machine; run on"), "{}", ran.stdout);
    assert_eq!(dist.runs().len(), 0);
    let cases: &[(&[&str], &str)] = &[
        (&["tune", "--device", "gpu"], "--device gpu: no CUDA driver library"),
        (&["tune", "--suite", "stage9"], "unknown suite `stage9`"),
        (&["tune", "--resume", "/nowhere"], "is not a run directory"),
        (
            &["tune", "--set", "colour=1", "--device", "emulator", "--suite", "emulated.toml"],
            "unknown dimension `colour`",
        ),
        (&["tune", "--budget", "0", "--device", "emulator", "--suite", "emulated.toml"], "must be at least 1"),
        (&["tune", "--set", "loader"], "TOGGLE=VALUE"),
    ];
    let suite = std::fs::read_to_string(dist.path("kbench/suites/stage5.toml")).unwrap();
    dist.write("emulated.toml", &format!("{suite}\n[emulation]\nshapes = [\"small\"]\nmax_ctas = 8\n"));
    for (arguments, message) in cases {
        let ran = dist.run(arguments).expect(2);
        assert!(ran.stderr.contains(message), "{arguments:?}: {}", ran.stderr);
    }
    let deferred = dist.run(&["validate", "--stage5", "--smoke", "--tune", "--peers", "none"]).expect(3);
    assert!(deferred.stdout.contains("no search for a tuned candidate"), "{}", deferred.stdout);
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn on_the_emulator_configurations_are_checked_and_none_is_named() {
    let dist = Dist::emulating();
    let out = dist.path("out").display().to_string();
    let quick = ["tune", "--device", "emulator", "--out", &out, "--budget", "3", "--shape", "ragged"];
    let ran = dist.run(&[quick.as_slice(), &NARROW].concat()).expect(3);
    assert!(ran.stdout.contains("DEFERRED (") && !ran.stdout.contains("winner `"), "{}", ran.stdout);
    let run = std::fs::read_dir(&out).unwrap().flatten().next().unwrap().path();
    let tuned = result(&run);
    assert_eq!((tuned.evaluated, tuned.timed, tuned.elites.len()), (3, 0, 0));
    dist.run(&["verify", &run.display().to_string()]).expect(0);
}
