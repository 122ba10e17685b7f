//! report.html: one file that needs neither network nor scripts. Assembles headline, overview, gates, tables, plots, history and
//! environment from the same figures as the text report. Leaves to others: the drawings (`timing`, `clocks`, `history`).

use std::fmt::Write;

use super::history::{self, HistoryPoint};
use super::svg::escape;
use super::{RunView, clocks, profile, provenance, timing};
use crate::decision::{CandidateDecision, Verdict};
use crate::deferral::Deferral;
use crate::evidence::Environment;
use crate::gate::{Gate, State, significant};
use crate::judge::{Comparison, compare, compare_everywhere};

const STYLE: &str = include_str!("report.css");

/// The file: the same view and history give the same bytes. `history` holds earlier whole runs, oldest first.
pub fn html(view: &RunView, history: &[HistoryPoint]) -> String {
    let comparisons = compare(view.suite, &view.evidence.samples);
    let mut page = head(view.name);
    let mut sections = vec![
        ("overview", "Overview", super::forest::section(view, &compare_everywhere(view.suite, &view.evidence.samples))),
        ("gates", "Gates", gates(view)),
        ("summary", "Summary", tables(view, &comparisons)),
        ("time", "Time", times(view, &comparisons)),
        ("profile", "Profile", profile_section(view)),
        ("clocks", "Clocks, temperature, power", clocks_section(view)),
        ("history", "History", history::section(view, history)),
        ("environment", "Environment", table("Environment", &environment(view.environment))),
        ("reading", "How to read this", READING.to_owned()),
    ];
    sections.retain(|(.., body)| !body.is_empty());
    let _ = writeln!(page, "<header>\n{}</header>\n<nav aria-label=\"Sections\">", opening(view, &comparisons));
    for (id, title, _) in &sections {
        let _ = writeln!(page, "<a href=\"#{id}\">{title}</a>");
    }
    page.push_str("</nav>\n<main>\n");
    for (id, title, body) in sections {
        let _ = writeln!(page, "<section id=\"{id}\">\n<h2>{title}</h2>\n{body}</section>");
    }
    page + "</main>\n</body>\n</html>\n"
}

/// A page up to where its body begins: it needs nothing but itself.
pub(super) fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        escape(title)
    )
}

const READING: &str = "<ol>\n\
<li>Read the decision first, then every gate that is not PASS: a decision is nothing but what the gates add up to.</li>\n\
<li>Compare by ratio, not by time: only blocks of one round of one run are divided by each other, and a gate passes only \
when the whole 95% interval is on its side.</li>\n\
<li>Look at A/A before believing a small effect: it is the control against itself, and should hold 1.</li>\n\
<li>DEFERRED means not measured, with its reason; INCONCLUSIVE means measured without a verdict. Neither is a PASS, and \
a dash in a table is not a zero.</li>\n\
<li>Anyone can check this page: `cargo xtask verify` judges again from the raw samples in the run directory.</li>\n</ol>\n";

/// The three lines of the headline, with the words of states in colour.
fn opening(view: &RunView, comparisons: &[Comparison]) -> String {
    let mut html = format!("<h1>{}\n", escape(&view.suite.name));
    let words = super::verdicts::words(view, comparisons, false);
    for (decision, words) in view.decision.broken.iter().chain(&view.decision.candidates).zip(&words) {
        html.push_str(&verdict_line(decision, &words.why));
    }
    let counts = &view.decision.counts;
    let counts = [
        count(counts.pass, "gates PASS", "good"),
        count(counts.fail, "FAIL", "bad"),
        count(counts.deferred, "DEFERRED", "none"),
        count(counts.inconclusive, "INCONCLUSIVE", "open"),
    ];
    let _ = writeln!(html, "</h1>\n<p>{}</p>", counts.join(", "));
    let _ = writeln!(html, "<p class=\"soft\">{}</p>", escape(&provenance(view)));
    for aspiration in &view.decision.aspirations {
        let _ = writeln!(html, "<p class=\"soft\">aspiration: {}</p>", escape(&aspiration.line()));
    }
    html
}

fn verdict_line(decision: &CandidateDecision, why: &str) -> String {
    let (class, sign) = match decision.verdict {
        Verdict::Merge => ("good", '✓'),
        Verdict::Fix => ("bad", '✗'),
        Verdict::ValidNegative => ("open", '−'),
        Verdict::Defer => ("none", '…'),
    };
    let word = decision.verdict.word();
    let rest = escape(&format!(" {}: {why}", decision.variant));
    format!("<span class=\"verdict {class}\"><span class=\"state\">{sign} {word}</span><span>{rest}</span></span>\n")
}

/// "2 FAIL" in the colour of its state; a count of zero stays plain.
fn count(number: usize, word: &str, class: &str) -> String {
    let class = if number == 0 { "none" } else { class };
    format!("<span class=\"state {class}\">{number} {}</span>", escape(word))
}

fn state_look(state: &State) -> (&'static str, char) {
    match state {
        State::Pass => ("good", '✓'),
        State::Fail => ("bad", '✗'),
        State::Deferred { .. } => ("none", '…'),
        State::Inconclusive { .. } => ("open", '?'),
    }
}

/// One cell of a table.
pub(super) struct Cell {
    class: &'static str,
    html: String,
}

impl Cell {
    /// Words.
    pub(super) fn text(text: &str) -> Cell {
        Cell { class: "", html: escape(text) }
    }

    /// A figure: never wrapped.
    pub(super) fn figure(text: &str) -> Cell {
        Cell { class: "figure", html: escape(text) }
    }

    /// One line for each text.
    pub(super) fn lines(texts: &[String]) -> Cell {
        Cell { class: "lines", html: texts.iter().map(|t| escape(t)).collect::<Vec<_>>().join("<br>") }
    }

    /// What is marked up already.
    pub(super) fn html(html: String) -> Cell {
        Cell { class: "", html }
    }

    fn state(state: &State) -> Cell {
        let (class, sign) = state_look(state);
        let word = state.word();
        let why = state.to_string();
        let why = escape(why.strip_prefix(word).unwrap_or_default());
        Cell { class: "", html: format!("<span class=\"state {class}\">{sign} {word}</span>{why}") }
    }
}

/// A table that scrolls in its own box; the first row is the header.
pub(super) fn table(name: &str, rows: &[Vec<Cell>]) -> String {
    let Some((header, body)) = rows.split_first() else { return String::new() };
    let name = escape(name);
    let mut html =
        format!("<div class=\"scroll\" role=\"region\" aria-label=\"{name}\" tabindex=\"0\"><table>\n<thead><tr>");
    for cell in header {
        let _ = write!(html, "<th scope=\"col\">{}</th>", cell.html);
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in body {
        html.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            // A row that is shorter than the header says one thing; it may use all the room that is left.
            let span = if i + 1 == row.len() && row.len() < header.len() {
                format!(" colspan=\"{}\"", header.len() - i)
            } else {
                String::new()
            };
            let _ = write!(html, "<td class=\"{}\"{span}>{}</td>", cell.class, cell.html);
        }
        html.push_str("</tr>\n");
    }
    html + "</tbody>\n</table></div>\n"
}

/// The checklist by variant, candidates first; within one what is not PASS comes first, and such groups are open.
fn gates(view: &RunView) -> String {
    let mut variants: Vec<&str> = Vec::new();
    for gate in view.gates {
        if !variants.contains(&gate.variant.as_str()) {
            variants.push(&gate.variant);
        }
    }
    let order = |v: &&str| view.suite.candidates.iter().position(|c| c.variant == **v).unwrap_or(usize::MAX);
    variants.sort_by_key(order);
    let groups = variants.into_iter().map(|variant| {
        let mut own: Vec<&Gate> = view.gates.iter().filter(|g| g.variant == variant).collect();
        own.sort_by_key(|g| g.state == State::Pass);
        let open = if own.iter().all(|g| g.state == State::Pass) { "" } else { " open" };
        let mut rows = vec![["state", "gate", "measured", "threshold", "where"].map(Cell::text).into()];
        rows.extend(own.iter().map(|g| {
            let words = [&g.figure, &g.measured, &g.threshold, &g.place].map(|t| Cell::text(t));
            std::iter::once(Cell::state(&g.state)).chain(words).collect()
        }));
        let name = format!("Gates of {variant}");
        format!(
            "<details{open}><summary><b>{}</b>: {}</summary>\n{}</details>\n",
            escape(variant),
            tally(&own),
            table(&name, &rows)
        )
    });
    let groups: String = groups.collect();
    if groups.is_empty() { "<p>There are no gates.</p>\n".to_owned() } else { groups }
}

/// "18 PASS, 1 FAIL" of some gates; states that do not occur are left out.
fn tally(gates: &[&Gate]) -> String {
    let words = [("PASS", "good"), ("FAIL", "bad"), ("DEFERRED", "none"), ("INCONCLUSIVE", "open")];
    let counts = words.map(|(word, class)| (gates.iter().filter(|g| g.state.word() == word).count(), word, class));
    let there = counts.into_iter().filter(|(n, ..)| *n > 0);
    there.map(|(n, word, class)| count(n, word, class)).collect::<Vec<_>>().join(", ")
}

/// The tables of the text report.
fn tables(view: &RunView, comparisons: &[Comparison]) -> String {
    let mut html = String::new();
    if let Some(why) = &view.evidence.checks.deferred {
        let _ = writeln!(html, "<p>{}</p>", not_measured("Correctness was not checked", why));
    }
    let targets = super::targets::rows(view, comparisons);
    if targets.len() > 1 {
        html.push_str(&table("Targets", &cells(targets)));
    }
    html.push_str(&table("Summary", &cells(super::summary(view, comparisons))));
    for (title, rows) in [
        ("Times of every subject", super::times(comparisons)),
        ("Peers", super::peers(view, comparisons)),
        ("Other input distributions", super::stress(view)),
    ] {
        if rows.len() > 1 {
            let _ = writeln!(html, "<details><summary>{title}</summary>\n{}</details>", table(title, &cells(rows)));
        }
    }
    if let (true, Some(why)) = (view.evidence.peers.wanted, &view.evidence.peers.deferred) {
        let _ = writeln!(html, "<p>{}</p>", not_measured("Peers were not measured", why));
    }
    for (name, why) in &view.evidence.peers.missing {
        let _ = writeln!(html, "<p>{}</p>", not_measured(&format!("The peer {name} was not measured"), why));
    }
    html
}

fn cells(rows: Vec<Vec<String>>) -> Vec<Vec<Cell>> {
    let cell = |text: &String| match text.split_once(" (") {
        // A ratio with its interval, and below it the speedup.
        Some((ratio, speedup)) if ratio.ends_with(']') => Cell::lines(&[ratio.to_owned(), format!("({speedup}")]),
        _ if text.contains(' ') => Cell::text(text),
        _ => Cell::figure(text),
    };
    rows.iter().map(|row| row.iter().map(cell).collect()).collect()
}

/// A deferral as two sentences.
fn not_measured(what: &str, Deferral { why, remedy }: &Deferral) -> String {
    match remedy.as_str() {
        "" => escape(&format!("{what}: {why}.")),
        remedy => escape(&format!("{what}: {why}. To have it: {remedy}.")),
    }
}

fn times(view: &RunView, comparisons: &[Comparison]) -> String {
    let samples = &view.evidence.samples;
    if let Some(why) = &samples.deferred {
        return format!("<p>{}</p>\n", not_measured("No time was measured, so there is nothing to plot", why));
    }
    let mut html = String::new();
    if !samples.blocks.is_empty() {
        let caches = if samples.cache_mode.is_empty() { "not recorded" } else { &samples.cache_mode };
        let _ = writeln!(
            html,
            "<p>Caches: {}; launches draw on {} input sets. Control is {}.</p>\n{}",
            escape(caches),
            samples.input_sets,
            escape(&view.suite.control),
            timing::legend()
        );
    }
    for failure in &samples.failures {
        let what = format!("{} on {} was not timed: {}", failure.subject, failure.shape, failure.why);
        let _ = writeln!(html, "<p>{}</p>", escape(&what));
    }
    for shape in view.suite.time() {
        let _ = writeln!(
            html,
            "<details class=\"shape\"><summary>{}: {}</summary>\n{}</details>",
            escape(&shape.name),
            escape(&view.suite.operator.sizes_by_name(&shape)),
            timing::section(view, comparisons, &shape)
        );
    }
    html
}

fn clocks_section(view: &RunView) -> String {
    let samples = &view.evidence.samples;
    match &samples.deferred {
        Some(why) => format!("<p>{}</p>\n", not_measured("No block was timed", why)),
        None if samples.blocks.is_empty() => "<p>No block was timed.</p>\n".to_owned(),
        None => clocks::section(samples),
    }
}

/// Figures side by side, then what they mean, one paragraph a line.
fn profile_section(view: &RunView) -> String {
    let Some(found) = &view.evidence.profile else {
        return "<p>No profile was asked for. To have it: pass --ncu.</p>\n".to_owned();
    };
    let mut html = String::new();
    if let Some(line) = profile::how(found) {
        let _ = writeln!(html, "<p>{}</p>", escape(&line));
    }
    for shape in profile::shapes(found) {
        html.push_str(&table(&format!("Profile on {shape}"), &cells(profile::figures(found, &shape))));
        for kernel in found.kernels.iter().filter(|k| k.problem.shape.name == shape) {
            for line in profile::words(kernel).lines().filter(|line| !line.is_empty()) {
                let _ = writeln!(html, "<p>{}</p>", escape(line.trim_start_matches([' ', '-'])));
            }
        }
    }
    html
}

/// A whole number with its thousands apart.
pub(super) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{a0}');
        }
        text.push(digit);
    }
    text
}

fn environment(environment: &Environment) -> Vec<Vec<Cell>> {
    let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".to_owned());
    let yes_no = |value: Option<bool>| value.map_or("not known", |v| if v { "yes" } else { "no" }).to_owned();
    let mut rows: Vec<(&str, String)> = vec![
        ("started", environment.started.clone()),
        ("command", environment.command.join(" ")),
        ("commit", known(&environment.commit)),
        ("uncommitted changes", yes_no(environment.dirty)),
        ("their SHA-256", environment.diff_sha256.clone().unwrap_or_else(|| "none".to_owned())),
    ];
    rows.extend(device_rows(environment));
    rows.extend([
        ("nvcc", known(&environment.nvcc)),
        ("ptxas", known(&environment.ptxas)),
        ("toolchain", known(&environment.toolchain)),
        ("rustc", known(&environment.rustc)),
        ("operating system", known(&environment.os)),
        ("processor", known(&environment.cpu)),
    ]);
    if !environment.confinement.is_empty() {
        rows.push(("scripts and compilers", environment.confinement.join("; ")));
    }
    rows.extend(environment.peers.iter().map(|(name, version)| (name.as_str(), version.clone())));
    let header = vec![Cell::text("what"), Cell::text("value")];
    std::iter::once(header).chain(rows.iter().map(|(k, v)| vec![Cell::figure(k), Cell::text(v)])).collect()
}

fn device_rows(environment: &Environment) -> Vec<(&'static str, String)> {
    let Some(device) = &environment.device else { return vec![("device", "no GPU".to_owned())] };
    let (major, minor) = device.capability;
    let mut rows = vec![
        ("device", format!("{}, {}", device.name, device.uuid)),
        ("capability", format!("{major}.{minor}, {} SMs, up to {} MHz", device.sm_count, device.max_sm_clock_mhz)),
        ("memory", format!("{} GiB", significant(device.memory_bytes as f64 / f64::from(1 << 30)))),
        ("L2", format!("{} MiB", significant(device.l2_bytes as f64 / f64::from(1 << 20)))),
        ("CUDA of the driver", device.cuda_driver.clone()),
    ];
    let others: Vec<&str> = environment.other_devices.iter().map(|other| other.uuid.as_str()).collect();
    if !others.is_empty() {
        rows.push(("further GPUs, each shape timed on one", others.join(", ")));
    }
    let word = |value: Option<bool>| value.map_or("not known", |on| if on { "on" } else { "off" });
    match &device.nvml {
        None => rows.push(("NVML", "not there: clocks and temperature were not read".to_owned())),
        Some(nvml) => rows.push((
            "driver",
            format!(
                "{}, ECC {}, power limit {}, persistence {}",
                nvml.driver,
                word(nvml.ecc),
                nvml.power_limit_w.map_or("not known".to_owned(), |w| format!("{w:.0} W")),
                word(nvml.persistence)
            ),
        )),
    }
    if let Some(state) = &environment.device_state {
        let figure = |value: Option<String>, unit: &str| value.map_or("not read".to_owned(), |v| format!("{v} {unit}"));
        rows.push((
            "state at the start",
            format!(
                "clock {}, temperature {}, power {}",
                figure(state.sm_clock_mhz.map(|v| v.to_string()), "MHz"),
                figure(state.temperature_c.map(|v| v.to_string()), "°C"),
                figure(state.power_w.map(significant), "W")
            ),
        ));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Checks, Peers, Samples};
    use crate::judge::{Evidence, testing};
    use crate::report::testing::with_view;

    fn page(evidence: &Evidence) -> String {
        with_view(evidence, |view| html(view, &[]))
    }

    #[test]
    fn a_run_without_a_device_has_no_plots_and_says_why() {
        let mut evidence = testing::evidence();
        let why = || Some(Deferral::new("no GPU here", "run it on one"));
        evidence.checks = Checks { deferred: why(), ..Checks::default() };
        evidence.samples = Samples { deferred: why(), ..Samples::default() };
        evidence.peers = Peers { wanted: true, deferred: why(), ..Peers::default() };
        let text = page(&evidence);
        assert!(!text.contains("<svg"), "{text}");
        for words in ["No time was measured", "Correctness was not checked", "Peers were not measured", "No block was"]
        {
            let line = text.lines().find(|l| l.contains(words)).unwrap_or_else(|| panic!("`{words}` is not in {text}"));
            assert!(line.contains("no GPU here. To have it: run it on one."), "{line}");
        }
        assert!(text.contains("… DEFERRED</span>"), "{text}");
    }

    #[test]
    fn timing_that_broke_off_is_said() {
        let mut evidence = testing::evidence();
        evidence.samples.blocks.clear();
        evidence.samples.failures.push(crate::evidence::TimingFailure {
            shape: "mission".into(),
            subject: "new".into(),
            why: "killed by SIGSEGV".into(),
        });
        let text = page(&evidence);
        assert!(text.contains("new on mission was not timed: killed by SIGSEGV"), "{text}");
        assert!(text.contains("No block was timed.") && text.contains("No roofline: nothing was timed"), "{text}");
    }

    #[test]
    fn the_page_needs_nothing_but_itself_and_is_the_same_each_time() {
        let text = page(&testing::evidence());
        for outside in ["http", "src=", "<script", "@import", "url(", "<link"] {
            assert!(!text.contains(outside), "{outside}");
        }
        assert_eq!(text, page(&testing::evidence()));
        assert!(text.contains("<span class=\"state\">✓ MERGE</span>"), "{text}");
        for tag in ["svg", "table", "figure", "section", "details", "div", "p"] {
            let opened = text.matches(&format!("<{tag}>")).count() + text.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, text.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn the_pages_of_the_shipped_suites_open_with_the_overview_fold_their_shapes_and_stay_small() {
        for (name, suite) in crate::report::made::suites() {
            let text = crate::report::made::with_made(name, &suite, |view| html(view, &[]));
            assert!(text.len() < 500_000, "{name}: {} bytes", text.len());
            let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("`{words}` is not in the page of {name}"));
            assert!(at("id=\"overview\"") < at("id=\"gates\"") && at("<svg") < at("id=\"gates\""), "{name}");
            assert_eq!(text.matches("<details class=\"shape\">").count(), suite.time_shapes.len(), "{name}");
        }
    }

    #[test]
    fn hostile_words_stay_words() {
        let mut evidence = testing::evidence();
        let hostile = "<img src=x onerror=alert(1)>\"'&";
        let found = evidence.checks.cases.iter_mut().find(|c| c.variant == "new").unwrap();
        (found.errors, found.launch.failure) = (None, Some(hostile.into()));
        evidence.samples.blocks[0].subject = hostile.into();
        let text = page(&evidence);
        assert!(!text.contains("<img"), "{text}");
        assert!(text.contains("&lt;img src=x onerror"), "{text}");
    }

    #[test]
    fn gates_that_do_not_pass_come_first_and_open() {
        let mut evidence = testing::evidence();
        let closed = page(&evidence);
        assert!(closed.contains("<details><summary><b>new</b>"), "{closed}");
        evidence.samples = testing::samples(100.0, 95.0);
        let text = page(&evidence);
        let group = &text[text.find("<details open><summary><b>new</b>").expect("the group is open")..];
        let first_row = &group[group.find("<tbody>").unwrap()..][..120];
        assert!(first_row.contains("✗ FAIL"), "{first_row}");
        assert!(text.contains("− VALID NEGATIVE"), "{text}");
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(grouped(1_073_741_824.0), "1\u{a0}073\u{a0}741\u{a0}824");
        assert_eq!(grouped(999.0), "999");
    }
}
