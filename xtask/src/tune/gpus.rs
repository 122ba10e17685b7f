//! The GPUs of this machine, one runner each: every process sees the one that it is to use and no other.

use anyhow::{Result, anyhow};
use kbench::tune::{Line, Stage};

use super::measure::Watch;
use crate::runner::{Runner, VISIBLE_DEVICES};
use crate::validate::{Found, probe};

/// More are not looked for.
const MOST: usize = 16;
/// Asked at once: the start of a process takes longer than its answer.
const AT_ONCE: usize = 4;

/// A GPU and its runner.
pub struct Gpu {
    /// The runner, to which this GPU alone is visible.
    pub runner: Runner,
    /// The GPU.
    pub found: Found,
}

impl Gpu {
    /// Its unique id.
    pub fn uuid(&self) -> Option<String> {
        self.found.device.as_ref().map(|(device, _)| device.uuid.clone())
    }

    /// What its time was spent on, as a line of the journal.
    pub fn spent(&self, stage: Stage, configurations: usize, watch: Watch) -> Line {
        Line::Spent { stage, gpu: self.uuid(), configurations, spans: watch.spans }
    }
}

/// GPUs of the first one's model, at most so many; or why there is none. What the environment hides stays hidden.
pub fn find(runner: &Runner, at_most: Option<usize>) -> Result<Result<Vec<Gpu>, String>> {
    let visible = std::env::var(VISIBLE_DEVICES).ok();
    let mut names: Vec<String> = match &visible {
        Some(list) => list.split(',').map(|name| name.trim().to_owned()).collect(),
        None => (0..MOST).map(|ordinal| ordinal.to_string()).collect(),
    };
    names.truncate(at_most.unwrap_or(MOST));
    let mut gpus: Vec<Gpu> = Vec::new();
    for names in names.chunks(AT_ONCE) {
        for asked in ask(runner, names) {
            let gpu = asked?;
            let Some((device, _)) = &gpu.found.device else {
                if gpus.is_empty() {
                    let why = gpu.found.why_not.unwrap_or_else(|| "no GPU; run on a machine with one".to_owned());
                    return Ok(Err(why));
                }
                return Ok(Ok(gpus));
            };
            let known = |other: &Gpu| other.found.device.as_ref().map(|(d, _)| (d.uuid.clone(), d.name.clone()));
            // A stand-in that ignores the variable shows one GPU over and over.
            if gpus.iter().filter_map(known).any(|(uuid, _)| uuid == device.uuid) {
                return Ok(Ok(gpus));
            }
            if gpus.iter().filter_map(known).all(|(_, model)| model == device.name) {
                gpus.push(gpu);
            }
        }
    }
    Ok(Ok(gpus))
}

/// Probes the GPUs of these names, all at once.
fn ask(runner: &Runner, names: &[String]) -> Vec<Result<Gpu>> {
    let probed = |name: &String| {
        let runner = runner.on_gpu(name);
        let found = probe(&runner)?;
        Ok(Gpu { runner, found })
    };
    let probed = &probed;
    std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || probed(name))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a probing thread died")))).collect()
    })
}
