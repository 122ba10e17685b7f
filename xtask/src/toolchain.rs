//! Finds CUDA's compilers, or installs them.
//!
//! Looked for in this order: `CUDA_HOME`, `PATH`, `/usr/local/cuda*` (newest first), and the pinned wheels under
//! `<target>/cuda`, which [`find_or_install`] fetches when nothing else will do. A compiler counts only after
//! it has built a small kernel for the project's architectures ([`trial`]), so one that is too old, lacks its
//! host compiler or is for another machine is passed over with a reason instead of failing in the middle of a
//! build. What passed is remembered, so that the usual call starts no process.
//!
//! Python with numpy, for references, is [`python`]'s. Compiling kernels, and what `doctor` prints, are left to their
//! own modules.

pub(crate) mod child;
pub mod python;
pub mod torch;
mod trial;
pub mod triton;
mod wheels;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use kbench::deferral::Deferral;
use serde::{Deserialize, Serialize};

pub use trial::Unfit;
pub use wheels::{DISASSEMBLER_PINS, NUMPY_PINS, PINS as WHEELS};

/// Oldest release whose compilers are used, as (major, minor). Hopper's `sm_90a` starts there.
pub const OLDEST_RELEASE: (u32, u32) = (12, 0);

/// A pair of compilers of which a trial build has shown that they work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    pub nvcc: PathBuf,
    pub ptxas: PathBuf,
    /// Version of nvcc: `13.0.88`.
    pub nvcc_version: String,
    /// Version of ptxas, in the same form.
    pub ptxas_version: String,
    /// Where it was found.
    pub origin: Origin,
}

impl Toolchain {
    /// Where its programs lie, under every name: nvcc finds what it needs from there.
    pub fn homes(&self) -> Vec<PathBuf> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let programs = [&self.nvcc, &self.ptxas].into_iter().flat_map(|path| [path.clone(), real(path)]);
        programs.filter_map(|program| Some(real(program.parent()?.parent()?))).collect()
    }
}

/// Where a toolchain comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The directory that `CUDA_HOME` names.
    CudaHome,
    /// A directory of `PATH`.
    Path,
    /// A `cuda*` directory under `/usr/local`.
    System,
    /// The pinned Python wheels under the target directory.
    Wheels,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Origin::CudaHome => "CUDA_HOME",
            Origin::Path => "PATH",
            Origin::System => "/usr/local",
            Origin::Wheels => "pinned wheels",
        })
    }
}

/// A place that should have held a toolchain and does not hold one that can be used.
#[derive(Debug)]
pub struct Rejected {
    /// Why the place was looked at.
    pub origin: Origin,
    /// The nvcc in question.
    pub nvcc: PathBuf,
    /// What is wrong with it.
    pub reason: Unfit,
}

impl fmt::Display for Rejected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` (from {}) cannot be used: {}", self.nvcc.display(), self.origin, self.reason)
    }
}

/// What is here, for `doctor`.
#[derive(Debug)]
pub struct Probe {
    /// The toolchain that a build would use without installing anything.
    pub toolchain: Option<Toolchain>,
    /// What was looked at before it and passed over.
    pub rejected: Vec<Rejected>,
    /// Where nothing is found: the pip that would install the wheels (`pip 23.2.1, python 3.11`), or why none could.
    pub installer: Option<Result<String, ToolchainError>>,
}

/// Why there is no toolchain. As text each is one line that ends with what to do about it.
#[derive(Debug)]
pub enum ToolchainError {
    /// The wheels are for Linux on x86-64 only.
    Platform { os: &'static str, arch: &'static str },
    /// No Python could be started.
    PythonMissing { tried: String },
    /// Python is there, pip is not.
    PipMissing {
        /// The Python without pip.
        python: PathBuf,
    },
    /// The package registry could not be reached.
    Network { detail: String },
    /// A wheel is not the pinned one.
    HashMismatch {
        package: String,
        expected: String,
        /// The SHA-256 of what came.
        got: String,
    },
    /// The registry answers and has no such wheel for this machine.
    NoWheel { detail: String },
    /// pip failed in a way of its own.
    Pip { detail: String, log: PathBuf },
    /// pip did not end in time and was killed.
    TimedOut {
        /// The limit, in seconds.
        seconds: u64,
        log: PathBuf,
    },
    /// The pinned compiler is installed and does not work here.
    Unusable { nvcc: PathBuf, reason: Unfit },
    /// The file system would not do it.
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl ToolchainError {
    /// As a deferral of everything that needs compilers.
    pub fn deferral(&self) -> Deferral {
        const OWN: &str = "install CUDA 12.0 or newer and set CUDA_HOME";
        const OR_OWN: &str = "or install CUDA 12.0 or newer and set CUDA_HOME";
        match self {
            ToolchainError::Platform { os, arch } => {
                Deferral::new(format!("no CUDA compiler found, and none to install for {os} on {arch}"), OWN)
            }
            ToolchainError::PythonMissing { tried } => Deferral::new(
                format!("no CUDA compiler found, and no python3 to install one with (tried {tried})"),
                "install python3 with pip, or CUDA 12.0 or newer and set CUDA_HOME",
            ),
            ToolchainError::PipMissing { python } => Deferral::new(
                format!("no CUDA compiler found, and `{}` has no pip to install one with", python.display()),
                "install pip (python3 -m ensurepip, or apt-get install python3-pip), or CUDA 12.0 or newer and set \
                 CUDA_HOME",
            ),
            ToolchainError::Network { detail } => Deferral::new(
                format!("failed to download the CUDA compiler: the package registry is out of reach ({detail})"),
                format!("connect to a network or set PIP_INDEX_URL to a mirror, {OR_OWN}"),
            ),
            ToolchainError::HashMismatch { package, expected, got } => Deferral::new(
                format!("refused to install the CUDA compiler: {package} has sha256 {got}, pinned is {expected}"),
                "someone may have tampered with the file: empty pip's cache (python3 -m pip cache purge), check \
                 PIP_INDEX_URL, and try again",
            ),
            ToolchainError::NoWheel { detail } => Deferral::new(
                format!("failed to install the CUDA compiler: {detail}"),
                format!(
                    "update pip (python3 -m pip install --upgrade pip) so that it knows manylinux2014 wheels, {OR_OWN}"
                ),
            ),
            ToolchainError::Pip { detail, log } => Deferral::new(
                format!("failed to install the CUDA compiler: pip says: {detail}"),
                format!("see `{}`", log.display()),
            ),
            ToolchainError::TimedOut { seconds, log } => Deferral::new(
                format!("failed to install the CUDA compiler: pip was still running after {seconds} s and was stopped"),
                format!("try again on a faster network, or see `{}`", log.display()),
            ),
            ToolchainError::Unusable { nvcc, reason } => Deferral::new(
                format!("the CUDA compiler `{}` cannot be used: {reason}", nvcc.display()),
                reason.remedy(),
            ),
            ToolchainError::Io { action, path, source } => Deferral::new(
                format!("failed to {action} `{}`: {source}", path.display()),
                "check the target directory (CARGO_TARGET_DIR) and its free space",
            ),
        }
    }
}

impl fmt::Display for ToolchainError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deferral().fmt(out)
    }
}

impl std::error::Error for ToolchainError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ToolchainError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Where to look. [`Search::from_env`] is what every command uses; tests point it at directories of their own.
#[derive(Clone, Debug)]
pub struct Search {
    pub cuda_home: Option<PathBuf>,
    /// The directories of `PATH`.
    pub path: Vec<PathBuf>,
    /// The directory in which CUDA's own installer puts its `cuda*` directories.
    pub system: PathBuf,
    /// The Pythons to install with, first choice first: names to be found on `PATH`, or paths.
    pub pythons: Vec<PathBuf>,
    /// Cargo's target directory; the wheels go under its `cuda`.
    pub target: PathBuf,
}

/// Finds a toolchain without installing one. `target` is cargo's target directory.
pub fn find(target: &Path) -> Option<Toolchain> {
    Search::from_env(target).find()
}

/// Finds a toolchain, or installs the pinned one under `target`. `progress` gets whole lines for a person to read.
pub fn find_or_install(target: &Path, progress: &dyn Fn(&str)) -> Result<Toolchain, ToolchainError> {
    Search::from_env(target).find_or_install(progress)
}

/// The nvdisasm beside a toolchain's assembler, or on `PATH`, or that of the pinned wheel, installed now if it is not
/// there.
pub fn disassembler(target: &Path, toolchain: &Toolchain, progress: &dyn Fn(&str)) -> Result<PathBuf, ToolchainError> {
    let search = Search::from_env(target);
    match search.disassembler(toolchain) {
        Some(found) => Ok(found),
        None => wheels::install(&wheels::DISASSEMBLER, &search.cuda_dir(), &search.pythons, progress),
    }
}

/// The same without installing one; the inner value says with what one would be installed, or why not.
pub fn probe_disassembler(target: &Path, toolchain: &Toolchain) -> Result<PathBuf, Result<String, ToolchainError>> {
    let search = Search::from_env(target);
    let wheel = || wheels::installed(&wheels::DISASSEMBLER, &search.cuda_dir());
    search.disassembler(toolchain).or_else(wheel).ok_or_else(|| wheels::installer(&search.pythons))
}

/// The compute-sanitizer of `CUDA_HOME`, on `PATH`, or of a `cuda*` directory under `/usr/local`.
pub fn sanitizer(target: &Path) -> Option<PathBuf> {
    Search::from_env(target).sanitizer()
}

/// Reports what is here, and what is wrong with the rest, without installing anything.
pub fn probe(target: &Path) -> Probe {
    Search::from_env(target).probe()
}

/// Cargo's target directory for the workspace at `root`: `CARGO_TARGET_DIR` (relative to the working directory, as
/// cargo reads it), else `target`.
pub fn target_dir(root: &Path) -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
        Some(chosen) => env::current_dir().unwrap_or_default().join(chosen),
        None => root.join("target"),
    }
}

impl Search {
    /// Reads the environment.
    pub fn from_env(target: &Path) -> Search {
        let set = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty());
        Search {
            cuda_home: set("CUDA_HOME").map(PathBuf::from),
            path: set("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            system: PathBuf::from("/usr/local"),
            pythons: vec!["python3".into(), "python".into()],
            target: target.to_owned(),
        }
    }

    pub fn find(&self) -> Option<Toolchain> {
        self.look(&mut Vec::new())
    }

    pub fn find_or_install(&self, progress: &dyn Fn(&str)) -> Result<Toolchain, ToolchainError> {
        let mut rejected = Vec::new();
        if let Some(toolchain) = self.look_outside(&mut rejected) {
            return Ok(toolchain);
        }
        for one in &rejected {
            progress(&format!("warning: {one}; looking further"));
        }
        let nvcc = wheels::install(&wheels::COMPILER, &self.cuda_dir(), &self.pythons, progress)?;
        self.try_out(Candidate::new(Origin::Wheels, nvcc))
            .map_err(|Rejected { nvcc, reason, .. }| ToolchainError::Unusable { nvcc, reason })
    }

    pub fn probe(&self) -> Probe {
        let mut rejected = Vec::new();
        let toolchain = self.look(&mut rejected);
        let installer = toolchain.is_none().then(|| wheels::installer(&self.pythons));
        Probe { toolchain, rejected, installer }
    }

    /// An nvdisasm beside the assembler or on `PATH`.
    fn disassembler(&self, toolchain: &Toolchain) -> Option<PathBuf> {
        let beside = toolchain.ptxas.with_file_name("nvdisasm");
        let on_path = self.path.iter().map(|dir| dir.join("nvdisasm"));
        std::iter::once(beside).chain(on_path).find(|program| program.is_file()).map(absolute)
    }

    /// A compute-sanitizer, which comes with the toolkit; a machine may have it without an nvcc.
    pub fn sanitizer(&self) -> Option<PathBuf> {
        let home = self.cuda_home.iter().map(|home| home.join("bin"));
        let entries = fs::read_dir(&self.system).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("cuda"));
        let mut system: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
        system.sort_by_key(|dir| std::cmp::Reverse(release_in_name(dir)));
        let folders = home.chain(self.path.iter().cloned()).chain(system.into_iter().map(|dir| dir.join("bin")));
        folders.map(|folder| folder.join("compute-sanitizer")).find(|program| program.is_file()).map(absolute)
    }

    fn cuda_dir(&self) -> PathBuf {
        absolute(self.target.join("cuda"))
    }

    fn look(&self, rejected: &mut Vec<Rejected>) -> Option<Toolchain> {
        self.look_outside(rejected).or_else(|| {
            let nvcc = wheels::installed(&wheels::COMPILER, &self.cuda_dir())?;
            self.judge(Candidate::new(Origin::Wheels, nvcc), rejected)
        })
    }

    /// Looks everywhere but among the project's own wheels.
    fn look_outside(&self, rejected: &mut Vec<Rejected>) -> Option<Toolchain> {
        let mut seen = Vec::new();
        self.candidates().into_iter().find_map(|candidate| {
            let real = fs::canonicalize(&candidate.nvcc).unwrap_or_else(|_| candidate.nvcc.clone());
            if seen.contains(&real) {
                return None;
            }
            seen.push(real);
            self.judge(candidate, rejected)
        })
    }

    fn candidates(&self) -> Vec<Candidate> {
        let home = self.cuda_home.iter().map(|home| Candidate::new(Origin::CudaHome, home.join("bin/nvcc")));
        let on_path = self.path.iter().map(|dir| dir.join("nvcc")).find(|nvcc| nvcc.is_file());
        let system = system_installs(&self.system).into_iter().map(|dir| dir.join("bin/nvcc"));
        home.chain(on_path.map(|nvcc| Candidate::new(Origin::Path, nvcc)))
            .chain(system.map(|nvcc| Candidate::new(Origin::System, nvcc)))
            .collect()
    }

    fn judge(&self, candidate: Candidate, rejected: &mut Vec<Rejected>) -> Option<Toolchain> {
        self.try_out(candidate).map_err(|reason| rejected.push(reason)).ok()
    }

    fn try_out(&self, candidate: Candidate) -> Result<Toolchain, Rejected> {
        let Candidate { origin, nvcc, ptxas } = candidate;
        match trial::versions(&nvcc, &ptxas, &self.cuda_dir()) {
            Ok((nvcc_version, ptxas_version)) => Ok(Toolchain { nvcc, ptxas, nvcc_version, ptxas_version, origin }),
            Err(reason) => Err(Rejected { origin, nvcc, reason }),
        }
    }
}

/// A pair of compilers not yet tried.
struct Candidate {
    origin: Origin,
    nvcc: PathBuf,
    ptxas: PathBuf,
}

impl Candidate {
    /// `ptxas` is the one beside nvcc, which is the one that nvcc itself would call; where nvcc is a link, the
    /// one beside what it points to.
    fn new(origin: Origin, nvcc: PathBuf) -> Candidate {
        let nvcc = absolute(nvcc);
        let beside = nvcc.with_file_name("ptxas");
        let behind = fs::canonicalize(&nvcc).map(|real| real.with_file_name("ptxas")).ok();
        let ptxas = match behind {
            Some(behind) if !beside.is_file() && behind.is_file() => behind,
            _ => beside,
        };
        Candidate { origin, nvcc, ptxas }
    }
}

/// The same path from the root, since children run in directories of their own. Left as it is where there is no
/// working directory to start from.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The `cuda*` directories that hold an nvcc, newest first by the version in their real name. One without a version
/// in its name is what somebody chose as the default, and comes first.
fn system_installs(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("cuda"));
    let mut found: Vec<_> = named
        .map(|entry| entry.path())
        .filter(|dir| dir.join("bin/nvcc").is_file())
        .map(|dir| (release_in_name(&fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone())), dir))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

fn release_in_name(dir: &Path) -> (u32, u32) {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let mut parts = name.trim_start_matches("cuda-").split('.').map(|part| part.parse().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), minor) => (major, minor.unwrap_or(0)),
        (None, _) => (u32::MAX, 0),
    }
}
