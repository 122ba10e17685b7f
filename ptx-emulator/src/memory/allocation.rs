//! One mapped range of global memory: its words, and which of their bytes are defined.
//!
//! Words are relaxed atomics, so that blocks on several threads share them without `unsafe`.
//! 64-bit atomics take a lock, see [`Allocation::update64`]; a 64-bit load of another block's
//! value may see halves of two stores, as nothing but an atomic promises otherwise.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Bytes of a [`Piece`].
pub(crate) const PIECE_BYTES: u64 = 1 << 16;

/// What a part of an allocation held: its words, and which of their bytes were defined.
#[derive(Debug)]
pub(crate) struct Piece {
    words: Vec<u32>,
    defined: Vec<u32>,
}

/// The words of a piece, when one of them is for so many bytes.
fn piece_of(words: &[AtomicU32], at: u64, bytes: u64) -> &[AtomicU32] {
    let start = (at * PIECE_BYTES / bytes) as usize;
    let end = words.len().min(start + (PIECE_BYTES / bytes) as usize);
    words.get(start..end).unwrap_or_default()
}

/// One mapped range.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) name: String,
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    pub(crate) read_only: bool,
    words: Vec<AtomicU32>,
    /// One bit per byte that was written, or nothing when all of it is defined.
    defined: Vec<AtomicU32>,
    /// Serialises 64-bit accesses that must not tear.
    wide: Mutex<()>,
}

impl Allocation {
    pub(super) fn new(name: String, base: u64, bytes: usize, content: Option<&[u8]>, read_only: bool) -> Allocation {
        // Undefined memory reads as NaN in every float format and as -1.
        let words = match content {
            Some(content) => {
                let (words, rest) = content.as_chunks::<4>();
                let rest = (!rest.is_empty()).then(|| AtomicU32::new(word_of(rest)));
                words.iter().map(|bytes| AtomicU32::new(u32::from_le_bytes(*bytes))).chain(rest).collect()
            }
            None => (0..bytes.div_ceil(4)).map(|_| AtomicU32::new(u32::MAX)).collect(),
        };
        let defined = match content {
            Some(_) => Vec::new(),
            None => (0..bytes.div_ceil(32)).map(|_| AtomicU32::new(0)).collect(),
        };
        let wide = Mutex::new(());
        Allocation { name, base, bytes: bytes as u64, read_only, words, defined, wide }
    }

    /// Whether `address..address + size` lies inside.
    pub(crate) fn covers(&self, address: u64, size: u64) -> bool {
        address >= self.base && size <= self.bytes && address - self.base <= self.bytes - size
    }

    /// Reads 1, 2, 4 or 8 aligned bytes at a checked offset.
    #[inline(always)]
    pub(crate) fn load(&self, offset: u64, size: u32) -> u64 {
        let at = (offset / 4) as usize;
        let word = u64::from(self.words[at].load(Relaxed));
        match size {
            4 => word,
            8 => word | u64::from(self.words[at + 1].load(Relaxed)) << 32,
            _ => (word >> (8 * (offset & 3))) & ((1 << (8 * size)) - 1),
        }
    }

    /// Reads `N` words at a checked offset that is a multiple of 4.
    #[inline(always)]
    pub(crate) fn words<const N: usize>(&self, offset: u64) -> [u32; N] {
        let words = &self.words[(offset / 4) as usize..][..N];
        std::array::from_fn(|i| words[i].load(Relaxed))
    }

    /// The words of a checked range that begins and ends with a word.
    #[inline(always)]
    pub(crate) fn word_range(&self, offset: u64, bytes: u64) -> &[AtomicU32] {
        &self.words[(offset / 4) as usize..][..(bytes / 4) as usize]
    }

    /// Writes 1, 2, 4 or 8 aligned bytes at a checked offset.
    #[inline(always)]
    pub(crate) fn store(&self, offset: u64, size: u32, value: u64) {
        let at = (offset / 4) as usize;
        match size {
            4 => self.words[at].store(value as u32, Relaxed),
            8 => {
                self.words[at].store(value as u32, Relaxed);
                self.words[at + 1].store((value >> 32) as u32, Relaxed);
            }
            _ => {
                let shift = 8 * (offset & 3) as u32;
                let mask = ((1u32 << (8 * size)) - 1) << shift;
                let bits = ((value as u32) << shift) & mask;
                let merge = |old: u32| Some((old & !mask) | bits);
                // The closure always yields a value, so this cannot fail.
                let _ = self.words[at].fetch_update(Relaxed, Relaxed, merge);
            }
        }
    }

    /// Atomically replaces a 32-bit word and returns the old one.
    pub(crate) fn update32(&self, offset: u64, f: impl Fn(u32) -> u32) -> u32 {
        let word = &self.words[(offset / 4) as usize];
        let mut old = word.load(Relaxed);
        loop {
            match word.compare_exchange_weak(old, f(old), Relaxed, Relaxed) {
                Ok(_) => return old,
                Err(now) => old = now,
            }
        }
    }

    /// Atomically replaces a 64-bit value, against all other users of this lock.
    pub(crate) fn update64(&self, offset: u64, f: impl Fn(u64) -> u64) -> u64 {
        let _guard = self.wide.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.load(offset, 8);
        self.store(offset, 8, f(old));
        old
    }

    /// What a piece holds now.
    pub(crate) fn piece(&self, at: u64) -> Piece {
        let copy = |words: &[AtomicU32]| words.iter().map(|word| word.load(Relaxed)).collect();
        Piece { words: copy(piece_of(&self.words, at, 4)), defined: copy(piece_of(&self.defined, at, 32)) }
    }

    /// Makes a piece hold again what it held.
    pub(crate) fn put_back(&self, at: u64, piece: &Piece) {
        let set =
            |words: &[AtomicU32], old: &[u32]| words.iter().zip(old).for_each(|(word, old)| word.store(*old, Relaxed));
        set(piece_of(&self.words, at, 4), &piece.words);
        set(piece_of(&self.defined, at, 32), &piece.defined);
    }

    /// Marks bytes as defined.
    #[inline(always)]
    pub(crate) fn define(&self, offset: u64, size: u32) {
        if self.defined.is_empty() {
            return;
        }
        let bits = (((1u64 << size) - 1) << (offset % 32)) as u32;
        let word = &self.defined[(offset / 32) as usize];
        if word.load(Relaxed) & bits != bits {
            word.fetch_or(bits, Relaxed);
        }
    }

    /// Whether everything here was given by the host.
    #[inline(always)]
    pub(crate) fn is_all_defined(&self) -> bool {
        self.defined.is_empty()
    }

    /// Whether all bytes of an aligned access are defined.
    #[inline(always)]
    pub(crate) fn is_defined(&self, offset: u64, size: u32) -> bool {
        if self.defined.is_empty() {
            return true;
        }
        let bits = (((1u64 << size) - 1) << (offset % 32)) as u32;
        self.defined[(offset / 32) as usize].load(Relaxed) & bits == bits
    }

    /// Bytes of a checked range; undefined ones are as they were left.
    pub(super) fn read(&self, start: usize, len: usize) -> Vec<u8> {
        let words = &self.words[start / 4..(start + len).div_ceil(4)];
        let mut out: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        out.drain(..start % 4);
        out.truncate(len);
        out
    }

    /// Copies bytes to a checked range and marks them defined.
    pub(super) fn write(&self, start: usize, content: &[u8]) {
        let aligned = start.next_multiple_of(4).min(start + content.len());
        let (head, body) = content.split_at(aligned - start);
        let (words, tail) = body.as_chunks::<4>();
        for (word, bytes) in self.words[aligned / 4..].iter().zip(words) {
            word.store(u32::from_le_bytes(*bytes), Relaxed);
        }
        let rest = aligned + 4 * words.len();
        for (at, byte) in (start..).zip(head).chain((rest..).zip(tail)) {
            self.store(at as u64, 1, u64::from(*byte));
        }
        self.mark(start..start + content.len(), |word, bits| word | bits);
    }

    /// Marks a checked range as never written.
    pub(super) fn undefine(&self, range: Range<usize>) {
        self.mark(range, |word, bits| word & !bits);
    }

    /// Changes the bits of a range, up to 32 at a time.
    fn mark(&self, range: Range<usize>, change: impl Fn(u32, u32) -> u32) {
        if self.defined.is_empty() {
            return;
        }
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / 32 + 1) * 32);
            let bits = (u32::MAX >> (32 - (end - at))) << (at % 32);
            let word = &self.defined[at / 32];
            word.store(change(word.load(Relaxed), bits), Relaxed);
            at = end;
        }
    }

    /// Whether the content is this, which is as long.
    pub(super) fn holds(&self, content: &[u8]) -> bool {
        let (words, rest) = content.as_chunks::<4>();
        let same = |(word, bytes): (&AtomicU32, &[u8; 4])| word.load(Relaxed) == u32::from_le_bytes(*bytes);
        self.words.iter().zip(words).all(same) && self.read(4 * words.len(), rest.len()) == rest
    }

    /// The bytes of a range that were never written, as ranges from low to high.
    pub(super) fn undefined(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        if self.defined.is_empty() {
            return found;
        }
        let mut at = range.start;
        while at < range.end {
            if at.is_multiple_of(32) && self.defined[at / 32].load(Relaxed) == u32::MAX {
                at += 32;
                continue;
            }
            if !self.is_defined(at as u64, 1) {
                match found.last_mut() {
                    Some(last) if last.end == at => last.end = at + 1,
                    _ => found.push(at..at + 1),
                }
            }
            at += 1;
        }
        found
    }
}

/// Up to four bytes as a word, those that are missing undefined.
fn word_of(bytes: &[u8]) -> u32 {
    let mut word = [0xff; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}
