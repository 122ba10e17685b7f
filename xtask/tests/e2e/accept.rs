//! After the verdict: a MERGE becomes the control, and whatever is less than a verified MERGE of today's files on this device
//! does not. Compilers, gates and decision are the real ones; the runner is a stand-in, and nothing here was measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use kbench::ledger::Ledger;
use serde_json::Value;
use xtask::run_dir::RunDir;

use crate::common::{Dist, Ran};
use crate::memory::SUITE;

const FILE: &str = "kbench/suites/m.toml";
const LEDGER: &str = "kbench/suites/accepted.json";

/// Scores in another unit, a little.
const CHANGED: (&str, &str) = ("* kLog2E, kLeast", "* kLog2E * 1.0000002f, kLeast");

/// A run of the suite, as the file is now.
fn validated(dist: &Dist, more: &[&str], status: i32) -> (Ran, PathBuf) {
    let ran = dist.run(&[&["validate", "m", "--peers", "none"], more].concat()).expect(status);
    (ran, dist.runs().pop().expect("a run"))
}

fn accept(dist: &Dist, run: &Path, more: &[&str]) -> Ran {
    dist.run(&[&["accept", &run.display().to_string()], more].concat())
}

/// One line says why a run is not accepted, and nothing is written.
#[track_caller]
fn refused(dist: &Dist, run: &Path, more: &[&str], status: i32, words: &str) {
    let before = std::fs::read(dist.path(LEDGER)).ok();
    let ran = accept(dist, run, more).expect(status);
    assert!(ran.stderr.contains(words) && ran.stderr.lines().count() == 1, "{words}: {}", ran.stderr);
    assert!(ran.stderr.contains("is not accepted: ") && ran.stdout.is_empty(), "{}{}", ran.stderr, ran.stdout);
    assert_eq!(std::fs::read(dist.path(LEDGER)).ok(), before);
}

fn ledger(dist: &Dist) -> Ledger {
    Ledger::parse(&std::fs::read_to_string(dist.path(LEDGER)).unwrap()).unwrap()
}

/// A copy of a run, changed and sealed again as far as `change` does that.
fn forged(dist: &Dist, run: &Path, name: &str, change: impl FnOnce(&RunDir)) -> PathBuf {
    let to = dist.path(name);
    assert!(Command::new("cp").arg("-r").args([run, &to]).status().unwrap().success());
    change(&RunDir::at(to.clone()));
    to
}

fn edit(run: &RunDir, file: &str, change: impl FnOnce(&mut Value)) {
    let mut value: Value = run.read_json(file).unwrap();
    change(&mut value);
    run.write_json(file, &value).unwrap();
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_merge_becomes_the_control_and_nothing_less_does() {
    let dist = Dist::timing();
    let asks_for_it = SUITE.replace("\"stage2\"", "\"accepted\"");
    dist.write(FILE, &asks_for_it);
    let none = dist.run(&["validate", "m"]).expect(2).stderr;
    assert!(none.contains("control: nothing was accepted yet for `m`") && none.lines().count() == 1, "{none}");
    dist.write(FILE, SUITE);

    // What was emulated, narrowed, edited or of other limits.
    let (_, emulated) = validated(&dist, &["--device", "emulator"], 3);
    refused(&dist, &emulated, &[], 3, "nothing in this run is a MERGE: DEFER stage3b");
    let (_, run) = validated(&dist, &[], 0);
    refused(&dist, &run, &["persistent"], 2, "`persistent` is no candidate of this run; it has stage3b");
    refused(&dist, &run, &["--root", &"0".repeat(64)], 1, "this is not the run that had it");
    let faster = forged(&dist, &run, "faster", |run| {
        edit(run, "samples.json", |samples| samples["blocks"][0]["us"][0] = 1.0.into());
    });
    refused(&dist, &faster, &[], 1, "samples.json was changed");
    let unbuilt = forged(&dist, &run, "unbuilt", |run| {
        std::fs::remove_dir_all(run.path.join("builds")).unwrap();
        run.seal().unwrap();
    });
    refused(&dist, &unbuilt, &[], 3, "its builds are not there");
    let unsealed = forged(&dist, &run, "unsealed", |run| std::fs::remove_file(run.path.join("manifest.json")).unwrap());
    refused(&dist, &unsealed, &[], 2, "it was interrupted");
    dist.edit(FILE, "0.10", "0.20");
    refused(&dist, &run, &[], 2, "judged by other limits, shapes or timing than");
    dist.edit(FILE, "0.20", "0.95");
    let (_, slow) = validated(&dist, &[], 4);
    refused(&dist, &slow, &[], 4, "nothing in this run is a MERGE: VALID NEGATIVE stage3b");
    let claimed = forged(&dist, &slow, "claimed", |run| {
        edit(run, "decision.json", |decision| decision["candidates"][0]["verdict"] = "MERGE".into());
        run.seal().unwrap();
    });
    refused(&dist, &claimed, &[], 1, "decision.json is not what the evidence gives");
    dist.write(FILE, SUITE);

    // What is one is recorded once, with the message of its merge.
    let said = accept(&dist, &run, &[]).expect(0).stdout;
    let name = RunDir::at(run.clone()).name();
    for words in [
        "accepted stage3b over stage2 on NVIDIA TEST",
        "    Accept stage3b over stage2 in m",
        "tag: accepted/m/stage3b/",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let first = ledger(&dist).accepted.remove(0);
    assert_eq!((first.run.as_str(), first.commit.as_deref()), (name.as_str(), Some("0123456789abcdef")));
    assert_eq!(first.code.keys().collect::<Vec<_>>(), ["sm_89"]);
    assert!(first.figures[0].us < first.figures[0].control_us && said.contains(&first.root), "{first:?}");
    refused(&dist, &run, &[], 2, "`stage3b` was accepted from it already");
    dist.run(&["verify", &run.display().to_string(), "--root", &first.root]).expect(0);
    // Better than a control of yesterday.
    let (_, again) = validated(&dist, &[], 0);
    refused(&dist, &again, &[], 1, "its control is `stage2`, and `stage3b` was accepted on NVIDIA TEST since");

    // From now on the word means that variant.
    dist.write(FILE, &asks_for_it);
    let still = dist.run(&["validate", "m"]).expect(2).stderr;
    assert!(still.contains("candidates: `stage3b` was accepted and is the control now: take it out"), "{still}");
    dist.write(FILE, &asks_for_it.replace("stage3b", "persistent"));
    let (ran, next) = validated(&dist, &[], 0);
    assert!(ran.stderr.contains("control stage3b, accepted on NVIDIA TEST in "), "{}", ran.stderr);
    assert!(dist.run(&["list", "suites"]).expect(0).stdout.contains("stage3b"));
    accept(&dist, &next, &["persistent"]).expect(0);
    assert_eq!(ledger(&dist).accepted.len(), 2);

    // All of them on one page, whose points open their reports.
    let said = dist.run(&["history", "--html"]).expect(0).stdout;
    assert!(said.contains("kbench/runs/history.html: "), "{said}");
    let page = std::fs::read_to_string(dist.path("kbench/runs/history.html")).unwrap();
    for run in [&run, &next] {
        let link = format!("<a href=\"{}/report.html\">", RunDir::at(run.clone()).name());
        assert!(page.contains(&link), "{link}");
    }
    assert!(page.contains("m on NVIDIA TEST"), "{page}");
    dist.run(&["history", "--html", "elsewhere.html"]).expect(0);
    let page = std::fs::read_to_string(dist.path("elsewhere.html")).unwrap();
    assert!(page.contains("<a href=\"kbench/runs/"), "{page}");

    // Another device, another file, another code.
    dist.write(FILE, &asks_for_it);
    validated(&dist, &[], 4);
    let left = dist.runs().len();
    let not_this = |words: &str| {
        let said = dist.run(&["validate", "m", "--peers", "none"]).expect(2).stderr;
        let line = said.lines().last().unwrap_or_default();
        assert!(line.starts_with("error: ") && line.contains(words), "{words}: {said}");
        assert_eq!(dist.runs().len(), left, "nothing is left behind");
    };
    dist.edit("fake_runner.py", "name=\"NVIDIA TEST\"", "name=\"NVIDIA OTHER\"");
    not_this("`persistent` was accepted on NVIDIA TEST, and this is NVIDIA OTHER");
    dist.edit("fake_runner.py", "name=\"NVIDIA OTHER\"", "name=\"NVIDIA TEST\"");
    let kept = std::fs::read_to_string(dist.path(LEDGER)).unwrap();
    dist.write(LEDGER, &kept.replacen("\"format\": 1", "\"format\": 2", 1));
    not_this("it has format 2, and this program reads format 1");
    dist.write(LEDGER, &kept);
    dist.edit("sdpa-kernel/cuda/ladder/softmax.cuh", CHANGED.0, CHANGED.1);
    not_this("`persistent` is not the code that was accepted in ");
}
