//! `accept`: a run that verifies, says MERGE, and is of the gate file, the files and the control of today makes its candidate the
//! control. Leaves to others: whether what the run says may be accepted (`kbench::accept`), and merging.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use kbench::accept::{Refused, acceptable, figures, message, tag};
use kbench::deferral::Deferral;
use kbench::exit::Exit;
use kbench::fleet::same_gate;
use kbench::ledger::{Accepted, Ledger};
use kbench::report::RunView;
use kbench::suite::Suite;
use serde::Serialize;

use crate::accepted::{ledger, of_cubins, path};
use crate::basis::{self, Basis};
use crate::cubin::sha256_hex;
use crate::files::write_whole;
use crate::inspect::verify_against;
use crate::layout::Layout;
use crate::plan::{Changes, Plan};
use crate::run_dir::{RunDir, build_folders};
use crate::runs::{is_search, with_view};

/// What is to be accepted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The candidate; the only one that MERGEs where none is named.
    pub candidate: Option<&'a str>,
    /// The root that the run must have.
    pub root: Option<&'a str>,
    /// The gate file of today that it was judged by.
    pub gate: Option<&'a Path>,
}

/// What was accepted, and what is left to do.
#[derive(Debug, Serialize)]
pub struct Done {
    /// What was recorded.
    pub accepted: Accepted,
    /// Where.
    pub file: PathBuf,
    /// For the merge.
    pub message: String,
    /// A name for the commit.
    pub tag: String,
    /// What of the run could not be compared.
    pub open: Vec<Deferral>,
}

/// Records a candidate as the control. The inner error is why it may not be one.
pub fn accept(layout: &Layout, run: &Path, asked: &Asked) -> Result<Result<Done, Refused>> {
    let opened = RunDir::open(run)?;
    match record(layout, &opened, asked) {
        Ok(done) => Ok(Ok(done)),
        Err(error) => {
            let refused = error.downcast::<Refused>()?;
            let why = format!("`{}` is not accepted: {}", run.display(), refused.why);
            Ok(Err(Refused { why, ..refused }))
        }
    }
}

/// Ends the work on a run that is not accepted.
fn refuse<T>(exit: Exit, why: impl Into<String>) -> Result<T> {
    Err(Refused::new(exit, why).into())
}

fn record(layout: &Layout, run: &RunDir, asked: &Asked) -> Result<Done> {
    let (root, open) = verified(run, asked.root)?;
    with_view(run, |view| {
        let candidate = acceptable(view, asked.candidate)?;
        let entry = entry(run, view, &candidate.variant, &root)?;
        let gate = gate_file(layout, view, asked.gate)?;
        let file = path(layout, &gate);
        let mut all = ledger(&file)?;
        is_of_the_control_of_today(run, view, &all, &entry)?;
        is_of_the_files_of_today(layout, run, view.suite, &gate)?;
        all.accepted.push(entry.clone());
        write_whole(&std::path::absolute(&file)?, format!("{}\n", serde_json::to_string_pretty(&all)?).as_bytes())?;
        let (message, tag) = (message(view, candidate, &root), tag(&entry.suite, &entry.variant, &entry.run));
        Ok(Done { accepted: entry, file, message, tag, open })
    })?
}

/// Root of a run that holds, and what of it could not be compared.
fn verified(run: &RunDir, root: Option<&str>) -> Result<(String, Vec<Deferral>)> {
    if is_search(run) {
        return refuse(
            Exit::Environment,
            "it is a search, which has no verdict; judge its winner with validate --tuned",
        );
    }
    if !run.is_whole() {
        return refuse(Exit::Environment, "it was interrupted; go on with validate --resume");
    }
    if run.is_old()? {
        return refuse(Exit::Deferred, "it was recorded by an older program, which asked less; validate again");
    }
    let found = verify_against(&run.path, root)?;
    if let [first, rest @ ..] = found.faults.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(", and {} more; see verify", rest.len()) };
        return refuse(Exit::Fix, format!("{first}{more}"));
    }
    if !run.has("builds") {
        return refuse(Exit::Deferred, "its builds are not there, and what is accepted is their code");
    }
    Ok((found.root, found.open))
}

fn entry(run: &RunDir, view: &RunView, variant: &str, root: &str) -> Result<Accepted> {
    let environment = view.environment;
    let device = environment.device.as_ref().context("an acceptable run has a device")?;
    let builds = &view.evidence.builds;
    let nvcc = builds.records.iter().find(|b| b.variant == variant).map(|build| build.nvcc.clone());
    Ok(Accepted {
        suite: view.suite.name.clone(),
        variant: variant.to_owned(),
        control: view.suite.control.clone(),
        when: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        run: run.name(),
        root: root.to_owned(),
        commit: environment.commit.clone(),
        dirty: environment.dirty == Some(true),
        device: device.name.clone(),
        nvcc: nvcc.with_context(|| format!("`{variant}` has a build"))?,
        code: code_in(run, view, variant)?,
        figures: figures(view, variant),
    })
}

/// The code of a variant as it lies in a verified run.
fn code_in(run: &RunDir, view: &RunView, variant: &str) -> Result<BTreeMap<String, String>> {
    let folders = build_folders(&view.evidence.builds.records, &view.suite.arch);
    let own = folders.iter().filter(|(record, _)| record.variant == variant);
    let parts = own.map(|(record, folder)| match record.language.is_host_code() {
        true => Ok((*record, Vec::new())),
        false => Ok((*record, run.bytes(&format!("{folder}/kernel.cubin"))?)),
    });
    of_cubins(view.suite, &files_of(run)?, variant, &parts.collect::<Result<Vec<_>>>()?)
}

/// What a gate file names, by path, with SHA-256, as the run used it.
fn files_of(run: &RunDir) -> Result<BTreeMap<String, String>> {
    Ok(run.read_if_there::<Basis>(basis::FILE)?.map(|basis| basis.files().clone()).unwrap_or_default())
}

/// The gate file of today: the one that was named, the one of the run's command line where that lies in the working directory,
/// else the suite of that name.
fn gate_file(layout: &Layout, view: &RunView, named: Option<&Path>) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let shipped = layout.suites().join(format!("{}.toml", view.suite.name));
    if view.suite.operator.is_attention() && shipped.is_file() {
        return Ok(shipped);
    }
    let here = std::env::current_dir().context("failed to find the working directory")?;
    // A fleet judges copies of gate files in a folder of its own, which nobody tracks.
    let is_here = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path.starts_with(&here));
    let words = view.environment.command.iter().skip(1).filter(|word| word.ends_with(".toml")).map(PathBuf::from);
    match words.filter(is_here).collect::<Vec<_>>().as_slice() {
        [only] => Ok(only.clone()),
        _ => refuse(Exit::Environment, "which gate file is it of? name it with --gate"),
    }
}

/// A candidate that was better than an earlier control says nothing of the one of today.
fn is_of_the_control_of_today(run: &RunDir, view: &RunView, all: &Ledger, entry: &Accepted) -> Result<()> {
    if let Some(same) = all.accepted.iter().find(|other| other.root == entry.root && other.variant == entry.variant) {
        return refuse(Exit::Environment, format!("`{}` was accepted from it already, at {}", same.variant, same.when));
    }
    let Some(latest) = all.latest_on(&entry.suite, &entry.device) else { return Ok(()) };
    let (control, device) = (&entry.control, &entry.device);
    if latest.variant != *control {
        let why = format!(
            "its control is `{control}`, and `{}` was accepted on {device} since ({}); validate again",
            latest.variant, latest.run
        );
        return refuse(Exit::Fix, why);
    }
    let code = code_in(run, view, control)?;
    if code.iter().any(|(arch, hash)| latest.code.get(arch) != Some(hash)) {
        let why =
            format!("its control `{control}` is not the code that was accepted in {}; validate again", latest.run);
        return refuse(Exit::Fix, why);
    }
    Ok(())
}

/// Whoever changes what is asked, or the files that answer, has another question than the run answered.
fn is_of_the_files_of_today(layout: &Layout, run: &RunDir, used: &Suite, gate: &Path) -> Result<()> {
    let name = gate.to_str().with_context(|| format!("`{}` is not UTF-8", gate.display()))?;
    let today = Plan::read(layout, name, &Changes::default())?.suite;
    if !same_gate(&today, used) {
        let unknown = used.candidates.iter().find(|c| today.candidates.iter().all(|other| other.variant != c.variant));
        return match unknown {
            Some(candidate) => {
                let why = format!(
                    "`{}` is no candidate in `{}`: write it there, and validate again",
                    candidate.variant,
                    gate.display()
                );
                refuse(Exit::Environment, why)
            }
            None => {
                let why = format!(
                    "it was judged by other limits, shapes or timing than `{}` has now; validate again",
                    gate.display()
                );
                refuse(Exit::Environment, why)
            }
        };
    }
    let folder = gate.parent().unwrap_or(Path::new(""));
    for (name, hash) in files_of(run)? {
        let beside = folder.join(&name);
        let is_plain =
            Path::new(&name).components().all(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
        if !is_plain || std::fs::read(&beside).map(|bytes| sha256_hex(&bytes)).ok() != Some(hash) {
            let why = format!("`{}` is not the file that it was made of; validate again", beside.display());
            return refuse(Exit::Environment, why);
        }
    }
    Ok(())
}
