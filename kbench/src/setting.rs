//! In which setting a block was taken: shape, distribution, state of the L2, timer. Leaves to others: who was timed
//! (`subject`), and what is made of blocks (`judge`).

use crate::evidence::{Block, Cache, Mode};
use crate::operator::Distribution;

/// How blocks were taken that may be compared: within one of these they differ by subject and round alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Setting<'a> {
    /// Shape.
    pub shape: &'a str,
    /// What the inputs were drawn like.
    pub distribution: Distribution,
    /// How the L2 was.
    pub cache: Cache,
    /// Timer.
    pub mode: Mode,
}

impl<'a> Setting<'a> {
    /// The usual state of the L2, which decides.
    pub fn hot(shape: &'a str, distribution: Distribution, mode: Mode) -> Setting<'a> {
        Setting { shape, distribution, cache: Cache::Hot, mode }
    }

    /// Other memory went through the L2 before each launch, which is timed as a call.
    pub fn cold(shape: &'a str, distribution: Distribution) -> Setting<'a> {
        Setting { shape, distribution, cache: Cache::Cold, mode: Mode::Call }
    }

    /// Of a block.
    pub fn of(block: &'a Block) -> Setting<'a> {
        Setting { shape: &block.shape, distribution: block.distribution, cache: block.cache, mode: block.mode }
    }

    /// The shape with its distribution, where that is not the usual one: `mission, outliers`.
    pub fn place(&self) -> String {
        match self.distribution {
            Distribution::Normal => self.shape.to_owned(),
            other => format!("{}, {}", self.shape, other.name()),
        }
    }

    /// What was timed: `kernel time`, `call time, cold L2`.
    pub fn timer(&self) -> String {
        format!("{} time{}", self.mode.name(), if self.cache.is_hot() { "" } else { ", cold L2" })
    }

    /// Both, less what is usual: `mission, outliers, call time`.
    pub fn name(&self) -> String {
        match (self.mode, self.cache) {
            (Mode::Kernel, Cache::Hot) => self.place(),
            _ => format!("{}, {}", self.place(), self.timer()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_named_by_what_is_unusual_of_it() {
        let mission = Setting::hot("mission", Distribution::Normal, Mode::Kernel);
        assert_eq!(mission.name(), "mission");
        let outliers = Setting { distribution: Distribution::Outliers, ..mission };
        assert_eq!(Setting { mode: Mode::Call, ..outliers }.name(), "mission, outliers, call time");
        assert_eq!(Setting::cold("long", Distribution::Normal).name(), "long, call time, cold L2");
    }
}
