//! Inputs of a field as they were drawn, and what the operator's own kernels must make of them, once on the device: every
//! sitting copies them from there to where they lie in it, and compares them there. Through the host, both would take longer than a sitting's rounds. The last comparison of an original is
//! with what the host has.

use std::cell::{Ref, RefCell};
use std::ffi::c_void;
use std::sync::Arc;

use anyhow::{Result, ensure};
use cudarc::driver::sys::CUfunction;

use crate::cuda::{Buffer, Copies, Gpu, LoadedModule, cause};

const PTX: &str = include_str!("originals.ptx");
/// CTAs and threads that compare.
const GRID: [u32; 2] = [1024, 256];
/// Less than this is copied by the host.
const LEAST: usize = 1 << 20;

/// Bytes of the host, and a copy of them on the device.
struct Original {
    bytes: Arc<Vec<u8>>,
    buffer: Buffer,
}

pub struct Originals {
    differ: CUfunction,
    _module: LoadedModule,
    /// Bytes of the device that may be taken.
    room: u64,
    kept: RefCell<Vec<Original>>,
}

impl Originals {
    /// Takes a quarter of the device's memory at most.
    pub fn new(gpu: &Gpu) -> Result<Originals> {
        let module = LoadedModule::assembled(PTX)?;
        let room = gpu.device.memory_bytes / 4;
        Ok(Originals { differ: module.function("differ")?, _module: module, room, kept: RefCell::default() })
    }

    /// At the end of a field. What was copied and compared was the host's, or nothing that was timed counts.
    pub fn forget(&self) -> Result<()> {
        for Original { bytes, buffer } in self.kept.borrow_mut().drain(..) {
            let is_intact = buffer.read().map_err(cause)? == *bytes;
            ensure!(is_intact, "the original of an input was written while kernels were timed");
        }
        Ok(())
    }

    /// The copy of bytes that are worth one, made now if there is room.
    fn of(&self, bytes: &Arc<Vec<u8>>) -> Result<Option<Ref<'_, Original>>> {
        let find = || self.kept.borrow().iter().position(|original| Arc::ptr_eq(&original.bytes, bytes));
        if bytes.len() >= LEAST && find().is_none() {
            let mut kept = self.kept.borrow_mut();
            let taken: usize = kept.iter().map(|original| original.bytes.len()).sum();
            if (taken + bytes.len()) as u64 <= self.room {
                kept.push(Original { bytes: bytes.clone(), buffer: Buffer::holding(bytes)? });
            }
        }
        Ok(find().map(|at| Ref::map(self.kept.borrow(), |kept| &kept[at])))
    }
}

impl Copies for Originals {
    fn copy_of(&self, gpu: &Gpu, bytes: &Arc<Vec<u8>>) -> Result<Option<Buffer>> {
        let Some(original) = self.of(bytes)? else { return Ok(None) };
        let copy = Buffer::filled(bytes.len(), 0)?;
        copy.copy_from(gpu, &original.buffer).map_err(cause)?;
        Ok(Some(copy))
    }

    fn holds(&self, gpu: &Gpu, memory: &Buffer, bytes: &Arc<Vec<u8>>) -> Result<Option<bool>> {
        let Some(original) = self.of(bytes)? else { return Ok(None) };
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
