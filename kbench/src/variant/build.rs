//! What the build of a variant is given on a shape: definitions for the compiler, and entries with their values
//! inserted. Shapes that agree in the definitions share a build.
//! Leaves to others: compiling, and finding entries in what came out.

use kernel_spec::expr::{Expr, Lookup, Value};
use kernel_spec::launch::Step;

use super::table::DeclaredStep;
use super::{Kind, Specialised, Variant};
use crate::key::BadKey;
use crate::names::{Axes, Names};
use crate::operator::declared::Declared;
use crate::ordered::Ordered;

/// The flag of a CUDA build that names no flags.
pub const STANDARD: &str = "-std=c++17";

/// One build of a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Build {
    /// Names and texts of `-D`, in the order of the file.
    pub defines: Vec<(String, String)>,
    /// Every entry that a shape launches, in the order of launches.
    pub entries: Vec<String>,
    /// What Triton is told, where it is the compiler.
    pub triton: Option<Specialised>,
}

impl Build {
    /// One build for each set of definitions, with the entries of all its shapes.
    pub fn distinct(builds: impl IntoIterator<Item = Build>) -> Vec<Build> {
        let mut found: Vec<Build> = Vec::new();
        for build in builds {
            match found.iter_mut().find(|f| f.is_one_with(&build)) {
                Some(same) => {
                    let new = build.entries.into_iter().filter(|e| !same.entries.contains(e)).collect::<Vec<_>>();
                    same.entries.extend(new);
                }
                None => found.push(build),
            }
        }
        found
    }

    /// Whether both are compiled to the same.
    pub fn is_one_with(&self, other: &Build) -> bool {
        self.defines == other.defines && self.triton == other.triton
    }

    /// The build for these very launches, of which a compiler may look at the numbers.
    pub fn by(&self, steps: &[Step]) -> Build {
        let launch = steps.iter().find_map(|step| match step {
            Step::Launch(launch) => Some(launch),
            Step::Memset { .. } | Step::Copy { .. } => None,
        });
        let told = |triton: Specialised| launch.map(|launch| triton.by(launch));
        Build { triton: self.triton.clone().and_then(told), ..self.clone() }
    }
}

impl Variant {
    /// What its build is given on one shape. A plan must have answered.
    pub fn build(&self, operator: &Declared, axes: &Axes) -> Result<Build, BadKey> {
        let names = self.names(operator, axes, None)?;
        let mut entries = Vec::new();
        for (key, step) in self.declared_steps()? {
            let DeclaredStep::Launch(launch) = step else { continue };
            let entry = entry(&launch.entry, &names, &format!("{key}.entry"))?;
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        let triton = match &self.kind {
            Kind::Triton(function) => Some(self.specialised(function, operator, &names)?),
            Kind::Entry(_) | Kind::Launches(_) | Kind::Plan { .. } | Kind::Call(_) => None,
        };
        Ok(Build { defines: self.define_texts(&names)?, entries, triton })
    }

    /// Names and texts of `-D` on one shape, which need no answer of a plan.
    pub fn defines(&self, operator: &Declared, axes: &Axes) -> Result<Vec<(String, String)>, BadKey> {
        self.define_texts(&self.names(operator, axes, None)?)
    }

    /// The file that answers with launches, where there is one.
    pub fn plan_file(&self) -> Option<&str> {
        match &self.kind {
            Kind::Plan { file, .. } => Some(file),
            Kind::Entry(_) | Kind::Launches(_) | Kind::Triton(_) | Kind::Call(_) => None,
        }
    }

    /// `let` and `define` on one shape, as a plan is told of them; those that follow from the seed are left out.
    pub fn plan_values(&self, operator: &Declared, axes: &Axes) -> Result<[Vec<(String, Value)>; 2], BadKey> {
        let names = self.names(operator, axes, None)?;
        let of = |keys: &Ordered<Expr>| keys.keys().filter_map(|n| Some((n.to_owned(), names.get(n)?))).collect();
        Ok([of(&self.values), of(&self.define)])
    }

    fn define_texts(&self, names: &Names) -> Result<Vec<(String, String)>, BadKey> {
        let text = |name: &str| match names.get(name) {
            Some(value) => Ok((name.to_owned(), compiler_text(&value))),
            None => BadKey::refuse(self.key(&format!("define.{name}")), "follows from the seed, and a build has none"),
        };
        self.define.keys().map(text).collect()
    }
}

/// A value as a macro's text. Truths are digits, which the preprocessor of C knows too.
fn compiler_text(value: &Value) -> String {
    match value {
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Bool(value) => u8::from(*value).to_string(),
        Value::Str(text) => text.clone(),
    }
}

/// The names in braces of an entry, or why they cannot be read.
pub(super) fn placeholders(text: &str) -> Result<Vec<&str>, String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let inner = rest[open..].strip_prefix('{').ok_or("has a `}` without its `{`")?;
        let close = inner.find('}').ok_or("has a `{` without its `}`")?;
        let name = &inner[..close];
        if kernel_spec::expr::check_name(name).is_err() {
            return Err(format!("`{{{name}}}` is not the name of a value: put what it computes into `let`"));
        }
        names.push(name);
        rest = &inner[close + 1..];
    }
    Ok(names)
}

/// An entry with its values inserted.
pub(super) fn entry(text: &str, names: &Names, key: &str) -> Result<String, BadKey> {
    let mut inserted = text.to_owned();
    for name in placeholders(text).map_err(|why| BadKey::new(key, why))? {
        let value = match names.get(name) {
            Some(Value::Float(value)) => {
                return BadKey::refuse(key, format!("`{name}` is {value:?}, and a template takes no floats"));
            }
            Some(Value::Bool(value)) => value.to_string(),
            Some(value) => compiler_text(&value),
            None => return BadKey::refuse(key, format!("`{name}` has no value that a build can know")),
        };
        inserted = inserted.replace(&format!("{{{name}}}"), &value);
    }
    check_entry(&inserted).map_err(|why| BadKey::new(key, why))?;
    Ok(inserted)
}

/// What stands between `&` and `>` in C++ must be one name: anything else could end the statement.
fn check_entry(entry: &str) -> Result<(), String> {
    let named = |c: char| c.is_ascii_alphanumeric() || "_$:".contains(c);
    let (name, arguments) = entry.split_at(entry.find('<').unwrap_or(entry.len()));
    let allowed = |c: char| named(c) || "<>, ()-*&".contains(c);
    let mut depth = 0_i32;
    let balanced = entry.chars().all(|c| {
        depth += i32::from(c == '<' || c == '(') - i32::from(c == '>' || c == ')');
        depth >= 0
    });
    let starts = name.starts_with(|c: char| named(c) && !c.is_ascii_digit());
    if starts && name.chars().all(named) && arguments.chars().all(allowed) && balanced && depth == 0 {
        return Ok(());
    }
    Err(format!("{entry:?} is not a kernel's name: a PTX symbol, a C++ name or a template-id such as `softmax<256>`"))
}

/// Whether it can be a symbol of PTX, which is all that a source without C++ has.
pub(super) fn is_symbol(entry: &str) -> bool {
    !entry.is_empty() && entry.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
}
