//! Whole kernels from nvcc, run under every schedule and compared with references.

mod attention;
mod common;

use attention::{Attention, flash, half_bytes, max_error};
use common::{MMA_SHARED, SCHEDULES, load, report};
use ptx_emulator::{
    BlockFilter, Buffer, Checks, Kind, Launch, Memory, Module, Params, Schedule, findings_to_json, run,
};

#[test]
fn wmma_flash_matches_the_reference_under_every_schedule() {
    let data = Attention::new(1, 96, 3);
    let reference = data.reference();
    for schedule in SCHEDULES {
        let source = include_str!("data/wmma_flash.ptx");
        let (out, outcome) = flash("wmma_flash", source, &data, schedule);
        let errors: Vec<_> = outcome.errors().collect();
        assert!(errors.is_empty(), "{schedule:?}: {}", report(&outcome));
        let error = max_error(&out, &reference);
        assert!(error <= 2e-3, "{schedule:?}: error {error}");
    }
}

#[test]
fn mma_flash_matches_the_reference_under_every_schedule() {
    let data = Attention::new(1, 128, 4);
    let reference = data.reference();
    for schedule in SCHEDULES {
        let source = include_str!("data/mma_flash.ptx");
        let (out, outcome) = flash("mma_flash", source, &data, schedule);
        assert!(outcome.is_clean(), "{schedule:?}: {}", report(&outcome));
        let error = max_error(&out, &reference);
        assert!(error <= 2e-3, "{schedule:?}: error {error}");
    }
}

const SYNC: &str = include_str!("data/sync.ptx");

fn bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Runs a kernel of `sync.ptx` on word buffers; the last one is the output.
fn run_sync(
    name: &str,
    inputs: &[&[i32]],
    out: usize,
    tail: Option<i32>,
    grid: u32,
    block: u32,
    schedule: Schedule,
) -> (Vec<Vec<i32>>, Vec<i32>) {
    let (module, kernel) = load(SYNC, name);
    let mut memory = Memory::new(&module);
    let buffers: Vec<_> = inputs.iter().map(|i| memory.alloc_from("in", &bytes(i)).expect("fits")).collect();
    let mut params = buffers.iter().fold(Params::new(), |p, &b| p.pointer(b));
    let output = memory.alloc("out", out * 4).expect("fits");
    if out > 0 {
        params = params.pointer(output);
    }
    if let Some(value) = tail {
        params = params.i32(value);
    }
    let mut launch = Launch::new([grid, 1, 1], [block, 1, 1], params.finish());
    launch.schedule = schedule;
    let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
    assert!(outcome.is_clean(), "{name} {schedule:?}: {}", report(&outcome));
    let inputs = buffers.iter().map(|&b| words(&memory.read(b).expect("own"))).collect();
    (inputs, words(&memory.read(output).expect("own")))
}

#[test]
fn pipelines_move_every_tile() {
    let tiles = 7;
    let input: Vec<i32> = (0..tiles * 64).collect();
    let expected: Vec<i32> = (0..tiles).flat_map(|t| (0..64).rev().map(move |i| t * 64 + i)).collect();
    for name in ["named_pipeline", "mbarrier_pipeline"] {
        for schedule in SCHEDULES {
            let (_, out) = run_sync(name, &[&input], input.len(), Some(tiles), 1, 96, schedule);
            assert_eq!(out, expected, "{name} {schedule:?}");
        }
    }
}

#[test]
fn a_work_queue_serves_every_tile_once() {
    for schedule in SCHEDULES {
        let (counters, out) = run_sync("work_queue", &[&[0, 0]], 10 * 64, Some(10), 4, 64, schedule);
        let expected: Vec<i32> = (0..10).flat_map(|t| (0..64).map(move |i| t * 1000 + i)).collect();
        assert_eq!(out, expected, "{schedule:?}");
        assert_eq!(counters[0], [0, 0], "{schedule:?}");
    }
}

#[test]
fn spins_end_under_every_schedule() {
    for schedule in SCHEDULES {
        let (_, out) = run_sync("spin_same_warp", &[&[0]], 32, None, 1, 32, schedule);
        assert!(out.iter().enumerate().all(|(i, &v)| v == if i % 2 == 1 { 7 } else { 1 }));
        let (counters, _) = run_sync("spin_lock", &[&[0], &[0]], 0, None, 2, 64, schedule);
        assert_eq!(counters[1], [128], "{schedule:?}");
        let (_, out) = run_sync("flag_across_blocks", &[&[0; 64], &[0]], 64, None, 2, 64, schedule);
        assert!(out.iter().enumerate().all(|(i, &v)| v == 3 * i as i32), "{schedule:?}");
    }
}

#[test]
fn warp_operations_follow_their_definitions() {
    let input: Vec<i32> = (0..32).map(|i| (i * 37 + 11) % 101 * 9).collect();
    let (_, out) = run_sync("warp_ops", &[&input], 352, None, 1, 32, Schedule::Greedy);
    let u = |i: usize| input[i] as u32;
    for l in 0..32 {
        assert_eq!(out[l], input[l ^ 5]);
        assert_eq!(out[32 + l], if l >= 3 { input[l - 3] } else { input[l] });
        assert_eq!(out[64 + l], if l % 16 + 9 < 16 { input[l + 9] } else { input[l] });
        assert_eq!(out[96 + l], input[l / 8 * 8 + l * 7 % 8]);
        let ballot = (0..32).fold(0, |b, i| b | (u(i) & 1) << i);
        assert_eq!(out[128 + l] as u32, ballot);
        let any = input.iter().any(|&x| x > 900);
        assert_eq!(out[160 + l], i32::from(any) + 2);
        assert_eq!(out[192 + l], input.iter().sum::<i32>() + input.iter().max().expect("not empty"));
        let same = (0..32).fold(0u32, |m, i| m | u32::from(input[i] % 3 == input[l] % 3) << i);
        assert_eq!(out[224 + l] as u32, same);
        let odd = ballot.count_ones() as i32;
        let one = i32::from(input.contains(&1));
        let small = i32::from(input.iter().all(|&x| x < 5));
        assert_eq!(out[256 + l], odd + one * 100 + small * 1000);
        let x = u(l);
        let permuted = (x & 0xffff) | (x.wrapping_mul(3) & 0xffff) << 16;
        let shifted = ((u64::from(7u32) << 32 | u64::from(x)) << (l % 32) >> 32) as u32;
        let sum = x
            .count_ones()
            .wrapping_add(x.leading_zeros())
            .wrapping_add(x.reverse_bits())
            .wrapping_add(if x == 0 { 0 } else { x.trailing_zeros() + 1 })
            .wrapping_add(permuted)
            .wrapping_add(shifted);
        assert_eq!(out[288 + l] as u32, sum, "lane {l}");
        assert_eq!(out[320 + l], 1);
    }
}

#[test]
fn threads_checks_and_schedules_do_not_change_results() {
    let data = Attention::new(2, 128, 21);
    let source = include_str!("data/mma_flash.ptx");
    let mut outputs = Vec::new();
    for threads in [1, 2, 5] {
        for checks in [Checks::all(), Checks::none()] {
            for schedule in SCHEDULES {
                let (module, kernel) = load(source, "mma_flash");
                let (mut memory, mut launch, o) = prepare(&module, &data);
                launch.schedule = schedule;
                launch.checks = checks;
                launch.limits.threads = threads;
                let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
                assert!(outcome.is_clean(), "{}", report(&outcome));
                assert_eq!((outcome.blocks_run, outcome.blocks_in_grid), (4, 4));
                outputs.push((memory.read(o).expect("own buffer"), outcome.instructions));
                memory.write(o, 0, &[0]).expect("own buffer");
            }
        }
    }
    assert!(outputs.iter().all(|o| *o == outputs[0]));
}

/// Memory and launch of `mma_flash`.
fn prepare(module: &Module, data: &Attention) -> (Memory, Launch, Buffer) {
    let mut memory = Memory::new(module);
    let mut put = |name: &str, values: &[half::f16]| memory.alloc_from(name, &half_bytes(values)).expect("fits");
    let (q, k, v) = (put("Q", &data.q), put("K", &data.k), put("V", &data.v));
    let o = memory.alloc("O", data.q.len() * 4).expect("fits");
    let params = Params::new().pointer(q).pointer(k).pointer(v).pointer(o).i32(data.seq as i32).f32(0.18);
    let grid = [(data.seq / 64) as u32, data.heads as u32, 1];
    let mut launch = Launch::new(grid, [128, 1, 1], params.finish());
    launch.dynamic_shared_bytes = MMA_SHARED;
    (memory, launch, o)
}

#[test]
fn a_sample_of_blocks_runs_only_those() {
    let data = Attention::new(2, 128, 22);
    let (module, kernel) = load(include_str!("data/mma_flash.ptx"), "mma_flash");
    let (memory, mut launch, o) = prepare(&module, &data);
    launch.blocks = BlockFilter::Only(vec![[1, 0, 0], [0, 1, 0]]);
    launch.profile = true;
    let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
    assert_eq!((outcome.blocks_run, outcome.blocks_in_grid), (2, 4));
    let undefined = memory.undefined(o, 0..o.bytes()).expect("own buffer");
    assert_eq!(undefined.iter().map(|range| range.len()).sum::<usize>(), 2 * 64 * 64 * 4);
    let counted: u64 = outcome.profile.iter().map(|line| line.instructions).sum();
    assert_eq!(counted, outcome.instructions);
}

#[test]
fn reports_name_both_sides_and_replay_from_the_seed() {
    let source = include_str!("data/wmma_flash.ptx").replacen("bar.sync", "// bar.sync", 2);
    let data = Attention::new(1, 64, 23);
    let findings = |seed| flash("wmma_flash", &source, &data, Schedule::Seeded(seed)).1.findings;
    let first = findings(5);
    assert_eq!(first, findings(5));
    let race = first.iter().find(|f| f.kind == Kind::RaceReadAfterWrite).expect("a race");
    let text = race.to_string();
    for part in
        ["ERROR race (write then read, two warps)", "block (", "write: ", "read: ", "wmma_flash.cu:", "[ptx ", "hint: "]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = findings_to_json(&first).expect("plain data");
    for part in ["\"kind\": \"race-read-after-write\"", "\"severity\": \"ERROR\"", "\"ptx_line\"", "\"hits\""] {
        assert!(json.contains(part), "{part} in {json}");
    }
}
