//! The decision in words, a line a candidate: what decided, and every timed shape on which it is slower than the control.
//! Leaves to others: the decision itself (`decision`), and where the words go.

use std::collections::BTreeSet;

use super::RunView;
use crate::decision::CandidateDecision;
use crate::evidence::Mode;
use crate::gate::{Gate, GateId, State};
use crate::judge::Comparison;
use stats::Interval;

/// A verdict as it is printed: who got which, and why.
pub(super) struct Words {
    /// `VALID NEGATIVE ws-p1:`
    pub(super) head: String,
    /// The reason, and where it is slower.
    pub(super) why: String,
}

/// One for each candidate, or for the variant on which the comparison rests, where that is broken. With `gates_above`, the
/// figures of gates that do not pass are not said again.
pub(super) fn words(view: &RunView, comparisons: &[Comparison], gates_above: bool) -> Vec<Words> {
    let one = |decision: &CandidateDecision| {
        let gates = view.gates.iter().filter(|g| gates_above && g.variant == decision.variant);
        let because = gates.fold(decision.because.clone(), without_figures);
        let slower = slower(view, comparisons, decision);
        let slower = if slower.is_empty() { String::new() } else { format!("; slower on {}", slower.join(", ")) };
        Words { head: format!("{} {}:", decision.verdict.word(), decision.variant), why: because + &slower }
    };
    let broken = view.decision.broken.iter().map(one);
    broken.chain(view.decision.candidates.iter().map(one)).collect()
}

/// A reason without what the line of a gate, or the table, says of it: of a reduction of time its figure stays, and of the
/// same in another distribution its name.
fn without_figures(because: String, gate: &Gate) -> String {
    if gate.state == State::Pass {
        let percent = gate.measured.split(' ').next().unwrap_or_default();
        let said = match (&gate.shape, gate.id, gate.distribution.is_normal()) {
            (Some(shape), GateId::LatencyReduction, true) => format!("{percent} less time on {shape}"),
            (Some(_), GateId::LatencyReduction, false) => format!("{} {percent}", gate.distribution.name()),
            _ => return because,
        };
        return because.replace(&format!("{} {}", gate.figure, gate.measured), &said);
    }
    let failed = format!("{} {} ({}, wanted {})", gate.figure, gate.measured, gate.place, gate.threshold);
    let open = format!("{} {}", gate.figure, gate.state);
    because.replace(&failed, &gate.figure).replace(&open, &format!("{} is {}", gate.figure, gate.state.word()))
}

/// Where a candidate is slower than the control, each shape and distribution once, and how much more time it takes there. Runs
/// of one sitting have no list of it: there the whole interval of the kernel's time lies above 1.
fn slower(view: &RunView, comparisons: &[Comparison], decision: &CandidateDecision) -> Vec<String> {
    let more = |ratio: Interval| format!("+{:.1}%", 100.0 * (ratio.estimate - 1.0));
    let mut shapes: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |shape: &str, words: String| match shapes.iter_mut().find(|(name, _)| name == shape) {
        Some((_, all)) => all.push(words),
        None => shapes.push((shape.to_owned(), vec![words])),
    };
    if view.suite.timing.is_of_one_sitting() {
        let variant = &decision.variant;
        let is_candidate = view.suite.candidates.iter().any(|c| c.variant == *variant);
        let own = comparisons.iter().filter(|c| c.mode == Mode::Kernel && c.subject.is_plain(variant));
        for (shape, ratio) in own.filter_map(|c| Some((&c.shape, c.over_control.filter(|ratio| ratio.low > 1.0)?))) {
            if is_candidate {
                add(shape, more(ratio));
            }
        }
    }
    let mut told = BTreeSet::new();
    for slow in decision.slower.iter().filter(|s| told.insert((&s.shape, s.distribution))) {
        // The setting without its shape, which is said before.
        let setting = slow.setting().name();
        let how = setting.strip_prefix(&slow.shape).unwrap_or_default().trim_start_matches(", ");
        add(&slow.shape, format!("{how} {}", more(slow.over_control)).trim_start().to_owned());
    }
    shapes.into_iter().map(|(shape, words)| format!("{shape} ({})", words.join(", "))).collect()
}

/// All verdicts in one line: the only one in full, or how many of each.
pub(super) fn summary(view: &RunView) -> String {
    match view.decision.named() {
        [only] => only.line(),
        several => {
            let mut counts: Vec<(&str, usize)> = Vec::new();
            for decision in several {
                let word = decision.verdict.word();
                match counts.iter_mut().find(|(of, _)| *of == word) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((word, 1)),
                }
            }
            let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
            format!("{} of {} candidates", counts.join(", "), several.len())
        }
    }
}
