//! The history of a line of kernels out of one run: every variant's time with its speedup over the control and over
//! PyTorch, from pairs of blocks of the same rounds. Times of different runs are never divided by each other.

use super::{Format, RunView, provenance, strings, table};
use crate::evidence::Mode;
use crate::gate::{State, significant};
use crate::judge::{compare, ratio};
use crate::operator::Distribution;
use crate::setting::Setting;
use crate::subject::Subject;

/// The peers that a speedup is given over.
const PEERS: [&str; 2] = ["torch/default", "torch/flash"];

/// Figures of an NVIDIA L4 that public reports of this line of work gave: variant, what the report says, in us.
/// Nobody reproduced them, and one of them is of another kernel: they stand beside ours and enter no ratio.
const REPORTED: [(&str, &str); 4] = [
    ("stage0", "2870 (an FP16 kernel; shape not named)"),
    ("stage1", "1199 (2,8,512,64); 656 in another report, shape not named"),
    ("stage2", "656.4 (2,8,512,64); 359 in that other report"),
    ("v1", "1378 (1,8,512,64)"),
];

/// One table for each timed shape of a run; empty without times.
pub fn speedups(view: &RunView, format: Format) -> String {
    let sections: Vec<String> = view
        .suite
        .time_shapes
        .iter()
        .filter_map(|shape| {
            let rows = rows(view, shape);
            let title = format!("{shape}, kernel time, p50; {}", control_against_itself(view, shape));
            (rows.len() > 1).then(|| format!("{title}\n\n{}\n", table(format, rows)))
        })
        .collect();
    match sections.as_slice() {
        [] => String::new(),
        sections => format!("{}\n\n{}", provenance(view), sections.join("\n")),
    }
}

/// What a ratio of 1 looks like in this run: without it the others cannot be read.
fn control_against_itself(view: &RunView, shape: &str) -> String {
    let control = &view.suite.control;
    let (again, itself) = (Subject::again(control), Subject::plain(control));
    match ratio(
        &view.evidence.samples.blocks,
        &Setting::hot(shape, Distribution::Normal, Mode::Kernel),
        [&again, &itself],
    ) {
        Some(ratio) => {
            let [at, low, high] = [ratio.estimate, ratio.low, ratio.high].map(significant);
            format!("{control} against itself {at} [{low}, {high}]")
        }
        None => format!("{control} was not timed against itself"),
    }
}

fn rows(view: &RunView, shape: &str) -> Vec<Vec<String>> {
    let control = view.suite.control.as_str();
    let over = |name: &str| format!("speedup over {name}");
    let mut header = strings(&["variant", "us"]);
    header.push(over(control));
    header.extend(PEERS.map(over));
    header.extend(strings(&["gates that fail", "reported for an L4, not reproduced: us"]));
    let mut rows = vec![header];
    let timed = compare(view.suite, &view.evidence.samples);
    for time in timed.iter().filter(|c| c.shape == shape && c.mode == Mode::Kernel) {
        let subject = &time.subject;
        let speedup = |than: &str| {
            let setting = time.setting();
            match ratio(&view.evidence.samples.blocks, &setting, [&Subject::plain(than), subject]) {
                _ if subject.is_plain(than) => "1".to_owned(),
                Some(ratio) => {
                    let [at, low, high] = [ratio.estimate, ratio.low, ratio.high].map(significant);
                    format!("{at} [{low}, {high}]")
                }
                None => "-".to_owned(),
            }
        };
        let failing: Vec<&str> = view
            .gates
            .iter()
            .filter(|g| subject.is_plain(&g.variant) && g.state == State::Fail)
            .map(|g| g.figure.as_str())
            .collect();
        let reported = REPORTED.iter().find(|(variant, _)| subject.is_plain(variant));
        rows.push(vec![
            subject.to_string(),
            significant(time.time_us.p50),
            speedup(control),
            speedup(PEERS[0]),
            speedup(PEERS[1]),
            if failing.is_empty() { "-".to_owned() } else { failing.join(", ") },
            reported.map_or("-", |(_, figures)| figures).to_owned(),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;
    use crate::report::testing::with_view;

    #[test]
    fn speedups_are_of_the_rounds_of_this_run() {
        let mut evidence = testing::evidence();
        for round in 0..16 {
            evidence.samples.blocks.push(testing::block("torch/flash", round, Mode::Kernel, 160.0));
        }
        let text = with_view(&evidence, |view| speedups(view, Format::Markdown));
        let row = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(&format!("| {name} "))).unwrap_or_else(|| panic!("{text}"));
            line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        };
        let new = row("new");
        assert!(new[3].starts_with("1.250 ["), "{new:?}");
        assert_eq!(new[4], "-", "torch/default was not timed: {new:?}");
        assert!(new[5].starts_with("2 [1.99"), "{new:?}");
        assert_eq!(row("old")[3], "1");
        assert!(text.contains("old against itself 1"), "{text}");
    }

    #[test]
    fn without_times_there_is_no_history() {
        let mut evidence = testing::evidence();
        evidence.samples = crate::evidence::Samples {
            deferred: Some(crate::deferral::Deferral::new("no GPU", "get one")),
            ..Default::default()
        };
        assert_eq!(with_view(&evidence, |view| speedups(view, Format::Markdown)), "");
    }

    #[test]
    fn a_variant_that_fails_a_gate_says_so_beside_its_time() {
        let mut evidence = testing::evidence();
        let case = evidence.checks.cases.iter_mut().find(|c| c.variant == "new").unwrap();
        case.errors.as_mut().unwrap().nan = 9;
        let text = with_view(&evidence, |view| speedups(view, Format::Markdown));
        assert!(text.lines().any(|l| l.starts_with("| new ") && l.contains("finite output")), "{text}");
    }
}
