//! Copies what jobs need into the shared folder, once: a folder there is named by the hash of its content, and appears whole.
//! Leaves to others: what is packed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cubin::sha256_hex;
use crate::files::{all_files, folders_below};

/// Folders that work leaves behind; they are no part of what a gate file needs.
const LEFT_BEHIND: [&str; 4] = [".git", "target", "__pycache__", "node_modules"];
/// What may lie beside a gate file, in bytes.
const MOST_BYTES: u64 = 1 << 30;

/// What was packed.
pub struct Packed {
    /// The folder's name: its key.
    pub key: String,
    /// SHA-256 by path.
    pub files: BTreeMap<String, String>,
}

/// The files of the folder of a gate file, relative to it.
pub fn beside(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut bytes = 0;
    let mut left = vec![folder.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(dir) = left.pop() {
        // Links may lead back to where they are.
        if !seen.insert(dir.canonicalize().with_context(|| format!("failed to read `{}`", dir.display()))?) {
            continue;
        }
        for entry in std::fs::read_dir(&dir).with_context(|| format!("failed to read `{}`", dir.display()))? {
            let path = entry?.path();
            let is_left_behind = path.file_name().is_some_and(|name| LEFT_BEHIND.iter().any(|other| name == *other));
            // Runs and fleets have files of thousands of names, and a fleet's shared folder may lie right here.
            if is_left_behind || path.join("run.json").is_file() || path.join("fleets").is_dir() {
                continue;
            }
            if path.is_dir() {
                left.push(path);
            } else {
                bytes += path.metadata().with_context(|| format!("failed to read `{}`", path.display()))?.len();
                files.push(path.strip_prefix(folder)?.to_owned());
            }
        }
        ensure!(
            bytes <= MOST_BYTES,
            "more than 1 GiB lies beside the gate file in `{}`; put the gate file into a folder of its own",
            folder.display()
        );
    }
    files.sort();
    Ok(files)
}

/// Copies files of a folder to `shared/<what>/<key>`, unless they are there. Safe to do twice, and at the same time.
pub fn pack(from: &Path, files: &[PathBuf], shared: &Path, what: &str) -> Result<Packed> {
    let to = shared.join(what);
    let mut hashes = BTreeMap::new();
    for file in files {
        let path = from.join(file);
        let bytes = std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        hashes.insert(file.to_string_lossy().into_owned(), sha256_hex(&bytes));
    }
    let listing: String = hashes.iter().map(|(name, hash)| format!("{hash} {name}\n")).collect();
    let key = sha256_hex(listing.as_bytes())[..16].to_owned();
    let target = to.join(&key);
    if !target.is_dir() {
        folders_below(shared, Path::new(what))?;
        let room = tempfile::Builder::new().prefix(".packing-").tempdir_in(&to);
        let room = room.with_context(|| format!("failed to write to `{}`", to.display()))?;
        for file in files {
            folders_below(room.path(), file.parent().context("a file has a folder")?)?;
            let (from, to) = (from.join(file), room.path().join(file));
            std::fs::copy(&from, &to)
                .with_context(|| format!("failed to copy `{}` to `{}`", from.display(), to.display()))?;
        }
        // Temporary folders are private to their owner; a job may run as somebody of the same group.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(room.path(), permissions)?;
        match std::fs::rename(room.path(), &target) {
            Ok(()) => drop(room.keep()),
            // Somebody else packed the same.
            Err(_) if target.is_dir() => {}
            Err(error) => return Err(error).with_context(|| format!("failed to create `{}`", target.display())),
        }
    }
    // A name is only worth something while what lies under it is what it names.
    for (name, hash) in &hashes {
        let path = target.join(name);
        let same = std::fs::read(&path).is_ok_and(|bytes| sha256_hex(&bytes) == *hash);
        ensure!(same, "`{}` is not what was packed; remove `{}` and run again", path.display(), target.display());
    }
    Ok(Packed { key, files: hashes })
}

/// Every file of some folders under a root, relative to it; a folder that is not there has none.
pub fn under(root: &Path, folders: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in folders.iter().map(|folder| root.join(folder)).filter(|folder| folder.is_dir()) {
        let relative = all_files(&folder)?.into_iter().map(|file| Ok(file.strip_prefix(root)?.to_owned()));
        files.extend(relative.collect::<Result<Vec<_>>>()?);
    }
    files.retain(|file| !file.components().any(|part| part.as_os_str() == "__pycache__"));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_named_by_content_and_packed_once() {
        let room = tempfile::tempdir().unwrap();
        let (from, to) = (room.path().join("from"), room.path().join("gates"));
        let pack = |files: &[PathBuf]| pack(&from, files, room.path(), "gates");
        std::fs::create_dir_all(from.join("sub/__pycache__")).unwrap();
        std::fs::create_dir_all(from.join("shared/fleets")).unwrap();
        for file in ["gate.toml", "sub/k.cu", "sub/__pycache__/x.pyc", "shared/fleets/x"] {
            std::fs::write(from.join(file), file).unwrap();
        }
        let files = beside(&from).unwrap();
        assert_eq!(files, ["gate.toml", "sub/k.cu"].map(PathBuf::from));
        let first = pack(&files).unwrap();
        assert_eq!(std::fs::read_to_string(to.join(&first.key).join("sub/k.cu")).unwrap(), "sub/k.cu");
        assert_eq!(pack(&files).unwrap().key, first.key);
        std::fs::write(from.join("sub/k.cu"), "other").unwrap();
        assert_ne!(pack(&files).unwrap().key, first.key);
        let entries: Vec<_> = std::fs::read_dir(&to).unwrap().collect();
        assert_eq!(entries.len(), 2, "nothing else is left: {entries:?}");
        std::fs::write(to.join(&first.key).join("gate.toml"), "forged").unwrap();
        std::fs::write(from.join("sub/k.cu"), "sub/k.cu").unwrap();
        let error = pack(&files).err().unwrap().to_string();
        assert!(error.contains("is not what was packed"), "{error}");
    }
}
