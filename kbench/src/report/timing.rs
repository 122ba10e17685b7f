//! The plots of one timed shape: block medians of every subject and paired ratios over rounds. Draws only
//! what was measured; what was not is said in words. Leaves to others: the roofline (`roofline`) and the page around it (`page`).

use std::fmt::Write;

use super::svg::{Anchor, Mark, Scale, Svg, escape, extent};
use super::{RunView, roofline};
use crate::evidence::{Block, Mode};
use crate::gate::significant;
use crate::judge::{Comparison, paired_rounds, ratio};
use crate::operator::{Distribution, Shape};
use crate::setting::Setting;
use crate::subject::{Arm, Subject};
use crate::suite::{PerformanceLimit, Suite};
use stats::{Interval, median, quantile};

/// What a subject is to the suite; it gives the mark and the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The accepted variant.
    Control,
    /// Its second block of a round.
    Again,
    /// Wants to replace it.
    Candidate,
    /// An earlier variant.
    Baseline,
    /// Somebody else's kernel.
    Peer,
}

impl Role {
    /// All of them, in the order of plots.
    pub(super) const ALL: [Role; 5] = [Role::Control, Role::Again, Role::Candidate, Role::Baseline, Role::Peer];

    /// The role of a subject.
    pub(super) fn of(suite: &Suite, subject: &Subject) -> Role {
        if subject.is_plain(&suite.control) {
            Role::Control
        } else if subject.arm == Arm::Again {
            Role::Again
        } else if suite.candidates.iter().any(|c| subject.is_plain(&c.variant)) {
            Role::Candidate
        } else if suite.baselines.iter().any(|b| subject.is_plain(b)) {
            Role::Baseline
        } else {
            Role::Peer
        }
    }

    /// Class of the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Role::Control => "control",
            Role::Again => "again",
            Role::Candidate => "candidate",
            Role::Baseline => "baseline",
            Role::Peer => "peer",
        }
    }

    /// The mark in plots.
    pub(super) fn mark(self) -> Mark {
        match self {
            Role::Control => Mark::Diamond,
            Role::Again => Mark::HollowDiamond,
            Role::Candidate => Mark::Dot,
            Role::Baseline => Mark::Ring,
            Role::Peer => Mark::Square,
        }
    }

    /// The mark as a letter and what it stands for.
    pub(super) fn legend(self) -> (char, &'static str) {
        match self {
            Role::Control => ('◆', "control"),
            Role::Again => ('◇', "control again (A/A)"),
            Role::Candidate => ('●', "candidate"),
            Role::Baseline => ('○', "earlier variant"),
            Role::Peer => ('■', "peer"),
        }
    }
}

/// One block of a strip.
#[derive(Clone, Copy, Debug)]
struct Point {
    round: u32,
    /// Its median in microseconds, or what a plot makes of it.
    value: f64,
    /// Whether it is compared, or dropped.
    kept: bool,
}

/// One subject on one shape, in kernel mode.
pub(super) struct Row<'a> {
    /// Variant, its second block, or peer.
    pub(super) subject: &'a Subject,
    /// What it is to the suite.
    pub(super) role: Role,
    /// p50 over all samples of usable blocks, as in the tables.
    pub(super) p50: Option<f64>,
    /// Every block that has a median.
    blocks: Vec<Point>,
    /// Why there is nothing to draw.
    absent: String,
}

impl Row<'_> {
    /// The name in plots.
    pub(super) fn label(&self) -> String {
        let name = match self.subject.arm {
            Arm::Again => format!("{} again", self.subject.who),
            Arm::Plain | Arm::FromOriginals => self.subject.to_string(),
        };
        super::shortened(&name, 20)
    }

    /// The deviation of every compared block from the subject's own p50, in percent.
    fn spread(&self) -> Vec<Point> {
        let Some(p50) = self.p50 else { return Vec::new() };
        let kept = self.blocks.iter().filter(|b| b.kept);
        kept.map(|b| Point { value: 100.0 * (b.value / p50 - 1.0), ..*b }).collect()
    }
}

/// Every subject that has a block or a failure on the shape: variants in the suite's order, then peers by name.
fn rows<'a>(view: &RunView<'a>, comparisons: &[Comparison], shape: &str) -> Vec<Row<'a>> {
    let samples = &view.evidence.samples;
    let mut subjects: Vec<&Subject> = samples.blocks.iter().filter(|b| b.shape == shape).map(|b| &b.subject).collect();
    subjects.extend(samples.failures.iter().filter(|f| f.shape == shape).map(|f| &f.subject));
    let place = |subject: &Subject| match subject.arm {
        Arm::Plain | Arm::Again => view.suite.variant_names().position(|v| v == subject.who).unwrap_or(usize::MAX),
        Arm::FromOriginals => usize::MAX,
    };
    subjects.sort_by_key(|s| (place(s), *s));
    subjects.dedup();
    subjects.into_iter().map(|subject| row(view, comparisons, shape, subject)).collect()
}

fn row<'a>(view: &RunView<'a>, comparisons: &[Comparison], shape: &str, subject: &'a Subject) -> Row<'a> {
    let samples = &view.evidence.samples;
    let here =
        |b: &&Block| Setting::of(b) == Setting::hot(shape, Distribution::Normal, Mode::Kernel) && b.subject == *subject;
    let all: Vec<&Block> = samples.blocks.iter().filter(here).collect();
    let point = |b: &&Block| Some(Point { round: b.round, value: median(&b.us)?, kept: b.rejected().is_none() });
    let blocks = all.iter().filter_map(point).collect();
    let compared = comparisons.iter().find(|c| c.subject == *subject && c.shape == shape && c.mode == Mode::Kernel);
    let usable: Vec<f64> = all.iter().filter(|b| b.rejected().is_none()).flat_map(|b| b.us.iter().copied()).collect();
    let failure = samples.failures.iter().find(|f| f.shape == shape && f.subject == *subject);
    let absent = match (failure, all.first().and_then(|b| b.rejected())) {
        (Some(failure), _) => format!("not timed: {}", failure.why),
        (None, Some(why)) => format!("no usable block: {why}"),
        (None, None) => "no usable block in kernel mode".to_owned(),
    };
    Row {
        subject,
        role: Role::of(view.suite, subject),
        p50: compared.map(|c| c.time_us.p50).or_else(|| median(&usable)),
        blocks,
        absent,
    }
}

/// Everything that is drawn of one shape.
pub(super) fn section(view: &RunView, comparisons: &[Comparison], shape: &Shape) -> String {
    let rows = rows(view, comparisons, &shape.name);
    if rows.is_empty() {
        return "<p>Nothing was timed on this shape.</p>\n".to_owned();
    }
    let mut text = distributions(&rows);
    text.push_str(&ratios(view, &rows, &shape.name));
    match &view.evidence.samples.device {
        Some(device) => text.push_str(&roofline::figure(view, device, &rows, shape)),
        None => text.push_str("<p>No roofline: the device is not known.</p>\n"),
    }
    text
}

const ROW: f64 = 24.0;
const WIDTH: f64 = 560.0;
const LEFT: f64 = 132.0;
const RIGHT: f64 = 448.0;

fn distributions(rows: &[Row]) -> String {
    let mut text = "<h4>Block medians</h4>\n<div class=\"pair\">\n".to_owned();
    let all: Vec<f64> = rows.iter().flat_map(|r| r.blocks.iter().map(|b| b.value)).collect();
    if let Some(scale) = Scale::over(&all, (LEFT, RIGHT)) {
        let axis = if scale.is_log() { "logarithmic axis" } else { "linear axis, not from zero" };
        let caption = format!(
            "Time of one launch in us, kernel mode, {axis}. A mark is the median of one block (of at most 20), the box its quartiles \
             over rounds, the stroke the p50 of all samples (the figure at the right)."
        );
        let title = format!("us per launch ({axis})");
        let points = |row: &Row| row.blocks.clone();
        let value = |row: &Row| row.p50.map_or(String::new(), significant);
        text.push_str(&figure("", &strips(rows, &scale, &title, "p50 us", &points, &value, |r| r.p50), &caption));
    }
    let deviations: Vec<f64> = rows.iter().flat_map(|r| r.spread()).map(|b| b.value.abs()).collect();
    if let Some(limit) = spread_limit(&deviations) {
        let scale = Scale::linear((-limit, limit), (LEFT, RIGHT));
        let beyond = deviations.iter().filter(|d| **d > limit).count();
        let outside = if beyond == 0 {
            String::new()
        } else {
            format!(" Blocks beyond the axis ({beyond}) are arrows at its end; the range at the right has them.")
        };
        let caption = format!(
            "The same blocks around each subject's own p50, in percent: how steady it is. Dropped \
             blocks are left out.{outside}"
        );
        let range = |row: &Row| {
            let spread: Vec<f64> = row.spread().iter().map(|b| b.value).collect();
            extent(&spread).map_or(String::new(), |(low, high)| format!("{low:+.2} … {high:+.2}"))
        };
        let drawn = strips(rows, &scale, "% from the subject's p50", "range %", &|r| r.spread(), &range, |_| Some(0.0));
        text.push_str(&figure("", &drawn, &caption));
    }
    text + "</div>\n"
}

/// Wide enough for nine blocks of ten; single wild blocks would press all others onto the middle.
fn spread_limit(deviations: &[f64]) -> Option<f64> {
    let largest = extent(deviations)?.1;
    let most = quantile(deviations, 0.9)? * 1.6;
    Some(if largest <= 2.0 * most { largest * 1.05 } else { most }.max(0.2))
}

/// One strip for each subject: name, box, marks, and a figure at the right.
fn strips(
    rows: &[Row],
    scale: &Scale,
    title: &str,
    column: &str,
    points: &dyn Fn(&Row) -> Vec<Point>,
    value: &dyn Fn(&Row) -> String,
    middle: impl Fn(&Row) -> Option<f64>,
) -> String {
    let top = 22.0;
    let bottom = top + ROW * rows.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + 40.0, title);
    for (i, _) in rows.iter().enumerate().filter(|(_, r)| r.role == Role::Control) {
        svg.rect("even", (0.0, top + ROW * i as f64), (WIDTH, top + ROW * (i + 1) as f64));
    }
    svg.x_axis(scale, (top, bottom), title);
    svg.text("aside", Anchor::End, (WIDTH - 2.0, 10.0), column);
    for (i, row) in rows.iter().enumerate() {
        let y = top + ROW * (i as f64 + 0.5);
        let class = if row.role == Role::Control { "strong" } else { "name" };
        svg.text(class, Anchor::End, (LEFT - 10.0, y), &row.label());
        let points = points(row);
        if points.is_empty() {
            svg.text("aside", Anchor::Start, (LEFT + 6.0, y), &super::shortened(&row.absent, 52));
            continue;
        }
        strip(&mut svg, row, scale, y, &points, middle(row));
        svg.text(class, Anchor::End, (WIDTH - 2.0, y), &value(row));
    }
    svg.finish()
}

fn strip(svg: &mut Svg, row: &Row, scale: &Scale, y: f64, points: &[Point], middle: Option<f64>) {
    let class = row.role.class();
    let kept: Vec<f64> = points.iter().filter(|p| p.kept).map(|p| p.value).collect();
    if let (Some(low), Some(high)) = (quantile(&kept, 0.25), quantile(&kept, 0.75)) {
        svg.rect(&format!("box {class}"), (scale.at(low), y - 7.0), (scale.at(high), y + 7.0));
    }
    let mut usual = Vec::new();
    for Point { round, value, kept } in points {
        // Rounds are spread over the height of the strip, so that equal times do not hide each other.
        let height = y + f64::from(round * 5 % 9) - 4.0;
        let title = format!("{} round {round}: {}", row.subject, significant(*value));
        let at = (scale.at(*value), height);
        match kept {
            false => svg.mark(Mark::Cross, "dropped", at, &format!("{title}, dropped: the clock was held down")),
            true if scale.holds(*value) => usual.push(at),
            true => svg.mark(if *value < 0.0 { Mark::Left } else { Mark::Right }, class, at, &title),
        }
    }
    svg.marks(row.role.mark(), class, &thinned(&usual));
    if let (Some(middle), false) = (middle, kept.is_empty()) {
        let x = scale.at(middle);
        svg.line(&format!("middle {class}"), (x, y - 9.0), (x, y + 9.0));
    }
}

/// As many of the usual marks as a page has room for; those that lie apart are drawn in any case, and figures are of all.
fn thinned(marks: &[(f64, f64)]) -> Vec<(f64, f64)> {
    const MOST: usize = 20;
    marks.iter().copied().step_by(marks.len().div_ceil(MOST).max(1)).collect()
}

/// A drawing in its own scroll box, with its caption.
pub(super) fn figure(class: &str, drawing: &str, caption: &str) -> String {
    format!(
        "<figure class=\"{class}\"><div class=\"canvas\" tabindex=\"0\">{drawing}</div><figcaption>{}</figcaption></figure>\n",
        escape(caption)
    )
}

/// One of many small drawings, which have their titles inside.
pub(super) fn panel(svg: Svg) -> String {
    format!("<figure>{}</figure>\n", svg.finish())
}

/// The control against itself, then every other subject against the control.
fn ratios(view: &RunView, rows: &[Row], shape: &str) -> String {
    let control = &view.suite.control;
    let mut text = format!(
        "<h4>Ratio to the control, round by round</h4>\n<p class=\"soft\">A mark is time over the time of {} in the \
         same round, of at most 20 rounds; below 1 is faster. The band is the 95% interval of the median. Each panel has its own axis; a \
         slope is drift that pairing did not remove. Peers and earlier variants are in the tables and the plot above.</p>\n\
         <div class=\"panels\">\n",
        escape(control)
    );
    let mut drawn: Vec<&Row> = rows.iter().filter(|r| matches!(r.role, Role::Again | Role::Candidate)).collect();
    drawn.sort_by_key(|r| r.role);
    for row in &drawn {
        text.push_str(&ratio_panel(view, row, shape));
    }
    if !drawn.iter().any(|r| r.role == Role::Again) {
        text.push_str("<p>The control was not measured against itself on this shape.</p>\n");
    }
    text + "</div>\n"
}

fn ratio_panel(view: &RunView, row: &Row, shape: &str) -> String {
    let control = &view.suite.control;
    let itself = Subject::plain(control);
    let rounds = paired_rounds(&view.evidence.samples.blocks, shape, Mode::Kernel, row.subject, &itself);
    let setting = Setting::hot(shape, Distribution::Normal, Mode::Kernel);
    let interval = ratio(&view.evidence.samples.blocks, &setting, [row.subject, &itself]);
    let points: Vec<(u32, f64)> =
        rounds.iter().map(|(round, (a, b))| (*round, a / b)).filter(|p| p.1.is_finite()).collect();
    let name = if row.role == Role::Again { format!("A/A: {control} again") } else { row.subject.to_string() };
    let Some((low, high)) = ratio_axis(&points, interval) else {
        return format!("<p><b>{}</b>: no ratio to the control; {}</p>\n", escape(&name), escape(&row.absent));
    };
    let figures = match interval {
        Some(i) => format!("{} [{}, {}]", significant(i.estimate), significant(i.low), significant(i.high)),
        None => format!("no interval: {} usable rounds are too few", points.len()),
    };
    let notes: Vec<String> =
        [gate_note(view, row, shape, (low, high)), beyond_note(&points, (low, high))].into_iter().flatten().collect();
    let (left, right, top, bottom) = (58.0, 334.0, 26.0, 134.0);
    let height = bottom + 20.0 + 16.0 * notes.len() as f64;
    let mut svg = Svg::new(340.0, height, &format!("{name} over {control} by round: {figures}"));
    let y = Scale::linear((low, high), (bottom, top));
    svg.text("strong", Anchor::Start, (4.0, 10.0), &super::shortened(&name, 22));
    svg.text("name", Anchor::End, (right, 10.0), &figures);
    svg.y_axis(&y, (left, right), 4);
    ratio_lines(view, row, shape, &mut svg, &y, (left, right), interval);
    let last = rounds.keys().copied().max().unwrap_or(0);
    let x = Scale::linear((-0.6, f64::from(last.max(1)) + 0.6), (left, right));
    let place = |(round, ratio): &(u32, f64)| (x.at(f64::from(*round)), y.at(*ratio));
    let (usual, beyond): (Vec<(u32, f64)>, Vec<_>) = points.iter().partition(|p| low <= p.1 && p.1 <= high);
    svg.marks(row.role.mark(), row.role.class(), &thinned(&usual.iter().map(place).collect::<Vec<_>>()));
    for point in &beyond {
        let mark = if point.1 > high { Mark::Up } else { Mark::Down };
        svg.mark(mark, row.role.class(), place(point), &format!("round {}: {}", point.0, significant(point.1)));
    }
    for round in [0, last] {
        svg.text("tick", Anchor::Middle, (x.at(f64::from(round)), bottom + 11.0), &round.to_string());
    }
    svg.text("title", Anchor::Middle, ((left + right) / 2.0, bottom + 11.0), "round");
    for (i, note) in notes.iter().enumerate() {
        svg.text("aside", Anchor::Start, (4.0, bottom + 27.0 + 16.0 * i as f64), note);
    }
    panel(svg)
}

/// Around the median and wide enough for most rounds and for the interval; single wild rounds would hide a drift.
fn ratio_axis(points: &[(u32, f64)], interval: Option<Interval>) -> Option<(f64, f64)> {
    let ratios: Vec<f64> = points.iter().map(|p| p.1).collect();
    let centre = median(&ratios)?;
    let deviations: Vec<f64> = ratios.iter().map(|r| 100.0 * (r / centre - 1.0).abs()).collect();
    let room = centre * spread_limit(&deviations)? / 100.0;
    let (low, high) = interval.map_or((centre, centre), |i| (i.low, i.high));
    Some(((centre - room).min(low), (centre + room).max(high)))
}

/// The interval, the line of equality and the gate, where they are on the axis.
fn ratio_lines(
    view: &RunView,
    row: &Row,
    shape: &str,
    svg: &mut Svg,
    y: &Scale,
    (left, right): (f64, f64),
    interval: Option<Interval>,
) {
    let class = row.role.class();
    if let Some(i) = interval {
        svg.rect(&format!("box {class}"), (left, y.at(i.low)), (right, y.at(i.high)));
        svg.line(&format!("middle {class}"), (left, y.at(i.estimate)), (right, y.at(i.estimate)));
    }
    let gate = bound_of(view, row, shape);
    for (class, value) in [("unity", Some(1.0)), ("gate", gate)] {
        if let Some(value) = value.filter(|v| y.holds(*v)) {
            svg.line(class, (left, y.at(value)), (right, y.at(value)));
        }
    }
}

/// The ratio that the interval of a candidate must not exceed on a gated shape.
pub(super) fn gate_bound(view: &RunView, candidate: &str, shape: &str) -> Option<f64> {
    let drawn = |l: &&PerformanceLimit| l.shape == shape && l.against.is_none() && l.holds_for(candidate);
    let limit = view.suite.performance.iter().find(drawn)?;
    Some(1.0 - limit.min_latency_reduction)
}

/// The bound of a row, which only a candidate has.
fn bound_of(view: &RunView, row: &Row, shape: &str) -> Option<f64> {
    (row.role == Role::Candidate).then(|| gate_bound(view, &row.subject.who, shape))?
}

fn gate_note(view: &RunView, row: &Row, shape: &str, (low, high): (f64, f64)) -> Option<String> {
    let bound = bound_of(view, row, shape)?;
    let place = match bound {
        bound if bound < low => "below this axis",
        bound if bound > high => "above this axis",
        _ => "dashed line",
    };
    Some(format!("gate: interval at or below {} ({place})", significant(bound)))
}

fn beyond_note(points: &[(u32, f64)], (low, high): (f64, f64)) -> Option<String> {
    let beyond: Vec<String> = points
        .iter()
        .filter(|p| p.1 < low || p.1 > high)
        .map(|(round, ratio)| format!("{} in round {round}", significant(*ratio)))
        .collect();
    match beyond.len() {
        0 => None,
        1 | 2 => Some(format!("beyond the axis: {}", beyond.join(", "))),
        n => Some(format!("beyond the axis: {n} rounds, among them {}", beyond[0])),
    }
}

/// What the marks mean.
pub(super) fn legend() -> String {
    let mut text = "<p class=\"soft\">".to_owned();
    for role in Role::ALL {
        let (letter, word) = role.legend();
        let _ = write!(text, "<span class=\"key {}\"><b>{letter}</b> {word}</span>", role.class());
    }
    text + "<span class=\"key dropped\"><b>×</b> dropped block</span></p>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Evidence, compare, testing};
    use crate::report::testing::with_view;

    fn drawn(evidence: &Evidence) -> String {
        with_view(evidence, |view| {
            section(view, &compare(view.suite, &view.evidence.samples), &"mission".parse().unwrap())
        })
    }

    #[test]
    fn every_subject_is_in_the_plots_whether_it_has_times_or_not() {
        let mut evidence = testing::evidence();
        let peer = (0..16).map(|round| testing::block("torch/flash", round, Mode::Kernel, 700.0));
        evidence.samples.blocks.extend(peer);
        evidence.samples.blocks.push(testing::block("torch/call-only", 0, Mode::Call, 9.0));
        evidence.samples.failures.push(crate::evidence::TimingFailure {
            shape: "mission".into(),
            subject: "torch/math".into(),
            why: "out of memory".into(),
        });
        let text = drawn(&evidence);
        for name in ["old", "old again", "new", "torch/flash", "torch/call-only", "torch/math"] {
            assert!(text.contains(&format!(">{name}</text>")), "`{name}` has no strip: {text}");
        }
        assert!(text.contains(">A/A: old again</text>"), "{text}");
        assert!(text.contains("not timed: out of memory") && text.contains("no usable block in kernel mode"), "{text}");
        assert!(text.contains("logarithmic axis. A mark"), "700 us beside 80 us: {text}");
        assert!(drawn(&testing::evidence()).contains("linear axis, not from zero. A mark"));
    }

    #[test]
    fn a_dropped_block_is_crossed_and_out_of_the_ratios() {
        let mut evidence = testing::evidence();
        let thrown = |b: &&mut Block| b.subject.is_plain("new") && b.round < 12;
        for block in evidence.samples.blocks.iter_mut().filter(thrown) {
            block.after.throttle.push("thermal".into());
        }
        let text = drawn(&evidence);
        assert_eq!(text.matches("mark dropped hollow").count(), 12);
        assert!(text.contains("no interval: 4 usable rounds are too few"), "{text}");
        for block in evidence.samples.blocks.iter_mut().filter(|b| b.subject.is_plain("new")) {
            block.after.throttle.push("thermal".into());
        }
        assert!(drawn(&evidence).contains("<b>new</b>: no ratio to the control; no usable block: clock held down"));
    }

    #[test]
    fn samples_that_are_not_numbers_are_never_coordinates() {
        let mut evidence = testing::evidence();
        for block in evidence.samples.blocks.iter_mut().filter(|b| b.round % 3 == 0) {
            block.us[0] = if block.round == 0 { f64::INFINITY } else { f64::NAN };
        }
        let text = drawn(&evidence);
        for bad in ["NaN", "inf\"", "inf,", ",inf"] {
            assert!(!text.contains(bad), "{bad} in {text}");
        }
        assert!(text.contains("<svg"));
    }

    #[test]
    fn a_wild_round_is_named_and_does_not_hide_the_others() {
        let mut evidence = testing::evidence();
        for block in evidence.samples.blocks.iter_mut().filter(|b| b.subject.is_plain("new") && b.round == 3) {
            block.us.iter_mut().for_each(|us| *us *= 2.0);
        }
        let text = drawn(&evidence);
        assert!(text.contains("beyond the axis: 1.597 in round 3"), "{text}");
        assert!(!drawn(&testing::evidence()).contains("beyond the axis"));
    }

    #[test]
    fn the_gate_is_drawn_or_its_place_is_said() {
        let text = drawn(&testing::evidence());
        assert!(text.contains("at or below 0.9000 (above this axis)"), "{text}");
        let mut near = testing::evidence();
        near.samples = testing::samples(100.0, 90.0);
        let text = drawn(&near);
        assert!(text.contains("at or below 0.9000 (dashed line)") && text.contains("class=\"gate\""), "{text}");
    }
}
