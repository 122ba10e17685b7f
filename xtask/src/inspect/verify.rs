//! `verify`: everything about a run that does not hold. Its files are those that were sealed, what is derived follows from
//! what was measured, and what stands in two places is the same in both. Leaves to others: each of these by itself.

use std::path::Path;

use anyhow::Result;
use kbench::deferral::Deferral;
use kbench::exit::Exit;
use serde::Serialize;

use super::{builds, derived, facts};
use crate::run_dir::RunDir;
use crate::runs::is_search;
use crate::{profile, tune};

/// What came of verifying a run.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// The root of the files as they are.
    pub root: String,
    /// What does not hold, a sentence each.
    pub faults: Vec<String>,
    /// What could not be compared.
    pub open: Vec<Deferral>,
}

impl Verified {
    /// Whether something does not hold, and else whether something was not compared.
    pub fn exit(&self) -> Exit {
        Exit::of_all(
            [(self.faults.is_empty(), Exit::Fix), (self.open.is_empty(), Exit::Deferred)]
                .into_iter()
                .filter(|(none, _)| !none)
                .map(|(_, exit)| exit),
        )
    }
}

/// Everything about a run that does not hold.
pub fn verify(path: &Path) -> Result<Vec<String>> {
    Ok(verify_against(path, None)?.faults)
}

/// The same of a run that must have a root which somebody kept elsewhere: the one thing that nobody can compute anew for
/// files that are not the same.
pub fn verify_against(path: &Path, root: Option<&str>) -> Result<Verified> {
    let run = RunDir::open(path)?;
    let (own, faults) = run.differences()?;
    let mut found = Verified { root: own, faults, open: Vec::new() };
    if let Some(wanted) = root.filter(|root| !root.eq_ignore_ascii_case(&found.root)) {
        found
            .faults
            .insert(0, format!("its root is {}, and not {wanted}: this is not the run that had it", found.root));
    }
    // What cannot be read does not hold either; why is said once, where it was met first.
    if let Err(error) = examine(&run, &mut found) {
        found.faults.push(format!("{error:#}"));
    }
    Ok(found)
}

fn examine(run: &RunDir, found: &mut Verified) -> Result<()> {
    if tune::is_in(run) {
        found.faults.extend(tune::verify(run)?);
    }
    if is_search(run) {
        return Ok(());
    }
    let (suite, evidence) = (run.suite()?, run.evidence()?);
    found.faults.extend(tune::foreign_winner(run, &suite)?);
    let kernels = evidence.profile.iter().flat_map(|profile| &profile.kernels);
    found.faults.extend(profile::faults(run, kernels));
    let (environment, gates, decision) = run.judgement()?;
    builds::examine(run, &suite, &evidence.builds, found)?;
    facts::examine(run, &suite, &evidence, &environment, found)?;
    derived::examine(run, &suite, &evidence, (&environment, &gates, &decision), found)
}
