//! Global memory: buffers in one 64-bit window, apart from each other by red zones.
//!
//! Words are relaxed atomics, so that blocks on several threads share them without `unsafe`.
//! 64-bit atomics take a lock, see [`Allocation::update64`]; a 64-bit load of another block's
//! value may see halves of two stores, as nothing but an atomic promises otherwise.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::module::Module;

/// Where the driver of a cooperative launch would put the counter of `grid.sync()`. Every launch
/// counts as cooperative here; blocks beyond the resident limit then make no progress.
pub(crate) const GRID_WORKSPACE: u64 = 0x0008_0000_0000;
/// First address of buffers.
const BUFFER_BASE: u64 = 0x7000_0000_0000;
/// Unmapped bytes between two buffers.
const RED_ZONE_BYTES: u64 = 1 << 20;
/// Alignment of buffers, that of the CUDA allocator.
const BUFFER_ALIGN: u64 = 256;
/// Largest buffer in bytes; keeps a wrong size from exhausting the host.
const MAX_BUFFER_BYTES: usize = 1 << 36;

/// A request that memory cannot satisfy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The buffer is larger than the emulator accepts.
    #[error("failed to allocate `{name}`: {bytes} bytes exceed the limit")]
    TooLarge {
        /// Name given to the buffer.
        name: String,
        /// Requested size in bytes.
        bytes: usize,
    },
    /// The range does not lie inside the buffer.
    #[error("failed to access `{name}`: bytes {start}..{end} of {size}")]
    OutOfRange {
        /// Name of the buffer.
        name: String,
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
        /// Size of the buffer in bytes.
        size: usize,
    },
    /// The handle belongs to another [`Memory`].
    #[error("failed to find the buffer at 0x{address:x}")]
    UnknownBuffer {
        /// Address of the handle.
        address: u64,
    },
}

/// Handle of a buffer: its address is what a kernel parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    address: u64,
    bytes: usize,
}

impl Buffer {
    /// Device address of the first byte.
    pub fn address(self) -> u64 {
        self.address
    }

    /// Size in bytes.
    pub fn bytes(self) -> usize {
        self.bytes
    }
}

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
    fn new(name: String, base: u64, bytes: usize, content: Option<&[u8]>, read_only: bool) -> Allocation {
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
}

/// Up to four bytes as a word, those that are missing undefined.
fn word_of(bytes: &[u8]) -> u32 {
    let mut word = [0xff; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

/// Global and constant memory of one device: module variables and buffers.
#[derive(Debug)]
pub struct Memory {
    /// Sorted by base address.
    allocations: Vec<Allocation>,
    next: u64,
}

impl Memory {
    /// Memory that holds the initialised variables of `module` and nothing else.
    pub fn new(module: &Module) -> Memory {
        let mut allocations: Vec<Allocation> = module
            .images()
            .iter()
            .map(|image| {
                let (name, content) = (image.name.clone(), Some(image.bytes.as_slice()));
                Allocation::new(name, image.address, image.bytes.len(), content, image.constant)
            })
            .collect();
        let workspace = Some([0u8; 16].as_slice());
        allocations.push(Allocation::new("grid workspace".to_owned(), GRID_WORKSPACE, 16, workspace, false));
        allocations.sort_by_key(|a| a.base);
        Memory { allocations, next: BUFFER_BASE }
    }

    /// A buffer of `bytes` undefined bytes; reading them before writing is reported.
    pub fn alloc(&mut self, name: &str, bytes: usize) -> Result<Buffer, MemoryError> {
        self.add(name, bytes, None)
    }

    /// A buffer that holds a copy of `content`.
    pub fn alloc_from(&mut self, name: &str, content: &[u8]) -> Result<Buffer, MemoryError> {
        self.add(name, content.len(), Some(content))
    }

    fn add(&mut self, name: &str, bytes: usize, content: Option<&[u8]>) -> Result<Buffer, MemoryError> {
        if bytes > MAX_BUFFER_BYTES {
            return Err(MemoryError::TooLarge { name: name.to_owned(), bytes });
        }
        let address = self.next;
        self.next = (address + bytes as u64 + RED_ZONE_BYTES).next_multiple_of(BUFFER_ALIGN);
        self.allocations.push(Allocation::new(name.to_owned(), address, bytes, content, false));
        Ok(Buffer { address, bytes })
    }

    /// Handle of a module variable, to read or set it from the host.
    pub fn symbol(&self, name: &str) -> Option<Buffer> {
        let found = self.allocations.iter().find(|a| a.base < BUFFER_BASE && a.name == name)?;
        Some(Buffer { address: found.base, bytes: found.bytes as usize })
    }

    fn checked(&self, buffer: Buffer, start: usize, len: usize) -> Result<&Allocation, MemoryError> {
        let unknown = MemoryError::UnknownBuffer { address: buffer.address };
        let Some(found) = self.find(buffer.address, 1) else {
            let empty = self.allocations.iter().find(|a| a.base == buffer.address && a.bytes == 0);
            return empty.filter(|_| start == 0 && len == 0).ok_or(unknown);
        };
        if start.checked_add(len).is_none_or(|end| end as u64 > found.bytes) {
            return Err(MemoryError::OutOfRange {
                name: found.name.clone(),
                start,
                end: start.saturating_add(len),
                size: found.bytes as usize,
            });
        }
        Ok(found)
    }

    /// Copies `content` to byte `start` of the buffer and marks it defined.
    pub fn write(&mut self, buffer: Buffer, start: usize, content: &[u8]) -> Result<(), MemoryError> {
        let allocation = self.checked(buffer, start, content.len())?;
        for (i, &byte) in content.iter().enumerate() {
            let offset = (start + i) as u64;
            allocation.store(offset, 1, u64::from(byte));
            allocation.define(offset, 1);
        }
        Ok(())
    }

    /// All bytes of the buffer; undefined ones read as a pattern that begins anew every four bytes.
    pub fn read_over(&self, buffer: Buffer, pattern: [u8; 4]) -> Result<Vec<u8>, MemoryError> {
        let mut out = self.read(buffer)?;
        let allocation = self.checked(buffer, 0, buffer.bytes)?;
        if !allocation.defined.is_empty() {
            for (at, byte) in out.iter_mut().enumerate() {
                if !allocation.is_defined(at as u64, 1) {
                    *byte = pattern[at % 4];
                }
            }
        }
        Ok(out)
    }

    /// All bytes of the buffer; undefined ones read as 0xFF.
    pub fn read(&self, buffer: Buffer) -> Result<Vec<u8>, MemoryError> {
        let allocation = self.checked(buffer, 0, buffer.bytes)?;
        let mut out = vec![0; buffer.bytes.next_multiple_of(4)];
        for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(&allocation.words) {
            *bytes = word.load(Relaxed).to_le_bytes();
        }
        out.truncate(buffer.bytes);
        Ok(out)
    }

    /// Part of a buffer's content.
    pub fn read_part(&self, buffer: Buffer, start: usize, len: usize) -> Result<Vec<u8>, MemoryError> {
        let allocation = self.checked(buffer, start, len)?;
        let words = &allocation.words[start / 4..(start + len).div_ceil(4)];
        let mut out: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        out.drain(..start % 4);
        out.truncate(len);
        Ok(out)
    }

    /// Whether a buffer's content is this.
    pub fn holds(&self, buffer: Buffer, content: &[u8]) -> Result<bool, MemoryError> {
        let allocation = self.checked(buffer, 0, buffer.bytes)?;
        if content.len() != buffer.bytes {
            return Ok(false);
        }
        let (words, rest) = content.as_chunks::<4>();
        let same = |(word, bytes): (&AtomicU32, &[u8; 4])| word.load(Relaxed) == u32::from_le_bytes(*bytes);
        let tail = self.read_part(buffer, words.len() * 4, rest.len())?;
        Ok(allocation.words.iter().zip(words).all(same) && tail == rest)
    }

    /// The buffer as f32 values; a trailing partial value is dropped.
    pub fn read_f32(&self, buffer: Buffer) -> Result<Vec<f32>, MemoryError> {
        let allocation = self.checked(buffer, 0, buffer.bytes)?;
        let values = allocation.words.iter().map(|w| f32::from_bits(w.load(Relaxed)));
        Ok(values.take(buffer.bytes / 4).collect())
    }

    /// Number of bytes that were never written.
    pub fn undefined_bytes(&self, buffer: Buffer) -> Result<usize, MemoryError> {
        let allocation = self.checked(buffer, 0, buffer.bytes)?;
        Ok((0..allocation.bytes).filter(|&at| !allocation.is_defined(at, 1)).count())
    }

    /// The allocation that contains the whole access.
    pub(crate) fn find(&self, address: u64, size: u64) -> Option<&Allocation> {
        let index = self.index_of(address, size)?;
        Some(&self.allocations[index])
    }

    /// Index of the allocation that contains the whole access.
    pub(crate) fn index_of(&self, address: u64, size: u64) -> Option<usize> {
        let after = self.allocations.partition_point(|a| a.base <= address);
        let index = after.checked_sub(1)?;
        self.allocations[index].covers(address, size).then_some(index)
    }

    /// As [`Memory::index_of`], with a guess.
    #[inline(always)]
    pub(crate) fn index_near(&self, guess: usize, address: u64, size: u64) -> Option<usize> {
        match self.allocations.get(guess) {
            Some(allocation) if allocation.covers(address, size) => Some(guess),
            _ => self.index_of(address, size),
        }
    }

    /// Allocation by index.
    pub(crate) fn at(&self, index: usize) -> &Allocation {
        &self.allocations[index]
    }

    /// Number of allocations.
    pub(crate) fn count(&self) -> usize {
        self.allocations.len()
    }

    /// The allocation nearest below an address, for reports of accesses past its end.
    pub(crate) fn nearest(&self, address: u64) -> Option<&Allocation> {
        let after = self.allocations.partition_point(|a| a.base <= address);
        let below = after.checked_sub(1).map(|i| &self.allocations[i]);
        let above = self.allocations.get(after);
        match (below, above) {
            (Some(b), Some(a)) if a.base - address < address - (b.base + b.bytes).min(address) => Some(a),
            (Some(b), _) => Some(b),
            (None, above) => above,
        }
    }
}
