//! A gate: one threshold on one measured figure, and its state. Constructors compare so that NaN never passes, and a
//! figure that was not measured can only become `Deferred`. Leaves to others: which figures are gated (`judge`).

mod id;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::deferral::Deferral;
use crate::evidence::{Cache, Mode};
use crate::operator::Distribution;
use crate::setting::Setting;

pub use id::GateId;

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

/// What a number is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unit {
    /// A count, a ratio, an error.
    #[default]
    #[serde(rename = "")]
    One,
    /// 1024 bytes.
    #[serde(rename = "KiB")]
    Kib,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Hundredths.
    #[serde(rename = "%")]
    Percent,
}

impl Unit {
    fn is_one(&self) -> bool {
        *self == Unit::One
    }

    /// A number without its unit, but for the sign that is written on it.
    fn bare(self, value: f64) -> String {
        if self == Unit::Percent { format!("{value:.1}%") } else { significant(value) }
    }

    /// A number with its unit, and its interval behind it: how every number of a gate is written.
    fn text(self, value: f64, interval: Option<[f64; 2]>) -> String {
        let unit = match self {
            Unit::One | Unit::Percent => "",
            Unit::Kib => " KiB",
            Unit::Bytes => " bytes",
            Unit::Microseconds => " us",
        };
        let interval = interval.map(|[low, high]| format!(" [{}, {}]", self.bare(low), self.bare(high)));
        format!("{}{unit}{}", self.bare(value), interval.unwrap_or_default())
    }
}

/// The side that a value must be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Of the limit or below.
    AtMost,
    /// Of the limit or above.
    AtLeast,
}

/// The bound of a gate on a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Which side is the right one.
    pub side: Side,
    /// The bound, in the gate's unit.
    pub at: f64,
}

impl Limit {
    /// No more than this.
    pub fn at_most(at: f64) -> Limit {
        Limit { side: Side::AtMost, at }
    }

    /// No less than this.
    pub fn at_least(at: f64) -> Limit {
        Limit { side: Side::AtLeast, at }
    }

    /// Whether a value is on its side; NaN is on none.
    pub fn holds(&self, value: f64) -> bool {
        match self.side {
            Side::AtMost => value <= self.at,
            Side::AtLeast => value >= self.at,
        }
    }

    /// `<= 48 KiB`.
    pub fn text(&self, unit: Unit) -> String {
        let sign = match self.side {
            Side::AtMost => "<=",
            Side::AtLeast => ">=",
        };
        format!("{sign} {}", unit.text(self.at, None))
    }
}

/// One threshold on one figure of one variant. Its state may rest on more than the number: on an interval, or on another
/// figure that will do instead; the words say so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The variant it judges.
    pub variant: String,
    /// What it is about.
    pub kind: Kind,
    /// Which gate.
    pub id: GateId,
    /// The shape that it is asked of, where it is asked once for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// On time: what inputs were drawn like.
    #[serde(default, skip_serializing_if = "Distribution::is_normal")]
    pub distribution: Distribution,
    /// On time: by which timer.
    #[serde(default, skip_serializing_if = "Mode::is_kernel")]
    pub mode: Mode,
    /// On time: how the L2 was.
    #[serde(default, skip_serializing_if = "Cache::is_hot")]
    pub cache: Cache,
    /// Which figure, in words.
    pub figure: String,
    /// The shape, case or entry that decided, in words; empty where there is none.
    pub place: String,
    /// The figure as measured; absent where it was not, where it is no number, and where it is not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The interval of that value, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// The bound, where it is a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// What value, interval and bound are counted in.
    #[serde(default, skip_serializing_if = "Unit::is_one")]
    pub unit: Unit,
    /// The figure as measured, in words; empty when it was not.
    pub measured: String,
    /// The threshold, in words.
    pub threshold: String,
    /// The state.
    #[serde(flatten)]
    pub state: State,
}

/// What was measured: words, and the number in them where there is one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    words: String,
    value: Option<f64>,
    interval: Option<[f64; 2]>,
}

impl From<&str> for Reading {
    fn from(words: &str) -> Reading {
        Reading { words: words.to_owned(), ..Reading::default() }
    }
}

impl From<String> for Reading {
    fn from(words: String) -> Reading {
        Reading { words, ..Reading::default() }
    }
}

impl Reading {
    /// A number; its words are how the unit writes it.
    pub fn of(value: f64, interval: Option<[f64; 2]>, unit: Unit) -> Reading {
        Reading { words: unit.text(value, interval), value: Some(value), interval }
    }

    /// A number that is said in words of its own.
    pub fn said(value: f64, words: impl Into<String>) -> Reading {
        Reading { words: words.into(), value: Some(value), interval: None }
    }

    /// The same with more words after it.
    pub fn and(mut self, words: &str) -> Reading {
        self.words.push_str(words);
        self
    }
}

/// A gate whose measurement is still to come.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    variant: &'a str,
    id: GateId,
    of: &'a str,
    shape: Option<&'a str>,
    setting: Option<Setting<'a>>,
    limit: Option<Limit>,
    unit: Unit,
}

impl<'a> Draft<'a> {
    /// A gate of a variant.
    pub fn new(variant: &'a str, id: GateId) -> Draft<'a> {
        Draft { variant, id, of: "", shape: None, setting: None, limit: None, unit: Unit::One }
    }

    /// Of a shape.
    pub fn on(self, shape: &'a str) -> Draft<'a> {
        Draft { of: shape, shape: Some(shape), ..self }
    }

    /// Of what was timed in a setting.
    pub fn timed(self, setting: Setting<'a>) -> Draft<'a> {
        Draft { shape: Some(setting.shape), setting: Some(setting), ..self }
    }

    /// Of a peer.
    pub fn against(self, peer: &'a str) -> Draft<'a> {
        Draft { of: peer, ..self }
    }

    /// With a bound that is a number.
    pub fn limited(self, limit: Limit, unit: Unit) -> Draft<'a> {
        Draft { limit: Some(limit), unit, ..self }
    }

    /// The variant.
    pub fn variant(&self) -> &'a str {
        self.variant
    }

    /// A gate whose state was worked out by the caller.
    pub fn with_state(&self, place: &str, reading: impl Into<Reading>, threshold: &str, state: State) -> Gate {
        let reading = reading.into();
        let setting = self.setting.as_ref();
        // JSON has no word for what is not finite; the words of the gate have.
        let interval = reading.interval.filter(|ends| ends.iter().all(|end| end.is_finite()));
        Gate {
            variant: self.variant.to_owned(),
            kind: self.id.kind(),
            id: self.id,
            shape: self.shape.map(str::to_owned),
            distribution: setting.map(|s| s.distribution).unwrap_or_default(),
            mode: setting.map(|s| s.mode).unwrap_or_default(),
            cache: setting.map(|s| s.cache).unwrap_or_default(),
            figure: self.id.figure(&setting.map_or_else(|| self.of.to_owned(), Setting::name)),
            place: place.to_owned(),
            value: reading.value.filter(|value| value.is_finite()),
            interval,
            limit: self.limit.filter(|limit| limit.at.is_finite()),
            unit: self.unit,
            measured: reading.words,
            threshold: threshold.to_owned(),
            state,
        }
    }

    /// PASS when `value <= limit`; NaN fails because no comparison with it is true.
    pub fn at_most(&self, place: &str, value: f64, limit: f64, unit: Unit) -> Gate {
        let limit = Limit::at_most(limit);
        let reading = Reading::of(value, None, unit);
        self.limited(limit, unit).holds(place, reading, &limit.text(unit), limit.holds(value))
    }

    /// PASS when `holds`.
    pub fn holds(&self, place: &str, reading: impl Into<Reading>, threshold: &str, holds: bool) -> Gate {
        self.with_state(place, reading, threshold, if holds { State::Pass } else { State::Fail })
    }

    /// Not measured.
    pub fn deferred(&self, threshold: &str, deferral: Deferral) -> Gate {
        self.with_state("", "", threshold, State::Deferred(deferral))
    }
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
    if !(-5..9).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    format!("{value:.*}", (3 - magnitude).max(0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft<'static> {
        Draft::new("v", GateId::KernelErrorMax)
    }

    #[test]
    fn nan_and_infinity_never_pass() {
        for bad in [f64::NAN, f64::INFINITY] {
            assert_eq!(draft().at_most("", bad, 0.01, Unit::One).state, State::Fail);
        }
        assert_eq!(draft().at_most("", 0.01, 0.01, Unit::One).state, State::Pass);
        assert_eq!(draft().at_most("", 0.01, f64::NAN, Unit::One).state, State::Fail);
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
            (f64::MAX, "1.80e308"),
        ];
        for (value, text) in cases {
            assert_eq!(significant(value), text);
        }
    }

    #[test]
    fn a_gate_survives_json() {
        let gate = draft().deferred("<= 1", Deferral::new("no GPU", "run it on one"));
        let json = serde_json::to_string(&gate).unwrap();
        assert!(json.contains(r#""state":"DEFERRED""#), "{json}");
        assert_eq!(serde_json::from_str::<Gate>(&json).unwrap(), gate);
        for (value, limit) in [(41.3, 48.0), (f64::NAN, 48.0), (f64::INFINITY, f64::NAN)] {
            let gate = draft().at_most("here", value, limit, Unit::Kib);
            let json = serde_json::to_string(&gate).unwrap();
            assert_eq!(serde_json::from_str::<Gate>(&json).unwrap(), gate, "{json}");
        }
    }

    #[test]
    fn numbers_are_written_with_their_unit_and_interval() {
        let shown = |unit| Reading::of(12.5, Some([12.0, 13.0]), unit).words;
        assert_eq!(shown(Unit::One), "12.50 [12, 13]");
        assert_eq!(shown(Unit::Microseconds), "12.50 us [12, 13]");
        assert_eq!(shown(Unit::Percent), "12.5% [12.0%, 13.0%]");
        assert_eq!(Limit::at_least(10.0).text(Unit::Percent), ">= 10.0%");
        assert_eq!(Limit::at_most(48.0).text(Unit::Kib), "<= 48 KiB");
        let gate = draft().at_most("", 41.25, 48.0, Unit::Kib);
        assert_eq!((gate.measured.as_str(), gate.threshold.as_str()), ("41.25 KiB", "<= 48 KiB"));
        assert_eq!((gate.value, gate.limit.map(|l| l.at), gate.unit), (Some(41.25), Some(48.0), Unit::Kib));
    }
}
