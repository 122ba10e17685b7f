//! Element types of tensors and scalars: their names, sizes, exact values, and how a value is rounded to one of them.
//! Leaves to others: what a tensor is, and which errors are allowed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::words;

/// Type of one element. All are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// FP8 with 4 exponent and 3 mantissa bits, the variant without infinity: largest value 448, NaN 0x7f and 0xff.
    E4m3,
    /// FP8 with 5 exponent and 2 mantissa bits, with infinity: largest value 57344.
    E5m2,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 64 bits.
    I64,
    /// Unsigned, 64 bits.
    U64,
    /// One byte, 0 or 1.
    Bool,
}

/// The text names no element type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown dtype `{0}`: use one of {all}", all = Dtype::ALL.map(Dtype::name).join(", "))]
pub struct UnknownDtype(String);

/// An integer that the type cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value} does not fit {dtype}, which holds {low} to {high}")]
pub struct OutOfRange {
    value: i64,
    dtype: Dtype,
    low: i128,
    high: i128,
}

/// A binary format with few enough bits to be described by its field widths.
#[derive(Clone, Copy)]
struct Small {
    exponent_bits: u32,
    mantissa_bits: u32,
    /// Whether the largest exponent also has finite values, and all ones is the only NaN.
    finite: bool,
}

const F16: Small = Small { exponent_bits: 5, mantissa_bits: 10, finite: false };
const BF16: Small = Small { exponent_bits: 8, mantissa_bits: 7, finite: false };
const E4M3: Small = Small { exponent_bits: 4, mantissa_bits: 3, finite: true };
const E5M2: Small = Small { exponent_bits: 5, mantissa_bits: 2, finite: false };

/// 2 to a power that is a normal f64.
fn exp2i(power: i32) -> f64 {
    f64::from_bits(((power + 1023) as u64) << 52)
}

impl Small {
    fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    /// Bits of the magnitudes above every finite one: infinity, or the NaN of a format without.
    fn beyond(self) -> u32 {
        let exponents = ((1 << self.exponent_bits) - 1) << self.mantissa_bits;
        if self.finite { exponents | ((1 << self.mantissa_bits) - 1) } else { exponents }
    }

    fn sign(self) -> u32 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    /// The one NaN that conversions give.
    fn nan(self) -> u32 {
        if self.finite { self.beyond() } else { self.beyond() | 1 << (self.mantissa_bits - 1) }
    }

    fn decode(self, bits: u32) -> f64 {
        let magnitude = bits & (self.sign() - 1);
        let exponent = magnitude >> self.mantissa_bits;
        let mantissa = f64::from(magnitude & ((1 << self.mantissa_bits) - 1));
        let value = if magnitude > self.beyond() || self.finite && magnitude == self.beyond() {
            f64::NAN
        } else if magnitude == self.beyond() {
            f64::INFINITY
        } else {
            // A subnormal has the exponent of the smallest normal number, without the leading one.
            let leading = if exponent == 0 { 0.0 } else { exp2i(self.mantissa_bits as i32) };
            (leading + mantissa) * exp2i(exponent.max(1) as i32 - self.bias() - self.mantissa_bits as i32)
        };
        if bits & self.sign() == 0 { value } else { -value }
    }

    /// The nearest, the even one of two; a format without infinity gives its largest value instead.
    fn encode(self, value: f64) -> u32 {
        if value.is_nan() {
            return self.nan();
        }
        let sign = if value.is_sign_negative() { self.sign() } else { 0 };
        let magnitude = value.abs();
        let smallest_exponent = 1 - self.bias();
        let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(smallest_exponent);
        let largest = self.beyond() - 1;
        if exponent > self.bias() + 1 {
            return sign | if self.finite { largest } else { self.beyond() };
        }
        // The spacing of the format at this magnitude is a power of two, so the quotient is exact, and bits of
        // neighbouring magnitudes are neighbouring integers: a carry out of the mantissa lands in the exponent.
        let steps = (magnitude / exp2i(exponent - self.mantissa_bits as i32)).round_ties_even() as u32;
        let bits = steps + (((exponent - smallest_exponent) as u32) << self.mantissa_bits);
        sign | if self.finite { bits.min(largest) } else { bits.min(self.beyond()) }
    }
}

impl Dtype {
    /// Every type, in the order in which messages list them.
    pub const ALL: [Dtype; 15] = [
        Dtype::F64,
        Dtype::F32,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::E4m3,
        Dtype::E5m2,
        Dtype::I8,
        Dtype::U8,
        Dtype::I16,
        Dtype::U16,
        Dtype::I32,
        Dtype::U32,
        Dtype::I64,
        Dtype::U64,
        Dtype::Bool,
    ];

    /// The name in a gate file, e.g. `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "f64",
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::E4m3 => "e4m3",
            Dtype::E5m2 => "e5m2",
            Dtype::I8 => "i8",
            Dtype::U8 => "u8",
            Dtype::I16 => "i16",
            Dtype::U16 => "u16",
            Dtype::I32 => "i32",
            Dtype::U32 => "u32",
            Dtype::I64 => "i64",
            Dtype::U64 => "u64",
            Dtype::Bool => "bool",
        }
    }

    /// Size of an element, which is also its alignment.
    pub const fn bytes(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::E4m3 | Dtype::E5m2 | Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// Whether it is a floating-point format; integers and bools are compared exactly.
    pub const fn is_float(self) -> bool {
        self.unit_roundoff().is_some()
    }

    /// Largest relative error of rounding to the nearest normal number; one ulp of 1 is twice this. None for integers.
    pub const fn unit_roundoff(self) -> Option<f64> {
        let bits = match self {
            Dtype::F64 => 53,
            Dtype::F32 => 24,
            Dtype::F16 => 11,
            Dtype::Bf16 => 8,
            Dtype::E4m3 => 4,
            Dtype::E5m2 => 3,
            _ => return None,
        };
        Some(1.0 / (1_u64 << bits) as f64)
    }

    /// Smallest and largest integer of an integer type; 0 and 1 of bool, none of a float.
    pub const fn range(self) -> Option<(i128, i128)> {
        Some(match self {
            Dtype::I8 => (i8::MIN as i128, i8::MAX as i128),
            Dtype::I16 => (i16::MIN as i128, i16::MAX as i128),
            Dtype::I32 => (i32::MIN as i128, i32::MAX as i128),
            Dtype::I64 => (i64::MIN as i128, i64::MAX as i128),
            Dtype::U8 => (0, u8::MAX as i128),
            Dtype::U16 => (0, u16::MAX as i128),
            Dtype::U32 => (0, u32::MAX as i128),
            Dtype::U64 => (0, u64::MAX as i128),
            Dtype::Bool => (0, 1),
            _ => return None,
        })
    }

    /// What an element holds before a kernel writes it, little-endian: a NaN that no conversion makes, so that "not
    /// written" can be told from "computed NaN"; for integers a number, for bool an invalid one. It repeats every four
    /// bytes, as a memset of 32-bit words does.
    pub const fn poison(self) -> &'static [u8] {
        match self {
            Dtype::F64 => &[0x5a, 0x5a, 0xfa, 0xff, 0x5a, 0x5a, 0xfa, 0xff],
            Dtype::F32 => &[0x5a, 0x5a, 0xfa, 0xff],
            Dtype::F16 => &[0x5a, 0xfe],
            Dtype::Bf16 => &[0xda, 0xff],
            Dtype::E4m3 => &[0xff],
            Dtype::E5m2 => &[0xfe],
            Dtype::I8 | Dtype::U8 | Dtype::Bool => &[0xa5],
            Dtype::I16 | Dtype::U16 => &[0xa5; 2],
            Dtype::I32 | Dtype::U32 => &[0xa5; 4],
            Dtype::I64 | Dtype::U64 => &[0xa5; 8],
        }
    }

    /// The value of one element. Exact, except that integers beyond 2^53 are rounded: compare those by their bytes.
    /// Any bool that is not 0 is 1.
    ///
    /// # Panics
    ///
    /// If `element` does not have [`Dtype::bytes`] bytes.
    pub fn decode(self, element: &[u8]) -> f64 {
        assert_eq!(element.len(), self.bytes(), "an element of {self}");
        let mut wide = [0; 8];
        wide[..element.len()].copy_from_slice(element);
        let bits = u64::from_le_bytes(wide);
        match self {
            Dtype::F64 => f64::from_bits(bits),
            Dtype::F32 => f64::from(f32::from_bits(bits as u32)),
            Dtype::F16 => F16.decode(bits as u32),
            Dtype::Bf16 => BF16.decode(bits as u32),
            Dtype::E4m3 => E4M3.decode(bits as u32),
            Dtype::E5m2 => E5M2.decode(bits as u32),
            Dtype::I8 => f64::from(bits as i8),
            Dtype::I16 => f64::from(bits as i16),
            Dtype::I32 => f64::from(bits as i32),
            Dtype::I64 => bits as i64 as f64,
            Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => bits as f64,
            Dtype::Bool => f64::from(u8::from(bits != 0)),
        }
    }

    /// Appends the element nearest to a value, the even one of two.
    ///
    /// What is too large becomes infinity, and where there is none the largest value: 448 for e4m3, the end of the
    /// range for integers. NaN is 0x7f in e4m3 and 0 in integers; a bool is whether the value is not zero.
    pub fn encode(self, value: f64, out: &mut Vec<u8>) {
        let whole = value.round_ties_even();
        // Casts from f64 to integers saturate, and NaN becomes 0.
        match self {
            Dtype::F64 => out.extend(value.to_le_bytes()),
            Dtype::F32 => out.extend((value as f32).to_le_bytes()),
            Dtype::F16 => out.extend((F16.encode(value) as u16).to_le_bytes()),
            Dtype::Bf16 => out.extend((BF16.encode(value) as u16).to_le_bytes()),
            Dtype::E4m3 => out.push(E4M3.encode(value) as u8),
            Dtype::E5m2 => out.push(E5M2.encode(value) as u8),
            Dtype::I8 => out.extend((whole as i8).to_le_bytes()),
            Dtype::U8 => out.push(whole as u8),
            Dtype::I16 => out.extend((whole as i16).to_le_bytes()),
            Dtype::U16 => out.extend((whole as u16).to_le_bytes()),
            Dtype::I32 => out.extend((whole as i32).to_le_bytes()),
            Dtype::U32 => out.extend((whole as u32).to_le_bytes()),
            Dtype::I64 => out.extend((whole as i64).to_le_bytes()),
            Dtype::U64 => out.extend((whole as u64).to_le_bytes()),
            Dtype::Bool => out.push(u8::from(value != 0.0)),
        }
    }

    /// Appends the element of an integer: exact in integer types and refused where it does not fit, rounded in floats.
    pub fn encode_integer(self, value: i64, out: &mut Vec<u8>) -> Result<(), OutOfRange> {
        match self.range() {
            None => self.encode(value as f64, out),
            Some((low, high)) if (low..=high).contains(&i128::from(value)) => {
                out.extend(&value.to_le_bytes()[..self.bytes()]);
            }
            Some((low, high)) => return Err(OutOfRange { value, dtype: self, low, high }),
        }
        Ok(())
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dtype {
    type Err = UnknownDtype;

    fn from_str(text: &str) -> Result<Dtype, UnknownDtype> {
        Dtype::ALL.into_iter().find(|d| d.name() == text).ok_or_else(|| UnknownDtype(words::one_line(text)))
    }
}

impl Serialize for Dtype {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dtype, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
