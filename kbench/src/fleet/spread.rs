//! How the ratio of one candidate to its control, on one shape and one kind of device, scatters between runs and between
//! nodes. Each estimate is of one run, where both arms shared a card; nothing here divides one device's time by another's.

use std::collections::BTreeMap;

use serde::Serialize;

/// A scatter of ratios, as standard deviations in percent of the ratio.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Runs.
    pub runs: usize,
    /// Nodes that they ran on.
    pub nodes: usize,
    /// Over all runs.
    pub all_percent: f64,
    /// Between runs of one node; `None` where no node has two.
    pub same_node_percent: Option<f64>,
    /// What nodes add to that; `None` with one node, or where no node has two runs to tell the two apart.
    pub between_nodes_percent: Option<f64>,
}

impl Spread {
    /// Of (node, ratio) by run. `None` with fewer than two runs, or with a ratio that is not positive and finite.
    pub fn of(ratios: &[(String, f64)]) -> Option<Spread> {
        if ratios.len() < 2 || ratios.iter().any(|(_, ratio)| !ratio.is_finite() || *ratio <= 0.0) {
            return None;
        }
        let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (node, ratio) in ratios {
            // Ratios scatter by factors: 2 is as far from 1 as one half.
            groups.entry(node).or_default().push(ratio.ln());
        }
        let all: Vec<f64> = groups.values().flatten().copied().collect();
        let (count, nodes) = (all.len() as f64, groups.len() as f64);
        let within: f64 = groups.values().map(|group| squares(group, mean(group))).sum();
        let free = count - nodes;
        let same_node = (free > 0.0).then(|| within / free);
        let between_nodes = same_node.filter(|_| nodes > 1.0).map(|same_node| {
            let between: f64 =
                groups.values().map(|group| group.len() as f64 * (mean(group) - mean(&all)).powi(2)).sum();
            let sizes: f64 = groups.values().map(|group| (group.len() as f64).powi(2)).sum();
            let per_node = (count - sizes / count) / (nodes - 1.0);
            // The estimate of a variance that is 0 falls below 0 half of the time.
            ((between / (nodes - 1.0) - same_node) / per_node).max(0.0)
        });
        let percent = |variance: f64| 100.0 * variance.sqrt();
        Some(Spread {
            runs: all.len(),
            nodes: groups.len(),
            all_percent: percent(squares(&all, mean(&all)) / (count - 1.0)),
            same_node_percent: same_node.map(percent),
            between_nodes_percent: between_nodes.map(percent),
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn squares(values: &[f64], around: f64) -> f64 {
    values.iter().map(|value| (value - around).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    fn of(ratios: &[(&str, f64)]) -> Option<Spread> {
        Spread::of(&ratios.iter().map(|(node, ratio)| ((*node).to_owned(), *ratio)).collect::<Vec<_>>())
    }

    #[test]
    fn what_cannot_be_told_is_not_said() {
        assert_eq!(of(&[("a", 0.8)]), None);
        assert_eq!(of(&[("a", 0.8), ("a", f64::NAN)]), None);
        let one_node = of(&[("a", 0.80), ("a", 0.82)]).unwrap();
        assert!(one_node.between_nodes_percent.is_none() && one_node.same_node_percent == Some(one_node.all_percent));
        let one_run_each = of(&[("a", 0.80), ("b", 0.82)]).unwrap();
        assert_eq!((one_run_each.same_node_percent, one_run_each.between_nodes_percent), (None, None));
        assert!((one_run_each.all_percent - 1.746).abs() < 0.001, "{one_run_each:?}");
    }

    #[test]
    fn two_sources_of_noise_are_told_apart() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut normal = move || (0..12).map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX)).sum::<f64>() - 6.0;
        let ratios: Vec<(String, f64)> = (0..60)
            .flat_map(|node| {
                let of_node = 0.03 * normal();
                (0..5).map(|_| (format!("n{node}"), 0.8 * (of_node + 0.01 * normal()).exp())).collect::<Vec<_>>()
            })
            .collect();
        let spread = Spread::of(&ratios).unwrap();
        let (same, between) = (spread.same_node_percent.unwrap(), spread.between_nodes_percent.unwrap());
        assert!((0.85..1.15).contains(&same) && (2.3..3.7).contains(&between), "{spread:?}");
    }

    proptest! {
        #[test]
        fn spread_knows_no_scale_and_no_order(
            mut runs in prop::collection::vec((0u8..4, 0.5f64..2.0), 2..30),
            scale in 0.1f64..10.0,
        ) {
            let spread = |runs: &[(u8, f64)]| {
                Spread::of(&runs.iter().map(|(node, ratio)| (node.to_string(), *ratio)).collect::<Vec<_>>()).unwrap()
            };
            let before = spread(&runs);
            runs.reverse();
            runs.iter_mut().for_each(|(_, ratio)| *ratio *= scale);
            let after = spread(&runs);
            prop_assert_eq!((before.runs, before.nodes), (after.runs, after.nodes));
            prop_assert!((before.all_percent - after.all_percent).abs() < 1e-6);
            let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => (a * a - b * b).abs() < 1e-6,
                (a, b) => a == b,
            };
            prop_assert!(near(before.same_node_percent, after.same_node_percent));
            prop_assert!(near(before.between_nodes_percent, after.between_nodes_percent));
        }
    }
}
