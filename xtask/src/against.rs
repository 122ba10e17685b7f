//! A change against a revision: its gate file and everything that the file may need, from the repository and from the working
//! tree, side by side in a folder of their own, and a plan for each variant. What judges lies where the revision has it, the
//! change below it. Leaves to others: who meets whom by which limits (kbench), and judging.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kbench::suite::{Change, Suite};
use xshell::{Shell, cmd};

use crate::accepted;
use crate::layout::Layout;
use crate::plan::{Changes, Plan};

/// Where the working tree lies, below the folder of the revision's gate file.
const CHANGE: &str = "change";

/// A gate file as a revision has it, and as it is now.
pub struct Against {
    /// Holds what is judged and by what; it goes with this value.
    _room: tempfile::TempDir,
    /// The gate file, as it was named.
    gate: PathBuf,
    /// The folder of the revision's gate file.
    folder: PathBuf,
    /// The folder of the gate file, from the top of the repository.
    prefix: PathBuf,
    before: Suite,
    now: Suite,
    /// The revision as it was named, and the commit that it is.
    pub asked: String,
    /// The first letters of the commit.
    pub revision: String,
    /// Files of the folder and of the folders that it includes which are others now, from the folder.
    files: Vec<String>,
}

impl Against {
    /// Reads a gate file of the working tree, and what the revision has of it.
    pub fn read(layout: &Layout, gate: &Path, asked: &str) -> Result<Against> {
        let named = |path: &Path| path.display().to_string();
        ensure!(gate.is_file(), "failed to read `{}`: there is no such file", named(gate));
        let read = |path: &Path| accepted::suite(layout, path).with_context(|| format!("gate file `{}`", named(path)));
        let (now, _) = read(gate)?;
        ensure!(
            now.declared().is_some(),
            "--against takes a gate file that declares its operator: the variants of `{}` come with the program",
            now.name
        );
        let repository = Repository::of(gate)?;
        let (commit, prefix) = (repository.commit(asked)?, repository.prefix.clone());
        let file = prefix.join(gate.file_name().context("it is a file")?);
        ensure!(
            repository.has(&commit, &file),
            "`{}` is not in {asked}: there is nothing to judge it against; run without --against",
            named(&file)
        );
        let room = tempfile::tempdir().context("failed to make a temporary folder")?;
        let base = room.path().join("base");
        repository.check_out(&commit, &[&prefix], room.path(), &base)?;
        let before = accepted::packed_suite(&base.join(&file))
            .with_context(|| format!("gate file `{}` of {asked}", named(&file)))?;
        let mut beside = BTreeSet::new();
        for include in [&before, &now].into_iter().flat_map(includes) {
            let folder = within(&prefix.join(include));
            beside.insert(folder.with_context(|| format!("include: `{include}` is outside of the repository"))?);
        }
        let mut folders: Vec<&Path> = beside.iter().map(PathBuf::as_path).collect();
        if !folders.is_empty() {
            repository.check_out(&commit, &folders, room.path(), &base)?;
        }
        folders.push(&prefix);
        let folder = base.join(&prefix);
        let change = folder.join(CHANGE);
        ensure!(!change.exists(), "`{}` has a folder `{CHANGE}`: give it another name", named(&prefix));
        let own = now.variants.iter().flat_map(|(_, table)| [&table.source, &table.plan]).flatten();
        repository.copy(&folders, own.map(|file| prefix.join(file)), &change)?;
        let files = differing(&base, &change, &prefix)?;
        let revision = commit[..commit.len().min(7)].to_owned();
        let (gate, asked) = (gate.to_owned(), asked.to_owned());
        Ok(Against { _room: room, gate, folder, prefix, before, now, asked, revision, files })
    }

    /// Every variant that is there now, in the order of the file.
    pub fn variants(&self) -> impl Iterator<Item = &str> {
        self.now.variant_names()
    }

    /// Whether neither what is said of a variant nor any file is another now.
    pub fn is_untouched(&self, variant: &str) -> bool {
        self.others().next().is_none() && self.before.says_the_same_of(&self.now, variant)
    }

    fn is_gate(&self, file: &str) -> bool {
        self.gate.file_name().is_some_and(|name| name == file)
    }

    /// What a variant is judged by and with.
    pub fn plan(&self, variant: &str, changes: &Changes) -> Result<Plan> {
        let place = Path::new(CHANGE).join(&self.prefix);
        let moved = |file: &str| within(&place.join(file)).unwrap_or_else(|| place.join(file)).display().to_string();
        let change = Change { now: &self.now, revision: &self.revision, moved: &moved };
        let suite = self.before.against(&change, variant)?;
        let plan = Plan::of(suite, &self.folder, changes).with_context(|| format!("variant `{variant}`"))?;
        Ok(Plan { file: Some(self.gate.clone()), is_of_a_change: true, ..plan })
    }

    /// What the change judges otherwise, a line each; the revision's holds.
    pub fn judged_otherwise(&self) -> Vec<String> {
        let scripts = self.others().filter(|file| self.scripts().contains(file));
        let lines = scripts.map(|file| format!("{file} judges and is another now"));
        self.before.asks_otherwise(&self.now).into_iter().chain(lines).collect()
    }

    /// What else is another now or not there any more, a line each.
    pub fn changed(&self) -> Vec<String> {
        let files = self.others().filter(|file| !self.scripts().contains(file));
        let gone = self.before.variant_names().filter(|name| self.variants().all(|now| now != *name));
        let files = files.map(|file| format!("{file} is another now"));
        files.chain(gone.map(|name| format!("variants.{name} is gone"))).collect()
    }

    /// Files that are others now, without the gate file.
    fn others(&self) -> impl Iterator<Item = &String> {
        self.files.iter().filter(|file| !self.is_gate(file))
    }

    /// The revision's scripts that judge.
    fn scripts(&self) -> Vec<&String> {
        let scripts = self.before.declared().into_iter().flat_map(|of| [&of.reference, &of.check, &of.generate]);
        scripts.flatten().collect()
    }
}

/// The folders of headers that a file declares.
fn includes(suite: &Suite) -> impl Iterator<Item = &String> {
    suite.variants.iter().flat_map(|(_, table)| table.include.iter().flatten())
}

/// A path without `..`, where it stays below the folder that it begins in.
fn within(path: &Path) -> Option<PathBuf> {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => whole.push(part),
            Component::CurDir => {}
            Component::ParentDir if whole.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(whole)
}

/// Files whose contents are not the same below two folders, from the folder of the gate file.
fn differing(base: &Path, change: &Path, prefix: &Path) -> Result<Vec<String>> {
    let listed = |root: &Path| -> Result<BTreeSet<PathBuf>> {
        let all = crate::files::all_files(root)?.into_iter();
        Ok(all.filter_map(|file| Some(file.strip_prefix(root).ok()?.to_owned())).collect())
    };
    let own = prefix.join(CHANGE);
    let before = listed(base)?.into_iter().filter(|file| !file.starts_with(&own));
    let all: BTreeSet<PathBuf> = before.chain(listed(change)?).collect();
    let is_other = |file: &PathBuf| fs::read(base.join(file)).ok() != fs::read(change.join(file)).ok();
    let near = |file: PathBuf| file.strip_prefix(prefix).map(Path::to_owned).unwrap_or(file).display().to_string();
    Ok(all.into_iter().filter(is_other).map(near).collect())
}

/// The repository that a file is in.
struct Repository {
    shell: Shell,
    top: PathBuf,
    /// The folder of the file, from the top.
    prefix: PathBuf,
}

impl Repository {
    fn of(file: &Path) -> Result<Repository> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let shell = Shell::new()?;
        shell.change_dir(folder);
        let asked = cmd!(shell, "git rev-parse --show-toplevel --show-prefix").quiet().ignore_stderr().read();
        let asked = asked
            .ok()
            .with_context(|| format!("--against needs git, and `{}` in one of its repositories", file.display()))?;
        let (top, prefix) = asked.split_once('\n').unwrap_or((&asked, ""));
        shell.change_dir(top);
        Ok(Repository { top: top.into(), prefix: prefix.trim_end_matches('/').into(), shell })
    }

    fn commit(&self, asked: &str) -> Result<String> {
        let Repository { shell, .. } = self;
        let named = format!("{asked}^{{commit}}");
        let found = cmd!(shell, "git rev-parse --verify --quiet {named}").quiet().ignore_stderr().read();
        match found {
            Ok(commit) if !asked.starts_with('-') => Ok(commit.trim().to_owned()),
            _ => bail!("--against: `{asked}` is no revision of this repository; where the clone is shallow, fetch it"),
        }
    }

    fn has(&self, commit: &str, file: &Path) -> bool {
        let Repository { shell, .. } = self;
        let named = format!("{commit}:{}", file.display());
        cmd!(shell, "git cat-file -e {named}").quiet().ignore_stderr().run().is_ok()
    }

    /// Writes the files of a commit in some folders below `to`. Neither the index nor the working tree is touched.
    fn check_out(&self, commit: &str, folders: &[&Path], room: &Path, to: &Path) -> Result<()> {
        let Repository { shell, .. } = self;
        let index = room.join("index");
        let _index = shell.push_env("GIT_INDEX_FILE", &index);
        let whole = || -> Result<()> {
            cmd!(shell, "git read-tree {commit}").quiet().run()?;
            let files = self.listed(&[], folders)?;
            let prefix = format!("--prefix={}/", to.display());
            Ok(cmd!(shell, "git checkout-index --force -z --stdin {prefix}").quiet().stdin(files).run()?)
        };
        whole().with_context(|| format!("failed to check out {commit}"))
    }

    /// Names of files, each with a zero behind it.
    fn listed(&self, more: &[&str], folders: &[&Path]) -> Result<Vec<u8>> {
        let Repository { shell, .. } = self;
        let here = Path::new(".");
        let folders = folders.iter().map(|folder| if folder.as_os_str().is_empty() { here } else { folder });
        Ok(cmd!(shell, "git ls-files -z {more...} -- {folders...}").quiet().output()?.stdout)
    }

    /// Copies files of the working tree in some folders, tracked or not but not ignored ones, and others by name.
    fn copy(&self, folders: &[&Path], named: impl Iterator<Item = PathBuf>, to: &Path) -> Result<()> {
        let listed = self.listed(&["--cached", "--others", "--exclude-standard"], folders)?;
        let listed = String::from_utf8(listed).context("a file of the repository has a name that is no text")?;
        let files: BTreeSet<PathBuf> = listed.split_terminator('\0').map(PathBuf::from).chain(named).collect();
        // What is in the index may be gone from the working tree, which is what is judged.
        for file in files.iter().filter(|file| self.top.join(file).is_file()) {
            let to = to.join(file);
            fs::create_dir_all(to.parent().context("a file is in a folder")?)
                .and_then(|()| fs::copy(self.top.join(file), &to))
                .with_context(|| format!("failed to copy `{}`", file.display()))?;
        }
        Ok(())
    }
}
