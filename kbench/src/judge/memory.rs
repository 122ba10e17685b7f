//! The gate on what a GPU hides: races, uninitialised values, reads outside. A run on a GPU looks for them apart, in the
//! emulator and with compute-sanitizer; whatever was needed must have been made and have found nothing.
//! Leaves to others: a run in the emulator, whose cases have the same findings (`correctness`).

use std::collections::BTreeSet;

use super::launches::{broken_rule, first_finding, may_reorder};
use super::left_out;
use crate::deferral::Deferral;
use crate::evidence::{Builds, CheckedCase, Checks, EMULATOR};
use crate::gate::{Draft, Gate, GateId, Limit, Reading, Unit};
use crate::memory::{Memory, Sanitized, State, TOOLS, for_tools, left_for_tools, problems};
use crate::operator::Problem;
use crate::suite::Suite;

const RULE: &str = "no finding";

/// The gate of every variant that was run on a GPU. Older runs, which did not look, have none here.
pub fn judge_memory(suite: &Suite, builds: &Builds, checks: &Checks, memory: Option<&Memory>) -> Vec<Gate> {
    let on_gpu = checks.deferred.is_none() && checks.device.as_deref() != Some(EMULATOR);
    if !on_gpu || (memory.is_none() && !checks.memory_apart) {
        return Vec::new();
    }
    suite
        .variant_names()
        .filter(|variant| left_out(suite, builds, variant).is_none())
        .filter(|variant| builds.get(variant, &suite.arch).is_some_and(|build| !build.language.is_host_code()))
        .map(|variant| gate(suite, builds, memory, variant))
        .collect()
}

fn gate(suite: &Suite, builds: &Builds, memory: Option<&Memory>, variant: &str) -> Gate {
    let draft = Draft::new(variant, GateId::MemoryChecks).limited(Limit::at_most(0.0), Unit::One);
    let Some(memory) = memory else {
        let deferral = Deferral::new("the record of the memory checks is missing", "run it again");
        return draft.deferred(RULE, deferral);
    };
    let planned = problems(suite);
    let cases: Vec<&CheckedCase> =
        memory.emulated.iter().filter(|c| c.variant == variant && planned.contains(&c.launch.problem)).collect();
    let left = left_for_tools(suite, memory, variant);
    let wanted = for_tools(suite, &left);
    let runs: Vec<&Sanitized> = memory.sanitized.iter().filter(|run| run.variant == variant).collect();
    if let Some((place, count, words)) = found(suite, builds, variant, &cases, &runs) {
        return draft.holds(&place, Reading::said(count as f64, words), RULE, false);
    }
    if let Some(why) = open(memory, &cases, &left, &wanted, &runs) {
        return draft.deferred(RULE, why);
    }
    let shapes = |problems: &mut dyn Iterator<Item = &Problem>| {
        problems.map(|problem| problem.shape.name.clone()).collect::<BTreeSet<String>>().len()
    };
    let ran = || cases.iter().filter(|case| case.launch.deferred.is_none());
    let sampled = shapes(&mut ran().filter(|c| c.launch.sampled_ctas.is_some()).map(|c| &c.launch.problem));
    let mut words = format!("nothing found: emulated {} shapes", shapes(&mut ran().map(|c| &c.launch.problem)));
    if sampled > 0 {
        words.push_str(&format!(" (some CTAs of {sampled})"));
    }
    if !left.is_empty() {
        let (tried, others) = (shapes(&mut wanted.iter()), shapes(&mut left.iter()));
        words.push_str(&format!(", compute-sanitizer {tried} of {others} others"));
    }
    draft.holds("", Reading::said(0.0, words), RULE, true)
}

/// What was found: where, how much, and the first of it in words.
fn found(
    suite: &Suite,
    builds: &Builds,
    variant: &str,
    cases: &[&CheckedCase],
    runs: &[&Sanitized],
) -> Option<(String, usize, String)> {
    if let Some((case, finding)) = first_finding(cases) {
        let count = cases.iter().map(|case| case.launch.findings.len()).sum::<usize>();
        let replay = finding.lines().find_map(|line| line.trim().strip_prefix("replay: "));
        let replay = replay.map_or(String::new(), |how| format!("; replay: {how}"));
        let first = finding.lines().next().unwrap_or_default();
        let words = format!("{first}{replay} (+{} more, see memory.json)", count - 1);
        return Some((case.launch.problem.id(), count, words));
    }
    let unordered = may_reorder(suite, builds, variant);
    let broken = cases.iter().filter(|case| case.launch.deferred.is_none()).find_map(|case| {
        let launch = &case.launch;
        let rule = || broken_rule(launch, unordered).map(str::to_owned);
        Some((case, launch.failure.clone().or_else(rule)?))
    });
    if let Some((case, why)) = broken {
        return Some((case.launch.problem.id(), 1, format!("in the emulator: {why}")));
    }
    let run = runs.iter().find(|run| run.state == State::Found)?;
    let first = run.findings.iter().find(|finding| !finding.sites.is_empty()).or(run.findings.first());
    let words = match first {
        Some(finding) => format!("{}: {finding} (+{} more, see memory.json)", run.tool, run.findings.len() - 1),
        None => format!("{}: {}", run.tool, run.result),
    };
    Some((run.problems.join(", "), run.findings.len().max(1), words))
}

/// Why it is not known that nothing is there, if so.
fn open(
    memory: &Memory,
    cases: &[&CheckedCase],
    left: &[Problem],
    wanted: &[Problem],
    runs: &[&Sanitized],
) -> Option<Deferral> {
    let first = left.first()?;
    let outcome = cases.iter().find(|case| case.launch.problem == *first);
    let why = match outcome.and_then(|case| case.launch.deferred.as_ref()) {
        Some(deferral) => format!("{} was not emulated ({})", first.id(), deferral.why),
        None => format!("{} was not emulated", first.id()),
    };
    let ids: Vec<String> = wanted.iter().map(Problem::id).collect();
    for tool in TOOLS {
        let run = runs.iter().find(|run| run.tool == tool && ids.iter().all(|id| run.problems.contains(id)));
        match run.map(|run| (run.state, &run.result)) {
            Some((State::Clean, _)) => {}
            Some((State::Deferred | State::Found, result)) => {
                return Some(Deferral::new(
                    format!("{why}, and {tool} of compute-sanitizer: {result}"),
                    "see memory.json",
                ));
            }
            None => {
                let unknown = || Deferral::new(format!("{tool} of compute-sanitizer was not run"), "run it again");
                let no_tool = memory.no_tool.clone().unwrap_or_else(unknown);
                return Some(Deferral::new(format!("{why}, and {}", no_tool.why), no_tool.remedy));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;
    use crate::memory::{Finding, Site};

    /// The gate of the candidate on changed memory evidence: its state's word, what was measured or why not, and its place.
    fn judged(change: impl Fn(&mut Memory)) -> (String, String, String) {
        let (suite, evidence) = (testing::suite(), testing::evidence());
        let mut memory = testing::memory(&suite);
        change(&mut memory);
        let gates = judge_memory(&suite, &evidence.builds, &evidence.checks, Some(&memory));
        assert_eq!(gates.len(), 2, "one of each variant");
        assert_eq!(gates[0].state.word(), "PASS", "the control's is nobody else's");
        let gate = gates.into_iter().find(|gate| gate.variant == "new").unwrap();
        let said = if gate.measured.is_empty() { gate.state.to_string() } else { gate.measured.clone() };
        (gate.state.word().to_owned(), said, gate.place)
    }

    fn own(memory: &mut Memory) -> impl Iterator<Item = &mut CheckedCase> {
        memory.emulated.iter_mut().filter(|case| case.variant == "new")
    }

    fn defer_one(memory: &mut Memory) -> Problem {
        let case = own(memory).next().unwrap();
        case.launch.deferred = Some(Deferral::new("the emulator cannot execute it", "use a GPU"));
        case.launch.failure = Some("the emulator cannot execute it".into());
        case.launch.problem.clone()
    }

    fn run(tool: &str, problem: &Problem, state: State, findings: Vec<Finding>) -> Sanitized {
        Sanitized {
            variant: "new".into(),
            tool: tool.into(),
            device: "NVIDIA L4".into(),
            result: format!("{state:?}"),
            state,
            problems: vec![problem.id()],
            findings,
        }
    }

    /// All tools on what the emulator did not run, each with this end.
    fn with_tools(end: impl Fn(&str) -> (State, Vec<Finding>)) -> (String, String, String) {
        judged(|memory| {
            let problem = defer_one(memory);
            memory.sanitized = TOOLS
                .map(|tool| {
                    let (state, findings) = end(tool);
                    run(tool, &problem, state, findings)
                })
                .to_vec();
        })
    }

    fn race() -> Finding {
        let site = |role: &str, line: &str| Site { role: role.into(), source: vec![line.into()] };
        let sites = vec![site("write", "a.cu:1"), site("read", "b.cu:2")];
        Finding { what: "Error: Race reported".into(), sites, hits: 3, replay: None }
    }

    #[test]
    fn whole_evidence_without_a_finding_passes_and_says_what_was_looked_at() {
        let (state, said, _) = judged(|_| {});
        assert_eq!((state.as_str(), said.as_str()), ("PASS", "nothing found: emulated 4 shapes"));
        let (state, said, _) = with_tools(|_| (State::Clean, vec![]));
        assert_eq!(state, "PASS");
        assert_eq!(said, "nothing found: emulated 3 shapes, compute-sanitizer 1 of 1 others");
    }

    #[test]
    fn a_finding_fails_with_lines_and_schedule() {
        let finding = "ERROR race (write then read), write a.cu:1, read b.cu:2, CTA [0, 0, 0]\n  more\n  replay: --schedule greedy";
        let (state, said, place) = judged(|memory| own(memory).last().unwrap().launch.findings.push(finding.into()));
        assert_eq!(state, "FAIL");
        assert!(said.contains("write a.cu:1, read b.cu:2") && said.contains("replay: --schedule greedy"), "{said}");
        assert!(place.starts_with("small.seed0."), "{place}");
        let (state, said, _) = with_tools(|tool| match tool {
            "racecheck" => (State::Found, vec![race()]),
            _ => (State::Clean, vec![]),
        });
        assert_eq!(state, "FAIL");
        assert!(said.contains("racecheck: Error: Race reported, write a.cu:1, read b.cu:2"), "{said}");
    }

    #[test]
    fn a_launch_that_ends_badly_or_breaks_a_rule_fails_and_one_that_was_deferred_does_not() {
        let broken: [fn(&mut CheckedCase); 4] = [
            |case| case.launch.failure = Some("deadlock".into()),
            |case| case.launch.inputs_unchanged = false,
            |case| case.launch.guards_intact = false,
            |case| case.launch.repeat_equal = false,
        ];
        for change in broken {
            assert_eq!(judged(|memory| change(own(memory).next().unwrap())).0, "FAIL");
        }
        let (state, said, _) = judged(|memory| drop(defer_one(memory)));
        assert_eq!(state, "DEFERRED");
        assert!(said.contains("was not emulated (the emulator cannot execute it)"), "{said}");
    }

    #[test]
    fn whatever_is_missing_is_deferred_by_name() {
        assert_eq!(judged(|memory| memory.emulated.retain(|c| c.variant != "new")).0, "DEFERRED");
        let (state, said, _) = judged(|memory| {
            defer_one(memory);
            memory.no_tool = Some(Deferral::new("compute-sanitizer is not here", "install the CUDA toolkit"));
        });
        assert_eq!(state, "DEFERRED");
        assert!(said.contains("compute-sanitizer is not here; install the CUDA toolkit"), "{said}");
        for absent in TOOLS {
            let (state, said, _) = judged(|memory| {
                let problem = defer_one(memory);
                let others = TOOLS.into_iter().filter(|tool| *tool != absent);
                memory.sanitized = others.map(|tool| run(tool, &problem, State::Clean, vec![])).collect();
            });
            assert!(state == "DEFERRED" && said.contains(absent), "{absent}: {said}");
        }
        // What racecheck says of bulk copies is no evidence: it neither passes nor fails.
        let unclear = with_tools(|tool| match tool {
            "racecheck" => (State::Deferred, vec![race()]),
            _ => (State::Clean, vec![]),
        });
        assert_eq!(unclear.0, "DEFERRED");
        // A run on another problem is not the one that was needed.
        let elsewhere = judged(|memory| {
            defer_one(memory);
            let other = Problem { seed: 7, ..own(memory).last().unwrap().launch.problem.clone() };
            memory.sanitized = TOOLS.map(|tool| run(tool, &other, State::Clean, vec![])).to_vec();
        });
        assert_eq!(elsewhere.0, "DEFERRED");
    }

    #[test]
    fn only_a_run_that_says_so_was_looked_at_apart() {
        let (suite, mut evidence) = (testing::suite(), testing::evidence());
        let states = |checks: &Checks| -> Vec<String> {
            let gates = judge_memory(&suite, &testing::evidence().builds, checks, None);
            gates.iter().map(|gate| gate.state.to_string()).collect()
        };
        let missing = "DEFERRED (the record of the memory checks is missing; run it again)";
        assert_eq!(states(&evidence.checks), [missing; 2]);
        evidence.checks.memory_apart = false;
        assert_eq!(states(&evidence.checks), [""; 0], "an older run is judged as it was");
        (evidence.checks.memory_apart, evidence.checks.device) = (true, Some(EMULATOR.into()));
        assert_eq!(states(&evidence.checks), [""; 0]);
    }
}
