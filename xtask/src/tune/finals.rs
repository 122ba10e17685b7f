//! The finals: who was fastest in the search meets the others and the control in the same rounds, on everything that a
//! validation checks. Leaves to others: what the evidence adds up to (`kbench::tune::conclude`).

use anyhow::Result;
use kbench::suite::VariantPatch;
use kbench::tune::{Evaluation, Finals, Proposal, Stage, finalists};
use sdpa_kernel::registry::Variant;

use super::journal::Journal;
use super::measure::{Batch, Measured, measure};
use super::meeting::{Occasion, meeting};
use super::record::FINALS_FILE;
use super::session::{Session, patch};
use crate::build::{BuildSet, Built};
use crate::console::Step;
use crate::plan::Plan as SuitePlan;
use crate::run_dir::RunDir;

impl Session<'_> {
    /// The finalists against each other and the control in the same rounds.
    pub fn finals(&self, journal: &mut Journal) -> Result<Finals> {
        let chosen: Vec<Evaluation> = finalists(self.parts.plan, journal.lines()).into_iter().cloned().collect();
        if chosen.is_empty() {
            return Ok(Finals::default());
        }
        let step = Step::begin("finals", 0);
        step.message(&format!("{} finalists", chosen.len()));
        let proposal =
            |e: &Evaluation| Proposal { name: e.name.clone(), toggles: e.toggles.clone(), origin: e.origin.clone() };
        let proposals: Vec<Proposal> = chosen.iter().map(proposal).collect();
        let named: Vec<(String, VariantPatch)> = proposals.iter().map(|p| (p.name.clone(), patch(p))).collect();
        let suite = meeting(self.parts.base, self.parts.plan, &named, Occasion::Finals, self.parts.executor);
        let variants = self.variants(proposals.iter())?;
        let builds = self.built(&variants)?;
        let scratch = tempfile::Builder::new().prefix("finals-").tempdir_in(self.parts.scratch)?;
        let plan = SuitePlan::with(suite.clone(), variants);
        let bench = self.bench();
        let mut watches = bench.watches(self.parts.started);
        let (occasion, scratch, seed) = (Occasion::Finals, scratch.path(), self.parts.plan.seed);
        let batch = Batch { plan: &plan, builds: &builds, occasion, scratch, seed };
        let Measured { evidence, sittings } = measure(&bench, &batch, &mut watches)?;
        for (gpu, watch) in self.parts.gpus.iter().zip(watches) {
            journal.append(gpu.spent(Stage::Finals, chosen.len(), watch))?;
        }
        step.end(&format!("{} finalists measured again", chosen.len()));
        Ok(Finals {
            suite: Some(suite),
            builds: evidence.builds,
            checks: evidence.checks,
            samples: evidence.samples,
            patches: named.into_iter().collect(),
            rounds: sittings,
        })
    }

    /// Builds of variants, from the cache where they are there: also of an earlier session's finalists.
    fn built(&self, variants: &[Variant]) -> Result<BuildSet> {
        self.builder.want(variants, false);
        self.builder.wait(variants)
    }

    /// Keeps the finals in a run, and what the finalists were built as, while everything that measures ends.
    pub fn keep(&self, finals: &Finals, run: &RunDir) -> Result<()> {
        self.releasing(|| {
            run.write_json(FINALS_FILE, finals)?;
            run.keep_builds(&self.kept_builds(finals)?, &self.parts.base.arch)
        })
    }

    /// What is kept of the builds: the finalists'.
    fn kept_builds(&self, finals: &Finals) -> Result<Vec<Built>> {
        let variants = finals.patches.iter().map(|(name, patch)| {
            let base = sdpa_kernel::registry::find(&patch.base)?;
            Ok(base.patched(name, &patch.toggles)?)
        });
        let mut variants: Vec<Variant> = variants.collect::<Result<_>>()?;
        if !variants.is_empty() {
            variants.push(self.parts.control.clone());
        }
        Ok(self.built(&variants)?.built)
    }
}
