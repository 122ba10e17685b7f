//! Deliberately broken kernels: each is one edit of a shipped source, must change the machine code, and must be rejected
//! on the emulator by the gate named for it. A mutant that applies and survives is a hole in the judge.

use std::path::Path;

use crate::common::{Dist, Ran};
use kbench::evidence::Builds;

/// One edit and what must come of it.
struct Mutant {
    /// What is broken.
    name: &'static str,
    /// The file under `sdpa-kernel/cuda/include/sdpa/`.
    file: &'static str,
    /// The text to replace; it must be there.
    from: &'static str,
    /// What replaces it.
    to: &'static str,
    /// The variant that must be rejected.
    variant: &'static str,
    /// The gate that must fail.
    gate: &'static str,
    /// What its line must say.
    says: &'static str,
}

const ERRORS: &str = "kernel error max";
const CHECKS: &str = "emulator's checks";

const fn mutant(
    name: &'static str,
    variant: &'static str,
    edit: [&'static str; 3],
    gate: &'static str,
    says: &'static str,
) -> Mutant {
    let [file, from, to] = edit;
    Mutant { name, file, from, to, variant, gate, says }
}

const MUTANTS: &[Mutant] = &[
    mutant(
        "wait one group too few",
        "stage2",
        ["loader.cuh", "wait_group<kStages - 1>", "wait_group<kStages>"],
        CHECKS,
        "in flight",
    ),
    mutant(
        "no wait at all",
        "stage1",
        ["loader.cuh", "    ptx::cp_async_wait_group<kStages - 1>();\n", ""],
        CHECKS,
        "in flight",
    ),
    mutant(
        "copy into the next slot",
        "stage2",
        [
            "loader.cuh",
            "const int slot = t % kStages;\n      const int rows",
            "const int slot = (t + 1) % kStages;\n      const int rows",
        ],
        CHECKS,
        "",
    ),
    mutant(
        "tail rows are read from memory",
        "stage1",
        ["loader.cuh", "row < rows ? kChunkBytes : 0", "kChunkBytes"],
        CHECKS,
        "out of bounds",
    ),
    mutant(
        "rows past the end are stored",
        "stage2",
        ["epilogue.cuh", "      if (row >= rows) break;\n", ""],
        "memory rules",
        "guard band",
    ),
    mutant(
        "no barrier before the half tile is read",
        "stage2",
        [
            "kernel_cta.cuh",
            "      __syncthreads();  // the half tile of t is complete",
            "      // the half tile of t is complete",
        ],
        CHECKS,
        "race",
    ),
    mutant(
        "Q is used before it is complete",
        "stage2",
        ["consumer.cuh", "    sync_consumers<Traits>();\n    scores.hold_query", "    scores.hold_query"],
        CHECKS,
        "",
    ),
    mutant(
        "O is stored before it is complete",
        "stage2",
        ["consumer.cuh", "    sync_consumers<Traits>();\n    EpiloguePart::store", "    EpiloguePart::store"],
        CHECKS,
        "",
    ),
    mutant(
        "O over tiles that are still read",
        "stage2",
        ["consumer.cuh", "    sync_consumers<Traits>();\n    pv.store", "    pv.store"],
        CHECKS,
        "race",
    ),
    mutant(
        "scores are read before they are complete",
        "stage2",
        [
            "consumer.cuh",
            "    scores.store(shared.scores, group_row, warp_in_group);\n    sync_row_group<kWarpsPerGroup>(group);",
            "    scores.store(shared.scores, group_row, warp_in_group);",
        ],
        CHECKS,
        "",
    ),
    mutant(
        "P is read before it is complete",
        "stage2",
        ["consumer.cuh", "alpha);\n    sync_row_group<kWarpsPerGroup>(group);", "alpha);"],
        CHECKS,
        "",
    ),
    mutant(
        "mask lets one key too many",
        "stage1",
        ["softmax.cuh", "if (key_of(i) >= limit)", "if (key_of(i) > limit)"],
        ERRORS,
        "",
    ),
    mutant(
        "second key of a pair is not masked",
        "stage1",
        ["softmax.cuh", "        if (key_of(i) + 1 >= limit) s[i].y = -INFINITY;\n", ""],
        ERRORS,
        "",
    ),
    mutant("masked keys have score 0", "stage2", ["softmax.cuh", "s[i].x = -INFINITY", "s[i].x = 0.0f"], ERRORS, ""),
    mutant(
        "causal row misses its own key",
        "stage2",
        ["mask.cuh", "work.causal_offset + 1", "work.causal_offset"],
        ERRORS,
        "",
    ),
    mutant(
        "causal limit is that of the first row",
        "stage2",
        ["mask.cuh", "first_row_limit + row_in_tile", "first_row_limit"],
        ERRORS,
        "",
    ),
    mutant("the sum is not rescaled", "stage2", ["softmax.cuh", "    sum *= alpha;\n", ""], ERRORS, ""),
    mutant(
        "O is not rescaled",
        "stage2",
        ["pv.cuh", "o[b].x[i] *= alpha.x[i]", "o[b].x[i] *= alpha.x[0] > 2.0f ? 0.0f : 1.0f"],
        ERRORS,
        "",
    ),
    mutant("the maximum is not kept", "stage1", ["softmax.cuh", "    maximum = raised;\n", ""], ERRORS, ""),
    mutant(
        "the maximum is that of one lane",
        "stage1",
        [
            "softmax.cuh",
            "raised = fmaxf(raised, __shfl_xor_sync(0xffffffffu, raised, distance));",
            "raised = fmaxf(raised, raised);",
        ],
        ERRORS,
        "",
    ),
    mutant(
        "the sum is that of one lane",
        "stage1",
        ["softmax.cuh", "total += __shfl_xor_sync(0xffffffffu, total, distance);", "total += total;"],
        ERRORS,
        "",
    ),
    mutant("log2(e) is missing", "stage2", ["softmax.cuh", " * kLog2E, kLeast", ", kLeast"], ERRORS, ""),
    mutant("K's scale is missing", "stage2", ["softmax.cuh", " * p.k_scale[head]", ""], ERRORS, ""),
    mutant("V's scale is missing", "stage2", ["epilogue.cuh", "v_scale / row_sum", "1.0f / row_sum"], ERRORS, ""),
    mutant("gain of 5%", "stage2", ["epilogue.cuh", "v_scale / row_sum", "1.05f * v_scale / row_sum"], ERRORS, ""),
    mutant(
        "rows without keys divide by zero",
        "stage2",
        ["epilogue.cuh", "row_sum > 0.0f ? v_scale / row_sum : 0.0f", "v_scale / (row_sum - row_sum)"],
        "finite output",
        "NaN",
    ),
    mutant(
        "bytes of a pair are swapped",
        "stage2",
        [
            "dequantise.cuh",
            "static_cast<uint16_t>(codes)),",
            "static_cast<uint16_t>(codes << 8 | (codes >> 8 & 0xff))),",
        ],
        ERRORS,
        "",
    ),
    mutant("second half of a word is the first", "stage0", ["dequantise.cuh", "codes >> 16", "codes"], ERRORS, ""),
    mutant(
        "only every other 16 columns are stored",
        "stage2",
        ["epilogue.cuh", "i += Traits::kConsumerThreads", "i += 2 * Traits::kConsumerThreads"],
        "finite output",
        "NaN",
    ),
];

const SUITE: &str = r#"
name = "mutant"
about = "one broken source"
control = "CONTROL"
arch = "sm_89"
seeds = [0]
check_shapes = ["ragged", "ragged-causal"]
time_shapes = ["ragged"]
[[candidates]]
variant = "VARIANT"
[resources]
max_registers = 255
max_shared_kib = 99
max_spill_bytes = 1000
[emulation]
shapes = ["ragged", "ragged-causal"]
max_ctas = 1000
"#;

/// Validates one variant; the control is another one, chosen so that it costs little.
fn validate(dist: &Dist, variant: &str) -> (Ran, Builds) {
    let control = if variant == "stage0" { "stage1" } else { "stage0" };
    dist.write("mutant.toml", &SUITE.replace("CONTROL", control).replace("VARIANT", variant));
    let before = dist.runs().len();
    let ran = dist.run(&["validate", "--suite", "mutant.toml", "--device", "emulator", "--peers", "none"]);
    let run = dist.runs().into_iter().nth(before).expect("a run directory");
    let builds = std::fs::read(Path::new(&run).join("builds.json")).expect("builds.json");
    (ran, serde_json::from_slice(&builds).expect("builds"))
}

fn code(builds: &Builds, variant: &str) -> Vec<String> {
    let record = builds.get(variant, "sm_89").expect("the mutant compiles");
    record.entries.iter().map(|e| e.code_sha256.clone()).collect()
}

#[test]
fn every_mutant_applies_and_is_rejected_by_the_gate_named_for_it() {
    let dist = Dist::emulating();
    let variants: std::collections::BTreeSet<&str> = MUTANTS.iter().map(|m| m.variant).collect();
    let healthy: std::collections::BTreeMap<&str, Vec<String>> = variants
        .into_iter()
        .map(|variant| {
            let (ran, builds) = validate(&dist, variant);
            ran.expect(3);
            (variant, code(&builds, variant))
        })
        .collect();
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        let file = format!("sdpa-kernel/cuda/include/sdpa/{}", mutant.file);
        let text = std::fs::read_to_string(dist.path(&file)).unwrap();
        dist.edit(&file, mutant.from, mutant.to);
        let (ran, builds) = validate(&dist, mutant.variant);
        dist.write(&file, &text);
        assert_ne!(code(&builds, mutant.variant), healthy[mutant.variant], "`{}` changes no machine code", mutant.name);
        let rejected = !ran.lines(&[mutant.variant, mutant.gate, mutant.says, "FAIL"]).is_empty();
        if ran.status != 1 || !rejected {
            let fails = ran.lines(&["FAIL"]).join("\n  ");
            survivors
                .push(format!("{} ({}), exit {}:\n  {fails}\n{}", mutant.name, mutant.variant, ran.status, ran.stderr));
        }
    }
    assert!(survivors.is_empty(), "{} of {} survive:\n{}", survivors.len(), MUTANTS.len(), survivors.join("\n"));
}
