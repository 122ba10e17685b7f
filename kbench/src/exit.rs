//! What a process's exit status says, and which meaning stands where several hold. Every command folds its outcome here.
//! Leaves to others: what a command found.

use std::process::ExitCode;

/// The meaning of an exit status. The order is that of precedence: the largest of several is the process's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// 0: every candidate MERGEs; the command did what it was asked.
    #[default]
    Good,
    /// 4: a candidate is right and not worth merging.
    ValidNegative,
    /// 3: something was not measured, or not settled.
    Deferred,
    /// 1: something must be mended, was found, or became worse.
    Fix,
    /// 2: wrong usage or environment; nothing was judged.
    Environment,
}

impl Exit {
    /// The number that a shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Good => 0,
            Exit::Fix => 1,
            Exit::Environment => 2,
            Exit::Deferred => 3,
            Exit::ValidNegative => 4,
        }
    }

    /// Of several, the one that stands; of none, [`Exit::Good`].
    pub fn of_all(all: impl IntoIterator<Item = Exit>) -> Exit {
        all.into_iter().max().unwrap_or_default()
    }

    /// [`Exit::Fix`] where something is wrong.
    pub fn fix_if(wrong: bool) -> Exit {
        if wrong { Exit::Fix } else { Exit::Good }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_the_order_is_two_one_three_four_zero() {
        let mut left = vec![Exit::Good, Exit::Fix, Exit::Environment, Exit::Deferred, Exit::ValidNegative];
        let mut order = Vec::new();
        while !left.is_empty() {
            let worst = Exit::of_all(left.iter().copied());
            left.retain(|exit| *exit != worst);
            order.push(worst.code());
        }
        assert_eq!(order, [2, 1, 3, 4, 0]);
        assert_eq!(Exit::of_all([]), Exit::Good);
    }
}
