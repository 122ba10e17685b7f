//! Errors of one output against what it should be. Leaves to others: where both come from, and limits.

use kbench::evidence::OutputErrors;
use kbench::operator::declared::Tensor;
use kernel_spec::dtype::Dtype;

use super::layout::coordinate;

/// What an output should hold: float64 for floats, else elements of its type.
pub struct Truth {
    /// Dense, the last dimension innermost.
    pub elements: Vec<u8>,
}

impl Truth {
    /// The float64 value of an element of a float output.
    fn value(&self, index: usize) -> f64 {
        Dtype::F64.decode(&self.elements[8 * index..8 * index + 8])
    }

    /// The first NaN of a float output.
    pub fn first_nan(&self) -> Option<u64> {
        (0..self.elements.len() / 8).find(|i| self.value(*i).is_nan()).map(|i| i as u64)
    }
}

/// Compares dense elements with the truth.
pub fn of(tensor: &Tensor, elements: &[u8], truth: &Truth, gaps_intact: bool) -> OutputErrors {
    if tensor.dtype.is_float() {
        of_floats(tensor, elements, truth, gaps_intact)
    } else {
        of_integers(tensor, elements, truth, gaps_intact)
    }
}

/// An output of which nothing but its gaps is known.
fn none(tensor: &Tensor, gaps_intact: bool) -> OutputErrors {
    OutputErrors {
        output: tensor.name.clone(),
        elements: tensor.layout.elements,
        wrong: 0,
        worst_at: vec![0; tensor.layout.shape.len()],
        max: 0.0,
        mean: 0.0,
        relative: 0.0,
        relative_rms: 0.0,
        slope: None,
        row_relative: 0.0,
        reference_amax: 0.0,
        gaps_intact,
    }
}

/// An output that a checker judges: of its errors only NaN is known, and where the first is.
pub fn unjudged(tensor: &Tensor, elements: &[u8], gaps_intact: bool) -> OutputErrors {
    let values = elements.chunks_exact(tensor.dtype.bytes()).map(|element| tensor.dtype.decode(element));
    let is_nan = |(_, value): &(u64, f64)| tensor.dtype.is_float() && value.is_nan();
    let nans: Vec<u64> = (0..).zip(values).filter(is_nan).map(|(i, _)| i).collect();
    OutputErrors {
        wrong: nans.len() as u64,
        worst_at: coordinate(&tensor.layout.shape, nans.first().copied().unwrap_or(0)),
        ..none(tensor, gaps_intact)
    }
}

fn of_integers(tensor: &Tensor, elements: &[u8], truth: &Truth, gaps_intact: bool) -> OutputErrors {
    let size = tensor.dtype.bytes();
    let pairs = elements.chunks_exact(size).zip(truth.elements.chunks_exact(size));
    let wrong: Vec<u64> = (0..).zip(pairs).filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect();
    let first = wrong.first().copied().unwrap_or(0);
    let amax = truth.elements.chunks_exact(size).map(|element| tensor.dtype.decode(element).abs()).fold(0.0, f64::max);
    OutputErrors {
        wrong: wrong.len() as u64,
        worst_at: coordinate(&tensor.layout.shape, first),
        reference_amax: amax,
        ..none(tensor, gaps_intact)
    }
}

/// The sums behind the errors of a float output.
#[derive(Default)]
struct Sums {
    counted: u64,
    wrong: u64,
    first_wrong: Option<u64>,
    worst: u64,
    max: f64,
    sum: f64,
    relative: f64,
    squares: f64,
    reference_squares: f64,
    along: f64,
    row_relative: f64,
    amax: f64,
}

impl Sums {
    /// The largest |error| and |reference| of a row so far go in and come out.
    fn add(&mut self, index: u64, dtype: Dtype, value: f64, wanted: f64, row: &mut [f64; 2]) {
        if !value.is_finite() || wanted.is_infinite() {
            // A value beyond the type's range is infinite once it is rounded to it, which no kernel can help.
            let right = value.is_infinite() && rounded(dtype, wanted) == value;
            if !right {
                self.wrong += 1;
                self.first_wrong = self.first_wrong.or(Some(index));
            }
            return;
        }
        let error = (value - wanted).abs().min(f64::MAX);
        self.counted += 1;
        if error > self.max {
            (self.max, self.worst) = (error, index);
        }
        self.sum += error;
        self.relative = self.relative.max(ratio(error, wanted.abs()));
        self.squares += error * error;
        self.reference_squares += wanted * wanted;
        self.along += (value - wanted) * wanted;
        self.amax = self.amax.max(wanted.abs());
        *row = [row[0].max(error), row[1].max(wanted.abs())];
    }
}

/// Where nothing is there to compare with, or more than can be counted, an error is as large as can be.
fn ratio(error: f64, of: f64) -> f64 {
    match error / of {
        _ if error == 0.0 => 0.0,
        ratio if of.is_finite() && ratio < f64::MAX => ratio,
        _ => f64::MAX,
    }
}

fn rounded(dtype: Dtype, value: f64) -> f64 {
    let mut element = Vec::new();
    dtype.encode(value, &mut element);
    dtype.decode(&element)
}

fn of_floats(tensor: &Tensor, elements: &[u8], truth: &Truth, gaps_intact: bool) -> OutputErrors {
    let (dtype, shape) = (tensor.dtype, &tensor.layout.shape);
    let length = shape.last().copied().unwrap_or(1) as usize;
    let mut sums = Sums::default();
    for (number, row) in elements.chunks_exact(length * dtype.bytes()).enumerate() {
        let mut largest = [0.0; 2];
        for (at, element) in row.chunks_exact(dtype.bytes()).enumerate() {
            let index = number * length + at;
            sums.add(index as u64, dtype, dtype.decode(element), truth.value(index), &mut largest);
        }
        sums.row_relative = sums.row_relative.max(ratio(largest[0], largest[1]));
    }
    let squares = ratio(sums.squares.min(f64::MAX), sums.reference_squares);
    OutputErrors {
        wrong: sums.wrong,
        worst_at: coordinate(shape, sums.first_wrong.unwrap_or(sums.worst)),
        max: sums.max,
        mean: (sums.sum / sums.counted.max(1) as f64).min(f64::MAX),
        relative: sums.relative,
        relative_rms: if squares < f64::MAX { squares.sqrt() } else { f64::MAX },
        slope: Some(if sums.along.is_finite() { ratio(sums.along.abs(), sums.reference_squares) } else { f64::MAX }),
        row_relative: sums.row_relative,
        reference_amax: sums.amax,
        ..none(tensor, gaps_intact)
    }
}

/// The largest difference of two outputs: of floats that differ by more than their bits, and not at all between equal
/// bits; the largest number there is where exactly one is finite, and for any difference of integers.
pub fn difference(dtype: Dtype, ours: &[u8], theirs: &[u8]) -> f64 {
    let size = dtype.bytes();
    let pairs = ours.chunks_exact(size).zip(theirs.chunks_exact(size)).filter(|(a, b)| a != b);
    pairs.fold(0.0, |max, (a, b)| {
        let difference = (dtype.decode(a) - dtype.decode(b)).abs();
        f64::max(max, if dtype.is_float() && difference.is_finite() { difference } else { f64::MAX })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::operator::declared::{Layout, Role};

    fn tensor(dtype: Dtype, shape: &[u64]) -> Tensor {
        let elements: u64 = shape.iter().product();
        let strides = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        let layout = Layout { shape: shape.to_vec(), strides, elements, bytes: elements * dtype.bytes() as u64 };
        Tensor { name: "y".into(), dtype, layout, role: Role::Output { inplace: None } }
    }

    fn bytes(dtype: Dtype, values: &[f64]) -> Vec<u8> {
        let mut out = Vec::new();
        values.iter().for_each(|value| dtype.encode(*value, &mut out));
        out
    }

    fn floats(dtype: Dtype, shape: &[u64], values: &[f64], truth: &[f64]) -> OutputErrors {
        let truth = Truth { elements: bytes(Dtype::F64, truth) };
        of(&tensor(dtype, shape), &bytes(dtype, values), &truth, true)
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn figures_of_floats_are_those_of_their_definitions() {
        let errors = floats(Dtype::F32, &[2, 2], &[1.0, 2.5, 4.0, 8.0], &[1.0, 2.0, 4.0, 10.0]);
        assert_eq!((errors.elements, errors.wrong, &errors.worst_at[..]), (4, 0, &[1, 1][..]));
        assert_eq!((errors.max, errors.mean, errors.relative), (2.0, 0.625, 0.25));
        assert_eq!(errors.relative_rms, (4.25_f64 / 121.0).sqrt());
        assert_eq!(errors.slope, Some(19.0 / 121.0));
        assert_eq!((errors.row_relative, errors.reference_amax), (0.25, 10.0));
        let scalar = floats(Dtype::F64, &[], &[3.0], &[2.0]);
        assert_eq!((scalar.max, scalar.row_relative, scalar.worst_at.len()), (1.0, 0.5, 0));
        let exact = floats(Dtype::F16, &[3], &[0.0, -0.0, 0.0], &[0.0; 3]);
        assert_eq!((exact.max, exact.relative, exact.relative_rms, exact.row_relative), (0.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn an_error_where_nothing_should_be_is_as_large_as_can_be() {
        let errors = floats(Dtype::F32, &[2], &[0.0, 1e-30], &[0.0, 0.0]);
        assert_eq!([errors.relative, errors.row_relative], [f64::MAX; 2]);
        assert!(errors.relative_rms > 1e150 && errors.relative_rms.is_finite());
        let huge = floats(Dtype::F64, &[2], &[f64::MAX, -f64::MAX], &[-f64::MAX, f64::MAX]);
        assert!([huge.max, huge.mean, huge.relative, huge.relative_rms].iter().all(|figure| figure.is_finite()));
    }

    #[test]
    fn nan_and_wrong_infinities_are_wrong_and_right_infinities_have_no_error() {
        let of = |value: f64, wanted: f64| floats(Dtype::F16, &[2], &[value, 1.0], &[wanted, 1.0]).wrong;
        let table = [
            (f64::NAN, 1.0, 1),
            (f64::NAN, INF, 1),
            (INF, INF, 0),
            (-INF, -INF, 0),
            (INF, -INF, 1),
            (INF, 1.0, 1),
            (1.0, INF, 1),
            (INF, 1e6, 0),
            (-INF, 1e6, 1),
        ];
        for (value, wanted, wrong) in table {
            assert_eq!(of(value, wanted), wrong, "{value} {wanted}");
        }
        let errors = floats(Dtype::F32, &[2, 2], &[9.0, INF, f64::NAN, 1.0], &[1.0, INF, 2.0, 1.0]);
        assert_eq!((errors.wrong, &errors.worst_at[..], errors.max, errors.mean), (1, &[1, 0][..], 8.0, 4.0));
        let all = floats(Dtype::Bf16, &[2], &[f64::NAN; 2], &[1.0; 2]);
        assert_eq!((all.wrong, all.max, all.mean, all.relative_rms), (2, 0.0, 0.0, 0.0));
    }

    #[test]
    fn integers_and_bools_are_compared_by_their_bits() {
        type Row<'a> = (Dtype, &'a [u8], &'a [u8], u64, u32);
        let table: [Row; 4] = [
            (Dtype::I32, &[1, 0, 0, 0, 2, 0, 0, 0], &[1, 0, 0, 0, 3, 0, 0, 0], 1, 1),
            (Dtype::U8, &[7, 8], &[7, 8], 0, 0),
            (Dtype::Bool, &[1, 2], &[1, 1], 1, 1),
            (Dtype::I64, &[255; 16], &[254; 16], 2, 0),
        ];
        for (dtype, ours, wanted, wrong, at) in table {
            let errors = of(&tensor(dtype, &[2]), ours, &Truth { elements: wanted.to_vec() }, true);
            assert_eq!((errors.wrong, &errors.worst_at[..]), (wrong, &[at][..]), "{dtype}");
        }
    }

    #[test]
    fn differences_count_integers_and_what_is_not_finite_as_the_largest() {
        let f16 = |a: &[f64], b: &[f64]| difference(Dtype::F16, &bytes(Dtype::F16, a), &bytes(Dtype::F16, b));
        assert_eq!(f16(&[1.0, 2.0], &[1.0, 2.5]), 0.5);
        assert_eq!(f16(&[f64::NAN, INF], &[f64::NAN, INF]), 0.0);
        assert_eq!(f16(&[INF], &[1.0]), f64::MAX);
        assert_eq!(difference(Dtype::I32, &[1, 0, 0, 0], &[2, 0, 0, 0]), f64::MAX);
        assert_eq!(difference(Dtype::I32, &[1, 0, 0, 0], &[1, 0, 0, 0]), 0.0);
    }
}
