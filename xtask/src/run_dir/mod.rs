//! A run directory: files that appear whole, and a manifest of hashes that is written last. A directory without a
//! manifest was interrupted and is never taken for a whole run.

mod manifest;
mod unfinished;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use kbench::decision::Decision;
use kbench::evidence::{BuildRecord, Checks, Environment, Peers, Samples};
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
use crate::files::{folders_below, write_whole};
use crate::layout::program;
use manifest::Listing;
pub use manifest::{MANIFEST, REPORT, SIGNATURE};

/// The file that says in which format the others are, and what the run is called.
pub const FORMAT: &str = "run.json";

#[derive(Clone, Debug)]
pub struct RunDir {
    pub path: PathBuf,
    /// Held while it is made.
    lock: Option<Arc<File>>,
    /// Folders that were made for it to lie in, innermost first.
    made: Vec<PathBuf>,
}

/// What was looked for that a GPU hides.
pub const MEMORY: &str = "memory.json";

impl RunDir {
    /// Whatever is there.
    pub fn at(path: PathBuf) -> RunDir {
        RunDir { path, lock: None, made: Vec::new() }
    }

    /// Makes a new one under `parent`: `<UTC>-<short sha>-<suite>`, with a number where that is taken.
    pub fn create(parent: &Path, short_commit: &str, suite: &str) -> Result<RunDir> {
        let missing = parent.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        std::fs::create_dir_all(parent).with_context(|| cannot_write(parent))?;
        let name = format!("{}-{short_commit}-{suite}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        for number in 1.. {
            let path = parent.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let mut run = RunDir::at(path);
                    run.made = made;
                    run.lock = Some(Arc::new(unfinished::lock(&run.path)?));
                    run.write_json(FORMAT, &RunFile::of(&run.folder_name()))?;
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
        let run = RunDir::at(path.to_owned());
        run.is_old()?;
        Ok(run)
    }

    /// One that is whole and as it was sealed: what it says may be shown to somebody.
    pub fn open_sealed(path: &Path) -> Result<RunDir> {
        let run = RunDir::open(path)?;
        run.is_as_sealed()?;
        Ok(run)
    }

    /// One that was interrupted, to go on with; nobody else does meanwhile.
    pub fn open_unfinished(path: &Path) -> Result<RunDir> {
        let whole = || {
            let report = format!("{} report", program());
            format!("`{}` is whole: there is nothing to resume; see `{report}`", path.display())
        };
        let mut run = RunDir::open(path)?;
        ensure!(!run.is_whole(), whole());
        ensure!(!run.is_old()?, "`{}` was begun by an older program; start a new run", path.display());
        run.lock = Some(Arc::new(unfinished::lock(path)?));
        // Whoever had it may have sealed it just now, and has removed the file that was locked.
        if run.is_whole() {
            unfinished::clear(path)?;
            bail!(whole());
        }
        unfinished::sweep(path)?;
        Ok(run)
    }

    /// Whether its files are in the format before today's.
    pub fn is_old(&self) -> Result<bool> {
        self.head()?.is_old().with_context(|| format!("`{}`", self.path.display()))
    }

    /// What the run says of itself.
    pub fn head(&self) -> Result<RunFile> {
        let path = self.path.join(FORMAT);
        if !self.has(FORMAT) {
            return Ok(RunFile::before());
        }
        let text = self.bytes(FORMAT)?;
        serde_json::from_slice(&text).with_context(|| format!("`{}` is not what it should be", path.display()))
    }

    /// What it was called when it began, wherever it lies now.
    pub fn name(&self) -> String {
        let named = self.head().map(|head| head.name).unwrap_or_default();
        if named.is_empty() { self.folder_name() } else { named }
    }

    fn folder_name(&self) -> String {
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

    /// Whether something lies there under this name.
    pub fn has(&self, file: &str) -> bool {
        self.path.join(file).symlink_metadata().is_ok()
    }

    /// The bytes of a file in it.
    pub fn bytes(&self, file: &str) -> Result<Vec<u8>> {
        manifest::read(&manifest::inside(&self.path, file)?)
    }

    /// The text of a file in it as it lies there.
    pub fn raw_text(&self, file: &str) -> Result<String> {
        String::from_utf8(self.bytes(file)?).with_context(|| format!("`{}` is no text", self.path.join(file).display()))
    }

    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file);
        self.folder_of(&path)?;
        write_whole(&path, text.as_bytes())?;
        match self.lock {
            Some(_) => unfinished::note(&self.path, file, text.as_bytes()),
            None => Ok(()),
        }
    }

    /// Makes the folder of a file of it. The run itself is never made again: where it is gone, so is what was in it.
    fn folder_of(&self, path: &Path) -> Result<()> {
        let folder = path.parent().context("a file has a folder")?;
        folders_below(&self.path, folder.strip_prefix(&self.path)?)
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
        let text = self.raw_text(file)?;
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
        if self.has(file) { self.read_json(file).map(Some) } else { Ok(None) }
    }

    /// The same of an interrupted run, where it is what was written. Anything else in its place is as good as nothing.
    pub fn read_written<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>> {
        if self.has(file) && !unfinished::is_as_written(&self.path, file) {
            eprintln!("`{}` is not what was written: it is made again", self.path.join(file).display());
            return Ok(None);
        }
        self.read_if_there(file)
    }

    /// The suite as used.
    pub fn suite(&self) -> Result<Suite> {
        let path = self.path.join("suite.toml");
        let text = self.raw_text("suite.toml")?;
        let suite = if self.is_old()? { legacy::suite(&text) } else { Suite::parse_recorded(&text) };
        suite.with_context(|| format!("`{}`", path.display()))
    }

    /// Measured files of an interrupted run; they are written whole, so those that are there can be used. What was
    /// deferred is tried again.
    pub fn finished_evidence(&self) -> Result<Option<(Checks, Samples, Peers)>> {
        let checks = self.finished_checks()?;
        let samples = self.read_written("samples.json")?.filter(|s: &Samples| s.deferred.is_none());
        let peers = self.read_written("peers.json")?;
        Ok(match (checks, samples, peers) {
            (Some(checks), Some(samples), Some(peers)) => Some((checks, samples, peers)),
            _ => None,
        })
    }

    /// Finished checks of an interrupted run.
    pub fn finished_checks(&self) -> Result<Option<Checks>> {
        Ok(self.read_written("check.json")?.filter(|c: &Checks| c.deferred.is_none()))
    }

    /// All evidence of a whole run.
    pub fn evidence(&self) -> Result<Evidence> {
        Ok(Evidence {
            builds: self.read_json("builds.json")?,
            checks: self.read_json("check.json")?,
            samples: self.read_json("samples.json")?,
            peers: self.read_json("peers.json")?,
            profile: self.read_if_there("profile.json")?,
            memory: self.read_if_there(MEMORY)?,
            ceilings: self.read_if_there("ceilings.json")?,
        })
    }

    /// The recorded judgement: environment, gates, decision.
    pub fn judgement(&self) -> Result<(Environment, Vec<Gate>, Decision)> {
        Ok((self.read_json("ENV.json")?, self.read_json("gates.json")?, self.read_json("decision.json")?))
    }

    /// Copies what was built: `builds/<variant>[-<arch>]/{kernel.ptx, kernel.cubin, ptxas.txt, build.json}`. What an earlier
    /// try left there goes.
    pub fn keep_builds(&self, builds: &[Built], suite_arch: &str) -> Result<()> {
        let all = self.path.join("builds");
        if all.exists() {
            std::fs::remove_dir_all(&all).with_context(|| format!("failed to remove `{}`", all.display()))?;
        }
        let records: Vec<BuildRecord> = builds.iter().map(|built| built.record.clone()).collect();
        for (built, (record, folder)) in builds.iter().zip(build_folders(&records, suite_arch)) {
            let target = self.path.join(folder);
            self.folder_of(&target.join("build.json"))?;
            for file in built.files() {
                let source = built.dir.join(file);
                let bytes = std::fs::read(&source).with_context(|| format!("failed to read `{}`", source.display()))?;
                write_whole(&target.join(file), &bytes)?;
            }
            write_whole(&target.join("build.json"), serde_json::to_string_pretty(record)?.as_bytes())?;
        }
        Ok(())
    }

    /// The folder of what a gate file names, as it was used.
    pub fn operator_folder(&self) -> PathBuf {
        self.path.join("operator")
    }

    /// Copies the files that a gate file names: its scripts, and the sources that were compiled, whose hashes are known.
    /// All of them with their hashes, by name.
    pub fn keep_operator(&self, task: &Task, sources: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        let mut hashes = sources.clone();
        let Operator::Declared(declared) = &task.operator else { return Ok(hashes) };
        let scripts = [&declared.reference, &declared.check, &declared.generate];
        let names = scripts.into_iter().flatten().chain(sources.keys());
        for name in names {
            let from = task.folder.join(name);
            let bytes = std::fs::read(&from).with_context(|| format!("failed to read `{}`", from.display()))?;
            if let Some(wanted) = sources.get(name).filter(|wanted| **wanted != sha256_hex(&bytes)) {
                bail!("`{}` was changed while it was compiled (SHA-256 {wanted}); run again", from.display());
            }
            let to = self.operator_folder().join(kept_as(name));
            self.folder_of(&to)?;
            write_whole(&to, &bytes)?;
            hashes.insert(name.clone(), sha256_hex(&bytes));
        }
        Ok(hashes)
    }

    /// Removes it, and the folders that were made for it: nothing was measured.
    pub fn discard(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.path).with_context(|| format!("failed to remove `{}`", self.path.display()))?;
        // One in which somebody put something meanwhile stays.
        self.made.iter().for_each(|folder| drop(std::fs::remove_dir(folder)));
        Ok(())
    }

    /// Copies a file of another run under the name that it has there; in today's format, whatever that of the other is.
    pub fn keep_file(&self, other: &RunDir, name: &str) -> Result<()> {
        let (from, to) = (other.path.join(name), self.path.join(name));
        let bytes = if name.ends_with(".json") || name.ends_with(".jsonl") {
            other.text(name)?.into_bytes()
        } else {
            std::fs::read(&from).with_context(|| format!("failed to read `{}`", from.display()))?
        };
        self.folder_of(&to)?;
        write_whole(&to, &bytes)
    }

    /// Hashes every file and writes the manifest: from now on the run is whole. The root is what nobody can make an edited
    /// run have again.
    pub fn seal(&self) -> Result<String> {
        unfinished::clear(&self.path)?;
        let unsealed = self.report()?.map(|(report, _)| report);
        if let Some(report) = &unsealed {
            write_whole(&self.path.join(REPORT), report.as_bytes())?;
        }
        let mut listing = Listing::of(&self.path)?;
        // Made just before a file that was never written, or by somebody else.
        while !listing.empty.is_empty() {
            for folder in &listing.empty {
                std::fs::remove_dir(folder).with_context(|| format!("failed to remove `{}`", folder.display()))?;
            }
            listing = Listing::of(&self.path)?;
        }
        if let Some(refused) = listing.refused.first() {
            bail!("`{}` cannot be sealed: {refused}; remove it and run again", self.path.display());
        }
        let root = listing.root()?;
        if let Some(report) = &unsealed {
            write_whole(&self.path.join(REPORT), manifest::with_root(report, &root).as_bytes())?;
        }
        write_whole(&self.path.join(MANIFEST), listing.manifest()?.as_bytes())?;
        Ok(root)
    }

    /// REPORT.md without the root, and the root that it states; `None` where there is no such file.
    pub fn report(&self) -> Result<Option<(String, Option<String>)>> {
        if !self.has(REPORT) {
            return Ok(None);
        }
        let (report, root) = manifest::without_root(self.raw_text(REPORT)?.into_bytes());
        Ok(Some((String::from_utf8(report)?, root)))
    }

    /// The root of the files as they are, and every difference between them and the manifest, one sentence each.
    pub fn differences(&self) -> Result<(String, Vec<String>)> {
        ensure!(
            self.is_whole(),
            "`{}` has no manifest: the run was interrupted; continue it with --resume",
            self.path.display()
        );
        let listing = Listing::of(&self.path)?;
        let mut differences = listing.refused.clone();
        let shown = |folder: &PathBuf| folder.strip_prefix(&self.path).unwrap_or(folder).display().to_string();
        differences.extend(listing.empty.iter().map(|folder| format!("{} is an empty folder", shown(folder))));
        let root = listing.root()?;
        let text = self.raw_text(MANIFEST).unwrap_or_default();
        let Ok(recorded) = serde_json::from_str::<BTreeMap<String, String>>(&text) else {
            differences.push(format!("{MANIFEST} is not a manifest"));
            return Ok((root, differences));
        };
        for (file, hash) in &recorded {
            match listing.hashes.get(file) {
                None => differences.push(format!("{file} is missing")),
                Some(other) if other != hash => differences.push(format!("{file} was changed")),
                Some(_) => {}
            }
        }
        let added = listing.hashes.keys().filter(|file| !recorded.contains_key(*file));
        differences.extend(added.map(|file| format!("{file} was added")));
        if differences.is_empty() && text != listing.manifest()? {
            differences.push(format!("{MANIFEST} was changed"));
        }
        // What was edited has another root, which says nothing more.
        if differences.is_empty()
            && let Some((_, Some(stated))) =
                self.report().unwrap_or_default().filter(|(_, s)| s.as_ref() != Some(&root))
        {
            differences.push(format!("{REPORT} states the root {stated}, and its files have {root}"));
        }
        Ok((root, differences))
    }

    /// An error that names the first difference, if there is one.
    pub fn is_as_sealed(&self) -> Result<()> {
        let (_, differences) = self.differences()?;
        match differences.as_slice() {
            [] => Ok(()),
            [one] => bail!("`{}` is not as it was sealed: {one}; see `verify`", self.path.display()),
            [first, rest @ ..] => {
                let more = rest.len();
                bail!("`{}` is not as it was sealed: {first}, and {more} more; see `verify`", self.path.display())
            }
        }
    }
}

/// The folder of a variant's build in a run.
fn build_folder(record: &BuildRecord, suite_arch: &str) -> String {
    match record.arch == suite_arch {
        true => format!("builds/{}", record.variant),
        false => format!("builds/{}-{}", record.variant, record.arch),
    }
}

/// The folders of builds in a run, in the order of their records. A variant of a gate file may have several builds: the first
/// has the name, the others their keys behind it.
pub fn build_folders<'a>(records: &'a [BuildRecord], suite_arch: &str) -> Vec<(&'a BuildRecord, String)> {
    let mut folders: Vec<(&BuildRecord, String)> = Vec::new();
    for record in records {
        let first = build_folder(record, suite_arch);
        let is_taken = folders.iter().any(|(_, folder)| *folder == first);
        folders.push((record, if is_taken { format!("{first}-{}", record.key) } else { first }));
    }
    folders
}

/// Where a file of the operator is kept: an include from outside lies beside the others, under the name of its path.
pub fn kept_as(name: &str) -> PathBuf {
    Path::new(name).components().filter(|c| matches!(c, Component::Normal(_))).collect()
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
        assert_eq!(run.differences().unwrap().1, [""; 0]);
        std::fs::write(run.path.join("a.txt"), "x").unwrap();
        std::fs::remove_file(run.path.join("logs/b.txt")).unwrap();
        std::fs::write(run.path.join("c.txt"), "c").unwrap();
        assert_eq!(
            run.differences().unwrap().1,
            ["logs is an empty folder", "a.txt was changed", "logs/b.txt is missing", "c.txt was added"]
        );
    }

    #[test]
    fn a_run_of_a_newer_format_is_refused_by_both_numbers_and_an_old_one_is_not_gone_on_with() {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDir::create(parent.path(), "abc1234", "t").unwrap();
        run.write("suite.toml", "").unwrap();
        let taken = RunDir::open_unfinished(&run.path).unwrap_err().to_string();
        let own = format!("is being worked on by process {} on ", std::process::id());
        assert!(taken.contains(&own), "{taken}");
        let run = RunDir::at(std::mem::take(&mut { run }.path));
        assert!(RunDir::open_unfinished(&run.path).is_ok(), "whoever had it has let it go");
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
