//! Gates on the timing itself: every variant was timed everywhere, left the verified output behind, and took no less than
//! the chip allows; and somebody else's kernels ran beside ours. They say whether the samples can be believed.

use std::collections::BTreeSet;

use super::blocks::block_gates;
use super::own_clock::own_clock_gate;
use super::performance::settings_of;
use super::settled::not_captured;
use crate::deferral::Deferral;
use crate::evidence::{Block, Builds, Mode, Peers, Samples};
use crate::gate::{Draft, Gate, GateId, Limit, Reading, Unit, significant};
use crate::setting::Setting;
use crate::suite::Suite;
use stats::median;

/// Timing gates of every variant that was built, and the peer gate.
pub fn judge_timing(suite: &Suite, builds: &Builds, samples: &Samples, peers: &Peers) -> Vec<Gate> {
    let built = |variant: &&str| {
        super::left_out(suite, builds, variant).is_none() && builds.get(variant, &suite.arch).is_some()
    };
    let mut gates: Vec<Gate> = suite
        .variant_names()
        .filter(built)
        .flat_map(|variant| variant_gates(suite, builds, samples, variant))
        .collect();
    gates.extend(block_gates(suite, samples, suite.variant_names().filter(built)));
    gates.extend(peer_gate(suite, samples, peers));
    gates.extend(missing_peer_gates(peers));
    gates
}

fn variant_gates(suite: &Suite, builds: &Builds, samples: &Samples, variant: &str) -> Vec<Gate> {
    let failed = samples.failures.iter().any(|f| f.subject.who == variant);
    if samples.deferred.is_some() && !failed {
        return Vec::new();
    }
    let mut gates = vec![timed_everywhere(suite, samples, variant)];
    let own: Vec<&Block> = samples.blocks.iter().filter(|b| b.subject.who == variant).collect();
    if !own.is_empty() {
        let adds_floats = builds.records.iter().any(|b| b.variant == variant && b.adds_floats_atomically);
        gates.push(outputs_gate(variant, &own, adds_floats));
        gates.extend(floor_gate(suite, samples, variant, &own));
        gates.extend(own_clock_gate(variant, &own));
    }
    gates
}

/// A variant that faults, hangs or gives another output while it is timed is broken, whatever the checks said before.
fn timed_everywhere(suite: &Suite, samples: &Samples, variant: &str) -> Gate {
    let draft = Draft::new(variant, GateId::TimedEverywhere);
    let distributions = match suite.time_distributions.len() {
        0 | 1 => String::new(),
        many => format!(", {many} distributions"),
    };
    let threshold = format!("{} shapes{distributions}, both timers", suite.time_shapes.len());
    if let Some(failure) = samples.failures.iter().find(|f| f.subject.who == variant) {
        return draft.holds(&failure.shape, failure.why.as_str(), &threshold, false);
    }
    let own = samples.blocks.iter().filter(|b| b.subject.is_plain(variant));
    let timed: BTreeSet<Setting> = own.map(Setting::of).collect();
    let settings = suite.time_shapes.iter().flat_map(|shape| settings_of(suite, shape));
    // A cold L2 is looked at where it was timed.
    let missing = settings.filter(|setting| setting.cache.is_hot()).filter(|setting| !timed.contains(setting));
    let (excused, unexcused): (Vec<_>, Vec<_>) =
        missing.map(|setting| (setting, not_captured(samples, variant, &setting))).partition(|(_, why)| why.is_some());
    match (unexcused.first(), excused.into_iter().find_map(|(_, why)| why)) {
        (Some((setting, _)), _) => draft.holds(&setting.place(), "no samples", &threshold, false),
        (None, Some(why)) => draft.deferred(&threshold, why),
        (None, None) => draft.holds("", "yes", &threshold, true),
    }
}

fn outputs_gate(variant: &str, own: &[&Block], adds_floats: bool) -> Gate {
    let draft = Draft::new(variant, GateId::TimedOutputs);
    let wrong = own.iter().find(|b| !b.outputs_verified);
    let place =
        wrong.map(|b| format!("{} {} round {}", b.subject, Setting::of(b).place(), b.round)).unwrap_or_default();
    const RULE: &str = "every timed launch gives the verified output";
    if wrong.is_some() && adds_floats {
        return draft.deferred(RULE, super::launches::reordered());
    }
    let measured = if wrong.is_none() { "all equal" } else { "a timed launch left another output" };
    draft.holds(&place, measured, RULE, wrong.is_none())
}

/// No gate where the operator does not say what it costs.
fn floor_gate(suite: &Suite, samples: &Samples, variant: &str, own: &[&Block]) -> Option<Gate> {
    let draft = Draft::new(variant, GateId::PhysicallyPossible);
    let rule = match suite.operator.is_attention() {
        true => "at or above the tensor-core floor",
        false => "at or above what arithmetic and memory allow",
    };
    let Some(device) = &samples.device else {
        return Some(draft.holds("", "samples without a device", rule, false));
    };
    let shapes = suite.time();
    let floors: Vec<_> = shapes
        .iter()
        .filter_map(|shape| Some((shape, device.floor_us(&suite.operator.cost(shape)?))))
        .filter(|(_, floor)| *floor > 0.0)
        .collect();
    if floors.is_empty() {
        return None;
    }
    let closest = floors.into_iter().filter_map(|(shape, floor)| {
        let mode = if samples.not_captured(variant, &shape.name).is_none() { Mode::Kernel } else { Mode::Call };
        let blocks = own.iter().filter(|b| b.shape == shape.name && b.mode == mode && b.cache.is_hot());
        let least = blocks.filter_map(|b| median(&b.us)).min_by(f64::total_cmp)?;
        Some((shape, least / floor))
    });
    Some(match closest.min_by(|a, b| a.1.total_cmp(&b.1)) {
        None => draft.holds("", "no kernel time", rule, false),
        Some((shape, ratio)) => {
            let reading = Reading::said(ratio, format!("{}x the floor", significant(ratio)));
            let draft = draft.limited(Limit::at_least(1.0), Unit::One);
            draft.holds(&shape.name, reading, rule, ratio >= 1.0)
        }
    })
}

/// Peers that were asked for and did not run are a deferral: they say nothing about a candidate.
fn peer_gate(suite: &Suite, samples: &Samples, peers: &Peers) -> Option<Gate> {
    if !peers.wanted {
        return None;
    }
    const RULE: &str = "at least one peer";
    let draft = Draft::new("peers", GateId::PeersMeasured);
    let timed = |s: &str| samples.blocks.iter().any(|b| b.subject.is_plain(s));
    let names: std::collections::BTreeSet<&str> =
        peers.backends.iter().map(|b| b.subject.as_str()).filter(|s| timed(s)).collect();
    if let Some(deferral) = peers.deferred.as_ref().or(samples.deferred.as_ref()) {
        return Some(draft.deferred(RULE, deferral.clone()));
    }
    if names.is_empty() {
        return Some(draft.deferred(RULE, Deferral::new("no backend of a peer ran", "see peers.json")));
    }
    let measured = names.iter().copied().collect::<Vec<_>>().join(", ");
    Some(draft.holds(&suite.time_shapes.join(", "), measured, RULE, true))
}

/// A peer that is not installed, or that failed, is a deferral of its own beside those that ran.
fn missing_peer_gates(peers: &Peers) -> impl Iterator<Item = Gate> + '_ {
    peers.missing.iter().map(|(name, deferral)| {
        Draft::new("peers", GateId::PeerMeasured).against(name).deferred("on every timed shape", deferral.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::TimingFailure;
    use crate::gate::State;
    use crate::judge::testing;
    use crate::subject::Subject;

    fn failed(samples: &Samples) -> Vec<String> {
        let gates = judge_timing(&testing::suite(), &testing::evidence().builds, samples, &Peers::default());
        gates.into_iter().filter(|g| g.state == State::Fail).map(|g| format!("{} {}", g.variant, g.figure)).collect()
    }

    #[test]
    fn wrong_timed_output_and_impossible_times_fail() {
        assert_eq!(failed(&testing::samples(100.0, 80.0)), [""; 0]);
        for subject in [Subject::plain("new"), Subject::again("old")] {
            let mut wrong = testing::samples(100.0, 80.0);
            wrong.blocks.iter_mut().rfind(|b| b.subject == subject).unwrap().outputs_verified = false;
            assert_eq!(failed(&wrong), [format!("{} timed outputs", subject.who)]);
        }
        assert_eq!(failed(&testing::samples(100.0, 0.5)), ["new physically possible"]);
        let nowhere = Samples { device: None, ..testing::samples(100.0, 80.0) };
        assert_eq!(failed(&nowhere), ["old physically possible", "new physically possible"]);
    }

    #[test]
    fn what_was_not_timed_somewhere_fails_even_where_no_gate_looks() {
        let mut suite = testing::suite();
        suite.time_shapes.push("wide".into());
        let builds = testing::evidence().builds;
        let samples = testing::samples(100.0, 80.0);
        let states = |samples: &Samples| -> Vec<State> {
            judge_timing(&suite, &builds, samples, &Peers::default())
                .into_iter()
                .filter(|g| g.id == GateId::TimedEverywhere)
                .map(|g| g.state)
                .collect()
        };
        assert_eq!(states(&samples), [State::Fail, State::Fail]);
        let mut other = testing::samples(100.0, 80.0);
        let why = "the output on wide is not the verified one".to_owned();
        other.failures.push(TimingFailure { shape: "wide".into(), subject: "new".into(), why });
        assert_eq!(failed(&other), ["new timed on every shape"]);
    }

    #[test]
    fn what_could_be_launched_nowhere_is_timed_nowhere_without_a_fault() {
        let mut evidence = testing::evidence();
        evidence.samples.blocks.retain(|b| b.subject.who != "new");
        let why = "there is no verified output of mission".to_owned();
        evidence.samples.failures.push(TimingFailure { shape: "mission".into(), subject: "new".into(), why });
        let state = |evidence: &crate::judge::Evidence| {
            let gates = crate::judge::judge(&testing::suite(), evidence);
            gates.into_iter().find(|g| (g.id, g.variant.as_str()) == (GateId::TimedEverywhere, "new")).unwrap().state
        };
        assert_eq!(state(&evidence), State::Fail);
        let last = evidence.checks.cases.iter().rposition(|case| case.variant == "new").unwrap();
        let why = Deferral::because("it sees no GPU");
        for case in evidence.checks.cases[..last].iter_mut().filter(|case| case.variant == "new") {
            case.launch.deferred = Some(why.clone());
        }
        assert_eq!(state(&evidence), State::Fail, "one case was launched");
        evidence.checks.cases[last].launch.deferred = Some(why.clone());
        assert_eq!(state(&evidence), State::Deferred(why));
    }

    #[test]
    fn host_code_without_a_graph_is_deferred_where_kernel_time_decides_and_nowhere_else() {
        let suite = testing::suite();
        let mut samples = testing::samples(100.0, 80.0);
        samples.blocks.retain(|b| !b.subject.is_plain("new") || b.mode == Mode::Call);
        let judged = |samples: &Samples| -> Vec<(GateId, String)> {
            let builds = testing::evidence().builds;
            let gates = crate::judge::judge_samples(&suite, &builds, samples, &Peers::default());
            let open = gates.into_iter().filter(|g| g.variant == "new" && g.state != State::Pass);
            open.map(|g| (g.id, g.state.word().to_owned())).collect()
        };
        assert!(judged(&samples).contains(&(GateId::TimedEverywhere, "FAIL".to_owned())), "without a reason");
        let code = samples.host_code.entry("new".to_owned()).or_default();
        code.not_captured.insert("mission".into(), "it waits for the device".into());
        let deferred = |id| (id, "DEFERRED".to_owned());
        assert_eq!(judged(&samples), [deferred(GateId::LatencyReduction), deferred(GateId::TimedEverywhere)]);
    }

    #[test]
    fn peers_that_were_wanted_and_did_not_run_are_deferred() {
        let suite = testing::suite();
        let samples = testing::samples(100.0, 80.0);
        let wanted = Peers { wanted: true, ..Peers::default() };
        let state = |peers: &Peers| peer_gate(&suite, &samples, peers).map(|g| g.state.word().to_owned());
        assert_eq!(state(&wanted).as_deref(), Some("DEFERRED"));
        let absent = Peers { deferred: Some(Deferral::new("torch is not installed", "pip install torch")), ..wanted };
        assert_eq!(state(&absent).as_deref(), Some("DEFERRED"));
        assert_eq!(state(&Peers::default()), None);
        let missing = [("fa3".to_owned(), Deferral::new("flash_attn_interface is not installed", "build it"))];
        let gates = judge_timing(
            &suite,
            &testing::evidence().builds,
            &samples,
            &Peers { missing: missing.into(), ..Peers::default() },
        );
        let of_peers: Vec<_> = gates.iter().filter(|g| g.variant == "peers").collect();
        assert_eq!(of_peers.len(), 1);
        assert_eq!(of_peers[0].figure, "fa3 measured in this run");
        assert_eq!(of_peers[0].state.to_string(), "DEFERRED (flash_attn_interface is not installed; build it)");
    }
}
