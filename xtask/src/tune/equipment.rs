//! What a search needs of its machine: GPUs, or the emulator where that is asked for, compilers, and the sources that both are
//! given; or why there is no such thing.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Result, anyhow, bail};
use kbench::deferral::Deferral;
use kbench::evidence::Environment;
use kbench::job::Executor;
use kbench::suite::Suite;
use kbench::tune::Plan;

use super::Options;
use super::gpus::{self, Gpu};
use crate::basis::Basis;
use crate::environment::{self, SourceState};
use crate::layout::Layout;
use crate::plan::DeviceChoice;
use crate::runner::Runner;
use crate::toolchain::{self, Toolchain};
use crate::work::Found;

/// What a search measures and builds with.
pub struct Equipment {
    /// GPUs of one model, or what stands in for one.
    pub gpus: Vec<Gpu>,
    pub executor: Executor,
    pub toolchain: Toolchain,
    pub source: SourceState,
    /// The runner, to which every GPU is visible.
    pub runner: Runner,
}

/// Looks for all of it.
pub fn equipment(layout: &Layout, base: &Suite, options: &Options) -> Result<Result<Equipment, Deferral>> {
    let runner = Runner::locate(layout, &layout.target.join("tune"))?;
    // Each takes a good part of a second, and none needs the others. Compilers are installed only where there is a device.
    let (devices, here, source) = std::thread::scope(|scope| {
        let here = scope.spawn(|| toolchain::find(&layout.target));
        let source = scope.spawn(|| SourceState::of(layout));
        (devices(&runner, base, options), here.join().ok().flatten(), source.join())
    });
    let source = source.map_err(|_| anyhow!("the thread that asks for the sources died"))?;
    let (gpus, executor) = match devices? {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    let found = here.map_or_else(|| toolchain::find_or_install(&layout.target, &crate::console::line), Ok);
    Ok(match found {
        Ok(toolchain) => Ok(Equipment { gpus, executor, toolchain, source, runner }),
        Err(error) => Err(error.deferral()),
    })
}

/// Every GPU, or the emulator where that is asked for.
fn devices(runner: &Runner, base: &Suite, options: &Options) -> Result<Result<(Vec<Gpu>, Executor), Deferral>> {
    if options.device == DeviceChoice::Emulator {
        if base.emulation.is_none() {
            let deferral = Deferral::new("the suite allows no emulation", "run on a machine with an NVIDIA GPU");
            return Ok(Err(deferral));
        }
        let found = Found { device: None, why_not: None };
        return Ok(Ok((vec![Gpu { runner: runner.clone(), found, resident: Mutex::default() }], Executor::Emulator)));
    }
    match gpus::find(runner, options.gpus)? {
        Ok(gpus) => Ok(Ok((gpus, Executor::Gpu))),
        Err(why) if options.device == DeviceChoice::Gpu => bail!("--device gpu: {why}"),
        Err(why) => Ok(Err(why)),
    }
}

impl Equipment {
    /// The name of the GPUs, as the driver has it.
    pub fn model(&self) -> Option<String> {
        self.gpus.first().and_then(|gpu| gpu.found.device.as_ref()).map(|(device, _)| device.name.clone())
    }

    /// Has everything that runs write its logs below a folder that is there.
    pub fn log_to(&mut self, logs: &Path) {
        self.runner.logs = logs.to_owned();
        for (i, gpu) in self.gpus.iter_mut().enumerate() {
            gpu.runner.logs = logs.join(format!("gpu{i}"));
        }
    }

    /// What a search with it rests on.
    pub fn basis(&self, base: &Suite, plan: &Plan) -> Result<Basis> {
        Basis::of_search(base, &self.source, self.model(), plan, &self.toolchain.nvcc_version)
    }

    pub fn environment(&self, started: jiff::Timestamp) -> Environment {
        let device = self.gpus.first().and_then(|gpu| gpu.found.device.clone());
        let (device, device_state) = device.map_or((None, None), |(device, state)| (Some(device), Some(state)));
        Environment { device, device_state, ..environment::collect(&self.source, Some(&self.toolchain), started) }
    }
}
