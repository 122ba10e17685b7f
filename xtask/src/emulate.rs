//! `emulate run`: a program that was compiled for a GPU, with its own `main`, on the emulator. The libraries that it asks for
//! by CUDA's names are ours; what they say of it is read when it has ended. Leaves to others: what counts of that
//! (`kbench::findings`).

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, Result, bail};
use kbench::findings::{self, Baseline, Judged, Policy, Refused};
use kernel_spec::demangle::demangled;
use kernel_spec::schedule::Schedule;
use serde::Serialize;

use crate::dist::LIBRARY;
use crate::layout::Layout;
use crate::runner::built;

/// Names under which programs look for it.
const NAMES: [&str; 3] = ["libcudart.so.13", "libcuda.so.1", "libcuda.so"];
/// Where the dynamic linker looks first.
const SEARCH_PATH: &str = "LD_LIBRARY_PATH";

/// How a program is emulated.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Order of the warps; greedy where absent.
    pub schedule: Option<Schedule>,
    /// Only what is always checked.
    pub unchecked: bool,
    /// Compute capability, as in 80; that of the program's PTX where absent.
    pub arch: Option<u32>,
    /// Global memory in GiB.
    pub memory_gib: Option<u64>,
}

/// What came of a program.
#[derive(Clone, Debug, Serialize)]
pub struct Emulated {
    /// The program, as it was called.
    pub program: String,
    /// What was found, each with what it counts for.
    pub findings: Vec<Judged>,
    /// What the emulator does not do, for which the program asked.
    pub refused: Vec<Refused>,
    /// How the program ended, where that was no success.
    pub failure: Option<String>,
}

/// The library, which is built first in a checkout.
fn library(layout: &Layout) -> Result<PathBuf> {
    if layout.is_dist() { Ok(layout.root.join(LIBRARY)) } else { built(layout, "cuda-shim", LIBRARY) }
}

/// Runs a program to its end, and reads what was told of it.
pub fn run(
    layout: &Layout,
    program: &Path,
    arguments: &[OsString],
    options: &Options,
) -> Result<(findings::Told, Option<String>)> {
    let library = library(layout)?;
    let room = tempfile::tempdir().context("failed to create a folder for the libraries")?;
    for name in NAMES {
        symlink(&library, room.path().join(name)).with_context(|| format!("failed to create `{name}`"))?;
    }
    let report = room.path().join("report.jsonl");
    let inherited = std::env::var_os(SEARCH_PATH).unwrap_or_default();
    let folders = std::env::split_paths(&inherited).filter(|folder| !folder.as_os_str().is_empty());
    let folders = std::env::join_paths([room.path().to_owned()].into_iter().chain(folders))?;
    let mut command = duct::cmd(program, arguments).env(SEARCH_PATH, folders).env("PTX_EMULATOR_REPORT", &report);
    let memory = options.memory_gib.map(|gib| (gib << 30).to_string());
    let settings = [
        ("PTX_EMULATOR_SCHEDULE", options.schedule.map(spelled)),
        ("PTX_EMULATOR_CHECKS", options.unchecked.then(|| "off".to_owned())),
        ("PTX_EMULATOR_ARCH", options.arch.map(|arch| arch.to_string())),
        ("PTX_EMULATOR_MEMORY", memory),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            command = command.env(name, value);
        }
    }
    let ended = command.unchecked().run().with_context(|| format!("failed to start `{}`", program.display()))?;
    // A program that never asked for the device has told nothing.
    let lines = match std::fs::read_to_string(&report) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("failed to read `{}`", report.display()))?,
    };
    let told = findings::read(&demangled(&lines)).context("failed to read what the emulator says of the program")?;
    Ok((told, failure(ended.status)))
}

/// As the library reads it.
fn spelled(schedule: Schedule) -> String {
    match schedule {
        Schedule::Greedy => "greedy".to_owned(),
        Schedule::RoundRobin => "round-robin".to_owned(),
        Schedule::Reverse => "reverse".to_owned(),
        Schedule::Seeded(seed) => seed.to_string(),
    }
}

fn failure(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("the program ended with status {code}")),
        (None, signal) => Some(format!("the program was ended by signal {}", signal.unwrap_or(0))),
    }
}

/// A project's rules, and what it knows already.
pub fn rules(policy: Option<&Path>, baseline: Option<&Path>) -> Result<(Policy, Baseline)> {
    let read =
        |path: &Path| std::fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()));
    let policy = match policy {
        Some(path) => Policy::parse(&read(path)?).with_context(|| format!("in `{}`", path.display()))?,
        None => Policy::default(),
    };
    let baseline = match baseline {
        Some(path) => {
            serde_json::from_str(&read(path)?).with_context(|| format!("`{}` is no baseline", path.display()))?
        }
        None => Baseline::default(),
    };
    Ok((policy, baseline))
}

/// Fails early where a program cannot be emulated, with what to do.
pub fn examine(program: &Path) -> Result<()> {
    use object::{Object, ObjectSection, ObjectSymbol};
    let Ok(bytes) = std::fs::read(program) else { return Ok(()) };
    let Ok(file) = object::File::parse(bytes.as_slice()) else { return Ok(()) };
    let is_cuda = file.section_by_name(".nvFatBinSegment").is_some_and(|section| section.size() > 0);
    let is_call = |name: &str| name.starts_with("cuda") || name.starts_with("__cuda");
    let is_shared = file.dynamic_symbols().any(|symbol| symbol.name().is_ok_and(is_call));
    if is_cuda && !is_shared {
        bail!(
            "`{}` has CUDA's runtime inside; link it with: nvcc -cudart shared -gencode arch=compute_80,code=compute_80",
            program.display()
        );
    }
    Ok(())
}
