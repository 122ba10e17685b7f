//! Reads compute-sanitizer's text report: which problems, with the source lines that take part in each.

use std::sync::LazyLock;

use regex::Regex;

use kbench::memory::{Finding, Site};

/// What a report says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Its first summary line; one about what was not printed may follow.
    pub(super) summary: Option<String>,
    /// Problems, each once.
    pub(super) findings: Vec<Finding>,
}

/// The place of an access: `at kernel+0x1b30 in file.cuh:61`, or without the file where there is no line information.
static PLACE: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"^(?:and )?(?P<role>.*?) ?(?:at|Frame:) .*\+0x[0-9a-f]+(?: in (?P<file>.+):(?P<line>\d+))?(?: \[(?P<hazards>\d+) hazards?\])?$";
    Regex::new(pattern).expect("the pattern is constant")
});

/// Parses a report. Every record of one thread is a hit of the same finding when kind and places are the same.
pub(super) fn parse(text: &str) -> Report {
    let mut report = Report::default();
    let mut open: Option<Finding> = None;
    for line in text.lines() {
        let Some(line) = line.strip_prefix("=========") else { continue };
        let body = line.trim();
        let depth = line.len() - line.trim_start().len();
        if body.contains("SUMMARY") && report.summary.is_none() {
            report.summary = Some(body.to_owned());
        }
        let heading = depth == 1 && !body.is_empty();
        if heading || body.is_empty() {
            report.close(open.take());
        }
        if heading && !is_frame_of_the_report(body) {
            let (what, site) = split_heading(body);
            let hits = u64::from(site.is_none());
            open = Some(Finding { what, sites: site.into_iter().collect(), hits, replay: None });
        } else if let (Some(finding), Some(place)) = (open.as_mut(), PLACE.captures(body)) {
            let role = place.name("role").map_or("", |m| m.as_str());
            if let Some(hazards) = place.name("hazards").and_then(|m| m.as_str().parse::<u64>().ok()) {
                // The record itself is no hit; each pair of places says how often.
                finding.hits += hazards;
            }
            let source = source_of(&place);
            match finding.sites.last_mut() {
                // A frame is the caller of what stands above it.
                Some(last) if role.ends_with("Device") => last.source.extend(source),
                _ if role.contains("Host") => {}
                _ => {
                    let role = if role.is_empty() { role_of(&finding.what) } else { first_word(role) };
                    finding.sites.push(Site { role, source: source.into_iter().collect() });
                }
            }
        }
    }
    report.close(open);
    report
}

impl Report {
    fn close(&mut self, finding: Option<Finding>) {
        let Some(finding) = finding else { return };
        match self.findings.iter_mut().find(|f| f.what == finding.what && f.sites == finding.sites) {
            Some(known) => known.hits += finding.hits,
            None => self.findings.push(finding),
        }
    }
}

/// Lines that are no problem of a kernel.
fn is_frame_of_the_report(body: &str) -> bool {
    ["COMPUTE-SANITIZER", "ERROR SUMMARY", "RACECHECK SUMMARY", "LEAK SUMMARY", "Target application", "No attachable"]
        .iter()
        .any(|start| body.starts_with(start))
}

/// racecheck puts its first place into the heading.
fn split_heading(body: &str) -> (String, Option<Site>) {
    let Some((what, place)) = body.split_once(" between ") else { return (body.to_owned(), None) };
    let site = PLACE.captures(place).map(|captures| Site {
        role: first_word(captures.name("role").map_or("", |m| m.as_str())),
        source: source_of(&captures).into_iter().collect(),
    });
    (what.to_owned(), site)
}

fn source_of(place: &regex::Captures<'_>) -> Option<String> {
    let file = place.name("file")?.as_str();
    Some(format!("{}:{}", file.rsplit('/').next().unwrap_or(file), &place["line"]))
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_lowercase()
}

/// `Invalid __global__ read of size 16 bytes` is a read.
fn role_of(what: &str) -> String {
    let role = ["read", "write", "atomic"].into_iter().find(|role| what.contains(role));
    role.unwrap_or("access").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Parts of what compute-sanitizer said of the planted defects on an H200; records that repeat were left out.
    const MEMCHECK: &str = include_str!("../../tests/data/planted/out-of-bounds.memcheck.txt");
    const RACECHECK: &str = include_str!("../../tests/data/planted/race.racecheck.txt");

    #[test]
    fn an_out_of_bounds_read_is_one_finding_with_its_callers() {
        let report = parse(MEMCHECK);
        assert_eq!(report.summary.as_deref(), Some("ERROR SUMMARY: 3594 errors"));
        let [finding] = report.findings.as_slice() else { panic!("{:#?}", report.findings) };
        assert_eq!((finding.what.as_str(), finding.hits), ("Invalid __global__ read of size 16 bytes", 2));
        let [site] = finding.sites.as_slice() else { panic!("{finding:#?}") };
        assert_eq!(site.role, "read");
        assert_eq!(site.source[..3], ["cp_async.cuh:14", "loader.cuh:187", "loader.cuh:48"]);
        assert_eq!(site.source.last().map(String::as_str), Some("sdpa_ladder.cu:84"));
    }

    #[test]
    fn a_race_has_the_lines_of_both_accesses() {
        let report = parse(RACECHECK);
        assert!(report.summary.is_some_and(|s| s.contains("(20 errors, 0 warnings)")));
        let finding = &report.findings[0];
        assert_eq!(finding.what, "Error: Race reported");
        let of = |role: &str| -> Vec<&str> {
            let sites = finding.sites.iter().filter(|s| s.role == role);
            sites.flat_map(|s| s.source.iter().map(String::as_str)).collect()
        };
        assert_eq!((of("write"), of("read").first().copied()), (vec!["dequantise.cuh:24"], Some("mma.hpp:103")));
        assert!(finding.hits >= 81152 + 78640 + 76416 + 74880, "{}", finding.hits);
    }

    #[test]
    fn a_clean_report_and_none_are_told_apart() {
        let clean = parse("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n");
        assert_eq!(clean, Report { summary: Some("ERROR SUMMARY: 0 errors".to_owned()), findings: Vec::new() });
        assert_eq!(parse(""), Report::default());
    }

    #[test]
    fn a_place_without_line_information_is_still_a_place() {
        let report =
            parse("========= Invalid __shared__ write of size 4 bytes\n=========     at kernel+0x70\n=========\n");
        assert_eq!(report.findings[0].sites, [Site { role: "write".to_owned(), source: Vec::new() }]);
    }
}
