//! The plot that the page opens with: every candidate on every timed shape as its time over the control's, with its interval,
//! beside the gate and the peers of the same rounds. Leaves to others: blocks and rounds (`timing`).

use super::RunView;
use super::svg::{Anchor, Mark, Scale, Svg};
use super::timing::{figure, gate_bound};
use crate::evidence::Mode;
use crate::gate::significant;
use crate::judge::Comparison;
use crate::operator::Distribution;
use crate::stats::Interval;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 26.0;
const ROW: f64 = 20.0;

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
    fn rows(&self) -> usize {
        1 + self.candidates.len() + usize::from(!self.peers.is_empty())
    }
}

/// The figure; empty where no candidate has a ratio.
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
    let Some(scale) = Scale::over(&[drawn, vec![1.0]].concat(), (LEFT, RIGHT)) else { return String::new() };
    let rows: usize = groups.iter().map(Group::rows).sum();
    let bottom = TOP + ROW * rows as f64;
    let control = &view.suite.control;
    let title = format!("kernel time over {control}'s (below 1 is faster)");
    let mut svg = Svg::new(WIDTH, bottom + 40.0, &title);
    svg.x_axis(&scale, (TOP, bottom), &title);
    svg.line("unity", (scale.at(1.0), TOP), (scale.at(1.0), bottom));
    svg.text("aside", Anchor::Start, (RIGHT + 14.0, 12.0), "ratio [95% interval]");
    let mut y = TOP;
    for group in &groups {
        draw(&mut svg, group, &scale, y);
        y += ROW * group.rows() as f64;
    }
    let caption = format!(
        "A dot is the ratio of a candidate to {control}, its line the 95% interval, in each distribution of inputs that was \
         timed; squares are peers in the same rounds of the first, and an arrow is one beyond the axis. The dashed line is the gate of that shape; where there is none, \
         the suite asks nothing of its time."
    );
    figure("wide", &svg.finish(), &caption)
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

fn draw(svg: &mut Svg, group: &Group, scale: &Scale, top: f64) {
    let bottom = top + ROW * group.rows() as f64;
    svg.rect("even", (0.0, top), (WIDTH, top + ROW));
    svg.text("strong", Anchor::Start, (6.0, top + ROW / 2.0), &super::shortened(group.shape, 80));
    for gate in &group.gates {
        svg.line("gate", (scale.at(*gate), top + ROW), (scale.at(*gate), bottom));
    }
    let mut y = top + ROW * 1.5;
    for (variant, ratio) in &group.candidates {
        svg.text("name", Anchor::End, (LEFT - 10.0, y), &super::shortened(variant, 24));
        match ratio {
            Some(ratio) => interval(svg, variant, *ratio, scale, y),
            None => svg.text("aside", Anchor::Start, (RIGHT + 14.0, y), "no ratio"),
        }
        y += ROW;
    }
    if group.peers.is_empty() {
        return;
    }
    svg.text("aside", Anchor::End, (LEFT - 10.0, y), "peers");
    for (peer, ratio) in &group.peers {
        let mark = match scale.holds(*ratio) {
            true => Mark::Square,
            false if *ratio < 1.0 => Mark::Left,
            false => Mark::Right,
        };
        svg.mark(mark, "peer", (scale.at(*ratio), y), &format!("{peer} on {}: {}", group.shape, significant(*ratio)));
    }
    if let Some((peer, ratio)) = group.peers.iter().min_by(|a, b| a.1.total_cmp(&b.1)) {
        let best = format!("best: {peer} {}", significant(*ratio));
        svg.text("aside", Anchor::Start, (RIGHT + 14.0, y), &super::shortened(&best, 36));
    }
}

fn interval(svg: &mut Svg, variant: &str, ratio: Interval, scale: &Scale, y: f64) {
    let [at, low, high] = [ratio.estimate, ratio.low, ratio.high].map(significant);
    let words = format!("{at} [{low}, {high}]");
    svg.line("middle candidate", (scale.at(ratio.low), y), (scale.at(ratio.high), y));
    svg.mark(Mark::Dot, "candidate", (scale.at(ratio.estimate), y), &format!("{variant}: {words}"));
    svg.text("name", Anchor::Start, (RIGHT + 14.0, y), &words);
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
            let dots = suite.candidates.len() * suite.time_shapes.len() * suite.time_distributions.len();
            assert_eq!(text.matches("class=\"mark candidate\"").count(), dots, "{name}: {text}");
            let gated = suite.time_shapes.iter().filter(|s| suite.performance.iter().any(|l| &&l.shape == s)).count();
            assert_eq!(text.matches("class=\"gate\"").count(), gated, "{name}: {text}");
            let peers = if name == "softmax" { 0 } else { 3 * suite.time_shapes.len() };
            assert_eq!(text.matches("class=\"mark peer").count(), peers, "{name}: {text}");
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
