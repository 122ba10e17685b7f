//! Lies about outputs: errors, memory, cases that were left out.

use super::super::{CANDIDATE, Lie, ask_for_replays, case_of, in_proportion, one_case, own_cases};
use crate::deferral::Deferral;
use crate::evidence::{Checks, WholeOutput};
use crate::gate::GateId;
use crate::operator::Distribution;

pub(in super::super) const LIES: &[Lie] = &[
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
                errors.whole = Some(WholeOutput { elements: 4096, block_rms: 1.0, worst_at: vec![] });
            });
        },
    },
    Lie {
        name: "an error of two hundredths on usual inputs, in one case",
        gate: GateId::KernelErrorMax,
        tell: |_, e| case_of(e, Distribution::Normal, |errors| errors.kernel_max = 0.02),
    },
    Lie {
        name: "a small error in every element",
        gate: GateId::KernelErrorMean,
        tell: |s, e| {
            s.correctness.kernel_mean = Some(0.003);
            case_of(e, Distribution::Normal, |errors| (errors.kernel_mean, errors.kernel_max) = (0.004, 0.009));
        },
    },
    Lie {
        name: "a small error in every element on unusual inputs",
        gate: GateId::StressErrorMean,
        tell: |s, e| {
            (s.correctness.kernel_mean, s.correctness.stress_max) = (Some(0.003), Some(0.06));
            case_of(e, Distribution::Outliers, |errors| (errors.kernel_mean, errors.kernel_max) = (0.004, 0.009));
        },
    },
    Lie {
        name: "an infinity where an outlier is, and nowhere else",
        gate: GateId::FiniteOutput,
        tell: |_, e| case_of(e, Distribution::Outliers, |errors| errors.inf = 1),
    },
    Lie {
        name: "far from the originals on average",
        gate: GateId::EndToEndMean,
        tell: |_, e| case_of(e, Distribution::Normal, |errors| errors.end_to_end_mean = 0.03),
    },
    Lie {
        name: "two elements of a hundred far from the originals",
        gate: GateId::BadElements,
        tell: |_, e| case_of(e, Distribution::Normal, |errors| errors.bad_share = 0.02),
    },
    Lie {
        name: "wrong where an outlier is, and nowhere else",
        gate: GateId::StressErrorRelative,
        tell: |_, e| case_of(e, Distribution::Outliers, |errors| errors.kernel_max = 0.05),
    },
    Lie {
        name: "one row of V in another's place",
        gate: GateId::ExactError,
        tell: |_, e| case_of(e, Distribution::Permutation, |errors| errors.kernel_max = 0.0095),
    },
    Lie {
        name: "not the control's bits, where those are asked for",
        gate: GateId::DifferenceFromControl,
        tell: |s, e| {
            s.max_difference_from_control = Some(0.0);
            case_of(e, Distribution::Normal, |errors| errors.from_control_max = Some(1e-4));
        },
    },
    Lie {
        name: "a difference from the control that was not taken",
        gate: GateId::DifferenceFromControl,
        tell: |s, e| {
            s.max_difference_from_control = Some(0.1);
            case_of(e, Distribution::Normal, |errors| errors.from_control_max = None);
        },
    },
    Lie {
        name: "nothing checked, and times",
        gate: GateId::ErrorsAgainstFloat64,
        tell: |_, e| {
            e.checks = Checks { deferred: Some(Deferral::new("not asked", "ask")), ..Checks::default() };
        },
    },
    Lie {
        name: "a tenth of the replays that were asked for",
        gate: GateId::Deterministic,
        tell: |s, e| {
            ask_for_replays(s);
            let replays = Some(crate::evidence::Replays { count: 100, different: 0 });
            own_cases(&mut e.checks).for_each(|c| c.launch.replays = replays);
        },
    },
];
