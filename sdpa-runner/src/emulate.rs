//! The launch job on the emulator: the PTX that ptxas assembled, on the CPU, with every check. Results are those of
//! another machine than a GPU and are labelled so; times are never taken here.

mod counted;
mod limits;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use kbench::deferral::Deferral;
use kbench::evidence::LaunchOutcome;
use kbench::job::{Event, Executor, LaunchJob, counts_file, findings_file, output_file, rows_file};
use kbench::operator::Problem;
use kernel_spec::demangle::demangled;
use kernel_spec::launch::{Argument, Step};
use kernel_spec::params;
use kernel_spec::schedule::Schedule as Order;
use operators::setup::{NAN, Part, Pattern, Setup};
use operators::{NoSetup, Operator};
use ptx_emulator::{
    BlockFilter, Buffer, Checks, Finding, Kernel, Launch, Limits, Memory, MmaModel, Module, ParseError, Schedule,
    Severity, Site, run as execute,
};
use serde::Serialize;

use self::counted::Counted;
use crate::events::{emit, progress};
use crate::launch::sha256_hex;
use crate::workload::{Content, Machine, Workload};

/// Most places in the first line of a finding; the lines below have them all.
const MAX_PLACES: usize = 3;
/// Replays the second schedule; any value would do.
const SCHEDULE_SEED: u64 = 1;
/// Size of the chip that persistent kernels are launched for: an H100's.
const MULTIPROCESSORS: u32 = 132;
/// What is added to the niceness of a process that runs beside others: it gets what they leave.
const LAST_IN_LINE: i32 = 19;
pub fn run(job: &LaunchJob) -> Result<()> {
    run_all(std::slice::from_ref(job), |_, outcome| emit(&Event::Launched { outcome }))
}

/// Runs the jobs of a batch, which have the same problems.
pub fn run_batch(jobs: &[LaunchJob]) -> Result<()> {
    run_all(jobs, |variant, outcome| emit(&Event::LaunchedOf { variant: variant.to_owned(), outcome }))
}

fn run_all(jobs: &[LaunchJob], tell: impl Fn(&str, LaunchOutcome)) -> Result<()> {
    let first = jobs.first().context("a batch has at least one job")?;
    let problems = &first.problems;
    ensure!(jobs.iter().all(|job| job.problems == *problems), "the jobs of a batch have the same problems");
    if first.threads > 0 {
        // Where that is forbidden it is merely less polite.
        let _ = rustix::process::nice(LAST_IN_LINE);
    }
    for job in jobs {
        std::fs::create_dir_all(&job.out_dir)
            .with_context(|| format!("failed to create `{}`", job.out_dir.display()))?;
    }
    let mut operator = operators::of(&first.task);
    let mut parsed = Parsed::default();
    for (i, problem) in problems.iter().enumerate() {
        for (j, job) in jobs.iter().enumerate() {
            let variant = &job.module.variant;
            let (done, total) = (i * jobs.len() + j, problems.len() * jobs.len());
            progress(done, total, &format!("emulating {variant} on {}", problem.id()));
            if job.module.call.is_some() {
                tell(variant, LaunchOutcome::deferred(problem, host_code(variant)));
                continue;
            }
            let solved = parsed
                .of(operator.as_ref(), &job.module, problem)
                .map(|module| solve(job, module, operator.as_mut(), problem));
            let outcome = match solved {
                Ok(Ok(outcome)) => outcome,
                // What nobody can launch on says nothing of a kernel.
                Ok(Err(error)) if error.is::<NoSetup>() => return Err(error),
                Ok(Err(error)) => ended(problem, &error),
                Err(error) if error.is::<ParseError>() || limits::is_beyond(&error) => ended(problem, &error),
                Err(error) => return Err(error),
            };
            tell(variant, outcome);
        }
    }
    Ok(())
}

/// Host code launches on the device that it finds.
fn host_code(variant: &str) -> Deferral {
    let why = format!("`{variant}` is host code, which runs on a GPU only");
    Deferral::new(why, "run on a machine with an NVIDIA GPU and PyTorch")
}

/// The outcome of a launch that has no output: the kernel's fault, or a limit of the emulator's.
fn ended(problem: &Problem, error: &anyhow::Error) -> LaunchOutcome {
    match limits::beyond(error) {
        Some(why) => LaunchOutcome::deferred(problem, Deferral::new(why, "run on a machine with an NVIDIA GPU")),
        None => LaunchOutcome::failed(problem, &format!("{error:#}")),
    }
}

/// Modules by the files that they were read from.
#[derive(Default)]
struct Parsed {
    modules: HashMap<PathBuf, Module>,
}

impl Parsed {
    /// The module that runs on a problem, once it says of itself what it was asked for.
    fn of(&mut self, operator: &dyn Operator, asked: &kbench::job::Module, problem: &Problem) -> Result<&Module> {
        let ptx = asked.files(problem).ptx.as_ref().ok_or_else(|| limits::without_ptx(&asked.variant))?;
        if !self.modules.contains_key(ptx) {
            let path = ptx.display();
            let source = std::fs::read_to_string(ptx).with_context(|| format!("failed to read `{path}`"))?;
            let module = Module::parse(&source).with_context(|| format!("failed to parse `{path}`"))?;
            operator.echo(asked, &|symbol| {
                let bytes =
                    module.global_symbol(symbol).with_context(|| format!("the PTX has no symbol `{symbol}`"))?;
                Ok(bytes.to_vec())
            })?;
            self.modules.insert(ptx.clone(), module);
        }
        Ok(&self.modules[ptx])
    }
}

/// Memory, and what those of its bytes read as that nobody wrote.
#[derive(Clone, Copy)]
struct Placed {
    buffer: Buffer,
    unwritten: Pattern,
}

/// The PTX on the CPU: where setups are placed and their steps run.
struct Emulated<'m> {
    kernels: &'m HashMap<String, Kernel>,
    memory: RefCell<Memory>,
    /// Everything of a launch that is the same for all.
    base: Launch,
    /// What runs, where that is not all.
    part: Option<&'m Part>,
    /// Whether it gives up what is too long.
    bounded: bool,
    /// Threads of the host; 0 takes all.
    threads: usize,
    findings: RefCell<Vec<Finding>>,
    counted: RefCell<Vec<Counted>>,
}

impl Machine for Emulated<'_> {
    type Memory = Placed;

    /// Poison is undefined: kernels read it as NaN, and that is reported.
    fn place(&self, name: &str, content: &Content) -> Result<Placed> {
        let mut memory = self.memory.borrow_mut();
        let (buffer, unwritten) = match content {
            Content::Bytes(bytes) => (memory.alloc_from(name, bytes)?, NAN),
            Content::Poison(len, pattern) => (memory.alloc(name, *len)?, *pattern),
            Content::Zero(len) => (memory.alloc_from(name, &vec![0; *len])?, NAN),
        };
        Ok(Placed { buffer, unwritten })
    }

    fn refill(&self, memory: &Placed, content: &Content) -> Result<()> {
        let bytes = match content {
            Content::Bytes(bytes) => Cow::Borrowed(bytes.as_slice()),
            Content::Zero(len) => Cow::Owned(vec![0; *len]),
            Content::Poison(..) => bail!("what was defined stays so: place it anew"),
        };
        Ok(self.memory.borrow_mut().write(memory.buffer, 0, &bytes)?)
    }

    fn perform<'a>(&self, step: &Step, named: &dyn Fn(&str) -> Option<&'a Placed>) -> Result<()>
    where
        Placed: 'a,
    {
        let place =
            |name: &str| named(name).map(|placed| placed.buffer).with_context(|| format!("`{name}` has no memory"));
        match step {
            Step::Memset { tensor, byte } => {
                let buffer = place(tensor)?;
                self.memory.borrow_mut().write(buffer, 0, &vec![*byte; buffer.bytes()])?;
            }
            Step::Copy { from, to } => {
                let bytes = self.memory.borrow().read(place(from)?)?;
                self.memory.borrow_mut().write(place(to)?, 0, &bytes)?;
            }
            Step::Launch(step) => {
                for name in step.params.iter().flat_map(Argument::tensors) {
                    place(name)?;
                }
                let ahead = |name: &str| self.part.and_then(|part| part.ahead.get(name)).copied().unwrap_or_default();
                let address =
                    |name: &str| named(name).map_or(0, |placed| placed.buffer.address().wrapping_sub(ahead(name)));
                let blocks = self.part.and_then(|part| part.blocks.get(&step.entry));
                let launch = Launch {
                    grid: step.grid,
                    block: step.block,
                    cluster: step.cluster.unwrap_or([1; 3]),
                    blocks: blocks.map_or(BlockFilter::All, |blocks| BlockFilter::Only(blocks.clone())),
                    dynamic_shared_bytes: step.shared_bytes,
                    params: params::bytes(&step.params, address)?,
                    limits: Limits { threads: self.threads, ..limits::of(step, self.bounded) },
                    ..self.base.clone()
                };
                let outcome = execute(&self.kernels[&step.entry], &self.memory.borrow(), &launch)?;
                self.counted.borrow_mut().extend(Counted::of(&launch, &step.entry, &outcome));
                self.findings.borrow_mut().extend(outcome.findings);
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn read(&self, memory: &Placed) -> Result<Vec<u8>> {
        Ok(self.memory.borrow().read_over(memory.buffer, memory.unwritten)?)
    }

    fn holds(&self, memory: &Placed, bytes: &Arc<Vec<u8>>) -> Result<bool> {
        Ok(self.memory.borrow().holds(memory.buffer, bytes)?)
    }

    /// Whatever is written outside a buffer is a finding.
    fn guards_intact(&self, _memory: &Placed) -> Result<bool> {
        // A band lies around global memory, and is harmed by writes alone.
        let writes = |site: &Site| site.role == "write" && !site.instruction.contains("shared");
        let outside =
            |finding: &Finding| finding.kind == ptx_emulator::Kind::OutOfBounds && finding.sites.iter().any(writes);
        Ok(!self.findings.borrow().iter().any(outside))
    }
}

/// How a kernel is executed: with these checks, in this order.
fn attempt(
    job: &LaunchJob,
    module: &Module,
    kernels: &HashMap<String, Kernel>,
    setup: &Arc<Setup>,
    (order, checks): (Order, Checks),
) -> Result<Attempt> {
    let part = setup.part.as_ref();
    let mut base = Launch {
        schedule: schedule(order),
        checks,
        sm_count: part.map_or(1, |part| part.sm_count),
        counts: job.counts,
        ..Launch::new([1; 3], [1; 3], Vec::new())
    };
    if job.executor == Executor::EmulatedHopper {
        base.mma_model = MmaModel::Sm90;
    }
    let (memory, findings) = (RefCell::new(Memory::new(module)), RefCell::default());
    let threads = job.threads as usize;
    let counted = RefCell::default();
    let machine = Emulated { kernels, memory, base, part, bounded: setup.bounded, threads, findings, counted };
    let workload = Workload::place(&machine, setup.clone())?;
    workload.make_first(&machine)?.map_err(anyhow::Error::msg)?;
    let mut written = workload.written(&machine)?;
    machine.counted.borrow_mut().clear();
    workload.launch(&machine, &written)?;
    let counted = machine.counted.take();
    let output = match part {
        None => workload.outputs(&machine, &written)?,
        Some(part) => {
            let memory = machine.memory.borrow();
            let output = workload.results(&written).next().context("a sampled launch has an output")?;
            let read = |range: &Range<usize>| Ok(memory.read_part(output.buffer, range.start, range.len())?);
            part.ranges.iter().map(read).collect::<Result<Vec<_>>>()?.concat()
        }
    };
    let mut repeats = true;
    if setup.tensors.iter().any(|tensor| tensor.role.stays()) {
        written = workload.anew(&machine, written)?;
        workload.launch(&machine, &written)?;
        repeats = workload.outputs(&machine, &written)? == output;
    }
    Ok(Attempt {
        output,
        repeats,
        inputs_unchanged: workload.inputs_unchanged(&machine)?,
        guards_intact: workload.guards_intact(&machine, &written)?,
        findings: machine.findings.into_inner(),
        counted,
    })
}

fn solve(job: &LaunchJob, module: &Module, operator: &mut dyn Operator, problem: &Problem) -> Result<LaunchOutcome> {
    let near = operators::Executor { sm_count: MULTIPROCESSORS, max_ctas: job.max_ctas, far: false };
    let setup = Arc::new(operator.setup(&job.module, problem, &near)?);
    limits::check(&setup)?;
    let mut kernels = HashMap::new();
    let making = setup.making.iter().filter_map(|step| match step {
        Step::Launch(launch) => Some(launch),
        Step::Memset { .. } | Step::Copy { .. } => None,
    });
    for launch in setup.launches().chain(making) {
        if !kernels.contains_key(&launch.entry) {
            let entries = module.entries();
            let (entry, known) = (&launch.entry, entries.join(", "));
            ensure!(entries.contains(&entry.as_str()), "no entry function `{entry}`; there are: {known}");
            kernels.insert(launch.entry.clone(), module.entry(&launch.entry)?);
        }
    }
    let attempt = |setup: &Arc<Setup>, order, checks| attempt(job, module, &kernels, setup, (order, checks));
    let first_order = job.schedules.first().copied().unwrap_or(Order::Greedy);
    let checks = if job.unchecked { Checks::none() } else { Checks::all() };
    let first = attempt(&setup, first_order, checks)?;
    let mut attempts = vec![(first_order, first)];
    let mut far_off = None;
    if job.schedules.is_empty() {
        // In another order, and far from where its tensors begin: neither may show. Which of them does, a third launch says.
        let far = Arc::new(operator.setup(&job.module, problem, &operators::Executor { far: true, ..near })?);
        let order = Order::Seeded(SCHEDULE_SEED);
        let is_far = far.part.as_ref().is_some_and(|part| !part.ahead.is_empty());
        let mut second = attempt(&far, order, Checks::none());
        let wrong = far_wrong(&second, &attempts[0].1.output);
        if let (true, Some(how)) = (is_far, wrong) {
            second = attempt(&setup, order, Checks::none());
            far_off = second.as_ref().is_ok_and(|near| near.output == attempts[0].1.output).then_some(how);
        }
        attempts.push((order, second?));
    }
    for order in job.schedules.iter().skip(1) {
        attempts.push((*order, attempt(&setup, *order, checks)?));
    }
    let first = &attempts[0].1;
    let part = setup.part.as_ref();
    write_output(&job.out_dir.join(output_file(problem)), &first.output, part, setup.output_bytes())?;
    let found = found(&attempts);
    std::fs::write(job.out_dir.join(findings_file(problem)), demangled(&serde_json::to_string_pretty(&found)?))?;
    if job.counts {
        std::fs::write(job.out_dir.join(counts_file(problem)), serde_json::to_string(&first.counted)?)?;
    }
    if let Some(part) = part {
        std::fs::write(job.out_dir.join(rows_file(problem)), serde_json::to_string(&part.rows)?)?;
    }
    Ok(LaunchOutcome {
        problem: problem.clone(),
        failure: None,
        output_sha256: Some(sha256_hex(&first.output)),
        repeat_equal: attempts.iter().all(|(_, attempt)| attempt.repeats && attempt.output == first.output),
        inputs_unchanged: attempts.iter().all(|(_, attempt)| attempt.inputs_unchanged),
        guards_intact: attempts.iter().all(|(_, attempt)| attempt.guards_intact),
        sampled_ctas: part.map(|part| (part.count, part.of)),
        findings: far_off.into_iter().chain(found.iter().map(|found| demangled(&found.told()))).collect(),
        entry: setup.entry.clone(),
        kernels: Vec::new(),
        replays: None,
        deferred: None,
    })
}

/// What is wrong with a launch far from where its tensors begin, if anything is.
fn far_wrong(far: &Result<Attempt>, wanted: &[u8]) -> Option<String> {
    let (places, how) = match far {
        Ok(far) if far.output == *wanted => return None,
        Ok(far) => match far.findings.first() {
            Some(finding) => (finding.sites.iter().filter_map(place).collect(), finding.message.clone()),
            None => (Vec::new(), "other bytes come out".to_owned()),
        },
        Err(error) => (Vec::new(), format!("{error:#}")),
    };
    let cause = ["ERROR offset beyond 32 bits".to_owned()].into_iter().chain(places).collect::<Vec<_>>().join(", ");
    Some(format!("{cause}: {how}, where the same query tiles are the last of tensors with 2^31 elements or bytes"))
}

/// Writes an output, or those parts of it: the file has holes where the others would be, which for most large shapes is
/// nearly all of it.
fn write_output(path: &Path, output: &[u8], part: Option<&Part>, whole: usize) -> Result<()> {
    let Some(part) = part else { return Ok(std::fs::write(path, output)?) };
    let mut file = std::fs::File::create(path)?;
    file.set_len(whole as u64)?;
    let mut left = output;
    for range in &part.ranges {
        let (own, rest) = left.split_at_checked(range.len()).context("fewer rows than were computed")?;
        left = rest;
        file.seek(SeekFrom::Start(range.start as u64))?;
        file.write_all(own)?;
    }
    Ok(())
}

fn schedule(order: Order) -> Schedule {
    match order {
        Order::RoundRobin => Schedule::RoundRobin,
        Order::Greedy => Schedule::Greedy,
        Order::Reverse => Schedule::Reverse,
        Order::Seeded(seed) => Schedule::Seeded(seed),
    }
}

/// A finding and what replays it.
#[derive(Serialize)]
struct Found<'a> {
    schedule: Order,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Found<'_> {
    /// As text. The first line has cause and source lines first, because a gate's line shows no more than its beginning.
    fn told(&self) -> String {
        let finding = self.finding;
        let text = finding.to_string();
        let severity = text.split(' ').next().unwrap_or_default();
        let message = &finding.message;
        let cause = [": ", " on "].iter().filter_map(|end| message.find(end)).min().unwrap_or(message.len());
        let (cause, rest) = message.split_at(cause);
        let mut places: Vec<String> = finding.sites.iter().filter_map(place).collect();
        places.dedup();
        places.truncate(MAX_PLACES);
        let below: Vec<&str> = text.lines().skip(1).collect();
        format!(
            "{severity} {cause}, {}{rest}, CTA {:?}\n{}\n  replay: --schedule {}",
            places.join(", "),
            finding.block,
            below.join("\n"),
            self.schedule
        )
    }
}

/// Role and innermost line of the kernels' own files: what is inlined from the toolkit's headers says little.
fn place(site: &Site) -> Option<String> {
    let own = |line: &&String| [".cu:", ".cuh:", ".py:"].iter().any(|kind| line.contains(kind));
    site.source.iter().rev().find(own).map(|line| format!("{} {line}", site.role))
}

/// What was found under any schedule, each problem once, under the first that showed it.
fn found(attempts: &[(Order, Attempt)]) -> Vec<Found<'_>> {
    let mut found: Vec<Found<'_>> = Vec::new();
    for (order, attempt) in attempts {
        for finding in attempt.findings.iter().filter(|f| f.severity > Severity::Info) {
            let lines = |f: &Finding| f.sites.iter().map(|s| s.ptx_line).collect::<Vec<_>>();
            if !found.iter().any(|f| f.finding.kind == finding.kind && lines(f.finding) == lines(finding)) {
                found.push(Found { schedule: *order, finding });
            }
        }
    }
    found
}

/// What one emulated launch left behind.
struct Attempt {
    /// All of it, or the parts that were computed.
    output: Vec<u8>,
    /// Whether a second launch left the same, where one was made because the first leaves something to it.
    repeats: bool,
    inputs_unchanged: bool,
    guards_intact: bool,
    findings: Vec<Finding>,
    /// What each launch did, where that is asked for.
    counted: Vec<Counted>,
}
