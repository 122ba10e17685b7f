//! Findings of a run: what went wrong, who did it, where in PTX and CUDA source.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use crate::module::Kernel;
use crate::program::Origin;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Harmless as observed, such as a race that stores equal values.
    Info,
    /// Not guaranteed by the PTX memory model but working on known hardware.
    Warning,
    /// A fault, or undefined behaviour that other timing would show.
    Error,
}

/// What kind of rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Two unordered stores to the same byte.
    RaceWriteWrite,
    /// A store, then an unordered load.
    RaceReadAfterWrite,
    /// A load, then an unordered store.
    RaceWriteAfterRead,
    /// Bytes touched between the issue of an asynchronous copy and its wait.
    InFlight,
    /// A register of a `wgmma` touched before the wait for its group.
    RegisterInFlight,
    /// A register touched and used by a `wgmma` without a `wgmma.fence` in between.
    MissingFence,
    /// Written by a thread and read or overwritten asynchronously without a `fence.proxy.async` in between.
    MissingProxyFence,
    /// The source of an asynchronous copy changed before the copy had to be complete.
    SourceChanged,
    /// `cp.async` still open when its thread exited.
    UnwaitedCopy,
    /// An access outside every allocation or variable.
    OutOfBounds,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// An undefined value used as an address.
    UninitialisedAddress,
    /// An undefined value that decides a branch.
    UninitialisedBranch,
    /// An undefined value stored to global memory.
    UninitialisedStore,
    /// A load that polls or follows a flag may find what no store has initialised.
    UninitialisedRead,
    /// A barrier used against its rules.
    BarrierMisuse,
    /// A barrier completed although some threads had exited.
    ExitedBeforeBarrier,
    /// A warp-wide instruction without all the lanes it names.
    SyncDivergence,
    /// An mbarrier used against its life cycle.
    MbarrierMisuse,
    /// A `wgmma` whose warps or descriptors do not fit.
    WarpgroupMisuse,
    /// An access to a block that is not in the cluster, or has exited, or a barrier of the cluster used against its rules.
    ClusterMisuse,
    /// A bulk copy of a tensor whose map is none, or does not fit it.
    TensorMapMisuse,
    /// `ld.global.nc` of memory written in the same launch.
    NonCoherentRead,
    /// A store to constant memory.
    ReadOnlyStore,
    /// No thread of the block can go on.
    Deadlock,
    /// Only polls of unchanging values for a long time.
    NoProgress,
    /// The instruction limit of a warp was reached.
    Runaway,
    /// `trap` or a failed device assertion.
    Trap,
}

impl Kind {
    /// Why this is wrong and what usually repairs it, in one line.
    pub fn hint(self) -> &'static str {
        match self {
            Kind::RaceWriteWrite | Kind::RaceReadAfterWrite | Kind::RaceWriteAfterRead => {
                "nothing orders the two accesses: a barrier between them, or atomics with fences"
            }
            Kind::InFlight => "nobody has waited for the copy: its group, or the phase of its mbarrier",
            Kind::RegisterInFlight => "wgmma.commit_group and a wgmma.wait_group for that group come before the access",
            Kind::MissingFence => "wgmma.fence.sync.aligned after the last access and before the first wgmma",
            Kind::MissingProxyFence => "fence.proxy.async after the write, before the barrier that orders the two",
            Kind::WarpgroupMisuse => "all four warps execute the same wgmma on the same matrices",
            Kind::ClusterMisuse => {
                "a cluster barrier before the first access to another block and before any of them exits"
            }
            Kind::SourceChanged => "the source of a copy must stay unchanged until its wait",
            Kind::UnwaitedCopy => "wait for every group before the thread ends",
            Kind::OutOfBounds => "check index arithmetic and the guard of tail elements",
            Kind::Misaligned => "the address must be a multiple of the whole access, vectors included",
            Kind::UninitialisedAddress | Kind::UninitialisedBranch | Kind::UninitialisedStore => {
                "the value comes from a register or memory that was never written on this path"
            }
            Kind::UninitialisedRead => {
                "clear the memory before the launch, or put a fence between the data and its flag, on both sides"
            }
            Kind::BarrierMisuse => "all participants must agree on id and thread count, once per generation",
            Kind::ExitedBeforeBarrier => "threads that return early do not reach the barrier",
            Kind::SyncDivergence => "every lane named in the mask must execute the instruction together",
            Kind::MbarrierMisuse => {
                "init once, then a barrier, then arrivals as counted, waits with alternating parity"
            }
            Kind::TensorMapMisuse => {
                "encode the map with `TensorMap::to_bytes`, for as many dimensions as the copy has"
            }
            Kind::NonCoherentRead => "use a plain load for memory that the launch writes",
            Kind::ReadOnlyStore => "constant memory cannot be written by a kernel",
            Kind::Deadlock => "an arrival is missing, doubled, or on another barrier",
            Kind::NoProgress => "the awaited value is never written by a running block",
            Kind::Runaway => "the loop has no end, or the limit is too small for the shape",
            Kind::Trap => "the kernel stopped itself",
        }
    }
}

/// One access or instruction that takes part in a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// Index of the decoded operation.
    #[serde(skip)]
    pub(crate) pc: u32,
    /// Role: `write`, `read`, `waits`, …
    pub role: String,
    /// Opcode with modifiers.
    pub instruction: String,
    /// Line of the PTX text.
    pub ptx_line: u32,
    /// CUDA source, outermost caller first, as `file:line`.
    pub source: Vec<String>,
    /// The same with the paths that the compiler was given.
    pub paths: Vec<String>,
    /// Warp within the block.
    pub warp: u32,
    /// Lane within the warp.
    pub lane: u32,
}

impl Site {
    /// The innermost source line and its caller, or the PTX line where there is no line information.
    pub fn place(&self) -> String {
        match self.source.as_slice() {
            [] => format!("{} at ptx {}", self.role, self.ptx_line),
            frames => format!("{} at {}", self.role, frames[frames.len().saturating_sub(2)..].join(" < ")),
        }
    }
}

/// One distinct problem; repeated hits are counted, not repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which rule was broken.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence: what happened and to which bytes.
    pub message: String,
    /// Block of the first hit.
    pub block: [u32; 3],
    /// Participants, the later access last.
    pub sites: Vec<Site>,
    /// Further lines, such as the wait graph of a deadlock.
    pub notes: Vec<String>,
    /// Number of hits.
    pub hits: u64,
}

impl Finding {
    /// Whether this must fail a validation.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Info => "INFO",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
        };
        let [x, y, z] = self.block;
        write!(f, "{severity} {}, block ({x},{y},{z})", self.message)?;
        let mut places: Vec<String> = self.sites.iter().map(Site::place).collect();
        places.dedup();
        if !places.is_empty() {
            places.truncate(MAX_PLACES);
            write!(f, "; {}", places.join(", "))?;
        }
        for site in &self.sites {
            let thread = site.warp * 32 + site.lane;
            write!(
                f,
                "\n  {}: {} by warp {} lane {} (thread {thread})  {}  [ptx {}]",
                site.role,
                site.instruction,
                site.warp,
                site.lane,
                site.source.join(" < "),
                site.ptx_line
            )?;
        }
        for note in &self.notes {
            write!(f, "\n  {note}")?;
        }
        write!(f, "\n  hint: {}", self.kind.hint())?;
        write!(f, "\n  {} hit{}", self.hits, if self.hits == 1 { "" } else { "s" })
    }
}

/// All findings as a JSON array; see [`Finding`] for the fields.
pub fn findings_to_json(findings: &[Finding]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(findings)
}

/// A participant before its position is looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawSite {
    pub(crate) role: &'static str,
    pub(crate) pc: u32,
    pub(crate) warp: u32,
    pub(crate) lane: u32,
}

/// Most places in the first line of a report; the lines below have them all.
const MAX_PLACES: usize = 3;

/// Most distinct findings kept per run; more are counted only.
const MAX_DISTINCT: usize = 1000;

/// Collects findings of one block, one per pair of instructions and kind.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    index: HashMap<(Kind, Severity, u32, u32), usize>,
    pub(crate) list: Vec<Finding>,
}

impl Findings {
    /// Counts a hit; `describe` is called for the first of its kind only.
    pub(crate) fn add(
        &mut self,
        kernel: &Kernel,
        kind: Kind,
        severity: Severity,
        block: [u32; 3],
        sites: &[RawSite],
        describe: impl FnOnce() -> (String, Vec<String>),
    ) {
        let pc = |i: usize| sites.get(i).map_or(u32::MAX, |s: &RawSite| s.pc);
        let key = (kind, severity, pc(0), pc(1));
        if let Some(&at) = self.index.get(&key) {
            self.list[at].hits += 1;
            return;
        }
        if self.list.len() >= MAX_DISTINCT {
            return;
        }
        let (message, notes) = describe();
        let sites = sites.iter().map(|s| resolve(kernel, s)).collect();
        self.index.insert(key, self.list.len());
        self.list.push(Finding { kind, severity, message, block, sites, notes, hits: 1 });
    }

    /// Adds the findings of another block.
    pub(crate) fn merge(&mut self, other: Findings) {
        for finding in other.list {
            let pc = |i: usize| finding.sites.get(i).map_or(u32::MAX, |s: &Site| s.pc);
            let key = (finding.kind, finding.severity, pc(0), pc(1));
            match self.index.get(&key) {
                Some(&at) => self.list[at].hits += finding.hits,
                None if self.list.len() >= MAX_DISTINCT => {}
                None => {
                    self.index.insert(key, self.list.len());
                    self.list.push(finding);
                }
            }
        }
    }
}

fn resolve(kernel: &Kernel, raw: &RawSite) -> Site {
    let program = &kernel.program;
    let pc = raw.pc as usize;
    let origin = program.origins.get(pc).copied().unwrap_or_default();
    let text = program.texts.get(pc).and_then(|&t| program.text_table.get(t as usize));
    let paths = source_of(kernel, origin);
    let source = paths.iter().map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect();
    Site {
        pc: raw.pc,
        role: raw.role.to_owned(),
        instruction: text.cloned().unwrap_or_default(),
        ptx_line: origin.line,
        source,
        paths,
        warp: raw.warp,
        lane: raw.lane,
    }
}

/// The positions behind an instruction as `path:line`, the outermost caller first; none without line information.
pub(crate) fn source_of(kernel: &Kernel, origin: Origin) -> Vec<String> {
    let chain = kernel.program.sources.get(origin.source as usize);
    let frames = chain.into_iter().flat_map(|chain| chain.0.iter().rev());
    frames.map(|pos| format!("{}:{}", kernel.files.get(&pos.file).map_or("?", String::as_str), pos.line)).collect()
}
