//! Host code times itself, in a process that is its own. Whatever it says, the judge's clock ran meanwhile: what its samples
//! leave of that unexplained may be work that it did not time. Much of it fails; with less of it a gate on time passes only
//! if it passes with all of that counted as the candidate's. Leaves to others: the gates themselves.

use std::collections::BTreeMap;

use crate::deferral::Deferral;
use crate::evidence::{Block, Mode, Samples};
use crate::gate::{Draft, Gate, GateId, Limit, Reading, State, Unit, significant};
use crate::setting::Setting;
use stats::median;

/// What the question, the answer and the first launch may take of a block, in microseconds.
const BESIDE_US: f64 = 2_000.0;
/// What the loop around a call that is timed by itself may take.
const BESIDE_CALL_US: f64 = 60.0;
/// What clocks may differ by.
const BESIDE_SHARE: f64 = 0.1;
/// Blocks that may be beyond it: a machine has other work now and then.
const BEYOND_SHARE: f64 = 0.25;

/// No gate where the judge itself timed.
pub(super) fn own_clock_gate(variant: &str, own: &[&Block]) -> Option<Gate> {
    const RULE: &str = "at most 2 ms and a tenth of a block unexplained";
    let draft = Draft::new(variant, GateId::OwnClock).limited(Limit::at_most(BEYOND_SHARE), Unit::One);
    // What of a block is unexplained, in microseconds, and whether it is within the rule.
    let mut settings: BTreeMap<Setting, Vec<(f64, bool)>> = BTreeMap::new();
    for block in own {
        let Some(outer) = block.outer else { continue };
        let calls = if block.mode == Mode::Call { f64::from(outer.launches) * BESIDE_CALL_US } else { 0.0 };
        let left = outer.unexplained_us(&block.us);
        let is_within = left <= BESIDE_SHARE * outer.said_us(&block.us) + BESIDE_US + calls;
        settings.entry(Setting::of(block)).or_default().push((left, is_within));
    }
    let worst = settings.into_iter().map(|(setting, blocks)| {
        let beyond = blocks.iter().filter(|(_, is_within)| !is_within).count() as f64 / blocks.len() as f64;
        let left: Vec<f64> = blocks.iter().map(|(left, _)| *left).collect();
        (beyond, median(&left).unwrap_or(f64::NAN), setting)
    });
    let (beyond, left, setting) = worst.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)))?;
    let words = match beyond <= BEYOND_SHARE {
        true => format!("{} ms of a block unexplained", significant(left / 1000.0)),
        false => format!("{} ms of a block, and the times that it gives do not hold them", significant(left / 1000.0)),
    };
    Some(draft.holds(&setting.name(), Reading::said(beyond, words), RULE, beyond <= BEYOND_SHARE))
}

/// The samples with a variant's times as long as the judge's clock allows; nothing where it did not time itself.
pub(super) fn at_longest(samples: &Samples, variant: &str) -> Option<Samples> {
    let is_own = |block: &Block| block.subject.who == variant && block.outer.is_some();
    if !samples.blocks.iter().any(is_own) {
        return None;
    }
    let mut longest = samples.clone();
    for block in longest.blocks.iter_mut().filter(|block| is_own(block)) {
        let Some(outer) = block.outer else { continue };
        let share = outer.unexplained_us(&block.us) / outer.said_us(&block.us);
        block.us.iter_mut().for_each(|us| *us *= 1.0 + share.max(0.0));
    }
    Some(longest)
}

/// A gate on times that a process gave by itself. It passes only as it does `at_longest`.
pub(super) fn bounded(mut gate: Gate, at_longest: &Gate) -> Gate {
    if gate.state == State::Pass && at_longest.state != State::Pass {
        let measured = if at_longest.measured.is_empty() { "too little to say" } else { &at_longest.measured };
        let why = format!(
            "by the times that its own process gives it is {}, by the runner's clock {measured}",
            gate.measured
        );
        let remedy = "give its kernels as .cu, .ptx or Triton, or a larger shape";
        gate.state = State::Deferred(Deferral::new(why, remedy));
    }
    gate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Outer, Peers};
    use crate::judge::{judge_samples, testing};

    /// Gates of a candidate that times itself, of whose blocks `outer` gives the judge's time of twenty launches.
    fn judged(us: f64, outer: impl Fn(&Block, f64) -> f64) -> Vec<Gate> {
        let mut samples = testing::samples(100.0, us);
        for block in samples.blocks.iter_mut().filter(|b| b.subject.is_plain("new")) {
            let nothing = Outer { wall_us: 0.0, beside_us: 150.0, launches: 20 };
            block.outer = Some(Outer { wall_us: 150.0 + outer(block, nothing.said_us(&block.us)), ..nothing });
        }
        judge_samples(&testing::suite(), &testing::evidence().builds, &samples, &Peers::default())
    }

    fn own_clock(outer: impl Fn(&Block, f64) -> f64) -> Gate {
        let mut own = judged(80.0, outer).into_iter().filter(|g| g.id == GateId::OwnClock);
        let gate = own.next().expect("who times itself has the gate");
        assert!(gate.variant == "new" && own.next().is_none(), "and nobody else has it");
        gate
    }

    #[test]
    fn a_process_that_times_itself_may_leave_little_of_the_judges_clock_unexplained() {
        let state = |outer: &dyn Fn(&Block, f64) -> f64| own_clock(outer).state;
        assert_eq!(state(&|_, said| said + 1_900.0), State::Pass);
        assert_eq!(state(&|_, said| said + 3_600.0), State::Fail);
        assert_eq!(state(&|_, _| f64::NAN), State::Fail);
        // Now and then a machine has other work; more often is no accident, and the timer that is worse is named.
        assert_eq!(state(&|block, said| said + if block.round < 4 { 90_000.0 } else { 1.0 }), State::Pass);
        let gate =
            own_clock(|block, said| said + if block.mode == Mode::Call && block.round < 5 { 9e4 } else { 100.0 });
        assert_eq!((gate.state, gate.place.as_str()), (State::Fail, "mission, call time"));
        let gate = own_clock(|_, said| 10.0 * said);
        assert_eq!(gate.measured, "14.39 ms of a block, and the times that it gives do not hold them");
    }

    #[test]
    fn a_gate_on_time_passes_only_with_what_is_unexplained_counted_as_the_candidates() {
        let state = |us, outer: &dyn Fn(&Block, f64) -> f64| {
            judged(us, outer).into_iter().find(|g| g.id == GateId::LatencyReduction).unwrap().state
        };
        assert_eq!(state(80.0, &|_, said| said), State::Pass);
        assert_eq!(state(80.0, &|_, said| 0.9 * said), State::Pass, "a clock that runs less explains no less");
        assert_eq!(state(80.0, &|_, said| 1.05 * said), State::Pass, "14 % less time and 10 % are asked");
        let State::Deferred(why) = state(80.0, &|_, said| 1.15 * said) else {
            panic!("8 % less time, if it is all its own")
        };
        assert!(why.why.contains("by the times that its own process gives it is 20.0%"), "{why}");
        assert!(why.why.contains("by the runner's clock 8.0%"), "{why}");
        assert_eq!(state(97.0, &|_, said| 1.15 * said), State::Fail, "too slow is too slow by either");
    }
}
