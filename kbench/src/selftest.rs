//! The judge against its known lies: evidence that passes everything, broken in one way at a time, must be caught by the
//! gate that stands against that lie; honest evidence must get the verdict that it deserves. Pure. Leaves to others:
//! kernels that lie (they are run, not judged from made-up evidence) and files that were edited (`verify`).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::decision::{Verdict, decide};
use crate::deferral::Deferral;
use crate::evidence::{Checks, Mode, Samples};
use crate::gate::{Gate, GateId, State};
use crate::judge::{Evidence, judge, testing};
use crate::subject::{Arm, Subject};
use crate::suite::{MachineCode, Suite};

/// The candidate of the evidence that everything starts from.
const CANDIDATE: &str = "new";

/// One way to deceive, and the gate that must not pass then.
struct Lie {
    name: &'static str,
    gate: GateId,
    tell: fn(&mut Suite, &mut Evidence),
}

/// One honest state of affairs, and what it deserves.
struct Honest {
    name: &'static str,
    verdict: Verdict,
    set: fn(&mut Suite, &mut Evidence),
}

/// How one lie or one honest control came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// What was told.
    pub name: String,
    /// Whether it was a lie.
    pub lie: bool,
    /// The gate that must catch it, or the verdict that it deserves.
    pub expected: String,
    /// That gate as it came out, or the verdict.
    pub found: String,
    /// Whether the judge was right.
    pub right: bool,
}

/// Runs every lie and every honest control.
pub fn trials() -> Vec<Trial> {
    let honest = HONEST.iter().map(|honest| {
        let found = judged(honest.set).1;
        Trial {
            name: honest.name.to_owned(),
            lie: false,
            expected: honest.verdict.word().to_owned(),
            found: found.map_or("no verdict", Verdict::word).to_owned(),
            right: found == Some(honest.verdict),
        }
    });
    let lies = LIES.iter().map(|lie| {
        let (gates, verdict) = judged(lie.tell);
        let named = gates.iter().filter(|g| g.id == lie.gate && (g.variant == CANDIDATE || g.variant == "peers"));
        let open: Vec<&Gate> = named.filter(|g| g.state != State::Pass).collect();
        let found = match open.first() {
            Some(gate) => format!("{} {}", gate.state, gate.measured).trim_end().to_owned(),
            None => "PASS".to_owned(),
        };
        Trial {
            name: lie.name.to_owned(),
            lie: true,
            expected: open.first().map_or_else(|| lie.gate.template().to_owned(), |gate| gate.figure.clone()),
            found,
            // A gate on the run itself keeps the exit status from 0, not the candidate from its verdict.
            right: !open.is_empty() && (verdict != Some(Verdict::Merge) || open.iter().all(|g| g.variant != CANDIDATE)),
        }
    });
    honest.chain(lies).collect()
}

/// A suite, and evidence of a candidate that is right and misses the suite's margin: it has gates in both states.
pub fn honest() -> (Suite, Evidence) {
    (testing::suite(), Evidence { samples: testing::samples(100.0, 97.0), ..testing::evidence() })
}

fn judged(change: fn(&mut Suite, &mut Evidence)) -> (Vec<Gate>, Option<Verdict>) {
    let (mut suite, mut evidence) = (testing::suite(), testing::evidence());
    change(&mut suite, &mut evidence);
    let gates = judge(&suite, &evidence);
    let decision = decide(&suite, &gates, &evidence.checks, &evidence.samples);
    let verdict = decision.candidates.iter().find(|c| c.variant == CANDIDATE).map(|c| c.verdict);
    (gates, verdict)
}

/// The candidate's blocks.
fn own_blocks(samples: &mut Samples) -> impl Iterator<Item = &mut crate::evidence::Block> {
    samples.blocks.iter_mut().filter(|b| b.subject.is_plain(CANDIDATE))
}

/// The candidate's cases.
fn own_cases(checks: &mut Checks) -> impl Iterator<Item = &mut crate::evidence::CheckedCase> {
    checks.cases.iter_mut().filter(|c| c.variant == CANDIDATE)
}

/// On the suite's one timed shape.
fn ask_for_replays(suite: &mut Suite) {
    suite.replays = Some(crate::suite::ReplayLimit { count: 1000, shapes: vec!["mission".into()] });
}

/// Errors are held against those of somebody else's kernel.
fn compare_with_a_rival(suite: &mut Suite) {
    suite.peers = Some(crate::suite::PeerLimit {
        max_ratio: 1.0,
        from_originals: vec![],
        baseline: "torch/default".into(),
        also: vec!["cudnn".into()],
        no_worse_than: Some("cudnn/fp8".into()),
    });
}

/// Changes the errors of the candidate's last case: one bad case among many good ones.
fn one_case(evidence: &mut Evidence, change: fn(&mut crate::evidence::Errors)) {
    if let Some(errors) = own_cases(&mut evidence.checks).filter_map(|c| c.errors.as_mut()).last() {
        change(errors);
    }
}

/// The same of the last case on usual inputs, with limits in proportion to the output.
fn in_proportion(suite: &mut Suite, evidence: &mut Evidence, change: fn(&mut crate::evidence::Errors)) {
    suite.correctness.proportion = Some(Default::default());
    let usual = own_cases(&mut evidence.checks).filter(|c| c.launch.problem.distribution.is_normal());
    usual.filter_map(|c| c.errors.as_mut()).last().into_iter().for_each(change);
}

fn own_build(evidence: &mut Evidence) -> Option<&mut crate::evidence::BuildRecord> {
    evidence.builds.records.iter_mut().find(|b| b.variant == CANDIDATE)
}

/// As if nvdisasm had listed one kind of product in every entry.
fn made_of(build: &mut crate::evidence::BuildRecord, product: &str) {
    let entry = |e: &crate::evidence::EntryBuild| (e.launch.entry.clone(), BTreeMap::from([(product.to_owned(), 160)]));
    build.instructions = Some(build.entries.iter().map(entry).collect());
}

const HONEST: &[Honest] = &[
    Honest { name: "right, and 20% faster", verdict: Verdict::Merge, set: |_, _| {} },
    Honest {
        name: "right, and 3% faster where 10% is asked",
        verdict: Verdict::ValidNegative,
        set: |_, e| e.samples = testing::samples(100.0, 97.0),
    },
    Honest {
        name: "right, and slower",
        verdict: Verdict::ValidNegative,
        set: |_, e| e.samples = testing::samples(100.0, 130.0),
    },
    Honest {
        name: "right, on a machine without a GPU",
        verdict: Verdict::Defer,
        set: |_, e| e.samples = Samples { deferred: Some(Deferral::new("no GPU", "run on one")), ..Samples::default() },
    },
    Honest {
        name: "right, on a chip that has another product than the one that the suite is about",
        verdict: Verdict::Defer,
        set: |suite, e| {
            suite.machine_code = Some(MachineCode { require: vec!["QMMA".into()], forbid: vec![] });
            let other = own_build(e).map(|build| {
                made_of(build, "QMMA");
                let mut other = build.clone();
                other.arch = "sm_90".into();
                made_of(&mut other, "HMMA");
                other
            });
            e.builds.records.extend(other);
        },
    },
    Honest {
        name: "wrong, and fast",
        verdict: Verdict::Fix,
        set: |_, e| one_case(e, |errors| errors.kernel_max = 2.4),
    },
];

const LIES: &[Lie] = &[
    Lie {
        name: "the control under another name",
        gate: GateId::OwnMachineCode,
        tell: |_, e| {
            let control: Vec<String> = e.builds.records[0].entries.iter().map(|x| x.code_sha256.clone()).collect();
            if let Some(build) = own_build(e) {
                build.entries.iter_mut().zip(control).for_each(|(entry, code)| entry.code_sha256 = code);
            }
        },
    },
    Lie {
        name: "one entry function of the control under another name",
        gate: GateId::OwnMachineCode,
        tell: |_, e| {
            let control = e.builds.records[0].entries[1].code_sha256.clone();
            if let Some(build) = own_build(e) {
                build.entries[1].code_sha256 = control;
            }
        },
    },
    Lie {
        name: "an FP8 kernel that multiplies halves",
        gate: GateId::MachineCode,
        tell: |suite, e| {
            suite.machine_code = Some(MachineCode { require: vec!["QMMA".into()], forbid: vec![] });
            if let Some(build) = own_build(e) {
                made_of(build, "HMMA");
            }
        },
    },
    Lie {
        name: "a toggle that the sources ignore",
        gate: GateId::ToggleEcho,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.toggle_mismatches.push("stages: asked 3, compiled 2".into());
            }
        },
    },
    Lie {
        name: "results remembered in a device variable",
        gate: GateId::NoMemoryBetweenLaunches,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.global_bytes = 1 << 20;
            }
        },
    },
    Lie {
        name: "results remembered in the workspace",
        gate: GateId::NoMemoryBetweenLaunches,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.entries[0].launch.workspace_bytes = 1 << 20;
            }
        },
    },
    Lie {
        name: "spills in the entry that is not timed",
        gate: GateId::Spills,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.entries[1].resources.spill_load_bytes = 8;
            }
        },
    },
    Lie {
        name: "registers over the limit",
        gate: GateId::Registers,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.entries[0].resources.registers = 121;
            }
        },
    },
    Lie {
        name: "shared memory over the limit, all of it dynamic",
        gate: GateId::SharedMemory,
        tell: |_, e| {
            if let Some(build) = own_build(e) {
                build.entries[0].launch.dynamic_smem_bytes = 64 * 1024;
            }
        },
    },
    Lie {
        name: "NaN in one case, with small errors elsewhere",
        gate: GateId::FiniteOutput,
        tell: |_, e| one_case(e, |errors| errors.nan = 1),
    },
    Lie {
        name: "NaN in one case, counted as error 0",
        gate: GateId::KernelErrorMax,
        tell: |_, e| {
            let normal = |c: &&mut crate::evidence::CheckedCase| {
                c.launch.problem.distribution == crate::operator::Distribution::Normal
            };
            if let Some(errors) = own_cases(&mut e.checks).filter(normal).find_map(|c| c.errors.as_mut()) {
                (errors.nan, errors.kernel_max) = (7, 0.0);
            }
        },
    },
    Lie {
        name: "an error that is itself NaN",
        gate: GateId::KernelErrorMax,
        tell: |_, e| own_cases(&mut e.checks).filter_map(|c| c.errors.as_mut()).for_each(|x| x.kernel_max = f64::NAN),
    },
    Lie { name: "an infinity", gate: GateId::FiniteOutput, tell: |_, e| one_case(e, |errors| errors.inf = 1) },
    Lie {
        name: "one case left out",
        gate: GateId::EveryCaseRan,
        tell: |_, e| {
            let last = e.checks.cases.iter().rposition(|c| c.variant == CANDIDATE);
            last.map(|at| e.checks.cases.remove(at));
        },
    },
    Lie {
        name: "one seed on every shape, reported as all",
        gate: GateId::EveryCaseRan,
        tell: |_, e| e.checks.cases.retain(|c| c.variant != CANDIDATE || c.launch.problem.seed == 0),
    },
    Lie {
        name: "a launch that failed, its output taken from the one before",
        gate: GateId::EveryCaseRan,
        tell: |_, e| {
            if let Some(case) = own_cases(&mut e.checks).last() {
                case.launch.failure = Some("invalid configuration argument".into());
            }
        },
    },
    Lie {
        name: "another output at the second launch",
        gate: GateId::MemoryRules,
        tell: |_, e| {
            if let Some(case) = own_cases(&mut e.checks).last() {
                case.launch.repeat_equal = false;
            }
        },
    },
    Lie {
        name: "an input that was overwritten",
        gate: GateId::MemoryRules,
        tell: |_, e| {
            if let Some(case) = own_cases(&mut e.checks).last() {
                case.launch.inputs_unchanged = false;
            }
        },
    },
    Lie {
        name: "a write past the output",
        gate: GateId::MemoryRules,
        tell: |_, e| {
            if let Some(case) = own_cases(&mut e.checks).last() {
                case.launch.guards_intact = false;
            }
        },
    },
    Lie {
        name: "right on average, wrong in one element",
        gate: GateId::EndToEndMax,
        tell: |_, e| {
            own_cases(&mut e.checks).filter_map(|c| c.errors.as_mut()).take(1).for_each(|x| x.end_to_end_max = 0.9);
        },
    },
    Lie {
        name: "wrong only on unusual inputs",
        gate: GateId::StressErrorRelative,
        tell: |_, e| one_case(e, |errors| errors.kernel_max = 0.5),
    },
    Lie {
        name: "right in the emulator, with a race reported there",
        gate: GateId::EmulatorChecks,
        tell: |_, e| {
            e.checks.device = Some(crate::evidence::EMULATOR.into());
            if let Some(case) = own_cases(&mut e.checks).last() {
                case.launch.findings.push("ERROR: race on shared memory".into());
            }
        },
    },
    Lie {
        name: "replays that were asked for and not made",
        gate: GateId::Deterministic,
        tell: |s, _| ask_for_replays(s),
    },
    Lie {
        name: "one replay of a thousand with other bytes",
        gate: GateId::Deterministic,
        tell: |s, e| {
            ask_for_replays(s);
            let replays = Some(crate::evidence::Replays { count: 1000, different: 1 });
            own_cases(&mut e.checks).for_each(|c| c.launch.replays = replays);
        },
    },
    Lie {
        name: "an error of a tenth, small beside an outlier",
        gate: GateId::StressErrorMax,
        tell: |s, e| {
            s.correctness.stress_max = Some(0.06);
            one_case(e, |errors| (errors.kernel_max, errors.reference_amax) = (0.1, 80.0));
        },
    },
    Lie {
        name: "three percent more of everything, on a shape whose outputs are small",
        gate: GateId::Slope,
        tell: |s, e| in_proportion(s, e, |errors| errors.proportion.iter_mut().for_each(|p| p.slope = 0.03)),
    },
    Lie {
        name: "a bias of a fifth of a small output",
        gate: GateId::RowError,
        tell: |s, e| in_proportion(s, e, |errors| errors.proportion.iter_mut().for_each(|p| p.row_rms = 0.2)),
    },
    Lie {
        name: "ten times the control's error, far below every absolute limit",
        gate: GateId::MeanOverControl,
        tell: |s, e| in_proportion(s, e, |errors| errors.kernel_mean *= 10.0),
    },
    Lie {
        name: "a tile that was not written, where no row of it met float64",
        gate: GateId::WholeOutput,
        tell: |s, e| {
            in_proportion(s, e, |errors| {
                errors.sampled_rows = Some(vec![[0, 0]]);
                errors.whole = Some(crate::evidence::WholeOutput { elements: 4096, block_rms: 1.0, worst_at: vec![] });
            });
        },
    },
    Lie {
        name: "a rival whose error was never measured",
        gate: GateId::PeerErrorMean,
        tell: |s, _| compare_with_a_rival(s),
    },
    Lie {
        name: "a rival's mean, and one element twice as far off as its worst",
        gate: GateId::PeerErrorMax,
        tell: |s, e| {
            compare_with_a_rival(s);
            let own = testing::errors();
            e.peers.backends.push(crate::evidence::PeerBackend {
                shape: "mission".into(),
                subject: "cudnn/fp8".into(),
                kernels: vec![],
                resolved: None,
                unavailable: None,
                errors: Some(crate::evidence::Errors { end_to_end_max: own.end_to_end_max / 2.0, ..own }),
            });
        },
    },
    Lie {
        name: "emulated results and a GPU's times",
        gate: GateId::SeenOnAGpu,
        tell: |_, e| e.checks.device = Some(crate::evidence::EMULATOR.into()),
    },
    Lie {
        name: "another output while it was timed",
        gate: GateId::TimedOutputs,
        tell: |_, e| {
            if let Some(block) = own_blocks(&mut e.samples).last() {
                block.outputs_verified = false;
            }
        },
    },
    Lie {
        name: "a time that the tensor cores cannot reach",
        gate: GateId::PhysicallyPossible,
        tell: |_, e| e.samples = testing::samples(100.0, 0.01),
    },
    Lie { name: "times without a device", gate: GateId::PhysicallyPossible, tell: |_, e| e.samples.device = None },
    Lie {
        name: "no kernel times, only call times",
        gate: GateId::TimedEverywhere,
        tell: |_, e| e.samples.blocks.retain(|b| !b.subject.is_plain(CANDIDATE) || b.mode == Mode::Call),
    },
    Lie {
        name: "timing that broke off",
        gate: GateId::TimedEverywhere,
        tell: |_, e| {
            e.samples.failures.push(crate::evidence::TimingFailure {
                shape: "mission".into(),
                subject: CANDIDATE.into(),
                why: "an illegal memory access was encountered".into(),
            });
        },
    },
    Lie {
        name: "three lucky rounds",
        gate: GateId::LatencyReduction,
        tell: |_, e| e.samples.blocks.retain(|b| b.round < 3),
    },
    Lie {
        name: "the candidate's slow rounds dropped as throttled",
        gate: GateId::LatencyReduction,
        tell: |_, e| {
            let slow = own_blocks(&mut e.samples).filter(|b| b.round % 2 == 1);
            slow.for_each(|b| b.before.throttle.push("thermal slowdown".into()));
        },
    },
    Lie {
        name: "the candidate in its own rounds, on a cooler chip",
        gate: GateId::LatencyReduction,
        tell: |_, e| own_blocks(&mut e.samples).for_each(|b| b.round += 1000),
    },
    Lie {
        name: "a control that differs from itself",
        gate: GateId::LatencyReduction,
        tell: |_, e| {
            let again = Subject::again("old");
            for block in e.samples.blocks.iter_mut().filter(|b| b.subject == again) {
                block.us.iter_mut().for_each(|us| *us *= 1.3);
            }
        },
    },
    Lie {
        name: "no second measurement of the control",
        gate: GateId::LatencyReduction,
        tell: |_, e| e.samples.blocks.retain(|b| b.subject.arm != Arm::Again),
    },
    Lie {
        name: "noise that straddles the threshold",
        gate: GateId::LatencyReduction,
        tell: |_, e| {
            for block in own_blocks(&mut e.samples) {
                let factor = if block.round % 2 == 0 { 0.8 } else { 1.2 };
                block.us.iter_mut().for_each(|us| *us = 90.0 * factor);
            }
        },
    },
    Lie {
        name: "times of zero",
        gate: GateId::LatencyReduction,
        tell: |_, e| own_blocks(&mut e.samples).for_each(|b| b.us.fill(0.0)),
    },
    Lie {
        name: "times that are NaN",
        gate: GateId::LatencyReduction,
        tell: |_, e| own_blocks(&mut e.samples).for_each(|b| b.us.fill(f64::NAN)),
    },
    Lie {
        name: "part of the suite",
        gate: GateId::WholeSuite,
        tell: |s, _| s.narrowed.push(Deferral::new("only small was run", "run without --shapes")),
    },
    Lie {
        name: "peers that were asked for and did not run",
        gate: GateId::PeersMeasured,
        tell: |_, e| e.peers.wanted = true,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lie_is_caught_and_every_honest_control_gets_its_verdict() {
        let wrong: Vec<Trial> = trials().into_iter().filter(|t| !t.right).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_judge_that_passes_everything_would_not_pass_this() {
        // The first trial is the untouched evidence: against it every lie's gate passes, so the lies are what changes it.
        let (gates, verdict) = judged(|_, _| {});
        assert_eq!(verdict, Some(Verdict::Merge));
        for lie in LIES {
            let open = gates.iter().any(|g| g.id == lie.gate && g.variant == CANDIDATE && g.state != State::Pass);
            assert!(!open, "{}: `{}` is open without the lie", lie.name, lie.gate.name());
        }
    }
}
