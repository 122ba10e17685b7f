//! The errors job: outputs of any number of subjects against float64 attention. Touches no device.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use half::f16;
use kbench::evidence::Errors;
use kbench::job::{ErrorsJob, Event, output_file};
use kbench::shape::{Problem, Shape};

use crate::events::{emit, progress};
use crate::inputs::Inputs;
use crate::reference::attention;

/// Runs the job: the reference of a problem is computed once for all subjects, and only if one has an output.
pub fn run(job: &ErrorsJob) -> Result<()> {
    for (i, problem) in job.problems.iter().enumerate() {
        progress(i, job.problems.len(), &format!("float64 reference of {}", problem.id()));
        let read = |dir: &Path| read_output(&dir.join(output_file(problem)), &problem.shape);
        let mut outputs = Vec::new();
        for (subject, dir) in &job.outputs {
            if let Some(output) = read(dir)? {
                outputs.push((subject, output));
            }
        }
        if outputs.is_empty() {
            continue;
        }
        let reference = Reference::of(problem);
        let control = outputs.iter().find(|(subject, _)| **subject == job.control).map(|(_, output)| output.clone());
        for (subject, output) in outputs {
            let errors = reference.errors(&problem.shape, &output, control.as_deref(), job.bad_element);
            emit(&Event::Compared { subject: subject.clone(), problem: problem.clone(), errors });
        }
    }
    Ok(())
}

/// The FP16 output in a file; `None` when there is none.
fn read_output(path: &Path, shape: &Shape) -> Result<Option<Vec<f16>>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    };
    ensure!(
        bytes.len() == shape.q_len() * 2,
        "`{}` has {} bytes, {} expected",
        path.display(),
        bytes.len(),
        shape.q_len() * 2
    );
    Ok(Some(bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect()))
}

/// Both float64 results of a problem.
struct Reference {
    dequantised: Vec<f64>,
    original: Vec<f64>,
}

impl Reference {
    fn of(problem: &Problem) -> Reference {
        let Inputs { q, k, v } = Inputs::of(problem);
        Reference {
            dequantised: attention(&problem.shape, &q.dequantised(), &k.dequantised(), &v.dequantised()),
            original: attention(&problem.shape, &q.exact(), &k.exact(), &v.exact()),
        }
    }

    fn errors(&self, shape: &Shape, output: &[f16], control: Option<&[f16]>, bad_element: f64) -> Errors {
        let mut errors = Errors {
            elements: output.len() as u64,
            nan: 0,
            inf: 0,
            kernel_max: 0.0,
            kernel_mean: 0.0,
            worst_at: [0; 4],
            floor_max: 0.0,
            end_to_end_max: 0.0,
            end_to_end_mean: 0.0,
            bad_share: 0.0,
            reference_amax: 0.0,
            from_control_max: control.map(|c| max_difference(output, c)),
        };
        let mut worst = 0;
        let mut bad = 0u64;
        for (i, ((out, dequantised), original)) in output.iter().zip(&self.dequantised).zip(&self.original).enumerate()
        {
            errors.floor_max = errors.floor_max.max((dequantised - original).abs());
            errors.reference_amax = errors.reference_amax.max(dequantised.abs());
            let out = out.to_f64();
            if !out.is_finite() {
                if errors.nan + errors.inf == 0 {
                    worst = i;
                }
                errors.nan += u64::from(out.is_nan());
                errors.inf += u64::from(out.is_infinite());
                continue;
            }
            let (kernel, end_to_end) = ((out - dequantised).abs(), (out - original).abs());
            if kernel > errors.kernel_max && errors.nan + errors.inf == 0 {
                worst = i;
            }
            errors.kernel_max = errors.kernel_max.max(kernel);
            errors.kernel_mean += kernel;
            errors.end_to_end_max = errors.end_to_end_max.max(end_to_end);
            errors.end_to_end_mean += end_to_end;
            bad += u64::from(end_to_end > bad_element);
        }
        let finite = (errors.elements - errors.nan - errors.inf).max(1) as f64;
        errors.kernel_mean /= finite;
        errors.end_to_end_mean /= finite;
        errors.bad_share = bad as f64 / errors.elements as f64;
        errors.worst_at = coordinate(shape, worst);
        errors
    }
}

/// The largest difference; the largest number there is where exactly one side is finite (JSON has no infinity).
fn max_difference(a: &[f16], b: &[f16]) -> f64 {
    a.iter().zip(b).fold(0.0, |max, (x, y)| {
        let difference = (x.to_f64() - y.to_f64()).abs();
        if x.to_bits() == y.to_bits() {
            max
        } else if !difference.is_finite() {
            f64::MAX
        } else {
            f64::max(max, difference)
        }
    })
}

/// `[b, h, s, d]` of an element.
fn coordinate(shape: &Shape, index: usize) -> [u32; 4] {
    let (d, s, h) = (shape.head_dim as usize, shape.seq_q as usize, shape.heads as usize);
    [index / (d * s * h), index / (d * s) % h, index / d % s, index % d].map(|x| x as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::shape::Distribution;

    fn problem() -> Problem {
        Problem { shape: "ragged-causal".parse().unwrap(), seed: 0, distribution: Distribution::Normal }
    }

    fn perfect(reference: &Reference) -> Vec<f16> {
        reference.dequantised.iter().map(|x| f16::from_f64(*x)).collect()
    }

    #[test]
    fn a_perfect_kernel_has_the_quantisation_floor_as_its_end_to_end_error() {
        let problem = problem();
        let reference = Reference::of(&problem);
        let output = perfect(&reference);
        let errors = reference.errors(&problem.shape, &output, Some(&output), 0.06);
        assert!(errors.kernel_max < 2e-3 && errors.kernel_max > 0.0, "{errors:?}");
        assert!((errors.end_to_end_max - errors.floor_max).abs() < 2e-3, "{errors:?}");
        assert!(errors.floor_max > 0.02 && errors.end_to_end_mean < 0.012, "{errors:?}");
        assert_eq!((errors.nan, errors.inf, errors.from_control_max), (0, 0, Some(0.0)));
    }

    #[test]
    fn one_wrong_element_is_found_wherever_it_is() {
        let problem = problem();
        let reference = Reference::of(&problem);
        let good = perfect(&reference);
        for (index, value) in [(0, 9.0), (64 * 77 + 65, f32::NAN), (good.len() - 1, f32::INFINITY)] {
            let mut output = good.clone();
            output[index] = f16::from_f32(value);
            let errors = reference.errors(&problem.shape, &output, Some(&good), 0.06);
            assert_eq!(errors.worst_at, coordinate(&problem.shape, index));
            assert_eq!(errors.nan + errors.inf, u64::from(!value.is_finite()));
            assert!(errors.kernel_max > 1.0 || !value.is_finite());
            assert!(errors.from_control_max.unwrap() > 1.0);
        }
        assert_eq!(coordinate(&problem.shape, 64 * 77 + 65), [0, 1, 1, 1]);
    }

    #[test]
    fn an_untouched_output_is_all_nan() {
        let problem = problem();
        let reference = Reference::of(&problem);
        let poisoned = vec![f16::from_bits(0xffff); problem.shape.q_len()];
        let errors = reference.errors(&problem.shape, &poisoned, None, 0.06);
        assert_eq!(errors.nan, errors.elements);
    }
}
