//! Attention problems with references, and how the kernels of the fixtures are run on them.

use ptx_emulator::{Buffer, Checks, Launch, Memory, Outcome, Params, Schedule, run};

use crate::common::{MMA_SHARED, Random, load};

pub struct Attention {
    pub heads: usize,
    pub seq: usize,
    pub q: Vec<half::f16>,
    pub k: Vec<half::f16>,
    pub v: Vec<half::f16>,
}

pub const D: usize = 64;

impl Attention {
    pub fn new(heads: usize, seq: usize, seed: u64) -> Attention {
        let mut random = Random(seed);
        let mut tensor = || (0..heads * seq * D).map(|_| half::f16::from_f32(random.normal())).collect();
        Attention { heads, seq, q: tensor(), k: tensor(), v: tensor() }
    }

    pub fn reference(&self) -> Vec<f64> {
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

pub fn half_bytes(values: &[half::f16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect()
}

/// Runs a flash kernel; returns its output and the outcome.
pub fn run_flash(
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
pub fn max_error(out: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(out.len(), reference.len());
    let errors = out.iter().zip(reference).map(|(a, b)| (f64::from(*a) - b).abs());
    errors.fold(0.0, |worst, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) })
}

/// Dynamic shared memory of the attention kernels.
pub fn flash(name: &str, source: &str, data: &Attention, schedule: Schedule) -> (Vec<f32>, Outcome) {
    let (rows, dynamic) = if name == "wmma_flash" { (32, 0) } else { (64, MMA_SHARED) };
    run_flash(source, name, rows, dynamic, data, schedule, Checks::all())
}
