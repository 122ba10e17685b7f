//! A problem on the device: guarded inputs, poisoned outputs, and the parameters that point at them.

use anyhow::Result;
use cudarc::driver::DriverError;
use kbench::job::Module;
use kbench::shape::{Problem, Shape};
use sdpa_kernel::abi::{Config, Params};

use crate::cuda::{Buffer, Gpu, LoadedModule, POISON};
use crate::inputs::Inputs;

/// Inputs and scratch of one problem in device memory. Outputs are apart: every launch that counts has its own.
pub struct Workload {
    inputs: Vec<(Buffer, Vec<u8>)>,
    workspace: Option<Buffer>,
    shape: Shape,
}

impl Workload {
    /// Uploads a problem; `workspace_bytes` of zeroed scratch come with it.
    pub fn upload(problem: &Problem, inputs: &Inputs, workspace_bytes: u32) -> Result<Workload> {
        let tensors = [&inputs.q, &inputs.k, &inputs.v];
        let codes = tensors.iter().map(|t| t.codes.clone());
        let scales = tensors.iter().map(|t| t.scale_bytes());
        let inputs = codes.chain(scales).map(|bytes| Ok((Buffer::holding(&bytes)?, bytes)));
        Ok(Workload {
            inputs: inputs.collect::<Result<_>>()?,
            workspace: (workspace_bytes > 0).then(|| Buffer::filled(workspace_bytes as usize, 0)).transpose()?,
            shape: problem.shape.clone(),
        })
    }

    /// A poisoned output of this problem's size.
    pub fn output(&self) -> Result<Buffer> {
        Buffer::filled(self.shape.q_len() * 2, POISON)
    }

    /// Sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Parameters for a launch that writes `output`.
    pub fn params(&self, output: &Buffer) -> Params {
        let addresses = [0, 1, 2, 3, 4, 5].map(|i: usize| self.inputs[i].0.address());
        params(&self.shape, addresses, output.address(), self.workspace.as_ref().map_or(0, Buffer::address))
    }

    /// Zeroes the scratch, so that nothing is remembered.
    pub fn forget(&self, gpu: &Gpu) -> Result<(), DriverError> {
        self.workspace.as_ref().map_or(Ok(()), |workspace| workspace.fill(gpu, 0))
    }

    /// Whether every input byte is what was uploaded.
    pub fn inputs_unchanged(&self) -> Result<bool, DriverError> {
        for (buffer, bytes) in &self.inputs {
            if buffer.read()? != *bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether nothing around inputs, scratch and `output` was written.
    pub fn guards_intact(&self, output: &Buffer) -> Result<bool, DriverError> {
        for buffer in self.inputs.iter().map(|(buffer, _)| buffer).chain([output]).chain(&self.workspace) {
            if !buffer.guards_intact()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Parameters of a launch; `inputs` are the addresses of q, k, v and their scales.
pub fn params(shape: &Shape, inputs: [u64; 6], out: u64, workspace: u64) -> Params {
    let [q, k, v, q_scale, k_scale, v_scale] = inputs;
    Params {
        q,
        k,
        v,
        q_scale,
        k_scale,
        v_scale,
        out,
        workspace,
        batch: shape.batch as i32,
        heads: shape.heads as i32,
        seq_q: shape.seq_q as i32,
        seq_kv: shape.seq_kv as i32,
        head_dim: shape.head_dim as i32,
        causal: i32::from(shape.causal),
        causal_offset: shape.causal_offset(),
        softmax_scale: shape.softmax_scale(),
    }
}

/// Loads a module and refuses it when what it says of itself is not what it was asked for.
pub fn load_echoed(module: &Module) -> Result<LoadedModule> {
    let loaded = LoadedModule::load(&module.image)?;
    for launch in &module.launches {
        let config = Config::parse(&loaded.symbol(&launch.config_symbol)?)?;
        let mut asked = module.toggles.clone();
        asked.insert("head_dim".to_owned(), launch.head_dim);
        asked.insert("dynamic_smem".to_owned(), launch.dynamic_smem_bytes);
        let mismatches = config.mismatches(&asked);
        anyhow::ensure!(
            mismatches.is_empty(),
            "toggle echo of `{}` {}: {}",
            module.variant,
            launch.config_symbol,
            mismatches.join("; ")
        );
    }
    Ok(loaded)
}
