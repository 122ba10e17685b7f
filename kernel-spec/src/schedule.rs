//! The order in which an emulator runs the warps of a CTA and lets CTAs act on what they share, and its text form. A race
//! that one order hides shows in another, and the text replays it. Leaves to others: running them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Order in which an emulator runs the warps of a CTA, and CTAs beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// Each warp, and each CTA, in turn for a short while.
    RoundRobin,
    /// Each warp as far as it can go, lowest first: the largest skew.
    Greedy,
    /// As greedy, highest warp and CTA first.
    Reverse,
    /// Random switches between warps and between CTAs; the seed replays them.
    Seeded(u64),
}

/// The text names no schedule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown schedule `{0}`: use greedy, reverse, round-robin or seeded:N")]
pub struct UnknownSchedule(String);

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::RoundRobin => f.write_str("round-robin"),
            Schedule::Greedy => f.write_str("greedy"),
            Schedule::Reverse => f.write_str("reverse"),
            Schedule::Seeded(seed) => write!(f, "seeded:{seed}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = UnknownSchedule;

    fn from_str(text: &str) -> Result<Schedule, UnknownSchedule> {
        match (text, text.strip_prefix("seeded:").map(str::parse)) {
            ("round-robin", _) => Ok(Schedule::RoundRobin),
            ("greedy", _) => Ok(Schedule::Greedy),
            ("reverse", _) => Ok(Schedule::Reverse),
            (_, Some(Ok(seed))) => Ok(Schedule::Seeded(seed)),
            _ => Err(UnknownSchedule(text.to_owned())),
        }
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Schedule, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_survive_their_text() {
        for schedule in [Schedule::RoundRobin, Schedule::Greedy, Schedule::Reverse, Schedule::Seeded(77)] {
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
            let json = serde_json::to_string(&schedule).unwrap();
            assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
        }
        for wrong in ["", "seeded", "seeded:x", "Greedy"] {
            assert!(wrong.parse::<Schedule>().unwrap_err().to_string().contains("use greedy"));
        }
    }
}
