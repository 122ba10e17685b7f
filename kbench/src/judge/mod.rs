//! From evidence to gates. Every gate is a pure function of the suite and of files in the run directory, so that a run
//! can be judged again without a GPU. Leaves to others: what the gates add up to (`decision`).

mod blocks;
mod consistency;
mod correctness;
mod declared;
mod hints;
mod launches;
mod memory;
mod own_clock;
mod pairs;
mod peers;
mod performance;
mod profile;
mod proportion;
mod resources;
mod settled;
mod timing;

pub use consistency::{edited_errors, judge_consistency};
pub use correctness::{correctness_pattern, emulated_problems, judge_checks, problems, timed_problems};
pub use pairs::{Timed, paired_rounds, ratio};
pub use peers::judge_peer_errors;
pub(crate) use performance::settings_of;
pub use performance::{Comparison, compare, compare_everywhere, judge_samples, needs_more_rounds, open_distributions};
pub use profile::judge_profile;
pub use resources::{chip_shared_bytes, judge_builds};

use crate::ceilings::Ceilings;
use crate::deferral::Deferral;
use crate::evidence::{Builds, Checks, Peers, Samples};
use crate::gate::{Draft, Gate, GateId, State};
use crate::memory::Memory;
use crate::profile::Profile;
use crate::suite::Suite;

/// Everything that is judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// `builds.json`.
    pub builds: Builds,
    /// `check.json`.
    pub checks: Checks,
    /// `samples.json`.
    pub samples: Samples,
    /// `peers.json`.
    pub peers: Peers,
    /// `profile.json`, where a profile was asked for.
    pub profile: Option<Profile>,
    /// `memory.json`, where a run on a GPU looked for what that hides.
    pub memory: Option<Memory>,
    /// `ceilings.json`: drawn, and read by no gate.
    pub ceilings: Option<Ceilings>,
}

/// All gates of a run, in the order of the decision tree.
pub fn judge(suite: &Suite, evidence: &Evidence) -> Vec<Gate> {
    let mut gates = judge_consistency(suite, evidence);
    gates.extend(judge_builds(suite, &evidence.builds));
    gates.extend(judge_checks(suite, &evidence.builds, &evidence.checks));
    gates.extend(memory::judge_memory(suite, &evidence.builds, &evidence.checks, evidence.memory.as_ref()));
    gates.extend(judge_peer_errors(suite, &evidence.checks, &evidence.peers));
    let timed = judge_samples(suite, &evidence.builds, &evidence.samples, &evidence.peers);
    gates.extend(timed.into_iter().map(|gate| excused(gate, evidence)));
    gates.extend(hints::judge_hints(suite, &evidence.builds, &evidence.samples));
    gates.extend(judge_profile(suite, evidence));
    gates.extend(narrowed_gates(suite));
    gates.sort_by_key(|gate| gate.kind);
    gates
}

/// What could be launched on no case was timed nowhere for the same reason, which is no fault of its own.
fn excused(mut gate: Gate, evidence: &Evidence) -> Gate {
    let mut own = evidence.checks.cases.iter().filter(|case| case.variant == gate.variant).peekable();
    let why = own.peek().and_then(|case| case.launch.deferred.clone());
    if let (GateId::TimedEverywhere, State::Fail, Some(why)) = (gate.id, &gate.state, why)
        && own.all(|case| case.launch.deferred.is_some())
    {
        gate.state = State::Deferred(why);
    }
    gate
}

/// Part of a suite cannot carry a merge: what was left out is a deferral of every candidate.
fn narrowed_gates(suite: &Suite) -> impl Iterator<Item = Gate> + '_ {
    suite.candidates.iter().flat_map(|candidate| {
        suite.narrowed.iter().map(|deferral| {
            let draft = Draft::new(&candidate.variant, GateId::WholeSuite);
            draft.deferred("every shape and seed of the suite", deferral.clone())
        })
    })
}

/// Why nothing but its builds is judged of a variant: it was not tried, or does not claim to run here.
pub(crate) fn left_out(suite: &Suite, builds: &Builds, variant: &str) -> Option<Deferral> {
    let unclaimed = || builds.unclaimed(variant)?.unclaimed.clone();
    not_tried(suite, builds, variant).map(Deferral::because).or_else(unclaimed)
}

/// Why a candidate is not tried, if the suite's condition on another candidate says so.
fn not_tried(suite: &Suite, builds: &Builds, variant: &str) -> Option<String> {
    let candidate = suite.candidates.iter().find(|c| c.variant == variant)?;
    let other = candidate.unless_spills.as_deref()?;
    let spills = builds.get(other, &suite.arch)?.spill_bytes();
    (spills > 0).then(|| format!("`{other}` spills {spills} bytes, so `{variant}` is not tried"))
}

pub(crate) mod testing {
    //! Evidence that passes everything, for the self-test and the tests to break one thing of.

    use std::collections::BTreeMap;

    use super::Evidence;
    use crate::evidence::*;
    use crate::memory::Memory;
    use crate::operator::attention::RAGGED_MASKED;
    use crate::operator::{Distribution, Operator, Problem};
    use crate::resources::EntryResources;
    use crate::subject::Subject;
    use crate::suite::{Candidate, PerformanceLimit, ResourceLimits, Suite, Timing};

    pub fn suite() -> Suite {
        Suite {
            format: crate::format::GATE_FILE,
            name: "t".into(),
            about: "a test".into(),
            operator: Operator::Attention,
            control: "old".into(),
            candidates: vec![Candidate::of("new")],
            baselines: vec![],
            variants: Default::default(),
            arch: "sm_89".into(),
            seeds: vec![0, 1],
            fresh_seed: None,
            shapes: Default::default(),
            check_shapes: vec!["mission".into(), RAGGED_MASKED.into(), "wide".into()],
            stress_shapes: vec!["small".into()],
            distributions: vec![],
            odd: None,
            time_shapes: vec!["mission".into()],
            time_distributions: vec![Distribution::Normal],
            large: None,
            replays: None,
            resources: ResourceLimits {
                max_registers: Some(120),
                max_shared_kib: Some(48),
                max_spill_bytes: Some(0),
                ..ResourceLimits::default()
            },
            correctness: Default::default(),
            max_difference_from_control: None,
            emulation: None,
            performance: vec![PerformanceLimit {
                shape: "mission".into(),
                min_latency_reduction: 0.1,
                candidate: None,
                against: None,
            }],
            regressions: None,
            tune: None,
            absolute: vec![],
            profile: vec![],
            peers: None,
            aspiration: None,
            timing: Timing { sittings: 16, rounds: 16, max_rounds: 48, ..Timing::default() },
            narrowed: vec![],
            machine_code: None,
            fleet: None,
        }
    }

    fn entry(d: u32, code: &str) -> EntryBuild {
        EntryBuild {
            resources: EntryResources {
                entry: format!("sdpa_fwd_d{d}"),
                arch: "sm_89".into(),
                registers: 96,
                static_smem_bytes: 1024,
                spill_store_bytes: 0,
                spill_load_bytes: 0,
                stack_frame_bytes: 0,
                cumulative_stack_bytes: None,
                barriers: Some(1),
                constant_bytes: BTreeMap::from([(0, 448)]),
                local_bytes: 0,
                bindings: BTreeMap::new(),
                callees: vec![],
            },
            launch: LaunchRecord {
                entry: format!("sdpa_fwd_d{d}"),
                config_symbol: format!("sdpa_config_d{d}"),
                serves: BTreeMap::from([("D".to_owned(), i64::from(d))]),
                operands: Operands::RowMajor,
                tile_q: 32,
                threads: 128,
                dynamic_smem_bytes: 32 * 1024,
                workspace_bytes: 0,
            },
            code_sha256: format!("{code}{d}"),
            gated: d == 64,
        }
    }

    pub fn build(variant: &str) -> BuildRecord {
        BuildRecord {
            variant: variant.into(),
            arch: "sm_89".into(),
            key: variant.into(),
            toggles: BTreeMap::from([("p_format".into(), 0)]),
            nvcc: "13.0.88".into(),
            ptxas: "13.0.88".into(),
            plan_sha256: String::new(),
            adds_floats_atomically: false,
            taken_off: vec![],
            language: crate::variant::Language::Cuda,
            ptx_sha256: String::new(),
            cubin_sha256: String::new(),
            global_bytes: 0,
            constant_bytes: 0,
            entries: vec![entry(64, variant), entry(128, variant)],
            warnings: vec![],
            toggle_mismatches: vec![],
            cache_hints: BTreeMap::new(),
            copies_in_bulk: false,
            instructions: None,
        }
    }

    pub fn errors() -> Errors {
        Errors {
            elements: 2 * 8 * 512 * 64,
            nan: 0,
            inf: 0,
            kernel_max: 0.002,
            kernel_mean: 0.0001,
            worst_at: vec![0, 0, 2, 3],
            floor_max: 0.08,
            end_to_end_max: 0.081,
            end_to_end_mean: 0.003,
            end_to_end_rms: Some(0.05),
            bad_share: 0.0001,
            reference_amax: 2.0,
            from_control_max: Some(0.0),
            outputs: Vec::new(),
            figures: BTreeMap::new(),
            sampled_rows: None,
            floor: None,
            proportion: Some(Proportion { rows: 16, slope: 0.0001, row_rms: 0.0005, magnitude: 0.05 }),
            whole: None,
        }
    }

    pub fn device() -> Device {
        Device {
            name: "NVIDIA L4".into(),
            uuid: "GPU-0".into(),
            capability: (8, 9),
            sm_count: 58,
            max_sm_clock_mhz: 2040,
            memory_bytes: 24 << 30,
            memory_bytes_per_us: None,
            l2_bytes: 48 << 20,
            max_shared_bytes: 101_376,
            cuda_driver: "13.0".into(),
            nvml: None,
        }
    }

    /// One block of constant samples, in a sitting of its own; blocks of different rounds and subjects scatter by up to 0.3%.
    pub fn block(subject: impl Into<Subject>, round: u32, mode: Mode, us: f64) -> Block {
        let subject = subject.into();
        let letters: u32 = subject.to_string().bytes().map(u32::from).sum();
        let jitter = 1.0 + 0.001 * (f64::from((round * letters) % 7) - 3.0);
        Block {
            shape: "mission".into(),
            distribution: Distribution::Normal,
            sitting: round,
            cache: Cache::Hot,
            subject,
            mode,
            round,
            slot: 0,
            us: vec![us * jitter; 5],
            before: GpuState::default(),
            after: GpuState::default(),
            outer: None,
            outputs_verified: true,
        }
    }

    pub fn samples(control_us: f64, candidate_us: f64) -> Samples {
        let mut blocks = Vec::new();
        for round in 0..16 {
            for mode in Mode::ALL {
                blocks.push(block("old", round, mode, control_us));
                blocks.push(block(Subject::again("old"), round, mode, control_us));
                blocks.push(block("new", round, mode, candidate_us));
            }
        }
        Samples {
            device: Some(device()),
            deferred: None,
            cache_mode: "hot-l2".into(),
            input_sets: 4,
            seed: 0,
            gpus: Default::default(),
            host_code: Default::default(),
            blocks,
            failures: vec![],
        }
    }

    /// A case that is right in every way.
    fn case(variant: &str, problem: Problem) -> CheckedCase {
        CheckedCase {
            variant: variant.to_owned(),
            launch: LaunchOutcome {
                problem,
                failure: None,
                output_sha256: Some("00".into()),
                repeat_equal: true,
                inputs_unchanged: true,
                guards_intact: true,
                sampled_ctas: None,
                findings: vec![],
                entry: None,
                kernels: vec![],
                replays: None,
                deferred: None,
            },
            errors: Some(errors()),
        }
    }

    /// Every case of `old` and `new` on the problems of a suite, all well.
    pub fn checks(suite: &Suite) -> Checks {
        // Every element of a shape is compared.
        let compared = |mut case: CheckedCase| {
            let outputs = Operator::Attention.outputs(&case.launch.problem.shape).unwrap_or_default();
            if let Some(errors) = &mut case.errors {
                errors.elements = outputs.iter().map(|(_, extents)| extents.iter().product::<u64>()).sum();
                let extents = outputs.iter().flat_map(|(_, extents)| extents);
                errors.worst_at.iter_mut().zip(extents).for_each(|(at, extent)| *at = (*at).min(*extent as u32 - 1));
            }
            case
        };
        let cases = |variant: &'static str| super::problems(suite).into_iter().map(move |p| case(variant, p));
        Checks {
            device: Some("gpu: NVIDIA L4".into()),
            deferred: None,
            memory_apart: true,
            row_seed: None,
            cases: cases("old").chain(cases("new")).map(compared).collect(),
        }
    }

    pub fn evidence() -> Evidence {
        Evidence {
            builds: Builds { records: vec![build("old"), build("new")], failures: vec![], ..Builds::default() },
            checks: checks(&suite()),
            samples: samples(100.0, 80.0),
            peers: Peers::default(),
            profile: None,
            memory: Some(memory(&suite())),
            ceilings: None,
        }
    }

    /// Every variant looked at on everything that the suite wants, and nothing found.
    pub fn memory(suite: &Suite) -> Memory {
        let variants = suite.variant_names();
        let emulated = variants.flat_map(|v| crate::memory::problems(suite).into_iter().map(move |p| case(v, p)));
        let emulated = emulated.map(|case| CheckedCase { errors: None, ..case }).collect();
        Memory { emulated, ..Memory::default() }
    }
}
