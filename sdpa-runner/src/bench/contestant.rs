//! One variant on one shape while it is timed: its input sets, what each launch reads and writes, and a block of launches
//! between events or in a graph. Leaves to others: whose turn it is.
//!
//! What keeps a timed launch from finding its answer: no two launches of a block have the same inputs (`mixes`), and when a
//! block begins nothing in the device's memory holds an answer to any of them: every output, scratch and image is poisoned
//! after the block that wrote it was compared, those of all other subjects too, and again after the untimed launches of
//! the block. It does not close what lies outside of every buffer that was handed out: a kernel that writes there is for the
//! checks of memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kbench::evidence::{Block, Cache, GpuState, Mode};
use kbench::operator::Distribution;
use kbench::subject::Subject;
use kernel_spec::launch::Step;
use operators::setup::Setup;
use rand_chacha::ChaCha8Rng;
use stats::shuffled;

use super::Ground;
use super::hold::Hold;
use super::mixes::{Mix, mixes};
use crate::cuda::{Buffer, Event, Graph, OnGpu};
use crate::digest::Digester;
use crate::workload::{Machine, Workload, Written};

/// A block of slow launches has fewer of them, so that the two arms of a round stay close in time.
const BLOCK_TARGET_US: f64 = 4_000.0;
/// But not fewer than this.
pub(super) const LEAST_LAUNCHES: usize = 3;
/// Launches of a cold block: before each, memory is written for longer than most kernels take.
const COLD_LAUNCHES: usize = 5;

/// How many launches a block has room for.
pub(super) fn launches_within_target(once_us: f64) -> usize {
    ((BLOCK_TARGET_US / once_us) as usize).max(LEAST_LAUNCHES)
}

/// One launch of a block.
struct Slot<'m> {
    mix: Mix,
    /// The tensor that is woven of several sets, and what it holds.
    woven: Option<(String, Buffer, Arc<Vec<u8>>)>,
    written: Written<OnGpu<'m>>,
    /// The digests of its right outputs.
    wanted: Vec<u64>,
}

/// The builds of a variant that a shape needs, of which each set has one: what is known when a kernel is compiled may depend
/// on the seed.
pub(super) struct Builds<'m> {
    pub(super) on: Vec<OnGpu<'m>>,
    pub(super) of_set: Vec<usize>,
}

impl<'m> Builds<'m> {
    fn of(&self, set: usize) -> &OnGpu<'m> {
        &self.on[self.of_set[set]]
    }
}

/// Everything of one variant on one shape in one place.
pub(super) struct Contestant<'m> {
    pub(super) subject: Subject,
    builds: Builds<'m>,
    /// Whether a launch begins with the operator's own kernels.
    from_originals: bool,
    sets: Vec<Workload<OnGpu<'m>>>,
    /// The group of each tensor that is not of the last one.
    group_of: BTreeMap<String, usize>,
    slots: Vec<Slot<'m>>,
    /// A digest for each output of each launch.
    digests: Buffer,
    /// All launches of a block.
    graph: Option<Graph>,
    events: Vec<(Event, Event)>,
    warmup: usize,
}

/// Which block is being timed.
#[derive(Clone, Copy)]
pub(super) struct Stamp<'a> {
    pub(super) shape: &'a str,
    pub(super) distribution: Distribution,
    pub(super) sitting: u32,
    pub(super) cache: Cache,
    pub(super) mode: Mode,
    pub(super) round: u32,
    pub(super) slot: u32,
}

impl Stamp<'_> {
    pub(super) fn block(&self, subject: Subject, us: Vec<f64>, states: [GpuState; 2], outputs_verified: bool) -> Block {
        let [before, after] = states;
        Block {
            shape: self.shape.to_owned(),
            distribution: self.distribution,
            sitting: self.sitting,
            cache: self.cache,
            subject,
            mode: self.mode,
            round: self.round,
            slot: self.slot,
            us,
            before,
            after,
            outer: None,
            outputs_verified,
        }
    }
}

/// Says of the outputs of a set, as they lie on the device, what the digests of the verified ones are.
type Verified<'a> = dyn FnMut(usize, &[&Buffer]) -> Result<Vec<u64>> + 'a;

/// How a contestant is made.
pub(super) struct Entry<'a> {
    pub(super) subject: Subject,
    pub(super) from_originals: bool,
    /// One for each set.
    pub(super) setups: &'a [Arc<Setup>],
    /// Launches of a block, at most.
    pub(super) launches: usize,
    pub(super) warmup: u32,
    /// Whether two launches may have the same inputs.
    pub(super) reuse_inputs: bool,
}

impl<'m> Contestant<'m> {
    /// Places everything, and has `verified` say of each set's bytes what their digests are; the inner error is the kernel's.
    pub(super) fn place(
        builds: Builds<'m>,
        entry: Entry,
        digester: &Digester,
        rng: &mut ChaCha8Rng,
        verified: &mut Verified,
    ) -> Result<Contestant<'m>> {
        let placed = entry.setups.iter().enumerate().map(|(set, setup)| Workload::place(builds.of(set), setup.clone()));
        let sets: Vec<_> = placed.collect::<Result<_>>()?;
        for (set, workload) in sets.iter().enumerate() {
            workload.make(builds.of(set))?.map_err(anyhow::Error::msg)?;
        }
        let (group_of, groups) = groups(entry.setups);
        let mixes = mixes(groups, sets.len(), entry.launches, rng);
        let outputs = entry.setups[0].tensors.iter().filter(|t| t.role.is_output()).count();
        let mut contestant = Contestant {
            digests: Digester::room(entry.launches * outputs)?,
            subject: entry.subject,
            builds,
            from_originals: entry.from_originals,
            sets,
            group_of,
            slots: Vec::new(),
            graph: None,
            events: Vec::new(),
            warmup: entry.warmup as usize,
        };
        contestant.add_slot(&mixes[0])?;
        let once = contestant.time_once()?;
        contestant.warmup = contestant.warmup.min(launches_within_target(once) / 2).max(1);
        let room = entry.launches.min(launches_within_target(once));
        let launches = if entry.reuse_inputs { room } else { room.min(mixes.len()) };
        for i in 1..launches {
            contestant.add_slot(&mixes[i % mixes.len()])?;
        }
        contestant.verify(digester, verified)?;
        // A place in the block says nothing of the inputs there.
        let mut slots: Vec<Option<Slot>> = contestant.slots.drain(..).map(Some).collect();
        contestant.slots = shuffled(rng, launches).into_iter().filter_map(|i| slots[i].take()).collect();
        let steps = || (0..launches).try_for_each(|i| contestant.launch(i));
        let graph = Graph::capture(contestant.on().gpu, steps)?;
        contestant.graph = Some(graph);
        Ok(contestant)
    }

    fn add_slot(&mut self, mix: &[usize]) -> Result<()> {
        let woven = match &self.sets[0].setup.mixing.woven {
            None => None,
            Some((name, words)) => {
                let parts: Vec<&[u8]> = self.sets.iter().map(|set| given(&set.setup, name)).collect::<Result<_>>()?;
                let bytes = weave(words, mix, &parts);
                Some((name.clone(), Buffer::holding(&bytes)?, Arc::new(bytes)))
            }
        };
        let written = self.sets[*mix.last().unwrap_or(&0)].written(self.on())?;
        self.slots.push(Slot { mix: mix.to_vec(), woven, written, wanted: Vec::new() });
        self.events.push((Event::new()?, Event::new()?));
        Ok(())
    }

    /// The set that a slot's tensors come from where they are in no group, and whose outputs it has.
    fn rest(&self, slot: &Slot) -> &Workload<OnGpu<'m>> {
        &self.sets[rest_of(slot)]
    }

    /// Where memory lies; whichever of the builds.
    fn on(&self) -> &OnGpu<'m> {
        &self.builds.on[0]
    }

    fn run(&self, slot: &Slot, steps: &[Step]) -> Result<()> {
        let read = |name: &str| match self.group_of.get(name) {
            Some(group) => self.sets[slot.mix[*group]].read(name),
            None => self.rest(slot).read(name),
        };
        let woven = |name: &str| slot.woven.as_ref().filter(|(woven, ..)| woven == name).map(|(_, buffer, _)| buffer);
        let named = |name: &str| slot.written.get(name).or_else(|| woven(name)).or_else(|| read(name));
        let on = self.builds.of(rest_of(slot));
        steps.iter().try_for_each(|step| on.perform(step, &named))
    }

    fn launch(&self, i: usize) -> Result<()> {
        let slot = &self.slots[i % self.slots.len()];
        let setup = &self.rest(slot).setup;
        self.run(slot, if self.from_originals { &setup.from_originals } else { &setup.steps })
    }

    /// What every launch must give: the verified outputs where all inputs are of one set, else what the kernel gives now,
    /// when no answer lies anywhere. Then everything is forgotten.
    fn verify(&mut self, digester: &Digester, verified: &mut Verified) -> Result<()> {
        // Images stay: they were compared when they were made.
        for slot in &self.slots {
            self.rest(slot).begin_anew(self.on(), &slot.written)?;
        }
        for slot in &self.slots {
            self.run(slot, &self.rest(slot).setup.steps)?;
        }
        self.on().finish()?;
        let found = self.found(digester, self.slots.len())?;
        let mut wanted = Vec::new();
        for (slot, found) in self.slots.iter().zip(found) {
            let first = slot.mix[0];
            if slot.mix.iter().all(|set| *set == first) {
                let results: Vec<&Buffer> = self.rest(slot).results(&slot.written).collect();
                ensure!(verified(first, &results)? == found, "an output is not the verified one");
            }
            wanted.push(found);
        }
        self.slots.iter_mut().zip(wanted).for_each(|(slot, wanted)| slot.wanted = wanted);
        self.start_afresh()?;
        self.on().finish()
    }

    /// Digests of the outputs of the first launches.
    fn found(&self, digester: &Digester, launches: usize) -> Result<Vec<Vec<u64>>> {
        let gpu = self.on().gpu;
        self.digests.fill(gpu, 0)?;
        let mut next = 0;
        for slot in self.slots.iter().take(launches) {
            let results: Vec<&Buffer> = self.rest(slot).results(&slot.written).collect();
            digester.add(gpu, results.iter().copied(), &self.digests, next)?;
            next += results.len();
        }
        self.on().finish()?;
        let digests = Digester::read(&self.digests)?;
        let outputs = next / launches.clamp(1, self.slots.len());
        Ok(digests.chunks_exact(outputs.max(1)).take(launches).map(<[u64]>::to_vec).collect())
    }

    /// Warms up, poisons everything again, times, compares every output with the right one, and poisons it. `flush` is
    /// written before each launch of a cold block. Also answers whether all outputs were right.
    pub(super) fn block(&self, ground: &Ground, mode: Mode, flush: Option<&Buffer>) -> Result<(Vec<f64>, bool)> {
        self.on().gpu.forget_persisting()?;
        let us = match (flush, mode) {
            (Some(flush), _) => self.time_cold(flush)?,
            (None, Mode::Call) => self.time_calls(&ground.hold)?,
            (None, Mode::Kernel) => self.time_graph()?,
        };
        let launches = if flush.is_some() { us.len() } else { self.slots.len() };
        let found = self.found(&ground.digester, launches)?;
        let is_right = found.iter().zip(&self.slots).all(|(found, slot)| *found == slot.wanted);
        self.start_afresh()?;
        Ok((us, is_right))
    }

    /// Microseconds of one warm launch.
    fn time_once(&self) -> Result<f64> {
        let (start, end) = &self.events[0];
        // What its images are made of is there; the first launch loads code.
        self.launch(0)?;
        start.record(self.on().gpu)?;
        self.launch(0)?;
        end.record(self.on().gpu)?;
        self.on().finish()?;
        Ok(end.us_since(start)?)
    }

    /// Poison in every output, and in what the launches make; scratch as the first launch found it; in the order of the
    /// stream.
    fn start_afresh(&self) -> Result<()> {
        if self.from_originals {
            self.sets.iter().try_for_each(|workload| workload.unmake(self.on()))?;
        }
        self.slots.iter().try_for_each(|slot| self.rest(slot).begin_anew(self.on(), &slot.written))
    }

    fn time_calls(&self, hold: &Hold) -> Result<Vec<f64>> {
        (0..self.warmup).try_for_each(|i| self.launch(i))?;
        self.start_afresh()?;
        let setup = &self.sets[0].setup;
        let steps = if self.from_originals { &setup.from_originals } else { &setup.steps };
        hold.until_queued(self.on().gpu, self.events.len() * (steps.len() + 2))?;
        for (i, (start, end)) in self.events.iter().enumerate() {
            start.record(self.on().gpu)?;
            self.launch(i)?;
            end.record(self.on().gpu)?;
        }
        self.times(self.events.len())
    }

    /// Each launch behind a write of more memory than the L2 has; the write is outside the events.
    fn time_cold(&self, flush: &Buffer) -> Result<Vec<f64>> {
        let launches = self.events.len().min(COLD_LAUNCHES);
        (0..self.warmup).try_for_each(|i| self.launch(i))?;
        self.start_afresh()?;
        for (i, (start, end)) in self.events.iter().enumerate().take(launches) {
            flush.fill(self.on().gpu, i as u8)?;
            start.record(self.on().gpu)?;
            self.launch(i)?;
            end.record(self.on().gpu)?;
        }
        self.times(launches)
    }

    fn times(&self, launches: usize) -> Result<Vec<f64>> {
        self.on().finish()?;
        self.events.iter().take(launches).map(|(start, end)| Ok(end.us_since(start)?)).collect()
    }

    /// The first replay warms up, the second is the sample; the poison between them is outside the events.
    fn time_graph(&self) -> Result<Vec<f64>> {
        let gpu = self.on().gpu;
        let (start, end) = &self.events[0];
        let graph = self.graph.as_ref().context("the launches of a block were captured")?;
        graph.launch(gpu)?;
        self.start_afresh()?;
        start.record(gpu)?;
        graph.launch(gpu)?;
        end.record(gpu)?;
        self.on().finish()?;
        Ok(vec![end.us_since(start)? / self.slots.len() as f64])
    }

    /// Memory that was written although it was not the kernel's to write, in words.
    pub(super) fn trespass(&self) -> Result<Option<&'static str>> {
        if self.from_originals {
            // Images are poison between blocks; the other arm of this variant looks at them.
            let mut sets = self.sets.iter().enumerate();
            sets.try_for_each(|(set, workload)| workload.make(self.builds.of(set)).map(drop))?;
        }
        for workload in &self.sets {
            if !workload.inputs_unchanged(self.on())? {
                return Ok(Some("an input was written while timed"));
            }
        }
        for slot in &self.slots {
            if let Some((_, buffer, bytes)) = &slot.woven {
                let is_intact = self.from_originals || self.on().holds(buffer, bytes)?;
                if !is_intact {
                    return Ok(Some("an input was written while timed"));
                }
                if !self.on().guards_intact(buffer)? {
                    return Ok(Some("a guard band was written while timed"));
                }
            }
            if !self.rest(slot).guards_intact(self.on(), &slot.written)? {
                return Ok(Some("a guard band was written while timed"));
            }
        }
        Ok(None)
    }
}

/// The set that a slot's tensors come from where they are in no group.
fn rest_of(slot: &Slot) -> usize {
    slot.mix.last().copied().unwrap_or(0)
}

/// The group of each tensor that has one, and how many there are: those of the operator, and one more of what is left.
/// Where what is launched depends on the seed, there is only that.
fn groups(setups: &[Arc<Setup>]) -> (BTreeMap<String, usize>, usize) {
    let first = &setups[0];
    let is_apart =
        setups.iter().all(|setup| setup.steps == first.steps && setup.from_originals == first.from_originals);
    let mixing = if is_apart { first.mixing.clone() } else { Default::default() };
    let groups = mixing.groups.iter().enumerate();
    let group_of: BTreeMap<String, usize> =
        groups.flat_map(|(group, names)| names.iter().map(move |name| (name.clone(), group))).collect();
    let is_left = |name: &str| !group_of.contains_key(name) && mixing.woven.as_ref().is_none_or(|(w, _)| w != name);
    let left = first.given().any(|(name, _)| is_left(name)) || mixing.groups.is_empty();
    let count = mixing.groups.len() + usize::from(left);
    (group_of, count)
}

fn given<'s>(setup: &'s Setup, name: &str) -> Result<&'s [u8]> {
    let found = setup.given().find(|(given, _)| *given == name);
    found.map(|(_, bytes)| bytes.as_slice()).with_context(|| format!("`{name}` is given"))
}

/// Words of which each comes from the set that its group comes from.
fn weave(words: &[usize], mix: &[usize], parts: &[&[u8]]) -> Vec<u8> {
    let of_word = |(word, group): (usize, &usize)| {
        let bytes = parts[mix[*group]].get(4 * word..4 * word + 4).unwrap_or_default();
        bytes.iter().copied()
    };
    let count = parts[mix[0]].len() / 4;
    (0..count).zip(words.iter().cycle()).flat_map(of_word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use operators::setup::{Mixing, NAN, Role, Tensor};

    fn setup(mixing: Mixing, steps: Vec<Step>) -> Arc<Setup> {
        let input = |name: &str| Tensor { name: name.to_owned(), role: Role::Input(Arc::new(vec![0; 8])) };
        let out = Tensor { name: "out".to_owned(), role: Role::Output(8, NAN) };
        Arc::new(Setup {
            tensors: vec![input("q"), input("k"), input("scales"), out],
            mixing,
            making: Vec::new(),
            steps,
            from_originals: Vec::new(),
            entry: None,
            part: None,
            bounded: false,
        })
    }

    #[test]
    fn what_is_in_no_group_is_one_and_nothing_is_apart_where_the_seed_decides_the_launch() {
        let apart = |names: &[&str]| Mixing {
            groups: names.iter().map(|name| vec![(*name).to_owned()]).collect(),
            woven: Some(("scales".to_owned(), vec![0, 1])),
        };
        let zero = |byte| Step::Memset { tensor: "out".to_owned(), byte };
        let of = |mixing: Mixing, bytes: [u8; 2]| groups(&bytes.map(|byte| setup(mixing.clone(), vec![zero(byte)])));
        assert_eq!(of(apart(&["q", "k"]), [0, 0]).1, 2);
        assert_eq!(of(apart(&["q"]), [0, 0]).1, 2);
        assert_eq!(of(apart(&["q", "k"]), [0, 1]), (BTreeMap::new(), 1));
        assert_eq!(of(Mixing::default(), [0, 0]), (BTreeMap::new(), 1));
    }

    #[test]
    fn woven_words_come_from_the_sets_of_their_groups() {
        let [a, b] = [1u8, 2].map(|set| (0..4).flat_map(|word| [set, word, 0, 0]).collect::<Vec<u8>>());
        let woven = weave(&[0, 1], &[1, 0], &[&a, &b]);
        let sets: Vec<u8> = woven.chunks_exact(4).map(|word| word[0]).collect();
        let places: Vec<u8> = woven.chunks_exact(4).map(|word| word[1]).collect();
        assert_eq!((sets, places), (vec![2, 1, 2, 1], vec![0, 1, 2, 3]));
    }

    #[test]
    fn slow_launches_are_few_and_never_fewer_than_three() {
        assert_eq!([10.0, 1000.0, 1e6].map(launches_within_target), [400, 4, LEAST_LAUNCHES]);
    }
}
