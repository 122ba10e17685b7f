//! A search by several workers on a real Slurm, with a stand-in for the runner whose times are a function of the toggles: what
//! is found does not depend on how many workers there are, nor on one that dies. Nothing here was measured.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kbench::tune::{Line, Tuned, parse_journal};
use serde_json::Value;
use xtask::layout::Layout;

use crate::alone;
use crate::cluster::{Cluster, is_over, until};
use crate::many::job;
use crate::room::Room;

/// A part of the space that compiles quickly and that the resource limits mostly let pass.
const NARROW: [&str; 10] =
    ["--set", "loader=2", "--set", "softmax=2", "--set", "exp=0", "--set", "tile_k=32", "--set", "producer_warps=0"];

/// A room whose runner claims a GPU and answers for its kernels, and whose one kind is any card of the cluster.
fn room() -> Room {
    let room = Room::new();
    let folder = room.path("fake").display().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fake_runner.py");
    room.write("fake/gpus", "1");
    room.write("dist/sdpa-runner", &format!("#!/bin/sh\nexec env FAKE_DIR='{folder}' python3 '{script}'\n"));
    std::fs::set_permissions(room.path("dist/sdpa-runner"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let target = Layout::find().unwrap().target.display().to_string();
    room.write(
        "fleet.toml",
        &format!(
            "shared = \"shared\"\ntime = \"00:10:00\"\nsetup = [\"export CARGO_TARGET_DIR='{target}'\"]\n\
             [kinds.any]\ndevice = \"NVIDIA TEST\"\ngres = \"gpu:1\"\n"
        ),
    );
    room
}

/// Submits a search, and returns the fleet's folder.
fn submit(room: &Room, workers: &str) -> PathBuf {
    let own = ["fleet", "tune", "stage5", "--json", "--on", "any", "--workers", workers, "--budget", "16"];
    let ran = room.xtask(&[own.as_slice(), &NARROW, &["--patience", "1000"]].concat());
    PathBuf::from(ran.expect(0).json()["jobs"]["fleet"].as_str().unwrap())
}

/// Waits for something that a worker does.
#[track_caller]
fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names of a shelf of a search.
fn shelf(fleet: &Path, name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(fleet.join("search").join(name)).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// A worker that has a claim whose result is not there yet, with the claim, once there are so many results.
fn busy(fleet: &Path, results: usize) -> Option<(String, String)> {
    let journal = shelf(fleet, "journal");
    let done = journal.iter().filter(|key| key.matches('-').count() == 2).count();
    let open = |claim: &&String| claim.strip_suffix(".0").is_some_and(|key| !journal.iter().any(|done| done == key));
    let claims = shelf(fleet, "claims");
    let claim = claims.iter().find(open).filter(|_| done >= results)?;
    Some((std::fs::read_to_string(fleet.join("search/claims").join(claim).join("owner")).ok()?, claim.clone()))
}

/// The process of a worker.
fn process(worker: &str) -> Option<i32> {
    let of = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
        let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
        (arguments.get(1) == Some(&b"fleet".as_slice()) && arguments.contains(&worker.as_bytes())).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().flatten().find_map(of)
}

/// The sealed run of a search, once all of its workers have ended, of which one was cancelled.
#[track_caller]
fn found(room: &Room, fleet: &Path, cancelled: Option<&String>) -> (Tuned, Vec<Line>) {
    let shown = fleet.display().to_string();
    let status = until(room, &shown, "the end", is_over);
    let run = PathBuf::from(status["search"]["run"].as_str().unwrap_or_else(|| panic!("{status:#}")));
    room.xtask(&["verify", &run.display().to_string()]).expect(0);
    assert_eq!(shelf(fleet, "runs").len(), 1, "one run");
    // One that Slurm kills outright, three seconds after it asked, may leave its name behind.
    let left: Vec<String> = shelf(fleet, "workers").into_iter().filter(|worker| Some(worker) != cancelled).collect();
    assert_eq!(left, [""; 0], "nobody is left: {status:#}");
    let lines = parse_journal(&std::fs::read_to_string(run.join("tune.jsonl")).unwrap()).unwrap();
    let evaluated = |line: &Line| match line {
        Line::Evaluation(evaluation) => Some(evaluation.name.clone()),
        _ => None,
    };
    let names: Vec<String> = lines.iter().filter_map(evaluated).collect();
    assert_eq!((names.len(), names.iter().collect::<BTreeSet<_>>().len()), (16, 16), "each once: {names:?}");
    (serde_json::from_slice(&std::fs::read(run.join("elite.json")).unwrap()).unwrap(), lines)
}

/// Everything that must not depend on who measured.
fn facts((tuned, lines): &(Tuned, Vec<Line>)) -> Value {
    let lines: Vec<&Line> =
        lines.iter().filter(|line| matches!(line, Line::Generation(_) | Line::Evaluation(_))).collect();
    let Tuned { elites, insights, finalists, winner, stopped, rejected, control_over_itself, .. } = tuned;
    serde_json::json!([lines, elites, insights, finalists, winner, stopped, rejected, control_over_itself])
}

#[test]
fn a_search_finds_the_same_by_one_worker_by_three_of_which_one_is_killed_and_by_eight_of_which_one_is_cancelled() {
    let _alone = alone();
    let mut room = room();
    let Some(cluster) = Cluster::up(room.path("cluster")) else {
        eprintln!("DEFERRED: a search on a real Slurm; apt-get install slurm-wlm munge");
        return;
    };
    room.set("SLURM_CONF", &cluster.folder.join("slurm.conf").display().to_string());

    // Cancelled in the middle, and submitted again, it goes on from there.
    let one = submit(&room, "1");
    let path = one.display().to_string();
    wait_for("a worker at work", || busy(&one, 3));
    room.run("scancel", &[&job(&one, "any", 1).to_string()]).expect(0);
    until(&room, &path, "the cancelled worker", |status| status["tasks"][0]["state"] == "cancelled");
    let early = room.xtask(&["fleet", "report", &path]).expect(3);
    assert!(early.stdout.starts_with("DEFERRED (the search is not over, search: "), "{}", early.stdout);
    let measured = shelf(&one, "journal");
    room.xtask(&["fleet", "run", "--resume", &path]).expect(0).line(&["1 tasks: any is job "]);
    let alone = found(&room, &one, None);
    let winner = alone.0.winner.as_ref().expect("a winner").name.clone();
    assert_eq!(alone.0.sessions, 2);
    let again = |key: &String| shelf(&one, "claims").contains(&format!("{key}.1"));
    assert!(measured.len() >= 4 && !measured.iter().any(again), "what was measured is not measured again");

    // Killed outright, with a claim: the script says that it is gone, another takes the claim, and the task goes on.
    let three = submit(&room, "3");
    let (worker, claim) = wait_for("a worker at work", || busy(&three, 3));
    let pid = wait_for("its process", || process(&worker));
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    let killed = found(&room, &three, None);
    let key = claim.strip_suffix(".0").unwrap();
    let claims = shelf(&three, "claims");
    assert!(claims.contains(&format!("{key}.1")), "{claim} of {worker} was not taken over: {claims:?}");
    assert_eq!(facts(&killed), facts(&alone));
    let shown = room.xtask(&["fleet", "status", &three.display().to_string()]).expect(0);
    shown.line(&["3 tasks: 3 done"]);
    shown.line(&["search: 16 of 16 evaluated; elites: ", &winner]);

    // More than there are cards, and one is cancelled.
    let eight = submit(&room, "8");
    let (worker, _) = wait_for("a worker at work", || busy(&eight, 5));
    let task = worker.strip_prefix("any-").and_then(|rest| rest.split('.').next()).unwrap().to_owned();
    room.run("scancel", &[&format!("{}_{task}", job(&eight, "any", 1))]).expect(0);
    let cancelled = found(&room, &eight, Some(&worker));
    assert_eq!(facts(&cancelled), facts(&alone));
    let path = eight.display().to_string();
    let number: u32 = task.parse().unwrap();
    let shown = room.xtask(&["fleet", "status", &path]).expect(0);
    shown.line(&[&format!("any tune-stage5 #{}  cancelled", number + 1)]);
    room.xtask(&["fleet", "run", "--resume", &path]).expect(0).line(&["nothing is missing"]);
    let report = room.xtask(&["fleet", "report", &path]).expect(0);
    assert!(report.stdout.contains(&format!("winner `{winner}`")), "{}", report.stdout);
    let run = report.line(&["evidence: "]).strip_prefix("evidence: ").unwrap().to_owned();
    let elite = Path::new(&run).join("elite.json");
    std::fs::write(&elite, std::fs::read_to_string(&elite).unwrap().replace(&winner, "somebody-else")).unwrap();
    let refused = room.xtask(&["fleet", "report", &path]).expect(1);
    assert!(refused.stdout.starts_with("REFUSED `") && refused.stdout.contains("elite.json was changed"));
    on_the_emulator_nobody_is_named(&cluster);
    cluster.down();
}

/// With the runner itself: what two workers checked, and that none is faster, for nothing was timed.
fn on_the_emulator_nobody_is_named(cluster: &Cluster) {
    let mut room = Room::new();
    room.set("SLURM_CONF", &cluster.folder.join("slurm.conf").display().to_string());
    let target = Layout::find().unwrap().target.display().to_string();
    room.config(&["l4"], &[format!("export CARGO_TARGET_DIR='{target}'")]);
    let own = ["fleet", "tune", "stage5", "--json", "--on", "l4", "--workers", "2", "--budget", "3"];
    let ran = room.xtask(&[own.as_slice(), &NARROW, &["--shape", "ragged"]].concat()).expect(0);
    let fleet = ran.json()["jobs"]["fleet"].as_str().unwrap().to_owned();
    let status = until(&room, &fleet, "the end", is_over);
    assert_eq!(status["search"]["evaluated"], 3);
    let report = room.xtask(&["fleet", "report", &fleet]).expect(3);
    assert!(report.stdout.contains("\nDEFERRED (time is never taken on the emulator"), "{}", report.stdout);
    room.xtask(&["verify", status["search"]["run"].as_str().unwrap()]).expect(0);
}

#[test]
fn a_search_is_shown_before_it_is_submitted_and_what_cannot_be_is_one_line() {
    let room = room();
    for program in ["sbatch", "squeue"] {
        room.program(program, "exit 127");
    }
    let script = room.xtask(&["fleet", "tune", "stage5", "--on", "any", "--workers", "3", "--dry-run"]).expect(0);
    script.line(&["#SBATCH --array=0-2"]);
    script.line(&["#SBATCH --gres=gpu:1"]);
    script.line(&["work fleet worker \"$fleet\" --name"]);
    let ran = room.xtask(&["fleet", "tune", "stage5", "--on", "any"]).expect(3);
    assert!(ran.stdout.starts_with("DEFERRED (no sbatch here; "), "{}", ran.stdout);
    let gate = room.gate("one", "");
    let wrong: &[(&[&str], &str)] = &[
        (&["stage5", "--on", "b200"], "unknown kind `b200`: use one of any"),
        (&["stage5", "--on", "any", "--workers", "0"], "--workers must be at least 1"),
        (&["stage5", "--on", "any", "--workers", "2000"], "2000 workers are more than the 1000"),
        (&["stage5", "--on", "any", "--set", "colour=1"], "unknown dimension `colour`"),
        (&["stage9", "--on", "any"], "unknown suite `stage9`"),
        (&[&gate, "--on", "any"], "a gate file's kernels cannot be searched yet"),
        (&["stage5"], "--on"),
    ];
    for (arguments, message) in wrong {
        let ran = room.xtask(&[&["fleet", "tune"], *arguments].concat()).expect(2);
        let is_line = ran.stderr.trim().lines().count() == 1;
        assert!(is_line && ran.stderr.contains(message), "{arguments:?}: {}", ran.stderr);
    }
    assert_eq!(std::fs::read_dir(room.path("shared")).unwrap().count(), 0, "nothing is left behind");
}
