//! Mutants of the Hopper flagship, whose instructions the emulator does not execute. They are compiled with all other tests'
//! tools and judged on a GPU alone: `cargo test -p xtask --test e2e -- --ignored on_a_gpu`, which names each that survives.

use super::{ERRORS, FINITE, ROWS, SLOPE, Validated};
use crate::common::Dist;
use kbench::gate::{Gate, GateId, State};

/// One edit of a file under `sdpa-kernel/cuda/hopper/`, and the gate that must fail.
pub struct OnAGpu {
    name: &'static str,
    edit: [&'static str; 3],
    gate: GateId,
}

/// Of each family that the emulator sees on the ladder.
pub const MUTANTS: &[OnAGpu] = &[
    OnAGpu {
        name: "the last row of every head is not written",
        edit: ["epilogue.cuh", "if (row < params_.seq_q) {", "if (row < params_.seq_q - 1) {"],
        gate: FINITE,
    },
    OnAGpu {
        name: "the last tile of a grid is not written",
        edit: [
            "scheduler.cuh",
            "if (index >= params_.heads * row_tiles_) return",
            "if (index >= params_.heads * row_tiles_ - 1) return",
        ],
        gate: FINITE,
    },
    OnAGpu {
        name: "the last tile of a large grid is not written",
        edit: [
            "scheduler.cuh",
            "if (index >= params_.heads * row_tiles_) return",
            "if (index >= min(params_.heads * row_tiles_, 1000)) return",
        ],
        gate: GateId::WholeOutput,
    },
    OnAGpu {
        name: "gain of 3%",
        edit: ["epilogue.cuh", "__fdividef(value_scale, row_sum)", "1.03f * __fdividef(value_scale, row_sum)"],
        gate: SLOPE,
    },
    OnAGpu {
        name: "a bias below every absolute limit",
        edit: [
            "epilogue.cuh",
            "pack_half2(fmaf(first[0], factor, low.x),",
            "pack_half2(fmaf(first[0], factor, low.x) + 0.009f,",
        ],
        gate: ROWS,
    },
    OnAGpu {
        name: "one key too many is seen",
        edit: ["scores_f32.cuh", "if (column >= limit", "if (column > limit"],
        gate: ERRORS,
    },
    OnAGpu {
        name: "the maximum is never below zero",
        edit: ["scores_f32.cuh", "kLowestScore = -1e8f", "kLowestScore = 0.0f"],
        gate: GateId::StressErrorRelative,
    },
    OnAGpu {
        name: "causal rows miss their own key",
        edit: ["scheduler.cuh", "row + params.causal_offset + 1", "row + params.causal_offset"],
        gate: ERRORS,
    },
    OnAGpu {
        name: "the maximum of exact rows is that of the first tile",
        edit: [
            "scores_f32.cuh",
            "row_max_.value[h] = row_max;",
            "if (row_max_.value[h] == kLowestScore) row_max_.value[h] = row_max;",
        ],
        gate: GateId::StressErrorRelative,
    },
];

const SUITE: &str = r#"name = "mutant"
about = "one broken source"
control = "stage2"
arch = "sm_90a"
seeds = [0]
check_shapes = ["ragged", "ragged-causal", "long-large"]
stress_shapes = ["ragged"]
time_shapes = ["ragged"]
[[candidates]]
variant = "hopper"
[large]
shapes = ["long-large"]
reference_rows = 1024
rounds = 8
[resources]
max_registers = 255
max_shared_kib = 227
max_spill_bytes = 0
"#;

#[test]
#[ignore = "needs a Hopper GPU"]
fn mutants_of_the_flagship_are_rejected_on_a_gpu() {
    let dist = Dist::emulating();
    let judged = || Validated::on_the_gpu(&dist, SUITE);
    let healthy: Vec<Gate> = judged().read("gates.json");
    let failed = |gates: &[Gate]| -> Vec<GateId> {
        let failed = gates.iter().filter(|gate| gate.variant == "hopper" && gate.state == State::Fail);
        failed.map(|gate| gate.id).collect()
    };
    assert_eq!(failed(&healthy), [], "what is not broken passes");
    let mut survivors = Vec::new();
    for OnAGpu { name, edit: [file, from, to], gate } in MUTANTS {
        let file = format!("sdpa-kernel/cuda/hopper/{file}");
        let text = std::fs::read_to_string(dist.path(&file)).unwrap();
        dist.edit(&file, from, to);
        let failed = failed(&judged().read::<Vec<Gate>>("gates.json"));
        dist.write(&file, &text);
        if !failed.contains(gate) {
            survivors.push(format!("{name}: only {failed:?}"));
        }
    }
    assert!(survivors.is_empty(), "{}", survivors.join("\n"));
}

#[test]
fn every_edit_finds_its_text() {
    let dist = Dist::new(crate::common::NO_GPU);
    for OnAGpu { name, edit: [file, from, to], .. } in MUTANTS {
        let text = std::fs::read_to_string(dist.path(&format!("sdpa-kernel/cuda/hopper/{file}"))).unwrap();
        assert!(text.contains(from) && from != to, "{name}: `{from}` is not in {file}");
    }
}
