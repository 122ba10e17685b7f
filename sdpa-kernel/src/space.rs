//! What a search may vary: values of the ladder's toggles, in two layers, and the variant that each combination is.
//! Thread counts follow from the tiles, so that every combination is a kernel that could be meant. Leaves to others: the
//! search.

use std::collections::BTreeMap;

use crate::registry::{self, Family, RegistryError, Variant};
use crate::toggles::{Math, Search, Softmax, TOGGLES, Toggle};

/// The registered variant that configurations are patches of.
pub const BASE: &str = "stage4";
/// Query rows of a warp, or of two warps that share them.
const GROUP_ROWS: u32 = 16;
/// Threads of a warp.
const WARP: u32 = 32;

/// A toggle with what is tried of it.
pub type Dimension = (&'static Toggle, Search);

/// What is searched over.
pub fn dimensions() -> impl Iterator<Item = Dimension> {
    TOGGLES.iter().filter_map(|toggle| Some((toggle, toggle.search?)))
}

/// Every toggle that a configuration sets in [`BASE`]: its own, and what follows from them.
pub fn toggles(configuration: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let get = |name: &str| configuration.get(name).copied().unwrap_or_default();
    let warps_per_group = if get("softmax") == Softmax::Registers as u32 { 1 } else { 2 };
    let consumer_warps = get("tile_q") / GROUP_ROWS * warps_per_group;
    let mut toggles = configuration.clone();
    // Nothing but the tensor cores is worth a search.
    toggles.insert("math".to_owned(), Math::Tensor as u32);
    toggles.insert("threads".to_owned(), (consumer_warps + get("producer_warps")) * WARP);
    toggles
}

/// The variant that a configuration is, under a name; or the rule that it breaks.
pub fn variant(name: &str, configuration: &BTreeMap<String, u32>) -> Result<Variant, RegistryError> {
    registry::find(BASE)?.patched(name, &toggles(configuration))
}

/// The configuration that a variant is, if it lies in the space.
pub fn configuration(variant: &Variant) -> Option<BTreeMap<String, u32>> {
    if variant.family != Family::Ladder {
        return None;
    }
    let own = dimensions().map(|(toggle, _)| Some((toggle.name.to_owned(), *variant.toggles.get(toggle.name)?)));
    let own: BTreeMap<String, u32> = own.collect::<Option<_>>()?;
    let inside = dimensions().all(|(toggle, search)| search.values.contains(&own[toggle.name]));
    let same = self::variant(&variant.name, &own).is_ok_and(|other| other.toggles == variant.toggles);
    (inside && same).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<BTreeMap<String, u32>> {
        let mut all = vec![BTreeMap::new()];
        for (Toggle { name, .. }, Search { values, .. }) in dimensions() {
            let with = |c: &BTreeMap<String, u32>, v: u32| {
                let mut c = c.clone();
                c.insert(name.to_string(), v);
                c
            };
            all = all.iter().flat_map(|c| values.iter().map(|v| with(c, *v)).collect::<Vec<_>>()).collect();
        }
        all
    }

    #[test]
    fn the_space_is_large_enough_to_search_and_every_refusal_is_the_registrys() {
        let (valid, refused): (Vec<_>, Vec<_>) = all().into_iter().map(|c| variant("x", &c)).partition(Result::is_ok);
        assert!(valid.len() >= 64, "{}", valid.len());
        assert!(refused.iter().all(|r| matches!(r, Err(RegistryError::Refused { .. }))));
        assert!(valid.iter().flatten().all(|v| v.toggles["threads"] <= 1024));
    }

    #[test]
    fn registered_variants_of_the_space_are_found_in_it_as_they_are() {
        let inside = |name: &str| configuration(&registry::find(name).unwrap());
        for name in ["stage2", "stage3b", "stage4", "ws-p1", "ws-p2", "persistent", "xor-swizzle", "fast-exp", "v2d"] {
            let found = inside(name).unwrap_or_else(|| panic!("{name} is not in the space"));
            assert_eq!(variant(name, &found).unwrap().toggles, registry::find(name).unwrap().toggles);
        }
        for name in ["stage0", "v2b", "stage3a", "hopper"] {
            assert_eq!(inside(name), None, "{name}");
        }
    }
}
