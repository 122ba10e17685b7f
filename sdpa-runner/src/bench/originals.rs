//! Inputs of a field as they were drawn, once on the device: every sitting copies them from there to where they lie in it, and
//! compares them there by their digest. Through the host, both would take longer than a sitting's rounds.

use std::cell::RefCell;
use std::collections::HashMap;

use anyhow::Result;

use crate::cuda::{Buffer, Copies, Gpu, cause};
use crate::digest::{Digester, of_bytes};

/// Less than this is copied by the host.
const LEAST: usize = 1 << 20;

/// Bytes of the host, by where they are there, which stays so until [`Originals::forget`].
type Place = (usize, usize);

pub struct Originals {
    digester: Digester,
    /// Bytes of the device that may be taken.
    room: u64,
    kept: RefCell<HashMap<Place, (Buffer, u64)>>,
}

impl Originals {
    /// Takes a quarter of the device's memory at most.
    pub fn new(gpu: &Gpu) -> Result<Originals> {
        let room = gpu.device.memory_bytes / 4;
        Ok(Originals { digester: Digester::new(gpu)?, room, kept: RefCell::default() })
    }

    /// Before the bytes of the host go.
    pub fn forget(&self) {
        self.kept.borrow_mut().clear();
    }

    fn has_room(&self, bytes: &[u8]) -> bool {
        let taken: usize = self.kept.borrow().values().map(|(buffer, _)| buffer.len()).sum();
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
            self.kept.borrow_mut().insert(place, (Buffer::holding(bytes)?, of_bytes(bytes)));
        }
        let copy = Buffer::filled(bytes.len(), 0)?;
        copy.copy_from(gpu, &self.kept.borrow()[&place].0).map_err(cause)?;
        Ok(Some(copy))
    }

    fn holds(&self, gpu: &Gpu, memory: &Buffer, bytes: &[u8]) -> Result<Option<bool>> {
        let Some(digest) = self.kept.borrow().get(&place_of(bytes)).map(|(_, digest)| *digest) else {
            return Ok(None);
        };
        let sums = Digester::room(1)?;
        self.digester.add(gpu, std::iter::once(memory), &sums, 0).map_err(cause)?;
        gpu.synchronize().map_err(cause)?;
        Ok(Some(Digester::read(&sums).map_err(cause)? == [digest]))
    }
}
