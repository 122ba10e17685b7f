//! Gates against somebody else's kernels: a candidate must be faster than each of them on every timed shape, by pairs of
//! blocks of one round like every other ratio. A shape on which no peer was timed says nothing and is deferred.

use super::settled::{Bench, Margin, distance, side_of};
use crate::deferral::Deferral;
use crate::evidence::{Checks, Errors, Mode, PeerBackend, Peers};
use crate::gate::{Draft, Gate, GateId, Limit, Reading, State, Unit, significant};
use crate::operator::{Distribution, Problem, Shape};
use crate::setting::Setting;
use crate::subject::Subject;
use crate::suite::{PeerAccuracy, PeerLimit, Suite};
use stats::Interval;

/// The gates of a candidate in every timed distribution, on one shape or on all.
pub(super) fn peer_gates(bench: &Bench, variant: &str, shape: Option<&str>) -> Vec<Gate> {
    let Some(limit) = &bench.suite.peers else { return Vec::new() };
    let asked = |s: &&String| shape.is_none_or(|shape| shape == *s);
    let mut gates = Vec::new();
    for distribution in bench.suite.time_distributions.iter().copied() {
        let setting = |shape| Setting::hot(shape, distribution, Mode::Kernel);
        gates.extend(bench.suite.time_shapes.iter().filter(asked).map(|s| {
            let peers = peers_in(bench, &setting(s));
            let against = Against { id: GateId::FasterThanPeers, subject: Subject::plain(variant), peers };
            gate(bench, variant, limit, setting(s), &against)
        }));
        gates.extend(limit.from_originals.iter().filter(asked).map(|s| {
            let peers = peers_in(bench, &setting(s)).into_iter().filter(|peer| *peer == limit.baseline).collect();
            let against = Against { id: GateId::FromOriginals, subject: Subject::from_originals(variant), peers };
            gate(bench, variant, limit, setting(s), &against)
        }));
    }
    gates
}

/// End-to-end errors of every candidate against those of the peer that the suite names, on the same inputs: the mean on
/// every timed shape, and the largest of them all. The largest of one shape is that of one element, and between kernels
/// that round alike it is chance which has the larger.
pub fn judge_peer_errors(suite: &Suite, checks: &Checks, peers: &Peers) -> Vec<Gate> {
    let rival = suite.peers.as_ref().and_then(|limit| limit.no_worse_than.as_deref());
    let gates = rival.into_iter().flat_map(|rival| {
        suite.candidates.iter().flat_map(move |candidate| error_gates(suite, checks, peers, &candidate.variant, rival))
    });
    let accuracy = suite.peers.as_ref().and_then(|limit| limit.accuracy.as_ref());
    let of_accuracy = accuracy.into_iter().flat_map(|limit| {
        let variants = suite.candidates.iter().map(|candidate| candidate.variant.as_str());
        variants.map(move |variant| accuracy_gate(suite, checks, peers, variant, limit))
    });
    gates.chain(of_accuracy).collect()
}

/// The quotient of root mean squares that is furthest above what it may be, over all timed shapes and distributions.
fn accuracy_gate(suite: &Suite, checks: &Checks, peers: &Peers, variant: &str, limit: &PeerAccuracy) -> Gate {
    let draft = Draft::new(variant, GateId::PeerErrorRms).against(&limit.peer);
    let threshold = |most: Limit| format!("error / peer's error {}", most.text(Unit::One));
    let mut all = Vec::new();
    for distribution in suite.time_distributions.iter().copied() {
        match error_pairs(suite, checks, peers, variant, &limit.peer, distribution) {
            Ok(pairs) => all.extend(pairs.into_iter().map(|(shape, own, peer)| (distribution.on(&shape), own, peer))),
            Err(deferral) => return draft.deferred(&threshold(Limit::at_most(limit.max_ratio)), deferral),
        }
    }
    let rms = |errors: &Errors| finite(errors, errors.end_to_end_rms.unwrap_or(f64::NAN));
    let over = |(place, own, peer): &'_ Pair| {
        let (ratio, most) = (own.map_or(f64::NAN, rms) / rms(peer), limit.max_ratio + own.map_or(0.0, chance_of_rows));
        (ratio / most, (ratio, most, place.clone()))
    };
    let further = |a: (f64, _), b: (f64, _)| if a.0.is_nan() || a.0 >= b.0 { a } else { b };
    let Some((_, (ratio, most, place))) = all.iter().map(over).reduce(further) else {
        return draft.deferred(&threshold(Limit::at_most(limit.max_ratio)), Deferral::because("no shape is timed"));
    };
    let most = Limit::at_most(most);
    let draft = draft.limited(most, Unit::One);
    draft.holds(&place, Reading::of(ratio, None, Unit::One), &threshold(most), most.holds(ratio))
}

/// What chance may add to a quotient where some rows were compared: few rows have much of the error, and two kernels that round
/// alike are a percent apart on a thousand rows, of which this is three standard deviations.
fn chance_of_rows(errors: &Errors) -> f64 {
    errors.sampled_rows.as_ref().map_or(0.0, |rows| 1.0 / (rows.len().max(1) as f64).sqrt())
}

/// A shape, the candidate's errors on it and the peer's.
type Pair<'a> = (String, Option<&'a Errors>, &'a Errors);

fn error_gates(suite: &Suite, checks: &Checks, peers: &Peers, variant: &str, rival: &str) -> [Gate; 2] {
    let most = Limit::at_most(1.0);
    let [mean, max] = [GateId::PeerErrorMean, GateId::PeerErrorMax]
        .map(|id| Draft::new(variant, id).against(rival).limited(most, Unit::One));
    let threshold = &format!("error / peer's error {}", most.text(Unit::One));
    let pairs = match error_pairs(suite, checks, peers, variant, rival, Distribution::Normal) {
        Ok(pairs) => pairs,
        Err(deferral) => return [mean, max].map(|draft| draft.deferred(threshold, deferral.clone())),
    };
    let (ratio, shape) = largest(pairs.iter().map(|(shape, own, of_peer)| {
        let own = own.map_or(f64::NAN, |own| finite(own, own.end_to_end_mean));
        (own / finite(of_peer, of_peer.end_to_end_mean), shape.as_str())
    }));
    let mean = mean.holds(shape, Reading::of(ratio, None, Unit::One), threshold, most.holds(ratio));
    let (own, shape) = largest(
        pairs
            .iter()
            .map(|(shape, own, _)| (own.map_or(f64::NAN, |own| finite(own, own.end_to_end_max)), shape.as_str())),
    );
    let (of_peer, where_else) =
        largest(pairs.iter().map(|(shape, _, of_peer)| (finite(of_peer, of_peer.end_to_end_max), shape.as_str())));
    let ratio = own / of_peer;
    let figures = [ratio, own, of_peer].map(significant);
    let measured = format!("{}: {} / {} on {where_else}", figures[0], figures[1], figures[2]);
    [mean, max.holds(shape, Reading::said(ratio, measured), threshold, most.holds(ratio))]
}

/// Errors on every timed shape in a distribution, where there is a peer to compare with.
fn error_pairs<'a>(
    suite: &Suite,
    checks: &'a Checks,
    peers: &'a Peers,
    variant: &str,
    rival: &str,
    distribution: Distribution,
) -> Result<Vec<Pair<'a>>, Deferral> {
    let missing = || peers.missing.get(rival.split('/').next().unwrap_or(rival));
    if let Some(deferral) = checks.deferred.as_ref().or(peers.deferred.as_ref()).or_else(missing) {
        return Err(deferral.clone());
    }
    let pair = |shape: Shape| {
        let is_its = |b: &&PeerBackend| b.subject == rival && b.shape == shape.name && b.distribution == distribution;
        let of_peer = peers.backends.iter().find(is_its);
        match of_peer.and_then(|b| b.errors.as_ref()) {
            Some(of_peer) => {
                Ok((shape.name.clone(), own_errors(suite, checks, variant, &shape, distribution), of_peer))
            }
            None => Err(Deferral::new(
                format!("{rival} gave no output on {}", distribution.on(&shape.name)),
                "see peers.json, and run with --peers auto",
            )),
        }
    };
    suite.time().into_iter().map(pair).collect()
}

/// What is no number is larger than any.
fn largest<'a>(values: impl Iterator<Item = (f64, &'a str)>) -> (f64, &'a str) {
    let larger = |a: (f64, &'a str), b: (f64, &'a str)| if a.0.is_nan() || a.0 >= b.0 { a } else { b };
    values.reduce(larger).unwrap_or((f64::NAN, ""))
}

/// Of the problem that peers are given too.
fn own_errors<'a>(
    suite: &Suite,
    checks: &'a Checks,
    variant: &str,
    shape: &Shape,
    distribution: Distribution,
) -> Option<&'a Errors> {
    let problem = Problem { shape: shape.clone(), seed: suite.seeds[0], distribution };
    let case = checks.cases.iter().find(|c| c.variant == variant && c.launch.problem == problem);
    case.and_then(|c| c.errors.as_ref())
}

/// An output that is not finite has no error worth a number.
fn finite(errors: &Errors, error: f64) -> f64 {
    if errors.nan + errors.inf > 0 { f64::NAN } else { error }
}

/// What is compared on a shape.
struct Against<'a> {
    id: GateId,
    subject: Subject,
    peers: Vec<&'a str>,
}

/// Peers that were timed in a setting.
fn peers_in<'a>(bench: &Bench<'a>, setting: &Setting) -> Vec<&'a str> {
    bench.timed.subjects(setting).into_iter().filter(|s| s.is_peer()).map(|s| s.who.as_str()).collect()
}

fn gate(bench: &Bench, variant: &str, limit: &PeerLimit, setting: Setting, against: &Against) -> Gate {
    let most = Limit::at_most(limit.max_ratio);
    let draft = Draft::new(variant, against.id).timed(setting).limited(most, Unit::One);
    let threshold = format!("time / peer {}", most.text(Unit::One));
    if let Some(deferred) = bench.not_timed(&draft, &threshold, &setting) {
        return deferred;
    }
    if against.peers.is_empty() {
        let deferral = Deferral::new("no peer was timed", "run with --peers auto where PyTorch is installed");
        return draft.deferred(&threshold, deferral);
    }
    let open = |why| draft.with_state(&setting.timer(), "", &threshold, State::Inconclusive { why });
    let mut closest: Option<(&str, Interval)> = None;
    for peer in &against.peers {
        let ratio = match bench.ratio(&setting, [&against.subject, &Subject::plain(*peer)], variant) {
            Ok(ratio) => ratio,
            Err(few) => return open(few.against(peer)),
        };
        // A peer that is surely faster outranks one that perhaps is.
        let rank = |r: &Interval| (r.low > limit.max_ratio, r.high);
        if closest.as_ref().is_none_or(|(_, other)| rank(&ratio) > rank(other)) {
            closest = Some((peer, ratio));
        }
    }
    let Some((peer, ratio)) = closest else { return open("no peer".to_owned()) };
    let margin = |_| Margin::Left(distance(ratio, limit.max_ratio));
    let of = [variant, &bench.suite.control].map(Subject::plain);
    if let Err(why) = bench.settled(&setting, [&of[0], &of[1]], variant, margin) {
        return open(why);
    }
    let reading = Reading::of(ratio.estimate, Some([ratio.low, ratio.high]), Unit::One)
        .and(&format!(" of {peer}, the closest of {}", against.peers.len()));
    draft.with_state(&setting.timer(), reading, &threshold, side_of(ratio, limit.max_ratio))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Samples;
    use crate::judge::testing;

    fn suite() -> Suite {
        let limit = PeerLimit {
            max_ratio: 1.0,
            from_originals: vec!["mission".into()],
            baseline: "torch/default".into(),
            also: vec!["cudnn".into()],
            no_worse_than: Some("cudnn/fp8".into()),
            accuracy: None,
        };
        Suite { peers: Some(limit), ..testing::suite() }
    }

    fn samples(flash: f64, default: f64, quantised: f64) -> Samples {
        let mut samples = testing::samples(100.0, 80.0);
        for round in 0..16 {
            for (peer, us) in [("torch/flash", flash), ("torch/default", default)] {
                samples.blocks.push(testing::block(peer, round, Mode::Kernel, us));
            }
            samples.blocks.push(testing::block(Subject::from_originals("new"), round, Mode::Kernel, quantised));
        }
        samples
    }

    fn states(samples: &Samples) -> [String; 2] {
        let suite = suite();
        let gates = peer_gates(&Bench::of(&suite, samples), "new", None);
        assert_eq!(gates.len(), 2);
        [0, 1].map(|i| gates[i].state.word().to_owned())
    }

    #[test]
    fn one_faster_peer_is_enough_to_fail() {
        assert_eq!(states(&samples(120.0, 90.0, 85.0)), ["PASS", "PASS"]);
        assert_eq!(states(&samples(70.0, 90.0, 85.0)), ["FAIL", "PASS"]);
        assert_eq!(states(&samples(120.0, 90.0, 95.0)), ["PASS", "FAIL"]);
        let (suite, samples) = (suite(), samples(120.0, 90.0, 85.0));
        let gates = peer_gates(&Bench::of(&suite, &samples), "new", None);
        assert!(gates[0].measured.contains("of torch/default, the closest of 2"), "{}", gates[0].measured);
    }

    #[test]
    fn without_peers_or_a_device_nothing_is_claimed() {
        assert_eq!(states(&testing::samples(100.0, 80.0)), ["DEFERRED", "DEFERRED"]);
        let nowhere = Samples { deferred: Some(Deferral::new("no GPU", "run on one")), ..Samples::default() };
        assert_eq!(states(&nowhere), ["DEFERRED", "DEFERRED"]);
        let (unasked, asked, samples) = (testing::suite(), suite(), samples(1.0, 1.0, 1.0));
        assert!(peer_gates(&Bench::of(&unasked, &samples), "new", None).is_empty());
        assert!(peer_gates(&Bench::of(&asked, &samples), "new", Some("long")).is_empty());
    }

    fn sampled(rows: u32) -> Errors {
        Errors { sampled_rows: Some((0..rows).map(|row| [0, row]).collect()), ..testing::errors() }
    }

    fn peers(mean: f64, max: f64) -> Peers {
        let errors = Errors { end_to_end_mean: mean, end_to_end_max: max, ..testing::errors() };
        let backend = crate::evidence::PeerBackend {
            shape: "mission".into(),
            distribution: Distribution::Normal,
            subject: "cudnn/fp8".into(),
            kernels: vec![],
            resolved: None,
            unavailable: None,
            errors: Some(errors),
        };
        Peers { wanted: true, backends: vec![backend], ..Peers::default() }
    }

    #[test]
    fn errors_must_not_exceed_the_peers() {
        let states = |checks: &Checks, peers: &Peers| {
            let gates = judge_peer_errors(&suite(), checks, peers);
            gates.iter().map(|gate| gate.state.to_string()).collect::<Vec<_>>()
        };
        let checks = testing::evidence().checks;
        let (mean, max) = (testing::errors().end_to_end_mean, testing::errors().end_to_end_max);
        assert_eq!(states(&checks, &peers(mean, max)), ["PASS", "PASS"]);
        assert_eq!(states(&checks, &peers(mean * 0.99, max)), ["FAIL", "PASS"]);
        assert_eq!(states(&checks, &peers(mean, max * 0.99)), ["PASS", "FAIL"]);
        assert_eq!(states(&checks, &peers(f64::NAN, f64::NAN)), ["FAIL", "FAIL"]);
        let mut infinite = checks.clone();
        infinite.cases.iter_mut().for_each(|c| c.errors.as_mut().unwrap().inf = 1);
        assert_eq!(states(&infinite, &peers(mean, max)), ["FAIL", "FAIL"]);
        assert_eq!(states(&Checks::default(), &peers(mean, max)), ["FAIL", "FAIL"], "a missing case is no pass");
        let mut absent = Peers { wanted: true, ..Peers::default() };
        for state in states(&checks, &absent) {
            assert!(state.starts_with("DEFERRED (cudnn/fp8 gave no output on mission"), "{state}");
        }
        absent.missing.insert("cudnn".into(), Deferral::new("no cudnn", "pip install nvidia-cudnn-frontend"));
        assert_eq!(states(&checks, &absent), ["DEFERRED (no cudnn; pip install nvidia-cudnn-frontend)"; 2]);
    }

    #[test]
    fn errors_stay_within_a_share_of_the_peers_in_every_timed_distribution() {
        let mut suite = suite();
        suite.time_distributions = vec![Distribution::Normal, Distribution::Trained];
        let limit = suite.peers.as_mut().unwrap();
        limit.no_worse_than = None;
        limit.accuracy = Some(PeerAccuracy { peer: "cudnn/fp8".into(), max_ratio: 1.03 });
        let checks = testing::checks(&suite);
        let own = testing::errors().end_to_end_rms.unwrap();
        let gate = |rms: [Option<f64>; 2]| {
            let mut peers = peers(0.1, 0.1);
            peers.backends.push(PeerBackend { distribution: Distribution::Trained, ..peers.backends[0].clone() });
            for (backend, rms) in peers.backends.iter_mut().zip(rms) {
                backend.errors.as_mut().unwrap().end_to_end_rms = rms;
            }
            let gates = judge_peer_errors(&suite, &checks, &peers);
            assert_eq!(gates.len(), 1);
            (gates[0].state.word().to_owned(), gates[0].place.clone())
        };
        assert_eq!(gate([Some(own), Some(own / 1.02)]), ("PASS".into(), "mission, trained inputs".into()));
        assert_eq!(gate([Some(own), Some(own / 1.04)]), ("FAIL".into(), "mission, trained inputs".into()));
        assert_eq!(gate([Some(own / 1.04), Some(own)]).0, "FAIL");
        assert_eq!(gate([Some(own), None]).0, "FAIL", "what was not measured passes nothing");
        assert_eq!((chance_of_rows(&testing::errors()), chance_of_rows(&sampled(1024))), (0.0, 1.0 / 32.0));
        let few = judge_peer_errors(&suite, &checks, &peers(0.1, 0.1));
        assert!(few[0].state.to_string().contains("cudnn/fp8 gave no output on mission, trained inputs"), "{few:?}");
    }

    #[test]
    fn the_largest_of_all_shapes_is_what_counts() {
        assert_eq!(largest([(0.1, "a"), (0.3, "b"), (0.2, "c")].into_iter()), (0.3, "b"));
        for values in [[(f64::NAN, "a"), (0.3, "b")], [(0.3, "b"), (f64::NAN, "a")]] {
            assert!(largest(values.into_iter()).0.is_nan());
        }
        assert!(largest(std::iter::empty()).0.is_nan());
    }
}
