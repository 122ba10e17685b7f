//! One process, one job: a JSON job on the first line of standard input, JSON events on standard output. A kernel that
//! hangs or faults takes only this process with it. The protocol is `kbench::job`.

mod bench;
mod callable;
mod ceilings;
mod conformance;
mod cuda;
mod digest;
mod emulate;
mod events;
mod launch;
mod nvml;
mod peers;
mod profile;
#[cfg(test)]
#[path = "../tests/declared/python.rs"]
mod python;
mod resident;
mod talk;
mod workload;

use std::io::{BufRead, Read};
use std::process::ExitCode;

use anyhow::Result;
use kbench::deferral::Deferral;
use kbench::job::{EXIT_BAD_JOB, EXIT_DONE, EXIT_ERROR, ErrorsJob, Event, Executor, Job};

use crate::events::emit;

fn main() -> ExitCode {
    if let Some(not_confined) = confine::enter() {
        return not_confined;
    }
    if let Err(error) = events::claim_standard_output() {
        eprintln!("error: standard output cannot be claimed: {error}");
        return ExitCode::from(EXIT_ERROR as u8);
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let job = match read.map_err(anyhow::Error::from).and_then(|_| Ok(Job::from_line(&line)?)) {
        Ok(job) => job,
        Err(error) => {
            emit(&Event::Error { why: format!("the job on standard input is not one: {error}") });
            return ExitCode::from(EXIT_BAD_JOB as u8);
        }
    };
    if !matches!(job, Job::Resident | Job::Comparer) {
        end_with_the_pipeline();
    }
    match run(&job) {
        Ok(()) => {
            emit(&Event::Done);
            ExitCode::from(EXIT_DONE as u8)
        }
        Err(error) => {
            emit(&Event::Error { why: format!("{error:#}").replace('\n', " ") });
            ExitCode::from(EXIT_ERROR as u8)
        }
    }
}

/// The pipeline keeps our standard input open while it lives. When it closes, whoever asked is gone.
fn end_with_the_pipeline() {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().lock().read_to_end(&mut rest);
        std::process::exit(EXIT_ERROR);
    });
}

fn run(job: &Job) -> Result<()> {
    match job {
        Job::Errors(job) => return compare(job),
        Job::Comparer => return resident::compare(),
        Job::Generate(job) => return operators::declared::generate(job, &mut |event| emit(&event)),
        Job::Probe => return probe(),
        Job::Devices => return devices(),
        Job::Resident => return resident::run(),
        Job::Launch(job) if job.executor != Executor::Gpu => return emulate::run(job),
        Job::Launch(job) if let Some(call) = callable::of(&job.module) => return callable::run(job, call),
        Job::LaunchBatch { jobs } if jobs.iter().any(|job| job.executor != Executor::Gpu) => {
            return emulate::run_batch(jobs);
        }
        Job::Launch(_)
        | Job::LaunchBatch { .. }
        | Job::Bench(_)
        | Job::Profile(_)
        | Job::Ceilings(_)
        | Job::Conformance { .. } => {}
    }
    if let Some(deferral) = cuda::missing_driver() {
        emit(&Event::NoDevice(deferral));
        return Ok(());
    }
    match job {
        Job::Launch(job) => launch::run(job),
        Job::LaunchBatch { jobs } => launch::run_batch(&cuda::Gpu::open()?, jobs),
        Job::Bench(job) => bench::run(job),
        Job::Profile(job) => profile::run(job),
        Job::Ceilings(job) => ceilings::run(job),
        Job::Conformance { out_dir } => conformance::run(out_dir),
        Job::Errors(_) | Job::Generate(_) | Job::Comparer | Job::Probe | Job::Devices | Job::Resident => Ok(()),
    }
}

/// Compares outputs, beside others where it may not have the whole host.
fn compare(job: &ErrorsJob) -> Result<()> {
    if job.threads > 0 {
        resident::make_way();
        rayon::ThreadPoolBuilder::new().num_threads(job.threads as usize).build_global()?;
    }
    operators::comparer(&job.task, false).run(job, &mut |event| emit(&event))
}

/// Describes all devices, or says why there is none.
fn devices() -> Result<()> {
    if let Some(deferral) = cuda::missing_driver() {
        emit(&Event::NoDevice(deferral));
        return Ok(());
    }
    match cuda::visible() {
        Err(error) => emit(&Event::NoDevice(Deferral::new(format!("{error:#}"), "check `nvidia-smi`"))),
        Ok(devices) => {
            for mut device in devices {
                let monitor = nvml::Monitor::connect(&device.uuid);
                if let Some(monitor) = &monitor {
                    monitor.complete(&mut device);
                }
                let others = monitor.as_ref().map(|m| m.compute_processes()).unwrap_or_default();
                let state = monitor.map(|m| m.state()).unwrap_or_default();
                emit(&Event::Device { device, state, others });
            }
        }
    }
    Ok(())
}

/// Describes the device, or says why there is none.
fn probe() -> Result<()> {
    if let Some(deferral) = cuda::missing_driver() {
        emit(&Event::NoDevice(deferral));
        return Ok(());
    }
    let others = cuda::first_uuid().ok().and_then(|uuid| nvml::Monitor::connect(&uuid));
    let others = others.map(|m| m.compute_processes()).unwrap_or_default();
    match cuda::Gpu::open() {
        Err(error) => emit(&Event::NoDevice(Deferral::new(format!("{error:#}"), "check `nvidia-smi`"))),
        Ok(gpu) => {
            let mut device = gpu.device.clone();
            let monitor = nvml::Monitor::connect(&device.uuid);
            if let Some(monitor) = &monitor {
                monitor.complete(&mut device);
            }
            let state = monitor.map(|m| m.state()).unwrap_or_default();
            emit(&Event::Device { device, state, others });
        }
    }
    Ok(())
}
