//! Expressions over the names of a gate file: shapes, grids, bytes, scalars, constraints. Arithmetic is Python's, on
//! 64-bit integers and finite floats; what does not fit is refused in one line that says where and what to do.
//! Leaves to others: which names there are, and what a value is used for.

mod eval;
mod lex;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::de::{IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::words;
use parse::Node;
pub use value::Value;

/// Longest expression, in bytes.
pub const MAX_TEXT: usize = 4096;
/// Deepest nesting of parentheses, signs, powers and conditions.
pub const MAX_DEPTH: usize = 48;

/// Where an expression's names get their values.
pub trait Lookup {
    /// The value of a name.
    fn get(&self, name: &str) -> Option<Value>;
    /// Every name there is, for the message about one that there is not.
    fn names(&self) -> Vec<&str>;
}

impl Lookup for BTreeMap<String, Value> {
    fn get(&self, name: &str) -> Option<Value> {
        BTreeMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }
}

/// An expression cannot be read or has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` at {column}: {why}", words::one_line(.text))]
pub struct ExprError {
    /// The expression.
    pub text: String,
    /// Character at which the fault is, the first being 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub why: String,
}

/// A fault at a byte of the text, before it is joined with it.
#[derive(Clone, Debug)]
struct Fault {
    at: usize,
    why: String,
}

impl Fault {
    fn new(at: usize, why: impl Into<String>) -> Fault {
        Fault { at, why: why.into() }
    }
}

/// What stood in the file.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    Number(Value),
    Text(String),
}

/// A parsed expression; it keeps what stood in the file and writes that again.
#[derive(Clone, Debug)]
pub struct Expr {
    source: Source,
    root: Node,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        self.source == other.source
    }
}

impl Expr {
    /// The expression that is this value. A text becomes a quoted one.
    pub fn constant(value: impl Into<Value>) -> Expr {
        match value.into() {
            Value::Str(text) => Expr { source: Source::Text(Value::Str(text.clone()).to_string()), root: text.into() },
            number => Expr { source: Source::Number(number.clone()), root: number.into() },
        }
    }

    /// The value, with names looked up. Branches that are not taken are not evaluated.
    pub fn evaluate(&self, names: &dyn Lookup) -> Result<Value, ExprError> {
        eval::evaluate(&self.root, names).map_err(|fault| self.error(fault))
    }

    /// The value as an integer; a bool counts as 0 or 1, a float is refused even where it is whole.
    pub fn integer(&self, names: &dyn Lookup) -> Result<i64, ExprError> {
        match self.evaluate(names)? {
            Value::Int(value) => Ok(value),
            Value::Bool(value) => Ok(i64::from(value)),
            Value::Float(value) => {
                Err(self.refused(format!("is {value:?}, and an integer is needed: use // or ceil_div")))
            }
            other => Err(self.refused(format!("is the text {other}, and an integer is needed"))),
        }
    }

    /// The value as a float, integers rounded to the nearest.
    pub fn float(&self, names: &dyn Lookup) -> Result<f64, ExprError> {
        match self.evaluate(names)? {
            Value::Int(value) => Ok(value as f64),
            Value::Bool(value) => Ok(f64::from(u8::from(value))),
            Value::Float(value) => Ok(value),
            other => Err(self.refused(format!("is the text {other}, and a number is needed"))),
        }
    }

    /// Whether the value is true as Python has it: not 0, and not an empty text.
    pub fn truth(&self, names: &dyn Lookup) -> Result<bool, ExprError> {
        Ok(self.evaluate(names)?.truth())
    }

    /// Every name in it, also in branches that may not be taken.
    pub fn names(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.root.names(&mut names);
        names
    }

    /// Its name, where it is nothing but one.
    pub fn as_name(&self) -> Option<&str> {
        match &self.root {
            Node::Name { name, .. } => Some(name),
            _ => None,
        }
    }

    fn error(&self, fault: Fault) -> ExprError {
        located(&self.to_string(), fault)
    }

    fn refused(&self, why: String) -> ExprError {
        self.error(Fault::new(0, why))
    }
}

fn located(text: &str, fault: Fault) -> ExprError {
    let column = text.char_indices().take_while(|(at, _)| *at < fault.at).count() + 1;
    ExprError { text: text.to_owned(), column, why: fault.why }
}

/// Whether an axis, tensor, scratch or value may have this name; if not, why.
pub fn check_name(name: &str) -> Result<(), String> {
    let shown = words::one_line(name);
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.chars().all(word) || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Err(format!("`{shown}` is not a name: letters, digits and _, no digit first"));
    }
    if parse::FUNCTIONS.iter().any(|(function, _)| *function == name) {
        return Err(format!("`{shown}` is a function of expressions: take another name"));
    }
    if PYTHON_KEYWORDS.contains(&name) {
        return Err(format!("`{shown}` is a word of Python, and names are handed to it: take another"));
    }
    Ok(())
}

const PYTHON_KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

impl FromStr for Expr {
    type Err = ExprError;

    fn from_str(text: &str) -> Result<Expr, ExprError> {
        let root = parse::parse(text).map_err(|fault| located(text, fault))?;
        Ok(Expr { source: Source::Text(text.to_owned()), root })
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Number(value) => write!(f, "{value}"),
            Source::Text(text) => f.write_str(text),
        }
    }
}

impl Serialize for Expr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.source {
            Source::Number(value) => value.serialize(serializer),
            Source::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Expr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Expr, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Expr;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or an expression in quotes")
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Expr, E> {
                Ok(Expr::constant(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Expr, E> {
                Ok(Expr::constant(value))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Expr, E> {
                Value::deserialize(value.into_deserializer()).map(Expr::constant)
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Expr, E> {
                Value::deserialize(value.into_deserializer()).map(Expr::constant)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Expr, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}
