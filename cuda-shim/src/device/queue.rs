//! Streams and events. Work is done when it is given, so that a stream is a name, and an event a time.

use std::collections::{HashMap, HashSet};

use super::Device;
use crate::status::{Call, Status};

/// Streams that are always there: the default one, and its two explicit names.
const DEFAULT_STREAMS: [u64; 3] = [0, 1, 2];
/// Handles are addresses of nothing.
const FIRST_HANDLE: u64 = 0x5_0000;
/// From one handle to the next.
const HANDLE_STEP: u64 = 16;

/// What was made.
#[derive(Debug, Default)]
pub struct Queue {
    streams: HashSet<u64>,
    /// When each was recorded, in nanoseconds of emulated time.
    events: HashMap<u64, Option<u64>>,
    made: u64,
}

impl Queue {
    fn handle(&mut self) -> u64 {
        self.made += 1;
        FIRST_HANDLE + self.made * HANDLE_STEP
    }
}

impl Device {
    /// A new stream.
    pub fn stream(&mut self) -> u64 {
        let handle = self.queue.handle();
        self.queue.streams.insert(handle);
        handle
    }

    /// Whether a stream is there.
    pub fn check_stream(&self, stream: u64) -> Call {
        let is_there = DEFAULT_STREAMS.contains(&stream) || self.queue.streams.contains(&stream);
        if is_there { Ok(()) } else { Err(Status::INVALID_HANDLE) }
    }

    /// Ends a stream.
    pub fn drop_stream(&mut self, stream: u64) -> Call {
        self.flush();
        if self.queue.streams.remove(&stream) { Ok(()) } else { Err(Status::INVALID_HANDLE) }
    }

    /// A new event.
    pub fn event(&mut self) -> u64 {
        let handle = self.queue.handle();
        self.queue.events.insert(handle, None);
        handle
    }

    /// Records an event: now.
    pub fn record(&mut self, event: u64) -> Call {
        let now = self.clock_ns;
        *self.queue.events.get_mut(&event).ok_or(Status::INVALID_HANDLE)? = Some(now);
        Ok(())
    }

    /// Whether an event is there; whoever was recorded has happened.
    pub fn check_event(&self, event: u64) -> Call {
        self.queue.events.get(&event).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    /// Ends an event.
    pub fn drop_event(&mut self, event: u64) -> Call {
        self.queue.events.remove(&event).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    /// Emulated milliseconds between two events.
    pub fn elapsed_ms(&self, from: u64, to: u64) -> Call<f32> {
        let at = |event: u64| self.queue.events.get(&event).copied().flatten().ok_or(Status::INVALID_HANDLE);
        Ok((at(to)? as f64 - at(from)? as f64).max(0.0) as f32 / 1e6)
    }
}
