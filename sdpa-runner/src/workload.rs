//! A problem on the device: guarded inputs, a poisoned output, and the parameters that point at them.

use anyhow::Result;
use cudarc::driver::DriverError;
use kbench::job::Module;
use kbench::shape::{Problem, Shape};
use sdpa_kernel::abi::{Config, Params};

use crate::cuda::{Buffer, LoadedModule, POISON};
use crate::inputs::{Inputs, Tensor};

/// Inputs and output of one problem in device memory.
pub struct Workload {
    inputs: Vec<(Buffer, Vec<u8>)>,
    output: Buffer,
    workspace: Option<Buffer>,
    shape: Shape,
}

impl Workload {
    /// Uploads a problem; `workspace_bytes` of zeroed scratch come with it.
    pub fn upload(problem: &Problem, inputs: &Inputs, workspace_bytes: u32) -> Result<Workload> {
        let tensors = [&inputs.q, &inputs.k, &inputs.v];
        let codes = tensors.iter().map(|t| t.codes.clone());
        let scales = tensors.iter().map(|t| scale_bytes(t));
        let inputs = codes.chain(scales).map(|bytes| Ok((Buffer::holding(&bytes)?, bytes)));
        Ok(Workload {
            inputs: inputs.collect::<Result<_>>()?,
            output: Buffer::filled(problem.shape.q_len() * 2, POISON)?,
            workspace: (workspace_bytes > 0).then(|| Buffer::filled(workspace_bytes as usize, 0)).transpose()?,
            shape: problem.shape.clone(),
        })
    }

    /// Sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Parameters for a launch.
    pub fn params(&self) -> Params {
        let address = |i: usize| self.inputs[i].0.address();
        let shape = &self.shape;
        Params {
            q: address(0),
            k: address(1),
            v: address(2),
            q_scale: address(3),
            k_scale: address(4),
            v_scale: address(5),
            out: self.output.address(),
            workspace: self.workspace.as_ref().map_or(0, Buffer::address),
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

    /// Fills the output with NaN.
    pub fn poison(&self) -> Result<(), DriverError> {
        self.output.fill(POISON)
    }

    /// The output's bytes.
    pub fn output(&self) -> Result<Vec<u8>, DriverError> {
        self.output.read()
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

    /// Whether nothing around inputs and output was written.
    pub fn guards_intact(&self) -> Result<bool, DriverError> {
        for buffer in self.inputs.iter().map(|(buffer, _)| buffer).chain([&self.output]).chain(&self.workspace) {
            if !buffer.guards_intact()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn scale_bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.scales.iter().flat_map(|s| s.to_le_bytes()).collect()
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
