//! Tensor maps: what a bulk copy of a box needs to know of a tensor. The driver's encoding is opaque, so the emulator has its
//! own; a host encodes with [`TensorMap::to_bytes`] what it would have given `cuTensorMapEncodeTiled`.

/// Bytes of an encoded map.
pub const MAP_BYTES: usize = 128;
/// Most dimensions of a tensor.
const MAX_RANK: usize = 5;
/// How an encoded map begins.
pub(crate) const MAGIC: [u8; 4] = *b"PTXM";
/// Alignment of a box in shared memory.
const SHARED_ALIGNMENT: u32 = 128;

/// Type of a tensor's elements: `CUtensorMapDataType`, of which the forms of `FLOAT32` that flush or round what a
/// copy to shared memory brings are [`TensorElement::F32`] here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorElement {
    /// `UINT8`, or any 8-bit float.
    U8,
    /// `UINT16`.
    U16,
    /// `UINT32`.
    U32,
    /// `INT32`.
    S32,
    /// `UINT64`.
    U64,
    /// `INT64`.
    S64,
    /// `FLOAT16`.
    F16,
    /// `BFLOAT16`.
    Bf16,
    /// `FLOAT32`.
    F32,
    /// `FLOAT64`.
    F64,
}

impl TensorElement {
    /// By the codes that `tensormap.replace` has for them: there are three more of what is F32 here.
    const BY_CODE: [TensorElement; 13] = {
        use TensorElement::{Bf16, F16, F32, F64, S32, S64, U8, U16, U32, U64};
        [U8, U16, U32, S32, U64, S64, F16, F32, F32, F64, Bf16, F32, F32]
    };

    /// Bytes of an element: 1, 2, 4 or 8.
    pub fn bytes(self) -> u32 {
        match self {
            TensorElement::U8 => 1,
            TensorElement::U16 | TensorElement::F16 | TensorElement::Bf16 => 2,
            TensorElement::U32 | TensorElement::S32 | TensorElement::F32 => 4,
            TensorElement::U64 | TensorElement::S64 | TensorElement::F64 => 8,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, TensorElement::F16 | TensorElement::Bf16 | TensorElement::F32 | TensorElement::F64)
    }
}

/// What `tensormap.replace` replaces, of the table of the PTX ISA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Address,
    /// Dimensions, less one.
    Rank,
    Extent,
    Size,
    Stride,
    /// 1, or 0 where nobody said: a box that leaves elements out is not modelled.
    ElementStride,
    /// An index of [`TensorElement::BY_CODE`].
    Element,
    /// 0: no other is modelled.
    Interleave,
    /// 0 to 3, for 0, 32, 64 and 128 bytes.
    Swizzle,
    /// 0: no other is modelled.
    Atomicity,
    /// 1 fills with NaN.
    Fill,
}

impl Field {
    /// By its word.
    pub(crate) fn parse(word: &str) -> Option<Field> {
        Some(match word {
            "global_address" => Field::Address,
            "rank" => Field::Rank,
            "box_dim" => Field::Extent,
            "global_dim" => Field::Size,
            "global_stride" => Field::Stride,
            "element_stride" => Field::ElementStride,
            "elemtype" => Field::Element,
            "interleave_layout" => Field::Interleave,
            "swizzle_mode" => Field::Swizzle,
            "swizzle_atomicity" => Field::Atomicity,
            "fill_mode" => Field::Fill,
            _ => return None,
        })
    }

    /// Whether there is one for each dimension.
    pub(crate) fn is_of_dimension(self) -> bool {
        matches!(self, Field::Extent | Field::Size | Field::Stride | Field::ElementStride)
    }

    /// Where it begins in an encoded map, and its bytes; nothing for a dimension that there is not.
    pub(crate) fn place(self, dimension: usize) -> Option<(usize, u32)> {
        let (first, bytes, count) = match self {
            Field::Rank => (4, 1, 1),
            Field::Element => (5, 1, 1),
            Field::Swizzle => (6, 1, 1),
            Field::Fill => (7, 1, 1),
            Field::Address => (8, 8, 1),
            Field::Stride => (16, 8, MAX_RANK - 1),
            Field::Size => (48, 4, MAX_RANK),
            Field::Extent => (68, 2, MAX_RANK),
            Field::ElementStride => (78, 1, MAX_RANK),
            Field::Interleave => (83, 1, 1),
            Field::Atomicity => (84, 1, 1),
        };
        (dimension < count).then_some((first + bytes * dimension, bytes as u32))
    }

    fn write(self, dimension: usize, value: u64, map: &mut [u8; MAP_BYTES]) {
        if let Some((at, bytes)) = self.place(dimension) {
            map[at..at + bytes as usize].copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
        }
    }

    /// 0 for a dimension that there is not.
    fn read(self, dimension: usize, map: &[u8; MAP_BYTES]) -> u64 {
        let (at, bytes) = self.place(dimension).unwrap_or_default();
        map[at..at + bytes as usize].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

/// A tensor and the box of it that one copy moves; dimensions from the innermost to the outermost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Address of the first element, a multiple of 16.
    pub address: u64,
    /// Type of an element.
    pub element: TensorElement,
    /// Elements along each dimension.
    pub sizes: Vec<u64>,
    /// Bytes from one element to the next along each dimension but the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of a box along each dimension, 1 to 256.
    pub extents: Vec<u32>,
    /// Bytes over which 16-byte chunks are permuted in shared memory: 0, 32, 64 or 128.
    pub swizzle: u32,
    /// Whether what lies outside the tensor reads as NaN and not as zero.
    pub nan_fill: bool,
}

/// What no tensor map can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to encode a tensor map: {0}")]
pub struct TensorMapError(String);

impl TensorMap {
    /// The map as a kernel gets it, by value or in memory.
    pub fn to_bytes(&self) -> Result<[u8; MAP_BYTES], TensorMapError> {
        self.check()?;
        let mut bytes = [0; MAP_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        let code = TensorElement::BY_CODE.iter().position(|element| *element == self.element).unwrap_or_default();
        let single = [
            (Field::Rank, self.sizes.len() as u64 - 1),
            (Field::Element, code as u64),
            (Field::Swizzle, u64::from((self.swizzle / 16).max(1).ilog2())),
            (Field::Fill, u64::from(self.nan_fill)),
            (Field::Address, self.address),
        ];
        for (field, value) in single {
            field.write(0, value, &mut bytes);
        }
        let extents = self.extents.iter().map(|extent| u64::from(*extent)).collect::<Vec<_>>();
        for (field, values) in [(Field::Size, &self.sizes), (Field::Stride, &self.strides), (Field::Extent, &extents)] {
            for (dimension, value) in values.iter().enumerate() {
                field.write(dimension, *value, &mut bytes);
            }
        }
        Ok(bytes)
    }

    fn check(&self) -> Result<(), TensorMapError> {
        let refuse = |what: String| Err(TensorMapError(what));
        let rank = self.sizes.len();
        if !(1..=MAX_RANK).contains(&rank) || self.extents.len() != rank || self.strides.len() != rank - 1 {
            return refuse(format!("{rank} sizes, {} strides, {} extents", self.strides.len(), self.extents.len()));
        }
        if !matches!(self.swizzle, 0 | 32 | 64 | 128) {
            return refuse(format!("a swizzle of {} bytes", self.swizzle));
        }
        if self.nan_fill && !self.element.is_float() {
            return refuse(format!("elements that are {:?} cannot be filled with NaN", self.element));
        }
        if self.sizes.iter().any(|size| !(1..=1 << 32).contains(size)) {
            return refuse(format!("sizes {:?} are not 1 to 2^32", self.sizes));
        }
        if self.extents.iter().any(|extent| !(1..=256).contains(extent)) {
            return refuse(format!("extents {:?} are not 1 to 256", self.extents));
        }
        if !self.address.is_multiple_of(16) || self.strides.iter().any(|stride| stride % 16 != 0 || *stride >= 1 << 40)
        {
            return refuse(format!(
                "address 0x{:x} or strides {:?} are not multiples of 16",
                self.address, self.strides
            ));
        }
        let inner = self.extents[0] * self.element.bytes();
        if !inner.is_multiple_of(16) || self.swizzle != 0 && inner > self.swizzle {
            return refuse(format!("rows of {inner} bytes are no multiple of 16, or longer than the swizzle"));
        }
        Ok(())
    }

    /// The map that was encoded, if this is one.
    pub(crate) fn decode(bytes: &[u8; MAP_BYTES]) -> Option<TensorMap> {
        let field = |field: Field| field.read(0, bytes);
        let rank = field(Field::Rank) as usize + 1;
        let of_each = |field: Field, count: usize| (0..count).map(|i| field.read(i, bytes)).collect::<Vec<u64>>();
        let plain = [Field::Interleave, Field::Atomicity].iter().all(|other| field(*other) == 0);
        if bytes[..4] != MAGIC || rank > MAX_RANK || !plain {
            return None;
        }
        if of_each(Field::ElementStride, rank).iter().any(|stride| *stride > 1) || field(Field::Fill) > 1 {
            return None;
        }
        let map = TensorMap {
            address: field(Field::Address),
            element: *TensorElement::BY_CODE.get(field(Field::Element) as usize)?,
            // 2^32 has no room.
            sizes: of_each(Field::Size, rank).into_iter().map(|size| if size == 0 { 1 << 32 } else { size }).collect(),
            strides: of_each(Field::Stride, rank - 1),
            extents: of_each(Field::Extent, rank).into_iter().map(|extent| extent as u32).collect(),
            swizzle: *[0, 32, 64, 128].get(field(Field::Swizzle) as usize)?,
            nan_fill: field(Field::Fill) == 1,
        };
        map.check().is_ok().then_some(map)
    }

    /// Bytes that a box takes in shared memory, all of which count as transferred.
    pub(crate) fn box_bytes(&self) -> usize {
        self.extents.iter().map(|extent| *extent as usize).product::<usize>() * self.element.bytes() as usize
    }

    /// Multiple that the place of a box in shared memory is of.
    pub(crate) fn shared_alignment(&self) -> u32 {
        SHARED_ALIGNMENT
    }

    /// Rows of a box along its innermost dimension.
    pub(crate) fn rows(&self) -> usize {
        self.extents[1..].iter().map(|extent| *extent as usize).product()
    }

    /// Address of the innermost element 0 of a row of the box at `at`; nothing if the row is outside the tensor.
    pub(crate) fn row_address(&self, at: &[i32], row: usize) -> Option<u64> {
        let (mut rest, mut address) = (row, self.address);
        for (i, stride) in self.strides.iter().enumerate() {
            let extent = self.extents[i + 1] as usize;
            let place = i64::from(at[i + 1]) + (rest % extent) as i64;
            rest /= extent;
            let inside = u64::try_from(place).ok().filter(|place| *place < self.sizes[i + 1])?;
            address += inside * stride;
        }
        Some(address)
    }

    /// Where a byte of a box that begins at shared address `shared` lies, from there.
    pub(crate) fn swizzled(&self, shared: u32, offset: usize) -> usize {
        let mask = (self.swizzle / 16).saturating_sub(1);
        let at = shared + offset as u32;
        ((at ^ (at >> 7 & mask) << 4) - shared) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> TensorMap {
        TensorMap {
            address: 0x1000,
            element: TensorElement::Bf16,
            sizes: vec![100, 30, 4],
            strides: vec![256, 8192],
            extents: vec![64, 8, 2],
            swizzle: 128,
            nan_fill: true,
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        assert_eq!(TensorMap::decode(&map().to_bytes().unwrap()), Some(map()));
        for element in TensorElement::BY_CODE {
            let map = TensorMap { element, extents: vec![16, 8, 2], nan_fill: false, ..map() };
            assert_eq!(TensorMap::decode(&map.to_bytes().unwrap()), Some(map));
        }
        assert_eq!(TensorMap::decode(&[0; MAP_BYTES]), None);
        for wrong in [
            TensorMap { extents: vec![128, 8, 2], ..map() },
            TensorMap { strides: vec![250, 8192], ..map() },
            TensorMap { sizes: vec![100, 30], ..map() },
            TensorMap { address: 8, ..map() },
            TensorMap { extents: vec![64, 0, 2], ..map() },
            TensorMap { element: TensorElement::U16, ..map() },
        ] {
            assert!(wrong.to_bytes().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn rows_outside_the_tensor_have_no_address() {
        let map = map();
        assert_eq!((map.rows(), map.box_bytes()), (16, 2048));
        assert_eq!(map.row_address(&[0, 28, 3], 1), Some(0x1000 + 29 * 256 + 3 * 8192));
        assert_eq!((map.row_address(&[0, 28, 3], 2), map.row_address(&[0, 28, 3], 8)), (None, None));
        assert_eq!(map.row_address(&[0, -1, 0], 0), None);
        // Chunk 3 of row 5 of 128 bytes.
        assert_eq!(map.swizzled(4096, 5 * 128 + 48), 5 * 128 + (3 ^ 5) * 16);
    }
}
