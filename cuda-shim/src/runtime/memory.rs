//! Memory: allocations, copies, fills, symbols.

use super::register::{ready, variable};
use super::runtime;
use crate::device::{Box3, Device, HostKind, Pitched};
use crate::ffi::{Given, Out};
use crate::status::{Call, Status};

/// From one line to the next in pitched memory, in bytes: a multiple of this.
const PITCH: usize = 512;

/// `cudaPitchedPtr`.
#[derive(Clone, Copy)]
#[repr(C)]
struct PitchedPointer {
    address: u64,
    pitch: usize,
    width: usize,
    height: usize,
}

/// `cudaExtent`, and `cudaPos` by other names.
#[derive(Clone, Copy)]
#[repr(C)]
struct Extent {
    width: usize,
    height: usize,
    depth: usize,
}

/// `cudaMemcpy3DParms`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Copy3D {
    from_array: u64,
    from_at: Extent,
    from: PitchedPointer,
    to_array: u64,
    to_at: Extent,
    to: PitchedPointer,
    extent: Extent,
    kind: i32,
}

/// `cudaPointerAttributes`.
#[repr(C)]
struct PointerAttributes {
    kind: i32,
    device: i32,
    device_pointer: u64,
    host_pointer: u64,
    reserved: [i64; 8],
}

/// Kinds of a copy.
const HOST_TO_DEVICE: i32 = 1;
const DEVICE_TO_HOST: i32 = 2;
const DEVICE_TO_DEVICE: i32 = 3;
/// The largest of them: the addresses say.
const DEFAULT: i32 = 4;

impl PitchedPointer {
    fn at(self, position: Extent) -> Pitched {
        let slice = (self.pitch * self.height) as u64;
        let ahead = position.width + position.height * self.pitch;
        let address = self.address + ahead as u64 + position.depth as u64 * slice;
        Pitched { address, pitch: self.pitch as u64, slice }
    }
}

/// Copies, once both ends are where the kind says.
fn copy(device: &mut Device, call: &str, (from, to): (Pitched, Pitched), amount: Box3, kind: i32) -> Call {
    let (from_device, to_device) = match kind {
        HOST_TO_DEVICE => (false, true),
        DEVICE_TO_HOST => (true, false),
        DEVICE_TO_DEVICE => (true, true),
        0 | DEFAULT => (false, false),
        _ => return Err(Status::INVALID_DIRECTION),
    };
    if amount.bytes == 0 || amount.lines == 0 || amount.slices == 0 {
        return Ok(());
    }
    if [(from_device, from, "source"), (to_device, to, "target")].iter().any(|(wanted, end, what)| {
        let is_wrong = *wanted && !device.knows(end.address);
        if is_wrong {
            device.misplaced(call, what, end.address);
        }
        is_wrong
    }) {
        return Err(Status::INVALID_VALUE);
    }
    device.copy(call, from, to, amount)
}

fn flat(call: &str, to: u64, from: u64, bytes: usize, kind: i32) -> Call {
    copy(&mut ready(), call, (Pitched::flat(from), Pitched::flat(to)), Box3::flat(bytes), kind)
}

fn lines(call: &str, to: (u64, usize), from: (u64, usize), (width, height): (usize, usize), kind: i32) -> Call {
    if width > to.1 || width > from.1 {
        return Err(Status::INVALID_VALUE);
    }
    let pitched = |(address, pitch): (u64, usize)| Pitched { address, pitch: pitch as u64, slice: 0 };
    let amount = Box3 { bytes: width, lines: height as u64, slices: 1 };
    copy(&mut ready(), call, (pitched(from), pitched(to)), amount, kind)
}

fn boxes(call: &str, given: Given<Copy3D>) -> Call {
    let given = given.get()?;
    let mut device = ready();
    if given.from_array != 0 || given.to_array != 0 {
        device.refuse(call, "arrays are not emulated");
        return Err(Status::NOT_SUPPORTED);
    }
    let Extent { width, height, depth } = given.extent;
    let amount = Box3 { bytes: width, lines: height as u64, slices: depth as u64 };
    copy(&mut device, call, (given.from.at(given.from_at), given.to.at(given.to_at)), amount, given.kind)
}

fn to_symbol(call: &str, symbol: u64, from: u64, bytes: usize, offset: usize, kind: i32) -> Call {
    let (mut device, address, size) = variable(symbol)?;
    if offset.checked_add(bytes).is_none_or(|end| end > size) {
        return Err(Status::INVALID_VALUE);
    }
    copy(&mut device, call, (Pitched::flat(from), Pitched::flat(address + offset as u64)), Box3::flat(bytes), kind)
}

fn from_symbol(call: &str, to: u64, symbol: u64, bytes: usize, offset: usize, kind: i32) -> Call {
    let (mut device, address, size) = variable(symbol)?;
    if offset.checked_add(bytes).is_none_or(|end| end > size) {
        return Err(Status::INVALID_VALUE);
    }
    copy(&mut device, call, (Pitched::flat(address + offset as u64), Pitched::flat(to)), Box3::flat(bytes), kind)
}

fn fill(call: &str, to: Pitched, value: i32, amount: Box3) -> Call {
    ready().fill(call, to, &[value as u8], amount)
}

fn pitched(call: &str, width: usize, lines: usize) -> Call<(u64, usize)> {
    let pitch = width.checked_next_multiple_of(PITCH).ok_or(Status::INVALID_VALUE)?;
    let bytes = pitch.checked_mul(lines).ok_or(Status::INVALID_VALUE)?;
    Ok((ready().alloc(call, bytes)?, pitch))
}

runtime! {
    fn cudaMalloc(out: Out<u64>, bytes: usize) {
        // Of nothing, CUDA gives a null pointer.
        let mut device = ready();
        out.put(if bytes == 0 { 0 } else { device.alloc("cudaMalloc", bytes)? })
    }

    fn cudaMallocAsync(out: Out<u64>, bytes: usize, stream: u64) {
        let mut device = ready();
        device.check_stream(stream)?;
        out.put(if bytes == 0 { 0 } else { device.alloc("cudaMallocAsync", bytes)? })
    }

    fn cudaMallocPitch(out: Out<u64>, pitch: Out<usize>, width: usize, height: usize) {
        let (address, bytes) = pitched("cudaMallocPitch", width, height)?;
        pitch.put(bytes)?;
        out.put(address)
    }

    fn cudaMalloc3D(out: Out<PitchedPointer>, extent: Extent) {
        let Extent { width, height, depth } = extent;
        let (address, pitch) = pitched("cudaMalloc3D", width, height.checked_mul(depth).ok_or(Status::INVALID_VALUE)?)?;
        out.put(PitchedPointer { address, pitch, width, height })
    }

    fn cudaFree(address: u64) {
        ready().free(address)
    }

    fn cudaFreeAsync(address: u64, stream: u64) {
        let mut device = ready();
        device.check_stream(stream)?;
        device.free(address)
    }

    fn cudaMallocManaged(out: Out<u64>, bytes: usize, _flags: u32) {
        out.put(ready().alloc_host("cudaMallocManaged", bytes, HostKind::Managed)?)
    }

    fn cudaMallocHost(out: Out<u64>, bytes: usize) {
        out.put(ready().alloc_host("cudaMallocHost", bytes, HostKind::Pinned)?)
    }

    fn cudaHostAlloc(out: Out<u64>, bytes: usize, _flags: u32) {
        out.put(ready().alloc_host("cudaHostAlloc", bytes, HostKind::Pinned)?)
    }

    fn cudaFreeHost(address: u64) {
        ready().free(address)
    }

    fn cudaHostRegister(address: u64, bytes: usize, _flags: u32) {
        ready().register(address, bytes)
    }

    fn cudaHostUnregister(address: u64) {
        ready().drop_region(address).map_err(|_| Status::NOT_REGISTERED)
    }

    fn cudaHostGetDevicePointer(out: Out<u64>, address: u64, _flags: u32) {
        ready().region(address).ok_or(Status::INVALID_VALUE)?;
        out.put(address)
    }

    fn cudaHostGetFlags(out: Out<u32>, address: u64) {
        ready().region(address).ok_or(Status::INVALID_VALUE)?;
        out.put(0)
    }

    fn cudaMemGetInfo(free: Out<usize>, total: Out<usize>) {
        let (left, all) = ready().memory_info();
        free.put(left)?;
        total.put(all)
    }

    fn cudaMemcpy(to: u64, from: u64, bytes: usize, kind: i32) {
        flat("cudaMemcpy", to, from, bytes, kind)
    }

    fn cudaMemcpyAsync(to: u64, from: u64, bytes: usize, kind: i32, stream: u64) {
        ready().check_stream(stream)?;
        flat("cudaMemcpyAsync", to, from, bytes, kind)
    }

    fn cudaMemcpyPeer(to: u64, _to_device: i32, from: u64, _from_device: i32, bytes: usize) {
        flat("cudaMemcpyPeer", to, from, bytes, DEVICE_TO_DEVICE)
    }

    fn cudaMemcpyPeerAsync(to: u64, _to_device: i32, from: u64, _from_device: i32, bytes: usize, stream: u64) {
        ready().check_stream(stream)?;
        flat("cudaMemcpyPeerAsync", to, from, bytes, DEVICE_TO_DEVICE)
    }

    fn cudaMemcpy2D(
        to: u64, to_pitch: usize, from: u64, from_pitch: usize, width: usize, height: usize, kind: i32,
    ) {
        lines("cudaMemcpy2D", (to, to_pitch), (from, from_pitch), (width, height), kind)
    }

    fn cudaMemcpy2DAsync(
        to: u64, to_pitch: usize, from: u64, from_pitch: usize, width: usize, height: usize, kind: i32, stream: u64,
    ) {
        ready().check_stream(stream)?;
        lines("cudaMemcpy2DAsync", (to, to_pitch), (from, from_pitch), (width, height), kind)
    }

    fn cudaMemcpy3D(given: Given<Copy3D>) {
        boxes("cudaMemcpy3D", given)
    }

    fn cudaMemcpy3DAsync(given: Given<Copy3D>, stream: u64) {
        ready().check_stream(stream)?;
        boxes("cudaMemcpy3DAsync", given)
    }

    fn cudaMemcpyToSymbol(symbol: u64, from: u64, bytes: usize, offset: usize, kind: i32) {
        to_symbol("cudaMemcpyToSymbol", symbol, from, bytes, offset, kind)
    }

    fn cudaMemcpyToSymbolAsync(symbol: u64, from: u64, bytes: usize, offset: usize, kind: i32, stream: u64) {
        ready().check_stream(stream)?;
        to_symbol("cudaMemcpyToSymbolAsync", symbol, from, bytes, offset, kind)
    }

    fn cudaMemcpyFromSymbol(to: u64, symbol: u64, bytes: usize, offset: usize, kind: i32) {
        from_symbol("cudaMemcpyFromSymbol", to, symbol, bytes, offset, kind)
    }

    fn cudaMemcpyFromSymbolAsync(to: u64, symbol: u64, bytes: usize, offset: usize, kind: i32, stream: u64) {
        ready().check_stream(stream)?;
        from_symbol("cudaMemcpyFromSymbolAsync", to, symbol, bytes, offset, kind)
    }

    fn cudaMemset(to: u64, value: i32, bytes: usize) {
        fill("cudaMemset", Pitched::flat(to), value, Box3::flat(bytes))
    }

    fn cudaMemsetAsync(to: u64, value: i32, bytes: usize, stream: u64) {
        ready().check_stream(stream)?;
        fill("cudaMemsetAsync", Pitched::flat(to), value, Box3::flat(bytes))
    }

    fn cudaMemset2D(to: u64, pitch: usize, value: i32, width: usize, height: usize) {
        let amount = Box3 { bytes: width, lines: height as u64, slices: 1 };
        fill("cudaMemset2D", Pitched { address: to, pitch: pitch as u64, slice: 0 }, value, amount)
    }

    fn cudaMemset2DAsync(to: u64, pitch: usize, value: i32, width: usize, height: usize, stream: u64) {
        ready().check_stream(stream)?;
        let amount = Box3 { bytes: width, lines: height as u64, slices: 1 };
        fill("cudaMemset2DAsync", Pitched { address: to, pitch: pitch as u64, slice: 0 }, value, amount)
    }

    fn cudaMemset3D(to: PitchedPointer, value: i32, extent: Extent) {
        let Extent { width, height, depth } = extent;
        let amount = Box3 { bytes: width, lines: height as u64, slices: depth as u64 };
        fill("cudaMemset3D", to.at(Extent { width: 0, height: 0, depth: 0 }), value, amount)
    }

    fn cudaMemset3DAsync(to: PitchedPointer, value: i32, extent: Extent, stream: u64) {
        ready().check_stream(stream)?;
        let Extent { width, height, depth } = extent;
        let amount = Box3 { bytes: width, lines: height as u64, slices: depth as u64 };
        fill("cudaMemset3DAsync", to.at(Extent { width: 0, height: 0, depth: 0 }), value, amount)
    }

    fn cudaMemPrefetchAsync(address: u64, _bytes: usize, _place: u64, _flags: u32, stream: u64) {
        let device = ready();
        device.check_stream(stream)?;
        device.region(address).map(drop).ok_or(Status::INVALID_VALUE)
    }

    fn cudaMemAdvise(address: u64, _bytes: usize, _advice: i32, _place: u64) {
        ready().region(address).map(drop).ok_or(Status::INVALID_VALUE)
    }

    fn cudaPointerGetAttributes(out: Out<PointerAttributes>, address: u64) {
        const HOST: i32 = 1;
        const DEVICE: i32 = 2;
        const MANAGED: i32 = 3;
        let device = ready();
        let (kind, device_pointer, host_pointer) = match device.region(address).map(|region| region.kind) {
            Some(HostKind::Managed | HostKind::Variable) => (MANAGED, address, address),
            Some(HostKind::Pinned | HostKind::Registered) => (HOST, address, address),
            None if device.knows(address) => (DEVICE, address, 0),
            None => (0, 0, address),
        };
        out.put(PointerAttributes { kind, device: 0, device_pointer, host_pointer, reserved: [0; 8] })
    }
}
