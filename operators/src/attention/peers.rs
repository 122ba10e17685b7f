//! Attention's inputs as peers receive them: FP16 originals in a safetensors file, and the message that hands them over.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use kbench::operator::Problem;
use kbench::operator::attention::Sizes;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::inputs::Inputs;

/// Writes the tensors of one shape's input sets.
pub fn hand_over(problems: &[Problem], sets: &[Arc<Inputs>], dir: &Path) -> Result<Value> {
    let shape = &problems[0].shape;
    let sizes = Sizes::of(shape);
    let file = write_tensors(problems, sets, dir)?;
    Ok(json!({
        "op": "load", "case": shape.name, "file": file, "sets": sets.len(), "causal": sizes.causal,
        "softmax_scale": sizes.softmax_scale(),
    }))
}

/// FP16 originals `q0, k0, v0, q1, ...`, each `[B, H, S, D]`.
fn write_tensors(problems: &[Problem], sets: &[Arc<Inputs>], work_dir: &Path) -> Result<PathBuf> {
    let shape = &problems[0].shape;
    let sizes = Sizes::of(shape);
    let dims = |seq: u32| [sizes.batch, sizes.heads, seq, sizes.head_dim].map(|d| d as usize).to_vec();
    let mut tensors = Vec::new();
    for (i, set) in sets.iter().enumerate() {
        for (name, tensor, seq) in
            [("q", &set.q, sizes.seq_q), ("k", &set.k, sizes.seq_kv), ("v", &set.v, sizes.seq_kv)]
        {
            tensors.push((format!("{name}{i}"), dims(seq), tensor.original_bytes()));
        }
    }
    let views = tensors.iter().map(|(name, dims, bytes)| Ok((name, TensorView::new(Dtype::F16, dims.clone(), bytes)?)));
    let file = work_dir.join(format!("{}.safetensors", shape.name));
    safetensors::serialize_to_file(views.collect::<Result<Vec<_>>>()?, None, &file)
        .with_context(|| format!("failed to write `{}`", file.display()))?;
    Ok(file)
}
