//! `memory.json`: what was looked for that a GPU hides, beside a run on one: the very PTX in the emulator with every check,
//! and compute-sanitizer's tools on what the emulator cannot run. Plain data, and which problems are looked at.
//! Leaves to others: looking, and what it is worth (`judge`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deferral::Deferral;
use crate::evidence::CheckedCase;
use crate::operator::{Distribution, Problem};
use crate::suite::Suite;

/// compute-sanitizer's tools. Its racecheck sees shared memory only, its initcheck global memory only; the emulator's checks
/// of the same names see both.
pub const TOOLS: [&str; 4] = ["memcheck", "racecheck", "synccheck", "initcheck"];
/// CTAs that stand for a grid of the built-in operator which nobody chose for the emulator.
const FEW_CTAS: u32 = 4;
/// Shapes that the tools are given beyond the smallest one.
const MORE_SHAPES: usize = 3;
/// What such a shape may have in inputs and outputs, in elements: instrumented kernels are slow.
const SMALL: usize = 1 << 16;

/// `memory.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Launches in the emulator; nothing is compared with a reference.
    pub emulated: Vec<CheckedCase>,
    /// Runs of compute-sanitizer on what the emulator did not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sanitized: Vec<Sanitized>,
    /// Why compute-sanitizer was not run although something was left for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_tool: Option<Deferral>,
}

/// One tool on one variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sanitized {
    /// Variant.
    pub variant: String,
    /// One of [`TOOLS`].
    pub tool: String,
    /// What executed it: a GPU's name, or `emulator`.
    pub device: String,
    /// `clean`, or what was found, or why nothing can be said.
    pub result: String,
    /// The same as a word.
    pub state: State,
    /// Ids of the problems that were launched.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What was found, each problem once.
    pub findings: Vec<Finding>,
}

/// How one tool ended on one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing was found, and every launch gave an output.
    Clean,
    /// Something was found.
    Found,
    /// It could not be run here, or what it says is no evidence either way.
    Deferred,
}

/// One problem, from either device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What went wrong, in a few words.
    pub what: String,
    /// Each access that takes part, the earlier first.
    pub sites: Vec<Site>,
    /// How often it was seen.
    pub hits: u64,
    /// What replays it, on the emulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<String>,
}

impl fmt::Display for Finding {
    /// What, and the innermost line of each access.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for site in &self.sites {
            write!(f, ", {} {}", site.role, site.source.first().map_or("without a line", String::as_str))?;
        }
        Ok(())
    }
}

/// An access that takes part in a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// `read`, `write`, …
    pub role: String,
    /// `file:line` of the CUDA source, innermost first; empty without line information.
    pub source: Vec<String>,
}

/// Every problem that each variant must be looked at on: with the first seed, the suite's shapes (of the built-in operator
/// those that the emulator is allowed, else all that are not large, and the timed ones), and on the smallest stress shape
/// every other distribution, since a kernel may take another path there. Where all are large, the smallest: that nothing
/// was looked at is never that nothing was found.
pub fn problems(suite: &Suite) -> Vec<Problem> {
    let seed = suite.seeds[0];
    let normal = |shape| Problem { shape, seed, distribution: Distribution::Normal };
    let is_whole = |name: &str| suite.large(name).is_none();
    let checked = suite.check().into_iter().filter(|shape| match suite.operator.is_attention() {
        true => allowed(suite).map_or(is_whole(&shape.name), |allowed| allowed.contains(&shape.name)),
        false => true,
    });
    let mut shapes: Vec<_> = checked.collect();
    let timed = suite.time().into_iter().filter(|shape| is_whole(&shape.name));
    shapes.extend(timed.filter(|shape| !shapes.contains(shape)).collect::<Vec<_>>());
    if shapes.is_empty() {
        let all = suite.check().into_iter().chain(suite.time());
        shapes.extend(all.min_by_key(|shape| suite.operator.elements(shape)));
    }
    let stress = suite.stress().into_iter().min_by_key(|shape| suite.operator.elements(shape));
    let unusual = stress.into_iter().flat_map(|shape| {
        let with = move |distribution| Problem { shape: shape.clone(), seed, distribution };
        suite.operator.stress().into_iter().map(with)
    });
    shapes.into_iter().map(normal).chain(unusual).collect()
}

/// The shapes that a suite names for the emulator.
fn allowed(suite: &Suite) -> Option<&[String]> {
    suite.emulation.as_ref().map(|emulation| emulation.shapes.as_slice())
}

/// Whether the suite names the shape for the emulator, of which that is known to be what it takes on. Of a declared operator it
/// always runs whole grids.
pub fn is_for_emulator(suite: &Suite, problem: &Problem) -> bool {
    suite.operator.is_attention() || allowed(suite).is_some_and(|allowed| allowed.contains(&problem.shape.name))
}

/// The most CTAs that the emulator runs of a problem's grid.
pub fn most_ctas(suite: &Suite, problem: &Problem) -> u32 {
    match &suite.emulation {
        Some(emulation) if emulation.shapes.contains(&problem.shape.name) => emulation.max_ctas,
        _ => FEW_CTAS,
    }
}

/// The problems of a variant that no emulated launch stands for.
pub fn left_for_tools(suite: &Suite, memory: &Memory, variant: &str) -> Vec<Problem> {
    let ran = |problem: &Problem| {
        let own = memory.emulated.iter().filter(|case| case.variant == variant && case.launch.problem == *problem);
        own.into_iter().any(|case| case.launch.deferred.is_none())
    };
    problems(suite).into_iter().filter(|problem| !ran(problem)).collect()
}

/// What compute-sanitizer is given of those: the smallest, and a few more shapes that are small.
pub fn for_tools(suite: &Suite, left: &[Problem]) -> Vec<Problem> {
    let size = |problem: &Problem| suite.operator.elements(&problem.shape);
    let mut ranked: Vec<&Problem> = left.iter().collect();
    ranked.sort_by_key(|problem| (size(problem), problem.distribution != Distribution::Normal));
    ranked.dedup_by_key(|problem| &problem.shape);
    let mut ranked = ranked.into_iter();
    let smallest = ranked.next();
    smallest.into_iter().chain(ranked.filter(|p| size(p) <= SMALL).take(MORE_SHAPES)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;

    #[test]
    fn shapes_of_the_emulator_and_timed_ones_are_looked_at_once_each_and_other_distributions_on_the_smallest() {
        let mut suite = testing::suite();
        suite.emulation = Some(crate::suite::Emulation { shapes: vec!["wide".into()], max_ctas: 32 });
        let all = problems(&suite);
        let names: Vec<&str> = all.iter().map(|p| p.shape.name.as_str()).collect();
        assert_eq!(names[..2], ["wide", "mission"]);
        assert!(names[2..].iter().all(|name| *name == "small"), "{names:?}");
        assert_eq!((names.len(), all.iter().any(|p| p.seed != 0)), (2 + suite.operator.stress().len(), false));
        assert_eq!([&all[0], &all[1]].map(|p| most_ctas(&suite, p)), [32, FEW_CTAS]);
        suite.emulation = None;
        suite.large = Some(crate::suite::LargeShapes { shapes: vec!["wide".into()], reference_rows: 1, rounds: 1 });
        assert!(problems(&suite).iter().all(|p| p.shape.name != "wide"));
        let every = suite.check().into_iter().chain(suite.time()).map(|shape| shape.name).collect();
        suite.large = Some(crate::suite::LargeShapes { shapes: every, reference_rows: 1, rounds: 1 });
        let normal = problems(&suite).into_iter().find(|p| p.distribution == Distribution::Normal).map(|p| p.shape);
        let all = suite.check().into_iter().chain(suite.time());
        let smallest = all.min_by_key(|shape| suite.operator.elements(shape));
        assert!(normal.is_some() && normal == smallest, "where all are large, the smallest: {normal:?}");
    }

    #[test]
    fn the_tools_get_the_smallest_and_small_ones_and_never_one_shape_twice() {
        let suite = testing::suite();
        let of = |name: &str, distribution| Problem { shape: name.parse().unwrap(), seed: 0, distribution };
        let left = ["long", "mission", "tiny", "ragged"].map(|name| of(name, Distribution::Normal));
        let left = [&left[..], &[of("tiny", Distribution::Large)]].concat();
        let ids: Vec<String> = for_tools(&suite, &left).iter().map(Problem::id).collect();
        assert_eq!(ids, ["tiny.seed0.normal", "ragged.seed0.normal"]);
        assert_eq!(for_tools(&suite, &left[..1]).len(), 1, "the smallest, however large");
        assert!(for_tools(&suite, &[]).is_empty());
    }

    #[test]
    fn what_was_deferred_is_left_and_what_ran_is_not() {
        let suite = testing::suite();
        let memory = testing::memory(&suite);
        assert_eq!(left_for_tools(&suite, &memory, "new"), []);
        assert_eq!(left_for_tools(&suite, &memory, "other"), problems(&suite));
        let mut deferred = memory.clone();
        let case = deferred.emulated.iter_mut().find(|case| case.variant == "new").unwrap();
        case.launch.deferred = Some(Deferral::because("too long"));
        assert_eq!(left_for_tools(&suite, &deferred, "new").len(), 1);
    }
}
