//! One verdict over many devices: each candidate's runs by kind of device, and what the merge rule of the gate file makes
//! of them. Verdicts are put together, times never are: a ratio is of one run on one card.
//! Leaves to others: whether a run holds (it comes here verified, or with the reason why it is refused).

use std::collections::BTreeMap;

use serde::Serialize;

use super::spread::Spread;
use crate::decision::{Decision, Verdict};
use crate::evidence::{Mode, Samples};
use crate::exit::Exit;
use crate::judge::{compare, compare_everywhere};
use crate::suite::Suite;
use stats::Interval;

/// A kind of device that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// As `--on` names it.
    pub name: String,
    /// What its runs say that they ran on.
    pub device: String,
}

/// Which piece of work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// Kind of device.
    pub kind: String,
    /// Gate file or suite, by the name that it gives itself.
    pub gate: String,
    /// Which of the repeats, from 1.
    pub repeat: u32,
}

/// A candidate's time over the control's, paired within one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShapeRatio {
    /// Candidate.
    pub variant: String,
    /// Shape, and what else is not usual: `mission, outliers, call time`.
    pub place: String,
    /// The shape, where the ratio may stand for the candidate: kernel time in the first distribution, with a hot L2.
    pub usual_on: Option<String>,
    /// Time over the control's.
    pub ratio: Interval,
}

/// What is kept of a run that holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Name of the run directory.
    pub run: String,
    /// The node that it ran on.
    pub node: String,
    /// Its decision.
    pub decision: Decision,
    /// Ratios of its candidates.
    pub ratios: Vec<ShapeRatio>,
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// A run that holds.
    Measured(Box<Measured>),
    /// No whole run.
    Open {
        /// Where the task stands.
        why: String,
    },
    /// There is something that must not count.
    Refused {
        /// What, by name.
        why: String,
        /// Whether evidence was changed, as against not finished.
        edited: bool,
    },
}

/// A task and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunOutcome {
    /// Which.
    #[serde(flatten)]
    pub task: Task,
    /// What.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A column of the matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The kind.
    #[serde(flatten)]
    pub kind: Kind,
    /// Whether a merge needs its verdict.
    pub required: bool,
}

/// What the runs of one kind say of one candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The verdict of the runs together: the first of FIX, DEFER, VALID NEGATIVE, MERGE that one of them has.
    pub verdict: Verdict,
    /// Why, of the run that decided.
    pub because: String,
    /// Why a run found it right and not worth merging, where one did: that stands also where others are open.
    pub negative: Option<String>,
    /// Whether a task's evidence was changed.
    pub edited: bool,
    /// Runs that hold, of how many tasks.
    pub runs: (usize, usize),
    /// The ratio on the shape that is gated first: the middle of the runs' estimates, and the ends of all their intervals.
    pub ratio: Option<ShapeRatio>,
    /// Where it is slowest beside the control, if it is slower anywhere: any shape, distribution, timer and state of the L2.
    pub regression: Option<ShapeRatio>,
    /// How the first ratio scatters between runs.
    pub spread: Option<Spread>,
}

/// A candidate on every kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Candidate.
    pub candidate: String,
    /// Over the whole fleet.
    pub verdict: Verdict,
    /// Why.
    pub because: String,
    /// By kind, in the order of the columns.
    pub cells: Vec<Cell>,
}

/// One gate file over the fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateMatrix {
    /// Its name.
    pub gate: String,
    /// The accepted variant.
    pub control: String,
    /// The kinds.
    pub columns: Vec<Column>,
    /// The candidates.
    pub rows: Vec<Row>,
}

/// The ratios of a run's candidates on every shape, in every distribution and state of the L2, by both timers.
pub fn ratios(suite: &Suite, samples: &Samples) -> Vec<ShapeRatio> {
    let decides: Vec<String> =
        compare(suite, samples).iter().filter(|c| c.mode == Mode::Kernel).map(|c| c.setting().name()).collect();
    let of_candidate = compare_everywhere(suite, samples).into_iter().filter_map(|c| {
        let candidate = suite.candidates.iter().find(|candidate| c.subject.is_plain(&candidate.variant))?;
        let (place, ratio) = (c.setting().name(), c.over_control?);
        let usual_on = decides.contains(&place).then_some(c.shape);
        Some(ShapeRatio { variant: candidate.variant.clone(), place, usual_on, ratio })
    });
    of_candidate.collect()
}

/// Whether a run was of this gate file, settled as it is before it is used. Where the file leaves the architecture to the
/// device, the run has filled it in; the fresh seed is each run's own; what a run left out it says itself, and cannot merge.
pub fn same_gate(planned: &Suite, used: &Suite) -> bool {
    let arch = if planned.arch.is_empty() { used.arch.clone() } else { planned.arch.clone() };
    let own = (used.narrowed.clone(), used.fresh_seed);
    Suite { arch, narrowed: own.0, fresh_seed: own.1, ..planned.clone() } == *used
}

/// The matrix of one gate file; `outcomes` are those of its tasks.
pub fn matrix(suite: &Suite, kinds: &[Kind], outcomes: &[&RunOutcome]) -> GateMatrix {
    let columns: Vec<Column> =
        kinds.iter().map(|kind| Column { kind: kind.clone(), required: is_required(suite, &kind.name) }).collect();
    let row = |candidate: &str| {
        let cell = |column: &Column| {
            let own: Vec<&Outcome> =
                outcomes.iter().filter(|o| o.task.kind == column.kind.name).map(|o| &o.outcome).collect();
            cell(suite, candidate, &own)
        };
        let cells: Vec<Cell> = columns.iter().map(cell).collect();
        let (verdict, because) = together(suite, &columns, &cells);
        Row { candidate: candidate.to_owned(), verdict, because, cells }
    };
    let rows = suite.candidates.iter().map(|candidate| row(&candidate.variant)).collect();
    GateMatrix { gate: suite.name.clone(), control: suite.control.clone(), columns, rows }
}

fn is_required(suite: &Suite, kind: &str) -> bool {
    suite.fleet.as_ref().is_none_or(|rule| !rule.may_defer.iter().any(|name| name == kind))
}

/// What one run says of a candidate. A control that must be fixed is a fault wherever it is seen.
fn said(measured: &Measured, candidate: &str) -> (Verdict, String) {
    if let Some(broken) = &measured.decision.broken {
        return (Verdict::Fix, broken.line());
    }
    match measured.decision.candidates.iter().find(|c| c.variant == candidate) {
        Some(decided) => (decided.verdict, decided.because.clone()),
        None => (Verdict::Defer, format!("`{}` says nothing of it", measured.run)),
    }
}

fn cell(suite: &Suite, candidate: &str, outcomes: &[&Outcome]) -> Cell {
    let all = outcomes.iter().map(|outcome| match outcome {
        Outcome::Measured(measured) => said(measured, candidate),
        Outcome::Open { why } | Outcome::Refused { why, .. } => (Verdict::Defer, why.clone()),
    });
    let all: Vec<(Verdict, String)> = all.collect();
    let negative = all.iter().find(|(verdict, _)| *verdict == Verdict::ValidNegative).map(|(_, why)| why.clone());
    // Of several that weigh the same, the first speaks.
    let worst =
        all.into_iter().reduce(|worst, next| if Exit::from(next.0) > Exit::from(worst.0) { next } else { worst });
    let (verdict, because) = worst.unwrap_or_else(|| (Verdict::Defer, "no task".to_owned()));
    let measured: Vec<&Measured> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Measured(measured) => Some(&**measured),
            _ => None,
        })
        .collect();
    let own = |m: &Measured| m.ratios.iter().filter(|r| r.variant == candidate).cloned().collect::<Vec<_>>();
    let ratios: Vec<(String, ShapeRatio)> =
        measured.iter().flat_map(|m| own(m).into_iter().map(|r| (m.node.clone(), r))).collect();
    let first = first_shape(suite, candidate);
    let first: Vec<&(String, ShapeRatio)> =
        ratios.iter().filter(|(_, r)| first.is_some() && r.usual_on.as_deref() == first).collect();
    let by_node: Vec<(String, f64)> = first.iter().map(|(node, r)| (node.clone(), r.ratio.estimate)).collect();
    let mut by_place: BTreeMap<&str, Vec<&(String, ShapeRatio)>> = BTreeMap::new();
    for of_run in &ratios {
        by_place.entry(&of_run.1.place).or_default().push(of_run);
    }
    let combined = by_place.values().filter_map(|ratios| combine(ratios));
    let slowest = combined.max_by(|a, b| a.ratio.estimate.total_cmp(&b.ratio.estimate));
    Cell {
        verdict,
        because,
        negative,
        edited: outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused { edited: true, .. })),
        runs: (measured.len(), outcomes.len()),
        ratio: combine(&first),
        regression: slowest.filter(|r| r.ratio.estimate > 1.0),
        spread: Spread::of(&by_node),
    }
}

/// The shape whose ratio stands for a candidate: the first on which it is gated against the control, else the first timed.
fn first_shape<'a>(suite: &'a Suite, candidate: &str) -> Option<&'a str> {
    let gated = suite.performance.iter().find(|limit| limit.against.is_none() && limit.holds_for(candidate));
    gated.map(|limit| limit.shape.as_str()).or_else(|| suite.time_shapes.first().map(String::as_str))
}

/// Runs of one kind on one shape: the geometric mean of their estimates, within the ends of all intervals.
fn combine(ratios: &[&(String, ShapeRatio)]) -> Option<ShapeRatio> {
    let (_, first) = ratios.first()?;
    let all = || ratios.iter().map(|(_, r)| r.ratio);
    let estimate = (all().map(|r| r.estimate.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let low = all().map(|r| r.low).fold(f64::INFINITY, f64::min);
    let high = all().map(|r| r.high).fold(f64::NEG_INFINITY, f64::max);
    Some(ShapeRatio { ratio: Interval { estimate, low, high }, ..first.clone() })
}

/// The verdict over all kinds. A fault on any kind is a fault, and what a kind found against a candidate counts, whether a
/// merge needs that kind or not; only silence of a kind that may defer is passed over.
fn together(suite: &Suite, columns: &[Column], cells: &[Cell]) -> (Verdict, String) {
    let both = || columns.iter().zip(cells);
    let on = |(column, cell): (&Column, &Cell)| (cell.verdict, format!("on {}: {}", column.kind.name, cell.because));
    if let Some(wrong) = both().find(|(_, cell)| cell.verdict == Verdict::Fix) {
        return on(wrong);
    }
    let missing = suite.fleet.iter().flat_map(|rule| &rule.require);
    if let Some(kind) = missing.clone().find(|kind| !columns.iter().any(|c| c.kind.name == **kind)) {
        return (Verdict::Defer, format!("{kind} is required and was not asked for; add it to --on"));
    }
    if let Some(open) = both().find(|(column, cell)| (column.required && cell.verdict == Verdict::Defer) || cell.edited)
    {
        return (Verdict::Defer, on(open).1);
    }
    if let Some((kind, why)) = both().find_map(|(column, cell)| Some((&column.kind.name, cell.negative.as_ref()?))) {
        return (Verdict::ValidNegative, format!("on {kind}: {why}"));
    }
    let named = |verdict| both().filter(|(_, c)| c.verdict == verdict).map(|(c, _)| c.kind.name.as_str()).collect();
    let (merged, passed): (Vec<&str>, Vec<&str>) = (named(Verdict::Merge), named(Verdict::Defer));
    match (merged.as_slice(), passed.as_slice()) {
        ([], _) => (Verdict::Defer, "no kind measured it".to_owned()),
        (merged, []) => (Verdict::Merge, format!("on {}", merged.join(", "))),
        (merged, passed) => {
            (Verdict::Merge, format!("on {}; left open on {}, which may defer", merged.join(", "), passed.join(", ")))
        }
    }
}

/// What a fleet says as an exit status: its candidates, evidence that was changed, and what each run leaves open besides them.
pub fn exit(matrices: &[GateMatrix], outcomes: &[RunOutcome]) -> Exit {
    let rows = matrices.iter().flat_map(|m| &m.rows).map(|row| Exit::from(row.verdict));
    let may_defer = |task: &Task| {
        let columns = matrices.iter().filter(|m| m.gate == task.gate).flat_map(|m| &m.columns);
        columns.filter(|column| column.kind.name == task.kind).any(|column| !column.required)
    };
    let runs = outcomes.iter().map(|RunOutcome { task, outcome }| match outcome {
        Outcome::Measured(measured) if may_defer(task) => match measured.decision.exit(true) {
            Exit::Deferred => Exit::Good,
            exit => exit,
        },
        Outcome::Measured(measured) => measured.decision.exit(false),
        Outcome::Refused { edited: true, .. } => Exit::Fix,
        Outcome::Open { .. } | Outcome::Refused { .. } if may_defer(task) => Exit::Good,
        Outcome::Open { .. } | Outcome::Refused { .. } => Exit::Deferred,
    });
    Exit::of_all(rows.chain(runs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{CandidateDecision, Counts, decide};
    use crate::judge::{judge, testing};
    use crate::suite::FleetRule;

    const KINDS: [&str; 3] = ["l4", "a100", "h100"];

    fn kinds() -> Vec<Kind> {
        KINDS.map(|name| Kind { name: name.into(), device: format!("NVIDIA {name}") }).into()
    }

    fn suite(rule: Option<(&[&str], &[&str])>) -> Suite {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let fleet = rule.map(|(require, may_defer)| FleetRule { require: own(require), may_defer: own(may_defer) });
        Suite { fleet, ..testing::suite() }
    }

    fn measured(verdict: Verdict) -> Outcome {
        let candidate = CandidateDecision { variant: "new".into(), verdict, because: "so".into(), slower: vec![] };
        let counts = match verdict {
            Verdict::Merge => Counts { pass: 9, ..Counts::default() },
            Verdict::Defer => Counts { deferred: 9, ..Counts::default() },
            _ => Counts { pass: 8, fail: 1, ..Counts::default() },
        };
        let decision = Decision {
            headline: String::new(),
            candidates: vec![candidate],
            broken: None,
            aspirations: vec![],
            counts,
        };
        Outcome::Measured(Box::new(Measured { run: "r".into(), node: "n".into(), decision, ratios: vec![] }))
    }

    fn open() -> Outcome {
        Outcome::Open { why: "cancelled".into() }
    }

    fn task(kind: &str, repeat: u32, outcome: Outcome) -> RunOutcome {
        RunOutcome { task: Task { kind: kind.into(), gate: "t".into(), repeat }, outcome }
    }

    fn verdict(suite: &Suite, outcomes: &[RunOutcome]) -> (Verdict, u8, String) {
        let matrix = matrix(suite, &kinds(), &outcomes.iter().collect::<Vec<_>>());
        let exit = exit(std::slice::from_ref(&matrix), outcomes).code();
        (matrix.rows[0].verdict, exit, matrix.rows[0].because.clone())
    }

    #[test]
    fn the_merge_rule_as_a_table() {
        use Verdict::*;
        let all = None;
        let two: Option<(&[&str], &[&str])> = Some((&["l4", "h100"], &["a100"]));
        let one: Option<(&[&str], &[&str])> = Some((&["l4"], &[]));
        let edited = || Outcome::Refused { why: "edited".into(), edited: true };
        let half = || Outcome::Refused { why: "half".into(), edited: false };
        let rows = [
            ("all merge", all, [measured(Merge), measured(Merge), measured(Merge)], Merge, 0),
            ("one is open", all, [measured(Merge), open(), measured(Merge)], Defer, 3),
            ("one is open and may be", two, [measured(Merge), open(), measured(Merge)], Merge, 0),
            ("one defers and may", two, [measured(Merge), measured(Defer), measured(Merge)], Merge, 0),
            ("one is half written and may be", two, [measured(Merge), half(), measured(Merge)], Merge, 0),
            ("one was edited, needed or not", two, [measured(Merge), edited(), measured(Merge)], Defer, 1),
            ("a required one is open", two, [open(), measured(Merge), measured(Merge)], Defer, 3),
            ("a fault counts on every kind", two, [measured(Merge), measured(Fix), measured(Merge)], Fix, 1),
            ("so does a negative", two, [measured(Merge), measured(ValidNegative), measured(Merge)], ValidNegative, 4),
            ("a fault beats what is open", all, [open(), open(), measured(Fix)], Fix, 1),
            ("open beats a negative", all, [open(), measured(ValidNegative), measured(Merge)], Defer, 3),
            ("what no rule names is required", one, [measured(Merge), open(), measured(Merge)], Defer, 3),
            ("nothing at all", all, [open(), open(), open()], Defer, 3),
        ];
        for (what, rule, outcomes, wanted, status) in rows {
            let outcomes: Vec<RunOutcome> = KINDS.iter().zip(outcomes).map(|(kind, o)| task(kind, 1, o)).collect();
            let (verdict, exit, because) = verdict(&suite(rule), &outcomes);
            assert_eq!((verdict, exit), (wanted, status), "{what}: {because}");
        }
    }

    #[test]
    fn what_one_run_found_is_not_hidden_by_another_that_is_open() {
        let rule: Option<(&[&str], &[&str])> = Some((&["l4", "h100"], &["a100"]));
        let mut outcomes: Vec<RunOutcome> = KINDS.iter().map(|kind| task(kind, 1, measured(Verdict::Merge))).collect();
        outcomes.push(task("a100", 2, open()));
        assert_eq!(verdict(&suite(rule), &outcomes).0, Verdict::Merge);
        outcomes.push(task("a100", 3, measured(Verdict::ValidNegative)));
        let (verdict, exit, because) = verdict(&suite(rule), &outcomes);
        assert_eq!((verdict, exit, because.as_str()), (Verdict::ValidNegative, 4, "on a100: so"));
    }

    #[test]
    fn a_required_kind_that_was_not_asked_for_is_missing() {
        let outcomes = KINDS.map(|kind| task(kind, 1, measured(Verdict::Merge)));
        let (verdict, _, because) = verdict(&suite(Some((&["l4", "b200"], &[]))), &outcomes);
        assert!(verdict == Verdict::Defer && because.starts_with("b200 is required"), "{because}");
    }

    #[test]
    fn repeats_of_a_kind_must_agree_to_merge_and_a_broken_control_is_a_fault() {
        let mut outcomes: Vec<RunOutcome> = KINDS.iter().map(|kind| task(kind, 1, measured(Verdict::Merge))).collect();
        outcomes.push(task("a100", 2, measured(Verdict::ValidNegative)));
        assert_eq!(verdict(&suite(None), &outcomes).0, Verdict::ValidNegative);
        outcomes.push(task("a100", 3, open()));
        assert_eq!(verdict(&suite(None), &outcomes).0, Verdict::Defer);
        let Outcome::Measured(run) = &mut outcomes[0].outcome else { panic!() };
        run.decision.broken = Some(CandidateDecision {
            variant: "old".into(),
            verdict: Verdict::Fix,
            because: "NaN".into(),
            slower: vec![],
        });
        let (verdict, exit, because) = verdict(&suite(None), &outcomes);
        assert_eq!((verdict, exit, because.as_str()), (Verdict::Fix, 1, "on l4: FIX old: NaN"));
    }

    #[test]
    fn ratios_are_of_each_run_and_the_cell_holds_all_their_intervals() {
        let suite = suite(None);
        let run = |node: &str, new: f64| {
            let evidence = crate::judge::Evidence { samples: testing::samples(100.0, new), ..testing::evidence() };
            let gates = judge(&suite, &evidence);
            let decision = decide(&suite, &gates, &evidence.checks, &evidence.samples);
            let ratios = ratios(&suite, &evidence.samples);
            Outcome::Measured(Box::new(Measured { run: "r".into(), node: node.into(), decision, ratios }))
        };
        let outcomes = [run("n1", 80.0), run("n1", 81.0), run("n2", 84.0)];
        let refs: Vec<&Outcome> = outcomes.iter().collect();
        let made = cell(&suite, "new", &refs);
        let ratio = made.ratio.unwrap();
        assert_eq!((ratio.place.as_str(), made.runs), ("mission", (3, 3)));
        assert!(ratio.ratio.low < 0.80 && ratio.ratio.high > 0.84 && (0.81..0.82).contains(&ratio.ratio.estimate));
        let spread = made.spread.unwrap();
        assert_eq!((spread.runs, spread.nodes), (3, 2));
        assert!(spread.between_nodes_percent.is_some_and(|percent| (2.0..4.5).contains(&percent)), "{spread:?}");
        assert!(made.regression.is_none());
        let slower = [run("n1", 103.0)];
        let slower = cell(&suite, "new", &[&slower[0]]).regression.unwrap();
        assert!(slower.place.starts_with("mission") && slower.ratio.estimate > 1.02);
    }

    #[test]
    fn a_run_of_another_gate_file_is_known() {
        let planned = Suite { arch: String::new(), ..suite(None) };
        let used = Suite { arch: "sm_90".into(), fresh_seed: Some(77), ..planned.clone() };
        assert!(same_gate(&planned, &used));
        let mut laxer = used.clone();
        laxer.performance[0].min_latency_reduction = 0.0;
        assert!(!same_gate(&planned, &laxer));
        let fixed = Suite { arch: "sm_89".into(), ..planned };
        assert!(!same_gate(&fixed, &used));
        let other_rule =
            Suite { fleet: Some(FleetRule { require: vec!["l4".into()], may_defer: vec![] }), ..used.clone() };
        assert!(!same_gate(&other_rule, &used));
    }
}
