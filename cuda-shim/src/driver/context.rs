//! The device and its contexts: one device, contexts that are names for it.

use std::cell::RefCell;
use std::ffi::c_char;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::driver;
use crate::device::{chip, hold};
use crate::ffi::{Out, lasting};
use crate::status::{Call, Status};

/// What the driver says that it is: that of CUDA 13.0.
const VERSION: i32 = 13_000;
/// Handle of the context that everybody shares.
const PRIMARY: u64 = 0x1_0000;
/// From one context to the next.
const STEP: u64 = 16;

/// Contexts that were made.
static MADE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Contexts of this thread, the current one last.
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn only(device: i32) -> Call {
    if device == 0 { Ok(()) } else { Err(Status::INVALID_DEVICE) }
}

fn current() -> u64 {
    STACK.with_borrow(|stack| stack.last().copied().unwrap_or(0))
}

/// A new context, which is current.
fn create(out: Out<u64>, device: i32) -> Call {
    only(device)?;
    let context = PRIMARY + (MADE.fetch_add(1, Relaxed) + 1) * STEP;
    STACK.with_borrow_mut(|stack| stack.push(context));
    out.put(context)
}

driver! {
    fn cuInit(_flags: u32) {
        Ok(())
    }

    fn cuDriverGetVersion(out: Out<i32>) {
        out.put(VERSION)
    }

    fn cuGetErrorName(code: i32, out: Out<u64>) {
        out.put(Status(code).driver_name().map_or(0, |name| lasting(name) as u64))?;
        Status(code).driver_name().map(drop).ok_or(Status::INVALID_VALUE)
    }

    fn cuGetErrorString(code: i32, out: Out<u64>) {
        let is_known = Status(code).driver_name().is_some();
        out.put(if is_known { lasting(Status(code).text()) as u64 } else { 0 })?;
        if is_known { Ok(()) } else { Err(Status::INVALID_VALUE) }
    }

    fn cuDeviceGet(out: Out<i32>, ordinal: i32) {
        only(ordinal)?;
        out.put(0)
    }

    fn cuDeviceGetCount(out: Out<i32>) {
        out.put(1)
    }

    fn cuDeviceGetName(out: Out<c_char>, room: i32, device: i32) {
        only(device)?;
        out.text(chip::NAME, usize::try_from(room).map_err(|_| Status::INVALID_VALUE)?)
    }

    fn cuDeviceGetUuid(out: Out<[u8; 16]>, device: i32) {
        only(device)?;
        out.put(*chip::UUID)
    }

    fn cuDeviceGetUuid_v2(out: Out<[u8; 16]>, device: i32) {
        only(device)?;
        out.put(*chip::UUID)
    }

    fn cuDeviceTotalMem_v2(out: Out<usize>, device: i32) {
        only(device)?;
        out.put(hold().memory_info().1)
    }

    fn cuDeviceGetAttribute(out: Out<i32>, attribute: i32, device: i32) {
        only(device)?;
        let held = hold();
        out.put(chip::attribute(attribute, held.arch(), held.settings.sm_count).ok_or(Status::INVALID_VALUE)?)
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        only(device)?;
        let arch = hold().arch() as i32;
        major.put(arch / 10)?;
        minor.put(arch % 10)
    }

    fn cuDeviceGetPCIBusId(out: Out<c_char>, room: i32, device: i32) {
        only(device)?;
        out.text(chip::BUS, usize::try_from(room).map_err(|_| Status::INVALID_VALUE)?)
    }

    fn cuDeviceCanAccessPeer(out: Out<i32>, _device: i32, _peer: i32) {
        out.put(0)
    }

    fn cuDevicePrimaryCtxRetain(out: Out<u64>, device: i32) {
        only(device)?;
        out.put(PRIMARY)
    }

    fn cuDevicePrimaryCtxRelease_v2(device: i32) {
        only(device)
    }

    fn cuDevicePrimaryCtxReset_v2(device: i32) {
        only(device)?;
        hold().reset()
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, _flags: u32) {
        only(device)
    }

    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        only(device)?;
        flags.put(0)?;
        active.put(1)
    }

    fn cuCtxCreate_v2(out: Out<u64>, _flags: u32, device: i32) {
        create(out, device)
    }

    fn cuCtxCreate_v3(out: Out<u64>, _affinities: u64, _count: i32, _flags: u32, device: i32) {
        create(out, device)
    }

    fn cuCtxCreate_v4(out: Out<u64>, _parameters: u64, _flags: u32, device: i32) {
        create(out, device)
    }

    fn cuCtxDestroy_v2(context: u64) {
        STACK.with_borrow_mut(|stack| stack.retain(|one| *one != context));
        hold().synchronize()
    }

    fn cuCtxPushCurrent_v2(context: u64) {
        STACK.with_borrow_mut(|stack| stack.push(context));
        Ok(())
    }

    fn cuCtxPopCurrent_v2(out: Out<u64>) {
        let context = STACK.with_borrow_mut(Vec::pop).ok_or(Status::INVALID_CONTEXT)?;
        out.offer(context);
        Ok(())
    }

    fn cuCtxSetCurrent(context: u64) {
        STACK.with_borrow_mut(|stack| {
            stack.pop();
            if context != 0 {
                stack.push(context);
            }
        });
        Ok(())
    }

    fn cuCtxGetCurrent(out: Out<u64>) {
        out.put(current())
    }

    fn cuCtxGetDevice(out: Out<i32>) {
        if current() == 0 {
            return Err(Status::INVALID_CONTEXT);
        }
        out.put(0)
    }

    fn cuCtxGetDevice_v2(out: Out<i32>, _context: u64) {
        out.put(0)
    }

    fn cuCtxSynchronize_v2(_context: u64) {
        hold().synchronize()
    }

    fn cuCtxGetFlags(out: Out<u32>) {
        out.put(0)
    }

    fn cuCtxGetApiVersion(_context: u64, out: Out<u32>) {
        out.put(VERSION as u32)
    }

    fn cuCtxSynchronize() {
        hold().synchronize()
    }

    fn cuCtxSetLimit(_limit: i32, _value: usize) {
        Ok(())
    }

    fn cuCtxGetLimit(out: Out<usize>, limit: i32) {
        out.put(chip::limit(limit).ok_or(Status::INVALID_VALUE)?)
    }

    fn cuCtxSetCacheConfig(_config: i32) {
        Ok(())
    }

    fn cuCtxGetCacheConfig(out: Out<i32>) {
        out.put(0)
    }

    fn cuCtxSetSharedMemConfig(_config: i32) {
        Ok(())
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        least.offer(0);
        greatest.offer(0);
        Ok(())
    }

    fn cuProfilerStart() {
        Ok(())
    }

    fn cuProfilerStop() {
        Ok(())
    }
}
