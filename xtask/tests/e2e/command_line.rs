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
#[ignore = "takes longer; .ci/run runs it"]
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
fn a_command_that_names_a_gpu_sees_no_other_and_takes_no_emulator_instead() {
    let dist = Dist::new(&format!("echo \"$CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER\" >> \"$0.seen\"\n{NO_GPU}"));
    dist.run(&["doctor", "--gpu", "1"]).expect(0);
    let ran = dist.run(&["validate", "stage2", "--gpu", "GPU-12ab"]).expect(2);
    assert!(ran.stderr.contains("--device gpu: no CUDA driver"), "{}", ran.stderr);
    for command in
        [&["sanitize", "stage2"][..], &["tune", "stage5"], &["ceilings"], &["golden", "--record-only"], &["ncu"]]
    {
        let asked = [command, &["--gpu", "2"]].concat();
        let ran = dist.run(&asked);
        assert!([2, 3].contains(&ran.status), "{command:?}: {}\n{}", ran.stdout, ran.stderr);
    }
    let seen = std::fs::read_to_string(dist.path("sdpa-runner.seen")).unwrap();
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(seen[..2], ["1 PCI_BUS_ID", "GPU-12ab PCI_BUS_ID"]);
    assert!(seen.len() >= 7 && seen[2..].iter().all(|line| *line == "2 PCI_BUS_ID"), "{seen:?}");
    let ran = dist.run(&["validate", "stage2", "--gpu", "0", "--device", "emulator"]).expect(2);
    assert!(ran.stderr.contains("--device emulator uses none"), "{}", ran.stderr);
    assert!(dist.run(&["bench", "stage1", "--gpu", "first"]).expect(2).stderr.contains("see nvidia-smi -L"));
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

/// Command lines that ask for what cannot be, and what is said of them.
const WRONG: &[(&str, &str)] = &[
    ("", "Usage"),
    ("nothing", "unrecognized subcommand 'nothing'"),
    ("--smoke", "unexpected argument '--smoke'"),
    ("validate --iters", "a value is required for '--iters <N>'"),
    ("validate --iters x", "invalid value 'x' for '--iters <N>'"),
    ("validate --iters -1", "unexpected argument '-1'"),
    ("validate --iters 0", "--iters"),
    ("validate --iters 99999999999", "--iters"),
    ("validate --warmup x", "invalid value 'x' for '--warmup <N>'"),
    ("validate --seeds x", "invalid value 'x' for '--seeds"),
    ("validate --seeds 0,,1", "--seeds"),
    ("validate --seeds 0,0", "a seed is named twice"),
    ("validate --seeds -1", "unexpected argument '-1'"),
    ("validate --shapes", "a value is required for '--shapes"),
    ("validate --shapes huge", "unknown shape `huge`: use one of tiny, small"),
    ("validate --shapes mission,huge", "unknown shape `huge`: use one of tiny, small"),
    ("validate --shapes mission,mission", "`mission` is named twice"),
    ("validate --shapes 0x1x1x1", "0x1x1x1"),
    ("validate --shapes 2x8", "unknown shape `2x8`"),
    ("validate --device", "a value is required for '--device"),
    ("validate --device cuda", "invalid value 'cuda' for '--device"),
    ("validate --peers", "a value is required for '--peers"),
    ("validate --peers triton", "unknown peer `triton`"),
    ("validate --out", "a value is required for '--out <DIR>'"),
    ("validate --out /proc/nowhere", "cannot write to `/proc/nowhere`"),
    ("validate --out good.toml", "cannot write to `good.toml`"),
    ("validate --stage99", "unexpected argument '--stage99'"),
    ("validate stage99", "unknown suite `stage99`: use one of"),
    ("validate stage5 stage4", "unexpected argument 'stage4'"),
    ("validate --suite", "a value is required for '--suite <SUITE>'"),
    ("validate --suite stage5 --stage4", "cannot be used with"),
    ("validate --all stage5", "cannot be used with"),
    ("validate --all --resume x", "cannot be used with"),
    ("validate --resume x --smoke", "cannot be used with"),
    ("validate --resume x --tune", "cannot be used with"),
    ("validate --resume nowhere", "`nowhere` is not a run directory"),
    ("validate --resume good.toml", "`good.toml` is not a run directory"),
    ("validate --tuned nowhere", "`nowhere` is not a run directory"),
    ("validate nowhere.toml", "failed to read `nowhere.toml`"),
    ("validate folder.toml", "`folder.toml` is not a file"),
    ("validate pipe.toml", "`pipe.toml` is not a file"),
    ("validate binary.toml", "binary.toml"),
    ("validate empty.toml", "missing field `name`"),
    ("validate syntax.toml", "line 2: extra `=`"),
    ("validate type.toml", "invalid type: integer `3`, expected a string"),
    ("validate field.toml", "unknown field `abut`"),
    ("validate twice.toml", "duplicate key"),
    ("validate control.toml", "unknown variant `stage77`"),
    ("validate --stage2 --smok", "a similar argument exists: '--smoke'"),
    ("bench", "required arguments were not provided: <VARIANT>..."),
    ("bench stage77", "unknown variant `stage77`"),
    ("bench stage1 --against stage77", "unknown variant `stage77`"),
    ("bench stage2 --against stage2", "stage2"),
    ("build stage77", "unknown variant `stage77`"),
    ("build --arch avx2", "unknown architecture `avx2`"),
    ("build stage1 --export", "a value is required for '--export <DIR>'"),
    ("ncu stage2", "name a variant other than the control `stage2`"),
    ("ncu stage77", "unknown variant `stage77`"),
    ("ncu stage1 --shape huge", "unknown shape `huge`"),
    ("sanitize stage77", "unknown variant `stage77`"),
    ("sanitize --device tpu", "invalid value 'tpu'"),
    ("tune --budget 0", "--budget, --elites and --patience must be at least 1"),
    ("tune --budget x", "invalid value 'x' for '--budget <N>'"),
    ("tune --set stages", "--set"),
    ("tune --resume nowhere", "`nowhere` is not a run directory"),
    ("report", "required arguments were not provided: <RUN>"),
    ("report nowhere", "`nowhere` is not a run directory"),
    ("report nowhere --format pdf", "invalid value 'pdf'"),
    ("report nowhere --section nothing", "invalid value 'nothing'"),
    ("verify", "required arguments were not provided: <RUN>"),
    ("verify nowhere", "`nowhere` is not a run directory"),
    ("verify nowhere --root 12", "a root has 64 hexadecimal digits"),
    ("verify nowhere --signers x", "required arguments were not provided: --signer <NAME>"),
    ("compare nowhere", "required arguments were not provided: <RUN_B>"),
    ("compare nowhere nowhere", "`nowhere` is not a run directory"),
    ("history --runs", "a value is required for '--runs <DIR>'"),
    ("history somewhere", "unexpected argument 'somewhere'"),
    ("list nothing", "invalid value 'nothing'"),
    ("init", "required arguments were not provided: <KERNEL>"),
    ("init nowhere.cu", "nowhere.cu"),
    ("init good.toml", "is there already"),
    ("doctor more", "unexpected argument 'more'"),
    ("self-test more", "unexpected argument 'more'"),
];

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn what_cannot_be_is_one_line_said_once_and_leaves_nothing_behind() {
    let dist = Dist::new(NO_GPU);
    let good = std::fs::read_to_string(dist.path("kbench/suites/stage2.toml")).unwrap();
    dist.write("good.toml", &good);
    dist.write("empty.toml", "");
    dist.write("syntax.toml", "name = \"x\"\ncontrol = = 3\n");
    dist.write("type.toml", &good.replace("name = \"stage2\"", "name = 3"));
    dist.write("field.toml", &good.replace("about", "abut"));
    dist.write("twice.toml", &format!("name = \"x\"\n{good}"));
    dist.write("control.toml", &good.replace("control = \"stage1\"", "control = \"stage77\""));
    std::fs::write(dist.path("binary.toml"), b"name = \"\xff\"").unwrap();
    std::fs::create_dir(dist.path("folder.toml")).unwrap();
    assert!(Command::new("mkfifo").arg(dist.path("pipe.toml")).status().unwrap().success());
    let there = || {
        let all = crate::common::files(&dist.path(""));
        all.into_iter().filter(|file| !file.starts_with("target/")).collect::<Vec<_>>()
    };
    let mut before = there();
    let mut wrong = Vec::new();
    for (line, message) in WRONG {
        let ran = dist.run(&line.split_whitespace().collect::<Vec<_>>());
        let mut said: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        // Without any word there is help, which is more than a line.
        if line.is_empty() {
            said = vec!["error: Usage"];
        }
        let is_last = line.is_empty() || ran.stderr.lines().last() == said.last().copied();
        let is_once = said.len() == 1 && is_last && said[0].matches(message).count() == 1;
        if ran.status != 2 || !ran.stdout.is_empty() || !is_once {
            wrong.push(format!("`{line}`: status {}, {}{}", ran.status, ran.stdout, ran.stderr));
        }
        let after = there();
        if after != before {
            let left = after.iter().find(|file| !before.contains(file));
            wrong.push(format!("`{line}` leaves {left:?} behind"));
            before = after;
        }
    }
    assert!(WRONG.len() >= 60 && wrong.is_empty(), "{} of {}:\n{}", wrong.len(), WRONG.len(), wrong.join("\n"));
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
