//! Host code in the rounds of one shape and distribution. Before every block the inputs of each of its calls get values that
//! nobody had before, and after it the judge asks for the output of one call, drawn then: some places of it, or all. When all
//! rounds are over another process of the same function, which is never timed, must give the same bytes for each of those
//! inputs, in another order, and for each set the output that was held to the reference.
//!
//! What keeps a call from finding its answer: whatever was kept by address or by value is that of other values, and a function
//! that answers with something else at some point does so at another point of another process. It does not close what a
//! function does that has taken over its own driver: that could compute while inputs are filled.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use kbench::evidence::{Cache, HostCode, Mode, Outer};
use kbench::job::{Callable, Task};
use kbench::operator::Problem;
use kbench::subject::Subject;
use operators::{Fresh, Handed};
use rand_chacha::ChaCha8Rng;
use stats::{median, shuffled, uniform_below};

use super::{Fill, Host, Parts, Refused};
use crate::launch::sha256_hex;

/// Bytes of tensors that the calls of a block may have on the device together.
const MOST_BYTES: usize = 2 << 30;
/// In one of so many blocks every byte is read back; in the others some places of every tensor.
const BLOCKS_A_LOOK: usize = 8;
/// Calls of a block at most. Small ones are many, so that the clock of the runner can tell what they take.
const MOST_SLOTS: usize = Outer::MOST_LAUNCHES as usize;
/// Launches of a cold block, as kernels have them.
const COLD_LAUNCHES: usize = 5;
/// Memory that is left before what is placed, at most.
const MOST_PAD: usize = 64 << 20;

/// A block that was timed.
pub struct Timed {
    /// Samples in microseconds per launch.
    pub us: Vec<f64>,
    pub outer: Outer,
}

/// An output that was asked for after a block.
struct Asked {
    /// By which whoever keeps the blocks knows it.
    block: usize,
    fill: Fill,
    /// Of what was written.
    parts: Parts,
    sha256: String,
}

/// One variant that is host code, on one shape in one distribution.
pub struct Guest {
    pub subject: Subject,
    task: Task,
    call: Callable,
    host: Host,
    problems: Vec<Problem>,
    sets: Vec<Vec<Handed>>,
    slots: usize,
    warmup: usize,
    flush: usize,
    asked: Vec<Asked>,
    /// How it can be timed.
    pub code: HostCode,
    /// Whether this sitting has a graph.
    graph: bool,
}

/// The processes of one variant on one shape. They stay from one distribution to the next, since an import takes seconds.
#[derive(Default)]
pub struct Processes {
    /// The one that is timed.
    guest: Option<Host>,
    /// The one that answers again.
    witness: Option<Host>,
}

/// Whose blocks, on what, and how they are sized.
pub struct Wanted<'a> {
    pub task: &'a Task,
    pub call: &'a Callable,
    pub who: &'a str,
    pub problems: &'a [Problem],
    pub sets: Vec<Vec<Handed>>,
    pub warmup: usize,
    /// How many launches of so many microseconds a block has room for.
    pub within: fn(f64) -> usize,
    /// Bytes that are written before each launch of a cold block.
    pub flush: usize,
    /// What is known of it from other distributions.
    pub known: HostCode,
}

impl Guest {
    /// Hands its process the input sets, and sizes its blocks.
    pub fn start(wanted: Wanted, processes: &mut Processes, rng: &mut ChaCha8Rng) -> Result<Guest> {
        let Wanted { task, call, who, problems, sets, warmup, within, flush, known } = wanted;
        let mut host = match processes.guest.take() {
            Some(host) => host,
            None => weighed(task, call, who, flush)?,
        };
        host.load(&problems[0], &sets)?;
        host.place(1, 1)?;
        let mut once = Vec::new();
        for _ in 0..3 {
            host.fill(&[Fill::draw(&sets, rng)])?;
            host.call(1)?;
            host.fill(&[Fill::draw(&sets, rng)])?;
            let (us, outer) = host.block(Mode::Call, 1, 0)?;
            // By whichever clock it takes longer: what works where its events do not look is as slow as it is.
            once.push(outer.unexplained_us(&us).max(0.0) + outer.said_us(&us));
        }
        let (not_sealed, versions) = (host.seal()?, host.versions.clone());
        let bytes: usize = sets[0].iter().map(|tensor| tensor.role.bytes()).sum();
        let room = within(median(&once).unwrap_or(f64::NAN)).min(MOST_BYTES / bytes.max(1)).clamp(1, MOST_SLOTS);
        let same = |tensor: &&Handed| tensor.fresh == Fresh::Never && super::held(tensor).is_some();
        let same_inputs = sets[0].iter().filter(same).map(|tensor| tensor.name.clone()).collect();
        Ok(Guest {
            subject: Subject::plain(who),
            task: task.clone(),
            call: call.clone(),
            host,
            problems: problems.to_vec(),
            sets,
            slots: room,
            warmup,
            flush,
            asked: Vec::new(),
            code: HostCode { versions, not_sealed, same_inputs, ..known },
            graph: false,
        })
    }

    /// Begins a sitting: memory elsewhere, and a graph of its calls, as long as one can be made.
    pub fn sit(&mut self, rng: &mut ChaCha8Rng) -> Result<()> {
        self.begin(rng)?;
        let shape = &self.problems[0].shape.name;
        self.graph = false;
        if self.code.not_captured.contains_key(shape) {
            return Ok(());
        }
        let Some(why) = self.host.capture()? else {
            self.graph = true;
            return Ok(());
        };
        self.code.not_captured.insert(shape.clone(), why);
        // A capture that broke off may leave the context as it is: another process never tries.
        self.host = weighed(&self.task, &self.call, &self.subject.who, self.flush)?;
        self.host.load(&self.problems[0], &self.sets)?;
        self.begin(rng)?;
        self.code.not_sealed = self.host.seal()?;
        Ok(())
    }

    /// Has its process stand still while others are timed.
    pub fn pause(&mut self) {
        self.host.pause();
    }

    /// Memory elsewhere, with new values, and a call on each that nobody times.
    fn begin(&mut self, rng: &mut ChaCha8Rng) -> Result<()> {
        self.host.place(self.slots, uniform_below(rng, MOST_PAD))?;
        self.fill(rng)?;
        self.host.call(self.slots)
    }

    /// New values for the inputs of every call.
    fn fill(&mut self, rng: &mut ChaCha8Rng) -> Result<Vec<Fill>> {
        let fills: Vec<Fill> = (0..self.slots).map(|_| Fill::draw(&self.sets, rng)).collect();
        self.host.fill(&fills)?;
        Ok(fills)
    }

    /// Times a block; none where there is no graph for it. `number` is that of the block, to whoever keeps them.
    pub fn block(&mut self, mode: Mode, cache: Cache, number: usize, rng: &mut ChaCha8Rng) -> Result<Option<Timed>> {
        if mode == Mode::Kernel && !self.graph {
            return Ok(None);
        }
        // What is computed before the clock runs is of values that are gone when it does.
        match mode {
            Mode::Kernel => drop(self.host.block(mode, self.slots, 0)?),
            Mode::Call => self.host.call(self.warmup.clamp(1, self.slots))?,
        }
        let fills = self.fill(rng)?;
        let (launches, flush) = match cache {
            Cache::Hot => (self.slots, 0),
            Cache::Cold => (self.slots.min(COLD_LAUNCHES), self.flush),
        };
        let (us, outer) = self.host.block(mode, launches, flush)?;
        let (slot, tensors) = (uniform_below(rng, launches), &self.sets[0]);
        let parts = match uniform_below(rng, BLOCKS_A_LOOK) {
            0 => Parts::whole(tensors, true),
            _ => Parts::draw(tensors, rng),
        };
        let left = self.host.output(slot, &fills[slot], &self.sets, &parts)?;
        ensure!(left.inputs_unchanged, Refused::because("an input was written while timed"));
        ensure!(left.guards_intact, Refused::because("a guard band was written while timed"));
        let (fill, sha256) = (fills[slot].clone(), sha256_hex(&left.outputs));
        self.asked.push(Asked { block: number, fill, parts: parts.written(tensors), sha256 });
        Ok(Some(Timed { us, outer }))
    }

    /// When everything was timed: has a process that never is compute again what was asked for. Answers with the blocks that
    /// left something else; `verified` has the hashes of outputs that were held to the reference, by problem.
    pub fn conclude(
        self,
        verified: &BTreeMap<String, String>,
        processes: &mut Processes,
        rng: &mut ChaCha8Rng,
    ) -> Result<BTreeSet<usize>> {
        let Guest { task, call, mut host, problems, sets, asked, subject, .. } = self;
        // The device is for one of them.
        host.place(1, 1)?;
        host.pause();
        let mut witness = match processes.witness.take() {
            Some(witness) => witness,
            None => Host::start(&task, &subject.who, &call)?,
        };
        witness.load(&problems[0], &sets)?;
        witness.place(1, 1)?;
        let mut answer = |fill: &Fill, parts: &Parts| {
            witness.fill(std::slice::from_ref(fill))?;
            witness.call(1)?;
            Ok::<_, anyhow::Error>(sha256_hex(&witness.output(0, fill, &sets, parts)?.outputs))
        };
        let mut wrong = BTreeSet::new();
        for at in shuffled(rng, asked.len()) {
            let Asked { block, fill, parts, sha256 } = &asked[at];
            if answer(fill, parts)? != *sha256 {
                wrong.insert(*block);
            }
        }
        let whole = Parts::whole(&sets[0], false);
        for set in shuffled(rng, problems.len()) {
            let id = problems[set].id();
            if verified.get(&id) != Some(&answer(&Fill::of_set(set), &whole)?) {
                bail!(Refused::because(&format!("the output on {id} is not the verified one")));
            }
        }
        witness.pause();
        *processes = Processes { guest: Some(host), witness: Some(witness) };
        Ok(wrong)
    }
}

/// A process of which is known what a block takes by itself.
fn weighed(task: &Task, call: &Callable, who: &str, flush: usize) -> Result<Host> {
    let mut host = Host::start(task, who, call)?;
    host.weigh(flush)?;
    Ok(host)
}
