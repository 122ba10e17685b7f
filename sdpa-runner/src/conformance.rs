//! The conformance job: what a GPU answers to the emulator's probes, compiled by the driver from the very PTX. Leaves
//! to others: comparing.

use std::path::Path;

use anyhow::{Context, Result};
use ptx_emulator::conformance::{ENTRY, Probe, probes};

use crate::cuda::{Buffer, Gpu, LoadedModule};
use crate::events::progress;

/// Probes between two words to the pipeline.
const QUIET: usize = 100;

/// Runs the job. The first probe that cannot be run ends it: a fault takes the context with it.
pub fn run(out_dir: &Path) -> Result<()> {
    let gpu = Gpu::open()?;
    std::fs::create_dir_all(out_dir).with_context(|| format!("failed to create `{}`", out_dir.display()))?;
    let probes = probes();
    for (i, probe) in probes.iter().enumerate() {
        if i % QUIET == 0 {
            progress(i, probes.len(), &probe.name);
        }
        let answer = answer(&gpu, probe).with_context(|| format!("`{}`", probe.name))?;
        let path = out_dir.join(format!("{i}.bin"));
        std::fs::write(&path, answer).with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    Ok(())
}

fn answer(gpu: &Gpu, probe: &Probe) -> Result<Vec<u8>> {
    let module = LoadedModule::assembled(&probe.ptx)?;
    let inputs = probe.inputs.iter().map(|bytes| Buffer::holding(bytes)).collect::<Result<Vec<_>>>()?;
    let output = Buffer::filled(probe.output_bytes, 0)?;
    let mut pointers: Vec<u64> = inputs.iter().chain([&output]).map(Buffer::address).collect();
    module.launch_on_pointers(gpu, ENTRY, [probe.blocks, probe.threads], &mut pointers)?;
    output.read().map_err(crate::cuda::cause)
}
