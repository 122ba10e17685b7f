//! Installs pinned Python wheels, once: the CUDA compiler, the disassembler, numpy.
//!
//! A tree lies in a folder of the target directory as `<version>-<hash of the pins>`, so changed pins mean another tree, and it gets that name
//! by a rename when it is whole: an installation that was interrupted leaves only a `.partial-*` directory, which
//! the next one removes. A lock file lets one process install while others wait; the system drops the lock with
//! its process, so a crash cannot leave it behind. Trees of former pins stay until the target directory is cleaned,
//! since another checkout may be using them.
//!
//! The hashes are pip's to check (`--require-hashes`); this module makes its refusals readable.

use std::cell::Cell;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;
use sha2::{Digest as _, Sha256};

use super::ToolchainError;
use super::child::{self, End};

/// The wheels: project, version, and SHA-256 of the file for Linux on x86-64. All of one CUDA release, because newer
/// headers with an older compiler leave undefined symbols in the PTX. The C++ core libraries are among them for
/// `nv/target`, which `cuda_fp16.h` includes.
pub const PINS: [(&str, &str, &str); 5] = [
    ("nvidia-cuda-nvcc", "13.0.88", "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03"),
    ("nvidia-nvvm", "13.0.88", "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0"),
    ("nvidia-cuda-crt", "13.0.88", "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4"),
    ("nvidia-cuda-runtime", "13.0.96", "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"),
    ("nvidia-cuda-cccl", "13.0.85", "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649"),
];

/// The wheel of the disassembler, in the form of [`PINS`]. There is none of 13.0; a later one reads earlier machine code.
pub const DISASSEMBLER_PINS: [(&str, &str, &str); 1] =
    [("nvidia-cuda-nvdisasm", "13.5.37", "d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca")];

/// numpy's wheels for Python 3.10, 3.11 and so on, in the form of [`PINS`]. The last version that all of them have.
pub const NUMPY_PINS: [(&str, &str, &str); 4] = [
    ("numpy", "2.2.6", "fc7b73d02efb0e18c000e9ad8b83480dfcd5dfd11065997ed4c6747470ae8915"),
    ("numpy", "2.2.6", "ba10f8411898fc418a521833e014a77d3ca01c15b0c6cdcce6a0d2897e6dbbdf"),
    ("numpy", "2.2.6", "fd83c01228a688733f1ded5201c678f0c53ecc1006ffbc404db9f7a899ac6249"),
    ("numpy", "2.2.6", "1bc23a79bfabc5d056d106f9befb8d50c31ced2fbc70eedb8155aec74a45798f"),
];
/// The minor version of the first of them.
const FIRST_PYTHON: usize = 10;

/// Triton's wheels for Python 3.11, 3.12 and so on, in the form of [`PINS`]; one serves all from 3.12 on.
pub const TRITON_PINS: [(&str, &str, &str); 2] = [
    ("triton", "3.9.0", "1622118a038b0c6e16fa4a0305da62c8b3c15904ee1cc4d4e65846a25969e41e"),
    ("triton", "3.9.0", "5e52ab4e2f1d64f0ac494c9aa723697b793f81a91c4cae4c36608ca0bc4267bf"),
];
/// The minor versions of Python that they are for.
const TRITON_PYTHONS: std::ops::RangeInclusive<usize> = 11..=14;

/// What is installed together, in a tree of its own.
pub(super) struct Package {
    pins: &'static [(&'static str, &'static str, &'static str)],
    /// What a caller asks for first, and what must be there besides.
    files: &'static [&'static str],
    /// For a person: what it is, and how much there is to download.
    what: &'static str,
    size: &'static str,
}

/// nvcc, and what it needs.
pub(super) const COMPILER: Package = Package {
    pins: &PINS,
    files: &["nvidia/cu13/bin/nvcc", "nvidia/cu13/bin/ptxas"],
    what: "the CUDA 13.0 compiler",
    size: "105 MB",
};

/// nvdisasm alone.
pub(super) const DISASSEMBLER: Package =
    Package { pins: &DISASSEMBLER_PINS, files: &["nvidia/cu13/bin/nvdisasm"], what: "nvdisasm 13.5", size: "5 MB" };

/// numpy for Python 3 of this minor version, where one is pinned.
pub(super) fn numpy(minor: usize) -> Option<Package> {
    let at = minor.checked_sub(FIRST_PYTHON)?;
    let pins = NUMPY_PINS.get(at..=at)?;
    Some(Package { pins, files: &["numpy/__init__.py"], what: "numpy 2.2.6", size: "16 MB" })
}

/// Triton for Python 3 of this minor version, where one is pinned.
pub(super) fn triton(minor: usize) -> Option<Package> {
    let at = TRITON_PYTHONS.contains(&minor).then(|| usize::from(minor > *TRITON_PYTHONS.start()))?;
    let pins = TRITON_PINS.get(at..=at)?;
    Some(Package { pins, files: &["triton/__init__.py"], what: "Triton 3.9.0", size: "286 MB" })
}

/// The tree's own copy of the pins, written last: a tree without it is not whole.
const MARKER: &str = "requirements.txt";

/// A slow line needs minutes for 105 MB; longer than this is a hang.
const LIMIT: Duration = Duration::from_secs(900);

/// The first file of a whole installation of these very pins.
pub(super) fn installed(package: &Package, dir: &Path) -> Option<PathBuf> {
    let tree = tree_path(package, dir);
    let whole = fs::read_to_string(tree.join(MARKER)).is_ok_and(|marker| marker == requirements(package))
        && package.files.iter().all(|file| tree.join(file).is_file());
    whole.then(|| tree.join(package.files[0]))
}

/// The first file of the pinned wheels, installed now if it is not there.
pub(super) fn install(
    package: &Package,
    dir: &Path,
    pythons: &[PathBuf],
    progress: &dyn Fn(&str),
) -> Result<PathBuf, ToolchainError> {
    if let Some(found) = installed(package, dir) {
        return Ok(found);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(ToolchainError::Platform { os: std::env::consts::OS, arch: std::env::consts::ARCH });
    }
    fs::create_dir_all(dir).map_err(io_error("create", dir))?;
    let _lock = lock(package, dir, progress)?;
    // Whoever held the lock before may have done the work.
    if let Some(found) = installed(package, dir) {
        return Ok(found);
    }
    clear_leftovers(package, dir)?;
    let started = Instant::now();
    let (what, size) = (package.what, package.size);
    progress(&format!("installing {what} from pinned wheels ({size}, once)"));
    let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(dir).map_err(io_error("create", dir))?;
    fill(package, partial.path(), dir, pythons, progress)?;
    let (from, tree) = (partial.path().join("tree"), tree_path(package, dir));
    fs::rename(&from, &tree).map_err(io_error("move into place", &tree))?;
    progress(&format!("installed {what} in {:.1} s: {}", started.elapsed().as_secs_f64(), tree.display()));
    Ok(tree.join(package.files[0]))
}

/// The pip that an installation would use, or why there would be none.
pub(super) fn installer(pythons: &[PathBuf]) -> Result<String, ToolchainError> {
    let log = tempfile::NamedTempFile::new().map_err(io_error("create a file in", &std::env::temp_dir()))?;
    let limit = Duration::from_secs(60);
    let (python, end) = with_python(pythons, |python| {
        let command = duct::cmd!(python.as_os_str(), "-m", "pip", "--version");
        child::run(&command, log.path(), limit, &mut |_| ())
    })?;
    match end {
        End::Exited { success: true, output } => Ok(short_version(&output)),
        // A pip that cannot state its version is none.
        End::Exited { .. } | End::TimedOut => Err(ToolchainError::PipMissing { python }),
    }
}

/// Unfinished installations start so, and nothing else does.
const PARTIAL: &str = ".partial-";

fn requirements(package: &Package) -> String {
    package.pins.iter().map(|(name, version, hash)| format!("{name}=={version} --hash=sha256:{hash}\n")).collect()
}

fn tree_path(package: &Package, dir: &Path) -> PathBuf {
    let hash = Sha256::digest(requirements(package));
    let short: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    dir.join(format!("{}-{short}", package.pins[0].1))
}

/// Waits for the sole right to change `dir`; it ends with the returned file.
fn lock(package: &Package, dir: &Path, progress: &dyn Fn(&str)) -> Result<File, ToolchainError> {
    let path = dir.join("lock");
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            progress(&format!("another process is installing {}; waiting for it", package.what));
        }
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
    }
    file.lock().map_err(io_error("lock", &path))?;
    Ok(file)
}

/// Removes what interrupted installations left, and a tree of this name that is not whole. Only with the lock held.
///
/// The pip of a killed process may still be running and writing. So what is left over first gets another name, at
/// which pip fails, and is then removed as far as that works: the rest goes next time.
fn clear_leftovers(package: &Package, dir: &Path) -> Result<(), ToolchainError> {
    let tree = tree_path(package, dir);
    let entries = fs::read_dir(dir).map_err(io_error("read", dir))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PARTIAL) || path == tree {
            let doomed = dir.join(format!("{PARTIAL}doomed-{}", name.trim_start_matches(PARTIAL)));
            fs::rename(&path, &doomed).map_err(io_error("move away", &path))?;
            let _ = fs::remove_dir_all(&doomed);
        }
    }
    Ok(())
}

/// Has pip fill `partial/tree`, and marks it as whole.
fn fill(
    package: &Package,
    partial: &Path,
    dir: &Path,
    pythons: &[PathBuf],
    progress: &dyn Fn(&str),
) -> Result<(), ToolchainError> {
    let (tree, pins, scratch) = (partial.join("tree"), partial.join(MARKER), partial.join("tmp"));
    fs::create_dir(&scratch).map_err(io_error("create", &scratch))?;
    fs::write(&pins, requirements(package)).map_err(io_error("write", &pins))?;
    let log = dir.join("install.log");
    let reported = Cell::new(0);
    let mut watch = |said: &str| report_downloads(said, &reported, progress);
    let (python, end) = with_python(pythons, |python| {
        child::run(&pip_install(python, &tree, &pins, &scratch).dir(partial), &log, LIMIT, &mut watch)
    })?;
    match end {
        End::Exited { success: true, .. } => {}
        End::Exited { output, .. } => return Err(refusal(&python, &output, log)),
        End::TimedOut => {
            return Err(ToolchainError::TimedOut { seconds: LIMIT.as_secs(), log });
        }
    }
    for file in package.files {
        if !tree.join(file).is_file() {
            let detail = format!("success, but the wheels hold no {file}");
            return Err(ToolchainError::Pip { detail, log });
        }
    }
    let marker = tree.join(MARKER);
    fs::rename(&pins, &marker).map_err(io_error("move into place", &marker))
}

/// pip keeps executable bits, which unpacking a wheel as a zip file would lose. `TMPDIR` is on the target's own disk, where there
/// must be room anyway and from where the files can be renamed. The variables undo a person's settings that
/// `--target` cannot stand.
fn pip_install(python: &Path, tree: &Path, pins: &Path, scratch: &Path) -> duct::Expression {
    let fixed = "-m pip install --no-deps --require-hashes --only-binary=:all: --no-compile --no-input \
                 --progress-bar=off --retries=2 --disable-pip-version-check";
    let mut arguments: Vec<std::ffi::OsString> = fixed.split_whitespace().map(Into::into).collect();
    arguments.extend(["--target".into(), tree.into(), "-r".into(), pins.into()]);
    // As a bare string, because duct takes a relative path for a file of the working directory.
    duct::cmd(python.as_os_str(), arguments)
        .env("TMPDIR", scratch)
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .env_remove("PIP_TARGET")
        .env_remove("PIP_PREFIX")
}

/// Runs `job` with the first Python that can be started and has pip.
fn with_python(
    pythons: &[PathBuf],
    mut job: impl FnMut(&Path) -> io::Result<End>,
) -> Result<(PathBuf, End), ToolchainError> {
    let mut without_pip = None;
    for python in pythons {
        match job(python) {
            Ok(End::Exited { success: false, output }) if output.contains("No module named pip") => {
                without_pip = without_pip.or(Some(python.clone()));
            }
            Ok(end) => return Ok((python.clone(), end)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("run", python)(error)),
        }
    }
    Err(match without_pip {
        Some(python) => ToolchainError::PipMissing { python },
        None => {
            let tried: Vec<_> = pythons.iter().map(|python| python.to_string_lossy()).collect();
            ToolchainError::PythonMissing { tried: tried.join(", ") }
        }
    })
}

/// Passes on pip's lines about downloads, each once.
fn report_downloads(said: &str, reported: &Cell<usize>, progress: &dyn Fn(&str)) {
    let whole_lines = said.rfind('\n').map_or("", |end| &said[..end]);
    let lines = whole_lines.lines().map(str::trim).filter(|line| line.starts_with("Downloading "));
    for line in lines.skip(reported.get()) {
        reported.set(reported.get() + 1);
        // The name of a wheel: what follows its version is of no interest here.
        let wheel = line["Downloading ".len()..].split_whitespace().next().unwrap_or_default();
        let file = wheel.rsplit('/').next().unwrap_or(wheel);
        let project: Vec<_> = file.splitn(3, '-').take(2).collect();
        progress(&format!("  downloading {}", project.join(" ")));
    }
}

/// Turns pip's failure into one that says what to do.
fn refusal(python: &Path, said: &str, log: PathBuf) -> ToolchainError {
    static MISMATCH: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?s)DO NOT MATCH THE HASHES.*?\n\s*(\S+)[^\n]*\n\s*Expected sha256 (\w+).*?Got\s+(\w+)")
            .expect("a fixed pattern")
    });
    const UNREACHABLE: [&str; 9] = [
        "connection broken",
        "Failed to establish a new connection",
        "name resolution",
        "Max retries exceeded",
        "Read timed out",
        "ReadTimeoutError",
        "ProxyError",
        "SSLError",
        "Network is unreachable",
    ];
    if let Some(found) = MISMATCH.captures(said) {
        let part = |group: usize| found[group].to_owned();
        return ToolchainError::HashMismatch { package: part(1), expected: part(2), got: part(3) };
    }
    let line_with = |words: &str| said.lines().find(|line| line.contains(words)).map(str::trim);
    if let Some(line) = UNREACHABLE.iter().find_map(|words| line_with(words)) {
        return ToolchainError::Network { detail: cause(line) };
    }
    if let Some(line) = line_with("No matching distribution found") {
        let detail = format!("{} (with `{}`)", line.trim_start_matches("ERROR: "), python.display());
        return ToolchainError::NoWheel { detail };
    }
    ToolchainError::Pip { detail: last_line(said), log }
}

/// The end of pip's line about a broken connection: the part that names the cause.
fn cause(line: &str) -> String {
    let start = line.rfind(">: ").map_or(0, |at| at + 3);
    let text = &line[start..];
    text.split("')").next().unwrap_or(text).trim().to_owned()
}

fn last_line(said: &str) -> String {
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.unwrap_or("nothing at all").trim_start_matches("ERROR: ").to_owned()
}

/// `pip 23.2.1 from /some/where (python 3.11)` without the place.
fn short_version(said: &str) -> String {
    let words: Vec<_> = said.split_whitespace().collect();
    let python = said.rfind("(python").map_or("", |at| said[at..].trim().trim_matches(['(', ')']));
    format!("{}, {python}", words[..words.len().min(2)].join(" "))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ToolchainError + use<> {
    let path = path.to_owned();
    move |source| ToolchainError::Io { action, path, source }
}
