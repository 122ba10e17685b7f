//! The bench job: rounds of timed blocks, spread over sittings. In every round each subject is timed once, in random order,
//! the control twice; each block's outputs are compared with the right ones. Sittings are added while a gate is
//! inconclusive. A device that fails ends the job, and the pipeline is told who was on it.

mod contestant;
mod guests;
mod hold;
mod mixes;
mod originals;
mod place;
mod quiet;
mod rivals;
mod share;
mod sitting;

use std::fs::File;

use anyhow::Result;
use kbench::deferral::Deferral;
use kbench::evidence::{Peers, Samples};
use kbench::job::{BenchJob, Event as JobEvent};
use kbench::judge::open_distributions;
use kbench::operator::{Distribution, Shape};
use operators::Operator;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::cuda::{Buffer, Gpu, first_uuid};
use crate::digest::Digester;
use crate::events::emit;
use crate::nvml::Monitor;
use crate::peers::Peer;
use guests::Guests;
use hold::Hold;
use originals::Originals;
use rivals::{Rivals, start_peers};
use share::Claims;
use sitting::{Field, Sitting};

/// What a cold block writes before each launch: twice the L2, and somewhat more.
const FLUSH_TIMES: u64 = 2;
const FLUSH_MORE: u64 = 32 << 20;

/// Runs the job and emits its samples.
pub fn run(job: &BenchJob) -> Result<()> {
    match Bench::open()? {
        Ok(bench) => run_on(&bench, job, operators::of(&job.task).as_mut()),
        Err(deferral) => {
            told(
                Samples { deferred: Some(deferral), ..none_of(job) },
                Peers { wanted: !job.peers.is_empty(), ..Peers::default() },
            );
            Ok(())
        }
    }
}

/// The same on a GPU that is open.
pub fn run_on(bench: &Bench, job: &BenchJob, operator: &mut dyn Operator) -> Result<()> {
    let (samples, peers) = measure(bench, job, operator)?;
    told(samples, peers);
    Ok(())
}

fn told(samples: Samples, peers: Peers) {
    emit(&JobEvent::Timed { samples: Box::new(samples), peers: Box::new(peers) });
}

/// Samples of a job before anything was timed.
fn none_of(job: &BenchJob) -> Samples {
    Samples {
        cache_mode: "hot-l2".to_owned(),
        input_sets: job.suite.all_seeds().count() as u32,
        seed: job.placement,
        ..Samples::default()
    }
}

/// A GPU that is open and that nobody else computed on before.
pub struct Bench {
    pub gpu: Gpu,
    monitor: Option<Monitor>,
    /// Who computed on it right after that: ourselves, under whatever number NVML knows us.
    known: Vec<String>,
}

impl Bench {
    /// Looks who is there, then opens the GPU; the inner error is who is there.
    pub fn open() -> Result<Result<Bench, Deferral>> {
        let monitor = Monitor::connect(&first_uuid()?);
        let others = monitor.as_ref().map(Monitor::compute_processes).unwrap_or_default();
        if !others.is_empty() {
            return Ok(Err(busy(&others)));
        }
        let gpu = Gpu::open()?;
        let known = monitor.as_ref().map(Monitor::compute_processes).unwrap_or_default();
        Ok(Ok(Bench { gpu, monitor, known }))
    }

    /// Processes that compute on it now and are not ourselves.
    fn others(&self) -> Vec<String> {
        let now = self.monitor.as_ref().map(Monitor::compute_processes).unwrap_or_default();
        now.into_iter().filter(|process| !self.known.contains(process)).collect()
    }
}

fn busy(others: &[String]) -> Deferral {
    Deferral::new(format!("another process computes on this GPU: {}", others.join(", ")), "stop it")
}

/// What a job gathers, and the peers that it gathers from.
struct Taken {
    samples: Samples,
    peers: Peers,
    running: Vec<Peer>,
}

/// What every sitting of a job needs.
struct Ground<'a> {
    job: &'a BenchJob,
    gpu: &'a Gpu,
    monitor: Option<&'a Monitor>,
    digester: Digester,
    hold: Hold,
    originals: Originals,
    /// Written before each launch of a cold block.
    flush: Buffer,
}

fn measure(bench: &Bench, job: &BenchJob, operator: &mut dyn Operator) -> Result<(Samples, Peers)> {
    let mut samples = none_of(job);
    let mut peers = Peers { wanted: !job.peers.is_empty(), ..Peers::default() };
    let Bench { gpu, monitor, .. } = bench;
    let (monitor, others) = (monitor.as_ref(), bench.others());
    if !others.is_empty() {
        samples.deferred = Some(busy(&others));
        return Ok((samples, peers));
    }
    let mut device = gpu.device.clone();
    if let Some(monitor) = monitor {
        monitor.complete(&mut device);
    }
    let lock = lock_gpu(&device.uuid);
    samples.device = Some(device);
    let _lock = match lock {
        Ok(lock) => lock,
        Err(deferral) => {
            samples.deferred = Some(deferral);
            return Ok((samples, peers));
        }
    };
    let running = start_peers(job, &mut peers);
    // Ourselves and our peers, under whatever numbers NVML knows us; peers take their contexts when they are greeted.
    let ours = monitor.map(Monitor::compute_processes).unwrap_or_default();
    let bytes = if job.is_search { 0 } else { FLUSH_TIMES * gpu.device.l2_bytes + FLUSH_MORE };
    let flush = Buffer::filled(bytes as usize, 0)?;
    let (digester, hold, originals) = (Digester::new(gpu)?, Hold::new()?, Originals::new(gpu)?);
    let ground = Ground { job, gpu, monitor, digester, hold, originals, flush };
    let mut taken = Taken { samples, peers, running };
    let claims = Claims::begin(job.share.as_ref())?;
    let mut guests = Guests::new(job.order_seed);
    for (number, shape) in &claims.order(&job.suite) {
        if !claims.take(&shape.name)? {
            continue;
        }
        // What is drawn for a shape depends neither on who has which others nor on what became of them.
        let mut order = ChaCha8Rng::seed_from_u64(job.order_seed.wrapping_add(*number as u64));
        let mut places = (*number as u64) << 32;
        for distribution in &job.suite.time_distributions {
            sittings(&ground, operator, (shape, *distribution), &mut guests, &mut places, &mut order, &mut taken)?;
        }
        guests.part();
        let now = monitor.map(Monitor::compute_processes).unwrap_or_default();
        let is_stranger = |p: &String| !ours.contains(p) && !is_ours(p, &taken.running);
        let strangers: Vec<String> = now.into_iter().filter(is_stranger).collect();
        if !strangers.is_empty() {
            taken.samples.deferred = Some(busy(&strangers));
            break;
        }
    }
    Ok((taken.samples, taken.peers))
}

/// All sittings on one shape in one distribution. Inputs are drawn once, and peers keep theirs; all else is made anew in each.
fn sittings(
    ground: &Ground,
    operator: &mut dyn Operator,
    (shape, distribution): (&Shape, Distribution),
    guests: &mut Guests,
    places: &mut u64,
    order: &mut ChaCha8Rng,
    taken: &mut Taken,
) -> Result<()> {
    let suite = &ground.job.suite;
    let mut field = Field::prepare(ground, operator, shape, distribution, taken)?;
    let mut rivals = Rivals::load(ground.job, operator, &field.problems, taken);
    guests.invite(ground, operator, &mut field, *places, taken)?;
    let rounds = suite.rounds_of_sitting(&shape.name);
    let (looks, at_once) = (suite.looks(&shape.name), suite.timing.sittings.max(1));
    for look in 0..looks {
        let is_open = || open_distributions(suite, &taken.samples, &shape.name).contains(&distribution);
        if look > 0 && !is_open() {
            break;
        }
        for number in look * at_once..(look + 1) * at_once {
            let sitting = Sitting { number, rounds: number * rounds..(number + 1) * rounds, place: *places };
            sitting.take(ground, operator, &mut field, (&mut rivals, guests), order, taken)?;
            *places += 1;
        }
    }
    guests.leave(ground, &mut field, taken);
    ground.originals.forget()
}

/// Whether `pid name` is this process or a peer of it.
fn is_ours(process: &str, peers: &[Peer]) -> bool {
    let pid = process.split(' ').next().and_then(|pid| pid.parse::<u32>().ok());
    pid == Some(std::process::id()) || peers.iter().any(|peer| pid == Some(peer.pid()))
}

/// One validation at a time on a GPU; the file is empty and stays, only its lock matters.
pub fn lock_gpu(uuid: &str) -> Result<File, Deferral> {
    let path = std::env::temp_dir().join(format!("sdpa-bench-{uuid}.lock"));
    let shown = path.display();
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| Deferral::new(format!("failed to open the GPU's lock `{shown}`: {e}"), "remove it"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Deferral::new(format!("another run times kernels on this GPU (lock `{shown}`)"), "wait for it")),
    }
}
