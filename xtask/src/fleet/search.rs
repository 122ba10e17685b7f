//! `fleet tune`: one search by the tasks of one job array, each a worker on a card of its own. What they share lies in the
//! fleet's folder. Leaves to others: the search (`crate::tune`), and everything about tasks that is as with validations.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::config::{Config, Overrides, Request};
use super::script::script;
use super::slurm::Slurm;
use super::submit::{MOST_TASKS, Submitted, begin, fleet, packed, submit_due, submitted};
use super::{EMULATOR, Fleet, Gate, SEARCH};
use crate::environment::SourceState;
use crate::files::folders_below;
use crate::layout::{Layout, program};
use crate::plan::Plan;
use crate::shared::patiently;
use crate::tune::{self, Options, Ran, Worker};

/// What is asked for.
pub struct SearchOrder<'a> {
    /// The suite as a search has it.
    pub suite: &'a Plan,
    pub options: &'a Options,
    /// The kind of device. Of one search all workers have the same.
    pub on: String,
    pub workers: u32,
    pub overrides: Overrides,
    /// Show the script, and leave nothing.
    pub dry_run: bool,
}

/// Packs, writes the search down, and submits its workers.
pub fn tune(layout: &Layout, config: &Config, order: &SearchOrder) -> Result<Submitted> {
    let requests = config.requests(std::slice::from_ref(&order.on), &order.overrides)?;
    ensure!(order.workers > 0, "--workers must be at least 1");
    let most = MOST_TASKS as u32;
    ensure!(order.workers <= most, "{} workers are more than the {most} that one array takes", order.workers);
    let plan = tune::planned(order.suite, order.options)?;
    let slurm = match Slurm::find()? {
        Ok(slurm) => slurm,
        Err(_) if order.dry_run => return Ok(shown(config, &requests, order)),
        Err(why) => return Ok(Submitted::Deferred(why)),
    };
    if order.dry_run {
        return Ok(shown(config, &requests, order));
    }
    let fleet = fleet_of(config, &requests, packed(layout, config)?, order);
    let shared = fleet.shared();
    let folder = fleet.path.join(SEARCH);
    patiently(shared, || {
        folders_below(shared, folder.strip_prefix(shared).context("a fleet lies in the shared folder")?)?;
        tune::offer(&folder, order.suite, &plan)
    })?;
    begin(&fleet, &requests)?;
    Ok(submitted(&fleet, submit_due(&slurm, &fleet, &[])?))
}

fn shown(config: &Config, requests: &[Request], order: &SearchOrder) -> Submitted {
    let fleet = fleet_of(config, requests, ("dist/<key>".into(), SourceState::default()), order);
    Submitted::Scripts(requests.iter().map(|request| (request.kind.clone(), script(&fleet, request))).collect())
}

fn fleet_of(
    config: &Config,
    requests: &[Request],
    packed: (std::path::PathBuf, SourceState),
    order: &SearchOrder,
) -> Fleet {
    let name = order.suite.suite.name.clone();
    // The suite lies in the search's own folder.
    let gate = Gate { name, file: Path::new(SEARCH).join("suite.toml"), suite: None, files: BTreeMap::new() };
    let mut fleet = fleet(config, requests, packed, vec![gate], order.workers);
    fleet.record.search = true;
    fleet
}

/// Takes part in the search of a fleet under a name that no other process has: what its jobs do.
pub fn take_part(layout: &Layout, fleet: &Fleet, name: &str) -> Result<Ran> {
    let search = fleet.search().with_context(|| format!("`{}` is no search", fleet.path.display()))?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !name.starts_with('.');
    ensure!(is_name && !name.is_empty(), "a worker's name has letters, digits, `-`, `_` and `.`");
    let kind = fleet.record.kinds.first().context("a search has a kind of device")?;
    let gpu = (kind.device != EMULATOR).then_some(kind.device.as_str());
    let again = format!("{} fleet run --resume {}", program(), fleet.path.display());
    tune::work(layout, &Worker { search: &search, name, gpu, again })
}
