//! `accepted.json`: which variants were accepted, each by a run that said MERGE, and so what `control = "accepted"` in a
//! suite or gate file means. It lies beside that file and is tracked with it. Leaves to others: whether a run may be accepted
//! (`accept`), and whether a build is of the code that was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::operator::Distribution;
use stats::Interval;

/// The file's name.
pub const FILE: &str = "accepted.json";
/// The number of its format.
pub const FORMAT: u32 = 1;
/// What a suite calls its control where it means the variant that was accepted last.
pub const ACCEPTED: &str = "accepted";

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// [`FORMAT`].
    pub format: u32,
    /// What was accepted, oldest first.
    pub accepted: Vec<Accepted>,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { format: FORMAT, accepted: Vec::new() }
    }
}

/// A variant that became the control of a suite on a model of device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The suite.
    pub suite: String,
    /// The variant.
    pub variant: String,
    /// The control that it replaced.
    pub control: String,
    /// When it was accepted, RFC 3339, UTC.
    pub when: String,
    /// The run that says MERGE.
    pub run: String,
    /// That run's root: what `verify --root` holds it to.
    pub root: String,
    /// The commit of the run's sources, where git knew one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether they differed from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dirty: bool,
    /// The model of device that it was measured on.
    pub device: String,
    /// The compiler of its code.
    pub nvcc: String,
    /// SHA-256, hex, of its machine code with its constants and of what it is launched with, by architecture.
    pub code: BTreeMap<String, String>,
    /// Kernel times with a hot L2, as the run has them.
    pub figures: Vec<Figure>,
}

/// A time of an accepted variant, and of the control that it replaced, in one setting of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Shape.
    pub shape: String,
    /// What the inputs were drawn like.
    #[serde(default, skip_serializing_if = "Distribution::is_normal")]
    pub distribution: Distribution,
    /// Its median in microseconds.
    pub us: f64,
    /// The control's.
    pub control_us: f64,
    /// Its time over the control's in the same rounds, with the 95% interval.
    pub over_control: Interval,
}

/// Why a text is no `accepted.json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLedger {
    /// Of another form.
    #[error("it is not what it should be: {0}")]
    Text(String),
    /// Written by a newer program.
    #[error("it has format {0}, and this program reads format {FORMAT}; use the program that wrote it")]
    Format(u64),
}

impl Ledger {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Ledger, BadLedger> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| BadLedger::Text(e.to_string()))?;
        // Before anything else: a newer format may have fields that this one refuses.
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(BadLedger::Format(format)),
            None => return Err(BadLedger::Text("it has no format".to_owned())),
        }
        serde_json::from_value(value).map_err(|e| BadLedger::Text(e.to_string()))
    }

    /// What was accepted last for a suite, on whatever device.
    pub fn latest(&self, suite: &str) -> Option<&Accepted> {
        self.accepted.iter().rfind(|accepted| accepted.suite == suite)
    }

    /// The same on one model of device.
    pub fn latest_on(&self, suite: &str, device: &str) -> Option<&Accepted> {
        self.accepted.iter().rfind(|accepted| accepted.suite == suite && accepted.device == device)
    }

    /// The models of device on which a variant is what was accepted last for a suite.
    pub fn devices(&self, suite: &str, variant: &str) -> Vec<&str> {
        let mut devices: Vec<&str> = self.accepted.iter().map(|accepted| accepted.device.as_str()).collect();
        devices.sort_unstable();
        devices.dedup();
        devices.retain(|device| self.latest_on(suite, device).is_some_and(|latest| latest.variant == variant));
        devices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(suite: &str, variant: &str, device: &str) -> Accepted {
        Accepted {
            suite: suite.into(),
            variant: variant.into(),
            control: "old".into(),
            when: "2026-11-27T17:00:00Z".into(),
            run: "20261127T160000Z-abc1234-s".into(),
            root: "0".repeat(64),
            commit: None,
            dirty: false,
            device: device.into(),
            nvcc: "13.0.88".into(),
            code: BTreeMap::new(),
            figures: Vec::new(),
        }
    }

    #[test]
    fn the_last_of_a_suite_stands_and_each_device_has_its_own() {
        let accepted = vec![accepted("s", "a", "H100"), accepted("s", "a", "L4"), accepted("s", "b", "H100")];
        let ledger = Ledger { accepted, ..Ledger::default() };
        let variant = |found: Option<&Accepted>| found.map(|found| found.variant.clone());
        assert_eq!(variant(ledger.latest("s")).as_deref(), Some("b"));
        assert_eq!(variant(ledger.latest_on("s", "L4")).as_deref(), Some("a"));
        assert_eq!((ledger.devices("s", "b"), ledger.devices("s", "a")), (vec!["H100"], vec!["L4"]));
        assert_eq!((ledger.latest("t"), ledger.latest_on("s", "B200")), (None, None));
        assert_eq!(Ledger::parse(&serde_json::to_string(&ledger).unwrap()).unwrap(), ledger);
    }

    #[test]
    fn a_newer_file_is_refused_by_its_number_and_a_broken_one_by_what_is_wrong() {
        let refused = |text: &str| Ledger::parse(text).unwrap_err().to_string();
        assert!(refused("{\"format\": 2, \"new\": 1}").contains("format 2, and this program reads format 1"));
        assert!(refused("{\"accepted\": []}").contains("it has no format"));
        assert!(refused("{\"format\": 1, \"accepted\": [{\"suite\": \"s\"}]}").contains("missing field `variant`"));
        assert!(refused("[").contains("not what it should be"));
    }
}
