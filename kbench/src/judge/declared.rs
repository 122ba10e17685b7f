//! Gates on the errors of an operator that a gate file declares: integers and bools exactly, floats within what is declared,
//! else within a bound that follows from the type and no more than half again the control's. Leaves to others: measuring.

use std::collections::BTreeMap;

use crate::evidence::{CheckedCase, OutputErrors};
use crate::gate::{Draft, Gate, GateId, Unit};
use crate::operator::declared::{Declared, ErrorLimits, Limits, TIMES_CONTROL, USUAL_SLOPE};
use crate::suite::Suite;

/// The figures by which a candidate is held to the control where nothing is declared.
const AGAINST_CONTROL: [&str; 2] = ["max", "relative_rms"];

/// What part of the bound for everybody is put down to the order of sums, whoever's it is.
const ROUNDING_SHARE: f64 = 4.0;

/// How far a mean may be from what it is of endlessly many, in standard deviations.
const DEVIATIONS: f64 = 4.0;

/// The worst value of one figure over cases: the one that is furthest beyond its limit, or closest to it.
struct Worst<'a> {
    value: f64,
    limit: f64,
    place: &'a CheckedCase,
}

/// Error gates of a variant. `control` has the cases of the control by problem; it is the variant itself for the control.
pub fn error_gates(
    operator: &Declared,
    variant: &str,
    cases: &[&CheckedCase],
    control: &BTreeMap<String, &CheckedCase>,
) -> Vec<Gate> {
    if operator.check.is_some() {
        return figure_gates(operator, variant, cases);
    }
    let outputs = operator.outputs.keys();
    outputs.flat_map(|output| output_gates(operator, variant, output, cases, control)).collect()
}

/// Whether some output of a case is beyond what the file or the type allows; the control is not asked.
pub fn is_over(suite: &Suite, case: &CheckedCase) -> bool {
    let (Some(operator), Some(errors)) = (suite.declared(), &case.errors) else { return false };
    let within = |value: f64, limit: f64| value <= limit;
    let figures = operator.errors.iter().filter(|_| operator.check.is_some());
    let checked = figures
        .into_iter()
        .any(|(figure, limit)| !within(errors.figures.get(figure).copied().unwrap_or(f64::NAN), *limit));
    checked
        || errors.outputs.iter().any(|output| match limits_of(operator, &output.output, case) {
            Some(Limits::Declared(limits)) => limits.given().any(|(name, limit)| !within(output.figure(name), limit)),
            Some(Limits::Default { bound, .. }) => !within(relative_to_amax(output), bound),
            Some(Limits::Exact) | None => false,
        })
}

/// What a checker says of the outputs.
fn figure_gates(operator: &Declared, variant: &str, cases: &[&CheckedCase]) -> Vec<Gate> {
    let gate = |(figure, limit): (&str, &f64)| {
        let value = |case: &CheckedCase| case.errors.as_ref()?.figures.get(figure).copied();
        let worst = worst(cases, |case| Some((value(case).unwrap_or(f64::NAN), *limit)))?;
        Some(draft(variant, GateId::CheckFigure, figure, &worst))
    };
    operator.errors.iter().filter_map(gate).collect()
}

fn output_gates(
    operator: &Declared,
    variant: &str,
    output: &str,
    cases: &[&CheckedCase],
    control: &BTreeMap<String, &CheckedCase>,
) -> Vec<Gate> {
    let mut gates = Vec::new();
    let wrong = worst(cases, |case| Some((errors_of(case, output)?.wrong as f64, 0.0)));
    if let Some(worst) = &wrong {
        gates.push(draft(variant, GateId::OutputWrong, output, worst));
    }
    let limits = |case: &CheckedCase| limits_of(operator, output, case);
    let declared = |case: &CheckedCase| match limits(case)? {
        Limits::Declared(limits) => Some(limits),
        Limits::Exact | Limits::Default { .. } => None,
    };
    for name in figures(cases.iter().filter_map(|case| declared(case))) {
        let pair = |case: &CheckedCase| {
            let (_, limit) = declared(case)?.given().find(|(given, _)| *given == name)?;
            Some((figure(errors_of(case, output)?, name), limit))
        };
        if let Some(worst) = worst(cases, pair) {
            gates.push(draft(variant, GateId::OutputError, &format!("{output} {name}"), &worst));
        }
    }
    // Runs of before did not measure it.
    let is_measured = cases.iter().filter_map(|case| errors_of(case, output)).any(|errors| errors.slope.is_some());
    let slope = |case: &CheckedCase| match limits(case)? {
        Limits::Exact => None,
        Limits::Declared(limits) if limits.slope.is_some() => None,
        Limits::Declared(_) | Limits::Default { .. } => {
            let errors = errors_of(case, output)?;
            Some((figure(errors, "slope"), USUAL_SLOPE + chance(operator, case, errors)))
        }
    };
    if let Some(worst) = worst(cases, slope).filter(|_| is_measured) {
        gates.push(draft(variant, GateId::OutputSlope, output, &worst));
    }
    let bounded = |case: &CheckedCase| match limits(case)? {
        Limits::Default { bound, .. } => Some((relative_to_amax(errors_of(case, output)?), bound)),
        Limits::Exact | Limits::Declared(_) => None,
    };
    if let Some(worst) = worst(cases, bounded) {
        gates.push(draft(variant, GateId::OutputBound, output, &worst));
    }
    for name in AGAINST_CONTROL {
        let pair = |case: &CheckedCase| {
            let Limits::Default { ulp, bound, .. } = limits(case)? else { return None };
            let own = errors_of(case, output)?;
            let of_control = errors_of(control.get(&case.launch.problem.id())?, output)?;
            // Two right kernels that sum in another order differ by rounding alone, and one of them may have been lucky.
            let rounding = ulp.max(bound / ROUNDING_SHARE);
            let rounding = if name == "max" { rounding * own.reference_amax } else { rounding };
            Some((figure(own, name), (TIMES_CONTROL * of_control.figure(name)).max(rounding)))
        };
        if let Some(worst) = worst(cases, pair) {
            gates.push(draft(variant, GateId::ErrorOverControl, &format!("{output} {name}"), &worst));
        }
    }
    gates
}

/// What part chance may have in a slope: errors of one row may go together, those of many rows cancel. So a reference that is
/// near zero, beside its errors, is held to nothing.
fn chance(operator: &Declared, case: &CheckedCase, errors: &OutputErrors) -> f64 {
    let tensors = operator.tensors(&case.launch.problem.shape.axes).unwrap_or_default();
    let shape = tensors.iter().find(|tensor| tensor.name == errors.output).map(|tensor| &tensor.layout.shape);
    let row = shape.and_then(|shape| shape.last().filter(|_| shape.len() > 1)).copied().unwrap_or(1);
    let rows = (errors.elements / row.max(1)).max(1);
    DEVIATIONS * figure(errors, "relative_rms") / (rows as f64).sqrt()
}

fn errors_of<'a>(case: &'a CheckedCase, output: &str) -> Option<&'a OutputErrors> {
    case.errors.as_ref()?.outputs.iter().find(|errors| errors.output == output)
}

fn limits_of(operator: &Declared, output: &str, case: &CheckedCase) -> Option<Limits> {
    let limits = operator.limits(&case.launch.problem.shape.axes).ok()?;
    limits.into_iter().find(|(name, _)| *name == output).map(|(_, limits)| limits)
}

/// One figure of an output. It is taken over elements that are finite, so that an output with others has none.
fn figure(errors: &OutputErrors, name: &str) -> f64 {
    if errors.wrong > 0 { f64::INFINITY } else { errors.figure(name) }
}

/// Largest |error| over the largest |reference|; an error where the reference is all zero is beyond every bound.
fn relative_to_amax(errors: &OutputErrors) -> f64 {
    match (figure(errors, "max"), errors.reference_amax) {
        (max, amax) if amax > 0.0 => max / amax,
        (0.0, _) => 0.0,
        _ => f64::INFINITY,
    }
}

fn figures(limits: impl Iterator<Item = ErrorLimits>) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for limits in limits {
        for (name, _) in limits.given() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// What is not comparable is worse than anything; cases that a gate does not ask about give nothing.
fn worst<'a>(cases: &[&'a CheckedCase], pair: impl Fn(&'a CheckedCase) -> Option<(f64, f64)>) -> Option<Worst<'a>> {
    let rank = |(value, limit): (f64, f64)| if value <= limit { value - limit } else { f64::MAX.min(value - limit) };
    let rank = |pair: (f64, f64)| if pair.0.is_nan() { f64::INFINITY } else { rank(pair) };
    // Evidence is JSON, which has no infinity; the largest number there is stands for it.
    let told = |(value, limit): (f64, f64)| (if value == f64::MAX { f64::INFINITY } else { value }, limit);
    let ranked = cases.iter().filter_map(|case| Some((told(pair(case)?), *case)));
    let ((value, limit), place) = ranked.max_by(|a, b| rank(a.0).total_cmp(&rank(b.0)))?;
    Some(Worst { value, limit, place })
}

fn draft(variant: &str, id: GateId, of: &str, worst: &Worst) -> Gate {
    let problem = worst.place.launch.problem.id();
    Draft::new(variant, id).against(of).at_most(&problem, worst.value, worst.limit, Unit::One)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::State;
    use crate::judge::testing;

    const FILE: &str = r#"
name = "t"
control = "old"
candidates = ["new"]
[operator]
axes = ["n"]
reference = "r.py"
inputs.x = { shape = ["n"], dtype = "f32" }
outputs.y = { shape = ["n"], dtype = "f16" ERRORS }
outputs.i = { shape = ["n"], dtype = "i32" }
[shapes]
a = { n = 64 }
b = { n = 77 }
"#;

    fn operator(errors: &str) -> Declared {
        let suite: Suite = toml::from_str(&FILE.replace(" ERRORS", errors)).unwrap();
        let crate::operator::Operator::Declared(declared) = suite.operator else { panic!("it is declared") };
        *declared
    }

    fn output(name: &str, max: f64) -> OutputErrors {
        OutputErrors {
            output: name.into(),
            elements: 64,
            wrong: 0,
            worst_at: vec![3],
            max,
            mean: max / 10.0,
            relative: max,
            relative_rms: max / 5.0,
            slope: Some(max / 100.0),
            row_relative: max,
            reference_amax: 1.0,
            gaps_intact: true,
        }
    }

    fn case(shape: &str, max: f64) -> CheckedCase {
        let mut case = testing::evidence().checks.cases[0].clone();
        case.launch.problem.shape = crate::operator::Shape { name: shape.into(), axes: [("n".to_owned(), 64)].into() };
        case.errors.as_mut().unwrap().outputs = vec![output("y", max), output("i", 0.0)];
        case
    }

    fn failed(operator: &Declared, own: &[CheckedCase], control: &[CheckedCase]) -> Vec<String> {
        let control = control.iter().map(|case| (case.launch.problem.id(), case)).collect();
        let own: Vec<&CheckedCase> = own.iter().collect();
        let gates = error_gates(operator, "new", &own, &control);
        assert!(gates.iter().all(|gate| !gate.place.is_empty()));
        gates.into_iter().filter(|g| g.state == State::Fail).map(|g| format!("{} at {}", g.figure, g.place)).collect()
    }

    #[test]
    fn declared_limits_hold_for_the_worst_case_and_nan_never_passes() {
        let operator = operator(", errors = { max = 1e-3, mean = 5e-5 }");
        let cases = |max| [case("a", 1e-5), case("b", max)];
        assert_eq!(failed(&operator, &cases(4e-4), &[]), [""; 0]);
        assert_eq!(failed(&operator, &cases(6e-4), &[]), ["y mean error at b.seed0.normal"]);
        assert_eq!(failed(&operator, &cases(f64::NAN), &[]).len(), 3);
        let mut wrong = cases(1e-5);
        wrong[0].errors.as_mut().unwrap().outputs[1].wrong = 1;
        assert_eq!(failed(&operator, &wrong, &[]), ["elements of i unlike the reference's at a.seed0.normal"]);
    }

    #[test]
    fn without_limits_there_is_a_bound_for_everybody_and_the_control_for_a_candidate() {
        let operator = operator("");
        let control = [case("a", 2e-4)];
        assert_eq!(failed(&operator, &[case("a", 2.9e-4)], &control), [""; 0]);
        let twice = failed(&operator, &[case("a", 2e-3)], &[case("a", 5e-4)]);
        assert!(twice.iter().any(|line| line.starts_with("y max error over the control's")), "{twice:?}");
        let beyond = failed(&operator, &[case("a", 0.5)], &[case("a", 0.5)]);
        assert_eq!(beyond, ["y error over the output's magnitude at a.seed0.normal"]);
    }

    #[test]
    fn an_output_with_elements_that_are_not_finite_has_no_error_worth_a_number() {
        let spoilt = || {
            let mut case = case("a", 0.0);
            case.errors.as_mut().unwrap().outputs[0].wrong = 1;
            [case]
        };
        let declared = failed(&operator(", errors = { max = 1e-3, mean = 5e-5 }"), &spoilt(), &[]);
        let figures = ["elements of y unlike the reference's", "y max error", "y mean error"];
        assert_eq!(declared, figures.map(|figure| format!("{figure} at a.seed0.normal")));
        let bound = failed(&operator(""), &spoilt(), &[case("a", 1e-4)]);
        assert!(bound.iter().any(|line| line.starts_with("y error over the output's magnitude")), "{bound:?}");
        assert!(bound.iter().any(|line| line.starts_with("y max error over the control's")), "{bound:?}");
    }

    #[test]
    fn a_gain_that_every_limit_lets_pass_fails_and_chance_does_not() {
        let gains = |errors: &str, slope: Option<f64>, rms: f64| {
            let mut case = case("a", 1e-5);
            let output = &mut case.errors.as_mut().unwrap().outputs[0];
            (output.slope, output.relative_rms) = (slope, rms);
            failed(&operator(errors), &[case], &[])
        };
        let declared = ", errors = { max = 1e-3 }";
        assert_eq!(gains(declared, Some(0.006), 1e-4), ["y gain or loss at a.seed0.normal"]);
        assert_eq!(gains(declared, Some(f64::NAN), 1e-4), ["y gain or loss at a.seed0.normal"]);
        assert_eq!(gains(declared, Some(0.02), 0.05), [""; 0], "64 elements that are off by 5 %");
        assert_eq!(gains(declared, None, 1e-4), [""; 0], "a run of before");
        assert_eq!(gains(", errors = { max = 1e-3, slope = 0.1 }", Some(0.02), 1e-4), [""; 0]);
        assert_eq!(gains(", errors = { slope = 0.01 }", Some(0.02), 1e-4), ["y slope error at a.seed0.normal"]);
        assert_eq!(gains("", Some(0.03), 1e-4), ["y gain or loss at a.seed0.normal"]);
    }

    #[test]
    fn under_one_ulp_nobody_is_held_to_the_control() {
        let operator = operator("");
        assert_eq!(failed(&operator, &[case("a", 4e-4)], &[case("a", 0.0)]), [""; 0]);
    }

    #[test]
    fn a_checkers_figures_have_limits_and_one_that_is_missing_fails() {
        let text = FILE.replace("reference = \"r.py\"", "check = \"c.py\"\nerrors = { unsorted = 0, lost = 0 }");
        let suite: Suite = toml::from_str(&text.replace(" ERRORS", "")).unwrap();
        let crate::operator::Operator::Declared(operator) = suite.operator else { panic!("it is declared") };
        let with = |figures: &[(&str, f64)]| {
            let mut case = case("a", 0.0);
            let figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            case.errors.as_mut().unwrap().figures = figures;
            failed(&operator, &[case], &[])
        };
        assert_eq!(with(&[("unsorted", 0.0), ("lost", 0.0)]), [""; 0]);
        assert_eq!(with(&[("unsorted", 1.0), ("lost", 0.0)]), ["unsorted by check at a.seed0.normal"]);
        assert_eq!(with(&[("unsorted", 0.0)]), ["lost by check at a.seed0.normal"]);
    }
}
