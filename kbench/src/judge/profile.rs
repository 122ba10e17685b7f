//! Gates on what the profiler says: the tensor cores are busy, or device memory is not. A figure that is missing never
//! passes and never fails; a profile of a launch with another output than the verified one fails.

use super::{Evidence, left_out};
use crate::deferral::Deferral;
use crate::gate::{Draft, Gate, GateId, Limit, Reading, State, Unit, significant};
use crate::profile::{Figure, KernelProfile};
use crate::suite::{ProfileLimit, Suite};

/// The gates of every candidate; none where no profile was asked for.
pub fn judge_profile(suite: &Suite, evidence: &Evidence) -> Vec<Gate> {
    let mut gates = Vec::new();
    for candidate in &suite.candidates {
        let variant = candidate.variant.as_str();
        let unbuilt = evidence.builds.get(variant, &suite.arch).is_none();
        if unbuilt || left_out(suite, &evidence.builds, variant).is_some() {
            continue;
        }
        let limits = suite.profile.iter().filter(|limit| limit.holds_for(variant));
        gates.extend(limits.filter_map(|limit| gate(evidence, variant, limit)));
    }
    gates
}

fn gate(evidence: &Evidence, variant: &str, limit: &ProfileLimit) -> Option<Gate> {
    let profile = evidence.profile.as_ref()?;
    let least = Limit::at_least(limit.min_tensor_percent);
    let draft = Draft::new(variant, GateId::Profile).on(&limit.shape).limited(least, Unit::Percent);
    let threshold = threshold(limit);
    if let Some(deferral) = &profile.deferred {
        return Some(draft.deferred(&threshold, deferral.clone()));
    }
    let Some(kernel) = profile.get(variant, &limit.shape) else {
        let deferral = Deferral::new("it was not profiled on this shape", "run the whole suite with --ncu");
        return Some(draft.deferred(&threshold, deferral));
    };
    if let Some(deferral) = &kernel.deferred {
        return Some(draft.deferred(&threshold, deferral.clone()));
    }
    let Some(reading) = &kernel.reading else {
        let deferral = Deferral::new("the profile holds no figures", "run again with --ncu");
        return Some(draft.deferred(&threshold, deferral));
    };
    let place = format!("{} under ncu", reading.kernel);
    if !is_verified(evidence, kernel) {
        return Some(draft.holds(&place, "another output than the verified one", &threshold, false));
    }
    let tensor = reading.value(Figure::TensorActive).map(|percent| percent >= limit.min_tensor_percent);
    let dram = limit.or_dram_below_percent.map(|below| reading.value(Figure::DramThroughput).map(|p| p < below));
    let state = match (tensor, dram) {
        (Some(true), _) | (_, Some(Some(true))) => State::Pass,
        (Some(false), None | Some(Some(false))) => State::Fail,
        (tensor, _) => {
            let lacking = if tensor.is_none() { Figure::TensorActive } else { Figure::DramThroughput };
            let why = reading.missing.get(&lacking).map_or("no reason is recorded", String::as_str);
            let why = format!("{} is missing: {why}", lacking.label());
            State::Deferred(Deferral::new(why, "use a version of ncu that knows this chip"))
        }
    };
    let shown = |name: &str, figure: Figure| match reading.value(figure) {
        Some(percent) => format!("{name} {}%", significant(percent)),
        None => format!("{name} missing"),
    };
    let words = format!("{}, {}", shown("tensor", Figure::TensorActive), shown("DRAM", Figure::DramThroughput));
    let reading = match reading.value(Figure::TensorActive) {
        Some(percent) => Reading::said(percent, words),
        None => words.into(),
    };
    Some(draft.with_state(&place, reading, &threshold, state))
}

fn threshold(limit: &ProfileLimit) -> String {
    let tensor = format!("tensor >= {}%", significant(limit.min_tensor_percent));
    match limit.or_dram_below_percent {
        Some(below) => format!("{tensor} or DRAM < {}%", significant(below)),
        None => tensor,
    }
}

/// Whether the profiled launch gave what the checked one gave.
fn is_verified(evidence: &Evidence, kernel: &KernelProfile) -> bool {
    let of = |case: &&crate::evidence::CheckedCase| {
        case.variant == kernel.variant && case.launch.problem == kernel.problem && case.errors.is_some()
    };
    let checked = evidence.checks.cases.iter().find(of).and_then(|case| case.launch.output_sha256.as_ref());
    checked.is_some() && checked == kernel.output_sha256.as_ref()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::gate::Kind;
    use crate::judge::{judge, testing};
    use crate::operator::{Distribution, Problem};
    use crate::profile::{Measured, Profile, Reading};

    fn suite() -> Suite {
        let limit = ProfileLimit {
            shape: "mission".into(),
            candidate: None,
            min_tensor_percent: 50.0,
            or_dram_below_percent: Some(50.0),
        };
        Suite { profile: vec![limit], ..testing::suite() }
    }

    fn evidence(tensor: Option<f64>, dram: Option<f64>) -> Evidence {
        let figures = [(Figure::TensorActive, tensor), (Figure::DramThroughput, dram)];
        let measured = |value| Measured { value, metric: "m".into(), raw: "r".into(), raw_unit: "%".into() };
        let reading = Reading {
            kernel: "sdpa_fwd_d64".into(),
            grid: "(16, 16, 1)".into(),
            block: "(128, 1, 1)".into(),
            figures: figures.iter().filter_map(|(figure, value)| Some((*figure, measured((*value)?)))).collect(),
            missing: BTreeMap::from([(Figure::TensorActive, "no such metric".to_owned())]),
            stalls: vec![],
        };
        let problem = Problem { shape: "mission".parse().unwrap(), seed: 0, distribution: Distribution::Normal };
        let kernel = KernelProfile {
            output_sha256: Some("00".into()),
            reading: Some(reading),
            ..KernelProfile::deferred("new", &problem, Deferral::because(""))
        };
        let kernel = KernelProfile { deferred: None, ..kernel };
        let profile = Profile { deferred: None, settings: None, kernels: vec![kernel] };
        Evidence { profile: Some(profile), ..testing::evidence() }
    }

    fn only_gate(suite: &Suite, evidence: &Evidence) -> Gate {
        let mut gates = judge_profile(suite, evidence);
        assert_eq!(gates.len(), 1, "{gates:#?}");
        gates.remove(0)
    }

    #[test]
    fn busy_tensor_cores_or_idle_memory_and_nothing_unknown_passes_or_fails() {
        let cases = [
            (Some(50.0), Some(50.0), "PASS"),
            (Some(60.0), None, "PASS"),
            (None, Some(49.9), "PASS"),
            (Some(49.9), Some(49.9), "PASS"),
            (Some(49.9), Some(50.0), "FAIL"),
            (Some(49.9), None, "DEFERRED"),
            (None, Some(50.0), "DEFERRED"),
            (None, None, "DEFERRED"),
            (Some(f64::NAN), Some(f64::NAN), "FAIL"),
        ];
        for (tensor, dram, word) in cases {
            let gate = only_gate(&suite(), &evidence(tensor, dram));
            assert_eq!(gate.state.word(), word, "tensor {tensor:?}, DRAM {dram:?}: {gate:?}");
        }
        let gate = only_gate(&suite(), &evidence(Some(31.25), Some(2.5)));
        assert_eq!(
            (gate.measured.as_str(), gate.threshold.as_str()),
            ("tensor 31.25%, DRAM 2.500%", "tensor >= 50% or DRAM < 50%")
        );
    }

    #[test]
    fn without_an_alternative_idle_memory_is_no_help() {
        let mut suite = suite();
        suite.profile[0].or_dram_below_percent = None;
        assert_eq!(only_gate(&suite, &evidence(Some(49.0), Some(1.0))).state, State::Fail);
        assert_eq!(only_gate(&suite, &evidence(None, Some(1.0))).state.word(), "DEFERRED");
        assert_eq!(only_gate(&suite, &evidence(Some(50.0), None)).state, State::Pass);
    }

    #[test]
    fn what_was_not_asked_for_has_no_gate_and_what_could_not_be_had_is_deferred() {
        let none = Evidence { profile: None, ..evidence(Some(60.0), Some(1.0)) };
        assert_eq!(judge_profile(&suite(), &none), []);
        assert_eq!(judge_profile(&testing::suite(), &evidence(Some(60.0), Some(1.0))), []);
        let mut deferred = evidence(Some(60.0), Some(1.0));
        deferred.profile =
            Some(Profile { deferred: Some(Deferral::new("no ncu", "install it")), ..Profile::default() });
        assert_eq!(only_gate(&suite(), &deferred).state.to_string(), "DEFERRED (no ncu; install it)");
        deferred.profile = Some(Profile::default());
        assert_eq!(only_gate(&suite(), &deferred).state.word(), "DEFERRED", "a profile of nobody is none of mine");
        let mut other = suite();
        other.profile[0].candidate = Some("other".into());
        assert_eq!(judge_profile(&other, &evidence(Some(1.0), Some(99.0))), []);
    }

    #[test]
    fn a_profile_of_a_launch_that_gave_something_else_fails() {
        let mut wrong = evidence(Some(60.0), Some(1.0));
        wrong.profile.as_mut().unwrap().kernels[0].output_sha256 = Some("01".into());
        assert_eq!(only_gate(&suite(), &wrong).state, State::Fail);
        wrong.profile.as_mut().unwrap().kernels[0].output_sha256 = None;
        assert_eq!(only_gate(&suite(), &wrong).state, State::Fail);
        let mut unchecked = evidence(Some(60.0), Some(1.0));
        unchecked.checks.cases.iter_mut().for_each(|case| case.errors = None);
        assert_eq!(only_gate(&suite(), &unchecked).state, State::Fail);
    }

    #[test]
    fn a_short_profile_is_a_valid_negative_and_a_missing_one_defers() {
        use crate::decision::{Verdict, decide};
        let verdict = |evidence: &Evidence| {
            let gates = judge(&suite(), evidence);
            assert_eq!(gates.last().unwrap().kind, Kind::Profile, "it is asked last");
            decide(&suite(), &gates, &evidence.checks, &evidence.samples).candidates[0].verdict
        };
        assert_eq!(verdict(&evidence(Some(60.0), Some(60.0))), Verdict::Merge);
        assert_eq!(verdict(&evidence(Some(10.0), Some(60.0))), Verdict::ValidNegative);
        assert_eq!(verdict(&evidence(None, None)), Verdict::Defer);
    }
}
