//! Lies about memory: races that a GPU hides, checks that were not made, and data that is kept where no caller would find it.

use super::super::{CANDIDATE, Lie, hint};
use crate::deferral::Deferral;
use crate::evidence::{CheckedCase, LaunchOutcome};
use crate::gate::GateId;
use crate::judge::Evidence;

/// The candidate's emulated launches beside the GPU's.
fn own_looks(evidence: &mut Evidence) -> impl Iterator<Item = &mut CheckedCase> {
    let emulated = evidence.memory.iter_mut().flat_map(|memory| &mut memory.emulated);
    emulated.filter(|case| case.variant == CANDIDATE)
}

pub(in super::super) const LIES: &[Lie] = &[
    Lie {
        name: "right on a GPU, with a race that only the emulator sees",
        gate: GateId::MemoryChecks,
        tell: |_, e| {
            if let Some(case) = own_looks(e).last() {
                case.launch.findings.push("ERROR race (write then read), write a.cu:1, read a.cu:2".into());
            }
        },
    },
    Lie { name: "memory checks that were not made", gate: GateId::MemoryChecks, tell: |_, e| e.memory = None },
    Lie {
        name: "memory checks of the control alone",
        gate: GateId::MemoryChecks,
        tell: |_, e| e.memory.iter_mut().for_each(|m| m.emulated.retain(|case| case.variant != CANDIDATE)),
    },
    Lie {
        name: "memory checks of the shapes that have no race",
        gate: GateId::MemoryChecks,
        tell: |_, e| e.memory.iter_mut().for_each(|m| drop(m.emulated.pop())),
    },
    Lie {
        name: "a kernel that the emulator cannot run, and no tool that can",
        gate: GateId::MemoryChecks,
        tell: |_, e| {
            let why = || Deferral::new("the emulator cannot execute it", "run compute-sanitizer");
            own_looks(e).for_each(|case| {
                case.launch = LaunchOutcome::deferred(&case.launch.problem.clone(), why());
            });
        },
    },
    Lie {
        name: "data kept in the L2 from one timed launch to the next",
        gate: GateId::CacheHints,
        tell: |_, e| hint(e, "createpolicy.fractional.L2::evict_last.b64"),
    },
];
