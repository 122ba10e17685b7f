//! Inputs of a field as they were drawn, once on the device: every sitting copies them from there to where they lie in it, and
//! compares them there. Through the host, both would take longer than a sitting's rounds. The last comparison of an original is
//! with what the host has.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;

use anyhow::{Result, ensure};
use cudarc::driver::sys::CUfunction;

use crate::cuda::{Buffer, Copies, Gpu, LoadedModule, cause};
use crate::launch::sha256_hex;

const PTX: &str = include_str!("originals.ptx");
/// CTAs and threads that compare.
const GRID: [u32; 2] = [1024, 256];
/// Less than this is copied by the host.
const LEAST: usize = 1 << 20;

/// Bytes of the host, by where they are there, which stays so until [`Originals::forget`].
type Place = (usize, usize);

/// A copy on the device, and the SHA-256 of the bytes.
struct Original {
    buffer: Buffer,
    sha256: String,
}

pub struct Originals {
    differ: CUfunction,
    _module: LoadedModule,
    /// Bytes of the device that may be taken.
    room: u64,
    kept: RefCell<HashMap<Place, Original>>,
}

impl Originals {
    /// Takes a quarter of the device's memory at most.
    pub fn new(gpu: &Gpu) -> Result<Originals> {
        let module = LoadedModule::assembled(PTX)?;
        let room = gpu.device.memory_bytes / 4;
        Ok(Originals { differ: module.function("differ")?, _module: module, room, kept: RefCell::default() })
    }

    /// Before the bytes of the host go. What was copied and compared was theirs, or nothing that was timed counts.
    pub fn forget(&self) -> Result<()> {
        for (_, original) in self.kept.borrow_mut().drain() {
            let is_intact = sha256_hex(&original.buffer.read().map_err(cause)?) == original.sha256;
            ensure!(is_intact, "the original of an input was written while kernels were timed");
        }
        Ok(())
    }

    fn has_room(&self, bytes: &[u8]) -> bool {
        let taken: usize = self.kept.borrow().values().map(|original| original.buffer.len()).sum();
        (taken + bytes.len()) as u64 <= self.room
    }
}

fn place_of(bytes: &[u8]) -> Place {
    (bytes.as_ptr() as usize, bytes.len())
}

impl Copies for Originals {
    fn copy_of(&self, gpu: &Gpu, bytes: &[u8]) -> Result<Option<Buffer>> {
        let place = place_of(bytes);
        let is_kept = self.kept.borrow().contains_key(&place);
        if bytes.len() < LEAST || !(is_kept || self.has_room(bytes)) {
            return Ok(None);
        }
        if !is_kept {
            let original = Original { buffer: Buffer::holding(bytes)?, sha256: sha256_hex(bytes) };
            self.kept.borrow_mut().insert(place, original);
        }
        let copy = Buffer::filled(bytes.len(), 0)?;
        copy.copy_from(gpu, &self.kept.borrow()[&place].buffer).map_err(cause)?;
        Ok(Some(copy))
    }

    fn holds(&self, gpu: &Gpu, memory: &Buffer, bytes: &[u8]) -> Result<Option<bool>> {
        let kept = self.kept.borrow();
        let Some(original) = kept.get(&place_of(bytes)) else {
            return Ok(None);
        };
        let found = Buffer::filled(size_of::<u64>(), 0)?;
        let mut values = [memory.address(), original.buffer.address(), bytes.len() as u64, found.address()];
        let mut arguments = values.each_mut().map(|value| std::ptr::from_mut(value).cast::<c_void>());
        // SAFETY: four 64-bit parameters, as the kernel declares; the buffers live until the stream is synchronised.
        unsafe { gpu.launch(self.differ, GRID, &mut arguments) }.map_err(cause)?;
        gpu.synchronize().map_err(cause)?;
        Ok(Some(found.read().map_err(cause)?.iter().all(|byte| *byte == 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptx_emulator::{Launch, Memory, Module, run};

    /// Whether the kernel finds a difference.
    fn differ(a: &[u8], b: &[u8]) -> bool {
        let module = Module::parse(PTX).unwrap();
        let kernel = module.entry("differ").unwrap();
        let mut memory = Memory::new(&module);
        let [a_at, b_at] = [a, b].map(|bytes| memory.alloc_from("bytes", bytes).unwrap().address());
        let found = memory.alloc_from("found", &[0; 8]).unwrap();
        let parameters = [a_at, b_at, a.len() as u64, found.address()];
        let parameters = parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
        run(&kernel, &memory, &Launch::new([3, 1, 1], [32, 1, 1], parameters)).unwrap();
        memory.read(found).unwrap() != [0; 8]
    }

    #[test]
    fn a_difference_in_any_byte_is_found_and_none_where_there_is_none() {
        for len in [1, 7, 8, 9, 1000, 1003] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 251) as u8).collect();
            assert!(!differ(&bytes, &bytes), "{len} bytes");
            for at in [0, len / 2, len - 1] {
                let mut other = bytes.clone();
                other[at] ^= 1;
                assert!(differ(&bytes, &other), "{at} of {len} bytes");
            }
        }
    }
}
