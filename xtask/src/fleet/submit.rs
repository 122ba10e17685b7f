//! `fleet run`: packs the dist folder and the gate files, writes a job for each kind of device, and submits them. What is
//! wrong is said before anything is written; a submission that broke off is gone on with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kbench::deferral::Deferral;
use serde::Serialize;

use super::config::{Config, Request};
use super::pack::{beside, pack, under};
use super::script::script;
use super::shared::patiently;
use super::slurm::Slurm;
use super::{FORMAT, Fleet, Gate, Kind, Record};
use crate::dist;
use crate::environment::SourceState;
use crate::files::write_whole;
use crate::layout::Layout;
use crate::plan::{Changes, Plan};

/// What is asked for.
pub struct Order {
    /// Gate files, and suites by name.
    pub gates: Vec<String>,
    pub on: Vec<String>,
    pub repeats: u32,
    pub partition: Option<String>,
    pub account: Option<String>,
    /// Show the scripts, and leave nothing.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Submitted {
    /// The scripts by kind.
    Scripts(Vec<(String, String)>),
    /// The fleet, and the number of each kind's job.
    Jobs { fleet: PathBuf, jobs: Vec<(String, u64)>, tasks: usize },
    /// Why nothing was submitted.
    Deferred(Deferral),
}

/// Most tasks of one kind: what Slurm takes of an array where nobody set another limit.
const MOST_TASKS: usize = 1000;

pub fn submit(layout: &Layout, config: &Config, order: &Order) -> Result<Submitted> {
    let requests = config.requests(&order.on, order.partition.as_deref(), order.account.as_deref())?;
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
        let fleet = fleet(config, order, &requests, ("dist/<key>".into(), SourceState::default()), gates);
        return Ok(Submitted::Scripts(scripts(&fleet, &requests)));
    }
    let slurm = slurm.context("a submission has a scheduler")?;
    // A mount that is missing must not be taken for an empty folder.
    ensure!(
        config.shared.is_dir(),
        "the shared folder `{}` is not there; make it or mount it",
        config.shared.display()
    );
    let dist = dist::portable(layout)?;
    let (dist, source) = patiently(&config.shared, || pack_dist(&dist, &config.shared))?;
    let gates = order
        .gates
        .iter()
        .zip(&plans)
        .map(|(name, plan)| patiently(&config.shared, || pack_gate(name, plan, &config.shared, &dist)));
    let gates = gates.collect::<Result<_>>()?;
    let fleet = fleet(config, order, &requests, (dist, source), gates);
    begin(&fleet, &requests)?;
    let jobs = requests.iter().map(|request| Ok((request.kind.clone(), submit_kind(&slurm, &fleet, &request.kind)?)));
    let jobs = jobs.collect::<Result<_>>()?;
    Ok(Submitted::Jobs { tasks: fleet.places().len(), fleet: fleet.path, jobs })
}

/// Submits what is missing of a fleet whose submission broke off.
pub fn go_on(fleet: &Fleet, slurm: &Slurm) -> Result<Submitted> {
    let kinds = fleet.record.kinds.iter().map(|kind| &kind.name);
    let jobs = kinds.map(|kind| Ok((kind.clone(), submit_kind(slurm, fleet, kind)?))).collect::<Result<_>>()?;
    Ok(Submitted::Jobs { tasks: fleet.places().len(), fleet: fleet.path.clone(), jobs })
}

/// A gate that is named and not packed, for a script that is only shown.
fn planned(layout: &Layout, name: &str, plan: &Plan) -> Gate {
    let suite = (!name.ends_with(".toml")).then(|| name.to_owned());
    let file =
        suite.as_ref().map_or_else(|| PathBuf::from(name), |suite| layout.suites().join(format!("{suite}.toml")));
    Gate { name: plan.suite.name.clone(), file, suite, files: Default::default() }
}

fn pack_dist(dist: &Path, shared: &Path) -> Result<(PathBuf, SourceState)> {
    let mut files = under(dist, &dist::FOLDERS)?;
    files.extend(dist::FILES.map(PathBuf::from));
    let packed = pack(dist, &files, &shared.join("dist"))?;
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
    let packed = pack(folder, &beside(folder)?, &shared.join("gates"))?;
    let file = Path::new("gates").join(packed.key).join(file);
    Ok(Gate { name: plan.suite.name.clone(), file, suite: None, files: packed.files })
}

fn fleet(
    config: &Config,
    order: &Order,
    requests: &[Request],
    (dist, source): (PathBuf, SourceState),
    gates: Vec<Gate>,
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
        repeats: order.repeats,
    };
    // Two fleets of one second must not be one: the process tells them apart.
    let name = format!("{}-{what}-{}", now.strftime("%Y%m%dT%H%M%SZ"), std::process::id());
    Fleet { path: config.shared.join("fleets").join(name), record }
}

fn scripts(fleet: &Fleet, requests: &[Request]) -> Vec<(String, String)> {
    requests.iter().map(|request| (request.kind.clone(), script(fleet, request))).collect()
}

/// Everything but the submission.
fn begin(fleet: &Fleet, requests: &[Request]) -> Result<()> {
    patiently(fleet.shared(), || {
        for folder in ["logs", "ids", "tasks"] {
            let folder = fleet.path.join(folder);
            std::fs::create_dir_all(&folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
        }
        for (kind, text) in scripts(fleet, requests) {
            write_whole(&fleet.path.join(format!("{kind}.sh")), text.as_bytes())?;
        }
        fleet.keep()
    })
}

/// The number of a kind's job, which is submitted unless it was.
fn submit_kind(slurm: &Slurm, fleet: &Fleet, kind: &str) -> Result<u64> {
    if let Some(job) = fleet.job(kind)? {
        return Ok(job);
    }
    let script = fleet.path.join(format!("{kind}.sh"));
    let job = patiently(&fleet.path, || slurm.submit(&script, &fleet.job_name(kind)));
    let job =
        job.with_context(|| format!("`{}` was not submitted for {kind}; go on with --resume", fleet.path.display()))?;
    patiently(&fleet.path, || write_whole(&fleet.path.join("ids").join(kind), job.to_string().as_bytes()))?;
    Ok(job)
}
