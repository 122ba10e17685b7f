//! The errors job of a declared operator: outputs of any number of subjects against the user's reference, or figures of
//! the user's checker. What is wrong with the user's Python ends the job; it is never a subject's error.
//! Leaves to others: running the Python, and the arithmetic of errors.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kbench::evidence::{Errors, OutputErrors};
use kbench::job::{ErrorsJob, Event, Task, output_file};
use kbench::operator::declared::{Declared, Role, Tensor};
use kbench::operator::{Distribution, Problem};
use rayon::prelude::*;

use super::checking::Checker;
use super::errors::{self, Truth};
use super::host::Bounds;
use super::inputs::{self, Drawn};
use super::layout::gather;
use super::truth::Reference;
use crate::{Comparer, Tell};

/// What says which outputs are right, once it is loaded and was tested.
enum Judge {
    Reference(Reference),
    Checker(Checker),
}

/// Compares with a reference or asks a checker.
pub struct Comparing {
    task: Task,
    operator: Declared,
    drawn: Drawn,
    judge: Option<Judge>,
    kept: Kept,
}

/// References by problem, as many as memory is worth.
#[derive(Default)]
struct Kept {
    truths: Vec<(Problem, Arc<Vec<Truth>>)>,
}

impl Kept {
    /// Bytes kept before all are forgotten.
    const MOST: usize = 1 << 30;

    fn get(&self, problem: &Problem) -> Option<Arc<Vec<Truth>>> {
        self.truths.iter().find(|(kept, _)| kept == problem).map(|(_, truth)| truth.clone())
    }

    fn put(&mut self, problem: &Problem, truth: &Arc<Vec<Truth>>) {
        let bytes = |truths: &[Truth]| truths.iter().map(|truth| truth.elements.len()).sum::<usize>();
        if self.truths.iter().map(|(_, kept)| bytes(kept)).sum::<usize>() + bytes(truth) > Self::MOST {
            self.truths.clear();
        }
        self.truths.push((problem.clone(), truth.clone()));
    }
}

/// One output as a subject left it.
pub struct Found {
    /// Dense, the last dimension innermost.
    pub elements: Vec<u8>,
    intact: bool,
}

impl Comparing {
    /// Of a task.
    pub fn of(task: &Task, operator: &Declared) -> Comparing {
        Comparing {
            task: task.clone(),
            operator: operator.clone(),
            drawn: Drawn::default(),
            judge: None,
            kept: Kept::default(),
        }
    }

    /// The tensors that kernels write.
    fn outputs(&self, problem: &Problem) -> Result<Vec<Tensor>> {
        let tensors = inputs::tensors(&self.operator, problem)?;
        Ok(tensors.into_iter().filter(|tensor| matches!(tensor.role, Role::Output { .. })).collect())
    }

    /// Loads and tests what judges, on the smallest of the problems.
    fn prepare(&mut self, job: &ErrorsJob) -> Result<()> {
        if self.judge.is_some() {
            return Ok(());
        }
        let bounds = Bounds::default();
        self.judge = Some(match (&self.operator.reference, &self.operator.check) {
            (Some(file), _) => {
                let mut reference = Reference::start(&self.task, &self.operator, file, bounds)?;
                let can_be_cut = |problem: &&Problem| reference.extent(problem) > 1;
                let to_cut = self.smallest(job.problems.iter().filter(can_be_cut)).cloned();
                if let Some(problem) = self.smallest(job.problems.iter()).cloned() {
                    let (inputs, outputs) =
                        (self.drawn.of(&self.task, &self.operator, &problem)?, self.outputs(&problem)?);
                    reference.test_repeats(&problem, &inputs, &outputs)?;
                }
                if let Some(problem) = to_cut {
                    let (inputs, outputs) =
                        (self.drawn.of(&self.task, &self.operator, &problem)?, self.outputs(&problem)?);
                    reference.test_slices(&problem, &inputs, &outputs)?;
                }
                Judge::Reference(reference)
            }
            (None, check) => {
                let file = check.as_deref().context("the operator has neither reference nor check")?;
                let mut checker = Checker::start(&self.task, &self.operator, file, bounds)?;
                self.judge_checker(job, &mut checker)?;
                Judge::Checker(checker)
            }
        });
        Ok(())
    }

    /// Has the checker reject what it must, made from the control's output of the smallest problem that has one.
    fn judge_checker(&mut self, job: &ErrorsJob, checker: &mut Checker) -> Result<()> {
        let control = job.outputs.get(&job.control).with_context(|| format!("`{}` has no outputs", job.control))?;
        let left = |problem: &&Problem| control.join(output_file(problem)).is_file();
        let Some(problem) = self.smallest(job.problems.iter().filter(left)).cloned() else {
            return Err(checker.cannot_be_judged("the control left no output"));
        };
        let outputs = self.outputs(&problem)?;
        let read = |problem: &Problem| read(control, problem, &outputs);
        let found = read(&problem)?.context("the file was there")?;
        let twin = |other: &&Problem| {
            (&other.shape, other.distribution) == (&problem.shape, problem.distribution) && other.seed != problem.seed
        };
        let other = job.problems.iter().filter(twin).find(left).map(read).transpose()?.flatten();
        let inputs = self.drawn.of(&self.task, &self.operator, &problem)?;
        checker.judge(&problem, &inputs, &outputs, &found, other.as_deref())
    }

    /// The problem of fewest elements; of several, one that is drawn as declared.
    fn smallest<'p>(&self, problems: impl Iterator<Item = &'p Problem>) -> Option<&'p Problem> {
        problems.min_by_key(|problem| {
            let unusual = problem.distribution != Distribution::Normal;
            (self.task.operator.elements(&problem.shape), unusual, problem.seed)
        })
    }

    /// Errors of every subject that left an output of a problem.
    fn compare(&mut self, job: &ErrorsJob, problem: &Problem) -> Result<Vec<(String, Errors)>> {
        let outputs = self.outputs(problem)?;
        let read = |(subject, dir): (&String, &std::path::PathBuf)| {
            Ok(read(dir, problem, &outputs)?.map(|found| (subject.clone(), found)))
        };
        let found: Vec<Option<(String, Vec<Found>)>> = job.outputs.par_iter().map(read).collect::<Result<_>>()?;
        let found: BTreeMap<String, Vec<Found>> = found.into_iter().flatten().collect();
        if found.is_empty() && !job.ahead {
            return Ok(Vec::new());
        }
        let inputs = || inputs::of(&self.task, &self.operator, problem);
        let control = found.get(&job.control);
        match self.judge.as_mut().context("the judge is prepared")? {
            Judge::Reference(reference) => {
                let truths = match self.kept.get(problem) {
                    Some(truths) => truths,
                    None => {
                        let truths = Arc::new(reference.of(problem, &inputs()?, &outputs)?);
                        self.kept.put(problem, &truths);
                        truths
                    }
                };
                let errors = |(subject, found): (&String, &Vec<Found>)| {
                    let pairs = outputs.iter().zip(found).zip(truths.iter());
                    let of = pairs.map(|((t, found), truth)| errors::of(t, &found.elements, truth, found.intact));
                    (subject.clone(), total(&outputs, found, of.collect(), control))
                };
                Ok(found.par_iter().map(errors).collect())
            }
            Judge::Checker(_) if job.ahead => Ok(Vec::new()),
            Judge::Checker(checker) => {
                let inputs = inputs()?;
                let mut compared = Vec::new();
                for (subject, found) in &found {
                    let elements: Vec<&[u8]> = found.iter().map(|found| &found.elements[..]).collect();
                    let figures = checker.figures(problem, &inputs, &outputs, &elements, *subject == job.control)?;
                    let of = outputs.iter().zip(found);
                    let of = of.map(|(t, found)| errors::unjudged(t, &found.elements, found.intact)).collect();
                    compared.push((subject.clone(), Errors { figures, ..total(&outputs, found, of, control) }));
                }
                Ok(compared)
            }
        }
    }
}

impl Comparer for Comparing {
    fn run(&mut self, job: &ErrorsJob, tell: Tell) -> Result<()> {
        for (i, problem) in job.problems.iter().enumerate() {
            let judge = if self.operator.check.is_some() { "check" } else { "reference" };
            tell(Event::progress(i, job.problems.len(), &format!("{judge} of {}", problem.id())));
            if job.ahead && self.operator.check.is_some() {
                continue;
            }
            self.prepare(job)?;
            for (subject, errors) in self.compare(job, problem)? {
                tell(Event::Compared { subject, problem: problem.clone(), errors });
            }
        }
        Ok(())
    }
}

/// What a subject left of a problem, output by output; `None` when there is nothing.
fn read(dir: &Path, problem: &Problem, outputs: &[Tensor]) -> Result<Option<Vec<Found>>> {
    let path = dir.join(output_file(problem));
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    };
    let wanted: usize = outputs.iter().map(|output| output.layout.bytes as usize).sum();
    ensure!(bytes.len() == wanted, "`{}` has {} bytes, {wanted} expected", path.display(), bytes.len());
    let mut left = &bytes[..];
    let found = outputs.iter().map(|output| {
        let (own, rest) = left.split_at(output.layout.bytes as usize);
        left = rest;
        let (elements, intact) = gather(output, own);
        Found { elements, intact }
    });
    Ok(Some(found.collect()))
}

/// The errors of all outputs together.
fn total(outputs: &[Tensor], found: &[Found], of: Vec<OutputErrors>, control: Option<&Vec<Found>>) -> Errors {
    let floats = || outputs.iter().zip(found).zip(&of).filter(|((output, _), _)| output.dtype.is_float());
    let largest = |figure: fn(&OutputErrors) -> f64| floats().map(|(_, errors)| figure(errors)).fold(0.0, f64::max);
    let nan_of = |((output, found), _): ((&Tensor, &Found), &OutputErrors)| {
        let values = found.elements.chunks_exact(output.dtype.bytes());
        values.filter(|element| output.dtype.decode(element).is_nan()).count() as u64
    };
    let wrong: u64 = floats().map(|(_, errors)| errors.wrong).sum();
    let nan: u64 = floats().map(nan_of).sum();
    let differences = control.map(|control| {
        let pairs = outputs.iter().zip(found).zip(control);
        pairs.map(|((t, a), b)| errors::difference(t.dtype, &a.elements, &b.elements)).fold(0.0, f64::max)
    });
    let worst = of.iter().find(|errors| errors.wrong > 0).or_else(|| of.iter().max_by(|a, b| a.max.total_cmp(&b.max)));
    Errors {
        elements: of.iter().map(|errors| errors.elements).sum(),
        nan,
        inf: wrong.saturating_sub(nan),
        kernel_max: largest(|errors| errors.max),
        kernel_mean: largest(|errors| errors.mean),
        worst_at: worst.map(|errors| errors.worst_at.clone()).unwrap_or_default(),
        floor_max: 0.0,
        end_to_end_max: 0.0,
        end_to_end_mean: 0.0,
        end_to_end_rms: None,
        bad_share: 0.0,
        reference_amax: largest(|errors| errors.reference_amax),
        from_control_max: differences,
        outputs: of,
        figures: BTreeMap::new(),
        sampled_rows: None,
        proportion: None,
        floor: None,
        whole: None,
    }
}
