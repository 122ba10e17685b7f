//! `history` as a table: a row a run. Leaves to others: finding the runs and what they came to (`runs`).

use kbench::gate::significant;

use super::print::table;
use crate::layout::program;
use crate::runs::{CameTo, Median, Past};

/// Shapes of a run whose times are shown.
const MOST_SHAPES: usize = 3;

/// Under a header, oldest first.
pub fn render(past: &[Past]) -> String {
    if past.is_empty() {
        return format!("no runs yet: {} validate --stage5", program());
    }
    let header = ["run (when, commit, suite)", "device", "decision", "kernel us, p50"].map(str::to_owned);
    let row = |Past { run, came_to }: &Past| {
        let [device, decision, times] = cells(came_to);
        vec![run.clone(), device, decision, times]
    };
    table(&header, &past.iter().map(row).collect::<Vec<_>>())
}

/// Device, decision and times.
fn cells(came_to: &CameTo) -> [String; 3] {
    let on = |device: &Option<String>| device.clone().unwrap_or_else(|| "no GPU".to_owned());
    match came_to {
        CameTo::Interrupted => ["-".into(), "interrupted; continue it with --resume".into(), "-".into()],
        CameTo::Edited { first } => ["-".into(), format!("not as it was sealed: {first}; see verify"), "-".into()],
        CameTo::Unreadable { why } => ["-".into(), format!("unreadable: {why}"), "-".into()],
        CameTo::Searched { device, winner, p50_us } => {
            let winner = winner.as_ref().map_or("no winner".to_owned(), |name| format!("winner {name}"));
            [on(device), winner, p50_us.map_or("-".to_owned(), significant)]
        }
        CameTo::Judged { device, candidates, broken, medians, narrowed, .. } => {
            let one = |c: &kbench::decision::CandidateDecision| format!("{} {}", c.verdict.word(), c.variant);
            let part = narrowed.then(|| "part of the suite".to_owned());
            let lines: Vec<String> = broken.iter().chain(candidates).map(one).chain(part).collect();
            [on(device), lines.join("\n"), times(medians)]
        }
    }
}

/// A line a shape, in the order in which variants were timed.
fn times(medians: &[Median]) -> String {
    let mut lines: Vec<(&str, Vec<String>)> = Vec::new();
    for median in medians {
        let time = format!("{} {}", median.variant, significant(median.p50_us));
        match lines.iter_mut().find(|(shape, _)| *shape == median.shape) {
            Some((_, times)) => times.push(time),
            None => lines.push((&median.shape, vec![time])),
        }
    }
    if lines.is_empty() {
        return "not timed".to_owned();
    }
    let shown = lines.iter().take(MOST_SHAPES).map(|(shape, times)| format!("{shape}: {}", times.join(", ")));
    let more = lines.len().checked_sub(MOST_SHAPES).filter(|more| *more > 0);
    shown.chain(more.map(|more| format!("{more} more shapes (--json)"))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::decision::{CandidateDecision, Verdict};

    #[test]
    fn every_run_has_a_row_that_fits_and_names_each_verdict() {
        let candidate = |variant: &str, verdict| CandidateDecision {
            variant: variant.to_owned(),
            verdict,
            because: "a long reason that stands in the report".repeat(5),
            slower: Vec::new(),
        };
        let median =
            |shape: &str, variant: &str, p50_us| Median { shape: shape.into(), variant: variant.into(), p50_us };
        let judged = CameTo::Judged {
            started: "2026-11-21T23:55:30Z".into(),
            commit: Some("18f63d071fb2".into()),
            device: Some("NVIDIA H200".into()),
            decision: "MERGE ws-p2 | FIX persistent".into(),
            candidates: vec![candidate("ws-p2", Verdict::Merge), candidate("persistent", Verdict::Fix)],
            broken: None,
            narrowed: true,
            medians: vec![median("mission", "stage2", 14.01), median("mission", "ws-p2", 12.43)],
        };
        let runs = [
            ("20261121T235530Z-18f63d0-stage5", judged),
            ("20261122T000000Z-18f63d0-stage5", CameTo::Interrupted),
            (
                "20261122T000001Z-18f63d0-stage5",
                CameTo::Unreadable { why: "samples.json is not what it should be".into() },
            ),
        ];
        let past = runs.map(|(run, came_to)| Past { run: run.into(), came_to });
        let text = render(&past);
        assert!(text.starts_with("RUN (WHEN, COMMIT, SUITE)"), "{text}");
        for words in ["MERGE ws-p2", "FIX persistent", "stage2 14.01", "interrupted", "unreadable", "18f63d0-stage5"] {
            assert!(text.contains(words), "`{words}`: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let json = serde_json::to_value(&past[0]).unwrap();
        assert_eq!((&json["candidates"][0]["verdict"], &json["state"]), (&"MERGE".into(), &"judged".into()));
        assert_eq!(json["medians"][1]["p50_us"], 12.43);
    }
}
