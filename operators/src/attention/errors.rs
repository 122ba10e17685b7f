//! The errors job: outputs of any number of subjects against float64 attention. Touches no device.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use half::f16;
use kbench::evidence::{Errors, Floor, Operands, Proportion, WholeOutput};
use kbench::job::{ErrorsJob, Event, output_file, rows_file};
use kbench::operator::Problem;
use kbench::operator::attention::{Rows, Sizes};
use rayon::prelude::*;

use super::inputs::{Drawn, Inputs};
use super::reference::{Head, attention};
use super::sampling::{only, row_count, sampled_rows};
use super::{images, proportion};
use crate::Tell;

/// Processors of a host with memory for four problems at once.
const MANY_THREADS: usize = 8;

/// What compares, and the references that it keeps from one job to the next.
#[derive(Default)]
pub struct Comparer {
    drawn: Drawn,
    /// Elements of outputs whose references are kept at most.
    most: usize,
    kept: HashMap<Problem, Reference>,
}

impl Comparer {
    /// Elements of the outputs of all problems whose references are kept, two or three float64 values each; what no row
    /// was wanted of takes no memory.
    const MOST: usize = 200_000_000;

    /// Of inputs that the processes of a run share in a folder; `keeping` says whether references stay.
    pub fn of(folder: &Path, keeping: bool) -> Comparer {
        let most = if keeping { Self::MOST } else { 0 };
        Comparer { drawn: Drawn::shared_in(folder), most, kept: HashMap::new() }
    }
}

impl crate::Comparer for Comparer {
    /// Problems whose references are there all at once, the others one after the other; the reference of a problem is
    /// computed once for all subjects, and only for rows that one computed.
    fn run(&mut self, job: &ErrorsJob, tell: Tell) -> Result<()> {
        let (there, others): (Vec<_>, Vec<_>) = job.problems.iter().partition(|problem| self.is_ready(job, problem));
        let compare = |problem: &&Problem| {
            let case = Case::read(job, problem)?;
            Ok(case.errors(&self.kept[*problem], job))
        };
        let compared: Vec<Vec<(String, Errors)>> =
            if job.ahead { Vec::new() } else { there.par_iter().map(compare).collect::<Result<_>>()? };
        for (problem, errors) in there.into_iter().zip(compared) {
            compared_with(tell, problem, errors);
        }
        if self.most == 0 && !job.ahead {
            return self.several_at_once(job, &others, tell);
        }
        for (i, problem) in others.iter().enumerate() {
            tell(begun(i, others.len(), problem));
            if job.ahead {
                self.reference(problem, forms_of(job), rows_of(job, problem));
                continue;
            }
            let case = Case::read(job, problem)?;
            if !case.outputs.is_empty() {
                let reference = self.reference(problem, case.forms(), case.wanted());
                compared_with(tell, problem, case.errors(reference, job));
            }
        }
        Ok(())
    }
}

impl Comparer {
    /// Where no reference is kept: a few problems at a time, so that what takes one processor of the one has the others' of
    /// the others.
    fn several_at_once(&mut self, job: &ErrorsJob, problems: &[&Problem], tell: Tell) -> Result<()> {
        let count = if rayon::current_num_threads() < MANY_THREADS { 2 } else { 4 };
        for (turn, some) in problems.chunks(count).enumerate() {
            tell(begun(count * turn, problems.len(), some[0]));
            let drawn: Vec<Arc<Inputs>> = some.iter().map(|problem| self.drawn.shared(problem).clone()).collect();
            let compare = |(problem, inputs): (&&Problem, &Arc<Inputs>)| {
                let case = Case::read(job, problem)?;
                if case.outputs.is_empty() {
                    return Ok(Vec::new());
                }
                let reference = Reference::of(&Sizes::of(&problem.shape), inputs, case.forms(), case.wanted());
                Ok(case.errors(&reference, job))
            };
            let compared: Vec<Vec<_>> = some.par_iter().zip(&drawn).map(compare).collect::<Result<_>>()?;
            some.iter().zip(compared).for_each(|(problem, errors)| compared_with(tell, problem, errors));
        }
        Ok(())
    }

    /// Whether everything is kept that any output of a problem can be compared with.
    fn is_ready(&self, job: &ErrorsJob, problem: &Problem) -> bool {
        self.kept.get(problem).is_some_and(|kept| kept.covers(&forms_of(job), &rows_of(job, problem)))
    }

    /// The reference of a problem on these rows at least, computed now or kept.
    fn reference(&mut self, problem: &Problem, forms: BTreeSet<Operands>, wanted: Vec<bool>) -> &Reference {
        let size = |problem: &Problem| Sizes::of(&problem.shape).q_len();
        if !self.kept.get(problem).is_some_and(|kept| kept.covers(&forms, &wanted)) {
            let made = Reference::of(&Sizes::of(&problem.shape), self.drawn.of(problem), forms, wanted);
            if self.kept.keys().map(size).sum::<usize>() + size(problem) > self.most {
                self.kept.clear();
            }
            self.kept.insert(problem.clone(), made);
        }
        &self.kept[problem]
    }
}

fn begun(done: usize, total: usize, problem: &Problem) -> Event {
    Event::progress(done, total, &format!("float64 reference of {}", problem.id()))
}

fn compared_with(tell: Tell, problem: &Problem, errors: Vec<(String, Errors)>) {
    for (subject, errors) in errors {
        tell(Event::Compared { subject, problem: problem.clone(), errors });
    }
}

/// What the subjects of a job were given.
fn forms_of(job: &ErrorsJob) -> BTreeSet<Operands> {
    let form = |subject: &String| job.operands.get(subject).copied().unwrap_or_default();
    let forms: BTreeSet<Operands> = job.outputs.keys().map(form).collect();
    if forms.is_empty() { BTreeSet::from([Operands::default()]) } else { forms }
}

/// The rows of a problem that the job asks for.
fn rows_of(job: &ErrorsJob, problem: &Problem) -> Vec<bool> {
    let shape = &Sizes::of(&problem.shape);
    sample_of(job, problem).map_or_else(|| vec![true; row_count(shape)], |sample| only(shape, &sample))
}

fn sample_of(job: &ErrorsJob, problem: &Problem) -> Option<Vec<[u32; 2]>> {
    job.sampled.get(&problem.id()).map(|rows| sampled_rows(problem, *rows, job.row_seed))
}

/// The outputs of a problem.
struct Case<'p> {
    problem: &'p Problem,
    sample: Option<Vec<[u32; 2]>>,
    outputs: Vec<(String, Output)>,
    /// The control's on what a subject was given, where that is not what the control was.
    control_on: BTreeMap<String, Output>,
}

impl Case<'_> {
    fn read<'p>(job: &ErrorsJob, problem: &'p Problem) -> Result<Case<'p>> {
        let sample = sample_of(job, problem);
        let read = |(subject, dir): (&String, &PathBuf)| {
            let operands = job.operands.get(subject).copied().unwrap_or_default();
            let mut output = Output::read(dir, problem, operands)?;
            if let (Some(output), Some(sample)) = (&mut output, &sample) {
                output.keep_rows(&Sizes::of(&problem.shape), sample);
            }
            Ok(output.map(|output| (subject.clone(), output)))
        };
        let outputs: Vec<Option<(String, Output)>> = job.outputs.par_iter().map(read).collect::<Result<_>>()?;
        let beside = job.control_on.par_iter().filter(|_| sample.is_some()).map(read);
        let control_on: Vec<Option<(String, Output)>> = beside.collect::<Result<_>>()?;
        let outputs = outputs.into_iter().flatten().collect();
        Ok(Case { problem, sample, outputs, control_on: control_on.into_iter().flatten().collect() })
    }

    /// What the subjects whose outputs are there were given.
    fn forms(&self) -> BTreeSet<Operands> {
        self.outputs.iter().map(|(_, output)| output.operands).collect()
    }

    /// The rows that an output has.
    fn wanted(&self) -> Vec<bool> {
        (0..row_count(&Sizes::of(&self.problem.shape)))
            .map(|row| self.outputs.iter().any(|(_, o)| o.computed[row]))
            .collect()
    }

    fn errors(&self, reference: &Reference, job: &ErrorsJob) -> Vec<(String, Errors)> {
        let control = self.outputs.iter().find(|(subject, _)| *subject == job.control).map(|(_, output)| output);
        let errors = |(subject, output): &(String, Output)| {
            let sizes = &Sizes::of(&self.problem.shape);
            let errors = reference.errors(sizes, output, control, job.bad_element);
            let given_the_same =
                if job.control_on.contains_key(subject) { self.control_on.get(subject) } else { control };
            let whole = given_the_same.filter(|_| self.sample.is_some()).map(|control| output.beside(control, sizes));
            (subject.clone(), Errors { sampled_rows: self.sample.clone(), whole, ..errors })
        };
        self.outputs.par_iter().map(errors).collect()
    }
}

/// An output, and which of its rows are compared with float64.
#[derive(Clone)]
struct Output {
    values: Vec<f16>,
    /// Those that the kernel was launched for.
    ran: Vec<bool>,
    /// Those of them that are of the sample.
    computed: Vec<bool>,
    /// What the kernel was given.
    operands: Operands,
}

impl Output {
    /// The output of a problem in a subject's directory; `None` when there is none.
    fn read(dir: &Path, problem: &Problem, operands: Operands) -> Result<Option<Output>> {
        let (path, shape) = (dir.join(output_file(problem)), &Sizes::of(&problem.shape));
        let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
        let wanted = shape.q_len() * 2;
        ensure!(bytes.len() == wanted, "`{}` has {} bytes, {wanted} expected", path.display(), bytes.len());
        let values = bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
        let ran = match read_if_there(&dir.join(rows_file(problem)))? {
            None => vec![true; row_count(shape)],
            Some(text) => flags(shape, &serde_json::from_slice::<Vec<Rows>>(&text)?)?,
        };
        Ok(Some(Output { values, computed: ran.clone(), ran, operands }))
    }

    /// Values of the computed rows, with their places.
    fn computed_values(&self, head_dim: usize) -> impl Iterator<Item = (usize, &f16)> {
        let rows = self.values.chunks_exact(head_dim).zip(&self.computed).enumerate().filter(|(_, (_, is))| **is);
        rows.flat_map(move |(row, (values, _))| values.iter().enumerate().map(move |(i, x)| (row * head_dim + i, x)))
    }

    /// All of it beside the control's.
    fn beside(&self, control: &Output, shape: &Sizes) -> WholeOutput {
        let both: Vec<bool> = self.ran.iter().zip(&control.ran).map(|(ours, theirs)| *ours && *theirs).collect();
        let place = |at| coordinate(shape, at).to_vec();
        proportion::beside(&self.values, &control.values, &both, shape.head_dim as usize, place)
    }

    /// Leaves every other row out.
    fn keep_rows(&mut self, shape: &Sizes, sample: &[[u32; 2]]) {
        for (computed, sampled) in self.computed.iter_mut().zip(only(shape, sample)) {
            *computed &= sampled;
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    }
}

/// One flag per head and row.
fn flags(shape: &Sizes, rows: &[Rows]) -> Result<Vec<bool>> {
    let mut flags = vec![false; row_count(shape)];
    for part in rows {
        let first = part.head as usize * shape.seq_q as usize + part.first as usize;
        let slots =
            flags.get_mut(first..first + part.count as usize).context("computed rows lie outside the output")?;
        slots.fill(true);
    }
    ensure!(flags.contains(&true), "no row was computed");
    Ok(flags)
}

/// float64 results of a problem on the rows that were wanted: on the originals, and on the dequantised operands of each
/// form that a subject was given.
struct Reference {
    dequantised: BTreeMap<Operands, Vec<f64>>,
    original: Vec<f64>,
    wanted: Vec<bool>,
}

impl Reference {
    fn of(shape: &Sizes, inputs: &Inputs, forms: BTreeSet<Operands>, wanted: Vec<bool>) -> Reference {
        let dequantised = |Inputs { q, k, v }: &Inputs| {
            let heads: [Head; 3] =
                [&|head| q.dequantised_head(head), &|head| k.dequantised_head(head), &|head| v.dequantised_head(head)];
            attention(shape, heads, &wanted)
        };
        let Inputs { q, k, v } = inputs;
        let originals: [Head; 3] = [&|head| q.exact_head(head), &|head| k.exact_head(head), &|head| v.exact_head(head)];
        let of_form = |form: Operands| match form {
            Operands::HopperImages => (form, dequantised(&images::quantised(inputs, shape))),
            Operands::RowMajor | Operands::Originals => (form, dequantised(inputs)),
        };
        Reference {
            dequantised: forms.into_iter().map(of_form).collect(),
            original: attention(shape, originals, &wanted),
            wanted,
        }
    }

    /// Whether it holds these rows for these forms.
    fn covers(&self, forms: &BTreeSet<Operands>, wanted: &[bool]) -> bool {
        let rows = self.wanted.iter().zip(wanted).all(|(there, wanted)| *there || !wanted);
        rows && forms.iter().all(|form| self.dequantised.contains_key(form))
    }

    fn errors(&self, shape: &Sizes, output: &Output, control: Option<&Output>, bad_element: f64) -> Errors {
        let mut errors = Errors {
            elements: 0,
            nan: 0,
            inf: 0,
            kernel_max: 0.0,
            kernel_mean: 0.0,
            worst_at: Vec::new(),
            floor_max: 0.0,
            end_to_end_max: 0.0,
            end_to_end_mean: 0.0,
            end_to_end_rms: None,
            bad_share: 0.0,
            reference_amax: 0.0,
            from_control_max: control.map(|c| max_difference(shape, output, c)),
            outputs: Vec::new(),
            figures: BTreeMap::new(),
            sampled_rows: None,
            proportion: Some(self.proportion(shape, output)),
            floor: None,
            whole: None,
        };
        let mut floor = Floor { mean: 0.0, bad_share: 0.0 };
        let mut worst = 0;
        let mut bad = 0u64;
        let mut squares = [0.0; 2];
        let head_dim = shape.head_dim as usize;
        let given = &self.dequantised[&output.operands];
        for (i, out) in output.computed_values(head_dim) {
            let (dequantised, original) = (given[i], self.original[i]);
            errors.elements += 1;
            let quantised = (dequantised - original).abs();
            errors.floor_max = errors.floor_max.max(quantised);
            floor.mean += quantised;
            floor.bad_share += f64::from(u8::from(quantised > bad_element));
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
            squares = [squares[0] + end_to_end * end_to_end, squares[1] + original * original];
            bad += u64::from(end_to_end > bad_element);
        }
        let finite = (errors.elements - errors.nan - errors.inf).max(1) as f64;
        errors.kernel_mean /= finite;
        errors.end_to_end_mean /= finite;
        errors.end_to_end_rms = Some(proportion::ratio(squares[0].sqrt(), squares[1].sqrt()));
        errors.bad_share = bad as f64 / errors.elements as f64;
        let elements = errors.elements.max(1) as f64;
        errors.floor = Some(Floor { mean: floor.mean / elements, bad_share: floor.bad_share / elements });
        errors.worst_at = coordinate(shape, worst).to_vec();
        errors
    }
}

impl Reference {
    /// Kernel errors row by row.
    fn proportion(&self, shape: &Sizes, output: &Output) -> Proportion {
        let head_dim = shape.head_dim as usize;
        let rows = output.values.chunks_exact(head_dim).zip(self.dequantised[&output.operands].chunks_exact(head_dim));
        let mut sums = proportion::Sums::default();
        rows.zip(&output.computed).filter(|(_, is)| **is).for_each(|((row, wanted), _)| sums.add(row, wanted));
        sums.proportion()
    }
}

/// The largest difference; the largest number there is where exactly one side is finite (JSON has no infinity).
fn max_difference(shape: &Sizes, a: &Output, b: &Output) -> f64 {
    let head_dim = shape.head_dim as usize;
    let pairs = a.computed_values(head_dim).filter(|(i, _)| b.computed[i / head_dim]).map(|(i, x)| (x, &b.values[i]));
    pairs.fold(0.0, |max, (x, y)| {
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
fn coordinate(shape: &Sizes, index: usize) -> [u32; 4] {
    let (d, s, h) = (shape.head_dim as usize, shape.seq_q as usize, shape.heads as usize);
    [index / (d * s * h), index / (d * s) % h, index / d % s, index % d].map(|x| x as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::operator::Distribution;

    fn problem() -> Problem {
        Problem { shape: "ragged-causal".parse().unwrap(), seed: 0, distribution: Distribution::Normal }
    }

    fn whole(problem: &Problem, values: Vec<f16>) -> Output {
        let all = vec![true; row_count(&Sizes::of(&problem.shape))];
        Output { values, ran: all.clone(), computed: all, operands: Operands::RowMajor }
    }

    fn reference(problem: &Problem) -> Reference {
        let rows = vec![true; row_count(&Sizes::of(&problem.shape))];
        Reference::of(&Sizes::of(&problem.shape), &Inputs::of(problem), BTreeSet::from([Operands::RowMajor]), rows)
    }

    fn perfect(problem: &Problem, reference: &Reference) -> Output {
        whole(problem, reference.dequantised[&Operands::RowMajor].iter().map(|x| f16::from_f64(*x)).collect())
    }

    #[test]
    fn rows_that_were_not_computed_are_left_out_and_those_that_were_are_not() {
        let problem = problem();
        let reference = reference(&problem);
        let mut output = perfect(&problem, &reference);
        output.values[64 * 77..].fill(f16::NAN);
        output.computed = flags(&Sizes::of(&problem.shape), &[Rows { head: 0, first: 0, count: 77 }]).unwrap();
        let errors = reference.errors(&Sizes::of(&problem.shape), &output, None, 0.06);
        assert_eq!((errors.elements, errors.nan), (64 * 77, 0));
        output.values[64 * 3] = f16::NAN;
        assert_eq!(reference.errors(&Sizes::of(&problem.shape), &output, None, 0.06).nan, 1);
        assert!(flags(&Sizes::of(&problem.shape), &[Rows { head: 2, first: 70, count: 8 }]).is_err());
        assert!(flags(&Sizes::of(&problem.shape), &[]).is_err());
    }

    #[test]
    fn a_sample_leaves_the_other_rows_out_and_no_fault_within_it() {
        let problem = problem();
        let reference = reference(&problem);
        let mut output = perfect(&problem, &reference);
        output.values[64 * 5] = f16::NAN;
        let mut without = output.clone();
        without.keep_rows(&Sizes::of(&problem.shape), &[[0, 4], [1, 5]]);
        let errors = reference.errors(&Sizes::of(&problem.shape), &without, None, 0.06);
        assert_eq!((errors.elements, errors.nan), (128, 0));
        output.keep_rows(&Sizes::of(&problem.shape), &[[0, 5]]);
        assert_eq!(reference.errors(&Sizes::of(&problem.shape), &output, None, 0.06).nan, 1);
    }

    #[test]
    fn a_perfect_kernel_has_the_quantisation_floor_as_its_end_to_end_error() {
        let problem = problem();
        let reference = reference(&problem);
        let output = perfect(&problem, &reference);
        let errors = reference.errors(&Sizes::of(&problem.shape), &output, Some(&output), 0.06);
        assert!(errors.kernel_max < 2e-3 && errors.kernel_max > 0.0, "{errors:?}");
        assert!((errors.end_to_end_max - errors.floor_max).abs() < 2e-3, "{errors:?}");
        assert!(errors.floor_max > 0.02 && errors.end_to_end_mean < 0.012, "{errors:?}");
        let rms = errors.end_to_end_rms.unwrap();
        assert!((0.02..0.08).contains(&rms), "what e4m3 costs in proportion: {rms}");
        assert_eq!((errors.nan, errors.inf, errors.from_control_max), (0, 0, Some(0.0)));
    }

    #[test]
    fn one_wrong_element_is_found_wherever_it_is() {
        let problem = problem();
        let reference = reference(&problem);
        let good = perfect(&problem, &reference);
        for (index, value) in [(0, 9.0), (64 * 77 + 65, f32::NAN), (good.values.len() - 1, f32::INFINITY)] {
            let mut output = good.clone();
            output.values[index] = f16::from_f32(value);
            let errors = reference.errors(&Sizes::of(&problem.shape), &output, Some(&good), 0.06);
            assert_eq!(errors.worst_at, coordinate(&Sizes::of(&problem.shape), index));
            assert_eq!(errors.nan + errors.inf, u64::from(!value.is_finite()));
            assert!(errors.kernel_max > 1.0 || !value.is_finite());
            assert!(errors.from_control_max.unwrap() > 1.0);
        }
        assert_eq!(coordinate(&Sizes::of(&problem.shape), 64 * 77 + 65), [0, 1, 1, 1]);
    }

    #[test]
    fn a_kept_reference_is_taken_only_where_it_has_every_row_and_form() {
        let problem = problem();
        let mut job = ErrorsJob {
            task: kbench::job::Task::default(),
            problems: vec![problem.clone()],
            outputs: BTreeMap::from([("a".to_owned(), PathBuf::from("nowhere"))]),
            operands: BTreeMap::new(),
            control: "a".into(),
            control_on: BTreeMap::new(),
            sampled: BTreeMap::from([(problem.id(), 24)]),
            row_seed: 3,
            bad_element: 0.06,
            ahead: true,
            threads: 0,
        };
        let mut comparer = Comparer::of(Path::new(""), true);
        assert!(!comparer.is_ready(&job, &problem));
        comparer.reference(&problem, forms_of(&job), rows_of(&job, &problem));
        assert!(comparer.is_ready(&job, &problem), "what is computed ahead is there");
        let rows = rows_of(&job, &problem);
        let (sampled, whole) = (&comparer.kept[&problem], reference(&problem));
        for (row, wanted) in rows.iter().enumerate() {
            let of = |r: &Reference| r.dequantised[&Operands::RowMajor][row * 64..][..64].to_vec();
            assert_eq!(of(sampled) == of(&whole), *wanted, "row {row}");
        }
        job.operands.insert("a".into(), Operands::HopperImages);
        assert!(!comparer.is_ready(&job, &problem), "another form");
        job.operands.clear();
        job.sampled.clear();
        assert!(!comparer.is_ready(&job, &problem), "more rows");
        comparer.reference(&problem, forms_of(&job), rows_of(&job, &problem));
        assert_eq!(comparer.kept[&problem].original, whole.original);
        assert!(comparer.is_ready(&job, &problem));
        let mut forgetful = Comparer::default();
        forgetful.reference(&problem, forms_of(&job), rows_of(&job, &problem));
        forgetful.reference(&Problem { seed: 1, ..problem.clone() }, forms_of(&job), rows);
        assert_eq!(forgetful.kept.len(), 1, "one that keeps none has the last alone");
    }

    #[test]
    fn an_output_is_held_to_the_controls_on_the_codes_that_it_was_given() {
        let shape = "1x2x48x2048x128".parse().unwrap();
        let problem = Problem { shape, seed: 0, distribution: Distribution::Trained };
        let sizes = Sizes::of(&problem.shape);
        let forms = BTreeSet::from([Operands::RowMajor, Operands::HopperImages]);
        let rows = vec![true; row_count(&sizes)];
        let reference = Reference::of(&sizes, &Inputs::of(&problem), forms, rows);
        let folder = tempfile::tempdir().unwrap();
        let write = |subject: &str, form: Operands| {
            let dir = folder.path().join(subject);
            std::fs::create_dir_all(&dir).unwrap();
            let halves = reference.dequantised[&form].iter().map(|x| f16::from_f64(*x));
            let bytes: Vec<u8> = halves.flat_map(|x| x.to_le_bytes()).collect();
            std::fs::write(dir.join(output_file(&problem)), bytes).unwrap();
            (subject.to_owned(), dir)
        };
        let given = Operands::HopperImages;
        let outputs = BTreeMap::from([write("control", Operands::RowMajor), write("hopper", given)]);
        let mut job = ErrorsJob {
            task: kbench::job::Task::default(),
            problems: vec![problem.clone()],
            outputs,
            operands: BTreeMap::from([("hopper".to_owned(), given)]),
            control: "control".into(),
            control_on: BTreeMap::new(),
            sampled: BTreeMap::from([(problem.id(), 8)]),
            row_seed: 1,
            bad_element: 0.06,
            ahead: false,
            threads: 0,
        };
        let whole = |job: &ErrorsJob| {
            let errors: BTreeMap<_, _> =
                Case::read(job, &problem).unwrap().errors(&reference, job).into_iter().collect();
            errors["hopper"].whole.clone()
        };
        assert!(whole(&job).unwrap().block_rms > 0.3, "two ways of quantising, of which neither is wrong");
        let (_, beside) = write("beside", given);
        job.control_on.insert("hopper".into(), beside.clone());
        assert_eq!(whole(&job).unwrap().block_rms, 0.0);
        std::fs::remove_file(beside.join(output_file(&problem))).unwrap();
        assert!(whole(&job).is_none(), "what could not be compared is not compared with something else");
    }

    #[test]
    fn two_right_kernels_of_other_operands_are_far_nearer_to_each_other_than_their_limit() {
        let problem = Problem { shape: "1x2x48x2048x64".parse().unwrap(), seed: 0, distribution: Distribution::Normal };
        let sizes = Sizes::of(&problem.shape);
        let forms = BTreeSet::from([Operands::RowMajor, Operands::HopperImages]);
        let rows = vec![true; row_count(&sizes)];
        let reference = Reference::of(&sizes, &Inputs::of(&problem), forms, rows.clone());
        let exact = |form| whole(&problem, reference.dequantised[&form].iter().map(|x| f16::from_f64(*x)).collect());
        let (ours, theirs) = (exact(Operands::HopperImages), exact(Operands::RowMajor));
        let beside = ours.beside(&theirs, &sizes);
        let limit = kbench::suite::ProportionLimits::default().block;
        assert!(beside.block_rms > 0.05 && beside.block_rms < 0.6 * limit, "{beside:?}");
        assert_eq!(beside.elements, 2 * 48 * 64);
        let mut missing = ours.clone();
        missing.values[64 * 90..64 * 91].fill(f16::ZERO);
        let found = missing.beside(&theirs, &sizes);
        assert!(found.block_rms >= 1.0 && found.worst_at[..3] == [0, 1, 42], "{found:?}");
        missing.ran[90] = false;
        assert_eq!(missing.beside(&theirs, &sizes).block_rms, beside.block_rms);
    }

    #[test]
    fn an_untouched_output_is_all_nan() {
        let problem = problem();
        let reference = reference(&problem);
        let poisoned = whole(&problem, vec![f16::from_bits(0xffff); Sizes::of(&problem.shape).q_len()]);
        let errors = reference.errors(&Sizes::of(&problem.shape), &poisoned, None, 0.06);
        assert_eq!(errors.nan, errors.elements);
    }
}
