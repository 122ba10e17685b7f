//! The device's own properties, errors and versions, and settings that change nothing here.

use std::ffi::c_char;

use super::register::ready;
use super::{LAST, runtime};
use crate::device::chip::{self, Limits};
use crate::ffi::{Out, Text, lasting};
use crate::status::{Call, Status};

/// What the library says that it is: CUDA 13.0.
pub const VERSION: i32 = 13_000;

/// `cudaDeviceProp`, its fields in the header's order; runs of one type that are 0 or equal here are one field.
#[repr(C)]
struct Properties {
    name: [u8; 256],
    uuid: [u8; 16],
    luid: [u8; 8],
    luid_nodes: u32,
    global_bytes: usize,
    shared_bytes: usize,
    registers: i32,
    warp_size: i32,
    pitch: usize,
    max_threads: i32,
    max_block: [i32; 3],
    max_grid: [i32; 3],
    constant_bytes: usize,
    major: i32,
    minor: i32,
    texture_alignment: usize,
    texture_pitch_alignment: usize,
    sm_count: i32,
    integrated: i32,
    maps_host: i32,
    textures: [i32; 39],
    surface_alignment: usize,
    concurrent_kernels: i32,
    ecc: i32,
    pci: [i32; 3],
    tcc: i32,
    async_engines: i32,
    unified_addressing: i32,
    bus_bits: i32,
    l2_bytes: i32,
    persisting_l2: i32,
    sm_threads: i32,
    priorities: i32,
    global_l1: i32,
    local_l1: i32,
    sm_shared_bytes: usize,
    sm_registers: i32,
    managed: i32,
    boards: [i32; 2],
    native_atomics: i32,
    pageable: i32,
    concurrent_managed: i32,
    preemption: i32,
    registered_pointers: i32,
    cooperative: i32,
    most_shared_bytes: usize,
    page_tables: [i32; 2],
    sm_blocks: i32,
    access_window: i32,
    reserved_shared: usize,
    host_register: i32,
    unsupported: [i32; 3],
    memory_pools: i32,
    rdma: [i32; 5],
    ipc_events: i32,
    clusters: i32,
    rest: [i32; 8],
    reserved: [i32; 56],
}

/// Fails for a device that is not there.
fn only(device: i32) -> Call {
    if device == 0 { Ok(()) } else { Err(Status::INVALID_DEVICE) }
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorName(code: i32) -> *const c_char {
    lasting(Status(code).runtime_name())
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorString(code: i32) -> *const c_char {
    lasting(Status(code).text())
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetLastError() -> i32 {
    LAST.replace(Status::SUCCESS).0
}

#[unsafe(no_mangle)]
extern "C" fn cudaPeekAtLastError() -> i32 {
    LAST.get().0
}

runtime! {
    fn cudaGetDeviceCount(out: Out<i32>) {
        out.put(1)
    }

    fn cudaGetDevice(out: Out<i32>) {
        out.put(0)
    }

    fn cudaSetDevice(device: i32) {
        only(device)
    }

    fn cudaInitDevice(device: i32, _device_flags: u32, _flags: u32) {
        only(device)
    }

    fn cudaSetValidDevices(_devices: usize, _count: i32) {
        Ok(())
    }

    fn cudaChooseDevice(out: Out<i32>, _wanted: usize) {
        out.put(0)
    }

    fn cudaSetDeviceFlags(_flags: u32) {
        Ok(())
    }

    fn cudaGetDeviceFlags(out: Out<u32>) {
        out.put(0)
    }

    fn cudaDeviceSynchronize() {
        ready().synchronize()
    }

    fn cudaDeviceReset() {
        ready().reset()
    }

    fn cudaGetDeviceProperties(out: Out<Properties>, device: i32) {
        only(device)?;
        let held = ready();
        let (arch, sm_count) = (held.arch(), held.settings.sm_count as i32);
        let limits = Limits::of(arch);
        let mut name = [0; 256];
        name[..chip::NAME.len()].copy_from_slice(chip::NAME.as_bytes());
        out.put(Properties {
            name,
            uuid: *chip::UUID,
            luid: [0; 8],
            luid_nodes: 0,
            global_bytes: held.memory_info().1,
            shared_bytes: chip::PLAIN_SHARED,
            registers: chip::REGISTERS as i32,
            warp_size: 32,
            pitch: i32::MAX as usize,
            max_threads: chip::MAX_THREADS as i32,
            max_block: chip::MAX_BLOCK.map(|size| size as i32),
            max_grid: chip::MAX_GRID.map(|size| size as i32),
            constant_bytes: chip::CONSTANT_BYTES,
            major: (arch / 10) as i32,
            minor: (arch % 10) as i32,
            texture_alignment: 512,
            texture_pitch_alignment: 32,
            sm_count,
            integrated: 0,
            maps_host: 1,
            textures: [0; 39],
            surface_alignment: 512,
            concurrent_kernels: 1,
            ecc: 0,
            pci: [0; 3],
            tcc: 0,
            async_engines: 1,
            unified_addressing: 1,
            bus_bits: 256,
            l2_bytes: 4 << 20,
            persisting_l2: 0,
            sm_threads: limits.threads as i32,
            priorities: 1,
            global_l1: 1,
            local_l1: 1,
            sm_shared_bytes: limits.shared,
            sm_registers: chip::REGISTERS as i32,
            managed: 1,
            boards: [0; 2],
            native_atomics: 0,
            pageable: 0,
            concurrent_managed: 0,
            preemption: 0,
            registered_pointers: 1,
            cooperative: 1,
            most_shared_bytes: limits.most_shared(),
            page_tables: [0; 2],
            sm_blocks: limits.blocks as i32,
            access_window: 0,
            reserved_shared: chip::RESERVED_SHARED,
            host_register: 1,
            unsupported: [0; 3],
            memory_pools: 1,
            rdma: [0; 5],
            ipc_events: 0,
            clusters: (arch >= 90).into(),
            rest: [0; 8],
            reserved: [0; 56],
        })
    }

    fn cudaDeviceGetAttribute(out: Out<i32>, attribute: i32, device: i32) {
        only(device)?;
        let held = ready();
        out.put(chip::attribute(attribute, held.arch(), held.settings.sm_count).ok_or(Status::INVALID_VALUE)?)
    }

    fn cudaDeviceGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        least.offer(0);
        greatest.offer(0);
        Ok(())
    }

    fn cudaDeviceGetPCIBusId(out: Out<c_char>, room: i32, device: i32) {
        only(device)?;
        out.text(chip::BUS, usize::try_from(room).map_err(|_| Status::INVALID_VALUE)?)
    }

    fn cudaDeviceGetByPCIBusId(out: Out<i32>, name: Text) {
        if name.get()? != chip::BUS {
            return Err(Status::INVALID_DEVICE);
        }
        out.put(0)
    }

    fn cudaDeviceCanAccessPeer(out: Out<i32>, _device: i32, _peer: i32) {
        out.put(0)
    }

    fn cudaDeviceSetLimit(_limit: i32, _value: usize) {
        Ok(())
    }

    fn cudaDeviceGetLimit(out: Out<usize>, limit: i32) {
        out.put(chip::limit(limit).ok_or(Status::INVALID_VALUE)?)
    }

    fn cudaDeviceSetCacheConfig(_config: i32) {
        Ok(())
    }

    fn cudaDeviceGetCacheConfig(out: Out<i32>) {
        out.put(0)
    }

    fn cudaDeviceSetSharedMemConfig(_config: i32) {
        Ok(())
    }

    fn cudaDeviceGetSharedMemConfig(out: Out<i32>) {
        out.put(0)
    }

    fn cudaCtxResetPersistingL2Cache() {
        Ok(())
    }

    fn cudaDriverGetVersion(out: Out<i32>) {
        out.put(VERSION)
    }

    fn cudaRuntimeGetVersion(out: Out<i32>) {
        out.put(VERSION)
    }

    fn cudaProfilerStart() {
        Ok(())
    }

    fn cudaProfilerStop() {
        Ok(())
    }
}
