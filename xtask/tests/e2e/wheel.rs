//! The wheel as a user meets it: installed by pip into an empty environment on a machine without Rust, far from every
//! checkout, with caches of its own. The programs are those of the development build; packing is the same for all.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use xtask::dist::wheel::wheel;
use xtask::dist::{Programs, contents};
use xtask::layout::Layout;
use xtask::runner::Runner;
use xtask::toolchain::{self, python};

use crate::common::files;

/// An environment with the wheel installed, and a folder to work in.
struct Installed {
    room: tempfile::TempDir,
}

impl Installed {
    fn new() -> Installed {
        let checkout = Layout::find().expect("the tests run in a checkout");
        let room = tempfile::tempdir().unwrap();
        let installed = Installed { room };
        let runner = Runner::locate(&checkout, &installed.path("logs")).expect("the runner builds");
        let runner: PathBuf = runner.command[0].clone().into();
        let library = runner.with_file_name("libcuda_shim.so");
        let programs = Programs { pipeline: env!("CARGO_BIN_EXE_xtask").into(), runner, library };
        let contents = contents(&checkout, &programs).expect("everything that travels is there");
        let wheel = wheel(&contents, &installed.path("wheels")).expect("a wheel");
        let python = |arguments: &[&str]| installed.run("python3", arguments, 0);
        let venv = Command::new("python3").args(["-m", "venv"]).arg(installed.path("venv")).output().unwrap();
        assert!(venv.status.success(), "{}", String::from_utf8_lossy(&venv.stderr));
        let wheel = wheel.display().to_string();
        python(&["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", &wheel]);
        // What is downloaded on first use is taken from the checkout: 105 MB that other tests need as well.
        toolchain::find_or_install(&checkout.target, &|line| eprintln!("{line}")).expect("a CUDA compiler");
        python::find_or_install(&checkout.target, &|line| eprintln!("{line}")).expect("a Python with numpy");
        std::fs::create_dir_all(installed.path("cache/kernel-gate")).unwrap();
        for folder in ["cuda", "python"] {
            let link = installed.path("cache/kernel-gate").join(folder);
            std::os::unix::fs::symlink(checkout.target.join(folder), link).unwrap();
        }
        std::fs::create_dir(installed.path("work")).unwrap();
        for file in files(&checkout.root.join("examples/softmax")) {
            std::fs::copy(checkout.root.join("examples/softmax").join(&file), installed.path("work").join(&file))
                .unwrap();
        }
        installed
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.room.path().join(relative)
    }

    /// Runs a program of the environment in the folder `work`, or in the room before there is one, and returns what it
    /// prints.
    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str], status: i32) -> String {
        let path = [self.path("venv/bin"), "/usr/bin".into(), "/bin".into()];
        for tool in ["cargo", "rustc"] {
            assert!(!path.iter().any(|folder| folder.join(tool).exists()), "{tool} would be found");
        }
        let work = self.path("work");
        let mut command = Command::new(self.path("venv/bin").join(program));
        command.args(arguments).current_dir(if work.is_dir() { &work } else { self.room.path() });
        command.env_clear().env("PATH", std::env::join_paths(path).unwrap());
        command.env("HOME", self.path("home")).env("XDG_CACHE_HOME", self.path("cache")).env("COLUMNS", "100");
        let Output { status: ended, stdout, stderr } = command.output().expect("it starts");
        let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(ended.code(), Some(status), "{program} {arguments:?}\n{stdout}\n{stderr}");
        assert!(!format!("{stdout}{stderr}").contains("cargo xtask"), "{stdout}\n{stderr}");
        stdout
    }

    fn gate(&self, arguments: &[&str], status: i32) -> String {
        self.run("kernel-gate", arguments, status)
    }

    /// What Python prints of a program.
    fn python(&self, program: &str) -> String {
        self.run("python3", &["-c", program], 0)
    }
}

/// Every file that pip recorded is as it was recorded, and nothing else lies where only the wheel's files lie.
const AS_RECORDED: &str = r#"
import base64, hashlib, importlib.metadata, pathlib
recorded = importlib.metadata.distribution("kernel-gate").files
for file in recorded:
    if file.hash is not None:
        digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file
known = {file.locate().resolve() for file in recorded}
share = next(file.locate().resolve().parent for file in recorded if file.name == "DIST.json")
others = [path for path in share.rglob("*") if path.is_file() and path.resolve() not in known]
assert not others, others
print(len(recorded))
"#;

/// What is called from Python can be imported without PyTorch, and its cubin is the one that its record names.
const FROM_PYTHON: &str = r#"
import hashlib, json, kernel_gate
from kernel_gate.sdpa_fp8 import Sdpa
record = json.loads(kernel_gate.HOPPER.read_text())
cubin = kernel_gate.HOPPER.with_name(record["cubin"]).read_bytes()
assert hashlib.sha256(cubin).hexdigest() == record["cubin_sha256"]
print(record["variant"], record["arch"], callable(Sdpa))
"#;

#[test]
#[ignore = "makes an environment and builds the flagship: .ci/run asks for it by name"]
fn pip_installs_a_judge_that_needs_no_rust_no_git_and_writes_nowhere_but_in_caches_and_runs() {
    let installed = Installed::new();
    assert!(installed.gate(&["--help"], 0).contains("Usage: kernel-gate"));
    assert!(installed.gate(&["list", "suites"], 0).contains("flagship"));
    let doctor = installed.gate(&["doctor"], 0);
    assert!(doctor.contains("next: kernel-gate validate --stage5"), "{doctor}");
    assert!(installed.gate(&["history"], 0).starts_with("no runs yet: kernel-gate validate"));
    // Without a GPU: the wrong candidate is found, and the others cannot be timed.
    let screen = installed.gate(&["validate", "gate.toml", "--device", "emulator"], 1);
    assert!(screen.contains("FIX unrolled: correctness") && screen.contains("DEFER online"), "{screen}");
    let runs: Vec<PathBuf> = entries(&installed.path("work/kernel-gate-runs"));
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert!(runs[0].display().to_string().ends_with("-nocommit-softmax"), "no repository tracks it: {runs:?}");
    let run = runs[0].display().to_string();
    assert!(installed.gate(&["verify", &run], 0).contains("every file is as it was sealed"));
    assert!(installed.gate(&["history"], 0).contains("-softmax"));
    let environment = std::fs::read_to_string(runs[0].join("ENV.json")).unwrap();
    let environment: serde_json::Value = serde_json::from_str(&environment).unwrap();
    assert!(environment["command"][0].as_str().is_some_and(|name| name.ends_with("kernel-gate")), "{environment}");
    let left: Vec<PathBuf> = entries(&installed.path("work"));
    let names: Vec<&str> = left.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(names, ["gate.toml", "kernel-gate-runs", "softmax.cu", "softmax.py"]);
    assert!(!installed.path("home").exists(), "nothing is written to the home directory where caches are elsewhere");
    assert_eq!(installed.python(FROM_PYTHON).trim(), "hopper sm_90a True");
    let recorded: usize = installed.python(AS_RECORDED).trim().parse().unwrap();
    assert!(recorded > 60, "{recorded} files");
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}
