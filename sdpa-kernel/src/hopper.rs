//! The Hopper family: its entry functions, which of them serves which shape, how each is launched, and the layout of
//! what crosses to the device: the twin of `cuda/hopper/params.h`. Data and arithmetic; launching is left to the
//! runner. Why the rules are as they are: `docs/hopper-worklog.md`.

use std::collections::BTreeMap;

use crate::variant::{EntryPoint, Family, Operands, Unanswered, Variant};

/// The variant's name.
pub const NAME: &str = "hopper";
/// What it is.
pub const ABOUT: &str = "sm_90a flagship: wgmma and bulk copies, from images that its own quantiser makes";
/// What the emulator cannot be held to yet of a GPU's answers.
pub const UNANSWERED: Option<Unanswered> =
    Some(Unanswered::Wholly("since Q and K are rotated its operands are others, and no GPU's outputs were kept"));
/// wgmma and bulk copies exist on this architecture alone.
pub const ARCH: &str = "sm_90a";
/// Rows of one block of the Q image.
pub const Q_BLOCK_ROWS: u32 = 64;
/// Keys of one tile of the K and V images.
pub const TILE_KEYS: u32 = 128;
/// Largest magnitudes of Q, K and V after scaling.
pub const SCALE_TARGETS: [f32; 3] = [16.0, 16.0, 256.0];
/// Scales of Q, K, V, and padding; of each head, ahead of the offsets of V's channels.
pub const SCALES_PER_HEAD: usize = 4;
/// Neighbouring channels of Q and K that the quantiser rotates together.
pub const ROTATED_CHANNELS: usize = 64;

/// Whether the rotation begins by changing a channel's sign: where an odd number of the pairs of bits (0, 1), (2, 3), (4, 5) of its
/// number are both set, as in `cuda/hopper/rotation.cuh`.
pub fn is_negated(channel: usize) -> bool {
    (channel & (channel >> 1) & 0b1_0101).count_ones() % 2 == 1
}

/// Name and head dimension of the attention entries, by row groups x key groups.
const ATTENTION: [(&str, u32); 7] = [
    ("attention_d64_1x1", 64),
    ("attention_d64_1x2", 64),
    ("attention_d64_2x2", 64),
    ("attention_d64_4x1", 64),
    ("attention_d128_1x2", 128),
    ("attention_d128_2x1", 128),
    ("attention_d128_3x1", 128),
];
/// The same of the quantiser's.
const QUANTISERS: [(&str, u32); 2] = [("quantise_d64", 64), ("quantise_d128", 128)];
/// K and V of a section of heads should lie in the L2 cache together.
const SECTION_BYTES: u64 = 32 << 20;
/// Keys whose rounding the quantiser adds up in 32 bits.
const MOST_KEYS: u32 = 1 << 22;
/// CTAs of the largest portable cluster.
const LARGEST_CLUSTER: u32 = 8;
/// Threads of the quantiser that convert one unit of 128 rows.
const GROUP_THREADS: u32 = 128;

/// The registered variant.
pub fn variant() -> Variant {
    let toggles = BTreeMap::from([("p_format".to_owned(), 1), ("stages".to_owned(), 4)]);
    Variant { name: NAME.to_owned(), source: "hopper/sdpa_hopper.cu".to_owned(), family: Family::Hopper, toggles }
}

/// Every entry function of the module.
pub fn entry_points() -> Vec<EntryPoint> {
    let attention = ATTENTION.iter().map(|entry| (entry, Operands::HopperImages));
    let quantisers = QUANTISERS.iter().map(|entry| (entry, Operands::Originals));
    attention
        .chain(quantisers)
        .map(|((name, head_dim), operands)| EntryPoint {
            name: (*name).to_owned(),
            config_symbol: format!("{name}_config"),
            head_dim: *head_dim,
            operands,
        })
        .collect()
}

/// What decides how a call is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// B * H.
    pub heads: u32,
    /// Query rows per head.
    pub seq_q: u32,
    /// Keys per head.
    pub seq_kv: u32,
    /// D.
    pub head_dim: u32,
    /// Whether rows see only keys up to their own.
    pub causal: bool,
}

impl From<([u32; 4], bool)> for Sizes {
    /// Of B * H, query rows, keys and D, and whether rows see only keys up to their own.
    fn from(([heads, seq_q, seq_kv, head_dim], causal): ([u32; 4], bool)) -> Sizes {
        Sizes { heads, seq_q, seq_kv, head_dim, causal }
    }
}

/// When a kernel may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// When what is ahead of it in the stream has ended.
    InOrder,
    /// As soon as the kernel ahead of it allows (programmatic dependent launch); it waits for that one's end by itself.
    Early,
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// CTAs.
    pub grid: [u32; 3],
    /// Threads of a CTA.
    pub threads: u32,
    /// CTAs of a cluster along x; 1 is none.
    pub cluster: u32,
}

impl Sizes {
    /// Work items of an entry whose tile has so many rows.
    pub(crate) fn row_tiles(&self, rows: u32) -> u32 {
        self.heads * self.seq_q.div_ceil(rows)
    }

    /// What CTA `cta` of `ctas` works on, in its order, as (number of the tile within the head, head): the twin of
    /// `cuda/hopper/scheduler.cuh`.
    pub fn items_of(&self, cta: u32, ctas: u32, tile_q: u32) -> Vec<[u32; 2]> {
        let (tiles, section_heads) = (self.seq_q.div_ceil(tile_q), self.section_heads());
        let place = |round: u32| round * ctas + if round % 2 == 1 { ctas - 1 - cta } else { cta };
        let item = |index: u32| {
            let (section, in_section) = (index / (section_heads * tiles), index % (section_heads * tiles));
            let (rank, head) = (in_section / section_heads, in_section % section_heads);
            [tiles - 1 - rank, section * section_heads + head]
        };
        (0..).map(place).take_while(|index| *index < self.row_tiles(tile_q)).map(item).collect()
    }

    /// The attention entry for these sizes on a device with so many multiprocessors; `None` for other head dimensions.
    pub fn entry(&self, multiprocessors: u32) -> Option<&'static str> {
        let few_rows = self.row_tiles(Q_BLOCK_ROWS) <= multiprocessors;
        Some(match self.head_dim {
            64 if self.seq_kv <= TILE_KEYS => "attention_d64_1x1",
            64 if few_rows => "attention_d64_1x2",
            64 if self.causal && self.row_tiles(256) <= 2 * multiprocessors => "attention_d64_2x2",
            64 => "attention_d64_4x1",
            128 if few_rows => "attention_d128_1x2",
            128 if self.causal || self.row_tiles(192) >= 1000 => "attention_d128_3x1",
            128 => "attention_d128_2x1",
            _ => return None,
        })
    }

    /// Persistent CTAs: as many as there are tiles of `tile_q` rows, one for each multiprocessor at most.
    pub fn attention_geometry(&self, tile_q: u32, threads: u32, multiprocessors: u32) -> Geometry {
        Geometry { grid: [self.row_tiles(tile_q).min(multiprocessors), 1, 1], threads, cluster: 1 }
    }

    /// A cluster for each head and operand, with as many groups of threads as there is work for.
    pub fn quantise_geometry(&self, max_threads: u32) -> Geometry {
        let units = self.seq_q.max(self.seq_kv).div_ceil(TILE_KEYS).max(1);
        let cluster = units.next_power_of_two().min(LARGEST_CLUSTER);
        let groups = units.div_ceil(cluster).min(max_threads / GROUP_THREADS);
        Geometry { grid: [cluster, self.heads, 3], threads: groups * GROUP_THREADS, cluster }
    }

    /// Heads that are worked on together: one where all rows cost the same, else the largest divisor of the number of
    /// heads whose K and V fit.
    fn section_heads(&self) -> u32 {
        let head_bytes = 2 * u64::from(self.seq_kv) * u64::from(self.head_dim);
        let most = if self.causal { (SECTION_BYTES / head_bytes.max(1)).clamp(1, u64::from(self.heads)) } else { 1 };
        (1..=most as u32).rev().find(|n| self.heads.is_multiple_of(*n)).unwrap_or(1)
    }

    /// Whether the kernels count this far: grids, 32-bit element numbers, and the scheduler's divisions for an entry of
    /// so many rows a tile.
    pub fn fits(&self, tile_q: u32) -> bool {
        let (heads, rows) = (u64::from(self.heads), u64::from(self.seq_q.max(self.seq_kv)));
        let tiles = u64::from(self.seq_q.div_ceil(tile_q));
        (1..=65_535).contains(&self.heads)
            && self.seq_kv <= MOST_KEYS
            && self.seq_q > 0
            && self.seq_kv > 0
            && heads * rows.next_multiple_of(u64::from(TILE_KEYS)) * u64::from(self.head_dim) < 1 << 31
            && heads * tiles * u64::from(self.section_heads()) * tiles < 1 << 32
    }

    /// Elements of a dense tensor of so many rows per head.
    pub fn elements(&self, rows: u32) -> usize {
        self.heads as usize * rows as usize * self.head_dim as usize
    }

    /// Scales and offsets of all heads.
    pub fn scale_words(&self) -> usize {
        self.heads as usize * (SCALES_PER_HEAD + self.head_dim as usize)
    }

    /// Bytes of the images of Q, K and V.
    pub fn image_bytes(&self) -> [usize; 3] {
        let bytes = |rows: u32, granule: u32| {
            self.heads as usize * rows.next_multiple_of(granule) as usize * self.head_dim as usize
        };
        [bytes(self.seq_q, Q_BLOCK_ROWS), bytes(self.seq_kv, TILE_KEYS), bytes(self.seq_kv, TILE_KEYS)]
    }
}

/// For divisions without a divider: n / d is the high word of n times this; 0 stands for division by one.
fn reciprocal_of(d: u32) -> u32 {
    if d == 1 { 0 } else { (1u64 << 32).div_ceil(u64::from(d)) as u32 }
}

/// Parameters of an attention entry. Pointers are device addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionParams {
    /// Images of Q, K and V.
    pub images: [u64; 3],
    /// f32 `[B * H][SCALES_PER_HEAD + D]`.
    pub scales: u64,
    /// FP16 `[B * H, S_q, D]`.
    pub out: u64,
    /// Sizes.
    pub sizes: Sizes,
    /// With causal: row i sees keys j <= i + causal_offset.
    pub causal_offset: i32,
    /// Multiplies q . k.
    pub softmax_scale: f32,
    /// Rows of the entry's tile.
    pub tile_q: u32,
}

impl AttentionParams {
    /// Size on the device.
    pub const BYTES: usize = 80;

    /// The bytes as the device receives them.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let section_heads = self.sizes.section_heads();
        let words = [
            self.sizes.heads,
            self.sizes.seq_q,
            self.sizes.seq_kv,
            u32::from(self.sizes.causal),
            self.causal_offset as u32,
            section_heads,
            reciprocal_of(section_heads),
            reciprocal_of(section_heads * self.sizes.seq_q.div_ceil(self.tile_q)),
            self.softmax_scale.to_bits(),
        ];
        let [q, k, v] = self.images;
        packed(&[q, k, v, self.scales, self.out], &words)
    }
}

/// Parameters of a quantiser entry. Pointers are device addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantiseParams {
    /// FP16 Q, K and V, `[B * H, S, D]`.
    pub sources: [u64; 3],
    /// Their images.
    pub images: [u64; 3],
    /// f32 `[B * H][SCALES_PER_HEAD + D]`.
    pub scales: u64,
    /// Query rows per head.
    pub seq_q: u32,
    /// Keys per head.
    pub seq_kv: u32,
}

impl QuantiseParams {
    /// Size on the device.
    pub const BYTES: usize = 64;

    /// The bytes as the device receives them.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let ([a, b, c], [x, y, z]) = (self.sources, self.images);
        packed(&[a, b, c, x, y, z, self.scales], &[self.seq_q, self.seq_kv])
    }
}

/// Pointers, then words, then padding.
fn packed<const BYTES: usize>(pointers: &[u64], words: &[u32]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let (head, tail) = bytes.split_at_mut(8 * pointers.len());
    for (slot, pointer) in head.chunks_exact_mut(8).zip(pointers) {
        slot.copy_from_slice(&pointer.to_le_bytes());
    }
    for (slot, word) in tail.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::values;

    const SMS: u32 = 132;

    fn sizes(heads: u32, seq: u32, head_dim: u32, causal: bool) -> Sizes {
        Sizes { heads, seq_q: seq, seq_kv: seq, head_dim, causal }
    }

    #[test]
    fn each_shape_gets_the_entry_that_the_worklog_measured_best() {
        let cases = [
            (sizes(8, 128, 64, false), "attention_d64_1x1"),
            (sizes(16, 512, 64, false), "attention_d64_1x2"),
            (sizes(16, 2048, 64, false), "attention_d64_4x1"),
            (sizes(16, 2048, 64, true), "attention_d64_2x2"),
            (sizes(256, 2048, 64, true), "attention_d64_4x1"),
            (sizes(16, 2048, 128, false), "attention_d128_2x1"),
            (sizes(16, 2048, 128, true), "attention_d128_3x1"),
            (sizes(128, 2048, 128, false), "attention_d128_3x1"),
            (sizes(3, 77, 128, true), "attention_d128_1x2"),
        ];
        let names: Vec<String> = entry_points().into_iter().map(|e| e.name).collect();
        for (sizes, wanted) in cases {
            assert_eq!(sizes.entry(SMS), Some(wanted), "{sizes:?}");
            assert!(names.iter().any(|n| n == wanted));
        }
        assert_eq!(sizes(1, 1, 96, false).entry(SMS), None);
    }

    #[test]
    fn every_entry_of_the_source_is_listed_and_no_other() {
        let source = include_str!("../cuda/hopper/sdpa_hopper.cu");
        let calls = source.lines().filter_map(|line| {
            let (call, rest) = line.split_once('(')?;
            call.starts_with("SDPA_HOPPER_").then(|| rest.split(',').next())?
        });
        let listed: Vec<String> = entry_points().into_iter().map(|e| e.name).collect();
        assert_eq!(calls.collect::<Vec<_>>(), listed);
    }

    #[test]
    fn every_tile_is_the_item_of_one_cta() {
        for (sizes, tile_q, ctas) in [
            (sizes(16, 2048, 64, true), 256, SMS),
            (sizes(3, 700, 128, true), 192, 7),
            (sizes(5, 77, 64, false), 64, 10),
        ] {
            let mut items: Vec<_> = (0..ctas).flat_map(|cta| sizes.items_of(cta, ctas, tile_q)).collect();
            items.sort_unstable();
            let tiles = sizes.seq_q.div_ceil(tile_q);
            let all: Vec<_> = (0..tiles).flat_map(|tile| (0..sizes.heads).map(move |head| [tile, head])).collect();
            assert_eq!(items, all);
        }
        // Longest rows first, and who had the first of one round has the last of the next.
        let causal = sizes(4, 256, 64, true);
        assert_eq!(causal.items_of(0, 4, 64)[..2], [[3, 0], [2, 3]]);
    }

    #[test]
    fn reciprocals_divide_exactly_wherever_the_scheduler_divides() {
        for heads in [1, 3, 7, 16, 48, 256] {
            for seq in [1, 77, 128, 700, 2048, 8192] {
                for tile in [64, 128, 192, 256] {
                    let sizes = sizes(heads, seq, 64, true);
                    let (section, tiles) = (sizes.section_heads(), seq.div_ceil(tile));
                    assert!(heads.is_multiple_of(section));
                    let divide = |n: u32, d: u32| match reciprocal_of(d) {
                        0 => n,
                        r => ((u64::from(n) * u64::from(r)) >> 32) as u32,
                    };
                    for n in 0..heads * tiles {
                        assert_eq!(divide(n, section * tiles), n / (section * tiles));
                        assert_eq!(divide(n, section), n / section);
                    }
                }
            }
        }
    }

    #[test]
    fn sizes_that_would_overflow_are_known() {
        assert!(sizes(256, 8192, 128, true).fits(192) && sizes(1, 1, 64, false).fits(64));
        let too_many =
            [(0, 1, false), (1, 0, false), (65_536, 1, false), (16, 1 << 21, false), (1, (1 << 22) + 1, false)];
        for (heads, seq, causal) in too_many {
            assert!(!sizes(heads, seq, 64, causal).fits(64), "{heads} {seq}");
        }
        // Few elements, but a scheduler that would divide wrongly.
        assert!(!sizes(16, 1 << 20, 64, false).fits(64) && sizes(16, 1 << 20, 64, false).fits(256));
    }

    #[test]
    fn grids_cover_the_work() {
        let mission = sizes(16, 512, 64, false);
        let geometry = mission.attention_geometry(64, 288, SMS);
        assert_eq!(geometry, Geometry { grid: [128, 1, 1], threads: 288, cluster: 1 });
        assert_eq!(sizes(256, 2048, 64, false).attention_geometry(256, 640, SMS).grid, [SMS, 1, 1]);
        assert_eq!(mission.quantise_geometry(1024), Geometry { grid: [4, 16, 3], threads: 128, cluster: 4 });
        let long = sizes(16, 8192, 128, false).quantise_geometry(512);
        assert_eq!(long, Geometry { grid: [8, 16, 3], threads: 512, cluster: 8 });
        assert_eq!(sizes(3, 77, 64, false).image_bytes(), [3 * 128 * 64; 3]);
    }

    #[test]
    fn parameters_have_the_layout_of_the_header() {
        let params = AttentionParams {
            images: [1, 2, 3],
            scales: 4,
            out: 5,
            sizes: sizes(16, 512, 64, false),
            causal_offset: 0,
            softmax_scale: 0.125,
            tile_q: 64,
        };
        let bytes = params.to_bytes();
        assert_eq!((bytes[0], bytes[24], bytes[32], bytes[40]), (1, 4, 5, 16));
        assert_eq!(f32::from_le_bytes(bytes[72..76].try_into().unwrap()), 0.125);
        let quantise = QuantiseParams { sources: [1, 2, 3], images: [4, 5, 6], scales: 7, seq_q: 8, seq_kv: 9 };
        let bytes = quantise.to_bytes();
        assert_eq!((bytes[0], bytes[24], bytes[48], bytes[56], bytes[60]), (1, 4, 7, 8, 9));
        let header = include_str!("../cuda/hopper/params.h");
        // Every field holds its own number, where the header has it.
        let sizes = Sizes { heads: 6, seq_q: 7, seq_kv: 8, head_dim: 64, causal: false };
        let params = AttentionParams { sizes, causal_offset: 9, softmax_scale: f32::from_bits(10), ..params };
        let expected = [
            ("q", 1),
            ("k", 2),
            ("v", 3),
            ("scales", 4),
            ("out", 5),
            ("heads", 6),
            ("seq_q", 7),
            ("seq_kv", 8),
            ("causal", 0),
            ("causal_offset", 9),
            ("section_heads", 1),
            ("section_heads_reciprocal", 0),
            ("section_items_reciprocal", 0),
            ("softmax_scale", 10),
        ];
        let named = |fields: &[(&str, u64)]| fields.iter().map(|(f, v)| ((*f).to_owned(), *v)).collect::<Vec<_>>();
        assert_eq!(values(header, "AttentionParams", &params.to_bytes()), named(&expected));
        let expected = [
            ("source[0]", 1),
            ("source[1]", 2),
            ("source[2]", 3),
            ("image[0]", 4),
            ("image[1]", 5),
            ("image[2]", 6),
            ("scales", 7),
            ("seq_q", 8),
            ("seq_kv", 9),
        ];
        assert_eq!(values(header, "QuantiseParams", &bytes), named(&expected));
        for size in ["sizeof(AttentionParams) == 80", "sizeof(QuantiseParams) == 64"] {
            assert!(header.contains(size), "{size}");
        }
        for target in ["kQueryKeyTarget = 16.0f", "kValueTarget = 256.0f"] {
            assert!(header.contains(target), "{target}");
        }
    }
}
