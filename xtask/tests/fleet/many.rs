//! A thousand tasks with stand-ins for Slurm and the jobs: what submitting and collecting cost this program itself, and what
//! becomes of them when the shared folder is away for a while.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xtask::layout::Layout;
use xtask::run_dir::RunDir;

use crate::alone;
use crate::room::{Room, the_run};

/// Runs a program and prints what it used: seconds of processor time, and the most memory that it held, in KiB.
const USED: &str = r#"
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, used.ru_utime + used.ru_stime, used.ru_maxrss)
"#;

struct Used {
    status: i32,
    seconds: f64,
    kib: f64,
}

fn used(room: &Room, arguments: &[&str]) -> Used {
    let program = room.path("dist/xtask").display().to_string();
    let said = room.run("python3", &[&["-c", USED, &program], arguments].concat()).expect(0).stdout;
    let numbers: Vec<f64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    Used { status: numbers[0] as i32, seconds: numbers[1], kib: numbers[2] }
}

/// Does for every task what its job would do: markers, and a run that is the template's but for a log.
fn finish(fleet: &Path, template: &Path, tasks: &[String]) {
    for (number, task) in tasks.iter().enumerate() {
        let folder = fleet.join("tasks").join(task);
        let run = folder.join("runs").join(template.file_name().unwrap());
        let copied = Command::new("sh")
            .args(["-c", "mkdir -p \"$2\" && cp -r \"$1/.\" \"$2\"", "sh"])
            .args([template, &run])
            .status();
        assert!(copied.unwrap().success());
        // A log is the one thing that nothing else follows from.
        std::fs::write(run.join("logs/probe.log"), format!("task {number}\n")).unwrap();
        RunDir::at(run).seal().unwrap();
        let (kind, _) = task.split_once('-').unwrap();
        let begin = format!(r#"{{"attempt":0,"job":{},"node":"n1","at":"2026-01-01T00:00:00Z"}}"#, job(fleet, kind, 1));
        std::fs::write(folder.join("begin-0.json"), begin).unwrap();
        std::fs::write(folder.join("end-0.json"), r#"{"step":"validate","status":3}"#).unwrap();
    }
}

/// The number in the queue of a submission of a kind.
pub fn job(fleet: &Path, kind: &str, number: u32) -> u64 {
    let text = std::fs::read(fleet.join(format!("jobs/{kind}.{number}.json"))).unwrap();
    serde_json::from_slice::<serde_json::Value>(&text).unwrap()["job"].as_u64().unwrap()
}

fn names(kinds: &[&str], of_kind: usize) -> Vec<String> {
    kinds.iter().flat_map(|kind| (0..of_kind).map(move |n| format!("{kind}-{n}"))).collect()
}

/// Where compilers and builds of the checkout are.
fn target() -> String {
    Layout::find().unwrap().target.display().to_string()
}

/// One run as a job makes it, by the very program and gate file that were packed.
fn template(room: &Room, fleet: &Path) -> PathBuf {
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(fleet.join("fleet.json")).unwrap()).unwrap();
    let packed = |value: &serde_json::Value| room.path("shared").join(value.as_str().unwrap()).display().to_string();
    let program = format!("{}/xtask", packed(&record["dist"]));
    let out = room.path("template/tasks/x-0/runs").display().to_string();
    room.run(&program, &["validate", &packed(&record["gates"][0]["file"]), "--device", "emulator", "--out", &out])
        .expect(3);
    the_run(&room.path("template"), "x-0")
}

#[test]
fn a_thousand_tasks_cost_little_and_a_folder_that_is_away_loses_none() {
    let _alone = alone();
    let room = Room::new();
    let gate = room.gate("one", "");
    let kinds = ["a", "b", "c", "d"];
    room.config(&kinds, &[]);
    room.program(
        "sbatch",
        "[ \"$1\" = --version ] || { n=$(cat number 2>/dev/null || echo 0); echo $((n + 1)) | tee number; }",
    );
    room.program("squeue", "exit 0");
    room.program("sacct", "exit 1");

    let submit = |repeat: &str| {
        let on = kinds.join(",");
        let spent = used(&room, &["fleet", "run", &gate, "--on", &on, "--repeat", repeat]);
        let fleets = std::fs::read_dir(room.path("shared/fleets")).unwrap().map(|entry| entry.unwrap().path());
        (spent, fleets.max_by_key(|fleet| fleet.metadata().unwrap().modified().unwrap()).unwrap())
    };
    let (_, few) = submit("10");
    let template = template(&room, &few);
    finish(&few, &template, &names(&kinds, 10));
    let report_of_few = used(&room, &["fleet", "report", &few.display().to_string()]);

    let (submitted, many) = submit("250");
    finish(&many, &template, &names(&kinds, 250));
    let path = many.display().to_string();
    let status = used(&room, &["fleet", "status", &path]);
    let report = used(&room, &["fleet", "report", &path]);
    assert_eq!([submitted.status, status.status, report_of_few.status, report.status], [0, 0, 3, 3]);
    let seconds = submitted.seconds + status.seconds + report.seconds;
    eprintln!(
        "1000 tasks: submit {:.1} s, status {:.1} s, report {:.1} s of processor time; report {:.0} MiB, of 40 tasks {:.0} MiB",
        submitted.seconds,
        status.seconds,
        report.seconds,
        report.kib / 1024.0,
        report_of_few.kib / 1024.0
    );
    assert!(seconds < 60.0, "{seconds} s");
    assert!(report.kib < report_of_few.kib + 32.0 * 1024.0, "{} KiB of many, {} of few", report.kib, report_of_few.kib);
    let text = || std::fs::read_to_string(many.join("REPORT.md")).unwrap();
    let first = text();
    assert!(first.contains("1000 tasks: 1000 runs hold, 0 open, 0 refused"), "{first}");

    // The same report, while the folder goes away and comes back.
    std::fs::remove_file(many.join("REPORT.md")).unwrap();
    let mut child = room.command(&room.path("dist/xtask"), &["fleet", "report", &path]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (shared, away) = (room.path("shared"), room.path("away"));
    let mut times_away = 0;
    while child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1200));
        std::fs::rename(&shared, &away).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        std::fs::rename(&away, &shared).unwrap();
        times_away += 1;
    }
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(times_away >= 2, "the folder was away {times_away} times");
    assert_eq!(text(), first);
}

#[test]
fn a_submission_that_broke_off_is_gone_on_with_and_nothing_is_submitted_twice() {
    let room = Room::new();
    let gate = room.gate("one", "");
    room.config(&["a", "b", "c"], &[]);
    // The controller takes the second job and loses the answer; the third is refused for good.
    room.program(
        "sbatch",
        r#"[ "$1" = --version ] && exit
for script; do :; done
for a; do case $a in --job-name=*) name=${a#--job-name=};; esac; done
[ -e allow ] || case $name in *-c) echo "sbatch: error: Invalid account" >&2; exit 1;; esac
echo "$name" >>submitted
n=$(wc -l <submitted)
echo "$n|0|PENDING||Priority|$name" >>queue
case $name in *-b) [ -e lost ] || { touch lost; echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1; };; esac
echo "$n;cluster""#,
    );
    room.program("squeue", r#"touch queue; for a; do case $a in --name=*) n=${a#--name=};; esac; done; for one in ${n//,/ }; do grep -F "|$one" queue; done | cut -d'|' -f1-5; true"#);
    let ran = room.xtask(&["fleet", "run", &gate, "--on", "a,b,c"]).expect(2);
    assert!(ran.stderr.contains("Invalid account") && ran.stderr.contains("--resume"), "{}", ran.stderr);
    let fleet = std::fs::read_dir(room.path("shared/fleets")).unwrap().next().unwrap().unwrap().path();
    let shown = room.xtask(&["fleet", "status", &fleet.display().to_string()]).expect(3);
    shown.line(&["c one #1  not submitted"]);
    room.write("allow", "");
    let ran = room.xtask(&["fleet", "run", "--resume", &fleet.display().to_string()]).expect(0);
    assert!(ran.stdout.starts_with("1 tasks: c is job 3\n"), "{}", ran.stdout);
    assert_eq!(["a", "b", "c"].map(|kind| job(&fleet, kind, 1)), [1, 2, 3]);
    let ran = room.xtask(&["fleet", "run", "--resume", &fleet.display().to_string()]).expect(0);
    assert!(ran.stdout.starts_with("nothing is missing, and nothing ended without a verdict\n"), "{}", ran.stdout);
    assert_eq!(std::fs::read_to_string(room.path("submitted")).unwrap().lines().count(), 3);
}

/// Stand-ins for a scheduler that runs the tasks of a job one after the other right here, says of each that it runs until its
/// script has ended, and then forgets it.
fn local_scheduler(room: &Room) {
    room.program(
        "sbatch",
        r#"[ "$1" = --version ] && exit
for script; do :; done
tasks=$(sed -n 's/^#SBATCH --array=0-//p' "$script"); tasks=$(seq -s ' ' 0 "$tasks")
for a; do case $a in --array=*) tasks=${a#--array=}; tasks=${tasks//,/ };; esac; done
echo "$*" >>asked
job=$(wc -l <asked)
for task in $tasks; do : >"queue-$job-$task"; done
(for task in $tasks; do
    SLURM_ARRAY_JOB_ID=$job SLURM_ARRAY_TASK_ID=$task SLURMD_NODENAME=n1 bash "$script" >>"log-$task" 2>&1
    rm "queue-$job-$task"
done) </dev/null >/dev/null 2>&1 &
echo "$job""#,
    );
    room.program(
        "squeue",
        r#"for file in queue-*; do [ -e "$file" ] && IFS=- read -r _ job task <<<"$file" && echo "$job|$task|RUNNING|n1|"; done; true"#,
    );
}

/// Status of a fleet by task, once nothing of it is going on any more.
fn at_the_end(room: &Room, fleet: &str) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let said = room.xtask(&["fleet", "status", fleet]).stdout;
        if !said.contains(" running on ") {
            return said.lines().map(str::to_owned).collect();
        }
        assert!(Instant::now() < deadline, "{said}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn what_ended_without_a_verdict_is_submitted_again_and_the_report_takes_the_new_try() {
    let _alone = alone();
    let room = Room::new();
    let gates = ["one", "two", "three"].map(|name| room.gate(name, ""));
    let setup = format!("[ ! -e '{}'/\"fail-${{task##*/}}\" ]", room.path("hold").display());
    room.config(&["a"], &[setup, format!("export CARGO_TARGET_DIR='{}'", target())]);
    local_scheduler(&room);
    // What the queue has forgotten, the accounting knows: it ended the second task, whose script did not hear of it.
    room.program("sacct", r#"[ -e accounted ] && printf '1_0|FAILED|n1\n1_1|TIMEOUT|n1\n1_2|COMPLETED|n1\n'; true"#);
    room.write("hold/fail-a-0", "");
    let path = room.submit(&[&gates[0], &gates[1], &gates[2], "--on", "a"]);
    let fleet = path.display().to_string();
    at_the_end(&room, &fleet);
    std::fs::remove_file(the_run(&path, "a-1").join("manifest.json")).unwrap();
    std::fs::remove_file(path.join("tasks/a-1/end-0.json")).unwrap();
    let said = room.xtask(&["fleet", "status", &fleet]).expect(3);
    said.line(&["a two #1  lost: it began on n1 and ended without a word"]);
    room.write("accounted", "");
    let said = room.xtask(&["fleet", "status", &fleet]).expect(3);
    said.line(&["a one #1  failed job: setup ended with status 1 on n1"]);
    said.line(&["a two #1  timed out"]);
    said.line(&["a three #1  done; DEFER added"]);
    room.report(&fleet, 3).line(&["3 tasks: 1 runs hold, 1 open, 1 refused"]);

    std::fs::remove_file(room.path("hold/fail-a-0")).unwrap();
    let wrong = room.xtask(&["fleet", "run", "--resume", &fleet, "--time", "a day"]).expect(2);
    assert!(wrong.stderr.contains("--time: is not a value"), "{}", wrong.stderr);
    let ran = room.xtask(&["fleet", "run", "--resume", &fleet, "--time", "08:00:00"]).expect(0);
    assert!(ran.stdout.starts_with("2 tasks: a is job 2\n"), "{}", ran.stdout);
    let asked = std::fs::read_to_string(room.path("asked")).unwrap();
    let again = asked.lines().nth(1).unwrap();
    assert!(again.contains("-a.2 --time=08:00:00 --array=0,1 "), "{again}");
    let said = at_the_end(&room, &fleet);
    assert!(said[0].starts_with("a one #1  done; try 2, after one that was: failed job: setup ended"), "{said:?}");
    assert!(said[1].starts_with("a two #1  done; try 2, after one that was: lost"), "{said:?}");
    assert!(said[2].starts_with("a three #1  done; DEFER added"), "{said:?}");
    room.report(&fleet, 3).line(&["3 tasks: 3 runs hold, 0 open, 0 refused"]);
}

#[test]
fn a_job_whose_shared_folder_goes_away_goes_on_when_it_is_back() {
    let _alone = alone();
    let room = Room::new();
    let gate = room.gate("one", "");
    room.config(&["a"], &[format!("export CARGO_TARGET_DIR='{}'", target())]);
    local_scheduler(&room);
    let path = room.submit(&[&gate, "--on", "a", "--repeat", "2"]);
    let fleet = path.display().to_string();
    let (shared, away) = (room.path("shared"), room.path("away"));
    for (task, file) in [("a-0", "suite.toml"), ("a-1", "check.json")] {
        let runs = path.join("tasks").join(task).join("runs");
        let is_there =
            || std::fs::read_dir(&runs).into_iter().flatten().flatten().any(|run| run.path().join(file).is_file());
        let deadline = Instant::now() + Duration::from_secs(300);
        while !is_there() {
            assert!(Instant::now() < deadline, "{file} of {task} never came");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::fs::rename(&shared, &away).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        assert!(!shared.exists(), "nobody makes another folder in its place");
        std::fs::rename(&away, &shared).unwrap();
    }
    let said = at_the_end(&room, &fleet);
    assert!(said.iter().filter(|line| line.contains("  done; DEFER added")).count() == 2, "{said:?}");
    room.report(&fleet, 3).line(&["2 tasks: 2 runs hold, 0 open, 0 refused"]);
    let logs: String = ["log-0", "log-1"].map(|log| std::fs::read_to_string(room.path(log)).unwrap()).concat();
    assert!(logs.matches("== try ").count() == 2 && logs.contains("error"), "one of them was hit: {logs}");
}
