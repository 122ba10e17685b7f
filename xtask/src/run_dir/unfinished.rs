//! A run while it is made: who works on it, and what was written. Two processes never work on one run, and what lies in an
//! interrupted one is taken for measured only if it is what was written. Leaves to others: what is written, and the seal.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::manifest::{self, Listing};
use crate::cubin::sha256_hex;
use crate::files::{UNFINISHED, write_whole};

/// Held by whoever works on the run, and gone when it is sealed.
pub const LOCK: &str = "run.lock";
/// SHA-256 of everything that was written, by name; gone when the run is sealed.
pub const WRITTEN: &str = "written.json";

/// Takes the run, or says who has it. The kernel gives the lock back when its process ends, however it ends, so that one
/// that was killed holds nothing.
pub fn lock(run: &Path) -> Result<File> {
    let path = run.join(LOCK);
    let cannot = || format!("cannot write to `{}`", run.display());
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).with_context(cannot)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = (&mut file).take(200).read_to_string(&mut owner);
            let owner = if owner.is_empty() { "another process" } else { owner.trim_end() };
            bail!("`{}` is being worked on by {owner}; wait until it ends, or end it", run.display());
        }
        // Some network folders have no locks; a run there is still a run.
        Err(TryLockError::Error(_)) => {}
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let owner = format!("process {} on {} since {now}\n", std::process::id(), host.trim());
    let mut write = || -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(owner.as_bytes())
    };
    write().with_context(cannot)?;
    Ok(file)
}

/// Notes that a file was written.
pub fn note(run: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let mut written = written(run);
    written.insert(name.to_owned(), sha256_hex(bytes));
    write_whole(&run.join(WRITTEN), serde_json::to_string_pretty(&written)?.as_bytes())
}

/// Whether a file is what was written under its name.
pub fn is_as_written(run: &Path, name: &str) -> bool {
    let now = manifest::inside(run, name).and_then(|path| manifest::read(&path));
    now.is_ok_and(|bytes| written(run).get(name) == Some(&sha256_hex(&bytes)))
}

fn written(run: &Path) -> BTreeMap<String, String> {
    let bytes = manifest::read(&run.join(WRITTEN)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Removes what the sealed run does not have.
pub fn clear(run: &Path) -> Result<()> {
    for name in [LOCK, WRITTEN] {
        match std::fs::remove_file(run.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove `{}`", run.join(name).display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes what a killed process left half written, and refuses to go on with what can be in no run.
pub fn sweep(run: &Path) -> Result<()> {
    let listing = Listing::of(run)?;
    for name in listing.hashes.keys().filter(|name| name.rsplit('/').next().is_some_and(|n| n.starts_with(UNFINISHED)))
    {
        std::fs::remove_file(run.join(name))
            .with_context(|| format!("failed to remove `{}`", run.join(name).display()))?;
    }
    match listing.refused.first() {
        Some(refused) => bail!("`{}` cannot be resumed: {refused}; remove it first", run.display()),
        None => Ok(()),
    }
}
