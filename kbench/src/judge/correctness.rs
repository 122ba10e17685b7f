//! Gates on checked cases. The plan (`problems`) is the denominator: a case that is missing fails, it is never skipped.

use crate::deferral::Deferral;
use crate::evidence::{Builds, CheckedCase, Checks, EMULATOR, Errors, OutputErrors};
use crate::gate::{Draft, Gate, GateId, Limit, Reading, Unit};
use crate::operator::{Distribution, Operator, Problem, Shape};

use super::launches::{failed, findings_gate, launch_gate, may_reorder, rule_gate};
use super::{declared, proportion};
use crate::suite::{CorrectnessLimits, Suite};

/// What a kernel may add to the floor's mean, as a share of the limit on the mean.
const FLOOR_MEAN: f64 = 0.2;
/// What a kernel may add to the floor's share of bad elements, as a share of the limit on that.
const FLOOR_SHARE: f64 = 0.5;

/// The value of the `p_format` toggle that means e4m3.
const P_FORMAT_E4M3: u32 = 1;

/// Every problem that each variant of the suite must solve: the gated shapes with every seed on normal inputs, the stress
/// shapes with every other distribution on the first seed, the odd shapes on what they name, and whatever is timed besides.
pub fn problems(suite: &Suite) -> Vec<Problem> {
    let gated = suite.check().into_iter().flat_map(|shape| on_every_seed(suite, shape, Distribution::Normal));
    let on_first_seed = |shapes: Vec<Shape>, distributions: &[Distribution]| -> Vec<Problem> {
        let problem = |shape: &Shape, distribution: &Distribution| Problem {
            shape: shape.clone(),
            seed: suite.seeds[0],
            distribution: *distribution,
        };
        shapes.iter().flat_map(|shape| distributions.iter().map(|d| problem(shape, d))).collect()
    };
    let stress = on_first_seed(suite.stress(), &suite.stress_distributions());
    let odd = suite.odd.as_ref().map(|odd| on_first_seed(suite.odd(), &odd.distributions));
    let mut problems: Vec<Problem> = gated.chain(stress).chain(odd.into_iter().flatten()).collect();
    for problem in suite.time().into_iter().flat_map(|shape| timed_problems(suite, &shape)) {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems
}

/// What the timed launches of a shape read: every seed in every timed distribution.
pub fn timed_problems(suite: &Suite, shape: &Shape) -> Vec<Problem> {
    suite
        .time_distributions
        .iter()
        .flat_map(|distribution| on_every_seed(suite, shape.clone(), *distribution))
        .collect()
}

fn on_every_seed(suite: &Suite, shape: Shape, distribution: Distribution) -> impl Iterator<Item = Problem> {
    let seeds = suite.seeds_on(&shape.name).into_iter();
    seeds.map(move |seed| Problem { shape: shape.clone(), seed, distribution })
}

/// The problems that the emulator solves: those on the shapes that the suite allows it. What is timed on a GPU has a case
/// here in each distribution, with the first seed.
pub fn emulated_problems(suite: &Suite) -> Vec<Problem> {
    let allowed = suite.emulation.as_ref().map(|e| e.shapes.as_slice()).unwrap_or_default();
    let is_told = |p: &Problem| match p.distribution {
        Distribution::Normal => Some(p.seed) != suite.fresh_seed,
        _ => p.seed == suite.seeds[0],
    };
    problems(suite).into_iter().filter(|p| allowed.contains(&p.shape.name) && is_told(p)).collect()
}

/// Correctness gates of every variant that was built.
pub fn judge_checks(suite: &Suite, builds: &Builds, checks: &Checks) -> Vec<Gate> {
    suite
        .variant_names()
        .filter(|variant| super::left_out(suite, builds, variant).is_none())
        .filter(|variant| builds.get(variant, &suite.arch).is_some())
        .flat_map(|variant| judge_variant(suite, builds, checks, variant))
        .collect()
}

/// One gate over many cases: the worst case decides and is named.
pub(super) struct Worst<'a> {
    value: f64,
    limit: f64,
    case: Option<&'a CheckedCase>,
}

impl<'a> Worst<'a> {
    /// The case that is furthest over its limit, or closest to it; what is not comparable is worse than anything.
    /// Limits may be zero, so cases are ranked by difference and never by quotient.
    fn over(cases: &[&'a CheckedCase], figure: impl Fn(&Errors) -> (f64, f64)) -> Worst<'a> {
        Worst::of(cases, |_, errors| figure(errors))
    }

    /// The same of a figure that depends on more of the case than its errors.
    pub(super) fn of(cases: &[&'a CheckedCase], figure: impl Fn(&CheckedCase, &Errors) -> (f64, f64)) -> Worst<'a> {
        let mut worst = Worst { value: f64::NAN, limit: f64::NAN, case: None };
        let excess = |value: f64, limit: f64| if value <= limit { value - limit } else { f64::MAX.min(value - limit) };
        for case in cases {
            let Some(errors) = &case.errors else { continue };
            let (value, limit) = figure(case, errors);
            // Maxima are over finite elements; an output that is not finite has no error worth a number.
            let value = if errors.nan + errors.inf > 0 { f64::INFINITY } else { value };
            let rank = if value.is_nan() { f64::INFINITY } else { excess(value, limit) };
            if worst.case.is_none() || rank > excess(worst.value, worst.limit) {
                worst = Worst { value, limit, case: Some(case) };
            }
            if value.is_nan() {
                break;
            }
        }
        worst
    }

    pub(super) fn gate(&self, draft: Draft) -> Gate {
        let place = self.case.map(|c| c.launch.problem.id()).unwrap_or_default();
        draft.at_most(&place, self.value, self.limit, Unit::One)
    }
}

fn judge_variant(suite: &Suite, builds: &Builds, checks: &Checks, variant: &str) -> Vec<Gate> {
    let draft = |id| Draft::new(variant, id);
    if let Some(deferral) = &checks.deferred {
        return vec![draft(GateId::ErrorsAgainstFloat64).deferred("DESIGN section 5", deferral.clone())];
    }
    let emulated = checks.device.as_deref() == Some(EMULATOR);
    let planned = if emulated { emulated_problems(suite) } else { problems(suite) };
    let cases: Vec<&CheckedCase> = checks.cases.iter().filter(|c| c.variant == variant).collect();
    let ran = |problem: &&Problem| cases.iter().any(|c| &&c.launch.problem == problem && c.errors.is_some());
    let missing: Vec<&Problem> = planned.iter().filter(|p| !ran(p)).collect();
    let failures: Vec<&CheckedCase> = cases.iter().copied().filter(|c| failed(c)).collect();
    let deferred: Vec<&CheckedCase> = cases.iter().copied().filter(|c| c.launch.deferred.is_some()).collect();
    let compared: Vec<String> = cases.iter().filter_map(|case| proportion::compared(suite, case)).collect();
    let every = draft(GateId::EveryCaseRan);
    let is_host_code = builds.get(variant, &suite.arch).is_some_and(|build| build.language.is_host_code());
    let mut gates = vec![launch_gate(&every, &planned, &missing, &failures, &deferred, &compared.concat())];
    if emulated {
        gates.push(not_emulated(&draft(GateId::SeenOnAGpu), suite));
        if !is_host_code {
            gates.push(findings_gate(draft(GateId::EmulatorChecks), &cases));
        }
    }
    gates.extend(replay_gate(draft(GateId::Deterministic), suite, variant, emulated, &cases));
    let has_output: Vec<&CheckedCase> = cases.iter().copied().filter(|c| c.errors.is_some()).collect();
    if has_output.is_empty() {
        return gates;
    }
    gates.push(finite_gate(draft(GateId::FiniteOutput), &has_output));
    let unordered = may_reorder(suite, builds, variant);
    gates.push(rule_gate(&draft(GateId::MemoryRules), &has_output, unordered));
    match &suite.operator {
        Operator::Attention => {
            let e4m3 = |name: &str| {
                let toggles = builds.get(name, &suite.arch).map(|b| &b.toggles);
                toggles.and_then(|toggles| toggles.get("p_format")) == Some(&P_FORMAT_E4M3)
            };
            gates.extend(error_gates(suite, variant, &has_output, e4m3(variant)));
            let is_like_control = variant != suite.control && e4m3(variant) == e4m3(&suite.control);
            let control = checks.cases.iter().filter(|c| c.variant == suite.control && is_like_control);
            let control = control.map(|case| (&case.launch.problem, case)).collect();
            gates.extend(proportion::gates(suite, variant, &has_output, e4m3(variant), &control));
        }
        Operator::Declared(operator) => {
            let control = checks.cases.iter().filter(|c| c.variant == suite.control && variant != suite.control);
            let control = control.map(|case| (case.launch.problem.id(), case)).collect();
            gates.extend(declared::error_gates(operator, variant, &has_output, &control));
            if !emulated && !checks.memory_apart && !is_host_code {
                gates.push(no_memory_checks(&draft(GateId::MemoryChecks)));
            }
        }
    }
    gates
}

/// A GPU hides races, uninitialised values and reads outside. Older runs of a gate file did not look for them.
fn no_memory_checks(draft: &Draft) -> Gate {
    let deferral = Deferral::new(
        "a run on a GPU does not look for races, uninitialised values and reads outside yet",
        "validate with --device emulator, or run compute-sanitizer",
    );
    draft.deferred("no finding", deferral)
}

/// No merge without silicon: what was emulated, however well, still waits for a GPU.
fn not_emulated(draft: &Draft, suite: &Suite) -> Gate {
    let allowed = suite.emulation.as_ref().map(|e| e.shapes.as_slice()).unwrap_or_default();
    let left: Vec<&str> =
        suite.check_shapes.iter().map(String::as_str).filter(|s| !allowed.iter().any(|a| a == s)).collect();
    let why = match left.as_slice() {
        [] => "emulated only".to_owned(),
        left => format!("emulated only, and not at all: {}", left.join(", ")),
    };
    draft.deferred("every shape of the suite", Deferral::new(why, "run on a machine with an NVIDIA GPU"))
}

fn finite_gate(draft: Draft, cases: &[&CheckedCase]) -> Gate {
    const RULE: &str = "no NaN, no Inf";
    let draft = draft.limited(Limit::at_most(0.0), Unit::One);
    let bad = cases.iter().find_map(|case| {
        let errors = case.errors.as_ref()?;
        (errors.nan + errors.inf > 0).then_some((case, errors))
    });
    match bad {
        None => draft.holds("", Reading::said(0.0, RULE), RULE, true),
        Some((case, errors)) => {
            let words = format!("{} NaN, {} Inf, first at {:?}", errors.nan, errors.inf, errors.worst_at);
            let count = (errors.nan + errors.inf) as f64;
            draft.holds(&case.launch.problem.id(), Reading::said(count, words), RULE, false)
        }
    }
}

/// Candidates that the suite wants replayed: every replay must leave the bytes of the first launch.
fn replay_gate(draft: Draft, suite: &Suite, variant: &str, emulated: bool, cases: &[&CheckedCase]) -> Option<Gate> {
    let limit = suite.replays.as_ref().filter(|_| suite.candidates.iter().any(|c| c.variant == variant))?;
    let draft = draft.limited(Limit::at_most(0.0), Unit::One);
    let threshold = format!("{} replays equal to the first launch, on each of {}", limit.count, limit.shapes.len());
    if emulated {
        let deferral = Deferral::new("emulated only", "run on a machine with an NVIDIA GPU");
        return Some(draft.deferred(&threshold, deferral));
    }
    let planned = problems(suite).into_iter().filter(|p| suite.replays_of(p).is_some());
    let mut replayed = 0;
    for problem in planned {
        let case = cases.iter().find(|c| c.launch.problem == problem);
        let Some(replays) = case.and_then(|c| c.launch.replays).filter(|r| r.count >= limit.count) else {
            return Some(draft.holds(&problem.id(), "not replayed that often", &threshold, false));
        };
        if replays.different > 0 {
            let words = format!("{} of {} replays differ", replays.different, replays.count);
            let reading = Reading::said(replays.different.into(), words);
            return Some(draft.holds(&problem.id(), reading, &threshold, false));
        }
        replayed += 1;
    }
    let reading = Reading::said(0.0, format!("all equal on {replayed} shapes"));
    Some(draft.holds("", reading, &threshold, replayed > 0))
}

fn error_gates(suite: &Suite, variant: &str, cases: &[&CheckedCase], e4m3: bool) -> Vec<Gate> {
    let draft = |id| Draft::new(variant, id);
    let limits: &CorrectnessLimits = &suite.correctness;
    let kernel_limit = if e4m3 { limits.kernel_max_e4m3 } else { limits.kernel_max_f16 };
    let (normal, stress): (Vec<_>, Vec<_>) =
        cases.iter().copied().partition(|c| c.launch.problem.distribution == Distribution::Normal);
    let mut gates = Vec::new();
    if !normal.is_empty() {
        gates.push(Worst::over(&normal, |e| (e.kernel_max, kernel_limit)).gate(draft(GateId::KernelErrorMax)));
    }
    // A row of few keys carries what quantising costs it, and the mean of P's rounding: no kernel can help that.
    let normal: Vec<_> = normal.into_iter().filter(|c| !suite.is_odd(&c.launch.problem.shape.name)).collect();
    if !normal.is_empty() {
        let end_to_end = |e: &Errors| (e.end_to_end_max, limits.bad_element.max(e.floor_max + limits.floor_allowance));
        if let Some(limit) = limits.kernel_mean {
            gates.push(Worst::over(&normal, |e| (e.kernel_mean, limit)).gate(draft(GateId::KernelErrorMean)));
        }
        // With a seed that nobody chose, quantising alone may cost more than the limit, and no kernel can undo that: it may
        // then add a share of the limit to it.
        let mean = |e: &Errors| {
            let floor = e.floor.map_or(0.0, |floor| floor.mean + FLOOR_MEAN * limits.end_to_end_mean);
            (e.end_to_end_mean, limits.end_to_end_mean.max(floor))
        };
        let share = |e: &Errors| {
            let floor = e.floor.map_or(0.0, |floor| floor.bad_share + FLOOR_SHARE * limits.bad_share);
            (e.bad_share, limits.bad_share.max(floor))
        };
        gates.push(Worst::over(&normal, mean).gate(draft(GateId::EndToEndMean)));
        gates.push(Worst::over(&normal, share).gate(draft(GateId::BadElements)));
        gates.push(Worst::over(&normal, end_to_end).gate(draft(GateId::EndToEndMax)));
    }
    if !stress.is_empty() {
        let relative = |e: &Errors| (e.kernel_max / e.reference_amax.max(1.0), kernel_limit);
        let is_absolute = |c: &CheckedCase| limits.stress_max.is_some() && !c.launch.problem.distribution.is_large();
        let (absolute, others): (Vec<_>, Vec<_>) = stress.iter().copied().partition(|c| is_absolute(c));
        if !others.is_empty() {
            gates.push(Worst::over(&others, relative).gate(draft(GateId::StressErrorRelative)));
        }
        if let Some(limit) = limits.stress_max.filter(|_| !absolute.is_empty()) {
            let share = limits.stress_of_floor.unwrap_or(0.0);
            let figure = |e: &Errors| (e.kernel_max, limit.max(share * e.floor_max));
            gates.push(Worst::over(&absolute, figure).gate(draft(GateId::StressErrorMax)));
        }
        let exact: Vec<_> = stress.iter().copied().filter(|c| c.launch.problem.distribution.is_exact()).collect();
        if !exact.is_empty() {
            let relative = |e: &Errors| (e.kernel_max / e.reference_amax.max(1.0), limits.exact_max);
            gates.push(Worst::over(&exact, relative).gate(draft(GateId::ExactError)));
        }
        let absolute: Vec<_> = absolute.into_iter().filter(|c| !suite.is_odd(&c.launch.problem.shape.name)).collect();
        if let Some(limit) = limits.kernel_mean.filter(|_| !absolute.is_empty()) {
            let share = limits.stress_mean_of_output.unwrap_or(0.0);
            let magnitude = |e: &Errors| e.proportion.as_ref().map_or(0.0, |p| p.magnitude);
            let figure = |e: &Errors| (e.kernel_mean, limit.max(share * magnitude(e)));
            gates.push(Worst::over(&absolute, figure).gate(draft(GateId::StressErrorMean)));
        }
    }
    if let Some(limit) = suite.max_difference(variant) {
        let figure = |e: &Errors| (e.from_control_max.unwrap_or(f64::NAN), limit);
        let worst = Worst { limit, ..Worst::over(&normal, figure) };
        gates.push(worst.gate(draft(GateId::DifferenceFromControl)));
    }
    gates
}

/// A correctness failure in words: which cases fail, and what usually causes that.
pub fn correctness_pattern(suite: &Suite, checks: &Checks, variant: &str) -> String {
    let failing = |case: &&CheckedCase| match &case.errors {
        None => true,
        Some(_) if !case.launch.findings.is_empty() => true,
        // Whatever the limits of its outputs are, an element that is not the reference's or a gap that was written is wrong.
        Some(errors) if !suite.operator.is_attention() => {
            let broken = |o: &OutputErrors| o.wrong > 0 || !o.gaps_intact;
            errors.outputs.iter().any(broken) || declared::is_over(suite, case) || !case.launch.repeat_equal
        }
        Some(errors) => {
            let limit = suite.correctness.kernel_max_e4m3.max(suite.correctness.kernel_max_f16);
            let scale = errors.reference_amax.max(1.0);
            let within = errors.nan + errors.inf == 0 && errors.kernel_max / scale <= limit;
            !within || !case.launch.repeat_equal
        }
    };
    let cases = checks.cases.iter().filter(|c| c.variant == variant && c.launch.deferred.is_none());
    let cases: Vec<&CheckedCase> = cases.collect();
    let (bad, good): (Vec<_>, Vec<_>) = cases.into_iter().partition(failing);
    if let Some(why) = bad.iter().find_map(|c| c.launch.failure.as_deref()) {
        return format!("launch error: {why}");
    }
    if bad.is_empty() {
        return match suite.operator.is_attention() {
            true => "small errors over the limit: rounding of P or of the accumulator".to_owned(),
            false => "close to a limit that follows from the control: say what may be lost in `errors`".to_owned(),
        };
    }
    fn problems<'a>(cases: &[&'a CheckedCase]) -> Vec<&'a Problem> {
        cases.iter().map(|case| &case.launch.problem).collect()
    }
    let pattern = suite.operator.failing_pattern(&problems(&bad), &problems(&good));
    pattern.unwrap_or_else(|| match good.is_empty() {
        true => "every case: what is computed, not where".to_owned(),
        false => {
            let names = |cases: &[&CheckedCase]| {
                let shapes: std::collections::BTreeSet<&str> =
                    cases.iter().map(|c| c.launch.problem.shape.name.as_str()).collect();
                shapes.into_iter().collect::<Vec<_>>().join(", ")
            };
            format!("cases of {} fail, of {} pass", names(&bad), names(&good))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Floor;
    use crate::gate::State;
    use crate::judge::testing;
    use crate::operator::attention::RAGGED_MASKED;

    fn break_case(shape: &str, break_it: impl Fn(&mut CheckedCase)) -> Checks {
        let mut checks = testing::evidence().checks;
        let hit = |c: &&mut CheckedCase| c.variant == "new" && c.launch.problem.shape.name == shape;
        checks.cases.iter_mut().filter(hit).for_each(break_it);
        checks
    }

    fn failed(checks: &Checks) -> Vec<String> {
        let gates = judge_checks(&testing::suite(), &testing::evidence().builds, checks);
        gates.into_iter().filter(|g| g.state == State::Fail).map(|g| format!("{} {}", g.variant, g.figure)).collect()
    }

    #[test]
    fn the_plan_counts_seeds_and_distributions() {
        assert_eq!(problems(&testing::suite()).len(), 3 * 2 + 8);
    }

    #[test]
    fn what_is_timed_is_checked_with_every_seed_and_nothing_twice() {
        let mut suite = testing::suite();
        let before = problems(&suite).len();
        suite.time_shapes = vec!["mission".into(), "small".into()];
        suite.time_distributions = vec![Distribution::Normal, Distribution::Outliers];
        suite.fresh_seed = Some(77);
        let all = problems(&suite);
        for shape in suite.time() {
            let timed = timed_problems(&suite, &shape);
            assert_eq!(timed.len(), 2 * 3);
            assert!(timed.iter().all(|problem| all.iter().filter(|p| *p == problem).count() == 1));
        }
        // A fresh seed on three shapes; on `mission` outliers, on `small` both, of which stress had one.
        assert_eq!(all.len(), before + 3 + 3 + 3 + 2);
        suite.emulation = Some(crate::suite::Emulation { shapes: suite.check_shapes.clone(), max_ctas: 8 });
        let emulated = emulated_problems(&suite);
        assert!(emulated.iter().all(|p| p.seed != 77) && emulated.len() == 3 * 2 + 1, "{emulated:?}");
    }

    #[test]
    fn what_quantising_costs_beyond_a_limit_is_not_the_kernels() {
        let with = |floor: Option<f64>, share: f64| {
            failed(&break_case("mission", |case| {
                let errors = case.errors.as_mut().unwrap();
                errors.floor = floor.map(|bad_share| Floor { mean: 0.009, bad_share });
                errors.bad_share = share;
            }))
        };
        assert_eq!(with(Some(0.015), 0.0185), [""; 0]);
        assert_eq!(with(Some(0.015), 0.0205), ["new share of bad elements"]);
        assert_eq!(with(Some(0.004), 0.0105), ["new share of bad elements"]);
        assert_eq!(with(None, 0.0105), ["new share of bad elements"]);
    }

    #[test]
    fn good_cases_pass_and_each_fault_is_named() {
        assert_eq!(failed(&testing::evidence().checks), [""; 0]);
        type Break = fn(&mut CheckedCase);
        let faults: &[(&str, Break)] = &[
            ("kernel error max", |c| c.errors.as_mut().unwrap().kernel_max = 0.011),
            ("kernel error max", |c| c.errors.as_mut().unwrap().kernel_max = f64::NAN),
            ("end-to-end mean", |c| c.errors.as_mut().unwrap().end_to_end_mean = 0.03),
            ("share of bad elements", |c| c.errors.as_mut().unwrap().bad_share = 0.02),
            ("end-to-end max", |c| c.errors.as_mut().unwrap().end_to_end_max = 0.11),
            ("memory rules", |c| c.launch.inputs_unchanged = false),
            ("memory rules", |c| c.launch.guards_intact = false),
            ("memory rules", |c| c.launch.repeat_equal = false),
            ("every case ran", |c| c.errors = None),
        ];
        for (figure, break_it) in faults {
            assert_eq!(failed(&break_case("mission", break_it)), [format!("new {figure}")]);
        }
    }

    #[test]
    fn an_error_that_rounding_may_make_elsewhere_fails_where_the_output_is_a_plain_mean() {
        let off_by_a_little = |hit: fn(&Problem) -> bool| {
            let mut checks = testing::evidence().checks;
            let cases = checks.cases.iter_mut().filter(|c| c.variant == "new" && hit(&c.launch.problem));
            cases.for_each(|c| c.errors.as_mut().unwrap().kernel_max = 0.009);
            failed(&checks)
        };
        assert_eq!(off_by_a_little(|p| !p.distribution.is_exact()), [""; 0]);
        let found = off_by_a_little(|p| p.distribution == Distribution::Permutation);
        assert_eq!(found, ["new kernel error max, relative, exact inputs"]);
    }

    #[test]
    fn the_mean_kernel_error_is_gated_where_a_suite_limits_it() {
        let mut suite = testing::suite();
        let checks = break_case("mission", |c| c.errors.as_mut().unwrap().kernel_mean = 0.004);
        let failed = |suite: &Suite| {
            let gates = judge_checks(suite, &testing::evidence().builds, &checks);
            gates.into_iter().filter(|g| g.state == State::Fail).map(|g| g.figure).collect::<Vec<_>>()
        };
        assert_eq!(failed(&suite), [""; 0]);
        suite.correctness.kernel_mean = Some(0.003);
        assert_eq!(failed(&suite), ["kernel error mean"]);
    }

    #[test]
    fn other_distributions_are_held_to_absolute_limits_where_a_suite_has_them() {
        let mut suite = testing::suite();
        let checks = break_case("small", |c| {
            let errors = c.errors.as_mut().unwrap();
            (errors.kernel_max, errors.kernel_mean, errors.reference_amax) = (0.07, 0.004, 40.0);
        });
        let failed = |suite: &Suite| {
            let gates = judge_checks(suite, &testing::evidence().builds, &checks);
            gates.into_iter().filter(|g| g.state == State::Fail).map(|g| g.figure).collect::<Vec<_>>()
        };
        assert_eq!(failed(&suite), [""; 0], "0.07 of 40");
        suite.correctness.stress_max = Some(0.06);
        assert_eq!(failed(&suite), ["kernel error max, other distributions"]);
        suite.correctness.kernel_mean = Some(0.003);
        assert_eq!(failed(&suite), ["kernel error max, other distributions", "kernel error mean, other distributions"]);
    }

    #[test]
    fn every_replay_must_leave_the_same_bytes() {
        let mut suite = testing::suite();
        let limit = crate::suite::ReplayLimit { count: 1000, shapes: vec!["mission".into(), "wide".into()] };
        suite.replays = Some(limit);
        let state = |checks: &Checks| {
            let gates = judge_checks(&suite, &testing::evidence().builds, checks);
            let own: Vec<_> = gates.iter().filter(|g| g.figure == "deterministic").collect();
            assert_eq!((own.len(), own[0].variant.as_str()), (1, "new"), "of candidates alone");
            own[0].state.word().to_owned()
        };
        let replayed = |count, different| {
            let mut checks = testing::evidence().checks;
            let replays = Some(crate::evidence::Replays { count, different });
            checks.cases.iter_mut().for_each(|c| c.launch.replays = replays);
            checks
        };
        assert_eq!(state(&testing::evidence().checks), "FAIL", "nothing was replayed");
        assert_eq!(state(&replayed(999, 0)), "FAIL");
        assert_eq!(state(&replayed(1000, 1)), "FAIL");
        assert_eq!(state(&replayed(1000, 0)), "PASS");
        let mut partly = replayed(1000, 0);
        partly.cases.retain(|c| c.launch.problem.shape.name != "wide");
        assert_eq!(state(&partly), "FAIL");
        let emulated = Checks { device: Some(EMULATOR.into()), ..replayed(1000, 0) };
        assert_eq!(state(&emulated), "DEFERRED");
    }

    #[test]
    fn a_large_shape_is_checked_with_the_first_seed_alone() {
        let mut suite = testing::suite();
        suite.large = Some(crate::suite::LargeShapes { shapes: vec!["wide".into()], reference_rows: 64, rounds: 8 });
        assert_eq!(problems(&suite).len(), 2 * 2 + 1 + 8);
        assert_eq!((suite.rounds_on("wide"), suite.rounds_on("mission")), (8, 16));
    }

    #[test]
    fn one_element_that_is_not_finite_fails_every_error_gate_too() {
        for spoil in [|e: &mut Errors| e.nan = 1, |e: &mut Errors| e.inf = 1] {
            let failed = failed(&break_case("mission", |c| spoil(c.errors.as_mut().unwrap())));
            let figures =
                ["finite output", "kernel error max", "end-to-end mean", "share of bad elements", "end-to-end max"];
            assert_eq!(failed, figures.map(|f| format!("new {f}")));
        }
    }

    #[test]
    fn a_case_that_was_not_run_fails() {
        let mut checks = testing::evidence().checks;
        checks.cases.pop();
        assert_eq!(failed(&checks), ["new every case ran"]);
        checks.cases.clear();
        assert_eq!(failed(&checks), ["old every case ran", "new every case ran"]);
    }

    #[test]
    fn e4m3_probabilities_have_their_own_limit() {
        let mut builds = testing::evidence().builds;
        builds.records[1].toggles.insert("p_format".into(), P_FORMAT_E4M3);
        let checks = break_case("mission", |c| c.errors.as_mut().unwrap().kernel_max = 0.05);
        let gates = judge_checks(&testing::suite(), &builds, &checks);
        assert!(gates.iter().all(|g| g.state == State::Pass), "{gates:#?}");
    }

    #[test]
    fn difference_from_control_is_gated_for_candidates_only() {
        let mut suite = testing::suite();
        suite.max_difference_from_control = Some(0.0);
        let first = break_case("mission", |c| c.errors.as_mut().unwrap().from_control_max = Some(1e-4));
        let gates = judge_checks(&suite, &testing::evidence().builds, &first);
        assert!(
            gates.iter().any(|g| g.state == State::Fail && g.place.contains("mission")),
            "the first case counts too"
        );
        let checks = break_case("wide", |c| c.errors.as_mut().unwrap().from_control_max = Some(1e-4));
        let gates = judge_checks(&suite, &testing::evidence().builds, &checks);
        let failed: Vec<_> = gates.iter().filter(|g| g.state == State::Fail).collect();
        assert!(matches!(failed.as_slice(), [g] if g.figure == "difference from control" && g.place.contains("wide")));
    }

    #[test]
    fn a_candidate_may_have_a_limit_of_its_own() {
        let mut suite = testing::suite();
        suite.max_difference_from_control = Some(1.0);
        let checks = break_case("wide", |c| c.errors.as_mut().unwrap().from_control_max = Some(1e-4));
        let failed = |suite: &Suite| {
            let gates = judge_checks(suite, &testing::evidence().builds, &checks);
            gates.iter().filter(|g| g.state == State::Fail).count()
        };
        assert_eq!(failed(&suite), 0);
        suite.candidates[0].max_difference_from_control = Some(0.0);
        assert_eq!(failed(&suite), 1);
    }

    #[test]
    fn emulated_cases_are_judged_on_their_shapes_and_the_rest_waits() {
        let mut suite = testing::suite();
        let shapes = ["mission", RAGGED_MASKED, "small"].map(str::to_owned).to_vec();
        suite.emulation = Some(crate::suite::Emulation { shapes, max_ctas: 8 });
        let mut checks = testing::evidence().checks;
        checks.device = Some(EMULATOR.to_owned());
        checks.cases.retain(|c| c.launch.problem.shape.name != "wide");
        let judged = |checks: &Checks| judge_checks(&suite, &testing::evidence().builds, checks);
        let states = |gates: &[Gate], figure: &str| {
            gates.iter().filter(|g| g.figure == figure).map(|g| g.state.word()).collect::<Vec<_>>()
        };
        let gates = judged(&checks);
        assert_eq!(states(&gates, "every case ran"), ["PASS"; 2]);
        assert_eq!(states(&gates, "emulator's checks"), ["PASS"; 2]);
        assert_eq!(states(&gates, "seen on a GPU"), ["DEFERRED"; 2]);
        checks.cases[0].launch.findings.push("ERROR race (write after read) on shared sK\n  more".into());
        assert_eq!(states(&judged(&checks), "emulator's checks"), ["FAIL", "PASS"]);
        checks.cases.pop();
        assert_eq!(states(&judged(&checks), "every case ran"), ["PASS", "FAIL"]);
    }

    #[test]
    fn deferral_carries_reason_and_remedy() {
        let checks = Checks { deferred: Some(Deferral::new("no GPU", "run on one")), ..Checks::default() };
        let gates = judge_checks(&testing::suite(), &testing::evidence().builds, &checks);
        assert_eq!(gates.len(), 2);
        assert_eq!(gates[0].state.to_string(), "DEFERRED (no GPU; run on one)");
    }

    #[test]
    fn patterns_name_the_likely_cause() {
        let nan = |c: &mut CheckedCase| c.errors.as_mut().unwrap().nan = 7;
        let say = |shape| correctness_pattern(&testing::suite(), &break_case(shape, nan), "new");
        assert!(say("wide").starts_with("only D=128"));
        assert!(say(RAGGED_MASKED).starts_with("only ragged"));
        assert!(say("small").starts_with("only unusual inputs"));
        assert!(say("mission").starts_with("most shapes"));
    }
}
