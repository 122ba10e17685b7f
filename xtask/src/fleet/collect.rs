//! `fleet report`: every task's run, verified one by one, and the verdict that they come to together. What does not hold, or is
//! of something else than what was submitted, is refused by name and counts as nothing.
//! Leaves to others: what verdicts add up to (`kbench::fleet`), and how they are shown (`kbench::report`).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kbench::evidence::Environment;
use kbench::exit::Exit;
use kbench::fleet::{self, Begin, GateMatrix, Measured, Outcome, RunOutcome, Standing, TaskState};
use kbench::report::{FleetView, Format, fleet_html, fleet_text};
use kbench::suite::Suite;
use serde::Serialize;

use super::status::{Sightings, runs, standing};
use super::{EMULATOR, Fleet, Gate, Place};
use crate::cubin::sha256_hex;
use crate::environment::SourceState;
use crate::files::write_whole;
use crate::inspect::verify;
use crate::run_dir::RunDir;
use crate::shared::patiently;

/// What a fleet came to.
#[derive(Debug, Serialize)]
pub struct Report {
    pub matrices: Vec<GateMatrix>,
    pub outcomes: Vec<RunOutcome>,
    /// In words.
    #[serde(skip)]
    pub text: String,
    #[serde(skip)]
    pub exit: Exit,
}

/// Reads, verifies and judges; writes REPORT.md and report.html into the fleet's folder.
pub fn report(fleet: &Fleet) -> Result<Report> {
    let suites = fleet.suites()?;
    let seen = Sightings::of(fleet)?;
    let mut collector = Collector { fleet, runs: BTreeMap::new() };
    let mut outcomes = Vec::new();
    for place in fleet.places() {
        let gate = suites.iter().find(|(gate, _)| gate.name == place.task.gate).context("a task has a gate file")?;
        let (standing, _) = standing(fleet, &seen, &place)?;
        let outcome = collector.outcome(&place, gate, &standing)?;
        outcomes.push(RunOutcome { task: place.task, outcome });
    }
    let kind = |kind: &super::Kind| fleet::Kind { name: kind.name.clone(), device: kind.device.clone() };
    let kinds: Vec<fleet::Kind> = fleet.record.kinds.iter().map(kind).collect();
    let matrix = |(gate, suite): &(&Gate, Suite)| {
        let own: Vec<&RunOutcome> = outcomes.iter().filter(|outcome| outcome.task.gate == gate.name).collect();
        fleet::matrix(suite, &kinds, &own)
    };
    let matrices: Vec<GateMatrix> = suites.iter().map(matrix).collect();
    let provenance = provenance(fleet, seen.silent.as_deref());
    let name = fleet.name();
    let view = FleetView { name: &name, provenance: &provenance, matrices: &matrices, outcomes: &outcomes };
    let files = [("REPORT.md", fleet_text(&view, Format::Markdown)), ("report.html", fleet_html(&view))];
    for (file, text) in files {
        patiently(&fleet.path, || write_whole(&fleet.path.join(file), text.as_bytes()))?;
    }
    let text = fleet_text(&view, Format::Table);
    Ok(Report { exit: fleet::exit(&matrices, &outcomes), text, matrices, outcomes })
}

fn provenance(fleet: &Fleet, silent: Option<&str>) -> String {
    let source = &fleet.record.source;
    let dirty = if source.dirty == Some(true) { " with uncommitted changes" } else { "" };
    let silent = silent.map(|why| format!("; Slurm was not asked: {why}")).unwrap_or_default();
    format!("submitted {} from {}{dirty}{silent}", fleet.record.begun, source.short_commit())
}

/// Goes from task to task, and knows which runs it has counted.
struct Collector<'a> {
    fleet: &'a Fleet,
    /// The task that a run belongs to, by the hash of its manifest.
    runs: BTreeMap<String, String>,
}

fn refused(why: String, edited: bool) -> Outcome {
    Outcome::Refused { why, edited }
}

impl Collector<'_> {
    fn outcome(&mut self, place: &Place, gate: &(&Gate, Suite), standing: &Standing) -> Result<Outcome> {
        let found = runs(self.fleet, place)?;
        let named =
            |run: &RunDir| format!("`{}`", run.path.strip_prefix(&self.fleet.path).unwrap_or(&run.path).display());
        let those = |whole: bool| found.iter().filter(move |(_, is_whole)| *is_whole == whole).map(|(run, _)| run);
        let (whole, half): (Vec<&RunDir>, Vec<&RunDir>) = (those(true).collect(), those(false).collect());
        match (whole.as_slice(), half.as_slice()) {
            ([], []) if standing.state == TaskState::Finished => {
                Ok(refused(format!("`{}` has no run, and its job came to a verdict", place.folder.display()), true))
            }
            ([], []) => Ok(Outcome::Open { why: standing.to_string() }),
            (_, [half, ..]) if standing.state.is_going_on() => {
                Ok(Outcome::Open { why: format!("{standing} ({} is not whole yet)", named(half)) })
            }
            (_, [half, ..]) => {
                let edited = standing.state == TaskState::Finished;
                Ok(refused(format!("{} is half-written; the task is {standing}", named(half)), edited))
            }
            ([run], []) => self.measured(place, gate, run).map(|outcome| match outcome {
                Ok(measured) => Outcome::Measured(Box::new(measured)),
                Err(why) => refused(format!("{}: {why}", named(run)), true),
            }),
            ([first, second, ..], []) => {
                Ok(refused(format!("{} and {} are two runs of one task", named(first), named(second)), true))
            }
        }
    }

    /// What a whole run says; the inner error is why it must not count.
    fn measured(
        &mut self,
        place: &Place,
        gate: &(&Gate, Suite),
        run: &RunDir,
    ) -> Result<std::result::Result<Measured, String>> {
        // A folder that goes away in the middle looks like one whose files are missing: a fault must be there again.
        let holds = patiently(&self.fleet.path, || {
            let faults = verify(&run.path)?;
            ensure!(faults.is_empty(), "{}", faults.join("; "));
            Ok(())
        });
        match holds {
            Ok(()) => {}
            Err(error) if self.fleet.path.is_dir() => return Ok(Err(format!("{error:#}"))),
            Err(error) => return Err(error),
        }
        let own = format!("{} {} #{}", place.task.kind, place.task.gate, place.task.repeat);
        let manifest = patiently(&self.fleet.path, || run.text("manifest.json"))?;
        if let Some(other) = self.runs.insert(sha256_hex(manifest.as_bytes()), own) {
            return Ok(Err(format!("it is the run of {other}, and counts once")));
        }
        patiently(&self.fleet.path, || self.check(place, gate, run))
    }

    /// Whether a verified run is of what was submitted.
    fn check(
        &self,
        place: &Place,
        (gate, suite): &(&Gate, Suite),
        run: &RunDir,
    ) -> Result<std::result::Result<Measured, String>> {
        let (used, evidence) = (run.suite()?, run.evidence()?);
        let (environment, _, decision) = run.judgement()?;
        if !fleet::same_gate(suite, &used) {
            return Ok(Err(format!("it was judged by another gate file than the `{}` that was submitted", gate.name)));
        }
        if let Some(why) = other_files(gate, &run.operator_folder())? {
            return Ok(Err(why));
        }
        if let Some(why) = other_sources(&self.fleet.record.source, &environment) {
            return Ok(Err(why));
        }
        let kind =
            self.fleet.record.kinds.iter().find(|kind| kind.name == place.task.kind).context("a task has a kind")?;
        let wanted = if kind.device == EMULATOR { EMULATOR.to_owned() } else { format!("gpu: {}", kind.device) };
        let timed = evidence.samples.device.as_ref().map(|device| format!("gpu: {}", device.name));
        if let Some(other) = [&evidence.checks.device, &timed].into_iter().flatten().find(|ran| **ran != wanted) {
            return Ok(Err(format!("it ran on `{other}`, and {} is `{wanted}`", kind.name)));
        }
        let node = node_of(self.fleet, place)?;
        let ratios = fleet::ratios(&used, &evidence.samples);
        Ok(Ok(Measured { run: run.name(), node, decision, ratios }))
    }
}

/// The node of the latest try; a marker that is gone makes no run wrong.
fn node_of(fleet: &Fleet, place: &Place) -> Result<String> {
    let mut node = "an unknown node".to_owned();
    for attempt in 0.. {
        let path = place.folder.join(format!("begin-{attempt}.json"));
        if !fleet.has(&path)? {
            break;
        }
        let begin: Begin = serde_json::from_slice(&std::fs::read(&path)?)
            .with_context(|| format!("`{}` is not what it should be", path.display()))?;
        node = begin.node;
    }
    Ok(node)
}

/// Which file that the run was made of is not the one that was packed.
fn other_files(gate: &Gate, operator: &Path) -> Result<Option<String>> {
    for (name, hash) in &gate.files {
        let path = operator.join(name);
        if path.is_file() && sha256_hex(&std::fs::read(&path)?) != *hash {
            return Ok(Some(format!("it was made of another `{name}` than was submitted")));
        }
    }
    Ok(None)
}

fn other_sources(submitted: &SourceState, ran: &Environment) -> Option<String> {
    let same =
        (&submitted.commit, submitted.dirty, &submitted.diff_sha256) == (&ran.commit, ran.dirty, &ran.diff_sha256);
    let shown = |commit: &Option<String>| commit.clone().unwrap_or_else(|| "no commit".to_owned());
    (!same).then(|| {
        format!(
            "it was made by other sources ({}) than were submitted ({})",
            shown(&ran.commit),
            shown(&submitted.commit)
        )
    })
}
