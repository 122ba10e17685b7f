//! The winner of a search as one more candidate of a validation. Leaves to others: searching, and judging.

use std::path::Path;

use anyhow::{Result, bail};
use kbench::deferral::Deferral;

use crate::inspect::verify;
use crate::layout::Layout;
use crate::plan::{Changes, Plan};
use crate::run_dir::RunDir;
use crate::tune::{self, Ran, Tuning, suite_for_search, tune};
use crate::validate;

/// The plan with the winner of a finished search as one more candidate. Its record must hold.
pub fn with_winner_of(path: &Path, plan: Plan, options: &mut validate::Options) -> Result<Plan> {
    let faults = verify(path)?;
    if let Some(fault) = faults.first() {
        bail!("`{}` is not what it was: {fault}; search again with --tune", path.display());
    }
    let run = RunDir::open(path)?;
    if !tune::is_in(&run) {
        bail!("`{}` holds no search: name the run directory of a `tune`", path.display());
    }
    let (tuned, report) = (tune::result(&run)?, String::new());
    let (suite, files) = Ran { run, tuned, report }.add_to(plan.suite)?;
    options.attachments = files;
    Ok(Plan { control: plan.control, ..Plan::of(suite, Path::new("."), &Changes::default())? })
}

/// The plan with the winner of a search as one more candidate. What could not be searched is a deferral of the run.
pub fn with_winner(layout: &Layout, plan: Plan, options: &mut validate::Options) -> Result<Plan> {
    let args = tune::Options {
        device: options.device,
        out: options.out.clone(),
        ncu: options.ncu,
        ..tune::Options::default()
    };
    let searched = Plan::of(suite_for_search(plan.suite.clone()), Path::new("."), &Changes::default())?;
    let mut suite = plan.suite;
    match tune(layout, &searched, &args)? {
        Tuning::Deferred(Deferral { why, remedy }) => {
            suite.narrowed.push(Deferral::new(format!("no search for a tuned candidate: {why}"), remedy));
        }
        Tuning::Ran(ran) => {
            eprintln!("{}\nevidence: {}", ran.report, ran.run.path.display());
            (suite, options.attachments) = ran.add_to(suite)?;
        }
    }
    Ok(Plan { control: plan.control, ..Plan::of(suite, Path::new("."), &Changes::default())? })
}
