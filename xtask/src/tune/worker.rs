//! A search that several workers share, each a process with GPUs of its own: each follows the whole search, measures what it
//! claims, and knows what the others measured; one of them holds the finals and seals the run.
//! Leaves to others: how workers are told apart and what they write (`share`), and who starts them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kbench::gate::significant;
use kbench::tune::{Plan, Space, Tuned, conclude, evaluations, finalists, render};
use serde::{Deserialize, Serialize};

use super::equipment::equipment;
use super::journal::{self, Journal};
use super::record::{JOURNAL_FILE, PLAN_FILE, result};
use super::session::{Parts, Session};
use super::share::{self, Claim, LOOK, Share};
use super::{Options, Ran, control_of, plan_of, seal, space_of};
use crate::basis::Basis;
use crate::files::{folders_below, write_whole};
use crate::layout::Layout;
use crate::plan::{Changes, DeviceChoice, Plan as SuitePlan};
use crate::run_dir::RunDir;
use crate::scratch::Scratch;
use crate::shared::patiently;
use crate::{console, entropy, interrupt};

/// What is claimed by whoever holds the finals.
const FINALS: &str = "finals";
/// The suite of a search, as it was settled when the search was offered.
const SUITE_FILE: &str = "suite.toml";
/// The folder of the search's run.
const RUNS: &str = "runs";

/// What all workers of a search agree on: the words of the first.
#[derive(Debug, Serialize, Deserialize)]
struct Terms {
    basis: Basis,
    row_seed: u64,
    /// RFC 3339, UTC.
    begun: String,
}

/// One worker.
pub struct Worker<'a> {
    /// The search's folder.
    pub search: &'a Path,
    /// Nobody else's, ever.
    pub name: &'a str,
    /// The name of its GPUs, as the driver has it; `None` for the emulator.
    pub gpu: Option<&'a str>,
    /// What to call to go on after an interruption.
    pub again: String,
}

/// The plan of a search under a suite, as `tune` would make it.
pub fn planned(suite: &SuitePlan, options: &Options) -> Result<Plan> {
    Ok(plan_of(&suite.suite, control_of(suite)?, options)?.0)
}

/// Puts a search into a folder that is there, for workers to take part in. The plan comes last: with it the folder is one.
pub fn offer(folder: &Path, suite: &SuitePlan, plan: &Plan) -> Result<()> {
    share::make(folder)?;
    folders_below(folder, Path::new(RUNS))?;
    write_whole(&folder.join(SUITE_FILE), toml::to_string(&suite.suite)?.as_bytes())?;
    write_whole(&folder.join(PLAN_FILE), serde_json::to_string_pretty(plan)?.as_bytes())
}

/// The suite and the plan of a search's folder.
fn read(folder: &Path) -> Result<(SuitePlan, Plan)> {
    let written = RunDir::at(folder.to_owned());
    let (suite, plan) = patiently(folder, || Ok((written.suite()?, written.read_json(PLAN_FILE)?)))?;
    Ok((SuitePlan::of(suite, Path::new("."), &Changes::default())?, plan))
}

/// Takes part in a search until it is over, and returns what it came to.
pub fn work(layout: &Layout, worker: &Worker) -> Result<Ran> {
    let started = jiff::Timestamp::now();
    let (suite, plan) = read(worker.search)?;
    let share = Share::join(worker.search, worker.name)?;
    if let Some(run) = share.ended()? {
        return sealed(worker.search, &run);
    }
    let base = &suite.suite;
    let control = control_of(&suite)?;
    let device = if worker.gpu.is_some() { DeviceChoice::Gpu } else { DeviceChoice::Emulator };
    let options = Options { device, ..Options::default() };
    let mut equipment = equipment(layout, base, &options)?.map_err(|why| anyhow::anyhow!("nothing measures: {why}"))?;
    let model = equipment.model();
    ensure!(
        model.as_deref() == worker.gpu,
        "this search is of `{}`, and here is `{}`",
        worker.gpu.unwrap_or("the emulator"),
        model.as_deref().unwrap_or("no GPU")
    );
    let terms = agree(&share, equipment.basis(base, &plan)?, started)?;
    let logs = Path::new("logs").join(share.own());
    patiently(worker.search, || folders_below(worker.search, &logs))?;
    equipment.log_to(&worker.search.join(&logs));
    let again = worker.again.clone();
    let _said = interrupt::words(move || format!("every configuration that was measured is kept\ngo on with: {again}"));
    let scratch = Scratch::new(&layout.target, "sdpa-tune-")?;
    let _room = interrupt::folder(scratch.path());
    let space: Space = space_of(plan.dimensions.clone(), control)?;
    let begun: jiff::Timestamp = terms.begun.parse().context("the terms of the search name no time")?;
    // Clocks of two machines may differ by more than has passed.
    let ago = Duration::try_from(jiff::Timestamp::now().duration_since(begun)).unwrap_or_default();
    let parts = Parts {
        layout,
        base,
        control,
        plan: &plan,
        space: &space,
        toolchain: &equipment.toolchain,
        gpus: &equipment.gpus,
        executor: equipment.executor,
        runner: &equipment.runner,
        scratch: scratch.path(),
        run: worker.search,
        started: Instant::now().checked_sub(ago).unwrap_or_else(Instant::now),
        share: Some(&share),
        row_seed: terms.row_seed,
    };
    let session = Session::new(parts);
    session.building(|| {
        let mut journal = Journal::shared(&share)?;
        session.search(&mut journal, &options)?;
        journal.put_in_order();
        end(&session, &share, worker, &mut journal, equipment.source.short_commit(), |run| {
            terms.basis.hold(run)?;
            run.write_json("ENV.json", &equipment.environment(started))
        })
    })
}

/// The terms of the first worker, if they are ours.
fn agree(share: &Share, basis: Basis, begun: jiff::Timestamp) -> Result<Terms> {
    let own = Terms { basis, row_seed: entropy::seed()?, begun: begun.to_string() };
    let text = share.terms(&serde_json::to_string(&own)?)?;
    let terms: Terms = serde_json::from_str(&text).context("the terms of the search are not what they should be")?;
    ensure!(
        terms.basis == own.basis,
        "sources, compilers or device are not those of the search's first worker; its times and theirs do not belong together"
    );
    Ok(terms)
}

/// Holds the finals, unless another does; whoever waits lets its GPUs go, and takes over where the other dies.
fn end(
    session: &Session,
    share: &Share,
    worker: &Worker,
    journal: &mut Journal,
    commit: &str,
    describe: impl Fn(&RunDir) -> Result<()>,
) -> Result<Ran> {
    let mut is_released = false;
    loop {
        if let Some(run) = share.ended()? {
            return sealed(worker.search, &run);
        }
        if share.claim(FINALS)? == Claim::Own {
            break;
        }
        if !std::mem::replace(&mut is_released, true) {
            session.releasing(|| ());
        }
        std::thread::sleep(LOOK);
    }
    let plan = session.parts.plan;
    let finals = session.finals(journal)?;
    let run = RunDir::create(&worker.search.join(RUNS), commit, &session.parts.base.name)?;
    run.write(SUITE_FILE, &toml::to_string(session.parts.base)?)?;
    run.write_json(PLAN_FILE, plan)?;
    describe(&run)?;
    run.write(JOURNAL_FILE, &journal::text(journal.lines())?)?;
    session.keep(&finals, &run)?;
    let ran = seal(run, conclude(plan, journal.lines(), &finals))?;
    let own = ran.run.name();
    let counts = share.end(&own)?;
    if counts == own {
        return Ok(ran);
    }
    // Taken for dead meanwhile: the other's finals count, and these are nobody's.
    ran.run.discard()?;
    sealed(worker.search, &counts)
}

fn sealed(search: &Path, run: &str) -> Result<Ran> {
    let run = RunDir::at(search.join(RUNS).join(run));
    let tuned: Tuned = patiently(search, || result(&run))?;
    let report = render(&tuned, Some(console::columns()));
    Ok(Ran { run, tuned, report })
}

/// What a search came to, where it is over.
pub fn found(search: &Path) -> Result<Option<Ran>> {
    Share::watch(search)?.ended()?.map(|run| sealed(search, &run)).transpose()
}

/// How far a search has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Configurations that have a result, and how many it may be at most.
    pub evaluated: usize,
    pub of: usize,
    /// The fastest so far, with their time over the control's.
    pub elites: Vec<(String, f64)>,
    /// The sealed run, once it is over.
    pub run: Option<PathBuf>,
}

/// Reads how far a search has come.
pub fn progress(search: &Path) -> Result<Progress> {
    let (_, plan) = read(search)?;
    let share = Share::watch(search)?;
    let journal = Journal::shared(&share)?;
    let elites = finalists(&plan, journal.lines()).into_iter();
    Ok(Progress {
        evaluated: evaluations(journal.lines(), |_| true).len(),
        of: if plan.exhaustive { plan.valid } else { plan.budget as usize },
        elites: elites.filter_map(|e| Some((e.name.clone(), e.score()?))).take(plan.elites).collect(),
        run: share.ended()?.map(|run| search.join(RUNS).join(run)),
    })
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "search: {} of {} evaluated", self.evaluated, self.of)?;
        for (i, (name, score)) in self.elites.iter().enumerate() {
            write!(f, "{}{} {name}", if i == 0 { "; elites: " } else { ", " }, significant(*score))?;
        }
        match &self.run {
            Some(run) => write!(f, "\nevidence: {}", run.display()),
            None => Ok(()),
        }
    }
}
