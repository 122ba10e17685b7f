//! What crosses the border between host and device, byte for byte: the twin of `cuda/common/config.h` and
//! `cuda/ladder/params.h`.

use std::collections::BTreeMap;

use crate::hopper;
use crate::toggles::TOGGLES;
use crate::variant::Operands;

/// CTAs per SM that a persistent kernel of the ladder launches and counts on, `kCtasPerSm` of `scheduler.cuh`.
pub const PERSISTENT_CTAS_PER_SM: u32 = 4;

/// Parameters of every entry function, passed by value. Pointers are device addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Params {
    /// e4m3 `[B, H, S_q, D]`.
    pub q: u64,
    /// e4m3 `[B, H, S_kv, D]`.
    pub k: u64,
    /// e4m3 `[B, H, S_kv, D]`.
    pub v: u64,
    /// f32 `[B * H]`: original value = scale * e4m3 value.
    pub q_scale: u64,
    /// f32 `[B * H]`.
    pub k_scale: u64,
    /// f32 `[B * H]`.
    pub v_scale: u64,
    /// FP16 `[B, H, S_q, D]`.
    pub out: u64,
    /// Zeroed scratch of `Config::workspace_bytes`, or 0.
    pub workspace: u64,
    /// B.
    pub batch: i32,
    /// H.
    pub heads: i32,
    /// Query rows per head.
    pub seq_q: i32,
    /// Keys per head.
    pub seq_kv: i32,
    /// D.
    pub head_dim: i32,
    /// 0 or 1.
    pub causal: i32,
    /// With causal: row i sees keys j <= i + causal_offset.
    pub causal_offset: i32,
    /// Multiplies q . k.
    pub softmax_scale: f32,
}

const _: () = assert!(size_of::<Params>() == 96);

impl Params {
    /// The bytes as the device receives them.
    pub fn to_bytes(&self) -> [u8; 96] {
        let pointers = [self.q, self.k, self.v, self.q_scale, self.k_scale, self.v_scale, self.out, self.workspace];
        let sizes = [
            self.batch,
            self.heads,
            self.seq_q,
            self.seq_kv,
            self.head_dim,
            self.causal,
            self.causal_offset,
            self.softmax_scale.to_bits() as i32,
        ];
        let mut bytes = [0; 96];
        for (slot, pointer) in bytes.chunks_exact_mut(8).zip(pointers) {
            slot.copy_from_slice(&pointer.to_le_bytes());
        }
        for (slot, size) in bytes[64..].chunks_exact_mut(4).zip(sizes) {
            slot.copy_from_slice(&size.to_le_bytes());
        }
        bytes
    }
}

impl Operands {
    /// Size of the parameter struct.
    pub fn params_bytes(self) -> usize {
        match self {
            Operands::RowMajor => size_of::<Params>(),
            Operands::HopperImages => hopper::AttentionParams::BYTES,
            Operands::Originals => hopper::QuantiseParams::BYTES,
        }
    }
}

/// Size of the exported configuration in bytes.
pub const CONFIG_BYTES: usize = 128;
/// "SDPA", little-endian.
const CONFIG_MAGIC: u32 = 0x4150_4453;
/// Layout version of the configuration.
const CONFIG_VERSION: u32 = 1;

/// Fields of the device struct, each with its word, besides magic, version and the toggles.
const OWN_FIELDS: [(&str, usize); 4] =
    [("params_bytes", 2), ("head_dim", 3), ("dynamic_smem", 7), ("workspace_bytes", 17)];

/// Every field that is read, with its word.
fn config_fields() -> impl Iterator<Item = (&'static str, usize)> {
    OWN_FIELDS.into_iter().chain(TOGGLES.iter().map(|toggle| (toggle.name, toggle.word)))
}

/// The exported bytes are not a configuration that this build understands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The symbol is shorter or longer than the struct.
    #[error("the exported configuration has {0} bytes, {CONFIG_BYTES} expected")]
    Size(usize),
    /// Not our struct, or another version of it.
    #[error(
        "the exported configuration starts with {magic:#010x} version {version}, {CONFIG_MAGIC:#010x} version {CONFIG_VERSION} expected"
    )]
    Header {
        /// First word.
        magic: u32,
        /// Second word.
        version: u32,
    },
    /// The kernel was compiled against another parameter struct.
    #[error("the module takes {0} bytes of parameters, which no family of this project does")]
    Params(u32),
}

/// What an entry function says it was compiled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    fields: BTreeMap<&'static str, u32>,
}

impl Config {
    /// Decodes the bytes of the exported symbol.
    pub fn parse(bytes: &[u8]) -> Result<Config, ConfigError> {
        if bytes.len() != CONFIG_BYTES {
            return Err(ConfigError::Size(bytes.len()));
        }
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        if (words[0], words[1]) != (CONFIG_MAGIC, CONFIG_VERSION) {
            return Err(ConfigError::Header { magic: words[0], version: words[1] });
        }
        let fields: BTreeMap<_, _> = config_fields().map(|(field, word)| (field, words[word])).collect();
        let known = [Operands::RowMajor, Operands::HopperImages, Operands::Originals].map(Operands::params_bytes);
        match known.contains(&(fields["params_bytes"] as usize)) {
            true => Ok(Config { fields }),
            false => Err(ConfigError::Params(fields["params_bytes"])),
        }
    }

    /// A field by its name in the device struct.
    pub fn get(&self, field: &str) -> Option<u32> {
        self.fields.get(field).copied()
    }

    /// Every asked-for toggle that the module contradicts, one sentence each.
    pub fn mismatches(&self, asked: &BTreeMap<String, u32>) -> Vec<String> {
        asked
            .iter()
            .filter_map(|(name, wanted)| match self.get(name) {
                Some(found) if found == *wanted => None,
                Some(found) => Some(format!("{name}: asked {wanted}, compiled {found}")),
                None => Some(format!("{name}: asked {wanted}, but the module does not say")),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::values;

    fn exported() -> Vec<u8> {
        let mut words = [0u32; CONFIG_BYTES / 4];
        words[..18].copy_from_slice(&[CONFIG_MAGIC, 1, 96, 64, 32, 33, 128, 4096, 1, 2, 1, 0, 0, 0, 0, 0, 0, 8]);
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn the_emulator_samples_as_many_ctas_as_the_scheduler_counts_on() {
        let header = include_str!("../cuda/ladder/scheduler.cuh");
        assert!(header.contains(&format!("kCtasPerSm = {PERSISTENT_CTAS_PER_SM};")));
    }

    #[test]
    fn fields_are_read_by_position() {
        let config = Config::parse(&exported()).unwrap();
        let expected = [("tile_q", 32), ("tile_k", 33), ("threads", 128), ("stages", 2), ("workspace_bytes", 8)];
        for (field, value) in expected {
            assert_eq!(config.get(field), Some(value), "{field}");
        }
        assert_eq!(config.get("colour"), None);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(Config::parse(&[0; 4]), Err(ConfigError::Size(4)));
        assert!(matches!(Config::parse(&[0; CONFIG_BYTES]), Err(ConfigError::Header { .. })));
        let mut other = exported();
        other[8] = 88;
        assert_eq!(Config::parse(&other), Err(ConfigError::Params(88)));
    }

    #[test]
    fn an_ignored_toggle_is_a_mismatch() {
        let config = Config::parse(&exported()).unwrap();
        let asked = BTreeMap::from([("stages".to_owned(), 3), ("tile_q".to_owned(), 32), ("colour".to_owned(), 1)]);
        assert_eq!(
            config.mismatches(&asked),
            ["colour: asked 1, but the module does not say", "stages: asked 3, compiled 2"]
        );
    }

    #[test]
    fn parameters_have_the_layout_of_the_header() {
        let params = Params { q: 1, workspace: 8, batch: 2, softmax_scale: 0.125, ..Params::default() };
        let bytes = params.to_bytes();
        assert_eq!((bytes[0], bytes[56], bytes[64]), (1, 8, 2));
        assert_eq!(f32::from_le_bytes(bytes[92..96].try_into().unwrap()), 0.125);
        // Every field holds its own number, where the header has it.
        let numbered = Params {
            q: 1,
            k: 2,
            v: 3,
            q_scale: 4,
            k_scale: 5,
            v_scale: 6,
            out: 7,
            workspace: 8,
            batch: 9,
            heads: 10,
            seq_q: 11,
            seq_kv: 12,
            head_dim: 13,
            causal: 14,
            causal_offset: 15,
            softmax_scale: f32::from_bits(16),
        };
        assert_eq!(values(PARAMS_H, "Params", &numbered.to_bytes()), in_order());
    }

    const PARAMS_H: &str = include_str!("../cuda/ladder/params.h");

    /// The fields of the struct here, numbered from 1.
    fn in_order() -> Vec<(String, u64)> {
        let names = [
            "q",
            "k",
            "v",
            "q_scale",
            "k_scale",
            "v_scale",
            "out",
            "workspace",
            "batch",
            "heads",
            "seq_q",
            "seq_kv",
            "head_dim",
            "causal",
            "causal_offset",
            "softmax_scale",
        ];
        names.map(str::to_owned).into_iter().zip(1..).collect()
    }

    #[test]
    fn two_swapped_pointers_in_the_header_are_found() {
        let swapped = PARAMS_H.replace("uint8_t* q;", "uint8_t* x;").replace("uint8_t* k;", "uint8_t* q;");
        let swapped = swapped.replace("uint8_t* x;", "uint8_t* k;");
        assert_ne!(swapped, PARAMS_H);
        let params = Params { q: 1, k: 2, ..Params::default() };
        assert_eq!(values(PARAMS_H, "Params", &params.to_bytes())[..2], [("q".to_owned(), 1), ("k".to_owned(), 2)]);
        assert_eq!(values(&swapped, "Params", &params.to_bytes())[..2], [("k".to_owned(), 1), ("q".to_owned(), 2)]);
    }

    #[test]
    fn the_header_lists_the_same_fields_in_the_same_order() {
        let header = include_str!("../cuda/common/config.h");
        let body = header.split("struct Config {").nth(1).unwrap().split("};").next().unwrap();
        let fields: Vec<&str> = body
            .lines()
            .filter_map(|line| line.trim().strip_prefix("uint32_t ")?.split(';').next())
            .filter(|field| !field.starts_with("reserved"))
            .collect();
        assert_eq!(fields[..2], ["magic", "version"]);
        let mut known: Vec<(&str, usize)> = config_fields().collect();
        known.sort_by_key(|(_, word)| *word);
        let there: Vec<(&str, usize)> = fields.iter().enumerate().skip(2).map(|(word, field)| (*field, word)).collect();
        assert_eq!(there, known);
    }
}
