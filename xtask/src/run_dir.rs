//! A run directory: files that appear whole, and a manifest of hashes that is written last. A directory without a
//! manifest was interrupted and is never taken for a whole run.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kbench::decision::Decision;
use kbench::evidence::{Checks, Environment, Peers, Samples};
use kbench::format::RunFile;
use kbench::gate::Gate;
use kbench::job::Task;
use kbench::judge::Evidence;
use kbench::legacy;
use kbench::operator::Operator;
use kbench::suite::Suite;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::build::Built;
use crate::cubin::sha256_hex;
use crate::files::write_whole;

/// The file that makes a run whole.
const MANIFEST: &str = "manifest.json";
/// The file that says in which format the others are.
const FORMAT: &str = "run.json";

#[derive(Clone, Debug)]
pub struct RunDir {
    pub path: PathBuf,
}

impl RunDir {
    /// Makes a new one under `parent`: `<UTC>-<short sha>-<suite>`, with a number where that is taken.
    pub fn create(parent: &Path, short_commit: &str, suite: &str) -> Result<RunDir> {
        std::fs::create_dir_all(parent).with_context(|| cannot_write(parent))?;
        let name = format!("{}-{short_commit}-{suite}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        for number in 1.. {
            let path = parent.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let run = RunDir { path };
                    run.write_json(FORMAT, &RunFile::now())?;
                    return Ok(run);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| cannot_write(parent)),
            }
        }
        bail!("no name is free under `{}`", parent.display())
    }

    /// An existing one, whole or not, in today's format or the one before.
    pub fn open(path: &Path) -> Result<RunDir> {
        ensure!(path.join("suite.toml").is_file(), "`{}` is not a run directory: it has no suite.toml", path.display());
        let run = RunDir { path: path.to_owned() };
        run.is_old()?;
        Ok(run)
    }

    /// One that was interrupted, to go on with.
    pub fn open_unfinished(path: &Path) -> Result<RunDir> {
        let run = RunDir::open(path)?;
        ensure!(!run.is_whole(), "`{}` is whole: there is nothing to resume; see `cargo xtask report`", path.display());
        ensure!(!run.is_old()?, "`{}` was begun by an older program; start a new run", path.display());
        Ok(run)
    }

    /// Whether its files are in the format before today's.
    pub fn is_old(&self) -> Result<bool> {
        let path = self.path.join(FORMAT);
        let head = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("`{}` is not what it should be", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => RunFile::before(),
            Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", path.display())),
        };
        head.is_old().with_context(|| format!("`{}`", self.path.display()))
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Folder of the logs.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Whether its manifest was written.
    pub fn is_whole(&self) -> bool {
        self.path.join(MANIFEST).is_file()
    }

    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file);
        std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        write_whole(&path, text.as_bytes())
    }

    pub fn write_json(&self, file: &str, value: &impl Serialize) -> Result<()> {
        self.write(file, &format!("{}\n", serde_json::to_string_pretty(value)?))
    }

    pub fn read_json<T: DeserializeOwned>(&self, file: &str) -> Result<T> {
        let path = self.path.join(file);
        let text = self.text(file)?;
        serde_json::from_str(&text).with_context(|| format!("`{}` is not what it should be", path.display()))
    }

    /// The text of a file of JSON or JSON lines, in today's format.
    pub fn text(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        if !self.is_old()? {
            return Ok(text);
        }
        if file.ends_with(".jsonl") {
            return Ok(legacy::upgrade_lines(file, &text));
        }
        let value =
            serde_json::from_str(&text).with_context(|| format!("`{}` is not what it should be", path.display()))?;
        Ok(legacy::upgrade(file, value).to_string())
    }

    /// Reads JSON if the file is there.
    pub fn read_if_there<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>> {
        if self.path.join(file).is_file() { self.read_json(file).map(Some) } else { Ok(None) }
    }

    /// The suite as used.
    pub fn suite(&self) -> Result<Suite> {
        let path = self.path.join("suite.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        let suite = if self.is_old()? { legacy::suite(&text) } else { Suite::parse_recorded(&text) };
        suite.with_context(|| format!("`{}`", path.display()))
    }

    /// Measured files of an interrupted run; they are written whole, so those that are there can be used. What was
    /// deferred is tried again.
    pub fn finished_evidence(&self) -> Result<Option<(Checks, Samples, Peers)>> {
        let checks = self.finished_checks()?;
        let samples = self.read_if_there("samples.json")?.filter(|s: &Samples| s.deferred.is_none());
        let peers = self.read_if_there("peers.json")?;
        Ok(match (checks, samples, peers) {
            (Some(checks), Some(samples), Some(peers)) => Some((checks, samples, peers)),
            _ => None,
        })
    }

    /// Finished checks of an interrupted run.
    pub fn finished_checks(&self) -> Result<Option<Checks>> {
        Ok(self.read_if_there("check.json")?.filter(|c: &Checks| c.deferred.is_none()))
    }

    /// All evidence of a whole run.
    pub fn evidence(&self) -> Result<Evidence> {
        Ok(Evidence {
            builds: self.read_json("builds.json")?,
            checks: self.read_json("check.json")?,
            samples: self.read_json("samples.json")?,
            peers: self.read_json("peers.json")?,
            profile: self.read_if_there("profile.json")?,
            ceilings: self.read_if_there("ceilings.json")?,
        })
    }

    /// The recorded judgement: environment, gates, decision.
    pub fn judgement(&self) -> Result<(Environment, Vec<Gate>, Decision)> {
        Ok((self.read_json("ENV.json")?, self.read_json("gates.json")?, self.read_json("decision.json")?))
    }

    /// Copies what was built: `builds/<variant>[-<arch>]/{kernel.ptx, kernel.cubin, ptxas.txt, build.json}`.
    pub fn keep_build(&self, built: &Built, suite_arch: &str) -> Result<()> {
        let record = &built.record;
        let folder = if record.arch == suite_arch {
            record.variant.clone()
        } else {
            format!("{}-{}", record.variant, record.arch)
        };
        let mut target = self.path.join("builds").join(folder);
        // A variant of a gate file may have several builds: the first has the name, the others their keys behind it.
        if std::fs::read(target.join("kernel.ptx")).is_ok_and(|ptx| sha256_hex(&ptx) != record.ptx_sha256) {
            target.as_mut_os_string().push(format!("-{}", record.key));
        }
        std::fs::create_dir_all(&target).with_context(|| cannot_write(&target))?;
        for file in ["kernel.ptx", "kernel.cubin", "ptxas.txt"] {
            let source = built.dir.join(file);
            let bytes = std::fs::read(&source).with_context(|| format!("failed to read `{}`", source.display()))?;
            write_whole(&target.join(file), &bytes)?;
        }
        write_whole(&target.join("build.json"), serde_json::to_string_pretty(record)?.as_bytes())
    }

    /// The folder of what a gate file names, as it was used.
    pub fn operator_folder(&self) -> PathBuf {
        self.path.join("operator")
    }

    /// Copies the files that a gate file names: its scripts, and the sources that were compiled, whose hashes are known.
    pub fn keep_operator(&self, task: &Task, sources: &BTreeMap<String, String>) -> Result<()> {
        let Operator::Declared(declared) = &task.operator else { return Ok(()) };
        let scripts = [&declared.reference, &declared.check, &declared.generate];
        let names = scripts.into_iter().flatten().chain(sources.keys());
        for name in names {
            let from = task.folder.join(name);
            let bytes = std::fs::read(&from).with_context(|| format!("failed to read `{}`", from.display()))?;
            if let Some(wanted) = sources.get(name).filter(|wanted| **wanted != sha256_hex(&bytes)) {
                bail!("`{}` was changed while it was compiled (SHA-256 {wanted}); run again", from.display());
            }
            // An include from outside lies beside the others, under the name of its path.
            let kept: PathBuf = Path::new(name).components().filter(|c| matches!(c, Component::Normal(_))).collect();
            let to = self.operator_folder().join(kept);
            std::fs::create_dir_all(to.parent().context("a file has a folder")?).with_context(|| cannot_write(&to))?;
            write_whole(&to, &bytes)?;
        }
        Ok(())
    }

    /// Removes it: nothing was measured.
    pub fn discard(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.path).with_context(|| format!("failed to remove `{}`", self.path.display()))
    }

    /// Copies a file of another run under the name that it has there; in today's format, whatever that of the other is.
    pub fn keep_file(&self, other: &RunDir, name: &str) -> Result<()> {
        let (from, to) = (other.path.join(name), self.path.join(name));
        let bytes = if name.ends_with(".json") || name.ends_with(".jsonl") {
            other.text(name)?.into_bytes()
        } else {
            std::fs::read(&from).with_context(|| format!("failed to read `{}`", from.display()))?
        };
        std::fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        write_whole(&to, &bytes)
    }

    /// Hashes every file and writes the manifest: from now on the run is whole.
    pub fn seal(&self) -> Result<()> {
        self.write_json(MANIFEST, &self.hashes()?)
    }

    fn hashes(&self) -> Result<BTreeMap<String, String>> {
        let mut hashes = BTreeMap::new();
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                let name = path.strip_prefix(&self.path)?.to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if name != MANIFEST {
                    hashes.insert(name, sha256_hex(&std::fs::read(&path)?));
                }
            }
        }
        Ok(hashes)
    }

    /// Every difference between the files and the manifest, one sentence each.
    pub fn differences(&self) -> Result<Vec<String>> {
        ensure!(
            self.is_whole(),
            "`{}` has no manifest: the run was interrupted; continue it with --resume",
            self.path.display()
        );
        let recorded: BTreeMap<String, String> = self.read_json(MANIFEST)?;
        let found = self.hashes()?;
        let mut differences = Vec::new();
        for (file, hash) in &recorded {
            match found.get(file) {
                None => differences.push(format!("{file} is missing")),
                Some(other) if other != hash => differences.push(format!("{file} was changed")),
                Some(_) => {}
            }
        }
        let added = found.keys().filter(|file| !recorded.contains_key(*file));
        differences.extend(added.map(|file| format!("{file} was added")));
        Ok(differences)
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write to `{}`; choose another folder with --out", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_whole_only_with_its_manifest_and_every_change_is_seen() {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDir::create(parent.path(), "abc1234", "t").unwrap();
        assert!(run.name().ends_with("Z-abc1234-t"), "{}", run.name());
        run.write("a.txt", "a").unwrap();
        run.write("logs/b.txt", "b").unwrap();
        assert!(!run.is_whole() && run.differences().is_err());
        run.seal().unwrap();
        assert_eq!(run.differences().unwrap(), [""; 0]);
        std::fs::write(run.path.join("a.txt"), "x").unwrap();
        std::fs::remove_file(run.path.join("logs/b.txt")).unwrap();
        std::fs::write(run.path.join("c.txt"), "c").unwrap();
        assert_eq!(run.differences().unwrap(), ["a.txt was changed", "logs/b.txt is missing", "c.txt was added"]);
    }

    #[test]
    fn a_run_of_a_newer_format_is_refused_by_both_numbers_and_an_old_one_is_not_gone_on_with() {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDir::create(parent.path(), "abc1234", "t").unwrap();
        run.write("suite.toml", "").unwrap();
        assert!(RunDir::open_unfinished(&run.path).is_ok());
        run.write(FORMAT, "{\"format\": 3}").unwrap();
        let error = format!("{:#}", RunDir::open(&run.path).unwrap_err());
        assert!(error.contains("it has format 3, and this program reads format 2") && !error.contains('\n'), "{error}");
        std::fs::remove_file(run.path.join(FORMAT)).unwrap();
        assert!(RunDir::open(&run.path).unwrap().is_old().unwrap());
        let error = RunDir::open_unfinished(&run.path).unwrap_err().to_string();
        assert!(error.contains("begun by an older program; start a new run"), "{error}");
    }

    #[test]
    fn two_runs_of_one_second_have_two_folders() {
        let parent = tempfile::tempdir().unwrap();
        let names: std::collections::BTreeSet<_> =
            (0..3).map(|_| RunDir::create(parent.path(), "abc1234", "t").unwrap().name()).collect();
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn a_file_in_the_way_is_one_clear_line() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = RunDir::create(&file, "abc1234", "t").unwrap_err().to_string();
        assert!(error.contains("--out"), "{error}");
    }
}
