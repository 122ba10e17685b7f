//! The Hopper flagship from Rust: FP16 tensors in, FP16 out, on one H100 or H200.
//!
//!     cargo xtask build hopper --arch sm_90a --export kernels
//!     cargo run --release -p sdpa-kernel --features gpu --example attention -- kernels/hopper-sm_90a.cubin
//!
//! Prints what the suite `flagship` reports for shape `mission`, seed 0: end-to-end error against float64 on the FP16
//! originals, and time per launch in a graph of 20.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cudarc::driver::{CudaContext, CudaStream, sys};
use half::f16;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sdpa_kernel::gpu::{Hopper, Tensors};
use sdpa_kernel::hopper::Sizes;
use sha2::{Digest, Sha256};

const SIZES: Sizes = Sizes { heads: 16, seq_q: 512, seq_kv: 512, head_dim: 64, causal: false };

fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: attention <exported cubin>")?;
    let cubin = std::fs::read(&path).with_context(|| format!("failed to read `{path}`"))?;
    // SAFETY: only tries to open the driver's library.
    ensure!(unsafe { sys::is_culib_present() }, "no CUDA driver on this machine: run on one with an H100 or H200");
    let context = CudaContext::new(0)?;
    let stream = context.per_thread_stream();

    let [q, k, v] = ["q", "k", "v"].map(normal_tensor);
    let [dq, dk, dv] = [&q, &k, &v].map(|x| stream.clone_htod(&x.iter().map(|x| x.to_bits()).collect::<Vec<_>>()));
    let (dq, dk, dv) = (dq?, dk?, dv?);
    let tensors = Tensors { q: &dq, k: &dk, v: &dv };

    let hopper = Hopper::load(&stream, &cubin)?;
    let mut operands = hopper.operands(SIZES)?;
    let mut out = stream.alloc_zeros::<u16>(q.len())?;
    let scale = 1.0 / (SIZES.head_dim as f32).sqrt();
    hopper.attend_from_originals(tensors, &mut operands, scale, &mut out)?;

    let found: Vec<f16> = stream.clone_dtoh(&out)?.into_iter().map(f16::from_bits).collect();
    let (max, mean) = errors(&found, &attention(&q, &k, &v, f64::from(scale)));
    println!("end-to-end error: max {max:.5}, mean {mean:.6}");
    let alone = time(&stream, || Ok(hopper.attend(&operands, scale, &mut out)?))?;
    let whole = time(&stream, || Ok(hopper.attend_from_originals(tensors, &mut operands, scale, &mut out)?))?;
    println!("kernel {:.2} us, quantise + kernel {:.2} us", alone.as_secs_f64() * 1e6, whole.as_secs_f64() * 1e6);
    Ok(())
}

/// Median over 30 replays of a graph of 20 launches, per launch.
fn time(stream: &Arc<CudaStream>, mut launch: impl FnMut() -> Result<()>) -> Result<Duration> {
    const LAUNCHES: u32 = 20;
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let launched = (0..LAUNCHES).try_for_each(|_| launch());
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)?;
    launched?;
    let graph = graph.context("nothing was captured")?;
    let mut ms: Vec<f32> = Vec::new();
    for _ in 0..33 {
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let start = stream.record_event(flags)?;
        graph.launch()?;
        ms.push(start.elapsed_ms(&stream.record_event(flags)?)?);
    }
    let warm = &mut ms[3..];
    warm.sort_by(f32::total_cmp);
    Ok(Duration::from_secs_f64(f64::from(warm[warm.len() / 2]) / 1e3 / f64::from(LAUNCHES)))
}

/// The suite's inputs: standard normal by Box and Muller, one ChaCha stream a head.
fn normal_tensor(name: &str) -> Vec<f16> {
    let seed = format!("sdpa-inputs/1 2x8x512x512x64 normal seed 0 {name}");
    let uniform = |rng: &mut ChaCha8Rng| (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    let head = |head: u32| {
        let mut rng = ChaCha8Rng::from_seed(Sha256::digest(seed.as_bytes()).into());
        rng.set_stream(u64::from(head));
        std::iter::repeat_with(move || {
            let radius = (-2.0 * libm::log(uniform(&mut rng))).sqrt();
            f16::from_f32((radius * libm::cos(std::f64::consts::TAU * uniform(&mut rng))) as f32)
        })
        .take(512 * 64)
    };
    (0..SIZES.heads).flat_map(head).collect()
}

/// softmax(scale Q Kᵀ) V in float64.
fn attention(q: &[f16], k: &[f16], v: &[f16], scale: f64) -> Vec<f64> {
    let wide = |x: &[f16]| x.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
    let (d, per_head) = (SIZES.head_dim as usize, 512 * SIZES.head_dim as usize);
    let heads = q.chunks(per_head).zip(k.chunks(per_head)).zip(v.chunks(per_head));
    let mut out = Vec::new();
    for ((q, k), v) in heads.map(|((q, k), v)| ((wide(q), wide(k)), wide(v))) {
        for row in q.chunks(d) {
            let dot = |key: &[f64]| scale * row.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
            let scores: Vec<f64> = k.chunks(d).map(dot).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let p: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let sum: f64 = p.iter().sum();
            out.extend((0..d).map(|i| p.iter().zip(v.chunks(d)).map(|(p, value)| p * value[i]).sum::<f64>() / sum));
        }
    }
    out
}

fn errors(found: &[f16], wanted: &[f64]) -> (f64, f64) {
    let all: Vec<f64> = found.iter().zip(wanted).map(|(a, b)| (a.to_f64() - b).abs()).collect();
    // A NaN must not disappear in a maximum.
    let worst = all.iter().copied().fold(0.0, |worst: f64, e| if e <= worst { worst } else { e });
    (worst, all.iter().sum::<f64>() / all.len() as f64)
}
