//! Which bytes of a call's tensors are read back: all of them, or places that are drawn when the call is over. Guard bands are
//! always among them. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::GUARD_BYTES;
use operators::Handed;
use stats::uniform_below;

/// Bytes of a piece, and pieces of a tensor: of what is larger than all of them together only so much is read.
const PIECE_BYTES: usize = 4096;
const PIECES: usize = 256;

/// Parts of tensors, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(BTreeMap<String, Part>);

/// Parts of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Bytes of the whole tensor.
    len: usize,
    /// In ascending order, without the guard bands.
    pieces: Vec<Range<usize>>,
}

impl Parts {
    /// All of what a call writes, or of every tensor.
    pub fn whole(tensors: &[Handed], with_inputs: bool) -> Parts {
        let wanted = tensors.iter().filter(|tensor| with_inputs || tensor.role.is_output());
        Parts(wanted.map(|tensor| (tensor.name.clone(), Part::whole(tensor.role.bytes()))).collect())
    }

    /// Some places of every tensor; all of a small one.
    pub fn draw(tensors: &[Handed], rng: &mut ChaCha8Rng) -> Parts {
        Parts(tensors.iter().map(|tensor| (tensor.name.clone(), Part::draw(tensor.role.bytes(), rng))).collect())
    }

    /// The same of what is written alone.
    pub fn written(&self, tensors: &[Handed]) -> Parts {
        let is_written = |name: &String| tensors.iter().any(|t| t.name == *name && t.role.is_output());
        Parts(
            self.0
                .iter()
                .filter(|(name, _)| is_written(name))
                .map(|(name, part)| (name.clone(), part.clone()))
                .collect(),
        )
    }

    pub(super) fn of(&self, tensor: &str) -> Option<&Part> {
        self.0.get(tensor)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Bytes of all of them, with guard bands.
    pub(super) fn bytes(&self) -> usize {
        self.0.values().map(|part| part.bytes() + 2 * GUARD_BYTES).sum()
    }

    /// As the driver is told of it: places in raw memory, which begins with a guard band.
    pub(super) fn told(&self) -> Value {
        let raw = |part: &Part| {
            let (first, last) = ([0, GUARD_BYTES], [GUARD_BYTES + part.len, 2 * GUARD_BYTES + part.len]);
            let pieces = part.pieces.iter().map(|piece| [GUARD_BYTES + piece.start, GUARD_BYTES + piece.end]);
            std::iter::once(first).chain(pieces).chain([last]).collect::<Vec<_>>()
        };
        json!(self.0.iter().map(|(name, part)| (name, raw(part))).collect::<BTreeMap<_, _>>())
    }
}

impl Part {
    fn whole(len: usize) -> Part {
        Part { len, pieces: std::iter::once(0..len).collect() }
    }

    fn draw(len: usize, rng: &mut ChaCha8Rng) -> Part {
        let places = len.div_ceil(PIECE_BYTES);
        if places <= PIECES {
            return Part::whole(len);
        }
        // One of each of so many equal stretches: no region is left out.
        let edge = |i: usize| i * places / PIECES;
        let mut piece = |i: usize| {
            let start = PIECE_BYTES * (edge(i) + uniform_below(rng, edge(i + 1) - edge(i)));
            start..(start + PIECE_BYTES).min(len)
        };
        Part { len, pieces: (0..PIECES).map(&mut piece).collect() }
    }

    fn bytes(&self) -> usize {
        self.pieces.iter().map(Range::len).sum()
    }

    /// The two guard bands and the data of what was read; nothing where that has another length.
    pub(super) fn split<'a>(&self, raw: &'a [u8]) -> Option<([&'a [u8]; 2], &'a [u8])> {
        let is_whole = raw.len() == self.bytes() + 2 * GUARD_BYTES;
        let (before, rest) = is_whole.then(|| raw.split_at(GUARD_BYTES))?;
        let (data, after) = rest.split_at(self.bytes());
        Some(([before, after], data))
    }

    /// Whether data is what should lie there.
    pub(super) fn matches(&self, data: &[u8], should: impl Fn(Range<usize>) -> Option<Vec<u8>>) -> bool {
        let mut left = data;
        self.pieces.iter().all(|piece| {
            let (own, rest) = left.split_at(piece.len());
            left = rest;
            should(piece.clone()).is_some_and(|should| own == should)
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn pieces_lie_everywhere_in_a_large_tensor_and_a_small_one_is_read_whole() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(Part::draw(PIECES * PIECE_BYTES, &mut rng), Part::whole(PIECES * PIECE_BYTES));
        assert_eq!(Part::draw(0, &mut rng), Part::whole(0));
        let len = 64 * PIECES * PIECE_BYTES + 17;
        let mut seen = vec![false; len.div_ceil(PIECE_BYTES)];
        for _ in 0..400 {
            let part = Part::draw(len, &mut rng);
            assert!(part.pieces.len() == PIECES && part.pieces.windows(2).all(|two| two[0].end <= two[1].start));
            assert!(part.pieces.last().unwrap().end <= len);
            part.pieces.iter().for_each(|piece| seen[piece.start / PIECE_BYTES] = true);
        }
        let unseen = seen.iter().filter(|seen| !**seen).count();
        assert!(unseen < seen.len() / 100, "{unseen} of {}", seen.len());
        assert!(seen[seen.len() - 1], "the last, short one too");
    }

    #[test]
    fn what_was_read_is_held_to_its_length_and_place() {
        let part = Part { len: 100, pieces: vec![0..4, 90..100] };
        let whole: Vec<u8> = (0..100).collect();
        let data = [&whole[0..4], &whole[90..100]].concat();
        let should = |piece: Range<usize>| Some(whole[piece].to_vec());
        assert!(part.matches(&data, should));
        assert!(!part.matches(&[&whole[0..4], &whole[89..99]].concat(), should));
        assert!(!part.matches(&data, |_| None));
        let raw = [vec![1; GUARD_BYTES], data.clone(), vec![2; GUARD_BYTES]].concat();
        let (guards, inner) = part.split(&raw).unwrap();
        assert!(guards[0].iter().all(|byte| *byte == 1) && guards[1].iter().all(|byte| *byte == 2) && inner == data);
        assert_eq!(part.split(&raw[1..]), None);
        let told = Parts([("y".to_owned(), part)].into()).told();
        let (from, last) = (GUARD_BYTES, GUARD_BYTES + 100);
        assert_eq!(told["y"], json!([[0, from], [from, from + 4], [from + 90, last], [last, last + GUARD_BYTES]]));
    }
}
