//! Every gate that there is: the name that tools know it by, what it is about, its figure in words, and one line on what
//! it asks. Leaves to others: how each is judged (`judge`).

use serde::{Deserialize, Serialize};

use super::Kind;

macro_rules! gates {
    ($($id:ident = $name:literal, $kind:ident, $figure:literal, $about:literal;)*) => {
        /// Which gate. The names are stable: they stand in the files of a run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum GateId {
            $(#[doc = $about] #[serde(rename = $name)] $id,)*
        }

        impl GateId {
            /// All of them, in the order in which they are asked.
            pub const ALL: &[GateId] = &[$(GateId::$id),*];

            /// Its name in files.
            pub fn name(self) -> &'static str {
                match self { $(GateId::$id => $name,)* }
            }

            /// What it is about.
            pub fn kind(self) -> Kind {
                match self { $(GateId::$id => Kind::$kind,)* }
            }

            /// What it asks, in one line.
            pub fn about(self) -> &'static str {
                match self { $(GateId::$id => $about,)* }
            }

            /// Its figure in words; `{}` stands for the shape or the peer, where it is asked once for each.
            pub fn template(self) -> &'static str {
                match self { $(GateId::$id => $figure,)* }
            }
        }
    };
}

gates! {
    Compiles = "compiles", Build, "compiles", "the compilers accept it";
    ConsistentEvidence = "consistent-evidence", Identity, "consistent evidence",
        "what is recorded does not contradict itself, and a run can have it";
    ToggleEcho = "toggle-echo", Identity, "toggle echo", "the module says that it was compiled with what was asked for";
    OwnMachineCode = "own-machine-code", Identity, "own machine code", "no entry function is the control's";
    NoMemoryBetweenLaunches = "no-memory-between-launches", Identity, "no memory between launches",
        "the module has no room to keep results in";
    EntryFunctions = "entry-functions", Resources, "entry functions", "the entry functions are there";
    Registers = "registers", Resources, "registers", "registers of a thread";
    SharedMemory = "shared-memory", Resources, "shared memory", "static and dynamic shared memory of a CTA";
    FitsTheChip = "fits-the-chip", Resources, "fits the chip", "shared memory is no more than the chip has";
    Spills = "spills", Resources, "spills", "bytes that are spilled to local memory and read back";
    Stack = "stack", Resources, "stack", "local memory of a thread: arrays indexed at run time, spills and calls";
    WgmmaPipelining = "wgmma-pipelining", Resources, "wgmma pipelining",
        "the assembler left the overlap in asynchronous matrix products";
    MachineCode = "machine-code", Resources, "machine code", "it is made of the instructions that the suite requires";
    MachineCodeAsRun = "machine-code-as-run", Resources, "machine code, as run",
        "so is the build for the device that ran it";
    ErrorsAgainstFloat64 = "errors-against-float64", Correctness, "errors against float64", "anything was checked";
    EveryCaseRan = "every-case-ran", Correctness, "every case ran", "every case of the plan has an output";
    SeenOnAGpu = "seen-on-a-gpu", Correctness, "seen on a GPU", "it was run on silicon";
    EmulatorChecks = "emulator-checks", Correctness, "emulator's checks",
        "the emulator finds no race, no wrong address, no wrong barrier, nothing uninitialised";
    Deterministic = "deterministic", Correctness, "deterministic", "every replay leaves the bytes of the first launch";
    FiniteOutput = "finite-output", Correctness, "finite output", "no NaN and no Inf";
    MemoryRules = "memory-rules", Correctness, "memory rules",
        "inputs and guard bands are untouched, and a second launch gives the same bytes";
    KernelErrorMax = "kernel-error-max", Correctness, "kernel error max", "largest error on the inputs as given";
    KernelErrorMean = "kernel-error-mean", Correctness, "kernel error mean", "mean error on the inputs as given";
    EndToEndMean = "end-to-end-mean", Correctness, "end-to-end mean", "mean error against the originals";
    BadElements = "bad-elements", Correctness, "share of bad elements", "elements that are far from the originals' result";
    EndToEndMax = "end-to-end-max", Correctness, "end-to-end max", "largest error against the originals";
    StressErrorRelative = "stress-error-relative", Correctness, "kernel error max, relative, other distributions",
        "largest error on unusual inputs, relative to the output";
    StressErrorMax = "stress-error-max", Correctness, "kernel error max, other distributions",
        "largest error on unusual inputs";
    ExactError = "exact-error", Correctness, "kernel error max, relative, exact inputs",
        "largest error on inputs whose output is nearly exact, relative to it";
    StressErrorMean = "stress-error-mean", Correctness, "kernel error mean, other distributions",
        "mean error on unusual inputs";
    Slope = "slope", Correctness, "gain or loss", "the output is the result and no multiple of it";
    RowError = "row-error", Correctness, "relative error of a row",
        "root mean square of a row's errors over that of the row, within what the format of P explains";
    MeanOverControl = "mean-over-control", Correctness, "mean error over the control's",
        "with P in the control's format, mean error is not many times the control's";
    WholeOutput = "whole-output", Correctness, "whole output beside the control's",
        "where only some rows are compared with float64, every element is near the control's";
    DifferenceFromControl = "difference-from-control", Correctness, "difference from control",
        "largest difference from the control's output";
    OutputWrong = "output-wrong", Correctness, "elements of {} unlike the reference's",
        "integers and bools are the reference's, floats are finite where it is";
    OutputError = "output-error", Correctness, "{} error", "an error that the gate file limits";
    OutputSlope = "output-slope", Correctness, "{} gain or loss", "the output is the reference and no multiple of it";
    OutputBound = "output-bound", Correctness, "{} error over the output's magnitude",
        "the largest error, where nothing is declared, within what type and sums explain";
    ErrorOverControl = "error-over-control", Correctness, "{} error over the control's",
        "where nothing is declared, no more than half again the control's error";
    CheckFigure = "check-figure", Correctness, "{} by check", "a figure of the gate file's checker";
    MemoryChecks = "memory-checks", Correctness, "memory checks",
        "no race, no wrong address, nothing uninitialised, by the emulator or compute-sanitizer";
    PeerErrorMean = "peer-error-mean", Correctness, "end-to-end mean against {}", "mean error is no worse than a peer's";
    PeerErrorMax = "peer-error-max", Correctness, "end-to-end max against {}", "largest error is no worse than a peer's";
    PeerErrorRms = "peer-error-rms", Correctness, "end-to-end rms against {}",
        "root mean square of errors, in every timed distribution, within a share of a peer's";
    TimedEverywhere = "timed-everywhere", Correctness, "timed on every shape", "it was timed on every shape that is timed";
    TimedOutputs = "timed-outputs", Correctness, "timed outputs", "every timed launch gives the verified output";
    OwnClock = "own-clock", Correctness, "own clock",
        "a process that times itself leaves little of the judge's clock unexplained";
    ConsistentBlocks = "consistent-blocks", Correctness, "consistent blocks",
        "what was timed is what the suite asks for, each block once";
    WholeSuite = "whole-suite", Correctness, "whole suite", "nothing of the suite was left out";
    LatencyReduction = "latency-reduction", Performance, "latency reduction on {}",
        "less time than the control, or than whom the suite names";
    Slowdown = "slowdown", Performance, "slowdown on {}", "no more time than the suite's regressions allow";
    CacheHints = "cache-hints", Performance, "cache hints",
        "what it asks to stay in the L2 does not help where the L2 is cold";
    P50 = "p50", Performance, "p50 on {}", "median time on the device that the suite names";
    FasterThanPeers = "faster-than-peers", Performance, "faster than every peer on {}", "less time than every peer";
    FromOriginals = "from-originals", Performance, "from FP16, quantising, on {}",
        "less time than the baseline peer, its own quantising included";
    GateOnTime = "gate-on-time", Performance, "gate on time", "the suite asks anything of its time";
    PhysicallyPossible = "physically-possible", Performance, "physically possible",
        "no less time than the chip's peak allows";
    PeersMeasured = "peers-measured", Peers, "measured in this run", "some peer was timed beside it";
    PeerMeasured = "peer-measured", Peers, "{} measured in this run", "this peer was timed beside it";
    Profile = "profile", Profile, "profile on {}", "the tensor cores are busy, or device memory is not";
}

impl GateId {
    /// Its figure in words, of a shape or a peer where it is asked once for each.
    pub fn figure(self, of: &str) -> String {
        self.template().replacen("{}", of, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_one_word_each_and_nothing_is_called_like_another() {
        let names: BTreeSet<&str> = GateId::ALL.iter().map(|id| id.name()).collect();
        let templates: BTreeSet<&str> = GateId::ALL.iter().map(|id| id.template()).collect();
        assert_eq!((names.len(), templates.len()), (GateId::ALL.len(), GateId::ALL.len()));
        for id in GateId::ALL {
            let name = id.name();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
            assert_eq!(serde_json::to_string(id).unwrap(), format!("\"{name}\""));
            assert!(!id.about().is_empty() && !id.about().ends_with('.'), "{name}");
        }
        assert_eq!(GateId::P50.figure("mission"), "p50 on mission");
    }
}
