//! `ci/judge.py`, which the action runs, on repositories with two commits and without a service: what a pull request is told
//! and with which exit status. FIX and a machine without a GPU are real; who merges and who is a valid negative is timed by
//! the stand-in for the runner.

use std::path::PathBuf;
use std::process::Command;

use xtask::layout::Layout;

use crate::common::{Dist, files};

/// A repository of two commits, and what the script leaves beside it.
struct Request {
    room: tempfile::TempDir,
    program: PathBuf,
    /// A CUDA home, where the program is not the checkout's.
    compilers: Option<PathBuf>,
}

/// What came of it.
struct Told {
    status: i32,
    stdout: String,
    stderr: String,
    comment: String,
}

impl Request {
    fn new(program: PathBuf) -> Request {
        let request = Request { room: tempfile::tempdir().unwrap(), program, compilers: None };
        std::fs::create_dir_all(request.path("repository/kernels")).unwrap();
        request.git(&["init", "--quiet", "--initial-branch", "main"]);
        request
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.room.path().join(relative)
    }

    fn git(&self, arguments: &[&str]) {
        let named = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"];
        let ran =
            Command::new("git").args(named).args(arguments).current_dir(self.path("repository")).output().unwrap();
        assert!(ran.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path("repository/kernels").join(file), text).unwrap();
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "a change"]);
    }

    /// Asks about the last commit against the one before.
    fn told(&self, more: &[&str], event: &str) -> Told {
        let script = Layout::find().unwrap().root.join("ci/judge.py");
        let out = self.path("out");
        let _ = std::fs::remove_dir_all(&out);
        std::fs::write(self.path("event.json"), event).unwrap();
        let ran = Command::new("python3")
            .arg(script)
            .args(["--gate", "kernels/gate.toml", "--base", "HEAD~1", "--out"])
            .arg(&out)
            .arg("--program")
            .arg(&self.program)
            .args(more)
            .current_dir(self.path("repository"))
            .env("GITHUB_EVENT_PATH", self.path("event.json"))
            .env("GITHUB_OUTPUT", self.path("outputs"))
            .env_remove("GITHUB_STEP_SUMMARY")
            .envs(self.compilers.iter().map(|home| ("CUDA_HOME", home)))
            .output()
            .unwrap();
        let [stdout, stderr] = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        let comment = std::fs::read_to_string(out.join("comment.md")).unwrap_or_default();
        Told { status: ran.status.code().expect("no signal ends it"), stdout, stderr, comment }
    }
}

const OWN: &str =
    r#"{"pull_request": {"head": {"repo": {"full_name": "a/b"}}, "base": {"repo": {"full_name": "a/b"}}}}"#;
const FORK: &str =
    r#"{"pull_request": {"head": {"repo": {"full_name": "c/b"}}, "base": {"repo": {"full_name": "a/b"}}}}"#;

#[track_caller]
fn assert_says(told: &Told, status: i32, words: &[&str]) {
    let shown = || format!("{}\n{}\n{}", told.comment, told.stdout, told.stderr);
    assert_eq!(told.status, status, "{}", shown());
    for word in words {
        assert!(told.comment.contains(word), "`{word}`\n{}", shown());
    }
    assert!(told.comment.len() < 65536, "a comment has a limit: {}", told.comment.len());
}

/// Lines of an example without one variant.
fn without_the_wrong_one(gate: &str) -> String {
    let (before, rest) = gate.split_once("# Wrong on purpose").unwrap();
    let after = rest.split_once("[[performance]]").unwrap().1;
    format!("{before}[[performance]]{after}").replace(", \"unrolled\"", "")
}

#[test]
#[ignore = "judges four times: .ci/run asks for it by name"]
fn a_wrong_kernel_is_a_fix_and_a_right_one_without_a_gpu_waits_for_one() {
    let request = Request::new(env!("CARGO_BIN_EXE_xtask").into());
    let example = Layout::find().unwrap().root.join("examples/softmax");
    let read = |file: &str| std::fs::read_to_string(example.join(file)).unwrap();
    for file in files(&example) {
        request.write(&file, &read(&file));
    }
    let right = without_the_wrong_one(&read("gate.toml"));
    request.write("gate.toml", &right);
    request.commit();
    request.write("README.md", "a change of words\n");
    request.commit();
    let emulator = &["--device", "emulator"];
    let told = request.told(emulator, OWN);
    assert_says(&told, 0, &["## kernel-gate: nothing to judge (`kernels/gate.toml`)", "README.md is another now"]);

    let wider = right.replace("VEC = 8", "VEC = 4");
    request.write("gate.toml", &wider);
    request.commit();
    let told = request.told(emulator, OWN);
    assert_says(&told, 3, &["## kernel-gate: DEFER (", "DEFER online"]);
    assert!(told.stdout.contains("::notice title=DEFER online"), "{}", told.stdout);
    let outputs = std::fs::read_to_string(request.path("outputs")).unwrap();
    assert!(outputs.contains("status=3\ncomment=/") && outputs.contains("comment.md\n"), "{outputs}");
    let left: Vec<String> = files(&request.path("out"));
    for file in ["comment.md", "junit.xml", "report.html"] {
        assert!(left.iter().any(|name| name == file), "{left:?}");
    }
    assert!(left.iter().any(|name| name.starts_with("runs/") && name.ends_with("manifest.json")), "{left:?}");

    // A new candidate meets the control that was.
    request.write("gate.toml", &read("gate.toml").replace("VEC = 8", "VEC = 4"));
    request.commit();
    let told = request.told(emulator, OWN);
    assert_says(&told, 1, &["## kernel-gate: FIX (", "only where cols is no multiple of 4"]);
    assert!(told.stdout.contains("::error title=FIX unrolled"), "{}", told.stdout);

    // A kernel that was right and is not any more, and a reference that would not mind.
    request.write("gate.toml", &right);
    request.commit();
    let broken =
        read("softmax.cu").replace("const float scale = 1.0f / row.sum;", "const float scale = 1.1f / row.sum;");
    assert_ne!(broken, read("softmax.cu"));
    request.write("softmax.cu", &broken);
    request.write("softmax.py", &read("softmax.py").replace("return e /", "return 1.1 * e /"));
    request.commit();
    let told = request.told(emulator, OWN);
    assert_says(&told, 1, &["## kernel-gate: FIX (", "`softmax.py judges and is another now`"]);

    let told = request.told(emulator, FORK);
    assert_says(&told, 3, &["comes from a fork"]);
    assert!(!request.path("out/runs").exists(), "its code is not run");
    let told = request.told(&["--base", "nowhere"], OWN);
    assert_eq!((told.status, told.stderr.lines().count()), (2, 1), "{}", told.stderr);
    assert!(told.stderr.contains("check out with fetch-depth: 0"), "{}", told.stderr);
    let state = Command::new("git").args(["status", "--porcelain"]).current_dir(request.path("repository")).output();
    assert_eq!(String::from_utf8_lossy(&state.unwrap().stdout), "", "the repository is as it was");
}

/// A suite of attention whose candidate has other toggles than the control.
fn suite(toggles: &str) -> String {
    format!(
        r#"name = "pull-request"
control = "stage2"
arch = "sm_89"
seeds = [0]
check_shapes = ["small", "mission"]
time_shapes = ["mission"]

[[candidates]]
variant = "other"

[variants.other]
base = "stage2"
toggles = {{ {toggles} }}

[resources]
max_registers = 255
max_shared_kib = 99
max_spill_bytes = 100000

[[performance]]
shape = "mission"
min_latency_reduction = 0.10
"#
    )
}

fn judged(toggles: &str) -> Told {
    let dist = Dist::timing();
    let mut request = Request::new(dist.path("xtask"));
    request.write("README.md", "no gate file yet\n");
    request.commit();
    request.write("gate.toml", &suite(toggles));
    request.commit();
    request.compilers = Some(dist.cuda_home().to_owned());
    request.told(&["--", "--peers", "none"], OWN)
}

#[test]
#[ignore = "builds kernels: .ci/run asks for it by name"]
fn a_faster_kernel_merges_and_one_that_is_no_faster_is_a_valid_negative() {
    let faster = judged("tile_q = 64");
    assert_says(&faster, 0, &["## kernel-gate: MERGE (", "MERGE other", "The gate file is new"]);
    let slower = judged("stages = 3");
    assert_says(&slower, 4, &["## kernel-gate: VALID NEGATIVE (", "VALID NEGATIVE other"]);
}

#[test]
fn the_action_calls_the_script_with_options_that_it_has() {
    let root = Layout::find().unwrap().root;
    let action = std::fs::read_to_string(root.join("action.yml")).unwrap();
    let help = Command::new("python3").arg(root.join("ci/judge.py")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let call = action.split("ci/judge.py\"").nth(1).and_then(|rest| rest.split("|| true").next()).unwrap();
    let options: Vec<&str> = call.split_whitespace().filter(|word| word.starts_with("--")).collect();
    assert_eq!(options, ["--gate", "--base", "--device", "--gpu", "--out", "--"]);
    for option in options.iter().chain(&["--forks"]).filter(|option| **option != "--") {
        assert!(help.contains(option), "{option}: {help}");
    }
    let settle = |status: &str, pass: &str| {
        let script = action.rsplit("run: |").next().unwrap();
        let ran = Command::new("bash").args(["-e", "-c", script]).env("STATUS", status).env("PASS", pass).status();
        ran.unwrap().code().unwrap()
    };
    for (status, pass, code) in
        [("0", "", 0), ("1", "3 4", 1), ("3", "3 4", 0), ("3", "", 3), ("4", "3", 4), ("", "", 2)]
    {
        assert_eq!(settle(status, pass), code, "status `{status}`, pass `{pass}`");
    }
}
