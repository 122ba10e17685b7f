//! Deliberately broken kernels: each is one edit of a shipped source, must change the machine code, and must be rejected
//! on the emulator by the gate named for it. A mutant that applies and survives is a hole in the judge.

use std::path::Path;

use crate::common::{Dist, Ran};
use kbench::evidence::Builds;

/// One edit and what must come of it.
struct Mutant {
    /// What is broken.
    name: &'static str,
    /// The file under `sdpa-kernel/cuda/ladder/`.
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
    mutant("Q is used before it is complete", "stage2", ["query.cuh", "  sync_consumers<Traits>();\n", ""], CHECKS, ""),
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
            "    scores.store(shared.softmax.scores, group_row, warp_in_group);\n    sync_row_group<kWarpsPerGroup>(group);",
            "    scores.store(shared.softmax.scores, group_row, warp_in_group);",
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
    mutant(
        "consumers do not wait for a full slot",
        "ws-p1",
        ["slots.cuh", "{ wait(shared.full[tile % kSlots], tile / kSlots); }", "{}"],
        CHECKS,
        "race (write then read",
    ),
    mutant(
        "producers do not wait for an empty slot",
        "ws-p2",
        ["slots.cuh", "    if (tile >= kSlots) wait(shared.empty[tile % kSlots], tile / kSlots - 1);\n", ""],
        CHECKS,
        "race",
    ),
    mutant(
        "the phase bit never flips",
        "ws-p1",
        ["slots.cuh", "wait(shared.full[tile % kSlots], tile / kSlots)", "wait(shared.full[tile % kSlots], 0)"],
        CHECKS,
        "race",
    ),
    mutant(
        "full expects one arrival too many",
        "ws-p1",
        [
            "slots.cuh",
            "mbarrier_init(shared.full[slot], producer_threads)",
            "mbarrier_init(shared.full[slot], producer_threads + 1)",
        ],
        CHECKS,
        "no progress",
    ),
    mutant(
        "empty expects the arrivals of one warp too few",
        "ws-p2",
        [
            "slots.cuh",
            "mbarrier_init(shared.empty[slot], consumer_threads)",
            "mbarrier_init(shared.empty[slot], consumer_threads - 32)",
        ],
        CHECKS,
        "race",
    ),
    mutant(
        "consumers never release a slot",
        "ws-p1",
        ["kernel_ws.cuh", "      slots.consumer_release(first_tile + t);\n", ""],
        CHECKS,
        "no progress",
    ),
    mutant(
        "consumers release a slot twice",
        "ws-p1",
        [
            "kernel_ws.cuh",
            "      slots.consumer_release(first_tile + t);\n",
            "      slots.consumer_release(first_tile + t);\n      slots.consumer_release(first_tile + t);\n",
        ],
        CHECKS,
        "",
    ),
    mutant(
        "a slot is released before P V",
        "ws-p2",
        [
            "kernel_ws.cuh",
            "      computing.accumulate(shared.mainloop.tiles[(first_tile + t) % kStages].v);\n      slots.consumer_release(first_tile + t);\n",
            "      slots.consumer_release(first_tile + t);\n      computing.accumulate(shared.mainloop.tiles[(first_tile + t) % kStages].v);\n",
        ],
        CHECKS,
        "race",
    ),
    mutant(
        "a slot is handed over before it is filled",
        "ws-p2",
        [
            "kernel_ws.cuh",
            "      loading.fill(shared.mainloop.tiles[tile % kStages], t);\n      slots.producer_commit(tile);\n",
            "      slots.producer_commit(tile);\n      loading.fill(shared.mainloop.tiles[tile % kStages], t);\n",
        ],
        CHECKS,
        "race",
    ),
    mutant(
        "the next slot is handed over",
        "ws-p1",
        [
            "slots.cuh",
            "mbarrier_arrive(shared.full[tile % kSlots])",
            "mbarrier_arrive(shared.full[(tile + 1) % kSlots])",
        ],
        CHECKS,
        "",
    ),
    mutant(
        "slots are used before they are made",
        "ws-p1",
        ["kernel_ws.cuh", "      __syncthreads();  // the slots' barriers", "      // the slots' barriers"],
        CHECKS,
        "",
    ),
    mutant(
        "tiles are not numbered through",
        "ws-persistent",
        ["kernel_ws.cuh", "      first_tile += work.key_tiles;\n", ""],
        CHECKS,
        "",
    ),
    mutant(
        "producers are counted at the consumers' barrier",
        "ws-p1",
        [
            "named_barriers.cuh",
            "ptx::bar_sync(kBarrierConsumers, Traits::kConsumerThreads)",
            "ptx::bar_sync(kBarrierConsumers, Traits::kThreads)",
        ],
        CHECKS,
        "no progress",
    ),
    mutant(
        "row groups share a barrier",
        "ws-p1",
        [
            "named_barriers.cuh",
            "ptx::bar_sync(kBarrierRowGroup + group, kWarps * 32)",
            "ptx::bar_sync(kBarrierRowGroup, kWarps * 32)",
        ],
        CHECKS,
        "",
    ),
    mutant(
        "a barrier that half a warp reaches",
        "stage2",
        [
            "kernel_cta.cuh",
            "      __syncthreads();  // the half tile of t is complete",
            "      if (threadIdx.x % 32 < 16) __syncthreads();  // the half tile of t is complete",
        ],
        CHECKS,
        "",
    ),
    mutant(
        "one warp leaves before the barriers",
        "stage2",
        ["kernel_cta.cuh", "    loading.start();\n", "    if (threadIdx.x >= 96) return;\n    loading.start();\n"],
        CHECKS,
        "",
    ),
    mutant(
        "a shuffle that names half of its lanes",
        "stage1",
        [
            "softmax.cuh",
            "total += __shfl_xor_sync(0xffffffffu, total, distance);",
            "total += __shfl_xor_sync(0x0000ffffu, total, distance);",
        ],
        CHECKS,
        "warp-wide instruction",
    ),
    mutant(
        "a copy from a crooked address",
        "stage2",
        [
            "loader.cuh",
            "this->k + tile + chunk * kChunkBytes, bytes",
            "this->k + tile + chunk * kChunkBytes + 4, bytes",
        ],
        CHECKS,
        "misaligned",
    ),
    mutant(
        "P goes over scores that are still read",
        "stage3a",
        ["softmax.cuh", "    if constexpr (Storage::kAliased) __syncwarp();", "    //"],
        CHECKS,
        "race",
    ),
    mutant(
        "V is loaded without transposition",
        "stage3b",
        [
            "operands.cuh",
            "ptx::ldmatrix_x4_trans(r, tile.at(key + lane % 16, d + 16 * half",
            "ptx::ldmatrix_x4(r, tile.at(key + lane % 16, d + 16 * half",
        ],
        ERRORS,
        "",
    ),
    mutant(
        "K's fragments are swapped",
        "stage3b",
        ["operands.cuh", "b[step][i / 2][i % 2] = r[i]", "b[step][i % 2][i / 2] = r[i]"],
        ERRORS,
        "",
    ),
    mutant(
        "the order of the contraction differs between Q and K",
        "stage4",
        [
            "operands.cuh",
            "      a[0][i] = low(r[i]);\n      a[1][i] = high(r[i]);",
            "      a[0][i] = high(r[i]);\n      a[1][i] = low(r[i]);",
        ],
        ERRORS,
        "",
    ),
    mutant(
        "the exponent is cut too late",
        "fast-exp",
        ["exp2.cuh", "kLeast = -126.0f", "kLeast = -200.0f"],
        ERRORS,
        "",
    ),
];

/// Edits that change the machine code and nothing that a caller can see, and why: no check may reject them.
const EQUIVALENT: &[(&str, &str, [&str; 3])] = &[
    (
        "every tile is masked: a tile that no limit crosses has nothing to mask, so only time is lost",
        "stage2",
        ["softmax.cuh", "if (mask.crosses(first_key)) {", "{"],
    ),
    (
        "P is scaled by another power of two: the factor cancels between O and the sum",
        "stage2",
        ["softmax.cuh", "kBits = 8.0f", "kBits = 6.0f"],
    ),
    (
        "every copy is waited for: the next tile's too, which is earlier than it has to be",
        "stage1",
        ["loader.cuh", "wait_group<kStages - 1>", "wait_group<0>"],
    ),
    (
        "a barrier more: it orders what is ordered already",
        "stage2",
        [
            "kernel_cta.cuh",
            "      computing.multiply_scores(shared.q, tile.k);",
            "      __syncthreads();\n      computing.multiply_scores(shared.q, tile.k);",
        ],
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
    let ran = dist.run(&["validate", "--suite", "mutant.toml", "--device", "emulator", "--peers", "none", "--full"]);
    let run = dist.runs().into_iter().nth(before).expect("a run directory");
    let builds = std::fs::read(Path::new(&run).join("builds.json")).expect("builds.json");
    (ran, serde_json::from_slice(&builds).expect("builds"))
}

fn code(builds: &Builds, variant: &str) -> Vec<String> {
    let record = builds.get(variant, "sm_89").expect("the mutant compiles");
    record.entries.iter().map(|e| e.code_sha256.clone()).collect()
}

/// Hashes of the PTX and of the machine code of a variant's entry functions.
fn hashes(builds: &Builds, variant: &str) -> (String, Vec<String>) {
    let record = builds.get(variant, "sm_89").expect("the mutant compiles");
    (record.ptx_sha256.clone(), code(builds, variant))
}

#[test]
fn equivalent_mutants_apply_and_pass() {
    let dist = Dist::emulating();
    for (why, variant, [file, from, to]) in EQUIVALENT {
        let (_, healthy) = validate(&dist, variant);
        let file = format!("sdpa-kernel/cuda/ladder/{file}");
        let text = std::fs::read_to_string(dist.path(&file)).unwrap();
        dist.edit(&file, from, to);
        let (ran, builds) = validate(&dist, variant);
        dist.write(&file, &text);
        assert_ne!(code(&builds, variant), code(&healthy, variant), "{why}: no machine code changes");
        ran.expect(3);
    }
}

/// Mutants of what PTX asks and ptxas throws away for today's chips: the member mask of a shuffle.
const SAME_MACHINE_CODE: [&str; 1] = ["a shuffle that names half of its lanes"];

#[test]
fn every_mutant_applies_and_is_rejected_by_the_gate_named_for_it() {
    let dist = Dist::emulating();
    let variants: std::collections::BTreeSet<&str> = MUTANTS.iter().map(|m| m.variant).collect();
    let healthy: std::collections::BTreeMap<&str, (String, Vec<String>)> = variants
        .into_iter()
        .map(|variant| {
            let (ran, builds) = validate(&dist, variant);
            ran.expect(3);
            (variant, hashes(&builds, variant))
        })
        .collect();
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        let file = format!("sdpa-kernel/cuda/ladder/{}", mutant.file);
        let text = std::fs::read_to_string(dist.path(&file)).unwrap();
        dist.edit(&file, mutant.from, mutant.to);
        let (ran, builds) = validate(&dist, mutant.variant);
        dist.write(&file, &text);
        let (ptx, code) = hashes(&builds, mutant.variant);
        let (healthy_ptx, healthy_code) = &healthy[mutant.variant];
        assert_ne!(ptx, *healthy_ptx, "`{}` changes no PTX", mutant.name);
        if (code == *healthy_code) != SAME_MACHINE_CODE.contains(&mutant.name) {
            survivors.push(format!("{}: machine code changed: {}", mutant.name, code != *healthy_code));
        }
        let lines = ran.lines(&[mutant.variant, mutant.gate, mutant.says, "FAIL"]);
        // What the emulator's checks find, they find in a line of the source.
        let place = if mutant.gate == CHECKS { ".cuh:" } else { "" };
        let rejected = lines.iter().any(|line| line.contains(place));
        if ran.status != 1 || !rejected {
            let fails = ran.lines(&["FAIL"]).join("\n  ");
            survivors
                .push(format!("{} ({}), exit {}:\n  {fails}\n{}", mutant.name, mutant.variant, ran.status, ran.stderr));
        }
    }
    assert!(survivors.is_empty(), "{} of {} survive:\n{}", survivors.len(), MUTANTS.len(), survivors.join("\n"));
}
