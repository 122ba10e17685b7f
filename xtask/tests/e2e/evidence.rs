//! Evidence that was edited: every fact that stands in two places, two hundred edits at random, and whatever else can lie in
//! a folder. A run of the real program, with a stand-in for the runner, is edited as somebody would who has everything but
//! the root. Leaves to others: runs while they are made (`unfinished`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kbench::report::HistoryPoint;
use serde_json::{Value, json};
use xtask::cubin::sha256_hex;
use xtask::inspect::{FACTS, verify_against};
use xtask::run_dir::RunDir;

use crate::common::{Dist, Ran, files};

/// A dist folder whose runner is the stand-in, and a whole run of it in which every fact stands that can.
struct Sealed {
    dist: Dist,
    run: PathBuf,
}

const PEER: &str = "torch/default";

impl Sealed {
    fn new() -> Sealed {
        let dist = Dist::timing();
        let large = "[large]\nshapes = [\"long\"]\nreference_rows = 8\nrounds = 8\n\n[resources]";
        dist.edit("kbench/suites/stage2.toml", "[resources]", large);
        dist.write("gpus", "2");
        let ran = dist.run(&["validate", "--stage2", "--peers", "none", "--gpus", "2"]);
        assert!(ran.stdout.contains("\nroot "), "{}\n{}", ran.stdout, ran.stderr);
        let run = dist.runs().pop().unwrap();
        dist.run(&["verify", &run.display().to_string()]).expect(0);
        let sealed = Sealed { dist, run };
        sealed.complete();
        sealed
    }

    /// Adds what this machine cannot measure, in all its places.
    fn complete(&self) {
        let run = RunDir::at(self.run.clone());
        let error = json!({"elements": 524288, "nan": 0, "inf": 0, "kernel_max": 0.05, "kernel_mean": 0.004,
            "worst_at": [0, 0, 0, 0], "floor_max": 0.05, "end_to_end_max": 0.001, "end_to_end_mean": 0.0001,
            "bad_share": 0.0, "reference_amax": 1.0, "from_control_max": null});
        edit(&run, "peers.json", |peers| {
            peers["versions"] = json!({"torch": "2.9"});
            peers["backends"] = json!([{"shape": "mission", "subject": PEER, "kernels": [], "resolved": null,
                "unavailable": null, "errors": error}]);
        });
        edit(&run, "ENV.json", |env| env["peers"] = json!({"torch": "2.9"}));
        edit(&run, "samples.json", |samples| {
            let blocks = samples["blocks"].as_array_mut().unwrap();
            let own = blocks.iter().filter(|b| b["shape"] == "mission" && b["subject"] == json!({"who": "stage1"}));
            let peers: Vec<Value> = own
                .cloned()
                .map(|mut b| {
                    b["subject"] = json!({"who": PEER});
                    b
                })
                .collect();
            blocks.extend(peers);
        });
        let device = run.read_json::<Value>("ENV.json").unwrap()["device"].clone();
        let state = json!({"throttle": [], "power_capped": false});
        run.write_json("ceilings.json", &json!({"device": device, "rows": [], "before": state, "after": state}))
            .unwrap();
        run.write("operator/reference.py", "def reference(x): return x\n").unwrap();
        let sha256 = sha256_hex(b"def reference(x): return x\n");
        edit(&run, "basis.json", |basis| basis["files"] = json!({"reference.py": sha256}));
        let csv =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../kbench/tests/data/ncu/stage2.mission.seed0.normal.csv");
        let csv = std::fs::read_to_string(csv).unwrap();
        run.write("profile/stage2.csv", &csv).unwrap();
        let problem = run.evidence().unwrap().checks.cases[0].launch.problem.clone();
        run.write_json(
            "profile.json",
            &json!({"deferred": null, "settings": null, "kernels": [{"variant": "stage2",
            "problem": problem, "deferred": null, "output_sha256": "00", "report": null, "csv": "profile/stage2.csv",
            "reading": kbench::profile::read(&csv).unwrap()}]}),
        )
        .unwrap();
        derive(&run);
        let whole = verify_against(&self.run, None).unwrap();
        assert!(whole.faults.is_empty() && whole.open.is_empty(), "{whole:#?}");
    }

    /// A copy of the run to edit.
    fn copy(&self, parent: &Path) -> RunDir {
        let to = parent.join(self.run.file_name().unwrap());
        let _ = std::fs::remove_dir_all(&to);
        let copied = Command::new("cp").arg("-r").args([&self.run, &to]).status();
        assert!(copied.is_ok_and(|status| status.success()));
        RunDir::at(to)
    }

    fn asked(&self, arguments: &[&str], run: &RunDir) -> Ran {
        let begin = Instant::now();
        let path = run.shown();
        let words: Vec<&str> = arguments.iter().map(|word| if *word == "RUN" { &path } else { *word }).collect();
        let ran = self.dist.run(&words);
        assert!(begin.elapsed() < Duration::from_secs(60), "{arguments:?} hangs");
        ran
    }
}

fn edit(run: &RunDir, file: &str, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(run.path.join(file)).unwrap()).unwrap();
    change(&mut value);
    run.write_json(file, &value).unwrap();
}

fn edit_text(run: &RunDir, file: &str, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(run.path.join(file)).unwrap();
    let changed = change(text.clone());
    assert_ne!(changed, text, "{file}");
    run.write(file, &changed).unwrap();
}

/// Derives gates, decision and reports anew and seals, as far as the evidence can be read: all that somebody can do who
/// has this program and not the root.
fn derive(run: &RunDir) {
    let derived = || -> anyhow::Result<()> {
        let earlier: Vec<HistoryPoint> = run.read_json("history.json")?;
        xtask::inspect::derive(run, &run.suite()?, &run.evidence()?, &run.read_json("ENV.json")?, &earlier).map(drop)
    };
    let _ = derived();
    run.seal().unwrap();
}

/// An edit of one side of a fact; whether what is derived is derived anew after it.
type Edit = (&'static str, usize, bool, fn(&RunDir));

const BUILD: &str = "builds/stage2";

#[rustfmt::skip]
const EDITS: &[Edit] = &[
    ("suite", 0, true, |r| edit_text(r, "suite.toml", |t| t.replace("max_registers = 128", "max_registers = 255"))),
    ("suite", 1, true, |r| edit(r, "basis.json", |b| b["suite"] = "0".repeat(64).into())),
    ("sources", 0, true, |r| edit(r, "ENV.json", |e| e["dirty"] = false.into())),
    ("sources", 0, true, |r| edit(r, "ENV.json", |e| e["rustc"] = "rustc 2.0".into())),
    ("sources", 0, true, |r| edit(r, "ENV.json", |e| e["diff_sha256"] = "ab".into())),
    ("sources", 1, true, |r| edit(r, "basis.json", |b| b["source"]["commit"] = "fedcba9876543210".into())),
    ("device that it rests on", 0, true, |r| edit(r, "ENV.json", |e| e["device"] = Value::Null)),
    ("device that it rests on", 1, true, |r| edit(r, "basis.json", |b| b["device"] = "GPU-7".into())),
    ("kernels", 0, true, |r| edit(r, "builds.json", |b| { b["records"].as_array_mut().unwrap().pop(); })),
    ("kernels", 1, true, |r| edit(r, "basis.json", |b| b["cubins"]["stage2 sm_89"] = "00 00".into())),
    ("files that a gate file names", 0, true, |r| edit_text(r, "operator/reference.py", |t| t.replace("return x", "return 0"))),
    ("files that a gate file names", 0, true, |r| r.write("operator/other.py", "").unwrap()),
    ("files that a gate file names", 1, true, |r| edit(r, "basis.json", |b| b["files"]["reference.py"] = "00".into())),
    ("build", 0, true, |r| edit(r, "builds.json", |b| b["records"][1]["key"] = "0".into())),
    ("build", 1, true, |r| edit(r, &format!("{BUILD}/build.json"), |b| b["toggles"]["stages"] = 7.into())),
    ("PTX", 0, true, |r| edit(r, "builds.json", |b| b["records"][1]["ptx_sha256"] = "00".into())),
    ("PTX", 1, true, |r| edit_text(r, &format!("{BUILD}/kernel.ptx"), |t| format!("{t}// more\n"))),
    ("cubin", 0, true, |r| edit(r, "builds.json", |b| b["records"][1]["cubin_sha256"] = "00".into())),
    ("cubin", 1, true, |r| std::fs::copy(r.path.join("builds/stage1/kernel.cubin"), r.path.join(BUILD).join("kernel.cubin")).map(drop).unwrap()),
    // In both records, so that only what ptxas said is left to tell.
    ("registers, memory and spills", 0, true, |r| both_records(r, |b| b["entries"][0]["resources"]["registers"] = 1.into())),
    ("registers, memory and spills", 0, true, |r| both_records(r, |b| b["entries"][0]["launch"]["dynamic_smem_bytes"] = 1.into())),
    ("registers, memory and spills", 1, true, |r| edit_text(r, &format!("{BUILD}/ptxas.txt"), |t| t.replacen("0 bytes spill stores", "4 bytes spill stores", 1))),
    ("machine code", 0, true, |r| both_records(r, |b| b["entries"][0]["code_sha256"] = "00".into())),
    ("machine code", 1, true, |r| { let path = r.path.join(BUILD).join("kernel.cubin"); let mut bytes = std::fs::read(&path).unwrap(); let half = bytes.len() / 2; bytes[half] ^= 1; std::fs::write(path, bytes).unwrap(); }),
    ("registers and stack frame", 0, true, fewer_registers),
    ("registers and stack frame", 1, true, |r| { let path = r.path.join(BUILD).join("kernel.cubin"); let mut bytes = std::fs::read(&path).unwrap(); let half = bytes.len() / 2; bytes[half] ^= 2; std::fs::write(path, bytes).unwrap(); }),
    ("compilers", 0, true, |r| edit(r, "ENV.json", |e| e["nvcc"] = "99.9".into())),
    ("compilers", 1, true, |r| both_records(r, |b| b["ptxas"] = "99.9".into())),
    ("device that was timed", 0, true, |r| edit(r, "ENV.json", |e| e["device"]["sm_count"] = 1.into())),
    ("device that was timed", 1, true, |r| edit(r, "samples.json", |s| s["device"]["sm_count"] = 1.into())),
    ("GPU that timed each shape", 0, true, |r| { edit(r, "ENV.json", |e| e["other_devices"][0]["uuid"] = "GPU-7".into()); edit(r, "basis.json", |b| b["other_devices"][0] = "GPU-7".into()); }),
    ("GPU that timed each shape", 0, true, |r| edit(r, "ENV.json", |e| e["other_devices"][0]["sm_count"] = 1.into())),
    ("GPU that timed each shape", 1, true, |r| edit(r, "samples.json", |s| s["gpus"]["mission"] = "GPU-7".into())),
    ("GPU that timed each shape", 1, true, |r| edit(r, "samples.json", |s| { s.as_object_mut().unwrap().remove("gpus"); })),
    ("device that was checked", 0, true, |r| { edit(r, "ENV.json", |e| e["device"]["name"] = "NVIDIA B200".into()); edit(r, "samples.json", |s| s["device"]["name"] = "NVIDIA B200".into()); edit(r, "ceilings.json", |s| s["device"]["name"] = "NVIDIA B200".into()); }),
    ("device that was checked", 1, true, |r| edit(r, "check.json", |c| c["device"] = "gpu: NVIDIA B200".into())),
    ("device of the ceilings", 0, true, |r| { edit(r, "ENV.json", |e| e["device"]["name"] = "NVIDIA B200".into()); edit(r, "samples.json", |s| s["device"]["name"] = "NVIDIA B200".into()); edit(r, "check.json", |c| c["device"] = "gpu: NVIDIA B200".into()); }),
    ("device of the ceilings", 1, true, |r| edit(r, "ceilings.json", |s| s["device"]["name"] = "NVIDIA B200".into())),
    ("versions of peers", 0, true, |r| edit(r, "ENV.json", |e| e["peers"]["torch"] = "1.0".into())),
    ("versions of peers", 1, true, |r| edit(r, "peers.json", |p| p["versions"]["torch"] = "1.0".into())),
    ("peers that were timed", 0, true, |r| edit(r, "peers.json", |p| p["backends"][0]["subject"] = "torch/flash".into())),
    ("peers that were timed", 0, true, |r| edit(r, "peers.json", |p| p["backends"][0]["unavailable"] = "no".into())),
    ("peers that were timed", 1, true, |r| edit(r, "samples.json", |s| s["blocks"].as_array_mut().unwrap().retain(|b| b["subject"]["who"] != PEER))),
    ("entries that ran", 0, true, |r| edit(r, "check.json", |c| c["cases"][0]["launch"]["entry"] = "other".into())),
    ("entries that ran", 1, true, |r| both_records(r, |b| b["entries"][0]["launch"]["entry"] = "other".into())),
    ("rows that were compared", 0, true, |r| edit(r, "check.json", |c| long_case(c)["errors"]["elements"] = (64 * 9).into())),
    ("rows that were compared", 1, true, |r| edit(r, "check.json", |c| { long_case(c)["errors"]["sampled_rows"].as_array_mut().unwrap().pop(); })),
    ("errors", 0, true, |r| edit(r, "check.json", |c| { c["cases"][0]["errors"]["kernel_max"] = 0.2.into(); c["cases"][0]["errors"]["kernel_mean"] = 0.01.into(); })),
    ("errors", 1, true, |r| edit(r, "check.json", |c| c["cases"][0]["errors"]["end_to_end_max"] = 0.004.into())),
    ("name", 0, true, |r| edit(r, "run.json", |h| h["name"] = "20200101T000000Z-abcdef0-stage2".into())),
    ("name", 1, true, |r| { edit(r, "ENV.json", |e| e["commit"] = "fedcba9876543210".into()); edit(r, "basis.json", |b| b["source"]["commit"] = "fedcba9876543210".into()); }),
    ("suite's name", 0, true, |r| edit_text(r, "run.json", |t| t.replace("-stage2\"", "-stage5\""))),
    ("suite's name", 1, true, |r| edit_text(r, "suite.toml", |t| t.replace("name = \"stage2\"", "name = \"stage5\""))),
    ("gates", 0, false, |r| edit(r, "gates.json", |g| g[0]["measured"] = "better".into())),
    ("gates", 1, false, |r| edit(r, "check.json", |c| c["cases"][0]["launch"]["guards_intact"] = false.into())),
    ("decision", 0, false, |r| edit(r, "decision.json", |d| d["counts"]["pass"] = 1000.into())),
    ("decision", 1, false, |r| edit(r, "check.json", |c| c["cases"][0]["launch"]["failure"] = "lost".into())),
    ("report", 0, false, |r| edit_text(r, "REPORT.md", |t| t.replacen("FAIL", "PASS", 1))),
    ("report", 1, false, |r| edit(r, "ENV.json", |e| e["started"] = "2020-01-01T00:00:00Z".into())),
    ("page", 0, false, |r| edit_text(r, "report.html", |t| t.replacen("stage2", "stage3", 1))),
    ("page", 1, false, |r| edit(r, "samples.json", |s| s["blocks"][0]["us"][0] = 1.5.into())),
    ("earlier runs", 0, false, |r| edit(r, "history.json", |h| h.as_array_mut().unwrap().push(json!({"run": "x", "outcome": {"Err": "y"}})))),
    ("earlier runs", 1, false, |r| edit_text(r, "report.html", |t| t.replacen("first whole run", "tenth whole run", 1))),
    ("profile", 0, true, |r| edit_text(r, "profile.json", |t| t.replacen("\"value\": ", "\"value\": 1", 1))),
    ("profile", 1, true, |r| edit_text(r, "profile/stage2.csv", |t| t.replacen("sdpa_fwd_d64", "sdpa_fwd_d65", 1))),
    ("root", 0, false, |r| { r.seal().unwrap(); edit_text(r, "REPORT.md", |t| t.replacen("root ", "root f", 1)); }),
    ("root", 1, false, |r| { r.seal().unwrap(); edit_text(r, "manifest.json", |t| t.replacen(": \"", ": \"0", 1)); }),
];

/// Facts of runs that a search was part of; the search's own test edits them.
const ELSEWHERE: &[&str] = &["result of a search"];

fn long_case(checks: &mut Value) -> &mut Value {
    let cases = checks["cases"].as_array_mut().unwrap();
    cases.iter_mut().find(|case| case["launch"]["problem"]["shape"]["name"] == "long").unwrap()
}

/// Of the candidate, in `builds.json` and beside its build.
fn both_records(run: &RunDir, change: fn(&mut Value)) {
    edit(run, "builds.json", |b| {
        let records = b["records"].as_array_mut().unwrap();
        change(records.iter_mut().find(|record| record["variant"] == "stage2").unwrap());
    });
    edit(run, &format!("{BUILD}/build.json"), change);
}

/// In both records and in what ptxas said: only the cubin is left to tell.
fn fewer_registers(run: &RunDir) {
    let registers = run.evidence().unwrap().builds.get("stage2", "sm_89").unwrap().entries[0].resources.registers;
    both_records(run, |b| b["entries"][0]["resources"]["registers"] = 1.into());
    let entry = run.evidence().unwrap().builds.get("stage2", "sm_89").unwrap().entries[0].launch.entry.clone();
    edit_text(run, &format!("{BUILD}/ptxas.txt"), |text| {
        let at = text.find(&format!("entry function '{entry}'")).unwrap();
        let used = format!("Used {registers} registers");
        format!("{}{}", &text[..at], text[at..].replacen(&used, "Used 1 registers", 1))
    });
}

/// Every edit of either side of every fact is found, with the manifest made to fit.
fn every_fact(sealed: &Sealed, parent: &Path) {
    let mut missed = Vec::new();
    for (what, side, derived, change) in EDITS {
        let fact = FACTS.iter().find(|fact| fact.what == *what).unwrap_or_else(|| panic!("no fact is called {what}"));
        let run = sealed.copy(parent);
        change(&run);
        match derived {
            true => derive(&run),
            false if *what == "root" => {}
            false => drop(run.seal().unwrap()),
        }
        let found = verify_against(&run.path, None).unwrap();
        if found.faults.is_empty() {
            missed.push(format!("{what}, in {}", fact.sides[*side]));
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
    for fact in FACTS.iter().filter(|fact| !ELSEWHERE.contains(&fact.what)) {
        let sides: BTreeSet<usize> = EDITS.iter().filter(|edit| edit.0 == fact.what).map(|edit| edit.1).collect();
        assert_eq!(sides, BTreeSet::from([0, 1]), "{} has an edit of either side", fact.what);
    }
    println!("{} edits of {} facts, all found", EDITS.len(), FACTS.len() - ELSEWHERE.len());
}

/// A small generator that gives the same edits every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

/// One random edit of a file.
fn random_edit(run: &RunDir, file: &str, dice: &mut Dice) {
    let path = run.path.join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    if bytes.is_empty() {
        return std::fs::write(path, "0").unwrap();
    }
    match dice.below(6) {
        0 => return std::fs::remove_file(path).unwrap(),
        1 => return std::fs::write(run.path.join(format!("{file}.old")), bytes).unwrap(),
        2 => bytes.truncate(dice.below(bytes.len())),
        3 => {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(7);
        }
        // A digit somewhere becomes another: the edit that somebody would make.
        _ => {
            let digits: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i].is_ascii_digit()).collect();
            match digits.get(dice.below(digits.len())) {
                Some(at) => bytes[*at] = b'0' + (bytes[*at] - b'0' + 1 + dice.below(9) as u8) % 10,
                None => bytes.push(b'0'),
            }
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// Two hundred edits, half of them with everything computed anew: with the root all of them are found.
fn random_edits(sealed: &Sealed, parent: &Path) {
    const DERIVED: [&str; 5] = ["gates.json", "decision.json", "REPORT.md", "report.html", "manifest.json"];
    let root = verify_against(&sealed.run, None).unwrap().root;
    assert!(verify_against(&sealed.run, Some(&root)).unwrap().faults.is_empty());
    let names = files(&sealed.run);
    let mut dice = Dice(0x5DEE_CE66_D123_4567);
    let (mut plain, mut anew, mut without) = (0, 0, 0);
    while plain + anew < 200 {
        let run = sealed.copy(parent);
        let computed_anew = plain > anew;
        // What is derived would be as it was.
        let may_be_edited = |name: &&String| !computed_anew || !DERIVED.contains(&name.as_str());
        let candidates: Vec<&String> = names.iter().filter(may_be_edited).collect();
        let file = candidates[dice.below(candidates.len())];
        random_edit(&run, file, &mut dice);
        if computed_anew {
            derive(&run);
        }
        // A run that cannot be read at all is found, too.
        let faults = match verify_against(&run.path, Some(&root)) {
            // Deriving anew may have undone the edit: then it is the run.
            Ok(found) if computed_anew && found.root == root && found.faults.is_empty() => continue,
            Ok(found) => found.faults,
            Err(error) => vec![format!("{error:#}")],
        };
        assert!(!faults.is_empty(), "an edit of {file} is not found, {plain} and {anew} others are");
        plain += usize::from(!computed_anew);
        anew += usize::from(computed_anew);
        without += usize::from(computed_anew && faults.iter().any(|fault| !fault.starts_with("its root is")));
    }
    println!(
        "random edits found: {plain} of 100 plain; {anew} of 100 with all computed anew, {without} of them without the root"
    );
}

/// Puts something into a run that is no file of one.
type Put = fn(&Path);

/// What is no file is named, and nobody waits for it.
fn whatever_lies_there(sealed: &Sealed, parent: &Path) {
    let things: [(&str, Put); 7] = [
        ("extra.json is a pipe", |p| {
            assert!(Command::new("mkfifo").arg(p.join("extra.json")).status().unwrap().success())
        }),
        ("samples.json is a pipe", |p| {
            std::fs::remove_file(p.join("samples.json")).unwrap();
            assert!(Command::new("mkfifo").arg(p.join("samples.json")).status().unwrap().success());
        }),
        ("run.json is a symbolic link", |p| {
            std::fs::remove_file(p.join("run.json")).unwrap();
            std::os::unix::fs::symlink("/dev/zero", p.join("run.json")).unwrap();
        }),
        ("more is a symbolic link", |p| std::os::unix::fs::symlink("..", p.join("more")).unwrap()),
        ("logs/zero is a symbolic link", |p| std::os::unix::fs::symlink("/dev/zero", p.join("logs/zero")).unwrap()),
        ("logs/huge is too large for a run", |p| {
            std::fs::File::create(p.join("logs/huge")).unwrap().set_len(1 << 40).unwrap()
        }),
        ("none is an empty folder", |p| std::fs::create_dir(p.join("none")).unwrap()),
    ];
    for (what, put) in things {
        let run = sealed.copy(parent);
        put(&run.path);
        let verified = sealed.asked(&["verify", "RUN"], &run);
        // A run whose own head cannot be read is no run.
        assert!(matches!(verified.status, 1 | 2), "{what}: {}", verified.stdout);
        assert!(
            format!("{}{}", verified.stdout, verified.stderr).contains(&what.replace("run.json", "")),
            "{}",
            verified.stdout
        );
        for command in [&["report", "RUN"][..], &["compare", "RUN", "RUN"], &["report", "RUN", "--format", "html"]] {
            let said = sealed.asked(command, &run).expect(2).stderr;
            assert!(said.lines().count() == 1, "{command:?}: {said}");
        }
        let listed = sealed.dist.run(&["history", "--runs", &parent.display().to_string()]).expect(0).stdout;
        assert!(listed.contains("not as it was sealed") || listed.contains("unreadable"), "{listed}");
    }
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn no_edit_of_a_run_is_taken_for_the_run() {
    let sealed = Sealed::new();
    let parent = tempfile::tempdir().unwrap();
    every_fact(&sealed, parent.path());
    random_edits(&sealed, parent.path());
    whatever_lies_there(&sealed, parent.path());

    // The root is printed with the decision, stands in the report, and is held to wherever the run lies now.
    let run = RunDir::at(sealed.run.clone());
    let root = verify_against(&run.path, None).unwrap().root;
    assert!(std::fs::read_to_string(run.path.join("REPORT.md")).unwrap().contains(&root));
    assert!(sealed.asked(&["verify", "RUN", "--root", &root], &run).expect(0).stdout.contains("as it must be"));
    let other = "0".repeat(64);
    let said = sealed.asked(&["verify", "RUN", "--root", &other], &run).expect(1).stdout;
    assert!(said.contains("this is not the run that had it"), "{said}");
    let moved = RunDir::at(parent.path().join("elsewhere"));
    std::fs::rename(sealed.copy(parent.path()).path, &moved.path).unwrap();
    sealed.asked(&["verify", "RUN", "--root", &root], &moved).expect(0);

    // Less than the whole is not compared, and that is said.
    std::fs::remove_dir_all(moved.path.join("builds")).unwrap();
    moved.seal().unwrap();
    let said = sealed.asked(&["verify", "RUN"], &moved).expect(3).stdout;
    assert!(said.contains("not compared: its builds are not there"), "{said}");
    let faults = sealed.asked(&["report", "RUN"], &{
        std::fs::write(moved.path.join("check.json"), "{}").unwrap();
        moved
    });
    assert!(faults.expect(2).stderr.contains("is not as it was sealed: check.json was changed; see `verify`"));
}
