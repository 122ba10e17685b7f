//! The one namespace of a gate file: who has which name, and which values names have for one shape. Values may be
//! defined by each other in any order. Leaves to others: where names come from, and what values are used for.

use std::collections::BTreeMap;

use kernel_spec::expr::{self, Expr, ExprError, Lookup, Value};
use kernel_spec::words;

use crate::key::BadKey;

/// A shape: the value of every axis.
pub type Axes = BTreeMap<String, i64>;

/// Names that expressions have without anybody declaring them, and the word for a null pointer.
pub const GIVEN: [&str; 5] = ["seed", "sms", "max_shared", "max_active", "null"];

/// Who has which name, whatever its value.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    taken: Vec<(String, String)>,
}

impl Namespace {
    /// Takes a name for the key that declares it.
    pub fn take(&mut self, name: &str, key: &str) -> Result<(), BadKey> {
        expr::check_name(name).map_err(|why| BadKey::new(key, why))?;
        if GIVEN.contains(&name) {
            return BadKey::refuse(key, format!("`{name}` has a meaning of its own in expressions: take another name"));
        }
        if let Some((_, owner)) = self.taken.iter().find(|(n, _)| n == name) {
            return BadKey::refuse(
                key,
                format!("`{name}` is already the name of {owner}: names are shared, take another"),
            );
        }
        self.taken.push((name.to_owned(), key.to_owned()));
        Ok(())
    }
}

/// A value that is defined by an expression, and its key.
#[derive(Clone, Debug)]
pub struct Definition<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it stands.
    pub key: String,
    /// What it is.
    pub expr: &'a Expr,
}

/// Values of names for one shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names(Vec<(String, Value)>);

impl Lookup for Names {
    fn get(&self, name: &str) -> Option<Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

impl Names {
    /// Names and values in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Adds a name.
    pub fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Adds what is defined, each after those that it names.
    pub fn define(&mut self, definitions: &[Definition<'_>]) -> Result<(), BadKey> {
        for definition in in_order(definitions)? {
            let value = definition.expr.evaluate(self).map_err(at(&definition.key))?;
            self.add(definition.name, value);
        }
        Ok(())
    }

    /// The values of the names in an expression, for a message: `heads = 30, kv_heads = 8`.
    pub fn shown(&self, expr: &Expr) -> String {
        let values =
            expr.names().into_iter().filter_map(|name| self.get(name).map(|value| format!("{name} = {value}")));
        values.collect::<Vec<_>>().join(", ")
    }

    /// An integer of at least `least`.
    pub fn integer(&self, expr: &Expr, least: i64, key: &str) -> Result<i64, BadKey> {
        let value = expr.integer(self).map_err(at(key))?;
        if value >= least {
            return Ok(value);
        }
        BadKey::refuse(key, format!("{}, and must be at least {least}", self.equals(expr, value)))
    }

    /// An integer from `least` to what 32 bits hold.
    pub fn small(&self, expr: &Expr, least: i64, key: &str) -> Result<u32, BadKey> {
        let value = self.integer(expr, least, key)?;
        let fits = u32::try_from(value);
        fits.map_err(|_| BadKey::new(key, format!("{}, and must be at most {}", self.equals(expr, value), u32::MAX)))
    }

    /// `` `rows - 3` is 0 for rows = 3 ``, without what goes without saying.
    fn equals(&self, expr: &Expr, value: i64) -> String {
        let text = words::one_line(&expr.to_string());
        match self.shown(expr) {
            given if given.is_empty() => format!("is {value}"),
            _ if expr.as_name().is_some() => format!("`{text}` is {value}"),
            given => format!("`{text}` is {value} for {given}"),
        }
    }
}

/// An error of an expression at a key.
pub fn at(key: &str) -> impl Fn(ExprError) -> BadKey + use<'_> {
    move |error| BadKey::new(key, error.to_string())
}

/// Definitions such that each stands after those that it names; a circle is refused.
pub fn in_order<'a, 'b>(definitions: &'b [Definition<'a>]) -> Result<Vec<&'b Definition<'a>>, BadKey> {
    let mut waiting: Vec<&Definition<'_>> = definitions.iter().collect();
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let blocked = |d: &Definition<'_>| waiting.iter().any(|other| d.expr.names().contains(other.name));
        let (later, now): (Vec<_>, Vec<_>) = waiting.iter().copied().partition(|d| blocked(d));
        if now.is_empty() {
            let names: Vec<String> = later.iter().map(|d| format!("`{}`", d.name)).collect();
            let why = match &names[..] {
                [name] => format!("{name} is defined by itself: give it a value"),
                _ => format!("{} are defined by each other: give one a value", names.join(", ")),
            };
            return BadKey::refuse(&later[0].key, why);
        }
        ordered.extend(now);
        waiting = later;
    }
    Ok(ordered)
}

/// Refuses a name that nobody has, also where no shape would evaluate it.
pub fn check_names(expr: &Expr, key: &str, known: &[&str]) -> Result<(), BadKey> {
    match expr.names().into_iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) if GIVEN.contains(&name) => {
            let places = "seed is for launches; sms, max_shared and max_active are for grids and scratch";
            BadKey::refuse(key, format!("`{name}` is not known here: {places}"))
        }
        Some(name) => {
            let shown = words::one_line(&expr.to_string());
            let near = words::suggestion(name, known.iter().copied());
            BadKey::refuse(key, format!("`{shown}`: unknown name `{name}`: {near}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defined(texts: &[(&'static str, &str)]) -> Result<Names, BadKey> {
        let exprs: Vec<(&str, Expr)> = texts.iter().map(|(name, text)| (*name, text.parse().unwrap())).collect();
        let definitions: Vec<_> =
            exprs.iter().map(|(name, expr)| Definition { name, key: format!("let.{name}"), expr }).collect();
        let mut names = Names::default();
        names.add("rows", 3);
        names.define(&definitions)?;
        Ok(names)
    }

    #[test]
    fn definitions_may_stand_in_any_order_but_not_in_a_circle() {
        let names = defined(&[("c", "b + 1"), ("b", "a * 2"), ("a", "rows")]).unwrap();
        assert_eq!(names.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>(), ["rows=3", "a=3", "b=6", "c=7"]);
        let circle = defined(&[("x", "1"), ("a", "b"), ("b", "a")]).unwrap_err().to_string();
        assert_eq!(circle, "let.a: `a`, `b` are defined by each other: give one a value");
        assert!(defined(&[("a", "a + 1")]).unwrap_err().to_string().starts_with("let.a: `a` is defined by itself"));
        assert!(defined(&[("a", "q")]).unwrap_err().to_string().contains("unknown name `q`"));
    }

    #[test]
    fn names_are_taken_once() {
        let mut space = Namespace::default();
        space.take("rows", "operator.axes").unwrap();
        let line = |r: Result<(), BadKey>| r.unwrap_err().to_string();
        assert_eq!(
            line(space.take("rows", "operator.inputs.rows")),
            "operator.inputs.rows: `rows` is already the name of operator.axes: names are shared, take another"
        );
        assert!(line(space.take("seed", "operator.axes")).contains("meaning of its own"));
        assert!(line(space.take("a-b", "operator.axes")).contains("is not a name"));
    }

    #[test]
    fn integers_say_for_which_values_they_are_too_small() {
        let names = defined(&[]).unwrap();
        let expr: Expr = "rows - 3".parse().unwrap();
        let line = names.integer(&expr, 1, "grid[0]").unwrap_err().to_string();
        assert_eq!(line, "grid[0]: `rows - 3` is 0 for rows = 3, and must be at least 1");
        let large: Expr = "2 ** 40".parse().unwrap();
        assert!(names.small(&large, 1, "k").unwrap_err().to_string().contains("must be at most 4294967295"));
        assert!(check_names(&"1 if rows else col".parse().unwrap(), "k", &["rows", "cols"]).is_err());
    }
}
