//! A dist folder in a temporary place, with the real `xtask`, the real compilers and a runner that a test writes.
//! What the kernels' sources or suites say can be changed there without touching the checkout.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use xtask::layout::Layout;
use xtask::toolchain;

/// A runner on a machine without a GPU.
pub const NO_GPU: &str = r#"read job
echo '{"event":"no-device","why":"no CUDA driver library on this machine","remedy":"run on a machine with an NVIDIA GPU"}'
echo '{"event":"done"}'"#;

/// The answer to `probe` of a runner that claims a GPU; what it does with other jobs follows.
pub const CLAIMS_A_GPU: &str = r#"read job
case "$job" in *'"job":"probe"'*)
  echo '{"event":"device","device":{"name":"NVIDIA TEST","uuid":"GPU-0","capability":[8,9],"sm_count":58,"max_sm_clock_mhz":2040,"memory_bytes":1,"l2_bytes":1,"max_shared_bytes":101376,"cuda_driver":"13.0","nvml":null},"state":{"sm_clock_mhz":null,"temperature_c":null,"power_w":null,"throttle":[],"power_capped":false},"others":[]}'
  echo '{"event":"done"}'
  exit 0;;
esac
"#;

/// A dist folder of its own.
pub struct Dist {
    dir: tempfile::TempDir,
    cuda_home: PathBuf,
    /// With the checkout's nvdisasm, so that no test installs one of its own.
    search_path: std::ffi::OsString,
}

impl Dist {
    /// Copies the checkout's sources and suites; `runner` is the body of a shell script.
    pub fn new(runner: &str) -> Dist {
        let checkout = Layout::find().expect("the tests run in a checkout");
        let tools = toolchain::find_or_install(&checkout.target, &|line| eprintln!("{line}")).expect("a CUDA compiler");
        let cuda_home = tools.nvcc.ancestors().nth(2).expect("nvcc is in a bin folder").to_owned();
        let disassembler = toolchain::disassembler(&checkout.target, &tools, &|line| eprintln!("{line}"));
        let disassembler = disassembler.expect("a disassembler").parent().expect("it is in a bin folder").to_owned();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let search_path = std::env::join_paths(std::env::split_paths(&inherited).chain([disassembler]));
        let search_path = search_path.expect("a path of these folders");
        let dist = Dist { dir: tempfile::tempdir().unwrap(), cuda_home, search_path };
        for folder in ["sdpa-kernel/cuda", "kbench/suites", "kbench/peers"] {
            let status = Command::new("sh")
                .args(["-c", "mkdir -p \"$2\" && cp -r \"$1/.\" \"$2\"", "sh"])
                .args([checkout.root.join(folder), dist.path(folder)])
                .status();
            assert!(status.unwrap().success(), "copying {folder}");
        }
        // A stand-in for the runner does not emulate; the emulator has tests with the real one.
        for suite in std::fs::read_dir(dist.path("kbench/suites")).unwrap() {
            let path = suite.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.split("\n[emulation]").next().unwrap()).unwrap();
        }
        std::fs::copy(env!("CARGO_BIN_EXE_xtask"), dist.path("xtask")).unwrap();
        dist.write(
            "DIST.json",
            r#"{"commit":"0123456789abcdef","dirty":false,"diff_sha256":null,"rustc":"rustc 1.95.0"}"#,
        );
        dist.runner(runner);
        dist
    }

    /// With the checkout's own runner and emulation left in the suites.
    pub fn emulating() -> Dist {
        let dist = Dist::new(NO_GPU);
        let checkout = Layout::find().expect("the tests run in a checkout");
        let runner = xtask::runner::Runner::locate(&checkout, &dist.path("logs")).expect("the runner builds");
        std::fs::copy(&runner.command[0], dist.path("sdpa-runner")).unwrap();
        for suite in xtask::plan::suite_names(&checkout) {
            let file = format!("kbench/suites/{suite}.toml");
            std::fs::copy(checkout.root.join(&file), dist.path(&file)).unwrap();
        }
        dist
    }

    /// With a runner that claims a GPU and answers for its kernels; see there what a test can make go wrong.
    pub fn timing() -> Dist {
        let dist = Dist::new(NO_GPU);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fake_runner.py");
        std::fs::copy(script, dist.path("fake_runner.py")).unwrap();
        let folder = dist.path("").display().to_string();
        dist.runner(&format!("exec env FAKE_DIR='{folder}' python3 '{folder}/fake_runner.py'"));
        dist.write("gpus", "1");
        dist
    }

    /// Where its compilers are.
    pub fn cuda_home(&self) -> &Path {
        &self.cuda_home
    }

    /// Replaces the runner.
    pub fn runner(&self, body: &str) {
        self.write("sdpa-runner", &format!("#!/bin/sh\n{body}\n"));
        std::fs::set_permissions(self.path("sdpa-runner"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A path in the folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Writes a file.
    pub fn write(&self, relative: &str, text: &str) {
        std::fs::write(self.path(relative), text).unwrap();
    }

    /// Replaces text in a file; it must be there.
    pub fn edit(&self, relative: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(relative)).unwrap();
        assert!(text.contains(from), "`{from}` is not in {relative}");
        self.write(relative, &text.replace(from, to));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("xtask"));
        command.args(arguments).current_dir(self.dir.path()).env("CUDA_HOME", &self.cuda_home);
        command.env("PATH", &self.search_path);
        // One line for each gate, whatever it says.
        command.env("COLUMNS", "400");
        command.env_remove("CARGO_TARGET_DIR").stdin(Stdio::null());
        command
    }

    /// Runs `xtask` to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// The same as a terminal of so many columns would show it.
    pub fn run_at(&self, columns: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).env("COLUMNS", columns).output().unwrap())
    }

    /// What a pipe gets of standard output, where nothing says how wide it is.
    pub fn run_in_a_pipe(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).env_remove("COLUMNS").output().unwrap())
    }

    /// Runs `xtask` with its standard output on a terminal of so many columns, with colours or without.
    pub fn run_in_a_terminal(&self, columns: &str, colours: bool, arguments: &[&str]) -> Ran {
        let inner = self.command(arguments);
        let mut command = Command::new("python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/terminal.py")).arg(columns);
        command.arg(inner.get_program()).args(inner.get_args()).current_dir(self.dir.path());
        for (key, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.env_remove("COLUMNS").env("TERM", "xterm-256color").stdin(Stdio::null());
        if colours {
            command.env_remove("NO_COLOR")
        } else {
            command.env("NO_COLOR", "1")
        };
        Ran::of(command.output().unwrap())
    }

    /// The same with a folder of stand-ins first on PATH.
    pub fn run_with(&self, bin: &Path, arguments: &[&str]) -> Ran {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(folders).unwrap();
        Ran::of(self.command(arguments).env("PATH", path).output().unwrap())
    }

    /// The same without any folder on PATH that holds an ncu.
    pub fn run_without_ncu(&self, arguments: &[&str]) -> Ran {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).filter(|folder| !folder.join("ncu").exists());
        let path = std::env::join_paths(folders).unwrap();
        Ran::of(self.command(arguments).env("PATH", path).output().unwrap())
    }

    /// Starts `xtask` and leaves it running; what it says on standard error can be read.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The run directories, oldest first.
    pub fn runs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("kbench/runs")).into_iter().flatten().flatten();
        let mut runs: Vec<PathBuf> = entries.map(|e| e.path()).collect();
        runs.sort();
        runs
    }
}

/// How a run of `xtask` ended.
pub struct Ran {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        Ran {
            status: output.status.code().expect("xtask is not killed by a signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts the exit status, showing both streams otherwise.
    #[track_caller]
    pub fn expect(self, status: i32) -> Ran {
        assert_eq!(self.status, status, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The lines of standard output that hold all of `words`.
    pub fn lines(&self, words: &[&str]) -> Vec<&str> {
        self.stdout.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect()
    }
}

/// Every file under a folder, relative to it, sorted.
pub fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}
