//! Errors in proportion to the output, and an output beside another one element by element. Leaves to others: which rows are
//! compared, and what the figures are worth.

use half::f16;
use kbench::evidence::{Proportion, WholeOutput};
use rayon::prelude::*;

/// Columns that are looked at together: 16 bytes, the least that a kernel stores at once.
const BLOCK: usize = 8;

/// A quotient of what JSON can hold: where there is nothing to divide by, nothing is right and anything else as wrong as can
/// be.
pub fn ratio(of: f64, by: f64) -> f64 {
    let ratio = of / by;
    if of == 0.0 {
        0.0
    } else if ratio.is_finite() {
        ratio
    } else {
        f64::MAX
    }
}

/// Sums over rows.
#[derive(Default)]
pub struct Sums {
    rows: u64,
    elements: u64,
    along: f64,
    squares: f64,
    magnitude: f64,
    row_rms: f64,
}

impl Sums {
    /// Takes a row of an output and what it should be; elements that are not finite are left out.
    pub fn add(&mut self, row: &[f16], wanted: &[f64]) {
        let (mut errors, mut squares, mut finite) = (0.0, 0.0, 0);
        for (out, wanted) in row.iter().zip(wanted).filter(|(out, _)| out.is_finite()) {
            let error = out.to_f64() - wanted;
            self.along += error * wanted;
            self.magnitude += wanted.abs();
            errors += error * error;
            squares += wanted * wanted;
            finite += 1;
        }
        self.rows += 1;
        self.elements += finite;
        self.squares += squares;
        self.row_rms = self.row_rms.max(ratio(errors.sqrt(), squares.sqrt()));
    }

    /// What they come to.
    pub fn proportion(&self) -> Proportion {
        Proportion {
            rows: self.rows,
            slope: ratio(self.along.abs(), self.squares),
            row_rms: self.row_rms,
            magnitude: self.magnitude / self.elements.max(1) as f64,
        }
    }
}

/// All rows that `ran` says of an output beside the control's. `head_dim` values are a row; `place` says where an element is.
pub fn beside(
    output: &[f16],
    control: &[f16],
    ran: &[bool],
    head_dim: usize,
    place: impl Fn(usize) -> Vec<u32>,
) -> WholeOutput {
    let rows = output.par_chunks_exact(head_dim).zip(control.par_chunks_exact(head_dim)).enumerate();
    let compared = rows.filter(|(row, _)| ran[*row]).map(|(row, (ours, theirs))| {
        let (worst, at) = worst_block(ours, theirs);
        (1, worst, row * head_dim + at)
    });
    let further = |a: (u64, f64, usize), b: (u64, f64, usize)| {
        let (_, worst, at) = if b.1 > a.1 || (b.1 == a.1 && b.2 < a.2) { b } else { a };
        (a.0 + b.0, worst, at)
    };
    let (rows, block_rms, at) = compared.reduce(|| (0, 0.0, usize::MAX), further);
    let worst_at = if at == usize::MAX { Vec::new() } else { place(at) };
    WholeOutput { elements: rows * head_dim as u64, block_rms, worst_at }
}

/// The largest root mean square of the differences in a block, over that of the control's row, and where the block begins.
fn worst_block(ours: &[f16], theirs: &[f16]) -> (f64, usize) {
    let mean_square = |sum: f64, count: usize| (sum / count as f64).sqrt();
    let row = mean_square(theirs.iter().map(|x| x.to_f64() * x.to_f64()).sum(), theirs.len());
    let blocks = ours.chunks(BLOCK).zip(theirs.chunks(BLOCK)).enumerate().map(|(i, (ours, theirs))| {
        let finite = ours.iter().chain(theirs).all(|x| x.is_finite());
        let squares = ours.iter().zip(theirs).map(|(a, b)| (a.to_f64() - b.to_f64()).powi(2)).sum::<f64>();
        let rms = if finite { ratio(mean_square(squares, ours.len()), row) } else { f64::MAX };
        (rms, i * BLOCK)
    });
    blocks.fold((0.0, 0), |worst, block| if block.0 > worst.0 { block } else { worst })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(values: impl IntoIterator<Item = f64>) -> Vec<f16> {
        values.into_iter().map(f16::from_f64).collect()
    }

    fn wave(rows: usize) -> Vec<f64> {
        (0..rows * 64).map(|i| 0.04 * (i as f64 * 0.7).sin() + 0.01 * (i as f64 * 0.13).cos()).collect()
    }

    fn of(change: impl Fn(usize, f64) -> f64) -> Proportion {
        let wanted = wave(40);
        let output = halves(wanted.iter().enumerate().map(|(i, x)| change(i, *x)));
        let mut sums = Sums::default();
        output.chunks_exact(64).zip(wanted.chunks_exact(64)).for_each(|(row, wanted)| sums.add(row, wanted));
        sums.proportion()
    }

    #[test]
    fn a_gain_is_a_slope_a_bias_is_a_rows_error_and_rounding_is_neither() {
        let right = of(|_, x| x);
        assert!(right.slope < 1e-5 && right.row_rms < 4e-4 && right.rows == 40, "{right:?}");
        assert!((right.magnitude - 0.026).abs() < 0.002, "{right:?}");
        let gain = of(|_, x| 1.03 * x);
        assert!((gain.slope - 0.03).abs() < 1e-4 && (gain.row_rms - 0.03).abs() < 1e-3, "{gain:?}");
        let bias = of(|_, x| x + 0.009);
        assert!(bias.row_rms > 0.25, "{bias:?}");
        let row = of(|i, x| if i / 64 == 17 { 0.0 } else { x });
        assert!((row.row_rms - 1.0).abs() < 1e-12 && row.slope < 0.05, "{row:?}");
    }

    #[test]
    fn a_row_that_should_be_zero_is_right_or_as_wrong_as_can_be() {
        let row = |out: f64| {
            let mut sums = Sums::default();
            sums.add(&halves([out; 64]), &[0.0; 64]);
            let Proportion { slope, row_rms, .. } = sums.proportion();
            (slope, row_rms)
        };
        assert_eq!((row(0.0), row(1e-3)), ((0.0, 0.0), (0.0, f64::MAX)));
    }

    fn whole(change: impl Fn(usize, f64) -> f64) -> WholeOutput {
        let control = wave(40);
        let output = halves(control.iter().enumerate().map(|(i, x)| change(i, *x)));
        beside(&output, &halves(control), &[true; 40], 64, |at| vec![at as u32])
    }

    #[test]
    fn whatever_is_missing_of_a_row_is_as_far_from_the_control_as_the_row_is_large() {
        assert_eq!(whole(|_, x| x).block_rms, 0.0);
        let noisy = whole(|i, x| x * (1.0 + 0.06 * ((i * 7919 % 13) as f64 / 6.0 - 1.0)));
        assert!(noisy.block_rms < 0.15, "{noisy:?}");
        let row = whole(|i, x| if i / 64 == 39 { 0.0 } else { x });
        assert!(row.block_rms >= 1.0 && row.worst_at[0] as usize / 64 == 39, "{row:?}");
        let block = whole(|i, x| if (64 * 3 + 8..64 * 3 + 16).contains(&i) { 0.0 } else { x });
        assert!(block.block_rms > 0.5 && block.worst_at == [64 * 3 + 8], "{block:?}");
        for value in [f64::NAN, f64::INFINITY] {
            let spoilt = whole(|i, x| if i == 100 { value } else { x });
            assert_eq!((spoilt.block_rms, &spoilt.worst_at[..]), (f64::MAX, &[96][..]));
        }
        let other = whole(|i, _| 0.04 * ((i + 64) as f64 * 0.7).sin());
        assert!(other.block_rms > 0.5, "the rows of another place: {other:?}");
    }

    #[test]
    fn two_outputs_that_are_nan_are_not_alike_and_rows_that_did_not_run_are_left_out() {
        let output = vec![f16::NAN; 128];
        let both = beside(&output, &output, &[true, false], 64, |at| vec![at as u32]);
        assert_eq!((both.elements, both.block_rms), (64, f64::MAX));
        let none = beside(&output, &output, &[false, false], 64, |at| vec![at as u32]);
        assert_eq!((none.elements, none.block_rms, none.worst_at.len()), (0, 0.0, 0));
    }
}
