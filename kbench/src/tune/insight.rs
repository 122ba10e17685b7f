//! What the evaluations say about single toggles: the effect of each value on the time, the others held equal as far as
//! the samples allow. It ranks children, and it is what a proposer is told.

use serde::{Deserialize, Serialize};

use super::record::{Evaluation, Outcome};
use super::space::{Dimension, Toggles};

/// Effects are pulled towards zero as if this many more evaluations had shown none.
const SHRINKAGE: f64 = 1.0;
/// Rounds of fitting one dimension after the other; the changes are far below a percent by then.
const PASSES: usize = 12;
/// What a rejected configuration counts as, over the slowest that was timed: not worth another look.
const REJECTED_FACTOR: f64 = 1.2;

/// What one value of a toggle does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The toggle.
    pub toggle: String,
    /// The value.
    pub value: u32,
    /// Natural logarithm of the factor that it puts on the time over the control's; below zero is faster.
    pub log_time: f64,
    /// Evaluations that speak of it.
    pub evaluations: usize,
}

/// Main effects on the logarithm of the score, by backfitting with shrinkage. Empty without a timed evaluation.
pub fn effects(dimensions: &[Dimension], evaluations: &[&Evaluation]) -> Vec<Effect> {
    let slowest = evaluations.iter().filter_map(|e| e.score()).fold(0.0, f64::max);
    let mut rows: Vec<(&Toggles, f64)> = evaluations
        .iter()
        .filter_map(|e| match e.outcome {
            Outcome::Rejected { .. } if slowest > 0.0 => Some((&e.toggles, (slowest * REJECTED_FACTOR).ln())),
            _ => Some((&e.toggles, e.score()?.ln())),
        })
        .collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let mean = rows.iter().map(|(_, y)| y).sum::<f64>() / rows.len() as f64;
    rows.iter_mut().for_each(|(_, y)| *y -= mean);
    let values = dimensions.iter().flat_map(|d| d.values.iter().map(move |v| (&d.name, *v)));
    let mut effects: Vec<Effect> = values
        .map(|(name, value)| Effect {
            toggle: name.clone(),
            value,
            log_time: 0.0,
            evaluations: rows.iter().filter(|(t, _)| t.get(name) == Some(&value)).count(),
        })
        .collect();
    for _ in 0..PASSES {
        for i in 0..effects.len() {
            let Effect { toggle, value, log_time, evaluations } = effects[i].clone();
            let own = rows.iter().filter(|(t, _)| t.get(&toggle) == Some(&value));
            let residual: f64 = own.map(|(t, y)| y - predicted(&effects, t) + log_time).sum();
            effects[i].log_time = residual / (evaluations as f64 + SHRINKAGE);
        }
    }
    effects
}

/// The sum of the effects of a configuration's values.
pub(super) fn predicted(effects: &[Effect], toggles: &Toggles) -> f64 {
    effects.iter().filter(|e| toggles.get(&e.toggle) == Some(&e.value)).map(|e| e.log_time).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::properties::{evaluation, timed};
    use crate::tune::space::tests::space;

    #[test]
    fn the_effect_of_a_toggle_is_found_beside_a_larger_one() {
        let space = space();
        let time = |t: &Toggles| (if t["tile"] == 64 { 0.6 } else { 1.2 }) * (if t["exp"] == 1 { 0.9 } else { 1.0 });
        let all: Vec<Evaluation> =
            space.valid().iter().step_by(3).map(|t| evaluation(&space, t, timed(time(t)))).collect();
        let found = effects(space.dimensions(), &all.iter().collect::<Vec<_>>());
        let of = |toggle: &str, value| found.iter().find(|e| e.toggle == toggle && e.value == value).unwrap().log_time;
        assert!((of("tile", 64) - of("tile", 32) - 0.5f64.ln()).abs() < 0.1);
        assert!((of("exp", 1) - of("exp", 0) - 0.9f64.ln()).abs() < 0.05);
        assert!((of("stages", 2) - of("stages", 4)).abs() < 0.03);
    }

    #[test]
    fn rejections_count_against_their_toggles_and_alone_they_say_nothing() {
        let space = space();
        let rejected = || Outcome::Rejected { stage: "resources".into(), reason: "spills".into() };
        let outcome = |t: &Toggles| if t["tile"] == 128 { rejected() } else { timed(0.8) };
        let all: Vec<Evaluation> = space.valid().iter().map(|t| evaluation(&space, t, outcome(t))).collect();
        let found = effects(space.dimensions(), &all.iter().collect::<Vec<_>>());
        let of = |value| found.iter().find(|e| e.toggle == "tile" && e.value == value).unwrap().log_time;
        assert!(of(128) > of(32) + 0.1);
        let only = evaluation(&space, &space.valid()[0], rejected());
        assert_eq!(effects(space.dimensions(), &[&only]), []);
    }
}
