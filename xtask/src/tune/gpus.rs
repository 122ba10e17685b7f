//! The GPUs of this machine, one runner each: every process sees the one that it is to use and no other.

use anyhow::Result;

use crate::runner::{Runner, VISIBLE_DEVICES};
use crate::validate::{Found, probe};

/// More are not looked for.
const MOST: usize = 16;

/// A GPU and its runner.
pub struct Gpu {
    /// The runner, to which this GPU alone is visible.
    pub runner: Runner,
    /// The GPU.
    pub found: Found,
}

/// GPUs of the first one's model, at most so many; or why there is none. What the environment hides stays hidden.
pub fn find(runner: &Runner, at_most: Option<usize>) -> Result<Result<Vec<Gpu>, String>> {
    let visible = std::env::var(VISIBLE_DEVICES).ok();
    let names: Vec<String> = match &visible {
        Some(list) => list.split(',').map(|name| name.trim().to_owned()).collect(),
        None => (0..MOST).map(|ordinal| ordinal.to_string()).collect(),
    };
    let mut gpus: Vec<Gpu> = Vec::new();
    for name in names.into_iter().take(at_most.unwrap_or(MOST)) {
        let runner = runner.on_gpu(&name);
        let found = probe(&runner)?;
        let Some((device, _)) = &found.device else {
            if gpus.is_empty() {
                return Ok(Err(found.why_not.unwrap_or_else(|| "no GPU; run on a machine with one".to_owned())));
            }
            break;
        };
        let known = |other: &Gpu| other.found.device.as_ref().map(|(d, _)| (d.uuid.clone(), d.name.clone()));
        // A stand-in that ignores the variable shows one GPU over and over.
        if gpus.iter().filter_map(known).any(|(uuid, _)| uuid == device.uuid) {
            break;
        }
        if gpus.iter().filter_map(known).all(|(_, model)| model == device.name) {
            gpus.push(Gpu { runner, found });
        }
    }
    Ok(Ok(gpus))
}
