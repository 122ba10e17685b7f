//! The e4m3 number format: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinities, NaN is 0x7f and 0xff.

use half::f16;

/// The largest finite value.
pub const MAX: f32 = 448.0;

/// The value of a code.
pub fn decode(code: u8) -> f32 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((code >> 3) & 0xf);
    let mantissa = f32::from(code & 7);
    match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * mantissa * power_of_two(-9),
        _ => sign * (8.0 + mantissa) * power_of_two(exponent - 10),
    }
}

/// 2^exponent, of a normal number: `powi` is a loop, and these two functions see every element of every tensor.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// Rounds to nearest even and saturates at ±448, as `cvt.rn.satfinite.e4m3x2.f32` does; NaN becomes 0x7f.
pub fn encode(value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = value.abs().min(MAX);
    // Steps are 2^-9 up to 2^-5 and double with each binade after that. Scaling by a power of two is exact in f32
    // here, so the only rounding is the one to an integer.
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(-6);
    let steps = (magnitude * power_of_two(3 - exponent)).round_ties_even() as u32;
    // steps is 0..=16; 16 carries into the next binade by itself, because codes of neighbouring binades adjoin.
    let code = ((exponent + 6) as u32) * 8 + steps;
    sign | code.min(0x7e) as u8
}

/// The codes of halves, each scaled first. There are fewer halves than values in a head of any length, so those are encoded
/// once each.
pub fn encode_all(values: &[f16], scaled: impl Fn(f32) -> f32) -> Vec<u8> {
    let code = |value: f16| encode(scaled(value.to_f32()));
    if values.len() < HALVES {
        return values.iter().map(|value| code(*value)).collect();
    }
    let codes: Vec<u8> = (0..=u16::MAX).map(|bits| code(f16::from_bits(bits))).collect();
    values.iter().map(|value| codes[usize::from(value.to_bits())]).collect()
}

/// How many halves there are.
const HALVES: usize = 1 << 16;

/// The largest magnitude among halves that are all finite: their bits without the sign are in the order of their values.
pub fn largest(values: &[f16]) -> f32 {
    let bits = values.iter().map(|value| value.to_bits() & 0x7fff).fold(0, u16::max);
    f16::from_bits(bits).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_halves_are_encoded_as_each_of_them_is() {
        let values: Vec<f16> =
            (0..70_000u32).map(|i| f16::from_bits((i * 37 % 0x7c00) as u16 | (i as u16 & 0x8000))).collect();
        let scaled = |value: f32| value * 0.37;
        let one_by_one: Vec<u8> = values.iter().map(|value| encode(scaled(value.to_f32()))).collect();
        assert_eq!(encode_all(&values, scaled), one_by_one);
        assert_eq!(encode_all(&values[..100], scaled), one_by_one[..100]);
        assert_eq!(largest(&values), values.iter().map(|value| value.to_f32().abs()).fold(0.0, f32::max));
        assert_eq!(largest(&[]), 0.0);
    }

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in 0..=255u8 {
            let value = decode(code);
            if value.is_nan() {
                assert_eq!(code & 0x7f, 0x7f);
                continue;
            }
            assert_eq!(encode(value), code, "{value}");
        }
    }

    #[test]
    fn known_values() {
        let cases = [(1.0, 0x38), (448.0, 0x7e), (1e9, 0x7e), (f32::NEG_INFINITY, 0xfe), (2f32.powi(-9), 1), (0.0, 0)];
        for (value, code) in cases {
            assert_eq!(encode(value), code, "{value}");
        }
        assert_eq!(encode(f32::NAN), 0x7f);
    }

    #[test]
    fn midpoints_go_to_the_even_code_and_their_neighbours_to_the_nearer() {
        for code in 0..0x7e_u8 {
            let (low, high) = (decode(code), decode(code + 1));
            let middle = (low + high) / 2.0;
            let even = if code % 2 == 0 { code } else { code + 1 };
            assert_eq!(encode(middle), even, "between {low} and {high}");
            assert_eq!(encode(middle.next_down()), code);
            assert_eq!(encode(middle.next_up()), code + 1);
        }
    }
}
