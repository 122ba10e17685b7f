//! What continuous integration reads of a run: annotations of GitHub's workflows, and JUnit's XML. Leaves to others: where
//! they are written, and the Markdown of the job's summary (`markdown`).

use std::collections::BTreeSet;
use std::fmt::Write;

use super::svg::escape;
use super::{RunView, open, verdicts};
use crate::decision::Verdict;
use crate::gate::{Gate, State};
use crate::judge::compare;

/// GitHub shows ten annotations of a kind from one step.
pub(crate) const MOST_ANNOTATIONS: usize = 10;

/// Workflow commands, one a line: the verdict on every candidate, then the gates that do not pass, alike ones together.
pub fn annotations(view: &RunView) -> String {
    let mut lines = Vec::new();
    let words = verdicts::words(view, &compare(view.suite, &view.evidence.samples), true);
    let decisions = view.decision.broken.iter().chain(&view.decision.candidates);
    for (decision, words) in decisions.zip(words) {
        let level = match decision.verdict {
            Verdict::Fix => "error",
            Verdict::ValidNegative => "warning",
            Verdict::Merge | Verdict::Defer => "notice",
        };
        lines.push((level, words.head.trim_end_matches(':').to_owned(), words.why));
    }
    for group in open::groups(view.gates) {
        let level = match group.gates[0].state {
            State::Fail => "error",
            State::Inconclusive { .. } => "warning",
            State::Deferred(_) | State::Pass => "notice",
        };
        lines.push((level, format!("{}: {}", view.suite.name, group.head()), group.words()));
    }
    let mut text = String::new();
    for level in ["error", "warning", "notice"] {
        let own = lines.iter().filter(|line| line.0 == level);
        for (_, title, words) in own.take(MOST_ANNOTATIONS) {
            let _ = writeln!(text, "::{level} title={}::{}", property(title), data(words));
        }
    }
    text
}

/// Percent signs and ends of lines would end a workflow command's text, or begin an escape in it.
pub(crate) fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

pub(crate) fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A suite a variant, a case a gate: one that fails is a failure, one that is not measured or not settled is skipped, which
/// no reader takes for a pass.
pub fn junit(view: &RunView) -> String {
    let counts = &view.decision.counts;
    let open = counts.deferred + counts.inconclusive;
    let tests = counts.pass + counts.fail + open;
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{}\" tests=\"{tests}\" failures=\"{}\" skipped=\"{open}\">\n",
        safe(view.name),
        counts.fail
    );
    // Gates of peers and of the run are no variant's, and open ones among them decide like all others.
    let is_variant = |name: &&str| view.suite.variant_names().any(|variant| variant == *name);
    let others: BTreeSet<&str> = view.gates.iter().map(|g| g.variant.as_str()).filter(|n| !is_variant(n)).collect();
    for variant in view.suite.variant_names().chain(others) {
        let own: Vec<&Gate> = view.gates.iter().filter(|g| g.variant == variant).collect();
        let count = |pick: fn(&State) -> bool| own.iter().filter(|g| pick(&g.state)).count();
        let failed = count(|s| *s == State::Fail);
        let skipped = count(|s| matches!(s, State::Deferred(_) | State::Inconclusive { .. }));
        let name = safe(&format!("{}.{variant}", view.suite.name));
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\">",
            own.len()
        );
        own.iter().for_each(|gate| xml.push_str(&case(gate, &name)));
        xml.push_str("  </testsuite>\n");
    }
    xml + "</testsuites>\n"
}

fn case(gate: &Gate, class: &str) -> String {
    let place = if gate.place.is_empty() { String::new() } else { format!(" ({})", gate.place) };
    let head = format!("    <testcase classname=\"{class}\" name=\"{}\"", safe(&format!("{}{place}", gate.figure)));
    let words = format!("measured {}, wanted {}", gate.measured, gate.threshold);
    match &gate.state {
        State::Pass => format!("{head}/>\n"),
        State::Fail => format!("{head}><failure message=\"{}\"/></testcase>\n", safe(&words)),
        state => format!("{head}><skipped message=\"{}\"/></testcase>\n", safe(&state.to_string())),
    }
}

/// Text of an attribute; XML has no way to write most control characters.
pub(crate) fn safe(text: &str) -> String {
    escape(&text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Evidence, testing};
    use crate::report::testing::with_view;

    fn broken() -> Evidence {
        let mut evidence = testing::evidence();
        let new = evidence.checks.cases.iter_mut().filter(|c| c.variant == "new");
        new.for_each(|c| c.errors.as_mut().unwrap().kernel_max = 0.5);
        evidence.samples.blocks.clear();
        evidence.samples.deferred = Some(crate::deferral::Deferral::new("100% busy: a,\nb", "wait"));
        evidence
    }

    #[test]
    fn annotations_say_verdict_and_gates_and_stay_one_line_each() {
        let text = with_view(&broken(), annotations);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("::error title=FIX new::correctness: kernel error max"), "{text}");
        assert!(lines.iter().all(|line| line.starts_with("::")), "{text}");
        assert!(text.contains("::notice title=t%3A DEFERRED") && text.contains("100%25 busy: a,%0Ab; wait"), "{text}");
        let merge = with_view(&testing::evidence(), annotations);
        assert!(merge.starts_with("::notice title=MERGE new::") && !merge.contains("::error"), "{merge}");
    }

    #[test]
    fn junit_counts_what_it_lists_and_never_passes_what_is_open() {
        let text = with_view(&broken(), junit);
        let attribute = |name: &str| -> usize {
            let (_, rest) = text.split_once(&format!(" {name}=\"")).unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        assert_eq!(attribute("tests"), text.matches("<testcase ").count());
        assert_eq!(attribute("failures"), text.matches("<failure ").count());
        assert_eq!(attribute("skipped"), text.matches("<skipped ").count());
        assert!(attribute("failures") > 0 && attribute("skipped") > 0, "{text}");
        assert!(text.contains("DEFERRED (100% busy: a, b; wait)"), "{text}");
    }
}
