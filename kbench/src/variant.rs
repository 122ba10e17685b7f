//! A variant as a gate file declares it: its source, what its build is given, and what is launched on a shape. Pure:
//! the answer of a plan is handed in as data. Every refusal is one line that names the key.
//! Leaves to others: compiling, running plans, and launching.

mod build;
mod checks;
mod flags;
mod language;
mod merge;
mod param;
mod steps;
mod table;
#[cfg(test)]
mod tests;
mod triton;

use std::collections::BTreeMap;

use kernel_spec::expr::{Expr, Value};

use crate::key::BadKey;
use crate::names::{Axes, Definition, Names};
use crate::operator::declared::Declared;
use crate::ordered::Ordered;
pub use build::{Build, STANDARD};
pub use language::Language;
pub use merge::{chain, resolve};
pub use param::Param;
pub use steps::{DeviceFacts, Scratch};
pub use table::{DeclaredLaunch, DeclaredScratch, DeclaredStep, VariantTable, Zero};
pub use triton::{Function, Known, Specialised, Told};

/// A variant with everything that it inherits.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// The file that its kernels are in, from the gate file's folder.
    pub source: String,
    /// Values that reach the compiler.
    pub define: Ordered<Expr>,
    /// Values of launches, which do not.
    pub values: Ordered<Expr>,
    /// Flags of the compiler besides the target and the definitions.
    pub flags: Vec<String>,
    /// Folders that the source may include from.
    pub include: Vec<String>,
    /// What is launched.
    pub kind: Kind,
    /// Memory of its own.
    pub scratch: Ordered<DeclaredScratch>,
    /// Device symbols and the inputs that are copied to them before a launch, untimed.
    pub symbols: Ordered<String>,
}

/// What is launched.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// One kernel.
    Entry(DeclaredLaunch),
    /// Several things in order.
    Launches(Vec<DeclaredStep>),
    /// What a Python file answers for the shape.
    Plan {
        /// The file.
        file: String,
        /// Its answer, once there is one.
        answer: Option<Vec<DeclaredStep>>,
    },
    /// A Triton function.
    Triton(Box<Function>),
    /// A function of this name on torch tensors.
    Call(String),
}

impl Variant {
    /// The key of one of its parts.
    fn key(&self, part: &str) -> String {
        format!("variants.{}.{part}", self.name)
    }

    /// The same variant with the answer of its plan for one shape.
    pub fn planned(&self, steps: Vec<DeclaredStep>) -> Variant {
        let mut planned = self.clone();
        if let Kind::Plan { answer, .. } = &mut planned.kind {
            *answer = Some(steps);
        }
        planned
    }

    /// What is launched, each with its key.
    fn declared_steps(&self) -> Result<Vec<(String, DeclaredStep)>, BadKey> {
        let keyed = |part: &str, steps: &[DeclaredStep]| {
            let key = |i| self.key(&format!("{part}[{i}]"));
            steps.iter().enumerate().map(|(i, step)| (key(i), step.clone())).collect()
        };
        match &self.kind {
            Kind::Entry(launch) => {
                let key = format!("variants.{}", self.name);
                Ok(vec![(key, DeclaredStep::Launch(launch.clone()))])
            }
            Kind::Launches(steps) => Ok(keyed("launches", steps)),
            Kind::Plan { answer: Some(steps), .. } => Ok(keyed("plan", steps)),
            Kind::Plan { file, answer: None } => {
                BadKey::refuse(self.key("plan"), format!("`{file}` has not answered for this shape: run it first"))
            }
            Kind::Triton(function) => {
                let key = format!("variants.{}", self.name);
                Ok(vec![(key, DeclaredStep::Launch(function.launch.clone()))])
            }
            // It launches for itself.
            Kind::Call(_) => Ok(Vec::new()),
        }
    }

    /// The function on tensors that it is, where it is one.
    pub fn call(&self) -> Option<&str> {
        match &self.kind {
            Kind::Call(function) => Some(function),
            Kind::Entry(_) | Kind::Launches(_) | Kind::Plan { .. } | Kind::Triton(_) => None,
        }
    }

    /// What a function on tensors may be handed besides them on one shape: axes, `let` and `define`, but those that follow from
    /// the seed.
    pub fn call_values(&self, operator: &Declared, axes: &Axes) -> Result<BTreeMap<String, Value>, BadKey> {
        let names = self.names(operator, axes, None)?;
        Ok(names.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect())
    }

    /// Its `let` and `define`, with keys.
    fn definitions(&self) -> Vec<Definition<'_>> {
        let parts = [("let", &self.values), ("define", &self.define)];
        let keyed =
            parts.into_iter().flat_map(|(part, table)| table.iter().map(move |(name, expr)| (part, name, expr)));
        keyed.map(|(part, name, expr)| Definition { name, key: self.key(&format!("{part}.{name}")), expr }).collect()
    }

    /// The definitions that follow from the seed, by whatever way.
    fn seeded(&self) -> Vec<&str> {
        let mut seeded = vec!["seed"];
        loop {
            let definitions = self.values.iter().chain(self.define.iter());
            let more: Vec<&str> = definitions
                .filter(|(name, expr)| !seeded.contains(name) && seeded.iter().any(|s| expr.names().contains(s)))
                .map(|(name, _)| name)
                .collect();
            if more.is_empty() {
                return seeded;
            }
            seeded.extend(more);
        }
    }

    /// The values of all names on one shape; without a seed, without those that follow from it.
    fn names(&self, operator: &Declared, axes: &Axes, seed: Option<u64>) -> Result<Names, BadKey> {
        let mut names = operator.names(axes)?;
        let mut definitions = self.definitions();
        match seed {
            Some(seed) => {
                let value = i64::try_from(seed);
                names.add("seed", value.map_err(|_| BadKey::new("seeds", format!("{seed} is above {}", i64::MAX)))?);
            }
            None => {
                let seeded = self.seeded();
                definitions.retain(|d| !seeded.contains(&d.name));
            }
        }
        names.define(&definitions)?;
        Ok(names)
    }
}
