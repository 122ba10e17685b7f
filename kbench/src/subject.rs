//! Who is timed in a block: a variant or a peer, and in which of its arms. Leaves to others: what arms a round has.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a variant takes part in a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// As itself.
    #[default]
    Plain,
    /// Once more in the same round: the control against itself.
    Again,
    /// Each launch preceded by the quantiser, from FP16 originals.
    FromOriginals,
}

impl Arm {
    fn is_plain(&self) -> bool {
        *self == Arm::Plain
    }
}

/// Who is timed in a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// A variant, or a peer's backend as `torch/flash`.
    pub who: String,
    /// In which arm; peers have one.
    #[serde(default, skip_serializing_if = "Arm::is_plain")]
    pub arm: Arm,
}

impl Subject {
    /// A variant or a peer as itself.
    pub fn plain(who: impl Into<String>) -> Subject {
        Subject { who: who.into(), arm: Arm::Plain }
    }

    /// A variant's second block of a round.
    pub fn again(who: impl Into<String>) -> Subject {
        Subject { who: who.into(), arm: Arm::Again }
    }

    /// A variant from FP16 originals.
    pub fn from_originals(who: impl Into<String>) -> Subject {
        Subject { who: who.into(), arm: Arm::FromOriginals }
    }

    /// Whether it is somebody else's kernel.
    pub fn is_peer(&self) -> bool {
        is_peer(&self.who)
    }

    /// Whether it is this one as itself.
    pub fn is_plain(&self, who: &str) -> bool {
        self.arm == Arm::Plain && self.who == who
    }
}

/// Whether a name is a peer's: it names the peer and its backend, and no variant's name holds a slash.
pub fn is_peer(name: &str) -> bool {
    name.contains('/')
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arm = match self.arm {
            Arm::Plain => "",
            Arm::Again => "#aa",
            Arm::FromOriginals => "+quantise",
        };
        write!(f, "{}{arm}", self.who)
    }
}

impl From<&str> for Subject {
    fn from(who: &str) -> Subject {
        Subject::plain(who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_taken_for_an_arm() {
        let odd = Subject::plain("old#aa");
        assert!(odd != Subject::again("old") && odd.is_plain("old#aa") && !Subject::again("old").is_plain("old"));
        for subject in [odd, Subject::again("old"), Subject::from_originals("new"), Subject::plain("torch/flash")] {
            let json = serde_json::to_string(&subject).unwrap();
            assert_eq!(serde_json::from_str::<Subject>(&json).unwrap(), subject, "{json}");
        }
        assert_eq!(serde_json::to_string(&Subject::plain("old")).unwrap(), r#"{"who":"old"}"#);
        assert!(Subject::plain("torch/flash").is_peer() && !Subject::from_originals("new").is_peer());
    }
}
