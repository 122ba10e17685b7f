//! Where the time of a search went: the spans of a journal added up, for each part of the session and each device.
//! Nothing that is decided depends on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::{Activity, Line, Stage};

/// The time of one device in one part of the last session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// The part.
    pub stage: Stage,
    /// The device's unique id; absent where it was no device's time.
    pub gpu: Option<String>,
    /// Batches of configurations.
    pub batches: usize,
    /// Configurations.
    pub configurations: usize,
    /// Seconds of each activity.
    pub seconds: BTreeMap<Activity, f64>,
    /// Seconds in which it had nothing to do while the part was under way.
    pub idle: f64,
    /// When the part ended, in seconds since the session began.
    pub until: f64,
}

/// The last session's, by part and device.
pub fn spent(lines: &[Line]) -> Vec<Spent> {
    let begin = lines.iter().rposition(|l| matches!(l, Line::Session { .. })).unwrap_or(0);
    let mut rows: BTreeMap<(Stage, Option<String>), Spent> = BTreeMap::new();
    let mut ends: BTreeMap<Stage, f64> = BTreeMap::new();
    for line in &lines[begin..] {
        let Line::Spent { stage, gpu, configurations, spans } = line else { continue };
        let none = Spent {
            stage: *stage,
            gpu: gpu.clone(),
            batches: 0,
            configurations: 0,
            seconds: BTreeMap::new(),
            idle: 0.0,
            until: 0.0,
        };
        let row = rows.entry((*stage, gpu.clone())).or_insert(none);
        row.batches += 1;
        row.configurations += configurations;
        for span in spans {
            *row.seconds.entry(span.activity).or_default() += span.to - span.from;
            let end = ends.entry(*stage).or_default();
            *end = end.max(span.to);
        }
    }
    let mut begun = BTreeMap::new();
    let mut before = 0.0;
    for (stage, end) in &ends {
        begun.insert(*stage, before);
        before = *end;
    }
    let whole = |mut row: Spent| {
        row.until = ends.get(&row.stage).copied().unwrap_or_default();
        let busy: f64 = row.seconds.values().sum();
        row.idle = (row.until - begun.get(&row.stage).copied().unwrap_or_default() - busy).max(0.0);
        row
    };
    rows.into_values().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::record::Span;

    #[test]
    fn time_is_added_up_by_part_and_device_and_what_is_left_was_idle() {
        let line = |stage, gpu: Option<&str>, spans: &[(Activity, f64, f64)]| Line::Spent {
            stage,
            gpu: gpu.map(str::to_owned),
            configurations: 4,
            spans: spans
                .iter()
                .map(|(activity, from, to)| Span { activity: *activity, from: *from, to: *to })
                .collect(),
        };
        let earlier = line(Stage::Search, Some("a"), &[(Activity::Timing, 0.0, 99.0)]);
        let lines = [
            earlier,
            Line::Session { started: String::new(), gpus: vec![] },
            line(Stage::SetUp, None, &[(Activity::SetUp, 0.0, 1.0)]),
            line(Stage::Search, Some("a"), &[(Activity::Builds, 1.0, 2.0), (Activity::Timing, 2.0, 5.0)]),
            line(Stage::Search, Some("b"), &[(Activity::Timing, 1.0, 2.0)]),
            line(Stage::Search, Some("a"), &[(Activity::Timing, 6.0, 7.0)]),
            line(Stage::Finals, Some("a"), &[(Activity::Timing, 8.0, 9.0)]),
        ];
        let rows = spent(&lines);
        let short: Vec<_> = rows.iter().map(|r| (r.stage, r.gpu.as_deref(), r.batches, r.idle, r.until)).collect();
        let expected = [
            (Stage::SetUp, None, 1, 0.0, 1.0),
            (Stage::Search, Some("a"), 2, 1.0, 7.0),
            (Stage::Search, Some("b"), 1, 5.0, 7.0),
            (Stage::Finals, Some("a"), 1, 1.0, 9.0),
        ];
        assert_eq!(short, expected);
        assert_eq!(rows[1].seconds, BTreeMap::from([(Activity::Builds, 1.0), (Activity::Timing, 4.0)]));
        assert_eq!(spent(&[]), []);
    }
}
