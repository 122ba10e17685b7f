//! `cargo xtask` begins here. An alias of cargo builds one package and what it needs; the pipeline and the runner need
//! each other only as programs, so that the second would wait until the first is there, with one processor idle. This
//! asks for both at once, and becomes the program.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Cargo's exit status where something does not compile.
const CARGO_FAILED: u8 = 101;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let Ok(own) = std::env::current_exe() else {
        eprintln!("error: this program's own path is unknown: /proc is not there");
        return ExitCode::from(2);
    };
    let profile = own.parent().unwrap_or(root);
    let program = profile.join("xtask");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(root).args([
        "build",
        "--locked",
        "--package",
        "xtask",
        "--package",
        "sdpa-runner",
        "--target-dir",
    ]);
    build.arg(profile.parent().unwrap_or(profile));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    // The first time takes minutes and shows what it does; later it is of interest only where it fails.
    if program.exists() {
        build.arg("--quiet");
    }
    match build.status() {
        Ok(status) if status.success() => {}
        Ok(_) => return ExitCode::from(CARGO_FAILED),
        Err(error) => {
            eprintln!("error: cargo did not start: {error}");
            return ExitCode::from(2);
        }
    }
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    eprintln!("error: `{}` did not start: {error}", program.display());
    ExitCode::from(2)
}
