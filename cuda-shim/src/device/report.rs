//! What is told of a program: a line of JSON for each thing as soon as it is known, so that a program that dies has told
//! everything before; text on standard error where nobody reads lines.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use kernel_spec::demangle::demangled;
use ptx_emulator::{Finding, Kind, Severity};
use serde::Serialize;

use super::sites::Site;
use crate::status::Status;

/// One line.
#[derive(Serialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
enum Record<'a> {
    /// Something that is wrong in a kernel.
    Found {
        kernel: &'a str,
        /// Number of the launch, from 1.
        launch: usize,
        hint: &'static str,
        /// The program's places, the innermost first.
        at: Vec<Place>,
        #[serde(flatten)]
        finding: &'a Finding,
    },
    /// The same again, in later launches: the number of the finding, and how often.
    Again { finding: usize, hits: u64 },
    /// Something that the emulator does not do.
    Refused { what: &'a str, why: &'a str, at: Vec<Place> },
    /// A call whose arguments or timing cannot be right.
    Misused { call: &'a str, what: &'a str, at: Vec<Place> },
    /// A call that gave an error back.
    Failed { call: &'a str, error: &'static str, text: &'static str, at: Vec<Place> },
}

/// A place in the program.
#[derive(Serialize)]
struct Place {
    function: String,
    place: Option<String>,
}

fn places(site: &Site) -> Vec<Place> {
    site.frames().into_iter().map(|frame| Place { function: frame.function, place: frame.place }).collect()
}

/// By what one finding is told from another.
type Key = (String, Kind, Severity, Vec<(u32, String)>);

/// What has been told.
#[derive(Debug)]
pub struct Report {
    file: Option<File>,
    /// Number of the finding, and hits that nobody was told of.
    known: HashMap<Key, (usize, u64)>,
    /// Everything else that was told once.
    told: HashSet<String>,
}

/// Hits are told of in steps, so that a program that launches for long writes little.
const TELL_AT: u64 = 1 << 20;

impl Report {
    /// One that goes to a file, or to standard error.
    pub fn open(path: Option<&Path>) -> Report {
        let file = path.and_then(|path| {
            let opened = File::options().create(true).append(true).open(path);
            opened.inspect_err(|error| eprintln!("failed to open `{}`: {error}", path.display())).ok()
        });
        Report { file, known: HashMap::new(), told: HashSet::new() }
    }

    fn tell(&mut self, record: &Record<'_>, text: impl FnOnce() -> String) {
        let written = match (&mut self.file, serde_json::to_string(record)) {
            (Some(file), Ok(line)) => file.write_all(format!("{line}\n").as_bytes()),
            _ => {
                eprintln!("{}", demangled(&text()));
                Ok(())
            }
        };
        // A full disk must not end the program; what is lost is said.
        if let Err(error) = written {
            eprintln!("failed to write the report: {error}");
        }
    }

    /// A finding of a launch, with notes to add.
    pub fn found(&mut self, kernel: &str, launch: usize, mut finding: Finding, notes: Vec<String>, site: &Site) {
        let sites = finding.sites.iter().map(|site| (site.ptx_line, site.instruction.clone())).collect();
        let key = (kernel.to_owned(), finding.kind, finding.severity, sites);
        let next = self.known.len();
        if let Some((_, hits)) = self.known.get_mut(&key) {
            *hits += finding.hits;
            if *hits >= TELL_AT {
                self.catch_up();
            }
            return;
        }
        self.known.insert(key, (next, 0));
        finding.notes.extend(notes);
        let at = places(site);
        self.tell(&Record::Found { kernel, launch, hint: finding.kind.hint(), at, finding: &finding }, || {
            let launched = site.words().map_or_else(String::new, |place| format!(", launched at {place}"));
            format!("{finding}\n  in `{kernel}`{launched}")
        });
    }

    /// Something that the emulator does not do, told once.
    pub fn refused(&mut self, what: &str, why: &str, site: &Site) {
        if self.told.insert(format!("refused {what}: {why}")) {
            let at = places(site);
            self.tell(&Record::Refused { what, why, at }, || format!("NOT EMULATED `{what}`: {why}{}", words(site)));
        }
    }

    /// A call that cannot be right, told once. Where it was is looked up for that only: it takes long.
    pub fn misused(&mut self, call: &str, what: &str, site: &Site) {
        if self.told.insert(format!("misused {call}: {what}")) {
            let at = places(site);
            self.tell(&Record::Misused { call, what, at }, || format!("WARNING `{call}`: {what}{}", words(site)));
        }
    }

    /// A call that failed, told once.
    pub fn failed(&mut self, call: &str, status: Status, site: &Site) {
        if self.told.insert(format!("failed {call}: {}", status.0)) {
            let (error, text, at) = (status.runtime_name(), status.text(), places(site));
            self.tell(&Record::Failed { call, error, text, at }, || format!("INFO `{call}`: {text}{}", words(site)));
        }
    }

    /// Tells of all hits that nobody was told of.
    pub fn catch_up(&mut self) {
        let mut behind: Vec<(usize, u64)> =
            self.known.values_mut().map(|(at, hits)| (*at, std::mem::take(hits))).collect();
        behind.sort_unstable();
        for (finding, hits) in behind.into_iter().filter(|(_, hits)| *hits > 0) {
            if self.file.is_some() {
                self.tell(&Record::Again { finding, hits }, String::new);
            }
        }
    }
}

fn words(site: &Site) -> String {
    site.words().map_or_else(String::new, |place| format!(", at {place}"))
}
