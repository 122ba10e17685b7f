//! Copies and fills, in lines of lines of bytes: each end is the device's or the host's, as its address says.

use super::{COPY_NS, Device, invalid};
use crate::ffi::Place;
use crate::status::{Call, Status};

/// Bytes in lines that begin at a distance from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pitched {
    pub address: u64,
    /// From one line to the next, in bytes.
    pub pitch: u64,
    /// From one slice to the next, in bytes.
    pub slice: u64,
}

impl Pitched {
    /// Bytes without a gap.
    pub fn flat(address: u64) -> Pitched {
        Pitched { address, pitch: 0, slice: 0 }
    }

    fn line(self, y: u64, z: u64) -> u64 {
        self.address.wrapping_add(y * self.pitch).wrapping_add(z * self.slice)
    }
}

/// How much of it: bytes of a line, lines of a slice, slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Box3 {
    pub bytes: usize,
    pub lines: u64,
    pub slices: u64,
}

impl Box3 {
    /// Bytes without a gap.
    pub fn flat(bytes: usize) -> Box3 {
        Box3 { bytes, lines: 1, slices: 1 }
    }

    fn lines(self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.slices).flat_map(move |z| (0..self.lines).map(move |y| (y, z)))
    }
}

impl Device {
    /// Whether the bytes at an address are the device's alone.
    fn is_device(&self, address: u64) -> bool {
        self.region(address).is_none() && self.memory.locate(address).is_some()
    }

    /// Whether an address is none of the host's: the device's, or where the device's memory was or could be.
    fn is_devices_range(&self, address: u64) -> bool {
        /// Where buffers of the device lie; the host has nothing there.
        const BUFFERS: std::ops::Range<u64> = 0x7000_0000_0000..0x7b00_0000_0000;
        self.region(address).is_none() && (BUFFERS.contains(&address) || self.memory.locate(address).is_some())
    }

    /// Copies, whichever side each end is on. It waits for what was launched before.
    pub fn copy(&mut self, call: &str, from: Pitched, to: Pitched, amount: Box3) -> Call {
        self.flush();
        for (y, z) in amount.lines() {
            self.copy_line(call, from.line(y, z), to.line(y, z), amount.bytes)?;
        }
        self.clock_ns += COPY_NS + amount.bytes as u64 * amount.lines * amount.slices / 16;
        self.pending.take().map_or(Ok(()), Err)
    }

    fn copy_line(&mut self, call: &str, from: u64, to: u64, bytes: usize) -> Call {
        if bytes == 0 {
            return Ok(());
        }
        match (self.is_devices_range(from), self.is_devices_range(to)) {
            (false, false) => Place::at(to).write(&Place::at(from).read(bytes)?),
            (false, true) => {
                let content = Place::at(from).read(bytes)?;
                self.write(call, to, &content)
            }
            (true, false) => {
                let (buffer, start) = self.range(call, from, bytes)?;
                let undefined = self.memory.undefined(buffer, start..start + bytes).map_err(invalid)?;
                if let Some(first) = undefined.first() {
                    let count: usize = undefined.iter().map(|range| range.len()).sum();
                    let place = self.memory.describe(buffer.address() + first.start as u64);
                    let what = format!(
                        "{count} of {bytes} bytes that are copied to the host were never written, the \
                                        first at {place}"
                    );
                    self.misuse(call, &what);
                }
                Place::at(to).write(&self.memory.read_part(buffer, start, bytes).map_err(invalid)?)
            }
            (true, true) => {
                let (from, to) = (self.range(call, from, bytes)?, self.range(call, to, bytes)?);
                self.memory.copy(from, to, bytes).map_err(invalid)
            }
        }
    }

    fn write(&mut self, call: &str, to: u64, content: &[u8]) -> Call {
        let (buffer, start) = self.range(call, to, content.len())?;
        self.memory.write(buffer, start, content).map_err(invalid)
    }

    /// The buffer of a range on the device; one that leaves it is named.
    fn range(&mut self, call: &str, address: u64, bytes: usize) -> Call<(ptx_emulator::Buffer, usize)> {
        let found = self.memory.locate(address).filter(|(buffer, start)| bytes <= buffer.bytes() - start);
        found.ok_or_else(|| {
            let place = self.memory.describe(address);
            self.misuse(call, &format!("{bytes} bytes from {place} on are not all in one allocation"));
            Status::INVALID_VALUE
        })
    }

    /// Fills with a pattern of 1, 2 or 4 bytes.
    pub fn fill(&mut self, call: &str, to: Pitched, pattern: &[u8], amount: Box3) -> Call {
        let content: Vec<u8> = pattern.iter().copied().cycle().take(amount.bytes).collect();
        for (y, z) in amount.lines() {
            let line = to.line(y, z);
            match amount.bytes {
                0 => {}
                _ if self.region(line).is_some() => Place::at(line).write(&content)?,
                _ => self.write(call, line, &content)?,
            }
        }
        self.clock_ns += COPY_NS + amount.bytes as u64 * amount.lines * amount.slices / 16;
        Ok(())
    }

    /// Notes that an end of a copy is not where the call says.
    pub fn misplaced(&mut self, call: &str, end: &str, address: u64) {
        let place = self.memory.describe(address);
        self.misuse(call, &format!("the {end} is no memory of the device's: {place}"));
    }

    /// Whether an address is memory of the device's or of both.
    pub fn knows(&self, address: u64) -> bool {
        self.is_device(address) || self.region(address).is_some()
    }
}
