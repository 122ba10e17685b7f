//! Folders for work that is thrown away, and what killed processes left of theirs: a process that is killed removes nothing,
//! so the next one does it for it. Leaves to others: what lies in them.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The file that whoever works in a folder holds; the kernel gives it back when its process ends, however it ends.
const OWNER: &str = "owner.lock";
/// What nobody holds, because it is held by nobody while it is used, is dead when it is as old as this: no compilation may
/// take as long.
const DEAD: Duration = Duration::from_secs(3600);

/// A folder that is gone with its owner.
pub struct Scratch {
    dir: TempDir,
    _owner: File,
}

impl Scratch {
    /// Makes one, after those of the same kind that killed processes left behind are removed.
    pub fn new(parent: &Path, prefix: &str) -> Result<Scratch> {
        let cannot = || format!("cannot write to `{}`", parent.display());
        std::fs::create_dir_all(parent).with_context(cannot)?;
        sweep(parent, prefix);
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent).with_context(cannot)?;
        let owner = File::create(dir.path().join(OWNER)).with_context(cannot)?;
        // A folder without locks keeps what killed processes leave in it until it is old.
        let _ = owner.try_lock();
        Ok(Scratch { dir, _owner: owner })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes what killed processes left: folders whose owner is gone, and folders and files without one that are old. Whatever
/// cannot be removed is left to whoever can.
pub fn sweep(parent: &Path, prefix: &str) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let is_dead = match File::open(path.join(OWNER)) {
            Ok(owner) => owner.try_lock().is_ok(),
            Err(_) => {
                entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age > DEAD))
            }
        };
        if is_dead {
            let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_removed_and_what_a_living_one_has_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::new(parent.path(), "work-").unwrap();
        for (name, owner) in [("work-dead", true), ("work-new", false), ("work-old", false), ("other-dead", true)] {
            std::fs::create_dir(parent.path().join(name)).unwrap();
            if owner {
                std::fs::write(parent.path().join(name).join(OWNER), "").unwrap();
            }
        }
        let long_ago = std::time::SystemTime::now() - 2 * DEAD;
        File::open(parent.path().join("work-old")).unwrap().set_modified(long_ago).unwrap();
        let second = Scratch::new(parent.path(), "work-").unwrap();
        let there = |name: &str| parent.path().join(name).exists();
        assert!(living.path().exists() && second.path().exists() && there("work-new") && there("other-dead"));
        assert!(!there("work-dead") && !there("work-old"));
        drop(living);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 3);
    }
}
