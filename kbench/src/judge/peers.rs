//! Gates against somebody else's kernels: a candidate must be faster than each of them on every timed shape, by pairs of
//! blocks of one round like every other ratio. A shape on which no peer was timed says nothing and is deferred.

use super::performance::{distance, gate_level, not_timed, paired_blocks, settled_ratio, side_of};
use super::split_remedy;
use crate::evidence::{Checks, Errors, Mode, Peers, QUANTISE_SUFFIX, Samples};
use crate::gate::{Gate, Kind, State, Subject, significant};
use crate::shape::{Distribution, Problem, Shape};
use crate::stats::{Interval, MIN_ROUNDS, paired_ratio_at};
use crate::suite::{PeerLimit, Suite};

/// The gates of a candidate, on one shape or on all.
pub(super) fn peer_gates(suite: &Suite, samples: &Samples, variant: &str, shape: Option<&str>) -> Vec<Gate> {
    let Some(limit) = &suite.peers else { return Vec::new() };
    let asked = |s: &&String| shape.is_none_or(|shape| shape == *s);
    let alone = suite.time_shapes.iter().filter(asked).map(|s| {
        let figure = format!("faster than every peer on {s}");
        gate(suite, samples, variant, limit, s, &Against { figure: &figure, arm: variant, peers: peers_on(samples, s) })
    });
    let quantised = format!("{variant}{QUANTISE_SUFFIX}");
    let from_originals = limit.from_originals.iter().filter(asked).map(|s| {
        let figure = format!("from FP16, quantising, on {s}");
        let baseline = peers_on(samples, s).into_iter().filter(|peer| *peer == limit.baseline).collect();
        gate(suite, samples, variant, limit, s, &Against { figure: &figure, arm: &quantised, peers: baseline })
    });
    alone.chain(from_originals).collect()
}

/// End-to-end errors of every candidate against those of the peer that the suite names, on the same inputs: the mean
/// over a shape's output, on every timed shape.
pub fn judge_peer_errors(suite: &Suite, checks: &Checks, peers: &Peers) -> Vec<Gate> {
    let rival = suite.peers.as_ref().and_then(|limit| limit.no_worse_than.as_deref());
    let gates = rival.into_iter().flat_map(|rival| {
        suite.candidates.iter().map(move |candidate| error_gate(suite, checks, peers, &candidate.variant, rival))
    });
    gates.collect()
}

fn error_gate(suite: &Suite, checks: &Checks, peers: &Peers, variant: &str, rival: &str) -> Gate {
    let figure = format!("end-to-end mean against {rival}");
    let subject = Subject { variant, kind: Kind::Correctness, figure: &figure };
    let threshold = "error / peer's error <= 1";
    if let Some(text) = checks.deferred.as_ref().or(peers.deferred.as_ref()) {
        let (why, remedy) = split_remedy(text);
        return subject.deferred(threshold, why, remedy);
    }
    if let Some(text) = peers.missing.get(rival.split('/').next().unwrap_or(rival)) {
        let (why, remedy) = split_remedy(text);
        return subject.deferred(threshold, why, remedy);
    }
    let mut worst: Option<(f64, String)> = None;
    for shape in suite.time() {
        let of_peer = peers.backends.iter().find(|b| b.subject == rival && b.shape == shape.name);
        let Some(of_peer) = of_peer.and_then(|b| b.errors.as_ref()) else {
            let why = format!("{rival} gave no output on {}", shape.name);
            return subject.deferred(threshold, &why, "see peers.json, and run with --peers auto");
        };
        let ratio = match own_errors(suite, checks, variant, &shape) {
            Some(own) => mean_error(own) / mean_error(of_peer),
            None => f64::NAN,
        };
        // What is no number is worse than any.
        let is_worse = |(other, _): &(f64, String)| ratio.is_nan() || ratio > *other;
        if worst.as_ref().is_none_or(is_worse) {
            worst = Some((ratio, shape.name));
        }
    }
    let (ratio, shape) = worst.unwrap_or((f64::NAN, String::new()));
    subject.holds(&shape, &significant(ratio), threshold, ratio <= 1.0)
}

/// Of the problem that peers are given too.
fn own_errors<'a>(suite: &Suite, checks: &'a Checks, variant: &str, shape: &Shape) -> Option<&'a Errors> {
    let problem = Problem { shape: shape.clone(), seed: suite.seeds[0], distribution: Distribution::Normal };
    let case = checks.cases.iter().find(|c| c.variant == variant && c.launch.problem == problem);
    case.and_then(|c| c.errors.as_ref())
}

/// An output that is not finite has no error worth a number.
fn mean_error(errors: &Errors) -> f64 {
    if errors.nan + errors.inf > 0 { f64::NAN } else { errors.end_to_end_mean }
}

/// What is compared on a shape.
struct Against<'a> {
    figure: &'a str,
    arm: &'a str,
    peers: Vec<&'a str>,
}

/// Peers that were timed on a shape; only their names hold a slash.
fn peers_on<'a>(samples: &'a Samples, shape: &str) -> Vec<&'a str> {
    let blocks = samples.blocks.iter().filter(|b| b.shape == shape && b.subject.contains('/'));
    blocks.map(|b| b.subject.as_str()).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

fn gate(suite: &Suite, samples: &Samples, variant: &str, limit: &PeerLimit, shape: &str, against: &Against) -> Gate {
    let subject = Subject { variant, kind: Kind::Performance, figure: against.figure };
    let threshold = format!("time / peer <= {}", significant(limit.max_ratio));
    if let Some(deferred) = not_timed(suite, samples, &subject, &threshold, shape) {
        return deferred;
    }
    if against.peers.is_empty() {
        return subject.deferred(&threshold, "no peer was timed", "run with --peers auto where PyTorch is installed");
    }
    let open = |why| subject.with_state("kernel time", "", &threshold, State::Inconclusive { why });
    let mut closest: Option<(&str, Interval)> = None;
    for peer in &against.peers {
        let pairs = paired_blocks(&samples.blocks, shape, Mode::Kernel, against.arm, peer);
        let Some(ratio) = paired_ratio_at(&pairs, gate_level(suite, shape)) else {
            return open(format!("{} usable rounds against {peer}, {MIN_ROUNDS} needed", pairs.len()));
        };
        // A peer that is surely faster outranks one that perhaps is.
        let rank = |r: &Interval| (r.low > limit.max_ratio, r.high);
        if closest.as_ref().is_none_or(|(_, other)| rank(&ratio) > rank(other)) {
            closest = Some((peer, ratio));
        }
    }
    let Some((peer, ratio)) = closest else { return open("no peer".to_owned()) };
    let margin = distance(ratio, limit.max_ratio);
    if let Err(why) = settled_ratio(suite, samples, [variant, &suite.control], shape, margin) {
        return open(why);
    }
    let figures = [ratio.estimate, ratio.low, ratio.high].map(significant);
    let measured =
        format!("{} [{}, {}] of {peer}, the closest of {}", figures[0], figures[1], figures[2], against.peers.len());
    subject.with_state("kernel time", &measured, &threshold, side_of(ratio, limit.max_ratio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;

    fn suite() -> Suite {
        let limit = PeerLimit {
            max_ratio: 1.0,
            from_originals: vec!["mission".into()],
            baseline: "torch/default".into(),
            also: vec!["cudnn".into()],
            no_worse_than: Some("cudnn/fp8".into()),
        };
        Suite { peers: Some(limit), ..testing::suite() }
    }

    fn samples(flash: f64, default: f64, quantised: f64) -> Samples {
        let mut samples = testing::samples(100.0, 80.0);
        for round in 0..16 {
            for (subject, us) in [("torch/flash", flash), ("torch/default", default), ("new+quantise", quantised)] {
                samples.blocks.push(testing::block(subject, round, Mode::Kernel, us));
            }
        }
        samples
    }

    fn states(samples: &Samples) -> [String; 2] {
        let gates = peer_gates(&suite(), samples, "new", None);
        assert_eq!(gates.len(), 2);
        [0, 1].map(|i| gates[i].state.word().to_owned())
    }

    #[test]
    fn one_faster_peer_is_enough_to_fail() {
        assert_eq!(states(&samples(120.0, 90.0, 85.0)), ["PASS", "PASS"]);
        assert_eq!(states(&samples(70.0, 90.0, 85.0)), ["FAIL", "PASS"]);
        assert_eq!(states(&samples(120.0, 90.0, 95.0)), ["PASS", "FAIL"]);
        let gates = peer_gates(&suite(), &samples(120.0, 90.0, 85.0), "new", None);
        assert!(gates[0].measured.contains("of torch/default, the closest of 2"), "{}", gates[0].measured);
    }

    #[test]
    fn without_peers_or_a_device_nothing_is_claimed() {
        assert_eq!(states(&testing::samples(100.0, 80.0)), ["DEFERRED", "DEFERRED"]);
        let nowhere = Samples { deferred: Some("no GPU; run on one".into()), ..Samples::default() };
        assert_eq!(states(&nowhere), ["DEFERRED", "DEFERRED"]);
        assert!(peer_gates(&testing::suite(), &samples(1.0, 1.0, 1.0), "new", None).is_empty());
        assert!(peer_gates(&suite(), &samples(1.0, 1.0, 1.0), "new", Some("long")).is_empty());
    }

    fn peers(mean: f64) -> Peers {
        let errors = Errors { end_to_end_mean: mean, ..testing::errors() };
        let backend = crate::evidence::PeerBackend {
            shape: "mission".into(),
            subject: "cudnn/fp8".into(),
            kernels: vec![],
            resolved: None,
            unavailable: None,
            errors: Some(errors),
        };
        Peers { wanted: true, backends: vec![backend], ..Peers::default() }
    }

    #[test]
    fn the_mean_error_must_not_exceed_the_peers() {
        let state = |checks: &Checks, peers: &Peers| {
            let gates = judge_peer_errors(&suite(), checks, peers);
            assert_eq!(gates.len(), 1);
            gates[0].state.to_string()
        };
        let checks = testing::evidence().checks;
        let own = testing::errors().end_to_end_mean;
        assert_eq!(state(&checks, &peers(own)), "PASS");
        assert_eq!(state(&checks, &peers(own * 0.99)), "FAIL");
        assert_eq!(state(&checks, &peers(f64::NAN)), "FAIL");
        let mut infinite = checks.clone();
        infinite.cases.iter_mut().for_each(|c| c.errors.as_mut().unwrap().inf = 1);
        assert_eq!(state(&infinite, &peers(own)), "FAIL");
        assert_eq!(state(&Checks::default(), &peers(own)), "FAIL", "a case that is missing is no pass");
        let mut absent = Peers { wanted: true, ..Peers::default() };
        assert!(state(&checks, &absent).starts_with("DEFERRED (cudnn/fp8 gave no output on mission"));
        absent.missing.insert("cudnn".into(), "no cudnn; pip install nvidia-cudnn-frontend".into());
        assert_eq!(state(&checks, &absent), "DEFERRED (no cudnn; pip install nvidia-cudnn-frontend)");
    }
}
