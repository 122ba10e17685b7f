//! A Python with PyTorch, for host code of a gate file: the one that is there. It is not installed: which build of it fits is
//! the driver's and the machine's affair. Leaves to others: what runs in it, and whether it sees a device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kbench::deferral::Deferral;
use serde::Deserialize;

use super::Search;
use crate::bounded::{self, End, Limits, Program};

/// Ample for a Python that starts on a busy machine.
const LIMITS: Limits = Limits { time: Duration::from_secs(60), memory_bytes: 16 << 30 };
/// What is asked of a Python: where it is, whether it has torch, and what it and its packages are read from.
const QUESTION: &str = r#"
import importlib.util, json, os, site, sys
paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
print(json.dumps({"executable": sys.executable, "torch": importlib.util.find_spec("torch") is not None,
                  "base": site.getuserbase(),
                  "paths": [path for path in dict.fromkeys(paths) if path and path != "/" and os.path.exists(path)]}))
"#;

/// A Python that has PyTorch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torch {
    /// The interpreter.
    pub python: String,
    /// Variables to set: packages of the user are found although its home is elsewhere.
    pub environment: BTreeMap<String, String>,
    /// What it is read from.
    pub paths: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Answer {
    executable: String,
    torch: bool,
    base: String,
    paths: Vec<PathBuf>,
}

/// The first of the Pythons that has it.
pub fn find(target: &Path) -> Result<Torch, Deferral> {
    find_among(&Search::from_env(target).pythons)
}

/// The same with the Pythons to try.
fn find_among(pythons: &[PathBuf]) -> Result<Torch, Deferral> {
    let found = pythons.iter().filter_map(|python| ask(python)).find(|answer| answer.torch);
    let Some(Answer { executable, base, paths, .. }) = found else {
        let tried: Vec<_> = pythons.iter().map(|python| python.to_string_lossy()).collect();
        let why = format!("host code takes torch tensors, and torch is not installed (tried {})", tried.join(", "));
        return Err(Deferral::new(why, "pip install torch"));
    };
    let environment = BTreeMap::from([("PYTHONUSERBASE".to_owned(), base)]);
    Ok(Torch { python: executable, environment, paths })
}

fn ask(python: &Path) -> Option<Answer> {
    let argv = [python.as_os_str(), "-c".as_ref(), QUESTION.as_ref()].map(ToOwned::to_owned).into();
    let program = Program { argv, dir: Path::new("."), environment: &[], input: Vec::new(), confinement: None };
    match bounded::run(&program, LIMITS).ok()? {
        End::Exited { success: true, output, .. } => serde_json::from_str(output.lines().last()?).ok(),
        End::Exited { .. } | End::TimedOut => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_none_one_line_says_so_and_what_to_do() {
        let none = find_among(&["false".into(), "no-such-python".into()]).unwrap_err();
        assert!(none.why.contains("torch is not installed (tried false, no-such-python)"), "{}", none.why);
        assert_eq!(none.remedy, "pip install torch");
    }

    #[test]
    fn a_python_that_has_it_says_what_it_is_read_from() {
        let room = tempfile::tempdir().unwrap();
        std::fs::create_dir(room.path().join("torch")).unwrap();
        std::fs::write(room.path().join("torch/__init__.py"), "").unwrap();
        let script = room.path().join("python");
        let text = format!("#!/bin/sh\nPYTHONPATH='{}' exec python3 \"$@\"\n", room.path().display());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let torch = find_among(&[script]).unwrap();
        assert!(torch.paths.iter().any(|path| path == room.path()), "{torch:?}");
        assert!(torch.environment.contains_key("PYTHONUSERBASE"), "{torch:?}");
    }
}
