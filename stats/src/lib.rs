//! Statistics of timing samples: order statistics, summaries and bootstrap intervals of paired ratios.
//! Pure and seeded: the same samples give the same interval on every machine. "No estimate" is `None`, never 0.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Resamples of a bootstrap: the quantiles of the interval then move by well under 0.1% of its width.
const RESAMPLES: usize = 4000;
/// Fixed, so that an interval can be recomputed from the samples; any value would do.
const BOOTSTRAP_SEED: u64 = 0x5d9a;

/// The quantile `q` in [0, 1] of finite samples, linear between neighbours. `None` without samples or with a NaN.
pub fn quantile(samples: &[f64], q: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    if sorted.is_empty() || sorted.iter().any(|x| !x.is_finite()) {
        return None;
    }
    sorted.sort_by(f64::total_cmp);
    Some(quantile_of_sorted(&sorted, q))
}

fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let position = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let low = position.floor() as usize;
    let high = position.ceil() as usize;
    sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64)
}

/// The median of finite samples.
pub fn median(samples: &[f64]) -> Option<f64> {
    quantile(samples, 0.5)
}

/// What a table shows of a set of samples; times in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many samples.
    pub count: usize,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (n - 1); 0 for a single sample.
    pub std: f64,
    /// Coefficient of variation: std / mean.
    pub cv: f64,
    /// Smallest sample.
    pub min: f64,
    /// Largest sample.
    pub max: f64,
}

impl Summary {
    /// `None` without samples, or if one is not finite.
    pub fn of(samples: &[f64]) -> Option<Summary> {
        let mut sorted = samples.to_vec();
        if sorted.is_empty() || sorted.iter().any(|x| !x.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let mean = sorted.iter().sum::<f64>() / count as f64;
        let squares: f64 = sorted.iter().map(|x| (x - mean).powi(2)).sum();
        let std = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        Some(Summary {
            count,
            p50: quantile_of_sorted(&sorted, 0.5),
            p90: quantile_of_sorted(&sorted, 0.9),
            p99: quantile_of_sorted(&sorted, 0.99),
            mean,
            std,
            cv: std / mean,
            min: sorted[0],
            max: sorted[count - 1],
        })
    }
}

/// An estimate with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Point estimate.
    pub estimate: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Interval {
    /// Whether the interval holds `value`.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// high - low.
    pub fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// Rounds below which no interval is given: a bootstrap of fewer says nothing about its tails.
pub const MIN_ROUNDS: usize = 8;

/// Sittings below which no suite may ask for a verdict: their smallest and largest hold the median in 99.2% of runs.
pub const MIN_SITTINGS: u32 = 8;

/// The median of paired ratios with its 95% interval, for reports.
pub fn paired_ratio(pairs: &[(f64, f64)]) -> Option<Interval> {
    paired_ratio_at(pairs, 0.95)
}

/// The median of paired ratios with a percentile-bootstrap interval of the given level.
///
/// `pairs` holds one (numerator, denominator) per round, each already the median of a block, so the resampled unit is
/// the round and not the launch: launches of one block share clocks and cache and are not independent.
/// `None` with fewer than [`MIN_ROUNDS`] rounds, or if a value is not finite and positive.
pub fn paired_ratio_at(pairs: &[(f64, f64)], level: f64) -> Option<Interval> {
    let ratios: Vec<f64> = pairs.iter().map(|(a, b)| a / b).collect();
    let usable = pairs.iter().all(|(a, b)| a.is_finite() && b.is_finite() && *a > 0.0 && *b > 0.0);
    if ratios.len() < MIN_ROUNDS || !usable {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(BOOTSTRAP_SEED);
    let mut resample = vec![0.0; ratios.len()];
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            for slot in &mut resample {
                *slot = ratios[uniform_below(&mut rng, ratios.len())];
            }
            resample.sort_by(f64::total_cmp);
            quantile_of_sorted(&resample, 0.5)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Some(Interval {
        estimate: median(&ratios)?,
        low: quantile_of_sorted(&medians, (1.0 - level) / 2.0),
        high: quantile_of_sorted(&medians, (1.0 + level) / 2.0),
    })
}

/// The median of independent values with the interval between two of them, counted from either end, that misses the true
/// median in at most `error` of cases, whatever the distribution is: below the true median lies a binomial number of values.
/// `None` where even the smallest and the largest miss it more often, or a value is not finite.
pub fn median_interval(values: &[f64], error: f64) -> Option<Interval> {
    let mut sorted = values.to_vec();
    if sorted.is_empty() || sorted.iter().any(|x| !x.is_finite()) {
        return None;
    }
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let left_out = count_outside(count, error)?;
    Some(Interval {
        estimate: quantile_of_sorted(&sorted, 0.5),
        low: sorted[left_out],
        high: sorted[count - 1 - left_out],
    })
}

/// How many of `count` values may be left out at each end.
fn count_outside(count: usize, error: f64) -> Option<usize> {
    let mut chance = 0.5f64.powi(i32::try_from(count).ok()?);
    let (mut missed, mut left_out) = (2.0 * chance, None);
    // Beyond the middle there is nothing left.
    for below in 0..count.div_ceil(2) {
        // Not the other way round: where the chance is too small for a number, or no number, nothing is left out.
        if !(missed <= error && chance > 0.0) {
            break;
        }
        left_out = Some(below);
        chance *= (count - below) as f64 / (below + 1) as f64;
        missed += 2.0 * chance;
    }
    left_out
}

/// A uniform index below `bound` by widening multiplication; the bias is below bound / 2^32.
pub fn uniform_below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    ((u64::from(rng.next_u32()) * bound as u64) >> 32) as usize
}

/// A random order of 0..len (Fisher-Yates).
pub fn shuffled(rng: &mut ChaCha8Rng, len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    for i in (1..len).rev() {
        order.swap(i, uniform_below(rng, i + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_of_known_samples() {
        assert_eq!(quantile(&[4.0, 1.0, 3.0, 2.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.9), Some(4.6));
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[1.0, f64::NAN], 0.5), None);
    }

    #[test]
    fn summary_of_known_samples() {
        let summary = Summary::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!(summary.mean, 5.0);
        assert!((summary.std - 2.138_089_935).abs() < 1e-8);
        assert_eq!((summary.min, summary.max), (2.0, 9.0));
        assert!(Summary::of(&[f64::INFINITY]).is_none());
    }

    #[test]
    fn too_few_rounds_give_no_interval() {
        assert!(paired_ratio(&[(1.0, 1.0); MIN_ROUNDS - 1]).is_none());
        assert!(paired_ratio(&[(1.0, 0.0); 20]).is_none());
        assert!(paired_ratio(&[(f64::NAN, 1.0); 20]).is_none());
    }

    /// Rounds of two arms with a true ratio, common drift over the run, and independent noise.
    fn rounds(seed: u64, ratio: f64, drift: f64, noise: f64, count: usize) -> Vec<(f64, f64)> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut centred = move || f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5;
        (0..count)
            .map(|i| {
                let common = 100.0 * (1.0 + drift * i as f64 / count as f64);
                (common * ratio * (1.0 + noise * centred()), common * (1.0 + noise * centred()))
            })
            .collect()
    }

    #[test]
    fn the_order_statistics_of_a_median_are_those_of_tables() {
        // Count, error, values left out at each end: the tables of the sign test.
        for (count, error, left_out) in
            [(5, 0.05, None), (6, 0.05, Some(0)), (8, 0.05, Some(0)), (9, 0.05, Some(1)), (16, 0.05, Some(3))]
        {
            assert_eq!(count_outside(count, error), left_out, "{count} at {error}");
        }
        assert_eq!(count_outside(100, 0.05), Some(39));
        assert_eq!([count_outside(2000, 0.05), count_outside(16, f64::NAN), count_outside(0, 0.05)], [None; 3]);
        let values: Vec<f64> = (0..9).map(f64::from).collect();
        assert_eq!(median_interval(&values, 0.05), Some(Interval { estimate: 4.0, low: 1.0, high: 7.0 }));
        assert_eq!(median_interval(&[1.0, f64::NAN, 2.0, 3.0, 4.0, 5.0, 6.0], 0.05), None);
    }

    #[test]
    fn the_interval_of_a_median_covers_whatever_the_distribution_is() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut uniform = move || (f64::from(rng.next_u32()) + 0.5) / 2f64.powi(32);
        type Quantile = fn(f64) -> f64;
        // Each with its median at 0: skewed, without a mean, two lumps.
        let shapes: [Quantile; 3] = [
            |u| -u.ln() - 2f64.ln(),
            |u| (std::f64::consts::PI * (u - 0.5)).tan(),
            |u| if u < 0.5 { u - 1.0 } else { u },
        ];
        for (count, error) in [(16, 0.05), (16, 0.001), (48, 0.01)] {
            for shape in shapes {
                let missed = (0..4000).filter(|_| {
                    let values: Vec<f64> = (0..count).map(|_| shape(uniform())).collect();
                    !median_interval(&values, error).unwrap().contains(0.0)
                });
                let missed = missed.count() as f64 / 4000.0;
                assert!(missed <= error + 0.007, "{count} values at {error}: {missed}");
            }
        }
    }

    #[test]
    fn coverage_of_the_interval_is_near_nominal() {
        let hits = (0..400).filter(|&s| paired_ratio(&rounds(s, 1.0, 0.0, 0.02, 24)).unwrap().contains(1.0)).count();
        assert!((364..=396).contains(&hits), "{hits} of 400 intervals hold the truth, expected about 380");
    }

    #[test]
    #[ignore = "takes longer; .ci/run runs it"]
    fn looking_four_times_at_a_stricter_level_fools_no_more_often_than_looking_once() {
        let level = 1.0 - 0.05 / 4.0;
        let fooled = (0..400).filter(|&s| {
            let all = rounds(s, 1.0, 0.0, 0.02, 64);
            [16, 32, 48, 64].iter().any(|&n| paired_ratio_at(&all[..n], level).unwrap().high < 1.0)
        });
        let fooled = fooled.count();
        assert!(fooled <= 20, "{fooled} of 400 are called faster, 2.5% to 5% allowed");
    }

    #[test]
    fn two_percent_is_seen_and_drift_is_not_an_effect() {
        let seen = (0..100).filter(|&s| paired_ratio(&rounds(s, 0.98, 0.05, 0.02, 24)).unwrap().high < 1.0).count();
        assert!(seen >= 96, "{seen} of 100");
        let fooled =
            (0..100).filter(|&s| !paired_ratio(&rounds(s, 1.0, 0.30, 0.02, 24)).unwrap().contains(1.0)).count();
        assert!(fooled <= 10, "{fooled} of 100");
    }

    proptest! {
        #[test]
        fn quantiles_are_ordered_and_within_the_samples(mut xs in prop::collection::vec(0.1f64..1e6, 1..200)) {
            let summary = Summary::of(&xs).unwrap();
            xs.sort_by(f64::total_cmp);
            prop_assert!(summary.min <= summary.p50 && summary.p50 <= summary.p90);
            prop_assert!(summary.p90 <= summary.p99 && summary.p99 <= summary.max);
            prop_assert_eq!((summary.min, summary.max), (xs[0], xs[xs.len() - 1]));
        }

        #[test]
        fn ratio_is_free_of_units(scale in 0.001f64..1000.0, seed in 0u64..1000) {
            let base = rounds(seed, 0.9, 0.0, 0.1, 16);
            let scaled: Vec<_> = base.iter().map(|(a, b)| (a * scale, b * scale)).collect();
            let (x, y) = (paired_ratio(&base).unwrap(), paired_ratio(&scaled).unwrap());
            prop_assert!((x.low - y.low).abs() < 1e-9 && (x.high - y.high).abs() < 1e-9);
            prop_assert!(x.low <= x.estimate && x.estimate <= x.high);
        }

        #[test]
        fn an_order_is_a_permutation(seed: u64, len in 0usize..50) {
            let mut order = shuffled(&mut ChaCha8Rng::seed_from_u64(seed), len);
            order.sort_unstable();
            prop_assert_eq!(order, (0..len).collect::<Vec<_>>());
        }
    }
}
