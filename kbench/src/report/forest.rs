//! The plot that the page opens with: every candidate on every timed shape as its time over the control's, with its interval,
//! beside the gate and the peers of the same rounds. Leaves to others: blocks and rounds (`timing`).

use super::RunView;
use super::svg::{Anchor, Mark, Scale, Svg, escape};
use super::timing::gate_bound;
use crate::evidence::Mode;
use crate::gate::significant;
use crate::judge::Comparison;
use crate::operator::Distribution;
use stats::Interval;

/// Height of a shape's own line, and of what precedes the first.
const BAND: f64 = 20.0;
const TOP: f64 = 26.0;

/// How the plot is laid out; the page shows the one that fits the window.
struct Form {
    /// Class of the figure.
    class: &'static str,
    /// Of all of it, and the sides of the plot in it.
    width: f64,
    left: f64,
    right: f64,
    /// Height of a candidate's or the peers' row.
    row: f64,
    /// Whether names and figures stand above the marks, and not beside them.
    above: bool,
}

const WIDE: Form = Form { class: "wide overview", width: 900.0, left: 190.0, right: 640.0, row: 20.0, above: false };
const NARROW: Form = Form { class: "narrow overview", width: 350.0, left: 8.0, right: 342.0, row: 36.0, above: true };

impl Form {
    /// Where the marks of a row are whose top is at `y`.
    fn marks(&self, y: f64) -> f64 {
        if self.above { y + 26.0 } else { y + self.row / 2.0 }
    }

    /// The words of a row.
    fn words(&self, svg: &mut Svg, class: &str, y: f64, [name, figures]: [&str; 2]) {
        let (name, figures) = (&super::shortened(name, 24), &super::shortened(figures, 36));
        if self.above {
            svg.text(class, Anchor::Start, (self.left, y + 9.0), name);
            svg.text(class, Anchor::End, (self.right, y + 9.0), figures);
        } else {
            svg.text(class, Anchor::End, (self.left - 10.0, self.marks(y)), name);
            svg.text(class, Anchor::Start, (self.right + 14.0, self.marks(y)), figures);
        }
    }
}

/// What is drawn of one timed shape.
struct Group<'a> {
    shape: &'a str,
    /// In each distribution that was timed.
    candidates: Vec<(String, Option<Interval>)>,
    peers: Vec<(String, f64)>,
    /// The ratio that the gates of this shape allow, each once.
    gates: Vec<f64>,
}

impl Group<'_> {
    fn height(&self, form: &Form) -> f64 {
        BAND + form.row * (self.candidates.len() + usize::from(!self.peers.is_empty())) as f64
    }
}

/// The figure in both forms; empty where no candidate has a ratio.
pub(super) fn section(view: &RunView, comparisons: &[Comparison]) -> String {
    let groups: Vec<Group> = view.suite.time_shapes.iter().map(|shape| group(view, comparisons, shape)).collect();
    let drawn: Vec<f64> = groups
        .iter()
        .flat_map(|g| {
            g.candidates.iter().filter_map(|c| c.1).flat_map(|i| [i.low, i.high]).chain(g.gates.iter().copied())
        })
        .collect();
    if groups.iter().all(|g| g.candidates.iter().all(|c| c.1.is_none())) {
        return String::new();
    }
    let values = [drawn, vec![1.0]].concat();
    let plots = [WIDE, NARROW].map(|form| plot(view, &groups, &values, &form));
    let control = &view.suite.control;
    let caption = format!(
        "A dot is the ratio of a candidate to {control}, its line the 95% interval, in each distribution of inputs that was \
         timed; squares are peers in the same rounds of the first, and an arrow is one beyond the axis. The dashed line is the gate of that shape; where there is none, \
         the suite asks nothing of its time."
    );
    format!("{}<p class=\"soft\">{}</p>\n", plots.concat(), escape(&caption))
}

fn plot(view: &RunView, groups: &[Group], values: &[f64], form: &Form) -> String {
    let Some(scale) = Scale::over(values, (form.left, form.right)) else { return String::new() };
    let bottom = TOP + groups.iter().map(|group| group.height(form)).sum::<f64>();
    let title = format!("kernel time over {}'s (below 1 is faster)", view.suite.control);
    let mut svg = Svg::new(form.width, bottom + 40.0, &title);
    svg.x_axis(&scale, (TOP, bottom), &title);
    svg.line("unity", (scale.at(1.0), TOP), (scale.at(1.0), bottom));
    let (anchor, x) = if form.above { (Anchor::End, form.right) } else { (Anchor::Start, form.right + 14.0) };
    svg.text("aside", anchor, (x, 12.0), "ratio [95% interval]");
    let mut y = TOP;
    for group in groups {
        draw(&mut svg, group, &scale, form, y);
        y += group.height(form);
    }
    format!("<figure class=\"{}\">{}</figure>\n", form.class, svg.finish())
}

fn group<'a>(view: &RunView<'a>, comparisons: &[Comparison], shape: &'a str) -> Group<'a> {
    let here = || comparisons.iter().filter(|c| c.shape == shape && c.mode == Mode::Kernel && c.cache.is_hot());
    let candidates = view.suite.candidates.iter().map(|c| c.variant.as_str());
    let distributions = &view.suite.time_distributions;
    let ratio = |variant: &str, distribution: Distribution| {
        let found = here().find(|c| c.subject.is_plain(variant) && c.distribution == distribution);
        found.and_then(|c| c.over_control)
    };
    let named = |variant: &str, distribution: Distribution| match distribution {
        Distribution::Normal => variant.to_owned(),
        other => format!("{variant}, {}", other.name()),
    };
    let mut gates: Vec<f64> = candidates.clone().filter_map(|variant| gate_bound(view, variant, shape)).collect();
    gates.dedup();
    let usual = distributions.first().copied().unwrap_or_default();
    let peers = here().filter(|c| c.subject.is_peer() && c.distribution == usual);
    let each = |variant: &'a str| distributions.iter().map(move |d| (variant, *d));
    Group {
        shape,
        candidates: candidates.flat_map(each).map(|(v, d)| (named(v, d), ratio(v, d))).collect(),
        peers: peers.filter_map(|c| Some((c.subject.to_string(), c.over_control?.estimate))).collect(),
        gates,
    }
}

fn draw(svg: &mut Svg, group: &Group, scale: &Scale, form: &Form, top: f64) {
    let bottom = top + group.height(form);
    svg.rect("even", (0.0, top), (form.width, top + BAND));
    svg.text("strong", Anchor::Start, (6.0, top + BAND / 2.0), &super::shortened(group.shape, 80));
    for gate in &group.gates {
        svg.line("gate", (scale.at(*gate), top + BAND), (scale.at(*gate), bottom));
    }
    let mut y = top + BAND;
    for (variant, ratio) in &group.candidates {
        let figures = ratio.map(|ratio| {
            let [at, low, high] = [ratio.estimate, ratio.low, ratio.high].map(significant);
            format!("{at} [{low}, {high}]")
        });
        form.words(svg, "name", y, [variant, figures.as_deref().unwrap_or("no ratio")]);
        if let (Some(ratio), Some(figures)) = (ratio, &figures) {
            let y = form.marks(y);
            svg.line("middle candidate", (scale.at(ratio.low), y), (scale.at(ratio.high), y));
            svg.mark(Mark::Dot, "candidate", (scale.at(ratio.estimate), y), &format!("{variant}: {figures}"));
        }
        y += form.row;
    }
    let Some((peer, ratio)) = group.peers.iter().min_by(|a, b| a.1.total_cmp(&b.1)) else { return };
    form.words(svg, "aside", y, ["peers", &format!("best: {peer} {}", significant(*ratio))]);
    for (peer, ratio) in &group.peers {
        let mark = match scale.holds(*ratio) {
            true => Mark::Square,
            false if *ratio < 1.0 => Mark::Left,
            false => Mark::Right,
        };
        let title = format!("{peer} on {}: {}", group.shape, significant(*ratio));
        svg.mark(mark, "peer", (scale.at(*ratio), form.marks(y)), &title);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::compare_everywhere;
    use crate::report::made::{suites, with_made};
    use crate::report::testing::with_view;

    #[test]
    fn every_candidate_is_drawn_on_every_timed_shape_beside_gate_and_peers() {
        for (name, suite) in suites() {
            let text =
                with_made(name, &suite, |view| section(view, &compare_everywhere(view.suite, &view.evidence.samples)));
            // In two forms, one of which is seen.
            let count = |words: &str| text.matches(words).count() / 2;
            let dots = suite.candidates.len() * suite.time_shapes.len() * suite.time_distributions.len();
            assert_eq!(count("class=\"mark candidate\""), dots, "{name}: {text}");
            let gated = suite.time_shapes.iter().filter(|s| suite.performance.iter().any(|l| &&l.shape == s)).count();
            assert_eq!(count("class=\"gate\""), gated, "{name}: {text}");
            let peers = if name == "softmax" { 0 } else { 3 * suite.time_shapes.len() };
            assert_eq!(count("class=\"mark peer"), peers, "{name}: {text}");
        }
    }

    #[test]
    fn without_a_ratio_nothing_is_drawn() {
        let mut evidence = crate::judge::testing::evidence();
        evidence.samples.blocks.retain(|b| b.subject.is_plain("old"));
        let drawn = with_view(&evidence, |view| section(view, &compare_everywhere(view.suite, &view.evidence.samples)));
        assert_eq!(drawn, "");
    }
}
