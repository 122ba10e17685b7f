//! Gates on timed blocks, and the comparisons that reports show. A ratio is only ever taken between blocks of one round
//! of one run; kernel time decides, call time is shown beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::peers::peer_gates;
use super::timing::judge_timing;
use crate::deferral::Deferral;
use crate::evidence::{Block, Builds, Mode, Peers, Samples};
use crate::gate::{Draft, Gate, GateId, Limit, Reading, State, Unit, significant};
use crate::operator::Distribution;
use crate::stats::{Interval, MIN_ROUNDS, Summary, median, paired_ratio, paired_ratio_at};
use crate::subject::{Arm, Subject};
use crate::suite::{AbsoluteLimit, PerformanceLimit, Regressions, Suite};

/// Medians of the blocks of two subjects, one pair for each round in which both are usable.
pub fn paired_blocks(
    blocks: &[Block],
    shape: &str,
    mode: Mode,
    numerator: &Subject,
    denominator: &Subject,
) -> Vec<(f64, f64)> {
    paired_rounds(blocks, shape, mode, numerator, denominator).into_values().collect()
}

/// The same pairs by round.
pub fn paired_rounds(
    blocks: &[Block],
    shape: &str,
    mode: Mode,
    numerator: &Subject,
    denominator: &Subject,
) -> BTreeMap<u32, (f64, f64)> {
    let usable = |subject: &Subject| {
        blocks
            .iter()
            .filter(|b| b.shape == shape && b.mode == mode && b.subject == *subject && b.rejected().is_none())
            .filter_map(|b| Some((b.round, median(&b.us)?)))
            .collect::<BTreeMap<u32, f64>>()
    };
    let (top, bottom) = (usable(numerator), usable(denominator));
    top.iter().filter_map(|(round, a)| Some((*round, (*a, *bottom.get(round)?)))).collect()
}

/// What a report shows of one subject on one shape in one mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Shape.
    pub shape: String,
    /// Variant or peer.
    pub subject: Subject,
    /// Timer.
    pub mode: Mode,
    /// Samples of all usable blocks, in microseconds.
    pub time_us: Summary,
    /// Subject over control, paired; `None` for the control itself or with too few rounds.
    pub over_control: Option<Interval>,
    /// Blocks that were dropped because the clock was held down.
    pub dropped_blocks: usize,
}

/// Summaries and paired ratios of every subject that was timed.
pub fn compare(suite: &Suite, samples: &Samples) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for shape in &suite.time_shapes {
        let here = samples.blocks.iter().filter(|b| &b.shape == shape && b.subject.arm != Arm::Again);
        let mut subjects: Vec<&Subject> = here.map(|b| &b.subject).collect();
        let order = |s: &Subject| suite.variant_names().position(|v| s.is_plain(v)).unwrap_or(usize::MAX);
        subjects.sort_by_key(|s| (order(s), *s));
        subjects.dedup();
        for subject in subjects {
            comparisons
                .extend(Mode::ALL.into_iter().filter_map(|mode| compare_one(suite, samples, shape, subject, mode)));
        }
    }
    comparisons
}

fn compare_one(suite: &Suite, samples: &Samples, shape: &str, subject: &Subject, mode: Mode) -> Option<Comparison> {
    let blocks: Vec<&Block> =
        samples.blocks.iter().filter(|b| b.shape == shape && b.subject == *subject && b.mode == mode).collect();
    let usable: Vec<f64> =
        blocks.iter().filter(|b| b.rejected().is_none()).flat_map(|b| b.us.iter().copied()).collect();
    let pairs = paired_blocks(&samples.blocks, shape, mode, subject, &Subject::plain(&suite.control));
    Some(Comparison {
        shape: shape.to_owned(),
        subject: subject.clone(),
        mode,
        time_us: Summary::of(&usable)?,
        over_control: if subject.is_plain(&suite.control) { None } else { paired_ratio(&pairs) },
        dropped_blocks: blocks.iter().filter(|b| b.rejected().is_some()).count(),
    })
}

/// Performance gates of every candidate, and the peer gate.
pub fn judge_samples(suite: &Suite, builds: &Builds, samples: &Samples, peers: &Peers) -> Vec<Gate> {
    let mut gates = Vec::new();
    for candidate in &suite.candidates {
        let variant = candidate.variant.as_str();
        if super::left_out(suite, builds, variant).is_some() || builds.get(variant, &suite.arch).is_none() {
            continue;
        }
        let limits = suite.performance.iter().filter(|limit| limit.holds_for(variant));
        gates.extend(limits.map(|limit| relative_gate(suite, samples, variant, limit)));
        gates.extend(absolute_gates(suite, samples, variant, None));
        gates.extend(peer_gates(suite, samples, variant, None));
        gates.extend(regression_gates(suite, samples, variant, None));
        if suite.performance.is_empty() && suite.absolute.is_empty() && suite.peers.is_none() {
            let deferral = Deferral::new("the suite has no gate on time", "add one to the suite");
            gates.push(Draft::new(variant, GateId::GateOnTime).deferred("at least one", deferral));
        }
    }
    gates.extend(judge_timing(suite, builds, samples, peers));
    gates
}

/// Whether another round could turn an inconclusive gate on this shape into a verdict.
pub fn needs_more_rounds(suite: &Suite, samples: &Samples, shape: &str) -> bool {
    let is_open = |gate: &Gate| matches!(gate.state, State::Inconclusive { .. });
    let gates_of = |variant: &str| {
        let absolute = absolute_gates(suite, samples, variant, Some(shape));
        let others = peer_gates(suite, samples, variant, Some(shape));
        absolute.into_iter().chain(others).chain(regression_gates(suite, samples, variant, Some(shape)))
    };
    if suite.candidates.iter().any(|candidate| gates_of(&candidate.variant).any(|gate| is_open(&gate))) {
        return true;
    }
    let limits = suite.performance.iter().filter(|l| l.shape == shape);
    limits.into_iter().any(|limit| {
        let open = |variant: &str| {
            let timed = !samples.failures.iter().any(|f| f.shape == shape && f.subject.is_plain(variant));
            timed && is_open(&relative_gate(suite, samples, variant, limit))
        };
        suite.candidates.iter().any(|c| limit.holds_for(&c.variant) && open(&c.variant))
    })
}

/// The timed distributions on which another round could turn an inconclusive gate on this shape into a verdict.
pub fn open_distributions(suite: &Suite, samples: &Samples, shape: &str) -> Vec<Distribution> {
    if needs_more_rounds(suite, samples, shape) { suite.time_distributions.clone() } else { Vec::new() }
}

/// Rounds are added while a gate is open, so it is looked at more than once: each look gets its share of the 5%.
pub(super) fn gate_level(suite: &Suite, shape: &str) -> f64 {
    let looks = suite.timing.max_rounds.div_ceil(suite.rounds_on(shape).max(1)).max(1);
    1.0 - 0.05 / f64::from(looks)
}

/// Blocks dropped for throttling leave a selected rest; beyond this share there is no verdict.
const MAX_DROPPED_SHARE: f64 = 0.25;
/// The widest interval of the control against itself where the margin of the gate is smaller than this.
const LEAST_NOISE_LIMIT: f64 = 0.02;

fn relative_gate(suite: &Suite, samples: &Samples, variant: &str, limit: &PerformanceLimit) -> Gate {
    let least = Limit::at_least(100.0 * limit.min_latency_reduction);
    let draft = Draft::new(variant, GateId::LatencyReduction).on(&limit.shape).limited(least, Unit::Percent);
    let against = limit.against.as_deref().unwrap_or(&suite.control);
    let threshold = format!("{} against {against}", least.text(Unit::Percent));
    if let Some(deferred) = not_timed(suite, samples, &draft, &threshold, &limit.shape) {
        return deferred;
    }
    let ratio = match settled_ratio(suite, samples, [variant, against], &limit.shape, limit.min_latency_reduction) {
        Ok(ratio) => ratio,
        Err(why) => return draft.with_state("kernel time", "", &threshold, State::Inconclusive { why }),
    };
    let reduction = |ratio: f64| 100.0 * (1.0 - ratio);
    let interval = [reduction(ratio.high), reduction(ratio.low)];
    let reading = Reading::of(reduction(ratio.estimate), Some(interval), Unit::Percent)
        .and(&format!(" ({}x)", significant(1.0 / ratio.estimate)));
    draft.with_state("kernel time", reading, &threshold, side_of(ratio, 1.0 - limit.min_latency_reduction))
}

/// A candidate may not be much slower on any timed shape, of which one may be asked about, where no other gate compares it
/// with the control.
fn regression_gates(suite: &Suite, samples: &Samples, variant: &str, shape: Option<&str>) -> Vec<Gate> {
    let Some(Regressions { max_slowdown }) = suite.regressions else { return Vec::new() };
    let most = Limit::at_most(100.0 * max_slowdown);
    let threshold = format!("{} against {}", most.text(Unit::Percent), suite.control);
    let compared = |shape: &&String| {
        let by =
            |limit: &PerformanceLimit| limit.shape == **shape && limit.holds_for(variant) && limit.against.is_none();
        suite.performance.iter().any(by)
    };
    let asked = suite.time_shapes.iter().filter(|s| shape.is_none_or(|only| only == *s) && !compared(s));
    let gate = |shape: &String| {
        let draft = Draft::new(variant, GateId::Slowdown).on(shape).limited(most, Unit::Percent);
        if let Some(deferred) = not_timed(suite, samples, &draft, &threshold, shape) {
            return deferred;
        }
        match settled_ratio(suite, samples, [variant, &suite.control], shape, max_slowdown) {
            Err(why) => draft.with_state("kernel time", "", &threshold, State::Inconclusive { why }),
            Ok(ratio) => {
                let slower = |ratio: f64| 100.0 * (ratio - 1.0);
                let interval = Some([slower(ratio.low), slower(ratio.high)]);
                let reading = Reading::of(slower(ratio.estimate), interval, Unit::Percent);
                draft.with_state("kernel time", reading, &threshold, side_of(ratio, 1.0 + max_slowdown))
            }
        }
    };
    asked.map(gate).collect()
}

/// The deferral of a gate on a shape that was not timed here.
pub(super) fn not_timed(suite: &Suite, samples: &Samples, draft: &Draft, threshold: &str, shape: &str) -> Option<Gate> {
    if let Some(deferral) = &samples.deferred {
        return Some(draft.deferred(threshold, deferral.clone()));
    }
    if !suite.time_shapes.iter().any(|s| s == shape) {
        return Some(draft.deferred(threshold, Deferral::new("the shape was left out", "run the whole suite")));
    }
    let failure = samples.failures.iter().find(|f| f.shape == shape && f.subject.is_plain(draft.variant()))?;
    Some(draft.deferred(threshold, Deferral::new(&failure.why, "see the gate `timed on every shape`")))
}

/// The first subject over the second, if the rounds allow a verdict; else why not. The noise of the run is that of the
/// control against itself, whatever is compared; it must be smaller than the margin that the verdict has.
pub(super) fn settled_ratio(
    suite: &Suite,
    samples: &Samples,
    [variant, against]: [&str; 2],
    shape: &str,
    margin: f64,
) -> Result<Interval, String> {
    let level = gate_level(suite, shape);
    let [variant, against, control] = [variant, against, &suite.control].map(Subject::plain);
    let again = Subject::again(&suite.control);
    for subject in [&variant, &against, &control, &again] {
        let blocks =
            samples.blocks.iter().filter(|b| b.shape == shape && b.mode == Mode::Kernel && b.subject == *subject);
        let (dropped, kept): (Vec<_>, Vec<_>) = blocks.partition(|b| b.rejected().is_some());
        let all = (dropped.len() + kept.len()).max(1);
        if dropped.len() as f64 / all as f64 > MAX_DROPPED_SHARE {
            return Err(format!("{} of {all} blocks of {subject} were dropped: clock held down", dropped.len()));
        }
    }
    let pairs = |a: &Subject, b: &Subject| paired_blocks(&samples.blocks, shape, Mode::Kernel, a, b);
    let few = || format!("{} usable rounds, {MIN_ROUNDS} needed", pairs(&variant, &against).len());
    let ratio = paired_ratio_at(&pairs(&variant, &against), level).ok_or_else(few)?;
    match aa_fault(paired_ratio_at(&pairs(&again, &control), level), margin.max(LEAST_NOISE_LIMIT)) {
        Some(why) => Err(why),
        None => Ok(ratio),
    }
}

/// How far an interval is from a bound that it does not hold, as a share of the bound: noise of that size would not move
/// it to the other side.
pub(super) fn distance(interval: Interval, bound: f64) -> f64 {
    f64::max(bound - interval.high, interval.low - bound) / bound
}

/// Which side of `bound` the whole interval is on; smaller is better.
pub(super) fn side_of(ratio: Interval, bound: f64) -> State {
    if ratio.high <= bound {
        State::Pass
    } else if ratio.low > bound {
        State::Fail
    } else {
        State::Inconclusive { why: "the interval straddles the threshold".to_owned() }
    }
}

/// Why the control measured against itself forbids any verdict, if so.
fn aa_fault(aa: Option<Interval>, margin: f64) -> Option<String> {
    let Some(aa) = aa else {
        return Some("the control was not measured against itself".to_owned());
    };
    let (low, high) = (significant(aa.low), significant(aa.high));
    if !aa.contains(1.0) {
        Some(format!("control against itself is [{low}, {high}], which excludes 1"))
    } else if aa.width() > margin {
        Some(format!("control against itself is [{low}, {high}], wider than the margin {margin}"))
    } else {
        None
    }
}

/// Gates on a time in microseconds, on one shape or on all, where the device is theirs; elsewhere those that are required are deferred. The
/// control must be quiet for these too, and the interval is that of the block medians.
fn absolute_gates(suite: &Suite, samples: &Samples, variant: &str, shape: Option<&str>) -> Vec<Gate> {
    let device = samples.device.as_ref().map(|d| d.name.as_str());
    let gate = |limit: &AbsoluteLimit| {
        let most = Limit::at_most(limit.max_p50_us);
        let draft = Draft::new(variant, GateId::P50).on(&limit.shape).limited(most, Unit::Microseconds);
        let threshold = most.text(Unit::Microseconds);
        if device != Some(limit.device.as_str()) {
            let why = format!("not timed on {}", limit.device);
            return draft.deferred(&threshold, Deferral::new(why, format!("run on one {}", limit.device)));
        }
        if let Some(deferred) = not_timed(suite, samples, &draft, &threshold, &limit.shape) {
            return deferred;
        }
        let of = |b: &&Block| b.shape == limit.shape && b.mode == Mode::Kernel && b.subject.is_plain(variant);
        let usable = samples.blocks.iter().filter(of).filter(|b| b.rejected().is_none());
        let against_one: Vec<(f64, f64)> = usable.filter_map(|b| Some((median(&b.us)?, 1.0))).collect();
        match paired_ratio_at(&against_one, gate_level(suite, &limit.shape)) {
            None => draft.with_state(
                "kernel time",
                "",
                &threshold,
                State::Inconclusive { why: "too few rounds".to_owned() },
            ),
            Some(us) => {
                let margin = distance(us, limit.max_p50_us);
                if let Err(why) = settled_ratio(suite, samples, [variant, &suite.control], &limit.shape, margin) {
                    return draft.with_state("kernel time", "", &threshold, State::Inconclusive { why });
                }
                let reading = Reading::of(us.estimate, Some([us.low, us.high]), Unit::Microseconds);
                draft.with_state("kernel time", reading, &threshold, side_of(us, limit.max_p50_us))
            }
        }
    };
    let speaks = |limit: &&AbsoluteLimit| limit.required || device == Some(limit.device.as_str());
    let asked = |limit: &&AbsoluteLimit| shape.is_none_or(|shape| shape == limit.shape);
    suite.absolute.iter().filter(asked).filter(speaks).map(gate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;

    fn state(samples: &Samples) -> State {
        let suite = testing::suite();
        relative_gate(&suite, samples, "new", &suite.performance[0]).state
    }

    #[test]
    fn the_whole_interval_must_be_on_its_side() {
        assert_eq!(state(&testing::samples(100.0, 80.0)), State::Pass);
        assert_eq!(state(&testing::samples(100.0, 95.0)), State::Fail);
        assert!(matches!(state(&testing::samples(100.0, 90.0)), State::Inconclusive { .. }));
        assert!(needs_more_rounds(&testing::suite(), &testing::samples(100.0, 90.0), "mission"));
        assert!(!needs_more_rounds(&testing::suite(), &testing::samples(100.0, 80.0), "mission"));
    }

    #[test]
    fn a_limit_may_name_its_candidate_and_whom_it_must_beat() {
        let samples = testing::samples(100.0, 80.0);
        let mut suite = testing::suite();
        suite.performance[0].against = Some("torch/flash".into());
        let gate = relative_gate(&suite, &samples, "new", &suite.performance[0]);
        assert!(gate.threshold.ends_with("against torch/flash"), "{}", gate.threshold);
        assert!(matches!(gate.state, State::Inconclusive { .. }), "a peer that was not measured is not beaten");
        suite.performance[0] =
            PerformanceLimit { candidate: Some("other".into()), against: None, ..suite.performance[0].clone() };
        let relative = |suite: &Suite| {
            let gates = judge_samples(suite, &testing::evidence().builds, &samples, &testing::evidence().peers);
            gates.iter().filter(|g| g.figure.starts_with("latency reduction")).count()
        };
        assert_eq!((relative(&suite), relative(&testing::suite())), (0, 1));
    }

    #[test]
    fn a_biased_or_noisy_control_forbids_a_verdict() {
        let mut biased = testing::samples(100.0, 80.0);
        for block in biased.blocks.iter_mut().filter(|b| b.subject == Subject::again("old")) {
            block.us.iter_mut().for_each(|us| *us *= 1.02);
        }
        assert!(matches!(state(&biased), State::Inconclusive { why } if why.contains("excludes 1")));
        let mut noisy = testing::samples(100.0, 80.0);
        for block in noisy.blocks.iter_mut().filter(|b| b.subject == Subject::again("old")) {
            let factor = if block.round % 2 == 0 { 1.3 } else { 0.8 };
            block.us.iter_mut().for_each(|us| *us *= factor);
        }
        assert!(matches!(state(&noisy), State::Inconclusive { why } if why.contains("wider")));
        let mut absent = testing::samples(100.0, 80.0);
        absent.blocks.retain(|b| b.subject != Subject::again("old"));
        assert!(matches!(state(&absent), State::Inconclusive { why } if why.contains("not measured")));
    }

    #[test]
    fn throttled_blocks_are_dropped_and_counted_and_too_few_give_no_verdict() {
        let mut samples = testing::samples(100.0, 80.0);
        for block in samples.blocks.iter_mut().filter(|b| b.subject.is_plain("new") && b.round < 10) {
            block.after.throttle.push("power cap".into());
        }
        assert!(matches!(state(&samples), State::Inconclusive { why } if why.starts_with("10 of 16 blocks of new")));
        let compared = compare(&testing::suite(), &samples);
        let new = compared.iter().find(|c| c.subject.is_plain("new") && c.mode == Mode::Kernel).unwrap();
        assert_eq!(new.dropped_blocks, 10);
    }

    #[test]
    fn ratios_never_cross_rounds() {
        let blocks = [testing::block("new", 0, Mode::Kernel, 80.0), testing::block("old", 1, Mode::Kernel, 100.0)];
        assert!(paired_blocks(&blocks, "mission", Mode::Kernel, &"new".into(), &"old".into()).is_empty());
    }

    #[test]
    fn noise_forbids_a_verdict_that_is_closer_to_the_bound_than_the_noise_is_wide() {
        let mut noisy = testing::samples(100.0, 80.0);
        for block in noisy.blocks.iter_mut().filter(|b| b.subject == Subject::again("old")) {
            let factor = if block.round % 2 == 0 { 1.02 } else { 0.98 };
            block.us.iter_mut().for_each(|us| *us *= factor);
        }
        let limited = |max_p50_us| {
            let mut suite = testing::suite();
            let device = "NVIDIA L4".to_owned();
            suite.absolute =
                vec![crate::suite::AbsoluteLimit { device, shape: "mission".into(), max_p50_us, required: false }];
            suite
        };
        let state = |max_p50_us| {
            let suite = limited(max_p50_us);
            absolute_gates(&suite, &noisy, "new", None).remove(0).state
        };
        assert_eq!(state(160.0), State::Pass);
        assert_eq!(state(40.0), State::Fail);
        assert!(matches!(state(82.0), State::Inconclusive { why } if why.contains("wider than the margin")));
        assert!(matches!(state(79.0), State::Inconclusive { .. }));
        // More rounds may settle it.
        let more = |max_p50_us, shape| needs_more_rounds(&limited(max_p50_us), &noisy, shape);
        assert_eq!([more(160.0, "mission"), more(79.0, "mission"), more(79.0, "long")], [false, true, false]);
    }

    #[test]
    fn an_absolute_limit_belongs_to_its_device() {
        let mut suite = testing::suite();
        let limit = |device: &str| crate::suite::AbsoluteLimit {
            device: device.into(),
            shape: "mission".into(),
            max_p50_us: 50.0,
            required: false,
        };
        suite.absolute = vec![limit("NVIDIA L4"), limit("NVIDIA H200")];
        let samples = testing::samples(100.0, 80.0);
        let gates = absolute_gates(&suite, &samples, "new", None);
        assert_eq!(gates.len(), 1);
        assert_eq!(gates[0].state, State::Fail);
        // Required elsewhere, it stays open here.
        suite.absolute[1].required = true;
        let gates = absolute_gates(&suite, &samples, "new", None);
        let words: Vec<&str> = gates.iter().map(|gate| gate.state.word()).collect();
        assert_eq!(words, ["FAIL", "DEFERRED"]);
    }
}
