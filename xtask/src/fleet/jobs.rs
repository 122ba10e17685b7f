//! The submissions of a fleet: which tasks of which kind went into which job array. Each is written down before the scheduler
//! is asked, so that a submission that breaks off is known; its number in the queue comes after.
//! Leaves to others: what is submitted when.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Fleet;
use crate::files::write_whole;
use crate::shared::patiently;

/// One job array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    pub kind: String,
    /// Which of its kind, from 1.
    pub number: u32,
    /// Which tasks of the kind, as the scheduler counts them.
    pub tasks: Vec<usize>,
    /// Its number in the queue; absent where that is not known, or the scheduler never took it.
    pub job: Option<u64>,
}

impl Submission {
    /// Its name in the queue: nobody else's.
    pub fn name(&self, fleet: &Fleet) -> String {
        let again = if self.number == 1 { String::new() } else { format!(".{}", self.number) };
        format!("gate-{}-{}{again}", fleet.name(), self.kind)
    }

    fn path(&self, fleet: &Fleet) -> PathBuf {
        fleet.path.join("jobs").join(format!("{}.{}.json", self.kind, self.number))
    }

    /// Writes it down.
    pub fn keep(&self, fleet: &Fleet) -> Result<()> {
        patiently(&fleet.path, || write_whole(&self.path(fleet), serde_json::to_string(self)?.as_bytes()))
    }
}

/// All of them: the kinds in the fleet's order, and those of a kind as they were made.
pub fn submissions(fleet: &Fleet) -> Result<Vec<Submission>> {
    let of_kind = |kind: &str| -> Result<Vec<Submission>> {
        let mut found = Vec::new();
        for number in 1.. {
            let wanted = Submission { kind: kind.to_owned(), number, tasks: Vec::new(), job: None };
            let path = wanted.path(fleet);
            if !fleet.has(&path)? {
                break;
            }
            let bytes = std::fs::read(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
            let read: Submission = serde_json::from_slice(&bytes)
                .with_context(|| format!("`{}` is not what it should be", path.display()))?;
            found.push(read);
        }
        Ok(found)
    };
    patiently(&fleet.path, || {
        let all = fleet.record.kinds.iter().map(|kind| of_kind(&kind.name)).collect::<Result<Vec<_>>>()?;
        Ok(all.concat())
    })
}
