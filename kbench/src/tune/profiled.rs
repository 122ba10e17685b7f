//! What the profiler says of elites, as a proposer is told it and as the built-in search heeds it. Leaves to others:
//! running the profiler, and the rules (`crate::profile`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::{Line, Plan};
use crate::deferral::Deferral;
use crate::profile::{Diagnosis, Figure, Reading, diagnose};

/// Stall reasons that are told, the largest first.
const STALLS: usize = 5;

/// What the profiler says of one configuration on the timed shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileInsight {
    /// What holds it back first, in one line.
    pub headline: String,
    /// Every rule that holds, with its figures and what to try.
    pub diagnosis: Diagnosis,
    /// The toggles that this speaks of, the likeliest first.
    pub toggles: Vec<String>,
    /// Figures that were measured, in their own units.
    pub figures: BTreeMap<Figure, f64>,
    /// The largest shares of the reasons for which warps did not issue, 0 to 1.
    pub stalls: Vec<(String, f64)>,
}

impl ProfileInsight {
    /// What a reading says.
    pub fn of(reading: &Reading) -> ProfileInsight {
        let diagnosis = diagnose(reading);
        ProfileInsight {
            headline: diagnosis.headline(),
            toggles: diagnosis.toggles(),
            diagnosis,
            figures: reading.figures.iter().map(|(figure, measured)| (*figure, measured.value)).collect(),
            stalls: reading.stalls.iter().take(STALLS).map(|stall| (stall.reason.clone(), stall.share)).collect(),
        }
    }
}

/// The configurations of a journal that were profiled, by name.
pub fn profile_insights(lines: &[Line]) -> BTreeMap<String, ProfileInsight> {
    let of = |line: &Line| match line {
        Line::Profiled(profiled) => {
            let reading = profiled.kernel.reading.as_ref()?;
            Some((profiled.kernel.variant.clone(), ProfileInsight::of(reading)))
        }
        _ => None,
    };
    lines.iter().filter_map(of).collect()
}

/// Why elites were not profiled in the last session although that was asked for.
pub(super) fn not_profiled(plan: &Plan, lines: &[Line]) -> Option<Deferral> {
    let begin = lines.iter().rposition(|l| matches!(l, Line::Session { .. })).unwrap_or(0);
    let deferred = lines[begin..].iter().find_map(|line| match line {
        Line::Profiled(profiled) => profiled.kernel.deferred.clone(),
        _ => None,
    });
    let none = plan.ncu && !lines.iter().any(|line| matches!(line, Line::Profiled(_)));
    let no_elite = || Deferral::new("there was no elite to profile", "search where configurations are timed");
    deferred.or_else(|| none.then(no_elite))
}
