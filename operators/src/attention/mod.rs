//! Attention on a device: e4m3 operands or the Hopper family's images in memory, the launch of the entry that serves a
//! shape, and the toggle echo.

mod e4m3;
pub mod errors;
mod far;
mod images;
mod inputs;
mod launches;
mod peers;
mod proportion;
mod reference;
mod sampling;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use kbench::evidence::{LaunchRecord, Operands};
use kbench::job::Module;
use kbench::operator::Problem;
use kbench::operator::attention::{Rows, Sizes};
use kernel_spec::launch::Step;
use sdpa_kernel::abi::Config;
use sdpa_kernel::sample::Sample;
use serde_json::Value;

use super::{Executor, Handed, Operator};
use crate::setup::{Fill, Mixing, NAN, Part, Role, Setup, Tensor};
use inputs::{Drawn, Inputs};

/// Sets up attention, and remembers what it drew.
pub struct Attention {
    drawn: Drawn,
}

impl Attention {
    /// On inputs that the processes of a run share in a folder.
    pub fn of(folder: &Path) -> Attention {
        Attention { drawn: Drawn::shared_in(folder) }
    }
}

impl Operator for Attention {
    fn echo(&self, module: &Module, read: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<()> {
        for launch in &module.launches {
            let config = Config::parse(&read(&launch.config_symbol)?)?;
            // The quantiser is the family's, not the variant's.
            let of_variant = launch.operands != Operands::Originals;
            let mut asked = if of_variant { module.toggles.clone() } else { BTreeMap::new() };
            if let Some(d) = launch.serves.get("D") {
                asked.insert("head_dim".to_owned(), u32::try_from(*d)?);
            }
            asked.insert("dynamic_smem".to_owned(), launch.dynamic_smem_bytes);
            let mismatches = config.mismatches(&asked);
            ensure!(
                mismatches.is_empty(),
                "toggle echo of `{}` {}: {}",
                module.variant,
                launch.config_symbol,
                mismatches.join("; ")
            );
        }
        Ok(())
    }

    fn setup(&mut self, module: &Module, problem: &Problem, executor: &Executor) -> Result<Setup> {
        let sizes = Sizes::of(&problem.shape);
        let records: Vec<&LaunchRecord> = module.launches.iter().filter(|r| r.serves(&problem.shape)).collect();
        let serves = |r: &&&LaunchRecord| match r.operands {
            Operands::RowMajor => true,
            Operands::HopperImages => launches::of_hopper(&sizes).entry(executor.sm_count) == Some(r.entry.as_str()),
            Operands::Originals => false,
        };
        let record = records.iter().find(serves);
        let record = record.with_context(|| format!("`{}` has no entry for D={}", module.variant, sizes.head_dim))?;
        let inputs = self.drawn.of(problem);
        match record.operands {
            Operands::RowMajor => match module.quantised_as {
                Operands::HopperImages => {
                    Ok(row_major(module, record, &sizes, &images::quantised(inputs, &sizes), executor))
                }
                Operands::RowMajor | Operands::Originals => Ok(row_major(module, record, &sizes, inputs, executor)),
            },
            _ => {
                let quantiser = records.iter().find(|r| r.operands == Operands::Originals);
                let quantiser = quantiser
                    .with_context(|| format!("`{}` has no quantiser for D={}", module.variant, sizes.head_dim))?;
                Ok(from_images(record, quantiser, &sizes, inputs, executor))
            }
        }
    }

    fn handed(&mut self, _problem: &Problem) -> Result<Vec<Handed>> {
        bail!("host code computes what a gate file declares, and no attention")
    }

    fn hand_to_peers(&mut self, problems: &[Problem], dir: &Path) -> Result<Value> {
        let sets: Vec<Arc<Inputs>> = problems.iter().map(|problem| self.drawn.shared(problem).clone()).collect();
        peers::hand_over(problems, &sets, dir)
    }
}

/// Q, K and V are drawn apart from each other, so each may come from another seed, with its scales.
fn mixing(of_operand: impl Fn(&str) -> Vec<String>, woven: Option<(String, Vec<usize>)>) -> Mixing {
    Mixing { groups: ["q", "k", "v"].map(of_operand).to_vec(), woven }
}

fn input(name: &str, bytes: Arc<Vec<u8>>) -> Tensor {
    Tensor { name: name.to_owned(), role: Role::Input(bytes) }
}

fn output(sizes: &Sizes) -> Tensor {
    Tensor { name: launches::OUT.to_owned(), role: Role::Output(sizes.q_len() * 2, NAN) }
}

/// Codes and scales as they lie, and an entry that takes a tile of query rows a CTA.
fn row_major(module: &Module, record: &LaunchRecord, sizes: &Sizes, inputs: &Inputs, executor: &Executor) -> Setup {
    let tensors = [("q", &inputs.q), ("k", &inputs.k), ("v", &inputs.v)];
    let codes = tensors.iter().map(|(name, t)| input(name, t.codes.clone()));
    let scales = tensors.iter().map(|(name, t)| input(&format!("{name}_scale"), Arc::new(t.scale_bytes())));
    let workspace = (record.workspace_bytes > 0).then(|| Tensor {
        name: launches::WORKSPACE.to_owned(),
        role: Role::Scratch(record.workspace_bytes as usize, Fill::Zero),
    });
    let launch = launches::row_major(record, sizes);
    let [width, heads, _] = launch.grid;
    let scheduler = module.toggles.get("scheduler").copied();
    let sample = executor.max_ctas.and_then(|limit| Sample::of(scheduler, [width, heads], limit));
    let near = Setup {
        tensors: codes.chain(scales).chain([output(sizes)]).chain(workspace).collect(),
        mixing: mixing(|name| vec![name.to_owned(), format!("{name}_scale")], None),
        making: Vec::new(),
        steps: vec![Step::Launch(launch)],
        from_originals: Vec::new(),
        entry: Some(record.entry.clone()),
        part: sample.as_ref().map(|sample| part(sample, record, sizes)),
        bounded: false,
    };
    let tiles = far::tiles(sample, [width, heads]);
    let moved = executor.far.then(|| far::row_major(&near, record, sizes, scheduler, &tiles)).flatten();
    moved.unwrap_or(near)
}

fn part(sample: &Sample, record: &LaunchRecord, sizes: &Sizes) -> Part {
    let rows: Vec<Rows> = sample.tiles.iter().map(|tile| Rows::of_tile(*tile, record.tile_q, sizes)).collect();
    let bytes = |rows: &Rows| {
        let elements = rows.elements(sizes);
        elements.start * 2..elements.end * 2
    };
    Part {
        ranges: rows.iter().map(bytes).collect(),
        rows: serde_json::json!(rows),
        count: sample.blocks.len() as u32,
        blocks: BTreeMap::from([(record.entry.clone(), sample.blocks.clone())]),
        of: sample.of,
        sm_count: sample.sm_count,
        ahead: BTreeMap::new(),
    }
}

/// Images that the family's quantiser makes on the device, and the entry that serves these sizes there.
fn from_images(
    record: &LaunchRecord,
    quantiser: &LaunchRecord,
    sizes: &Sizes,
    inputs: &Inputs,
    executor: &Executor,
) -> Setup {
    let model = images::images(&images::quantised(inputs, sizes), sizes);
    let made = launches::MADE.into_iter().zip(model);
    let made = made.map(|(name, bytes)| Tensor { name: name.to_owned(), role: Role::Made(Arc::new(bytes)) });
    let tensors = [("q", &inputs.q), ("k", &inputs.k), ("v", &inputs.v)];
    let originals = tensors.iter().map(|(name, t)| input(name, Arc::new(t.original_bytes())));
    let making = vec![Step::Launch(launches::quantise(quantiser, sizes))];
    let sample = executor
        .max_ctas
        .and_then(|limit| Sample::of_hopper(&launches::of_hopper(sizes), record.tile_q, executor.sm_count, limit));
    let attend = |pdl| Step::Launch(launches::from_images(record, sizes, executor.sm_count, pdl));
    let near = Setup {
        tensors: made.chain(originals).chain([output(sizes)]).collect(),
        mixing: mixing(
            |name| vec![name.to_owned(), launches::image_of(name)],
            Some(launches::woven_scales(sizes.head_dim)),
        ),
        steps: vec![attend(false)],
        from_originals: making.iter().cloned().chain([attend(true)]).collect(),
        making,
        entry: Some(record.entry.clone()),
        part: sample.as_ref().map(|sample| part(sample, record, sizes)),
        bounded: false,
    };
    let tiles = far::tiles(sample, [sizes.seq_q.div_ceil(record.tile_q), sizes.batch * sizes.heads]);
    let moved = executor.far.then(|| far::from_images(&near, [record, quantiser], sizes, &tiles)).flatten();
    moved.unwrap_or(near)
}
