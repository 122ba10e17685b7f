//! Gates on timed blocks, and the comparisons that reports show. A ratio is only ever taken between blocks of one round
//! of one run; kernel time decides, call time is shown beside it.

use serde::{Deserialize, Serialize};

use super::split_remedy;
use crate::evidence::{AA_SUFFIX, Block, Builds, Mode, Peers, Samples};
use crate::gate::{Gate, Kind, State, Subject, significant};
use crate::stats::{Interval, MIN_ROUNDS, Summary, median, paired_ratio};
use crate::suite::{PerformanceLimit, Suite};

/// Medians of the blocks of two subjects, one pair for each round in which both are usable.
pub fn paired_blocks(blocks: &[Block], shape: &str, mode: Mode, numerator: &str, denominator: &str) -> Vec<(f64, f64)> {
    let usable = |subject: &str| {
        blocks
            .iter()
            .filter(|b| b.shape == shape && b.mode == mode && b.subject == subject && b.rejected().is_none())
            .filter_map(|b| Some((b.round, median(&b.us)?)))
            .collect::<std::collections::BTreeMap<u32, f64>>()
    };
    let (top, bottom) = (usable(numerator), usable(denominator));
    top.iter().filter_map(|(round, a)| Some((*a, *bottom.get(round)?))).collect()
}

/// What a report shows of one subject on one shape in one mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Shape.
    pub shape: String,
    /// Variant or peer.
    pub subject: String,
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
        let mut subjects: Vec<&str> = Vec::new();
        for block in samples.blocks.iter().filter(|b| &b.shape == shape && !b.subject.ends_with(AA_SUFFIX)) {
            if !subjects.contains(&block.subject.as_str()) {
                subjects.push(&block.subject);
            }
        }
        let order = |s: &str| suite.variant_names().position(|v| v == s).unwrap_or(usize::MAX);
        subjects.sort_by_key(|s| (order(s), s.to_string()));
        for subject in subjects {
            comparisons
                .extend(Mode::ALL.into_iter().filter_map(|mode| compare_one(suite, samples, shape, subject, mode)));
        }
    }
    comparisons
}

fn compare_one(suite: &Suite, samples: &Samples, shape: &str, subject: &str, mode: Mode) -> Option<Comparison> {
    let blocks: Vec<&Block> =
        samples.blocks.iter().filter(|b| b.shape == shape && b.subject == subject && b.mode == mode).collect();
    let usable: Vec<f64> =
        blocks.iter().filter(|b| b.rejected().is_none()).flat_map(|b| b.us.iter().copied()).collect();
    let pairs = paired_blocks(&samples.blocks, shape, mode, subject, &suite.control);
    Some(Comparison {
        shape: shape.to_owned(),
        subject: subject.to_owned(),
        mode,
        time_us: Summary::of(&usable)?,
        over_control: if subject == suite.control { None } else { paired_ratio(&pairs) },
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
        gates.extend(suite.performance.iter().map(|limit| relative_gate(suite, samples, variant, limit)));
        gates.extend(absolute_gates(suite, samples, variant));
        if samples.deferred.is_none() {
            gates.extend(honesty_gates(suite, samples, variant));
        }
    }
    gates.extend(peer_gate(suite, samples, peers));
    gates
}

/// Whether another round could turn an inconclusive gate on this shape into a verdict.
pub fn needs_more_rounds(suite: &Suite, samples: &Samples, shape: &str) -> bool {
    let limits = suite.performance.iter().filter(|l| l.shape == shape);
    limits.into_iter().any(|limit| {
        let open = |variant: &str| {
            let timed = !samples.failures.iter().any(|f| f.shape == shape && f.subject == variant);
            timed && matches!(relative_gate(suite, samples, variant, limit).state, State::Inconclusive { .. })
        };
        suite.candidates.iter().any(|c| open(&c.variant))
    })
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

fn relative_gate(suite: &Suite, samples: &Samples, variant: &str, limit: &PerformanceLimit) -> Gate {
    let figure = format!("latency reduction on {}", limit.shape);
    let subject = Subject { variant, kind: Kind::Performance, figure: &figure };
    let threshold = format!(">= {} against {}", percent(limit.min_latency_reduction), suite.control);
    if let Some(text) = &samples.deferred {
        let (why, remedy) = split_remedy(text);
        return subject.deferred(&threshold, why, remedy);
    }
    if !suite.time_shapes.contains(&limit.shape) {
        return subject.deferred(&threshold, "the shape was left out", "run the whole suite");
    }
    let failure = samples.failures.iter().find(|f| f.shape == limit.shape && f.subject == variant);
    if let Some(failure) = failure {
        return subject.holds("kernel time", &failure.why, &threshold, false);
    }
    let pairs = |a: &str| paired_blocks(&samples.blocks, &limit.shape, Mode::Kernel, a, &suite.control);
    let Some(ratio) = paired_ratio(&pairs(variant)) else {
        let why = format!("{} usable rounds, {MIN_ROUNDS} needed", pairs(variant).len());
        return subject.with_state("kernel time", "", &threshold, State::Inconclusive { why });
    };
    let measured = format!(
        "{} [{}, {}] ({}x)",
        percent(1.0 - ratio.estimate),
        percent(1.0 - ratio.high),
        percent(1.0 - ratio.low),
        significant(1.0 / ratio.estimate),
    );
    let aa = paired_ratio(&pairs(&format!("{}{AA_SUFFIX}", suite.control)));
    let state = match aa_fault(aa, limit.min_latency_reduction) {
        Some(why) => State::Inconclusive { why },
        None => side_of(ratio, 1.0 - limit.min_latency_reduction),
    };
    subject.with_state("kernel time", &measured, &threshold, state)
}

/// Which side of `bound` the whole interval is on; smaller is better.
fn side_of(ratio: Interval, bound: f64) -> State {
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

fn absolute_gates(suite: &Suite, samples: &Samples, variant: &str) -> Vec<Gate> {
    let Some(device) = &samples.device else { return Vec::new() };
    let on_device = suite.absolute.iter().filter(|limit| limit.device == device.name);
    on_device
        .map(|limit| {
            let figure = format!("p50 on {}", limit.shape);
            let subject = Subject { variant, kind: Kind::Performance, figure: &figure };
            let p50 =
                compare_one(suite, samples, &limit.shape, variant, Mode::Kernel).map_or(f64::NAN, |c| c.time_us.p50);
            subject.at_most(&format!("kernel time, {}", device.name), p50, limit.max_p50_us, "us")
        })
        .collect()
}

/// Timed outputs were the verified ones, and no time is below what the chip can do.
fn honesty_gates(suite: &Suite, samples: &Samples, variant: &str) -> Vec<Gate> {
    let subject = |figure| Subject { variant, kind: Kind::Performance, figure };
    let mut gates = Vec::new();
    let subjects = [variant, suite.control.as_str()];
    let own: Vec<&Block> = samples.blocks.iter().filter(|b| subjects.contains(&b.subject.as_str())).collect();
    if own.is_empty() {
        return gates;
    }
    let wrong = own.iter().find(|b| !b.outputs_verified);
    let place = wrong.map(|b| format!("{} {} round {}", b.subject, b.shape, b.round)).unwrap_or_default();
    let measured = if wrong.is_none() { "equal" } else { "a timed block left another output" };
    gates.push(subject("timed outputs").holds(&place, measured, "equal to the verified output", wrong.is_none()));
    if let Some(device) = &samples.device {
        let shapes = suite.time();
        let fastest = shapes.iter().filter_map(|shape| {
            let blocks = own.iter().filter(|b| b.shape == shape.name && b.mode == Mode::Kernel);
            let least = blocks.filter_map(|b| median(&b.us)).min_by(f64::total_cmp)?;
            Some((shape, least / device.floor_us(shape)))
        });
        if let Some((shape, ratio)) = fastest.min_by(|a, b| a.1.total_cmp(&b.1)) {
            let measured = format!("{}x the floor", significant(ratio));
            let gate = subject("physically possible").holds(
                &shape.name,
                &measured,
                "at or above the tensor-core floor",
                ratio >= 1.0,
            );
            gates.push(gate);
        }
    }
    gates
}

fn peer_gate(suite: &Suite, samples: &Samples, peers: &Peers) -> Option<Gate> {
    if !peers.wanted {
        return None;
    }
    let subject = Subject { variant: "peers", kind: Kind::Peers, figure: "measured in this run" };
    if let Some(text) = peers.deferred.as_ref().or(samples.deferred.as_ref()) {
        let (why, remedy) = split_remedy(text);
        return Some(subject.deferred("at least one peer", why, remedy));
    }
    let timed = |s: &str| samples.blocks.iter().any(|b| b.subject == s);
    let names: std::collections::BTreeSet<&str> =
        peers.backends.iter().map(|b| b.subject.as_str()).filter(|s| timed(s)).collect();
    let measured = names.iter().copied().collect::<Vec<_>>().join(", ");
    let place = suite.time_shapes.join(", ");
    Some(subject.holds(&place, &measured, "at least one peer", !names.is_empty()))
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
    fn a_biased_or_noisy_control_forbids_a_verdict() {
        let mut biased = testing::samples(100.0, 80.0);
        for block in biased.blocks.iter_mut().filter(|b| b.subject == "old#aa") {
            block.us.iter_mut().for_each(|us| *us *= 1.02);
        }
        assert!(matches!(state(&biased), State::Inconclusive { why } if why.contains("excludes 1")));
        let mut noisy = testing::samples(100.0, 80.0);
        for block in noisy.blocks.iter_mut().filter(|b| b.subject == "old#aa") {
            let factor = if block.round % 2 == 0 { 1.3 } else { 0.8 };
            block.us.iter_mut().for_each(|us| *us *= factor);
        }
        assert!(matches!(state(&noisy), State::Inconclusive { why } if why.contains("wider")));
        let mut absent = testing::samples(100.0, 80.0);
        absent.blocks.retain(|b| b.subject != "old#aa");
        assert!(matches!(state(&absent), State::Inconclusive { why } if why.contains("not measured")));
    }

    #[test]
    fn throttled_blocks_are_dropped_and_counted_and_too_few_give_no_verdict() {
        let mut samples = testing::samples(100.0, 80.0);
        for block in samples.blocks.iter_mut().filter(|b| b.subject == "new" && b.round < 10) {
            block.after.throttle.push("power cap".into());
        }
        assert!(matches!(state(&samples), State::Inconclusive { why } if why.starts_with("6 usable")));
        let compared = compare(&testing::suite(), &samples);
        let new = compared.iter().find(|c| c.subject == "new" && c.mode == Mode::Kernel).unwrap();
        assert_eq!(new.dropped_blocks, 10);
    }

    #[test]
    fn ratios_never_cross_rounds() {
        let blocks = [testing::block("new", 0, Mode::Kernel, 80.0), testing::block("old", 1, Mode::Kernel, 100.0)];
        assert!(paired_blocks(&blocks, "mission", Mode::Kernel, "new", "old").is_empty());
    }

    #[test]
    fn wrong_timed_output_and_impossible_times_fail() {
        let failed = |samples: &Samples| -> Vec<String> {
            let evidence = testing::evidence();
            let gates = judge_samples(&testing::suite(), &evidence.builds, samples, &evidence.peers);
            gates.into_iter().filter(|g| g.state == State::Fail).map(|g| g.figure).collect()
        };
        assert_eq!(failed(&testing::samples(100.0, 80.0)), [""; 0]);
        let mut wrong = testing::samples(100.0, 80.0);
        wrong.blocks.last_mut().unwrap().outputs_verified = false;
        assert_eq!(failed(&wrong), ["timed outputs"]);
        assert_eq!(failed(&testing::samples(100.0, 0.5)), ["physically possible"]);
    }

    #[test]
    fn an_absolute_limit_belongs_to_its_device() {
        let mut suite = testing::suite();
        let limit = |device: &str| crate::suite::AbsoluteLimit {
            device: device.into(),
            shape: "mission".into(),
            max_p50_us: 50.0,
        };
        suite.absolute = vec![limit("NVIDIA L4"), limit("NVIDIA H200")];
        let gates = absolute_gates(&suite, &testing::samples(100.0, 80.0), "new");
        assert_eq!(gates.len(), 1);
        assert_eq!(gates[0].state, State::Fail);
    }

    #[test]
    fn peers_that_were_wanted_and_did_not_run_are_deferred_or_failed_never_passed() {
        let suite = testing::suite();
        let samples = testing::samples(100.0, 80.0);
        let wanted = Peers { wanted: true, ..Peers::default() };
        assert_eq!(peer_gate(&suite, &samples, &wanted).unwrap().state, State::Fail);
        let deferred = Peers { deferred: Some("torch is not installed; pip install torch".into()), ..wanted };
        assert!(matches!(peer_gate(&suite, &samples, &deferred).unwrap().state, State::Deferred { .. }));
        assert!(peer_gate(&suite, &samples, &Peers::default()).is_none());
    }
}
