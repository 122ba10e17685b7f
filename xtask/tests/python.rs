//! Finding a Python with numpy, with stand-ins for Pythons; and the real one, where the machine has one and a network.

use std::path::{Path, PathBuf};
use std::process::Command;

use kbench::deferral::Deferral;
use xtask::layout::Layout;
use xtask::toolchain::NUMPY_PINS;
use xtask::toolchain::python::{Python, find_or_install, find_or_install_for};

/// A Python that says which it is, and whose pip says something and fails. A link to a committed script: one that was just
/// written can be busy for a moment when another test thread forks.
fn stand_in(dir: &Path, version: &str, numpy: &str, pip: &str) -> PathBuf {
    let answer = format!(r#"{{"executable": "/it", "version": [{version}], "numpy": {numpy}, "paths": ["/it"]}}"#);
    std::fs::write(dir.join("answer"), answer).unwrap();
    std::fs::write(dir.join("says"), pip).unwrap();
    let path = dir.join("python3");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/toolchain/versioned-python");
    std::os::unix::fs::symlink(script, &path).unwrap();
    path
}

fn found(version: &str, numpy: &str, pip: &str) -> Result<Python, Deferral> {
    let dir = tempfile::tempdir().unwrap();
    let python = stand_in(dir.path(), version, numpy, pip);
    find_or_install_for(&[dir.path().join("none"), python], &dir.path().join("target"), &|_| ())
}

#[test]
fn what_is_missing_is_a_reason_with_a_remedy() {
    let network = "WARNING: connection broken by X: Failed to establish a new connection";
    let table = [
        (found("3, 11, 7", "null", "/it: No module named pip"), "has no pip to install numpy with", "install pip"),
        (found("3, 11, 7", "null", network), "the package registry is out of reach", "PIP_INDEX_URL"),
        (found("3, 11, 7", "\"1.20.3\"", network), "out of reach", "install numpy 1.24 or newer"),
        (found("3, 9, 1", "null", ""), "pinned for Python 3.10 to 3.13", "install one of these"),
        (found("3, 11, 7", "null", "ERROR: No matching distribution found for numpy"), "No matching", "update pip"),
    ];
    for (found, why, remedy) in table {
        let deferral = found.unwrap_err();
        assert!(deferral.why.contains(why) && deferral.remedy.contains(remedy), "{deferral}");
        assert_eq!(deferral.to_string().lines().count(), 1);
    }
    let nothing = find_or_install_for(&[PathBuf::from("/none/python3")], Path::new("/none"), &|_| ()).unwrap_err();
    assert_eq!(nothing.to_string(), "there is no Python 3 (tried /none/python3); install python3 with pip");
}

#[test]
fn a_numpy_that_is_there_serves_where_the_pinned_one_cannot_be_had() {
    for version in ["3, 11, 7", "3, 14, 0"] {
        let python = found(version, "\"1.26.4\"", "No module named pip").unwrap();
        assert_eq!((python.numpy.as_str(), python.pinned), ("1.26.4", false));
        assert_eq!((&python.argv[..], &python.paths[..]), (&["/it".to_owned()][..], &[PathBuf::from("/it")][..]));
        assert!(!python.environment.contains_key("PYTHONPATH"));
    }
}

#[test]
fn the_pinned_numpy_is_preferred_and_runs() {
    let layout = Layout::find().unwrap();
    let python = match find_or_install(&layout.target, &|line| eprintln!("{line}")) {
        Ok(python) => python,
        // No Python, or no network to install with: what is said then has tests of its own.
        Err(deferral) => return eprintln!("{deferral}"),
    };
    let script = "import numpy; print(numpy.__version__, float(numpy.ones(4) @ numpy.ones(4)))";
    let output = Command::new(&python.argv[0])
        .args(&python.argv[1..])
        .args(["-c", script])
        .envs(&python.environment)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{} 4.0\n", python.numpy));
    assert!(!python.pinned || python.numpy == NUMPY_PINS[0].1);
    assert_eq!(find_or_install(&layout.target, &|_| ()), Ok(python));
}
