//! `dist`: a folder with everything that `validate` needs on a machine without Rust: both binaries and what they read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::console::Step;
use crate::environment::SourceState;
use crate::files::write_whole;
use crate::layout::{DIST_FILE, Layout};

/// Folders that travel as they are.
pub const FOLDERS: [&str; 4] = ["sdpa-kernel/cuda", "kbench/suites", "kbench/peers", "examples"];

/// Files beside them.
pub const FILES: [&str; 3] = ["xtask", "sdpa-runner", DIST_FILE];

/// Builds the folder anew and returns where it is.
pub fn dist(layout: &Layout, out: Option<&Path>) -> Result<PathBuf> {
    if layout.is_dist() {
        bail!("this is a dist folder already; `dist` runs in a checkout");
    }
    let step = Step::begin("dist", 0);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["build", "--quiet", "--release", "--locked", "--package", "xtask", "--package", "sdpa-runner"];
    let output = duct::cmd(cargo, arguments).dir(&layout.root).stderr_capture().unchecked().run()?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("failed to build the release binaries: cargo's own words are above");
    }
    let target = out.map_or_else(|| layout.target.join("dist"), Path::to_owned);
    if target.exists() && !target.join(DIST_FILE).is_file() {
        bail!("`{}` is there and is no dist folder; choose another with --out", target.display());
    }
    let _ = std::fs::remove_dir_all(&target);
    for folder in FOLDERS {
        copy_tree(&layout.root.join(folder), &target.join(folder))?;
    }
    for binary in ["xtask", "sdpa-runner"] {
        let source = layout.target.join("release").join(binary);
        std::fs::copy(&source, target.join(binary))
            .with_context(|| format!("failed to copy `{}`", source.display()))?;
    }
    let state = SourceState::of(layout);
    write_whole(&target.join(DIST_FILE), serde_json::to_string_pretty(&state)?.as_bytes())?;
    step.end(&format!("`{}`; on the other machine: ./xtask validate --stage5", target.display()));
    Ok(target)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("failed to create `{}`", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("failed to read `{}`", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("an entry has a name")?;
        if path.is_dir() {
            if name != "__pycache__" {
                copy_tree(&path, &to.join(name))?;
            }
        } else {
            std::fs::copy(&path, to.join(name)).with_context(|| format!("failed to copy `{}`", path.display()))?;
        }
    }
    Ok(())
}
