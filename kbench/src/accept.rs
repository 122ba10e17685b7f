//! Whether a run may make one of its candidates the control: only a MERGE that rests on a GPU, with nothing open around it.
//! What is then recorded, and the words of the merge. Pure. Leaves to others: whether the run is as it was sealed and what it
//! says follows from its evidence (`verify`), and whether it is of the sources of today.

use crate::decision::{CandidateDecision, Verdict};
use crate::evidence::{Cache, EMULATOR, Mode};
use crate::exit::Exit;
use crate::gate::{Gate, State};
use crate::judge::compare_everywhere;
use crate::ledger::Figure;
use crate::report::{RunView, hanging, provenance};
use crate::subject::Subject;

/// Columns of a commit message.
const MESSAGE_COLUMNS: usize = 72;

/// Why a run is not accepted, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// What is wrong, and what to do.
    pub why: String,
    /// What the process says of it.
    pub exit: Exit,
}

impl Refused {
    /// Both parts.
    pub fn new(exit: Exit, why: impl Into<String>) -> Refused {
        Refused { why: why.into(), exit }
    }
}

/// The candidate that a verified run may make the control: the named one, or the only one that MERGEs.
pub fn acceptable<'a>(view: &RunView<'a>, named: Option<&str>) -> Result<&'a CandidateDecision, Refused> {
    let candidate = chosen(view, named)?;
    let RunView { suite, evidence, .. } = view;
    if let Some(left_out) = suite.narrowed.first() {
        return Err(Refused::new(Exit::Deferred, format!("only a whole suite is accepted, and {left_out}")));
    }
    let emulated = evidence.checks.device.as_deref().is_none_or(|device| device == EMULATOR);
    if emulated || evidence.samples.device.is_none() || evidence.samples.deferred.is_some() {
        let why = "it was not checked and timed on a GPU; validate on one, and accept that run";
        return Err(Refused::new(Exit::Deferred, why));
    }
    if let Some(gate) = view.gates.iter().find(|gate| concerns(view, candidate, gate) && gate.state != State::Pass) {
        let exit = if gate.state == State::Fail { Exit::Fix } else { Exit::Deferred };
        let why = format!("gate `{}` of {} is {}: {}", gate.figure, gate.variant, gate.state, gate.measured);
        return Err(Refused::new(exit, why.trim_end_matches([' ', ':'])));
    }
    if figures(view, &candidate.variant).is_empty() {
        return Err(Refused::new(Exit::Deferred, format!("`{}` was not timed beside its control", candidate.variant)));
    }
    Ok(candidate)
}

fn chosen<'a>(view: &RunView<'a>, named: Option<&str>) -> Result<&'a CandidateDecision, Refused> {
    let decision = view.decision;
    let all = || decision.candidates.iter().map(|c| c.variant.as_str()).collect::<Vec<_>>().join(", ");
    let merged: Vec<&CandidateDecision> = decision.candidates.iter().filter(|c| c.verdict == Verdict::Merge).collect();
    let candidate = match (named, merged.as_slice()) {
        (Some(name), _) => decision.candidates.iter().find(|c| c.variant == name).ok_or_else(|| {
            Refused::new(Exit::Environment, format!("`{name}` is no candidate of this run; it has {}", all()))
        })?,
        (None, [only]) => only,
        (None, []) => {
            let verdicts: Vec<String> =
                decision.named().iter().map(|c| format!("{} {}", c.verdict.word(), c.variant)).collect();
            let why = format!("nothing in this run is a MERGE: {}", verdicts.join(", "));
            return Err(Refused::new(Exit::of_all(decision.named().iter().map(|c| c.verdict.into())), why));
        }
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|c| c.variant.as_str()).collect();
            let why =
                format!("several candidates MERGE: name the one that becomes the control, of {}", names.join(", "));
            return Err(Refused::new(Exit::Environment, why));
        }
    };
    match candidate.verdict {
        Verdict::Merge => Ok(candidate),
        verdict => {
            Err(Refused::new(verdict.into(), format!("only a MERGE is accepted, and this is {}", candidate.line())))
        }
    }
}

/// Whether a gate says something of the candidate, its control or the run as a whole; those of other candidates and of
/// baselines do not.
fn concerns(view: &RunView, candidate: &CandidateDecision, gate: &Gate) -> bool {
    let suite = view.suite;
    let is_another = suite.candidates.iter().any(|c| c.variant == gate.variant && c.variant != candidate.variant);
    !is_another && !suite.baselines.contains(&gate.variant)
}

/// Kernel times of a candidate and its control with a hot L2, in every shape and distribution that was timed.
pub fn figures(view: &RunView, variant: &str) -> Vec<Figure> {
    let all = compare_everywhere(view.suite, &view.evidence.samples);
    let hot = |who: &Subject| {
        let own = all.iter().filter(|c| c.mode == Mode::Kernel && c.cache == Cache::Hot && c.subject == *who);
        own.collect::<Vec<_>>()
    };
    let controls = hot(&Subject::plain(view.suite.control.as_str()));
    let of = hot(&Subject::plain(variant)).into_iter().filter_map(|own| {
        let control = controls.iter().find(|c| c.shape == own.shape && c.distribution == own.distribution)?;
        Some(Figure {
            shape: own.shape.clone(),
            distribution: own.distribution,
            us: own.time_us.p50,
            control_us: control.time_us.p50,
            over_control: own.over_control?,
        })
    });
    of.collect()
}

/// The message of the merge, with its figures filled in and lines that a log shows whole.
pub fn message(view: &RunView, candidate: &CandidateDecision, root: &str) -> String {
    let control = &view.suite.control;
    let mut lines = vec![format!("Accept {} over {control} in {}", candidate.variant, view.suite.name), String::new()];
    let mut say = |text: &str| lines.extend(hanging("", text, MESSAGE_COLUMNS));
    say(&format!("{}.", candidate.because));
    if let Some(slower) = candidate.slower_words() {
        say(&format!("Slower on {slower}."));
    }
    say(&format!("Measured in {}.", provenance(view)));
    lines.push(format!("root {root}"));
    lines.join("\n")
}

/// The name of a tag for an accepted variant: `accepted/SUITE/VARIANT/WHEN`, where the run began then.
pub fn tag(suite: &str, variant: &str, run: &str) -> String {
    let part = |text: &str| {
        let letter = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
        text.chars().map(letter).collect::<String>()
    };
    let when = run.split('-').next().unwrap_or(run);
    format!("accepted/{}/{}/{}", part(suite), part(variant), part(when))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::decide;
    use crate::deferral::Deferral;
    use crate::evidence::Environment;
    use crate::judge::{Evidence, judge, testing};
    use crate::suite::Suite;

    /// What is said of evidence that was changed, with a suite that was; the candidate's name where it is accepted.
    fn said(named: Option<&str>, change: impl Fn(&mut Suite, &mut Evidence)) -> Result<String, Refused> {
        let (mut suite, mut evidence) = (testing::suite(), testing::evidence());
        change(&mut suite, &mut evidence);
        let gates = judge(&suite, &evidence);
        let decision = decide(&suite, &gates, &evidence.checks, &evidence.samples);
        let environment = Environment { device: evidence.samples.device.clone(), ..Environment::default() };
        let (suite, evidence, gates, decision) = (&suite, &evidence, &gates, &decision);
        let view = RunView { name: "run", suite, evidence, gates, decision, environment: &environment };
        acceptable(&view, named).map(|candidate| candidate.variant.clone())
    }

    #[test]
    fn a_merge_is_accepted_with_its_figures_and_words() {
        assert_eq!(said(None, |_, _| {}).as_deref(), Ok("new"));
        assert_eq!(said(Some("new"), |_, _| {}).as_deref(), Ok("new"));
        crate::report::testing::with_view(&testing::evidence(), |view| {
            let figures = figures(view, "new");
            let of = |shape: &str| figures.iter().find(|f| f.shape == shape).unwrap();
            assert!(of("mission").over_control.high < 0.9 && of("mission").us < of("mission").control_us);
            let text = message(view, &view.decision.candidates[0], "0f");
            assert!(text.starts_with("Accept new over old in t\n\nlatency reduction on mission 20.0%"), "{text}");
            assert!(text.ends_with("\nroot 0f") && text.contains("Measured in run at"), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= MESSAGE_COLUMNS), "{text}");
        });
        assert_eq!(tag("a b", "x..y", "20261127T173752Z-3922167-softmax"), "accepted/a-b/x--y/20261127T173752Z");
    }

    #[test]
    fn whatever_is_not_a_whole_merge_on_a_gpu_is_refused_by_what_it_is() {
        type Change = fn(&mut Suite, &mut Evidence);
        let rows: &[(&str, Exit, Change)] = &[
            ("nothing in this run is a MERGE: VALID NEGATIVE new", Exit::ValidNegative, |_, e| {
                e.samples = testing::samples(100.0, 97.0);
            }),
            ("nothing in this run is a MERGE: FIX new", Exit::Fix, |_, e| {
                let own = e.checks.cases.iter_mut().filter(|c| c.variant == "new");
                own.for_each(|c| c.errors.as_mut().unwrap().kernel_max = 0.5);
            }),
            ("nothing in this run is a MERGE: FIX old", Exit::Fix, |_, e| {
                let own = e.checks.cases.iter_mut().filter(|c| c.variant == "old");
                own.for_each(|c| c.errors.as_mut().unwrap().kernel_max = 0.5);
            }),
            ("nothing in this run is a MERGE: DEFER new", Exit::Deferred, |_, e| {
                e.samples = testing::samples(100.0, 90.0);
            }),
            ("nothing in this run is a MERGE: DEFER new", Exit::Deferred, |s, _| {
                s.narrowed.push(Deferral::new("only small was run", "run without --shapes"));
            }),
        ];
        for (words, exit, change) in rows {
            let refused = said(None, change).unwrap_err();
            assert!(refused.why.contains(words) && refused.exit == *exit, "{words}: {refused:?}");
        }
        let refused = said(Some("other"), |_, _| {}).unwrap_err();
        assert_eq!(
            (refused.why.as_str(), refused.exit),
            ("`other` is no candidate of this run; it has new", Exit::Environment)
        );
        let named = said(Some("new"), |_, e| e.samples = testing::samples(100.0, 97.0)).unwrap_err();
        assert!(named.why.starts_with("only a MERGE is accepted, and this is VALID NEGATIVE new: "), "{named:?}");
    }

    /// What is said of a run whose gates and decision are those of a MERGE, and whose other parts were changed since.
    fn said_of_a_merge(change: impl Fn(&mut Suite, &mut Evidence, &mut Vec<Gate>)) -> Refused {
        let (mut suite, mut evidence) = (testing::suite(), testing::evidence());
        let mut gates = judge(&suite, &evidence);
        let decision = decide(&suite, &gates, &evidence.checks, &evidence.samples);
        change(&mut suite, &mut evidence, &mut gates);
        let (suite, evidence, gates, decision) = (&suite, &evidence, &gates, &decision);
        let environment = &Environment::default();
        acceptable(&RunView { name: "run", suite, evidence, gates, decision, environment }, None).unwrap_err()
    }

    #[test]
    fn a_merge_beside_an_open_gate_of_the_run_or_of_its_control_is_refused() {
        for variant in ["old", "peers"] {
            let refused = said_of_a_merge(|_, _, gates| {
                let state = State::Deferred(Deferral::new("no peer", "install it"));
                gates.push(Gate { variant: variant.to_owned(), state, ..gates[0].clone() });
            });
            assert!(refused.why.contains("DEFERRED (no peer; install it)"), "{refused:?}");
            assert_eq!(refused.exit, Exit::Deferred);
        }
        let refused = said_of_a_merge(|_, _, gates| gates[0].state = State::Fail);
        assert!(refused.why.contains("is FAIL") && refused.exit == Exit::Fix, "{refused:?}");
    }

    #[test]
    fn a_merge_of_a_part_or_of_no_gpu_is_refused_whatever_its_gates_say() {
        type Change = fn(&mut Suite, &mut Evidence, &mut Vec<Gate>);
        let rows: &[(&str, Change)] = &[
            ("only a whole suite is accepted, and only small was run", |s, _, _| {
                s.narrowed.push(Deferral::new("only small was run", "run without --shapes"));
            }),
            ("not checked and timed on a GPU", |_, e, _| e.checks.device = Some(EMULATOR.to_owned())),
            ("not checked and timed on a GPU", |_, e, _| e.checks.device = None),
            ("not checked and timed on a GPU", |_, e, _| e.samples.device = None),
            ("not checked and timed on a GPU", |_, e, _| e.samples.deferred = Some(Deferral::new("busy", "wait"))),
            ("was not timed beside its control", |_, e, _| e.samples.blocks.clear()),
        ];
        for (words, change) in rows {
            let refused = said_of_a_merge(change);
            assert!(refused.why.contains(words) && refused.exit == Exit::Deferred, "{words}: {refused:?}");
        }
    }

    #[test]
    fn of_several_merges_one_must_be_named_and_another_candidates_fault_is_its_own() {
        let (suite, evidence) = (testing::suite(), testing::evidence());
        let gates = judge(&suite, &evidence);
        let mut decision = decide(&suite, &gates, &evidence.checks, &evidence.samples);
        let second = CandidateDecision { variant: "newer".into(), ..decision.candidates[0].clone() };
        decision.candidates.push(second);
        let environment = Environment::default();
        let mut view = RunView {
            name: "run",
            suite: &suite,
            evidence: &evidence,
            gates: &gates,
            decision: &decision,
            environment: &environment,
        };
        let refused = acceptable(&view, None).unwrap_err();
        assert!(refused.why.contains("name the one that becomes the control, of new, newer"), "{refused:?}");
        assert!(acceptable(&view, Some("new")).is_ok());
        let mut with_fault = decision.clone();
        with_fault.candidates[1].verdict = Verdict::Fix;
        view.decision = &with_fault;
        assert_eq!(acceptable(&view, None).unwrap().variant, "new");
    }
}
