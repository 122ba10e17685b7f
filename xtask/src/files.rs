//! Files that appear whole, written beside their place and then renamed; folders inside others; and listings in a fixed order.

use std::io::{ErrorKind, Write};
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

/// Makes folders below one that is there, and never that one: where it is away, another must not take its place.
pub fn folders_below(folder: &Path, below: &Path) -> Result<()> {
    let mut path = folder.to_owned();
    for part in below.components() {
        path.push(part);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other.with_context(|| format!("failed to create `{}`", path.display()))?,
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_away_is_not_made_anew() {
        let room = tempfile::tempdir().unwrap();
        let below = Path::new("fleets/one/logs");
        assert!(folders_below(&room.path().join("shared"), below).is_err());
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0);
        for _ in 0..2 {
            folders_below(room.path(), below).unwrap();
        }
        assert!(room.path().join(below).is_dir());
    }
}
