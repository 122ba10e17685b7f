//! A gate: one threshold on one measured figure, and its state. Constructors compare so that NaN never passes, and a
//! figure that was not measured can only become `Deferred`. Leaves to others: which figures are gated (`judge`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deferral::Deferral;

/// The four states a gate can be in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "UPPERCASE")]
pub enum State {
    /// Measured, and on the right side.
    Pass,
    /// Measured, and on the wrong side.
    Fail,
    /// Not measured.
    Deferred(Deferral),
    /// Measured, but the evidence does not say which side.
    Inconclusive {
        /// Why not.
        why: String,
    },
}

impl State {
    /// `PASS`, `FAIL`, `DEFERRED`, `INCONCLUSIVE`.
    pub fn word(&self) -> &'static str {
        match self {
            State::Pass => "PASS",
            State::Fail => "FAIL",
            State::Deferred { .. } => "DEFERRED",
            State::Inconclusive { .. } => "INCONCLUSIVE",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Pass | State::Fail => f.write_str(self.word()),
            State::Deferred(deferral) => write!(f, "DEFERRED ({deferral})"),
            State::Inconclusive { why } => write!(f, "INCONCLUSIVE ({why})"),
        }
    }
}

/// What a gate is about; the decision tree asks in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It compiles.
    Build,
    /// It is what its name says, and not another variant under a new name.
    Identity,
    /// What ptxas reports.
    Resources,
    /// Errors against float64, finiteness, memory rules.
    Correctness,
    /// Time against the control.
    Performance,
    /// Somebody else's kernels were measured beside ours.
    Peers,
    /// What the profiler says.
    Profile,
}

/// One threshold on one figure of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The variant it judges.
    pub variant: String,
    /// What it is about.
    pub kind: Kind,
    /// Which figure, in words.
    pub figure: String,
    /// The shape, case or entry that decided, in words; empty where there is none.
    pub place: String,
    /// The figure as measured, with its unit; empty when it was not.
    pub measured: String,
    /// The threshold, with its unit.
    pub threshold: String,
    /// The state.
    #[serde(flatten)]
    pub state: State,
}

/// Which gate is being made; keeps constructors to two arguments and a value.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The variant.
    pub variant: &'a str,
    /// What it is about.
    pub kind: Kind,
    /// Which figure.
    pub figure: &'a str,
}

impl Subject<'_> {
    fn gate(&self, place: &str, measured: String, threshold: String, state: State) -> Gate {
        Gate {
            variant: self.variant.to_owned(),
            kind: self.kind,
            figure: self.figure.to_owned(),
            place: place.to_owned(),
            measured,
            threshold,
            state,
        }
    }

    /// PASS when `value <= limit`; NaN fails because no comparison with it is true.
    pub fn at_most(&self, place: &str, value: f64, limit: f64, unit: &str) -> Gate {
        let state = if value <= limit { State::Pass } else { State::Fail };
        self.gate(place, with_unit(value, unit), format!("<= {}", with_unit(limit, unit)), state)
    }

    /// PASS when `holds`.
    pub fn holds(&self, place: &str, measured: &str, threshold: &str, holds: bool) -> Gate {
        let state = if holds { State::Pass } else { State::Fail };
        self.gate(place, measured.to_owned(), threshold.to_owned(), state)
    }

    /// A gate whose state was worked out by the caller.
    pub fn with_state(&self, place: &str, measured: &str, threshold: &str, state: State) -> Gate {
        self.gate(place, measured.to_owned(), threshold.to_owned(), state)
    }

    /// Not measured.
    pub fn deferred(&self, threshold: &str, deferral: Deferral) -> Gate {
        self.gate("", String::new(), threshold.to_owned(), State::Deferred(deferral))
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    let number = significant(value);
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

/// A number with four significant digits, without an exponent in the range that reports use.
pub fn significant(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e9 {
        return format!("{value:.0}");
    }
    if !value.is_finite() {
        return format!("{value}");
    }
    let magnitude = value.abs().log10().floor() as i32;
    if magnitude < -5 {
        return format!("{value:.2e}");
    }
    format!("{value:.*}", (3 - magnitude).max(0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject = Subject { variant: "v", kind: Kind::Correctness, figure: "error" };

    #[test]
    fn nan_and_infinity_never_pass() {
        for bad in [f64::NAN, f64::INFINITY] {
            assert_eq!(SUBJECT.at_most("", bad, 0.01, "").state, State::Fail);
        }
        assert_eq!(SUBJECT.at_most("", 0.01, 0.01, "").state, State::Pass);
        assert_eq!(SUBJECT.at_most("", 0.01, f64::NAN, "").state, State::Fail);
    }

    #[test]
    fn numbers_read_well() {
        let cases = [
            (0.0, "0"),
            (120.0, "120"),
            (0.010_04, "0.01004"),
            (41.234_5, "41.23"),
            (1234.56, "1235"),
            (2.0e-9, "2.00e-9"),
        ];
        for (value, text) in cases {
            assert_eq!(significant(value), text);
        }
    }

    #[test]
    fn a_gate_survives_json() {
        let gate = SUBJECT.deferred("<= 1", Deferral::new("no GPU", "run it on one"));
        let json = serde_json::to_string(&gate).unwrap();
        assert!(json.contains(r#""state":"DEFERRED""#), "{json}");
        assert_eq!(serde_json::from_str::<Gate>(&json).unwrap(), gate);
    }
}
