//! Earlier runs of a suite: what a run came to, in a table and, for runs on the same device, as lines. Times of
//! different devices are never joined. Leaves to others: finding the runs.

use serde::{Deserialize, Serialize};

use super::page::{Cell, table};
use super::svg::{Anchor, Scale, Svg, escape};
use super::timing::{Role, panel};
use super::{RunView, shortened};
use crate::decision::{CandidateDecision, Decision};
use crate::evidence::Mode;
use crate::gate::significant;
use crate::judge::compare;
use crate::subject::Subject;
use crate::suite::Suite;

/// One whole run, as history shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryPoint {
    /// Name of its directory.
    pub run: String,
    /// What it came to, or why its files cannot be read.
    pub outcome: Result<PastRun, String>,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastRun {
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// Commit of the sources.
    pub commit: Option<String>,
    /// Whether the sources differed from the commit.
    pub dirty: bool,
    /// The device's name.
    pub device: Option<String>,
    /// The device's unique id: two cards of one name are two devices.
    pub device_id: Option<String>,
    /// The decision.
    pub decision: Decision,
    /// Whether only a part of the suite was run.
    pub narrowed: bool,
    /// p50 of every variant, by shape.
    pub medians: Vec<PastMedian>,
}

/// A variant's p50 on a shape, in kernel mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastMedian {
    /// Shape.
    pub shape: String,
    /// Variant.
    pub variant: String,
    /// Microseconds.
    pub p50_us: f64,
    /// The unique id of the GPU that timed it, where several shared the shapes and it was not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
}

impl PastRun {
    /// What history keeps of a run.
    pub fn of(view: &RunView) -> PastRun {
        let environment = view.environment;
        let device = environment.device.as_ref();
        let samples = &view.evidence.samples;
        let comparisons = compare(view.suite, samples);
        let gpu = |shape: &str| samples.gpus.get(shape).filter(|gpu| device.is_none_or(|d| d.uuid != **gpu)).cloned();
        let timed = comparisons
            .iter()
            .filter(|c| c.mode == Mode::Kernel && view.suite.variant_names().any(|v| c.subject.is_plain(v)));
        PastRun {
            started: environment.started.clone(),
            commit: environment.commit.clone(),
            dirty: environment.dirty == Some(true),
            device: device.map(|d| d.name.clone()),
            device_id: device.map(|d| d.uuid.clone()),
            decision: view.decision.clone(),
            narrowed: !view.suite.narrowed.is_empty(),
            medians: timed
                .map(|c| PastMedian {
                    gpu: gpu(&c.shape),
                    shape: c.shape.clone(),
                    variant: c.subject.who.clone(),
                    p50_us: c.time_us.p50,
                })
                .collect(),
        }
    }

    fn median(&self, shape: &str, variant: &str) -> Option<&PastMedian> {
        self.medians.iter().find(|m| m.shape == shape && m.variant == variant)
    }

    /// The unique id of the GPU that timed a shape.
    pub(super) fn gpu(&self, shape: &str) -> Option<&str> {
        let timed = self.medians.iter().find(|m| m.shape == shape)?;
        timed.gpu.as_deref().or(self.device_id.as_deref())
    }

    /// A variant's time on a shape in microseconds.
    pub(super) fn us(&self, shape: &str, variant: &str) -> Option<f64> {
        self.median(shape, variant).map(|m| m.p50_us).filter(|us| us.is_finite())
    }
}

/// The section: earlier runs first, this one last.
pub(super) fn section(view: &RunView, earlier: &[HistoryPoint]) -> String {
    if earlier.is_empty() {
        return "<p>This is the first whole run of the suite in its folder: there is nothing to compare with.</p>\n"
            .to_owned();
    }
    let this = PastRun::of(view);
    let mut rows = vec![header(view.suite)];
    rows.extend(earlier.iter().map(|point| row(view.suite, &point.run, &point.outcome)));
    rows.push(row(view.suite, &format!("{} (this run)", view.name), &Ok(this.clone())));
    format!("{}{}", table("Earlier runs", &rows), plots(view, earlier, &this))
}

fn header(suite: &Suite) -> Vec<Cell> {
    let mut cells = vec!["when", "run", "commit", "device", "decision"].into_iter().map(Cell::text).collect::<Vec<_>>();
    for shape in &suite.time_shapes {
        cells.push(Cell::text(&format!("{shape}: p50 us")));
    }
    cells
}

fn row(suite: &Suite, run: &str, outcome: &Result<PastRun, String>) -> Vec<Cell> {
    let past = match outcome {
        Ok(past) => past,
        Err(why) => return vec![Cell::text(""), Cell::text(run), Cell::text(&format!("not read: {why}"))],
    };
    let commit = past.commit.as_deref().map_or("unknown", |c| c.get(..12).unwrap_or(c));
    let part = if past.narrowed { "part of the suite; " } else { "" };
    let mut cells = vec![
        Cell::figure(&past.started),
        Cell::text(run),
        Cell::text(&format!("{commit}{}", if past.dirty { " with uncommitted changes" } else { "" })),
        Cell::text(&match (&past.device, &past.device_id) {
            (Some(name), Some(id)) => format!("{name} ({})", shortened(id, 12)),
            _ => "no GPU".to_owned(),
        }),
        Cell::text(&format!("{part}{}", verdicts(&past.decision))),
    ];
    for shape in &suite.time_shapes {
        let times = compared_variants(suite)
            .filter_map(|variant| Some(format!("{variant} {}", significant(past.median(shape, variant)?.p50_us))))
            .collect::<Vec<_>>();
        cells.push(if times.is_empty() { Cell::text("not timed") } else { Cell::lines(&times) });
    }
    cells
}

/// The decision without its figures, which are of that run: "MERGE a | VALID NEGATIVE b".
fn verdicts(decision: &Decision) -> String {
    let verdict = |one: &CandidateDecision| format!("{} {}", one.verdict.word(), one.variant);
    decision.named().iter().map(verdict).collect::<Vec<_>>().join(" | ")
}

/// The control and the candidates of today's suite.
fn compared_variants(suite: &Suite) -> impl Iterator<Item = &str> {
    std::iter::once(suite.control.as_str()).chain(suite.candidates.iter().map(|c| c.variant.as_str()))
}

fn plots(view: &RunView, earlier: &[HistoryPoint], this: &PastRun) -> String {
    let Some(id) = &this.device_id else {
        return "<p>No lines are drawn: this run had no device to compare earlier ones with.</p>\n".to_owned();
    };
    let readable: Vec<&PastRun> = earlier.iter().filter_map(|p| p.outcome.as_ref().ok()).collect();
    let runs: Vec<&PastRun> =
        readable.iter().copied().filter(|p| p.device_id.as_ref() == Some(id)).chain([this]).collect();
    let others = readable.len() + 1 - runs.len();
    let left_out = match others {
        0 => String::new(),
        n => format!(" Earlier runs on other devices or on none ({n}) are in the table only."),
    };
    let drawn: Vec<String> = view.suite.time_shapes.iter().filter_map(|shape| plot(view.suite, &runs, shape)).collect();
    if drawn.is_empty() {
        return format!(
            "<p>No lines are drawn: no earlier run timed the same variants on this device.{left_out}</p>\n"
        );
    }
    let caption = format!(
        "p50 in us, kernel mode, of {} runs on this very device, oldest first.{left_out} Within a run the ratio \
         decides; between runs, temperature, driver and peers may differ too.",
        runs.len()
    );
    format!("<p class=\"soft\">{}</p>\n<div class=\"panels\">\n{}</div>\n", escape(&caption), drawn.concat())
}

/// Lines of one shape; `None` where fewer than two runs have a time.
fn plot(suite: &Suite, runs: &[&PastRun], shape: &str) -> Option<String> {
    let this = runs.last()?;
    let lines: Vec<(&str, Vec<(usize, f64)>)> = compared_variants(suite)
        .map(|variant| {
            let here = runs.iter().enumerate().filter(|(_, run)| run.gpu(shape) == this.gpu(shape));
            (variant, here.filter_map(|(i, run)| Some((i, run.us(shape, variant)?))).collect())
        })
        .collect();
    if lines.iter().all(|(_, times)| times.len() < 2) {
        return None;
    }
    let all: Vec<f64> = lines.iter().flat_map(|l| l.1.iter().map(|t| t.1)).collect();
    let (left, right, top, bottom) = (52.0, 262.0, 26.0, 150.0);
    let y = Scale::over(&all, (bottom, top))?;
    let x = Scale::linear((-0.4, runs.len() as f64 - 0.6), (left, right));
    let mut svg = Svg::new(340.0, 190.0, &format!("p50 on {shape} over {} runs", runs.len()));
    let axis = if y.is_log() { "us, logarithmic axis" } else { "us, axis not from zero" };
    svg.text("strong", Anchor::Start, (4.0, 10.0), shape);
    svg.text("aside", Anchor::End, (right, 10.0), axis);
    svg.y_axis(&y, (left, right), 4);
    let mut ends: Vec<(f64, &str, Role)> = Vec::new();
    for (variant, times) in &lines {
        let role = Role::of(suite, &Subject::plain(*variant));
        let corners: Vec<(f64, f64)> = times.iter().map(|(i, us)| (x.at(*i as f64), y.at(*us))).collect();
        svg.polyline(role.class(), &corners);
        for ((i, us), corner) in times.iter().zip(&corners) {
            let title = format!("{variant}, {}: {} us", runs[*i].started, significant(*us));
            svg.mark(role.mark(), role.class(), *corner, &title);
        }
        ends.extend(corners.last().map(|(_, height)| (*height, *variant, role)));
    }
    ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    let mut free = f64::NEG_INFINITY;
    for (height, variant, _) in ends {
        let at = height.max(free);
        svg.text("name", Anchor::Start, (right + 8.0, at), &shortened(variant, 11));
        free = at + 14.0;
    }
    let day = |run: &PastRun| run.started.get(..10).unwrap_or(&run.started).to_owned();
    svg.text("tick", Anchor::Start, (left, bottom + 12.0), &day(runs[0]));
    svg.text("tick", Anchor::End, (right, bottom + 12.0), &day(runs[runs.len() - 1]));
    svg.text("title", Anchor::Middle, ((left + right) / 2.0, bottom + 28.0), "run, oldest first");
    Some(panel(svg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::with_view;

    fn past(device_id: &str, us: f64) -> PastRun {
        with_view(&crate::judge::testing::evidence(), |view| {
            let medians = vec![PastMedian { shape: "mission".into(), variant: "old".into(), p50_us: us, gpu: None }];
            PastRun {
                device: Some("NVIDIA L4".into()),
                device_id: Some(device_id.into()),
                started: "2026-01-02T03:04:05Z".into(),
                medians,
                ..PastRun::of(view)
            }
        })
    }

    fn shown(earlier: Vec<Result<PastRun, String>>) -> String {
        let points: Vec<HistoryPoint> = earlier
            .into_iter()
            .enumerate()
            .map(|(i, outcome)| HistoryPoint { run: format!("run-{i}"), outcome })
            .collect();
        with_view(&crate::judge::testing::evidence(), |view| section(view, &points))
    }

    #[test]
    fn a_run_keeps_the_medians_of_its_variants_and_no_second_control() {
        let of_view = with_view(&crate::judge::testing::evidence(), PastRun::of);
        let variants: Vec<&str> = of_view.medians.iter().map(|m| m.variant.as_str()).collect();
        assert_eq!(variants, ["old", "new"]);
        assert_eq!(verdicts(&of_view.decision), "MERGE new");
    }

    #[test]
    fn lines_join_only_runs_on_this_very_device() {
        let joined = shown(vec![Ok(past("GPU-0", 111.5))]);
        assert!(joined.contains("<svg") && joined.contains("old, 2026-01-02T03:04:05Z: 111.5 us"), "{joined}");
        assert!(joined.contains("of 2 runs on this very device"), "{joined}");
        let other = shown(vec![Ok(past("GPU-1", 111.5))]);
        assert!(
            !other.contains("<svg") && other.contains("on other devices or on none (1) are in the table only"),
            "{other}"
        );
        assert!(other.contains("old 111.5") && other.contains("(GPU-1)"), "{other}");
    }

    #[test]
    fn a_shape_that_another_gpu_of_the_machine_timed_is_no_part_of_the_line() {
        let mut elsewhere = past("GPU-0", 111.5);
        elsewhere.medians[0].gpu = Some("GPU-7".into());
        assert_eq!((elsewhere.gpu("mission"), past("GPU-0", 1.0).gpu("mission")), (Some("GPU-7"), Some("GPU-0")));
        assert!(!shown(vec![Ok(elsewhere)]).contains("<svg"));
    }

    #[test]
    fn a_first_run_and_an_unreadable_one_are_said_in_words() {
        assert!(shown(vec![]).contains("first whole run"));
        let text = shown(vec![Err("samples.json is <gone>".into())]);
        assert!(text.contains("not read: samples.json is &lt;gone&gt;") && !text.contains("<svg"), "{text}");
    }
}
