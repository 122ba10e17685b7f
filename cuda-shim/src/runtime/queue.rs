//! Streams and events.

use super::register::ready;
use super::runtime;
use crate::ffi::{HostFunction, Out, Place, call_back};
use crate::status::Status;

/// A function that a stream calls when it has come so far: stream, status, the program's pointer.
type StreamCallback = extern "C" fn(u64, i32, Place);

runtime! {
    fn cudaStreamCreate(out: Out<u64>) {
        out.put(ready().stream())
    }

    fn cudaStreamCreateWithFlags(out: Out<u64>, _flags: u32) {
        out.put(ready().stream())
    }

    fn cudaStreamCreateWithPriority(out: Out<u64>, _flags: u32, _priority: i32) {
        out.put(ready().stream())
    }

    fn cudaStreamDestroy(stream: u64) {
        ready().drop_stream(stream)
    }

    fn cudaStreamSynchronize(stream: u64) {
        let mut device = ready();
        device.check_stream(stream)?;
        device.synchronize()
    }

    fn cudaStreamQuery(stream: u64) {
        let mut device = ready();
        device.check_stream(stream)?;
        device.synchronize()
    }

    fn cudaStreamWaitEvent(stream: u64, event: u64, _flags: u32) {
        let device = ready();
        device.check_stream(stream)?;
        device.check_event(event)
    }

    fn cudaStreamGetPriority(stream: u64, out: Out<i32>) {
        ready().check_stream(stream)?;
        out.put(0)
    }

    fn cudaStreamGetFlags(stream: u64, out: Out<u32>) {
        ready().check_stream(stream)?;
        out.put(0)
    }

    fn cudaStreamGetDevice(stream: u64, out: Out<i32>) {
        ready().check_stream(stream)?;
        out.put(0)
    }

    fn cudaStreamIsCapturing(stream: u64, out: Out<i32>) {
        ready().check_stream(stream)?;
        out.put(0)
    }

    fn cudaStreamAttachMemAsync(stream: u64, _address: u64, _bytes: usize, _flags: u32) {
        ready().check_stream(stream)
    }

    fn cudaStreamAddCallback(stream: u64, callback: Option<StreamCallback>, data: Place, _flags: u32) {
        let callback = callback.ok_or(Status::INVALID_VALUE)?;
        let status = {
            let mut device = ready();
            device.check_stream(stream)?;
            Status::of(device.synchronize())
        };
        callback(stream, status, data);
        Ok(())
    }

    fn cudaLaunchHostFunc(stream: u64, function: Option<HostFunction>, data: Place) {
        ready().check_stream(stream)?;
        call_back(function, data)
    }

    fn cudaEventCreate(out: Out<u64>) {
        out.put(ready().event())
    }

    fn cudaEventCreateWithFlags(out: Out<u64>, _flags: u32) {
        out.put(ready().event())
    }

    fn cudaEventDestroy(event: u64) {
        ready().drop_event(event)
    }

    fn cudaEventRecord(event: u64, stream: u64) {
        let mut device = ready();
        device.check_stream(stream)?;
        device.record(event)
    }

    fn cudaEventRecordWithFlags(event: u64, stream: u64, _flags: u32) {
        let mut device = ready();
        device.check_stream(stream)?;
        device.record(event)
    }

    fn cudaEventQuery(event: u64) {
        ready().check_event(event)
    }

    fn cudaEventSynchronize(event: u64) {
        let mut device = ready();
        device.check_event(event)?;
        device.synchronize()
    }

    fn cudaEventElapsedTime(out: Out<f32>, from: u64, to: u64) {
        out.put(ready().elapsed_ms(from, to)?)
    }
}
