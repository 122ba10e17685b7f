//! Where and with what a run is made. Every figure is optional; nothing here can fail a run.

use std::path::Path;

use kbench::evidence::Environment;
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use crate::cubin::sha256_hex;
use crate::layout::{DIST_FILE, Layout};
use crate::toolchain::Toolchain;

/// What a checkout knows of its sources; a dist folder carries it along in `DIST.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    pub commit: Option<String>,
    /// Whether files differ from it.
    pub dirty: Option<bool>,
    /// SHA-256 of the differences.
    pub diff_sha256: Option<String>,
    /// Compiler of the pipeline.
    pub rustc: Option<String>,
    /// SHA-256 over the kernels, suites and peers: what a dist folder carries as source.
    pub sources_sha256: Option<String>,
}

/// A hash over the names and contents of everything that is read at run time.
fn sources_sha256(layout: &Layout) -> Option<String> {
    let mut listing = String::new();
    for folder in [layout.cuda(), layout.suites(), layout.peers()] {
        for file in crate::files::all_files(&folder).ok()? {
            let name = file.strip_prefix(&layout.root).ok()?.display().to_string();
            // What was accepted is no source: it names one.
            if !name.contains("__pycache__") && !name.ends_with(kbench::ledger::FILE) {
                listing.push_str(&format!("{name} {}\n", sha256_hex(&std::fs::read(&file).ok()?)));
            }
        }
    }
    Some(sha256_hex(listing.as_bytes()))
}

impl SourceState {
    /// Asks git and rustc, or reads the dist folder's file and looks whether its sources are still those.
    pub fn of(layout: &Layout) -> SourceState {
        if layout.is_dist() {
            let text = std::fs::read(layout.root.join(DIST_FILE)).unwrap_or_default();
            let mut state: SourceState = serde_json::from_slice(&text).unwrap_or_default();
            let now = sources_sha256(layout);
            if state.sources_sha256 != now {
                (state.dirty, state.diff_sha256, state.sources_sha256) = (Some(true), now.clone(), now);
            }
            return state;
        }
        let git = |arguments: &[&str]| output(&layout.root, "git", arguments);
        let status = git(&["status", "--porcelain"]);
        let dirty = status.as_ref().map(|s| !s.is_empty());
        let untracked = git(&["ls-files", "--others", "--exclude-standard"]).unwrap_or_default();
        let new_files: String = untracked
            .lines()
            .map(|file| format!("{file} {}\n", sha256_hex(&std::fs::read(layout.root.join(file)).unwrap_or_default())))
            .collect();
        let differences = match (&status, dirty) {
            (Some(status), Some(true)) => {
                git(&["diff", "HEAD"]).map(|diff| sha256_hex(format!("{status}\n{diff}\n{new_files}").as_bytes()))
            }
            _ => None,
        };
        SourceState {
            commit: git(&["rev-parse", "HEAD"]),
            dirty,
            diff_sha256: differences,
            rustc: output(&layout.root, "rustc", &["--version"]),
            sources_sha256: sources_sha256(layout),
        }
    }

    /// The commit as run names show it.
    pub fn short_commit(&self) -> &str {
        self.commit.as_deref().map_or("nocommit", |c| &c[..c.len().min(7)])
    }
}

/// The trimmed standard output of a program that succeeded.
fn output(dir: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let shell = Shell::new().ok()?;
    shell.change_dir(dir);
    cmd!(shell, "{program} {arguments...}").ignore_stderr().read().ok()
}

/// What can be said before anything ran.
pub fn collect(source: &SourceState, toolchain: Option<&Toolchain>, started: jiff::Timestamp) -> Environment {
    let source = source.clone();
    Environment {
        started: started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        command: std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        commit: source.commit,
        dirty: source.dirty,
        diff_sha256: source.diff_sha256,
        rustc: source.rustc,
        nvcc: toolchain.map(|t| t.nvcc_version.clone()),
        ptxas: toolchain.map(|t| t.ptxas_version.clone()),
        toolchain: toolchain.map(|t| t.origin.to_string()),
        os: operating_system(),
        cpu: processor(),
        ..Environment::default()
    }
}

fn operating_system() -> Option<String> {
    let release = std::fs::read_to_string("/etc/os-release").ok()?;
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?.trim_matches('"').to_owned();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(format!("{name}, Linux {}", kernel.trim()))
}

fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "))?.1.to_owned();
    let threads = std::thread::available_parallelism().ok()?;
    Some(format!("{model}, {threads} threads"))
}
