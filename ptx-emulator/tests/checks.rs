//! Checks never change a result: every kernel of the tests, and every instruction form, computes the same bits with any
//! subset of the checks, also where values are undefined; and the same under every schedule where the kernel says so.

mod common;

use common::{MMA_SHARED, Random, SCHEDULES, load, report};
use ptx_emulator::conformance::{ENTRY, Probe, probes};
use ptx_emulator::{Checks, Launch, Memory, Module, Params, Schedule, run};

const WMMA: &str = include_str!("data/wmma_flash.ptx");
const MMA: &str = include_str!("data/mma_flash.ptx");
const SYNC: &str = include_str!("data/sync.ptx");
const FP8: &str = include_str!("data/fp8_mma.ptx");
const LIBRARY: &str = include_str!("data/library.ptx");

/// Every subset of the checks.
fn subsets() -> impl Iterator<Item = Checks> {
    (0..8).map(|bits| Checks { races: bits & 1 != 0, in_flight: bits & 2 != 0, uninitialised: bits & 4 != 0 })
}

/// A kernel with its buffers: how they start, by content or, where nothing is written yet, by size.
struct Case {
    source: &'static str,
    name: &'static str,
    launch: [u32; 2],
    dynamic: u32,
    buffers: Vec<Result<Vec<u8>, usize>>,
    scalars: Vec<u32>,
}

impl Case {
    /// All buffers after a run.
    fn run(&self, checks: Checks, schedule: Schedule) -> Vec<Vec<u8>> {
        let (module, kernel) = load(self.source, self.name);
        let mut memory = Memory::new(&module);
        let mut params = Params::new();
        let mut buffers = Vec::new();
        for start in &self.buffers {
            let buffer = match start {
                Ok(content) => memory.alloc_from("data", content),
                Err(bytes) => memory.alloc("open", *bytes),
            };
            buffers.push(buffer.expect("fits"));
            params = params.pointer(buffers[buffers.len() - 1]);
        }
        let params = self.scalars.iter().fold(params, |params, &scalar| params.i32(scalar as i32));
        let [grid, block] = self.launch;
        let mut launch = Launch::new([grid, 1, 1], [block, 1, 1], params.finish());
        launch.dynamic_shared_bytes = self.dynamic;
        launch.checks = checks;
        launch.schedule = schedule;
        launch.limits.threads = 1;
        let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
        assert!(outcome.errors().next().is_none(), "{} {schedule:?}: {}", self.name, report(&outcome));
        buffers.into_iter().map(|buffer| memory.read(buffer).expect("own")).collect()
    }
}

fn case(
    source: &'static str,
    name: &'static str,
    launch: [u32; 2],
    buffers: Vec<Result<Vec<u8>, usize>>,
    scalars: &[u32],
) -> Case {
    Case { source, name, launch, dynamic: 0, buffers, scalars: scalars.to_vec() }
}

/// Words from `0..bound`.
fn words(count: usize, bound: u64) -> Result<Vec<u8>, usize> {
    let mut random = Random(count as u64 + bound);
    Ok((0..count).flat_map(|_| ((random.next() % bound) as u32).to_le_bytes()).collect())
}

fn halves(count: usize) -> Result<Vec<u8>, usize> {
    let mut random = Random(count as u64);
    Ok((0..count).flat_map(|_| half::f16::from_f32(random.normal()).to_le_bytes()).collect())
}

fn zeros(count: usize) -> Result<Vec<u8>, usize> {
    Ok(vec![0; 4 * count])
}

/// Every kernel of the fixtures.
fn cases() -> Vec<Case> {
    let open = |count: usize| Err(4 * count);
    let scale = 0.18f32.to_bits();
    let flash = |source, name, rows: u32, dynamic| {
        let inputs = || halves(2 * 128 * 64);
        let buffers = vec![inputs(), inputs(), inputs(), open(2 * 128 * 64)];
        let case = case(source, name, [128 / rows, 128], buffers, &[128, scale]);
        Case { dynamic, ..case }
    };
    let codes = || words(512, 0x3838_3838);
    let mut cases = vec![
        flash(WMMA, "wmma_flash", 32, 0),
        flash(MMA, "mma_flash", 64, MMA_SHARED),
        case(SYNC, "named_pipeline", [1, 96], vec![words(7 * 64, 1000), open(7 * 64)], &[7]),
        case(SYNC, "mbarrier_pipeline", [1, 96], vec![words(7 * 64, 1000), open(7 * 64)], &[7]),
        case(SYNC, "work_queue", [4, 64], vec![zeros(2), open(640)], &[10]),
        case(SYNC, "spin_same_warp", [1, 32], vec![zeros(1), open(32)], &[]),
        case(SYNC, "spin_lock", [2, 64], vec![zeros(1), zeros(1)], &[]),
        case(SYNC, "flag_across_blocks", [2, 64], vec![zeros(64), zeros(1), open(64)], &[]),
        case(SYNC, "warp_ops", [1, 32], vec![words(32, 909), open(352)], &[]),
        case(SYNC, "calls", [1, 32], vec![words(128, 1000), open(128)], &[3]),
        case(SYNC, "small_floats", [1, 32], vec![words(64, 1 << 30), open(256)], &[]),
        case(SYNC, "atomics", [3, 64], vec![zeros(4), zeros(4), zeros(2), zeros(3)], &[]),
        case(LIBRARY, "cg_reduce", [1, 64], vec![words(64, 1000), open(8)], &[]),
        case(LIBRARY, "cuda_barrier", [1, 256], vec![words(256, 1000), open(256)], &[]),
        case(LIBRARY, "cuda_pipe", [1, 64], vec![words(1024, 1000), open(1024)], &[]),
        case(LIBRARY, "grid_sync", [4, 64], vec![zeros(256), open(256)], &[]),
        case(LIBRARY, "wmma_half", [1, 32], vec![halves(256), halves(256), open(128)], &[]),
    ];
    for name in ["mma_e4m3", "mma_mixed", "mma_s8", "mma_bf16"] {
        cases.push(case(FP8, name, [1, 32], vec![codes(), codes(), open(128)], &[]));
    }
    cases
}

#[test]
fn checks_and_schedules_do_not_change_what_a_kernel_computes() {
    let cases = cases();
    let entries: usize = [WMMA, MMA, SYNC, FP8, LIBRARY]
        .map(|source| Module::parse(source).expect("a fixture").entries().len())
        .iter()
        .sum();
    assert_eq!(cases.len(), entries, "a kernel of the fixtures is missing here");
    for case in cases {
        let mut wanted = None;
        for schedule in SCHEDULES {
            for checks in subsets() {
                let found = case.run(checks, schedule);
                let wanted = wanted.get_or_insert_with(|| found.clone());
                assert!(found == *wanted, "{} differs: {schedule:?} {checks:?}", case.name);
            }
        }
    }
}

/// The answer of a probe with some checks.
fn answer(probe: &Probe, checks: Checks) -> Vec<u8> {
    let (module, kernel) = load(&probe.ptx, ENTRY);
    let mut memory = Memory::new(&module);
    let mut params = Params::new();
    for input in &probe.inputs {
        params = params.pointer(memory.alloc_from("in", input).expect("fits"));
    }
    let output = memory.alloc_from("out", &vec![0; probe.output_bytes]).expect("fits");
    let mut launch = Launch::new([1, 1, 1], [probe.threads, 1, 1], params.pointer(output).finish());
    launch.checks = checks;
    run(&kernel, &memory, &launch).expect("the launch is valid");
    memory.read(output).expect("own")
}

#[test]
fn checks_do_not_change_what_an_instruction_computes() {
    for probe in probes() {
        let wanted = answer(&probe, Checks::none());
        for checks in subsets() {
            assert!(answer(&probe, checks) == wanted, "{} differs: {checks:?}", probe.name);
        }
    }
}

/// The same instructions with operands of which every third lane's are undefined: reports, and the same bits.
#[test]
fn checks_do_not_change_what_comes_of_undefined_values() {
    for mut probe in probes() {
        let guarded = probe.ptx.replace("\nld.global.b", "\n@!%third ld.global.b");
        let start = "mov.u32 %n, %ctaid.x;\n";
        if !guarded.contains(start) {
            continue;
        }
        let third = "rem.u32 %n, %i, 3;\nsetp.eq.u32 %third, %n, 0;\nmov.u32 %n, %ctaid.x;\n";
        probe.ptx = guarded.replacen(start, third, 1).replacen(".reg .pred %p, %q;", ".reg .pred %p, %q, %third;", 1);
        let wanted = answer(&probe, Checks::none());
        for checks in subsets() {
            assert!(answer(&probe, checks) == wanted, "{} differs: {checks:?}", probe.name);
        }
    }
}
