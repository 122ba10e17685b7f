//! Finding and installing the CUDA compilers, with stand-ins for compilers and pip (`data/toolchain`).
//!
//! The stand-ins are links to committed scripts, not files written here: a script that was just written can be
//! busy for a moment when another test thread forks.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use xtask::toolchain::{self, Origin, Search, Toolchain, ToolchainError, Unfit};

/// A machine made of directories.
struct Machine {
    root: TempDir,
    search: Search,
}

fn stand_in(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/toolchain").join(name)
}

impl Machine {
    /// Neither CUDA nor Python.
    fn bare() -> Machine {
        let root = tempfile::tempdir().expect("a temporary directory");
        let search = search_in(root.path());
        Machine { root, search }
    }

    /// No CUDA, and a Python that installs it.
    fn with_python() -> Machine {
        let machine = Machine::bare();
        let dir = machine.path("python");
        fs::create_dir(&dir).expect("creates");
        symlink(stand_in("python"), dir.join("python3")).expect("links");
        symlink(stand_in("compiler"), dir.join("compiler")).expect("links");
        machine
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// Puts a CUDA of this version at `relative`.
    fn cuda(&self, relative: &str, version: &str) -> PathBuf {
        let bin = self.path(relative).join("bin");
        fs::create_dir_all(&bin).expect("creates");
        for name in ["nvcc", "ptxas"] {
            symlink(stand_in("compiler"), bin.join(name)).expect("links");
        }
        fs::write(bin.join("version"), version).expect("writes");
        bin
    }

    fn write(&self, relative: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(relative), text).expect("writes");
    }

    /// How often the stand-in in this directory was started.
    fn calls(&self, relative: &str) -> usize {
        fs::read_to_string(self.path(relative).join("calls")).map_or(0, |calls| calls.lines().count())
    }

    fn install(&self) -> Result<Toolchain, ToolchainError> {
        self.search.find_or_install(&|_| ())
    }

    /// The names in the directory that the wheels go to.
    fn cuda_dir(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("target/cuda")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn search_in(root: &Path) -> Search {
    Search {
        cuda_home: None,
        path: vec![root.join("path")],
        system: root.join("usr-local"),
        pythons: vec![root.join("python/python3")],
        target: root.join("target"),
    }
}

#[track_caller]
fn check_found(machine: &Machine, origin: Origin, version: &str) -> Toolchain {
    let found = machine.search.find().unwrap_or_else(|| panic!("nothing found: {:?}", machine.search.probe()));
    assert_eq!((found.origin, found.nvcc_version.as_str()), (origin, version));
    assert_eq!(found.ptxas_version, version);
    found
}

#[test]
fn looks_in_the_promised_order() {
    let mut machine = Machine::with_python();
    assert_eq!(machine.search.find(), None);
    machine.install().expect("installs");
    check_found(&machine, Origin::Wheels, "13.0.88");
    for release in ["12.4", "13.1", "9.2"] {
        machine.cuda(&format!("usr-local/cuda-{release}"), &format!("{release}.5"));
    }
    check_found(&machine, Origin::System, "13.1.5");
    machine.search.path.push(machine.cuda("opt", "12.6.1"));
    check_found(&machine, Origin::Path, "12.6.1");
    machine.cuda("home", "12.8.93");
    machine.search.cuda_home = Some(machine.path("home"));
    let found = check_found(&machine, Origin::CudaHome, "12.8.93");
    assert_eq!(found.nvcc, machine.path("home/bin/nvcc"));
    assert_eq!(found.ptxas, machine.path("home/bin/ptxas"));
}

/// A link `cuda` is only another name for the directory behind it, so it is as new as that.
#[test]
fn a_default_link_is_not_newer_than_what_it_points_to() {
    let machine = Machine::bare();
    machine.cuda("usr-local/cuda-12.2", "12.2.1");
    machine.cuda("usr-local/cuda-12.10", "12.10.1");
    symlink(machine.path("usr-local/cuda-12.2"), machine.path("usr-local/cuda")).expect("links");
    check_found(&machine, Origin::System, "12.10.1");
    assert_eq!(machine.calls("usr-local/cuda-12.2/bin"), 0);
}

#[test]
fn ptxas_may_lie_behind_a_link_to_nvcc() {
    let machine = Machine::bare();
    let hidden = machine.path("lib/cuda/bin");
    fs::create_dir_all(&hidden).expect("creates");
    fs::create_dir(machine.path("path")).expect("creates");
    // Copies, for the file behind the link to be in this directory.
    for name in ["nvcc", "ptxas"] {
        fs::copy(stand_in("compiler"), hidden.join(name)).expect("copies");
    }
    symlink(hidden.join("nvcc"), machine.path("path/nvcc")).expect("links");
    let deadline = Instant::now() + Duration::from_secs(5);
    // A copy can be busy while another test forks; see the head of this file.
    let found = loop {
        match machine.search.find() {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            found => break found.expect("found"),
        }
    };
    assert_eq!(found.ptxas, fs::canonicalize(hidden.join("ptxas")).expect("is there"));
}

#[test]
fn what_was_found_once_starts_no_process_again() {
    let machine = Machine::with_python();
    machine.cuda("usr-local/cuda-12.4", "12.4.131");
    check_found(&machine, Origin::System, "12.4.131");
    // Two versions, one PTX, three architectures.
    let calls = machine.calls("usr-local/cuda-12.4/bin");
    assert_eq!(calls, 6);
    check_found(&machine, Origin::System, "12.4.131");
    assert_eq!(machine.calls("usr-local/cuda-12.4/bin"), calls);
    assert_eq!(machine.install().expect("found").origin, Origin::System);
    assert_eq!(machine.calls("python"), 0);
}

/// An upgrade in place is noticed by the files' size or time of change.
#[test]
fn a_changed_compiler_is_tried_again() {
    let machine = Machine::bare();
    let bin = machine.cuda("usr-local/cuda-12.4", "12.4.99");
    check_found(&machine, Origin::System, "12.4.99");
    fs::remove_file(bin.join("ptxas")).expect("removes");
    symlink("/bin/false", bin.join("ptxas")).expect("links");
    let probe = machine.search.probe();
    assert!(matches!(probe.rejected[..], [ref one] if matches!(one.reason, Unfit::DoesNotRun { .. })), "{probe:?}");
}

/// Puts one unfit CUDA at `CUDA_HOME`, and expects the reason, the warning, and the wheels in its place.
#[track_caller]
fn check_unfit(spoil: impl Fn(&Machine), reason: &str) {
    let mut machine = Machine::with_python();
    machine.cuda("home", "12.4.131");
    machine.search.cuda_home = Some(machine.path("home"));
    spoil(&machine);
    let probe = machine.search.probe();
    assert_eq!(probe.toolchain, None);
    let [rejected] = &probe.rejected[..] else { panic!("{probe:?}") };
    assert_eq!(rejected.origin, Origin::CudaHome);
    let said = rejected.to_string();
    assert!(said.contains(reason), "expected `{reason}` in: {said}");
    assert!(!said.contains('\n'), "{said}");
    assert_eq!(probe.installer.expect("asked").expect("pip is there"), "pip 23.2.1, python 3.11");
    let lines = RefCell::new(Vec::new());
    let found = machine.search.find_or_install(&|line| lines.borrow_mut().push(line.to_owned())).expect("installs");
    assert_eq!(found.origin, Origin::Wheels);
    let lines = lines.into_inner();
    assert_eq!(lines[0], format!("warning: {said}; looking further"));
    assert!(lines[1].starts_with("installing the CUDA 13.0 compiler"), "{lines:?}");
    assert_eq!(lines[2], "  downloading nvidia_cuda_nvcc 13.0.88");
    assert!(lines[3].starts_with("installed the CUDA 13.0 compiler in "), "{lines:?}");
}

#[test]
fn unfit_compilers_are_passed_over_with_a_reason() {
    check_unfit(|machine| machine.write("home/bin/version", "11.8.89"), "version 11.8.89 is older than 12.0");
    check_unfit(|machine| machine.write("home/bin/version", "nonsense"), "states no version: Cuda compilation tools");
    check_unfit(
        |machine| {
            let words = "gcc: No such file or directory\nnvcc fatal   : Failed to preprocess host compiler properties.";
            machine.write("home/bin/nvcc-says", words);
        },
        "no host C++ compiler that it accepts (gcc: No such file or directory; nvcc fatal",
    );
    check_unfit(
        |machine| machine.write("home/bin/nvcc-says", "cuda_fp16.h:4492:10: fatal error: nv/target: No such file"),
        "fails on a small kernel (cuda_fp16.h:4492:10: fatal error",
    );
    check_unfit(
        |machine| machine.write("home/bin/ptxas-says", "ptxas fatal   : Value 'sm_90a' is not defined"),
        "fails on a small kernel (ptxas fatal   : Value 'sm_90a'",
    );
    check_unfit(|machine| fs::remove_dir_all(machine.path("home/bin")).expect("removes"), "there is no `");
    check_unfit(|machine| fs::remove_file(machine.path("home/bin/ptxas")).expect("removes"), "/ptxas`");
    check_unfit(
        |machine| {
            let nvcc = machine.path("home/bin/nvcc");
            fs::remove_file(&nvcc).expect("removes");
            // An executable that is no program of this machine. Its file is closed long before anything forks it.
            fs::write(&nvcc, b"\x7fELF\x02\x01\x01\0 for another machine").expect("writes");
            fs::set_permissions(&nvcc, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("sets");
        },
        "/nvcc` does not run: ",
    );
}

/// The pinned compiler needs a host compiler too, and there is nothing to fall back on.
#[test]
fn wheels_that_do_not_work_are_an_error_with_a_remedy() {
    let machine = Machine::with_python();
    let nvcc = machine.install().expect("installs").nvcc;
    fs::remove_dir_all(machine.path("target/cuda/trials")).expect("removes");
    fs::write(nvcc.with_file_name("nvcc-says"), "gcc: No such file or directory").expect("writes");
    let error = machine.install().expect_err("does not work").to_string();
    assert!(error.contains("no host C++ compiler"), "{error}");
    assert!(error.ends_with("install g++ (apt-get install g++)"), "{error}");
    assert_eq!(machine.calls("python"), 1, "installed once, not again");
}

/// A Python that fails with `said` yields one line that holds `complaint` and `remedy`, and leaves nothing behind.
#[track_caller]
fn check_failing_python(said: &str, complaint: &str, remedy: &str) -> ToolchainError {
    let machine = Machine::with_python();
    machine.write("python/says", said);
    let error = machine.install().expect_err("pip fails");
    let line = error.to_string();
    assert!(!line.contains('\n'), "more than a line: {line}");
    assert!(line.contains(complaint), "expected `{complaint}` in: {line}");
    assert!(line.contains(remedy), "expected `{remedy}` in: {line}");
    assert_eq!(machine.cuda_dir(), ["install.log", "lock"]);
    fs::remove_file(machine.path("python/says")).expect("removes");
    assert_eq!(machine.install().expect("installs after all").origin, Origin::Wheels);
    error
}

fn pip_log(name: &str) -> String {
    fs::read_to_string(stand_in(name)).expect("is committed")
}

#[test]
fn failures_of_pip_are_explained() {
    let error = check_failing_python(
        &pip_log("pip-hash-mismatch.log"),
        "nvidia-cuda-crt==13.0.88 has sha256 2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4, \
         pinned is 2c8044",
        "pip cache purge",
    );
    assert!(matches!(error, ToolchainError::HashMismatch { .. }), "{error:?}");
    let error = check_failing_python(
        &pip_log("pip-no-network.log"),
        "out of reach (Failed to establish a new connection: [Errno 111] Connection refused)",
        "PIP_INDEX_URL",
    );
    assert!(matches!(error, ToolchainError::Network { .. }), "{error:?}");
    let error = check_failing_python(
        &pip_log("pip-no-wheel.log"),
        "No matching distribution found for nvidia-nvvm==13.0.1",
        "install --upgrade pip",
    );
    assert!(matches!(error, ToolchainError::NoWheel { .. }), "{error:?}");
    let error = check_failing_python(
        "Collecting\nERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n\n",
        "pip says: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "install.log",
    );
    assert!(matches!(error, ToolchainError::Pip { .. }), "{error:?}");
    let error =
        check_failing_python("/usr/bin/python3: No module named pip\n", "has no pip", "apt-get install python3-pip");
    assert!(matches!(error, ToolchainError::PipMissing { .. }), "{error:?}");
}

#[test]
fn no_python_is_explained() {
    let mut machine = Machine::bare();
    machine.search.pythons = vec![machine.path("python3"), machine.path("python")];
    let error = machine.install().expect_err("no python").to_string();
    assert!(error.contains("no python3 to install one with (tried "), "{error}");
    let probe = machine.search.probe();
    assert!(matches!(probe.installer, Some(Err(ToolchainError::PythonMissing { .. }))), "{probe:?}");
}

#[test]
fn the_next_python_is_tried_when_the_first_has_no_pip() {
    let mut machine = Machine::with_python();
    let other = machine.path("without-pip");
    fs::create_dir(&other).expect("creates");
    symlink(stand_in("python"), other.join("python3")).expect("links");
    fs::write(other.join("says"), "python3: No module named pip").expect("writes");
    machine.search.pythons.insert(0, other.join("python3"));
    assert_eq!(machine.install().expect("installs").origin, Origin::Wheels);
}

#[test]
fn a_target_that_cannot_be_written_is_named() {
    let machine = Machine::with_python();
    // A file where the directory should be: root may write to a read-only one.
    machine.write("target", "in the way");
    let error = machine.install().expect_err("cannot write").to_string();
    assert!(error.starts_with("failed to create `") && error.contains("/target/cuda`"), "{error}");
}

#[test]
fn a_damaged_tree_is_installed_again() {
    let machine = Machine::with_python();
    let nvcc = machine.install().expect("installs").nvcc;
    fs::remove_file(nvcc.with_file_name("ptxas")).expect("removes");
    assert_eq!(machine.search.find(), None);
    machine.install().expect("installs again");
    assert_eq!(machine.calls("python"), 2);
    // What stands for other pins: a tree whose marker says something else.
    let marker = nvcc.ancestors().nth(4).expect("the tree").join("requirements.txt");
    fs::write(marker, "nvidia-cuda-nvcc==12.0.0\n").expect("writes");
    machine.install().expect("installs again");
    assert_eq!(machine.calls("python"), 3);
}

/// The variable that makes a copy of this test program one process of a test below.
const CHILD: &str = "TOOLCHAIN_TEST_ROOT";

/// Not a test of its own: what each process of the tests below runs.
#[test]
fn child_process() {
    if let Some(root) = std::env::var_os(CHILD) {
        let found = search_in(Path::new(&root)).find_or_install(&|line| eprintln!("{line}")).expect("installs");
        assert_eq!(found.origin, Origin::Wheels);
    }
}

fn spawn(machine: &Machine) -> Child {
    let program = std::env::current_exe().expect("has a path");
    let mut command = Command::new(program);
    command
        .args(["--exact", "child_process"])
        .env(CHILD, machine.root.path())
        // Its test summary is no result of this run.
        .stdout(Stdio::null());
    command.spawn().expect("starts")
}

#[test]
fn processes_that_start_at_once_install_once() {
    let machine = Machine::with_python();
    let children: Vec<_> = (0..3).map(|_| spawn(&machine)).collect();
    for mut child in children {
        assert!(child.wait().expect("ends").success());
    }
    assert_eq!(machine.calls("python"), 1);
    check_found(&machine, Origin::Wheels, "13.0.88");
}

#[test]
fn an_interrupted_installation_is_never_taken_for_whole() {
    let machine = Machine::with_python();
    machine.write("python/hang", "");
    let mut child = spawn(&machine);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !machine.path("python/halfway").exists() {
        assert!(Instant::now() < deadline, "the installation never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("kills");
    child.wait().expect("ends");
    assert!(machine.cuda_dir().iter().any(|name| name.starts_with(".partial-")), "{:?}", machine.cuda_dir());
    assert_eq!(machine.search.find(), None);

    fs::remove_file(machine.path("python/hang")).expect("removes");
    assert_eq!(machine.install().expect("installs").origin, Origin::Wheels);
    assert!(!machine.cuda_dir().iter().any(|name| name.starts_with(".partial-")), "{:?}", machine.cuda_dir());
}

#[test]
fn pins_are_of_one_release_and_whole() {
    for (name, version, hash) in toolchain::WHEELS {
        assert!(version.starts_with("13.0."), "{name} {version}");
        assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name} {hash}");
    }
}

#[test]
fn the_target_directory_follows_cargo() {
    let chosen = toolchain::target_dir(Path::new("/some/workspace"));
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => assert!(chosen.ends_with(dir)),
        None => assert_eq!(chosen, Path::new("/some/workspace/target")),
    }
}
