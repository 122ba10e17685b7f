//! A thousand tasks with stand-ins for Slurm and the jobs: what submitting and collecting cost this program itself, and what
//! becomes of them when the shared folder is away for a while.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

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
        let begin = r#"{"attempt":0,"node":"n1","at":"2026-01-01T00:00:00Z"}"#;
        std::fs::write(folder.join("begin-0.json"), begin).unwrap();
        std::fs::write(folder.join("end-0.json"), r#"{"step":"validate","status":3}"#).unwrap();
    }
}

fn names(kinds: &[&str], of_kind: usize) -> Vec<String> {
    kinds.iter().flat_map(|kind| (0..of_kind).map(move |n| format!("{kind}-{n}"))).collect()
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
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
[ -e allow ] || case $name in *-c) echo "sbatch: error: Invalid account" >&2; exit 1;; esac
echo "$name" >>submitted
n=$(wc -l <submitted)
echo "$n|0|PENDING||Priority|$name" >>queue
case $name in *-b) [ -e lost ] || { touch lost; echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1; };; esac
echo "$n;cluster""#,
    );
    room.program("squeue", r#"touch queue; for a; do case $a in --name=*) n=${a#--name=};; esac; done; grep -F "|$n" queue | cut -d'|' -f1-5; true"#);
    let ran = room.xtask(&["fleet", "run", &gate, "--on", "a,b,c"]).expect(2);
    assert!(ran.stderr.contains("Invalid account") && ran.stderr.contains("--resume"), "{}", ran.stderr);
    let fleet = std::fs::read_dir(room.path("shared/fleets")).unwrap().next().unwrap().unwrap().path();
    let shown = room.xtask(&["fleet", "status", &fleet.display().to_string()]).expect(3);
    shown.line(&["c one #1  not submitted"]);
    room.write("allow", "");
    let ran = room.xtask(&["fleet", "run", "--resume", &fleet.display().to_string()]).expect(0);
    assert!(ran.stdout.contains("a is job 1, b is job 2, c is job 3"), "{}", ran.stdout);
    assert_eq!(std::fs::read_to_string(room.path("submitted")).unwrap().lines().count(), 3);
}
