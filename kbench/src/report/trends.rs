//! `history --html`: one page over many runs. For each suite and GPU a drawing for each shape, with a strip for each candidate:
//! its time in every run, coloured by the verdict, over its control's; each point opens the report of its run. Never two
//! devices in one line. Leaves to others: finding the runs.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::history::PastRun;
use super::page::{self, Cell, table};
use super::svg::{Anchor, Scale, Svg, escape, extent};
use super::timing::panel;
use super::{RunView, shortened};
use crate::decision::{Decision, Verdict};
use crate::gate::significant;

/// The page is never larger: beyond that, older runs are left out of the drawings, and then of the table.
const MOST_BYTES: usize = 480_000;

/// A run in the list of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The run directory's name.
    pub run: String,
    /// Where its report is, from the page; none where it has none.
    pub report: Option<String>,
    /// What it came to, or in words why that is not known.
    pub outcome: Result<TrendRun, String>,
}

/// What the page shows of a judged run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrendRun {
    /// The suite.
    pub suite: String,
    /// The control that its candidates were compared with.
    pub control: String,
    /// What it came to.
    pub past: PastRun,
}

impl TrendRun {
    /// What is kept of a run.
    pub fn of(view: &RunView) -> TrendRun {
        let (suite, control) = (view.suite.name.clone(), view.suite.control.clone());
        TrendRun { suite, control, past: PastRun::of(view) }
    }

    fn verdict(&self, candidate: &str) -> Option<Verdict> {
        let decision = &self.past.decision;
        let decided = decision.broken.iter().chain(&decision.candidates).find(|c| c.variant == candidate)?;
        Some(decided.verdict)
    }

    /// A candidate's time over its control's.
    fn ratio(&self, shape: &str, candidate: &str) -> Option<f64> {
        let ratio = self.past.us(shape, candidate)? / self.past.us(shape, &self.control)?;
        (ratio.is_finite() && candidate != self.control).then_some(ratio)
    }

    /// Shapes that were timed, in order, each once.
    fn shapes(&self) -> Vec<&str> {
        let mut shapes: Vec<&str> = Vec::new();
        for median in &self.past.medians {
            if !shapes.contains(&median.shape.as_str()) {
                shapes.push(&median.shape);
            }
        }
        shapes
    }
}

/// A judged run with where its report is.
type Judged<'a> = (&'a Entry, &'a TrendRun);

/// The page over runs, oldest first.
pub fn trends_html(entries: &[Entry]) -> String {
    let (mut drawn, mut listed) = (entries.len(), entries.len());
    loop {
        let text = page(entries, drawn, listed);
        if text.len() <= MOST_BYTES || drawn <= 2 && listed <= 2 {
            return text;
        }
        // The drawings are the larger part; a table of names alone has room for thousands.
        if drawn > listed / 3 { drawn = drawn * 4 / 5 } else { listed = listed * 4 / 5 }
    }
}

/// With the newest `drawn` in the drawings and the newest `listed` in the table.
fn page(entries: &[Entry], drawn: usize, listed: usize) -> String {
    let recent = &entries[entries.len().saturating_sub(drawn)..];
    let judged: Vec<Judged> = recent.iter().filter_map(|e| Some((e, e.outcome.as_ref().ok()?))).collect();
    let groups = groups(&judged);
    let mut page = page::head("History of runs");
    let _ = writeln!(page, "<header>\n<h1>History of {} runs</h1>\n<p class=\"soft\">{}</p>", entries.len(), legend());
    if drawn < entries.len() {
        let _ = writeln!(
            page,
            "<p class=\"soft\">The drawings have the newest {drawn} runs, for the size of the page.</p>"
        );
    }
    page.push_str("</header>\n<nav aria-label=\"Sections\">\n");
    for (i, group) in groups.iter().enumerate() {
        let _ = writeln!(page, "<a href=\"#g{i}\">{}</a>", escape(&format!("{} on {}", group.suite, group.name)));
    }
    page.push_str("<a href=\"#runs\">All runs</a>\n</nav>\n<main>\n");
    for (i, group) in groups.iter().enumerate() {
        let _ = writeln!(page, "<section id=\"g{i}\">\n{}</section>", group.html());
    }
    let _ = writeln!(page, "<section id=\"runs\">\n<h2>All runs</h2>\n{}</section>", list(entries, listed));
    page + "</main>\n</body>\n</html>\n"
}

fn legend() -> String {
    let key = |verdict: Verdict| {
        let (class, sign) = look(verdict);
        format!("<span class=\"key {class}\">{sign} {}</span>", verdict.word())
    };
    let keys = [Verdict::Merge, Verdict::ValidNegative, Verdict::Fix, Verdict::Defer].map(key);
    format!(
        "{} A point is the kernel time of a candidate over its control's, median over median of one run, and opens the report \
         of that run. A line ends where another variant became the control: ratios to two controls say nothing of each other.",
        keys.concat()
    )
}

/// Class and sign of a verdict.
fn look(verdict: Verdict) -> (&'static str, char) {
    match verdict {
        Verdict::Merge => ("good", '✓'),
        Verdict::Fix => ("bad", '✗'),
        Verdict::ValidNegative => ("open", '−'),
        Verdict::Defer => ("none", '…'),
    }
}

/// The runs of one suite in which one GPU timed something.
struct Group<'a> {
    suite: &'a str,
    /// The device's model.
    name: &'a str,
    /// Its unique id: two cards of one model are two devices.
    gpu: &'a str,
    runs: Vec<Judged<'a>>,
}

/// By suite and GPU, in the order in which they were first seen.
fn groups<'a>(judged: &[Judged<'a>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (entry, run) in judged {
        let Some(name) = &run.past.device else { continue };
        let gpus: BTreeSet<&str> = run.shapes().into_iter().filter_map(|shape| run.past.gpu(shape)).collect();
        for gpu in gpus {
            match groups.iter_mut().find(|group| group.suite == run.suite && group.gpu == gpu) {
                Some(group) => group.runs.push((entry, run)),
                None => groups.push(Group { suite: &run.suite, name, gpu, runs: vec![(entry, run)] }),
            }
        }
    }
    groups
}

impl Group<'_> {
    fn html(&self) -> String {
        let mut html = format!("<h2>{} on {}</h2>\n", escape(self.suite), escape(self.name));
        let _ = writeln!(
            html,
            "<p class=\"soft\">{}: {} runs, oldest first, from {} to {}. Each drawing is of this very card.</p>",
            escape(self.gpu),
            self.runs.len(),
            escape(day(self.runs[0].1)),
            escape(day(self.runs[self.runs.len() - 1].1)),
        );
        html.push_str("<div class=\"panels\">\n");
        let mut shapes: Vec<&str> = Vec::new();
        for shape in self.runs.iter().flat_map(|(_, run)| run.shapes()) {
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        }
        shapes.iter().filter_map(|shape| self.drawing(shape)).for_each(|drawing| html.push_str(&drawing));
        html + "</div>\n"
    }

    /// One shape: a strip for each candidate, all over the same runs.
    fn drawing(&self, shape: &str) -> Option<String> {
        let runs: Vec<Judged> =
            self.runs.iter().copied().filter(|(_, run)| run.past.gpu(shape) == Some(self.gpu)).collect();
        let mut candidates: Vec<&str> = Vec::new();
        for decided in runs.iter().flat_map(|(_, run)| &run.past.decision.candidates) {
            let timed = || runs.iter().any(|(_, run)| run.ratio(shape, &decided.variant).is_some());
            if !candidates.contains(&decided.variant.as_str()) && timed() {
                candidates.push(&decided.variant);
            }
        }
        if candidates.is_empty() {
            return None;
        }
        let height = TOP + STRIP * candidates.len() as f64;
        let mut svg = Svg::new(WIDTH, height + 20.0, &format!("{shape}: kernel times over {} runs", runs.len()));
        svg.text("strong", Anchor::Start, (4.0, 10.0), shape);
        svg.text("aside", Anchor::End, (RIGHT, 10.0), "time over the control's");
        let x = Scale::linear((-0.5, runs.len() as f64 - 0.5), (LEFT, RIGHT));
        let strips: Vec<Strip> = candidates
            .iter()
            .enumerate()
            .filter_map(|(i, candidate)| Strip::of(&runs, shape, candidate, TOP + STRIP * i as f64))
            .collect();
        strips.iter().for_each(|strip| strip.frame(&mut svg, &runs, shape, &x));
        for (i, (entry, run)) in runs.iter().enumerate() {
            let size = if runs.len() > CROWD { "point small" } else { "point" };
            points(&mut svg, &strips, (entry, run), shape, (x.at(i as f64), size));
        }
        svg.text("tick", Anchor::Start, (LEFT, height + 10.0), day(runs[0].1));
        svg.text("tick", Anchor::End, (RIGHT, height + 10.0), day(runs[runs.len() - 1].1));
        Some(panel(svg))
    }
}

/// Sizes of a drawing: all of it, the plot's sides, where strips begin, and how high one is.
const WIDTH: f64 = 340.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 334.0;
const TOP: f64 = 22.0;
const STRIP: f64 = 66.0;
/// From so many runs on points are small.
const CROWD: usize = 60;
/// A strip shows at least so much of the ratio to either side, so that noise does not look like an effect.
const ROOM: f64 = 0.02;

fn day(run: &TrendRun) -> &str {
    run.past.started.get(..10).unwrap_or(&run.past.started)
}

/// One candidate's part of a drawing.
struct Strip<'a> {
    candidate: &'a str,
    y: Scale,
    top: f64,
}

impl<'a> Strip<'a> {
    fn of(runs: &[Judged], shape: &str, candidate: &'a str, top: f64) -> Option<Strip<'a>> {
        let ratios: Vec<f64> = runs.iter().filter_map(|(_, run)| run.ratio(shape, candidate)).collect();
        let (low, high) = extent(&ratios)?;
        let room = ROOM * high;
        Some(Strip { candidate, y: Scale::linear((low - room, high + room), (top + STRIP - 6.0, top + 18.0)), top })
    }

    /// Its name, its axis, and a line through its points, which ends where another variant became the control.
    fn frame(&self, svg: &mut Svg, runs: &[Judged], shape: &str, x: &Scale) {
        svg.text("name", Anchor::Start, (LEFT, self.top + 8.0), &shortened(self.candidate, 40));
        svg.y_axis(&self.y, (LEFT, RIGHT), 3);
        let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
        for (i, (_, run)) in runs.iter().enumerate() {
            let Some(ratio) = run.ratio(shape, self.candidate) else { continue };
            let place = (x.at(i as f64), self.y.at(ratio));
            match lines.last_mut().filter(|(control, _)| *control == run.control) {
                Some((_, places)) => places.push(place),
                None => lines.push((&run.control, vec![place])),
            }
        }
        if self.y.holds(1.0) {
            svg.line("unity", (LEFT, self.y.at(1.0)), (RIGHT, self.y.at(1.0)));
        }
        lines.iter().filter(|(_, places)| places.len() > 1).for_each(|(_, places)| svg.polyline("faint", places));
    }
}

/// The points of one run in all strips, as one link.
fn points(svg: &mut Svg, strips: &[Strip], (entry, run): Judged, shape: &str, (x, size): (f64, &str)) {
    let mut title = run.past.started.get(..16).unwrap_or(&run.past.started).replace('T', " ");
    let mut by_look: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for strip in strips {
        let us = run.past.us(shape, strip.candidate);
        let Some((us, ratio)) = us.zip(run.ratio(shape, strip.candidate)) else { continue };
        let class = run.verdict(strip.candidate).map_or("none", |verdict| look(verdict).0);
        let _ = write!(title, "\n{} {ratio:.3} ({} us)", strip.candidate, significant(us));
        let place = (x, strip.y.at(ratio));
        match by_look.iter_mut().find(|(other, _)| *other == class) {
            Some((_, places)) => places.push(place),
            None => by_look.push((class, vec![place])),
        }
    }
    if by_look.is_empty() {
        return;
    }
    if let Some(report) = &entry.report {
        svg.open_link(report, &title);
    }
    by_look.iter().for_each(|(class, places)| svg.points(&format!("{size} {class}"), places));
    if entry.report.is_some() {
        svg.close_link();
    }
}

/// Every run, the newest first.
fn list(entries: &[Entry], listed: usize) -> String {
    let mut rows = vec![["run (when, commit, suite)", "device", "decision"].map(Cell::text).into()];
    rows.extend(entries.iter().rev().take(listed).map(row));
    let left = entries.len().saturating_sub(listed);
    let more =
        if left == 0 { String::new() } else { format!("<p class=\"soft\">{left} older ones are left out.</p>\n") };
    format!("{}{more}", table("All runs", &rows))
}

fn row(entry: &Entry) -> Vec<Cell> {
    let name = match &entry.report {
        Some(report) => Cell::html(format!("<a href=\"{}\">{}</a>", escape(report), escape(&entry.run))),
        None => Cell::text(&entry.run),
    };
    match &entry.outcome {
        Err(why) => vec![name, Cell::text(why)],
        Ok(TrendRun { past, .. }) => {
            let part = if past.narrowed { "; part of the suite" } else { "" };
            let device = past.device.as_deref().unwrap_or("no GPU");
            vec![name, Cell::text(device), Cell::text(&format!("{}{part}", verdicts(&past.decision)))]
        }
    }
}

/// "MERGE a, b; FIX c": who got which.
fn verdicts(decision: &Decision) -> String {
    let all = [Verdict::Merge, Verdict::ValidNegative, Verdict::Fix, Verdict::Defer].map(|verdict| {
        let own = decision.named().iter().filter(|one| one.verdict == verdict).map(|one| one.variant.as_str());
        (verdict, own.collect::<Vec<_>>().join(", "))
    });
    let there = all.iter().filter(|(_, names)| !names.is_empty());
    there.map(|(verdict, names)| format!("{} {names}", verdict.word())).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::CandidateDecision;
    use crate::report::history::PastMedian;
    use crate::report::testing::with_view;

    /// A run of candidates on shapes, with times that wander.
    fn entry(number: usize, suite: &str, gpu: &str, candidates: &[&str], shapes: &[&str]) -> Entry {
        let run = format!("20260{:03}T{:06}Z-abc1234-{suite}", 101 + number % 800, number);
        let verdict =
            |i: usize| [Verdict::Merge, Verdict::ValidNegative, Verdict::Fix, Verdict::Defer][(number + i) % 4];
        let outcome = with_view(&crate::judge::testing::evidence(), |view| {
            let mut kept = TrendRun::of(view);
            (kept.suite, kept.control) = (suite.to_owned(), "old".to_owned());
            let decided = |(i, variant): (usize, &&str)| CandidateDecision {
                variant: (*variant).to_owned(),
                verdict: verdict(i),
                because: "a reason".to_owned(),
                slower: Vec::new(),
            };
            kept.past.decision.candidates = candidates.iter().enumerate().map(decided).collect();
            (kept.past.device, kept.past.device_id) = (Some("NVIDIA H100 80GB HBM3".into()), Some(gpu.to_owned()));
            kept.past.started = format!("2026-01-{:02}T03:04:05Z", 1 + number % 28);
            let of_shape = |(s, shape): (usize, &&str)| {
                let base = 14.0 * (s + 1) as f64 + (number % 7) as f64 * 0.013;
                let median = |variant: &str, us: f64| PastMedian {
                    shape: (*shape).to_owned(),
                    variant: variant.to_owned(),
                    p50_us: us,
                    gpu: None,
                };
                let own = candidates.iter().enumerate().map(|(i, c)| median(c, base * (0.7 + 0.05 * i as f64)));
                std::iter::once(median("old", base)).chain(own.collect::<Vec<_>>()).collect::<Vec<_>>()
            };
            kept.past.medians = shapes.iter().enumerate().flat_map(of_shape).collect();
            kept
        });
        Entry { report: Some(format!("{run}/report.html")), run, outcome: Ok(outcome) }
    }

    const STAGE5: [&str; 5] = ["ws-p1", "ws-p2", "ws-persistent", "persistent", "fast-exp"];
    const SHAPES: [&str; 3] = ["small", "mission", "long"];

    #[test]
    fn two_hundred_runs_are_all_drawn_each_point_opens_its_report_and_the_page_stays_small() {
        let entries: Vec<Entry> = (0..200).map(|i| entry(i, "stage5", "GPU-0", &STAGE5, &SHAPES)).collect();
        let text = trends_html(&entries);
        assert!(text.len() < 500_000, "{} bytes", text.len());
        assert!(!text.contains("left out") && !text.contains("the newest"), "all of them are there");
        for entry in &entries {
            let link = format!("<a href=\"{}\"><title>", entry.report.as_ref().unwrap());
            assert_eq!(text.matches(&link).count(), SHAPES.len(), "{link}");
        }
        for outside in ["http", "src=", "<script", "@import", "url(", "<link"] {
            assert!(!text.contains(outside), "{outside}");
        }
        assert!(text.contains("ws-persistent 0.800 (11.2") && text.contains("class=\"point small good\""), "{text}");
        for tag in ["svg", "a", "section", "figure", "table", "p", "div"] {
            let opened = text.matches(&format!("<{tag}>")).count() + text.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, text.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    #[ignore = "takes longer; .ci/run runs it"]
    fn a_thousand_runs_of_many_shapes_say_what_they_leave_out() {
        let shapes: Vec<String> = (0..12).map(|i| format!("shape-{i}")).collect();
        let shapes: Vec<&str> = shapes.iter().map(String::as_str).collect();
        let entries: Vec<Entry> = (0..1000).map(|i| entry(i, "flagship", "GPU-0", &STAGE5, &shapes)).collect();
        let text = trends_html(&entries);
        assert!(text.len() < 500_000, "{} bytes", text.len());
        assert!(text.contains("The drawings have the newest "), "{}", &text[..3000]);
    }

    #[test]
    fn no_line_joins_two_devices_and_what_ran_on_none_is_in_the_table() {
        let mut entries = vec![
            entry(0, "t", "GPU-0", &["new"], &["mission"]),
            entry(1, "t", "GPU-1", &["new"], &["mission"]),
            entry(2, "u", "GPU-0", &["new"], &["mission"]),
            entry(3, "t", "GPU-0", &["new"], &["mission"]),
        ];
        entries[3].outcome.as_mut().unwrap().past.medians.iter_mut().for_each(|m| m.gpu = Some("GPU-1".into()));
        let mut none = entry(4, "t", "GPU-0", &["new"], &[]);
        let past = &mut none.outcome.as_mut().unwrap().past;
        (past.device, past.device_id) = (None, None);
        entries.push(none);
        entries.push(Entry { run: "broken".into(), report: None, outcome: Err("unreadable: <gone>".into()) });
        let text = trends_html(&entries);
        assert_eq!(text.matches("<svg").count(), 3, "{text}");
        let drawing = |section: &str| {
            let from = text.find(section).unwrap();
            let svg = &text[from..][text[from..].find("<svg").unwrap()..];
            svg[..svg.find("</svg>").unwrap()].to_owned()
        };
        let of = |section: &str| drawing(section).matches("class=\"point ").count();
        assert_eq!((of("GPU-0: 1 runs"), of("GPU-1: 2 runs")), (1, 2), "{text}");
        assert!(drawing("id=\"g1\"").contains(&entries[3].run), "the shape was timed on the other card");
        assert!(text.contains("unreadable: &lt;gone&gt;") && text.contains(">no GPU<"), "{text}");
    }

    #[test]
    fn a_line_ends_where_another_became_the_control() {
        let mut entries: Vec<Entry> = (0..6).map(|i| entry(i, "t", "GPU-0", &["new"], &["mission"])).collect();
        for entry in &mut entries[3..] {
            let run = entry.outcome.as_mut().unwrap();
            run.control = "newer".into();
            run.past.medians.iter_mut().filter(|m| m.variant == "old").for_each(|m| m.variant = "newer".into());
        }
        assert_eq!(trends_html(&entries).matches("<polyline class=\"faint\"").count(), 2);
        assert_eq!(trends_html(&[]).matches("<svg").count(), 0);
    }
}
