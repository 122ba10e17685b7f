//! The judge against its known lies: evidence that passes everything, broken in one way at a time, must be caught by the
//! gate that stands against that lie; honest evidence must get the verdict that it deserves. Pure. Leaves to others:
//! kernels that lie (they are run, not judged from made-up evidence) and files that were edited (`verify`).

mod honest;
mod lies;
mod matrix;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::decision::{Verdict, decide};
use crate::evidence::{Block, Cache, Checks, Errors, Mode, Outer, Samples};
use crate::gate::{Gate, GateId, State};
use crate::judge::{Evidence, judge, testing};
use crate::operator::Distribution;
use crate::suite::{AbsoluteLimit, PeerLimit, Regressions, ReplayLimit, Suite};
use honest::HONEST;
use lies::lies;
pub use matrix::{KillMatrix, kill_matrix};

/// The candidate of the evidence that everything starts from.
const CANDIDATE: &str = "new";

/// One way to deceive, and the gate that must not pass then.
struct Lie {
    name: &'static str,
    gate: GateId,
    tell: fn(&mut Suite, &mut Evidence),
}

/// One honest state of affairs, and what it deserves.
struct Honest {
    name: &'static str,
    verdict: Verdict,
    set: fn(&mut Suite, &mut Evidence),
}

/// How one lie or one honest control came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// What was told.
    pub name: String,
    /// Whether it was a lie.
    pub lie: bool,
    /// The gate that must catch it, or the verdict that it deserves.
    pub expected: String,
    /// That gate as it came out, or the verdict.
    pub found: String,
    /// Whether the judge was right.
    pub right: bool,
}

/// Runs every lie and every honest control.
pub fn trials() -> Vec<Trial> {
    let honest = HONEST.iter().map(|honest| {
        let found = judged(honest.set).1;
        Trial {
            name: honest.name.to_owned(),
            lie: false,
            expected: honest.verdict.word().to_owned(),
            found: found.map_or("no verdict", Verdict::word).to_owned(),
            right: found == Some(honest.verdict),
        }
    });
    let lies = lies().map(|lie| {
        let (gates, verdict) = judged(lie.tell);
        let named = gates.iter().filter(|g| g.id == lie.gate && (g.variant == CANDIDATE || g.variant == "peers"));
        let open: Vec<&Gate> = named.filter(|g| g.state != State::Pass).collect();
        let found = match open.first() {
            Some(gate) => format!("{} {}", gate.state, gate.measured).trim_end().to_owned(),
            None => "PASS".to_owned(),
        };
        Trial {
            name: lie.name.to_owned(),
            lie: true,
            expected: open.first().map_or_else(|| lie.gate.template().to_owned(), |gate| gate.figure.clone()),
            found,
            // A gate on the run itself keeps the exit status from 0, not the candidate from its verdict.
            right: !open.is_empty() && (verdict != Some(Verdict::Merge) || open.iter().all(|g| g.variant != CANDIDATE)),
        }
    });
    honest.chain(lies).collect()
}

/// A suite, and evidence of a candidate that is right and misses the suite's margin: it has gates in both states.
pub fn honest() -> (Suite, Evidence) {
    (testing::suite(), Evidence { samples: testing::samples(100.0, 97.0), ..testing::evidence() })
}

fn judged(change: fn(&mut Suite, &mut Evidence)) -> (Vec<Gate>, Option<Verdict>) {
    let (suite, evidence) = told(change);
    let gates = judge(&suite, &evidence);
    let decision = decide(&suite, &gates, &evidence.checks, &evidence.samples);
    let verdict = decision.candidates.iter().find(|c| c.variant == CANDIDATE).map(|c| c.verdict);
    (gates, verdict)
}

/// The evidence that everything starts from, changed.
fn told(change: fn(&mut Suite, &mut Evidence)) -> (Suite, Evidence) {
    let (mut suite, mut evidence) = (testing::suite(), testing::evidence());
    change(&mut suite, &mut evidence);
    (suite, evidence)
}

/// The candidate's blocks.
fn own_blocks(samples: &mut Samples) -> impl Iterator<Item = &mut Block> {
    samples.blocks.iter_mut().filter(|b| b.subject.is_plain(CANDIDATE))
}

/// The candidate's cases.
fn own_cases(checks: &mut Checks) -> impl Iterator<Item = &mut crate::evidence::CheckedCase> {
    checks.cases.iter_mut().filter(|c| c.variant == CANDIDATE)
}

/// On the suite's one timed shape.
fn ask_for_replays(suite: &mut Suite) {
    suite.replays = Some(ReplayLimit { count: 1000, shapes: vec!["mission".into()] });
}

/// Errors are held against those of somebody else's kernel.
fn compare_with_a_rival(suite: &mut Suite) {
    suite.peers = Some(PeerLimit {
        max_ratio: 1.0,
        from_originals: vec![],
        baseline: "torch/default".into(),
        also: vec!["cudnn".into()],
        no_worse_than: Some("cudnn/fp8".into()),
        accuracy: None,
    });
}

/// Changes the errors of the candidate's last case: one bad case among many good ones.
fn one_case(evidence: &mut Evidence, change: fn(&mut Errors)) {
    if let Some(errors) = own_cases(&mut evidence.checks).filter_map(|c| c.errors.as_mut()).last() {
        change(errors);
    }
}

/// Changes the errors of the candidate's first case of a distribution.
fn case_of(evidence: &mut Evidence, distribution: Distribution, change: fn(&mut Errors)) {
    let mut own = own_cases(&mut evidence.checks).filter(|c| c.launch.problem.distribution == distribution);
    if let Some(errors) = own.next().and_then(|case| case.errors.as_mut()) {
        change(errors);
    }
}

/// The same on usual inputs, with limits in proportion to the output.
fn in_proportion(suite: &mut Suite, evidence: &mut Evidence, change: fn(&mut Errors)) {
    suite.correctness.proportion = Some(Default::default());
    case_of(evidence, Distribution::Normal, change);
}

/// Two shapes and two distributions are timed, hot and cold, and nothing may be slower than the control by 5%.
fn everywhere(suite: &mut Suite, evidence: &mut Evidence) {
    suite.time_shapes.push("small".into());
    suite.time_distributions.push(Distribution::Outliers);
    suite.regressions = Some(Regressions { max_slowdown: 0.05 });
    // What is timed was checked.
    evidence.checks = testing::checks(suite);
    evidence.memory = Some(testing::memory(suite));
    let once = std::mem::take(&mut evidence.samples.blocks);
    for shape in &suite.time_shapes {
        for distribution in suite.time_distributions.iter().copied() {
            for block in &once {
                let block = Block { shape: shape.clone(), distribution, ..block.clone() };
                if block.mode == Mode::Call {
                    evidence.samples.blocks.push(Block { cache: Cache::Cold, ..block.clone() });
                }
                evidence.samples.blocks.push(block);
            }
        }
    }
}

/// The candidate takes longer by a factor in some of its blocks.
fn slow_where(evidence: &mut Evidence, factor: f64, is_slow: fn(&Block) -> bool) {
    let slow = own_blocks(&mut evidence.samples).filter(|b| is_slow(b));
    slow.for_each(|b| b.us.iter_mut().for_each(|us| *us *= factor));
}

/// Most time that a device may take on the timed shape, asked for wherever the run was.
fn limit_on(device: &str, max_p50_us: f64) -> AbsoluteLimit {
    AbsoluteLimit { device: device.to_owned(), shape: "mission".into(), max_p50_us, required: true }
}

/// A rival is timed and checked, with the candidate's errors and half again its time.
fn beside_a_rival(suite: &mut Suite, evidence: &mut Evidence) {
    compare_with_a_rival(suite);
    let on_mission = evidence.checks.cases.iter().find(|case| case.launch.problem.shape.name == "mission");
    let errors = on_mission.and_then(|case| case.errors.clone());
    evidence.peers.backends.push(crate::evidence::PeerBackend {
        shape: "mission".into(),
        distribution: Distribution::Normal,
        subject: "cudnn/fp8".into(),
        kernels: vec![],
        resolved: None,
        unavailable: None,
        errors,
    });
    for subject in ["cudnn/fp8", "torch/default"] {
        let blocks = (0..16).flat_map(|round| Mode::ALL.map(|mode| testing::block(subject, round, mode, 120.0)));
        evidence.samples.blocks.extend(blocks);
    }
}

fn own_entries(evidence: &mut Evidence) -> impl Iterator<Item = &mut crate::evidence::EntryBuild> {
    own_build(evidence).into_iter().flat_map(|build| &mut build.entries)
}

fn own_build(evidence: &mut Evidence) -> Option<&mut crate::evidence::BuildRecord> {
    evidence.builds.records.iter_mut().find(|b| b.variant == CANDIDATE)
}

/// As if the candidate's PTX had this hint.
fn hint(evidence: &mut Evidence, hint: &str) {
    if let Some(build) = own_build(evidence) {
        build.cache_hints.insert(hint.to_owned(), 1);
    }
}

/// The candidate is host code, whose process timed itself: of each block the judge's clock says so many times more.
fn host_code(evidence: &mut Evidence, times: f64) {
    if let Some(build) = own_build(evidence) {
        build.language = crate::variant::Language::Call;
        build.entries.clear();
    }
    evidence.samples.host_code.insert(CANDIDATE.to_owned(), Default::default());
    for block in own_blocks(&mut evidence.samples) {
        let launches = 20;
        let nothing = Outer { wall_us: 0.0, beside_us: 0.0, launches };
        block.outer = Some(Outer { wall_us: times * nothing.said_us(&block.us), ..nothing });
    }
    if let Some(memory) = &mut evidence.memory {
        memory.emulated.retain(|case| case.variant != CANDIDATE);
    }
}

/// As if nvdisasm had listed one kind of product in every entry.
fn made_of(build: &mut crate::evidence::BuildRecord, product: &str) {
    let entry = |e: &crate::evidence::EntryBuild| (e.launch.entry.clone(), BTreeMap::from([(product.to_owned(), 160)]));
    build.instructions = Some(build.entries.iter().map(entry).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lie_is_caught_and_every_honest_control_gets_its_verdict() {
        let wrong: Vec<Trial> = trials().into_iter().filter(|t| !t.right).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn there_are_enough_of_them_and_none_is_told_twice() {
        let names: std::collections::BTreeSet<&str> = lies().map(|lie| lie.name).collect();
        assert!(names.len() >= 60 && HONEST.len() >= 10, "{} lies, {} honest controls", names.len(), HONEST.len());
        assert_eq!(names.len(), lies().count());
    }

    #[test]
    fn a_judge_that_passes_everything_would_not_pass_this() {
        // The first trial is the untouched evidence: against it every lie's gate passes, so the lies are what changes it.
        let (gates, verdict) = judged(|_, _| {});
        assert_eq!(verdict, Some(Verdict::Merge));
        for lie in lies() {
            let open = gates.iter().any(|g| g.id == lie.gate && g.variant == CANDIDATE && g.state != State::Pass);
            assert!(!open, "{}: `{}` is open without the lie", lie.name, lie.gate.name());
        }
    }
}
