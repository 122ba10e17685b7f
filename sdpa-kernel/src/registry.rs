//! The registry: every variant's name, the one idea it adds, and which toggles it changes of which other. `list`, builds,
//! gates and reports derive from it. Tile sizes and thread counts are toggles too; what follows from them (dynamic shared
//! memory) the compiled module says itself.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::hopper;
use crate::toggles::{
    self, Exp, Loader, Math, PFormat, ProducerWarps, Scheduler, Setting, Softmax, Stages, Swizzle, TOGGLES, Threads,
    TileK, TileQ,
};

pub use crate::variant::{EntryPoint, Family, Operands, Unanswered, Variant};

/// A registered variant of the ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// The one idea it adds.
    pub about: &'static str,
    /// The variant that it changes; none for the first, whose toggles are plain.
    pub base: Option<&'static str>,
    /// What it sets.
    pub settings: Vec<Setting>,
    /// What the emulator cannot be held to yet of a GPU's answers, if so; a test holds this to what was recorded.
    pub unanswered: Option<Unanswered>,
}

impl Entry {
    fn new(name: &'static str, about: &'static str) -> Entry {
        Entry { name, about, base: None, settings: Vec::new(), unanswered: None }
    }

    /// No GPU has run it yet.
    pub fn unanswered(self, why: &'static str) -> Entry {
        Entry { unanswered: Some(Unanswered::Wholly(why)), ..self }
    }

    /// What a GPU ran is not its PTX any more.
    pub fn bits_unanswered(self, why: &'static str) -> Entry {
        Entry { unanswered: Some(Unanswered::Bits(why)), ..self }
    }

    fn of(self, base: &'static str) -> Entry {
        Entry { base: Some(base), ..self }
    }

    fn with(mut self, setting: impl Into<Setting>) -> Entry {
        self.settings.push(setting.into());
        self
    }

    /// All toggles: its own, and its base's where it has none.
    fn toggles(&self) -> BTreeMap<String, u32> {
        let base = self.base.and_then(|name| VARIANTS.iter().find(|entry| entry.name == name));
        let plain = || TOGGLES.iter().map(|toggle| (toggle.name.to_owned(), toggle.plain)).collect();
        let mut toggles = base.map_or_else(plain, Entry::toggles);
        toggles.extend(self.settings.iter().map(|setting| (setting.toggle.to_owned(), setting.value)));
        toggles
    }
}

/// The ladder's translation unit.
const LADDER_SOURCE: &str = "ladder/sdpa_ladder.cu";

/// The ladder: every rung is a change of another.
pub static VARIANTS: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let entry = Entry::new;
    vec![
        entry("stage0", "scalar baseline, synchronous loads"),
        entry("stage1", "K and V double-buffered with cp.async").of("stage0").with(Loader::CpAsync).with(Stages(2)),
        entry("stage2", "both products on the tensor cores (WMMA)").of("stage1").with(Math::Tensor),
        entry("stage3a", "P in the score buffer").of("stage2").with(Softmax::SharedAlias),
        entry("stage3b", "softmax in registers (mma.sync), no score buffer")
            .of("stage2")
            .with(Softmax::Registers)
            .with(TileQ(64)),
        entry("stage4", "three stages of e4m3 tiles, unpacked in registers")
            .of("stage3b")
            .with(Loader::Raw)
            .with(Stages(3)),
        entry("ws-p1", "warp-specialised, one producer warp")
            .of("stage2")
            .with(ProducerWarps(1))
            .with(TileQ(64))
            .with(Threads(288)),
        entry("ws-p2", "warp-specialised, two producer warps").of("ws-p1").with(ProducerWarps(2)).with(Threads(320)),
        entry("xor-swizzle", "stage4 with XOR-swizzled tiles").of("stage4").with(Swizzle::Xor),
        entry("fast-exp", "stage3b with exponentials on the FMA units").of("stage3b").with(Exp::Polynomial),
        entry("persistent", "stage4 with CTAs that take several tiles").of("stage4").with(Scheduler::Persistent),
        entry("ws-persistent", "ws-p2 with CTAs that take several tiles").of("ws-p2").with(Scheduler::Persistent),
        entry("v1", "first fused kernel: scalar, 64 keys a tile").of("stage0").with(TileK(64)),
        entry("v2b", "scalar streaming softmax, one warp owns a row").of("stage1").with(Softmax::Warp).with(TileQ(16)),
        entry("v2c", "one warp owns 16 rows, both products on the tensor cores")
            .of("stage3b")
            .with(TileQ(32))
            .with(Threads(64)),
        entry("v2d", "tuned: e4m3 tiles of 64 keys, swizzled, three stages")
            .of("stage4")
            .with(Swizzle::Xor)
            .with(TileK(64)),
        entry("ada", "sm_89 flagship: both products on the FP8 tensor cores")
            .of("v2d")
            .with(Math::TensorFp8)
            .with(PFormat::E4m3),
    ]
});

impl Family {
    /// The only architecture that it compiles for, if there is only one.
    pub fn arch(self) -> Option<&'static str> {
        match self {
            Family::Ladder => None,
            Family::Hopper => Some(hopper::ARCH),
        }
    }

    /// The least architecture that has what its kernels are made of, and what that is; where it has one architecture alone,
    /// that one.
    pub fn least_arch(self) -> (&'static str, &'static str) {
        match self {
            Family::Ladder => ("sm_89", "conversions of e4m3"),
            Family::Hopper => (hopper::ARCH, "wgmma"),
        }
    }

    /// Its entry functions.
    pub fn entry_points(self) -> Vec<EntryPoint> {
        let ladder = |head_dim: u32| EntryPoint {
            name: format!("sdpa_fwd_d{head_dim}"),
            config_symbol: format!("sdpa_config_d{head_dim}"),
            head_dim,
            operands: Operands::RowMajor,
        };
        match self {
            Family::Ladder => [64, 128].map(ladder).to_vec(),
            Family::Hopper => hopper::entry_points(),
        }
    }
}

impl EntryPoint {
    /// Sizes that it is for, by axis of attention.
    pub fn serves(&self) -> BTreeMap<String, i64> {
        BTreeMap::from([("D".to_owned(), i64::from(self.head_dim))])
    }

    /// What its configuration must say of itself in a variant of these toggles.
    pub fn asked(&self, toggles: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
        // The quantiser is the family's, not the variant's.
        let mut asked = if self.operands == Operands::Originals { BTreeMap::new() } else { toggles.clone() };
        asked.insert("head_dim".to_owned(), self.head_dim);
        asked.insert("params_bytes".to_owned(), self.operands.params_bytes() as u32);
        asked
    }

    /// Whether limits on registers and shared memory gate it. They are written for D = 64; the entries for larger ones are
    /// gated on spills and on fitting the chip.
    pub fn is_gated(&self) -> bool {
        self.head_dim == 64
    }
}

/// The registry has no such variant, or a variant no such toggle.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryError {
    /// No such variant.
    #[error("unknown variant `{name}`: use one of {}", names().collect::<Vec<_>>().join(", "))]
    UnknownVariant {
        /// What was asked for.
        name: String,
    },
    /// No such toggle.
    #[error("unknown toggle `{toggle}` of variant `{variant}`: use one of {}", toggles::names().collect::<Vec<_>>().join(", "))]
    UnknownToggle {
        /// The variant.
        variant: String,
        /// What was asked for.
        toggle: String,
    },
    /// The toggles contradict each other.
    #[error("variant `{variant}`: {rule}")]
    Refused {
        /// The variant.
        variant: String,
        /// The rule that it breaks, in the family's own words.
        rule: &'static str,
    },
}

/// What the family refuses to be, by toggles: the twin of its static assertions, so that a patch is refused before a
/// compiler runs. Each sentence stands in the headers word for word.
fn refusal(family: Family, toggles: &BTreeMap<String, u32>) -> Option<&'static str> {
    // The other family has no combinations: its module is compiled one way.
    if family != Family::Ladder {
        return None;
    }
    let get = |name: &str| toggles[name];
    let consumer_warps = (get("threads") / 32).saturating_sub(get("producer_warps"));
    let rules = [
        (get("loader") == 0 && get("stages") != 1, "SDPA_LOADER=0 loads one tile at a time: SDPA_STAGES must be 1"),
        (get("loader") == 1 && get("stages") < 2, "SDPA_LOADER=1 copies ahead: SDPA_STAGES must be at least 2"),
        (get("loader") == 2 && get("stages") < 2, "SDPA_LOADER=2 copies ahead: SDPA_STAGES must be at least 2"),
        (
            get("loader") == 2 && get("producer_warps") > 0,
            "SDPA_LOADER=2: nothing is left for producer warps to convert",
        ),
        (
            get("loader") == 2 && get("softmax") != 2,
            "SDPA_LOADER=2: only the operands of SDPA_SOFTMAX=2 can be unpacked in registers",
        ),
        (
            get("producer_warps") > 0 && get("loader") == 0,
            "SDPA_PRODUCER_WARPS: producers load asynchronously, SDPA_LOADER=1",
        ),
        (get("producer_warps") > 0 && get("math") != 1, "SDPA_PRODUCER_WARPS: consumers compute with SDPA_MATH=1"),
        (
            get("producer_warps") > 0 && get("softmax") == 1,
            "SDPA_SOFTMAX=1: S of the next tile overwrites P, so no warp may still be in P V",
        ),
        (get("softmax") == 2 && get("math") == 0, "SDPA_SOFTMAX=2: scores stay in the registers of SDPA_MATH=1"),
        (
            get("softmax") == 2 && consumer_warps * 16 != get("tile_q"),
            "SDPA_SOFTMAX=2: one consumer warp for 16 query rows",
        ),
        (get("softmax") == 3 && get("math") != 0, "SDPA_SOFTMAX=3: a lane stands for a key, as only SDPA_MATH=0 can"),
        (get("softmax") == 3 && get("tile_k") != 32, "SDPA_SOFTMAX=3: one lane for a key, SDPA_TILE_K must be 32"),
        (
            get("swizzle") == 1 && get("softmax") < 2,
            "SDPA_SWIZZLE=1: scores in shared memory are read along a row; use SDPA_SOFTMAX=2",
        ),
        (get("math") == 2 && get("loader") != 2, "SDPA_MATH=2: e4m3 tiles are multiplied as they are, SDPA_LOADER=2"),
        (get("math") == 2 && get("p_format") != 1, "SDPA_MATH=2: both factors are e4m3, SDPA_P_FORMAT must be 1"),
        (
            get("math") == 2 && get("tile_k") % 32 != 0,
            "SDPA_MATH=2: a product takes 32 keys, SDPA_TILE_K must be a multiple",
        ),
        (get("p_format") == 1 && get("math") != 2, "SDPA_P_FORMAT: 0 (f16) or, with SDPA_MATH=2, 1 (e4m3)"),
    ];
    rules.into_iter().find_map(|(broken, rule)| broken.then_some(rule))
}

/// The names of all registered variants.
pub fn names() -> impl Iterator<Item = &'static str> {
    VARIANTS.iter().map(|entry| entry.name).chain([hopper::NAME])
}

/// The one idea of a registered variant; empty where there is none of this name.
pub fn about(name: &str) -> &'static str {
    if name == hopper::NAME {
        return hopper::ABOUT;
    }
    VARIANTS.iter().find(|entry| entry.name == name).map_or("", |entry| entry.about)
}

/// A registered variant by name.
pub fn find(name: &str) -> Result<Variant, RegistryError> {
    if name == hopper::NAME {
        return Ok(hopper::variant());
    }
    let entry = VARIANTS.iter().find(|entry| entry.name == name);
    let entry = entry.ok_or_else(|| RegistryError::UnknownVariant { name: name.to_owned() })?;
    let (source, toggles) = (LADDER_SOURCE.to_owned(), entry.toggles());
    Ok(Variant { name: name.to_owned(), source, family: Family::Ladder, toggles })
}

impl Variant {
    /// The same variant under another name, with some toggles changed.
    pub fn patched(&self, name: &str, changes: &BTreeMap<String, u32>) -> Result<Variant, RegistryError> {
        let mut patched = Variant { name: name.to_owned(), ..self.clone() };
        for (toggle, value) in changes {
            let slot = patched
                .toggles
                .get_mut(toggle)
                .ok_or_else(|| RegistryError::UnknownToggle { variant: name.to_owned(), toggle: toggle.clone() })?;
            *slot = *value;
        }
        match refusal(patched.family, &patched.toggles) {
            Some(rule) => Err(RegistryError::Refused { variant: name.to_owned(), rule }),
            None => Ok(patched),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_toggles_are_unique() {
        let unique: std::collections::BTreeSet<_> = names().collect();
        assert_eq!(unique.len(), names().count());
        let toggles: std::collections::BTreeSet<_> = VARIANTS.iter().map(Entry::toggles).collect();
        assert_eq!(toggles.len(), VARIANTS.len(), "two variants are compiled with the same toggles");
        // Whoever has a base has one that is above it, and so all toggles.
        for (i, entry) in VARIANTS.iter().enumerate() {
            let above = |base: &str| VARIANTS[..i].iter().any(|other| other.name == base);
            assert!(entry.base.is_none_or(above), "{}", entry.name);
            let named: Vec<String> = entry.toggles().into_keys().collect();
            let mut all: Vec<&str> = toggles::names().collect();
            all.sort();
            assert_eq!(named, all, "{}", entry.name);
        }
    }

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let base = find("stage2").unwrap();
        let patched = base.patched("three", &BTreeMap::from([("stages".to_owned(), 3)])).unwrap();
        assert_eq!(patched.name, "three");
        let changed: Vec<_> = patched.defines().into_iter().filter(|d| !base.defines().contains(d)).collect();
        assert_eq!(changed, ["SDPA_STAGES=3"]);
    }

    #[test]
    fn every_registered_variant_is_one_that_the_family_accepts() {
        for name in names() {
            let variant = find(name).unwrap();
            assert_eq!(refusal(variant.family, &variant.toggles), None, "{name}");
        }
    }

    #[test]
    fn a_family_includes_its_own_headers_and_common_ones_and_no_others() {
        fn check(folder: &std::path::Path, family: &str) {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    check(&entry, family);
                    continue;
                }
                for line in std::fs::read_to_string(&entry).unwrap().lines() {
                    let Some(header) = line.strip_prefix("#include \"") else { continue };
                    let may = ["common", family].iter().any(|folder| header.starts_with(&format!("{folder}/")));
                    assert!(may, "{}: {line}", entry.display());
                }
            }
        }
        for family in ["common", "ladder", "hopper"] {
            check(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda").join(family), family);
        }
    }

    #[test]
    fn combinations_without_sense_are_refused_in_the_words_of_the_headers() {
        let headers: String = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/ladder"))
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
            .collect();
        type Change = (&'static str, u32);
        let cases: [(&str, &[Change], &str); 17] = [
            ("stage0", &[("stages", 2)], "SDPA_LOADER=0"),
            ("stage1", &[("stages", 1)], "SDPA_LOADER=1"),
            ("stage2", &[("loader", 2), ("stages", 1)], "SDPA_LOADER=2 copies ahead"),
            ("ws-p1", &[("loader", 2)], "nothing is left"),
            ("stage2", &[("loader", 2)], "unpacked in registers"),
            ("ws-p1", &[("loader", 0), ("stages", 1)], "producers load asynchronously"),
            ("ws-p1", &[("math", 0)], "consumers compute"),
            ("ws-p1", &[("softmax", 1)], "overwrites P"),
            ("stage1", &[("softmax", 2)], "scores stay"),
            ("stage2", &[("softmax", 2)], "16 query rows"),
            ("stage2", &[("swizzle", 1)], "SDPA_SWIZZLE=1"),
            ("stage2", &[("softmax", 3)], "stands for a key"),
            ("v2b", &[("tile_k", 64)], "one lane for a key"),
            ("ada", &[("loader", 1)], "multiplied as they are"),
            ("ada", &[("p_format", 0)], "both factors are e4m3"),
            ("ada", &[("tile_k", 48)], "takes 32 keys"),
            ("v2d", &[("p_format", 1)], "SDPA_P_FORMAT: 0 (f16)"),
        ];
        for (base, changes, fragment) in cases {
            let changes = changes.iter().map(|(toggle, value)| (toggle.to_string(), *value)).collect();
            match find(base).unwrap().patched("x", &changes) {
                Err(RegistryError::Refused { rule, .. }) => {
                    assert!(rule.contains(fragment), "{rule}");
                    assert!(headers.contains(rule), "no header says `{rule}`");
                }
                other => panic!("{base} with {changes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let error = find("stage9").unwrap_err().to_string();
        assert!(error.contains("`stage9`") && error.contains("ws-p1"), "{error}");
        let wrong = BTreeMap::from([("colour".to_owned(), 1)]);
        let error = find("stage0").unwrap().patched("x", &wrong).unwrap_err().to_string();
        assert!(error.contains("`colour`") && error.contains("producer_warps"), "{error}");
    }
}
