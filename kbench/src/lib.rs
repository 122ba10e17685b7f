//! What a measurement means: samples, statistics, gates, decision, run schema and reports. Pure: opens no device.

pub mod resources;
