//! `fleet run`: packs the dist folder and the gate files, writes a job for each kind of device, and submits them. What is
//! wrong is said before anything is written; a submission that broke off is gone on with, and what ended without a verdict is
//! submitted again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kbench::deferral::Deferral;
use serde::Serialize;

use super::config::{Config, Overrides, Request, check_options};
use super::jobs::{Submission, submissions};
use super::pack::{beside, pack, under};
use super::script::script;
use super::slurm::Slurm;
use super::status::{Sightings, standing};
use super::{FORMAT, Fleet, Gate, Kind, Record};
use crate::dist;
use crate::environment::SourceState;
use crate::files::{folders_below, write_whole};
use crate::layout::Layout;
use crate::plan::{Changes, Plan};
use crate::shared::patiently;
use crate::tune::found;

/// What is asked for.
pub struct Order {
    /// Gate files, and suites by name.
    pub gates: Vec<String>,
    pub on: Vec<String>,
    pub repeats: u32,
    pub overrides: Overrides,
    /// Show the scripts, and leave nothing.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Submitted {
    /// The scripts by kind.
    Scripts(Vec<(String, String)>),
    /// The fleet, and what was submitted now: of which kind, how many tasks, and the job's number.
    Jobs { fleet: PathBuf, jobs: Vec<(String, usize, u64)>, tasks: usize },
    /// Why nothing was submitted.
    Deferred(Deferral),
}

/// Most tasks of one kind: what Slurm takes of an array where nobody set another limit.
pub const MOST_TASKS: usize = 1000;

pub fn submit(layout: &Layout, config: &Config, order: &Order) -> Result<Submitted> {
    let requests = config.requests(&order.on, &order.overrides)?;
    ensure!(order.repeats > 0, "--repeat must be at least 1");
    ensure!(!order.gates.is_empty(), "name a gate file, or a suite with --suite");
    let tasks = order.gates.len() * order.repeats as usize;
    ensure!(
        tasks <= MOST_TASKS,
        "{tasks} tasks a kind are more than the {MOST_TASKS} that one array takes; split them"
    );
    let plans = order.gates.iter().map(|name| Plan::read(layout, name, &Changes::default()));
    let plans: Vec<Plan> = plans.collect::<Result<_>>()?;
    for (i, plan) in plans.iter().enumerate() {
        let is_taken = plans[..i].iter().any(|other| other.suite.name == plan.suite.name);
        ensure!(!is_taken, "two gate files have the name `{}`; reports could not tell them apart", plan.suite.name);
    }
    let slurm = match Slurm::find()? {
        Ok(slurm) => Some(slurm),
        Err(_) if order.dry_run => None,
        Err(why) => return Ok(Submitted::Deferred(why)),
    };
    if order.dry_run {
        let gates = order.gates.iter().zip(&plans).map(|(name, plan)| planned(layout, name, plan)).collect();
        let packed = ("dist/<key>".into(), SourceState::default());
        let fleet = fleet(config, &requests, packed, gates, order.repeats);
        return Ok(Submitted::Scripts(scripts(&fleet, &requests)));
    }
    let slurm = slurm.context("a submission has a scheduler")?;
    let (dist, source) = packed(layout, config)?;
    let gates = order
        .gates
        .iter()
        .zip(&plans)
        .map(|(name, plan)| patiently(&config.shared, || pack_gate(name, plan, &config.shared, &dist)));
    let gates = gates.collect::<Result<_>>()?;
    let fleet = fleet(config, &requests, (dist, source), gates, order.repeats);
    begin(&fleet, &requests)?;
    Ok(submitted(&fleet, submit_due(&slurm, &fleet, &[])?))
}

pub fn submitted(fleet: &Fleet, made: Vec<Submission>) -> Submitted {
    let job = |made: Submission| Some((made.kind, made.tasks.len(), made.job?));
    let jobs: Vec<_> = made.into_iter().filter_map(job).collect();
    Submitted::Jobs { tasks: jobs.iter().map(|(_, tasks, _)| tasks).sum(), fleet: fleet.path.clone(), jobs }
}

/// Submits what is missing of a fleet whose submission broke off, and again every task that ended without a verdict.
pub fn go_on(fleet: &Fleet, slurm: &Slurm, overrides: &Overrides) -> Result<Submitted> {
    check_options(overrides.named(), |option| format!("--{option}"))?;
    // A search that is over wants no more workers.
    if let Some(search) = fleet.search()
        && found(&search)?.is_some()
    {
        return Ok(submitted(fleet, Vec::new()));
    }
    let named = overrides.named().into_iter();
    let options: Vec<String> =
        named.filter_map(|(option, value)| Some(format!("--{option}={}", value.as_ref()?))).collect();
    let mut made = submit_due(slurm, fleet, &options)?;
    let seen = Sightings::of(fleet)?;
    // A task that nobody can ask about may be at work.
    if let Some(why) = &seen.silent {
        bail!("nothing is submitted again while Slurm does not say what is at work: {why}");
    }
    let mut again: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for place in fleet.places() {
        if standing(fleet, &seen, &place)?.0.state.wants_another_try() {
            again.entry(place.task.kind).or_default().push(place.index);
        }
    }
    let before = submissions(fleet)?;
    for (kind, tasks) in again {
        let number = 1 + before.iter().filter(|submission| submission.kind == kind).count() as u32;
        Submission { kind, number, tasks, job: None }.keep(fleet)?;
    }
    made.extend(submit_due(slurm, fleet, &options)?);
    Ok(submitted(fleet, made))
}

/// A gate that is named and not packed, for a script that is only shown.
fn planned(layout: &Layout, name: &str, plan: &Plan) -> Gate {
    let suite = (!name.ends_with(".toml")).then(|| name.to_owned());
    let file =
        suite.as_ref().map_or_else(|| PathBuf::from(name), |suite| layout.suites().join(format!("{suite}.toml")));
    Gate { name: plan.suite.name.clone(), file, suite, files: Default::default() }
}

/// Makes a dist folder and packs it: where it lies in the shared folder, and of which sources it is.
pub fn packed(layout: &Layout, config: &Config) -> Result<(PathBuf, SourceState)> {
    // A mount that is missing must not be taken for an empty folder.
    ensure!(
        config.shared.is_dir(),
        "the shared folder `{}` is not there; make it or mount it",
        config.shared.display()
    );
    let dist = dist::portable(layout)?;
    patiently(&config.shared, || pack_dist(&dist, &config.shared))
}

fn pack_dist(dist: &Path, shared: &Path) -> Result<(PathBuf, SourceState)> {
    let mut files = under(dist, &dist::FOLDERS)?;
    files.extend(dist::FILES.map(PathBuf::from));
    let packed = pack(dist, &files, shared, "dist")?;
    let folder = shared.join("dist").join(&packed.key);
    let source = SourceState::of(&Layout::at(folder.clone(), folder.join("target")));
    Ok((Path::new("dist").join(packed.key), source))
}

/// A gate file goes with everything beside it; a suite is part of the dist folder.
fn pack_gate(name: &str, plan: &Plan, shared: &Path, dist: &Path) -> Result<Gate> {
    if !name.ends_with(".toml") {
        let file = dist.join("kbench/suites").join(format!("{name}.toml"));
        return Ok(Gate {
            name: plan.suite.name.clone(),
            file,
            suite: Some(name.to_owned()),
            files: Default::default(),
        });
    }
    let path = std::path::absolute(name)?;
    let (folder, file) = (path.parent().context("a file has a folder")?, path.file_name().context("it has a name")?);
    let packed = pack(folder, &beside(folder)?, shared, "gates")?;
    let file = Path::new("gates").join(packed.key).join(file);
    Ok(Gate { name: plan.suite.name.clone(), file, suite: None, files: packed.files })
}

pub fn fleet(
    config: &Config,
    requests: &[Request],
    (dist, source): (PathBuf, SourceState),
    gates: Vec<Gate>,
    repeats: u32,
) -> Fleet {
    let now = jiff::Timestamp::now();
    let what = match gates.as_slice() {
        [gate] => gate.name.clone(),
        gates => format!("{}-gates", gates.len()),
    };
    let what: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let kind = |request: &Request| Kind { name: request.kind.clone(), device: request.device.clone() };
    let record = Record {
        format: FORMAT,
        begun: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        source,
        dist,
        kinds: requests.iter().map(kind).collect(),
        gates,
        repeats,
        search: false,
    };
    // Two fleets of one second must not be one: the process tells them apart.
    let name = format!("{}-{what}-{}", now.strftime("%Y%m%dT%H%M%SZ"), std::process::id());
    Fleet { path: config.shared.join("fleets").join(name), record }
}

pub fn scripts(fleet: &Fleet, requests: &[Request]) -> Vec<(String, String)> {
    requests.iter().map(|request| (request.kind.clone(), script(fleet, request))).collect()
}

/// Everything but the submission, which is announced. Jobs make no folder: where the shared one is away, they would make
/// another.
pub fn begin(fleet: &Fleet, requests: &[Request]) -> Result<()> {
    let shared = fleet.shared();
    let below = fleet.path.strip_prefix(shared).context("a fleet lies in the shared folder")?;
    patiently(shared, || {
        let runs = fleet.places().into_iter().map(|place| place.folder.join("runs"));
        for folder in ["logs", "jobs"].map(|name| fleet.path.join(name)).into_iter().chain(runs) {
            folders_below(shared, &below.join(folder.strip_prefix(&fleet.path)?))?;
        }
        for (kind, text) in scripts(fleet, requests) {
            write_whole(&fleet.path.join(format!("{kind}.sh")), text.as_bytes())?;
        }
        for kind in &fleet.record.kinds {
            let tasks = (0..fleet.tasks_of_kind()).collect();
            Submission { kind: kind.name.clone(), number: 1, tasks, job: None }.keep(fleet)?;
        }
        fleet.keep()
    })
}

/// Submits what is announced and was not submitted, and returns it with its numbers.
pub fn submit_due(slurm: &Slurm, fleet: &Fleet, options: &[String]) -> Result<Vec<Submission>> {
    let mut made = Vec::new();
    for mut due in submissions(fleet)?.into_iter().filter(|submission| submission.job.is_none()) {
        let script = fleet.path.join(format!("{}.sh", due.kind));
        let mut options = options.to_vec();
        // The script has all tasks of its kind.
        if due.number > 1 {
            let tasks = due.tasks.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            options.push(format!("--array={tasks}"));
        }
        let job = patiently(&fleet.path, || slurm.submit(&script, &due.name(fleet), &options));
        due.job = Some(job.with_context(|| {
            format!("`{}` was not submitted for {}; go on with --resume", fleet.path.display(), due.kind)
        })?);
        due.keep(fleet)?;
        made.push(due);
    }
    Ok(made)
}
