//! Why something was not measured, and what to do so that it is. Everything that can be deferred carries one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reason and its remedy; as text they are joined by a semicolon, and never taken apart again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Deferral {
    /// Why it was not measured.
    pub why: String,
    /// What to do so that it is; empty where nothing can be done.
    #[serde(default)]
    pub remedy: String,
}

impl Deferral {
    /// A reason with its remedy.
    pub fn new(why: impl Into<String>, remedy: impl Into<String>) -> Deferral {
        Deferral { why: why.into(), remedy: remedy.into() }
    }

    /// A reason that has no remedy.
    pub fn because(why: impl Into<String>) -> Deferral {
        Deferral::new(why, "")
    }
}

impl fmt::Display for Deferral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remedy.as_str() {
            "" => f.write_str(&self.why),
            remedy => write!(f, "{}; {remedy}", self.why),
        }
    }
}

impl std::error::Error for Deferral {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_holds_a_semicolon_keeps_it() {
        let deferral = Deferral::new("killed (signal 9; by hand)", "run it again");
        assert_eq!(deferral.to_string(), "killed (signal 9; by hand); run it again");
        let json = serde_json::to_string(&deferral).unwrap();
        assert_eq!(serde_json::from_str::<Deferral>(&json).unwrap(), deferral);
        assert_eq!(Deferral::because("emulated only").to_string(), "emulated only");
    }
}
