//! The space of configurations: every combination of a few values of each toggle, less those that the family refuses.
//! Small enough to be listed, so that "valid", "unseen" and "neighbour" are plain questions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A configuration: a value for each dimension, by the toggle's name.
pub type Toggles = BTreeMap<String, u32>;

/// How much of a kernel's structure a toggle decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Each value is another structure: tile sizes, scheduler, where the softmax lives.
    Macro,
    /// A detail of a structure: stages, swizzle, exponential.
    Micro,
    /// Zero or not is another structure; how many is a detail: producer warps.
    Switch,
}

/// One toggle that is searched over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimension {
    /// The toggle.
    pub name: String,
    /// One or two letters for the names of configurations.
    pub short: String,
    /// Its layer.
    pub layer: Layer,
    /// The values that are tried, each once.
    pub values: Vec<u32>,
}

/// A space is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpaceError {
    /// No such dimension.
    #[error("unknown dimension `{name}`: use one of {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The dimensions.
        known: String,
    },
    /// A dimension that cannot take the value.
    #[error("`{name}` is not searched at {value}: use some of {values:?}")]
    Value {
        /// The dimension.
        name: String,
        /// What was asked for.
        value: u32,
        /// What it takes.
        values: Vec<u32>,
    },
    /// Every combination is refused.
    #[error("no combination of these toggles is accepted: widen --set")]
    Empty,
}

/// All configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    dimensions: Vec<Dimension>,
    valid: Vec<Toggles>,
    /// Of the valid ones, in their order.
    names: Vec<String>,
    refused: BTreeMap<String, String>,
}

impl Space {
    /// Lists every combination; `refusal` says why one makes no sense, if so.
    pub fn new(dimensions: Vec<Dimension>, refusal: impl Fn(&Toggles) -> Option<String>) -> Result<Space, SpaceError> {
        let mut all = vec![Toggles::new()];
        for dimension in &dimensions {
            let with = |toggles: &Toggles, value: u32| {
                let mut toggles = toggles.clone();
                toggles.insert(dimension.name.clone(), value);
                toggles
            };
            all = all.iter().flat_map(|toggles| dimension.values.iter().map(|v| with(toggles, *v))).collect();
        }
        let mut space = Space { dimensions, valid: Vec::new(), names: Vec::new(), refused: BTreeMap::new() };
        for toggles in all {
            match refusal(&toggles) {
                Some(rule) => {
                    space.refused.insert(space.name(&toggles), rule);
                }
                None => {
                    space.names.push(space.name(&toggles));
                    space.valid.push(toggles);
                }
            }
        }
        if space.valid.is_empty() { Err(SpaceError::Empty) } else { Ok(space) }
    }

    /// Dimensions narrowed to the values that are named; dimensions that are not named stay whole.
    pub fn narrowed(
        dimensions: Vec<Dimension>,
        only: &BTreeMap<String, Vec<u32>>,
    ) -> Result<Vec<Dimension>, SpaceError> {
        let known = || dimensions.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(name) = only.keys().find(|name| !dimensions.iter().any(|d| d.name == **name)) {
            return Err(SpaceError::Unknown { name: name.clone(), known: known() });
        }
        let narrow = |dimension: Dimension| {
            let Some(values) = only.get(&dimension.name) else { return Ok(dimension) };
            if let Some(value) = values.iter().find(|v| !dimension.values.contains(v)) {
                let Dimension { name, values, .. } = dimension;
                return Err(SpaceError::Value { name, value: *value, values });
            }
            let kept = dimension.values.iter().copied().filter(|v| values.contains(v)).collect();
            Ok(Dimension { values: kept, ..dimension })
        };
        dimensions.into_iter().map(narrow).collect()
    }

    /// The dimensions.
    pub fn dimensions(&self) -> &[Dimension] {
        &self.dimensions
    }

    /// Every configuration that makes sense, in a fixed order.
    pub fn valid(&self) -> &[Toggles] {
        &self.valid
    }

    /// A name that is fit for a file and says every value: `ld2-st3-q64`.
    pub fn name(&self, toggles: &Toggles) -> String {
        let part = |d: &Dimension| format!("{}{}", d.short, toggles.get(&d.name).map_or("?".into(), u32::to_string));
        self.dimensions.iter().map(part).collect::<Vec<_>>().join("-")
    }

    /// Why a configuration is none of this space; `Ok(Some(rule))` where it is one that the family refuses.
    pub fn examine(&self, toggles: &Toggles) -> Result<Option<String>, String> {
        for dimension in &self.dimensions {
            match toggles.get(&dimension.name) {
                None => return Err(format!("`{}` is not named", dimension.name)),
                Some(value) if !dimension.values.contains(value) => {
                    return Err(format!("`{}` is {value}: use one of {:?}", dimension.name, dimension.values));
                }
                Some(_) => {}
            }
        }
        if let Some(other) = toggles.keys().find(|name| !self.dimensions.iter().any(|d| d.name == **name)) {
            return Err(format!("`{other}` is no dimension of the search"));
        }
        Ok(self.refused.get(&self.name(toggles)).cloned())
    }

    /// The structure of a configuration.
    pub fn structure(&self, toggles: &Toggles) -> String {
        structure(&self.dimensions, toggles)
    }

    /// Dimensions in which two configurations differ.
    pub fn distance(&self, a: &Toggles, b: &Toggles) -> usize {
        self.dimensions.iter().filter(|d| a.get(&d.name) != b.get(&d.name)).count()
    }

    /// Configurations that are not among `seen`, in the order of [`Space::valid`].
    pub fn unseen(&self, seen: &BTreeSet<String>) -> Vec<&Toggles> {
        let unseen = self.valid.iter().zip(&self.names).filter(|(_, name)| !seen.contains(*name));
        unseen.map(|(toggles, _)| toggles).collect()
    }
}

/// The macro layer of a configuration: two of one structure differ in details.
pub fn structure(dimensions: &[Dimension], toggles: &Toggles) -> String {
    let part = |d: &Dimension| {
        let value = toggles.get(&d.name).copied().unwrap_or_default();
        match d.layer {
            Layer::Macro => Some(format!("{}{value}", d.short)),
            Layer::Switch => Some(format!("{}{}", d.short, if value > 0 { "+" } else { "0" })),
            Layer::Micro => None,
        }
    };
    dimensions.iter().filter_map(part).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn dimension(name: &str, short: &str, layer: Layer, values: &[u32]) -> Dimension {
        Dimension { name: name.into(), short: short.into(), layer, values: values.to_vec() }
    }

    /// 3 x 2 x 3 x 4 x 2 combinations; warps do not go with the second loader.
    pub fn space() -> Space {
        let dimensions = vec![
            dimension("tile", "q", Layer::Macro, &[32, 64, 128]),
            dimension("loader", "ld", Layer::Macro, &[1, 2]),
            dimension("warps", "pw", Layer::Switch, &[0, 1, 2]),
            dimension("stages", "st", Layer::Micro, &[2, 3, 4, 5]),
            dimension("exp", "ex", Layer::Micro, &[0, 1]),
        ];
        Space::new(dimensions, |t| (t["loader"] == 2 && t["warps"] > 0).then(|| "no warps with loader 2".to_owned()))
            .unwrap()
    }

    #[test]
    fn refused_combinations_are_not_valid_and_keep_their_rule() {
        let space = space();
        assert_eq!(space.valid().len(), 3 * (3 + 1) * 4 * 2);
        let mut toggles = space.valid()[0].clone();
        assert_eq!(space.name(&toggles), "q32-ld1-pw0-st2-ex0");
        assert_eq!(space.examine(&toggles), Ok(None));
        toggles.extend([("loader".to_owned(), 2), ("warps".to_owned(), 1)]);
        assert_eq!(space.examine(&toggles), Ok(Some("no warps with loader 2".to_owned())));
        toggles.insert("warps".to_owned(), 7);
        assert_eq!(space.examine(&toggles), Err("`warps` is 7: use one of [0, 1, 2]".to_owned()));
        toggles.remove("warps");
        assert_eq!(space.examine(&toggles), Err("`warps` is not named".to_owned()));
    }

    #[test]
    fn one_and_two_producer_warps_are_one_structure_and_none_is_another() {
        let space = space();
        let with = |warps| {
            let mut toggles = space.valid()[0].clone();
            toggles.insert("warps".to_owned(), warps);
            space.structure(&toggles)
        };
        assert_eq!((with(0), with(1), with(2)), ("q32-ld1-pw0".into(), "q32-ld1-pw+".into(), "q32-ld1-pw+".into()));
    }

    #[test]
    fn narrowing_names_what_it_does_not_know() {
        let narrow = |name: &str, values: &[u32]| {
            let only = BTreeMap::from([(name.to_owned(), values.to_vec())]);
            Space::narrowed(space().dimensions, &only).map_err(|e| e.to_string())
        };
        assert_eq!(narrow("tile", &[64]).unwrap()[0].values, [64]);
        assert_eq!(narrow("tile", &[65]).unwrap_err(), "`tile` is not searched at 65: use some of [32, 64, 128]");
        assert!(narrow("colour", &[1]).unwrap_err().starts_with("unknown dimension `colour`: use one of tile, "));
        let all_refused = Space::new(space().dimensions, |_| Some(String::new()));
        assert_eq!(all_refused, Err(SpaceError::Empty));
    }
}
