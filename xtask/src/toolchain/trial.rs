//! Tries a compiler out: its version, then a small kernel with the headers and architectures the project needs.
//!
//! A trial costs half a second, so a pair of files that passed is remembered under `<target>/cuda/trials` with sizes and
//! times of change. A failure is not remembered: what is missing may be installed any minute.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};
use std::{fs, io};

use regex::Regex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::OLDEST_RELEASE;
use super::child::{self, End};

/// What makes a compiler unfit for use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// There is no such file.
    #[error("there is no `{}`", .0.display())]
    Missing(PathBuf),
    /// The system would not run it: another processor's file, no permission, a missing library.
    #[error("`{}` does not run: {detail}", program.display())]
    DoesNotRun {
        program: PathBuf,
        /// What came of it.
        detail: String,
    },
    /// It runs and does not say which version it is.
    #[error("`{}` states no version: {said}", program.display())]
    NoVersion {
        program: PathBuf,
        /// What it says instead.
        said: String,
    },
    /// It is older than what the kernels need.
    #[error("version {version} is older than {}.{}", OLDEST_RELEASE.0, OLDEST_RELEASE.1)]
    TooOld { version: String },
    /// nvcc finds no host compiler, or one that it refuses.
    #[error("it has no host C++ compiler that it accepts ({0})")]
    HostCompiler(String),
    /// It fails on the trial kernel.
    #[error("it fails on a small kernel ({0})")]
    Build(String),
}

impl Unfit {
    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Unfit::HostCompiler(_) => "install g++ (apt-get install g++)",
            Unfit::TooOld { .. } => "install CUDA 12.0 or newer",
            _ => "delete the target directory's `cuda` and run again, or install CUDA 12.0 or newer and set CUDA_HOME",
        }
    }
}

/// The kernel of the trial. Its headers are the ones that a partial installation lacks: `cuda_fp16.h` needs libcu++.
const KERNEL: &str = r#"#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <mma.h>
extern "C" __global__ void trial(const half* a, const half* b, float* c) {
  using namespace nvcuda::wmma;
  fragment<matrix_a, 16, 16, 16, half, row_major> left;
  fragment<matrix_b, 16, 16, 16, half, col_major> right;
  fragment<accumulator, 16, 16, 16, float> sum;
  fill_fragment(sum, float(__nv_fp8_e4m3(1.0f)));
  load_matrix_sync(left, a, 16);
  load_matrix_sync(right, b, 16);
  mma_sync(sum, left, right, sum);
  store_matrix_sync(c, sum, 16, mem_row_major);
}
"#;

/// Architectures of the trial, the oldest first: PTX for it assembles for the others too.
const ARCHS: [&str; 3] = ["sm_89", "sm_90", "sm_90a"];

/// Ample for half a second's work on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The versions of a pair of compilers that works, from memory where the files have not changed.
pub(super) fn versions(nvcc: &Path, ptxas: &Path, cuda_dir: &Path) -> Result<(String, String), Unfit> {
    let stamps = (Stamp::of(nvcc)?, Stamp::of(ptxas)?);
    let memory = memory_path(cuda_dir, nvcc);
    if let Some(passed) = recall(&memory).filter(|passed| passed.nvcc == stamps.0 && passed.ptxas == stamps.1) {
        return Ok((passed.nvcc_version, passed.ptxas_version));
    }
    let (nvcc_version, ptxas_version) = (version(nvcc)?, version(ptxas)?);
    build(nvcc, ptxas)?;
    let (nvcc, ptxas) = stamps;
    // Only a convenience: where the directory cannot be written, the next call tries again.
    let passed = Passed { nvcc, ptxas, nvcc_version, ptxas_version };
    let _ = remember(&memory, &passed);
    Ok((passed.nvcc_version, passed.ptxas_version))
}

/// What tells one file from another that took its place.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    path: PathBuf,
    bytes: u64,
    modified_ns: u128,
}

impl Stamp {
    fn of(path: &Path) -> Result<Stamp, Unfit> {
        let missing = || Unfit::Missing(path.to_owned());
        let found = fs::metadata(path).ok().filter(fs::Metadata::is_file).ok_or_else(missing)?;
        let modified = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Stamp { path: path.to_owned(), bytes: found.len(), modified_ns: modified.unwrap_or_default().as_nanos() })
    }
}

/// A trial that went well.
#[derive(Serialize, Deserialize)]
struct Passed {
    nvcc: Stamp,
    ptxas: Stamp,
    nvcc_version: String,
    ptxas_version: String,
}

/// One file a compiler and trial kernel, so that a changed trial is held again.
fn memory_path(cuda_dir: &Path, nvcc: &Path) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(KERNEL);
    hash.update(ARCHS.concat());
    hash.update(nvcc.as_os_str().as_encoded_bytes());
    let name: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    cuda_dir.join("trials").join(name + ".json")
}

fn recall(memory: &Path) -> Option<Passed> {
    serde_json::from_slice(&fs::read(memory).ok()?).ok()
}

fn remember(memory: &Path, passed: &Passed) -> io::Result<()> {
    let dir = memory.parent().unwrap_or(memory);
    fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&serde_json::to_vec_pretty(passed)?)?;
    file.persist(memory)?;
    Ok(())
}

/// Asks a program for its version, and refuses one that is too old.
fn version(program: &Path) -> Result<String, Unfit> {
    static VERSION: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"release \d+\.\d+, V((\d+)\.(\d+)\.\d+)").expect("a fixed pattern"));
    let unfit = |detail: String| Unfit::DoesNotRun { program: program.to_owned(), detail };
    let said = match run(program, &["--version"]).map_err(|error| unfit(error.to_string()))? {
        End::Exited { success: true, output } => output,
        End::Exited { output, .. } => return Err(unfit(summary(&output))),
        End::TimedOut => return Err(unfit(format!("no answer in {} s", LIMIT.as_secs()))),
    };
    let no_version = || Unfit::NoVersion { program: program.to_owned(), said: summary(&said) };
    let found = VERSION.captures(&said).ok_or_else(no_version)?;
    let part = |group: usize| found[group].parse().unwrap_or(u32::MAX);
    let version = found[1].to_owned();
    if (part(2), part(3)) < OLDEST_RELEASE {
        return Err(Unfit::TooOld { version });
    }
    Ok(version)
}

/// Builds the trial kernel the way the project builds its own: PTX first, then that PTX for each architecture.
fn build(nvcc: &Path, ptxas: &Path) -> Result<(), Unfit> {
    let failed = |error: io::Error| Unfit::Build(format!("no room to try: {error}"));
    let room = tempfile::tempdir().map_err(failed)?;
    let (source, ptx, cubin) =
        (room.path().join("trial.cu"), room.path().join("trial.ptx"), room.path().join("trial.cubin"));
    fs::write(&source, KERNEL).map_err(failed)?;
    let arch = format!("-arch={}", ARCHS[0]);
    step(nvcc, &["-std=c++17", "-ptx", &arch, &source.to_string_lossy(), "-o", &ptx.to_string_lossy()], &ptx)?;
    for arch in ARCHS {
        let arch = format!("-arch={arch}");
        step(ptxas, &[&arch, &ptx.to_string_lossy(), "-o", &cubin.to_string_lossy()], &cubin)?;
    }
    Ok(())
}

fn step(program: &Path, arguments: &[&str], product: &Path) -> Result<(), Unfit> {
    let output = match run(program, arguments) {
        Ok(End::Exited { success: true, .. }) if product.is_file() => return Ok(()),
        Ok(End::Exited { output, .. }) => output,
        Ok(End::TimedOut) => return Err(Unfit::Build(format!("no end in {} s", LIMIT.as_secs()))),
        Err(error) => return Err(Unfit::Build(error.to_string())),
    };
    const HOST_COMPILER: [&str; 5] =
        ["host compiler", "gcc: No such file", "g++: No such file", "cc1plus", "unsupported GNU version"];
    Err(if HOST_COMPILER.iter().any(|words| output.contains(words)) {
        Unfit::HostCompiler(summary(&output))
    } else {
        Unfit::Build(summary(&output))
    })
}

fn run(program: &Path, arguments: &[&str]) -> io::Result<End> {
    let log = tempfile::NamedTempFile::new()?;
    child::run(&duct::cmd(program, arguments), log.path(), LIMIT, &mut |_| ())
}

/// The first lines that say something, as one line.
fn summary(output: &str) -> String {
    let lines: Vec<_> = output.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    if lines.is_empty() { "it says nothing".to_owned() } else { lines.join("; ") }
}
