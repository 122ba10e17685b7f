//! Operands of the probes: edge values of each kind, and random ones, the same on every machine.

/// Small deterministic generator (splitmix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Width of a kind of operand in bytes: integers `h` 16, `w` 32, `d` 64 bits; floats `e` f16, `k` bf16, `f` f32,
/// `g` f64, `n` f64 that often are NaN; pairs `x` f16x2, `y` bf16x2, `q` e4m3x2 or e5m2x2; `s` a shift count or a position, `r` f32 within one turn.
pub(super) fn bytes(kind: char) -> usize {
    match kind {
        'd' | 'g' | 'n' => 8,
        'h' | 'e' | 'k' | 'q' => 2,
        _ => 4,
    }
}

const WORDS: &[u64] = &[
    0,
    1,
    2,
    7,
    31,
    32,
    33,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0001,
    0x1234_5678,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xdead_beef,
    0xffff_fffe,
    0xffff_ffff,
];
const LONGS: &[u64] = &[
    0,
    1,
    3,
    63,
    64,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x0123_4567_89ab_cdef,
    0xffff_ffff_ffff_fff0,
    u64::MAX,
];
const HALF_WORDS: &[u64] = &[0, 1, 2, 15, 16, 17, 0x7fff, 0x8000, 0x8001, 0x00ff, 0xff00, 0xfffe, 0xffff];
const COUNTS: &[u64] = &[0, 1, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 0x7fff_ffff, 0xffff_ffff];
const FLOATS: &[u64] = &[
    0,
    0x8000_0000,
    1,
    0x8000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x8080_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x3fc0_0000,
    0x4020_0000,
    0xc060_0000,
    0x3eaa_aaab,
    0x4b00_0001,
    0x4eff_ffff,
    0x4f00_0000,
    0xcf00_0000,
    0x4f80_0000,
    0x5f00_0000,
    0xdf00_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_1234,
    0x7f80_0001,
    0x3380_0000,
    0x477f_f000,
    0x3300_0000,
    0x43e0_0000,
    0x43e8_0000,
    0x7e80_0000,
    0x7f00_0000,
];
/// What sine and cosine are documented for.
const SMALL: &[u64] =
    &[0, 0x8000_0000, 1, 0x8000_0001, 0x0080_0000, 0x3380_0000, 0x3f80_0000, 0xbf80_0000, 0x4049_0fdb, 0x7fc0_0000];
const DOUBLES: &[u64] = &[
    0,
    0x8000_0000_0000_0000,
    1,
    0x3ff0_0000_0000_0000,
    0xbff8_0000_0000_0000,
    0x4340_0000_0000_0001,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x3690_0000_0000_0000,
    0x3810_0000_0000_0001,
    0x47ef_ffff_f000_0000,
    0x41df_ffff_ffff_ffff,
    0x43e0_0000_0000_0000,
];
/// NaN with signs and payloads, quiet and signalling, among a few numbers.
const NANS: &[u64] = &[
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0001,
    0x7ff0_0000_0000_0001,
    0xfff4_dead_beef_0000,
    0x7fff_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0,
];
const HALVES: &[u64] = &[
    0, 0x8000, 1, 0x8001, 0x03ff, 0x0400, 0x8400, 0x3c00, 0xbc00, 0x3555, 0x4248, 0x6400, 0x77ff, 0x7bff, 0xfbff,
    0x7c00, 0xfc00, 0x7e00, 0xfe01, 0x7c01,
];
const BRAINS: &[u64] = &[
    0, 0x8000, 1, 0x8001, 0x007f, 0x0080, 0x8080, 0x3f80, 0xbf80, 0x3eab, 0x4049, 0x4f00, 0x7f7f, 0xff7f, 0x7f80,
    0xff80, 0x7fc0, 0xffc1, 0x7f81,
];

/// A value of one kind: an edge, any bits, or a float of moderate size, each in a third of the rows.
fn value(kind: char, random: &mut Random) -> u64 {
    match kind {
        'x' => value('e', random) | value('e', random) << 16,
        'y' => value('k', random) | value('k', random) << 16,
        'q' => random.below(0x1_0000),
        _ => {
            let edges = match kind {
                'h' => HALF_WORDS,
                'w' => WORDS,
                'd' => LONGS,
                's' => COUNTS,
                'e' => HALVES,
                'k' => BRAINS,
                'g' => DOUBLES,
                'n' => NANS,
                'r' => SMALL,
                _ => FLOATS,
            };
            let (choice, bits) = (random.below(3), random.next());
            match (choice, kind) {
                (0, _) | (_, 'n') => edges[(bits % edges.len() as u64) as usize],
                (_, 's') => bits % 80,
                (1 | 2, 'r') => {
                    u64::from((((bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * std::f32::consts::TAU).to_bits())
                }
                (1, 'f') => bits & 0x807f_ffff | (107 + (bits >> 40) % 40) << 23,
                (1, 'g') => bits & 0x800f_ffff_ffff_ffff | (983 + random.below(80)) << 52,
                (1, 'e') => bits & 0x83ff | (8 + (bits >> 40) % 14) << 10,
                (1, 'k') => bits & 0x807f | (107 + (bits >> 40) % 40) << 7,
                _ => bits & (u64::MAX >> (64 - 8 * bytes(kind))),
            }
        }
    }
}

/// `count` rows of operands, each operand in 8 bytes.
pub(super) fn rows(kinds: &[char], count: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..count)
        .flat_map(|_| kinds.iter().flat_map(|k| value(*k, &mut random).to_le_bytes()).collect::<Vec<u8>>())
        .collect()
}
