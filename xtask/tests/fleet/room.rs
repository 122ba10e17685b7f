//! A dist folder, a shared folder, gate files and a fleet.toml in a temporary place.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use xtask::layout::Layout;
use xtask::runner::Runner;
use xtask::toolchain;

const KERNEL: &str = r#"
extern "C" __global__ void doubled(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2.0f * x[i];
}
extern "C" __global__ void added(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] + x[i];
}
"#;

/// Waits while the test holds its task, whose name the setup has put into the environment.
const REFERENCE: &str = r#"
import os, time

def reference(x):
    hold = os.environ.get("FLEET_HOLD")
    while hold and os.path.exists(hold):
        time.sleep(0.05)
    return 2.0 * x
"#;

/// Everything of one test.
pub struct Room {
    dir: tempfile::TempDir,
    /// What the tests' `xtask` finds first on PATH.
    bin: PathBuf,
    environment: Vec<(String, String)>,
}

/// How a call of `xtask` ended.
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    #[track_caller]
    pub fn expect(self, status: i32) -> Ran {
        assert_eq!(self.status, status, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// The line that holds all of `words`; there is one.
    #[track_caller]
    pub fn line(&self, words: &[&str]) -> &str {
        let lines: Vec<&str> =
            self.stdout.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect();
        assert!(lines.len() == 1, "{words:?}: {lines:?} in\n{}", self.stdout);
        lines[0]
    }
}

impl Room {
    pub fn new() -> Room {
        let checkout = Layout::find().expect("the tests run in a checkout");
        let room = Room {
            dir: tempfile::tempdir().unwrap(),
            bin: PathBuf::new(),
            environment: vec![
                ("CARGO_TARGET_DIR".into(), checkout.target.display().to_string()),
                // A line for each task, whatever it says.
                ("COLUMNS".into(), "400".into()),
            ],
        };
        let room = Room { bin: room.path("bin"), ..room };
        // Compilers and numpy are those of the checkout; here, not in the jobs, they may be installed.
        let say = |line: &str| eprintln!("{line}");
        toolchain::find_or_install(&checkout.target, &say).expect("a CUDA compiler");
        toolchain::python::find_or_install(&checkout.target, &say).expect("a Python with numpy");
        for folder in ["sdpa-kernel/cuda", "kbench/suites", "kbench/peers"] {
            let copied = Command::new("sh")
                .args(["-c", "mkdir -p \"$2\" && cp -r \"$1/.\" \"$2\"", "sh"])
                .args([checkout.root.join(folder), room.path("dist").join(folder)])
                .status();
            assert!(copied.unwrap().success(), "copying {folder}");
        }
        let runner = Runner::locate(&checkout, &room.path("logs")).expect("the runner builds");
        std::fs::copy(&runner.command[0], room.path("dist/sdpa-runner")).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_xtask"), room.path("dist/xtask")).unwrap();
        room.write(
            "dist/DIST.json",
            r#"{"commit":"0123456789abcdef","dirty":false,"diff_sha256":null,"rustc":"rustc"}"#,
        );
        for folder in ["bin", "shared", "hold"] {
            std::fs::create_dir_all(room.path(folder)).unwrap();
        }
        room
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A program on PATH, as a shell script.
    pub fn program(&self, name: &str, body: &str) {
        self.write(&format!("bin/{name}"), &format!("#!/bin/bash\n{body}\n"));
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.bin.join(name), executable).unwrap();
    }

    /// Sets a variable for everything that is called from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A gate file in a folder of its own; `more` is added to its text.
    pub fn gate(&self, name: &str, more: &str) -> String {
        let text = format!(
            r#"name = "{name}"
control = "doubled"
candidates = ["added"]
seeds = [0]
[operator]
axes = ["n"]
reference = "reference.py"
inputs.x = {{ shape = ["n"], dtype = "f32" }}
outputs.y = {{ shape = ["n"], dtype = "f32", errors = {{ max = 1e-6 }} }}
[shapes]
one = {{ n = 40 }}
[variants.doubled]
source = "kernel.cu"
entry = "doubled"
params = ["x", "y", "n: i32"]
grid = ["ceil_div(n, 32)"]
block = [32]
[variants.added]
base = "doubled"
entry = "added"
{more}"#
        );
        self.write(&format!("{name}/gate.toml"), &text);
        self.write(&format!("{name}/kernel.cu"), KERNEL);
        self.write(&format!("{name}/reference.py"), REFERENCE);
        self.path(&format!("{name}/gate.toml")).display().to_string()
    }

    /// A fleet.toml of emulated kinds, which Slurm knows as cards of its own.
    pub fn config(&self, kinds: &[&str], setup: &[String]) {
        let mut text = format!("shared = \"shared\"\ntime = \"00:10:00\"\nsetup = {setup:?}\n");
        for kind in kinds {
            text.push_str(&format!("[kinds.{kind}]\ndevice = \"emulator\"\ngres = \"gpu:{kind}:1\"\n"));
        }
        self.write("fleet.toml", &text);
    }

    pub fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([self.bin.clone()].into_iter().chain(std::env::split_paths(&inherited)));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.dir.path()).env("PATH", path.unwrap()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn ran(mut command: Command) -> Ran {
        let output = command.output().unwrap();
        Ran {
            status: output.status.code().expect("no signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs `xtask` to its end.
    pub fn xtask(&self, arguments: &[&str]) -> Ran {
        Room::ran(self.command(&self.path("dist/xtask"), arguments))
    }

    /// Runs another program to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        Room::ran(self.command(Path::new(program), arguments))
    }

    /// Makes the report of a fleet, and returns it as its file has it: a terminal's lines are wrapped.
    #[track_caller]
    pub fn report(&self, fleet: &str, status: i32) -> Ran {
        let ran = self.xtask(&["fleet", "report", fleet]).expect(status);
        Ran { stdout: std::fs::read_to_string(Path::new(fleet).join("REPORT.md")).unwrap(), ..ran }
    }

    /// Submits gate files, and returns the fleet's folder.
    pub fn submit(&self, arguments: &[&str]) -> PathBuf {
        let ran = self.xtask(&[&["fleet", "run", "--json"], arguments].concat()).expect(0);
        PathBuf::from(ran.json()["jobs"]["fleet"].as_str().unwrap())
    }
}

/// The only run of a task.
#[track_caller]
pub fn the_run(fleet: &Path, task: &str) -> PathBuf {
    let runs = fleet.join("tasks").join(task).join("runs");
    let mut found: Vec<PathBuf> = std::fs::read_dir(&runs).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found.len(), 1, "{runs:?}: {found:?}");
    found.remove(0)
}
