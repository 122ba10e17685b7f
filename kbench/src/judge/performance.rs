//! Gates on timed blocks, and the comparisons that reports show. Kernel time with a hot L2 decides; call time and a cold L2
//! are shown beside it, and may not be much slower where the suite says so. Leaves to others: which blocks may be compared
//! (`pairs`), and whether the run was quiet enough (`settled`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::own_clock::{at_longest, bounded};
use super::pairs::Timed;
use super::peers::peer_gates;
use super::settled::{Bench, Margin, distance, side_of};
use super::timing::judge_timing;
use crate::deferral::Deferral;
use crate::evidence::{Block, Builds, Cache, Mode, Peers, Samples};
use crate::gate::{Draft, Gate, GateId, Limit, Reading, State, Unit, significant};
use crate::operator::Distribution;
use crate::setting::Setting;
use crate::subject::{Arm, Subject};
use crate::suite::{AbsoluteLimit, PerformanceLimit, Regressions, Suite};
use stats::{Interval, Summary};

/// What a report shows of one subject on one shape in one mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Shape.
    pub shape: String,
    /// What the inputs were drawn like.
    #[serde(default, skip_serializing_if = "Distribution::is_normal")]
    pub distribution: Distribution,
    /// How the L2 was.
    #[serde(default, skip_serializing_if = "Cache::is_hot")]
    pub cache: Cache,
    /// Variant or peer.
    pub subject: Subject,
    /// Timer.
    pub mode: Mode,
    /// Samples of all usable blocks, in microseconds.
    pub time_us: Summary,
    /// Subject over control, paired; `None` for the control itself or with too few rounds.
    pub over_control: Option<Interval>,
    /// Blocks that were dropped because the clock was held down.
    pub dropped_blocks: usize,
}

impl Comparison {
    /// Where and how it was timed.
    pub fn setting(&self) -> Setting<'_> {
        Setting { shape: &self.shape, distribution: self.distribution, cache: self.cache, mode: self.mode }
    }
}

/// Summaries and paired ratios of every subject that was timed, in the first of the suite's distributions with a hot L2.
pub fn compare(suite: &Suite, samples: &Samples) -> Vec<Comparison> {
    let first = suite.time_distributions.first().copied().unwrap_or_default();
    let usual = |s: &Setting| s.cache.is_hot() && s.distribution == first;
    compare_in(suite, samples, usual)
}

/// The same in every distribution and state of the L2 that was timed: those of [`compare`] first on each shape.
pub fn compare_everywhere(suite: &Suite, samples: &Samples) -> Vec<Comparison> {
    compare_in(suite, samples, |_| true)
}

fn compare_in(suite: &Suite, samples: &Samples, wanted: impl Fn(&Setting) -> bool) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for shape in &suite.time_shapes {
        let here: Vec<&Block> = samples.blocks.iter().filter(|b| &b.shape == shape).collect();
        let timed = Timed::among(here.iter().copied());
        for places in settings_of(suite, shape).chunk_by(|a, b| (a.distribution, a.cache) == (b.distribution, b.cache))
        {
            let mut subjects: Vec<&Subject> = places.iter().flat_map(|setting| timed.subjects(setting)).collect();
            subjects.retain(|subject| subject.arm != Arm::Again);
            let order = |s: &Subject| suite.variant_names().position(|v| s.is_plain(v)).unwrap_or(usize::MAX);
            subjects.sort_by_key(|s| (order(s), *s));
            subjects.dedup();
            for subject in subjects {
                let places = places.iter().filter(|setting| wanted(setting));
                comparisons.extend(places.filter_map(|setting| compare_one(suite, &here, &timed, subject, setting)));
            }
        }
    }
    comparisons
}

/// Every setting of a timed shape, the usual ones first: the timer of kernels before that of calls, hot before cold.
pub(crate) fn settings_of<'s>(suite: &Suite, shape: &'s str) -> Vec<Setting<'s>> {
    let distributions = suite.time_distributions.iter();
    let hot = distributions.clone().flat_map(|d| Mode::ALL.map(|mode| Setting::hot(shape, *d, mode)));
    hot.chain(distributions.map(|d| Setting::cold(shape, *d))).collect()
}

fn compare_one(
    suite: &Suite,
    here: &[&Block],
    timed: &Timed,
    subject: &Subject,
    setting: &Setting,
) -> Option<Comparison> {
    let own = here.iter().filter(|b| b.subject == *subject && Setting::of(b) == *setting);
    let usable: Vec<f64> = own.filter(|b| b.rejected().is_none()).flat_map(|b| b.us.iter().copied()).collect();
    let control = Subject::plain(&suite.control);
    let over_control = timed.reported(setting, [subject, &control]);
    Some(Comparison {
        shape: setting.shape.to_owned(),
        distribution: setting.distribution,
        cache: setting.cache,
        subject: subject.clone(),
        mode: setting.mode,
        time_us: Summary::of(&usable)?,
        over_control: over_control.filter(|_| *subject != control),
        dropped_blocks: timed.dropped(setting, subject).0,
    })
}

/// Performance gates of every candidate, and the peer gate.
pub fn judge_samples(suite: &Suite, builds: &Builds, samples: &Samples, peers: &Peers) -> Vec<Gate> {
    let bench = Bench::of(suite, samples);
    let mut gates = Vec::new();
    for candidate in &suite.candidates {
        let variant = candidate.variant.as_str();
        if super::left_out(suite, builds, variant).is_some() || builds.get(variant, &suite.arch).is_none() {
            continue;
        }
        let said = gates_on_time(&bench, variant, None);
        let longest = at_longest(samples, variant).filter(|_| variant != suite.control);
        gates.extend(match longest {
            None => said,
            Some(longest) => {
                let longest = gates_on_time(&Bench::of(suite, &longest), variant, None);
                said.into_iter().zip(&longest).map(|(gate, at_longest)| bounded(gate, at_longest)).collect()
            }
        });
        if suite.performance.is_empty() && suite.absolute.is_empty() && suite.peers.is_none() {
            let deferral = Deferral::new("the suite has no gate on time", "add one to the suite");
            gates.push(Draft::new(variant, GateId::GateOnTime).deferred("at least one", deferral));
        }
    }
    gates.extend(judge_timing(suite, builds, samples, peers));
    gates
}

/// Gates on the time of a candidate, on one shape or on all.
fn gates_on_time(bench: &Bench, variant: &str, shape: Option<&str>) -> Vec<Gate> {
    let is_asked = |on: &str| shape.is_none_or(|only| only == on);
    let suite = bench.suite;
    let reductions = suite.performance.iter().filter(|limit| limit.holds_for(variant) && is_asked(&limit.shape));
    let absolute = suite.absolute.iter().filter(|limit| is_asked(&limit.shape));
    let mut gates = Vec::new();
    for limit in reductions {
        gates.extend(suite.time_distributions.iter().map(|d| relative_gate(bench, variant, limit, *d)));
    }
    for limit in absolute {
        gates.extend(suite.time_distributions.iter().filter_map(|d| absolute_gate(bench, variant, limit, *d)));
    }
    gates.extend(peer_gates(bench, variant, shape));
    gates.extend(regression_gates(bench, variant, shape));
    gates
}

/// The timed distributions on which another round could turn an inconclusive gate on this shape into a verdict.
pub fn open_distributions(suite: &Suite, samples: &Samples, shape: &str) -> Vec<Distribution> {
    let bench = Bench::on(suite, samples, shape);
    let gates = suite.candidates.iter().flat_map(|c| gates_on_time(&bench, &c.variant, Some(shape)));
    let open: BTreeSet<Distribution> =
        gates.filter(|gate| matches!(gate.state, State::Inconclusive { .. })).map(|gate| gate.distribution).collect();
    suite.time_distributions.iter().copied().filter(|d| open.contains(d)).collect()
}

/// Whether another round could turn an inconclusive gate on this shape into a verdict.
pub fn needs_more_rounds(suite: &Suite, samples: &Samples, shape: &str) -> bool {
    !open_distributions(suite, samples, shape).is_empty()
}

fn relative_gate(bench: &Bench, variant: &str, limit: &PerformanceLimit, distribution: Distribution) -> Gate {
    let setting = Setting::hot(&limit.shape, distribution, Mode::Kernel);
    let least = Limit::at_least(100.0 * limit.min_latency_reduction);
    let draft = Draft::new(variant, GateId::LatencyReduction).timed(setting).limited(least, Unit::Percent);
    let against = limit.against.as_deref().unwrap_or(&bench.suite.control);
    let threshold = format!("{} against {against}", least.text(Unit::Percent));
    if let Some(deferred) = bench.not_timed(&draft, &threshold, &setting) {
        return deferred;
    }
    let open = |why| draft.with_state(&setting.timer(), "", &threshold, State::Inconclusive { why });
    let of = [variant, against].map(Subject::plain);
    let margin = |_| Margin::Asked(limit.min_latency_reduction);
    let ratio = match bench.settled(&setting, [&of[0], &of[1]], variant, margin) {
        Ok(ratio) => ratio,
        Err(why) => return open(why),
    };
    let reduction = |ratio: f64| 100.0 * (1.0 - ratio);
    let interval = [reduction(ratio.high), reduction(ratio.low)];
    let reading = Reading::of(reduction(ratio.estimate), Some(interval), Unit::Percent)
        .and(&format!(" ({}x)", significant(1.0 / ratio.estimate)));
    draft.with_state(&setting.timer(), reading, &threshold, side_of(ratio, 1.0 - limit.min_latency_reduction))
}

/// A candidate may not be much slower on any timed shape, of which one may be asked about, in any distribution, by either
/// timer, and with a cold L2 where that was timed; where no other gate compares it with the control.
fn regression_gates(bench: &Bench, variant: &str, shape: Option<&str>) -> Vec<Gate> {
    let suite = bench.suite;
    let Some(Regressions { max_slowdown }) = suite.regressions else { return Vec::new() };
    let compared = |setting: &Setting| {
        let by = |limit: &PerformanceLimit| {
            limit.shape == setting.shape && limit.holds_for(variant) && limit.against.is_none()
        };
        setting.mode == Mode::Kernel && suite.performance.iter().any(by)
    };
    let is_asked = |setting: &Setting| match suite.timing.is_of_one_sitting() {
        // The rule of such runs: kernel time alone, and nothing beside another gate on the shape.
        true => setting.mode == Mode::Kernel,
        false => setting.cache.is_hot() || bench.timed.has(setting),
    };
    let shapes = suite.time_shapes.iter().filter(|s| shape.is_none_or(|only| only == *s));
    let settings = shapes.flat_map(|shape| settings_of(suite, shape));
    let asked = settings.filter(|setting| is_asked(setting) && !compared(setting));
    asked.map(|setting| regression_gate(bench, variant, setting, max_slowdown)).collect()
}

fn regression_gate(bench: &Bench, variant: &str, setting: Setting, max_slowdown: f64) -> Gate {
    let most = Limit::at_most(100.0 * max_slowdown);
    let threshold = format!("{} against {}", most.text(Unit::Percent), bench.suite.control);
    let draft = Draft::new(variant, GateId::Slowdown).timed(setting).limited(most, Unit::Percent);
    if let Some(deferred) = bench.not_timed(&draft, &threshold, &setting) {
        return deferred;
    }
    let open = |why| draft.with_state(&setting.timer(), "", &threshold, State::Inconclusive { why });
    let of = [variant, &bench.suite.control].map(Subject::plain);
    let bound = 1.0 + max_slowdown;
    let margin = |ratio| match bench.suite.timing.is_of_one_sitting() {
        true => Margin::Asked(max_slowdown),
        false => Margin::Left(distance(ratio, bound)),
    };
    let ratio = match bench.settled(&setting, [&of[0], &of[1]], variant, margin) {
        Ok(ratio) => ratio,
        Err(why) => return open(why),
    };
    let slower = |ratio: f64| 100.0 * (ratio - 1.0);
    let interval = Some([slower(ratio.low), slower(ratio.high)]);
    let reading = Reading::of(slower(ratio.estimate), interval, Unit::Percent);
    draft.with_state(&setting.timer(), reading, &threshold, side_of(ratio, bound))
}

/// A gate on a time in microseconds, where the device is its own; elsewhere one that is required is deferred. The control must
/// be quiet for these too, and the interval is that of the block medians.
fn absolute_gate(bench: &Bench, variant: &str, limit: &AbsoluteLimit, distribution: Distribution) -> Option<Gate> {
    let setting = Setting::hot(&limit.shape, distribution, Mode::Kernel);
    let most = Limit::at_most(limit.max_p50_us);
    let draft = Draft::new(variant, GateId::P50).timed(setting).limited(most, Unit::Microseconds);
    let threshold = most.text(Unit::Microseconds);
    if bench.samples.device.as_ref().is_none_or(|device| device.name != limit.device) {
        let why = format!("not timed on {}", limit.device);
        let deferral = Deferral::new(why, format!("run on one {}", limit.device));
        return limit.required.then(|| draft.deferred(&threshold, deferral));
    }
    if let Some(deferred) = bench.not_timed(&draft, &threshold, &setting) {
        return Some(deferred);
    }
    let open = |why| draft.with_state(&setting.timer(), "", &threshold, State::Inconclusive { why });
    let of = [variant, &bench.suite.control].map(Subject::plain);
    let Ok(us) = bench.timed.time(&setting, &of[0], bench.error(variant, &limit.shape)) else {
        return Some(open(format!("too few {}", bench.timed.unit())));
    };
    let margin = |_| Margin::Left(distance(us, limit.max_p50_us));
    Some(match bench.settled(&setting, [&of[0], &of[1]], variant, margin) {
        Err(why) => open(why),
        Ok(_) => {
            let reading = Reading::of(us.estimate, Some([us.low, us.high]), Unit::Microseconds);
            draft.with_state(&setting.timer(), reading, &threshold, side_of(us, limit.max_p50_us))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;

    fn reduction(suite: &Suite, samples: &Samples) -> Gate {
        relative_gate(&Bench::of(suite, samples), "new", &suite.performance[0], Distribution::Normal)
    }

    fn absolute_gates(suite: &Suite, samples: &Samples) -> Vec<Gate> {
        let bench = Bench::of(suite, samples);
        suite.absolute.iter().filter_map(|limit| absolute_gate(&bench, "new", limit, Distribution::Normal)).collect()
    }

    fn state(samples: &Samples) -> State {
        let suite = testing::suite();
        reduction(&suite, samples).state
    }

    #[test]
    fn the_whole_interval_must_be_on_its_side() {
        assert_eq!(state(&testing::samples(100.0, 80.0)), State::Pass);
        assert_eq!(state(&testing::samples(100.0, 95.0)), State::Fail);
        assert!(matches!(state(&testing::samples(100.0, 90.0)), State::Inconclusive { .. }));
        assert!(needs_more_rounds(&testing::suite(), &testing::samples(100.0, 90.0), "mission"));
        assert!(!needs_more_rounds(&testing::suite(), &testing::samples(100.0, 80.0), "mission"));
    }

    #[test]
    fn a_limit_may_name_its_candidate_and_whom_it_must_beat() {
        let samples = testing::samples(100.0, 80.0);
        let mut suite = testing::suite();
        suite.performance[0].against = Some("torch/flash".into());
        let gate = reduction(&suite, &samples);
        assert!(gate.threshold.ends_with("against torch/flash"), "{}", gate.threshold);
        assert!(matches!(gate.state, State::Inconclusive { .. }), "a peer that was not measured is not beaten");
        suite.performance[0] =
            PerformanceLimit { candidate: Some("other".into()), against: None, ..suite.performance[0].clone() };
        let relative = |suite: &Suite| {
            let gates = judge_samples(suite, &testing::evidence().builds, &samples, &testing::evidence().peers);
            gates.iter().filter(|g| g.figure.starts_with("latency reduction")).count()
        };
        assert_eq!((relative(&suite), relative(&testing::suite())), (0, 1));
    }

    #[test]
    fn a_biased_or_noisy_control_forbids_a_verdict() {
        let with_again = |factors: [f64; 2]| {
            let mut samples = testing::samples(100.0, 80.0);
            for block in samples.blocks.iter_mut().filter(|b| b.subject == Subject::again("old")) {
                block.us.iter_mut().for_each(|us| *us *= factors[block.round as usize % 2]);
            }
            samples
        };
        let of_one_sitting = |samples: &Samples| {
            let mut suite = testing::suite();
            suite.timing.sittings = 1;
            reduction(&suite, samples).state
        };
        let (small, biased, noisy) = (with_again([1.008; 2]), with_again([1.03; 2]), with_again([1.3, 0.8]));
        assert_eq!(state(&small), State::Pass, "less than a fifth of the margin");
        for wrong in [&biased, &noisy] {
            assert!(matches!(state(wrong), State::Inconclusive { why } if why.contains("not within [0.9804, 1.020]")));
        }
        assert!(matches!(of_one_sitting(&small), State::Inconclusive { why } if why.contains("excludes 1")));
        assert!(matches!(of_one_sitting(&noisy), State::Inconclusive { why } if why.contains("wider")));
        let mut absent = testing::samples(100.0, 80.0);
        absent.blocks.retain(|b| b.subject != Subject::again("old"));
        assert!(matches!(state(&absent), State::Inconclusive { why } if why.contains("not measured")));
    }

    #[test]
    fn throttled_blocks_are_dropped_and_counted_and_too_few_give_no_verdict() {
        let mut samples = testing::samples(100.0, 80.0);
        for block in samples.blocks.iter_mut().filter(|b| b.subject.is_plain("new") && b.round < 10) {
            block.after.throttle.push("power cap".into());
        }
        assert!(matches!(state(&samples), State::Inconclusive { why } if why.starts_with("10 of 16 blocks of new")));
        let compared = compare(&testing::suite(), &samples);
        let new = compared.iter().find(|c| c.subject.is_plain("new") && c.mode == Mode::Kernel).unwrap();
        assert_eq!(new.dropped_blocks, 10);
    }

    #[test]
    fn noise_forbids_a_verdict_that_is_closer_to_the_bound_than_the_noise_is_wide() {
        let mut noisy = testing::samples(100.0, 80.0);
        for block in noisy.blocks.iter_mut().filter(|b| b.subject == Subject::again("old")) {
            let factor = if block.round % 2 == 0 { 1.01 } else { 0.99 };
            block.us.iter_mut().for_each(|us| *us *= factor);
        }
        let limited = |max_p50_us| {
            let mut suite = testing::suite();
            let device = "NVIDIA L4".to_owned();
            suite.absolute =
                vec![crate::suite::AbsoluteLimit { device, shape: "mission".into(), max_p50_us, required: false }];
            suite
        };
        let state = |max_p50_us| {
            let suite = limited(max_p50_us);
            absolute_gates(&suite, &noisy).remove(0).state
        };
        assert_eq!(state(160.0), State::Pass);
        assert_eq!(state(40.0), State::Fail);
        assert!(matches!(state(82.0), State::Inconclusive { why } if why.contains("not within")));
        assert!(matches!(state(79.0), State::Inconclusive { .. }));
        // More rounds may settle it.
        let more = |max_p50_us, shape| needs_more_rounds(&limited(max_p50_us), &noisy, shape);
        assert_eq!([more(160.0, "mission"), more(79.0, "mission"), more(79.0, "long")], [false, true, false]);
    }

    #[test]
    fn an_absolute_limit_belongs_to_its_device() {
        let mut suite = testing::suite();
        let limit = |device: &str| crate::suite::AbsoluteLimit {
            device: device.into(),
            shape: "mission".into(),
            max_p50_us: 50.0,
            required: false,
        };
        suite.absolute = vec![limit("NVIDIA L4"), limit("NVIDIA H200")];
        let samples = testing::samples(100.0, 80.0);
        let gates = absolute_gates(&suite, &samples);
        assert_eq!(gates.len(), 1);
        assert_eq!(gates[0].state, State::Fail);
        // Required elsewhere, it stays open here.
        suite.absolute[1].required = true;
        let gates = absolute_gates(&suite, &samples);
        let words: Vec<&str> = gates.iter().map(|gate| gate.state.word()).collect();
        assert_eq!(words, ["FAIL", "DEFERRED"]);
    }

    /// The samples with a factor on what the candidate takes in a setting, in two distributions, with some cold blocks.
    fn everywhere(slow: impl Fn(&Setting) -> f64) -> (Suite, Samples) {
        let mut suite = testing::suite();
        suite.time_distributions = vec![Distribution::Normal, Distribution::Outliers];
        suite.regressions = Some(Regressions { max_slowdown: 0.05 });
        let mut samples = testing::samples(100.0, 80.0);
        let once = std::mem::take(&mut samples.blocks);
        for distribution in suite.time_distributions.clone() {
            for block in &once {
                samples.blocks.push(Block { distribution, ..block.clone() });
                if block.mode == Mode::Call {
                    samples.blocks.push(Block { distribution, cache: Cache::Cold, ..block.clone() });
                }
            }
        }
        for block in samples.blocks.iter_mut().filter(|b| b.subject.is_plain("new")) {
            let factor = slow(&Setting::of(block));
            block.us.iter_mut().for_each(|us| *us *= factor);
        }
        (suite, samples)
    }

    #[test]
    fn a_gate_on_time_holds_in_every_distribution_and_names_its_own() {
        let states = |slow: f64| {
            let (suite, samples) = everywhere(|s| if s.distribution == Distribution::Outliers { slow } else { 1.0 });
            let gates = gates_on_time(&Bench::of(&suite, &samples), "new", None);
            let of = gates.into_iter().filter(|g| g.id == GateId::LatencyReduction);
            let open = open_distributions(&suite, &samples, "mission");
            (of.map(|g| format!("{} {}", g.figure, g.state.word())).collect::<Vec<_>>(), open)
        };
        let (normal, outliers) = ("latency reduction on mission", "latency reduction on mission, outliers");
        assert_eq!(states(1.0), (vec![format!("{normal} PASS"), format!("{outliers} PASS")], vec![]));
        assert_eq!(states(1.2).0, [format!("{normal} PASS"), format!("{outliers} FAIL")]);
        let open = vec![Distribution::Outliers];
        assert_eq!(states(1.125), (vec![format!("{normal} PASS"), format!("{outliers} INCONCLUSIVE")], open));
    }

    #[test]
    fn no_timer_distribution_or_cache_may_be_slower_than_regressions_allow() {
        let slow_in = |slow: Option<Setting>| {
            let (suite, samples) = everywhere(|s| if Some(*s) == slow { 1.4 } else { 1.0 });
            let gates = regression_gates(&Bench::of(&suite, &samples), "new", None);
            let failing = gates.iter().filter(|g| g.state == State::Fail).map(|g| g.figure.clone()).collect::<Vec<_>>();
            (gates.len(), failing)
        };
        assert_eq!(slow_in(None), (4, vec![]), "the timer of kernels has the gate on the reduction");
        let call = Setting::hot("mission", Distribution::Outliers, Mode::Call);
        assert_eq!(slow_in(Some(call)).1, ["slowdown on mission, outliers, call time"]);
        let cold = Setting::cold("mission", Distribution::Normal);
        assert_eq!(slow_in(Some(cold)).1, ["slowdown on mission, call time, cold L2"]);
        // In one sitting, the kernel's time alone.
        let (mut suite, samples) = everywhere(|_| 1.0);
        suite.timing.sittings = 1;
        assert_eq!(regression_gates(&Bench::of(&suite, &samples), "new", None), []);
    }

    #[test]
    fn hot_and_cold_never_mix_and_reports_have_both_by_name() {
        let (suite, samples) = everywhere(|s| if s.cache.is_hot() { 1.0 } else { 1.25 });
        let all = compare_everywhere(&suite, &samples);
        let of_new = |c: &&Comparison| c.subject.is_plain("new");
        let rows: Vec<(String, f64)> = all.iter().filter(of_new).map(|c| (c.setting().name(), c.time_us.p50)).collect();
        let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["mission", "mission, call time", "mission, outliers", "mission, outliers, call time"];
        assert_eq!(names[..4], expected);
        assert_eq!(names[4..], ["mission, call time, cold L2", "mission, outliers, call time, cold L2"]);
        assert!(rows[..4].iter().all(|(_, us)| (us - 80.0).abs() < 1.0), "{rows:?}");
        assert!(rows[4..].iter().all(|(_, us)| (us - 100.0).abs() < 1.0), "{rows:?}");
        assert_eq!(
            compare(&suite, &samples),
            all.iter().filter(|c| c.distribution.is_normal() && c.cache.is_hot()).cloned().collect::<Vec<_>>()
        );
    }
}
