//! What can be wrong with a declared operator whatever the shape is. Leaves to others: what a shape makes of it.

use kernel_spec::expr::Expr;

use super::limits::ErrorLimits;
use super::{Declared, Input, Output};
use crate::key::{BadKey, check_file};
use crate::names::{Namespace, check_names, in_order};

impl Declared {
    /// Refuses what cannot work on any shape, and takes its names.
    pub fn check(&self, space: &mut Namespace) -> Result<(), BadKey> {
        self.take_names(space)?;
        self.check_truth()?;
        let known = self.value_names();
        for definition in self.definitions() {
            check_names(definition.expr, &definition.key, &known)?;
        }
        in_order(&self.definitions())?;
        check_all(&self.constraints, "operator.constraints", &known)?;
        for (name, input) in self.inputs.iter() {
            self.check_input(name, input, &known)?;
        }
        for (name, output) in self.outputs.iter() {
            self.check_output(name, output, &known)?;
        }
        self.check_independent()?;
        self.check_cost(&known)
    }

    fn take_names(&self, space: &mut Namespace) -> Result<(), BadKey> {
        if self.axes.is_empty() {
            return BadKey::refuse("operator.axes", "is empty: name the sizes that a shape gives");
        }
        if self.outputs.is_empty() {
            return BadKey::refuse("operator.outputs", "is empty: declare what kernels write");
        }
        for (i, axis) in self.axes.iter().enumerate() {
            space.take(axis, &format!("operator.axes[{i}]"))?;
        }
        for definition in self.definitions() {
            space.take(definition.name, &definition.key)?;
        }
        for name in self.inputs.keys() {
            space.take(name, &format!("operator.inputs.{name}"))?;
        }
        // An output in place may be the input by the same name.
        for (name, _) in self.outputs.iter().filter(|(name, output)| output.inplace.as_deref() != Some(name)) {
            space.take(name, &format!("operator.outputs.{name}"))?;
        }
        Ok(())
    }

    /// What says which outputs are right, and within which limits.
    fn check_truth(&self) -> Result<(), BadKey> {
        match (&self.reference, &self.check) {
            (Some(_), Some(_)) => {
                return BadKey::refuse("operator.check", "is given beside reference: keep one of the two");
            }
            (None, None) => {
                return BadKey::refuse("operator.reference", "is missing: name a Python file, here or as `check`");
            }
            (Some(reference), None) => check_file("operator.reference", reference, &["py"])?,
            (None, Some(check)) => check_file("operator.check", check, &["py"])?,
        }
        if let Some(generate) = &self.generate {
            check_file("operator.generate", generate, &["py"])?;
        }
        if self.check.is_some() && self.errors.is_empty() {
            return BadKey::refuse(
                "operator.errors",
                "is missing: give each figure that check returns its largest value",
            );
        }
        for (figure, limit) in self.errors.iter() {
            let key = format!("operator.errors.{figure}");
            check_limit(&key, *limit)?;
            if self.reference.is_some() {
                ErrorLimits::default().set(figure, *limit).map_err(|why| BadKey::new(key, why))?;
            }
        }
        Ok(())
    }

    fn check_input(&self, name: &str, input: &Input, known: &[&str]) -> Result<(), BadKey> {
        let key = format!("operator.inputs.{name}");
        check_dimensions(&key, &input.shape, input.strides.as_deref(), known)?;
        let distribution_key = format!("{key}.distribution");
        let Some(distribution) = &input.distribution else {
            if input.dtype.is_float() || self.generate.is_some() {
                return Ok(());
            }
            let why = "is missing: use integers { low, high }, permutation, offsets, constant, zeros, or `generate`";
            return BadKey::refuse(distribution_key, why);
        };
        distribution.check(input.dtype).map_err(|why| BadKey::new(distribution_key, why))?;
        for (parameter, expr) in distribution.parameters() {
            check_names(expr, &format!("{key}.{parameter}"), known)?;
        }
        Ok(())
    }

    fn check_output(&self, name: &str, output: &Output, known: &[&str]) -> Result<(), BadKey> {
        let key = format!("operator.outputs.{name}");
        check_dimensions(&key, &output.shape, output.strides.as_deref(), known)?;
        if let Some(input) = &output.inplace {
            let key = format!("{key}.inplace");
            if self.inputs.get(input).is_none() {
                return BadKey::refuse(key, format!("`{input}` is no input"));
            }
            let over_it = |o: &&Output| o.inplace.as_ref() == Some(input);
            if self.outputs.iter().filter(|(_, o)| over_it(o)).count() > 1 {
                return BadKey::refuse(key, format!("two outputs overwrite `{input}`"));
            }
        }
        let Some(errors) = &output.errors else { return Ok(()) };
        let key = format!("{key}.errors");
        if !output.dtype.is_float() {
            return BadKey::refuse(key, format!("{} is compared exactly: remove it", output.dtype));
        }
        if self.check.is_some() {
            return BadKey::refuse(key, "check judges the outputs: give its figures limits in operator.errors");
        }
        if errors.given().next().is_none() {
            return BadKey::refuse(key, "has no limit: give one, as in { max = 1e-3 }");
        }
        errors.given().try_for_each(|(figure, limit)| check_limit(&format!("{key}.{figure}"), limit))
    }

    /// An axis can be sliced where every output has it as a dimension, and no input mixes it with something else.
    fn check_independent(&self) -> Result<(), BadKey> {
        let Some(axis) = &self.independent else { return Ok(()) };
        let key = "operator.independent";
        if self.check.is_some() {
            return BadKey::refuse(key, "is for references, and check judges whole outputs: remove it");
        }
        if !self.axes.contains(axis) {
            return BadKey::refuse(key, format!("`{axis}` is no axis"));
        }
        let whole = |shape: &[Expr]| shape.iter().filter(|e| e.as_name() == Some(axis)).count();
        if let Some((name, _)) = self.outputs.iter().find(|(_, o)| whole(&o.shape) != 1) {
            return BadKey::refuse(
                key,
                format!("`{axis}` is not one dimension of {name}, so slices of it cannot be joined"),
            );
        }
        let mixed = |shape: &[Expr]| shape.iter().any(|e| e.as_name().is_none() && e.names().contains(axis.as_str()));
        let input = self.inputs.iter().find(|(_, i)| mixed(&i.shape) || whole(&i.shape) > 1);
        if let Some((name, _)) = input {
            return BadKey::refuse(
                key,
                format!("`{axis}` is only part of a dimension of {name}, which cannot be sliced"),
            );
        }
        Ok(())
    }

    fn check_cost(&self, known: &[&str]) -> Result<(), BadKey> {
        let Some(cost) = &self.cost else { return Ok(()) };
        if cost.flops.is_none() && cost.bytes.is_none() {
            return BadKey::refuse("operator.cost", "has neither flops nor bytes: give one, or remove it");
        }
        let parts = [("operator.cost.flops", &cost.flops), ("operator.cost.bytes", &cost.bytes)];
        parts
            .into_iter()
            .filter_map(|(key, expr)| Some((key, expr.as_ref()?)))
            .try_for_each(|(key, expr)| check_names(expr, key, known))
    }
}

fn check_all(exprs: &[Expr], key: &str, known: &[&str]) -> Result<(), BadKey> {
    exprs.iter().enumerate().try_for_each(|(i, expr)| check_names(expr, &format!("{key}[{i}]"), known))
}

fn check_dimensions(key: &str, shape: &[Expr], strides: Option<&[Expr]>, known: &[&str]) -> Result<(), BadKey> {
    check_all(shape, &format!("{key}.shape"), known)?;
    check_all(strides.unwrap_or_default(), &format!("{key}.strides"), known)
}

fn check_limit(key: &str, limit: f64) -> Result<(), BadKey> {
    if limit.is_finite() && limit >= 0.0 {
        return Ok(());
    }
    BadKey::refuse(key, format!("is {limit:?}, and must be a finite number of at least 0"))
}
