//! New values for the inputs of a call: those of a set, with elements that are drawn anew in places that are drawn anew. No
//! two calls have the same, so that no answer that was kept is right again; each is a tensor that could have been drawn.
//! Pure. Leaves to others: handing them over.

use std::collections::BTreeMap;
use std::ops::Range;

use kernel_spec::dtype::Dtype;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::held;
use operators::{Fresh, Handed};
use stats::uniform_below;

/// Elements of a tensor that are replaced.
const REPLACED: usize = 64;

/// What the inputs of one call hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// The set.
    pub set: usize,
    /// By tensor, places in its memory, in elements, and the bits that lie there instead.
    assign: BTreeMap<String, BTreeMap<u64, i64>>,
}

impl Fill {
    /// A set as it was drawn.
    pub fn of_set(set: usize) -> Fill {
        Fill { set, assign: BTreeMap::new() }
    }

    /// Some set with new values.
    pub fn draw(sets: &[Vec<Handed>], rng: &mut ChaCha8Rng) -> Fill {
        let set = uniform_below(rng, sets.len());
        let mut assign = BTreeMap::new();
        for (at, tensor) in sets[set].iter().enumerate() {
            let other = &sets[uniform_below(rng, sets.len())][at];
            let replaced = replaced(tensor, other, rng);
            if !replaced.is_empty() {
                assign.insert(tensor.name.clone(), replaced);
            }
        }
        Fill { set, assign }
    }

    /// As the driver is told of it.
    pub fn told(&self) -> Value {
        let of = |places: &BTreeMap<u64, i64>| {
            json!([places.keys().collect::<Vec<_>>(), places.values().collect::<Vec<_>>()])
        };
        let assign: BTreeMap<&String, Value> = self.assign.iter().map(|(name, places)| (name, of(places))).collect();
        json!({"set": self.set, "assign": assign})
    }

    /// Some bytes of a tensor of its set that is filled so; they begin and end between elements.
    pub fn bytes(&self, tensor: &Handed, range: Range<usize>) -> Option<Vec<u8>> {
        let mut bytes = held(tensor)?[range.clone()].to_vec();
        let size = tensor.dtype.bytes();
        let places = (range.start / size) as u64..(range.end / size) as u64;
        for (place, bits) in self.assign.get(&tensor.name).into_iter().flat_map(|all| all.range(places.clone())) {
            let at = *place as usize * size - range.start;
            bytes[at..at + size].copy_from_slice(&bits.to_le_bytes()[..size]);
        }
        Some(bytes)
    }
}

/// Places and bits that are new in a tensor. `other` is the same tensor of another set, or of the same.
fn replaced(tensor: &Handed, other: &Handed, rng: &mut ChaCha8Rng) -> BTreeMap<u64, i64> {
    let (Some(own), Some(others)) = (held(tensor), held(other)) else { return BTreeMap::new() };
    let elements = tensor.layout.elements as usize;
    let mut place = || offset(tensor, uniform_below(rng, elements) as u64);
    let mut assign = BTreeMap::new();
    match tensor.fresh {
        Fresh::Constant | Fresh::Never => {}
        Fresh::Each => {
            for _ in 0..REPLACED.min(elements) {
                let (at, from) = (place(), place());
                assign.insert(at, bits(tensor.dtype, others, from));
            }
        }
        Fresh::Swapped => {
            let now = |assign: &BTreeMap<u64, i64>, at| {
                assign.get(&at).copied().unwrap_or_else(|| bits(tensor.dtype, own, at))
            };
            for _ in 0..REPLACED.min(elements) {
                let (one, two) = (place(), place());
                let (of_one, of_two) = (now(&assign, one), now(&assign, two));
                assign.extend([(one, of_two), (two, of_one)]);
            }
        }
    }
    assign
}

/// Where an element lies, in elements.
fn offset(tensor: &Handed, index: u64) -> u64 {
    let (mut left, mut at) = (index, 0);
    for (extent, stride) in tensor.layout.shape.iter().zip(&tensor.layout.strides).rev() {
        at += left % extent * stride;
        left /= extent;
    }
    at
}

/// The bits of an element, as a signed number of its size.
fn bits(dtype: Dtype, bytes: &[u8], place: u64) -> i64 {
    let (size, at) = (dtype.bytes(), place as usize * dtype.bytes());
    let element = &bytes[at..at + size];
    // One byte is a number without a sign to the driver.
    let is_negative = size > 1 && element[size - 1] & 0x80 != 0;
    let mut word = [if is_negative { 0xff } else { 0 }; 8];
    word[..size].copy_from_slice(element);
    i64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use kbench::operator::declared::Layout;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use operators::setup::Role;

    fn tensor(fresh: Fresh, values: &[i32]) -> Handed {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let elements = values.len() as u64 / 2;
        // Every other element is a gap.
        let layout = Layout { shape: vec![elements], strides: vec![2], elements, bytes: bytes.len() as u64 };
        Handed {
            name: "x".to_owned(),
            also: None,
            dtype: Dtype::I32,
            layout,
            role: Role::Input(Arc::new(bytes)),
            fresh,
        }
    }

    fn values(bytes: &[u8]) -> Vec<i32> {
        bytes.as_chunks::<4>().0.iter().map(|word| i32::from_le_bytes(*word)).collect()
    }

    /// Elements of several fills; gaps are held to what they were.
    fn drawn(fresh: Fresh) -> Vec<Vec<i32>> {
        let set = |from: i32| {
            vec![tensor(fresh, &(0..2000).map(|i| if i % 2 == 0 { from - i } else { -7 }).collect::<Vec<_>>())]
        };
        let sets = [set(0), set(100_000)];
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let fills: Vec<Fill> = (0..20).map(|_| Fill::draw(&sets, &mut rng)).collect();
        fills
            .iter()
            .map(|fill| {
                let all = values(&fill.bytes(&sets[fill.set][0], 0..sets[fill.set][0].role.bytes()).unwrap());
                assert!(all.iter().skip(1).step_by(2).all(|gap| *gap == -7));
                all.into_iter().step_by(2).collect()
            })
            .collect()
    }

    #[test]
    fn every_fill_is_new_and_could_have_been_drawn() {
        let all = drawn(Fresh::Each);
        let different: BTreeSet<&Vec<i32>> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        let known: BTreeSet<i32> = (0..2000).step_by(2).flat_map(|i| [-i, 100_000 - i]).collect();
        assert!(all.iter().flatten().all(|value| known.contains(value)));
    }

    #[test]
    fn what_is_distinct_stays_so_and_what_depends_on_each_other_stays_as_it_is() {
        for values in drawn(Fresh::Swapped) {
            assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), values.len());
            assert!(values != (0..1000).map(|i| -2 * i).collect::<Vec<_>>());
        }
        let sets: BTreeSet<Vec<i32>> = drawn(Fresh::Never).into_iter().collect();
        assert_eq!(sets.len(), 2);
    }

    #[test]
    fn bits_are_told_with_the_sign_that_the_driver_has() {
        assert_eq!(bits(Dtype::F16, &[0, 0, 0x00, 0xbc], 1), i64::from(0xbc00_u16 as i16));
        assert_eq!(bits(Dtype::U8, &[0xff], 0), 255);
        assert_eq!(bits(Dtype::U64, &[0xff; 8], 0), -1);
    }
}
