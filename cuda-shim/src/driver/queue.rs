//! Streams and events.

use super::driver;
use crate::device::hold;
use crate::ffi::{HostFunction, Out, Place, call_back};
use crate::status::Status;

/// A function that a stream calls when it has come so far: stream, status, the program's pointer.
type StreamCallback = extern "C" fn(u64, i32, Place);

driver! {
    fn cuStreamCreate(out: Out<u64>, _flags: u32) {
        out.put(hold().stream())
    }

    fn cuStreamCreateWithPriority(out: Out<u64>, _flags: u32, _priority: i32) {
        out.put(hold().stream())
    }

    fn cuStreamDestroy_v2(stream: u64) {
        hold().drop_stream(stream)
    }

    fn cuStreamSynchronize(stream: u64) {
        let mut device = hold();
        device.check_stream(stream)?;
        device.synchronize()
    }

    fn cuStreamQuery(stream: u64) {
        let mut device = hold();
        device.check_stream(stream)?;
        device.synchronize()
    }

    fn cuStreamWaitEvent(stream: u64, event: u64, _flags: u32) {
        let device = hold();
        device.check_stream(stream)?;
        device.check_event(event)
    }

    fn cuStreamGetPriority(stream: u64, out: Out<i32>) {
        hold().check_stream(stream)?;
        out.put(0)
    }

    fn cuStreamGetFlags(stream: u64, out: Out<u32>) {
        hold().check_stream(stream)?;
        out.put(0)
    }

    fn cuStreamIsCapturing(stream: u64, out: Out<i32>) {
        hold().check_stream(stream)?;
        out.put(0)
    }

    fn cuStreamAddCallback(stream: u64, callback: Option<StreamCallback>, data: Place, _flags: u32) {
        let callback = callback.ok_or(Status::INVALID_VALUE)?;
        let status = {
            let mut device = hold();
            device.check_stream(stream)?;
            Status::of(device.synchronize())
        };
        callback(stream, status, data);
        Ok(())
    }

    fn cuLaunchHostFunc(stream: u64, function: Option<HostFunction>, data: Place) {
        hold().check_stream(stream)?;
        call_back(function, data)
    }

    fn cuEventCreate(out: Out<u64>, _flags: u32) {
        out.put(hold().event())
    }

    fn cuEventRecord(event: u64, stream: u64) {
        let mut device = hold();
        device.check_stream(stream)?;
        device.record(event)
    }

    fn cuEventRecordWithFlags(event: u64, stream: u64, _flags: u32) {
        let mut device = hold();
        device.check_stream(stream)?;
        device.record(event)
    }

    fn cuEventQuery(event: u64) {
        hold().check_event(event)
    }

    fn cuEventSynchronize(event: u64) {
        let mut device = hold();
        device.check_event(event)?;
        device.synchronize()
    }

    fn cuEventDestroy_v2(event: u64) {
        hold().drop_event(event)
    }

    fn cuEventElapsedTime(out: Out<f32>, from: u64, to: u64) {
        out.put(hold().elapsed_ms(from, to)?)
    }

    fn cuEventElapsedTime_v2(out: Out<f32>, from: u64, to: u64) {
        out.put(hold().elapsed_ms(from, to)?)
    }
}
