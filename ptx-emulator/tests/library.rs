//! Kernels built from CUDA's own headers: cooperative groups, `cuda::barrier`, `cuda::pipeline`, grid
//! synchronisation, WMMA with f16 sums.

use ptx_emulator::{Kernel, Launch, Memory, Module, Params, Schedule, run};

const SCHEDULES: [Schedule; 5] =
    [Schedule::RoundRobin, Schedule::Greedy, Schedule::Reverse, Schedule::Seeded(1), Schedule::Seeded(77)];

fn load(name: &str) -> (Module, Kernel) {
    let module = Module::parse(include_str!("data/library.ptx")).expect("the fixture parses");
    let kernel = module.entry(name).expect("the fixture loads");
    (module, kernel)
}

/// Runs a kernel from one word buffer to another and returns the second.
fn words(name: &str, input: &[u32], out: usize, grid: u32, block: u32, schedule: Schedule) -> Vec<u32> {
    let (module, kernel) = load(name);
    let mut memory = Memory::new(&module);
    let bytes: Vec<u8> = input.iter().flat_map(|w| w.to_le_bytes()).collect();
    let from = memory.alloc_from("in", &bytes).expect("fits");
    let to = memory.alloc("out", out * 4).expect("fits");
    let mut launch = Launch::new([grid, 1, 1], [block, 1, 1], Params::new().pointer(from).pointer(to).finish());
    launch.schedule = schedule;
    let outcome = run(&kernel, &memory, &launch).expect("valid launch");
    assert!(outcome.is_clean(), "{name} {schedule:?}: {:#?}", outcome.findings);
    let bytes = memory.read(to).expect("own buffer");
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four"))).collect()
}

#[test]
fn barriers_and_pipelines_move_the_data() {
    let input: Vec<u32> = (0..1024).map(|i| i * 7 + 1).collect();
    for schedule in SCHEDULES {
        let out = words("cuda_barrier", &input[..256], 256, 1, 256, schedule);
        assert!((0..256).all(|i| out[i] == input[255 - i]), "{schedule:?}");
        let out = words("cuda_pipe", &input, 1024, 1, 64, schedule);
        let want = |i: usize| input[i / 256 * 256 + (63 - i / 4 % 64) * 4 + i % 4];
        assert!((0..1024).all(|i| out[i] == want(i)), "{schedule:?}");
    }
}

#[test]
fn a_grid_synchronises() {
    for schedule in SCHEDULES {
        let out = words("grid_sync", &[0; 256], 256, 4, 64, schedule);
        assert!((0..256).all(|i| out[i as usize] == 255 - i), "{schedule:?}");
    }
}

#[test]
fn tiles_reduce_on_their_own() {
    let input: Vec<u32> = (0..64).map(|i| (i as f32 * 0.5).to_bits()).collect();
    for schedule in SCHEDULES {
        let out = words("cg_reduce", &input, 8, 1, 64, schedule);
        for (tile, value) in out.iter().enumerate() {
            let values = (0..8).map(|i| (tile * 8 + i) as f32 * 0.5);
            let largest = ((tile * 8 + 7) as f32 * 0.5) as i32;
            let want = values.sum::<f32>() + largest as f32 + 32.0;
            assert_eq!(f32::from_bits(*value), want, "tile {tile} {schedule:?}");
        }
    }
}

#[test]
fn wmma_with_half_sums() {
    let (module, kernel) = load("wmma_half");
    let mut memory = Memory::new(&module);
    let value = |i: usize| half::f16::from_f32((i * 5 % 13) as f32 - 6.0);
    let bytes: Vec<u8> = (0..256).flat_map(|i| value(i).to_bits().to_le_bytes()).collect();
    let (a, b) = (memory.alloc_from("a", &bytes).expect("fits"), memory.alloc_from("b", &bytes).expect("fits"));
    let c = memory.alloc("c", 512).expect("fits");
    let params = Params::new().pointer(a).pointer(b).pointer(c).finish();
    let outcome = run(&kernel, &memory, &Launch::new([1, 1, 1], [32, 1, 1], params)).expect("valid launch");
    assert!(outcome.is_clean(), "{:#?}", outcome.findings);
    let out = memory.read(c).expect("own buffer");
    for row in 0..16 {
        for column in 0..16 {
            // The first factor and the result are column-major.
            let want: f32 = (0..16).map(|k| value(k * 16 + row).to_f32() * value(k * 16 + column).to_f32()).sum();
            let at = 2 * (column * 16 + row);
            let got = half::f16::from_le_bytes([out[at], out[at + 1]]);
            assert_eq!(got.to_f32(), want, "({row}, {column})");
        }
    }
}
