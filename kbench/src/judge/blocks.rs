//! Whether timed blocks can be what a run of the suite left: each once, of somebody and something that the suite times, in
//! numbers that a clock can give. Everything that is judged afterwards may take that for granted. Leaves to others: what
//! the times say (`performance`), and whether outputs were right while they were taken (`timing`).

use std::collections::{HashMap, HashSet};

use crate::evidence::{Block, Mode, Outer, Samples};
use crate::gate::{Draft, Gate, GateId};
use crate::setting::Setting;
use crate::subject::{Arm, Subject};
use crate::suite::Suite;

/// Faults that are listed; the rest are counted.
const LISTED: usize = 3;

/// One gate of each variant that was built. A fault of the run is everybody's: nobody can be compared in it.
pub(super) fn block_gates<'a>(suite: &Suite, samples: &Samples, variants: impl Iterator<Item = &'a str>) -> Vec<Gate> {
    if samples.blocks.is_empty() {
        return Vec::new();
    }
    let faults = faults(suite, samples);
    // Runs of one sitting had no such gate: there it speaks only where something is wrong.
    if faults.is_empty() && suite.timing.is_of_one_sitting() {
        return Vec::new();
    }
    const RULE: &str = "blocks that one run of the suite can leave";
    let measured = match faults.len() {
        0 => "yes".to_owned(),
        many if many > LISTED => format!("{}; and {} more", faults[..LISTED].join("; "), many - LISTED),
        _ => faults.join("; "),
    };
    variants
        .map(|variant| {
            Draft::new(variant, GateId::ConsistentBlocks).holds("", measured.as_str(), RULE, faults.is_empty())
        })
        .collect()
}

/// Everything about the blocks that no run of the suite leaves, each with its block.
pub fn faults(suite: &Suite, samples: &Samples) -> Vec<String> {
    let mut faults: Vec<String> = samples.blocks.iter().filter_map(|block| fault_of(suite, block)).collect();
    let mut seen = HashSet::new();
    let mut sitting_of = HashMap::new();
    for block in &samples.blocks {
        let round = (Setting::of(block), block.round);
        if !seen.insert((round, &block.subject)) {
            faults.push(format!("{} was recorded twice", name(block)));
        }
        // Rounds are numbered on through the sittings, whatever the timer is.
        let (shape, distribution) = (block.shape.as_str(), block.distribution);
        let sitting = *sitting_of.entry((shape, distribution, block.cache, block.round)).or_insert(block.sitting);
        if sitting != block.sitting {
            faults.push(format!("{} is of sitting {}, others of its round of {sitting}", name(block), block.sitting));
        }
    }
    faults
}

/// What is wrong with one block by itself.
fn fault_of(suite: &Suite, block: &Block) -> Option<String> {
    let whom = |who: &str| suite.variant_names().any(|v| v == who);
    let known = match block.subject.arm {
        Arm::Plain => block.subject.is_peer() || whom(&block.subject.who),
        Arm::Again => block.subject == Subject::again(&suite.control),
        Arm::FromOriginals => whom(&block.subject.who),
    };
    let timing = &suite.timing;
    let why = if !suite.time_shapes.contains(&block.shape) {
        "is of a shape that is not timed"
    } else if !suite.time_distributions.contains(&block.distribution) {
        "is of a distribution that is not timed"
    } else if !known {
        "is of nobody whom the suite times"
    } else if !block.cache.is_hot() && block.mode != Mode::Call {
        "has a cold L2 in a graph of launches, which warm it"
    } else if block.us.is_empty() {
        "holds no time"
    } else if !block.us.iter().all(|us| us.is_finite() && *us > 0.0) {
        "holds a time that no clock gives"
    } else if block.us.len() > launches_at_most(suite, block) as usize {
        "holds more times than it has launches"
    } else if block.round >= rounds_at_most(suite, &block.shape) {
        "is of a round after the last"
    } else if timing.is_of_one_sitting() && block.sitting != 0 {
        "is of a second sitting, where the suite has one"
    } else {
        return None;
    };
    Some(format!("{} {why}", name(block)))
}

/// A block that another process times is as long as its two clocks need.
fn launches_at_most(suite: &Suite, block: &Block) -> u32 {
    let of_another = |outer: Outer| outer.launches.min(Outer::MOST_LAUNCHES);
    block.outer.map_or(suite.timing.launches, of_another)
}

fn rounds_at_most(suite: &Suite, shape: &str) -> u32 {
    let each = suite.rounds_of_sitting(shape).saturating_mul(suite.timing.sittings.max(1));
    suite.looks(shape).saturating_mul(each).max(suite.timing.max_rounds)
}

fn name(block: &Block) -> String {
    let setting = Setting::of(block);
    format!("the block of {} in round {} of {} ({})", block.subject, block.round, setting.place(), setting.timer())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Cache;
    use crate::gate::State;
    use crate::judge::testing;
    use crate::operator::Distribution;

    #[test]
    fn every_fault_is_named_with_its_block() {
        type Break = fn(&mut Vec<Block>);
        const LONG: Outer = Outer { wall_us: 1e6, beside_us: 0.0, launches: 42 };
        let cases: [(&str, Break); 18] = [
            ("was recorded twice", |b| b.push(b[95].clone())),
            ("was recorded twice", |b| b[95].round = 14),
            ("is of sitting 3, others of its round of 15", |b| b[95].sitting = 3),
            ("of long (call time) is of a shape that is not timed", |b| b[95].shape = "long".into()),
            ("outliers (call time) is of a distribution", |b| b[95].distribution = Distribution::Outliers),
            ("block of old#aa in round 15", |b| b.push(b[94].clone())),
            ("is of nobody whom the suite times", |b| b[95].subject = Subject::plain("ghost")),
            ("is of nobody whom the suite times", |b| b[95].subject = Subject::again("new")),
            ("is of nobody whom the suite times", |b| b[95].subject = Subject::from_originals("ghost")),
            ("has a cold L2 in a graph", |b| b[92].cache = Cache::Cold),
            ("holds no time", |b| b[95].us.clear()),
            ("a time that no clock gives", |b| b[95].us[2] = 0.0),
            ("a time that no clock gives", |b| b[95].us[2] = f64::NAN),
            ("a time that no clock gives", |b| b[95].us[2] = f64::INFINITY),
            ("more times than it has launches", |b| b[95].us = vec![80.0; 21]),
            ("more times than it has launches", |b| (b[95].us, b[95].outer) = (vec![80.0; 43], Some(LONG))),
            ("more times than it has launches", |b| {
                (b[95].us, b[95].outer) = (vec![80.0; 201], Some(Outer { launches: 201, ..LONG }));
            }),
            ("is of a round after the last", |b| b[95].round = 48),
        ];
        let suite = testing::suite();
        for (expected, break_it) in cases {
            let mut samples = testing::samples(100.0, 80.0);
            break_it(&mut samples.blocks);
            let faults = faults(&suite, &samples);
            assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:?}");
            let gates = block_gates(&suite, &samples, suite.variant_names());
            assert!(gates.len() == 2 && gates.iter().all(|gate| gate.state == State::Fail), "{gates:?}");
        }
        assert_eq!(faults(&suite, &testing::samples(100.0, 80.0)), [""; 0]);
        // What times itself has as many launches in a block as its second clock needs.
        let mut samples = testing::samples(100.0, 80.0);
        (samples.blocks[95].us, samples.blocks[95].outer) = (vec![80.0; 42], Some(LONG));
        assert_eq!(faults(&suite, &samples), [""; 0]);
    }

    #[test]
    fn a_run_of_one_sitting_has_the_gate_only_where_something_is_wrong() {
        let mut suite = testing::suite();
        suite.timing.sittings = 1;
        let mut samples = testing::samples(100.0, 80.0);
        assert_eq!(block_gates(&suite, &samples, suite.variant_names()).len(), 2, "it has sittings");
        samples.blocks.iter_mut().for_each(|b| b.sitting = 0);
        assert_eq!(block_gates(&suite, &samples, suite.variant_names()), []);
        samples.blocks.iter_mut().for_each(|b| b.us.clear());
        let gates = block_gates(&suite, &samples, suite.variant_names());
        assert!(gates[0].measured.contains("; and 93 more"), "{}", gates[0].measured);
    }
}
