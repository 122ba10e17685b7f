//! References that want more than to compute: each is refused by what it tried, and what it was after is as it was.
//! Where the machine cannot enforce a part, its cases are left out, with a line that says so.

use std::path::Path;

use confine::{Enforced, Part};
use serde_json::json;

use super::{Gate, problem};

/// What a process that the runner confined found here.
pub fn enforced() -> Enforced {
    let own = env!("CARGO_BIN_EXE_sdpa-runner");
    let asked = r#"{"read": [], "write": []}"#;
    let output = std::process::Command::new(own).args(["__confined", asked]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the runner says of a reference with this body, `HERE` being a folder of somebody else.
fn said(body: &str, here: &Path) -> Option<String> {
    let operator = json!({
        "axes": ["n"],
        "reference": "r.py",
        "inputs": {"x": {"shape": ["n"], "dtype": "f32"}},
        "outputs": {"y": {"shape": ["n"], "dtype": "f32"}},
    });
    let gate = Gate::with_python(operator)?;
    let body = body.replace("HERE", &here.display().to_string());
    gate.write(
        "r.py",
        &format!("import os, socket, subprocess, tempfile\n\ndef reference(x):\n    {body}\n    return x\n"),
    );
    let problem = problem("small", &[("n", 4)], 0);
    gate.leave("control", &problem, &[0; 16]);
    Some(gate.errors(&["control"], &[problem]).map(|_| "nothing".to_owned()).unwrap_or_else(|why| why))
}

#[track_caller]
fn assert_refused(part: &Part, cases: &[(&str, &str)]) {
    let room = tempfile::tempdir().unwrap();
    std::fs::write(room.path().join("secret"), "of somebody else").unwrap();
    if let Part::Not(why) = part {
        eprintln!("left out: not enforced here: {why}");
        return;
    }
    for (body, words) in cases {
        let Some(said) = said(body, room.path()) else { return };
        assert!(said.starts_with("reference `r.py`") && said.contains(words), "{body}: {said}");
        let left: Vec<_> = std::fs::read_dir(room.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["secret"], "{body}");
        assert_eq!(std::fs::read_to_string(room.path().join("secret")).unwrap(), "of somebody else", "{body}");
    }
}

#[test]
fn files_of_others_are_neither_read_nor_written() {
    assert_refused(
        &enforced().files,
        &[
            ("open('HERE/left', 'w')", "Permission denied: 'HERE/left'".split('\'').next().unwrap()),
            ("open('HERE/secret', 'a').write('and more')", "PermissionError"),
            ("open('HERE/secret').read()", "PermissionError"),
            ("os.remove('HERE/secret')", "PermissionError"),
            ("os.symlink('/etc/passwd', 'HERE/link')", "PermissionError"),
            ("os.listdir('HERE')", "PermissionError"),
            ("open(os.path.dirname(__file__) + '/r.py', 'a')", "PermissionError"),
            ("subprocess.run(['sh', '-c', 'echo x > HERE/left'], check=True)", "CalledProcessError"),
        ],
    );
}

#[test]
fn there_is_no_network_and_nobody_outside_is_signalled() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("socket.create_connection(('127.0.0.1', {port}), 5)");
    let outside = format!("os.kill({}, 0)", std::process::id());
    let enforced = enforced();
    assert_refused(&enforced.network, &[(&connect, "Error"), ("socket.getaddrinfo('example.org', 80)", "gaierror")]);
    assert_refused(&enforced.files, &[(&outside, "PermissionError")]);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn processes_are_counted() {
    let many = "children = [subprocess.Popen(['sleep', '60']) for _ in range(2000)]";
    assert_refused(&enforced().processes, &[(many, "BlockingIOError")]);
}

#[test]
fn a_script_has_a_folder_for_temporary_files_and_its_own_to_read() {
    let room = tempfile::tempdir().unwrap();
    let body = "tempfile.TemporaryFile().write(b'x'); open(os.path.dirname(__file__) + '/r.py').read()";
    if let Some(said) = said(body, room.path()) {
        assert_eq!(said, "nothing");
    }
}
