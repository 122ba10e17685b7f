//! The rules between the parts of a suite: what is named is there, limits can be kept, nothing is merged unchecked.
//! Leaves to others: whether the variants that it names exist.

use std::collections::BTreeSet;

use super::Suite;
use crate::key::BadKey;
use crate::names::Namespace;
use crate::operator::declared::Declared;
use crate::operator::{Distribution, Operator};
use crate::subject::is_peer;
use crate::variant::{DeviceFacts, VariantTable, resolve};
use stats::MIN_ROUNDS;

/// What a launch is tried with before a device is known.
const ANY_DEVICE: DeviceFacts = DeviceFacts { sms: 108, max_shared: 166_912, max_active: Some(1) };

/// The most that a run is asked to repeat: a day of anything.
const MOST_ROUNDS: u32 = 1024;
const MOST_LAUNCHES: u32 = 10_000;
const MOST_REPLAYS: u32 = 1_000_000;

fn refuse(key: &str, why: &str) -> Result<(), BadKey> {
    BadKey::refuse(key, why)
}

impl Suite {
    /// Every rule that the types do not already hold. Also called after the command line changed something.
    pub fn validate(&self) -> Result<(), BadKey> {
        self.check_operator()?;
        self.check_plan()?;
        self.check_names()?;
        self.check_variants()?;
        self.check_resources()?;
        self.check_parts()?;
        self.check_performance()?;
        self.check_profile()?;
        self.check_timed()?;
        self.check_machine_code()?;
        self.check_numbers()?;
        self.check_fleet()?;
        self.check_timing()
    }

    /// The operator by itself, and every shape of the file on it.
    fn check_operator(&self) -> Result<(), BadKey> {
        self.shapes.check()?;
        if let Some(operator) = self.declared() {
            operator.check(&mut Namespace::default())?;
            if self.shapes.is_empty() {
                return refuse("shapes", "is missing: give every axis a value, as in [shapes] small = { rows = 4 }");
            }
        }
        for shape in self.shapes.expanded() {
            self.operator.check_shape(&shape)?;
        }
        Ok(())
    }

    /// Variants of attention change registered ones; those of a declared operator are kernels, and each must have a build and
    /// launches on every shape.
    fn check_variants(&self) -> Result<(), BadKey> {
        let Some(operator) = self.declared() else {
            for (name, table) in self.variants.iter() {
                let toggles_alone = VariantTable {
                    base: table.base.clone(),
                    toggles: table.toggles.clone(),
                    ..VariantTable::default()
                };
                if *table != toggles_alone || table.base.is_none() {
                    let why =
                        "attention's variants change registered ones: give base and toggles, or declare an operator";
                    return refuse(&format!("variants.{name}"), why);
                }
            }
            return Ok(());
        };
        let mut space = Namespace::default();
        operator.check(&mut space)?;
        if let Some(name) = self.variant_names().find(|name| self.variants.get(name).is_none()) {
            let known = self.variants.keys().collect::<Vec<_>>().join(", ");
            return refuse(&format!("variants.{name}"), &format!("is missing: define it, or use one of {known}"));
        }
        for name in self.variants.keys() {
            if self.variants.get(name).is_some_and(|table| !table.toggles.is_empty()) {
                return refuse(&format!("variants.{name}.toggles"), "are attention's: use define or let");
            }
            let variant = resolve(name, &self.variants)?;
            variant.check(operator, &space)?;
            // What a plan answers is known when it was asked.
            for shape in self.check().into_iter().filter(|_| variant.plan_file().is_none()) {
                let on_shape = |error: BadKey| BadKey::new(error.key, format!("{} (on {})", error.why, shape.name));
                variant.build(operator, &shape.axes).map_err(on_shape)?;
                variant.steps(operator, &shape.axes, ANY_DEVICE, 0).map_err(on_shape)?;
                variant.scratch(operator, &shape.axes, ANY_DEVICE).map_err(on_shape)?;
            }
        }
        Ok(())
    }

    /// The operator, where the file declares it.
    pub fn declared(&self) -> Option<&Declared> {
        match &self.operator {
            Operator::Attention => None,
            Operator::Declared(declared) => Some(declared),
        }
    }

    /// Who is judged on what.
    fn check_plan(&self) -> Result<(), BadKey> {
        if self.candidates.is_empty() {
            return refuse("candidates", "name at least one variant to judge");
        }
        if self.seeds.is_empty() {
            return refuse("seeds", "give at least one seed");
        }
        let unique: BTreeSet<u64> = self.all_seeds().collect();
        if unique.len() != self.all_seeds().count() {
            return refuse("seeds", "a seed is named twice: it would count as two cases");
        }
        if self.check_shapes.is_empty() {
            return refuse("check_shapes", "give at least one shape: nothing is merged unchecked");
        }
        for (key, names) in [
            ("check_shapes", &self.check_shapes),
            ("stress_shapes", &self.stress_shapes),
            ("time_shapes", &self.time_shapes),
        ] {
            self.shapes_of(key, names)?;
            if let Some(name) = names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name))
            {
                return refuse(key, &format!("`{name}` is named twice: it would count as two"));
            }
        }
        if let Some(odd) = &self.odd {
            self.shapes_of("odd.shapes", &odd.shapes)?;
            let usual = [&self.check_shapes, &self.stress_shapes].into_iter().flatten();
            if let Some(shape) = usual.into_iter().find(|shape| odd.shapes.contains(shape)) {
                return refuse("odd.shapes", &format!("`{shape}` is in check_shapes or stress_shapes too"));
            }
            if !self.operator.is_attention() || (odd.distributions.is_empty() && !odd.shapes.is_empty()) {
                return refuse("odd", "are shapes of attention, each on the distributions that it names");
            }
        }
        if !self.operator.is_attention() && !self.distributions.is_empty() {
            return refuse("distributions", "are those of attention: an operator's inputs say their own");
        }
        if self.distributions.contains(&Distribution::Normal) {
            return refuse("distributions", "are those besides the usual one: leave out normal");
        }
        let timed: BTreeSet<_> = self.time_distributions.iter().collect();
        if timed.is_empty() || timed.len() != self.time_distributions.len() {
            return refuse("time_distributions", "give at least one, and none twice");
        }
        if let Some(emulation) = &self.emulation {
            self.shapes_of("emulation.shapes", &emulation.shapes)?;
            if emulation.max_ctas == 0 {
                return refuse("emulation.max_ctas", "must be at least 1");
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), BadKey> {
        let mut seen = BTreeSet::new();
        for name in self.variant_names() {
            if !seen.insert(name) {
                let why = format!("`{name}` is named twice: control, candidates and baselines differ");
                return refuse("candidates", &why);
            }
        }
        let is_base = |name: &str| self.variants.iter().any(|(_, table)| table.base.as_deref() == Some(name));
        if let Some(patch) = self.variants.keys().find(|name| !seen.contains(name) && !is_base(name)) {
            let why = format!("`{patch}` is defined but neither control, candidate nor baseline");
            return refuse("variants", &why);
        }
        let known = |name: &String| self.candidates.iter().any(|c| c.variant == *name) || self.baselines.contains(name);
        if let Some(other) = self.candidates.iter().filter_map(|c| c.unless_spills.as_ref()).find(|name| !known(name)) {
            let why = format!("`{other}` is no candidate or baseline of this suite");
            return refuse("candidates.unless_spills", &why);
        }
        Ok(())
    }

    /// Suites of attention limit everything that ptxas reports.
    fn check_resources(&self) -> Result<(), BadKey> {
        let limits = &self.resources;
        let all = [
            ("max_registers", limits.max_registers),
            ("max_shared_kib", limits.max_shared_kib),
            ("max_spill_bytes", limits.max_spill_bytes),
        ];
        match all.iter().find(|(_, limit)| limit.is_none()).filter(|_| self.operator.is_attention()) {
            Some((name, _)) => refuse("resources", &format!("missing field `{name}`")),
            None => Ok(()),
        }
    }

    /// Tables that name some of the checked shapes.
    fn check_parts(&self) -> Result<(), BadKey> {
        let parts = [
            ("large.shapes", self.large.as_ref().map(|large| &large.shapes)),
            ("replays.shapes", self.replays.as_ref().map(|replays| &replays.shapes)),
        ];
        for (key, shapes) in parts {
            let shapes = shapes.map(Vec::as_slice).unwrap_or_default();
            self.shapes_of(key, shapes)?;
            let unchecked = shapes.iter().find(|s| self.narrowed.is_empty() && !self.check_shapes.contains(s));
            if let Some(shape) = unchecked {
                return refuse(key, &format!("`{shape}` is not in check_shapes"));
            }
        }
        if self.large.as_ref().is_some_and(|l| l.reference_rows == 0 || (l.rounds as usize) < MIN_ROUNDS) {
            return refuse("large", "reference_rows must be at least 1, and rounds at least 8");
        }
        if self.replays.as_ref().is_some_and(|replays| replays.count == 0) {
            return refuse("replays.count", "must be at least 1");
        }
        Ok(())
    }

    /// The rule of a fleet: some kind must have measured it, and none may be in both lists.
    fn check_fleet(&self) -> Result<(), BadKey> {
        let Some(rule) = &self.fleet else { return Ok(()) };
        if rule.require.is_empty() {
            return refuse("fleet.require", "name at least one kind of device, as in require = [\"l4\"]");
        }
        let mut seen = BTreeSet::new();
        match rule.require.iter().chain(&rule.may_defer).find(|kind| !seen.insert(*kind)) {
            Some(kind) => refuse("fleet", &format!("`{kind}` is named twice; a kind is required or may defer")),
            None => Ok(()),
        }
    }

    fn is_candidate(&self, name: &str) -> bool {
        self.candidates.iter().any(|c| c.variant == name)
    }

    fn check_performance(&self) -> Result<(), BadKey> {
        for limit in &self.performance {
            if self.narrowed.is_empty() && !self.time_shapes.contains(&limit.shape) {
                return refuse("performance.shape", &format!("`{}` is gated but not in time_shapes", limit.shape));
            }
            if let Some(name) = limit.candidate.as_ref().filter(|name| !self.is_candidate(name)) {
                return refuse("performance.candidate", &format!("`{name}` is no candidate of this suite"));
            }
            // A peer's name, which only the run can know.
            let rival = limit.against.as_ref().filter(|name| !is_peer(name));
            if let Some(name) = rival.filter(|name| !self.variant_names().any(|known| known == name.as_str())) {
                return refuse("performance.against", &format!("`{name}` is no variant of this suite, nor a peer"));
            }
            if !(0.0..1.0).contains(&limit.min_latency_reduction) {
                return refuse("performance.min_latency_reduction", "is a share: at least 0 and below 1");
            }
        }
        Ok(())
    }

    fn check_profile(&self) -> Result<(), BadKey> {
        for limit in &self.profile {
            if self.narrowed.is_empty() && !self.check_shapes.contains(&limit.shape) {
                return refuse("profile.shape", &format!("`{}` is gated but not in check_shapes", limit.shape));
            }
            if let Some(name) = limit.candidate.as_ref().filter(|name| !self.is_candidate(name)) {
                return refuse("profile.candidate", &format!("`{name}` is no candidate of this suite"));
            }
            let percents = [Some(limit.min_tensor_percent), limit.or_dram_below_percent];
            if !percents.iter().flatten().all(|percent| (0.0..=100.0).contains(percent)) {
                return refuse("profile", "limits are percentages: from 0 to 100");
            }
        }
        Ok(())
    }

    /// Tables that name some of the timed shapes.
    fn check_timed(&self) -> Result<(), BadKey> {
        let timed = |shape: &String| !self.narrowed.is_empty() || self.time_shapes.contains(shape);
        if let Some(limit) = self.absolute.iter().find(|limit| !timed(&limit.shape)) {
            return refuse("absolute.shape", &format!("`{}` is gated but not in time_shapes", limit.shape));
        }
        let from_originals = self.peers.iter().flat_map(|limit| &limit.from_originals);
        if let Some(shape) = from_originals.into_iter().find(|shape| !timed(shape)) {
            return refuse("peers.from_originals", &format!("`{shape}` is gated but not in time_shapes"));
        }
        if self.peers.as_ref().is_some_and(|limit| !(limit.max_ratio > 0.0 && limit.max_ratio <= 1.0)) {
            return refuse("peers.max_ratio", "is a ratio of times: above 0 and at most 1");
        }
        if let Some(wanted) = self.aspiration.as_ref().filter(|a| !timed(&a.shape)) {
            return refuse("aspiration.shape", &format!("`{}` is not in time_shapes", wanted.shape));
        }
        Ok(())
    }

    fn check_machine_code(&self) -> Result<(), BadKey> {
        let mnemonic = |m: &&String| m.is_empty() || !m.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let mut named = self.machine_code.iter().flat_map(|code| code.require.iter().chain(&code.forbid));
        match named.find(mnemonic) {
            Some(wrong) => {
                let why = format!("`{wrong}` is no mnemonic: name one like QMMA, without modifiers");
                refuse("machine_code", &why)
            }
            None => Ok(()),
        }
    }

    /// A limit that is no number, or below zero, limits nothing or everything.
    fn check_numbers(&self) -> Result<(), BadKey> {
        let limits = &self.correctness;
        let mut numbers = vec![
            ("correctness.kernel_max_f16", limits.kernel_max_f16),
            ("correctness.kernel_max_e4m3", limits.kernel_max_e4m3),
            ("correctness.exact_max", limits.exact_max),
            ("correctness.end_to_end_mean", limits.end_to_end_mean),
            ("correctness.bad_element", limits.bad_element),
            ("correctness.bad_share", limits.bad_share),
            ("correctness.floor_allowance", limits.floor_allowance),
        ];
        let optional = [
            ("correctness.kernel_mean", limits.kernel_mean),
            ("correctness.stress_max", limits.stress_max),
            ("correctness.stress_of_floor", limits.stress_of_floor),
            ("correctness.stress_mean_of_output", limits.stress_mean_of_output),
            ("peers.accuracy.max_ratio", self.peers.as_ref().and_then(|p| p.accuracy.as_ref()).map(|a| a.max_ratio)),
            ("max_difference_from_control", self.max_difference_from_control),
            ("regressions.max_slowdown", self.regressions.map(|r| r.max_slowdown)),
            ("aspiration.min_speedup", self.aspiration.as_ref().map(|a| a.min_speedup)),
        ];
        numbers.extend(optional.into_iter().filter_map(|(key, number)| Some((key, number?))));
        if let Some(limits) = &limits.proportion {
            numbers.extend([
                ("correctness.proportion.slope_f16", limits.slope_f16),
                ("correctness.proportion.slope_e4m3", limits.slope_e4m3),
                ("correctness.proportion.row_f16", limits.row_f16),
                ("correctness.proportion.row_e4m3", limits.row_e4m3),
                ("correctness.proportion.times_control", limits.times_control),
                ("correctness.proportion.block", limits.block),
            ]);
        }
        let own = self.candidates.iter().filter_map(|c| c.max_difference_from_control);
        numbers.extend(own.map(|number| ("candidates.max_difference_from_control", number)));
        numbers.extend(self.absolute.iter().map(|limit| ("absolute.max_p50_us", limit.max_p50_us)));
        match numbers.iter().find(|(_, number)| !(number.is_finite() && *number >= 0.0)) {
            Some((key, number)) => refuse(key, &format!("is {number}: give a finite number that is not below zero")),
            None => Ok(()),
        }
    }

    fn check_timing(&self) -> Result<(), BadKey> {
        let timing = &self.timing;
        if timing.launches == 0 || timing.rounds == 0 {
            return refuse("timing", "launches (--iters) and rounds must be at least 1");
        }
        let counts = [
            ("timing.sittings", timing.sittings, MOST_ROUNDS),
            ("timing.rounds", timing.rounds, MOST_ROUNDS),
            ("timing.max_rounds", timing.max_rounds, MOST_ROUNDS),
            ("large.rounds", self.large.as_ref().map_or(0, |large| large.rounds), MOST_ROUNDS),
            ("timing.launches", timing.launches, MOST_LAUNCHES),
            ("timing.warmup", timing.warmup, MOST_LAUNCHES),
            ("replays.count", self.replays.as_ref().map_or(0, |replays| replays.count), MOST_REPLAYS),
        ];
        if let Some((key, count, most)) = counts.into_iter().find(|(_, count, most)| count > most) {
            return refuse(key, &format!("is {count}: a run could not end; give at most {most}"));
        }
        if let Some(shape) = self.time_shapes.iter().find(|s| !self.check_shapes.contains(s)) {
            let why = format!("`{shape}` is timed but not in check_shapes: nothing is timed unchecked");
            return refuse("time_shapes", &why);
        }
        if (timing.rounds as usize) < MIN_ROUNDS || timing.max_rounds < timing.rounds {
            return refuse("timing", "rounds must be at least 8, and max_rounds at least rounds");
        }
        Ok(())
    }
}
