//! The table `[shapes]`: shapes by name, each axis with a value or a list of values. Leaves to others: which axes there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::key::BadKey;
use crate::operator::Shape;
use crate::ordered::Ordered;

/// Most shapes that lists may expand to: each is built, checked and timed.
const MOST: usize = 64;

/// A size, or several that are asked for in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Size {
    One(i64),
    Several(Vec<i64>),
}

impl Size {
    fn values(&self) -> &[i64] {
        match self {
            Size::One(value) => std::slice::from_ref(value),
            Size::Several(values) => values,
        }
    }
}

/// Shapes by name, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shapes(Ordered<BTreeMap<String, Size>>);

impl Shapes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every shape; one with lists is as many as their product, named by their values: `logits-cols512`.
    pub fn expanded(&self) -> Vec<Shape> {
        let of_row = |(name, sizes): (&str, &BTreeMap<String, Size>)| {
            let start = Shape { name: name.to_owned(), axes: BTreeMap::new() };
            sizes.iter().fold(vec![start], |shapes, (axis, size)| {
                let with = |shape: &Shape, value: i64| {
                    let mut shape = shape.clone();
                    if matches!(size, Size::Several(_)) {
                        shape.name.push_str(&format!("-{axis}{value}"));
                    }
                    shape.axes.insert(axis.clone(), value);
                    shape
                };
                shapes.iter().flat_map(|shape| size.values().iter().map(|value| with(shape, *value))).collect()
            })
        };
        self.0.iter().flat_map(of_row).collect()
    }

    /// The shape of a name.
    pub fn find(&self, name: &str) -> Option<Shape> {
        self.expanded().into_iter().find(|shape| shape.name == name)
    }

    /// Names that are fit for a file and stand once, and no more of them than anybody would wait for.
    pub(super) fn check(&self) -> Result<(), BadKey> {
        let mut product = 0_usize;
        for (name, sizes) in self.0.iter() {
            let key = format!("shapes.{name}");
            let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || name.len() > 64 || !name.chars().all(fit) {
                return BadKey::refuse(key, "is a name for files too: letters, digits, - and _ alone");
            }
            if let Some((axis, _)) = sizes.iter().find(|(_, size)| size.values().is_empty()) {
                return BadKey::refuse(format!("{key}.{axis}"), "is an empty list: give at least one value");
            }
            let own = sizes.values().map(|size| size.values().len()).fold(1_usize, usize::saturating_mul);
            product = product.saturating_add(own);
        }
        if product > MOST {
            return BadKey::refuse("shapes", format!("expand to {product} shapes, and may be {MOST}: shorten a list"));
        }
        let mut names: Vec<String> = self.expanded().into_iter().map(|shape| shape.name).collect();
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => BadKey::refuse("shapes", format!("two shapes are called `{}`: rename one", pair[0])),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        shapes: Shapes,
    }

    fn shapes(text: &str) -> Shapes {
        toml::from_str::<File>(&format!("[shapes]\n{text}")).unwrap().shapes
    }

    #[test]
    fn lists_expand_to_a_product_and_names_say_which() {
        let shapes = shapes("a = { rows = 3, cols = [7, 9] }\nb = { rows = [1, 2], cols = [3, 4] }");
        let names: Vec<String> = shapes.expanded().into_iter().map(|s| s.name).collect();
        let wanted = ["a-cols7", "a-cols9", "b-cols3-rows1", "b-cols3-rows2", "b-cols4-rows1", "b-cols4-rows2"];
        assert_eq!(names, wanted);
        let nine = shapes.find("a-cols9").unwrap();
        assert_eq!(nine.axes, BTreeMap::from([("rows".to_owned(), 3), ("cols".to_owned(), 9)]));
        assert_eq!((shapes.find("a"), shapes.check()), (None, Ok(())));
    }

    #[test]
    fn names_that_files_cannot_have_and_endless_lists_are_refused() {
        let refused = |text: &str| shapes(text).check().unwrap_err().to_string();
        assert!(refused("\"a/b\" = { n = 1 }").starts_with("shapes.a/b: is a name for files"));
        assert!(refused("a = { n = [] }").starts_with("shapes.a.n: is an empty list"));
        assert!(refused("a = { n = [1, 1] }").contains("two shapes are called `a-n1`"));
        let long = (0..65).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
        assert!(refused(&format!("a = {{ n = [{long}] }}")).contains("expand to 65 shapes"));
    }
}
