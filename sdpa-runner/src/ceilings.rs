//! The ceilings job: what the device can do at most, each rate measured by a kernel of `sdpa-kernel/cuda/ceilings.cu`
//! that nothing else limits. Leaves to others: what is below a ceiling, and what to make of it.

use anyhow::{Result, ensure};
use kbench::ceilings::{Ceiling, Ceilings, Quantity};
use kbench::job::{CeilingsJob, Event as JobEvent};
use kernel_spec::dtype::Dtype;
use kernel_spec::expr::Value;
use kernel_spec::launch::{Argument, Launch};
use stats::median;

use crate::cuda::{Buffer, Event, Gpu, Graph, Kernel, LoadedModule, cause, first_uuid};
use crate::events::{emit, progress};
use crate::nvml::Monitor;

/// Operations of a thread in one iteration: chains times steps of the source.
const PER_ITERATION: u64 = 8 * 16;
/// Steps of one iteration of the warpgroup products.
const STEPS: u64 = 16;
/// Measurements of each rate; the median is reported.
const REPEATS: usize = 9;
/// Nodes of the graph that shows what a launch costs.
const GRAPH_NODES: u32 = 200;
/// Larger than any L2 by an order of magnitude.
const MEMORY_BYTES: u64 = 1 << 30;
/// Fits the L2 of every device since Ada with room, and holds a round of loads of the largest.
const L2_BYTES: u64 = 20 << 20;
/// Loads of a thread in flight; a read covers whole multiples of these.
const LOADS: u64 = 8;
/// Clock that iteration counts aim at: long against a launch.
const TARGET_US: f64 = 2000.0;

/// One kernel and what it counts.
struct Probe {
    name: &'static str,
    entry: &'static str,
    quantity: Quantity,
    threads: u32,
    /// Work of a CTA in one iteration.
    work: u64,
}

/// What this architecture has kernels for.
fn probes(capability: (u32, u32)) -> Vec<Probe> {
    const THREADS: u32 = 512;
    let instruction = |name, entry, each: u64| Probe {
        name,
        entry,
        quantity: Quantity::Operations,
        threads: THREADS,
        work: each * PER_ITERATION * u64::from(THREADS),
    };
    // Products of a warp, FLOP: 2 m n k.
    let of_warps = |name, entry, k: u64| Probe {
        name,
        entry,
        quantity: Quantity::Flop,
        threads: THREADS,
        work: 2 * 16 * 8 * k * PER_ITERATION * u64::from(THREADS) / 32,
    };
    let of_warpgroups = |name, entry, n: u64, k: u64| Probe {
        name,
        entry,
        quantity: Quantity::Flop,
        threads: THREADS,
        work: 2 * 64 * n * k * STEPS * u64::from(THREADS) / 128,
    };
    let mut probes = vec![
        instruction("ex2.approx.ftz.f32", "ceiling_exp2_f32", 1),
        instruction("ex2.approx.f16x2 (two each)", "ceiling_exp2_f16x2", 2),
        instruction("fma.rn.f32", "ceiling_fma_f32", 1),
        instruction("fma.rn.f16x2 (two each)", "ceiling_fma_f16x2", 2),
        instruction("prmt.b32", "ceiling_prmt", 1),
        instruction("shfl.sync", "ceiling_shuffle", 1),
        instruction("cvt e4m3x2 <- f32 (two each)", "ceiling_cvt_e4m3x2_f32", 4),
        instruction("cvt e4m3x2 <- f16x2 (two each)", "ceiling_cvt_e4m3x2_f16x2", 2),
        instruction("cvt f16x2 <- e4m3x2 (two each)", "ceiling_cvt_f16x2_e4m3x2", 2),
        of_warps("mma.sync f16", "ceiling_mma_f16", 16),
    ];
    match capability {
        (8, 9) => probes.push(of_warps("mma.sync e4m3", "ceiling_mma_e4m3", 32)),
        (9, 0) => {
            probes.push(of_warpgroups("wgmma f16", "ceiling_wgmma_f16", 64, 16));
            probes.push(of_warpgroups("wgmma e4m3", "ceiling_wgmma_e4m3", 128, 32));
        }
        _ => {}
    }
    probes
}

/// Runs the job and emits its table.
pub fn run(job: &CeilingsJob) -> Result<()> {
    let monitor = Monitor::connect(&first_uuid()?);
    let others = monitor.as_ref().map(Monitor::compute_processes).unwrap_or_default();
    ensure!(others.is_empty(), "another process computes on this GPU: {}; stop it", others.join(", "));
    let gpu = Gpu::open()?;
    let module = LoadedModule::load(&job.image)?;
    let mut device = gpu.device.clone();
    if let Some(monitor) = &monitor {
        monitor.complete(&mut device);
    }
    let before = monitor.as_ref().map(|m| m.state()).unwrap_or_default();
    let bench = Bench::new(&gpu, &module)?;
    let probes = probes(device.capability);
    let mut rows = vec![bench.launch_floor()?];
    for (i, probe) in probes.iter().enumerate() {
        progress(i, probes.len(), probe.name);
        rows.push(bench.rate(probe)?);
    }
    rows.push(bench.read("memory read", MEMORY_BYTES)?);
    rows.push(bench.read("L2 read", L2_BYTES)?);
    let after = monitor.map(|m| m.state()).unwrap_or_default();
    emit(&JobEvent::Ceilings { ceilings: Box::new(Ceilings { device, rows, before, after }) });
    Ok(())
}

struct Bench<'a> {
    gpu: &'a Gpu,
    module: &'a LoadedModule,
    source: Buffer,
    sink: Buffer,
    clocks: Buffer,
}

/// What one launch is given.
#[derive(Clone, Copy)]
struct Call {
    threads: u32,
    ctas_per_sm: u32,
    bytes: u64,
    iterations: i32,
}

impl<'a> Bench<'a> {
    fn new(gpu: &'a Gpu, module: &'a LoadedModule) -> Result<Bench<'a>> {
        let ctas = gpu.device.sm_count as usize * 4;
        ensure!(gpu.device.memory_bytes > 2 * MEMORY_BYTES, "less than 2 GiB of device memory");
        Ok(Bench {
            gpu,
            module,
            source: Buffer::filled(MEMORY_BYTES as usize, 1)?,
            sink: Buffer::filled(ctas * 512 * 16, 0)?,
            clocks: Buffer::filled(ctas * 8, 0)?,
        })
    }

    fn launch(&self, kernel: &Kernel, call: &Call) -> Result<()> {
        let tensor = |name: &str| Argument::Tensor(name.to_owned());
        let number = |dtype, value| Argument::Scalar { dtype, value: Value::Int(value), text: String::new() };
        // The struct of the source: three pointers, a count, an integer.
        let fields = vec![
            tensor("source"),
            tensor("sink"),
            tensor("clocks"),
            number(Dtype::U64, (call.bytes / 16) as i64),
            number(Dtype::I32, i64::from(call.iterations)),
        ];
        let launch = Launch {
            entry: String::new(),
            grid: [self.gpu.device.sm_count * call.ctas_per_sm, 1, 1],
            block: [call.threads, 1, 1],
            shared_bytes: 0,
            cluster: None,
            cooperative: false,
            pdl: false,
            params: vec![Argument::Struct { align: None, fields }],
        };
        kernel.launch(self.gpu, &launch, |name| match name {
            "source" => self.source.address(),
            "sink" => self.sink.address(),
            _ => self.clocks.address(),
        })
    }

    /// Microseconds of a launch, and the clocks of its median CTA.
    fn time(&self, kernel: &Kernel, call: &Call) -> Result<(f64, f64)> {
        let (start, end) = (Event::new()?, Event::new()?);
        start.record(self.gpu).map_err(cause)?;
        self.launch(kernel, call)?;
        end.record(self.gpu).map_err(cause)?;
        self.gpu.synchronize().map_err(cause)?;
        let bytes = self.clocks.read().map_err(cause)?;
        let ctas = (self.gpu.device.sm_count * call.ctas_per_sm) as usize;
        let clocks: Vec<f64> =
            bytes.as_chunks::<8>().0[..ctas].iter().map(|word| u64::from_le_bytes(*word) as f64).collect();
        Ok((end.us_since(&start).map_err(cause)?, median(&clocks).unwrap_or(f64::NAN)))
    }

    /// Medians of time and clocks, after a launch that decides how many iterations are long enough.
    fn measure(&self, entry: &str, mut call: Call) -> Result<(f64, f64, i32)> {
        let kernel = self.module.kernel(entry, 0, self.gpu)?;
        self.time(&kernel, &call)?;
        let (us, _) = self.time(&kernel, &call)?;
        call.iterations = (f64::from(call.iterations) * TARGET_US / us).clamp(1.0, 1e6) as i32;
        let runs = (0..REPEATS).map(|_| self.time(&kernel, &call)).collect::<Result<Vec<_>>>()?;
        let of = |pick: fn(&(f64, f64)) -> f64| median(&runs.iter().map(pick).collect::<Vec<_>>()).unwrap_or(f64::NAN);
        Ok((of(|r| r.0), of(|r| r.1), call.iterations))
    }

    /// One CTA on each multiprocessor: the rate is per clock and multiprocessor by its own clock register, and per second
    /// by the events around the launch.
    fn rate(&self, probe: &Probe) -> Result<Ceiling> {
        let call = Call { threads: probe.threads, ctas_per_sm: 1, bytes: 0, iterations: 100 };
        let (us, clocks, iterations) = self.measure(probe.entry, call)?;
        let per_cta = probe.work as f64 * f64::from(iterations);
        Ok(Ceiling {
            name: probe.name.to_owned(),
            quantity: probe.quantity,
            per_second: per_cta * f64::from(self.gpu.device.sm_count) / (us * 1e-6),
            per_clock_and_sm: Some(per_cta / clocks),
        })
    }

    fn read(&self, name: &str, bytes: u64) -> Result<Ceiling> {
        let mut call = Call { threads: 512, ctas_per_sm: 2, bytes, iterations: 4 };
        let threads = u64::from(self.gpu.device.sm_count * call.ctas_per_sm * call.threads);
        // Whole rounds of all threads: the kernel reads no part of one.
        let round = threads * LOADS * 16;
        call.bytes = bytes / round * round;
        ensure!(call.bytes > 0, "{name}: {bytes} bytes are less than one round of loads");
        let (us, _, iterations) = self.measure("ceiling_read", call)?;
        Ok(Ceiling {
            name: name.to_owned(),
            quantity: Quantity::Bytes,
            per_second: call.bytes as f64 * f64::from(iterations) / (us * 1e-6),
            per_clock_and_sm: None,
        })
    }

    /// Launches of an empty kernel in a graph, one after another.
    fn launch_floor(&self) -> Result<Ceiling> {
        let kernel = self.module.kernel("ceiling_empty", 0, self.gpu)?;
        let call = Call { threads: 128, ctas_per_sm: 1, bytes: 0, iterations: 0 };
        let nodes = || (0..GRAPH_NODES).try_for_each(|_| self.launch(&kernel, &call));
        let graph = Graph::capture(self.gpu, nodes)?;
        let (start, end) = (Event::new()?, Event::new()?);
        let mut us = Vec::new();
        for _ in 0..REPEATS + 1 {
            start.record(self.gpu).map_err(cause)?;
            graph.launch(self.gpu).map_err(cause)?;
            end.record(self.gpu).map_err(cause)?;
            self.gpu.synchronize().map_err(cause)?;
            us.push(end.us_since(&start).map_err(cause)?);
        }
        let each = median(&us[1..]).unwrap_or(f64::NAN) / f64::from(GRAPH_NODES);
        Ok(Ceiling {
            name: "empty launch in a graph".to_owned(),
            quantity: Quantity::Launches,
            per_second: 1e6 / each,
            per_clock_and_sm: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_has_its_kernel_and_counts_as_the_source_does() {
        let source = include_str!("../../sdpa-kernel/cuda/ceilings.cu");
        for probe in probes((8, 9)).iter().chain(&probes((9, 0))) {
            assert!(source.contains(&format!("SDPA_CEILING({})", probe.entry)), "{}", probe.entry);
        }
        for constant in
            ["kChains = 8", "kSteps = 16", "sizeof(CeilingParams) == 40", "+= 8 * threads", "__launch_bounds__(512"]
        {
            assert!(source.contains(constant), "{constant}");
        }
        // One warp product of m16n8k32: 8192 FLOP; a CTA of 16 warps does 128 of them an iteration.
        let e4m3 = probes((8, 9)).pop().unwrap();
        assert_eq!((e4m3.name, e4m3.work), ("mma.sync e4m3", 8192 * 128 * 16));
    }
}
