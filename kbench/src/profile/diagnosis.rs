//! From figures to words: a table of rules, each a few conditions, what they mean, and what to try next. The thresholds
//! order suspects for a person; none of them is a gate. Leaves to others: whether the kernel may be merged.

use serde::{Deserialize, Serialize};

use super::{Figure, Reading};
use crate::gate::significant;

/// What holds a kernel back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// A pipe of the SM.
    Compute,
    /// Device memory or L2.
    Memory,
    /// Conflicts in shared memory.
    BankConflict,
    /// Too few warps, or too few CTAs, to have something to issue.
    Occupancy,
    /// Warps wait for results or for each other.
    Latency,
}

impl Bound {
    /// The words used in reports.
    pub fn words(self) -> &'static str {
        match self {
            Bound::Compute => "compute-bound",
            Bound::Memory => "memory-bound",
            Bound::BankConflict => "bank-conflict-bound",
            Bound::Occupancy => "occupancy-bound",
            Bound::Latency => "latency-bound",
        }
    }
}

/// What a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantity {
    /// A figure in its own unit.
    Of(Figure),
    /// One figure over another, in percent, and what that is.
    Share(&'static str, Figure, Figure),
    /// These stall reasons together, in percent of all, and what they are.
    Stalled(&'static str, &'static [&'static str]),
}

/// One condition of a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// The quantity is this or more.
    AtLeast(Quantity, f64),
    /// The quantity is less.
    Below(Quantity, f64),
}

/// All conditions together mean something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// What holds the kernel back.
    pub bound: Bound,
    /// Where, in a few words.
    pub what: &'static str,
    /// When.
    pub when: &'static [Condition],
    /// Why that is.
    pub because: &'static str,
    /// What to try, the likeliest first; toggles of the registry where there are such.
    pub next: &'static [&'static str],
}

use Condition::{AtLeast, Below};
use Quantity::{Of, Share, Stalled};

const CONFLICTS: Quantity =
    Share("wavefronts that bank conflicts add, %", Figure::BankConflicts, Figure::SharedWavefronts);
const SHARED_STALLS: Quantity = Stalled("stalls on shared memory, %", &["short_scoreboard", "mio_throttle"]);
const GLOBAL_STALLS: Quantity = Stalled("stalls on L1, L2 and device memory, %", &["long_scoreboard", "lg_throttle"]);
const BARRIER_STALLS: Quantity = Stalled("stalls at barriers, %", &["barrier", "membar", "sleeping"]);
const CHAIN_STALLS: Quantity = Stalled("stalls on the instruction before, %", &["wait", "branch_resolving"]);
const FETCH_STALLS: Quantity = Stalled("stalls on instruction fetch, %", &["no_instruction", "imc_miss"]);
const TENSOR_STALLS: Quantity = Stalled("stalls on the tensor cores, %", &["gmma", "math_pipe_throttle"]);

/// From the most specific to the most general; every rule that holds is reported, the first names the kernel.
pub const RULES: &[Rule] = &[
    Rule {
        bound: Bound::Compute,
        what: "tensor pipe",
        when: &[AtLeast(Of(Figure::TensorActive), 50.0)],
        because: "the tensor cores work half of the time or more, which is where an attention kernel should end up",
        next: &[
            "FP8 operands for both products, which halve the tensor work",
            "where there is a mask, skip tiles that are masked as a whole",
        ],
    },
    Rule {
        bound: Bound::Memory,
        what: "device memory",
        when: &[AtLeast(Of(Figure::DramThroughput), 50.0)],
        because: "device memory is busy half of the time or more, so every byte costs time",
        next: &[
            "more query rows per CTA, so that K and V are read less often (toggle `tile_q`)",
            "launch order in which CTAs of one head run together and find K and V in L2",
        ],
    },
    Rule {
        bound: Bound::Memory,
        what: "L2",
        when: &[AtLeast(Of(Figure::L2Throughput), 60.0)],
        because: "the same K and V tiles go through L2 for every tile of queries",
        next: &[
            "more query rows per CTA (toggle `tile_q`)",
            "clusters that share one copy of a K or V tile (multicast)",
        ],
    },
    Rule {
        bound: Bound::BankConflict,
        what: "shared memory",
        when: &[AtLeast(CONFLICTS, 15.0), AtLeast(SHARED_STALLS, 15.0)],
        because: "accesses of one warp meet in the same banks and are served one after another, and warps wait for it",
        next: &["the swizzled layout (toggle `swizzle`)", "pad rows by 16 bytes", "ldmatrix instead of scalar loads"],
    },
    Rule {
        bound: Bound::Compute,
        what: "XU pipe",
        when: &[AtLeast(Of(Figure::XuPipe), 50.0)],
        because: "exponentials and conversions go through one narrow pipe, and softmax needs one for each score",
        next: &[
            "exponentials by polynomial on the FMA pipe (toggle `exp`)",
            "convert e4m3 in pairs, or give e4m3 to the tensor cores as it is",
        ],
    },
    Rule {
        bound: Bound::Compute,
        what: "FMA or ALU pipe",
        when: &[AtLeast(Of(Figure::AluPipe), 60.0)],
        because: "integer and logic work, such as unpacking e4m3 and computing addresses, fills its pipe",
        next: &["unpack e4m3 by table or by packed conversion", "hoist address arithmetic out of the loop over keys"],
    },
    Rule {
        bound: Bound::Compute,
        what: "FMA or ALU pipe",
        when: &[AtLeast(Of(Figure::FmaPipe), 60.0)],
        because: "rescaling and softmax fill the FMA pipe",
        next: &["rescale only when the maximum moves", "packed half-precision arithmetic where the error allows it"],
    },
    Rule {
        bound: Bound::Compute,
        what: "issue slots",
        when: &[AtLeast(Of(Figure::IssueActive), 70.0)],
        because: "schedulers issue nearly all the time: the kernel runs too many instructions",
        next: &["wider loads and stores", "larger MMA shapes", "registers instead of a trip through shared memory"],
    },
    Rule {
        bound: Bound::Occupancy,
        what: "uneven end",
        when: &[Below(Of(Figure::SmActive), 75.0)],
        because: "SMs are idle for a part of the launch: the last CTAs end late, or there are fewer CTAs than SMs",
        next: &[
            "fewer query rows per CTA (toggle `tile_q`)",
            "persistent CTAs that take work from a queue (toggle `scheduler`)",
            "split the keys of a head over CTAs, where heads are few",
        ],
    },
    Rule {
        bound: Bound::Latency,
        what: "barriers",
        when: &[Below(Of(Figure::IssueActive), 50.0), AtLeast(BARRIER_STALLS, 25.0)],
        because: "warps stand at barriers until the slowest of the CTA arrives",
        next: &[
            "state of the softmax in registers of the warp that owns the row, so that fewer barriers are needed \
             (toggle `softmax`)",
            "specialised warps with named barriers or mbarriers (toggle `producer_warps`)",
        ],
    },
    Rule {
        bound: Bound::Latency,
        what: "L1, L2 and device memory",
        when: &[Below(Of(Figure::DramThroughput), 50.0), AtLeast(GLOBAL_STALLS, 25.0)],
        because: "loads are waited for although memory has room: too few of them are under way",
        next: &[
            "more stages of the K/V pipeline (toggle `stages`)",
            "producer warps that run ahead (toggle `producer_warps`)",
            "bulk copies, which need no registers",
        ],
    },
    Rule {
        bound: Bound::Latency,
        what: "shared memory",
        when: &[Below(Of(Figure::IssueActive), 60.0), AtLeast(SHARED_STALLS, 25.0)],
        because: "warps wait for shared memory, conflicts or not: scores or probabilities go there and back",
        next: &[
            "scores and probabilities in registers from product to product (toggle `softmax`)",
            "ldmatrix, and wider accesses",
        ],
    },
    Rule {
        bound: Bound::Latency,
        what: "tensor cores",
        when: &[Below(Of(Figure::TensorActive), 50.0), AtLeast(TENSOR_STALLS, 25.0)],
        because: "warps wait for products and have nothing else to do meanwhile",
        next: &["softmax of one tile during the product of the next", "two warp groups in turns"],
    },
    Rule {
        bound: Bound::Latency,
        what: "chains of instructions",
        when: &[Below(Of(Figure::IssueActive), 60.0), AtLeast(CHAIN_STALLS, 25.0)],
        because: "each instruction waits for the one before it: there is too little independent work in a warp",
        next: &["unroll over two tiles of keys", "more rows per warp", "two accumulators for sums and maxima"],
    },
    Rule {
        bound: Bound::Latency,
        what: "instruction fetch",
        when: &[AtLeast(FETCH_STALLS, 20.0)],
        because: "the loop does not fit the instruction cache, or a short launch runs from a cold one",
        next: &["less unrolling", "persistent CTAs, which fetch the code once"],
    },
    Rule {
        bound: Bound::Occupancy,
        what: "too few CTAs",
        when: &[Below(Of(Figure::Waves), 1.0), Below(Of(Figure::TensorActive), 50.0)],
        because: "all CTAs together do not fill the SMs once, so an SM has fewer warps than it could hold",
        next: &[
            "fewer query rows per CTA (toggle `tile_q`)",
            "split the keys of a head over CTAs and merge the parts",
            "a longer shape, to see what the loop can do",
        ],
    },
    Rule {
        bound: Bound::Occupancy,
        what: "too few warps",
        when: &[
            AtLeast(Of(Figure::Waves), 1.0),
            Below(Of(Figure::AchievedOccupancy), 30.0),
            Below(Of(Figure::IssueActive), 50.0),
            Below(Of(Figure::TensorActive), 50.0),
        ],
        because: "few warps are resident and none of them is ready most of the time",
        next: &[
            "fewer registers or less shared memory, so that one more CTA fits",
            "or the opposite: few warps with more independent work each, as the tensor cores like it",
        ],
    },
];

/// Asked when no other rule holds.
const NOTHING_ELSE: Rule = Rule {
    bound: Bound::Latency,
    what: "no single cause",
    when: &[
        Below(Of(Figure::IssueActive), 50.0),
        Below(Of(Figure::TensorActive), 50.0),
        Below(Of(Figure::DramThroughput), 50.0),
    ],
    because: "neither a pipe nor memory is busy: time goes into waiting",
    next: &["start from the largest stall reason", "longer rows, to see whether it is the launch and not the loop"],
};

/// One rule that holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What holds the kernel back.
    pub bound: Bound,
    /// Where.
    pub what: String,
    /// The conditions with what was measured.
    pub evidence: Vec<String>,
    /// Why that is.
    pub because: String,
    /// What to try.
    pub next: Vec<String>,
}

/// Everything that the rules say of a reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Rules that hold, in the order of the table.
    pub findings: Vec<Finding>,
    /// Rules that could not be asked, with the quantity that is missing.
    pub not_asked: Vec<String>,
}

impl Diagnosis {
    /// The toggles that the findings speak of, the likeliest first, each once.
    pub fn toggles(&self) -> Vec<String> {
        let mut toggles: Vec<String> = Vec::new();
        for toggle in self.findings.iter().flat_map(Finding::toggles) {
            if !toggles.iter().any(|t| t == toggle) {
                toggles.push(toggle.to_owned());
            }
        }
        toggles
    }

    /// One line: what holds the kernel back first, and where.
    pub fn headline(&self) -> String {
        match (self.findings.first(), self.not_asked.as_slice()) {
            (Some(first), _) => format!("{}, {}", first.bound.words(), first.what),
            (None, []) => "no rule holds: nothing stands out".to_owned(),
            (None, missing) => format!("no rule holds, and {} could not be asked", missing.len()),
        }
    }
}

impl Finding {
    /// The toggles that what to try speaks of, the likeliest first.
    pub fn toggles(&self) -> Vec<&str> {
        let named = self.next.iter().flat_map(|text| text.split("toggle `").skip(1));
        named.filter_map(|rest| rest.split('`').next()).collect()
    }
}

impl Quantity {
    fn words(self) -> String {
        match self {
            Of(figure) => figure.label().to_owned(),
            Share(words, ..) | Stalled(words, _) => words.to_owned(),
        }
    }

    /// Its value, or `None` where something of it was not measured.
    fn value(self, reading: &Reading) -> Option<f64> {
        match self {
            Of(figure) => reading.value(figure),
            // Without a wavefront there is no conflict: nothing over nothing is no share.
            Share(_, part, whole) => match (reading.value(part)?, reading.value(whole)?) {
                (_, 0.0) => Some(0.0),
                (part, whole) => Some(100.0 * part / whole),
            },
            Stalled(_, reasons) => reading.stall_share(reasons).map(|share| 100.0 * share),
        }
    }
}

impl Condition {
    fn quantity(self) -> Quantity {
        let (AtLeast(quantity, _) | Below(quantity, _)) = self;
        quantity
    }

    fn holds(self, value: f64) -> bool {
        match self {
            AtLeast(_, limit) => value >= limit,
            Below(_, limit) => value < limit,
        }
    }

    fn shown(self, value: f64) -> String {
        let (sign, limit) = match self {
            AtLeast(_, limit) => (">=", limit),
            Below(_, limit) => ("<", limit),
        };
        format!("{}: {} ({sign} {})", self.quantity().words(), significant(value), significant(limit))
    }
}

/// Asks every rule. A rule with a condition that cannot be asked and none that is false is named as such.
pub fn diagnose(reading: &Reading) -> Diagnosis {
    let mut diagnosis = Diagnosis { findings: Vec::new(), not_asked: Vec::new() };
    for rule in RULES.iter().chain([&NOTHING_ELSE]) {
        if rule == &NOTHING_ELSE && !diagnosis.findings.is_empty() {
            break;
        }
        let values: Vec<(Condition, Option<f64>)> =
            rule.when.iter().map(|c| (*c, c.quantity().value(reading))).collect();
        if values.iter().any(|(condition, value)| value.is_some_and(|v| !condition.holds(v))) {
            continue;
        }
        if let Some((condition, _)) = values.iter().find(|(_, value)| value.is_none()) {
            let missing = condition.quantity().words();
            diagnosis.not_asked.push(format!("{}, {}: {missing} was not measured", rule.bound.words(), rule.what));
            continue;
        }
        diagnosis.findings.push(Finding {
            bound: rule.bound,
            what: rule.what.to_owned(),
            evidence: values.iter().filter_map(|(c, v)| v.map(|v| c.shown(v))).collect(),
            because: rule.because.to_owned(),
            next: rule.next.iter().map(|text| (*text).to_owned()).collect(),
        });
    }
    diagnosis
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::profile::{Measured, Stall};

    /// A kernel that is busy enough for no rule to hold, with some figures and stall shares of its own.
    fn reading(figures: &[(Figure, f64)], stalls: &[(&str, f64)]) -> Reading {
        let usual = [
            (Figure::SmActive, 99.0),
            (Figure::TensorActive, 40.0),
            (Figure::XuPipe, 10.0),
            (Figure::FmaPipe, 10.0),
            (Figure::AluPipe, 10.0),
            (Figure::IssueActive, 65.0),
            (Figure::DramThroughput, 10.0),
            (Figure::L2Throughput, 10.0),
            (Figure::SharedWavefronts, 1000.0),
            (Figure::BankConflicts, 0.0),
            (Figure::AchievedOccupancy, 60.0),
            (Figure::Waves, 8.0),
        ];
        let measured = |value| Measured { value, metric: String::new(), raw: String::new(), raw_unit: String::new() };
        let figures: BTreeMap<Figure, Measured> =
            usual.iter().chain(figures).map(|(figure, value)| (*figure, measured(*value))).collect();
        let rest = ("selected", 1.0 - stalls.iter().map(|s| s.1).sum::<f64>());
        let stall = |(reason, share): &(&str, f64)| Stall {
            reason: (*reason).to_owned(),
            warps_per_issue: *share,
            share: *share,
        };
        Reading {
            kernel: String::new(),
            grid: String::new(),
            block: String::new(),
            figures,
            missing: BTreeMap::new(),
            stalls: stalls.iter().chain([&rest]).map(stall).collect(),
        }
    }

    #[test]
    fn each_rule_can_hold_and_says_what_was_measured() {
        use Figure::*;
        type Case<'a> = (&'a [(Figure, f64)], &'a [(&'a str, f64)], &'a str);
        let cases: &[Case] = &[
            (&[(TensorActive, 50.0)], &[], "compute-bound, tensor pipe"),
            (&[(DramThroughput, 50.0)], &[], "memory-bound, device memory"),
            (&[(L2Throughput, 60.0)], &[], "memory-bound, L2"),
            (&[(BankConflicts, 150.0)], &[("mio_throttle", 0.2)], "bank-conflict-bound, shared memory"),
            (&[(XuPipe, 50.0)], &[], "compute-bound, XU pipe"),
            (&[(AluPipe, 60.0)], &[], "compute-bound, FMA or ALU pipe"),
            (&[(FmaPipe, 60.0)], &[], "compute-bound, FMA or ALU pipe"),
            (&[(IssueActive, 70.0)], &[], "compute-bound, issue slots"),
            (&[(SmActive, 74.0)], &[], "occupancy-bound, uneven end"),
            (&[(IssueActive, 40.0)], &[("barrier", 0.25)], "latency-bound, barriers"),
            (&[(IssueActive, 40.0)], &[("long_scoreboard", 0.25)], "latency-bound, L1, L2 and device memory"),
            (&[(IssueActive, 40.0)], &[("short_scoreboard", 0.25)], "latency-bound, shared memory"),
            (&[], &[("gmma", 0.3)], "latency-bound, tensor cores"),
            (&[(IssueActive, 40.0)], &[("wait", 0.25)], "latency-bound, chains of instructions"),
            (&[], &[("no_instruction", 0.2)], "latency-bound, instruction fetch"),
            (&[(Waves, 0.5)], &[], "occupancy-bound, too few CTAs"),
            (&[(IssueActive, 40.0), (AchievedOccupancy, 20.0)], &[], "occupancy-bound, too few warps"),
            (&[(IssueActive, 40.0)], &[], "latency-bound, no single cause"),
        ];
        for (figures, stalls, headline) in cases {
            let diagnosis = diagnose(&reading(figures, stalls));
            assert_eq!(diagnosis.headline(), *headline, "{figures:?} {stalls:?}");
            let first = &diagnosis.findings[0];
            assert!(!first.next.is_empty() && first.evidence.iter().all(|line| line.contains(": ")), "{first:?}");
        }
        assert_eq!(diagnose(&reading(&[], &[])).headline(), "no rule holds: nothing stands out");
        let held: std::collections::BTreeSet<&str> = cases.iter().map(|(_, _, headline)| *headline).collect();
        for rule in RULES {
            let name = format!("{}, {}", rule.bound.words(), rule.what);
            assert!(held.contains(name.as_str()), "no case for {name}");
        }
    }

    #[test]
    fn advice_names_its_toggles_once_and_in_order() {
        let stalled = reading(&[(Figure::IssueActive, 40.0)], &[("barrier", 0.3), ("long_scoreboard", 0.3)]);
        assert_eq!(diagnose(&stalled).toggles(), ["softmax", "producer_warps", "stages"]);
        assert_eq!(diagnose(&reading(&[], &[])).toggles(), [""; 0]);
    }

    #[test]
    fn no_wavefront_is_no_conflict() {
        let idle = reading(&[(Figure::SharedWavefronts, 0.0)], &[("mio_throttle", 0.2)]);
        assert_eq!(diagnose(&idle).headline(), "no rule holds: nothing stands out");
    }
}
