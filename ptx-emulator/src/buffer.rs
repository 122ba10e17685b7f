//! The handle of a buffer or a module's variable.

/// Handle of a buffer: its address is what a kernel parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    address: u64,
    bytes: usize,
}

impl Buffer {
    pub(crate) fn new(address: u64, bytes: usize) -> Buffer {
        Buffer { address, bytes }
    }

    /// Device address of the first byte.
    pub fn address(self) -> u64 {
        self.address
    }

    /// Size in bytes.
    pub fn bytes(self) -> usize {
        self.bytes
    }
}
