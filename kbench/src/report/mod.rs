//! Reports: what a person reads of a run, as text tables, Markdown, or a page with plots (`page`). Every figure comes
//! from the evidence; nothing is computed here that a gate does not also use. Leaves to others: where the text goes.

mod brief;
pub(crate) mod ci;
mod clocks;
mod fleet;
mod forest;
mod history;
mod layout;
mod markdown;
mod open;
mod page;
mod profile;
mod roofline;
mod speedups;
mod svg;
mod targets;
mod timing;
mod trends;
mod two_runs;
mod verdicts;

pub use brief::{brief, brief_times, verdict};
pub use ci::{annotations, junit};
pub use fleet::{FleetView, fleet_html, fleet_text};
pub use history::{HistoryPoint, PastMedian, PastRun};
pub use layout::hanging;
pub use markdown::{markdown_file, markdown_summary};
pub use page::html;
pub use profile::section as profile_section;
pub use speedups::speedups;
pub use trends::{Entry, TrendRun, trends_html};
pub use two_runs::{CodePair, Differences, GatePair, RatioPair, Regressions, differences, regressions, two_runs};

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};

use crate::decision::Decision;
use crate::evidence::{CheckedCase, Environment, Mode, PeerBackend};
use crate::gate::{Gate, significant};
use crate::judge::{Comparison, Evidence, compare, ratio};
use crate::operator::Distribution;
use crate::setting::Setting;
use crate::subject::Subject;
use crate::suite::Suite;

/// Everything a report is made of.
pub struct RunView<'a> {
    /// Name of the run directory.
    pub name: &'a str,
    /// The suite as used.
    pub suite: &'a Suite,
    /// The evidence.
    pub evidence: &'a Evidence,
    /// The gates.
    pub gates: &'a [Gate],
    /// The decision.
    pub decision: &'a Decision,
    /// Where it was made.
    pub environment: &'a Environment,
}

/// How tables are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Rows in their own width, which can be searched and compared.
    Table,
    /// The same with long cells on several lines, for a terminal of so many columns.
    Narrow(u16),
    /// Markdown.
    Markdown,
}

/// One row of the gate summary: a variant on a shape.
struct Row<'a> {
    cases: Vec<&'a CheckedCase>,
    kernel: Option<&'a Comparison>,
    call: Option<&'a Comparison>,
}

/// Everything that is known of a run, in tables.
pub fn render(view: &RunView, format: Format) -> String {
    let mut text = String::new();
    for (title, body) in sections(view, format) {
        let heading = if format == Format::Markdown { format!("## {title}") } else { title.to_owned() };
        let _ = writeln!(text, "{heading}\n\n{}\n", body.trim_end());
    }
    text
}

/// The tables with their titles, what decides first; those that are empty are left out.
fn sections(view: &RunView, format: Format) -> Vec<(&'static str, String)> {
    let comparisons = compare(view.suite, &view.evidence.samples);
    let mut sections = vec![
        ("Targets", table(format, targets::rows(view, &comparisons))),
        ("Summary", table(format, summary(view, &comparisons))),
        ("Gates", table(format, gates(view.gates))),
        ("Peers", table(format, peers(view, &comparisons))),
        ("Steps of the ladder", ladder(view)),
        ("Profile", profile::section(view.evidence.profile.as_ref(), !view.suite.profile.is_empty(), format)),
        ("Other input distributions", table(format, stress(view))),
        ("Times", table(format, times(&comparisons))),
    ];
    sections.retain(|(_, body)| !body.is_empty());
    sections
}

/// The three lines that open REPORT.md: the decision, the gates by state, and where it was measured.
pub fn headline(view: &RunView) -> String {
    let text = format!("{}: {}\n{}\n{}", view.suite.name, verdicts::summary(view), counts(view), provenance(view));
    host_code(view).into_iter().fold(text, |text, line| format!("{text}\n{line}"))
}

/// That host code ran, where it did, and what was therefore not seen; the kernels that it launched, by its own profiler.
fn host_code(view: &RunView) -> Vec<String> {
    let evidence = view.evidence;
    let is_one = |name: &&str| evidence.builds.records.iter().any(|b| b.variant == *name && b.language.is_host_code());
    let ran = |name: &&str| {
        evidence.checks.cases.iter().any(|case| case.variant == *name && case.launch.output_sha256.is_some())
    };
    let variants: Vec<&str> = view.suite.variant_names().filter(is_one).filter(ran).collect();
    if variants.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "host code ran in {}: not seen are its registers, spills, races and uninitialised reads, and what it does at \
         import; it times itself, and counts as slow as the runner's clock allows",
        variants.join(", ")
    )];
    for variant in variants {
        let cases = evidence.checks.cases.iter().filter(|case| case.variant == variant);
        let kernels: std::collections::BTreeSet<&str> =
            cases.flat_map(|case| case.launch.kernels.iter().map(String::as_str)).collect();
        let kernels = kernels.into_iter().map(|name| shortened(name, 60)).collect::<Vec<_>>().join(", ");
        let kernels = if kernels.is_empty() { "not known".to_owned() } else { kernels };
        let code = evidence.samples.host_code.get(variant);
        let not_sealed = code.and_then(|code| code.not_sealed.as_ref());
        let sealed = not_sealed.map_or(String::new(), |why| format!("; it could start processes while timed ({why})"));
        let not_quiet = code.and_then(|code| code.not_quiet.as_ref());
        let quiet = not_quiet.map_or(String::new(), |why| {
            format!("; not seen is whether it kept the device busy in others' turns ({why})")
        });
        let same = code.map(|code| code.same_inputs.join(", ")).filter(|same| !same.is_empty());
        let same = same.map_or(String::new(), |same| format!("; values of {same} were the same in several launches"));
        let torch = code.and_then(|code| code.versions.get("torch")).map_or(String::new(), |v| format!(" (torch {v})"));
        lines.push(format!("kernels of {variant}{torch}: {kernels}{sealed}{quiet}{same}"));
    }
    lines
}

/// How many gates are in each state.
fn counts(view: &RunView) -> String {
    let counts = &view.decision.counts;
    let [pass, fail, deferred, inconclusive] = [counts.pass, counts.fail, counts.deferred, counts.inconclusive];
    format!("{pass} gates PASS, {fail} FAIL, {deferred} DEFERRED, {inconclusive} INCONCLUSIVE")
}

/// Run, commit, device, compiler and time, in one line.
pub fn provenance(view: &RunView) -> String {
    let environment = view.environment;
    let commit = environment.commit.as_deref().map_or("unknown commit", |c| &c[..c.len().min(12)]);
    let dirty = if environment.dirty == Some(true) { " with uncommitted changes" } else { "" };
    let device = environment.device.as_ref().map_or("no GPU", |d| d.name.as_str());
    let device = match environment.other_devices.len() {
        0 => device.to_owned(),
        others => format!("{} GPUs {device}", others + 1),
    };
    let nvcc = environment.nvcc.as_deref().unwrap_or("no nvcc");
    format!("{} at {commit}{dirty}, {device}, nvcc {nvcc}, {}", view.name, environment.started)
}

/// Of each variant that was not compiled as its source has it, what was taken off; variants alike stand together.
fn taken_off(view: &RunView) -> Vec<String> {
    let mut alike: BTreeMap<&[String], Vec<&str>> = BTreeMap::new();
    for record in view.evidence.builds.records.iter().filter(|record| !record.taken_off.is_empty()) {
        let variants = alike.entry(&record.taken_off).or_default();
        if !variants.contains(&record.variant.as_str()) {
            variants.push(&record.variant);
        }
    }
    let line = |(what, variants): (&[String], Vec<&str>)| {
        format!("compiled without {}, by the gate file's values: {}", what.join(", "), variants.join(", "))
    };
    alike.into_iter().map(line).collect()
}

fn table(format: Format, rows: Vec<Vec<String>>) -> String {
    if rows.len() < 2 {
        return String::new();
    }
    if format == Format::Markdown {
        return markdown::table(&rows);
    }
    let mut rows = rows.into_iter();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    match format {
        Format::Narrow(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        Format::Table | Format::Markdown => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table.set_header(rows.next().unwrap_or_default());
    table.add_rows(rows);
    table.to_string()
}

fn strings(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|c| (*c).to_owned()).collect()
}

/// The largest figure over cases. Figures are over finite elements only, so an output that is not finite has none.
fn worst(cases: &[&CheckedCase], figure: impl Fn(&crate::evidence::Errors) -> f64) -> String {
    let errors: Vec<_> = cases.iter().filter_map(|c| c.errors.as_ref()).collect();
    if errors.iter().any(|e| e.nan + e.inf > 0) {
        return "NaN".to_owned();
    }
    let values: Vec<f64> = errors.into_iter().map(figure).collect();
    if values.is_empty() { "-".to_owned() } else { significant(values.into_iter().fold(0.0, f64::max)) }
}

fn summary(view: &RunView, comparisons: &[Comparison]) -> Vec<Vec<String>> {
    let mut rows = vec![strings(&[
        "variant",
        "shape",
        "regs gated / timed",
        "smem KiB",
        "spills",
        "cases",
        "NaN+Inf",
        "kernel err max",
        "e2e mean",
        "e2e max",
        "floor max",
        "bad %",
        "kernel us p50",
        "call us p50",
        "vs control (kernel)",
    ])];
    for variant in view.suite.variant_names() {
        for shape in shapes_to_show(view, variant) {
            rows.push(summary_row(view, comparisons, variant, shape));
        }
    }
    rows
}

/// All shapes of a variant that ran; of one that did not, the first that each entry serves, for what ptxas said.
fn shapes_to_show<'a>(view: &RunView<'a>, variant: &str) -> Vec<&'a str> {
    let shapes = view.suite.check_shapes.iter().map(String::as_str);
    if view.evidence.checks.cases.iter().any(|c| c.variant == variant) {
        return shapes.collect();
    }
    let build = view.evidence.builds.get(variant, &view.suite.arch);
    let mut seen = std::collections::BTreeSet::new();
    shapes
        .filter(|name| {
            let shape = view.suite.shape(name).ok();
            seen.insert(build.zip(shape).and_then(|(build, shape)| Some(build.entry(&shape)?.launch.entry.as_str())))
        })
        .collect()
}

fn summary_row(view: &RunView, comparisons: &[Comparison], variant: &str, shape: &str) -> Vec<String> {
    let of =
        |mode: Mode| comparisons.iter().find(|c| c.subject.is_plain(variant) && c.shape == shape && c.mode == mode);
    let here = |c: &&CheckedCase| {
        let problem = &c.launch.problem;
        c.variant == variant && problem.shape.name == shape && problem.distribution == Distribution::Normal
    };
    let row = Row {
        cases: view.evidence.checks.cases.iter().filter(here).collect(),
        kernel: of(Mode::Kernel),
        call: of(Mode::Call),
    };
    let sizes = view.suite.shape(shape).ok();
    // What ran, where something did: a module may have several entries for one shape.
    let ran = row.cases.iter().find_map(|c| c.launch.entry.as_deref());
    let entry = |arch: &str| view.evidence.builds.get(variant, arch)?.entry_named(ran, sizes.as_ref()?);
    let build = entry(&view.suite.arch);
    let timed_arch = view.evidence.samples.device.as_ref().map(|d| d.arch());
    let timed = timed_arch.and_then(|arch| entry(&arch));
    let built = |figure: &dyn Fn(&crate::evidence::EntryBuild) -> String| build.map_or("-".to_owned(), figure);
    let checked = row.cases.iter().filter(|c| c.errors.is_some()).count();
    // A large shape has one seed, and part of its rows.
    let sampled = row.cases.iter().find_map(|c| c.errors.as_ref()?.sampled_rows.as_ref());
    let sampled = sampled.map_or(String::new(), |rows| format!(", {} rows", rows.len()));
    let planned = view.suite.seeds_on(shape).len();
    let not_finite: u64 = row.cases.iter().filter_map(|c| c.errors.as_ref()).map(|e| e.nan + e.inf).sum();
    let time = |c: Option<&Comparison>| c.map_or("-".to_owned(), |c| significant(c.time_us.p50));
    vec![
        variant.to_owned(),
        shape.to_owned(),
        match (build, timed) {
            (Some(gated), Some(timed)) => format!("{} / {}", gated.resources.registers, timed.resources.registers),
            (Some(gated), None) => gated.resources.registers.to_string(),
            (None, _) => "-".to_owned(),
        },
        built(&|e| significant(f64::from(e.resources.static_smem_bytes + e.launch.dynamic_smem_bytes) / 1024.0)),
        built(&|e| (e.resources.spill_store_bytes + e.resources.spill_load_bytes).to_string()),
        if row.cases.is_empty() { "-".to_owned() } else { format!("{checked}/{planned}{sampled}") },
        if checked == 0 { "-".to_owned() } else { not_finite.to_string() },
        worst(&row.cases, |e| e.kernel_max),
        worst(&row.cases, |e| e.end_to_end_mean),
        worst(&row.cases, |e| e.end_to_end_max),
        worst(&row.cases, |e| e.floor_max),
        worst(&row.cases, |e| 100.0 * e.bad_share),
        time(row.kernel),
        time(row.call),
        row.kernel.map_or("-".to_owned(), |c| ratio_cell(c, &view.suite.control)),
    ]
}

/// Time over control with its interval, and the speedup it means.
fn ratio_cell(comparison: &Comparison, control: &str) -> String {
    match comparison.over_control {
        Some(ratio) => format!(
            "{} [{}, {}] ({}x)",
            significant(ratio.estimate),
            significant(ratio.low),
            significant(ratio.high),
            significant(1.0 / ratio.estimate)
        ),
        None if comparison.subject.is_plain(control) => "control".to_owned(),
        None => "-".to_owned(),
    }
}

fn stress(view: &RunView) -> Vec<Vec<String>> {
    let mut rows = vec![strings(&["variant", "distribution", "cases", "NaN+Inf", "kernel err max", "mean"])];
    rows[0].push("max / max(1, |ref|)".to_owned());
    for variant in view.suite.variant_names() {
        let mut by_distribution: BTreeMap<Distribution, Vec<&CheckedCase>> = BTreeMap::new();
        for case in view.evidence.checks.cases.iter().filter(|c| c.variant == variant) {
            by_distribution.entry(case.launch.problem.distribution).or_default().push(case);
        }
        by_distribution.remove(&Distribution::Normal);
        rows.extend(by_distribution.into_iter().map(|(distribution, cases)| {
            let errors: Vec<_> = cases.iter().filter_map(|c| c.errors.as_ref()).collect();
            vec![
                variant.to_owned(),
                distribution.name().to_owned(),
                format!("{}/{}", errors.len(), cases.len()),
                errors.iter().map(|e| e.nan + e.inf).sum::<u64>().to_string(),
                worst(&cases, |e| e.kernel_max),
                worst(&cases, |e| e.kernel_mean),
                worst(&cases, |e| e.kernel_max / e.reference_amax.max(1.0)),
            ]
        }));
    }
    rows
}

fn peers(view: &RunView, comparisons: &[Comparison]) -> Vec<Vec<String>> {
    let mut rows = vec![strings(&[
        "peer",
        "shape",
        "ran",
        "e2e err max",
        "e2e err mean",
        "kernel us p50",
        "call us p50",
        "time / control (kernel)",
    ])];
    for backend in &view.evidence.peers.backends {
        let of = |mode: Mode| {
            let is_its = |c: &&Comparison| c.shape == backend.shape && c.distribution == backend.distribution;
            comparisons.iter().filter(is_its).find(|c| c.subject.is_plain(&backend.subject) && c.mode == mode)
        };
        let time = |mode: Mode| of(mode).map_or("-".to_owned(), |c| significant(c.time_us.p50));
        let usual = view.evidence.peers.backends.iter().find(|other| {
            (&other.subject, &other.shape) == (&backend.subject, &backend.shape) && other.distribution.is_normal()
        });
        let alike =
            |other: &&PeerBackend| (&other.kernels, &other.unavailable) == (&backend.kernels, &backend.unavailable);
        let is_told = !backend.distribution.is_normal() && usual.as_ref().is_some_and(alike);
        let ran = match (&backend.unavailable, &backend.resolved) {
            _ if is_told => "as on normal inputs".to_owned(),
            (Some(why), _) => format!("not here: {}", shortened(why, 60)),
            (None, Some(resolved)) => format!("{resolved}: {}", shortened(&backend.kernels.join(", "), 48)),
            (None, None) => shortened(&backend.kernels.join(", "), 56),
        };
        rows.push(vec![
            backend.subject.clone(),
            backend.distribution.on(&backend.shape),
            ran,
            backend.errors.as_ref().map_or("-".to_owned(), |e| significant(e.end_to_end_max)),
            backend.errors.as_ref().map_or("-".to_owned(), |e| significant(e.end_to_end_mean)),
            time(Mode::Kernel),
            time(Mode::Call),
            of(Mode::Kernel).map_or("-".to_owned(), |c| ratio_cell(c, &view.suite.control)),
        ]);
    }
    rows
}

/// Every subject that was timed, with the spread of its samples.
fn times(comparisons: &[Comparison]) -> Vec<Vec<String>> {
    let mut rows = vec![strings(&[
        "shape",
        "subject",
        "timer",
        "us p50",
        "p90",
        "p99",
        "mean",
        "std",
        "CV %",
        "samples",
        "dropped blocks",
    ])];
    rows.extend(comparisons.iter().map(|c| {
        let t = &c.time_us;
        let mut row = vec![c.shape.clone(), c.subject.to_string(), c.mode.name().to_owned()];
        row.extend([t.p50, t.p90, t.p99, t.mean, t.std, 100.0 * t.cv].map(significant));
        row.extend([t.count.to_string(), c.dropped_blocks.to_string()]);
        row
    }));
    rows
}

fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit { text.to_owned() } else { text.chars().take(limit - 1).chain(['…']).collect() }
}

/// Each baseline against the one before it, and the control against the last.
fn ladder(view: &RunView) -> String {
    let mut steps: Vec<&str> = view.suite.baselines.iter().map(String::as_str).collect();
    steps.push(&view.suite.control);
    let mut text = String::new();
    for shape in &view.suite.time_shapes {
        for pair in steps.windows(2) {
            let [of, than] = [pair[1], pair[0]].map(Subject::plain);
            let setting = Setting::hot(shape, Distribution::Normal, Mode::Kernel);
            if let Some(ratio) = ratio(&view.evidence.samples.blocks, &setting, [&of, &than]) {
                let [at, low, high, speed] =
                    [ratio.estimate, ratio.low, ratio.high, 1.0 / ratio.estimate].map(significant);
                let settled = if ratio.contains(1.0) {
                    "no difference seen"
                } else if ratio.high < 1.0 {
                    "faster"
                } else {
                    "slower"
                };
                let _ = writeln!(
                    text,
                    "- {shape}: {} takes {at} [{low}, {high}] of {}'s time ({speed}x): {settled}",
                    pair[1], pair[0]
                );
            }
        }
    }
    text
}

fn gates(gates: &[Gate]) -> Vec<Vec<String>> {
    let mut rows = vec![strings(&["variant", "gate", "measured", "threshold", "where", "state"])];
    rows.extend(gates.iter().map(|g| {
        vec![
            g.variant.clone(),
            g.figure.clone(),
            shortened(&g.measured, 160),
            shortened(&g.threshold, 60),
            shortened(&g.place, 60),
            g.state.to_string(),
        ]
    }));
    rows
}

#[cfg(test)]
mod made;

#[cfg(test)]
pub(crate) mod testing {
    //! A judged run around evidence, for the tests of every form of the report.

    use super::*;
    use crate::decision::decide;
    use crate::judge::{judge, testing};

    pub fn with_view<T>(evidence: &Evidence, look: impl FnOnce(&RunView) -> T) -> T {
        with_view_of(&testing::suite(), evidence, look)
    }

    pub fn with_view_of<T>(suite: &Suite, evidence: &Evidence, look: impl FnOnce(&RunView) -> T) -> T {
        let gates = judge(suite, evidence);
        let decision = decide(suite, &gates, &evidence.checks, &evidence.samples);
        let device = evidence.samples.device.clone();
        let environment = Environment { started: "2026-11-21T00:00:00Z".into(), device, ..Environment::default() };
        let (gates, decision, environment) = (&gates, &decision, &environment);
        look(&RunView { name: "run", suite, evidence, gates, decision, environment })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::with_view;
    use super::*;
    use crate::judge::testing;
    use crate::operator::attention::RAGGED_MASKED;

    fn rendered(evidence: &Evidence, format: Format) -> String {
        with_view(evidence, |view| format!("{}\n{}", headline(view), render(view, format)))
    }

    #[test]
    fn a_merge_reads_as_one() {
        let text = rendered(&testing::evidence(), Format::Table);
        assert!(text.starts_with("t: MERGE new: latency reduction on mission 20.0%"), "{text}");
        assert!(text.contains("NVIDIA L4, nvcc"), "{text}");
        let row = text.lines().find(|l| l.starts_with("│ new") && l.contains("mission")).unwrap();
        for cell in ["96", "33", "2/2", "0.002", "0.081", "79.96", "(1.250x)"] {
            assert!(row.contains(cell), "`{cell}` is not in {row}");
        }
    }

    #[test]
    fn a_sampled_shape_says_how_many_rows_were_compared() {
        let mut evidence = testing::evidence();
        let mut suite = testing::suite();
        suite.large = Some(crate::suite::LargeShapes { shapes: vec!["wide".into()], reference_rows: 2, rounds: 8 });
        evidence.checks.cases.retain(|c| c.launch.problem.shape.name != "wide" || c.launch.problem.seed == 0);
        for case in evidence.checks.cases.iter_mut().filter(|c| c.launch.problem.shape.name == "wide") {
            case.errors.as_mut().unwrap().sampled_rows = Some(vec![[0, 0], [3, 7]]);
        }
        let text = super::testing::with_view_of(&suite, &evidence, |view| render(view, Format::Table));
        let row = text.lines().find(|l| l.starts_with("│ new") && l.contains("wide")).unwrap();
        assert!(row.contains("1/1, 2 rows"), "{row}");
    }

    #[test]
    fn the_registers_are_those_of_the_entry_that_ran() {
        let mut evidence = testing::evidence();
        let record = evidence.builds.records.iter_mut().find(|b| b.variant == "new").unwrap();
        let mut second = record.entries[0].clone();
        (second.launch.entry, second.resources.registers) = ("sdpa_fwd_d64_wide".into(), 111);
        record.entries.insert(1, second);
        let on_mission = |c: &&mut CheckedCase| c.variant == "new" && c.launch.problem.shape.name == "mission";
        for case in evidence.checks.cases.iter_mut().filter(on_mission) {
            case.launch.entry = Some("sdpa_fwd_d64_wide".into());
        }
        let text = rendered(&evidence, Format::Table);
        let registers = |shape: &str| {
            let row = text.lines().find(|l| l.starts_with("│ new") && l.contains(shape)).unwrap();
            row.split('┆').nth(2).unwrap().trim().to_owned()
        };
        assert_eq!([registers("mission"), registers(RAGGED_MASKED)], ["111 / 111", "96 / 96"]);
    }

    #[test]
    fn an_output_that_is_not_finite_has_no_error_worth_a_number() {
        let mut evidence = testing::evidence();
        let case = evidence.checks.cases.iter_mut().find(|c| c.variant == "new").unwrap();
        case.errors.as_mut().unwrap().nan = 9;
        let text = rendered(&evidence, Format::Markdown);
        let row = text.lines().find(|l| l.contains("| new") && l.contains("mission")).unwrap();
        assert_eq!(row.matches("NaN").count(), 5, "{row}");
    }

    #[test]
    fn what_was_not_measured_is_a_dash_never_a_zero() {
        let mut evidence = testing::evidence();
        evidence.checks = crate::evidence::Checks {
            deferred: Some(crate::deferral::Deferral::new("no GPU", "get one")),
            ..Default::default()
        };
        evidence.samples = crate::evidence::Samples {
            deferred: Some(crate::deferral::Deferral::new("no GPU", "get one")),
            ..Default::default()
        };
        let text = rendered(&evidence, Format::Markdown);
        assert!(text.contains("no GPU, nvcc"), "{text}");
        let row = text.lines().find(|l| l.contains("| new") && l.contains("mission")).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[3..6], ["96", "33", "0"]);
        assert!(cells[6..16].iter().all(|c| *c == "-"), "{row}");
        assert!(text.contains("DEFERRED (no GPU; get one)"), "{text}");
    }
}
