//! The judge's statistics by simulation: runs with a known truth and a known kind of noise, judged as real ones are, looks
//! and further sittings included. Pure: the same cell and seeds give the same tally everywhere. Leaves to others: who runs
//! how many of them, on how many threads.

mod noise;
mod table;

use std::ops::{AddAssign, Range};

use crate::decision::{Verdict, decide};
use crate::evidence::{Block, GpuState, Mode, Samples};
use crate::gate::{GateId, State};
use crate::judge::{Evidence, judge, judge_samples, open_distributions, testing};
use crate::operator::Distribution;
use crate::subject::Subject;
use crate::suite::{PerformanceLimit, Regressions, Suite, Timing};
pub use noise::Noise;
use noise::Source;
pub use table::{missed_bars, parse, table};

/// The reduction that the simulated gate asks for, in percent.
pub const ASKED: f64 = 10.0;
/// True reductions, in percent.
pub const REDUCTIONS: [f64; 7] = [0.0, 8.0, 9.0, 9.5, 10.0, 11.0, 12.0];
/// What the control takes, in microseconds: more than any device's peak allows on the largest shape.
const CONTROL_US: f64 = 10_000.0;
/// Shapes of a whole suite.
const SHAPES: [&str; 12] = [
    "tiny",
    "small",
    "mission",
    "mission-b1",
    "long",
    "wide",
    "ragged",
    "cross",
    "cross-wide",
    "long-large",
    "wide-large",
    "wide-8k",
];

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One gate on kernel time on one shape.
    Gate,
    /// Twelve shapes, two distributions, two timers: the gate on one shape, and no regression on any.
    Suite,
    /// The same with the gate on every shape.
    EveryShape,
}

impl Scope {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Gate => "one gate",
            Scope::Suite => "whole suite",
            Scope::EveryShape => "whole suite, gate on every shape",
        }
    }
}

/// Runs of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// What is judged.
    pub scope: Scope,
    /// The noise.
    pub noise: Noise,
    /// The true reduction in percent.
    pub reduction: f64,
}

/// How runs came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub runs: u64,
    /// PASS of the gate, MERGE of a suite.
    pub accepted: u64,
    /// FAIL of the gate, VALID NEGATIVE of a suite.
    pub negative: u64,
    /// FIX.
    pub fix: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.runs += other.runs;
        self.accepted += other.accepted;
        self.negative += other.negative;
        self.fix += other.fix;
    }
}

/// Every cell of the table.
pub fn cells() -> Vec<Cell> {
    let gate = Noise::ALL
        .into_iter()
        .flat_map(|noise| REDUCTIONS.into_iter().map(move |reduction| Cell { scope: Scope::Gate, noise, reduction }));
    let small = Noise::Placed { permille: 3 };
    let large = Noise::Placed { permille: 10 };
    let whole = [
        (Scope::Suite, small, 0.0),
        (Scope::Suite, small, 8.0),
        (Scope::Suite, small, 12.0),
        (Scope::Suite, large, 12.0),
        (Scope::EveryShape, large, 12.0),
    ];
    gate.chain(whole.map(|(scope, noise, reduction)| Cell { scope, noise, reduction })).collect()
}

/// Simulates and judges one run for each seed.
pub fn run(cell: &Cell, seeds: Range<u64>) -> Tally {
    let suite = suite(cell.scope);
    let (checks, memory) = (testing::checks(&suite), Some(testing::memory(&suite)));
    let mut evidence = Evidence { checks, memory, samples: Samples::default(), ..testing::evidence() };
    let mut tally = Tally::default();
    for seed in seeds {
        evidence.samples = measured(&suite, cell, seed);
        tally += match cell.scope {
            Scope::Gate => gate_tally(&suite, &evidence),
            Scope::Suite | Scope::EveryShape => suite_tally(&suite, &evidence),
        };
    }
    tally
}

fn suite(scope: Scope) -> Suite {
    let limit = |shape: &str| PerformanceLimit {
        shape: shape.to_owned(),
        min_latency_reduction: ASKED / 100.0,
        candidate: None,
        against: None,
    };
    let base = Suite { timing: Timing::default(), ..testing::suite() };
    let gated: &[&str] = match scope {
        Scope::Gate => return base,
        Scope::Suite => &["mission"],
        Scope::EveryShape => &SHAPES,
    };
    Suite {
        time_shapes: SHAPES.map(str::to_owned).to_vec(),
        time_distributions: vec![Distribution::Normal, Distribution::Outliers],
        performance: gated.iter().map(|shape| limit(shape)).collect(),
        regressions: Some(Regressions { max_slowdown: 0.05 }),
        ..base
    }
}

fn gate_tally(suite: &Suite, evidence: &Evidence) -> Tally {
    let gates = judge_samples(suite, &evidence.builds, &evidence.samples, &evidence.peers);
    let state = gates.into_iter().find(|gate| gate.id == GateId::LatencyReduction).map(|gate| gate.state);
    let is = |wanted: State| u64::from(state == Some(wanted));
    Tally { runs: 1, accepted: is(State::Pass), negative: is(State::Fail), fix: 0 }
}

fn suite_tally(suite: &Suite, evidence: &Evidence) -> Tally {
    let decision = decide(suite, &judge(suite, evidence), &evidence.checks, &evidence.samples);
    let is = |wanted: Verdict| u64::from(decision.candidates[0].verdict == wanted);
    Tally {
        runs: 1,
        accepted: is(Verdict::Merge),
        negative: is(Verdict::ValidNegative),
        fix: is(Verdict::Fix) + u64::from(decision.broken.is_some()),
    }
}

/// As the runner takes samples: sittings, then more of them where a gate is open.
fn measured(suite: &Suite, cell: &Cell, seed: u64) -> Samples {
    let mut samples = Samples { device: Some(testing::device()), input_sets: 1, ..Samples::default() };
    samples.cache_mode = "hot-l2".into();
    for (index, shape) in suite.time_shapes.iter().enumerate() {
        let mut sources: Vec<(Distribution, Source)> = Vec::new();
        for (other, distribution) in suite.time_distributions.iter().enumerate() {
            let stream = ((index * suite.time_distributions.len() + other) as u64) << 48;
            sources.push((*distribution, Source::new(cell.noise, seed ^ stream)));
        }
        let mut here = Samples { blocks: Vec::new(), ..samples.clone() };
        here.blocks.clear();
        let mut open = suite.time_distributions.clone();
        let mut sitting = 0;
        for _ in 0..suite.looks(shape) {
            for next in sitting..sitting + suite.timing.sittings {
                for (distribution, source) in sources.iter_mut().filter(|(d, _)| open.contains(d)) {
                    sit(suite, cell, shape, *distribution, source, next, &mut here.blocks);
                }
            }
            sitting += suite.timing.sittings;
            open = open_distributions(suite, &here, shape);
            if open.is_empty() {
                break;
            }
        }
        samples.blocks.append(&mut here.blocks);
    }
    samples
}

/// One sitting of one distribution.
fn sit(
    suite: &Suite,
    cell: &Cell,
    shape: &str,
    distribution: Distribution,
    source: &mut Source,
    sitting: u32,
    blocks: &mut Vec<Block>,
) {
    let truth = 1.0 - cell.reduction / 100.0;
    // The control and its second block share a place.
    let (of_control, of_candidate) = (source.place(), source.place());
    let arms = [
        (Subject::plain("old"), of_control),
        (Subject::again("old"), of_control),
        (Subject::plain("new"), truth * of_candidate),
    ];
    // One gate looks at the timer of kernels alone.
    let modes = if cell.scope == Scope::Gate { &Mode::ALL[..1] } else { &Mode::ALL };
    let each = suite.rounds_of_sitting(shape);
    for round in sitting * each..(sitting + 1) * each {
        for mode in modes {
            for (slot, arm) in source.order().into_iter().enumerate() {
                let (subject, factor) = &arms[arm];
                blocks.push(Block {
                    shape: shape.to_owned(),
                    distribution,
                    sitting,
                    cache: Default::default(),
                    subject: subject.clone(),
                    mode: *mode,
                    round,
                    slot: slot as u32,
                    us: vec![CONTROL_US * factor * source.block()],
                    before: GpuState::default(),
                    after: GpuState::default(),
                    outer: None,
                    outputs_verified: true,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a short run of the bars can say: the cells at their edges.
    #[test]
    fn the_bars_hold_in_a_short_simulation() {
        let tally = |scope, noise, reduction, runs| run(&Cell { scope, noise, reduction }, 0..runs);
        let share = |count: u64, tally: &Tally| count as f64 / tally.runs as f64;
        for noise in Noise::ALL {
            let aa = tally(Scope::Gate, noise, 0.0, 40);
            assert_eq!((aa.accepted, aa.fix), (0, 0), "{noise:?}");
            let wrong = tally(Scope::Gate, noise, 9.5, 120);
            assert!(share(wrong.accepted, &wrong) < 0.08, "{noise:?}: {wrong:?}");
        }
        let power = tally(Scope::Gate, Noise::Placed { permille: 10 }, 12.0, 100);
        assert!(share(power.accepted, &power) > 0.8 && power.negative <= 2, "{power:?}");
        let honest = tally(Scope::Suite, Noise::Placed { permille: 3 }, 12.0, 6);
        assert_eq!((honest.accepted, honest.negative, honest.fix), (6, 0, 0));
        let aa = tally(Scope::Suite, Noise::Placed { permille: 3 }, 0.0, 6);
        assert_eq!(aa.accepted, 0);
    }

    #[test]
    fn a_cell_gives_the_same_tally_in_parts() {
        let cell = Cell { scope: Scope::Gate, noise: Noise::LogNormal, reduction: 10.0 };
        let mut parts = run(&cell, 0..20);
        parts += run(&cell, 20..40);
        assert_eq!(parts, run(&cell, 0..40));
        assert!(parts.accepted + parts.negative < 40, "at the bound most stay open");
    }
}
