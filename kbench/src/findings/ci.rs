//! Findings for continuous integration: annotations of GitHub's workflows, and JUnit's XML.

use std::fmt::Write;

use super::{Judged, Refused, Severity, Standing};
use crate::report::ci::{MOST_ANNOTATIONS, data, property, safe};

/// Workflow commands, one a line, at the lines of the later accesses.
pub fn annotations(judged: &[Judged], root: &str) -> String {
    let mut out = String::new();
    for (level, severity) in [("error", Severity::Error), ("warning", Severity::Warning), ("notice", Severity::Info)] {
        let own = judged.iter().filter(|one| one.standing == Standing::New && one.finding.severity == severity);
        for one in own.take(MOST_ANNOTATIONS) {
            let place = one.finding.place(root);
            let file = place.map_or_else(String::new, |place| {
                format!("file={},line={},", property(place.below(root).unwrap_or(&place.path)), place.line)
            });
            let text = format!("{} in {}. {}", one.finding.message, one.finding.kernel, one.finding.hint);
            let _ = writeln!(out, "::{level} {file}title={}::{}", property(&one.finding.kind), data(&text));
        }
    }
    out
}

/// A case for each finding and for each thing that is not emulated; one that says so where nothing was found.
pub fn junit(judged: &[Judged], refused: &[Refused], program: &str, root: &str) -> String {
    let mut cases = String::new();
    let class = safe(program);
    for one in judged {
        let place = one.finding.place(root);
        let at = place.map_or_else(String::new, |place| {
            format!(" at {}:{}", place.below(root).unwrap_or(&place.path), place.line)
        });
        let name = safe(&format!("{} in {}{at}", one.finding.kind, one.finding.kernel));
        let head = format!("    <testcase classname=\"{class}\" name=\"{name}\"");
        let message = safe(&format!("{}. {}", one.finding.message, one.finding.hint));
        let _ = match one.fails {
            true => writeln!(cases, "{head}><failure message=\"{message}\"/></testcase>"),
            false => writeln!(cases, "{head}/>"),
        };
    }
    for Refused { what, why, .. } in refused {
        let (name, why) = (safe(what), safe(why));
        let _ = writeln!(
            cases,
            "    <testcase classname=\"{class}\" name=\"{name}\"><skipped message=\"{why}\"/></testcase>"
        );
    }
    if cases.is_empty() {
        let _ = writeln!(cases, "    <testcase classname=\"{class}\" name=\"nothing was found\"/>");
    }
    let (tests, skipped) = ((judged.len() + refused.len()).max(1), refused.len());
    let failures = judged.iter().filter(|one| one.fails).count();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{class}\" tests=\"{tests}\" \
         failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::testing::race;
    use crate::findings::{Baseline, Policy, judge};

    #[test]
    fn an_annotation_is_at_the_right_line() {
        let judged = judge(&[race()], &Policy::default(), &Baseline::default());
        let wanted = "::error file=sum.cu,line=14,title=race-read-after-write::race on shared smem+0x10 in sum. nothing \
                      orders the two accesses\n";
        assert_eq!(annotations(&judged, "/src/app"), wanted);
        assert_eq!(annotations(&judge(&[race()], &Policy::default(), &Baseline::of(&judged)), "/src/app"), "");
    }

    #[test]
    fn junit_counts_what_it_lists() {
        let judged = judge(&[race()], &Policy::default(), &Baseline::default());
        let refused = [Refused { what: "cudaX".into(), why: "no".into(), at: Vec::new() }];
        let text = junit(&judged, &refused, "./app", "/src/app");
        assert!(text.contains("tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{text}");
        assert_eq!((text.matches("<testcase").count(), text.matches("<failure").count()), (2, 1));
        assert!(junit(&[], &[], "./app", "/").contains("tests=\"1\" failures=\"0\""));
    }
}
