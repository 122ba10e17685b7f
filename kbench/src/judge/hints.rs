//! The gate on cache hints. Launches are timed with a hot L2: a kernel that asks for its data to stay there would be fast in
//! a benchmark and nowhere else. Such hints are not forbidden; the kernel must keep its margin with a cold L2 too.
//! Leaves to others: finding hints in PTX, and flushing.

use std::collections::BTreeMap;

use super::pairs::Timed;
use crate::deferral::Deferral;
use crate::evidence::{Builds, Samples};
use crate::gate::{Draft, Gate, GateId, Reading, State, significant};
use crate::setting::Setting;
use crate::subject::Subject;
use crate::suite::Suite;

const RULE: &str = "none keeps data in the L2, or the margin holds with a cold one";

/// The gate of every candidate whose PTX has such hints.
pub fn judge_hints(suite: &Suite, builds: &Builds, samples: &Samples) -> Vec<Gate> {
    let candidates = suite.candidates.iter().map(|candidate| candidate.variant.as_str());
    candidates.filter_map(|variant| gate(suite, builds, samples, variant)).collect()
}

/// Whether a hint may keep data in the L2 after the launch: a policy may be a number that nothing in the text explains.
fn may_stay(hint: &str) -> bool {
    ["evict_last", "cache_hint", "createpolicy.cvt", "createpolicy.range"].iter().any(|word| hint.contains(word))
}

fn gate(suite: &Suite, builds: &Builds, samples: &Samples, variant: &str) -> Option<Gate> {
    let mut hints: BTreeMap<&str, u32> = BTreeMap::new();
    for (hint, count) in builds.records.iter().filter(|b| b.variant == variant).flat_map(|b| &b.cache_hints) {
        let most = hints.entry(hint).or_default();
        *most = (*most).max(*count);
    }
    if hints.is_empty() {
        return None;
    }
    let draft = Draft::new(variant, GateId::CacheHints);
    let named = hints.iter().map(|(hint, count)| format!("{hint} ({count} times)")).collect::<Vec<_>>().join(", ");
    if !hints.keys().any(|hint| may_stay(hint)) {
        return Some(draft.holds("", named, RULE, true));
    }
    let (state, place, more) = cold(suite, samples, variant, &named);
    Some(draft.with_state(&place, Reading::from(named).and(&more), RULE, state))
}

/// What cold blocks say of the suite's margins: the worst state, where, and how much.
fn cold(suite: &Suite, samples: &Samples, variant: &str, named: &str) -> (State, String, String) {
    let unknown = || {
        let why = format!(
            "it may keep data in the L2 from launch to launch by {named}, and with a cold one it was not timed enough"
        );
        State::Deferred(Deferral::new(why, "leave the hints out, or time it in more rounds with a cold L2"))
    };
    let timed = Timed::of(suite, samples.blocks.iter());
    let mut least: Option<(f64, String, String)> = None;
    let limits = suite.performance.iter().filter(|limit| limit.holds_for(variant));
    for (limit, drawn) in limits.flat_map(|limit| suite.time_distributions.iter().map(move |drawn| (limit, *drawn))) {
        let other = Subject::plain(limit.against.as_deref().unwrap_or(&suite.control));
        let setting = Setting::cold(&limit.shape, drawn);
        let Some(ratio) = timed.reported(&setting, [&Subject::plain(variant), &other]) else {
            return (unknown(), setting.place(), String::new());
        };
        let [low, high] = [ratio.high, ratio.low].map(|ratio| 1.0 - ratio);
        let [shown_low, shown_high] = [low, high].map(|share| significant(100.0 * share));
        let said = format!("; {shown_low}% to {shown_high}% less with a cold L2");
        if high < limit.min_latency_reduction || !high.is_finite() {
            return (State::Fail, setting.place(), said);
        }
        let slack = low - limit.min_latency_reduction;
        if least.as_ref().is_none_or(|(least, ..)| slack < *least) {
            least = Some((slack, setting.place(), said));
        }
    }
    match least {
        None => (unknown(), String::new(), String::new()),
        Some((slack, place, said)) if slack >= 0.0 => (State::Pass, place, said),
        Some((_, place, said)) => {
            let why = "with a cold L2 the interval straddles the margin".to_owned();
            (State::Inconclusive { why }, place, said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Block, Cache, Mode};
    use crate::judge::testing;

    /// The state with these hints, and with cold blocks where a time of the candidate's is given.
    fn state(hints: &[&str], cold_us: Option<f64>) -> Option<State> {
        let mut evidence = testing::evidence();
        evidence.builds.records[1].cache_hints = hints.iter().map(|hint| ((*hint).to_owned(), 2)).collect();
        if let Some(us) = cold_us {
            let calls = testing::samples(100.0, us).blocks.into_iter().filter(|block| block.mode == Mode::Call);
            evidence.samples.blocks.extend(calls.map(|block| Block { cache: Cache::Cold, ..block }));
        }
        let gates = judge_hints(&testing::suite(), &evidence.builds, &evidence.samples);
        assert!(gates.iter().all(|gate| gate.variant == "new" && gate.measured.contains(hints[0])));
        gates.into_iter().next().map(|gate| gate.state)
    }

    #[test]
    fn without_hints_there_is_no_gate_and_harmless_ones_are_named() {
        assert_eq!(state(&[], None), None);
        let harmless = ["createpolicy.fractional.L2::evict_first.b64", "prefetch.global.L2", "ld L2::evict_normal"];
        assert_eq!(state(&harmless, None), Some(State::Pass));
    }

    #[test]
    fn what_may_stay_in_the_l2_is_judged_with_a_cold_one() {
        let pinning = [
            "createpolicy.fractional.L2::evict_last.b64",
            "ld L2::evict_last",
            "prefetch.global.L2::evict_last",
            "ld L2::cache_hint",
        ];
        for hint in pinning {
            assert!(matches!(state(&[hint], None), Some(State::Deferred(_))), "{hint}");
            assert_eq!(state(&[hint], Some(80.0)), Some(State::Pass), "{hint}");
            assert_eq!(state(&[hint], Some(99.0)), Some(State::Fail), "{hint}");
            assert_eq!(state(&[hint], Some(f64::NAN)).map(|state| state == State::Pass), Some(false), "{hint}");
        }
    }
}
