//! Which distribution rejects which mutant: `KILL_MATRIX=PAGE.md cargo test -p xtask --test e2e -- --ignored
//! kill_matrix` writes the page. A row without a mark is a hole, a column without one is a distribution that nothing needs.

use std::fmt::Write;
use std::sync::Mutex;

use super::{Mutant, Validated, in_two_folders, places, softmax, suite};
use kbench::evidence::{Builds, Checks};
use kbench::gate::{GateId, State};
use kbench::judge::judge_checks;
use kbench::operator::Distribution;
use kbench::suite::Suite;

/// Mutants that a causal shape with few tiles cannot show.
const NOT_THERE: [&str; 2] =
    ["every second tile of a CTA is left out", "keys behind the end count where nothing is causal"];

/// A shape with a mask, a tail, several tiles and heads, unless the mutant needs its own.
fn shape_of(mutant: &Mutant) -> &'static [&'static str] {
    let is_there = mutant.cases == super::USUAL && !NOT_THERE.contains(&mutant.name);
    if is_there { &["1x3x40x77x64-causal"] } else { &mutant.cases.check[..1] }
}

/// By which distributions a mutant is rejected on the first of its shapes.
fn killers(validated: &Validated, variant: &str) -> Vec<Distribution> {
    let (builds, checks): (Builds, Checks) = (validated.read("builds.json"), validated.read("check.json"));
    let text = std::fs::read_to_string(validated.run.join("suite.toml")).unwrap();
    let suite = Suite::parse(&text).unwrap();
    let kills = |distribution: &Distribution| {
        let mut alone = checks.clone();
        alone.cases.retain(|case| case.launch.problem.distribution == *distribution);
        let gates = judge_checks(&suite, &builds, &alone);
        let by_value = |id: GateId| !matches!(id, GateId::EveryCaseRan);
        gates.iter().any(|g| g.variant == variant && g.state == State::Fail && by_value(g.id))
    };
    Distribution::ALL.into_iter().filter(kills).collect()
}

/// A table with a row a mutant; how many each distribution rejects stands last.
fn page(rows: &[(&str, &Mutant, Vec<Distribution>)]) -> String {
    let mut page = String::from(
        "# Which inputs reject which broken kernel\n\nWritten by `KILL_MATRIX=PAGE.md cargo test -p xtask --test e2e -- \
         --ignored kill_matrix`: each mutant that computes\nsomething else, on one shape with every distribution. Those of order and \
         bounds are found by the emulator's checks, whatever the inputs.\n\n",
    );
    let names: Vec<&str> = Distribution::ALL.into_iter().map(Distribution::name).collect();
    writeln!(page, "| mutant | variant | shape | {} |", names.join(" | ")).unwrap();
    writeln!(page, "|{}", "---|".repeat(names.len() + 3)).unwrap();
    for (_, mutant, killers) in rows {
        let marks = Distribution::ALL.map(|d| if killers.contains(&d) { "x" } else { "" });
        let shape = shape_of(mutant)[0];
        writeln!(page, "| {} | {} | {shape} | {} |", mutant.name, mutant.variant, marks.join(" | ")).unwrap();
    }
    let count = |d: Distribution| rows.iter().filter(|(_, _, killers)| killers.contains(&d)).count().to_string();
    writeln!(page, "| of {} | | | {} |", rows.len(), Distribution::ALL.map(count).join(" | ")).unwrap();
    page
}

#[test]
#[ignore = "takes a quarter of an hour, and writes a page"]
fn kill_matrix() {
    let file = std::env::var("KILL_MATRIX").expect("KILL_MATRIX names the file, from the root of the checkout");
    let mutants: Vec<(&str, &Mutant)> = [("softmax", softmax::MUTANTS), ("places", places::MUTANTS)]
        .into_iter()
        .flat_map(|(family, mutants)| mutants.iter().map(move |mutant| (family, mutant)))
        .collect();
    let found = Mutex::new(Vec::new());
    let all: Vec<&str> = Distribution::ALL.into_iter().filter(|d| !d.is_normal()).map(Distribution::name).collect();
    in_two_folders(&mutants, |dist, (family, mutant)| {
        let cases = super::Cases { check: shape_of(mutant), stress: None };
        let suite = suite(mutant.variant, &cases, &format!("{all:?}"));
        let validated = mutant.applied(dist, || Validated::of(dist, &suite));
        found.lock().unwrap().push((*family, *mutant, killers(&validated, mutant.variant)));
    });
    let mut rows = found.into_inner().unwrap();
    rows.sort_by_key(|(family, mutant, _)| (*family, mutant.name));
    let holes: Vec<&str> =
        rows.iter().filter(|(_, _, found)| found.is_empty()).map(|(_, mutant, _)| mutant.name).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the checkout");
    std::fs::write(root.join(file), page(&rows)).unwrap();
    assert!(holes.is_empty(), "no distribution rejects {holes:?}");
}
