//! Gates on how launches went, whatever their outputs are worth: every case ran, nothing was found in the emulator, and the
//! rules of memory were kept. Leaves to others: errors, and what is looked for apart (`memory`).

use crate::deferral::Deferral;
use crate::evidence::{Builds, CheckedCase, LaunchOutcome};
use crate::gate::{Draft, Gate, Limit, Reading, State, Unit};
use crate::operator::Problem;
use crate::suite::Suite;

/// Whether a launch gave no output, and that is the kernel's fault as far as is known.
pub fn failed(case: &CheckedCase) -> bool {
    case.launch.failure.is_some() && case.launch.deferred.is_none()
}

/// Whether another launch may leave other bytes of a right output: floats are added atomically, or a checker judges.
pub fn may_reorder(suite: &Suite, builds: &Builds, variant: &str) -> bool {
    builds.records.iter().any(|b| b.variant == variant && b.adds_floats_atomically)
        || suite.declared().is_some_and(|operator| operator.check.is_some())
}

/// The finding that is named: an uninitialised value is often what a race left behind, so that a race comes first.
pub fn first_finding<'a>(cases: &[&'a CheckedCase]) -> Option<(&'a CheckedCase, &'a str)> {
    let of = |case: &'a CheckedCase| case.launch.findings.iter().map(move |finding| (case, finding.as_str()));
    let all = || cases.iter().copied().flat_map(of);
    all().find(|(_, finding)| finding.contains(" race ")).or_else(|| all().next())
}

/// Races, bytes in flight, uninitialised values, bounds, barriers: what a GPU hides.
pub fn findings_gate(draft: Draft, cases: &[&CheckedCase]) -> Gate {
    const RULE: &str = "no error, no warning";
    let draft = draft.limited(Limit::at_most(0.0), Unit::One);
    let count = cases.iter().map(|c| c.launch.findings.len()).sum::<usize>();
    match first_finding(cases) {
        None => draft.holds("", Reading::said(0.0, "nothing found"), RULE, true),
        Some((case, finding)) => {
            let first = finding.lines().next().unwrap_or_default();
            let words = format!("{first} (+{} more, see check.json)", count - 1);
            draft.holds(&case.launch.problem.id(), Reading::said(count as f64, words), RULE, false)
        }
    }
}

pub fn launch_gate(
    draft: &Draft,
    planned: &[Problem],
    missing: &[&Problem],
    failures: &[&CheckedCase],
    deferred: &[&CheckedCase],
    compared: &str,
) -> Gate {
    let why = |problem: &Problem| deferred.iter().find(|c| c.launch.problem == *problem)?.launch.deferred.clone();
    let threshold = format!("{} cases", planned.len());
    // One case that is missing without a reason fails, however many have one.
    let reasons: Vec<Option<Deferral>> = missing.iter().map(|problem| why(problem)).collect();
    if let (true, Some(Some(first)), true) = (failures.is_empty(), reasons.first(), reasons.iter().all(Option::is_some))
    {
        let place = missing[0].id();
        let deferral = Deferral::new(format!("{} of {}: {}", missing.len(), planned.len(), first.why), &first.remedy);
        return draft.with_state(&place, "", &threshold, State::Deferred(deferral));
    }
    let measured = format!("{} of {}{compared}", planned.len() - missing.len(), planned.len());
    let (place, measured) = match (failures.first(), missing.first()) {
        (Some(case), _) => {
            let why = case.launch.failure.as_deref().unwrap_or_default();
            (case.launch.problem.id(), format!("{measured}: {why}"))
        }
        (None, Some(problem)) => (problem.id(), measured),
        (None, None) => (String::new(), measured),
    };
    let draft = draft.limited(Limit::at_least(planned.len() as f64), Unit::One);
    let reading = Reading::said((planned.len() - missing.len()) as f64, measured);
    draft.holds(&place, reading, &threshold, missing.is_empty() && failures.is_empty())
}

/// Sums of floats that are added atomically differ in their last bits from launch to launch. Only the first launch is compared
/// with a reference, so whether the second one's difference is no more than that stays open.
pub fn reordered() -> Deferral {
    Deferral::new(
        "another launch gave other bytes, as atomic additions of floats and free orders may, and only the first was judged",
        "add in a fixed order, or run it again where it does not",
    )
}

/// The rule that a launch broke, in words; whether a second one left the same bytes is not asked where that may differ.
pub fn broken_rule(launch: &LaunchOutcome, may_reorder: bool) -> Option<&'static str> {
    let rules = [
        (launch.inputs_unchanged, "an input was written"),
        (launch.guards_intact, "a guard band around the output was written"),
        (
            launch.repeat_equal || may_reorder,
            "a second launch gave other bytes: a race, or memory that nothing initialised",
        ),
    ];
    rules.into_iter().find(|(kept, _)| !kept).map(|(_, what)| what)
}

pub fn rule_gate(draft: &Draft, cases: &[&CheckedCase], adds_floats: bool) -> Gate {
    const RULES: &str = "inputs and guard bands untouched, repeat is bitwise equal";
    let only_repeats = |case: &&&CheckedCase| {
        let launch = &case.launch;
        launch.inputs_unchanged && launch.guards_intact && !launch.repeat_equal
    };
    let broken_otherwise = cases.iter().any(|case| !case.launch.inputs_unchanged || !case.launch.guards_intact);
    if adds_floats && !broken_otherwise && cases.iter().any(|case| only_repeats(&case)) {
        return draft.deferred(RULES, reordered());
    }
    let broken = cases.iter().find_map(|case| broken_rule(&case.launch, false).map(|what| (case, what)));
    match broken {
        None => draft.holds("", "kept", RULES, true),
        Some((case, what)) => draft.holds(&case.launch.problem.id(), what, RULES, false),
    }
}
