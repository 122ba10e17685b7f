//! Which check catches which lie, and what would get through without it: the kill matrix. A check that could be left out
//! without a lie getting through is not tested by these lies. Leaves to others: the lies.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{CANDIDATE, Lie, lies, told};
use crate::decision::decide;
use crate::exit::Exit;
use crate::gate::{Gate, GateId, State};
use crate::judge::{Evidence, judge};
use crate::suite::Suite;

/// Checks whose every lie others catch too, by what they are: with all of them left out, a lie gets through.
const BACKED: &[(GateId, &[GateId], &str)] = &[
    (GateId::FiniteOutput, &[GateId::StressErrorRelative], "an output that is not finite has no error worth a number"),
    (GateId::EmulatorChecks, &[GateId::SeenOnAGpu, GateId::ConsistentEvidence], "what was emulated alone never merges"),
    (GateId::SeenOnAGpu, &[GateId::ConsistentEvidence], "no run has a GPU's times and the emulator's cases"),
    (GateId::Compiles, &[GateId::ConsistentEvidence], "what was never built has no case either"),
    (
        GateId::OwnClock,
        &[GateId::LatencyReduction],
        "what the runner's clock leaves unexplained counts as the candidate's",
    ),
    (GateId::WholeOutput, &[GateId::ConsistentEvidence], "rows that were not drawn are no evidence"),
];

/// One lie, judged.
#[derive(Clone, Debug)]
struct Told {
    name: &'static str,
    named: GateId,
    /// Checks of the candidate or the run that do not pass.
    caught_by: BTreeSet<GateId>,
    /// Of these, the ones without which the lie gets through.
    alone: BTreeSet<GateId>,
}

/// Checks against lies.
#[derive(Clone, Debug)]
pub struct KillMatrix {
    lies: Vec<Told>,
    /// Checks that lies name, and that could be left out all the same.
    pub idle: Vec<GateId>,
}

/// Judges every lie with every check, and then without each of those that caught it.
pub fn kill_matrix() -> KillMatrix {
    let lies: Vec<Told> = lies().map(tell).collect();
    let named: BTreeSet<GateId> = lies.iter().map(|lie| lie.named).collect();
    let works = |gate: &GateId| lies.iter().any(|lie| lie.alone.contains(gate)) || is_backed(*gate);
    let idle = named.into_iter().filter(|gate| !works(gate)).collect();
    KillMatrix { lies, idle }
}

fn tell(lie: &'static Lie) -> Told {
    let (suite, evidence) = told(lie.tell);
    let gates = judge(&suite, &evidence);
    let concerns = |gate: &&Gate| gate.variant == CANDIDATE || gate.variant == "peers";
    let open = gates.iter().filter(concerns).filter(|gate| gate.state != State::Pass);
    let caught_by: BTreeSet<GateId> = open.map(|gate| gate.id).collect();
    let alone = caught_by.iter().copied().filter(|id| gets_through(&suite, &evidence, &gates, &[*id])).collect();
    Told { name: lie.name, named: lie.gate, caught_by, alone }
}

/// Whether the run would end well if nothing had asked what these checks ask.
fn gets_through(suite: &Suite, evidence: &Evidence, gates: &[Gate], without: &[GateId]) -> bool {
    let left: Vec<Gate> = gates.iter().filter(|gate| !without.contains(&gate.id)).cloned().collect();
    decide(suite, &left, &evidence.checks, &evidence.samples).exit(false) == Exit::Good
}

/// Whether some lie gets through without a check and the one behind it, and is caught with either.
fn is_backed(gate: GateId) -> bool {
    let Some((_, behind, _)) = BACKED.iter().find(|(backed, ..)| *backed == gate) else { return false };
    lies().filter(|lie| lie.gate == gate).any(|lie| {
        let (suite, evidence) = told(lie.tell);
        let gates = judge(&suite, &evidence);
        gets_through(&suite, &evidence, &gates, &[&[gate], *behind].concat())
    })
}

impl KillMatrix {
    /// How many lies there are.
    pub fn lies(&self) -> usize {
        self.lies.len()
    }

    /// As a document holds it: a row a check, a column a lie.
    pub fn markdown(&self) -> String {
        let checks: BTreeSet<GateId> = self.lies.iter().flat_map(|lie| lie.caught_by.iter().copied()).collect();
        let mut text = String::from("| check | catches | alone |\n|---|---|---|\n");
        for check in &checks {
            let count = |of: fn(&Told) -> &BTreeSet<GateId>| self.lies.iter().filter(|l| of(l).contains(check)).count();
            let (catches, alone) = (count(|lie| &lie.caught_by), count(|lie| &lie.alone));
            let _ = writeln!(text, "| {} | {catches} | {alone} |", check.name());
        }
        text.push_str("\nA column is a lie, by its number below; `#` where the check alone catches it, `+` beside others.\n\n```\n");
        let width = checks.iter().map(|check| check.name().len()).max().unwrap_or(0);
        let digits = |place: usize| -> String {
            (1..=self.lies.len()).map(|n| char::from(b'0' + (n / place % 10) as u8)).collect()
        };
        let _ = writeln!(text, "{:width$} {}\n{:width$} {}", "", digits(10), "", digits(1));
        for check in &checks {
            let mark = |lie: &Told| match (lie.alone.contains(check), lie.caught_by.contains(check)) {
                (true, _) => '#',
                (false, true) => '+',
                (false, false) => '.',
            };
            let marks: String = self.lies.iter().map(mark).collect();
            let _ = writeln!(text, "{:width$} {marks}", check.name());
        }
        text.push_str("```\n\nChecks behind which another stands, so that none of their lies needs them alone:\n\n");
        for (check, behind, why) in BACKED {
            let behind: Vec<&str> = behind.iter().map(|gate| gate.name()).collect();
            let _ = writeln!(text, "- {} before {}: {why}", check.name(), behind.join(" and "));
        }
        text.push_str("\nThe lies, and the check that each must be caught by:\n\n");
        for (number, lie) in (1..).zip(&self.lies) {
            let _ = writeln!(text, "{number}. {} ({})", lie.name, lie.named.name());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_one_check_a_lie_gets_through() {
        let matrix = kill_matrix();
        assert_eq!(matrix.idle, [], "these could be left out and nothing would show it");
        for lie in &matrix.lies {
            assert!(lie.caught_by.contains(&lie.named), "{}: caught by {:?}", lie.name, lie.caught_by);
        }
        let text = matrix.markdown();
        assert!(text.contains("consistent-blocks") && text.lines().all(|line| line.len() < 140), "{text}");
    }
}
