//! Where and with what a run is made. Every figure is optional; nothing here can fail a run.

use std::path::Path;

use kbench::evidence::Environment;
use serde::{Deserialize, Serialize};

use crate::cubin::sha256_hex;
use crate::layout::{DIST_FILE, Layout};
use crate::toolchain::Toolchain;

/// What a checkout knows of its sources; a dist folder carries it along in `DIST.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Commit.
    pub commit: Option<String>,
    /// Whether files differ from it.
    pub dirty: Option<bool>,
    /// SHA-256 of the differences.
    pub diff_sha256: Option<String>,
    /// Compiler of the pipeline.
    pub rustc: Option<String>,
}

impl SourceState {
    /// Asks git and rustc, or reads the dist folder's file.
    pub fn of(layout: &Layout) -> SourceState {
        if layout.is_dist() {
            let text = std::fs::read(layout.root.join(DIST_FILE)).unwrap_or_default();
            return serde_json::from_slice(&text).unwrap_or_default();
        }
        let git = |arguments: &[&str]| output(&layout.root, "git", arguments);
        let status = git(&["status", "--porcelain"]);
        let dirty = status.as_ref().map(|s| !s.is_empty());
        let differences = match (&status, dirty) {
            (Some(status), Some(true)) => {
                git(&["diff", "HEAD"]).map(|diff| sha256_hex(format!("{status}\n{diff}").as_bytes()))
            }
            _ => None,
        };
        SourceState {
            commit: git(&["rev-parse", "HEAD"]),
            dirty,
            diff_sha256: differences,
            rustc: output(&layout.root, "rustc", &["--version"]),
        }
    }

    /// The commit as run names show it.
    pub fn short_commit(&self) -> &str {
        self.commit.as_deref().map_or("nocommit", |c| &c[..c.len().min(7)])
    }
}

/// The trimmed standard output of a program that succeeded.
fn output(dir: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    duct::cmd(program, arguments).dir(dir).stderr_null().read().ok()
}

/// What can be said before anything ran.
pub fn collect(source: &SourceState, toolchain: Option<&Toolchain>) -> Environment {
    let source = source.clone();
    Environment {
        started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        command: std::env::args().collect(),
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
