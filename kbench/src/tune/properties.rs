//! Properties of the search that hold for every landscape, whatever is rejected and in whatever order results arrive.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::record::{Evaluation, Figures, Outcome, Plan, Stopped};
use super::search::{GENERATION, LAG, Search, elites};
use super::space::tests::space;
use super::space::{Space, Toggles};
use stats::Interval;

/// A time over the control's.
pub fn timed(score: f64) -> Outcome {
    Outcome::Timed(Figures {
        p50_us: 100.0 * score,
        control_p50_us: 100.0,
        over_control: Interval { estimate: score, low: score, high: score },
        registers: 96,
        shared_bytes: 20_608,
        gpus: vec!["GPU-0".into()],
        output_sha256: None,
    })
}

/// An evaluation of generation 0.
pub fn evaluation(space: &Space, toggles: &Toggles, outcome: Outcome) -> Evaluation {
    Evaluation {
        generation: 0,
        slot: 0,
        name: space.name(toggles),
        toggles: toggles.clone(),
        origin: "t".into(),
        outcome,
    }
}

/// A plan over a space, with two starts.
pub fn plan(space: &Space, seed: u64, budget: u32) -> Plan {
    Plan {
        suite: "t".into(),
        control: "old".into(),
        shape: "mission".into(),
        seed,
        budget,
        elites: 3,
        patience: 1000,
        time_limit_s: 0,
        exhaustive: false,
        ncu: false,
        proposer: None,
        dimensions: space.dimensions().to_vec(),
        valid: space.valid().len(),
        starts: vec![space.valid()[5].clone(), space.valid()[40].clone()],
    }
}

/// A landscape: a base time for each value of each dimension, and a share of configurations that are rejected.
fn outcome(space: &Space, toggles: &Toggles, seed: u64, rejects: u64) -> Outcome {
    let hash = |text: &str| {
        text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)) >> 20
    };
    let name = space.name(toggles);
    if hash(&name) % 100 < rejects {
        return Outcome::Rejected { stage: "correctness".into(), reason: "wrong".into() };
    }
    let share = |text: &str| (hash(text) % 1000) as f64 / 1000.0;
    let effects: f64 = name.split('-').map(|part| 0.2 * share(part)).sum();
    timed(0.5 + effects + 0.02 * share(&name))
}

/// What a search did, generation by generation.
struct Trace {
    proposed: Vec<Vec<String>>,
    evaluations: Vec<Evaluation>,
    stopped: Stopped,
}

/// Runs a search to its end. With `reversed`, results of generations under way arrive in the opposite order.
fn run(space: &Space, plan: &Plan, rejects: u64, reversed: bool, resume: &[Evaluation]) -> Trace {
    let mut search = Search::new(plan, space);
    let mut waiting: Vec<(u32, Evaluation)> = Vec::new();
    let mut trace = Trace { proposed: Vec::new(), evaluations: Vec::new(), stopped: Stopped::Budget };
    loop {
        while search.is_ready() {
            if let Some(stopped) = search.stopped() {
                trace.stopped = stopped;
                break;
            }
            let generation = search.propose(Vec::new());
            assert!(!generation.proposals.is_empty() && generation.proposals.len() <= GENERATION);
            trace.proposed.push(generation.proposals.iter().map(|p| p.name.clone()).collect());
            for proposal in &generation.proposals {
                let known = resume.iter().find(|e| e.name == proposal.name);
                let outcome = match known {
                    Some(known) => known.outcome.clone(),
                    None => outcome(space, &proposal.toggles, plan.seed, rejects),
                };
                waiting.push((generation.index, evaluation(space, &proposal.toggles, outcome)));
            }
            search.begin(generation);
        }
        let next = if reversed { waiting.pop() } else { (!waiting.is_empty()).then(|| waiting.remove(0)) };
        let Some((_, result)) = next else { break };
        search.record(result.clone());
        trace.evaluations.push(result);
    }
    trace
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_set_of_elites_keeps_the_invariants(seed: u64, rejects in 0u64..90, budget in 1u32..96, keep in 1usize..6) {
        let space = space();
        let plan = Plan { elites: keep, ..plan(&space, seed, budget) };
        let trace = run(&space, &plan, rejects, false, &[]);
        let mut best = f64::INFINITY;
        for count in 0..=trace.evaluations.len() {
            let so_far = &trace.evaluations[..count];
            let kept = elites(space.dimensions(), keep, so_far);
            prop_assert!(kept.len() <= keep);
            prop_assert!(kept.iter().all(|e| matches!(e.outcome, Outcome::Timed(_))), "every elite is correct");
            let fastest = so_far.iter().filter_map(|e| e.score()).fold(f64::INFINITY, f64::min);
            prop_assert!(kept.is_empty() == fastest.is_infinite());
            if let Some(first) = kept.first() {
                prop_assert_eq!(first.score().unwrap(), fastest, "the fastest is always an elite");
                prop_assert!(fastest <= best, "the best never gets worse");
                best = fastest;
            }
            let structure = |e: &&Evaluation| space.structure(&e.toggles);
            let among_elites: BTreeSet<String> = kept.iter().map(structure).collect();
            let there: BTreeSet<String> =
                so_far.iter().filter(|e| e.score().is_some()).map(|e| structure(&e)).collect();
            prop_assert_eq!(among_elites.len(), keep.min(there.len()), "structures are as many as can be");
        }
    }

    #[test]
    fn nothing_is_tried_twice_and_the_budget_is_kept(seed: u64, rejects in 0u64..100, budget in 1u32..200) {
        let space = space();
        let plan = plan(&space, seed, budget);
        let trace = run(&space, &plan, rejects, false, &[]);
        let names: Vec<&String> = trace.proposed.iter().flatten().collect();
        let unique: BTreeSet<&String> = names.iter().copied().collect();
        prop_assert_eq!(unique.len(), names.len());
        prop_assert_eq!(names.len(), (budget as usize).min(space.valid().len()));
        let whole = names.len() == space.valid().len() && (budget as usize) > names.len();
        prop_assert_eq!(trace.stopped, if whole { Stopped::SpaceExhausted } else { Stopped::Budget });
    }

    #[test]
    fn proposals_do_not_depend_on_the_order_of_arrival_or_on_an_interruption(
        seed: u64,
        rejects in 0u64..60,
        kept in 0usize..32,
    ) {
        let space = space();
        let plan = plan(&space, seed, 32);
        let first = run(&space, &plan, rejects, false, &[]);
        let other_order = run(&space, &plan, rejects, true, &[]);
        prop_assert_eq!(&first.proposed, &other_order.proposed);
        let resumed = run(&space, &plan, rejects, true, &first.evaluations[..kept.min(first.evaluations.len())]);
        prop_assert_eq!(&first.proposed, &resumed.proposed);
    }
}

#[test]
fn a_search_of_a_third_of_the_space_comes_within_three_percent() {
    let space = space();
    let shortfall = |seed: u64| {
        let plan = plan(&space, seed, 32);
        let trace = run(&space, &plan, 10, false, &[]);
        let found = trace.evaluations.iter().filter_map(Evaluation::score).fold(f64::INFINITY, f64::min);
        let all = space.valid().iter().filter_map(|t| evaluation(&space, t, outcome(&space, t, seed, 10)).score());
        found / all.fold(f64::INFINITY, f64::min)
    };
    let found = (0..24).filter(|seed| shortfall(*seed) <= 1.03).count();
    assert!(found >= 20, "{found} of 24 landscapes");
}

#[test]
fn registered_variants_are_tried_first_and_patience_ends_a_search() {
    let space = space();
    let patient = Plan { patience: 8, ..plan(&space, 3, 96) };
    let trace = run(&space, &patient, 0, false, &[]);
    let starts: Vec<String> = patient.starts.iter().map(|t| space.name(t)).collect();
    assert_eq!(trace.proposed[0][..2], starts);
    assert_eq!(trace.stopped, Stopped::Converged);
    assert!(trace.evaluations.len() < 96);
}

#[test]
fn what_a_profile_speaks_of_is_tried_first_and_only_in_one_slot() {
    let space = space();
    let plan = plan(&space, 3, 96);
    let begun = || {
        let mut search = Search::new(&plan, &space);
        while search.generations() <= LAG {
            let generation = search.propose(Vec::new());
            for proposal in &generation.proposals {
                search.record(evaluation(&space, &proposal.toggles, outcome(&space, &proposal.toggles, 3, 0)));
            }
            search.begin(generation);
        }
        search
    };
    let plain = begun().propose(Vec::new());
    let mut search = begun();
    let elite = search.known_elites().0[0].clone();
    search.advise(&elite.name, vec!["nothing".into(), "tile".into()]);
    let advised = search.propose(Vec::new());
    let first = &advised.proposals[0];
    assert_eq!(space.distance(&first.toggles, &elite.toggles), 1);
    assert_ne!(first.toggles["tile"], elite.toggles["tile"]);
    assert_eq!(first.origin, format!("tile, as the profile of {} suggests", elite.name));
    assert_eq!(advised, search.propose(Vec::new()), "it is the same whenever it is asked for");
    let operators = |g: &super::record::Generation| -> Vec<String> {
        g.proposals[1..].iter().map(|p| p.origin.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(operators(&advised), operators(&plain));
    search.advise(&elite.name, vec!["nothing".into()]);
    assert_eq!(search.propose(Vec::new()), plain, "what is no dimension changes nothing");
}

#[test]
fn generations_under_way_are_no_more_than_the_lag_allows() {
    let space = space();
    let plan = plan(&space, 3, 32);
    let mut search = Search::new(&plan, &space);
    while search.is_ready() {
        search.begin(search.propose(Vec::new()));
    }
    assert_eq!(search.generations(), LAG + 1);
    assert!(!search.is_settled());
}
