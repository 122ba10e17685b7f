//! From evidence to outcomes, and from a record to its result. `conclude` is a pure function of the files of a run, so
//! that `verify` can name the winner again without a GPU.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::insight::{Effect, effects};
use super::profiled::{ProfileInsight, not_profiled, profile_insights};
use super::record::{Evaluation, Figures, Finals, Line, Outcome, Phase, Plan, Rounds, Stopped};
use super::search::elites;
use super::space::Toggles;
use super::spent::{Spent, spent};
use crate::deferral::Deferral;
use crate::evidence::{Block, CheckedCase, Mode};
use crate::gate::{Gate, GateId, Kind, State, significant};
use crate::judge::{Evidence, judge, paired_rounds};
use crate::operator::{Distribution, Problem};
use crate::subject::Subject;
use crate::suite::{Suite, VariantPatch};
use stats::{Interval, median, paired_ratio};

/// The widest interval of the control against itself with which a winner is settled.
const NOISE_LIMIT: f64 = 0.02;
/// A search has found the best of its space when it is within this of what a sweep finds.
pub const SWEEP_MARGIN: f64 = 0.03;

/// Why a variant is rejected: its first hard gate that fails, in the order of the decision tree.
pub fn rejection(gates: &[Gate], variant: &str) -> Option<Outcome> {
    let gate = gates.iter().find(|g| g.variant == variant && g.state == State::Fail)?;
    let stage = match gate.kind {
        Kind::Build => "build",
        Kind::Identity => "identity",
        Kind::Resources => "resources",
        Kind::Correctness => "correctness",
        Kind::Performance | Kind::Peers => "performance",
        Kind::Profile => "profile",
    };
    let place = if gate.place.is_empty() { String::new() } else { format!(" ({})", gate.place) };
    let reason = format!("{}{place}: {}, wanted {}", gate.figure, gate.measured, gate.threshold);
    Some(Outcome::Rejected { stage: stage.to_owned(), reason })
}

/// What the evidence makes of a variant. The suite has one timed shape and no gate on time.
pub fn outcome_of(suite: &Suite, evidence: &Evidence, sittings: &[Rounds], variant: &str) -> Outcome {
    let mut gates = judge(suite, evidence);
    // A search compares a part of the rows of every larger problem, which no run may; what it finds is validated by one.
    gates.retain(|gate| gate.id != GateId::ConsistentEvidence);
    if let Some(rejected) = rejection(&gates, variant) {
        return rejected;
    }
    if let Some(deferral) = evidence.checks.deferred.as_ref().or(evidence.samples.deferred.as_ref()) {
        return Outcome::Untimed(deferral.clone());
    }
    match figures(suite, evidence, sittings, variant) {
        Some(figures) => Outcome::Timed(figures),
        None => Outcome::Untimed(Deferral::new("too few usable sittings", "run on a GPU whose clock is not held down")),
    }
}

/// One subject over another, paired by round. The unit is the sitting, whose rounds are not independent of each other.
fn over(blocks: &[Block], shape: &str, sittings: &[Rounds], subject: &Subject, other: &Subject) -> Option<Interval> {
    let pairs = paired_rounds(blocks, shape, Mode::Kernel, subject, other);
    let of_sitting = |sitting: &Rounds| {
        let rounds = pairs.range(sitting.first..sitting.first + sitting.count);
        median(&rounds.map(|(_, (a, b))| a / b).collect::<Vec<_>>())
    };
    paired_ratio(&sittings.iter().filter_map(of_sitting).map(|ratio| (ratio, 1.0)).collect::<Vec<_>>())
}

fn figures(suite: &Suite, evidence: &Evidence, sittings: &[Rounds], variant: &str) -> Option<Figures> {
    let shape = suite.time_shapes.first()?;
    let blocks = &evidence.samples.blocks;
    let p50 = |subject: &str| {
        let of = |b: &&Block| b.subject.is_plain(subject) && &b.shape == shape && b.mode == Mode::Kernel;
        let usable = blocks.iter().filter(of).filter(|b| b.rejected().is_none());
        median(&usable.flat_map(|b| b.us.iter().copied()).collect::<Vec<_>>())
    };
    let first = |p: &Problem| &p.shape.name == shape && suite.seeds.first() == Some(&p.seed);
    let timed = |c: &CheckedCase| {
        c.variant == variant && first(&c.launch.problem) && c.launch.problem.distribution == Distribution::Normal
    };
    let entry = evidence.builds.get(variant, &suite.arch).and_then(|b| b.entries.iter().find(|e| e.gated))?;
    Some(Figures {
        p50_us: p50(variant)?,
        control_p50_us: p50(&suite.control)?,
        over_control: over(blocks, shape, sittings, &Subject::plain(variant), &Subject::plain(&suite.control))?,
        registers: entry.resources.registers,
        shared_bytes: entry.resources.static_smem_bytes + entry.launch.dynamic_smem_bytes,
        gpus: gpus_of(sittings),
        output_sha256: evidence.checks.cases.iter().find(|c| timed(c)).and_then(|c| c.launch.output_sha256.clone()),
    })
}

/// Unique ids of the devices of sittings.
fn gpus_of(sittings: &[Rounds]) -> Vec<String> {
    sittings.iter().map(|sitting| sitting.gpu.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A configuration that was measured again, against the other finalists and the control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finalist {
    /// Its name.
    pub name: String,
    /// Its toggles.
    pub toggles: Toggles,
    /// The search's figures, by which it was chosen: the luckier of equals looks the faster.
    pub searched: Figures,
    /// What the finals make of it.
    pub remeasured: Outcome,
    /// The winner's curse: the time over the control's measured again, over that of the search, less 1.
    pub curse: Option<f64>,
}

/// The winner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pick {
    /// Its name.
    pub name: String,
    /// How it is made from a registered variant.
    pub patch: VariantPatch,
    /// Its figures, measured again.
    pub figures: Figures,
    /// The next best finalist, and the winner's time over its, paired by round.
    pub over_next: Option<(String, Interval)>,
    /// See [`Finalist::curse`].
    pub curse: f64,
}

/// The search against an evaluation of the whole space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Configurations of the space that were evaluated, by search and sweep together.
    pub evaluated: usize,
    /// The best that the search alone found, measured again.
    pub search_pick: String,
    /// The best of all, measured again.
    pub best: String,
    /// The first one's time over the second one's, paired by round; 1 when they are the same.
    pub search_over_best: f64,
    /// Whether that is at most 1.03.
    pub within_margin: bool,
}

/// A configuration that was not accepted, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Its name.
    pub name: String,
    /// What rejected it.
    pub stage: String,
    /// Why.
    pub reason: String,
}

/// What a search came to; `elite.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// What it was asked to do.
    pub plan: Plan,
    /// The device; absent where nothing was timed.
    pub device: Option<String>,
    /// Unique ids of the devices that measured.
    pub gpus: BTreeSet<String>,
    /// Sessions: one more than the interruptions.
    pub sessions: usize,
    /// Configurations that the search evaluated.
    pub evaluated: usize,
    /// Of all evaluated ones, those with a time.
    pub timed: usize,
    /// Why the search stopped.
    pub stopped: Option<Stopped>,
    /// Seconds that each phase took in the last session, from its begin.
    pub seconds: Vec<(Phase, f64)>,
    /// The search's elites, with the search's figures.
    pub elites: Vec<Evaluation>,
    /// What every value of every toggle does.
    pub insights: Vec<Effect>,
    /// What the profiler says of elites, where they were profiled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<String, ProfileInsight>,
    /// Why elites were not profiled although that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_profiled: Option<Deferral>,
    /// What was measured again.
    pub finalists: Vec<Finalist>,
    /// Which device ran which rounds of the finals: every ratio is within a round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<Rounds>,
    /// Where the time of the last session went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spent: Vec<Spent>,
    /// The control over itself in the finals.
    pub control_over_itself: Option<Interval>,
    /// The winner.
    pub winner: Option<Pick>,
    /// Why the winner's figures are not settled, if so.
    pub inconclusive: Option<String>,
    /// The search against the whole space, where that was swept.
    pub sweep: Option<Sweep>,
    /// Everything that was not accepted.
    pub rejected: Vec<Rejection>,
    /// What went wrong with an external proposer.
    pub warnings: Vec<String>,
    /// Why there is no winner although nothing was wrong.
    pub deferred: Option<Deferral>,
}

/// The evaluations of a journal by phase, in the order of their proposal.
pub fn evaluations(lines: &[Line], phase: impl Fn(Phase) -> bool) -> Vec<&Evaluation> {
    let chosen: BTreeSet<u32> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Generation(generation) if phase(generation.phase) => Some(generation.index),
            _ => None,
        })
        .collect();
    let mut found: Vec<&Evaluation> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Evaluation(evaluation) if chosen.contains(&evaluation.generation) => Some(&**evaluation),
            _ => None,
        })
        .collect();
    found.sort_by_key(|e| (e.generation, e.slot));
    found
}

/// Who is measured again: the search's elites, and those of the whole space where it was swept.
pub fn finalists<'l>(plan: &Plan, lines: &'l [Line]) -> Vec<&'l Evaluation> {
    let of = |found: Vec<&'l Evaluation>| elites(&plan.dimensions, plan.elites, found);
    let mut chosen = of(evaluations(lines, |phase| phase == Phase::Search));
    let all = of(evaluations(lines, |_| true));
    chosen.extend(all.into_iter().filter(|e| !chosen.iter().any(|c| c.name == e.name)).collect::<Vec<_>>());
    chosen
}

/// The result of a search.
pub fn conclude(plan: &Plan, lines: &[Line], finals: &Finals) -> Tuned {
    let searched = evaluations(lines, |phase| phase == Phase::Search);
    let all = evaluations(lines, |_| true);
    let evidence = Evidence {
        builds: finals.builds.clone(),
        checks: finals.checks.clone(),
        samples: finals.samples.clone(),
        ..Evidence::default()
    };
    let finalists: Vec<Finalist> = match &finals.suite {
        None => Vec::new(),
        Some(suite) => {
            finalists(plan, lines).into_iter().filter_map(|e| finalist(suite, &evidence, &finals.rounds, e)).collect()
        }
    };
    let search_elites = elites(&plan.dimensions, plan.elites, searched.iter().copied());
    let ranked = ranked(&finalists);
    let winner = pick(plan, finals, &ranked);
    let control_over_itself = finals
        .suite
        .as_ref()
        .and_then(|suite| finals_over(plan, finals, &Subject::again(&suite.control), &Subject::plain(&suite.control)));
    let rejected: Vec<Rejection> = all.iter().filter_map(|e| rejected_of(&e.name, &e.outcome)).collect();
    let sweep = all.len() > searched.len() || all.len() == plan.valid;
    Tuned {
        device: finals.samples.device.as_ref().map(|d| d.name.clone()),
        gpus: all.iter().flat_map(|e| measured_by(e)).cloned().collect(),
        sessions: lines.iter().filter(|l| matches!(l, Line::Session { .. })).count(),
        evaluated: searched.len(),
        timed: all.iter().filter(|e| e.score().is_some()).count(),
        stopped: lines.iter().rev().find_map(|line| match line {
            Line::End { phase: Phase::Search, stopped, .. } => Some(*stopped),
            _ => None,
        }),
        seconds: seconds(lines),
        rounds: finals.rounds.clone(),
        spent: spent(lines),
        insights: effects(&plan.dimensions, &all),
        profiles: profile_insights(lines),
        not_profiled: not_profiled(plan, lines),
        inconclusive: winner.as_ref().and_then(|_| unsettled(control_over_itself)),
        sweep: if sweep { compare_with_sweep(plan, finals, &search_elites, &ranked, all.len()) } else { None },
        deferred: if winner.is_none() { deferred(&all, &finals.samples.deferred) } else { None },
        elites: search_elites.into_iter().cloned().collect(),
        control_over_itself,
        winner,
        finalists,
        rejected,
        warnings: lines.iter().flat_map(warnings).collect(),
        plan: plan.clone(),
    }
}

fn warnings(line: &Line) -> Vec<String> {
    match line {
        Line::Generation(generation) => {
            generation.warnings.iter().map(|w| format!("generation {}: {w}", generation.index)).collect()
        }
        _ => Vec::new(),
    }
}

/// The last session's.
fn seconds(lines: &[Line]) -> Vec<(Phase, f64)> {
    let begin = lines.iter().rposition(|l| matches!(l, Line::Session { .. })).unwrap_or(0);
    let of = |line: &Line| match line {
        Line::End { phase, seconds, .. } => Some((*phase, *seconds)),
        _ => None,
    };
    lines[begin..].iter().filter_map(of).collect()
}

fn measured_by(evaluation: &Evaluation) -> &[String] {
    match &evaluation.outcome {
        Outcome::Timed(figures) => &figures.gpus,
        _ => &[],
    }
}

fn rejected_of(name: &str, outcome: &Outcome) -> Option<Rejection> {
    match outcome {
        Outcome::Rejected { stage, reason } => {
            Some(Rejection { name: name.to_owned(), stage: stage.clone(), reason: reason.clone() })
        }
        _ => None,
    }
}

fn finalist(suite: &Suite, evidence: &Evidence, sittings: &[Rounds], evaluation: &Evaluation) -> Option<Finalist> {
    let Outcome::Timed(searched) = &evaluation.outcome else { return None };
    let remeasured = outcome_of(suite, evidence, sittings, &evaluation.name);
    let again = match &remeasured {
        Outcome::Timed(figures) => Some(figures.over_control.estimate),
        _ => None,
    };
    Some(Finalist {
        name: evaluation.name.clone(),
        toggles: evaluation.toggles.clone(),
        searched: searched.clone(),
        curse: again.map(|again| again / searched.over_control.estimate - 1.0),
        remeasured,
    })
}

/// Finalists that hold every gate, by their time measured again.
fn ranked(finalists: &[Finalist]) -> Vec<(&Finalist, &Figures)> {
    let timed = finalists.iter().filter_map(|f| match &f.remeasured {
        Outcome::Timed(figures) => Some((f, figures)),
        _ => None,
    });
    let mut ranked: Vec<_> = timed.collect();
    ranked.sort_by(|(a, x), (b, y)| {
        x.over_control.estimate.total_cmp(&y.over_control.estimate).then_with(|| a.name.cmp(&b.name))
    });
    ranked
}

/// One subject over another in the finals.
fn finals_over(plan: &Plan, finals: &Finals, a: &Subject, b: &Subject) -> Option<Interval> {
    over(&finals.samples.blocks, &plan.shape, &finals.rounds, a, b)
}

fn pick(plan: &Plan, finals: &Finals, ranked: &[(&Finalist, &Figures)]) -> Option<Pick> {
    let (first, figures) = ranked.first()?;
    let next = ranked.get(1).map(|(f, _)| f.name.clone());
    Some(Pick {
        name: first.name.clone(),
        patch: finals.patches.get(&first.name)?.clone(),
        figures: (*figures).clone(),
        over_next: next.and_then(|next| {
            let ratio = finals_over(plan, finals, &Subject::plain(&first.name), &Subject::plain(&next))?;
            Some((next, ratio))
        }),
        curse: first.curse?,
    })
}

/// Why a control that differs from itself, or scatters, leaves the figures open.
fn unsettled(aa: Option<Interval>) -> Option<String> {
    let Some(aa) = aa else { return Some("the control was not measured against itself".to_owned()) };
    let (low, high) = (significant(aa.low), significant(aa.high));
    match aa {
        aa if !aa.contains(1.0) => Some(format!("control against itself is [{low}, {high}], which excludes 1")),
        aa if aa.width() > NOISE_LIMIT => {
            Some(format!("control against itself is [{low}, {high}], wider than {NOISE_LIMIT}"))
        }
        _ => None,
    }
}

fn compare_with_sweep(
    plan: &Plan,
    finals: &Finals,
    search_elites: &[&Evaluation],
    ranked: &[(&Finalist, &Figures)],
    evaluated: usize,
) -> Option<Sweep> {
    let (best, _) = ranked.first()?;
    let (own, _) = ranked.iter().find(|(f, _)| search_elites.iter().any(|e| e.name == f.name))?;
    let [a, b] = [&own.name, &best.name].map(Subject::plain);
    let ratio = if a == b { 1.0 } else { finals_over(plan, finals, &a, &b)?.estimate };
    Some(Sweep {
        evaluated,
        search_pick: own.name.clone(),
        best: best.name.clone(),
        search_over_best: ratio,
        within_margin: ratio <= 1.0 + SWEEP_MARGIN,
    })
}

/// Why nothing was timed, where something could have been.
fn deferred(all: &[&Evaluation], finals: &Option<Deferral>) -> Option<Deferral> {
    let untimed = all.iter().find_map(|e| match &e.outcome {
        Outcome::Untimed(deferral) => Some(deferral.clone()),
        _ => None,
    });
    finals.clone().or(untimed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;
    use crate::tune::properties::{evaluation, plan, timed};
    use crate::tune::record::{Generation, Proposal};
    use crate::tune::space::tests::space;
    use stats::MIN_ROUNDS;

    /// Evidence in which `names` stand for configurations, with their times in the finals; the control takes 100 us.
    fn finals(times: &[(&str, f64)]) -> Finals {
        let template = testing::evidence();
        let mut suite = testing::suite();
        suite.performance.clear();
        suite.candidates = times.iter().map(|(name, _)| crate::suite::Candidate::of(name)).collect();
        let mut finals = Finals {
            suite: Some(suite),
            builds: template.builds.clone(),
            checks: template.checks.clone(),
            samples: testing::samples(100.0, 80.0),
            patches: BTreeMap::new(),
            rounds: (0..16).map(|first| Rounds { gpu: "GPU-0".into(), first, count: 1 }).collect(),
        };
        finals.samples.blocks.retain(|b| !b.subject.is_plain("new"));
        finals.checks.cases.retain(|c| c.variant != "new");
        finals.checks.memory_apart = false;
        for (name, us) in times {
            finals.builds.records.push(testing::build(name));
            let like = template.checks.cases.iter().filter(|c| c.variant == "new");
            finals
                .checks
                .cases
                .extend(like.map(|c| crate::evidence::CheckedCase { variant: (*name).into(), ..c.clone() }));
            for round in 0..16 {
                finals.samples.blocks.extend(Mode::ALL.map(|mode| testing::block(*name, round, mode, *us)));
            }
            finals.patches.insert((*name).into(), VariantPatch { base: "old".into(), toggles: Toggles::new() });
        }
        finals
    }

    /// A search that timed the first configurations of three structures.
    fn journal(scores: [f64; 3]) -> (Plan, Vec<Line>) {
        let space = space();
        let plan = Plan { shape: "mission".into(), control: "old".into(), ..plan(&space, 7, 32) };
        let mut structures = BTreeSet::new();
        let picks: Vec<Toggles> =
            space.valid().iter().filter(|t| structures.insert(space.structure(t))).take(3).cloned().collect();
        let all: Vec<Evaluation> =
            picks.iter().zip(scores).map(|(t, score)| evaluation(&space, t, timed(score))).collect();
        let proposal =
            |e: &Evaluation| Proposal { name: e.name.clone(), toggles: e.toggles.clone(), origin: "t".into() };
        let generation = Generation {
            index: 0,
            phase: Phase::Search,
            proposals: all.iter().map(proposal).collect(),
            warnings: vec![],
        };
        let mut lines = vec![Line::Generation(generation)];
        lines.extend(all.into_iter().map(|e| Line::Evaluation(Box::new(e))));
        (plan, lines)
    }

    #[test]
    fn the_winner_is_who_is_fastest_when_measured_again_and_its_curse_is_told() {
        let (plan, lines) = journal([0.5, 0.6, 0.7]);
        let names: Vec<String> = finalists(&plan, &lines).iter().map(|e| e.name.clone()).collect();
        let result = conclude(&plan, &lines, &finals(&[(&names[0], 62.0), (&names[1], 60.0), (&names[2], 70.0)]));
        let winner = result.winner.unwrap();
        assert_eq!((&winner.name, &winner.over_next.as_ref().unwrap().0), (&names[1], &names[0]));
        assert!(winner.over_next.unwrap().1.high < 1.0 && winner.curse.abs() < 0.01);
        assert!((result.finalists[0].curse.unwrap() - 0.24).abs() < 0.01, "the search's first was lucky");
        assert_eq!((result.inconclusive, result.deferred), (None, None));
    }

    #[test]
    fn the_interval_is_that_of_sittings_however_well_the_rounds_of_each_agree() {
        let (plan, lines) = journal([0.5, 0.6, 0.7]);
        let name = finalists(&plan, &lines)[0].name.clone();
        let mut placed = finals(&[(&name, 60.0)]);
        // Two rounds a sitting that agree, and sittings that do not.
        placed.rounds = (0..8).map(|i| Rounds { gpu: format!("GPU-{}", i % 2), first: 2 * i, count: 2 }).collect();
        for block in placed.samples.blocks.iter_mut().filter(|b| b.subject.is_plain(&name) && b.round / 2 % 2 == 1) {
            block.us.iter_mut().for_each(|us| *us *= 1.01);
        }
        let winner = conclude(&plan, &lines, &placed).winner.unwrap();
        let interval = winner.figures.over_control;
        assert!(interval.width() > 0.0055, "{interval:?}");
        assert_eq!(winner.figures.gpus, ["GPU-0", "GPU-1"]);
        placed.rounds.truncate(7);
        assert_eq!(conclude(&plan, &lines, &placed).winner, None, "seven sittings give no interval");
    }

    #[test]
    fn a_finalist_that_fails_a_gate_cannot_win() {
        let (plan, lines) = journal([0.5, 0.6, 0.7]);
        let names: Vec<String> = finalists(&plan, &lines).iter().map(|e| e.name.clone()).collect();
        let times: Vec<(&str, f64)> = names.iter().map(String::as_str).zip([40.0, 60.0, 70.0]).collect();
        let mut wrong = finals(&times);
        let case = wrong.checks.cases.iter_mut().find(|c| c.variant == names[0]).unwrap();
        case.errors.as_mut().unwrap().kernel_max = f64::NAN;
        let result = conclude(&plan, &lines, &wrong);
        assert_eq!(result.winner.unwrap().name, names[1]);
        assert!(matches!(&result.finalists[0].remeasured, Outcome::Rejected { stage, .. } if stage == "correctness"));
        let mut lying = finals(&times);
        lying
            .samples
            .blocks
            .iter_mut()
            .filter(|b| b.subject.is_plain(&names[0]))
            .for_each(|b| b.outputs_verified = false);
        assert_eq!(conclude(&plan, &lines, &lying).winner.unwrap().name, names[1]);
        let mut nobody = finals(&times);
        nobody.samples.blocks.retain(|b| b.round + 1 < MIN_ROUNDS as u32);
        assert_eq!(conclude(&plan, &lines, &nobody).winner, None);
    }

    #[test]
    fn a_control_that_differs_from_itself_settles_nothing() {
        let (plan, lines) = journal([0.5, 0.6, 0.7]);
        let names: Vec<String> = finalists(&plan, &lines).iter().map(|e| e.name.clone()).collect();
        let mut biased = finals(&[(&names[0], 50.0)]);
        biased.samples.blocks.iter_mut().filter(|b| b.subject == Subject::again("old")).for_each(|b| b.us[0] *= 1.0);
        for block in biased.samples.blocks.iter_mut().filter(|b| b.subject == Subject::again("old")) {
            block.us.iter_mut().for_each(|us| *us *= 1.03);
        }
        let result = conclude(&plan, &lines, &biased);
        assert!(result.inconclusive.unwrap().contains("excludes 1"));
    }

    #[test]
    fn nothing_timed_is_deferred_and_nothing_accepted_is_not() {
        let (plan, mut lines) = journal([0.5, 0.6, 0.7]);
        let set = |lines: &mut Vec<Line>, outcome: Outcome| {
            for line in lines.iter_mut() {
                if let Line::Evaluation(e) = line {
                    e.outcome = outcome.clone();
                }
            }
        };
        let emulated = Deferral::new("emulated", "run on a GPU");
        set(&mut lines, Outcome::Untimed(emulated.clone()));
        let result = conclude(&plan, &lines, &Finals::default());
        assert_eq!((result.winner, result.deferred), (None, Some(emulated)));
        set(&mut lines, Outcome::Rejected { stage: "build".into(), reason: "no".into() });
        let result = conclude(&plan, &lines, &Finals::default());
        assert_eq!((result.winner, result.deferred, result.rejected.len()), (None, None, 3));
    }

    #[test]
    fn a_sweep_shows_what_the_search_missed() {
        let (plan, mut lines) = journal([0.5, 0.6, 0.7]);
        let space = space();
        let missed = evaluation(&space, &space.valid()[space.valid().len() - 1], timed(0.4));
        let missed = Evaluation { generation: 1, ..missed };
        let name = missed.name.clone();
        let proposal = Proposal { name: name.clone(), toggles: missed.toggles.clone(), origin: "sweep".into() };
        lines.push(Line::Generation(Generation {
            index: 1,
            phase: Phase::Sweep,
            proposals: vec![proposal],
            warnings: vec![],
        }));
        lines.push(Line::Evaluation(Box::new(missed)));
        let chosen: Vec<String> = finalists(&plan, &lines).iter().map(|e| e.name.clone()).collect();
        assert_eq!((chosen.len(), chosen.last()), (4, Some(&name)));
        let times: Vec<(&str, f64)> = chosen.iter().map(String::as_str).zip([50.0, 60.0, 70.0, 40.0]).collect();
        let result = conclude(&plan, &lines, &finals(&times));
        let sweep = result.sweep.unwrap();
        assert_eq!((&sweep.best, &sweep.search_pick, sweep.within_margin), (&name, &chosen[0], false));
        assert!((sweep.search_over_best - 1.25).abs() < 0.01);
        assert_eq!(result.elites.len(), 3, "elites are the search's own");
    }
}
