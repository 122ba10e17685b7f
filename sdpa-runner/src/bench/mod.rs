//! The bench job: rounds of timed blocks. In every round each subject is timed once, in random order, the control
//! twice; each block's outputs are compared with the verified ones. Rounds are added while a gate is inconclusive.

mod contestant;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use kbench::deferral::Deferral;
use kbench::evidence::{Block, Mode, PeerBackend, Peers, Samples, TimingFailure};
use kbench::job::{BenchJob, Event as JobEvent, Module};
use kbench::judge::needs_more_rounds;
use kbench::operator::{Distribution, Problem, Shape};
use kbench::stats::{median, shuffled, uniform_below};
use kbench::subject::{Arm, Subject};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::cuda::{Buffer, Event, Gpu, Graph, LoadedModule, OnGpu, explain, first_uuid, words};
use crate::digest::Digester;
use crate::events::{emit, progress};
use crate::launch::{executor, load_echoed, sha256_hex};
use crate::nvml::Monitor;
use crate::operator::{self, Operator};
use crate::peers::{Peer, PeerSubject, deferral_of};
use crate::setup::Setup;
use crate::workload::{Machine, Workload};
use contestant::{Contestant, Stamp, state};

/// Timed graph replays of a block. One: before a second, outputs would have to be poisoned again.
const REPLAYS: u32 = 1;
/// A block of slow launches has fewer of them, so that the two arms of a round stay close in time.
const BLOCK_TARGET_US: f64 = 10_000.0;
/// But not fewer than this.
const LEAST_LAUNCHES: usize = 3;

/// Bytes of a page of device memory.
const PAGE: usize = 2 << 20;
/// The longest stretch that a placement takes.
const SPAN: usize = 32 * PAGE;

/// Runs the job and emits its samples.
pub fn run(job: &BenchJob) -> Result<()> {
    match Bench::open()? {
        Ok(bench) => run_on(&bench, job, operator::of(&job.task).as_mut()),
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
    Samples { cache_mode: "hot-l2".to_owned(), input_sets: job.suite.seeds.len() as u32, ..Samples::default() }
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
    let shapes = job.suite.time();
    let mut order = ChaCha8Rng::seed_from_u64(job.order_seed);
    let placement = Placement::of(job)?;
    let mut taken = Taken { samples, peers, running };
    for shape in &shapes {
        let mut bench = ShapeBench::prepare(job, gpu, shape, operator, &placement, &mut taken)?;
        bench.rounds(job, gpu, operator, monitor, &mut order, &mut taken)?;
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

fn start_peers(job: &BenchJob, peers: &mut Peers) -> Vec<Peer> {
    let mut running = Vec::new();
    for command in &job.peers {
        match Peer::start(command) {
            Ok(peer) => {
                peers.versions.extend(peer.versions.clone());
                running.push(peer);
            }
            Err(error) => {
                peers.missing.insert(command.name.clone(), deferral_of(&error));
            }
        }
    }
    running
}

/// Where things lie: memory of the device that is taken before them, and the order in which modules are loaded.
struct Placement {
    _taken: Vec<Buffer>,
    order: Vec<usize>,
}

impl Placement {
    /// Drawn by the job. Stretches of less than a page of the device's memory shift what is placed within one, larger ones
    /// have others used.
    fn of(job: &BenchJob) -> Result<Placement> {
        let mut taken = Vec::new();
        if job.placement == 0 {
            return Ok(Placement { _taken: taken, order: (0..job.modules.len()).collect() });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(job.placement);
        for most in [PAGE, SPAN, PAGE, SPAN] {
            taken.push(Buffer::filled(1 + uniform_below(&mut rng, most), 0)?);
        }
        Ok(Placement { _taken: taken, order: shuffled(&mut rng, job.modules.len()) })
    }
}

/// What a job gathers, and the peers that it gathers from.
struct Taken {
    samples: Samples,
    peers: Peers,
    running: Vec<Peer>,
}

/// Whose turn it is.
enum Turn {
    Variant { index: usize, subject: Subject },
    Peer { index: usize, subject: PeerSubject },
}

struct ShapeBench {
    shape: Shape,
    modules: Vec<(Module, LoadedModule)>,
    problems: Vec<Problem>,
    digester: Digester,
    /// With the index of the process.
    peer_subjects: Vec<(usize, PeerSubject)>,
}

impl ShapeBench {
    fn prepare(
        job: &BenchJob,
        gpu: &Gpu,
        shape: &Shape,
        operator: &mut dyn Operator,
        placement: &Placement,
        taken: &mut Taken,
    ) -> Result<ShapeBench> {
        let Taken { samples, peers, running } = taken;
        let seeds = job.suite.seeds_on(&shape.name).iter();
        let problems: Vec<Problem> =
            seeds.map(|&seed| Problem { shape: shape.clone(), seed, distribution: Distribution::Normal }).collect();
        // Modules are loaded anew for each shape, so that nothing a kernel kept in device globals survives.
        let mut modules = Vec::new();
        for module in placement.order.iter().map(|i| &job.modules[*i]) {
            match load_echoed(operator, module, &problems[0]) {
                Ok(loaded) => modules.push((module.clone(), loaded)),
                Err(error) => samples.failures.push(failure(shape, module.variant.as_str(), &format!("{error:#}"))),
            }
        }
        gpu.synchronize().map_err(|e| anyhow!("{}", explain(e)))?;
        let mut peer_subjects = Vec::new();
        for (index, peer) in running.iter_mut().enumerate() {
            match load_peer(job, peer, &problems, operator) {
                Ok((backends, subjects)) => {
                    peer_subjects.extend(subjects.into_iter().map(|subject| (index, subject)));
                    peers.backends.extend(backends);
                }
                Err(error) => {
                    peers.missing.insert(peer.name().to_owned(), deferral_of(&error));
                }
            }
        }
        let digester = Digester::new(gpu)?;
        Ok(ShapeBench { shape: shape.clone(), modules, problems, digester, peer_subjects })
    }

    fn rounds(
        &mut self,
        job: &BenchJob,
        gpu: &Gpu,
        operator: &mut dyn Operator,
        monitor: Option<&Monitor>,
        order: &mut ChaCha8Rng,
        taken: &mut Taken,
    ) -> Result<()> {
        let Taken { samples, running, .. } = taken;
        let mut contestants = Vec::new();
        for (module, loaded) in &self.modules {
            match self.contestants(job, gpu, operator, module, loaded) {
                Ok(of_module) => contestants.extend(of_module),
                Err(error) => samples.failures.push(failure(&self.shape, module.variant.as_str(), &words(&error))),
            }
        }
        let turns = self.turns(job, &contestants);
        let mut silent = std::collections::BTreeSet::new();
        let timing = &job.suite.timing;
        let first_rounds = job.suite.rounds_on(&self.shape.name);
        let mut planned = first_rounds;
        let mut round = 0;
        while round < planned {
            progress(round as usize, planned as usize, &format!("timing {}", self.shape.name));
            for mode in Mode::ALL {
                for (slot, turn) in shuffled(order, turns.len()).into_iter().enumerate() {
                    let stamp = Stamp { shape: &self.shape.name, mode, round, slot: slot as u32 };
                    let block = match &turns[turn] {
                        Turn::Variant { index, subject } => {
                            let contestant = &contestants[*index];
                            emit(&JobEvent::Timing {
                                shape: self.shape.name.clone(),
                                subject: contestant.subject.clone(),
                            });
                            let warmup = timing.warmup;
                            contestant.block(&self.digester, monitor, warmup, &stamp, subject).map_err(|e| {
                                anyhow!("`{subject}` on {} failed while timed: {}", self.shape.name, words(&e))
                            })?
                        }
                        Turn::Peer { subject, .. } if silent.contains(&subject.name) => continue,
                        Turn::Peer { index, subject } => {
                            let name = &subject.name;
                            emit(&JobEvent::Timing { shape: self.shape.name.clone(), subject: Subject::plain(name) });
                            match peer_block(&mut running[*index], job, monitor, &stamp, subject) {
                                Ok(block) => block,
                                Err(error) => {
                                    // A peer's trouble is its own: it drops out, the rounds go on.
                                    silent.insert(name.clone());
                                    samples.failures.push(failure(&self.shape, name.as_str(), &format!("{error:#}")));
                                    continue;
                                }
                            }
                        }
                    };
                    samples.blocks.push(block);
                }
            }
            round += 1;
            if round == planned
                && planned < timing.max_rounds
                && needs_more_rounds(&job.suite, samples, &self.shape.name)
            {
                planned = (planned + first_rounds).min(timing.max_rounds);
            }
        }
        for contestant in &contestants {
            if let Some(what) = contestant.trespass().map_err(|e| anyhow!("{}", words(&e)))? {
                samples.failures.push(failure(&self.shape, contestant.subject.clone(), what));
            }
        }
        Ok(())
    }

    fn turns(&self, job: &BenchJob, contestants: &[Contestant]) -> Vec<Turn> {
        let variants = contestants.iter().enumerate().flat_map(|(index, contestant)| {
            let subject = &contestant.subject;
            let again = subject.is_plain(&job.suite.control).then(|| Subject::again(&subject.who));
            std::iter::once(subject.clone()).chain(again).map(move |subject| Turn::Variant { index, subject })
        });
        let peers = self.peer_subjects.iter().cloned().map(|(index, subject)| Turn::Peer { index, subject });
        variants.chain(peers).collect()
    }

    /// A module's arms: the judged steps, and those with the operator's own kernels ahead where there are some.
    fn contestants<'m>(
        &self,
        job: &BenchJob,
        gpu: &'m Gpu,
        operator: &mut dyn Operator,
        module: &Module,
        loaded: &'m LoadedModule,
    ) -> Result<Vec<Contestant<'m>>> {
        let none = BTreeMap::new();
        let verified = job.verified.get(&module.variant).unwrap_or(&none);
        // What was not verified is not run: a kernel that faults would take everybody's context with it.
        if let Some(problem) = self.problems.iter().find(|p| !verified.contains_key(&p.id())) {
            anyhow::bail!("there is no verified output of {}", problem.id());
        }
        let mut setups = Vec::new();
        for problem in &self.problems {
            setups.push(Arc::new(operator.setup(module, problem, &executor(gpu))?));
        }
        let has_originals = setups.iter().any(|setup| !setup.from_originals.is_empty());
        let arms = [false, true].into_iter().take(1 + usize::from(has_originals));
        arms.map(|from_originals| self.contestant(job, gpu, module, loaded, &setups, from_originals)).collect()
    }

    fn contestant<'m>(
        &self,
        job: &BenchJob,
        gpu: &'m Gpu,
        module: &Module,
        loaded: &'m LoadedModule,
        setups: &[Arc<Setup>],
        from_originals: bool,
    ) -> Result<Contestant<'m>> {
        let on = OnGpu::new(gpu, loaded);
        let verified = &job.verified[&module.variant];
        let mut sets = Vec::new();
        for (problem, setup) in self.problems.iter().zip(setups) {
            emit(&JobEvent::Timing { shape: self.shape.name.clone(), subject: Subject::plain(&module.variant) });
            let workload = Workload::place(&on, setup.clone())?;
            workload.make(&on)?.map_err(anyhow::Error::msg)?;
            let written = workload.written(&on)?;
            workload.launch(&on, &written)?;
            on.finish()?;
            let bytes = workload.outputs(&on, &written)?;
            anyhow::ensure!(
                verified.get(&problem.id()) == Some(&sha256_hex(&bytes)),
                "the output on {} is not the verified one",
                problem.id()
            );
            let results: Vec<&Buffer> = workload.results(&written).collect();
            let digests = self.digester.verified(gpu, &results, &bytes)?;
            sets.push((workload, digests));
        }
        let most = job.suite.timing.launches as usize;
        let arm = if from_originals { Arm::FromOriginals } else { Arm::Plain };
        let outputs = sets[0].1.len();
        let mut contestant = Contestant {
            subject: Subject { who: module.variant.clone(), arm },
            from_originals,
            written: vec![sets[0].0.written(&on)?],
            on,
            sets,
            digests: Digester::room(most * outputs)?,
            graph: None,
            events: vec![(Event::new()?, Event::new()?)],
        };
        let once = contestant.time_once()?;
        let launches = most.min(launches_within_target(once));
        while contestant.written.len() < launches {
            contestant.written.push(contestant.sets[0].0.written(&contestant.on)?);
            contestant.events.push((Event::new()?, Event::new()?));
        }
        let graph = Graph::capture(gpu, || (0..launches).try_for_each(|i| contestant.launch(i)));
        contestant.graph = Some(graph?);
        Ok(contestant)
    }
}

/// How many launches a block has room for.
fn launches_within_target(once_us: f64) -> usize {
    ((BLOCK_TARGET_US / once_us) as usize).max(LEAST_LAUNCHES)
}

fn failure(shape: &Shape, subject: impl Into<Subject>, why: &str) -> TimingFailure {
    TimingFailure { shape: shape.name.clone(), subject: subject.into(), why: why.to_owned() }
}

/// Every backend of a peer on a shape, and those that are timed.
fn load_peer(
    job: &BenchJob,
    peer: &mut Peer,
    problems: &[Problem],
    operator: &mut dyn Operator,
) -> Result<(Vec<PeerBackend>, Vec<PeerSubject>)> {
    let message = operator.hand_to_peers(problems, &job.work_dir)?;
    let mut backends = peer.load(&problems[0].shape.name, &message)?;
    let mut timed = Vec::new();
    for backend in backends.iter_mut().filter(|b| b.unavailable.is_none()) {
        match prepare_peer(job, peer, &backend.subject, &problems[0]) {
            Ok(subject) => timed.push(subject),
            Err(error) => backend.unavailable = Some(format!("{error:#}")),
        }
    }
    Ok((backends, timed))
}

/// Leaves the backend's output where the comparison finds it, and sizes its blocks.
fn prepare_peer(job: &BenchJob, peer: &mut Peer, name: &str, problem: &Problem) -> Result<PeerSubject> {
    let once = median(&peer.block(name, Mode::Call, LEAST_LAUNCHES as u32, 1, REPLAYS)?).unwrap_or(f64::NAN);
    anyhow::ensure!(
        once <= BLOCK_TARGET_US,
        "not timed: one call takes {:.1} ms, longer than a whole block of the others",
        once / 1000.0
    );
    peer.write_output(name, problem, &BenchJob::output_dir(&job.work_dir, name))?;
    let launches = job.suite.timing.launches.min(launches_within_target(once) as u32);
    Ok(PeerSubject { name: name.to_owned(), launches })
}

fn peer_block(
    peer: &mut Peer,
    job: &BenchJob,
    monitor: Option<&Monitor>,
    stamp: &Stamp,
    subject: &PeerSubject,
) -> Result<Block> {
    let before = state(monitor);
    let us = peer.block(&subject.name, stamp.mode, subject.launches, job.suite.timing.warmup, REPLAYS)?;
    Ok(stamp.block(Subject::plain(&subject.name), us, [before, state(monitor)], true))
}
