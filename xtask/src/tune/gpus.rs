//! The GPUs of this machine, one runner each: every process sees the one that it is to use and no other.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use kbench::deferral::Deferral;
use kbench::job::{Event, Job};
use kbench::tune::{Line, Stage};

use super::measure::Watch;
use crate::gpus;
use crate::runner::{End, Resident, Runner};
use crate::work::Found;

/// Describing every device.
const SILENCE: Duration = Duration::from_secs(60);

/// A GPU and its runner.
pub struct Gpu {
    /// The runner, to which this GPU alone is visible.
    pub runner: Runner,
    pub found: Found,
    /// The process that keeps a context on it.
    pub resident: Mutex<Resident>,
}

impl Gpu {
    pub fn uuid(&self) -> Option<String> {
        self.found.device.as_ref().map(|(device, _)| device.uuid.clone())
    }

    /// Its resident, for one job at a time.
    pub fn resident(&self) -> MutexGuard<'_, Resident> {
        self.resident.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its time was spent on, as a line of the journal.
    pub fn spent(&self, stage: Stage, configurations: usize, watch: Watch) -> Line {
        Line::Spent { stage, gpu: self.uuid(), configurations, spans: watch.spans }
    }
}

/// GPUs of the first one's model, at most so many; or why there is none. What the environment hides stays hidden.
pub fn find(runner: &Runner, at_most: Option<usize>) -> Result<Result<Vec<Gpu>, Deferral>> {
    let (mut devices, mut why_not) = (Vec::new(), None);
    let name = gpus::names();
    // Opening takes long, and the driver opens one after the other: the first begins before it is known how many there are.
    let opened = |runner: &Runner| {
        let mut resident = Resident::default();
        // Where it does not start, the first job says why.
        let _ = resident.start(runner);
        resident
    };
    let mut first = Some(opened(&runner.on_gpu(&name(0))));
    let end = runner.run("devices", &Job::Devices, SILENCE, |event| match event {
        Event::Device { device, state, .. } => devices.push((device, state)),
        Event::NoDevice(deferral) => why_not = Some(deferral),
        _ => {}
    })?;
    if let End::Error(why) | End::Lost { why, .. } = end {
        return Ok(Err(Deferral::new(format!("the devices could not be asked: {why}"), "check `nvidia-smi`")));
    }
    let Some(model) = devices.first().map(|(device, _)| device.name.clone()) else {
        return Ok(Err(why_not.unwrap_or_else(|| Deferral::new("no GPU", "run on a machine with one"))));
    };
    let alike = devices.into_iter().enumerate().filter(|(_, (device, _))| device.name == model);
    let gpu = |(i, device)| {
        let runner = runner.on_gpu(&name(i));
        let resident = first.take().unwrap_or_else(|| opened(&runner));
        Gpu { runner, found: Found { device: Some(device), why_not: None }, resident: Mutex::new(resident) }
    };
    Ok(Ok(alike.take(at_most.unwrap_or(usize::MAX)).map(gpu).collect()))
}
