//! Memory: allocations, copies, fills.

use super::driver;
use crate::device::{Box3, Device, HostKind, Pitched, hold};
use crate::ffi::{Given, Out, Place};
use crate::status::{Call, Status};

/// From one line to the next in pitched memory, in bytes: a multiple of this.
const PITCH: usize = 512;

/// Which end of a copy must be the device's.
struct Ends {
    from: bool,
    to: bool,
}

const TO_DEVICE: Ends = Ends { from: false, to: true };
const FROM_DEVICE: Ends = Ends { from: true, to: false };
const ON_DEVICE: Ends = Ends { from: true, to: true };
/// The addresses say.
const ANYWHERE: Ends = Ends { from: false, to: false };

fn copy(device: &mut Device, call: &str, from: Pitched, to: Pitched, amount: Box3, ends: &Ends) -> Call {
    if amount.bytes == 0 || amount.lines == 0 || amount.slices == 0 {
        return Ok(());
    }
    for (is_wanted, end, what) in [(ends.from, from, "source"), (ends.to, to, "target")] {
        if is_wanted && !device.knows(end.address) {
            device.misplaced(call, what, end.address);
            return Err(Status::INVALID_VALUE);
        }
    }
    device.copy(call, from, to, amount)
}

fn flat(call: &str, to: u64, from: u64, bytes: usize, stream: u64, ends: &Ends) -> Call {
    let mut device = hold();
    device.check_stream(stream)?;
    copy(&mut device, call, Pitched::flat(from), Pitched::flat(to), Box3::flat(bytes), ends)
}

/// One end of `CUDA_MEMCPY2D`.
#[derive(Clone, Copy)]
#[repr(C)]
struct End2D {
    x: usize,
    y: usize,
    kind: u32,
    host: u64,
    device: u64,
    array: u64,
    pitch: usize,
}

/// `CUDA_MEMCPY2D`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Copy2D {
    from: End2D,
    to: End2D,
    width: usize,
    height: usize,
}

impl End2D {
    fn pitched(self) -> Call<Pitched> {
        const HOST: u32 = 1;
        const DEVICE: u32 = 2;
        const UNIFIED: u32 = 4;
        let address = match self.kind {
            HOST => self.host,
            DEVICE | UNIFIED => self.device,
            _ => return Err(Status::NOT_SUPPORTED),
        };
        let address = address + (self.x + self.y * self.pitch) as u64;
        Ok(Pitched { address, pitch: self.pitch as u64, slice: 0 })
    }
}

fn lines(call: &str, given: Given<Copy2D>, stream: u64) -> Call {
    let Copy2D { from, to, width, height } = given.get()?;
    let mut device = hold();
    device.check_stream(stream)?;
    let amount = Box3 { bytes: width, lines: height as u64, slices: 1 };
    copy(&mut device, call, from.pitched()?, to.pitched()?, amount, &ANYWHERE)
}

fn fill(call: &str, to: Pitched, pattern: &[u8], (count, lines): (usize, usize), stream: u64) -> Call {
    let bytes = count.checked_mul(pattern.len()).ok_or(Status::INVALID_VALUE)?;
    let mut device = hold();
    device.check_stream(stream)?;
    device.fill(call, to, pattern, Box3 { bytes, lines: lines as u64, slices: 1 })
}

fn pitched(address: u64, pitch: usize) -> Pitched {
    Pitched { address, pitch: pitch as u64, slice: 0 }
}

fn alloc(call: &str, out: Out<u64>, bytes: usize) -> Call {
    if bytes == 0 {
        return Err(Status::INVALID_VALUE);
    }
    out.put(hold().alloc(call, bytes)?)
}

/// What is asked of a pointer, into a place whose size the question says.
fn attribute(place: Place, attribute: i32, address: u64) -> Call {
    const HOST: u32 = 1;
    const DEVICE: u32 = 2;
    let device = hold();
    let region = device.region(address);
    if region.is_none() && !device.knows(address) {
        return Err(Status::INVALID_VALUE);
    }
    let is_managed = region.is_some_and(|r| matches!(r.kind, HostKind::Managed | HostKind::Variable));
    let is_host = region.is_some() && !is_managed;
    let (start, bytes) = match device.locate(address) {
        Some((buffer, _)) => (buffer.address(), buffer.bytes()),
        None => (0, 0),
    };
    match attribute {
        // Context, pointers, and where the allocation begins.
        1 => place.write(&0u64.to_le_bytes()),
        2 => place.write(&(if is_host { HOST } else { DEVICE }).to_le_bytes()),
        3 => place.write(&address.to_le_bytes()),
        4 if region.is_some() => place.write(&address.to_le_bytes()),
        8 => place.write(&u32::from(is_managed).to_le_bytes()),
        9 => place.write(&0i32.to_le_bytes()),
        11 => place.write(&start.to_le_bytes()),
        12 => place.write(&bytes.to_le_bytes()),
        13 => place.write(&1u32.to_le_bytes()),
        _ => Err(Status::INVALID_VALUE),
    }
}

driver! {
    fn cuMemAlloc_v2(out: Out<u64>, bytes: usize) {
        alloc("cuMemAlloc", out, bytes)
    }

    fn cuMemAllocAsync(out: Out<u64>, bytes: usize, stream: u64) {
        hold().check_stream(stream)?;
        alloc("cuMemAllocAsync", out, bytes)
    }

    fn cuMemAllocPitch_v2(out: Out<u64>, pitch: Out<usize>, width: usize, height: usize, _element: u32) {
        let line = width.checked_next_multiple_of(PITCH).ok_or(Status::INVALID_VALUE)?;
        pitch.put(line)?;
        alloc("cuMemAllocPitch", out, line.checked_mul(height).ok_or(Status::INVALID_VALUE)?)
    }

    fn cuMemFree_v2(address: u64) {
        hold().free(address)
    }

    fn cuMemFreeAsync(address: u64, stream: u64) {
        let mut device = hold();
        device.check_stream(stream)?;
        device.free(address)
    }

    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let (left, all) = hold().memory_info();
        free.put(left)?;
        total.put(all)
    }

    fn cuMemGetAddressRange_v2(start: Out<u64>, bytes: Out<usize>, address: u64) {
        let (buffer, _) = hold().locate(address).ok_or(Status::NOT_FOUND)?;
        start.offer(buffer.address());
        bytes.offer(buffer.bytes());
        Ok(())
    }

    fn cuMemAllocHost_v2(out: Out<u64>, bytes: usize) {
        out.put(hold().alloc_host("cuMemAllocHost", bytes, HostKind::Pinned)?)
    }

    fn cuMemHostAlloc(out: Out<u64>, bytes: usize, _flags: u32) {
        out.put(hold().alloc_host("cuMemHostAlloc", bytes, HostKind::Pinned)?)
    }

    fn cuMemFreeHost(address: u64) {
        hold().free(address)
    }

    fn cuMemHostGetDevicePointer_v2(out: Out<u64>, address: u64, _flags: u32) {
        hold().region(address).ok_or(Status::INVALID_VALUE)?;
        out.put(address)
    }

    fn cuMemHostRegister_v2(address: u64, bytes: usize, _flags: u32) {
        hold().register(address, bytes)
    }

    fn cuMemHostUnregister(address: u64) {
        hold().drop_region(address).map_err(|_| Status::NOT_REGISTERED)
    }

    fn cuMemAllocManaged(out: Out<u64>, bytes: usize, _flags: u32) {
        out.put(hold().alloc_host("cuMemAllocManaged", bytes, HostKind::Managed)?)
    }

    fn cuMemcpy(to: u64, from: u64, bytes: usize) {
        flat("cuMemcpy", to, from, bytes, 0, &ANYWHERE)
    }

    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: u64) {
        flat("cuMemcpyAsync", to, from, bytes, stream, &ANYWHERE)
    }

    fn cuMemcpyHtoD_v2(to: u64, from: u64, bytes: usize) {
        flat("cuMemcpyHtoD", to, from, bytes, 0, &TO_DEVICE)
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        flat("cuMemcpyHtoDAsync", to, from, bytes, stream, &TO_DEVICE)
    }

    fn cuMemcpyDtoH_v2(to: u64, from: u64, bytes: usize) {
        flat("cuMemcpyDtoH", to, from, bytes, 0, &FROM_DEVICE)
    }

    fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        flat("cuMemcpyDtoHAsync", to, from, bytes, stream, &FROM_DEVICE)
    }

    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        flat("cuMemcpyDtoD", to, from, bytes, 0, &ON_DEVICE)
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        flat("cuMemcpyDtoDAsync", to, from, bytes, stream, &ON_DEVICE)
    }

    fn cuMemcpy2D_v2(given: Given<Copy2D>) {
        lines("cuMemcpy2D", given, 0)
    }

    fn cuMemcpy2DUnaligned_v2(given: Given<Copy2D>) {
        lines("cuMemcpy2DUnaligned", given, 0)
    }

    fn cuMemcpy2DAsync_v2(given: Given<Copy2D>, stream: u64) {
        lines("cuMemcpy2DAsync", given, stream)
    }

    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        fill("cuMemsetD8", Pitched::flat(to), &[value], (count, 1), 0)
    }

    fn cuMemsetD16_v2(to: u64, value: u16, count: usize) {
        fill("cuMemsetD16", Pitched::flat(to), &value.to_le_bytes(), (count, 1), 0)
    }

    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        fill("cuMemsetD32", Pitched::flat(to), &value.to_le_bytes(), (count, 1), 0)
    }

    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: u64) {
        fill("cuMemsetD8Async", Pitched::flat(to), &[value], (count, 1), stream)
    }

    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: u64) {
        fill("cuMemsetD16Async", Pitched::flat(to), &value.to_le_bytes(), (count, 1), stream)
    }

    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: u64) {
        fill("cuMemsetD32Async", Pitched::flat(to), &value.to_le_bytes(), (count, 1), stream)
    }

    fn cuMemsetD2D8_v2(to: u64, pitch: usize, value: u8, width: usize, height: usize) {
        fill("cuMemsetD2D8", pitched(to, pitch), &[value], (width, height), 0)
    }

    fn cuMemsetD2D32_v2(to: u64, pitch: usize, value: u32, width: usize, height: usize) {
        fill("cuMemsetD2D32", pitched(to, pitch), &value.to_le_bytes(), (width, height), 0)
    }

    fn cuPointerGetAttribute(place: Place, asked: i32, address: u64) {
        attribute(place, asked, address)
    }

    fn cuPointerGetAttributes(count: u32, asked: Given<i32>, places: Given<Place>, address: u64) {
        let (asked, places) = (asked.list(count as usize)?, places.list(count as usize)?);
        // Of an address that is none of CUDA's, each answer is left as it was.
        for (asked, place) in asked.iter().zip(&places) {
            let _ = attribute(*place, *asked, address);
        }
        Ok(())
    }
}
