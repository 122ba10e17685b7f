//! One gate file on many GPUs, through Slurm: `run` packs and submits, `status` says where every task stands, `collect` makes
//! one report. Control, candidates and peers of a verdict stay in one job on one GPU; kinds of device, gate files and repeats
//! are what is spread. A fleet is a folder that login and compute nodes see under one path:
//!
//! ```text
//! SHARED/dist/<key>/   SHARED/gates/<key>/     packed once, named by content
//! SHARED/fleets/<name>/fleet.json              what was submitted
//!                      <kind>.sh               the job of a kind
//!                      jobs/<kind>.<n>.json    its n-th submission: of which tasks, and its number in the queue
//!                      logs/<kind>-<n>.txt     what task n of a kind said
//!                      tasks/<kind>-<n>/       begin-<try>.json, end-<try>.json, runs/, abandoned/
//!                      REPORT.md  report.html
//!                      search/                      of a search: what its workers share, see `crate::tune`
//! ```
//!
//! Leaves to others: what verdicts add up to (`kbench::fleet`), and everything about one run.

mod collect;
mod config;
mod jobs;
mod pack;
mod script;
mod search;
mod slurm;
mod status;
mod submit;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kbench::fleet::Task;
use kbench::suite::Suite;
use serde::{Deserialize, Serialize};

use crate::accepted::packed_suite;
use crate::environment::SourceState;
use crate::files::write_whole;
use crate::plan::{Changes, Plan};
use crate::shared::{has, patiently};

pub use collect::{Report, report};
pub use config::{Config, Overrides};
pub use search::{SearchOrder, take_part, tune};
pub use slurm::Slurm;
pub use status::{TaskStatus, exit, render, status};
pub use submit::{Order, Submitted, go_on, submit};

/// The record of a fleet.
const RECORD: &str = "fleet.json";
/// The format that a fleet's folder is written in.
const FORMAT: u32 = 2;
/// The folder of a search in its fleet.
const SEARCH: &str = "search";
/// The device of a kind whose jobs need no GPU.
pub const EMULATOR: &str = "emulator";

/// What was submitted; `fleet.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u32,
    /// When, in UTC.
    begun: String,
    /// The sources of the dist folder.
    source: SourceState,
    /// The dist folder, from the shared folder.
    dist: PathBuf,
    kinds: Vec<Kind>,
    gates: Vec<Gate>,
    repeats: u32,
    /// Whether its tasks are the workers of one search, and not validations.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    search: bool,
}

/// A kind of device, and what its runs must say that they ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kind {
    name: String,
    device: String,
}

/// A gate file, or a suite that comes with the project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Gate {
    /// The name that it gives itself.
    name: String,
    /// The file, from the shared folder.
    file: PathBuf,
    /// By which name `validate` is asked for it; the file where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suite: Option<String>,
    /// SHA-256 of what lies beside a gate file, by path.
    files: BTreeMap<String, String>,
}

/// A fleet's folder and its record.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub path: PathBuf,
    record: Record,
}

/// Where one task lies.
#[derive(Clone, Debug)]
struct Place {
    task: Task,
    /// Which of its kind, as the scheduler counts.
    index: usize,
    folder: PathBuf,
    log: PathBuf,
}

impl Fleet {
    /// An existing one.
    pub fn open(path: &Path) -> Result<Fleet> {
        let path = std::path::absolute(path)?;
        let file = path.join(RECORD);
        let text = patiently(&path, || {
            std::fs::read_to_string(&file)
                .with_context(|| format!("`{}` is no fleet: it has no {RECORD}", path.display()))
        })?;
        let record: Record =
            serde_json::from_str(&text).with_context(|| format!("`{}` is not what it should be", file.display()))?;
        ensure!(
            record.format == FORMAT,
            "`{}` has format {}, and this program reads format {FORMAT}; use the program that wrote it",
            file.display(),
            record.format
        );
        Ok(Fleet { path, record })
    }

    /// Writes the record.
    fn keep(&self) -> Result<()> {
        write_whole(&self.path.join(RECORD), serde_json::to_string_pretty(&self.record)?.as_bytes())
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The folder of its search, where it is one.
    pub fn search(&self) -> Option<PathBuf> {
        self.record.search.then(|| self.path.join(SEARCH))
    }

    /// The shared folder that it lies in.
    fn shared(&self) -> &Path {
        self.path.ancestors().nth(2).unwrap_or(&self.path)
    }

    /// Every task, by kind, gate file and repeat.
    fn places(&self) -> Vec<Place> {
        let of_kind = |kind: &Kind| {
            let pairs =
                self.record.gates.iter().flat_map(|gate| (1..=self.record.repeats).map(move |repeat| (gate, repeat)));
            let place = |(index, (gate, repeat)): (usize, (&Gate, u32))| {
                let name = format!("{}-{index}", kind.name);
                Place {
                    task: Task { kind: kind.name.clone(), gate: gate.name.clone(), repeat },
                    index,
                    folder: self.path.join("tasks").join(&name),
                    log: self.path.join("logs").join(name + ".txt"),
                }
            };
            pairs.enumerate().map(place).collect::<Vec<_>>()
        };
        self.record.kinds.iter().flat_map(of_kind).collect()
    }

    /// Tasks of one kind.
    fn tasks_of_kind(&self) -> usize {
        self.record.gates.len() * self.record.repeats as usize
    }

    /// Whether something is there. An error where the fleet itself is not: then its folder is away, and nothing is known.
    fn has(&self, path: &Path) -> Result<bool> {
        has(path, &self.path.join(RECORD))
    }

    /// The gate files as they were packed.
    fn suites<'a>(&'a self) -> Result<Vec<(&'a Gate, Suite)>> {
        let read = |gate: &'a Gate| -> Result<(&'a Gate, Suite)> {
            let path = self.shared().join(&gate.file);
            let suite = packed_suite(&path).with_context(|| format!("gate file `{}`", path.display()))?;
            // Settled as a run settles it.
            let plan = Plan::of(suite, path.parent().unwrap_or(Path::new(".")), &Changes::default())?;
            Ok((gate, plan.suite))
        };
        patiently(&self.path, || self.record.gates.iter().map(read).collect())
    }
}

#[cfg(test)]
mod tests {
    use kbench::fleet::same_gate;

    use super::*;
    use crate::layout::Layout;
    use crate::plan::suite_names;

    #[test]
    fn every_suite_is_known_again_in_the_run_that_used_it() {
        let layout = Layout::find().unwrap();
        for name in suite_names(&layout) {
            let planned = Plan::read(&layout, &name, &Changes::default()).unwrap().suite;
            let used = Suite::parse_recorded(&toml::to_string(&planned).unwrap()).unwrap();
            assert!(same_gate(&planned, &used), "{name}");
        }
    }
}
