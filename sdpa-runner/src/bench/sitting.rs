//! A sitting: modules are loaded and buffers placed anew, elsewhere than in any other, then come its rounds. What is drawn
//! and planned on the host stays from one to the next. Leaves to others: how many sittings there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};
use kbench::evidence::{Block, Cache, GpuState, Mode, Outer, TimingFailure};
use kbench::job::{Event, Module};
use kbench::judge::timed_problems;
use kbench::operator::{Distribution, Problem, Shape};
use kbench::subject::{Arm, Subject};
use operators::Operator;
use operators::setup::Setup;
use rand_chacha::ChaCha8Rng;
use stats::shuffled;

use super::contestant::{Builds, Contestant, Entry, Stamp};
use super::guests::Guests;
use super::place::Placement;
use super::rivals::{Rivals, subject_of};
use super::{Ground, Taken};
use crate::callable;
use crate::cuda::{Buffer, Gpu, LoadedModule, OnGpu, words};
use crate::events::{emit, progress};
use crate::launch::{executor, load_echoed, sha256_hex};
use crate::nvml::Monitor;
use crate::peers::PeerSubject;

/// One variant on one shape in one distribution, as long as sittings go on.
struct Planned {
    module: Module,
    /// One for each input set.
    setups: Vec<Arc<Setup>>,
    /// Digests of the verified outputs of each set, once its bytes were seen.
    digests: Vec<Option<Vec<u64>>>,
}

/// A variant's builds on a shape, each loaded once, and which of them each set has.
struct Loaded {
    modules: Vec<LoadedModule>,
    of_set: Vec<usize>,
}

impl Loaded {
    fn of(operator: &dyn Operator, module: &Module, problems: &[Problem]) -> Result<Loaded> {
        let (mut images, mut loaded) = (Vec::new(), Loaded { modules: Vec::new(), of_set: Vec::new() });
        for problem in problems {
            let image = &module.files(problem).image;
            let known = images.iter().position(|known| known == image);
            loaded.of_set.push(known.unwrap_or(images.len()));
            if known.is_none() {
                images.push(image.clone());
                loaded.modules.push(load_echoed(operator, module, problem)?);
            }
        }
        Ok(loaded)
    }
}

/// Who meets on one shape in one distribution.
pub(super) struct Field {
    shape: Shape,
    distribution: Distribution,
    /// Input sets.
    pub(super) problems: Vec<Problem>,
    planned: Vec<Planned>,
    /// Subjects that failed, and are not asked again.
    failed: BTreeSet<Subject>,
}

impl Field {
    /// Draws inputs and plans launches; who cannot be launched has failed.
    pub(super) fn prepare(
        ground: &Ground,
        operator: &mut dyn Operator,
        shape: &Shape,
        distribution: Distribution,
        taken: &mut Taken,
    ) -> Result<Field> {
        let all = timed_problems(&ground.job.suite, shape);
        let problems: Vec<Problem> = all.into_iter().filter(|p| p.distribution == distribution).collect();
        let shape = shape.clone();
        let mut field = Field { shape, distribution, problems, planned: Vec::new(), failed: BTreeSet::new() };
        for module in ground.job.modules.iter().filter(|module| callable::of(module).is_none()) {
            progress(0, 1, &format!("inputs of {} on {}", module.variant, field.shape.name));
            match field.plan(ground, operator, module) {
                Ok(setups) => {
                    let digests = vec![None; setups.len()];
                    field.planned.push(Planned { module: module.clone(), setups, digests });
                }
                Err(error) => field.fail(taken, &Subject::plain(&module.variant), &words(&error)),
            }
        }
        Ok(field)
    }

    fn plan(&self, ground: &Ground, operator: &mut dyn Operator, module: &Module) -> Result<Vec<Arc<Setup>>> {
        self.check_verified(ground, &module.variant)?;
        let executor = executor(ground.gpu);
        self.problems.iter().map(|problem| operator.setup(module, problem, &executor).map(Arc::new)).collect()
    }

    /// What was not verified is not run: a kernel that faults would take everybody's context with it.
    pub(super) fn check_verified(&self, ground: &Ground, variant: &str) -> Result<()> {
        let none = BTreeMap::new();
        let verified = ground.job.verified.get(variant).unwrap_or(&none);
        match self.problems.iter().find(|p| !verified.contains_key(&p.id())) {
            Some(problem) => bail!("there is no verified output of {}", problem.id()),
            None => Ok(()),
        }
    }

    pub(super) fn has_failed(&self, subject: &Subject) -> bool {
        self.failed.iter().any(|failed| failed.who == subject.who)
    }

    pub(super) fn fail(&mut self, taken: &mut Taken, subject: &Subject, why: &str) {
        let is_usual = self.distribution == Distribution::Normal;
        let why = if is_usual { why.to_owned() } else { format!("on {} inputs: {why}", self.distribution.name()) };
        if self.failed.insert(subject.clone()) {
            taken.samples.failures.push(TimingFailure {
                shape: self.shape.name.clone(),
                subject: subject.clone(),
                why,
            });
        }
    }

    /// What came of a subject's turn on the device. Where the device failed for good, who was on it is told, and nobody
    /// else is launched.
    fn turn<T>(&mut self, gpu: &Gpu, taken: &mut Taken, subject: &Subject, turn: Result<T>) -> Result<Option<T>> {
        let error = match turn {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        let why = words(&error);
        if !gpu.is_alive() {
            let shape = self.shape.name.clone();
            emit(&Event::Fault { shape, subject: subject.clone(), why: why.clone() });
            bail!("the device failed while `{subject}` was on it: {why}");
        }
        self.fail(taken, subject, &why);
        Ok(None)
    }

    pub(super) fn about_to_time(&self, subject: &Subject) {
        emit(&Event::Timing { shape: self.shape.name.clone(), subject: subject.clone() });
    }
}

/// One sitting.
pub(super) struct Sitting {
    pub(super) number: u32,
    pub(super) rounds: Range<u32>,
    /// By which its placement is drawn.
    pub(super) place: u64,
}

/// Whose turn it is.
enum Turn {
    Variant { index: usize, subject: Subject },
    Peer { index: usize, subject: PeerSubject },
    Guest { index: usize, subject: Subject },
}

impl Turn {
    fn subject(&self) -> Subject {
        match self {
            Turn::Variant { subject, .. } | Turn::Guest { subject, .. } => subject.clone(),
            Turn::Peer { subject, .. } => subject_of(subject),
        }
    }
}

impl Sitting {
    /// Takes its rounds.
    pub(super) fn take(
        &self,
        ground: &Ground,
        operator: &mut dyn Operator,
        field: &mut Field,
        (rivals, guests): (&mut Rivals, &mut Guests),
        order: &mut ChaCha8Rng,
        taken: &mut Taken,
    ) -> Result<()> {
        let mut placement = Placement::take(ground.job.placement, self.place, field.planned.len())?;
        // Modules are loaded anew, so that nothing that a kernel kept in device globals survives.
        let mut loaded: Vec<(usize, Loaded)> = Vec::new();
        for at in placement.order.clone() {
            let subject = Subject::plain(&field.planned[at].module.variant);
            if field.failed.contains(&subject) {
                continue;
            }
            field.about_to_time(&subject);
            let modules = Loaded::of(operator, &field.planned[at].module, &field.problems);
            if let Some(modules) = field.turn(ground.gpu, taken, &subject, modules)? {
                loaded.push((at, modules));
            }
        }
        let mut contestants = Vec::new();
        for (at, modules) in &loaded {
            let has_originals = field.planned[*at].setups.iter().any(|setup| !setup.from_originals.is_empty());
            for arm in [Arm::Plain, Arm::FromOriginals].into_iter().take(1 + usize::from(has_originals)) {
                let subject = Subject { who: field.planned[*at].module.variant.clone(), arm };
                if field.failed.contains(&subject) {
                    continue;
                }
                field.about_to_time(&subject);
                let placed = field.contestant(ground, (*at, modules), &subject, &mut placement.rng);
                contestants.extend(field.turn(ground.gpu, taken, &subject, placed)?);
            }
        }
        guests.sit(ground, field, taken);
        let turns = turns(&ground.job.suite.control, &contestants, rivals, guests);
        self.rounds(ground, field, (&contestants, &turns), (rivals, guests), order, taken)?;
        for contestant in &contestants {
            let subject = contestant.subject.clone();
            if let Some(Some(what)) = field.turn(ground.gpu, taken, &subject, contestant.trespass())? {
                field.fail(taken, &subject, what);
            }
        }
        Ok(())
    }

    fn rounds(
        &self,
        ground: &Ground,
        field: &mut Field,
        (contestants, turns): (&[Contestant], &[Turn]),
        (rivals, guests): (&mut Rivals, &mut Guests),
        order: &mut ChaCha8Rng,
        taken: &mut Taken,
    ) -> Result<()> {
        let mut before = state(ground.monitor);
        for round in self.rounds.clone() {
            let what =
                format!("timing {}, {}, sitting {}", field.shape.name, field.distribution.name(), self.number + 1);
            progress(round as usize, self.rounds.end as usize, &what);
            for (mode, cache) in kinds(round == self.rounds.start && !ground.job.is_search) {
                for (slot, turn) in shuffled(order, turns.len()).into_iter().enumerate() {
                    let turn = &turns[turn];
                    let subject = turn.subject();
                    let number = taken.samples.blocks.len();
                    let on = (contestants, &mut *rivals, &mut *guests);
                    let came = block_of(ground, field, turn, on, (mode, cache, number), taken)?;
                    let after = state(ground.monitor);
                    let states = [std::mem::replace(&mut before, after.clone()), after];
                    let Some(Came { us, outer, outputs_verified }) = came else { continue };
                    let stamp = Stamp {
                        shape: &field.shape.name,
                        distribution: field.distribution,
                        sitting: self.number,
                        cache,
                        mode,
                        round,
                        slot: slot as u32,
                    };
                    let block = stamp.block(subject, us, states, outputs_verified);
                    taken.samples.blocks.push(Block { outer, ..block });
                }
            }
        }
        Ok(())
    }
}

/// What came of a turn.
struct Came {
    us: Vec<f64>,
    outer: Option<Outer>,
    outputs_verified: bool,
}

/// A block of whose turn it is; none of who has failed, now or before, or takes no part in such a block. `number` is that of
/// the block in the samples.
fn block_of(
    ground: &Ground,
    field: &mut Field,
    turn: &Turn,
    (contestants, rivals, guests): (&[Contestant], &mut Rivals, &mut Guests),
    (mode, cache, number): (Mode, Cache, usize),
    taken: &mut Taken,
) -> Result<Option<Came>> {
    let subject = turn.subject();
    if field.failed.contains(&subject) || !rivals.is_there(&subject.who) {
        return Ok(None);
    }
    let of = |us, outer| Came { us, outer, outputs_verified: true };
    let came = match turn {
        // Whether a peer's memory is flushed is not ours to say.
        Turn::Peer { .. } if !cache.is_hot() => return Ok(None),
        Turn::Guest { .. } if field.has_failed(&subject) => return Ok(None),
        Turn::Variant { index, .. } => {
            field.about_to_time(&subject);
            let flush = (!cache.is_hot()).then_some(&ground.flush);
            let block = contestants[*index].block(ground, mode, flush);
            let block = field.turn(ground.gpu, taken, &subject, block)?;
            return Ok(block.map(|(us, outputs_verified)| Came { us, outer: None, outputs_verified }));
        }
        Turn::Peer { index, subject: peer } => {
            field.about_to_time(&subject);
            rivals.block(ground.job, &mut taken.running, (*index, peer), mode).map(|us| Some(of(us, None)))
        }
        Turn::Guest { index, .. } => {
            field.about_to_time(&subject);
            let timed = guests.block(ground, *index, (mode, cache), number);
            timed.map(|timed| timed.map(|timed| of(timed.us, Some(timed.outer))))
        }
    };
    came.or_else(|error| {
        field.fail(taken, &subject, &format!("{error:#}"));
        Ok(None)
    })
}

/// What is timed in a round: both timers with a hot L2, and calls with a cold one in the first round of a sitting.
fn kinds(is_first: bool) -> impl Iterator<Item = (Mode, Cache)> {
    let hot = Mode::ALL.into_iter().map(|mode| (mode, Cache::Hot));
    hot.chain(is_first.then_some((Mode::Call, Cache::Cold)))
}

fn state(monitor: Option<&Monitor>) -> GpuState {
    monitor.map(Monitor::state).unwrap_or_default()
}

/// The control has a second turn: it is timed against itself.
fn twice(control: &str, subject: &Subject) -> impl Iterator<Item = Subject> {
    let again = subject.is_plain(control).then(|| Subject::again(&subject.who));
    std::iter::once(subject.clone()).chain(again)
}

fn turns(control: &str, contestants: &[Contestant], rivals: &Rivals, guests: &Guests) -> Vec<Turn> {
    let variants = contestants.iter().enumerate().flat_map(|(index, contestant)| {
        twice(control, &contestant.subject).map(move |subject| Turn::Variant { index, subject })
    });
    let guests = guests
        .subjects()
        .flat_map(|(index, subject)| twice(control, subject).map(move |subject| Turn::Guest { index, subject }));
    let peers = rivals.subjects.iter().cloned().map(|(index, subject)| Turn::Peer { index, subject });
    variants.chain(guests).chain(peers).collect()
}

impl Field {
    /// Places an arm of a variant. The bytes of each set's output are seen once; after that their digests are enough.
    fn contestant<'m>(
        &mut self,
        ground: &'m Ground,
        (at, loaded): (usize, &'m Loaded),
        subject: &Subject,
        rng: &mut ChaCha8Rng,
    ) -> Result<Contestant<'m>> {
        let Ground { job, gpu, digester, originals, .. } = ground;
        let Planned { setups, digests, .. } = &mut self.planned[at];
        let hashes = &job.verified[&subject.who];
        let problems = &self.problems;
        let mut verified = |set: usize, results: &[&Buffer]| {
            if let Some(known) = &digests[set] {
                return Ok(known.clone());
            }
            let mut bytes = Vec::new();
            for buffer in results {
                bytes.extend(buffer.read()?);
            }
            let id = problems[set].id();
            ensure!(hashes.get(&id) == Some(&sha256_hex(&bytes)), "the output on {id} is not the verified one");
            let found = digester.verified(gpu, results, &bytes)?;
            digests[set] = Some(found.clone());
            Ok(found)
        };
        let timing = &job.suite.timing;
        let entry = Entry {
            subject: subject.clone(),
            from_originals: subject.arm == Arm::FromOriginals,
            setups,
            launches: timing.launches as usize,
            warmup: timing.warmup,
            reuse_inputs: job.is_search,
        };
        let on = |module| OnGpu::new(gpu, module).with_copies(originals);
        let builds = Builds { on: loaded.modules.iter().map(on).collect(), of_set: loaded.of_set.clone() };
        let placed = Contestant::place(builds, entry, digester, rng, &mut verified);
        placed.map_err(|error| if error.is::<cudarc::driver::DriverError>() { error } else { anyhow!("{error:#}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sitting_has_one_cold_round_and_hot_ones_with_both_timers() {
        let all: Vec<_> = kinds(true).collect();
        assert_eq!(all, [(Mode::Kernel, Cache::Hot), (Mode::Call, Cache::Hot), (Mode::Call, Cache::Cold)]);
        assert_eq!(kinds(false).filter(|(_, cache)| !cache.is_hot()).count(), 0);
    }
}
