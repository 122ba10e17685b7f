//! Fat binaries, the containers in which nvcc puts device code into a program: finds the PTX in one.
//! The format is not documented by NVIDIA; what is read here is what public tools agree on and nvcc 13.0 writes.

use std::io::Read;

use crate::lz4;

/// First word of the structure that a program registers, which points to a container.
const WRAPPER_MAGIC: u32 = 0x466243b1;
/// First word of a container.
const CONTAINER_MAGIC: u32 = 0xba55ed50;
/// Bytes of a container before its first entry.
const CONTAINER_HEADER: usize = 16;
/// Bytes of an entry's header that are read here.
const ENTRY_HEADER: usize = 64;
/// The kind of an entry that is PTX.
const KIND_PTX: u16 = 1;
/// Flag of an entry compressed as one block of LZ4.
const LZ4: u64 = 0x2000;
/// Flag of an entry compressed as a frame of Zstandard.
const ZSTD: u64 = 0x8000;
/// Largest text that an entry may unpack to.
const MAX_BYTES: usize = 1 << 30;

/// PTX of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ptx {
    /// The architecture that it was compiled for, as in `sm_80`.
    pub arch: u32,
    pub text: String,
}

/// Why there is no PTX to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no container, or ends early.
    Damaged(&'static str),
    /// Only machine code for these architectures.
    MachineCode(Vec<u32>),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Whether memory begins as the structure does that a program registers.
pub fn is_wrapper(first_word: u32) -> bool {
    first_word == WRAPPER_MAGIC
}

/// Whether memory begins as a container does.
pub fn is_container(first_word: u32) -> bool {
    first_word == CONTAINER_MAGIC
}

/// Bytes of the whole container, from its first ones; nothing where they are those of something else.
pub fn container_bytes(header: &[u8]) -> Option<usize> {
    let entries = usize::try_from(u64_at(header, 8)?).ok()?;
    (u32_at(header, 0)? == CONTAINER_MAGIC).then(|| CONTAINER_HEADER + entries)
}

/// The PTX for the newest architecture in a container.
pub fn newest_ptx(container: &[u8]) -> Result<Ptx, Refusal> {
    let damaged = Refusal::Damaged("a fat binary ends in the middle of an entry");
    let end = container_bytes(container).ok_or(Refusal::Damaged("this is no fat binary"))?;
    let container = container.get(..end).ok_or(damaged.clone())?;
    let (mut newest, mut others) = (None, Vec::new());
    let mut at = CONTAINER_HEADER;
    while at < container.len() {
        let entry = &container[at..];
        let fields = || {
            let header = u32_at(entry, 4)? as usize;
            let size = usize::try_from(u64_at(entry, 8)?).ok()?;
            Some((u16_at(entry, 0)?, header, size, u32_at(entry, 28)?))
        };
        let (kind, header, size, arch) = fields().ok_or(damaged.clone())?;
        let end = header.checked_add(size).filter(|end| header >= ENTRY_HEADER && *end <= entry.len());
        let end = end.ok_or(damaged.clone())?;
        match kind {
            KIND_PTX if newest.is_none_or(|(known, _)| known < arch) => newest = Some((arch, &entry[..end])),
            KIND_PTX => {}
            _ => others.push(arch),
        }
        at += end;
    }
    let (arch, entry) = newest.ok_or(Refusal::MachineCode(others))?;
    Ok(Ptx { arch, text: unpacked(entry)? })
}

/// The text of an entry, which is all there.
fn unpacked(entry: &[u8]) -> Result<String, Refusal> {
    let damaged = || Refusal::Damaged("the PTX in a fat binary does not unpack");
    let fields = || Some((u32_at(entry, 4)?, u32_at(entry, 16)?, u64_at(entry, 40)?, u64_at(entry, 56)?));
    let (header, packed, flags, bytes) = fields().ok_or_else(damaged)?;
    let data = entry.get(header as usize..).ok_or_else(damaged)?;
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_BYTES).ok_or_else(damaged)?;
    let packed = || data.get(..packed as usize).ok_or_else(damaged);
    let mut text = if flags & ZSTD != 0 {
        let mut text = Vec::with_capacity(bytes);
        let decoder = ruzstd::decoding::StreamingDecoder::new(packed()?).map_err(|_| damaged())?;
        decoder.take(MAX_BYTES as u64).read_to_end(&mut text).map_err(|_| damaged())?;
        text
    } else if flags & LZ4 != 0 {
        lz4::unpack(packed()?, bytes).ok_or_else(damaged)?
    } else {
        data.to_vec()
    };
    // It ends as C's texts do, and is padded.
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    String::from_utf8(text).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry whose data are these.
    fn entry(kind: u16, arch: u32, flags: u64, packed: &[u8], bytes: usize) -> Vec<u8> {
        let mut entry = vec![0; ENTRY_HEADER];
        let size = packed.len().next_multiple_of(8);
        entry[0..2].copy_from_slice(&kind.to_le_bytes());
        entry[4..8].copy_from_slice(&(ENTRY_HEADER as u32).to_le_bytes());
        entry[8..16].copy_from_slice(&(size as u64).to_le_bytes());
        entry[16..20].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        entry[28..32].copy_from_slice(&arch.to_le_bytes());
        entry[40..48].copy_from_slice(&flags.to_le_bytes());
        entry[56..64].copy_from_slice(&(bytes as u64).to_le_bytes());
        entry.extend_from_slice(packed);
        entry.resize(ENTRY_HEADER + size, 0);
        entry
    }

    fn container(entries: &[Vec<u8>]) -> Vec<u8> {
        let entries = entries.concat();
        let mut bytes = CONTAINER_MAGIC.to_le_bytes().to_vec();
        bytes.extend([1, 0, 16, 0]);
        bytes.extend((entries.len() as u64).to_le_bytes());
        bytes.extend(entries);
        bytes
    }

    #[test]
    fn the_newest_ptx_is_taken_however_it_is_packed() {
        // A frame of Zstandard with one block that is not compressed.
        let zstd = [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 4, 0x21, 0, 0][..], b"four"].concat();
        let lz4 = [&[0x40][..], b"four"].concat();
        for (flags, packed) in [(0, &b"four"[..]), (ZSTD, &zstd), (LZ4, &lz4)] {
            let old = entry(KIND_PTX, 70, 0, b"old", 3);
            let machine_code = entry(2, 90, 0, b"\x7fELF", 4);
            let bytes = container(&[old, entry(KIND_PTX, 80, flags, packed, 4), machine_code]);
            assert_eq!(newest_ptx(&bytes), Ok(Ptx { arch: 80, text: "four".to_owned() }), "{flags:x}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_for_its_own_reason() {
        let bytes = container(&[entry(2, 90, 0, b"\x7fELF", 4)]);
        assert_eq!(newest_ptx(&bytes), Err(Refusal::MachineCode(vec![90])));
        for cut in [3, 20, bytes.len() - 1] {
            assert!(matches!(newest_ptx(&bytes[..cut]), Err(Refusal::Damaged(_))), "{cut}");
        }
        let bad = container(&[entry(KIND_PTX, 80, ZSTD, b"none", 4)]);
        assert!(matches!(newest_ptx(&bad), Err(Refusal::Damaged(_))));
    }
}
