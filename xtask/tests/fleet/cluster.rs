//! Twelve jobs on a real Slurm: one is cancelled, one fails on its node, one is preempted and goes on. What `status` and
//! `report` say of each, and that nothing is left.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::alone;
use crate::many::job;
use crate::room::{Room, the_run};

const KINDS: [&str; 3] = ["l4", "a100", "h100"];

/// A cluster that goes away with the value.
pub struct Cluster {
    pub folder: PathBuf,
    script: PathBuf,
}

impl Cluster {
    /// `None` where the packages are missing.
    pub fn up(folder: PathBuf) -> Option<Cluster> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/cluster.sh");
        let status = Command::new(&script).arg("up").arg(&folder).status().unwrap();
        match status.code() {
            Some(3) => None,
            Some(0) => Some(Cluster { folder, script }),
            other => panic!("the cluster did not come up: {other:?}; see {folder:?}"),
        }
    }

    pub fn down(&self) {
        assert!(Command::new(&self.script).arg("down").arg(&self.folder).status().unwrap().success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new(&self.script).arg("down").arg(&self.folder).status();
        }
    }
}

/// The state of a task as `status` says it.
fn state(status: &Value, kind: &str, gate: &str) -> String {
    let tasks = status["tasks"].as_array().unwrap();
    let own = tasks.iter().find(|task| task["kind"] == kind && task["gate"] == gate).unwrap();
    own["state"].as_str().unwrap().to_owned()
}

/// Asks until it is so.
#[track_caller]
pub fn until(room: &Room, fleet: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        let status = room.xtask(&["fleet", "status", fleet, "--json"]).json();
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what} never came: {status:#}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

pub fn is_over(status: &Value) -> bool {
    let goes_on = |task: &Value| task["state"] == "pending" || task["state"] == "running";
    !status["tasks"].as_array().unwrap().iter().any(goes_on)
}

#[test]
fn twelve_jobs_of_which_one_is_cancelled_one_fails_and_one_is_preempted() {
    let _alone = alone();
    let mut room = Room::new();
    let Some(cluster) = Cluster::up(room.path("cluster")) else {
        eprintln!("DEFERRED: the fleet on a real Slurm; apt-get install slurm-wlm munge");
        return;
    };
    room.set("SLURM_CONF", &cluster.folder.join("slurm.conf").display().to_string());
    let hold = room.path("hold");
    let target = xtask::layout::Layout::find().unwrap().target;
    let setup = [
        format!("export CARGO_TARGET_DIR='{}'", target.display()),
        format!("export FLEET_HOLD='{}'/\"${{task##*/}}\"", hold.display()),
        format!("[ ! -e '{}'/\"fail-${{task##*/}}\" ]", hold.display()),
    ];
    room.config(&KINDS, &setup);
    let gates = ["one", "two", "three", "four"];
    let files: Vec<String> = gates
        .iter()
        .map(|name| {
            room.gate(name, if *name == "two" { "[fleet]\nrequire = [\"l4\"]\nmay_defer = [\"a100\"]" } else { "" })
        })
        .collect();
    // Tasks of a kind are counted in the order of the gate files. The first two of l4 wait in their reference; one fails.
    for file in ["l4-0", "l4-1", "fail-a100-2"] {
        std::fs::write(hold.join(file), "").unwrap();
    }
    let mut arguments: Vec<&str> = files.iter().map(String::as_str).collect();
    arguments.extend(["--on", "l4,a100,h100", "--partition", "low"]);
    let path = room.submit(&arguments);
    let fleet = path.display().to_string();
    let checks_begun = |task: &str| {
        let runs = std::fs::read_dir(path.join("tasks").join(task).join("runs")).into_iter().flatten().flatten();
        runs.map(|run| run.path().join("logs")).any(|logs| logs.join("errors.log").is_file())
    };
    until(&room, &fleet, "two held tasks", |_| checks_begun("l4-0") && checks_begun("l4-1"));
    let shown = room.xtask(&["fleet", "status", &fleet]).expect(3);
    assert!(shown.line(&["l4 one #1"]).contains("running on node-l4, emulate is done"), "{}", shown.stdout);
    assert!(shown.line(&["l4 three #1"]).contains("pending (Resources)"), "{}", shown.stdout);

    let job = job(&path, "l4", 1);
    room.run("scancel", &[&format!("{job}_0")]).expect(0);
    until(&room, &fleet, "the cancelled task", |status| state(status, "l4", "one") == "cancelled");
    // Somebody who comes first takes both cards of the node, until the held task was seen waiting again.
    let other = "--parsable --partition=high --gres=gpu:l4:2 --output=/dev/null --wrap";
    let wait = format!("while [ -e '{}' ]; do sleep 0.2; done", hold.join("l4-1").display());
    let other: Vec<&str> = other.split(' ').chain([wait.as_str()]).collect();
    room.run("sbatch", &other).expect(0);
    until(&room, &fleet, "the preempted task", |status| state(status, "l4", "two") == "pending");
    let shown = room.xtask(&["fleet", "status", &fleet]).expect(3);
    assert!(shown.line(&["l4 two #1"]).contains("; try 2, after one that was: preempted"), "{}", shown.stdout);
    std::fs::remove_file(hold.join("l4-1")).unwrap();
    until(&room, &fleet, "the end", is_over);
    // Long enough for Slurm to forget: the folders alone must say the same.
    until(&room, &fleet, "an empty queue", |_| room.run("squeue", &["--noheader", "--states=all"]).stdout.is_empty());

    let shown = room.xtask(&["fleet", "status", &fleet]).expect(3);
    assert!(shown.line(&["l4 one #1"]).ends_with(" cancelled"), "{}", shown.stdout);
    assert!(shown.line(&["a100 three #1"]).ends_with("failed job: setup ended with status 1 on node-a100"));
    let resumed = shown.line(&["l4 two #1"]);
    let logged = || std::fs::read_to_string(path.join("logs/l4-1.txt")).unwrap();
    assert!(resumed.contains("done; try 2, after one that was: preempted; DEFER added"), "{resumed}\n{}", logged());
    assert_eq!(shown.line(&["12 tasks"]), "12 tasks: 1 cancelled, 10 done, 1 failed job");
    let resumed = the_run(&path, "l4-1");
    room.xtask(&["verify", &resumed.display().to_string()]).expect(0);
    // It went on with the run that it began, unless that had recorded something in the moment of the kill.
    let aside = std::fs::read_dir(path.join("tasks/l4-1/abandoned")).into_iter().flatten();
    for run in aside.map(|entry| entry.unwrap().path()) {
        assert!(["check.json", "samples.json"].iter().any(|file| run.join(file).exists()), "{}", run.display());
    }
    let log = logged();
    assert!(
        log.contains("errors 6 outputs") && !log.contains("errors 0 outputs"),
        "a kill is no kernel's fault: {log}"
    );

    let report = room.report(&fleet, 3);
    report.line(&["12 tasks: 10 runs hold, 1 open, 1 refused"]);
    report.line(&["REFUSED l4 one #1", "`tasks/l4-0/runs/", "is half-written; the task is cancelled"]);
    report.line(&["OPEN a100 three #1", "failed job: setup ended with status 1 on node-a100"]);
    assert!(report.line(&["one: DEFER added on l4"]).contains("half-written"));
    assert!(report.line(&["a100 (emulator, may defer)"]).contains("l4 (emulator)"), "{}", report.stdout);
    for file in ["REPORT.md", "report.html"] {
        let text = std::fs::read_to_string(path.join(file)).unwrap();
        assert!(text.contains("is half-written"), "{file}: {text}");
    }
    for file in ["l4-0", "fail-a100-2"] {
        std::fs::remove_file(hold.join(file)).unwrap();
    }
    what_has_no_verdict_is_submitted_again(&room, &fleet);
    what_was_changed_is_refused_by_name(&room, &path);

    cluster.down();
    let processes = Command::new("sh").args(["-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).output().unwrap();
    let processes = String::from_utf8_lossy(&processes.stdout).into_owned();
    assert!(!processes.contains(&cluster.folder.display().to_string()), "{processes}");
    assert!(!processes.contains(&fleet), "{processes}");
}

/// The cancelled task, which goes on with its run, and the one whose setup failed.
fn what_has_no_verdict_is_submitted_again(room: &Room, fleet: &str) {
    let ran = room.xtask(&["fleet", "run", "--resume", fleet]).expect(0);
    ran.line(&["2 tasks: l4 is job ", ", a100 is job "]);
    let shown = room.xtask(&["fleet", "status", fleet]).expect(3);
    let again = shown.line(&["l4 one #1"]);
    assert!(again.ends_with("; try 2, after one that was: cancelled"), "{again}");
    until(room, fleet, "the end", is_over);
    let shown = room.xtask(&["fleet", "status", fleet]).expect(0);
    shown.line(&["l4 one #1  done; try 2, after one that was: cancelled; DEFER added"]);
    shown.line(&["a100 three #1  done; try 2, after one that was: failed job: setup ended with status 1 on node-a100"]);
    shown.line(&["12 tasks: 12 done"]);
    room.report(fleet, 3).line(&["12 tasks: 12 runs hold, 0 open, 0 refused"]);
    room.xtask(&["fleet", "run", "--resume", fleet]).expect(0).line(&["nothing is missing, and nothing ended"]);
}

/// An edited file, a missing manifest, a run in two places, another gate file's run, and a run that is gone.
fn what_was_changed_is_refused_by_name(room: &Room, path: &Path) {
    let fleet = path.display().to_string();
    let copy = |from: &str, to: &str| {
        let (from, to) = (the_run(path, from), the_run(path, to));
        std::fs::remove_dir_all(&to).unwrap();
        assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
    };
    let gates = the_run(path, "h100-0").join("gates.json");
    let text = std::fs::read_to_string(&gates).unwrap();
    std::fs::write(&gates, text.replacen("DEFERRED", "PASS", 1)).unwrap();
    std::fs::remove_file(the_run(path, "h100-1").join("manifest.json")).unwrap();
    copy("a100-3", "h100-3");
    copy("h100-2", "l4-2");
    copy("l4-3", "a100-1");
    std::fs::remove_dir_all(the_run(path, "l4-3")).unwrap();
    let report = room.report(&fleet, 1);
    report.line(&["REFUSED h100 one #1", "`tasks/h100-0/runs/", "gates.json was changed"]);
    report.line(&["REFUSED h100 two #1", "`tasks/h100-1/runs/", "is half-written; the task is done"]);
    report.line(&["REFUSED h100 four #1", "it is the run of a100 four #1, and counts once"]);
    report.line(&["REFUSED h100 three #1", "it is the run of l4 three #1, and counts once"]);
    report.line(&["REFUSED a100 two #1", "it was judged by another gate file than the `two` that was submitted"]);
    report.line(&["REFUSED l4 four #1", "has no run, and its job came to a verdict"]);
}

#[test]
fn without_slurm_nothing_is_submitted_and_the_remedy_is_said() {
    let room = Room::new();
    let gate = room.gate("one", "");
    room.config(&["l4"], &[]);
    for program in ["sbatch", "squeue"] {
        room.program(program, "exit 127");
    }
    let ran = room.xtask(&["fleet", "run", &gate, "--on", "l4"]).expect(3);
    assert_eq!(
        ran.stdout.trim(),
        "DEFERRED (no sbatch here; run this on a login node of the cluster, or install slurm-client)"
    );
    assert_eq!(std::fs::read_dir(room.path("shared")).unwrap().count(), 0, "nothing is left behind");
    let scripts = room.xtask(&["fleet", "run", &gate, "--on", "l4", "--repeat", "3", "--dry-run"]).expect(0);
    scripts.line(&["#SBATCH --array=0-2"]);
    scripts.line(&["#SBATCH --gres=gpu:l4:1"]);
    let no_kind = room.gate("no-kind", "[fleet]\nrequire = []");
    let twice = room.gate("twice", "[fleet]\nrequire = [\"l4\"]\nmay_defer = [\"l4\"]");
    let wrong: &[(&[&str], &str)] = &[
        (&[&no_kind, "--on", "l4"], "fleet.require: name at least one kind of device"),
        (&[&twice, "--on", "l4"], "fleet: `l4` is named twice"),
        (&[&gate, "--on", "b200"], "unknown kind `b200`: use one of l4"),
        (&[&gate, "--on", "l4", "--config", "none.toml"], "failed to read `none.toml`"),
        (&["none/gate.toml", "--on", "l4"], "failed to read `none/gate.toml`"),
        (&["--suite", "stage9", "--on", "l4"], "unknown suite `stage9`"),
        (&[&gate, &gate, "--on", "l4"], "two gate files have the name `one`"),
        (&[&gate, "--on", "l4", "--repeat", "0"], "--repeat must be at least 1"),
        (&[&gate], "--on"),
    ];
    for (arguments, message) in wrong {
        let ran = room.xtask(&[&["fleet", "run"], *arguments].concat()).expect(2);
        assert!(
            ran.stderr.trim().lines().count() == 1 && ran.stderr.contains(message),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
    assert_eq!(std::fs::read_dir(room.path("shared")).unwrap().count(), 0, "nothing is left behind");
    let ran = room.xtask(&["fleet", "status", "shared"]).expect(2);
    assert!(ran.stderr.contains("is no fleet: it has no fleet.json"), "{}", ran.stderr);
}
