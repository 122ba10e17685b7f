//! Where the elements of a tensor lie: dense elements spread by strides over gaps of poison, and gathered again.
//! Leaves to others: drawing and comparing them.

use kbench::operator::declared::{Layout, Tensor};
use kernel_spec::dtype::Dtype;

use crate::setup::Pattern;

/// What a byte of a tensor is that nobody wrote: that of an element, which a float's is never the result of a conversion.
pub fn unwritten(dtype: Dtype) -> Pattern {
    let element = dtype.poison();
    std::array::from_fn(|i| element[i % element.len()])
}

/// Whether elements lie one behind the other.
fn is_dense(layout: &Layout, dtype: Dtype) -> bool {
    let mut step = 1;
    layout.bytes == layout.elements * dtype.bytes() as u64
        && layout.shape.iter().zip(&layout.strides).rev().all(|(extent, stride)| {
            let fits = *extent == 1 || *stride == step;
            step *= extent;
            fits
        })
}

/// The place of an element by its index, the last dimension first.
pub fn coordinate(shape: &[u64], index: u64) -> Vec<u32> {
    let mut left = index;
    let mut place: Vec<u32> = shape
        .iter()
        .rev()
        .map(|extent| {
            let at = left % extent;
            left /= extent;
            at as u32
        })
        .collect();
    place.reverse();
    place
}

/// First bytes of all elements, in the order of their indices.
fn offsets(layout: &Layout, dtype: Dtype) -> impl Iterator<Item = usize> {
    let (shape, strides) = (&layout.shape, &layout.strides);
    let mut place = vec![0_u64; shape.len()];
    let mut at = 0_u64;
    (0..layout.elements).map(move |_| {
        let here = at as usize * dtype.bytes();
        for i in (0..shape.len()).rev() {
            place[i] += 1;
            at += strides[i];
            if place[i] < shape[i] {
                break;
            }
            at -= strides[i] * shape[i];
            place[i] = 0;
        }
        here
    })
}

/// All bytes of a tensor that has these elements.
pub fn spread(tensor: &Tensor, elements: Vec<u8>) -> Vec<u8> {
    let (layout, dtype) = (&tensor.layout, tensor.dtype);
    if is_dense(layout, dtype) {
        return elements;
    }
    let pattern = unwritten(dtype);
    let mut bytes: Vec<u8> = pattern.into_iter().cycle().take(layout.bytes as usize).collect();
    for (element, at) in elements.chunks_exact(dtype.bytes()).zip(offsets(layout, dtype)) {
        bytes[at..at + dtype.bytes()].copy_from_slice(element);
    }
    bytes
}

/// The elements of a tensor, and whether nothing lies between them that was not there before.
pub fn gather(tensor: &Tensor, bytes: &[u8]) -> (Vec<u8>, bool) {
    let (layout, dtype) = (&tensor.layout, tensor.dtype);
    if is_dense(layout, dtype) {
        return (bytes.to_vec(), true);
    }
    let mut elements = Vec::with_capacity(layout.elements as usize * dtype.bytes());
    for at in offsets(layout, dtype) {
        elements.extend_from_slice(&bytes[at..at + dtype.bytes()]);
    }
    let intact = spread(tensor, elements.clone()) == bytes;
    (elements, intact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbench::operator::declared::Role;

    fn tensor(shape: &[u64], strides: &[u64], dtype: Dtype) -> Tensor {
        let elements = shape.iter().product();
        let last: u64 = shape.iter().zip(strides).map(|(extent, stride)| (extent - 1) * stride).sum();
        let layout = Layout {
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            elements,
            bytes: (last + 1) * dtype.bytes() as u64,
        };
        Tensor { name: "t".into(), dtype, layout, role: Role::Output { inplace: None } }
    }

    #[test]
    fn elements_go_where_strides_say_and_come_back() {
        let table: [(&[u64], &[u64], &[u8]); 6] = [
            (&[2, 2], &[2, 1], &[0, 1, 2, 3]),
            (&[2, 2], &[3, 1], &[0, 1, 0xa5, 2, 3]),
            (&[2, 2], &[1, 2], &[0, 2, 1, 3]),
            (&[2, 3], &[1, 3], &[0, 3, 0xa5, 1, 4, 0xa5, 2, 5]),
            (&[], &[], &[0]),
            (&[1, 3], &[77, 2], &[0, 0xa5, 1, 0xa5, 2]),
        ];
        for (shape, strides, wanted) in table {
            let tensor = tensor(shape, strides, Dtype::U8);
            let elements: Vec<u8> = (0..tensor.layout.elements as u8).collect();
            let bytes = spread(&tensor, elements.clone());
            assert_eq!(bytes, wanted, "{shape:?} {strides:?}");
            assert_eq!(gather(&tensor, &bytes), (elements, true));
        }
    }

    #[test]
    fn a_gap_that_was_written_shows() {
        let tensor = tensor(&[2, 2], &[3, 1], Dtype::F16);
        let mut bytes = spread(&tensor, vec![0; 8]);
        assert_eq!(bytes[4..6], [0x5a, 0xfe]);
        bytes[5] = 0;
        assert_eq!(gather(&tensor, &bytes), (vec![0; 8], false));
    }

    #[test]
    fn places_are_counted_from_the_last_dimension() {
        assert_eq!(coordinate(&[2, 3, 4], 23), [1, 2, 3]);
        assert_eq!(coordinate(&[2, 3, 4], 5), [0, 1, 1]);
        assert_eq!(coordinate(&[], 0), Vec::<u32>::new());
    }

    #[test]
    fn the_poison_of_every_type_repeats_every_four_bytes() {
        for dtype in Dtype::ALL {
            let pattern = unwritten(dtype);
            assert!(dtype.poison().iter().zip(pattern.iter().cycle()).all(|(a, b)| a == b), "{dtype}");
        }
    }
}
