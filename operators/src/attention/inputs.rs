//! Inputs: FP16 tensors from a named seed, and their e4m3 form. The same bits on every machine: the generator is
//! ChaCha, and the transcendental functions come from a portable library, not from the system's.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use kbench::operator::attention::Sizes;
use kbench::operator::{Distribution, Problem};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::e4m3;

/// Elements that a thread converts at least.
const PIECE: usize = 1 << 16;
/// Elements of a tensor that lies in a file for the other processes: fewer are drawn as soon as read, and of more a suite has
/// gigabytes.
const SHARED: RangeInclusive<usize> = 1 << 14..=1 << 22;

/// One tensor in both forms.
pub struct Tensor {
    /// FP16 original, `[B * H][S][D]`.
    pub original: Vec<f16>,
    /// e4m3 codes of `original / scale`.
    pub codes: Arc<Vec<u8>>,
    /// One scale per batch and head: original = scale * code.
    pub scales: Vec<f32>,
    /// What is added to every column, `[B * H][D]`; none where nothing is.
    pub offsets: Vec<f32>,
}

/// Q, K and V of one problem.
pub struct Inputs {
    /// `[B, H, S_q, D]`.
    pub q: Tensor,
    /// `[B, H, S_kv, D]`.
    pub k: Tensor,
    /// `[B, H, S_kv, D]`.
    pub v: Tensor,
}

impl Inputs {
    /// Makes the inputs of a problem.
    #[cfg(test)]
    pub fn of(problem: &Problem) -> Inputs {
        Inputs::shared_in(Path::new(""), problem)
    }

    /// The same. Most are drawn once for all processes of a run and lie in `folder` from then on; in none where that has no
    /// name.
    fn shared_in(folder: &Path, problem: &Problem) -> Inputs {
        let shape = Sizes::of(&problem.shape);
        let [q, k, v] = [("q", shape.seq_q), ("k", shape.seq_kv), ("v", shape.seq_kv)].map(|(name, seq)| {
            let heads = shape.batch_heads();
            let size = seq as usize * shape.head_dim as usize;
            let key = seed_of(problem, name);
            let drawn = || {
                let of_head = |head| draw(problem, name, key, head, size);
                (0..heads as u64).into_par_iter().map(of_head).collect::<Vec<_>>().concat()
            };
            let shares = SHARED.contains(&(heads * size)) && !folder.as_os_str().is_empty();
            quantise(if shares { shared(folder, &key, heads * size, drawn) } else { drawn() }, size)
        });
        Inputs { q, k, v }
    }
}

/// A tensor of so many elements that any process of the run drew before, or that this one draws for the others. A file that
/// cannot be written is drawn again by whoever needs it.
fn shared(folder: &Path, key: &[u8; 32], elements: usize, drawn: impl Fn() -> Vec<f16>) -> Vec<f16> {
    let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(format!("{name}.f16"));
    if let Ok(bytes) = std::fs::read(&path)
        && bytes.len() == elements * size_of::<f16>()
    {
        let halves = bytes.as_chunks::<2>().0;
        return halves.par_iter().with_min_len(PIECE).map(|half| f16::from_le_bytes(*half)).collect();
    }
    let values = drawn();
    // It gets its name when it is whole: another process may look for it.
    let partial = folder.join(format!("{name}.{}", std::process::id()));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&partial, bytes_of(&values)));
    if written.and_then(|()| std::fs::rename(&partial, &path)).is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    values
}

/// Halves as a device holds them.
fn bytes_of(values: &[f16]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(values)];
    bytes.par_chunks_mut(size_of::<f16>()).zip(values).with_min_len(PIECE).for_each(|(bytes, value)| {
        bytes.copy_from_slice(&value.to_le_bytes());
    });
    bytes
}

/// Inputs by what they are drawn from: a causal problem has those of its plain twin.
#[derive(Default)]
pub struct Drawn {
    kept: Vec<([u8; 32], Arc<Inputs>)>,
    /// Where tensors lie that any process of the run drew.
    folder: PathBuf,
}

impl Drawn {
    /// Elements kept before all are forgotten; three bytes each. So many hold every seed of two distributions of the largest
    /// shapes, which their causal twins draw again.
    const MOST: usize = 900_000_000;

    /// Inputs that the processes of a run share in a folder.
    pub fn shared_in(folder: &Path) -> Drawn {
        Drawn { folder: folder.to_owned(), ..Drawn::default() }
    }

    /// The inputs of a problem, made now or remembered.
    pub fn of(&mut self, problem: &Problem) -> &Inputs {
        self.shared(problem)
    }

    /// The same, to keep.
    pub fn shared(&mut self, problem: &Problem) -> &Arc<Inputs> {
        let key = seed_of(problem, "all");
        let at = self.kept.iter().position(|(kept, _)| *kept == key).unwrap_or_else(|| {
            let size = |inputs: &Arc<Inputs>| inputs.q.codes.len() + inputs.k.codes.len() + inputs.v.codes.len();
            let inputs = Arc::new(Inputs::shared_in(&self.folder, problem));
            if self.kept.iter().map(|(_, kept)| size(kept)).sum::<usize>() + size(&inputs) > Self::MOST {
                self.kept.clear();
            }
            self.kept.push((key, inputs));
            self.kept.len() - 1
        });
        &self.kept[at].1
    }
}

/// The generator's key: a hash of everything that names the tensor, so that no two tensors share a stream.
/// Causality is left out: a causal problem has the inputs of its plain twin.
fn seed_of(problem: &Problem, tensor: &str) -> [u8; 32] {
    let shape = Sizes::of(&problem.shape);
    let name = format!(
        "sdpa-inputs/1 {}x{}x{}x{}x{} {} seed {} {tensor}",
        shape.batch,
        shape.heads,
        shape.seq_q,
        shape.seq_kv,
        shape.head_dim,
        problem.distribution.name(),
        problem.seed,
    );
    Sha256::digest(name.as_bytes()).into()
}

/// The values of one head.
fn draw(problem: &Problem, tensor: &str, key: [u8; 32], head: u64, size: usize) -> Vec<f16> {
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(head);
    let head_dim = Sizes::of(&problem.shape).head_dim as usize;
    let rows = (size / head_dim) as f64;
    // The mean of |N| is 0.8: so much a key more, and the score of the last is so many nats above that of the first.
    let rise = RISE_NATS / (0.8 * head_dim as f64 * f64::from(Sizes::of(&problem.shape).softmax_scale()));
    (0..size)
        .map(|i| {
            let value = match problem.distribution {
                Distribution::Zeros => 0.0,
                Distribution::Constant => 0.5,
                _ => normal(&mut rng),
            };
            let place = [i / head_dim, i % head_dim];
            let row = place[0] as f64;
            let value = match (problem.distribution, tensor) {
                (Distribution::ConstantValues, "v") => 0.5,
                (Distribution::ZeroQueries, "q") => 0.0,
                (Distribution::Permutation, "q" | "k") => signed_unit(i / head_dim, i % head_dim, head_dim),
                (Distribution::Outliers, _) if rng.next_u32().is_multiple_of(256) => 20.0 * value,
                (Distribution::Large, "q" | "k") => 16.0 * value,
                (Distribution::Negative, _) => -value.abs() - 1.0 / 64.0,
                // Q is positive and K grows along the sequence: scores rise with the key.
                (Distribution::MaximumLast, "q") => value.abs(),
                (Distribution::MaximumLast, "k") => 0.25 * value + rise * row / rows,
                (Distribution::NegativeScores, "q") => value.abs(),
                (Distribution::NegativeScores, "k") => -value.abs() - 1.0,
                (Distribution::OppositeConstants, "q") => 2.0,
                (Distribution::OppositeConstants, "k") => -2.0,
                (Distribution::LargeValues, "v") => 8192.0 * value,
                (Distribution::Trained, _) => sink(tensor, place, head_dim, channels(tensor, place, value)),
                (Distribution::Sink, _) => sink(tensor, place, head_dim, value),
                (Distribution::Channels, _) => channels(tensor, place, value),
                (Distribution::Spread, "q" | "k") => 1.7 * value,
                (Distribution::KeyMean, "k") if place[1] < 4 => value + 12.0,
                (Distribution::Heavy, _) => {
                    let squares: f64 = (0..3).map(|_| normal(&mut rng).powi(2)).sum();
                    value * (3.0 / squares).sqrt()
                }
                (Distribution::Tokens, "k" | "v") if place[0] % 64 == 40 => 6.0 * value,
                _ => value,
            };
            f16::from_f32(value as f32)
        })
        .collect()
}

/// How far scores rise over a whole sequence of [`Distribution::MaximumLast`]: a maximum that stops short of it by half leaves
/// probabilities of e^15, which no half holds in units of 2^-8.
const RISE_NATS: f64 = 30.0;
/// Every query has 8 in column 0 and the first key 1.5 sqrt(D), so that with 1/sqrt(D) its score is 12 higher than it were,
/// against about ln(16 S) for the sum over all the other keys; its value is small.
fn sink(tensor: &str, [row, column]: [usize; 2], head_dim: usize, value: f64) -> f64 {
    match (tensor, row, column) {
        ("q", _, 0) => value + 8.0,
        ("k", 0, 0) => 1.5 * (head_dim as f64).sqrt(),
        ("v", 0, _) => 0.1 * value,
        _ => value,
    }
}

/// One column of Q is six times, two of K are ten times larger than the rest.
fn channels(tensor: &str, [_, column]: [usize; 2], value: f64) -> f64 {
    match (tensor, column) {
        ("q", 1) => 6.0 * value,
        ("k", 2 | 3) => 10.0 * value,
        _ => value,
    }
}

/// Element of row `row`: +-32 where the column is the row modulo D, the sign by the row modulo 2D. With 1/sqrt(D) the
/// product of two equal rows is 90 or more above that of any others, and e^-90 is nothing to any sum.
fn signed_unit(row: usize, column: usize, head_dim: usize) -> f64 {
    let sign = if (row / head_dim).is_multiple_of(2) { 1.0 } else { -1.0 };
    if row % head_dim == column { 32.0 * sign } else { 0.0 }
}

/// A standard normal number by Box and Muller; the sine half is not used, which keeps the stream simple to restate.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let uniform = |rng: &mut ChaCha8Rng| (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    let radius = (-2.0 * libm::log(uniform(rng))).sqrt();
    radius * libm::cos(std::f64::consts::TAU * uniform(rng))
}

/// Per-head scales that map the largest magnitude to 448; a head of zeros has scale 1.
fn quantise(original: Vec<f16>, head_size: usize) -> Tensor {
    let scale = |head: &[f16]| {
        let amax = e4m3::largest(head);
        if amax == 0.0 { 1.0 } else { amax / e4m3::MAX }
    };
    let scales: Vec<f32> = original.par_chunks(head_size).map(scale).collect();
    let codes: Vec<Vec<u8>> = original
        .par_chunks(head_size)
        .zip(&scales)
        .map(|(head, &scale)| e4m3::encode_all(head, |x| x / scale))
        .collect();
    Tensor { original, codes: Arc::new(codes.concat()), scales, offsets: Vec::new() }
}

impl Tensor {
    /// The scales as the device holds them.
    pub fn scale_bytes(&self) -> Vec<u8> {
        self.scales.iter().flat_map(|s| s.to_le_bytes()).collect()
    }

    /// The originals as the device holds them.
    pub fn original_bytes(&self) -> Vec<u8> {
        bytes_of(&self.original)
    }

    /// The originals of a head in float64.
    pub fn exact_head(&self, head: usize) -> Vec<f64> {
        self.original[self.of_head(head)].iter().map(|x| x.to_f64()).collect()
    }

    /// What the codes of a head stand for, in float64.
    pub fn dequantised_head(&self, head: usize) -> Vec<f64> {
        let scale = f64::from(self.scales[head]);
        let values: Vec<f64> = (0..=u8::MAX).map(|code| scale * f64::from(e4m3::decode(code))).collect();
        let decoded = self.codes[self.of_head(head)].iter().map(|code| values[usize::from(*code)]);
        let columns = self.offsets.len() / self.scales.len();
        if columns == 0 {
            return decoded.collect();
        }
        let offsets = &self.offsets[head * columns..][..columns];
        decoded.zip(offsets.iter().cycle()).map(|(value, offset)| value + f64::from(*offset)).collect()
    }

    fn of_head(&self, head: usize) -> std::ops::Range<usize> {
        let size = self.codes.len() / self.scales.len();
        head * size..(head + 1) * size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Tensor {
        fn exact(&self) -> Vec<f64> {
            (0..self.scales.len()).flat_map(|head| self.exact_head(head)).collect()
        }

        fn dequantised(&self) -> Vec<f64> {
            (0..self.scales.len()).flat_map(|head| self.dequantised_head(head)).collect()
        }
    }

    fn problem(shape: &str, seed: u64, distribution: Distribution) -> Problem {
        Problem { shape: shape.parse().unwrap(), seed, distribution }
    }

    #[test]
    fn inputs_are_pinned_bit_for_bit() {
        // A change here changes every figure of every run: it needs a new version in `seed_of`, not a new literal.
        let inputs = Inputs::of(&problem("tiny", 0, Distribution::Normal));
        let bits: Vec<u16> = inputs.q.original[..4].iter().map(|x| x.to_bits()).collect();
        let hash = Sha256::digest([&inputs.q.codes[..], &inputs.k.codes[..], &inputs.v.codes[..]].concat());
        let hex: String = hash[..6].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((bits, hex.as_str()), (PINNED_Q.to_vec(), PINNED_CODES));
    }

    const PINNED_Q: [u16; 4] = [46426, 48532, 15021, 47025];
    const PINNED_CODES: &str = "7c0e5744ea19";

    #[test]
    fn normal_inputs_are_normal_and_seeds_and_tensors_differ() {
        let a = Inputs::of(&problem("small", 0, Distribution::Normal));
        let values: Vec<f64> = a.q.exact();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        let b = Inputs::of(&problem("small", 1, Distribution::Normal));
        assert!(a.q.codes != b.q.codes && a.q.codes != a.k.codes && a.k.codes != a.v.codes);
        let causal = Inputs::of(&problem("small-causal", 0, Distribution::Normal));
        assert_eq!(a.v.codes, causal.v.codes);
    }

    #[test]
    fn permuted_rows_match_the_keys_of_their_own_number_alone() {
        let inputs = Inputs::of(&problem("cross", 0, Distribution::Permutation));
        let (q, k) = (inputs.q.exact(), inputs.k.exact());
        for (row, key) in [(0, 0), (44, 44), (44, 172), (44, 108), (3, 67), (3, 131), (9, 10)] {
            let dot: f64 = (0..64).map(|d| q[row * 64 + d] * k[key * 64 + d]).sum();
            let wanted = if (key - row) & 127 == 0 {
                1024.0
            } else if (key - row) % 64 == 0 {
                -1024.0
            } else {
                0.0
            };
            assert_eq!(dot, wanted, "{row} {key}");
        }
    }

    #[test]
    fn quantised_values_stay_within_half_a_step_and_fill_the_range() {
        for distribution in Distribution::ALL {
            let inputs = Inputs::of(&problem("ragged", 0, distribution));
            for tensor in [&inputs.q, &inputs.k, &inputs.v] {
                let head = tensor.codes.len() / tensor.scales.len();
                for (i, (exact, rounded)) in tensor.exact().iter().zip(tensor.dequantised()).enumerate() {
                    let scale = f64::from(tensor.scales[i / head]);
                    let bound = (exact.abs() / 16.0).max(scale * 2f64.powi(-10)) * 1.0001;
                    assert!((exact - rounded).abs() <= bound, "{} {i}: {exact} {rounded}", distribution.name());
                }
                let top = tensor.codes.iter().any(|c| c & 0x7f == 0x7e);
                let zeros = tensor.exact().iter().all(|x| *x == 0.0);
                assert_ne!(top, zeros, "{}", distribution.name());
            }
        }
    }

    #[test]
    fn remembered_inputs_are_those_of_the_problem() {
        let mut drawn = Drawn::default();
        for (shape, seed) in [("tiny", 0), ("tiny", 1), ("tiny-causal", 0), ("ragged", 0), ("tiny", 0)] {
            let problem = problem(shape, seed, Distribution::Normal);
            assert_eq!(drawn.of(&problem).k.codes, Inputs::of(&problem).k.codes, "{shape} {seed}");
        }
        assert_eq!(drawn.kept.len(), 3);
    }

    #[test]
    fn large_tensors_are_drawn_once_for_all_who_share_a_folder_and_read_when_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let problem = problem("1x8x2048x64", 3, Distribution::Normal);
        let shared = |folder: &Path| Drawn::shared_in(folder).of(&problem).k.original.clone();
        let drawn = Inputs::of(&problem).k.original;
        assert!(shared(folder.path()) == drawn && shared(folder.path()) == drawn);
        let files: Vec<PathBuf> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 3, "{files:?}");
        // What lies there is what is taken, unless it is torn.
        files.iter().for_each(|file| std::fs::write(file, vec![0; 2 * drawn.len()]).unwrap());
        assert!(shared(folder.path()).iter().all(|value| *value == f16::ZERO));
        files.iter().for_each(|file| std::fs::write(file, [0; 7]).unwrap());
        assert!(shared(folder.path()) == drawn);
        assert!(shared(Path::new("/proc/none")) == drawn, "where nothing can be written, everybody draws");
    }

    #[test]
    fn the_first_key_draws_most_of_the_weight_of_trained_inputs_and_columns_stand_out() {
        for (shape, head_dim) in [("mission-b1", 64), ("1x2x512x128", 128)] {
            let inputs = Inputs::of(&problem(shape, 0, Distribution::Trained));
            let (q, k) = (inputs.q.exact(), inputs.k.exact());
            let score = |row: usize, key: usize| {
                let dot: f64 = (0..head_dim).map(|d| q[row * head_dim + d] * k[key * head_dim + d]).sum();
                dot / (head_dim as f64).sqrt()
            };
            let weight = |row: usize| {
                let of = |key: usize| (score(row, key) - score(row, 0)).exp();
                1.0 / (0..512).map(of).sum::<f64>()
            };
            let mean = (0..64).map(weight).sum::<f64>() / 64.0;
            assert!((0.5..0.98).contains(&mean), "{shape}: {mean}");
            let largest = |column: usize| (1..512).map(|row| k[row * head_dim + column].abs()).fold(0.0, f64::max);
            assert!(largest(2) > 5.0 * largest(5), "{shape}");
        }
    }

    #[test]
    fn inputs_like_models_have_what_they_are_named_for() {
        let of = |distribution| Inputs::of(&problem("mission-b1", 0, distribution));
        let largest = |values: Vec<f64>, is: fn(usize) -> bool| {
            let of_those = values.iter().enumerate().filter(|(i, _)| is(*i)).map(|(_, x)| x.abs());
            of_those.fold(0.0, f64::max)
        };
        let deviation = |values: Vec<f64>| (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt();
        assert!((deviation(of(Distribution::Spread).k.exact()) - 1.7).abs() < 0.02);
        let shifted = of(Distribution::KeyMean).k.exact();
        assert!((shifted.iter().skip(3).step_by(64).sum::<f64>() / (512.0 * 8.0) - 12.0).abs() < 0.1);
        assert!((deviation(shifted.iter().skip(4).step_by(64).copied().collect()) - 1.0).abs() < 0.05);
        let k = of(Distribution::Channels).k.exact();
        assert!(largest(k.clone(), |i| i % 64 == 2) > 5.0 * largest(k, |i| i % 64 == 5));
        assert!(of(Distribution::Sink).k.exact()[0] == 12.0);
        assert!(largest(of(Distribution::Heavy).v.exact(), |_| true) > 20.0);
        let v = of(Distribution::Tokens).v.exact();
        assert!(largest(v.clone(), |i| i / 64 % 64 == 40) > 3.0 * largest(v, |i| i / 64 % 64 != 40));
    }

    #[test]
    fn the_maximum_comes_last_where_it_should() {
        let inputs = Inputs::of(&problem("small", 0, Distribution::MaximumLast));
        let (q, k) = (inputs.q.exact(), inputs.k.exact());
        let score = |key: usize| (0..64).map(|d| q[d] * k[key * 64 + d]).sum::<f64>();
        assert!(score(127) > score(0) && score(127) > score(64));
    }

    #[test]
    fn the_maximum_rises_by_as_much_however_long_the_sequence_is_and_whatever_the_scale() {
        for shape in ["1x1x4x128x64", "1x1x4x2048x64", "1x1x4x512x128", "1x1x4x512x64-scale0.05"] {
            let problem = problem(shape, 0, Distribution::MaximumLast);
            let (inputs, sizes) = (Inputs::of(&problem), Sizes::of(&problem.shape));
            let (q, k, d) = (inputs.q.dequantised(), inputs.k.dequantised(), sizes.head_dim as usize);
            let score = |row: usize, key: usize| -> f64 {
                let dot: f64 = (0..d).map(|i| q[row * d + i] * k[key * d + i]).sum();
                dot * f64::from(sizes.softmax_scale())
            };
            let rise: f64 = (0..4).map(|row| score(row, sizes.seq_kv as usize - 1) - score(row, 0)).sum::<f64>() / 4.0;
            assert!((24.0..36.0).contains(&rise), "{shape}: {rise}");
        }
    }

    #[test]
    fn no_score_reaches_zero_where_all_are_negative() {
        for distribution in [Distribution::NegativeScores, Distribution::OppositeConstants] {
            let inputs = Inputs::of(&problem("ragged", 0, distribution));
            let (q, k) = (inputs.q.dequantised(), inputs.k.dequantised());
            let scores = (0..77).flat_map(|row| (0..77).map(move |key| (row, key)));
            let largest =
                scores.map(|(row, key)| (0..64).map(|d| q[row * 64 + d] * k[key * 64 + d]).sum::<f64>() / 8.0);
            assert!(largest.fold(f64::NEG_INFINITY, f64::max) < -5.0, "{}", distribution.name());
        }
        let large = Inputs::of(&problem("ragged", 0, Distribution::LargeValues));
        let amax = large.v.exact().into_iter().fold(0.0, |max: f64, x| max.max(x.abs()));
        assert!((16_384.0..60_000.0).contains(&amax), "{amax}");
    }
}
