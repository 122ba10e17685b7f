//! What can be wrong with a variant whatever the shape is. Leaves to others: what a shape makes of it.

use kernel_spec::words;

use super::param::NO_MAPS_YET;
use super::table::{DeclaredLaunch, DeclaredStep};
use super::{Kind, Language, Param, Variant, build, flags};
use crate::key::{BadKey, check_file};
use crate::names::{Namespace, check_names, in_order};
use crate::operator::declared::Declared;

/// Names that expressions may have in the places of a variant.
struct Known<'a> {
    /// In definitions and entries.
    build: Vec<&'a str>,
    /// In launches.
    launch: Vec<&'a str>,
    /// In grids.
    grid: Vec<&'a str>,
    /// In scratch.
    scratch: Vec<&'a str>,
}

const DEVICE: [&str; 3] = ["sms", "max_shared", "max_active"];

impl Variant {
    /// Refuses what cannot work on any shape. `space` has the operator's names.
    pub fn check(&self, operator: &Declared, space: &Namespace) -> Result<(), BadKey> {
        self.take_names(space.clone())?;
        self.check_source()?;
        self.check_definitions(operator)?;
        self.check_symbols(operator)?;
        let known = self.known(operator);
        match &self.kind {
            Kind::Call(function) => return self.check_call(function),
            Kind::Triton(function) => {
                function.check(&|part| self.key(part))?;
                for (part, expr) in [("num_warps", &function.num_warps), ("num_stages", &function.num_stages)] {
                    check_names(expr, &self.key(part), &known.build)?;
                }
            }
            Kind::Entry(_) | Kind::Launches(_) | Kind::Plan { .. } => {}
        }
        for (name, scratch) in self.scratch.iter() {
            for (i, extent) in scratch.shape.iter().enumerate() {
                check_names(extent, &self.key(&format!("scratch.{name}.shape[{i}]")), &known.scratch)?;
            }
        }
        if matches!(self.kind, Kind::Plan { answer: None, .. }) {
            return Ok(());
        }
        let steps = self.declared_steps()?;
        for (key, step) in &steps {
            match step {
                DeclaredStep::Launch(launch) => self.check_launch(operator, launch, key, &known)?,
                DeclaredStep::Memset { tensor, .. } => {
                    self.check_written(operator, tensor, &format!("{key}.memset"))?
                }
                DeclaredStep::Copy { from, to } => {
                    self.check_tensor(operator, from, &format!("{key}.copy[0]"))?;
                    self.check_written(operator, to, &format!("{key}.copy[1]"))?;
                }
            }
        }
        self.check_outputs(operator, &steps)
    }

    /// A function does its own launches, and has the memory of its own that it asks for.
    fn check_call(&self, function: &str) -> Result<(), BadKey> {
        if !build::is_symbol(function) || function.contains('$') || function.starts_with(|c: char| c.is_ascii_digit()) {
            return BadKey::refuse(self.key("call"), format!("{function:?} is not the name of a function"));
        }
        let not_for_it = [("scratch", !self.scratch.is_empty()), ("symbols", !self.symbols.is_empty())];
        match not_for_it.iter().find(|(_, is_given)| *is_given) {
            Some((part, _)) => {
                BadKey::refuse(self.key(part), "does not go with `call`: the function takes memory for itself")
            }
            None => Ok(()),
        }
    }

    fn take_names(&self, mut space: Namespace) -> Result<(), BadKey> {
        for definition in self.definitions() {
            space.take(definition.name, &definition.key)?;
        }
        self.scratch.keys().try_for_each(|name| space.take(name, &self.key(&format!("scratch.{name}"))))
    }

    fn check_source(&self) -> Result<(), BadKey> {
        let key = self.key("source");
        match &self.kind {
            Kind::Triton(_) | Kind::Call(_) => check_file(&key, &self.source, &["py"])?,
            _ => check_file(&key, &self.source, &Language::BY_EXTENSION.map(|(extension, _)| extension))?,
        }
        if let Kind::Plan { file, .. } = &self.kind {
            check_file(&self.key("plan"), file, &["py"])?;
        }
        let language = self.language();
        if language.is_ready() && !self.define.is_empty() {
            return BadKey::refuse(self.key("define"), format!("{} is not compiled: use `let`", self.source));
        }
        let of_cuda = [("flags", self.flags.is_empty()), ("include", self.include.is_empty())];
        if let Some((part, _)) = of_cuda.iter().find(|(_, is_empty)| !language.is_cuda() && !is_empty) {
            let how = match language {
                Language::Ptx | Language::Cubin | Language::Call => "not compiled",
                Language::Cuda | Language::Triton => "compiled without",
            };
            return BadKey::refuse(self.key(part), format!("{} is {how}: remove it", self.source));
        }
        for (i, flag) in self.flags.iter().enumerate() {
            flags::check(flag).map_err(|why| BadKey::new(self.key(&format!("flags[{i}]")), why))?;
        }
        match self.include.iter().position(|folder| folder.is_empty() || folder.starts_with('-')) {
            Some(i) => {
                BadKey::refuse(self.key(&format!("include[{i}]")), format!("{:?} is no folder", self.include[i]))
            }
            None => Ok(()),
        }
    }

    fn known<'a>(&'a self, operator: &'a Declared) -> Known<'a> {
        let seeded = self.seeded();
        let values = operator.value_names().into_iter();
        let all: Vec<&str> = values.chain(self.values.keys()).chain(self.define.keys()).collect();
        let build: Vec<&str> = all.iter().copied().filter(|name| !seeded.contains(name)).collect();
        let launch: Vec<&str> = all.into_iter().chain(["seed"]).collect();
        let with_device = |names: &[&'a str]| names.iter().copied().chain(DEVICE).collect();
        Known { grid: with_device(&launch), scratch: with_device(&build), build, launch }
    }

    fn check_definitions(&self, operator: &Declared) -> Result<(), BadKey> {
        let known = self.known(operator);
        let definitions = self.definitions();
        let seeded = self.seeded();
        for definition in &definitions {
            if self.define.get(definition.name).is_some() && seeded.contains(&definition.name) {
                return BadKey::refuse(&definition.key, "follows from the seed, and a build has none: use `let`");
            }
            check_names(definition.expr, &definition.key, &known.launch).map_err(|mut error| {
                if self.define.get(definition.name).is_some() {
                    error.why.push_str("; text for the compiler is quoted twice, as in \"'relu'\"");
                }
                error
            })?;
        }
        in_order(&definitions).map(drop)
    }

    fn check_symbols(&self, operator: &Declared) -> Result<(), BadKey> {
        for (symbol, input) in self.symbols.iter() {
            let key = self.key(&format!("symbols.{symbol}"));
            if operator.inputs.get(input).is_none() {
                let near = words::suggestion(input, operator.inputs.keys());
                return BadKey::refuse(key, format!("`{input}` is no input: {near}"));
            }
            if !build::is_symbol(symbol) {
                return BadKey::refuse(key, "is not the symbol of a device variable: letters, digits, _ and $");
            }
        }
        Ok(())
    }

    fn check_launch(
        &self,
        operator: &Declared,
        launch: &DeclaredLaunch,
        key: &str,
        known: &Known<'_>,
    ) -> Result<(), BadKey> {
        let entry_key = format!("{key}.entry");
        for name in build::placeholders(&launch.entry).map_err(|why| BadKey::new(&entry_key, why))? {
            let expr = name.parse().map_err(crate::names::at(&entry_key))?;
            check_names(&expr, &entry_key, &known.build)?;
        }
        if !self.language().is_cuda() && !build::is_symbol(&launch.entry) {
            let why = format!("{:?} is not a symbol, which is all that {} has", launch.entry, self.source);
            return BadKey::refuse(entry_key, why);
        }
        let extents = [
            ("grid", Some(&launch.grid), &known.grid),
            ("block", Some(&launch.block), &known.launch),
            ("cluster", launch.cluster.as_ref(), &known.launch),
        ];
        for (part, exprs, names) in extents.into_iter().filter_map(|(part, exprs, names)| Some((part, exprs?, names))) {
            if !(1..=3).contains(&exprs.len()) {
                return BadKey::refuse(
                    format!("{key}.{part}"),
                    format!("has {} extents: give one to three", exprs.len()),
                );
            }
            for (i, expr) in exprs.iter().enumerate() {
                check_names(expr, &format!("{key}.{part}[{i}]"), names)?;
            }
        }
        if let Some(shared) = &launch.shared {
            check_names(shared, &format!("{key}.shared"), &known.launch)?;
        }
        launch
            .params
            .iter()
            .enumerate()
            .try_for_each(|(i, param)| self.check_param(operator, param, &format!("{key}.params[{i}]"), known))
    }

    fn check_param(&self, operator: &Declared, param: &Param, key: &str, known: &Known<'_>) -> Result<(), BadKey> {
        param.flat().into_iter().try_for_each(|part| match part {
            Param::Tensor(name) if known.launch.contains(&name.as_str()) => {
                BadKey::refuse(key, format!("`{name}` is a number: give it its dtype, as in `{name}: i32`"))
            }
            Param::Tensor(name) => self.check_tensor(operator, name, key),
            Param::Scalar { expr, .. } => check_names(expr, key, &known.launch),
            Param::Map { .. } => BadKey::refuse(key, NO_MAPS_YET),
            Param::Null | Param::Struct { .. } => Ok(()),
        })
    }

    fn check_tensor(&self, operator: &Declared, name: &str, key: &str) -> Result<(), BadKey> {
        let known: Vec<&str> =
            operator.inputs.keys().chain(operator.outputs.keys()).chain(self.scratch.keys()).collect();
        if known.contains(&name) {
            return Ok(());
        }
        BadKey::refuse(key, format!("there is no tensor `{name}`: {}", words::suggestion(name, known)))
    }

    /// A tensor that a step may overwrite.
    fn check_written(&self, operator: &Declared, name: &str, key: &str) -> Result<(), BadKey> {
        self.check_tensor(operator, name, key)?;
        if operator.outputs.get(name).is_some() || self.scratch.get(name).is_some() {
            return Ok(());
        }
        BadKey::refuse(key, format!("`{name}` is an input, which nothing may overwrite: use scratch"))
    }

    /// An output that no step is given cannot be written.
    fn check_outputs(&self, operator: &Declared, steps: &[(String, DeclaredStep)]) -> Result<(), BadKey> {
        let mut given: Vec<&str> = Vec::new();
        for (_, step) in steps {
            match step {
                DeclaredStep::Launch(launch) => {
                    given.extend(launch.params.iter().flat_map(Param::flat).filter_map(|param| match param {
                        Param::Tensor(name) | Param::Map { tensor: name, .. } => Some(name.as_str()),
                        _ => None,
                    }));
                }
                DeclaredStep::Memset { tensor, .. } => given.push(tensor),
                DeclaredStep::Copy { to, .. } => given.push(to),
            }
        }
        if !steps.iter().any(|(_, step)| matches!(step, DeclaredStep::Launch(_))) {
            return BadKey::refuse(self.key("launches"), "launches no kernel: add a step with `entry`");
        }
        let same = |input: &Option<String>| input.as_deref().is_some_and(|i| given.contains(&i));
        match operator.outputs.iter().find(|(name, o)| !given.contains(name) && !same(&o.inplace)) {
            Some((name, _)) => {
                let part = if matches!(self.kind, Kind::Entry(_)) { "params" } else { "launches" };
                BadKey::refuse(self.key(part), format!("no kernel is given the output `{name}`"))
            }
            None => Ok(()),
        }
    }
}
