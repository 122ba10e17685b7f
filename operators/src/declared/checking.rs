//! The user's checker, and what is asked of it first: that it rejects outputs that are wrong for certain.
//! Leaves to others: the process that it runs in, and its figures' limits beyond these tests.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use kbench::job::Task;
use kbench::operator::Problem;
use kbench::operator::declared::{Declared, Tensor};
use kernel_spec::dtype::Dtype;
use kernel_spec::words;

use super::comparing::Found;
use super::host::{Array, Bounds, Host, Kind, Refused, values};
use super::inputs::Input;
use super::layout::unwritten;
use super::truth::on;

/// The user's checker in its process.
pub struct Checker {
    host: Host,
    operator: Declared,
}

impl Checker {
    /// Loads it.
    pub fn start(task: &Task, operator: &Declared, file: &str, bounds: Bounds) -> Result<Checker> {
        Ok(Checker { host: Host::start(task, Kind::Check, file, bounds)?, operator: operator.clone() })
    }

    /// Why nothing can be said of it.
    pub fn cannot_be_judged(&self, why: &str) -> anyhow::Error {
        Refused::because(format!("{} cannot be judged: {why}", self.host.name))
    }

    /// Its figures of some outputs. What it raises on an output that it may refuse counts as the largest figures there
    /// are; on the control's it is the checker's own fault.
    pub fn figures(
        &mut self,
        problem: &Problem,
        inputs: &[Input],
        outputs: &[Tensor],
        elements: &[&[u8]],
        is_control: bool,
    ) -> Result<BTreeMap<String, f64>> {
        let put = |set: &str, tensor: &Tensor, elements: &[u8]| self.host.put(set, &Array::whole(tensor), elements);
        let given = inputs.iter().map(|input| put("in", &input.tensor, &input.elements)).collect::<Result<Vec<_>>>()?;
        let judged = outputs.iter().zip(elements).map(|(output, elements)| put("out", output, elements));
        let judged = judged.collect::<Result<Vec<_>>>()?;
        let values = values(&self.operator, &problem.shape.axes)?;
        let answer = match self.host.call(&[("inputs", &given), ("outputs", &judged)], values) {
            Ok(answer) => answer,
            Err(error) if !is_control && error.downcast_ref::<Refused>().is_some_and(|refused| refused.raised) => {
                eprintln!("{error} on {}", problem.id());
                return Ok(self.operator.errors.keys().map(|figure| (figure.to_owned(), f64::MAX)).collect());
            }
            Err(error) => return Err(on(error, problem)),
        };
        self.read(&answer["figures"]).map_err(|error| on(error, problem))
    }

    /// Figures as they were told; each must have a limit, and each limit its figure.
    fn read(&self, told: &serde_json::Value) -> Result<BTreeMap<String, f64>> {
        let name = &self.host.name;
        let told = told.as_object().ok_or_else(|| anyhow!("{name} told no figures"))?;
        let mut figures = BTreeMap::new();
        for (figure, value) in told {
            if self.operator.errors.get(figure).is_none() {
                let shown = words::one_line(figure);
                return Err(Refused::because(format!(
                    "{name} returns `{shown}`, which has no limit in operator.errors"
                )));
            }
            let value = value.as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN);
            // JSON has neither NaN nor infinity; the largest number there is passes no limit either.
            figures.insert(figure.clone(), if value.is_finite() { value } else { f64::MAX });
        }
        match self.operator.errors.keys().find(|figure| !figures.contains_key(*figure)) {
            Some(figure) => {
                Err(Refused::because(format!("{name} returns no `{figure}`, which operator.errors limits")))
            }
            None => Ok(figures),
        }
    }

    /// Refuses a checker that rejects the control's own output, and so would reject everything, or that accepts what is wrong for certain: poison, zeroes, the output of another seed, and one
    /// destroyed element of each output.
    pub fn judge(
        &mut self,
        problem: &Problem,
        inputs: &[Input],
        outputs: &[Tensor],
        control: &[Found],
        other_seed: Option<&[Found]>,
    ) -> Result<()> {
        let own: Vec<&[u8]> = control.iter().map(|found| &found.elements[..]).collect();
        let figures = self.figures(problem, inputs, outputs, &own, true)?;
        if let Some((figure, value, limit)) = self.over(&figures) {
            let told = if value == f64::MAX { "no finite number".to_owned() } else { format!("{value}") };
            return Err(Refused::because(format!(
                "{} rejects the control's own output, on {}: `{figure}` is {told}, at most {limit} is allowed: the checker or \
                 the control is wrong",
                self.host.name,
                problem.id()
            )));
        }
        let filled = |pattern: &dyn Fn(&Tensor) -> [u8; 4]| -> Vec<Vec<u8>> {
            let fill = |(output, own): (&Tensor, &&[u8])| pattern(output).into_iter().cycle().take(own.len()).collect();
            outputs.iter().zip(&own).map(fill).collect()
        };
        let mut wrong = vec![
            ("an output that was never written".to_owned(), filled(&|output| unwritten(output.dtype))),
            ("an output of zeroes".to_owned(), filled(&|_| [0; 4])),
        ];
        if let Some(other) = other_seed {
            let elements = other.iter().map(|found| found.elements.clone()).collect();
            wrong.push(("the output of another seed".to_owned(), elements));
        }
        for (i, output) in outputs.iter().enumerate() {
            let mut elements: Vec<Vec<u8>> = own.iter().map(|own| own.to_vec()).collect();
            destroy(output.dtype, &mut elements[i]);
            wrong.push((format!("one destroyed element of `{}`", output.name), elements));
        }
        for (what, elements) in wrong {
            let elements: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
            // Where zeroes are the answer, or every seed has the same one, there is nothing to reject.
            if elements == own {
                continue;
            }
            let figures = self.figures(problem, inputs, outputs, &elements, false)?;
            if self.over(&figures).is_none() {
                let line =
                    format!("{} accepts {what}, on {}: no figure is over its limit", self.host.name, problem.id());
                return Err(Refused::because(line));
            }
        }
        Ok(())
    }

    /// The first figure that is over its limit, with its value and the limit.
    fn over(&self, figures: &BTreeMap<String, f64>) -> Option<(String, f64, f64)> {
        let value = |figure: &str| figures.get(figure).copied().unwrap_or(f64::NAN);
        let mut each = self.operator.errors.iter().map(|(figure, limit)| (figure.to_owned(), value(figure), *limit));
        each.find(|(_, value, limit)| !matches!(value.partial_cmp(limit), Some(Ordering::Less | Ordering::Equal)))
    }
}

/// Makes the element in the middle one that is far from what it was.
fn destroy(dtype: Dtype, elements: &mut [u8]) {
    let size = dtype.bytes();
    let values = || elements.chunks_exact(size).map(|element| dtype.decode(element));
    let largest = values().filter(|x| x.is_finite()).fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let at = elements.len() / size / 2;
    let value = values().nth(at).unwrap_or(0.0);
    let far = match dtype.range() {
        None if value > 0.0 => -2.0 * largest - 1.0,
        None => 2.0 * largest + 1.0,
        Some((low, high)) => {
            if value == high as f64 {
                low as f64
            } else {
                high as f64
            }
        }
    };
    let mut element = Vec::new();
    dtype.encode(far, &mut element);
    elements[at * size..(at + 1) * size].copy_from_slice(&element);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destroyed_element_is_far_from_what_it_was() {
        for dtype in Dtype::ALL {
            for value in [0.0, 1.0] {
                let mut elements = Vec::new();
                (0..5).for_each(|_| dtype.encode(value, &mut elements));
                let before = elements.clone();
                destroy(dtype, &mut elements);
                let decoded =
                    |bytes: &[u8]| bytes.chunks_exact(dtype.bytes()).map(|e| dtype.decode(e)).collect::<Vec<_>>();
                let (a, b) = (decoded(&before), decoded(&elements));
                let changed: Vec<usize> = (0..5).filter(|i| a[*i] != b[*i]).collect();
                assert_eq!(changed, [2], "{dtype}");
                assert!((a[2] - b[2]).abs() >= 1.0, "{dtype}: {} {}", a[2], b[2]);
            }
        }
    }
}
