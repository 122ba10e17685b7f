//! A problem on the device: guarded inputs, poisoned outputs, and the parameters that point at them.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use cudarc::driver::DriverError;
use kbench::evidence::Operands;
use kbench::job::Module;
use kbench::shape::{Problem, Shape};
use sdpa_kernel::abi::{Config, Params};

use crate::cuda::{Buffer, GUARD, Gpu, LoadedModule, POISON, explain};
use crate::images;
use crate::inputs::{Inputs, Tensor};
use crate::program::Program;

/// Inputs and scratch of one problem in device memory. Outputs are apart: every launch that counts has its own.
pub struct Workload {
    /// Each buffer with its name and what it must hold. Row-major: codes of Q, K, V and their scales; for the Hopper
    /// family: images of Q, K, V, their scales, and the FP16 originals that the quantiser makes them from.
    inputs: Vec<(&'static str, Buffer, Vec<u8>)>,
    /// How many of them, from the first, the quantiser makes.
    made: usize,
    workspace: Option<Buffer>,
    shape: Shape,
}

impl Workload {
    /// Uploads a problem in the form that the program takes. Operands that the project's quantiser makes are made by
    /// it, on the device; an error there is the module's.
    pub fn upload(problem: &Problem, inputs: &Inputs, program: &Program) -> Result<Workload> {
        let tensors = [&inputs.q, &inputs.k, &inputs.v];
        let (made, parts) = match program.operands() {
            Operands::RowMajor | Operands::Originals => {
                let codes = ["q", "k", "v"].into_iter().zip(tensors.map(|t| t.codes.clone()));
                let scales = ["q_scale", "k_scale", "v_scale"].into_iter().zip(tensors.map(Tensor::scale_bytes));
                (0, codes.chain(scales).collect::<Vec<_>>())
            }
            Operands::HopperImages => {
                let model = images::images(&images::quantised(inputs, &problem.shape), &problem.shape);
                let made = ["image of q", "image of k", "image of v", "scales"].into_iter().zip(model);
                let originals = ["q", "k", "v"].into_iter().zip(tensors.map(Tensor::original_bytes));
                (4, made.chain(originals).collect())
            }
        };
        let place = |(i, (name, bytes)): (usize, (&'static str, Vec<u8>))| {
            let buffer = if i < made { Buffer::filled(bytes.len(), GUARD)? } else { Buffer::holding(&bytes)? };
            Ok((name, buffer, bytes))
        };
        let workspace_bytes = program.workspace_bytes() as usize;
        Ok(Workload {
            inputs: parts.into_iter().enumerate().map(place).collect::<Result<_>>()?,
            made,
            workspace: (workspace_bytes > 0).then(|| Buffer::filled(workspace_bytes, 0)).transpose()?,
            shape: problem.shape.clone(),
        })
    }

    /// Has the quantiser make what it makes, and compares that with the CPU's, bit for bit. The inner error says where
    /// they differ.
    pub fn make_operands(&self, gpu: &Gpu, program: &Program) -> Result<Result<(), String>, DriverError> {
        self.unmake(gpu)?;
        program.quantise(gpu, self)?;
        gpu.synchronize()?;
        for (name, buffer, wanted) in &self.inputs {
            let found = buffer.read()?;
            if let Some(at) = found.iter().zip(wanted).position(|(a, b)| a != b) {
                let (a, b) = (found[at], wanted[at]);
                return Ok(Err(format!("quantiser: byte {at} of {name} is {a:#04x} where the model has {b:#04x}")));
            }
        }
        Ok(Ok(()))
    }

    /// The same where every failure ends the work.
    pub fn made(self, gpu: &Gpu, program: &Program) -> Result<Workload> {
        let made = self.make_operands(gpu, program).map_err(|e| anyhow!("{}", explain(e)))?;
        made.map_err(anyhow::Error::msg)?;
        Ok(self)
    }

    /// NaN in place of what the quantiser makes, in the order of the stream. Padding of the scales stays zero.
    pub fn unmake(&self, gpu: &Gpu) -> Result<(), DriverError> {
        for (name, buffer, _) in &self.inputs[..self.made] {
            buffer.fill(gpu, if *name == "scales" { 0 } else { GUARD })?;
        }
        Ok(())
    }

    /// Device addresses of the inputs; those that there are not are 0.
    pub fn addresses(&self) -> [u64; 7] {
        let mut addresses = [0; 7];
        for (address, (_, buffer, _)) in addresses.iter_mut().zip(&self.inputs) {
            *address = buffer.address();
        }
        addresses
    }

    /// A poisoned output of this problem's size.
    pub fn output(&self) -> Result<Buffer> {
        Buffer::filled(self.shape.q_len() * 2, POISON)
    }

    /// Parameters for a launch on row-major operands that writes `output`.
    pub fn params(&self, output: &Buffer) -> Params {
        let [q, k, v, q_scale, k_scale, v_scale, _] = self.addresses();
        let addresses = [q, k, v, q_scale, k_scale, v_scale];
        params(&self.shape, addresses, output.address(), self.workspace.as_ref().map_or(0, Buffer::address))
    }

    /// Zeroes the scratch, so that nothing is remembered.
    pub fn forget(&self, gpu: &Gpu) -> Result<(), DriverError> {
        self.workspace.as_ref().map_or(Ok(()), |workspace| workspace.fill(gpu, 0))
    }

    /// Whether every input byte is what was uploaded, or made on the device.
    pub fn inputs_unchanged(&self) -> Result<bool, DriverError> {
        for (_, buffer, bytes) in &self.inputs {
            if buffer.read()? != *bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether nothing around inputs, scratch and `output` was written.
    pub fn guards_intact(&self, output: &Buffer) -> Result<bool, DriverError> {
        for buffer in self.inputs.iter().map(|(_, buffer, _)| buffer).chain([output]).chain(&self.workspace) {
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
    refuse_other_toggles(module, |symbol| loaded.symbol(symbol))?;
    Ok(loaded)
}

/// The toggle echo, whoever executes the module: `read` gives the bytes of an exported configuration.
pub fn refuse_other_toggles(module: &Module, read: impl Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
    for launch in &module.launches {
        let config = Config::parse(&read(&launch.config_symbol)?)?;
        // The quantiser is the family's, not the variant's.
        let of_variant = launch.operands != Operands::Originals;
        let mut asked = if of_variant { module.toggles.clone() } else { BTreeMap::new() };
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
    Ok(())
}
