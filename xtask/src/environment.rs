//! Where and with what a run is made. Every figure is optional; nothing here can fail a run.

use std::path::Path;

use kbench::evidence::Environment;
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use crate::cubin::sha256_hex;
use crate::layout::{DIST_FILE, Layout};
use crate::toolchain::Toolchain;

/// What a checkout knows of its sources; a dist folder carries it along in `DIST.json`. Of a gate file that an installed
/// program judges, what the repository knows that tracks the file.
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
    /// The commit of the program, where `commit` is not its own: that of a gate file's repository, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_commit: Option<String>,
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
        let new_files = listed(&layout.root, untracked.lines());
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
            program_commit: None,
        }
    }

    /// That of a gate file, which names `files` in its own folder, for an installed program: it has nothing to do with the
    /// kernel that it judges, and its own commit says nothing of it.
    pub fn of_gate_file(layout: &Layout, gate: &Path, files: &[&str]) -> SourceState {
        let program = SourceState::of(layout);
        let (commit, dirty, diff_sha256) = match tracked(gate, files) {
            Some((commit, changes)) => (Some(commit), Some(changes.is_some()), changes),
            None => (None, None, None),
        };
        SourceState { commit, dirty, diff_sha256, program_commit: program.commit, ..program }
    }

    /// The commit as run names show it.
    pub fn short_commit(&self) -> &str {
        self.commit.as_deref().map_or("nocommit", |c| &c[..c.len().min(7)])
    }
}

/// The commit of the repository that tracks a gate file, and SHA-256 of what differs from it: in files that are tracked, and
/// in those that the gate file names and git does not know. What else lies there, runs for one, is no source.
fn tracked(gate: &Path, files: &[&str]) -> Option<(String, Option<String>)> {
    let folder = gate.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let git = |arguments: &[&str]| output(folder, "git", arguments);
    let is_tracked = |file: &str| git(&["ls-files", "--error-unmatch", "--", file]).is_some();
    let name = gate.file_name()?.to_str()?;
    let commit = git(&["rev-parse", "--verify", "HEAD"]).filter(|_| is_tracked(name))?;
    let status = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let new_files = listed(folder, files.iter().copied().filter(|file| !is_tracked(file)));
    let changes = format!("{status}\n{}\n{new_files}", git(&["diff", "HEAD"])?);
    let differ = !status.is_empty() || !new_files.is_empty();
    Some((commit, differ.then(|| sha256_hex(changes.as_bytes()))))
}

/// Names of files and the SHA-256 of their contents, a line each.
fn listed<'f>(folder: &Path, files: impl Iterator<Item = &'f str>) -> String {
    let hash = |file: &str| sha256_hex(&std::fs::read(folder.join(file)).unwrap_or_default());
    files.map(|file| format!("{file} {}\n", hash(file))).collect()
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A folder with an installed program's layout, and one with a gate file in a repository of its own.
    fn rooms() -> (tempfile::TempDir, Layout, std::path::PathBuf) {
        let room = tempfile::tempdir().unwrap();
        let root = room.path().join("venv").join(crate::layout::SHARE);
        let work = room.path().join("work/kernels");
        for folder in [&root, &work] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(root.join(DIST_FILE), r#"{"commit": "0123456789abcdef", "rustc": "rustc 1.95.0"}"#).unwrap();
        for file in ["gate.toml", "k.cu", "r.py"] {
            std::fs::write(work.join(file), file).unwrap();
        }
        let layout = Layout::at(root, room.path().join("cache"));
        assert!(layout.is_installed());
        (room, layout, work)
    }

    fn git(folder: &Path, arguments: &[&str]) {
        let own = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"];
        let ended = Command::new("git").args(own).args(arguments).current_dir(folder).output().unwrap();
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }

    #[test]
    fn an_installed_program_names_a_run_by_the_commit_of_the_gate_file_and_by_none_where_git_does_not_know_it() {
        let (_room, layout, work) = rooms();
        let of = || SourceState::of_gate_file(&layout, &work.join("gate.toml"), &["k.cu", "r.py"]);
        let none = of();
        assert_eq!((none.short_commit(), none.dirty, &none.diff_sha256), ("nocommit", None, &None));
        assert_eq!(none.program_commit.as_deref(), Some("0123456789abcdef"));

        // A repository that does not track it has nothing to say of it.
        let top = work.parent().unwrap();
        git(top, &["init", "--quiet"]);
        std::fs::write(top.join("other"), "").unwrap();
        git(top, &["add", "other"]);
        git(top, &["commit", "--quiet", "--message", "other"]);
        assert_eq!(of(), none);

        git(top, &["add", "kernels"]);
        git(top, &["commit", "--quiet", "--message", "kernels"]);
        let clean = of();
        assert_eq!(clean.commit, output(&work, "git", &["rev-parse", "HEAD"]));
        assert_eq!((clean.commit.is_some(), clean.dirty, &clean.diff_sha256), (true, Some(false), &None));
        // Runs lie beside it, and are no change of it.
        std::fs::create_dir(work.join("kernel-gate-runs")).unwrap();
        std::fs::write(work.join("kernel-gate-runs/run.json"), "{}").unwrap();
        assert_eq!(of(), clean);

        std::fs::write(work.join("k.cu"), "another").unwrap();
        let changed = of();
        assert_eq!((&changed.commit, changed.dirty), (&clean.commit, Some(true)));
        git(&work, &["checkout", "--quiet", "k.cu"]);
        // A source that git does not know is a change, and so is each change of it.
        let with_new = || SourceState::of_gate_file(&layout, &work.join("gate.toml"), &["k.cu", "r.py", "new.cu"]);
        std::fs::write(work.join("new.cu"), "1").unwrap();
        let first = with_new();
        std::fs::write(work.join("new.cu"), "2").unwrap();
        assert_eq!((first.dirty, of().dirty), (Some(true), Some(false)));
        assert!(first.diff_sha256.is_some() && first.diff_sha256 != with_new().diff_sha256);
    }
}
