//! Gates on errors in proportion to the output: limits that are the same on a shape of thirty keys and of eight thousand,
//! where the output is a tenth as large. Leaves to others: limits in absolute terms (`correctness`), measuring.

use std::collections::BTreeMap;

use crate::evidence::{CheckedCase, Errors, Proportion};
use crate::gate::{Draft, Gate, GateId};
use crate::operator::Problem;
use crate::suite::{ProportionLimits, Suite};

use super::correctness::Worst;

/// Root mean square of what rounding to a half, or to e4m3, takes of a value, relative to it.
const ROUNDING_F16: f64 = 1.0 / 4096.0;
const ROUNDING_E4M3: f64 = 0.0265;

/// A row that was not written is off by 1 or more in some block: all that is asked where inputs magnify what two ways of
/// quantising them lose.
const LESS_THAN_A_ROW: f64 = 0.95;

/// How far the mean over rows may be from what it is of endlessly many, in standard deviations: each row rounds its own P.
const DEVIATIONS: f64 = 4.0;

/// The gates of a variant, where the suite has limits. `control` has the cases that it may be compared with: none for the
/// control, and where P has another format.
pub fn gates(
    suite: &Suite,
    variant: &str,
    cases: &[&CheckedCase],
    e4m3: bool,
    control: &BTreeMap<&Problem, &CheckedCase>,
) -> Vec<Gate> {
    let Some(limits) = &suite.correctness.proportion else { return Vec::new() };
    let draft = |id| Draft::new(variant, id);
    let usual: Vec<_> = cases.iter().copied().filter(|c| c.launch.problem.distribution.has_usual_scores()).collect();
    let mut gates = Vec::new();
    if !usual.is_empty() {
        gates.push(Worst::of(&usual, |_, e| slope(e, limits, e4m3)).gate(draft(GateId::Slope)));
        let row_limit = if e4m3 { limits.row_e4m3 } else { limits.row_f16 };
        let row = |e: &Errors| (figure(e, |p| p.row_rms), row_limit);
        gates.push(Worst::of(&usual, |_, e| row(e)).gate(draft(GateId::RowError)));
    }
    let compared: Vec<_> = usual.iter().copied().filter(|c| control.contains_key(&c.launch.problem)).collect();
    if !compared.is_empty() {
        let mean = |case: &CheckedCase, errors: &Errors| {
            let of_control = control.get(&case.launch.problem).and_then(|c| c.errors.as_ref());
            // Where the control is right to the last bit, an output that is rounded once more is no worse.
            let rounding = figure(errors, |p| p.magnitude) * ROUNDING_F16;
            (errors.kernel_mean, (limits.times_control * of_control.map_or(0.0, |e| e.kernel_mean)).max(rounding))
        };
        gates.push(Worst::of(&compared, mean).gate(draft(GateId::MeanOverControl)));
    }
    let sampled: Vec<_> = cases.iter().copied().filter(is_sampled).collect();
    if !sampled.is_empty() {
        let block = |case: &CheckedCase, e: &Errors| {
            let usual = case.launch.problem.distribution.has_usual_scores();
            let limit = if usual { limits.block } else { limits.block.max(LESS_THAN_A_ROW) };
            (e.whole.as_ref().map_or(f64::NAN, |whole| whole.block_rms), limit)
        };
        gates.push(Worst::of(&sampled, block).gate(draft(GateId::WholeOutput)));
    }
    gates
}

/// What of a large output was compared, for the gate that counts cases.
pub fn compared(suite: &Suite, case: &CheckedCase) -> Option<String> {
    let errors = case.errors.as_ref()?;
    let (rows, whole) = (errors.sampled_rows.as_ref()?, errors.whole.as_ref()?);
    let all = suite.operator.rows(&case.launch.problem.shape)?;
    let name = &case.launch.problem.shape.name;
    Some(format!("; of {name} {} of {all} rows, and {} elements beside the control's", rows.len(), whole.elements))
}

fn is_sampled(case: &&CheckedCase) -> bool {
    case.errors.as_ref().is_some_and(|errors| errors.sampled_rows.is_some())
}

/// A figure that was not measured, where the suite limits it, passes nothing.
fn figure(errors: &Errors, of: impl Fn(&Proportion) -> f64) -> f64 {
    errors.proportion.as_ref().map_or(f64::NAN, of)
}

/// The slope, and what it may be: of few rows, chance has a part in it.
fn slope(errors: &Errors, limits: &ProportionLimits, e4m3: bool) -> (f64, f64) {
    let (limit, rounding) = if e4m3 { (limits.slope_e4m3, ROUNDING_E4M3) } else { (limits.slope_f16, ROUNDING_F16) };
    let chance = DEVIATIONS * rounding / figure(errors, |p| p.rows as f64).max(1.0).sqrt();
    (figure(errors, |p| p.slope), limit + chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Checks, WholeOutput};
    use crate::gate::State;
    use crate::judge::{judge_checks, testing};
    use crate::operator::Distribution;

    fn suite() -> Suite {
        let mut suite = testing::suite();
        suite.correctness.proportion = Some(ProportionLimits::default());
        suite
    }

    fn failed(suite: &Suite, checks: &Checks) -> Vec<String> {
        let gates = judge_checks(suite, &testing::evidence().builds, checks);
        let failed = gates.into_iter().filter(|g| g.state == State::Fail && g.variant == "new");
        failed.map(|g| format!("{} at {}", g.figure, g.place)).collect()
    }

    fn with(shape: &str, change: impl Fn(&mut Errors)) -> Checks {
        let mut checks = testing::evidence().checks;
        let cases = checks.cases.iter_mut().filter(|c| c.variant == "new");
        let cases = cases.filter(|c| c.launch.problem.shape.name == shape && c.launch.problem.seed == 1);
        cases.for_each(|c| change(c.errors.as_mut().unwrap()));
        checks
    }

    fn proportion(errors: &mut Errors) -> &mut Proportion {
        errors.proportion.as_mut().unwrap()
    }

    #[test]
    fn what_an_absolute_limit_lets_pass_fails_in_proportion() {
        assert_eq!(failed(&suite(), &testing::evidence().checks), [""; 0]);
        let gain = with("wide", |e| (proportion(e).rows, proportion(e).slope) = (1 << 15, 0.03));
        assert_eq!(failed(&suite(), &gain), ["gain or loss at wide.seed1.normal"]);
        assert_eq!(failed(&testing::suite(), &gain), [""; 0], "a suite of before");
        let bias = with("wide", |e| proportion(e).row_rms = 0.14);
        assert_eq!(failed(&suite(), &bias), ["relative error of a row at wide.seed1.normal"]);
        let mean = with("wide", |e| e.kernel_mean = 0.0005);
        assert_eq!(failed(&suite(), &mean), ["mean error over the control's at wide.seed1.normal"]);
        for spoil in [|p: &mut Proportion| p.slope = f64::NAN, |p: &mut Proportion| p.row_rms = f64::NAN] {
            assert_eq!(failed(&suite(), &with("wide", |e| spoil(proportion(e)))).len(), 1);
        }
        let unmeasured = failed(&suite(), &with("wide", |e| e.proportion = None));
        assert_eq!(unmeasured.len(), 2, "{unmeasured:?}");
    }

    #[test]
    fn few_rows_leave_more_to_chance_than_many() {
        let slope = |rows, slope| {
            let errors = with("wide", |e| (proportion(e).rows, proportion(e).slope) = (rows, slope));
            failed(&suite(), &errors).len()
        };
        assert_eq!([slope(1, 0.0029), slope(1, 0.003), slope(1 << 20, 0.0021), slope(1 << 20, 0.0019)], [0, 1, 1, 0]);
    }

    #[test]
    fn another_format_of_p_is_held_to_its_own_rounding_and_not_to_the_controls() {
        let mut builds = testing::evidence().builds;
        builds.records[1].toggles.insert("p_format".into(), 1);
        let failed = |checks: &Checks| {
            let gates = judge_checks(&suite(), &builds, checks);
            gates.into_iter().filter(|g| g.state == State::Fail).map(|g| g.figure).collect::<Vec<_>>()
        };
        let rounded = with("wide", |e| (proportion(e).row_rms, e.kernel_mean) = (0.03, 0.001));
        assert_eq!(failed(&rounded), [""; 0]);
        let gain = with("wide", |e| (proportion(e).rows, proportion(e).slope) = (1 << 20, 0.006));
        assert_eq!(failed(&gain), ["gain or loss"]);
    }

    #[test]
    fn of_a_large_shape_all_is_compared_with_the_control_and_what_was_is_said() {
        let whole = |block_rms| Some(WholeOutput { elements: 4096, block_rms, worst_at: vec![] });
        let sampled = |block_rms: Option<f64>| {
            let mut checks = testing::evidence().checks;
            for case in checks.cases.iter_mut().filter(|c| c.launch.problem.shape.name == "wide") {
                let errors = case.errors.as_mut().unwrap();
                errors.sampled_rows = Some(vec![[0, 0], [3, 7]]);
                errors.whole = block_rms.and_then(whole);
            }
            checks
        };
        let at = "whole output beside the control's at wide.seed0.normal";
        assert_eq!(failed(&suite(), &sampled(Some(0.1))), [""; 0]);
        assert_eq!(failed(&suite(), &sampled(Some(1.0))), [at]);
        assert_eq!(failed(&suite(), &sampled(Some(f64::NAN))), [at]);
        assert_eq!(failed(&suite(), &sampled(None)), [at], "nobody looked");
        let gates = judge_checks(&suite(), &testing::evidence().builds, &sampled(Some(0.1)));
        let counted = gates.iter().find(|g| g.id == GateId::EveryCaseRan).unwrap();
        assert!(counted.measured.contains("; of wide 2 of 32768 rows, and 4096 elements"), "{}", counted.measured);
    }

    #[test]
    fn inputs_that_magnify_what_scores_lose_are_not_held_to_it() {
        let mut checks = testing::evidence().checks;
        let unusual = |c: &&mut CheckedCase| !c.launch.problem.distribution.has_usual_scores();
        checks.cases.iter_mut().filter(unusual).for_each(|c| proportion(c.errors.as_mut().unwrap()).row_rms = 0.5);
        assert!(checks.cases.iter().any(|c| c.launch.problem.distribution == Distribution::Large));
        assert_eq!(failed(&suite(), &checks), [""; 0]);
    }
}
