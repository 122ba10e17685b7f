//! REPORT.md: headline, checklist, decision and merge message, then the tables, folded. Short enough for a comment on a pull
//! request: tables that would make it longer are left to report.html. Leaves to others: the tables and the words.

use std::fmt::Write;

use super::{Format, RunView, headline, open, provenance, sections, verdicts};
use crate::decision::Verdict;
use crate::gate::State;
use crate::judge::compare;

/// What a comment may hold is 65,536 characters; whoever posts it has a few words of their own to add.
const MOST_BYTES: usize = 60_000;

/// REPORT.md.
pub fn markdown_file(view: &RunView) -> String {
    let mut text = markdown_summary(view);
    let mut left = Vec::new();
    for (title, body) in sections(view, Format::Markdown) {
        let folded = format!("<details><summary>{title}</summary>\n\n{}\n\n</details>\n\n", body.trim_end());
        // Room is kept for the sentence on what is left out.
        if text.len() + folded.len() + 400 <= MOST_BYTES {
            text.push_str(&folded);
        } else {
            left.push(title);
        }
    }
    if !left.is_empty() {
        let _ = writeln!(text, "For their length in report.html only: {}.", left.join(", "));
    }
    text
}

/// What comes before the tables: headline, checklist, decision, merge message.
pub fn markdown_summary(view: &RunView) -> String {
    let mut text = format!("{}\n\n## Gates\n\n", headline(view).replace('\n', "  \n"));
    for variant in variants(view) {
        let own = || view.gates.iter().filter(|g| g.variant == variant);
        let (all, pass) = (own().count(), own().filter(|g| g.state == State::Pass).count());
        let mark = if all == pass { 'x' } else { ' ' };
        let _ = writeln!(text, "- [{mark}] {variant}: {pass} of {all} PASS");
    }
    text.push('\n');
    for group in open::groups(view.gates) {
        let _ = writeln!(text, "- **{}** {}", group.head(), one_line(&group.words()));
    }
    text.push_str("\n## Decision\n\n");
    for words in verdicts::words(view, &compare(view.suite, &view.evidence.samples), true) {
        let _ = writeln!(text, "- **{}** {}", words.head, one_line(&words.why));
    }
    for aspiration in &view.decision.aspirations {
        let _ = writeln!(text, "- aspiration: {}", aspiration.line());
    }
    for line in super::taken_off(view) {
        let _ = writeln!(text, "- {}", one_line(&line));
    }
    text.push('\n');
    text + &merge_message(view)
}

fn variants<'a>(view: &RunView<'a>) -> Vec<&'a str> {
    let mut variants: Vec<&str> = Vec::new();
    for gate in view.gates {
        if !variants.contains(&gate.variant.as_str()) {
            variants.push(&gate.variant);
        }
    }
    variants
}

/// A message for the merge, with its figures filled in; only where there is something to merge.
fn merge_message(view: &RunView) -> String {
    let merged = view.decision.candidates.iter().filter(|c| c.verdict == Verdict::Merge);
    let control = &view.suite.control;
    let lines: Vec<String> = merged.map(|c| format!("Accept {} over {control}: {}", c.variant, c.because)).collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("## Merge message\n\n{}\n\nMeasured in {}.\n\n", lines.join("\n"), provenance(view))
}

/// A table. What is in a cell stays in it.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|cell| one_line(cell).replace('|', "\\|")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if number == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
        }
    }
    text
}

/// Text of a kernel's or a tool's own, where no markup must come of it.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;
    use crate::report::testing::with_view;

    #[test]
    fn it_opens_with_what_a_reviewer_asks_and_folds_the_rest() {
        let text = with_view(&testing::evidence(), markdown_file);
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("`{words}` is not in {text}"));
        assert!(text.starts_with("t: MERGE new: latency reduction on mission 20.0%"), "{text}");
        let order = ["## Gates", "- [x] new:", "## Decision", "- **MERGE new:**", "## Merge message", "<details>"];
        assert!(order.map(at).is_sorted(), "{text}");
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    }

    #[test]
    fn what_was_taken_off_a_source_is_said_once_of_all_its_builds() {
        let mut evidence = testing::evidence();
        let again = evidence.builds.records[1].clone();
        evidence.builds.records.push(again);
        for record in &mut evidence.builds.records {
            record.taken_off = vec!["triton.autotune".to_owned(), "triton.heuristics".to_owned()];
        }
        let line = "compiled without triton.autotune, triton.heuristics, by the gate file's values: old, new";
        let file = with_view(&evidence, markdown_file);
        assert_eq!(file.matches(line).count(), 1, "{file}");
        let screen = with_view(&evidence, |view| crate::report::brief(view, 100));
        assert_eq!(screen.matches(line).count(), 1, "{screen}");
    }

    #[test]
    fn that_host_code_ran_stands_in_the_headline_with_what_was_not_seen() {
        let mut evidence = testing::evidence();
        assert!(!with_view(&evidence, markdown_file).contains("host code"));
        evidence.builds.records[1].language = crate::variant::Language::Call;
        evidence.builds.records[1].entries.clear();
        let own = evidence.checks.cases.iter_mut().filter(|case| case.variant == "new");
        own.for_each(|case| case.launch.kernels = vec!["vectorized_elementwise_kernel".to_owned()]);
        let code = evidence.samples.host_code.entry("new".to_owned()).or_default();
        code.not_sealed = Some("seccomp: Invalid argument".to_owned());
        let file = with_view(&evidence, markdown_file);
        let head = file.split("## Gates").next().unwrap();
        for words in [
            "host code ran in new: not seen are its registers, spills, races and uninitialised reads",
            "what it does at import",
            "kernels of new: vectorized_elementwise_kernel; it could start processes while timed (seccomp: Invalid argument)",
        ] {
            assert!(head.contains(words), "{words}: {head}");
        }
        let screen = with_view(&evidence, |view| crate::report::brief(view, 100));
        assert!(
            screen.contains("host code ran in new") && screen.lines().all(|line| line.chars().count() <= 100),
            "{screen}"
        );
        // Where nothing of it ran there is nothing to say.
        evidence
            .checks
            .cases
            .iter_mut()
            .filter(|case| case.variant == "new")
            .for_each(|c| c.launch.output_sha256 = None);
        assert!(!with_view(&evidence, markdown_file).contains("host code ran"));
    }

    #[test]
    fn those_of_the_shipped_suites_fit_a_comment() {
        for (name, suite) in crate::report::made::suites() {
            let text = crate::report::made::with_made(name, &suite, markdown_file);
            assert!(text.len() <= MOST_BYTES, "{name}: {} bytes", text.len());
            let folded = text.find("<details>").unwrap();
            assert!(text[..folded].lines().count() <= 40 && text.contains("<summary>Gates"), "{name}: {text}");
        }
    }

    #[test]
    fn a_cell_cannot_leave_its_table_and_a_finding_is_no_markup() {
        let rows = [vec!["a|b".to_owned(), "c\nd".to_owned()], vec!["<details>".to_owned(), String::new()]];
        assert_eq!(table(&rows), "| a\\|b | c d |\n|---|---|\n| &lt;details> |  |\n");
    }
}
