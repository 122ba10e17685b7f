//! Element types against tables, against `half`, and against each format's own list of values.

use super::*;
use proptest::prelude::*;

fn encode(dtype: Dtype, value: f64) -> u64 {
    let mut bytes = Vec::new();
    dtype.encode(value, &mut bytes);
    assert_eq!(bytes.len(), dtype.bytes());
    bytes.resize(8, 0);
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn decode(dtype: Dtype, bits: u64) -> f64 {
    dtype.decode(&bits.to_le_bytes()[..dtype.bytes()])
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn names_survive_text_and_an_unknown_one_lists_all() {
    for dtype in Dtype::ALL {
        assert_eq!(dtype.to_string().parse(), Ok(dtype));
        assert_eq!(serde_json::to_string(&dtype).unwrap(), format!("\"{dtype}\""));
    }
    assert_eq!(
        "float16".parse::<Dtype>().unwrap_err().to_string(),
        "unknown dtype `float16`: use one of f64, f32, f16, bf16, e4m3, e5m2, i8, u8, i16, u16, i32, u32, i64, u64, \
         bool"
    );
}

#[test]
fn every_16_bit_float_is_what_half_says() {
    for bits in 0..=u16::MAX {
        for (dtype, expected) in
            [(Dtype::F16, half::f16::from_bits(bits).to_f64()), (Dtype::Bf16, half::bf16::from_bits(bits).to_f64())]
        {
            let value = decode(dtype, bits.into());
            assert!(same(value, expected), "{dtype} {bits:#06x}: {value} {expected}");
            if !value.is_nan() {
                assert_eq!(encode(dtype, value), u64::from(bits), "{dtype} {bits:#06x}");
            }
        }
    }
}

/// Rounding is right where it is right between any two neighbours: below, at and above their midpoint.
#[test]
fn midpoints_go_to_the_even_neighbour_and_all_else_to_the_nearest() {
    for dtype in [Dtype::F16, Dtype::Bf16, Dtype::E4m3, Dtype::E5m2] {
        let bits = (0..1_u64 << (8 * dtype.bytes() - 1)).filter(|b| decode(dtype, *b).is_finite()).collect::<Vec<_>>();
        for pair in bits.windows(2) {
            let (low, high) = (decode(dtype, pair[0]), decode(dtype, pair[1]));
            assert!(low < high);
            let middle = low + (high - low) / 2.0;
            let even = if pair[0] % 2 == 0 { pair[0] } else { pair[1] };
            assert_eq!(encode(dtype, middle), even, "{dtype} {middle}");
            assert_eq!(encode(dtype, middle.next_down()), pair[0], "{dtype} below {middle}");
            assert_eq!(encode(dtype, middle.next_up()), pair[1], "{dtype} above {middle}");
            let sign = 1 << (8 * dtype.bytes() - 1);
            assert_eq!(encode(dtype, -middle), sign | even, "{dtype} -{middle}");
        }
    }
}

#[test]
fn the_ends_of_each_format() {
    let table = [
        (Dtype::F16, 65504.0, 0x7bff),
        (Dtype::F16, 65519.99, 0x7bff),
        (Dtype::F16, 65520.0, 0x7c00),
        (Dtype::F16, f64::INFINITY, 0x7c00),
        (Dtype::F16, f64::NEG_INFINITY, 0xfc00),
        (Dtype::F16, 2f64.powi(-25), 0),
        (Dtype::F16, 2f64.powi(-25) * 1.001, 1),
        (Dtype::Bf16, f64::MAX, 0x7f80),
        (Dtype::E4m3, 448.0, 0x7e),
        (Dtype::E4m3, 1e9, 0x7e),
        (Dtype::E4m3, 465.0, 0x7e),
        (Dtype::E4m3, f64::INFINITY, 0x7e),
        (Dtype::E4m3, -1e9, 0xfe),
        (Dtype::E4m3, f64::NAN, 0x7f),
        (Dtype::E4m3, 2f64.powi(-9), 1),
        (Dtype::E4m3, -0.0, 0x80),
        (Dtype::E4m3, f64::from_bits(1), 0),
        (Dtype::E5m2, 57344.0, 0x7b),
        (Dtype::E5m2, 61440.0, 0x7c),
        (Dtype::E5m2, f64::NAN, 0x7e),
        (Dtype::F32, 1e300, 0x7f80_0000),
        (Dtype::I8, 2.5, 2),
        (Dtype::I8, 3.5, 4),
        (Dtype::I8, 1e9, 0x7f),
        (Dtype::I8, -1e9, 0x80),
        (Dtype::U16, -3.0, 0),
        (Dtype::I32, f64::NAN, 0),
        (Dtype::U64, 1e30, u64::MAX),
        (Dtype::Bool, 0.25, 1),
        (Dtype::Bool, 0.0, 0),
    ];
    for (dtype, value, bits) in table {
        assert_eq!(encode(dtype, value), bits, "{dtype} {value}");
    }
    assert_eq!(decode(Dtype::E4m3, 0x08), 2f64.powi(-6));
    assert!(decode(Dtype::E4m3, 0xff).is_nan() && decode(Dtype::E5m2, 0x7d).is_nan());
    assert_eq!(decode(Dtype::E5m2, 0xfc), f64::NEG_INFINITY);
    assert_eq!(decode(Dtype::I16, 0xffff), -1.0);
    assert_eq!(decode(Dtype::U16, 0xffff), 65535.0);
}

#[test]
fn integers_are_exact_or_refused() {
    let mut out = Vec::new();
    Dtype::I64.encode_integer(i64::MAX - 1, &mut out).unwrap();
    assert_eq!(out, (i64::MAX - 1).to_le_bytes());
    out.clear();
    Dtype::I8.encode_integer(-2, &mut out).unwrap();
    Dtype::F16.encode_integer(3, &mut out).unwrap();
    assert_eq!(out, [0xfe, 0x00, 0x42]);
    let refused = Dtype::U8.encode_integer(-1, &mut out).unwrap_err();
    assert_eq!(refused.to_string(), "-1 does not fit u8, which holds 0 to 255");
    assert!(Dtype::Bool.encode_integer(2, &mut out).is_err() && Dtype::I32.encode_integer(1 << 31, &mut out).is_err());
    assert_eq!(out.len(), 3);
}

#[test]
fn poison_is_not_a_number_and_not_what_a_conversion_gives() {
    for dtype in Dtype::ALL {
        let poison = dtype.poison();
        assert_eq!(poison.len(), dtype.bytes(), "{dtype}");
        assert!(poison.chunks(4).all(|word| word == &poison[..poison.len().min(4)]), "{dtype} does not repeat");
        if dtype.is_float() {
            assert!(dtype.decode(poison).is_nan(), "{dtype}");
            let mut computed = Vec::new();
            dtype.encode(f64::NAN, &mut computed);
            assert_ne!(poison, computed, "{dtype}");
        }
    }
}

#[test]
fn unit_roundoff_is_half_the_distance_after_one() {
    for dtype in Dtype::ALL.into_iter().filter(|d| d.is_float()) {
        let one = encode(dtype, 1.0);
        assert_eq!(dtype.unit_roundoff(), Some((decode(dtype, one + 1) - 1.0) / 2.0), "{dtype}");
    }
    assert_eq!(Dtype::I32.unit_roundoff(), None);
}

proptest! {
    #[test]
    fn f32_values_round_as_in_half(value in any::<f32>()) {
        prop_assume!(!value.is_nan());
        prop_assert_eq!(encode(Dtype::F16, value.into()), u64::from(half::f16::from_f32(value).to_bits()));
        prop_assert_eq!(encode(Dtype::Bf16, value.into()), u64::from(half::bf16::from_f32(value).to_bits()));
    }

    #[test]
    fn what_was_decoded_encodes_to_itself(bits in any::<u64>()) {
        for dtype in Dtype::ALL {
            let mask = u64::MAX >> (64 - 8 * dtype.bytes());
            let value = decode(dtype, bits & mask);
            let exact = dtype.is_float() || value.abs() < 2f64.powi(53);
            if exact && !value.is_nan() && dtype != Dtype::Bool {
                prop_assert_eq!(encode(dtype, value), bits & mask, "{}", dtype);
            }
        }
    }
}
