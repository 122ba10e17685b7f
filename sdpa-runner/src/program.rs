//! The kernels of a module that one shape needs, and how each is launched: grid, block, cluster and parameters by what
//! the entry takes. Leaves to others: when to launch, and what to make of the result.

use anyhow::{Context, Result, bail};
use cudarc::driver::DriverError;
use kbench::evidence::{LaunchRecord, Operands};
use kbench::job::Module;
use kbench::shape::Shape;
use sdpa_kernel::hopper::{AttentionParams, Geometry, QuantiseParams, Sizes, Start};

use crate::cuda::{Buffer, Gpu, Kernel, LoadedModule};
use crate::workload::Workload;

/// An attention entry, and the quantiser where the entry takes what that makes.
pub struct Program<'m> {
    attention: Kernel<'m>,
    quantiser: Option<Kernel<'m>>,
    shape: Shape,
    multiprocessors: u32,
}

impl<'m> Program<'m> {
    /// The kernels of a loaded module for a shape.
    pub fn of(module: &Module, loaded: &'m LoadedModule, shape: &Shape, gpu: &Gpu) -> Result<Program<'m>> {
        let multiprocessors = gpu.device.sm_count;
        let of_dim = |r: &&LaunchRecord| r.head_dim == shape.head_dim;
        let attention = module.launches.iter().filter(of_dim).find(|r| match r.operands {
            Operands::RowMajor => true,
            Operands::HopperImages => sizes(shape).entry(multiprocessors) == Some(r.entry.as_str()),
            Operands::Originals => false,
        });
        let attention =
            attention.with_context(|| format!("`{}` has no entry for D={}", module.variant, shape.head_dim))?;
        let quantiser = module.launches.iter().filter(of_dim).find(|r| r.operands == Operands::Originals);
        if attention.operands == Operands::HopperImages && quantiser.is_none() {
            bail!("`{}` has no quantiser for D={}", module.variant, shape.head_dim);
        }
        Ok(Program {
            attention: loaded.kernel(attention, gpu)?,
            quantiser: quantiser.map(|record| loaded.kernel(record, gpu)).transpose()?,
            shape: shape.clone(),
            multiprocessors,
        })
    }

    /// What the attention entry takes.
    pub fn operands(&self) -> Operands {
        self.attention.record.operands
    }

    /// Scratch that the attention entry wants.
    pub fn workspace_bytes(&self) -> u32 {
        self.attention.record.workspace_bytes
    }

    /// The attention entry's name.
    pub fn entry(&self) -> &str {
        &self.attention.record.entry
    }

    /// Launches the attention entry.
    pub fn attend(&self, gpu: &Gpu, workload: &Workload, output: &Buffer) -> Result<(), DriverError> {
        self.start_attention(gpu, workload, output, Start::InOrder)
    }

    /// Launches the quantiser, and the attention entry so that its beginning overlaps the quantiser's end.
    pub fn attend_from_originals(&self, gpu: &Gpu, workload: &Workload, output: &Buffer) -> Result<(), DriverError> {
        self.quantise(gpu, workload)?;
        self.start_attention(gpu, workload, output, Start::Early)
    }

    fn start_attention(
        &self,
        gpu: &Gpu,
        workload: &Workload,
        output: &Buffer,
        start: Start,
    ) -> Result<(), DriverError> {
        let (record, shape) = (&self.attention.record, &self.shape);
        if self.operands() == Operands::RowMajor {
            let grid = [shape.seq_q.div_ceil(record.tile_q), shape.batch * shape.heads, 1];
            let geometry = Geometry { grid, threads: record.threads, cluster: 1 };
            return self.attention.launch(gpu, &geometry, start, &mut workload.params(output).to_bytes());
        }
        let [q, k, v, scales, ..] = workload.addresses();
        let params = AttentionParams {
            images: [q, k, v],
            scales,
            out: output.address(),
            sizes: sizes(shape),
            causal_offset: shape.causal_offset(),
            softmax_scale: shape.softmax_scale(),
            tile_q: record.tile_q,
        };
        let geometry = params.sizes.attention_geometry(record.tile_q, record.threads, self.multiprocessors);
        self.attention.launch(gpu, &geometry, start, &mut params.to_bytes())
    }

    /// Launches the quantiser, where there is one.
    pub fn quantise(&self, gpu: &Gpu, workload: &Workload) -> Result<(), DriverError> {
        let Some(kernel) = &self.quantiser else { return Ok(()) };
        let [q, k, v, scales, sources @ ..] = workload.addresses();
        let params =
            QuantiseParams { sources, images: [q, k, v], scales, seq_q: self.shape.seq_q, seq_kv: self.shape.seq_kv };
        let geometry = sizes(&self.shape).quantise_geometry(kernel.record.threads);
        kernel.launch(gpu, &geometry, Start::InOrder, &mut params.to_bytes())
    }
}

fn sizes(shape: &Shape) -> Sizes {
    Sizes {
        heads: shape.batch * shape.heads,
        seq_q: shape.seq_q,
        seq_kv: shape.seq_kv,
        head_dim: shape.head_dim,
        causal: shape.causal,
    }
}
