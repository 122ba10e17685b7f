//! How each of attention's entry functions is launched: grid, block, cluster and the fields of its parameter struct by
//! name. The structs are those of `sdpa_kernel::{abi, hopper}`; a test holds these to their bytes.

use kbench::evidence::LaunchRecord;
use kbench::operator::attention::Sizes;
use kernel_spec::dtype::Dtype;
use kernel_spec::expr::Value;
use kernel_spec::launch::{Argument, Launch};
use sdpa_kernel::hopper::{self, AttentionParams, QuantiseParams};

pub const OUT: &str = "out";
/// Counters of a persistent kernel's scheduler.
pub const WORKSPACE: &str = "workspace";
/// What the Hopper family's quantiser makes.
pub const MADE: [&str; 4] = ["image of q", "image of k", "image of v", "scales"];

/// The image that is made of an operand.
pub fn image_of(operand: &str) -> String {
    format!("image of {operand}")
}

/// The tensor that holds the scales of all operands and the offsets of V, and whose each of a head's words is; the last of the
/// scales is nobody's.
pub fn woven_scales(head_dim: u32) -> (String, Vec<usize>) {
    let scales = (0..hopper::SCALES_PER_HEAD).map(|word| if word < SCALED.len() { word } else { 0 });
    (MADE[3].to_owned(), scales.chain((0..head_dim).map(|_| SCALED.len() - 1)).collect())
}

/// Operands that have scales, in the order of a head's words.
const SCALED: [&str; 3] = ["q", "k", "v"];

fn tensor(name: &str) -> Argument {
    Argument::Tensor(name.to_owned())
}

fn number(dtype: Dtype, value: Value) -> Argument {
    Argument::Scalar { dtype, value, text: String::new() }
}

fn i32_of(value: i64) -> Argument {
    number(Dtype::I32, Value::Int(value))
}

/// The words of a parameter struct behind its pointers.
fn words(block: &[u8], pointers: usize) -> impl Iterator<Item = Argument> + '_ {
    let words = block[8 * pointers..].as_chunks::<4>().0;
    words.iter().map(|word| number(Dtype::U32, Value::Int(i64::from(u32::from_le_bytes(*word)))))
}

fn launch(entry: &str, geometry: &hopper::Geometry, shared_bytes: u32, fields: Vec<Argument>) -> Launch {
    Launch {
        entry: entry.to_owned(),
        grid: geometry.grid,
        block: [geometry.threads, 1, 1],
        shared_bytes,
        cluster: (geometry.cluster > 1).then_some([geometry.cluster, 1, 1]),
        cooperative: false,
        pdl: false,
        params: vec![Argument::Struct { align: Some(8), fields }],
    }
}

/// An entry that takes codes and scales as they lie.
pub fn row_major(record: &LaunchRecord, sizes: &Sizes) -> Launch {
    let mut fields: Vec<Argument> = ["q", "k", "v", "q_scale", "k_scale", "v_scale", OUT].map(tensor).to_vec();
    fields.push(if record.workspace_bytes > 0 { tensor(WORKSPACE) } else { Argument::Null });
    let counts = [sizes.batch, sizes.heads, sizes.seq_q, sizes.seq_kv, sizes.head_dim, u32::from(sizes.causal)];
    fields.extend(counts.map(|count| i32_of(i64::from(count))));
    fields.push(i32_of(i64::from(sizes.causal_offset())));
    fields.push(number(Dtype::F32, Value::Float(f64::from(sizes.softmax_scale()))));
    let grid = [sizes.seq_q.div_ceil(record.tile_q), sizes.batch * sizes.heads, 1];
    let geometry = hopper::Geometry { grid, threads: record.threads, cluster: 1 };
    launch(&record.entry, &geometry, record.dynamic_smem_bytes, fields)
}

/// An entry that takes images; with `pdl` its beginning overlaps the end of what is ahead of it.
pub fn from_images(record: &LaunchRecord, sizes: &Sizes, sm_count: u32, pdl: bool) -> Launch {
    let params = AttentionParams {
        images: [0; 3],
        scales: 0,
        out: 0,
        sizes: of_hopper(sizes),
        causal_offset: sizes.causal_offset(),
        softmax_scale: sizes.softmax_scale(),
        tile_q: record.tile_q,
    };
    let pointers = MADE.into_iter().chain([OUT]).map(tensor);
    let fields = pointers.chain(words(&params.to_bytes(), 5)).collect();
    let geometry = params.sizes.attention_geometry(record.tile_q, record.threads, sm_count);
    Launch { pdl, ..launch(&record.entry, &geometry, record.dynamic_smem_bytes, fields) }
}

/// The Hopper family's quantiser.
pub fn quantise(record: &LaunchRecord, sizes: &Sizes) -> Launch {
    let params =
        QuantiseParams { sources: [0; 3], images: [0; 3], scales: 0, seq_q: sizes.seq_q, seq_kv: sizes.seq_kv };
    let pointers = SCALED.into_iter().chain(MADE).map(tensor);
    let fields = pointers.chain(words(&params.to_bytes(), 7)).collect();
    let geometry = of_hopper(sizes).quantise_geometry(record.threads);
    launch(&record.entry, &geometry, record.dynamic_smem_bytes, fields)
}

/// Sizes as the Hopper family counts them.
pub fn of_hopper(sizes: &Sizes) -> hopper::Sizes {
    sizes.of_a_call().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::evidence::Operands;
    use kernel_spec::params;
    use sdpa_kernel::abi::Params;
    use std::collections::BTreeMap;

    fn record(operands: Operands) -> LaunchRecord {
        LaunchRecord {
            entry: "e".into(),
            config_symbol: "c".into(),
            serves: BTreeMap::new(),
            operands,
            tile_q: 64,
            threads: 288,
            dynamic_smem_bytes: 1000,
            workspace_bytes: 16,
        }
    }

    /// The address of a tensor in these tests: its place in a list, plus one.
    fn bytes(launch: &Launch, names: &[&str]) -> Vec<u8> {
        let address = |name: &str| 1 + names.iter().position(|n| *n == name).expect("a known tensor") as u64;
        params::bytes(&launch.params, address).unwrap()
    }

    #[test]
    fn every_image_is_of_an_operand() {
        assert_eq!(SCALED.map(image_of), [MADE[0], MADE[1], MADE[2]]);
        let (name, owners) = woven_scales(64);
        assert_eq!((name.as_str(), &owners[..5], owners.len()), ("scales", &[0, 1, 2, 0, 2][..], 68));
    }

    #[test]
    fn fields_are_the_bytes_of_the_structs() {
        let sizes = Sizes::of(&"cross-causal".parse().unwrap());
        let ladder = row_major(&record(Operands::RowMajor), &sizes);
        let names = ["q", "k", "v", "q_scale", "k_scale", "v_scale", OUT, WORKSPACE];
        let wanted = Params {
            q: 1,
            k: 2,
            v: 3,
            q_scale: 4,
            k_scale: 5,
            v_scale: 6,
            out: 7,
            workspace: 8,
            batch: 1,
            heads: 3,
            seq_q: 45,
            seq_kv: 173,
            head_dim: 64,
            causal: 1,
            causal_offset: 128,
            softmax_scale: 0.125,
        };
        assert_eq!(bytes(&ladder, &names), wanted.to_bytes());
        let attend = from_images(&record(Operands::HopperImages), &sizes, 132, true);
        let wanted = AttentionParams {
            images: [1, 2, 3],
            scales: 4,
            out: 5,
            sizes: of_hopper(&sizes),
            causal_offset: 128,
            softmax_scale: 0.125,
            tile_q: 64,
        };
        let names = [MADE[0], MADE[1], MADE[2], MADE[3], OUT];
        assert_eq!((bytes(&attend, &names), attend.pdl), (wanted.to_bytes().to_vec(), true));
        let quantise = quantise(&record(Operands::Originals), &sizes);
        let wanted = QuantiseParams { sources: [1, 2, 3], images: [4, 5, 6], scales: 7, seq_q: 45, seq_kv: 173 };
        let names = ["q", "k", "v", MADE[0], MADE[1], MADE[2], MADE[3]];
        assert_eq!(bytes(&quantise, &names), wanted.to_bytes());
        assert_eq!(quantise.cluster, Some([2, 1, 1]));
    }
}
