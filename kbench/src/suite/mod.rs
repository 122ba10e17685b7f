//! A suite: which variants meet on which shapes, and the thresholds that decide. Read from TOML; parsing has no
//! effects, and everything that can be wrong with the file is said in one line that names the key.
//! Leaves to others: whether the variants it names exist (the registry's question).

mod against;
mod limits;
mod rules;
mod shapes;

use serde::{Deserialize, Serialize};

use crate::deferral::Deferral;
use crate::format::GATE_FILE;
use crate::key::{BadKey, from_toml};
use crate::ledger::{ACCEPTED, Ledger};
use crate::operator::{Distribution, NoShape, Operator, Problem, Shape, attention};
use crate::ordered::Ordered;
use crate::variant::VariantTable;
pub use against::Change;
pub use limits::*;
pub use shapes::Shapes;
use stats::MIN_SITTINGS;

/// How much slower than the control a candidate of a gate file may be on a timed shape, where the file does not say.
const USUAL_SLOWDOWN: f64 = 0.05;

/// A suite file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The format that the file is written in.
    #[serde(default = "this_format", skip_serializing_if = "is_this_format")]
    pub format: u32,
    /// Its name; the file is `<name>.toml`.
    pub name: String,
    /// One line on what is tried.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What is computed.
    #[serde(default, skip_serializing_if = "Operator::is_attention")]
    pub operator: Operator,
    /// The accepted variant: by its name, or in a file as [`ACCEPTED`], which is then looked up in the ledger beside it.
    pub control: String,
    /// The variants that want to replace it.
    #[serde(deserialize_with = "limits::candidates")]
    pub candidates: Vec<Candidate>,
    /// Earlier variants, checked and timed beside the control so that the ladder is measured in one run.
    #[serde(default)]
    pub baselines: Vec<String>,
    /// Variants that only this suite knows.
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    pub variants: Ordered<VariantTable>,
    /// The architecture whose ptxas figures are gated, e.g. `sm_89`; where empty, the device's, and `sm_90a` without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arch: String,
    /// Seeds of the inputs.
    #[serde(default = "usual_seeds")]
    pub seeds: Vec<u64>,
    /// One more, which nobody knew when the kernels were written: a run on a GPU draws it from the system's entropy, checks and
    /// times on it like on the others, and keeps it when it is resumed. No file may name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_seed: Option<u64>,
    /// Shapes by name, besides those that the operator knows.
    #[serde(default, skip_serializing_if = "Shapes::is_empty")]
    pub shapes: Shapes,
    /// Shapes whose correctness is gated.
    #[serde(default)]
    pub check_shapes: Vec<String>,
    /// Shapes that every other input distribution is checked on, with the first seed.
    #[serde(default)]
    pub stress_shapes: Vec<String>,
    /// Those distributions; where absent, what the operator has. A suite that is used says which, so that its run is judged by
    /// the same in years to come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distributions: Vec<Distribution>,
    /// Shapes that nobody would time and kernels go wrong on; where absent, attention's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odd: Option<OddShapes>,
    /// Shapes that are timed.
    #[serde(default)]
    pub time_shapes: Vec<String>,
    /// What the inputs of timed launches are drawn like; every gate on time holds in each. Where a gate file says nothing:
    /// normal and outliers, or normal alone where it says itself how its inputs come about.
    #[serde(default = "usual_distributions")]
    pub time_distributions: Vec<Distribution>,
    /// Of these shapes, the large ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large: Option<LargeShapes>,
    /// Where and how often outputs must repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replays: Option<ReplayLimit>,
    /// Resource limits.
    #[serde(default)]
    pub resources: ResourceLimits,
    /// Correctness limits.
    #[serde(default)]
    pub correctness: CorrectnessLimits,
    /// With this, a candidate's output may differ from the control's by at most this much on any gated element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_difference_from_control: Option<f64>,
    /// What may be emulated; without it nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulation: Option<Emulation>,
    /// Relative performance gates.
    #[serde(default)]
    pub performance: Vec<PerformanceLimit>,
    /// How much slower a candidate may be on any timed shape; where absent, 5 % for a gate file and not at all limited for a
    /// suite of attention, whose mission decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regressions: Option<Regressions>,
    /// What a search may vary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune: Option<Search>,
    /// Absolute performance gates.
    #[serde(default)]
    pub absolute: Vec<AbsoluteLimit>,
    /// Gates on what the profiler says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profile: Vec<ProfileLimit>,
    /// Peers that must be slower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeerLimit>,
    /// What would be excellent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aspiration: Option<Aspiration>,
    /// What candidates' machine code must and must not be made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_code: Option<MachineCode>,
    /// How samples are taken.
    #[serde(default)]
    pub timing: Timing,
    /// What runs on several kinds of device must come to together; no run by itself heeds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetRule>,
    /// What the command line left out of the suite. A run of part of a suite can never end in MERGE.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub narrowed: Vec<Deferral>,
}

/// What is read of a file first.
#[derive(Deserialize)]
struct Head {
    #[serde(default = "this_format")]
    format: u32,
    time_distributions: Option<Vec<Distribution>>,
}

fn this_format() -> u32 {
    GATE_FILE
}

fn is_this_format(format: &u32) -> bool {
    *format == GATE_FILE
}

fn usual_seeds() -> Vec<u64> {
    vec![0, 1, 2]
}

fn usual_distributions() -> Vec<Distribution> {
    vec![Distribution::Normal]
}

impl Suite {
    /// Parses the text of a suite file, fills in what follows from the rest, and validates it. Nothing was accepted yet.
    pub fn parse(text: &str) -> Result<Suite, BadKey> {
        Suite::parse_with(text, &Ledger::default())
    }

    /// The same beside a ledger of what was accepted, which says what `control = "accepted"` is.
    pub fn parse_with(text: &str, ledger: &Ledger) -> Result<Suite, BadKey> {
        let mut suite = Suite::read(text, Some(ledger))?;
        if suite.timing.sittings < MIN_SITTINGS {
            return BadKey::refuse(
                "timing.sittings",
                format!("must be at least {MIN_SITTINGS}: fewer give no interval"),
            );
        }
        let Head { time_distributions, .. } = from_toml(text)?;
        if time_distributions.is_none() {
            suite.time_distributions = suite.operator.usually_timed();
        }
        Ok(suite)
    }

    fn read(text: &str, ledger: Option<&Ledger>) -> Result<Suite, BadKey> {
        // Before anything else: a newer format may have keys that this one refuses.
        let Head { format, .. } = from_toml(text)?;
        if !is_this_format(&format) {
            let why = format!("is {format}, and this program reads format {GATE_FILE}; use the program that it is for");
            return BadKey::refuse("format", why);
        }
        let mut suite: Suite = from_toml(text)?;
        if let Some(ledger) = ledger {
            suite.find_control(ledger)?;
        }
        suite.complete();
        suite.validate()?;
        Ok(suite)
    }

    /// The suite of a recorded run. One that does not say how many sittings it was measured in was measured in one, and one
    /// that does not say which distributions were timed timed normal inputs alone.
    pub fn parse_recorded(text: &str) -> Result<Suite, BadKey> {
        let of_timing = |table: toml::Table| Some(table.get("timing")?.as_table()?.contains_key("sittings"));
        if text.parse().ok().and_then(of_timing).unwrap_or(false) {
            return Suite::read(text, None);
        }
        let mut suite = Suite::read(text, None)?;
        suite.timing.sittings = 1;
        Ok(suite)
    }

    /// The name of the control where the file means what was accepted last.
    fn find_control(&mut self, ledger: &Ledger) -> Result<(), BadKey> {
        if self.variants.get(ACCEPTED).is_some() {
            let why = "is what `control` calls the variant that was accepted last: take another name";
            return BadKey::refuse(format!("variants.{ACCEPTED}"), why);
        }
        if self.control != ACCEPTED {
            return Ok(());
        }
        let Some(accepted) = ledger.latest(&self.name) else {
            let why = format!(
                "nothing was accepted yet for `{}`: name a variant, and once a run says MERGE, `accept` it",
                self.name
            );
            return BadKey::refuse("control", why);
        };
        if self.candidates.iter().any(|candidate| candidate.variant == accepted.variant) {
            let why = format!("`{}` was accepted and is the control now: take it out", accepted.variant);
            return BadKey::refuse("candidates", why);
        }
        self.control.clone_from(&accepted.variant);
        Ok(())
    }

    /// A gate file need not say what can only be one thing: every shape is checked and timed, the smallest with unusual
    /// inputs too, and the emulator may have all of them.
    fn complete(&mut self) {
        if self.operator.is_attention() {
            return;
        }
        let all: Vec<String> = self.shapes.expanded().into_iter().map(|shape| shape.name).collect();
        for shapes in [&mut self.check_shapes, &mut self.time_shapes] {
            if shapes.is_empty() {
                shapes.clone_from(&all);
            }
        }
        if self.stress_shapes.is_empty() {
            let shapes = self.check();
            let smallest = shapes.iter().min_by_key(|shape| self.operator.elements(shape));
            self.stress_shapes.extend(smallest.map(|shape| shape.name.clone()));
        }
        if self.regressions.is_none() {
            self.regressions = Some(Regressions { max_slowdown: USUAL_SLOWDOWN });
        }
        if self.emulation.is_none() {
            self.emulation = Some(Emulation { shapes: self.check_shapes.clone(), max_ctas: u32::MAX });
        }
    }

    /// Says what is asked today wherever the file leaves it open. A recorded suite stays as it is: what it leaves open was not
    /// asked in its day.
    pub fn settle(&mut self) {
        if !self.operator.is_attention() {
            return;
        }
        if self.distributions.is_empty() {
            self.distributions = self.operator.stress();
        }
        self.correctness.proportion.get_or_insert_default();
        if self.odd.is_none() {
            let distributions = vec![Distribution::Normal, Distribution::MaximumLast, Distribution::OppositeConstants];
            let asked = [&self.check_shapes, &self.stress_shapes];
            let left = attention::ODD.into_iter().filter(|odd| !asked.iter().any(|of| of.iter().any(|s| s == odd)));
            let odd = OddShapes { shapes: left.map(str::to_owned).collect(), distributions };
            if let Some(emulation) = &mut self.emulation {
                emulation.shapes.extend(odd.shapes.clone());
            }
            self.odd = Some(odd);
        }
    }

    /// Distributions of the stress shapes.
    pub fn stress_distributions(&self) -> Vec<Distribution> {
        match self.distributions.as_slice() {
            [] => self.operator.stress_before_it_was_recorded(),
            distributions => distributions.to_vec(),
        }
    }

    /// The shapes of `odd`.
    pub fn odd(&self) -> Vec<Shape> {
        self.odd.as_ref().and_then(|odd| self.shapes_of("odd.shapes", &odd.shapes).ok()).unwrap_or_default()
    }

    /// Whether a shape is one of those.
    pub fn is_odd(&self, shape: &str) -> bool {
        self.odd.as_ref().is_some_and(|odd| odd.shapes.iter().any(|s| s == shape))
    }

    /// The rules for a shape, if it is a large one.
    pub fn large(&self, shape: &str) -> Option<&LargeShapes> {
        self.large.as_ref().filter(|large| large.shapes.iter().any(|s| s == shape))
    }

    /// The seeds that a shape is run with, the fresh one last.
    pub fn seeds_on(&self, shape: &str) -> Vec<u64> {
        let fixed = if self.large(shape).is_some() { &self.seeds[..1] } else { &self.seeds };
        fixed.iter().copied().chain(self.fresh_seed).collect()
    }

    /// Every seed that some shape is run with.
    pub fn all_seeds(&self) -> impl Iterator<Item = u64> + '_ {
        self.seeds.iter().copied().chain(self.fresh_seed)
    }

    /// Rounds before the first verdict on a shape, where they are not fewer than sittings.
    pub fn rounds_on(&self, shape: &str) -> u32 {
        self.large(shape).map_or(self.timing.rounds, |large| large.rounds)
    }

    /// Rounds of each sitting on a shape.
    pub fn rounds_of_sitting(&self, shape: &str) -> u32 {
        self.rounds_on(shape).div_ceil(self.timing.sittings.max(1)).max(1)
    }

    /// How often gates on a shape are looked at, at most: after the first rounds, and each time that as many were added.
    pub fn looks(&self, shape: &str) -> u32 {
        let rounds = if self.timing.is_of_one_sitting() { self.rounds_on(shape) } else { self.timing.rounds };
        self.timing.max_rounds.div_ceil(rounds.max(1)).max(1)
    }

    /// How often the output on a problem must repeat.
    pub fn replays_of(&self, problem: &Problem) -> Option<u32> {
        let of_kind = problem.seed == self.seeds[0] && problem.distribution == Distribution::Normal;
        let limit = self.replays.as_ref().filter(|limit| of_kind && limit.shapes.contains(&problem.shape.name))?;
        Some(limit.count)
    }

    /// The resource limits of a variant.
    pub fn resources_of(&self, variant: &str) -> &ResourceLimits {
        let candidate = self.candidates.iter().find(|c| c.variant == variant);
        candidate.and_then(|c| c.resources.as_ref()).unwrap_or(&self.resources)
    }

    /// How far a variant's output may be from the control's, where that is limited.
    pub fn max_difference(&self, variant: &str) -> Option<f64> {
        let candidate = self.candidates.iter().find(|c| c.variant == variant)?;
        candidate.max_difference_from_control.or(self.max_difference_from_control)
    }

    /// Control, candidates, baselines: every variant in the order of the reports.
    pub fn variant_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.control.as_str())
            .chain(self.candidates.iter().map(|c| c.variant.as_str()))
            .chain(self.baselines.iter().map(String::as_str))
    }

    /// What a variant of this suite changes of a registered one.
    pub fn patch(&self, name: &str) -> Option<VariantPatch> {
        let table = self.variants.get(name)?;
        Some(VariantPatch { base: table.base.clone()?, toggles: table.toggles.clone() })
    }

    /// Defines a variant as a change of a registered one.
    pub fn define(&mut self, name: &str, patch: &VariantPatch) {
        let table =
            VariantTable { base: Some(patch.base.clone()), toggles: patch.toggles.clone(), ..VariantTable::default() };
        self.variants.set(name, table);
    }

    /// The shapes of `check_shapes`.
    pub fn check(&self) -> Vec<Shape> {
        self.shapes_of("check_shapes", &self.check_shapes).unwrap_or_default()
    }

    /// The shapes of `stress_shapes`.
    pub fn stress(&self) -> Vec<Shape> {
        self.shapes_of("stress_shapes", &self.stress_shapes).unwrap_or_default()
    }

    /// The shapes of `time_shapes`.
    pub fn time(&self) -> Vec<Shape> {
        self.shapes_of("time_shapes", &self.time_shapes).unwrap_or_default()
    }

    /// The shape of a name: the file's own, or one that the operator knows.
    pub fn shape(&self, name: &str) -> Result<Shape, NoShape> {
        match self.shapes.find(name) {
            Some(shape) => Ok(self.operator.completed(shape)),
            None => self.operator.shape(name),
        }
    }

    fn shapes_of(&self, key: &'static str, names: &[String]) -> Result<Vec<Shape>, BadKey> {
        names.iter().map(|name| self.shape(name).map_err(|error| BadKey::new(key, error.to_string()))).collect()
    }
}

#[cfg(test)]
mod tests;
