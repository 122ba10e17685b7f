//! Runs while they are made: one process at a time, nothing that was edited meanwhile is taken for measured, and whoever is
//! killed leaves nothing for ever. Leaves to others: runs that are sealed (`evidence`).

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{Dist, NO_GPU, files};

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Folders of work in the dist's target.
fn work_folders(dist: &Dist) -> usize {
    let entries = std::fs::read_dir(dist.path("target")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("sdpa-work-")).count()
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_run_has_one_maker_and_what_was_edited_meanwhile_is_measured_again() {
    let dist = Dist::timing();
    dist.write("hangs", "");
    let mut child = dist.start(&["validate", "--stage2", "--peers", "none"]);
    until("the timing", || dist.path("timed.log").exists());
    let run = dist.runs()[0].clone();
    let path = run.display().to_string();

    // Whoever comes second is told who has it, and touches nothing.
    let before = files(&run);
    let second = dist.run(&["validate", "--resume", &path]).expect(2).stderr;
    let owner = format!("is being worked on by process {} on ", child.id());
    assert!(second.contains(&owner) && second.lines().count() == 1, "{second}");
    assert_eq!(files(&run), before);

    // Killed, it is an interrupted run, and says so; its folder of work is there until the next one.
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(work_folders(&dist), 1);
    for command in [&["report", &path][..], &["verify", &path], &["compare", &path, &path]] {
        let said = dist.run(command).expect(2).stderr;
        assert!(
            said.contains("the run was interrupted; continue it with --resume") && said.lines().count() == 1,
            "{said}"
        );
    }

    // Checks that were edited are not what was measured; what a killed process left half written is gone.
    let launches = || std::fs::read_to_string(dist.path("alone.log")).unwrap().lines().count();
    let launched = launches();
    let checks = std::fs::read_to_string(run.join("check.json")).unwrap();
    std::fs::write(run.join("check.json"), checks.replace("0.0001", "0.00001")).unwrap();
    std::fs::write(run.join(".writing-x"), "half").unwrap();
    std::fs::remove_file(dist.path("hangs")).unwrap();
    let resumed = dist.run(&["validate", "--resume", &path]);
    assert!(resumed.stderr.contains("check.json` is not what was written: it is made again"), "{}", resumed.stderr);
    assert_eq!(launches(), 2 * launched);
    assert_eq!(std::fs::read_to_string(run.join("check.json")).unwrap(), checks);
    dist.run(&["verify", &path]).expect(0);
    let left = files(&run);
    let odd = left.iter().filter(|f| f.contains(".writing-") || *f == "run.lock" || *f == "written.json");
    assert_eq!(odd.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(work_folders(&dist), 0);
    assert!(dist.run(&["validate", "--resume", &path]).expect(2).stderr.contains("is whole"));
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn an_unedited_check_is_not_made_again_and_another_basis_is_refused() {
    let dist = Dist::timing();
    dist.write("hangs", "");
    let mut child = dist.start(&["validate", "--stage2", "--peers", "none"]);
    until("the timing", || dist.path("timed.log").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let run = dist.runs()[0].clone();
    let path = run.display().to_string();
    let basis = std::fs::read_to_string(run.join("basis.json")).unwrap();
    std::fs::write(run.join("basis.json"), basis.replace("GPU-0", "GPU-1")).unwrap();
    let refused = dist.run(&["validate", "--resume", &path]).expect(2).stderr;
    assert!(refused.contains("basis.json, which says what it rests on, is not what was written"), "{refused}");
    std::fs::write(run.join("basis.json"), basis).unwrap();
    let launched = std::fs::read_to_string(dist.path("alone.log")).unwrap();
    std::fs::remove_file(dist.path("hangs")).unwrap();
    let resumed = dist.run(&["validate", "--resume", &path]);
    assert!(!resumed.stderr.contains("made again"), "{}", resumed.stderr);
    assert_eq!(std::fs::read_to_string(dist.path("alone.log")).unwrap(), launched);
    dist.run(&["verify", &path]).expect(0);
}

#[test]
fn what_cannot_begin_leaves_nothing_behind() {
    let dist = Dist::new(NO_GPU);
    let out = dist.path("new/folder").display().to_string();
    dist.run(&["validate", "--stage2", "--device", "gpu", "--out", &out]).expect(2);
    dist.run(&["validate", "--stage2", "--device", "gpu"]).expect(2);
    dist.run(&["tune", "--stage2", "--device", "gpu", "--out", &out]).expect(2);
    assert!(!dist.path("new").exists() && dist.runs().is_empty());
    assert_eq!(dist.run(&["history"]).expect(0).stdout.trim(), "no runs yet: ./xtask validate --stage5");
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_run_is_signed_by_who_sealed_it() {
    if std::process::Command::new("ssh-keygen").arg("-?").output().is_err() {
        return;
    }
    let dist = Dist::new(NO_GPU);
    let at = |name: &str| dist.path(name).display().to_string();
    let keygen = |key: &str| {
        let words = ["-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", key];
        assert!(std::process::Command::new("ssh-keygen").args(words).status().unwrap().success());
    };
    keygen(&at("key"));
    keygen(&at("other"));
    let public = |name: &str| std::fs::read_to_string(dist.path(name)).unwrap();
    dist.write("signers", &format!("me {}", public("key.pub")));
    dist.write("strangers", &format!("me {}", public("other.pub")));
    dist.run(&["validate", "--stage2", "--sign", &at("key")]).expect(3);
    let run = dist.runs()[0].display().to_string();
    let verify = |signers: &str| dist.run(&["verify", &run, "--signers", &at(signers), "--signer", "me"]);
    verify("signers").expect(0);
    assert!(verify("strangers").expect(1).stdout.contains("it is not signed by me of"));
    // The signature is of every file by the manifest: one that was made to fit an edit has none.
    let sealed = xtask::run_dir::RunDir::open(Path::new(&run)).unwrap();
    sealed.write("logs/probe.log", "other\n").unwrap();
    sealed.seal().unwrap();
    assert!(verify("signers").expect(1).stdout.contains("it is not signed by me of"));
    std::fs::remove_file(sealed.path.join("manifest.json.sig")).unwrap();
    assert!(verify("signers").expect(1).stdout.contains("it is not signed: it has no manifest.json.sig"));
}
