//! Gates on what the profiler says: the tensor cores are busy, or device memory is not. A figure that is missing never
//! passes and never fails; a profile of a launch with another output than the verified one fails.

use super::{Evidence, left_out, split_remedy};
use crate::gate::{Gate, Kind, State, Subject, significant};
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
    let figure = format!("profile on {}", limit.shape);
    let subject = Subject { variant, kind: Kind::Profile, figure: &figure };
    let threshold = threshold(limit);
    let deferred = |text: &str| {
        let (why, remedy) = split_remedy(text);
        subject.deferred(&threshold, why, remedy)
    };
    if let Some(text) = &profile.deferred {
        return Some(deferred(text));
    }
    let Some(kernel) = profile.get(variant, &limit.shape) else {
        return Some(deferred("it was not profiled on this shape; run the whole suite with --ncu"));
    };
    if let Some(text) = &kernel.deferred {
        return Some(deferred(text));
    }
    let Some(reading) = &kernel.reading else {
        return Some(deferred("the profile holds no figures; run again with --ncu"));
    };
    let place = format!("{} under ncu", reading.kernel);
    if !is_verified(evidence, kernel) {
        return Some(subject.holds(&place, "another output than the verified one", &threshold, false));
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
            State::Deferred { why, remedy: "use a version of ncu that knows this chip".to_owned() }
        }
    };
    let shown = |name: &str, figure: Figure| match reading.value(figure) {
        Some(percent) => format!("{name} {}%", significant(percent)),
        None => format!("{name} missing"),
    };
    let measured = format!("{}, {}", shown("tensor", Figure::TensorActive), shown("DRAM", Figure::DramThroughput));
    Some(subject.with_state(&place, &measured, &threshold, state))
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
