//! A Python that has numpy: the machine's, else one in a folder of the build. Leaves to others: what runs in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The version that is installed where there is none.
const NUMPY: &str = "numpy==2.4.6";

/// Program and arguments; `None`, and a line that says so, where numpy cannot be had.
pub fn python() -> Option<Vec<String>> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let own = folder_of_builds().join("numpy-venv/bin/python");
        let there = [PathBuf::from("python3"), own.clone()].into_iter().find(|python| has_numpy(python));
        there.or_else(|| install(&own))
    });
    if found.is_none() {
        eprintln!("skipped: python3 cannot import numpy, and pip cannot install {NUMPY}");
    }
    found.as_ref().map(|python| vec![python.display().to_string()])
}

/// What a Python and its packages are read from.
pub fn paths(python: &[String]) -> Vec<PathBuf> {
    let question =
        "import sys; print(*dict.fromkeys([sys.prefix, sys.base_prefix, *filter(None, sys.path)]), sep='\\n')";
    let answer = Command::new(&python[0]).args(["-c", question]).output().expect("it was found");
    String::from_utf8_lossy(&answer.stdout).lines().map(PathBuf::from).collect()
}

/// The folder `target`, from the test's own executable upwards.
fn folder_of_builds() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(3).unwrap_or(Path::new("target")).to_owned()
}

fn has_numpy(python: &Path) -> bool {
    succeeds(Command::new(python).args(["-c", "import numpy"]))
}

fn install(python: &Path) -> Option<PathBuf> {
    let folder = python.parent()?.parent()?;
    let made = succeeds(Command::new("python3").args(["-m", "venv"]).arg(folder));
    let installed = made && succeeds(Command::new(python).args(["-m", "pip", "install", "--quiet", NUMPY]));
    (installed && has_numpy(python)).then(|| python.to_owned())
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
