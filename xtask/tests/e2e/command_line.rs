//! The command line itself: where it works, what it takes, and how it says that something is wrong.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{Dist, NO_GPU};

/// The program alone in a folder, far from every checkout and dist folder.
fn alone(folder: &Path, arguments: &[&OsStr]) -> (i32, String, String) {
    let program = folder.join("xtask");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_xtask"), &program).unwrap();
    }
    let Output { status, stdout, stderr } = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_remove("COLUMNS")
        .env_remove("GITHUB_STEP_SUMMARY")
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal ends it"), text(stdout), text(stderr))
}

#[test]
fn what_only_reads_works_anywhere() {
    let dist = Dist::new(NO_GPU);
    dist.run(&["validate", "stage2", "--allow-deferred"]).expect(0);
    let run = dist.runs()[0].clone();
    let (run, runs) = (run.as_os_str(), run.parent().unwrap().as_os_str());
    let folder = tempfile::tempdir().unwrap();
    let asked = |arguments: &[&OsStr], status: i32| {
        let (found, stdout, stderr) = alone(folder.path(), arguments);
        assert_eq!(found, status, "{arguments:?}\n{stdout}\n{stderr}");
        (stdout, stderr)
    };
    let word = OsStr::new;
    assert!(asked(&[word("--help")], 0).0.contains("Exit status: 0 good; 1 something must be fixed"));
    assert!(asked(&[word("validate"), word("--help")], 0).0.contains("--smoke"));
    assert!(asked(&[word("verify"), run], 0).0.contains("every file is as it was sealed"));
    assert!(asked(&[word("report"), run], 0).0.contains("DEFER stage2"));
    let json: serde_json::Value = serde_json::from_str(&asked(&[word("report"), run, word("--json")], 0).0).unwrap();
    assert!(json["gates"].as_array().is_some_and(|gates| gates.len() > 5), "{json}");
    let (_, stderr) = asked(&[word("report"), run, word("--section"), word("speedups")], 2);
    assert!(stderr.contains("has no times; run it on a GPU"), "{stderr}");
    let junit = asked(&[word("report"), run, word("--format"), word("junit")], 0).0;
    assert!(junit.starts_with("<?xml") && junit.contains("<skipped message=\"DEFERRED (no CUDA driver"), "{junit}");
    let github = asked(&[word("report"), run, word("--format"), word("github")], 0).0;
    assert!(github.starts_with("::notice title=DEFER stage2::") && github.contains("\n## Decision\n"), "{github}");
    let same = asked(&[word("compare"), run, run, word("--json"), word("--fail-on-regression")], 0).0;
    let same: serde_json::Value = serde_json::from_str(&same).unwrap();
    assert_eq!(same["regressions"], serde_json::json!({"failed": [], "open": []}));
    let past = asked(&[word("history"), word("--runs"), runs, word("--json")], 0).0;
    let past: serde_json::Value = serde_json::from_str(&past).unwrap();
    assert_eq!((&past[0]["state"], &past[0]["device"]), (&"judged".into(), &serde_json::Value::Null));
    assert_eq!(past[0]["candidates"][0]["verdict"], "DEFER");
    let table = asked(&[word("history"), word("--runs"), runs], 0).0;
    assert!(table.starts_with("RUN (WHEN, COMMIT, SUITE)") && table.contains("DEFER stage2"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    // What needs more says where it looked.
    assert!(asked(&[word("history")], 2).1.contains("name the folder of runs with --runs: found neither a checkout"));
    assert!(asked(&[word("build")], 2).1.contains("found neither a checkout nor a dist folder"));
}

#[test]
fn what_a_person_reads_fits_on_one_screen_without_a_gpu() {
    let dist = Dist::new(NO_GPU);
    for width in ["80", "100"] {
        for arguments in [
            &["validate", "--stage5", "--allow-deferred"][..],
            &["doctor"],
            &["list"],
            &["history"],
            &["build", "stage2"],
            &["validate", "--help"],
        ] {
            let ran = dist.run_at(width, arguments).expect(0);
            let most = width.parse::<usize>().unwrap().max(if arguments.contains(&"--help") { 100 } else { 0 });
            let wide = |line: &&str| line.chars().count() > most && !line.contains('/');
            let found: Vec<&str> = ran.stdout.lines().chain(ran.stderr.lines()).filter(wide).collect();
            assert!(found.is_empty(), "{arguments:?} at {width}:\n{}", found.join("\n"));
            if arguments[0] == "validate" && arguments.len() == 3 && width == "100" {
                let lines = ran.stdout.lines().count() + ran.stderr.lines().count();
                assert!(lines <= 30, "{lines} lines:\n{}{}", ran.stderr, ran.stdout);
                assert!(!ran.stdout.contains('\u{1b}'), "a pipe has no colours");
            }
        }
    }
}

#[test]
fn whatever_is_wrong_with_the_arguments_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let broken = OsString::from(OsStr::from_bytes(b"/tmp/\xff"));
    let word = OsStr::new;
    let cases: &[(&[&OsStr], &str)] = &[
        (&[word("report"), &broken], "is not UTF-8"),
        (&[word("validate"), word("--out"), &broken], "is not UTF-8"),
        (
            &[word("validate"), word("--smok")],
            "unexpected argument '--smok' found; a similar argument exists: '--smoke'",
        ),
        (&[word("report")], "required arguments were not provided: <RUN>"),
        (&[word("valdate")], "unrecognized subcommand 'valdate'"),
        (&[word("validate"), word("--device"), word("tpu")], "invalid value 'tpu'"),
        (
            &[word("validate"), word("--peers"), word("torch,triton")],
            "unknown peer `triton`: use auto, none, or some of",
        ),
        (&[word("history"), word("somewhere")], "unexpected argument 'somewhere'"),
        (&[word("report"), word("x"), word("--json"), word("--format"), word("md")], "cannot be used with"),
    ];
    for (arguments, message) in cases {
        let (status, stdout, stderr) = alone(folder.path(), arguments);
        assert_eq!((status, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(message), "{arguments:?}: {stderr}");
    }
}

#[test]
fn every_suite_is_an_option_and_none_takes_another_option_away() {
    let dist = Dist::new(NO_GPU);
    let stage2 = std::fs::read_to_string(dist.path("kbench/suites/stage2.toml")).unwrap();
    for name in ["json", "mine"] {
        let suite = stage2.replace("name = \"stage2\"", &format!("name = \"{name}\""));
        dist.write(&format!("kbench/suites/{name}.toml"), &suite);
    }
    let help = dist.run(&["validate", "--help"]).expect(0).stdout;
    assert!(help.contains("--mine") && help.contains("--stage5") && help.contains("WMMA products"), "{help}");
    let listed = dist.run(&["list", "suites", "--json"]).expect(0).stdout;
    assert!(listed.contains("\"mine\"") && listed.contains("\"json\""), "{listed}");
    let two = dist.run(&["validate", "--mine", "--stage5"]).expect(2).stderr;
    assert!(two.contains("'--mine' cannot be used with '--stage5'") && two.lines().count() == 1, "{two}");
    let by_option = dist.run(&["validate", "--mine", "--json", "--peers", "none"]).expect(3).stdout;
    let by_option: serde_json::Value = serde_json::from_str(&by_option).unwrap();
    assert!(by_option["run"].as_str().unwrap().ends_with("-mine"), "{by_option}");
    let by_name = dist.run(&["validate", "--suite", "json"]).expect(3);
    assert!(!by_name.lines(&["DEFER stage2: "]).is_empty(), "{}", by_name.stdout);
}

#[test]
fn a_peer_that_a_gate_needs_and_the_command_line_leaves_out_is_deferred_by_name() {
    let dist = Dist::new(NO_GPU);
    let limit = "[peers]\nmax_ratio = 1.0\nbaseline = \"torch/default\"\nalso = [\"cudnn\", \"fa3\"]\n\n[resources]";
    dist.edit("kbench/suites/stage2.toml", "[resources]", limit);
    let ran = dist.run(&["validate", "--stage2", "--peers", "torch,fa3", "--full"]).expect(3);
    let deferred = ran.lines(&["peers", "cudnn measured in this run", "DEFERRED", "run with --peers auto"]);
    assert_eq!(deferred.len(), 1, "{}", ran.stdout);
    assert!(ran.lines(&["fa3 measured in this run"]).is_empty());
    let narrowed = ran.lines(&["stage2", "whole suite", "gates on peers are judged without cudnn"]);
    assert_eq!(narrowed.len(), 1, "a candidate cannot MERGE past it: {}", ran.stdout);
    let whole = dist.run(&["validate", "--stage2", "--full"]).expect(3);
    assert!(whole.lines(&["leaves it out"]).is_empty() && whole.lines(&["whole suite"]).is_empty());
}
