//! Triton, which makes PTX of functions in Python and needs neither torch nor a GPU for that. It is pinned like the other
//! compilers and installed when a gate file first asks for it; one that the Python has already serves where the pinned one
//! cannot be had. Leaves to others: compiling with it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kbench::deferral::Deferral;

use super::python::{Python, deferral};
use super::wheels;
use crate::bounded::{self, End, Limits, Program};

/// Ample for a Python that imports it on a busy machine.
const LIMITS: Limits = Limits { time: Duration::from_secs(120), memory_bytes: 16 << 30 };
const QUESTION: &str = "import triton; print(triton.__version__)";
const PATH: &str = "PYTHONPATH";

/// A Python that can import Triton.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Triton {
    /// The interpreter with its arguments.
    pub argv: Vec<String>,
    /// Variables to set.
    pub environment: BTreeMap<String, String>,
    /// What it is read from.
    pub paths: Vec<PathBuf>,
    /// `triton 3.9.0`.
    pub version: String,
}

/// Finds the pinned Triton, installs it, or takes the one that is there.
pub fn find_or_install(target: &Path, python: &Python, progress: &dyn Fn(&str)) -> Result<Triton, Deferral> {
    let minor = python.version.split('.').nth(1).and_then(|minor| minor.parse().ok());
    let pinned = wheels::triton(minor.unwrap_or_default());
    let Some(package) = pinned else {
        let why = format!("Triton is pinned for Python 3.11 to 3.14, and this is {}", python.version);
        return there(python).ok_or_else(|| Deferral::new(why, "install one of these, or Triton for it"));
    };
    let pythons = [python.argv[0].clone().into()];
    match wheels::install(&package, &super::absolute(target.join("triton")), &pythons, progress) {
        Ok(file) => {
            let tree = file.ancestors().nth(2).unwrap_or(&file);
            Ok(with_path(python, Some(tree), format!("triton {}", wheels::TRITON_PINS[0].1)))
        }
        Err(error) => {
            let found = there(python).ok_or_else(|| deferral(error, "Triton", "install it for this Python"))?;
            progress(&format!("warning: the pinned Triton cannot be had; taking {}, which is there", found.version));
            Ok(found)
        }
    }
}

/// The one that the Python has.
fn there(python: &Python) -> Option<Triton> {
    let environment: Vec<(String, String)> = python.environment.clone().into_iter().collect();
    let argv =
        python.argv.iter().map(OsStr::new).chain(["-c", QUESTION].map(OsStr::new)).map(OsStr::to_owned).collect();
    let program =
        Program { argv, dir: Path::new("."), environment: &environment, input: Vec::new(), confinement: None };
    match bounded::run(&program, LIMITS).ok()? {
        End::Exited { success: true, output, .. } => {
            Some(with_path(python, None, format!("triton {}", output.lines().last()?.trim())))
        }
        End::Exited { .. } | End::TimedOut => None,
    }
}

fn with_path(python: &Python, tree: Option<&Path>, version: String) -> Triton {
    let mut environment = python.environment.clone();
    if let Some(tree) = tree {
        let path = environment.entry(PATH.to_owned()).or_default();
        *path = if path.is_empty() { tree.display().to_string() } else { format!("{path}:{}", tree.display()) };
    }
    // What the version of the day does where nothing is said, for whoever sets another default.
    environment.insert("TRITON_DEFAULT_FP_FUSION".to_owned(), "1".to_owned());
    let paths = python.paths.iter().cloned().chain(tree.map(Path::to_owned)).collect();
    Triton { argv: python.argv.clone(), environment, paths, version }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_none_one_line_says_why_and_what_to_do() {
        let target = tempfile::tempdir().unwrap();
        let of = |version: &str| {
            let python = Python {
                argv: vec!["false".to_owned()],
                environment: BTreeMap::new(),
                paths: Vec::new(),
                version: version.to_owned(),
                numpy: String::new(),
                pinned: true,
            };
            find_or_install(target.path(), &python, &|_| ()).unwrap_err()
        };
        let old = of("3.9.1");
        assert_eq!(old.why, "Triton is pinned for Python 3.11 to 3.14, and this is 3.9.1");
        let broken = of("3.12.0");
        assert!(
            broken.why.starts_with("failed to install Triton: ") && broken.why.lines().count() == 1,
            "{}",
            broken.why
        );
        assert!(!broken.remedy.is_empty());
    }

    #[test]
    fn a_tree_of_its_own_goes_behind_what_the_python_has() {
        let environment = BTreeMap::from([(PATH.to_owned(), "/numpy".to_owned())]);
        let python = Python {
            argv: vec!["python3".to_owned()],
            environment,
            paths: Vec::new(),
            version: "3.12.0".to_owned(),
            numpy: String::new(),
            pinned: true,
        };
        let triton = with_path(&python, Some(Path::new("/triton")), "triton 3.9.0".to_owned());
        assert_eq!(triton.environment[PATH], "/numpy:/triton");
        assert_eq!(with_path(&python, None, String::new()).environment[PATH], "/numpy");
    }
}
