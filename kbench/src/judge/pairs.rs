//! Which blocks may be compared, and the ratio of two subjects that they give. A ratio is only ever taken between blocks of
//! one round; where rounds lie in several sittings, the unit of its interval is the sitting, whose rounds share the places
//! of modules and buffers and are not independent of each other. Leaves to others: what a ratio must be (`performance`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::evidence::{Block, Mode};
use crate::operator::Distribution;
use crate::setting::Setting;
use crate::subject::Subject;
use crate::suite::Suite;
use stats::{Interval, MIN_ROUNDS, median, median_interval, paired_ratio_at};

/// What is compared of a block.
#[derive(Clone, Copy, Debug)]
struct Point {
    round: u32,
    sitting: u32,
    /// Median in microseconds.
    us: f64,
}

/// The blocks of one subject in one setting.
#[derive(Clone, Debug, Default)]
struct Series {
    usable: Vec<Point>,
    dropped: usize,
    blocks: usize,
}

/// Blocks by setting and subject.
#[derive(Debug)]
pub struct Timed<'a> {
    series: BTreeMap<Setting<'a>, BTreeMap<&'a Subject, Series>>,
    by_sitting: bool,
}

impl<'a> Timed<'a> {
    /// Blocks for gates: a suite of several sittings is judged by them, whatever the blocks say.
    pub fn of(suite: &Suite, blocks: impl Iterator<Item = &'a Block>) -> Timed<'a> {
        Timed { by_sitting: !suite.timing.is_of_one_sitting(), ..Timed::among(blocks) }
    }

    /// Any blocks, for a report: by sitting where they lie in several.
    pub fn among(blocks: impl Iterator<Item = &'a Block>) -> Timed<'a> {
        let mut series: BTreeMap<Setting<'a>, BTreeMap<&'a Subject, Series>> = BTreeMap::new();
        let mut sittings = BTreeSet::new();
        for block in blocks {
            sittings.insert(block.sitting);
            let of_subject = series.entry(Setting::of(block)).or_default().entry(&block.subject).or_default();
            of_subject.blocks += 1;
            if block.rejected().is_some() {
                of_subject.dropped += 1;
            } else if let Some(us) = median(&block.us) {
                of_subject.usable.push(Point { round: block.round, sitting: block.sitting, us });
            }
        }
        series.values_mut().flat_map(BTreeMap::values_mut).for_each(|s| s.usable.sort_by_key(|p| p.round));
        Timed { series, by_sitting: sittings.len() > 1 }
    }

    /// What an interval is of.
    pub fn unit(&self) -> &'static str {
        if self.by_sitting { "sittings" } else { "rounds" }
    }

    /// Subjects that have blocks in a setting.
    pub fn subjects(&self, setting: &Setting<'_>) -> Vec<&'a Subject> {
        let here = self.series.iter().find(|(here, _)| *here == setting);
        here.map_or_else(Vec::new, |(_, subjects)| subjects.keys().copied().collect())
    }

    /// Whether anybody has a block in a setting.
    pub fn has(&self, setting: &Setting<'_>) -> bool {
        self.series.contains_key(setting)
    }

    /// Blocks of a subject that were dropped because the clock was held down, of how many.
    pub fn dropped<'s>(&'s self, setting: &Setting<'s>, subject: &Subject) -> (usize, usize) {
        self.one(setting, subject).map_or((0, 0), |series| (series.dropped, series.blocks))
    }

    /// Medians of the usable blocks of a subject, each with its sitting.
    fn usable<'s>(&'s self, setting: &Setting<'s>, subject: &Subject) -> &'s [Point] {
        self.one(setting, subject).map_or(&[], |series| &series.usable)
    }

    fn one<'s>(&'s self, setting: &Setting<'s>, subject: &Subject) -> Option<&'s Series> {
        self.series.get(setting)?.get(subject)
    }

    /// One subject over another, with an interval that misses the truth in at most `error` of runs; else why there is none.
    pub fn ratio<'s>(&'s self, setting: &Setting<'s>, of: [&Subject; 2], error: f64) -> Result<Interval, Few> {
        let [top, bottom] = of.map(|subject| self.usable(setting, subject));
        let pairs: Vec<(u32, f64, f64)> = merged(top, bottom).collect();
        self.interval(&pairs, error)
    }

    /// The same with the 95% interval of reports.
    pub fn reported<'s>(&'s self, setting: &Setting<'s>, of: [&Subject; 2]) -> Option<Interval> {
        self.ratio(setting, of, REPORTED_ERROR).ok()
    }

    /// The time of a subject in microseconds, in the same way.
    pub fn time<'s>(&'s self, setting: &Setting<'s>, subject: &Subject, error: f64) -> Result<Interval, Few> {
        let pairs: Vec<_> = self.usable(setting, subject).iter().map(|p| (p.sitting, p.us, 1.0)).collect();
        self.interval(&pairs, error)
    }

    fn interval(&self, pairs: &[(u32, f64, f64)], error: f64) -> Result<Interval, Few> {
        if !self.by_sitting {
            let few = Few { usable: pairs.len(), unit: "rounds", needed: MIN_ROUNDS as u32 };
            let rounds: Vec<(f64, f64)> = pairs.iter().map(|(_, a, b)| (*a, *b)).collect();
            return paired_ratio_at(&rounds, 1.0 - error).ok_or(few);
        }
        let mut of_sitting: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (sitting, a, b) in pairs.iter().filter(|(_, a, b)| *a > 0.0 && *b > 0.0) {
            of_sitting.entry(*sitting).or_default().push(a / b);
        }
        let ratios: Vec<f64> = of_sitting.values().filter_map(|ratios| median(ratios)).collect();
        let few = Few { usable: ratios.len(), unit: "sittings", needed: sittings_for(error) };
        median_interval(&ratios, error).ok_or(few)
    }
}

/// Why there is no interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Few {
    usable: usize,
    unit: &'static str,
    needed: u32,
}

impl Few {
    /// The same of a comparison with somebody else than the control.
    pub fn against(self, other: &str) -> String {
        format!("{} usable {} against {other}, {} needed", self.usable, self.unit, self.needed)
    }
}

impl fmt::Display for Few {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} usable {}, {} needed", self.usable, self.unit, self.needed)
    }
}

/// The fewest sittings that give an interval which misses the truth in at most `error` of runs.
pub(super) fn sittings_for(error: f64) -> u32 {
    (1.0 - error.log2()).ceil().max(1.0) as u32
}

/// Pairs of one round, with their sitting. A round that is there twice counts once; the gate on blocks names it.
fn merged<'p>(top: &'p [Point], bottom: &'p [Point]) -> impl Iterator<Item = (u32, f64, f64)> + 'p {
    let mut last = None;
    let mut bottom = bottom.iter().peekable();
    top.iter().filter_map(move |a| {
        while bottom.next_if(|b| b.round < a.round).is_some() {}
        let b = bottom.peek().filter(|b| b.round == a.round && b.sitting == a.sitting)?;
        (last.replace(a.round) != Some(a.round)).then_some((a.sitting, a.us, b.us))
    })
}

/// Of the intervals that reports show.
const REPORTED_ERROR: f64 = 0.05;

/// One subject over another in a setting, with a 95% interval, for reports.
pub fn ratio(blocks: &[Block], setting: &Setting, of: [&Subject; 2]) -> Option<Interval> {
    let here = blocks.iter().filter(|b| Setting::of(b) == *setting && of.contains(&&b.subject));
    Timed::among(here).reported(setting, of)
}

/// Medians of the blocks of two subjects by round, where both are usable: the usual distribution, with a hot L2.
pub fn paired_rounds(
    blocks: &[Block],
    shape: &str,
    mode: Mode,
    numerator: &Subject,
    denominator: &Subject,
) -> BTreeMap<u32, (f64, f64)> {
    let setting = Setting::hot(shape, Distribution::Normal, mode);
    let usable = |subject: &Subject| {
        let here = blocks.iter().filter(|b| Setting::of(b) == setting && b.subject == *subject);
        let usable = here.filter(|b| b.rejected().is_none());
        usable.filter_map(|b| Some((b.round, median(&b.us)?))).collect::<BTreeMap<u32, f64>>()
    };
    let (top, bottom) = (usable(numerator), usable(denominator));
    top.iter().filter_map(|(round, a)| Some((*round, (*a, *bottom.get(round)?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Cache;
    use crate::judge::testing;

    const MISSION: Setting =
        Setting { shape: "mission", distribution: Distribution::Normal, cache: Cache::Hot, mode: Mode::Kernel };

    fn over_control(blocks: &[Block]) -> Option<Interval> {
        ratio(blocks, &MISSION, [&"new".into(), &"old".into()])
    }

    #[test]
    fn ratios_never_cross_rounds_sittings_distributions_or_caches() {
        let changes: [fn(&mut Block); 4] = [
            |b| b.round += 1000,
            |b| b.sitting += 1000,
            |b| b.distribution = Distribution::Outliers,
            |b| b.cache = Cache::Cold,
        ];
        let whole = testing::samples(100.0, 80.0).blocks;
        assert!(over_control(&whole).is_some());
        for change in changes {
            let mut apart = whole.clone();
            apart.iter_mut().filter(|b| b.subject.is_plain("new")).for_each(change);
            assert_eq!(over_control(&apart), None);
        }
    }

    #[test]
    fn rounds_of_a_sitting_that_agree_do_not_narrow_the_interval() {
        let two_rounds = |sittings: u32, noise: f64| {
            let mut blocks = Vec::new();
            for sitting in 0..sittings {
                for round in 2 * sitting..2 * sitting + 2 {
                    for (who, us) in [("old", 100.0), ("new", 80.0 * (1.0 + noise * f64::from(sitting % 2)))] {
                        let block = testing::block(who, round, Mode::Kernel, us);
                        blocks.push(Block { sitting, us: vec![us], ..block });
                    }
                }
            }
            blocks
        };
        let placed = over_control(&two_rounds(16, 0.01)).unwrap();
        assert!((placed.width() - 0.008).abs() < 1e-9, "{placed:?}");
        assert_eq!(over_control(&two_rounds(5, 0.01)), None, "five sittings give no interval of 95%");
        let again: Vec<Block> = two_rounds(16, 0.01).into_iter().map(|b| Block { sitting: 0, ..b }).collect();
        assert!(over_control(&again).is_some(), "one sitting is judged by its rounds, as older runs were");
    }

    #[test]
    fn the_fewest_sittings_are_those_whose_extremes_hold_the_median_often_enough() {
        for (error, sittings) in [(0.5, 2), (0.05, 6), (0.01, 8), (6.2e-5, 15), (6.0e-5, 16)] {
            assert_eq!(sittings_for(error), sittings, "{error}");
            let values: Vec<f64> = (0..sittings).map(f64::from).collect();
            assert!(median_interval(&values, error).is_some() && median_interval(&values[1..], error).is_none());
        }
    }
}
