//! What the emulator finds in a program or a launch, as one type for everybody who tells of it; what of that is known
//! already, or taken for harmless (`policy`), and the forms in which it is told (`text`, `sarif`, `ci`). Leaves to others:
//! finding it, and writing files.

mod ci;
mod policy;
mod sarif;
mod text;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use ci::{annotations, junit};
pub use policy::{Baseline, Judged, Policy, PolicyError, Standing, judge};
pub use sarif::sarif;
pub use text::text;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Harmless as observed.
    Info,
    /// Not guaranteed, but works on known hardware; or a call that is probably not meant so.
    Warning,
    /// A fault, or undefined behaviour that other timing would show.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "INFO",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
        })
    }
}

/// One access or instruction that takes part in a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// `read`, `write`, `waits`, …
    pub role: String,
    /// Opcode with modifiers.
    #[serde(default)]
    pub instruction: String,
    /// Line of the PTX text.
    #[serde(default)]
    pub ptx_line: u32,
    /// `file:line` of the CUDA source, the outermost caller first; empty without line information.
    pub source: Vec<String>,
    /// The same with whole paths.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Warp within the block.
    #[serde(default)]
    pub warp: u32,
    /// Lane within the warp.
    #[serde(default)]
    pub lane: u32,
}

/// A place in the host's part of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The function.
    pub function: String,
    /// `path:line`, where the program has debug information.
    pub place: Option<String>,
}

/// One distinct problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule was broken, such as `race-write-write`.
    pub kind: String,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence: what happened and to which bytes.
    pub message: String,
    /// Why this is wrong and what usually repairs it.
    #[serde(default)]
    pub hint: String,
    /// The kernel; the function of CUDA's where a call is wrong.
    #[serde(default)]
    pub kernel: String,
    /// Number of the launch, from 1; 0 where there is none.
    #[serde(default)]
    pub launch: u64,
    /// Where the program launched or called, the innermost function first.
    #[serde(default)]
    pub at: Vec<Frame>,
    /// Block of the first hit.
    #[serde(default)]
    pub block: [u32; 3],
    /// Participants, the later access last.
    pub sites: Vec<Site>,
    /// Further lines.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Number of hits.
    pub hits: u64,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Path as the compiler had it.
    pub path: String,
    /// Line, from 1.
    pub line: u32,
}

impl Place {
    /// Of `path:line`.
    fn of(text: &str) -> Option<Place> {
        let (path, line) = text.rsplit_once(':')?;
        Some(Place { path: path.to_owned(), line: line.parse().ok()? })
    }

    /// Its path below a folder, where it lies there; relative paths are taken to.
    pub fn below(&self, root: &str) -> Option<&str> {
        match self.path.strip_prefix(root) {
            Some(rest) => rest.strip_prefix('/'),
            None => (!self.path.starts_with('/')).then_some(self.path.as_str()),
        }
    }
}

impl Site {
    /// The innermost place that is below a folder, else the outermost one: what is inlined from headers of the toolkit says
    /// little.
    pub fn place(&self, root: &str) -> Option<Place> {
        let all = if self.paths.is_empty() { &self.source } else { &self.paths };
        let places: Vec<Place> = all.iter().filter_map(|text| Place::of(text)).collect();
        let own = places.iter().rev().find(|place| place.below(root).is_some());
        own.or(places.first()).cloned()
    }
}

impl Finding {
    /// Where a reader should look first: the later access, else the launch or call.
    pub fn place(&self, root: &str) -> Option<Place> {
        let called = || self.at.iter().find_map(|frame| frame.place.as_deref()).and_then(Place::of);
        self.sites.iter().rev().find_map(|site| site.place(root)).or_else(called)
    }

    /// By what it is told from others when lines have moved: rule, kernel, and the instructions that take part, each with its
    /// file.
    pub fn fingerprint(&self) -> String {
        let file = |site: &Site| site.source.last().and_then(|text| text.rsplit_once(':')).map(|(f, _)| f.to_owned());
        let sites = self.sites.iter().map(|s| format!("{} {}", file(s).unwrap_or_default(), s.instruction));
        let called = self.at.first().filter(|_| self.sites.is_empty()).map(|frame| frame.function.clone());
        let parts = [self.kind.clone(), self.kernel.clone()].into_iter().chain(sites).chain(called);
        parts.collect::<Vec<_>>().join(" | ")
    }
}

/// Something that the emulator does not do, for which the program asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The function of CUDA's, or the kernel.
    pub what: String,
    /// Why not.
    pub why: String,
    /// Where the program asked.
    pub at: Vec<Frame>,
}

/// Everything that was told of one program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// What is wrong, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub refused: Vec<Refused>,
}

/// A line of the emulator's report on a program.
#[derive(Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
enum Record {
    Found(Finding),
    Again { finding: usize, hits: u64 },
    Refused(Refused),
    Misused { call: String, what: String, at: Vec<Frame> },
    Failed { call: String, error: String, text: String, at: Vec<Frame> },
}

/// What a call can have wrong: its rule, severity, and what to do.
type CallRule = (&'static str, Severity, &'static str);
const MISUSE: CallRule = ("api-misuse", Severity::Warning, "check the addresses and sizes that the call is given");
const FAILURE: CallRule = ("api-error", Severity::Info, "check what the call gives back");

fn of_call((kind, severity, hint): CallRule, call: String, message: String, at: Vec<Frame>) -> Finding {
    Finding {
        kind: kind.to_owned(),
        severity,
        message,
        hint: hint.to_owned(),
        kernel: call,
        launch: 0,
        at,
        block: [0; 3],
        sites: Vec::new(),
        notes: Vec::new(),
        hits: 1,
    }
}

/// Reads the emulator's report: a line of JSON for each thing. A last line that breaks off is that of a program that died.
pub fn read(lines: &str) -> Result<Told, serde_json::Error> {
    let mut told = Told::default();
    let mut found = Vec::new();
    let is_whole = lines.ends_with('\n');
    let count = lines.lines().count();
    for (i, line) in lines.lines().enumerate() {
        let record = match serde_json::from_str(line) {
            Err(_) if i + 1 == count && !is_whole => break,
            other => other?,
        };
        match record {
            Record::Found(finding) => {
                found.push(told.findings.len());
                told.findings.push(finding);
            }
            Record::Again { finding, hits } => {
                if let Some(&at) = found.get(finding) {
                    told.findings[at].hits += hits;
                }
            }
            Record::Refused(refused) => told.refused.push(refused),
            Record::Misused { call, what, at } => {
                let message = format!("{call}: {what}");
                told.findings.push(of_call(MISUSE, call, message, at));
            }
            Record::Failed { call, error, text, at } => {
                let message = format!("{call} failed: {text} ({error})");
                told.findings.push(of_call(FAILURE, call, message, at));
            }
        }
    }
    told.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(told)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A race in `/src/app/sum.cu`, one access in a header.
    pub fn race() -> Finding {
        let site = |role: &str, line: u32, header: bool| Site {
            role: role.into(),
            instruction: format!("{}.shared.f32", if role == "write" { "st" } else { "ld" }),
            ptx_line: line * 10,
            source: vec![format!("sum.cu:{line}")].into_iter().chain(header.then(|| "lib.h:5".to_owned())).collect(),
            paths: vec![format!("/src/app/sum.cu:{line}")]
                .into_iter()
                .chain(header.then(|| "/cuda/include/lib.h:5".to_owned()))
                .collect(),
            warp: 1,
            lane: 2,
        };
        Finding {
            kind: "race-read-after-write".into(),
            severity: Severity::Error,
            message: "race on shared smem+0x10".into(),
            hint: "nothing orders the two accesses".into(),
            kernel: "sum".into(),
            launch: 1,
            at: vec![Frame { function: "main".into(), place: Some("/src/app/sum.cu:40".into()) }],
            block: [0; 3],
            sites: vec![site("write", 12, false), site("read", 14, true)],
            notes: vec!["cudaMalloc#1 (64 bytes) was allocated at /src/app/sum.cu:30 (main)".into()],
            hits: 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_line_by_line_and_may_break_off() {
        let race = serde_json::to_value(testing::race()).unwrap();
        let mut found = serde_json::json!({"record": "found"});
        found.as_object_mut().unwrap().extend(race.as_object().unwrap().clone());
        let lines = format!(
            "{}\n{found}\n{}\n{}\n{{\"record\": \"fou",
            r#"{"record":"misused","call":"cudaMemcpy","what":"9 bytes","at":[]}"#,
            r#"{"record":"again","finding":0,"hits":4}"#,
            r#"{"record":"refused","what":"cudaCreateTextureObject","why":"not emulated","at":[]}"#,
        );
        let told = read(&lines).unwrap();
        assert_eq!(told.findings.len(), 2);
        assert_eq!(told.findings[0], Finding { hits: 7, ..testing::race() });
        assert_eq!((told.findings[1].kind.as_str(), told.findings[1].severity), ("api-misuse", Severity::Warning));
        assert_eq!(told.refused[0].what, "cudaCreateTextureObject");
        assert!(read(&format!("{lines}\n")).is_err(), "a whole line that is none");
    }

    #[test]
    fn the_place_is_the_users_own_line_of_the_later_access() {
        let place = |root: &str| testing::race().place(root).unwrap();
        assert_eq!(place("/src/app"), Place { path: "/src/app/sum.cu".into(), line: 14 });
        assert_eq!(place("/src/app").below("/src/app"), Some("sum.cu"));
        assert_eq!(place("/elsewhere").line, 14, "the outermost where none is the user's");
        let call = of_call(MISUSE, "cudaFree".into(), "x".into(), testing::race().at);
        assert_eq!(call.place("/src/app").map(|place| place.line), Some(40));
    }

    #[test]
    fn a_fingerprint_survives_lines_that_move_and_nothing_else() {
        let race = testing::race();
        let mut moved = race.clone();
        moved.sites[0].source[0] = "sum.cu:99".into();
        moved.message.clear();
        assert_eq!(moved.fingerprint(), race.fingerprint());
        moved.sites[0].instruction = "st.shared.u8".into();
        assert_ne!(moved.fingerprint(), race.fingerprint());
        assert_ne!(Finding { kernel: "other".into(), ..race.clone() }.fingerprint(), race.fingerprint());
    }
}
