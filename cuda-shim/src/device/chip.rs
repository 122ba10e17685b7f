//! What the emulated chip says of itself, by its compute capability: limits as NVIDIA's programming guide has them.

/// Shared memory of a block in bytes that needs no asking.
pub const PLAIN_SHARED: usize = 48 << 10;
/// Threads of a block.
pub const MAX_THREADS: u32 = 1024;
/// Sizes of a block.
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Sizes of a grid.
pub const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// Its name.
pub const NAME: &str = "PTX emulator";
/// By what it is told from others.
pub const UUID: &[u8; 16] = b"PTX emulator no0";
/// Its place on a bus that is not there.
pub const BUS: &str = "0000:00:00.0";
/// Constant memory in bytes.
pub const CONSTANT_BYTES: usize = 64 << 10;
/// Registers of a block or multiprocessor.
pub const REGISTERS: u32 = 64 << 10;
/// Of a block's shared memory, what the system keeps in bytes.
pub const RESERVED_SHARED: usize = 1 << 10;
/// Clock in kHz, by which programs turn emulated time into other units.
pub const CLOCK_KHZ: u32 = 1_000_000;

/// Limits that differ between architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads of a multiprocessor.
    pub threads: u32,
    /// Blocks of a multiprocessor.
    pub blocks: u32,
    /// Shared memory of a multiprocessor in bytes.
    pub shared: usize,
}

impl Limits {
    /// Those of an architecture, as in 80.
    pub fn of(arch: u32) -> Limits {
        let (threads, blocks, shared) = match arch {
            ..75 => (2048, 32, 96 << 10),
            75..80 => (1024, 16, 64 << 10),
            80 => (2048, 32, 164 << 10),
            81..89 => (1536, 16, 100 << 10),
            89 => (1536, 24, 100 << 10),
            90..120 => (2048, 32, 228 << 10),
            120.. => (1536, 24, 100 << 10),
        };
        Limits { threads, blocks, shared }
    }

    /// Shared memory in bytes that a block gets when it asks.
    pub fn most_shared(self) -> usize {
        self.shared - RESERVED_SHARED
    }
}

/// Blocks of so many threads and so much shared memory in bytes that one multiprocessor holds. Registers, which PTX does not
/// say, are not counted.
pub fn resident_blocks(arch: u32, threads: u64, shared_bytes: usize) -> u32 {
    let limits = Limits::of(arch);
    if threads == 0 || threads > u64::from(MAX_THREADS) || shared_bytes > limits.most_shared() {
        return 0;
    }
    let warps = threads.div_ceil(32) as u32;
    let by_threads = limits.threads / 32 / warps;
    let by_shared = limits.shared / (shared_bytes + RESERVED_SHARED);
    by_threads.min(limits.blocks).min(by_shared as u32)
}

/// A limit as CUDA starts with it, in bytes: stack of a thread, buffer of printf, heap of malloc.
pub fn limit(number: i32) -> Option<usize> {
    [1 << 10, 1 << 20, 8 << 20].get(usize::try_from(number).ok()?).copied()
}

/// An attribute of a device by CUDA's number for it; 0 of what is not there.
pub fn attribute(number: i32, arch: u32, sm_count: u32) -> Option<i32> {
    /// Numbers that CUDA 13 has.
    const LAST: i32 = 148;
    let limits = Limits::of(arch);
    if !(1..=LAST).contains(&number) {
        return None;
    }
    let value = match number {
        1 => MAX_THREADS,
        2..=4 => MAX_BLOCK[(number - 2) as usize],
        5..=7 => MAX_GRID[(number - 5) as usize],
        8 => PLAIN_SHARED as u32,
        9 => CONSTANT_BYTES as u32,
        10 => 32,
        // The widest pitch of a copy.
        11 => i32::MAX as u32,
        12 | 82 => REGISTERS,
        13 | 36 => CLOCK_KHZ,
        // Alignment of textures and surfaces in bytes.
        14 | 30 => 512,
        51 => 32,
        16 => sm_count,
        // Copies beside kernels, mapped memory, several kernels, one address space, priorities, managed memory, registered
        // memory at its own address, cooperative launches, memory pools: all of it is in order here, and works.
        15 | 19 | 31 | 40 | 41 | 78 | 79 | 80 | 83 | 91 | 95 | 99 | 115 => 1,
        37 => 256,
        38 => 4 << 20,
        39 => limits.threads,
        75 => arch / 10,
        76 => arch % 10,
        81 => limits.shared as u32,
        87 => 2,
        97 => limits.most_shared() as u32,
        106 => limits.blocks,
        111 => RESERVED_SHARED as u32,
        120 => u32::from(arch >= 90),
        _ => 0,
    };
    Some(value as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_limited_by_threads_by_shared_memory_and_by_count() {
        assert_eq!(resident_blocks(80, 256, 0), 8);
        assert_eq!(resident_blocks(80, 32, 0), 32);
        assert_eq!(resident_blocks(89, 1024, 0), 1);
        assert_eq!(resident_blocks(80, 256, 48 << 10), 3);
        assert_eq!(resident_blocks(90, 128, 227 << 10), 1);
        assert_eq!(
            (resident_blocks(80, 0, 0), resident_blocks(80, 2048, 0), resident_blocks(80, 32, 1 << 20)),
            (0, 0, 0)
        );
    }
}
