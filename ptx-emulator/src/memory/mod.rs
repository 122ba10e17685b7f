//! Global memory of a device: module variables and buffers in one 64-bit window, apart from each other by red zones.
//!
//! No address is given twice, so that whoever uses memory that was freed is told so by name.

mod allocation;

use std::ops::Range;

use crate::buffer::Buffer;
use crate::isa::space::SYMBOL_BASE;
use crate::module::Module;
use crate::parse::ParseError;

pub(crate) use allocation::{Allocation, PIECE_BYTES, Piece};

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
/// Unmapped bytes between the variables of two modules.
const MODULE_GAP: u64 = 1 << 16;

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
    /// Nothing is there: the handle belongs to another [`Memory`], or its buffer was freed.
    #[error("failed to find the buffer at {place}")]
    UnknownBuffer {
        /// The address, and what is or was near it.
        place: String,
    },
    /// Something else is there.
    #[error("failed to map `{name}` at 0x{address:x}: `{other}` is there")]
    Taken {
        /// Name given to the buffer.
        name: String,
        /// Address asked for.
        address: u64,
        /// What is there.
        other: String,
    },
}

/// A buffer that is no more.
#[derive(Debug)]
struct Freed {
    base: u64,
    bytes: u64,
    name: String,
}

/// Global and constant memory of one device: the variables of its modules, and buffers.
#[derive(Debug)]
pub struct Memory {
    /// Sorted by base address.
    allocations: Vec<Allocation>,
    /// Sorted by base address.
    freed: Vec<Freed>,
    /// Where the next buffer begins.
    next: u64,
    /// Where the variables of the next module begin.
    next_module: u64,
}

impl Default for Memory {
    /// A device without a module.
    fn default() -> Memory {
        let workspace = Some([0u8; 16].as_slice());
        let workspace = Allocation::new("grid workspace".to_owned(), GRID_WORKSPACE, 16, workspace, false);
        Memory { allocations: vec![workspace], freed: Vec::new(), next: BUFFER_BASE, next_module: SYMBOL_BASE }
    }
}

impl Memory {
    /// Memory that holds the initialised variables of `module` and nothing else.
    pub fn new(module: &Module) -> Memory {
        let mut memory = Memory::default();
        memory.place(module);
        memory
    }

    /// Parses a module, and places its variables beside those of the modules that are here.
    pub fn load(&mut self, source: &str) -> Result<Module, ParseError> {
        let module = Module::parse_at(source, self.next_module)?;
        self.place(&module);
        Ok(module)
    }

    fn place(&mut self, module: &Module) {
        for image in module.images() {
            let (name, content) = (image.name.clone(), Some(image.bytes.as_slice()));
            self.insert(Allocation::new(name, image.address, image.bytes.len(), content, image.constant));
            let end = image.address + image.bytes.len() as u64;
            self.next_module = self.next_module.max((end + MODULE_GAP).next_multiple_of(MODULE_GAP));
        }
    }

    /// Takes the variables of a module away.
    pub fn unload(&mut self, module: &Module) {
        for image in module.images() {
            self.allocations.retain(|allocation| allocation.base != image.address);
        }
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
        self.insert(Allocation::new(name.to_owned(), address, bytes, content, false));
        Ok(Buffer::new(address, bytes))
    }

    /// A buffer at a chosen address, that of memory which the host has there as well.
    pub fn alloc_at(&mut self, name: &str, address: u64, content: &[u8]) -> Result<Buffer, MemoryError> {
        let end = address.saturating_add(content.len() as u64);
        if let Some(other) = self.allocations.iter().find(|a| a.base < end && address < a.base + a.bytes) {
            return Err(MemoryError::Taken { name: name.to_owned(), address, other: other.name.clone() });
        }
        self.insert(Allocation::new(name.to_owned(), address, content.len(), Some(content), false));
        Ok(Buffer::new(address, content.len()))
    }

    fn insert(&mut self, allocation: Allocation) {
        let at = self.allocations.partition_point(|a| a.base <= allocation.base);
        self.allocations.insert(at, allocation);
    }

    /// Gives a buffer back. Its address is never given again; whoever still uses it is told so.
    pub fn free(&mut self, buffer: Buffer) -> Result<(), MemoryError> {
        let unknown = || MemoryError::UnknownBuffer { place: self.describe(buffer.address()) };
        let at = self.allocations.iter().position(|a| a.base == buffer.address()).ok_or_else(unknown)?;
        let Allocation { name, base, bytes, .. } = self.allocations.remove(at);
        let at = self.freed.partition_point(|freed| freed.base <= base);
        self.freed.insert(at, Freed { base, bytes, name });
        Ok(())
    }

    /// The buffer or variable that an address lies in, and how many bytes behind its beginning. What is right behind the
    /// last byte is not in it.
    pub fn locate(&self, address: u64) -> Option<(Buffer, usize)> {
        let found = self.find(address, 1).or_else(|| self.allocations.iter().find(|a| a.base == address))?;
        Some((Buffer::new(found.base, found.bytes as usize), (address - found.base) as usize))
    }

    fn checked(&self, buffer: Buffer, start: usize, len: usize) -> Result<&Allocation, MemoryError> {
        let unknown = || MemoryError::UnknownBuffer { place: self.describe(buffer.address()) };
        let Some(found) = self.find(buffer.address(), 1) else {
            let empty = self.allocations.iter().find(|a| a.base == buffer.address() && a.bytes == 0);
            return empty.filter(|_| start == 0 && len == 0).ok_or_else(unknown);
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
        self.checked(buffer, start, content.len())?.write(start, content);
        Ok(())
    }

    /// Copies bytes from one place to another, which may overlap; what is undefined there is undefined here.
    pub fn copy(&mut self, from: (Buffer, usize), to: (Buffer, usize), len: usize) -> Result<(), MemoryError> {
        let content = self.read_part(from.0, from.1, len)?;
        let undefined = self.undefined(from.0, from.1..from.1 + len)?;
        self.write(to.0, to.1, &content)?;
        let target = self.checked(to.0, to.1, len)?;
        for range in undefined {
            target.undefine(to.1 + range.start - from.1..to.1 + range.end - from.1);
        }
        Ok(())
    }

    /// All bytes of the buffer; undefined ones read as a pattern that begins anew every four bytes.
    pub fn read_over(&self, buffer: Buffer, pattern: [u8; 4]) -> Result<Vec<u8>, MemoryError> {
        let mut out = self.read(buffer)?;
        for range in self.undefined(buffer, 0..buffer.bytes())? {
            range.for_each(|at| out[at] = pattern[at % 4]);
        }
        Ok(out)
    }

    /// All bytes of the buffer; undefined ones read as 0xFF.
    pub fn read(&self, buffer: Buffer) -> Result<Vec<u8>, MemoryError> {
        self.read_part(buffer, 0, buffer.bytes())
    }

    /// Part of a buffer's content.
    pub fn read_part(&self, buffer: Buffer, start: usize, len: usize) -> Result<Vec<u8>, MemoryError> {
        Ok(self.checked(buffer, start, len)?.read(start, len))
    }

    /// Whether a buffer's content is this.
    pub fn holds(&self, buffer: Buffer, content: &[u8]) -> Result<bool, MemoryError> {
        let allocation = self.checked(buffer, 0, buffer.bytes())?;
        Ok(content.len() == buffer.bytes() && allocation.holds(content))
    }

    /// The buffer as f32 values; a trailing partial value is dropped.
    pub fn read_f32(&self, buffer: Buffer) -> Result<Vec<f32>, MemoryError> {
        let bytes = self.read(buffer)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// The bytes of a part of the buffer that were never written, as ranges from low to high.
    pub fn undefined(&self, buffer: Buffer, part: Range<usize>) -> Result<Vec<Range<usize>>, MemoryError> {
        Ok(self.checked(buffer, part.start, part.len())?.undefined(part))
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

    /// An address in words: the buffer that it lies in, lay in before that was freed, or is nearest to.
    pub fn describe(&self, address: u64) -> String {
        let is_in = |base: u64, bytes: u64| address >= base && address - base < bytes;
        let after = self.freed.partition_point(|freed| freed.base <= address);
        let freed = after.checked_sub(1).map(|i| &self.freed[i]).filter(|freed| is_in(freed.base, freed.bytes));
        if let Some(freed) = freed {
            return format!("{} + 0x{:x} of {} bytes, which was freed", freed.name, address - freed.base, freed.bytes);
        }
        match self.nearest(address) {
            Some(a) if is_in(a.base, a.bytes) => {
                format!("{} + 0x{:x} of {} bytes", a.name, address - a.base, a.bytes)
            }
            Some(a) if address >= a.base => {
                let past = address - a.base - a.bytes;
                format!("{} + 0x{:x}, {past} bytes past a {}-byte buffer", a.name, address - a.base, a.bytes)
            }
            Some(a) => format!("0x{address:x}, {} bytes before {}", a.base - address, a.name),
            None => format!("0x{address:x}"),
        }
    }

    /// The allocation nearest to an address.
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
