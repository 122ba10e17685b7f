//! The gates that do not pass, grouped where they are alike: those that wait for one thing, and those that miss one
//! threshold. Leaves to others: how a group is printed.

use crate::evidence::Mode;
use crate::gate::{Gate, State};
use crate::setting::Setting;

/// Gates that do not pass, for one reason.
pub(super) struct Group<'a> {
    /// At least one, in the judge's order, all in one state.
    pub(super) gates: Vec<&'a Gate>,
}

/// Every gate that does not pass: what fails first, then what is not settled, then what was not measured.
pub(super) fn groups(gates: &[Gate]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for gate in gates.iter().filter(|gate| gate.state != State::Pass) {
        match groups.iter_mut().find(|group| alike(group.gates[0], gate)) {
            Some(group) => group.gates.push(gate),
            None => groups.push(Group { gates: vec![gate] }),
        }
    }
    groups.sort_by_key(|group| order(&group.gates[0].state));
    groups
}

fn order(state: &State) -> u8 {
    match state {
        State::Fail => 0,
        State::Inconclusive { .. } => 1,
        State::Deferred(_) => 2,
        State::Pass => 3,
    }
}

fn alike(a: &Gate, b: &Gate) -> bool {
    a.state == b.state && (a.state != State::Fail || (a.id, &a.threshold) == (b.id, &b.threshold))
}

impl Group<'_> {
    /// The state, and of how many gates.
    pub(super) fn head(&self) -> String {
        let word = self.gates[0].state.word();
        if self.gates.len() == 1 { word.to_owned() } else { format!("{word} {}x", self.gates.len()) }
    }

    /// Whose gates these are, each once.
    pub(super) fn variants(&self) -> Vec<&str> {
        once(self.gates.iter().map(|gate| gate.variant.as_str()))
    }

    /// What was measured, wanted, and where; or why it is open, and what that keeps open.
    pub(super) fn words(&self) -> String {
        match &self.gates[0].state {
            State::Deferred(deferral) => self.waiting(&deferral.to_string()),
            State::Inconclusive { why } => self.waiting(why),
            State::Fail | State::Pass => self.missed(),
        }
    }

    fn waiting(&self, why: &str) -> String {
        if let [gate] = self.gates.as_slice() {
            let measured = if gate.measured.is_empty() { String::new() } else { format!(" is {}", gate.measured) };
            return format!(
                "{}: {}{measured}, wanted {}{}: {why}",
                gate.variant,
                gate.figure,
                gate.threshold,
                at(gate)
            );
        }
        let figures = once(self.gates.iter().map(|gate| gate.figure.as_str()));
        format!("{why}: {} ({})", figures.join(", "), self.variants().join(", "))
    }

    fn missed(&self) -> String {
        let [first, ..] = self.gates.as_slice() else { return String::new() };
        if self.gates.len() == 1 {
            let (measured, wanted) = (&first.measured, &first.threshold);
            return format!("{}: {} is {measured}, wanted {wanted}{}", first.variant, first.figure, at(first));
        }
        let same = self.gates.iter().all(|gate| gate.figure == first.figure);
        // What all of them say is said once, before the variants; a variant's own once, before its figures.
        let one_place = self.gates.iter().all(|gate| gate.place == first.place);
        let entry = |gate: &&&Gate| {
            let on = match &gate.shape {
                Some(shape) if !same => format!(" on {}", Setting::hot(shape, gate.distribution, Mode::Kernel).place()),
                None if !same => format!(" {}", gate.figure),
                _ => String::new(),
            };
            format!("{}{on}{}", gate.measured, if one_place { String::new() } else { at(gate) })
        };
        let of = |variant: &&str| {
            let own: Vec<&&Gate> = self.gates.iter().filter(|gate| gate.variant == *variant).collect();
            format!("{variant} {}", own.iter().map(entry).collect::<Vec<_>>().join(", "))
        };
        let entries: Vec<String> = self.variants().iter().map(of).collect();
        let figure = if same { first.figure.clone() } else { first.id.name().replace('-', " ") };
        let place = if one_place { at(first) } else { String::new() };
        format!("{figure}{place}, wanted {}: {}", first.threshold, entries.join("; "))
    }
}

fn at(gate: &Gate) -> String {
    if gate.place.is_empty() { String::new() } else { format!(" ({})", gate.place) }
}

fn once<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deferral::Deferral;
    use crate::gate::{Draft, GateId, Unit};

    #[test]
    fn what_waits_for_one_thing_is_one_group_and_what_misses_one_threshold_another() {
        let wait = |variant, id| Draft::new(variant, id).deferred("<= 1", Deferral::new("no GPU", "get one"));
        let miss = |variant, value| Draft::new(variant, GateId::Registers).at_most("sm_89", value, 120.0, Unit::One);
        let gates = [
            miss("a", 100.0),
            wait("a", GateId::SeenOnAGpu),
            miss("b", 130.0),
            wait("b", GateId::SeenOnAGpu),
            miss("c", 140.0),
            wait("b", GateId::TimedEverywhere),
            Draft::new("a", GateId::Spills).at_most("", 8.0, 0.0, Unit::Bytes),
        ];
        let said: Vec<String> = groups(&gates).iter().map(|g| format!("{} {}", g.head(), g.words())).collect();
        assert_eq!(
            said,
            [
                "FAIL 2x registers (sm_89), wanted <= 120: b 130; c 140",
                "FAIL a: spills is 8 bytes, wanted <= 0 bytes",
                "DEFERRED 3x no GPU; get one: seen on a GPU, timed on every shape (a, b)",
            ]
        );
    }
}
