//! Whether what was timed allows a verdict on an interval: how often intervals may be wrong, and how quiet the run must
//! have been. Leaves to others: what each gate on time asks (`performance`, `peers`).

use super::pairs::{Few, Timed};
use crate::deferral::Deferral;
use crate::evidence::{Mode, Samples};
use crate::gate::{Draft, Gate, State, significant};
use crate::setting::Setting;
use crate::subject::Subject;
use crate::suite::Suite;
use stats::Interval;

/// How often anything may be wrong about one candidate, or about the quiet of one setting.
const ERROR: f64 = 0.05;
/// Blocks dropped for throttling leave a selected rest; beyond this share there is no verdict.
const MAX_DROPPED_SHARE: f64 = 0.25;
/// More peers than there are: how many are timed is known after the run, and its level must be known before.
const PEERS: usize = 8;
/// The control may differ from itself by this share of the margin that a gate asks for, or by this much where that is less.
const SHARE_OF_MARGIN: f64 = 0.2;
const LEAST_DIFFERENCE: f64 = 0.01;
/// The same in runs of one sitting: the widest interval of the control against itself where the margin is smaller.
const LEAST_NOISE_LIMIT: f64 = 0.02;

/// What was timed of a suite.
pub(super) struct Bench<'a> {
    pub suite: &'a Suite,
    pub samples: &'a Samples,
    pub timed: Timed<'a>,
}

/// What noise could spoil.
#[derive(Clone, Copy, Debug)]
pub(super) enum Margin {
    /// What a gate asks for, as a share.
    Asked(f64),
    /// How far the interval is from a bound, as a share of it: noise of that size would not move it to the other side.
    Left(f64),
}

impl<'a> Bench<'a> {
    /// Everything that was timed.
    pub fn of(suite: &'a Suite, samples: &'a Samples) -> Bench<'a> {
        Bench { suite, samples, timed: Timed::of(suite, samples.blocks.iter()) }
    }

    /// What was timed on one shape.
    pub fn on(suite: &'a Suite, samples: &'a Samples, shape: &str) -> Bench<'a> {
        Bench { suite, samples, timed: Timed::of(suite, samples.blocks.iter().filter(|b| b.shape == shape)) }
    }

    /// How often the interval of one gate of a candidate may miss the truth: rounds are added while a gate is open, so it is
    /// looked at more than once, and a candidate that has many gates to pass has one rate of error. In runs of one sitting
    /// every gate had the whole rate.
    pub fn error(&self, variant: &str, shape: &str) -> f64 {
        let looks = f64::from(self.suite.looks(shape));
        match self.suite.timing.is_of_one_sitting() {
            true => ERROR / looks,
            false => ERROR / looks / intervals(self.suite, variant) as f64,
        }
    }

    /// One subject over another for a gate of `variant`.
    pub fn ratio<'s>(&'s self, setting: &Setting<'s>, of: [&Subject; 2], variant: &str) -> Result<Interval, Few> {
        self.timed.ratio(setting, of, self.error(variant, setting.shape))
    }

    /// The same, where the run was quiet enough for what hangs on it; else why there is no verdict. The noise of a run is
    /// that of the control against itself, whatever is compared.
    pub fn settled<'s>(
        &'s self,
        setting: &Setting<'s>,
        of: [&Subject; 2],
        variant: &str,
        margin: impl FnOnce(Interval) -> Margin,
    ) -> Result<Interval, String> {
        let control = Subject::plain(&self.suite.control);
        let again = Subject::again(&self.suite.control);
        for subject in of.into_iter().chain([&control, &again]) {
            let (dropped, all) = self.timed.dropped(setting, subject);
            if dropped as f64 / all.max(1) as f64 > MAX_DROPPED_SHARE {
                return Err(format!("{dropped} of {all} blocks of {subject} were dropped: clock held down"));
            }
        }
        let ratio = self.ratio(setting, of, variant).map_err(|few| few.to_string())?;
        // Not divided by gates: each needs its own quiet, and is wrong only where both are.
        let error = ERROR / f64::from(self.suite.looks(setting.shape));
        let aa = self.timed.ratio(setting, [&again, &control], error);
        let aa = aa.map_err(|_| "the control was not measured against itself".to_owned())?;
        let noise = match self.suite.timing.is_of_one_sitting() {
            true => excludes_one_or_wide(aa, margin(ratio)),
            false => not_equivalent(aa, margin(ratio)),
        };
        noise.map_or(Ok(ratio), Err)
    }

    /// The deferral of a gate in a setting that was not timed here.
    pub fn not_timed(&self, draft: &Draft, threshold: &str, setting: &Setting) -> Option<Gate> {
        if let Some(deferral) = &self.samples.deferred {
            return Some(draft.deferred(threshold, deferral.clone()));
        }
        let suite = self.suite;
        if !suite.time_shapes.iter().any(|s| s == setting.shape) {
            return Some(draft.deferred(threshold, Deferral::new("the shape was left out", "run the whole suite")));
        }
        let mut both = [draft.variant(), &suite.control].into_iter();
        if let Some(why) = both.find_map(|who| not_captured(self.samples, who, setting)) {
            return Some(draft.deferred(threshold, why));
        }
        let failed = |s: &Subject| s.is_plain(draft.variant());
        let failure = self.samples.failures.iter().find(|f| f.shape == setting.shape && failed(&f.subject))?;
        Some(draft.deferred(threshold, Deferral::new(&failure.why, "see the gate `timed on every shape`")))
    }
}

/// Why host code has no time in a setting, where that is kernel time and no graph could be made.
pub(super) fn not_captured(samples: &Samples, who: &str, setting: &Setting) -> Option<Deferral> {
    let shape = setting.shape;
    let why = samples.not_captured(who, shape).filter(|_| setting.mode == Mode::Kernel)?;
    let why = format!("there is no CUDA graph of `{who}` on {shape}, and so no kernel time: {why}");
    Some(Deferral::new(why, "leave out what waits for the device or changes streams"))
}

/// How many intervals the gates of a candidate rest on, by the suite alone: the level must not depend on what was measured.
fn intervals(suite: &Suite, variant: &str) -> usize {
    let distributions = suite.time_distributions.len();
    let reductions = suite.performance.iter().filter(|limit| limit.holds_for(variant)).count();
    let of_peers = |limit: &crate::suite::PeerLimit| PEERS * suite.time_shapes.len() + limit.from_originals.len();
    let peers = suite.peers.as_ref().map_or(0, of_peers);
    // By both timers, and with a cold L2.
    let slowdowns = suite.regressions.map_or(0, |_| 3 * suite.time_shapes.len());
    (distributions * (reductions + suite.absolute.len() + peers + slowdowns)).max(1)
}

/// A control whose interval against itself is not within what noise may be cannot tell a candidate from it. That the interval
/// holds 1 is not asked: one of many misses it in an honest run.
fn not_equivalent(aa: Interval, margin: Margin) -> Option<String> {
    let most = match margin {
        Margin::Asked(margin) => SHARE_OF_MARGIN * margin,
        Margin::Left(distance) => distance / 2.0,
    };
    let most = 1.0 + most.max(LEAST_DIFFERENCE);
    let within = aa.low >= 1.0 / most && aa.high <= most;
    let [low, high, least, most] = [aa.low, aa.high, 1.0 / most, most].map(significant);
    (!within).then(|| format!("control against itself is [{low}, {high}], not within [{least}, {most}]"))
}

/// The rule of runs of one sitting.
fn excludes_one_or_wide(aa: Interval, margin: Margin) -> Option<String> {
    let (Margin::Asked(margin) | Margin::Left(margin)) = margin;
    let margin = margin.max(LEAST_NOISE_LIMIT);
    let (low, high) = (significant(aa.low), significant(aa.high));
    if !aa.contains(1.0) {
        Some(format!("control against itself is [{low}, {high}], which excludes 1"))
    } else if aa.width() > margin {
        Some(format!("control against itself is [{low}, {high}], wider than the margin {margin}"))
    } else {
        None
    }
}

/// How far an interval is from a bound that it does not hold, as a share of the bound.
pub(super) fn distance(interval: Interval, bound: f64) -> f64 {
    f64::max(bound - interval.high, interval.low - bound) / bound
}

/// Which side of `bound` the whole interval is on; smaller is better.
pub(super) fn side_of(ratio: Interval, bound: f64) -> State {
    if ratio.high <= bound {
        State::Pass
    } else if ratio.low > bound {
        State::Fail
    } else {
        State::Inconclusive { why: "the interval straddles the threshold".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;
    use crate::suite::{PeerLimit, Regressions};

    #[test]
    fn the_rate_of_error_is_one_candidates_however_many_gates_it_has() {
        let mut suite = testing::suite();
        let error = |suite: &Suite| Bench::of(suite, &Samples::default()).error("new", "mission");
        assert_eq!(error(&suite), ERROR / 3.0, "one gate, looked at three times");
        suite.regressions = Some(Regressions { max_slowdown: 0.05 });
        suite.time_shapes.push("wide".into());
        assert_eq!(error(&suite), ERROR / 3.0 / 7.0, "and six that it is not slower");
        suite.time_distributions.push(crate::operator::Distribution::Outliers);
        assert_eq!(error(&suite), ERROR / 3.0 / 14.0, "in two distributions");
        let from_originals = vec!["mission".into()];
        let (baseline, also) = ("torch/default".into(), vec![]);
        suite.peers =
            Some(PeerLimit { max_ratio: 1.0, from_originals, baseline, also, no_worse_than: None, accuracy: None });
        assert_eq!(error(&suite), ERROR / 3.0 / (14.0 + 34.0), "and peers");
        suite.timing.sittings = 1;
        assert_eq!(error(&suite), ERROR / 3.0, "as it was in one sitting");
    }

    #[test]
    fn the_control_must_be_itself_to_a_share_of_what_hangs_on_it() {
        let aa = |low, high| Interval { estimate: 1.0, low, high };
        assert_eq!(not_equivalent(aa(1.001, 1.004), Margin::Asked(0.1)), None, "it need not hold 1");
        for wrong in [aa(0.99, 1.021), aa(0.979, 1.01), aa(f64::NAN, 1.0), aa(1.0, f64::NAN)] {
            assert!(not_equivalent(wrong, Margin::Asked(0.1)).is_some(), "{wrong:?}");
        }
        assert!(not_equivalent(aa(0.995, 1.011), Margin::Asked(0.0)).is_some());
        assert_eq!(not_equivalent(aa(0.96, 1.04), Margin::Left(0.09)), None);
        assert!(not_equivalent(aa(0.96, 1.04), Margin::Left(f64::NAN)).is_some());
    }
}
