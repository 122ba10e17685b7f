//! Digests of outputs, taken where they lie: reading back every output of every timed block would take longer than the
//! blocks. A digest is compared with that of bytes that were verified on the host; two outputs that differ have the same
//! digest with a probability of 2^-64.

use std::ffi::c_void;

use anyhow::{Context, Result, ensure};
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUfunction;

use crate::cuda::{Buffer, GUARD, Gpu, LoadedModule, cause};

const PTX: &str = include_str!("digest.ptx");
/// Threads of a CTA.
const THREADS: u32 = 512;
/// CTAs of a multiprocessor.
const CTAS: u32 = 4;
/// Bytes that are mixed together.
const WORD: usize = 8;

pub struct Digester {
    function: CUfunction,
    grid: u32,
    _module: LoadedModule,
}

impl Digester {
    pub fn new(gpu: &Gpu) -> Result<Digester> {
        let module = LoadedModule::assembled(PTX)?;
        Ok(Digester { function: module.function("digest")?, grid: CTAS * gpu.device.sm_count, _module: module })
    }

    /// Room for so many digests, all zero.
    pub fn room(count: usize) -> Result<Buffer> {
        Buffer::filled(count * WORD, 0)
    }

    /// Adds the digests of buffers to as many slots of `sums` from `slot` on, in the order of the stream.
    pub fn add<'b>(
        &self,
        gpu: &Gpu,
        buffers: impl Iterator<Item = &'b Buffer>,
        sums: &Buffer,
        slot: usize,
    ) -> Result<(), DriverError> {
        for (slot, data) in (slot..).zip(buffers) {
            // A last word that is cut short has the band's first bytes behind it.
            let words = data.len().div_ceil(WORD) as u64;
            let mut values = [data.address(), words, sums.address() + (slot * WORD) as u64];
            let mut arguments = values.each_mut().map(|value| std::ptr::from_mut(value).cast::<c_void>());
            // SAFETY: three 64-bit parameters, as the kernel declares; the buffers live until the stream is synchronised.
            unsafe { gpu.launch(self.function, [self.grid, THREADS], &mut arguments) }?;
        }
        Ok(())
    }

    /// The digests in a room. Synchronise first.
    pub fn read(sums: &Buffer) -> Result<Vec<u64>, DriverError> {
        Ok(sums.read()?.as_chunks::<WORD>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    }

    /// The digests of verified bytes, which lie one behind the other in `bytes`, once the device has given the same for the
    /// buffers that they were read from.
    pub fn verified(&self, gpu: &Gpu, buffers: &[&Buffer], bytes: &[u8]) -> Result<Vec<u64>> {
        let sums = Digester::room(buffers.len())?;
        self.add(gpu, buffers.iter().copied(), &sums, 0).map_err(cause)?;
        gpu.synchronize().map_err(cause)?;
        let mut left = bytes;
        let mut wanted = Vec::new();
        for buffer in buffers {
            let (own, rest) = left.split_at_checked(buffer.len()).context("fewer bytes than the outputs have")?;
            wanted.push(of_bytes(own));
            left = rest;
        }
        ensure!(
            Digester::read(&sums).map_err(cause)? == wanted,
            "the device's digest of an output is not that of its bytes"
        );
        Ok(wanted)
    }
}

/// The same digest on the host; a last word that is cut short is filled up with the bytes of the band.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    let (whole, rest) = bytes.as_chunks::<WORD>();
    let last = (!rest.is_empty()).then(|| std::array::from_fn(|i| rest.get(i).copied().unwrap_or(GUARD)));
    let mixed = whole.iter().copied().chain(last).zip(1u64..).map(|(word, place)| {
        let mut x = u64::from_le_bytes(word) ^ place.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ x >> 31
    });
    mixed.fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptx_emulator::{Launch, Memory, Module, run};

    /// Of the kernel, in the emulator.
    fn emulated(bytes: &[u8]) -> u64 {
        let module = Module::parse(PTX).unwrap();
        let kernel = module.entry("digest").unwrap();
        let mut memory = Memory::new(&module);
        let data = memory.alloc_from("data", bytes).unwrap();
        let sum = memory.alloc_from("sum", &[0; WORD]).unwrap();
        let parameters = [data.address(), (bytes.len() / WORD) as u64, sum.address()];
        let parameters = parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
        run(&kernel, &memory, &Launch::new([3, 1, 1], [64, 1, 1], parameters)).unwrap();
        u64::from_le_bytes(memory.read(sum).unwrap().try_into().unwrap())
    }

    #[test]
    fn the_kernel_gives_the_digest_of_its_twin() {
        for words in [1, 7, 64, 1000] {
            let bytes: Vec<u8> = (0..words * WORD).map(|i| (i * 37 % 251) as u8).collect();
            assert_eq!(emulated(&bytes), of_bytes(&bytes), "{words} words");
        }
    }

    #[test]
    fn bytes_behind_the_last_whole_word_count() {
        assert_ne!(of_bytes(&[1; 9]), of_bytes(&[1; 10]));
        assert_ne!(of_bytes(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), of_bytes(&[1, 2, 3, 4, 5, 6, 7, 8, 10]));
        let whole = [1, 2, 3, GUARD, GUARD, GUARD, GUARD, GUARD];
        assert_eq!(of_bytes(&whole[..3]), of_bytes(&whole));
    }

    #[test]
    fn a_flipped_bit_a_swap_and_poison_all_change_the_digest() {
        let bytes: Vec<u8> = (0..4096u32).map(|i| (i * 37 % 251) as u8).collect();
        let digest = of_bytes(&bytes);
        for bit in [0, 77, 4096 * 8 - 1] {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of_bytes(&other), digest, "bit {bit}");
        }
        let mut swapped = bytes.clone();
        swapped[..2 * WORD].rotate_left(WORD);
        assert_ne!(of_bytes(&swapped), digest);
        assert_ne!(of_bytes(&[0xff; 4096]), of_bytes(&[0; 4096]));
        assert_ne!(of_bytes(&[0; 4096]), of_bytes(&[0; 4088]), "zeroes count too");
    }
}
