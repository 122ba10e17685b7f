//! What a measurement means: samples, statistics, gates, decision, run schema and reports. Pure: opens no device.

#![warn(missing_docs)]

pub mod accept;
pub mod ceilings;
pub mod decision;
pub mod deferral;
pub mod evidence;
pub mod exit;
pub mod findings;
pub mod fleet;
pub mod format;
pub mod gate;
pub mod job;
pub mod judge;
pub mod key;
pub mod ledger;
pub mod legacy;
pub mod memory;
pub mod names;
pub mod occupancy;
pub mod operator;
pub mod ordered;
pub mod profile;
pub mod report;
pub mod resources;
pub mod selftest;
pub mod setting;
pub mod simulation;
pub mod subject;
pub mod suite;
pub mod tune;
pub mod variant;
