//! Elements of an input from a named seed, by distribution. The same bits on every machine: the generator is ChaCha, the
//! transcendental functions come from a portable library, and long tensors are drawn in parts of their own streams.
//! Leaves to others: which distribution it is, and where elements lie.

use std::collections::HashMap;

use anyhow::Result;
use kbench::operator::declared::Draw;
use kernel_spec::dtype::Dtype;
use kernel_spec::expr::Value;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Elements of a part, which has a stream of its own.
const PART: usize = 1 << 16;
/// How far a negative number is from zero at least; every format has it.
const LEAST_NEGATIVE: f64 = 1.0 / 64.0;

/// Dense elements, little-endian. `name` says everything that tells this tensor from others.
pub fn elements(name: &str, draw: &Draw, dtype: Dtype, count: usize) -> Result<Vec<u8>> {
    let key: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    match draw {
        Draw::Permutation { of } => integers(dtype, permutation(key, *of as u64, count)),
        Draw::Offsets { total } => integers(dtype, offsets(key, *total as u64, count)),
        Draw::Constant { value } => {
            let mut element = Vec::new();
            match value {
                Value::Int(value) => dtype.encode_integer(*value, &mut element)?,
                Value::Bool(value) => dtype.encode_integer(i64::from(*value), &mut element)?,
                Value::Float(value) => dtype.encode(*value, &mut element),
                Value::Str(text) => anyhow::bail!("`{text}` is no value of an element"),
            }
            Ok(element.repeat(count))
        }
        Draw::Integers { low, high } => parts(key, count, |rng, out| {
            let value = low.wrapping_add(below(rng, high.wrapping_sub(*low) as u64) as i64);
            Ok(dtype.encode_integer(value, out)?)
        }),
        Draw::Normal | Draw::Uniform | Draw::Outliers | Draw::Large | Draw::Negative => {
            parts(key, count, |rng, out| {
                dtype.encode(float(draw, rng), out);
                Ok(())
            })
        }
    }
}

/// Draws each part from its own stream.
fn parts(
    key: [u8; 32],
    count: usize,
    one: impl Fn(&mut ChaCha8Rng, &mut Vec<u8>) -> Result<()> + Sync,
) -> Result<Vec<u8>> {
    let part = |part: usize| {
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(part as u64);
        let mut out = Vec::new();
        (part * PART..count.min((part + 1) * PART)).try_for_each(|_| one(&mut rng, &mut out))?;
        Ok(out)
    };
    let parts: Vec<Vec<u8>> = (0..count.div_ceil(PART)).into_par_iter().map(part).collect::<Result<_>>()?;
    Ok(parts.concat())
}

fn float(draw: &Draw, rng: &mut ChaCha8Rng) -> f64 {
    match draw {
        Draw::Uniform => unit(rng) * 2.0 - 1.0,
        Draw::Outliers => {
            let value = normal(rng);
            if rng.next_u32().is_multiple_of(256) { 20.0 * value } else { value }
        }
        Draw::Large => 16.0 * normal(rng),
        Draw::Negative => -normal(rng).abs() - LEAST_NEGATIVE,
        _ => normal(rng),
    }
}

/// From 0 to 1, without 1.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    f64::from(rng.next_u32()) / 4_294_967_296.0
}

/// A standard normal number by Box and Muller; the sine half is not used, which keeps the stream simple to restate.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let uniform = |rng: &mut ChaCha8Rng| (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    let radius = (-2.0 * libm::log(uniform(rng))).sqrt();
    radius * libm::cos(std::f64::consts::TAU * uniform(rng))
}

/// Every number below the bound as likely as the others, to one part in 2^64 over the bound; 0 stands for 2^64.
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    let drawn = rng.next_u64();
    if bound == 0 { drawn } else { ((u128::from(drawn) * u128::from(bound)) >> 64) as u64 }
}

/// The first elements of a random order of 0..of (Fisher and Yates), of which only what moved is remembered.
fn permutation(key: [u8; 32], of: u64, count: usize) -> Vec<u64> {
    let mut rng = ChaCha8Rng::from_seed(key);
    let mut moved: HashMap<u64, u64> = HashMap::new();
    let mut order = Vec::with_capacity(count);
    for i in 0..count as u64 {
        let j = i + below(&mut rng, of - i);
        let own = moved.remove(&i).unwrap_or(i);
        order.push(if i == j { own } else { moved.insert(j, own).unwrap_or(j) });
    }
    order
}

/// 0, drawn numbers in ascending order, and the total.
fn offsets(key: [u8; 32], total: u64, count: usize) -> Vec<u64> {
    let mut rng = ChaCha8Rng::from_seed(key);
    let mut inner: Vec<u64> = (2..count).map(|_| below(&mut rng, total + 1)).collect();
    inner.sort_unstable();
    [0].into_iter().chain(inner).chain([total]).collect()
}

fn integers(dtype: Dtype, values: Vec<u64>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len() * dtype.bytes());
    values.into_iter().try_for_each(|value| dtype.encode_integer(value as i64, &mut bytes))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn values(draw: &Draw, dtype: Dtype, count: usize) -> Vec<f64> {
        let bytes = elements("a name", draw, dtype, count).unwrap();
        bytes.chunks_exact(dtype.bytes()).map(|element| dtype.decode(element)).collect()
    }

    #[test]
    fn elements_are_pinned_bit_for_bit() {
        // A change here changes every figure of every run: it needs a new version in the names, not new literals.
        let table = [
            (Draw::Normal, Dtype::F16, "363c633c19bdf832 517faf828352"),
            (Draw::Normal, Dtype::Bf16, "873f8c3fa3bf5f3e c88a59cd356b"),
            (Draw::Normal, Dtype::F64, "7df455d52cd6f03f82f98495248bf13f0a03263bc762f4bfdfda1a7fe7decb3f 25fd469aa813"),
            (Draw::Uniform, Dtype::F32, "7abc5abf8aeb26bf24f7443d66396abf 7e74e572448a"),
            (Draw::Outliers, Dtype::F32, "67b1863fe90e15c03cf75e3ebf8c6b3f 6bfb2fe0d63a"),
            (Draw::Large, Dtype::E4m3, "5859da46 c10944490d1b"),
            (Draw::Negative, Dtype::E5m2, "bcbcbdb3 e0f64135318e"),
            (Draw::Integers { low: -3, high: 12 }, Dtype::I32, "fffffffffdffffff0400000008000000 2bb46ab45c26"),
            (Draw::Integers { low: 0, high: 2 }, Dtype::Bool, "00000001 d4d3f1ed43d0"),
            (Draw::Permutation { of: 100_000 }, Dtype::U32, "f64300009e100000bcbb0000f4310100 65b6598cd424"),
            (
                Draw::Offsets { total: 1000 },
                Dtype::I64,
                "0000000000000000000000000000000000000000000000000000000000000000 932608225f3f",
            ),
            (Draw::Constant { value: Value::Float(0.5) }, Dtype::F16, "0038003800380038 6591d23ae915"),
        ];
        let pinned = |(draw, dtype, _): &(Draw, Dtype, &str)| {
            let bytes = elements("a name", draw, *dtype, PART + 3).unwrap();
            format!("{} {}", hex(&bytes[..4 * dtype.bytes()]), &hex(&Sha256::digest(&bytes))[..12])
        };
        let found: Vec<String> = table.iter().map(pinned).collect();
        assert_eq!(found, table.map(|(_, _, wanted)| wanted));
    }

    #[test]
    fn floats_are_what_their_distribution_says() {
        let moments = |draw: &Draw| {
            let values = values(draw, Dtype::F64, 100_000);
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / values.len() as f64;
            let [low, high] = values.iter().fold([f64::MAX, f64::MIN], |[low, high], x| [low.min(*x), high.max(*x)]);
            (mean, variance, low, high)
        };
        let near = |a: f64, b: f64, most: f64| (a - b).abs() <= most;
        let (mean, variance, low, high) = moments(&Draw::Normal);
        assert!(near(mean, 0.0, 0.02) && near(variance, 1.0, 0.02) && low < -3.0 && high > 3.0);
        let (mean, variance, low, high) = moments(&Draw::Uniform);
        assert!(near(mean, 0.0, 0.02) && near(variance, 1.0 / 3.0, 0.02) && low >= -1.0 && high < 1.0);
        let (_, variance, _, high) = moments(&Draw::Outliers);
        assert!(near(variance, 1.0 + 399.0 / 256.0, 0.5) && high > 20.0);
        let (_, variance, _, _) = moments(&Draw::Large);
        assert!(near(variance, 256.0, 6.0));
        let (mean, _, _, high) = moments(&Draw::Negative);
        assert!(near(mean, -0.81, 0.02) && high <= -LEAST_NEGATIVE);
    }

    #[test]
    fn integers_keep_their_bounds_and_permutations_are_distinct() {
        let drawn = values(&Draw::Integers { low: -3, high: 12 }, Dtype::I8, 10_000);
        assert!((-3..12).all(|i| drawn.contains(&f64::from(i))) && drawn.iter().all(|x| (-3.0..12.0).contains(x)));
        let mut order = values(&Draw::Permutation { of: 1000 }, Dtype::I16, 1000);
        assert_ne!(order[..20], (0..20).map(f64::from).collect::<Vec<_>>()[..]);
        order.sort_by(f64::total_cmp);
        assert_eq!(order, (0..1000).map(f64::from).collect::<Vec<_>>());
        let mut some = values(&Draw::Permutation { of: 1 << 40 }, Dtype::I64, 1000);
        some.sort_by(f64::total_cmp);
        assert!(some.windows(2).all(|pair| pair[0] < pair[1]) && some[999] > 1e11);
        let offsets = values(&Draw::Offsets { total: 50 }, Dtype::I32, 9);
        assert!(offsets[0] == 0.0 && offsets[8] == 50.0 && offsets.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(values(&Draw::Offsets { total: 7 }, Dtype::I32, 2), [0.0, 7.0]);
        assert_eq!(values(&Draw::Integers { low: i64::MIN, high: i64::MAX }, Dtype::I64, 3).len(), 3);
    }

    #[test]
    fn another_name_draws_other_elements() {
        let of = |name: &str| elements(name, &Draw::Normal, Dtype::F32, 8).unwrap();
        assert_ne!(of("x"), of("y"));
        assert_eq!(of("x"), of("x"));
    }
}
