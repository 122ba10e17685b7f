//! The numbers of the formats in which files are written. The one before is read (`legacy`), a newer one is refused.

use serde::{Deserialize, Serialize};

/// Of a run directory.
pub const RUN: u32 = 2;
/// Of a gate file, which a suite is.
pub const GATE_FILE: u32 = 1;

/// Which revision of the reports this program writes, by the sources that write them.
pub const REPORTS: &str = env!("KBENCH_REPORTS");

/// `run.json`, the first file of a run: in which format the others are, and what the run is. A run without it is of
/// format 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// The number.
    pub format: u32,
    /// What the run was called when it began, wherever it lies now; empty where nothing recorded it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What wrote the reports, by [`REPORTS`]: the same writes the same reports of the same evidence. Empty
    /// where nothing recorded it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reports: String,
}

impl RunFile {
    /// Of a run of this name that is made now.
    pub fn of(name: &str) -> RunFile {
        RunFile { format: RUN, name: name.to_owned(), reports: REPORTS.to_owned() }
    }

    /// Of a run that has none.
    pub fn before() -> RunFile {
        RunFile { format: RUN - 1, name: String::new(), reports: String::new() }
    }

    /// Whether the run is of the format before, which has to be upgraded; an error where it is neither that nor today's.
    pub fn is_old(&self) -> Result<bool, UnknownFormat> {
        match self.format {
            RUN => Ok(false),
            format if format == RUN - 1 => Ok(true),
            found => Err(UnknownFormat { found, known: RUN }),
        }
    }
}

/// Written by another program than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it has format {found}, and this program reads format {known} and the one before; use the program that wrote it"
)]
pub struct UnknownFormat {
    /// Its format.
    pub found: u32,
    /// Ours.
    pub known: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_before_is_read_and_any_other_is_refused_by_both_numbers() {
        assert_eq!(RunFile::of("x").is_old(), Ok(false));
        assert_eq!(RunFile::before().is_old(), Ok(true));
        for format in [0, RUN + 1] {
            let error = RunFile { format, ..RunFile::before() }.is_old().unwrap_err().to_string();
            assert!(error.contains(&format!("format {format},")) && error.contains("format 2 and"), "{error}");
        }
    }
}
