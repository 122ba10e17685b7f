//! Memory that host and device have at one address: managed, pinned, or registered. The host's bytes are its content
//! between launches; a launch begins with them, and leaves its own there.

use ptx_emulator::Buffer;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::sites::Site;
use super::{Device, Origin, invalid};
use crate::ffi::Place;
use crate::status::{Call, Status};

/// Where such memory begins: where neither the host's nor the device's own is.
const FIRST: u64 = 0x6000_0000_0000;
/// Where it ends.
const LAST: u64 = 0x6f00_0000_0000;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// How the program came by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Managed,
    Pinned,
    /// The program's own memory.
    Registered,
    /// A variable of a module.
    Variable,
}

/// A range that both have.
#[derive(Clone, Debug)]
pub struct Region {
    pub address: u64,
    pub bytes: usize,
    pub kind: Kind,
    buffer: Buffer,
}

/// Pages that hold a range.
fn pages(address: u64, bytes: usize) -> (u64, usize) {
    let first = address / PAGE * PAGE;
    let end = (address + bytes.max(1) as u64).next_multiple_of(PAGE);
    (first, (end - first) as usize)
}

/// Gets pages of the host's at an address.
fn map(address: u64, bytes: usize) -> Call {
    let (first, len) = pages(address, bytes);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE | MapFlags::NORESERVE;
    // SAFETY: nothing that is mapped already is replaced, by the flag.
    let mapped = unsafe { mmap_anonymous(first as *mut _, len, ProtFlags::READ | ProtFlags::WRITE, flags) };
    mapped.map(drop).map_err(|_| Status::OUT_OF_MEMORY)
}

fn unmap(address: u64, bytes: usize) {
    let (first, len) = pages(address, bytes);
    // SAFETY: the range is one that `map` mapped and nothing else was put into; the program gave it back.
    let _ = unsafe { munmap(first as *mut _, len) };
}

impl Device {
    /// Memory for both, zeroed.
    pub fn alloc_host(&mut self, call: &str, bytes: usize, kind: Kind) -> Call<u64> {
        if bytes > self.settings.memory_bytes {
            return Err(Status::OUT_OF_MEMORY);
        }
        let own = self.regions.iter().filter(|region| (FIRST..LAST).contains(&region.address));
        let after = own.map(|region| region.address + region.bytes as u64).max().unwrap_or(FIRST);
        // A page that nobody has lies between two of them.
        let address = (after + PAGE).next_multiple_of(PAGE);
        map(address, bytes)?;
        let label = self.label(call);
        let buffer = self.memory.alloc_at(&label, address, &vec![0; bytes]).map_err(invalid)?;
        self.origins.insert(address, Origin { label, bytes, site: Site::here() });
        self.regions.push(Region { address, bytes, kind, buffer });
        Ok(address)
    }

    /// Lets the device have memory of the program's.
    pub fn register(&mut self, address: u64, bytes: usize) -> Call {
        if address == 0 || bytes == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let label = self.label("registered");
        let content = Place::at(address).read(bytes)?;
        let buffer = self.memory.alloc_at(&label, address, &content).map_err(|_| Status::ALREADY_REGISTERED)?;
        self.origins.insert(address, Origin { label, bytes, site: Site::here() });
        self.regions.push(Region { address, bytes, kind: Kind::Registered, buffer });
        Ok(())
    }

    /// Gives a variable of a module to the host as well, at its address.
    pub fn share(&mut self, symbol: Buffer) -> Call {
        let (address, bytes) = (symbol.address(), symbol.bytes());
        map(address, bytes)?;
        Place::at(address).write(&self.memory.read(symbol).map_err(invalid)?)?;
        self.regions.push(Region { address, bytes, kind: Kind::Variable, buffer: symbol });
        Ok(())
    }

    /// Ends that both have it.
    pub fn drop_region(&mut self, address: u64) -> Call {
        let at = self.regions.iter().position(|region| region.address == address).ok_or(Status::INVALID_VALUE)?;
        let region = self.regions.remove(at);
        if region.kind != Kind::Variable {
            self.memory.free(region.buffer).map_err(invalid)?;
        }
        if region.kind != Kind::Registered {
            unmap(region.address, region.bytes);
        }
        Ok(())
    }

    /// The region that an address lies in.
    pub fn region(&self, address: u64) -> Option<&Region> {
        self.regions.iter().find(|region| address >= region.address && address - region.address < region.bytes as u64)
    }

    /// What the host wrote is there for the device.
    pub(super) fn take_over(&mut self) -> Call {
        for region in &self.regions {
            let content = Place::at(region.address).read(region.bytes)?;
            self.memory.write(region.buffer, 0, &content).map_err(invalid)?;
        }
        Ok(())
    }

    /// What the device wrote is there for the host.
    pub(super) fn hand_back(&mut self) -> Call {
        for region in &self.regions {
            Place::at(region.address).write(&self.memory.read(region.buffer).map_err(invalid)?)?;
        }
        Ok(())
    }
}
