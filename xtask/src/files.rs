//! Files that appear whole, written beside their place and then renamed; and listings in a fixed order.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What the name of a file begins with that is not whole yet.
pub const UNFINISHED: &str = ".writing-";

/// Writes a file so that no reader ever sees half of it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file has a folder")?;
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("failed to write `{}`", path.display()))?;
    // Temporary files are private to their owner; evidence is for everybody.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(path, permissions).with_context(|| format!("failed to write `{}`", path.display()))
}

/// Every file under a folder, in a fixed order.
pub fn all_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(dir).with_context(|| format!("failed to read `{}`", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() { files.extend(all_files(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}
