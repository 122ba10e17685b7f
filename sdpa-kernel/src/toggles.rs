//! What a kernel can be told when it is compiled: each toggle's values and what they mean, the word of the exported
//! configuration in which the module says it back, and what a search may try. Leaves to others: which values go together
//! (the registry), and what a variant has.

/// A toggle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toggle {
    /// Its name, in upper case behind `SDPA_` the macro's.
    pub name: &'static str,
    /// What it decides.
    pub about: &'static str,
    /// Its word in `Config` of `cuda/common/config.h`, whose field has its name.
    pub word: usize,
    /// Its values in words; none where it is a number.
    pub values: &'static [(u32, &'static str)],
    /// The value of a variant that says nothing of it.
    pub plain: u32,
    /// What a search tries of it, if it may.
    pub search: Option<Search>,
}

/// A toggle as a dimension of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// Its abbreviation in the names of configurations.
    pub short: &'static str,
    /// How far apart its values are.
    pub layer: Layer,
    /// The values that are tried.
    pub values: &'static [u32],
}

/// What a toggle decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Another structure with each value.
    Macro,
    /// A detail.
    Micro,
    /// Zero or not is another structure, how many is a detail.
    Switch,
}

/// A toggle with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The toggle's name.
    pub toggle: &'static str,
    /// The value.
    pub value: u32,
}

/// A toggle: the type of its settings, its name, what it decides, its word of the configuration, what a search may try of
/// it, and its values where they have names, the plain one first.
macro_rules! toggle {
    ($kind:ident $name:literal $about:literal, word $word:literal, search($($search:tt)*)
     { $plain:ident = $zero:literal $first:literal, $($choice:ident = $value:literal $words:literal),+ $(,)? }) => {
        #[doc = $about]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind {
            #[doc = $first]
            $plain = $zero,
            $(#[doc = $words] $choice = $value),+
        }

        impl $kind {
            const TOGGLE: Toggle = Toggle {
                name: $name,
                about: $about,
                word: $word,
                values: &[($zero, $first), $(($value, $words)),+],
                plain: $zero,
                search: search!($($search)*),
            };
        }

        impl From<$kind> for Setting {
            fn from(choice: $kind) -> Setting {
                Setting { toggle: $name, value: choice as u32 }
            }
        }
    };
    ($kind:ident $name:literal = $plain:literal $about:literal, word $word:literal, search($($search:tt)*)) => {
        #[doc = $about]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $kind(pub u32);

        impl $kind {
            const TOGGLE: Toggle =
                Toggle { name: $name, about: $about, word: $word, values: &[], plain: $plain, search: search!($($search)*) };
        }

        impl From<$kind> for Setting {
            fn from($kind(value): $kind) -> Setting {
                Setting { toggle: $name, value }
            }
        }
    };
}

macro_rules! search {
    () => {
        None
    };
    ($short:literal, $layer:ident, $values:expr) => {
        Some(Search { short: $short, layer: Layer::$layer, values: &$values })
    };
}

toggle! {
    Loader "loader" "How K and V get into shared memory", word 8, search("ld", Macro, [1, 2]) {
        Direct = 0 "synchronously, unpacked on the way",
        CpAsync = 1 "ahead with cp.async, unpacked from a staging buffer",
        Raw = 2 "ahead with cp.async, kept as e4m3",
    }
}
toggle! {
    Softmax "softmax" "Where scores become probabilities", word 11, search("sm", Macro, [0, 2]) {
        Shared = 0 "scores and P side by side in shared memory",
        SharedAlias = 1 "P in the score buffer",
        Registers = 2 "in registers, one warp for 16 rows",
        Warp = 3 "one warp owns a row, one lane a key",
    }
}
toggle! {
    Scheduler "scheduler" "How query tiles are given to CTAs", word 13, search("pe", Macro, [0, 1]) {
        OneTile = 0 "one tile a CTA",
        Persistent = 1 "as many CTAs as the chip holds, each with several tiles",
    }
}
toggle! {
    TileQ "tile_q" = 32 "Query rows that a CTA works on at a time", word 4, search("q", Macro, [32, 64, 128])
}
toggle! {
    TileK "tile_k" = 32 "Keys that a CTA works on at a time", word 5, search("k", Macro, [32, 64])
}
toggle! {
    ProducerWarps "producer_warps" = 0 "Warps that only load; with 0 every warp loads and computes", word 12, search("pw", Switch, [0, 1, 2])
}
toggle! {
    Stages "stages" = 1 "Tiles of K and V in flight or resident; 1 is no pipelining", word 9, search("st", Micro, [2, 3])
}
toggle! {
    Exp "exp" "What computes exponentials", word 14, search("ex", Micro, [0, 2]) {
        Mufu = 0 "the MUFU unit",
        Rough = 1 "a polynomial on the FMA units that is not 1 at 0, for comparing with what GPUs answered",
        Polynomial = 2 "a polynomial on the FMA units",
    }
}
toggle! {
    Swizzle "swizzle" "How tiles lie in shared memory", word 15, search("sw", Micro, [0, 1]) {
        Padded = 0 "padded rows",
        Xor = 1 "XOR swizzle",
    }
}
toggle! {
    Math "math" "What multiplies", word 10, search() {
        Scalar = 0 "scalar FMA",
        Tensor = 1 "FP16 tensor cores",
        TensorFp8 = 2 "FP8 tensor cores",
    }
}
toggle! {
    PFormat "p_format" "What P is rounded to for the second product", word 16, search() {
        F16 = 0 "FP16",
        E4m3 = 1 "e4m3",
    }
}
toggle! {
    Threads "threads" = 128 "Threads of a CTA, producer warps included", word 6, search()
}

/// Every toggle. Those that are searched over come first, in the order in which a configuration's name has them.
pub const TOGGLES: [Toggle; 12] = [
    Loader::TOGGLE,
    Softmax::TOGGLE,
    Scheduler::TOGGLE,
    TileQ::TOGGLE,
    TileK::TOGGLE,
    ProducerWarps::TOGGLE,
    Stages::TOGGLE,
    Exp::TOGGLE,
    Swizzle::TOGGLE,
    Math::TOGGLE,
    PFormat::TOGGLE,
    Threads::TOGGLE,
];

/// The names of all toggles.
pub fn names() -> impl Iterator<Item = &'static str> {
    TOGGLES.iter().map(|toggle| toggle.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_numbers_of_the_header() {
        let header = include_str!("../cuda/common/config.h");
        let mut compared = 0;
        for toggle in TOGGLES {
            // `loader;          // Loader` names an enum; a field of 0 or 1 needs none.
            let field = header.lines().find(|line| line.trim().starts_with(&format!("uint32_t {};", toggle.name)));
            let comment = field.unwrap_or_else(|| panic!("{} is no field", toggle.name)).split("// ").nth(1);
            let of_kind = |kind: &str| header.split(&format!("enum {} : uint32_t {{", kind.trim())).nth(1);
            let Some(values) = comment.and_then(of_kind).and_then(|rest| rest.split('}').next()) else { continue };
            let numbers: Vec<u32> =
                values.split(',').map(|v| v.split(" = ").nth(1).unwrap().trim().parse().unwrap()).collect();
            assert_eq!(numbers, toggle.values.iter().map(|(value, _)| *value).collect::<Vec<_>>(), "{}", toggle.name);
            compared += 1;
        }
        assert!(compared >= 6, "{compared}");
    }

    #[test]
    fn a_search_tries_only_values_that_there_are() {
        for toggle in TOGGLES.iter().filter(|toggle| !toggle.values.is_empty()) {
            let tried = toggle.search.iter().flat_map(|search| search.values);
            for value in tried {
                assert!(toggle.values.iter().any(|(there, _)| there == value), "{} {value}", toggle.name);
            }
        }
        assert_eq!(Setting::from(Loader::Raw), Setting { toggle: "loader", value: 2 });
        assert_eq!(Setting::from(Stages(3)), Setting { toggle: "stages", value: 3 });
    }
}
