//! The suite under which configurations meet: what they are checked on, and how they are timed.

use kbench::job::Executor;
use kbench::operator::Distribution;
use kbench::operator::attention::RAGGED_MASKED;
use kbench::ordered::Ordered;
use kbench::suite::{Candidate, Suite, Timing, VariantPatch};
use kbench::tune::Plan;

/// What is checked on the emulator, where a launch takes seconds and nobody is named: every kind of edge.
const EMULATED_SHAPES: [&str; 3] = ["small", "ragged", RAGGED_MASKED];
/// Query rows of a problem whose output is compared with float64; a larger one has so many drawn from all of its heads.
pub const REFERENCE_ROWS: u32 = 4096;

/// The part of a search that a meeting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A configuration is evaluated: the first seed.
    Search,
    /// Finalists meet: every seed, and the unusual inputs.
    Finals,
}

impl Occasion {
    /// How often modules and buffers are placed anew. The scatter of a score falls with it, and with nothing else: 0.25%
    /// for one sitting of however many rounds, see docs/tune.md.
    pub fn sittings(self) -> u32 {
        match self {
            Occasion::Search => 32,
            Occasion::Finals => 64,
        }
    }

    /// Rounds of a sitting.
    pub fn rounds(self) -> u32 {
        2
    }

    /// Blocks are the suite's on either occasion: with shorter ones a larger share of each is the start of its first launch,
    /// and the search's figures and the finals' would differ by more than luck.
    fn timing(self, base: Timing) -> Timing {
        let rounds = self.sittings() * self.rounds();
        // A job of the runner takes one.
        Timing { sittings: 1, rounds, max_rounds: rounds, ..base }
    }
}

/// One timed shape, every shape of the suite checked, and no gate on time, since slower is no fault here.
pub fn meeting(
    base: &Suite,
    plan: &Plan,
    names: &[(String, VariantPatch)],
    occasion: Occasion,
    executor: Executor,
) -> Suite {
    let mut shapes = match executor {
        Executor::Gpu => base.check_shapes.clone(),
        Executor::Emulator | Executor::EmulatedHopper => EMULATED_SHAPES.map(str::to_owned).to_vec(),
    };
    if !shapes.contains(&plan.shape) {
        shapes.push(plan.shape.clone());
    }
    let is_final = occasion == Occasion::Finals;
    let mut suite = Suite {
        candidates: names.iter().map(|(name, _)| Candidate::of(name)).collect(),
        baselines: Vec::new(),
        variants: Ordered::default(),
        seeds: if is_final { base.seeds.clone() } else { base.seeds[..1].to_vec() },
        check_shapes: shapes,
        stress_shapes: if is_final { base.stress_shapes.clone() } else { Vec::new() },
        odd: base.odd.clone().filter(|_| is_final),
        time_shapes: vec![plan.shape.clone()],
        performance: Vec::new(),
        absolute: Vec::new(),
        regressions: None,
        time_distributions: vec![Distribution::Normal],
        peers: None,
        profile: Vec::new(),
        aspiration: None,
        timing: occasion.timing(base.timing),
        ..base.clone()
    };
    let control = base.patch(&base.control).map(|patch| (base.control.clone(), patch));
    for (name, patch) in names.iter().cloned().chain(control) {
        suite.define(&name, &patch);
    }
    suite
}
