//! Whole kernels from nvcc, run under every schedule and compared with f64 references.

use std::fmt::Write as _;

use ptx_emulator::{Buffer, Checks, Launch, Memory, Module, Outcome, Params, Schedule, run};

/// Small deterministic generator: the test data must be the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// About normal, within ±3.5.
    fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.next() % 1000).sum();
        sum as f32 / 1000.0 - 6.0
    }
}

fn load(source: &str, name: &str) -> (Module, ptx_emulator::Kernel) {
    let module = Module::parse(source).expect("the fixture parses");
    let kernel = module.entry(name).expect("the fixture loads");
    (module, kernel)
}

fn report(outcome: &Outcome) -> String {
    outcome.findings.iter().fold(String::new(), |mut text, finding| {
        let _ = writeln!(text, "{finding}");
        text
    })
}

struct Attention {
    heads: usize,
    seq: usize,
    q: Vec<half::f16>,
    k: Vec<half::f16>,
    v: Vec<half::f16>,
}

const D: usize = 64;

impl Attention {
    fn new(heads: usize, seq: usize, seed: u64) -> Attention {
        let mut random = Random(seed);
        let mut tensor = || (0..heads * seq * D).map(|_| half::f16::from_f32(random.normal())).collect();
        Attention { heads, seq, q: tensor(), k: tensor(), v: tensor() }
    }

    fn reference(&self) -> Vec<f64> {
        let scale = 1.0 / (D as f64).sqrt();
        let mut out = vec![0.0; self.q.len()];
        for h in 0..self.heads {
            let at = |row: usize| (h * self.seq + row) * D;
            for i in 0..self.seq {
                let dot =
                    |j: usize| -> f64 { (0..D).map(|d| self.q[at(i) + d].to_f64() * self.k[at(j) + d].to_f64()).sum() };
                let scores: Vec<f64> = (0..self.seq).map(|j| dot(j) * scale).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in weights.iter().enumerate() {
                    for d in 0..D {
                        out[at(i) + d] += weight / total * self.v[at(j) + d].to_f64();
                    }
                }
            }
        }
        out
    }
}

fn half_bytes(values: &[half::f16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect()
}

/// Runs a flash kernel; returns its output and the outcome.
fn run_flash(
    source: &str,
    name: &str,
    rows: usize,
    dynamic: u32,
    data: &Attention,
    schedule: Schedule,
    checks: Checks,
) -> (Vec<f32>, Outcome) {
    let (module, kernel) = load(source, name);
    let mut memory = Memory::new(&module);
    let mut put = |name: &str, values: &[half::f16]| memory.alloc_from(name, &half_bytes(values)).expect("fits");
    let (q, k, v) = (put("Q", &data.q), put("K", &data.k), put("V", &data.v));
    let o: Buffer = memory.alloc("O", data.q.len() * 4).expect("fits");
    let scale = std::f32::consts::LOG2_E / (D as f32).sqrt();
    let params = Params::new().pointer(q).pointer(k).pointer(v).pointer(o).i32(data.seq as i32).f32(scale);
    let grid = [(data.seq / rows) as u32, data.heads as u32, 1];
    let mut launch = Launch::new(grid, [128, 1, 1], params.finish());
    launch.dynamic_shared_bytes = dynamic;
    launch.schedule = schedule;
    launch.checks = checks;
    let outcome = run(&kernel, &memory, &launch).expect("the launch is valid");
    (memory.read_f32(o).expect("own buffer"), outcome)
}

/// Largest error; NaN counts as infinite, which `f64::max` would hide.
fn max_error(out: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(out.len(), reference.len());
    let errors = out.iter().zip(reference).map(|(a, b)| (f64::from(*a) - b).abs());
    errors.fold(0.0, |worst, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) })
}

const SCHEDULES: [Schedule; 5] =
    [Schedule::RoundRobin, Schedule::Greedy, Schedule::Reverse, Schedule::Seeded(1), Schedule::Seeded(77)];

const MMA_SHARED: u32 = (64 * 72 + 4 * 32 * 72) * 2;

#[test]
fn wmma_flash_matches_the_reference_under_every_schedule() {
    let data = Attention::new(1, 96, 3);
    let reference = data.reference();
    for schedule in SCHEDULES {
        let source = include_str!("data/wmma_flash.ptx");
        let (out, outcome) = run_flash(source, "wmma_flash", 32, 0, &data, schedule, Checks::all());
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
        let (out, outcome) = run_flash(source, "mma_flash", 64, MMA_SHARED, &data, schedule, Checks::all());
        assert!(outcome.is_clean(), "{schedule:?}: {}", report(&outcome));
        let error = max_error(&out, &reference);
        assert!(error <= 2e-3, "{schedule:?}: error {error}");
    }
}
