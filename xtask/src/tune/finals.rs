//! The finals: who was fastest in the search meets the others and the control in the same rounds, by the suite's own
//! method. Several GPUs share the work; leaves to others: what the evidence adds up to (`kbench::tune::conclude`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use kbench::evidence::{Checks, Samples};
use kbench::judge::Evidence;
use kbench::shape::Problem;
use kbench::stats::MIN_ROUNDS;
use kbench::suite::VariantPatch;
use kbench::tune::{Evaluation, Finals, Line, Proposal, Rounds, Stage, finalists};
use sdpa_kernel::registry::Variant;

use super::gpus::Gpu;
use super::journal::Journal;
use super::measure::{Station, Watch, check, problems_of, time};
use super::meeting;
use super::session::{Session, patch};
use crate::build::{BuildSet, Built};
use crate::console::Step;
use crate::plan::Plan as SuitePlan;

/// What the GPUs measured together.
struct Shared {
    evidence: Evidence,
    rounds: Vec<Rounds>,
    spent: Vec<Line>,
}

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
        let suite = meeting(self.parts.base, self.parts.plan, &named, true);
        let variants = self.variants(proposals.iter())?;
        let builds = self.built(&variants)?;
        let scratch = tempfile::Builder::new().prefix("finals-").tempdir_in(self.parts.scratch)?;
        let plan = SuitePlan { suite: suite.clone(), variants };
        let Shared { evidence, rounds, spent } = self.on_every_gpu(&plan, &builds, scratch.path())?;
        spent.into_iter().try_for_each(|line| journal.append(line))?;
        step.end(&format!("{} finalists measured again", chosen.len()));
        Ok(Finals {
            suite: Some(suite),
            builds: evidence.builds,
            checks: evidence.checks,
            samples: evidence.samples,
            patches: named.into_iter().collect(),
            rounds,
        })
    }

    /// Each GPU, all of one model, checks a share of the cases, and then times whole rounds of everybody who holds all of
    /// them; what it times must have the verified bits on that GPU too. Rounds of different GPUs have different numbers,
    /// so no ratio crosses a device.
    fn on_every_gpu(&self, plan: &SuitePlan, builds: &BuildSet, scratch: &Path) -> Result<Shared> {
        let gpus = self.parts.gpus;
        let executor = self.parts.executor;
        let folders: Vec<PathBuf> = (0..gpus.len()).map(|i| scratch.join(format!("gpu{i}"))).collect();
        folders.iter().try_for_each(std::fs::create_dir_all)?;
        let mut watches: Vec<Watch> = gpus.iter().map(|_| Watch::start(self.parts.started)).collect();
        let all = gpus
            .first()
            .map(|gpu| problems_of(&Station::of(gpu, executor), &plan.suite))
            .context("something measures")?;
        let checked = on_each(gpus, &mut watches, |i, gpu, watch| {
            let share: Vec<Problem> = all.iter().skip(i).step_by(gpus.len()).cloned().collect();
            check(&Station::of(gpu, executor), plan, builds, &folders[i], &share, watch)
        })?;
        let mut evidence = Evidence { builds: builds.evidence(), ..Evidence::default() };
        for checks in checked.into_iter().flatten() {
            let Checks { device, cases, .. } = checks;
            evidence.checks.device = device;
            evidence.checks.cases.extend(cases);
        }
        let mut share = plan.clone();
        let count = plan.suite.timing.rounds.div_ceil(gpus.len().max(1) as u32).max(MIN_ROUNDS as u32);
        (share.suite.timing.rounds, share.suite.timing.max_rounds) = (count, count);
        let checks = &evidence.checks;
        let timed = on_each(gpus, &mut watches, |i, gpu, watch| {
            let order_seed = self.parts.plan.seed.wrapping_add(i as u64);
            time(&Station::of(gpu, executor), &share, builds, &folders[i], checks, order_seed, watch)
        })?;
        let mut rounds = Vec::new();
        let mut whole: Option<Samples> = None;
        for (i, mut part) in timed.into_iter().enumerate() {
            let first = i as u32 * count;
            part.blocks.iter_mut().for_each(|block| block.round += first);
            if let (Some(device), false) = (&part.device, part.blocks.is_empty()) {
                rounds.push(Rounds { gpu: device.uuid.clone(), first, count });
            }
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => {
                    whole.blocks.extend(part.blocks);
                    whole.failures.extend(part.failures);
                    whole.deferred = whole.deferred.take().or(part.deferred);
                }
            }
        }
        evidence.samples = whole.context("something measures")?;
        let configurations = plan.variants.len().saturating_sub(1);
        let spent = gpus.iter().zip(watches).map(|(gpu, watch)| gpu.spent(Stage::Finals, configurations, watch));
        Ok(Shared { evidence, rounds, spent: spent.collect() })
    }

    /// Builds of variants, from the cache where they are there: also of an earlier session's finalists.
    fn built(&self, variants: &[Variant]) -> Result<BuildSet> {
        self.builder.want(variants, false);
        self.builder.wait(variants)
    }

    /// What is kept of the builds: the finalists'.
    pub fn kept_builds(&self, finals: &Finals) -> Result<Vec<Built>> {
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

/// The same on every GPU at once, each with its number and its clock.
fn on_each<T: Send>(
    gpus: &[Gpu],
    watches: &mut [Watch],
    run: impl Fn(usize, &Gpu, &mut Watch) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let run = &run;
    std::thread::scope(|scope| {
        let each = gpus.iter().zip(watches).enumerate();
        let threads: Vec<_> = each.map(|(i, (gpu, watch))| scope.spawn(move || run(i, gpu, watch))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a measuring thread died")))).collect()
    })
}
