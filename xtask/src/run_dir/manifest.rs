//! The seal of a run: what may lie in its folder, the hash of every file there, and the root, which is one hash over all of
//! them. Whatever is no plain file of a bearable size is refused by its name, and never opened: a pipe would never end.
//! Leaves to others: what the files say.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use crate::cubin::{hex, sha256_hex};

/// The file that makes a run whole.
pub const MANIFEST: &str = "manifest.json";
/// The report that states the root. Its hash is taken without that line, or the root would have to hold itself.
pub const REPORT: &str = "REPORT.md";
/// A signature of the manifest, which comes after it.
pub const SIGNATURE: &str = "manifest.json.sig";
/// What precedes the root at the end of the report's headline.
const ROOT_LINE: &str = "  \nroot ";

/// The largest file of a run, in bytes.
const MOST_BYTES: u64 = 1 << 30;
/// The bytes of a whole run.
const MOST_BYTES_OF_ALL: u64 = 4 << 30;
/// The files of a run.
const MOST_FILES: usize = 100_000;
/// Folders in folders.
const MOST_DEPTH: usize = 16;

/// What lies in a run's folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// SHA-256 by name.
    pub hashes: BTreeMap<String, String>,
    /// What cannot be part of a run, a sentence each.
    pub refused: Vec<String>,
    /// Folders without anything in them, which a sealed run does not have.
    pub empty: Vec<PathBuf>,
    bytes: u64,
}

impl Listing {
    /// Lists a run's folder, but for the manifest and what comes after it.
    pub fn of(run: &Path) -> Result<Listing> {
        let mut listing = Listing::default();
        listing.add(run, run, 0)?;
        listing.refused.sort();
        Ok(listing)
    }

    fn add(&mut self, run: &Path, folder: &Path, depth: usize) -> Result<()> {
        let cannot = || format!("failed to read `{}`", folder.display());
        let mut entries: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder).with_context(cannot)? {
            entries.push(entry.with_context(cannot)?.path());
        }
        entries.sort();
        if entries.is_empty() && depth > 0 {
            self.empty.push(folder.to_owned());
        }
        for path in entries {
            let name = shown(run, &path);
            let meta = std::fs::symlink_metadata(&path).with_context(|| format!("failed to read `{name}`"))?;
            let kind = meta.file_type();
            if kind.is_dir() {
                if depth == MOST_DEPTH {
                    self.refused.push(format!("{name} lies too deep"));
                } else {
                    self.add(run, &path, depth + 1)?;
                }
            } else if !kind.is_file() {
                self.refused.push(format!("{name} is {}, not a file", what(kind)));
            } else if depth == 0 && (name == MANIFEST || name == SIGNATURE) {
                continue;
            } else if path.strip_prefix(run).ok().and_then(Path::to_str).is_none() {
                self.refused.push(format!("{name} has a name that is not UTF-8"));
            } else {
                self.file(&path, name, meta.len())?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: String, length: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(length);
        ensure!(self.hashes.len() < MOST_FILES, "it has more than {MOST_FILES} files, which no run has");
        if length > MOST_BYTES || self.bytes > MOST_BYTES_OF_ALL {
            self.refused.push(format!("{name} is too large for a run, with {} MiB", length >> 20));
            return Ok(());
        }
        let hash = if name == REPORT { sha256_hex(&without_root(read(path)?).0) } else { hash(path)? };
        self.hashes.insert(name, hash);
        Ok(())
    }

    /// The text of the manifest.
    pub fn manifest(&self) -> Result<String> {
        Ok(format!("{}\n", serde_json::to_string_pretty(&self.hashes)?))
    }

    /// The root: SHA-256 of the manifest's text, hex.
    pub fn root(&self) -> Result<String> {
        Ok(sha256_hex(self.manifest()?.as_bytes()))
    }
}

fn shown(run: &Path, path: &Path) -> String {
    path.strip_prefix(run).unwrap_or(path).to_string_lossy().escape_default().to_string()
}

fn what(kind: std::fs::FileType) -> &'static str {
    match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_dir() => "a folder",
        () => "a device",
    }
}

/// Opens a plain file of a bearable size. Neither a link is followed nor a pipe waited for.
fn open(path: &Path) -> Result<File> {
    let shown = path.display();
    let kind = std::fs::symlink_metadata(path).with_context(|| format!("failed to read `{shown}`"))?.file_type();
    ensure!(kind.is_file(), "`{shown}` is {}, not a file", what(kind));
    // It may have become another since.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.with_context(|| format!("failed to read `{shown}`"))?;
    let meta = file.metadata().with_context(|| format!("failed to read `{shown}`"))?;
    ensure!(meta.is_file(), "`{shown}` is {}, not a file", what(meta.file_type()));
    ensure!(meta.len() <= MOST_BYTES, "`{shown}` is too large for a run, with {} MiB", meta.len() >> 20);
    Ok(file)
}

/// The bytes of a plain file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("failed to read `{}`", path.display()))?;
    ensure!(bytes.len() as u64 <= MOST_BYTES, "`{}` grows while it is read", path.display());
    Ok(bytes)
}

fn hash(path: &Path) -> Result<String> {
    let mut file = open(path)?.take(MOST_BYTES + 1);
    let (mut hash, mut part) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part).with_context(|| format!("failed to read `{}`", path.display()))? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&part[..read]),
        }
    }
}

/// The path of a file that something in a run names: inside the run, through no link.
pub fn inside(run: &Path, name: &str) -> Result<PathBuf> {
    let mut path = run.to_owned();
    let parts: Vec<Component> = Path::new(name).components().collect();
    for (i, part) in parts.iter().enumerate() {
        let Component::Normal(part) = part else { bail!("`{name}` is no name of a file in a run") };
        path.push(part);
        let is_last = i + 1 == parts.len();
        if !is_last && std::fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
            bail!("`{}` is no folder", path.display());
        }
    }
    ensure!(!parts.is_empty(), "a file in a run has a name");
    Ok(path)
}

/// The report with its root at the end of the headline, which is its first paragraph.
pub fn with_root(report: &str, root: &str) -> String {
    let headline = report.find("\n\n").unwrap_or(report.trim_end_matches('\n').len());
    let (headline, rest) = report.split_at(headline);
    format!("{headline}{ROOT_LINE}{root}{rest}")
}

/// A report without its root, and the root that it states.
pub fn without_root(report: Vec<u8>) -> (Vec<u8>, Option<String>) {
    let found = std::str::from_utf8(&report).ok().and_then(|text| {
        let headline = &text[..text.find("\n\n").unwrap_or(text.trim_end_matches('\n').len())];
        let at = headline.rfind(ROOT_LINE)?;
        let root = &headline[at + ROOT_LINE.len()..];
        let is_root = root.len() == 64 && root.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        is_root.then(|| (format!("{}{}", &text[..at], &text[headline.len()..]).into_bytes(), root.to_owned()))
    });
    match found {
        Some((text, root)) => (text, Some(root)),
        None => (report, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_in_a_report_is_found_at_the_end_of_its_headline_and_nowhere_else() {
        let root = "0123456789abcdef".repeat(4);
        for report in ["a\nb\n\n## c\n", "a", "a\n", "\n\nrest"] {
            let sealed = with_root(report, &root);
            assert_eq!(
                without_root(sealed.into_bytes()),
                (report.as_bytes().to_vec(), Some(root.clone())),
                "{report:?}"
            );
        }
        for report in
            [format!("a\n\nb  \nroot {root}\n\nc"), format!("a  \nroot {}\n\n", &root[1..]), "root".to_owned()]
        {
            assert_eq!(without_root(report.clone().into_bytes()), (report.into_bytes(), None));
        }
    }

    #[test]
    fn what_is_no_plain_file_is_refused_by_name_and_never_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("sub")).unwrap();
        std::fs::create_dir(path("none")).unwrap();
        std::fs::write(path("sub/a"), "a").unwrap();
        std::os::unix::fs::symlink("sub/a", path("in")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path("out")).unwrap();
        std::os::unix::fs::symlink("sub", path("folder")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RUSR).unwrap();
        std::fs::File::create(path("huge")).unwrap().set_len(MOST_BYTES + 1).unwrap();
        let listing = Listing::of(dir.path()).unwrap();
        assert_eq!(listing.hashes.keys().collect::<Vec<_>>(), ["sub/a"]);
        assert_eq!(listing.empty, [path("none")]);
        assert_eq!(
            listing.refused,
            [
                "folder is a symbolic link, not a file",
                "huge is too large for a run, with 1024 MiB",
                "in is a symbolic link, not a file",
                "out is a symbolic link, not a file",
                "pipe is a pipe, not a file",
                "socket is a socket, not a file",
            ]
        );
        for name in ["in", "out", "pipe", "socket", "folder", "sub", "huge"] {
            assert!(read(&path(name)).is_err(), "{name}");
        }
        for name in ["../x", "/etc/passwd", "folder/a", "in/a", ""] {
            assert!(inside(dir.path(), name).is_err(), "{name}");
        }
        assert_eq!(read(&inside(dir.path(), "sub/a").unwrap()).unwrap(), b"a");
    }
}
