//! Gates against somebody else's kernels: a candidate must be faster than each of them on every timed shape, by pairs of
//! blocks of one round like every other ratio. A shape on which no peer was timed says nothing and is deferred.

use super::performance::{LEAST_NOISE_LIMIT, gate_level, not_timed, paired_blocks, settled_ratio, side_of};
use crate::evidence::{Mode, QUANTISE_SUFFIX, Samples};
use crate::gate::{Gate, Kind, State, Subject, significant};
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
    if let Err(why) = settled_ratio(suite, samples, [variant, &suite.control], shape, LEAST_NOISE_LIMIT) {
        return open(why);
    }
    let mut closest: Option<(&str, Interval)> = None;
    for peer in &against.peers {
        let pairs = paired_blocks(&samples.blocks, shape, Mode::Kernel, against.arm, peer);
        let Some(ratio) = paired_ratio_at(&pairs, gate_level(suite)) else {
            return open(format!("{} usable rounds against {peer}, {MIN_ROUNDS} needed", pairs.len()));
        };
        // A peer that is surely faster outranks one that perhaps is.
        let rank = |r: &Interval| (r.low > limit.max_ratio, r.high);
        if closest.as_ref().is_none_or(|(_, other)| rank(&ratio) > rank(other)) {
            closest = Some((peer, ratio));
        }
    }
    let Some((peer, ratio)) = closest else { return open("no peer".to_owned()) };
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
        let limit =
            PeerLimit { max_ratio: 1.0, from_originals: vec!["mission".into()], baseline: "torch/default".into() };
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
}
