//! How an input is drawn: the distribution that a gate file names, and its figures for one shape.
//! Leaves to others: drawing.

use kernel_spec::dtype::Dtype;
use kernel_spec::expr::{Expr, Value};
use serde::{Deserialize, Serialize};

use super::Input;
use crate::key::BadKey;
use crate::names::Names;

/// A distribution with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Standard normal.
    Normal,
    /// Uniform from -1 to 1.
    Uniform,
    /// Uniform integers.
    Integers {
        /// Smallest.
        low: Expr,
        /// One above the largest.
        high: Expr,
    },
    /// Distinct integers in random order, from 0.
    Permutation {
        /// One above the largest that may occur.
        of: Expr,
    },
    /// Ascending integers from 0 to a total: where segments begin, and the last ends.
    Offsets {
        /// The last.
        total: Expr,
    },
    /// Normal, with a few values far outside.
    Outliers,
    /// Normal, times a large factor.
    Large,
    /// Negative numbers only.
    Negative,
    /// Every element the same.
    Constant {
        /// That value.
        value: Expr,
    },
    /// Every element 0.
    Zeros,
}

/// [`Distribution`] for one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Draw {
    /// See [`Distribution::Normal`].
    Normal,
    /// See [`Distribution::Uniform`].
    Uniform,
    /// `low <= element < high`.
    Integers {
        /// Smallest.
        low: i64,
        /// One above the largest.
        high: i64,
    },
    /// Distinct, `0 <= element < of`.
    Permutation {
        /// One above the largest that may occur.
        of: i64,
    },
    /// From 0 to `total`, ascending.
    Offsets {
        /// The last.
        total: i64,
    },
    /// See [`Distribution::Outliers`].
    Outliers,
    /// See [`Distribution::Large`].
    Large,
    /// See [`Distribution::Negative`].
    Negative,
    /// Every element this.
    Constant {
        /// A number or truth.
        value: Value,
    },
}

/// Names of all distributions, and the keys that each takes.
const KNOWN: [(&str, &[&str]); 10] = [
    ("normal", &[]),
    ("uniform", &[]),
    ("integers", &["low", "high"]),
    ("permutation", &["of"]),
    ("offsets", &["total"]),
    ("outliers", &[]),
    ("large", &[]),
    ("negative", &[]),
    ("constant", &["value"]),
    ("zeros", &[]),
];

/// An input as the file has it: a distribution's parameters stand beside its name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputTable {
    shape: Vec<Expr>,
    dtype: Option<Dtype>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strides: Option<Vec<Expr>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    distribution: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    low: Option<Expr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high: Option<Expr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<Expr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<Expr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Expr>,
}

impl InputTable {
    fn parameters(&mut self) -> [(&'static str, Option<Expr>); 5] {
        [
            ("low", self.low.take()),
            ("high", self.high.take()),
            ("of", self.of.take()),
            ("total", self.total.take()),
            ("value", self.value.take()),
        ]
    }
}

fn distribution(name: &str, given: Vec<(&'static str, Expr)>) -> Result<Distribution, String> {
    let Some((_, takes)) = KNOWN.iter().find(|(known, _)| *known == name) else {
        let known = KNOWN.map(|(known, _)| known).join(", ");
        return Err(format!("unknown distribution `{name}`: use one of {known}"));
    };
    if let Some((extra, _)) = given.iter().find(|(key, _)| !takes.contains(key)) {
        return Err(format!("`{extra}` means nothing to the distribution `{name}`: remove it"));
    }
    let mut given = given.into_iter();
    let mut take = |key: &str| {
        let next = given.next().filter(|(k, _)| *k == key).map(|(_, expr)| expr);
        next.ok_or_else(|| format!("the distribution `{name}` needs `{}`", takes.join("` and `")))
    };
    Ok(match name {
        "normal" => Distribution::Normal,
        "uniform" => Distribution::Uniform,
        "integers" => Distribution::Integers { low: take("low")?, high: take("high")? },
        "permutation" => Distribution::Permutation { of: take("of")? },
        "offsets" => Distribution::Offsets { total: take("total")? },
        "outliers" => Distribution::Outliers,
        "large" => Distribution::Large,
        "negative" => Distribution::Negative,
        "constant" => Distribution::Constant { value: take("value")? },
        _ => Distribution::Zeros,
    })
}

impl TryFrom<InputTable> for Input {
    type Error = String;

    fn try_from(mut table: InputTable) -> Result<Input, String> {
        let given: Vec<_> = table.parameters().into_iter().filter_map(|(key, expr)| Some((key, expr?))).collect();
        let distribution = match &table.distribution {
            Some(name) => Some(distribution(name, given)?),
            None => match given.first() {
                Some((key, _)) => return Err(format!("`{key}` is given without a distribution")),
                None => None,
            },
        };
        let dtype = table.dtype.ok_or("missing field `dtype`")?;
        Ok(Input { shape: table.shape, dtype, strides: table.strides, distribution })
    }
}

impl From<Input> for InputTable {
    fn from(input: Input) -> InputTable {
        let mut table = InputTable {
            shape: input.shape,
            dtype: Some(input.dtype),
            strides: input.strides,
            distribution: input.distribution.as_ref().map(|d| d.name().to_owned()),
            ..InputTable::default()
        };
        match input.distribution {
            Some(Distribution::Integers { low, high }) => (table.low, table.high) = (Some(low), Some(high)),
            Some(Distribution::Permutation { of }) => table.of = Some(of),
            Some(Distribution::Offsets { total }) => table.total = Some(total),
            Some(Distribution::Constant { value }) => table.value = Some(value),
            _ => {}
        }
        table
    }
}

impl Distribution {
    /// Its name in a gate file.
    pub fn name(&self) -> &'static str {
        match self {
            Distribution::Normal => "normal",
            Distribution::Uniform => "uniform",
            Distribution::Integers { .. } => "integers",
            Distribution::Permutation { .. } => "permutation",
            Distribution::Offsets { .. } => "offsets",
            Distribution::Outliers => "outliers",
            Distribution::Large => "large",
            Distribution::Negative => "negative",
            Distribution::Constant { .. } => "constant",
            Distribution::Zeros => "zeros",
        }
    }

    /// Its parameters by key.
    pub(super) fn parameters(&self) -> Vec<(&'static str, &Expr)> {
        match self {
            Distribution::Integers { low, high } => vec![("low", low), ("high", high)],
            Distribution::Permutation { of } => vec![("of", of)],
            Distribution::Offsets { total } => vec![("total", total)],
            Distribution::Constant { value } => vec![("value", value)],
            _ => Vec::new(),
        }
    }

    /// Whether elements of this type can be drawn so; if not, what can.
    pub(super) fn check(&self, dtype: Dtype) -> Result<(), String> {
        let needs_floats = matches!(
            self,
            Distribution::Normal
                | Distribution::Uniform
                | Distribution::Outliers
                | Distribution::Large
                | Distribution::Negative
        );
        let needs_integers = matches!(self, Distribution::Permutation { .. } | Distribution::Offsets { .. });
        if needs_floats && !dtype.is_float() {
            return Err(format!(
                "`{}` draws floats, and the tensor is {dtype}: use integers {{ low, high }}",
                self.name()
            ));
        }
        if needs_integers && (dtype.is_float() || dtype == Dtype::Bool) {
            return Err(format!(
                "`{}` draws indices, and the tensor is {dtype}: give it an integer dtype",
                self.name()
            ));
        }
        Ok(())
    }

    /// Its figures for one shape. `key` is that of the input.
    pub(super) fn draw(&self, dtype: Dtype, elements: u64, names: &Names, key: &str) -> Result<Draw, BadKey> {
        let holds = |key: &str, value: i64| match dtype.range() {
            Some((least, most)) if !(least..=most).contains(&i128::from(value)) => {
                BadKey::refuse(key, format!("is {value}, and {dtype} holds {least} to {most}"))
            }
            _ => Ok(()),
        };
        Ok(match self {
            Distribution::Normal => Draw::Normal,
            Distribution::Uniform => Draw::Uniform,
            Distribution::Outliers => Draw::Outliers,
            Distribution::Large => Draw::Large,
            Distribution::Negative => Draw::Negative,
            Distribution::Zeros => Draw::Constant { value: Value::Int(0) },
            Distribution::Integers { low, high } => {
                let (low_key, high_key) = (format!("{key}.low"), format!("{key}.high"));
                let low = names.integer(low, i64::MIN, &low_key)?;
                let high = names.integer(high, i64::MIN, &high_key)?;
                if high <= low {
                    return BadKey::refuse(
                        high_key,
                        format!("is {high}, and must be above low = {low}: it is not drawn"),
                    );
                }
                holds(&low_key, low)?;
                holds(&high_key, high - 1)?;
                Draw::Integers { low, high }
            }
            Distribution::Permutation { of } => {
                let key = format!("{key}.of");
                let of = names.integer(of, 1, &key)?;
                if elements > of as u64 {
                    return BadKey::refuse(key, format!("is {of}, and {elements} distinct elements are asked for"));
                }
                holds(&key, of - 1)?;
                Draw::Permutation { of }
            }
            Distribution::Offsets { total } => {
                let key = format!("{key}.total");
                let total = names.integer(total, 0, &key)?;
                if elements < 2 {
                    return BadKey::refuse(key, "offsets need at least two elements: a first and a last");
                }
                holds(&key, total)?;
                Draw::Offsets { total }
            }
            Distribution::Constant { value } => {
                let key = format!("{key}.value");
                if dtype.is_float() {
                    value.float(names).map_err(crate::names::at(&key))?;
                } else {
                    holds(&key, names.integer(value, i64::MIN, &key)?)?;
                }
                Draw::Constant { value: value.evaluate(names).map_err(crate::names::at(&key))? }
            }
        })
    }
}
