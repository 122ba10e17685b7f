//! One wheel: what `pip install` puts where. The program goes to `bin`, what it reads to `share/kernel-gate`, the flagship's
//! Python and cubin to a package, papers to the metadata. Nothing is compiled and nothing runs when it is installed, and
//! the same contents give the same bytes. Leaves to others: collecting the contents, and the platform.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::platform::{needs, tag};
use super::{Contents, Item, LIBRARY, NOTICES, PIPELINE, PYTHON, RUNNER};
use crate::console::Step;
use crate::files::write_whole;
use crate::layout::{INSTALLED, SHARE};

/// The package's name where Python imports it, and in file names.
const PACKAGE: &str = "kernel_gate";

/// What the wheel is, in a line.
const SUMMARY: &str =
    "Decides whether a GPU kernel may be merged: builds it, checks it, measures it beside its control, and judges";

/// Writes the wheel into a folder and returns its path.
pub fn wheel(contents: &Contents, folder: &Path) -> Result<PathBuf> {
    let step = Step::begin("wheel", 0);
    let program = |name: &str| {
        let item = contents.get(name).with_context(|| format!("there is no {name}"))?;
        needs(&item.bytes).with_context(|| name.to_owned())
    };
    let platform = tag([&program(PIPELINE)?, &program(RUNNER)?, &program(LIBRARY)?])?;
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("{PACKAGE}-{version}-py3-none-{platform}.whl");
    let bytes = zipped(&files(contents, version, &platform)?)?;
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
    let path = folder.join(name);
    write_whole(&path, &bytes)?;
    step.end(&format!("{:.1} MB; elsewhere: pip install {}", bytes.len() as f64 / 1e6, path.display()));
    Ok(path)
}

/// Every file of the wheel in the order in which it is written: the record comes last.
fn files(contents: &Contents, version: &str, platform: &str) -> Result<Vec<(String, Item)>> {
    let info = format!("{PACKAGE}-{version}.dist-info");
    let mut files: BTreeMap<String, Item> = BTreeMap::new();
    for (name, item) in contents {
        files.insert(installed_at(name, version), item.clone());
    }
    let text = |text: String| Item { bytes: text.into_bytes(), executable: false };
    files.insert(format!("{info}/METADATA"), text(metadata(contents, version)?));
    let wheel = format!(
        "Wheel-Version: 1.0\nGenerator: {INSTALLED} {version}\nRoot-Is-Purelib: false\nTag: py3-none-{platform}\n"
    );
    files.insert(format!("{info}/WHEEL"), text(wheel));
    let record = format!("{info}/RECORD");
    let mut rows = String::new();
    for (path, item) in &files {
        ensure!(!path.contains([',', '"', '\n']), "`{path}` cannot stand in a wheel's record");
        rows.push_str(&format!("{path},sha256={},{}\n", base64url(&Sha256::digest(&item.bytes)), item.bytes.len()));
    }
    rows.push_str(&format!("{record},,\n"));
    let mut files: Vec<(String, Item)> = files.into_iter().collect();
    files.push((record, text(rows)));
    Ok(files)
}

/// Where a file of a dist folder lies in the wheel.
fn installed_at(name: &str, version: &str) -> String {
    let data = format!("{PACKAGE}-{version}.data");
    if name == PIPELINE {
        return format!("{data}/scripts/{INSTALLED}");
    }
    if name == NOTICES || name.starts_with("LICENSE") {
        return format!("{PACKAGE}-{version}.dist-info/licenses/{name}");
    }
    match name.strip_prefix(PYTHON).and_then(|rest| rest.strip_prefix('/')) {
        Some(file) => format!("{PACKAGE}/{file}"),
        None => format!("{data}/data/{SHARE}/{name}"),
    }
}

fn metadata(contents: &Contents, version: &str) -> Result<String> {
    let readme = contents.get("README.md").context("there is no README.md")?;
    let readme = std::str::from_utf8(&readme.bytes).context("README.md is no text")?;
    let papers = contents.keys().filter(|name| *name == NOTICES || name.starts_with("LICENSE"));
    let papers: String = papers.map(|name| format!("License-File: {name}\n")).collect();
    Ok(format!(
        "Metadata-Version: 2.4\nName: {INSTALLED}\nVersion: {version}\nSummary: {SUMMARY}\n\
         License-Expression: {}\n{papers}Requires-Python: >=3.10\nClassifier: Operating System :: POSIX :: Linux\n\
         Classifier: Environment :: GPU :: NVIDIA CUDA\nDescription-Content-Type: text/markdown\n\n{readme}",
        env!("CARGO_PKG_LICENSE")
    ))
}

/// Times and owners are left out, so that the same files are the same bytes.
fn zipped(files: &[(String, Item)]) -> Result<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, item) in files {
        let mode = if item.executable { 0o755 } else { 0o644 };
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(6))
            .last_modified_time(DateTime::DEFAULT)
            .unix_permissions(mode);
        archive.start_file(path.as_str(), options)?;
        archive.write_all(&item.bytes)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// Base 64 with the alphabet for addresses and without padding, as a wheel's record wants it.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
        let digits = (0..=chunk.len()).map(|i| char::from(DIGITS[(word >> (18 - 6 * i)) as usize & 63]));
        text.extend(digits);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_none_is_no_part_of_a_wheel() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", wheel(&contents(), folder.path()).unwrap_err());
        assert!(error.contains("xtask: it is no ELF file"), "{error}");
    }

    #[test]
    fn base64_is_that_of_the_standard_without_padding() {
        // RFC 4648, section 10; the last two differ between the alphabets.
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg"),
            (b"fooba", "Zm9vYmE"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xff], "-_8"),
        ] {
            assert_eq!(base64url(bytes), text);
        }
    }

    fn contents() -> Contents {
        let item = |text: &str, executable| Item { bytes: text.as_bytes().to_owned(), executable };
        let files = [
            ("README.md", item("# It\n", false)),
            ("LICENSE-MIT", item("MIT\n", false)),
            (NOTICES, item("others\n", false)),
            ("DIST.json", item("{}", false)),
            ("kbench/suites/s.toml", item("name = \"s\"\n", false)),
            ("python/__init__.py", item("", false)),
            (PIPELINE, item("program", true)),
            (RUNNER, item("program", true)),
        ];
        files.into_iter().map(|(name, item)| (name.to_owned(), item)).collect()
    }

    #[test]
    fn the_same_contents_are_the_same_bytes_and_every_file_is_in_the_record() {
        let files = files(&contents(), "1.2.3", "any").unwrap();
        let first = zipped(&files).unwrap();
        // Times in an archive have a grain of two seconds.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        assert_eq!(first, zipped(&super::files(&contents(), "1.2.3", "any").unwrap()).unwrap());
        let (record, before) = files.split_last().unwrap();
        assert_eq!(record.0, "kernel_gate-1.2.3.dist-info/RECORD");
        let rows = String::from_utf8(record.1.bytes.clone()).unwrap();
        assert_eq!(rows.lines().count(), files.len());
        for (path, item) in before {
            assert!(rows.contains(&format!("{path},sha256=")) && rows.contains(&format!(",{}\n", item.bytes.len())));
        }
        let names: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
        for name in [
            "kernel_gate-1.2.3.data/scripts/kernel-gate",
            "kernel_gate-1.2.3.data/data/share/kernel-gate/sdpa-runner",
            "kernel_gate-1.2.3.data/data/share/kernel-gate/kbench/suites/s.toml",
            "kernel_gate-1.2.3.dist-info/licenses/THIRD-PARTY.txt",
            "kernel_gate/__init__.py",
        ] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
    }
}
