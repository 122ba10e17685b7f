//! What a person reads of a fleet: the matrix of verdicts, why each is what it is, how runs scatter, and what does not count.
//! Text, Markdown and a page from the same rows. Leaves to others: the verdicts.

use std::fmt::Write;

use serde::Serialize;

use super::page::{self, Cell as PageCell};
use super::svg::escape;
use super::{Format, strings, table};
use crate::decision::Verdict;
use crate::fleet::{Cell, GateMatrix, Outcome, RunOutcome, ShapeRatio, Spread};
use crate::gate::significant;

/// Everything that the report of a fleet is made of.
#[derive(Debug, Serialize)]
pub struct FleetView<'a> {
    /// Name of the fleet's folder.
    pub name: &'a str,
    /// When it was submitted, and from which sources.
    pub provenance: &'a str,
    /// By gate file.
    pub matrices: &'a [GateMatrix],
    /// Of every task.
    pub outcomes: &'a [RunOutcome],
}

/// One section: its title, and rows under a header, or a line where there are none.
struct Section {
    title: String,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

/// The report as text or Markdown.
pub fn fleet_text(view: &FleetView, format: Format) -> String {
    let mut text = format!("{}\n", opening(view).join(if format == Format::Markdown { "  \n" } else { "\n" }));
    for Section { title, rows, notes } in sections(view) {
        let mark = if format == Format::Markdown { "## " } else { "" };
        let _ = write!(text, "\n{mark}{title}\n\n");
        let body = table(format, rows);
        if !body.is_empty() {
            let _ = writeln!(text, "{body}");
        }
        for note in notes {
            let item = if format == Format::Markdown { "- " } else { "" };
            let _ = writeln!(text, "{item}{note}");
        }
    }
    text
}

/// The report as one page that needs neither network nor scripts.
pub fn fleet_html(view: &FleetView) -> String {
    let name = escape(view.name);
    let mut page = page::head(view.name) + &format!("<header>\n<h1>{name}</h1>\n");
    for line in opening(view) {
        let _ = writeln!(page, "<p>{}</p>", escape(&line));
    }
    page.push_str("</header>\n<main>\n");
    for Section { title, rows, notes } in sections(view) {
        let cells: Vec<Vec<PageCell>> =
            rows.iter().map(|row| row.iter().map(|text| PageCell::text(text)).collect()).collect();
        let body = if cells.len() > 1 { page::table(&title, &cells) } else { String::new() };
        let notes: String = notes.iter().map(|note| format!("<p>{}</p>\n", escape(note))).collect();
        let _ = writeln!(page, "<section>\n<h2>{}</h2>\n{body}{notes}</section>", escape(&title));
    }
    page + "</main>\n</body>\n</html>\n"
}

/// A line for every candidate, then where it comes from.
fn opening(view: &FleetView) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for matrix in view.matrices {
        let line = |row: &crate::fleet::Row| {
            format!("{}: {} {} {}", matrix.gate, row.verdict.word(), row.candidate, colon(&row.because))
        };
        lines.extend(matrix.rows.iter().map(line));
    }
    let count = |wanted: fn(&Outcome) -> bool| view.outcomes.iter().filter(|o| wanted(&o.outcome)).count();
    lines.push(format!(
        "{} tasks: {} runs hold, {} open, {} refused",
        view.outcomes.len(),
        count(|o| matches!(o, Outcome::Measured(_))),
        count(|o| matches!(o, Outcome::Open { .. })),
        count(|o| matches!(o, Outcome::Refused { .. })),
    ));
    lines.push(format!("{}, {}", view.name, view.provenance));
    lines
}

/// A reason that names its kind reads on; another one is set off.
fn colon(because: &str) -> String {
    if because.starts_with("on ") { because.to_owned() } else { format!("({because})") }
}

fn sections(view: &FleetView) -> Vec<Section> {
    let mut sections: Vec<Section> = view.matrices.iter().map(matrix_section).collect();
    let spreads: Vec<Vec<String>> = view.matrices.iter().flat_map(spread_rows).collect();
    if !spreads.is_empty() {
        let header = strings(&[
            "gate file",
            "candidate",
            "kind",
            "shape",
            "runs",
            "nodes",
            "all runs %",
            "one node %",
            "between nodes %",
        ]);
        let rows = std::iter::once(header).chain(spreads).collect();
        let note =
            "Standard deviations of the ratio to the control, in percent of it; each ratio is of one run on one card.";
        sections.push(Section { title: "Scatter between runs".to_owned(), rows, notes: vec![note.to_owned()] });
    }
    let said = |word: &str, o: &RunOutcome, why: &str| {
        format!("{word} {} {} #{}: {why}", o.task.kind, o.task.gate, o.task.repeat)
    };
    let not_counted = view.outcomes.iter().filter_map(|o| match &o.outcome {
        Outcome::Measured(_) => None,
        Outcome::Open { why } => Some(said("OPEN", o, why)),
        Outcome::Refused { why, .. } => Some(said("REFUSED", o, why)),
    });
    let mut notes: Vec<String> = not_counted.collect();
    // What must not count comes before what is not there yet.
    notes.sort_by_key(|note| note.starts_with("OPEN"));
    if !notes.is_empty() {
        sections.push(Section { title: "What does not count".to_owned(), rows: Vec::new(), notes });
    }
    sections
}

fn matrix_section(matrix: &GateMatrix) -> Section {
    let mut header = strings(&["candidate", "fleet"]);
    header.extend(matrix.columns.iter().map(|column| {
        let may = if column.required { "" } else { ", may defer" };
        format!("{} ({}{may})", column.kind.name, column.kind.device)
    }));
    let mut rows = vec![header];
    let mut notes = Vec::new();
    for row in &matrix.rows {
        let mut line = vec![row.candidate.clone(), row.verdict.word().to_owned()];
        line.extend(row.cells.iter().map(in_words));
        rows.push(line);
        for (column, cell) in matrix.columns.iter().zip(&row.cells).filter(|(_, c)| c.verdict != Verdict::Merge) {
            notes.push(format!("{} on {}: {}", row.candidate, column.kind.name, cell.because));
        }
    }
    Section { title: format!("{}: kernel time over {}", matrix.gate, matrix.control), rows, notes }
}

fn in_words(cell: &Cell) -> String {
    let mut words = cell.verdict.word().to_owned();
    if cell.edited {
        words.push_str(", REFUSED evidence");
    }
    if let Some(first) = &cell.ratio {
        let _ = write!(words, " {}", ratio(first));
    }
    if let Some(worst) = &cell.regression {
        let _ = write!(words, "; slowest: {}", ratio(worst));
    }
    if cell.runs != (1, 1) {
        let _ = write!(words, "; {} of {} runs hold", cell.runs.0, cell.runs.1);
    }
    words
}

fn ratio(of: &ShapeRatio) -> String {
    let [at, low, high] = [of.ratio.estimate, of.ratio.low, of.ratio.high].map(significant);
    format!("{at} [{low}, {high}] on {}", of.place)
}

fn spread_rows(matrix: &GateMatrix) -> Vec<Vec<String>> {
    let figure = |value: Option<f64>| value.map_or("-".to_owned(), significant);
    let line = |candidate: &str, kind: &str, shape: &str, spread: &Spread| {
        let mut row = strings(&[&matrix.gate, candidate, kind, shape]);
        row.extend([spread.runs.to_string(), spread.nodes.to_string()]);
        row.extend([Some(spread.all_percent), spread.same_node_percent, spread.between_nodes_percent].map(figure));
        row
    };
    let of_row = |row: &crate::fleet::Row| {
        let cells = matrix.columns.iter().zip(&row.cells);
        let spreads = cells.filter_map(|(column, cell)| {
            let (first, spread) = (cell.ratio.as_ref()?, cell.spread.as_ref()?);
            Some(line(&row.candidate, &column.kind.name, &first.place, spread))
        });
        spreads.collect::<Vec<_>>()
    };
    matrix.rows.iter().flat_map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{CandidateDecision, Counts, Decision};
    use crate::fleet::{Kind, Measured, Task, matrix};
    use crate::judge::testing;
    use stats::Interval;

    fn measured(kind: &str, repeat: u32, node: &str, estimate: f64) -> RunOutcome {
        let interval = |estimate| Interval { estimate, low: estimate - 0.01, high: estimate + 0.01 };
        let ratio = ShapeRatio {
            variant: "new".into(),
            place: "mission".into(),
            usual_on: Some("mission".into()),
            ratio: interval(estimate),
        };
        let candidate =
            CandidateDecision { variant: "new".into(), verdict: Verdict::Merge, because: "20%".into(), slower: vec![] };
        let decision = Decision {
            headline: String::new(),
            candidates: vec![candidate],
            broken: None,
            aspirations: vec![],
            counts: Counts { pass: 1, ..Counts::default() },
        };
        let outcome =
            Outcome::Measured(Box::new(Measured { run: "r".into(), node: node.into(), decision, ratios: vec![ratio] }));
        RunOutcome { task: Task { kind: kind.into(), gate: "t".into(), repeat }, outcome }
    }

    fn rendered(format: Option<Format>) -> String {
        let kinds = ["l4", "h100"].map(|name| Kind { name: name.into(), device: format!("NVIDIA <{name}>") });
        let refused = Outcome::Refused { why: "`r9`: gates.json was changed".into(), edited: true };
        let outcomes = [
            measured("l4", 1, "n1", 0.80),
            measured("l4", 2, "n1", 0.82),
            RunOutcome { task: Task { kind: "h100".into(), gate: "t".into(), repeat: 1 }, outcome: refused },
        ];
        let matrices = [matrix(&testing::suite(), &kinds, &outcomes.iter().collect::<Vec<_>>())];
        let view = FleetView { name: "f", provenance: "today", matrices: &matrices, outcomes: &outcomes };
        format.map_or_else(|| fleet_html(&view), |format| fleet_text(&view, format))
    }

    #[test]
    fn the_matrix_says_verdict_ratio_scatter_and_what_is_refused() {
        let text = rendered(Some(Format::Markdown));
        assert!(text.starts_with("t: DEFER new on h100: `r9`: gates.json was changed"), "{text}");
        assert!(text.contains("3 tasks: 2 runs hold, 0 open, 1 refused"), "{text}");
        let row = text.lines().find(|line| line.starts_with("| new ")).unwrap();
        assert!(row.contains("MERGE 0.8099 [0.7900, 0.8300] on mission; 2 of 2 runs hold"), "{row}");
        assert!(row.contains("DEFER, REFUSED evidence; 0 of 1 runs hold"), "{row}");
        let scatter = text.lines().find(|line| line.starts_with("| t ")).unwrap();
        let cells: Vec<&str> = scatter.split('|').map(str::trim).collect();
        assert_eq!(cells[4..10], ["mission", "2", "1", "1.746", "1.746", "-"], "{scatter}");
        assert!(text.contains("- REFUSED h100 t #1: `r9`: gates.json was changed"), "{text}");
    }

    #[test]
    fn the_page_says_the_same_and_is_safe() {
        let page = rendered(None);
        assert!(page.contains("NVIDIA &lt;h100&gt;") && !page.contains("<h100>"), "{page}");
        assert!(page.contains("0.8099 [0.7900, 0.8300]") && page.contains("REFUSED h100 t #1"), "{page}");
    }
}
