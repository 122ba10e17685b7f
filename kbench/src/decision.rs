//! What the gates of each candidate add up to, and the exit status of a run. Pure; reads gates and, for the wording of
//! a correctness failure, the checked cases.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::evidence::{Cache, Checks, Mode, Samples};
use crate::exit::Exit;
use crate::gate::{Gate, GateId, Kind, State, significant};
use crate::judge::{Timed, correctness_pattern, ratio, settings_of};
use crate::operator::Distribution;
use crate::setting::Setting;
use crate::subject::Subject;
use crate::suite::Suite;
use stats::Interval;

/// The verdict on one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Every gate passes.
    #[serde(rename = "MERGE")]
    Merge,
    /// A hard gate fails.
    #[serde(rename = "FIX")]
    Fix,
    /// Right, but not faster, or short of what its profile must show.
    #[serde(rename = "VALID NEGATIVE")]
    ValidNegative,
    /// Nothing fails, but not everything was measured or settled.
    #[serde(rename = "DEFER")]
    Defer,
}

impl Verdict {
    /// The word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Merge => "MERGE",
            Verdict::Fix => "FIX",
            Verdict::ValidNegative => "VALID NEGATIVE",
            Verdict::Defer => "DEFER",
        }
    }
}

/// A verdict and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateDecision {
    /// The variant.
    pub variant: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What to fix, or which gate decided, in one line.
    pub because: String,
    /// Where it is slower than the control, whatever the suite asks: the 95% interval of the ratio lies above 1. Not
    /// told of runs of one sitting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slower: Vec<Slower>,
}

/// A setting in which a candidate is slower than the control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slower {
    /// Shape.
    pub shape: String,
    /// What the inputs were drawn like.
    #[serde(default, skip_serializing_if = "Distribution::is_normal")]
    pub distribution: Distribution,
    /// Timer.
    pub mode: Mode,
    /// How the L2 was.
    #[serde(default, skip_serializing_if = "Cache::is_hot")]
    pub cache: Cache,
    /// Its time over the control's.
    pub over_control: Interval,
}

impl Slower {
    /// Where and how it was timed.
    pub fn setting(&self) -> Setting<'_> {
        Setting { shape: &self.shape, distribution: self.distribution, cache: self.cache, mode: self.mode }
    }
}

impl CandidateDecision {
    /// Verdict, variant, reason and where it is slower than the control, in one line.
    pub fn line(&self) -> String {
        let slower = self.slower_words().map(|words| format!("; slower than the control on {words}"));
        format!("{} {}: {}{}", self.verdict.word(), self.variant, self.because, slower.unwrap_or_default())
    }

    /// Every shape and distribution on which it is slower, once: by the kernel's time where that is, else by another.
    pub fn slower_words(&self) -> Option<String> {
        let mut told = BTreeSet::new();
        let first = self.slower.iter().filter(|s| told.insert((s.shape.as_str(), s.distribution)));
        let words: Vec<String> =
            first.map(|s| format!("{} ({}x)", s.setting().name(), significant(s.over_control.estimate))).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// The aspiration of the suite, measured; never part of a verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AspirationResult {
    /// The variant.
    pub variant: String,
    /// The peer and shape, in words.
    pub against: String,
    /// Speedup over the peer (peer / variant), paired.
    pub speedup: Interval,
    /// Speedup that would be excellent.
    pub wanted: f64,
    /// Whether the whole interval reaches it.
    pub met: bool,
}

/// `decision.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The decision in one line.
    pub headline: String,
    /// Every candidate's verdict.
    pub candidates: Vec<CandidateDecision>,
    /// A variant that is no candidate and must be fixed first: the comparison rests on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<CandidateDecision>,
    /// The aspiration, where it was measured.
    pub aspirations: Vec<AspirationResult>,
    /// Gates by state.
    pub counts: Counts,
}

/// How many gates are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// PASS.
    pub pass: usize,
    /// FAIL.
    pub fail: usize,
    /// DEFERRED.
    pub deferred: usize,
    /// INCONCLUSIVE.
    pub inconclusive: usize,
}

impl Counts {
    /// Counts gates.
    pub fn of(gates: &[Gate]) -> Counts {
        let mut counts = Counts::default();
        for gate in gates {
            match gate.state {
                State::Pass => counts.pass += 1,
                State::Fail => counts.fail += 1,
                State::Deferred { .. } => counts.deferred += 1,
                State::Inconclusive { .. } => counts.inconclusive += 1,
            }
        }
        counts
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Exit {
        match verdict {
            Verdict::Merge => Exit::Good,
            Verdict::Fix => Exit::Fix,
            Verdict::ValidNegative => Exit::ValidNegative,
            Verdict::Defer => Exit::Deferred,
        }
    }
}

impl Decision {
    /// What the headline names: every candidate, or the variant without which none of them can be judged.
    pub fn named(&self) -> &[CandidateDecision] {
        self.broken.as_ref().map_or(&self.candidates, std::slice::from_ref)
    }

    /// The exit status of the run. `allow_deferred` passes over what was not measured or settled, never over a gate that
    /// fails; a run without a single PASS measured nothing and is never good.
    pub fn exit(&self, allow_deferred: bool) -> Exit {
        let open = self.counts.deferred + self.counts.inconclusive > 0;
        let broken = self.broken.iter().map(|_| Exit::Fix);
        let verdicts = self.candidates.iter().map(|c| Exit::from(c.verdict));
        let all = broken.chain(verdicts).chain(open.then_some(Exit::Deferred));
        match Exit::of_all(all.filter(|exit| !(allow_deferred && *exit == Exit::Deferred))) {
            Exit::Good if self.counts.fail > 0 => Exit::Fix,
            Exit::Good if self.counts.pass == 0 => Exit::Deferred,
            exit => exit,
        }
    }
}

/// The verdict on every candidate and the decision in one line.
pub fn decide(suite: &Suite, gates: &[Gate], checks: &Checks, samples: &Samples) -> Decision {
    let others: Vec<&str> =
        suite.variant_names().filter(|v| !suite.candidates.iter().any(|c| c.variant == *v)).collect();
    let mut candidates: Vec<CandidateDecision> =
        suite.candidates.iter().map(|c| decide_one(suite, gates, checks, &c.variant)).collect();
    if !suite.timing.is_of_one_sitting() {
        let timed = Timed::of(suite, samples.blocks.iter());
        candidates.iter_mut().for_each(|candidate| candidate.slower = slower(suite, &timed, &candidate.variant));
    }
    let mut broken = others.iter().map(|v| decide_one(suite, gates, checks, v)).find(|d| d.verdict == Verdict::Fix);
    if let Some(other) = &mut broken {
        other.because.push_str(" (not a candidate, but the comparison rests on it)");
    }
    if let Some(other) = &broken {
        // A ratio to something broken means nothing, so neither does a verdict that rests on it.
        for candidate in candidates.iter_mut().filter(|c| c.verdict != Verdict::Fix) {
            candidate.verdict = Verdict::Defer;
            candidate.because = format!("{} must be fixed first", other.variant);
        }
    }
    let headline = match &broken {
        Some(other) => other.line(),
        None => candidates.iter().map(CandidateDecision::line).collect::<Vec<_>>().join(" | "),
    };
    let aspirations = aspirations(suite, &candidates, samples);
    Decision { headline, aspirations, candidates, broken, counts: Counts::of(gates) }
}

/// Settings in the order of the suite's shapes, the kernel's own time before that of calls and of a cold L2.
fn slower(suite: &Suite, timed: &Timed, variant: &str) -> Vec<Slower> {
    let of = [variant, &suite.control].map(Subject::plain);
    let in_setting = |setting: Setting| {
        let over_control = timed.reported(&setting, [&of[0], &of[1]]).filter(|ratio| ratio.low > 1.0)?;
        let Setting { shape, distribution, cache, mode } = setting;
        Some(Slower { shape: shape.to_owned(), distribution, mode, cache, over_control })
    };
    suite.time_shapes.iter().flat_map(|shape| settings_of(suite, shape)).filter_map(in_setting).collect()
}

fn decide_one(suite: &Suite, gates: &[Gate], checks: &Checks, variant: &str) -> CandidateDecision {
    let own: Vec<&Gate> = gates.iter().filter(|g| g.variant == variant).collect();
    let failing = |kind: Kind| own.iter().find(|g| g.kind == kind && g.state == State::Fail);
    let line = |g: &Gate| format!("{} {} ({}, wanted {})", g.figure, g.measured, g.place, g.threshold);
    let decided =
        |verdict, because| CandidateDecision { variant: variant.to_owned(), verdict, because, slower: vec![] };
    if let Some(gate) = failing(Kind::Build) {
        return decided(Verdict::Fix, format!("build: {}", gate.measured));
    }
    if let Some(gate) = failing(Kind::Identity) {
        return decided(Verdict::Fix, format!("identity: {}", gate.measured));
    }
    if let Some(gate) = failing(Kind::Resources) {
        let hint = if variant.starts_with("ws-") { "; try fewer producer warps first" } else { "" };
        return decided(Verdict::Fix, format!("resources: {}{hint}", line(gate)));
    }
    let of_timing = [GateId::TimedEverywhere, GateId::ConsistentBlocks];
    if let Some(gate) = failing(Kind::Correctness).filter(|g| of_timing.contains(&g.id)) {
        return decided(Verdict::Fix, format!("timing: {}", line(gate)));
    }
    if let Some(gate) = failing(Kind::Correctness) {
        // A finding says by itself what is wrong and where.
        if matches!(gate.id, GateId::EmulatorChecks | GateId::MemoryChecks) {
            return decided(Verdict::Fix, format!("correctness: {}", line(gate)));
        }
        let pattern = correctness_pattern(suite, checks, variant);
        return decided(Verdict::Fix, format!("correctness: {}; {pattern}", line(gate)));
    }
    let unsettled = own.iter().find(|g| matches!(g.state, State::Deferred { .. } | State::Inconclusive { .. }));
    let hard_unsettled = unsettled.filter(|g| g.kind < Kind::Performance);
    let short = failing(Kind::Performance).or(failing(Kind::Profile));
    match (short, hard_unsettled.or(unsettled)) {
        (Some(gate), None) => decided(Verdict::ValidNegative, line(gate)),
        (Some(gate), Some(_)) if hard_unsettled.is_none() => decided(Verdict::ValidNegative, line(gate)),
        (_, Some(gate)) => decided(Verdict::Defer, format!("{} {}", gate.figure, gate.state)),
        (None, None) if own.is_empty() => decided(Verdict::Defer, "nothing was judged".to_owned()),
        (None, None) => decided(Verdict::Merge, merge_reason(&own)),
    }
}

fn merge_reason(own: &[&Gate]) -> String {
    let performance: Vec<String> = own
        .iter()
        .filter(|g| g.id == GateId::LatencyReduction)
        .map(|g| format!("{} {}", g.figure, g.measured))
        .collect();
    if performance.is_empty() { format!("all {} gates pass", own.len()) } else { performance.join(", ") }
}

fn aspirations(suite: &Suite, candidates: &[CandidateDecision], samples: &Samples) -> Vec<AspirationResult> {
    let Some(wanted) = &suite.aspiration else { return Vec::new() };
    let result = |candidate: &CandidateDecision| {
        let [peer, own] = [&wanted.peer, &candidate.variant].map(Subject::plain);
        let setting = Setting::hot(&wanted.shape, Distribution::Normal, Mode::Kernel);
        let speedup = ratio(&samples.blocks, &setting, [&peer, &own])?;
        Some(AspirationResult {
            variant: candidate.variant.clone(),
            against: format!("{} on {}", wanted.peer, wanted.shape),
            speedup,
            wanted: wanted.min_speedup,
            met: speedup.low >= wanted.min_speedup,
        })
    };
    candidates.iter().filter_map(result).collect()
}

impl AspirationResult {
    /// One line for a report.
    pub fn line(&self) -> String {
        let [at, low, high] = [self.speedup.estimate, self.speedup.low, self.speedup.high].map(significant);
        let word = if self.met { "excellent" } else { "not met" };
        format!(
            "{}: {at}x [{low}, {high}] the speed of {}, wanted {}x: {word}",
            self.variant,
            self.against,
            significant(self.wanted)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deferral::Deferral;
    use crate::judge::{Evidence, judge, testing};

    fn decided(evidence: &Evidence) -> Decision {
        let suite = testing::suite();
        let gates = judge(&suite, evidence);
        decide(&suite, &gates, &evidence.checks, &evidence.samples)
    }

    #[test]
    fn the_tree_as_a_table() {
        type Break = fn(&mut Evidence);
        let rows: &[(&str, Verdict, &str, u8, Break)] = &[
            ("all pass", Verdict::Merge, "latency reduction", 0, |_| {}),
            ("slow", Verdict::ValidNegative, "wanted >= 10.0%", 4, |e| e.samples = testing::samples(100.0, 97.0)),
            ("straddles", Verdict::Defer, "straddles", 3, |e| e.samples = testing::samples(100.0, 90.0)),
            ("no GPU", Verdict::Defer, "DEFERRED (no GPU; get one)", 3, |e| {
                e.checks = Checks { deferred: Some(Deferral::new("no GPU", "get one")), ..Checks::default() };
                e.samples = Samples { deferred: Some(Deferral::new("no GPU", "get one")), ..Samples::default() };
            }),
            ("slow but unchecked", Verdict::Defer, "errors against float64", 3, |e| {
                e.checks = Checks { deferred: Some(Deferral::new("x", "y")), ..Checks::default() };
                e.samples = testing::samples(100.0, 97.0);
            }),
            ("wrong", Verdict::Fix, "correctness: kernel error max 0.5", 1, |e| {
                let cases = e.checks.cases.iter_mut().filter(|c| c.variant == "new");
                cases.for_each(|c| c.errors.as_mut().unwrap().kernel_max = 0.5);
            }),
            ("wrong and fat", Verdict::Fix, "resources: registers 200", 1, |e| {
                e.builds.records[1].entries[0].resources.registers = 200;
                e.checks.cases.last_mut().unwrap().errors = None;
            }),
            ("same code", Verdict::Fix, "identity: same code as control", 1, |e| {
                e.builds.records[1].entries[0].code_sha256 = "old64".into();
            }),
        ];
        for (what, verdict, because, status, break_it) in rows {
            let mut evidence = testing::evidence();
            break_it(&mut evidence);
            let decision = decided(&evidence);
            assert_eq!(decision.candidates[0].verdict, *verdict, "{what}: {decision:#?}");
            assert!(decision.headline.contains(because), "{what}: {}", decision.headline);
            assert_eq!(decision.exit(false).code(), *status, "{what}");
        }
    }

    #[test]
    fn every_shape_on_which_it_is_slower_is_named_whatever_the_verdict() {
        let (mut suite, mut evidence) = (testing::suite(), testing::evidence());
        suite.time_shapes.push("wide".into());
        let once = evidence.samples.blocks.clone();
        for mut block in once {
            block.shape = "wide".into();
            if block.subject.is_plain("new") {
                // By the timer of calls alone, and the kernel's own time the same.
                block.us.fill(if block.mode == Mode::Call { 104.0 } else { 100.0 });
            }
            evidence.samples.blocks.push(block);
        }
        let of = |suite: &Suite| {
            let gates = judge(suite, &evidence);
            decide(suite, &gates, &evidence.checks, &evidence.samples)
        };
        let decision = of(&suite);
        assert!(
            decision.headline.ends_with("; slower than the control on wide, call time (1.040x)"),
            "{}",
            decision.headline
        );
        let [slower] = decision.candidates[0].slower.as_slice() else { panic!("{decision:#?}") };
        assert_eq!((slower.shape.as_str(), slower.mode), ("wide", Mode::Call));
        suite.timing.sittings = 1;
        assert_eq!(of(&suite).candidates[0].slower, [], "recorded runs of one sitting are told as they were");
    }

    #[test]
    fn part_of_a_suite_never_merges() {
        let (mut suite, evidence) = (testing::suite(), testing::evidence());
        suite.narrowed.push(Deferral::new("only small was run", "run without --smoke"));
        let gates = judge(&suite, &evidence);
        let decision = decide(&suite, &gates, &evidence.checks, &evidence.samples);
        assert_eq!(decision.candidates[0].verdict, Verdict::Defer);
        assert!(decision.headline.contains("only small was run"), "{}", decision.headline);
    }

    #[test]
    fn a_broken_control_is_the_headline() {
        let mut evidence = testing::evidence();
        evidence.checks.cases[0].errors.as_mut().unwrap().nan = 1;
        let decision = decided(&evidence);
        assert!(decision.headline.starts_with("FIX old: correctness"));
        assert_eq!(
            (decision.broken.as_ref().map(|b| b.variant.as_str()), decision.exit(true)),
            (Some("old"), Exit::Fix)
        );
        assert_eq!(decision.candidates[0].verdict, Verdict::Defer);
    }

    #[test]
    fn deferral_can_be_allowed_but_failure_and_emptiness_cannot() {
        let of = |verdict, counts| Decision {
            headline: String::new(),
            candidates: vec![CandidateDecision {
                variant: "new".into(),
                verdict,
                because: String::new(),
                slower: vec![],
            }],
            broken: None,
            aspirations: vec![],
            counts,
        };
        let status = |decision: &Decision| [false, true].map(|allow| decision.exit(allow).code());
        let open = Counts { pass: 5, deferred: 2, ..Counts::default() };
        assert_eq!(status(&of(Verdict::Defer, open)), [3, 0]);
        assert_eq!(status(&of(Verdict::Merge, open)), [3, 0], "a deferral that is no candidate's");
        assert_eq!(status(&of(Verdict::ValidNegative, Counts { fail: 1, ..open })), [3, 4]);
        assert_eq!(status(&of(Verdict::Defer, Counts { fail: 1, ..open })), [3, 1]);
        assert_eq!(status(&of(Verdict::Merge, Counts { pass: 5, fail: 1, ..Counts::default() })), [1, 1]);
        assert_eq!(status(&of(Verdict::Fix, open)), [1, 1]);
        let broken = Decision { broken: Some(of(Verdict::Fix, open).candidates.remove(0)), ..of(Verdict::Defer, open) };
        assert_eq!(status(&broken), [1, 1]);
        assert_eq!(status(&of(Verdict::Defer, Counts::default())), [3, 3]);
    }

    #[test]
    fn the_aspiration_is_a_paired_speedup() {
        let mut suite = testing::suite();
        suite.aspiration =
            Some(crate::suite::Aspiration { shape: "mission".into(), peer: "torch/default".into(), min_speedup: 15.0 });
        let mut evidence = testing::evidence();
        for round in 0..16 {
            evidence.samples.blocks.push(testing::block("torch/default", round, Mode::Kernel, 40.0));
        }
        let gates = judge(&suite, &evidence);
        let decision = decide(&suite, &gates, &evidence.checks, &evidence.samples);
        assert!((decision.aspirations[0].speedup.estimate - 0.5).abs() < 0.01 && !decision.aspirations[0].met);
    }
}
