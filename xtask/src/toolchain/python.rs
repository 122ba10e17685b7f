//! A Python with numpy, for the scripts of gate files: references, generators, checkers, plans. The numpy is pinned like the
//! compilers, so that a reference says the same everywhere; another that is there already serves where the pinned one
//! cannot be had. Without either there is a reason and a remedy, and nothing else is lost.
//! Leaves to others: running scripts, and their limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use confine::Confinement;
use kbench::deferral::Deferral;
use serde::Deserialize;

use super::wheels::{self, Package};
use super::{Search, ToolchainError};
use crate::bounded::{self, End, Limits, Program};

/// Oldest numpy that is taken where the pinned one cannot be had, as (major, minor).
const OLDEST_NUMPY: (u32, u32) = (1, 24);
/// What a person can do in the installer's stead.
const OWN: &str = "install numpy 1.24 or newer for it yourself";
/// Ample for a Python that starts and imports numpy on a busy machine.
const LIMITS: Limits = Limits { time: Duration::from_secs(120), memory_bytes: 16 << 30 };
/// What is asked of a Python: where it is, which it is, and which numpy it has.
const QUESTION: &str = r#"
import json, sys
try:
    import numpy
    version = numpy.__version__
except Exception:
    version = None
import os
paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
print(json.dumps({"executable": sys.executable, "version": list(sys.version_info[:3]), "numpy": version,
                  "paths": [path for path in dict.fromkeys(paths) if os.path.exists(path) and path != "/"]}))
"#;

impl Python {
    /// What every script of somebody's may read; it may write nowhere but where it is told to.
    pub fn confinement(&self) -> Confinement {
        Confinement::of(&self.paths)
    }
}

/// How to run a script that imports numpy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// The interpreter with its arguments, before the script's.
    pub argv: Vec<String>,
    /// Variables to set.
    pub environment: BTreeMap<String, String>,
    /// What it and its packages are read from.
    pub paths: Vec<PathBuf>,
    /// Version of Python: `3.11.7`.
    pub version: String,
    /// Version of numpy.
    pub numpy: String,
    /// Whether numpy is the pinned one.
    pub pinned: bool,
}

#[derive(Deserialize)]
struct Answer {
    executable: String,
    version: [usize; 3],
    numpy: Option<String>,
    paths: Vec<PathBuf>,
}

/// Finds a Python with numpy, or installs numpy for the Python that is there, under cargo's target directory.
pub fn find_or_install(target: &Path, progress: &dyn Fn(&str)) -> Result<Python, Deferral> {
    find_or_install_for(&Search::from_env(target).pythons, target, progress)
}

/// The same with the Pythons to try, first choice first.
pub fn find_or_install_for(pythons: &[PathBuf], target: &Path, progress: &dyn Fn(&str)) -> Result<Python, Deferral> {
    let found = pythons.iter().find_map(|python| Some((python, ask(python)?)));
    let Some((python, answer)) = found else {
        let tried: Vec<_> = pythons.iter().map(|python| python.to_string_lossy()).collect();
        let why = format!("there is no Python 3 (tried {})", tried.join(", "));
        return Err(Deferral::new(why, "install python3 with pip"));
    };
    let [major, minor, patch] = answer.version;
    let mut result = Python {
        argv: vec![answer.executable],
        environment: BTreeMap::new(),
        paths: answer.paths,
        version: format!("{major}.{minor}.{patch}"),
        numpy: String::new(),
        pinned: true,
    };
    let why = match wheels::numpy(minor).filter(|_| major == 3) {
        Some(package) => match tree(&package, target, python, progress) {
            Ok(tree) => {
                result.numpy = wheels::NUMPY_PINS[0].1.to_owned();
                result.environment = environment(Some(&tree));
                result.paths.push(tree);
                return Ok(result);
            }
            Err(error) => deferral(error, "numpy", OWN),
        },
        None => Deferral::new(
            format!("numpy is pinned for Python 3.10 to 3.13, and `{}` is {}", python.display(), result.version),
            "install one of these, or numpy for it",
        ),
    };
    match answer.numpy.filter(|version| is_recent(version)) {
        Some(version) => {
            progress(&format!("warning: {}; taking numpy {version}, which is there", why.why));
            result.numpy = version;
            result.environment = environment(None);
            result.pinned = false;
            Ok(result)
        }
        None => Err(why),
    }
}

/// What a Python says of itself.
fn ask(python: &Path) -> Option<Answer> {
    let argv = [python.as_os_str(), "-c".as_ref(), QUESTION.as_ref()].map(ToOwned::to_owned).into();
    let program = Program { argv, dir: Path::new("."), environment: &[], input: Vec::new(), confinement: None };
    match bounded::run(&program, LIMITS).ok()? {
        End::Exited { success: true, output, .. } => serde_json::from_str(output.lines().last()?).ok(),
        End::Exited { .. } | End::TimedOut => None,
    }
}

/// Where numpy is installed.
fn tree(package: &Package, target: &Path, python: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf, ToolchainError> {
    let file = wheels::install(package, &super::absolute(target.join("python")), &[python.to_owned()], progress)?;
    Ok(file.ancestors().nth(2).unwrap_or(&file).to_owned())
}

/// Sums depend on their order, and so on the number of threads; hashes on a seed.
fn environment(tree: Option<&Path>) -> BTreeMap<String, String> {
    let fixed = [
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONUNBUFFERED", "1"),
        ("OPENBLAS_NUM_THREADS", "1"),
        ("OMP_NUM_THREADS", "1"),
        ("MKL_NUM_THREADS", "1"),
    ];
    let mut environment: BTreeMap<String, String> =
        fixed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    if let Some(tree) = tree {
        environment.insert("PYTHONPATH".to_owned(), tree.display().to_string());
    }
    environment
}

fn is_recent(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST_NUMPY
}

/// The installer's words are for the compiler; these are for `what`, which a person can have by doing `own`.
pub(super) fn deferral(error: ToolchainError, what: &str, own: &str) -> Deferral {
    match error {
        ToolchainError::Platform { os, arch } => Deferral::new(format!("{what} is not pinned for {os} on {arch}"), own),
        ToolchainError::PipMissing { python } => Deferral::new(
            format!("`{}` has no pip to install {what} with", python.display()),
            format!("install pip (python3 -m ensurepip, or apt-get install python3-pip), or {own}"),
        ),
        ToolchainError::PythonMissing { tried } => Deferral::new(
            format!("there is no Python to install {what} for (tried {tried})"),
            "install python3 with pip",
        ),
        ToolchainError::Network { detail } => Deferral::new(
            format!("failed to download {what}: the package registry is out of reach ({detail})"),
            format!("connect to a network or set PIP_INDEX_URL to a mirror, or {own}"),
        ),
        ToolchainError::HashMismatch { package, expected, got } => Deferral::new(
            format!("refused to install {what}: {package} has sha256 {got}, pinned is {expected}"),
            "empty pip's cache (python3 -m pip cache purge), check PIP_INDEX_URL, and try again",
        ),
        ToolchainError::NoWheel { detail } => Deferral::new(
            format!("failed to install {what}: {detail}"),
            format!("update pip (python3 -m pip install --upgrade pip), or {own}"),
        ),
        ToolchainError::Pip { detail, log } => {
            Deferral::new(format!("failed to install {what}: pip says: {detail}"), format!("see `{}`", log.display()))
        }
        ToolchainError::TimedOut { seconds, log } => Deferral::new(
            format!("failed to install {what}: pip was still running after {seconds} s and was stopped"),
            format!("try again on a faster network, or see `{}`", log.display()),
        ),
        error @ (ToolchainError::Unusable { .. } | ToolchainError::Io { .. }) => Deferral::because(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_enough_is_by_numbers() {
        for (version, recent) in [("1.24.0", true), ("1.9.9", false), ("2.0.0rc1", true), ("10.1", true), ("", false)] {
            assert_eq!(is_recent(version), recent, "{version}");
        }
    }

    #[test]
    fn a_numpy_is_pinned_for_each_python_and_no_other() {
        let pinned: Vec<usize> = (0..30).filter(|minor| wheels::numpy(*minor).is_some()).collect();
        assert_eq!(pinned, [10, 11, 12, 13]);
        let mut hashes: Vec<&str> = wheels::NUMPY_PINS.iter().map(|pin| pin.2).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), pinned.len());
    }
}
