//! What `validate` and `report` print unless they are asked for more: one table, the gates that do not pass, and the decision,
//! on one screen. Leaves to others: everything else that is known of a run (`render`), and colours.

use super::layout::{columns, cut, hanging};
use super::{RunView, open, shortened, verdicts, worst};
use crate::evidence::{CheckedCase, Mode};
use crate::gate::{Gate, State, significant};
use crate::judge::{Comparison, compare, ratio as paired_ratio};
use crate::operator::Distribution;
use crate::subject::Subject;
use stats::Interval;

/// Lines of a screen: eight steps stand above it, the place of the evidence and its root below, and that makes thirty. Where the table
/// takes most of them, gates that do not pass get [`LEAST_GATE_LINES`] all the same; the rest are counted.
const MOST_SCREEN_LINES: usize = 20;
const LEAST_GATE_LINES: usize = 4;
/// Lines of one group of them, and of one verdict.
const MOST_LINES: usize = 3;

/// The screen, in lines of at most `width` characters.
pub fn brief(view: &RunView, width: usize) -> String {
    let comparisons = compare(view.suite, &view.evidence.samples);
    let mut lines = title(view, &comparisons, width);
    lines.extend(columns(&rows(view, &comparisons), width));
    lines.extend(beside(view, &comparisons).iter().flat_map(|text| hanging("", text, width)));
    lines.extend([String::new(), super::counts(view)]);
    let decided = decision(view, &comparisons, width).into_iter().flat_map(|said| cut(said, MOST_LINES, width));
    let decided: Vec<String> = decided.collect();
    let room = MOST_SCREEN_LINES.saturating_sub(lines.len() + decided.len()).max(LEAST_GATE_LINES);
    lines.extend(open_gates(view, width, room));
    lines.extend(decided);
    lines.join("\n")
}

/// What stands below all tables, where those are shown: the gates by state, and the whole decision.
pub fn verdict(view: &RunView, width: usize) -> String {
    let comparisons = compare(view.suite, &view.evidence.samples);
    let mut lines = vec![super::counts(view)];
    lines.extend(decision(view, &comparisons, width).concat());
    lines.extend(beside(view, &comparisons).iter().flat_map(|text| hanging("", text, width)));
    lines.join("\n")
}

/// Each verdict in as many lines as it takes.
fn decision(view: &RunView, comparisons: &[Comparison], width: usize) -> Vec<Vec<String>> {
    let words = verdicts::words(view, comparisons, true);
    words.iter().map(|words| hanging(&format!("{} ", words.head), &words.why, width)).collect()
}

/// The table alone: what `bench` prints, which has no verdict.
pub fn brief_times(view: &RunView, width: usize) -> String {
    let comparisons = compare(view.suite, &view.evidence.samples);
    let mut lines = title(view, &comparisons, width);
    lines.extend(columns(&rows(view, &comparisons), width));
    lines.join("\n")
}

fn title(view: &RunView, comparisons: &[Comparison], width: usize) -> Vec<String> {
    let suite = view.suite;
    let device = view.evidence.checks.device.as_deref().unwrap_or("no device");
    let device = device.strip_prefix("gpu: ").unwrap_or(device);
    let timed = if comparisons.is_empty() {
        "not timed".to_owned()
    } else {
        format!("kernel us, and ratio to {}'s (same rounds, 95% interval)", suite.control)
    };
    let text = format!("{} on {device}: {timed}", suite.name);
    hanging("", &text, width)
}

/// The table: the control and the candidates, and for each timed shape what came of it.
fn rows(view: &RunView, comparisons: &[Comparison]) -> Vec<Vec<String>> {
    let control = view.suite.control.as_str();
    let candidates = view.suite.candidates.iter().map(|c| c.variant.as_str());
    let variants: Vec<&str> = std::iter::once(control).chain(candidates).collect();
    let mut rows = vec![vec![String::new()]];
    rows.extend(variants.iter().map(|variant| vec![shortened(variant, 28)]));
    let mut add = |title: &str, cells: Vec<String>| {
        if cells.iter().any(|cell| !cell.is_empty() && cell != "-") {
            let all = std::iter::once(title.to_owned()).chain(cells);
            rows.iter_mut().zip(all).for_each(|(row, cell)| row.push(cell));
        }
    };
    for shape in &view.suite.time_shapes {
        add(&shortened(shape, 24), timed(view, comparisons, &variants, shape));
    }
    let cases = |variant: &str| -> Vec<&CheckedCase> {
        let own = view.evidence.checks.cases.iter().filter(|c| c.variant == variant);
        own.filter(|c| c.launch.problem.distribution == Distribution::Normal).collect()
    };
    add("max err", variants.iter().map(|v| two_digits(&worst(&cases(v), |e| e.kernel_max))).collect());
    let built = variants.iter().map(|v| resources(view, v)).collect::<Vec<_>>();
    for (at, title) in ["regs", "KiB", "spilled"].into_iter().enumerate() {
        add(title, built.iter().map(|figures| figures[at].clone()).collect());
    }
    rows
}

/// One column: time, ratio and state, each under the other.
fn timed(view: &RunView, comparisons: &[Comparison], variants: &[&str], shape: &str) -> Vec<String> {
    let cell = |variant: &&str| {
        let of = |c: &&Comparison| c.mode == Mode::Kernel && c.shape == shape && c.subject.is_plain(variant);
        let Some(found) = comparisons.iter().find(of) else { return [String::new(), String::new(), String::new()] };
        let mark = if found.subject.is_plain(&view.suite.control) { ' ' } else { mark(view.gates, variant, shape) };
        [three_digits(found.time_us.p50), found.over_control.map_or(String::new(), ratio), mark.to_string()]
    };
    let cells: Vec<[String; 3]> = variants.iter().map(cell).collect();
    let wide = |at: usize| cells.iter().map(|cell| cell[at].chars().count()).max().unwrap_or(0);
    let [time, ratio] = [wide(0), wide(1)];
    let joined =
        cells.iter().map(|[us, over, mark]| format!("{us:>time$} {over:>ratio$} {mark}").trim_end().to_owned());
    joined.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect()
}

/// The state of the gates on time of a variant on a shape, the worst of them; a dot where the suite has none there.
fn mark(gates: &[Gate], variant: &str, shape: &str) -> char {
    // Gates of older runs name their shape in words alone.
    let is_on = |g: &&Gate| g.shape.as_deref() == Some(shape) || (g.shape.is_none() && g.figure == g.id.figure(shape));
    let asked_of_shapes = |g: &&Gate| g.id.template().contains("{}");
    let own = gates.iter().filter(|g| g.variant == variant).filter(asked_of_shapes).filter(is_on);
    let rank = |gate: &Gate| match gate.state {
        State::Fail => 3,
        State::Inconclusive { .. } => 2,
        State::Deferred(_) => 1,
        State::Pass => 0,
    };
    own.map(rank).max().map_or('·', |worst| ['✓', '…', '?', '✗'][worst])
}

/// `0.887±0.001`: the larger side of the interval, rounded away from the estimate.
fn ratio(ratio: Interval) -> String {
    let side = f64::max(ratio.high - ratio.estimate, ratio.estimate - ratio.low);
    // What rounding the estimate moves it by is part of what is said.
    let shown = (ratio.estimate * 1000.0).round() / 1000.0;
    // Adding zero takes the sign off a zero, which `max` may leave there.
    let side = ((side + (shown - ratio.estimate).abs()) * 1000.0 - 1e-6).ceil().max(0.0) / 1000.0 + 0.0;
    format!("{shown:.3}±{side:.3}")
}

/// A time at a glance.
fn three_digits(value: f64) -> String {
    if !value.is_finite() || value >= 100.0 {
        return format!("{value:.0}");
    }
    format!("{value:.*}", if value >= 10.0 { 1 } else { 2 })
}

/// An error at a glance; words stay.
fn two_digits(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(value) if value != 0.0 && value.is_finite() => format!("{value:.1e}"),
        _ => text.to_owned(),
    }
}

/// Registers, shared memory in KiB and spilled bytes of the entries that are gated, the largest of each; behind a slash the
/// registers of the build that ran, where it has others.
fn resources(view: &RunView, variant: &str) -> [String; 3] {
    let entries = |arch: &str| {
        let build = view.evidence.builds.get(variant, arch);
        let all: Vec<_> = build.map(|build| build.entries.iter().filter(|e| e.gated).collect()).unwrap_or_default();
        (!all.is_empty()).then_some(all)
    };
    let Some(gated) = entries(&view.suite.arch) else { return ["-", "-", ""].map(str::to_owned) };
    let timed = view.evidence.samples.device.as_ref().map(|d| d.arch()).filter(|arch| *arch != view.suite.arch);
    let registers = |of: &[&crate::evidence::EntryBuild]| of.iter().map(|e| e.resources.registers).max().unwrap_or(0);
    let ran = timed.and_then(|arch| entries(&arch)).map(|of| registers(&of)).filter(|ran| *ran != registers(&gated));
    let ran = ran.map_or(String::new(), |ran| format!("/{ran}"));
    let bytes = gated.iter().map(|e| e.resources.static_smem_bytes + e.launch.dynamic_smem_bytes).max().unwrap_or(0);
    let spilled: u64 =
        gated.iter().map(|e| u64::from(e.resources.spill_store_bytes) + u64::from(e.resources.spill_load_bytes)).sum();
    let spilled = if spilled == 0 { String::new() } else { spilled.to_string() };
    [format!("{}{ran}", registers(&gated)), format!("{:.0}", (f64::from(bytes) / 1024.0).ceil()), spilled]
}

/// What else a reader looks for: where the candidates stand among the peers, the suite's aspiration, and what was not compiled
/// as its source has it.
fn beside(view: &RunView, comparisons: &[Comparison]) -> Vec<String> {
    let mut texts = Vec::new();
    if view.suite.peers.is_some() {
        texts.extend(view.suite.candidates.iter().filter_map(|c| among_peers(view, comparisons, &c.variant)));
    }
    texts.extend(aspiration(view));
    texts.extend(super::taken_off(view));
    texts
}

/// Who meets the suite's aspiration, which is part of no verdict, and how far from it the candidates are.
fn aspiration(view: &RunView) -> Option<String> {
    let all = &view.decision.aspirations;
    let first = all.first()?;
    let met: Vec<&str> = all.iter().filter(|a| a.met).map(|a| a.variant.as_str()).collect();
    let met = if met.is_empty() { "not met".to_owned() } else { format!("met by {}", met.join(", ")) };
    let speeds = || all.iter().map(|a| a.speedup.estimate);
    let [least, most] =
        [speeds().fold(f64::INFINITY, f64::min), speeds().fold(f64::NEG_INFINITY, f64::max)].map(significant);
    Some(format!(
        "aspiration of {}x the speed of {}: {met} ({least}x to {most}x)",
        significant(first.wanted),
        first.against
    ))
}

/// On how many timed shapes a variant is faster than the fastest peer, and by how much.
fn among_peers(view: &RunView, comparisons: &[Comparison], variant: &str) -> Option<String> {
    let own = Subject::plain(variant);
    let best = |shape: String| {
        let peers = comparisons.iter().filter(|c| c.mode == Mode::Kernel && c.shape == shape && c.subject.is_peer());
        let best = peers.min_by(|a, b| a.time_us.p50.total_cmp(&b.time_us.p50))?;
        let speedup = paired_ratio(&view.evidence.samples.blocks, &best.setting(), [&best.subject, &own])?;
        Some((shape, best.subject.to_string(), speedup))
    };
    let found: Vec<(String, String, Interval)> = view.suite.time_shapes.iter().cloned().filter_map(best).collect();
    let (closest, peer, least) = found.iter().min_by(|a, b| a.2.estimate.total_cmp(&b.2.estimate))?;
    let most = found.iter().map(|f| f.2.estimate).fold(f64::NEG_INFINITY, f64::max);
    let faster = found.iter().filter(|f| f.2.low > 1.0).count();
    Some(format!(
        "{variant} beats the best peer on {faster} of {} shapes, {:.2}x to {most:.2}x its speed (least: {peer} on {closest})",
        found.len(),
        least.estimate
    ))
}

/// Every gate that does not pass, alike ones together; those for which there is no room are counted.
fn open_gates(view: &RunView, width: usize, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let groups = open::groups(view.gates);
    let all: Vec<Vec<String>> =
        groups.iter().map(|group| hanging(&format!("{} ", group.head()), &group.words(), width)).collect();
    // Where they do not fit, each gets a line or two before one of them gets three.
    let fits = all.iter().map(|said| said.len().min(MOST_LINES)).sum::<usize>() <= room;
    let most = if fits { MOST_LINES } else { (room / groups.len().max(1)).clamp(1, MOST_LINES) };
    let mut left = 0;
    for (number, (group, said)) in groups.iter().zip(all).enumerate() {
        let said = cut(said, most, width);
        // The line that counts the rest needs room too, where there is a rest.
        let counted = usize::from(number + 1 < groups.len());
        if left == 0 && lines.len() + said.len() + counted <= room {
            lines.extend(said);
        } else {
            left += group.gates.len();
        }
    }
    if left > 0 {
        lines.push(format!("and {left} more (--full)"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made::{suites, with_made};
    use crate::report::testing::with_view;

    /// Writes what is printed instead of comparing with it.
    const REWRITE: &str = "REWRITE_SCREENS";

    #[test]
    fn the_screens_of_the_shipped_suites_are_as_recorded_and_fit() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/screens");
        for (name, suite) in suites() {
            for width in [80, 100] {
                let screen = with_made(name, &suite, |view| brief(view, width)) + "\n";
                let wide = screen.lines().map(|line| line.chars().count()).max();
                assert!(wide <= Some(width), "{name} at {width}:\n{screen}");
                // Above it are eight steps.
                assert!(width < 100 || screen.lines().count() <= 20, "{name}:\n{screen}");
                let file = folder.join(format!("{name}-{width}.txt"));
                if std::env::var_os(REWRITE).is_some() {
                    std::fs::write(&file, &screen).unwrap();
                }
                let recorded = std::fs::read_to_string(&file).unwrap_or_default();
                assert_eq!(screen, recorded, "if this is meant, run again with {REWRITE}=1");
            }
        }
    }

    #[test]
    fn every_shape_on_which_a_candidate_is_slower_stands_in_its_decision() {
        let [(name, suite), ..] = suites();
        let screen = with_made(name, &suite, |view| brief(view, 100));
        for (verdict, slower) in [("MERGE ws-p2:", true), ("MERGE fast-exp:", true), ("FIX persistent:", false)] {
            let line = screen.lines().find(|line| line.starts_with(verdict)).unwrap_or_else(|| panic!("{screen}"));
            assert_eq!(line.contains("slower on small ("), slower, "{line}");
        }
    }

    #[test]
    fn an_interval_is_never_shown_narrower_than_it_is() {
        let shown = |estimate, low, high| ratio(Interval { estimate, low, high });
        assert_eq!(shown(0.8872, 0.8861, 0.8878), "0.887±0.002");
        assert_eq!(shown(1.0, 0.9999, 1.0001), "1.000±0.001");
        assert_eq!(shown(1.1824, 1.1804, 1.1826), "1.182±0.003");
        assert_eq!(shown(0.5, 0.5, 0.5), "0.500±0.000");
    }

    #[test]
    fn without_times_there_is_no_column_of_time_and_every_gate_says_why_once() {
        let mut evidence = crate::judge::testing::evidence();
        let why = || Some(crate::deferral::Deferral::new("no GPU", "get one"));
        evidence.samples = crate::evidence::Samples { deferred: why(), ..Default::default() };
        let screen = with_view(&evidence, |view| brief(view, 100));
        assert!(screen.contains("not timed") && !screen.contains("mission  "), "{screen}");
        assert_eq!(screen.matches("no GPU").count(), 1, "{screen}");
        assert!(screen.lines().any(|line| line.starts_with("DEFER new: latency reduction on mission")), "{screen}");
    }
}
