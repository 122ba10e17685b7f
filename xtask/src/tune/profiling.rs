//! Elites under the profiler, where that is asked for: each once, on the timed shape, before whatever is proposed from its
//! result. Leaves to others: ncu (`crate::ncu`), what its figures mean and what the search makes of them (kbench).

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use kbench::deferral::Deferral;
use kbench::job::Task;
use kbench::operator::{Distribution, Problem};
use kbench::profile::KernelProfile;
use kbench::suite::VariantPatch;
use kbench::tune::{Evaluation, Line, Outcome, ProfileInsight, Profiled, Proposal, profile_insights};

use super::gpus::Gpu;
use super::meeting::{Occasion, meeting};
use super::queue::Job;
use super::session::{Driver, Session, patch};
use crate::ncu::Ncu;
use crate::plan::Plan as SuitePlan;

/// The profiler, once it was looked for; one launch at a time is under it.
#[derive(Default)]
pub struct Profiler {
    ncu: Mutex<Option<Result<Ncu, Deferral>>>,
}

impl Session<'_> {
    /// Sends elites that have no profile to the GPUs; whether one of them has to be waited for. The first that cannot be
    /// profiled is the last that is tried.
    pub(super) fn profile_elites(&self, driver: &mut Driver, all: bool) -> Result<bool> {
        if !self.parts.plan.ncu || driver.profiling.is_over {
            return Ok(false);
        }
        let elites = if all { driver.search.elites() } else { driver.search.known_elites().0 };
        let elites: Vec<Evaluation> = elites.into_iter().cloned().collect();
        for elite in &elites {
            let is_done = driver.profiling.done.contains(&elite.name);
            if !is_done && driver.profiling.under_way.insert(elite.name.clone()) {
                driver.queue.add(Job::Profile(Box::new(elite.clone())));
            }
        }
        Ok(elites.iter().any(|e| driver.profiling.under_way.contains(&e.name)))
    }

    /// Takes up a profile: into the record, and to the search.
    pub(super) fn take_profile(&self, driver: &mut Driver, profiled: Profiled) -> Result<()> {
        let (name, deferred) = (profiled.kernel.variant.clone(), profiled.kernel.deferred.clone());
        let reading = profiled.kernel.reading.as_ref().map(ProfileInsight::of);
        driver.journal.append(Line::Profiled(Box::new(profiled)))?;
        driver.profiling.under_way.remove(&name);
        driver.profiling.done.insert(name.clone());
        if let Some(insight) = reading {
            driver.search.advise(&name, insight.toggles);
        }
        if let (Some(why), false) = (deferred, driver.profiling.is_over) {
            driver.step.note(&format!("profiles: DEFERRED ({why}); the search goes on without them"));
            driver.profiling.is_over = true;
        }
        Ok(())
    }

    /// The profiles of earlier sessions; what was deferred there may be possible now.
    pub(super) fn replay_profiles(&self, driver: &mut Driver) {
        for (name, insight) in profile_insights(driver.journal.lines()) {
            driver.search.advise(&name, insight.toggles);
            driver.profiling.done.insert(name);
        }
    }

    /// Runs an elite under the profiler. An error is one of ours; an obstacle is in the result.
    pub(super) fn profile(&self, gpu: &Gpu, elite: &Evaluation) -> Result<Profiled> {
        let parts = &self.parts;
        let shape = parts.base.shape(&parts.plan.shape)?;
        let seed = *parts.base.seeds.first().context("a suite has a seed")?;
        let problem = Problem { shape, seed, distribution: Distribution::Normal };
        let mut ncu = self.profiler.ncu.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match ncu.take() {
            Some(found) => found,
            None => Ncu::find(&gpu.runner.logs)?,
        };
        let found = match ncu.insert(found) {
            Ok(found) => found,
            Err(obstacle) => {
                let kernel = KernelProfile::deferred(&elite.name, &problem, obstacle.clone());
                return Ok(Profiled { settings: None, kernel });
            }
        };
        let Evaluation { name, toggles, origin, outcome, .. } = elite.clone();
        let proposal = Proposal { name, toggles, origin };
        let named: [(String, VariantPatch); 1] = [(proposal.name.clone(), patch(&proposal))];
        let suite = meeting(parts.base, parts.plan, &named, Occasion::Search, parts.executor);
        let variants = self.variants(std::iter::once(&proposal))?;
        // Also where an earlier session built it.
        self.builder.want(&variants, false);
        let builds = self.builder.wait(&variants)?;
        let plan = SuitePlan::with(suite, variants);
        let module = self.bench().module(&plan, &builds, parts.scratch, &proposal.name)?;
        let mut kernel = found.profile(&gpu.runner, &Task::default(), &module, &problem, parts.run)?;
        let verified = match &outcome {
            Outcome::Timed(figures) => figures.output_sha256.as_ref(),
            _ => None,
        };
        if kernel.deferred.is_none() && (verified.is_none() || kernel.output_sha256.as_ref() != verified) {
            let deferral =
                Deferral::new("the output of the profiled launch is not the verified one", "run the search again");
            kernel = KernelProfile::deferred(&proposal.name, &problem, deferral);
        }
        Ok(Profiled { settings: Some(found.settings.clone()), kernel })
    }
}

#[cfg(test)]
mod tests {
    use kbench::profile::RULES;
    use sdpa_kernel::space::dimensions;

    #[test]
    fn what_the_rules_advise_to_toggle_is_searched_over() {
        let named = RULES.iter().flat_map(|rule| rule.next).flat_map(|text| text.split("toggle `").skip(1));
        let named: Vec<&str> = named.filter_map(|rest| rest.split('`').next()).collect();
        assert!(named.len() >= 5, "{named:?}");
        for toggle in named {
            assert!(dimensions().any(|(known, _)| known.name == toggle), "{toggle}");
        }
    }
}
