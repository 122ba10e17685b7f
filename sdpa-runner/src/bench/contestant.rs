//! One variant on one shape while it is timed: its input sets, what each launch writes, and a block of launches between
//! events or in a graph. Leaves to others: whose turn it is.

use anyhow::Result;
use kbench::evidence::{Block, Cache, GpuState, Mode};
use kbench::operator::Distribution;
use kbench::subject::Subject;

use crate::cuda::{Buffer, Event, Graph, OnGpu};
use crate::digest::Digester;
use crate::nvml::Monitor;
use crate::workload::{Machine, Workload, Written};

/// Everything of one variant on one shape. Launch `i` of a block reads set `i % sets` and writes output `i`: a kernel
/// that finds its work done, or does it only now and then, leaves poison where a result should be.
pub(super) struct Contestant<'m> {
    pub(super) subject: Subject,
    pub(super) on: OnGpu<'m>,
    /// Whether a launch begins with the operator's own kernels.
    pub(super) from_originals: bool,
    /// Each with the digests of its verified outputs.
    pub(super) sets: Vec<(Workload<OnGpu<'m>>, Vec<u64>)>,
    /// What each launch of a block writes.
    pub(super) written: Vec<Written<OnGpu<'m>>>,
    /// A digest for each of their outputs.
    pub(super) digests: Buffer,
    /// All launches of a block.
    pub(super) graph: Option<Graph>,
    pub(super) events: Vec<(Event, Event)>,
}

/// Which block is being timed.
pub(super) struct Stamp<'a> {
    pub(super) shape: &'a str,
    pub(super) mode: Mode,
    pub(super) round: u32,
    pub(super) slot: u32,
}

impl Stamp<'_> {
    pub(super) fn block(&self, subject: Subject, us: Vec<f64>, states: [GpuState; 2], outputs_verified: bool) -> Block {
        let [before, after] = states;
        Block {
            shape: self.shape.to_owned(),
            distribution: Distribution::Normal,
            sitting: 0,
            cache: Cache::Hot,
            subject,
            mode: self.mode,
            round: self.round,
            slot: self.slot,
            us,
            before,
            after,
            outputs_verified,
        }
    }
}

pub(super) fn state(monitor: Option<&Monitor>) -> GpuState {
    monitor.map(Monitor::state).unwrap_or_default()
}

impl Contestant<'_> {
    /// Warms up, poisons every output again, times, and compares every output with the verified one of its set.
    pub(super) fn block(
        &self,
        digester: &Digester,
        monitor: Option<&Monitor>,
        warmup: u32,
        stamp: &Stamp,
        subject: &Subject,
    ) -> Result<Block> {
        let before = state(monitor);
        let us = match stamp.mode {
            Mode::Call => self.time_calls(warmup)?,
            Mode::Kernel => self.time_graph()?,
        };
        let after = state(monitor);
        Ok(stamp.block(subject.clone(), us, [before, after], self.are_verified(digester)?))
    }

    /// Whether every output is the verified one of its set.
    fn are_verified(&self, digester: &Digester) -> Result<bool> {
        let gpu = self.on.gpu;
        let outputs = self.sets[0].1.len();
        self.digests.fill(gpu, 0)?;
        for (i, written) in self.written.iter().enumerate() {
            digester.add(gpu, self.sets[0].0.results(written), &self.digests, i * outputs)?;
        }
        self.on.finish()?;
        let digests = Digester::read(&self.digests)?;
        let pairs = digests.chunks_exact(outputs).take(self.written.len()).zip(self.sets.iter().cycle());
        Ok(pairs.into_iter().all(|(digests, (_, verified))| digests == verified))
    }

    pub(super) fn launch(&self, i: usize) -> Result<()> {
        let (workload, _) = &self.sets[i % self.sets.len()];
        let steps = if self.from_originals { &workload.setup.from_originals } else { &workload.setup.steps };
        workload.run(&self.on, steps, &self.written[i % self.written.len()])
    }

    /// Microseconds of one warm launch.
    pub(super) fn time_once(&self) -> Result<f64> {
        let (start, end) = &self.events[0];
        start.record(self.on.gpu)?;
        self.launch(0)?;
        end.record(self.on.gpu)?;
        self.on.finish()?;
        Ok(end.us_since(start)?)
    }

    /// Poison in every output, and in what the launches make; scratch as a launch must find it; in the order of the stream.
    fn start_afresh(&self) -> Result<()> {
        if self.from_originals {
            self.sets.iter().try_for_each(|(workload, _)| workload.unmake(&self.on))?;
        }
        for (i, written) in self.written.iter().enumerate() {
            self.sets[i % self.sets.len()].0.refill(&self.on, written)?;
        }
        Ok(())
    }

    fn time_calls(&self, warmup: u32) -> Result<Vec<f64>> {
        (0..warmup as usize).try_for_each(|i| self.launch(i))?;
        self.start_afresh()?;
        for (i, (start, end)) in self.events.iter().enumerate() {
            start.record(self.on.gpu)?;
            self.launch(i)?;
            end.record(self.on.gpu)?;
        }
        self.on.finish()?;
        self.events.iter().map(|(start, end)| Ok(end.us_since(start)?)).collect()
    }

    /// The first replay warms up, the second is the sample; the poison between them is outside the events.
    fn time_graph(&self) -> Result<Vec<f64>> {
        let gpu = self.on.gpu;
        let (start, end) = &self.events[0];
        let replay = || self.graph.as_ref().map_or(Ok(()), |graph| graph.launch(gpu));
        replay()?;
        self.start_afresh()?;
        start.record(gpu)?;
        replay()?;
        end.record(gpu)?;
        self.on.finish()?;
        Ok(vec![end.us_since(start)? / self.written.len() as f64])
    }

    /// Memory that was written although it was not the kernel's to write, in words.
    pub(super) fn trespass(&self) -> Result<Option<&'static str>> {
        for (workload, _) in &self.sets {
            if !workload.inputs_unchanged(&self.on)? {
                return Ok(Some("an input was written while timed"));
            }
        }
        for written in &self.written {
            if !self.sets[0].0.guards_intact(&self.on, written)? {
                return Ok(Some("a guard band was written while timed"));
            }
        }
        Ok(None)
    }
}
