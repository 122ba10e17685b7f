//! The table of a simulation, as documents hold it, and what it must show. Leaves to others: where it is written.

use std::fmt::Write;

use super::{ASKED, Cell, Noise, Scope, Tally, cells};

const HEADER: &str = "| judged | noise | true reduction | runs | PASS or MERGE | FAIL or VALID NEGATIVE | FIX | open |\n\
                      |---|---|---|---|---|---|---|---|\n";

/// Markdown, a row a cell; shares in percent.
pub fn table(tallies: &[(Cell, Tally)]) -> String {
    let mut text = HEADER.to_owned();
    for (cell, tally) in tallies {
        let percent = |count: u64| 100.0 * count as f64 / tally.runs.max(1) as f64;
        let open = tally.runs - tally.accepted - tally.negative - tally.fix;
        let _ = writeln!(
            text,
            "| {} | {} | {}% | {} | {:.2}% | {:.2}% | {:.2}% | {:.2}% |",
            cell.scope.name(),
            cell.noise.name(),
            cell.reduction,
            tally.runs,
            percent(tally.accepted),
            percent(tally.negative),
            percent(tally.fix),
            percent(open)
        );
    }
    text
}

/// Reads a table back; `None` where it is not one of exactly these cells.
pub fn parse(text: &str) -> Option<Vec<(Cell, Tally)>> {
    let rows = text.lines().skip_while(|line| !HEADER.starts_with(line) || line.is_empty()).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let row = |(cell, line): (Cell, &str)| {
        let words: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [scope, noise, reduction, runs, accepted, negative, fix, _] = words.try_into().ok()?;
        let runs: u64 = runs.parse().ok()?;
        let count = |share: &str| {
            let percent: f64 = share.trim_end_matches('%').parse().ok()?;
            Some((percent / 100.0 * runs as f64).round() as u64)
        };
        let tally = Tally { runs, accepted: count(accepted)?, negative: count(negative)?, fix: count(fix)? };
        let is_its = (scope, noise, reduction)
            == (cell.scope.name(), cell.noise.name().as_str(), format!("{}%", cell.reduction).as_str());
        is_its.then_some((cell, tally))
    };
    let lines: Vec<&str> = rows.collect();
    let cells = cells();
    (lines.len() == cells.len()).then(|| cells.into_iter().zip(lines).map(row).collect())?
}

/// What must hold of every table, and does not in this one.
pub fn missed_bars(tallies: &[(Cell, Tally)]) -> Vec<String> {
    let mut missed = Vec::new();
    for (cell, tally) in tallies {
        let share = |count: u64| count as f64 / tally.runs.max(1) as f64;
        let mut must = |holds: bool, what: &str| {
            if !holds {
                let Cell { scope, noise, reduction } = cell;
                missed.push(format!("{}, {}, true {reduction}%: {what}", scope.name(), noise.name()));
            }
        };
        must(tally.fix == 0, "nothing is FIXed for its time");
        must(cell.reduction > 0.0 || tally.accepted == 0, "the same kernel is never accepted");
        must(cell.reduction > 8.0 || share(tally.accepted) < 0.01, "under 1% are accepted");
        must(cell.reduction >= ASKED || share(tally.accepted) < 0.05, "under 5% are accepted");
        must(cell.reduction < 12.0 || share(tally.negative) <= 0.01, "at most 1% fail");
        let is_placed = matches!(cell.noise, Noise::Placed { .. });
        must(cell.reduction < 12.0 || !is_placed || share(tally.accepted) >= 0.8, "at least 80% are accepted");
        must(
            cell.reduction < 12.0 || cell.scope == Scope::Gate || tally.negative == 0,
            "an honest one is never refused",
        );
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tallies(accepted: u64) -> Vec<(Cell, Tally)> {
        let all = |cell: Cell| {
            let accepted = if cell.reduction < 12.0 { 0 } else { accepted };
            (cell, Tally { runs: 10_000, accepted, negative: 0, fix: 0 })
        };
        cells().into_iter().map(all).collect()
    }

    #[test]
    fn a_table_is_read_back_as_it_was_written() {
        let whole = tallies(9_876);
        let text = format!("words\n\n{}\nmore words\n", table(&whole));
        assert_eq!(parse(&text), Some(whole.clone()));
        assert_eq!(parse(&table(&whole[1..])), None, "a cell is missing");
        assert_eq!(parse(&text.replacen("drifting", "still", 1)), None);
    }

    #[test]
    fn every_bar_is_missed_by_a_table_that_misses_it() {
        assert_eq!(missed_bars(&tallies(9_000)), [""; 0]);
        assert!(missed_bars(&tallies(7_900)).iter().all(|bar| bar.ends_with("at least 80% are accepted")));
        let with = |reduction: f64, tally: Tally| {
            let cell = Cell { scope: Scope::Suite, noise: Noise::Placed { permille: 3 }, reduction };
            missed_bars(&[(cell, tally)]).len()
        };
        let runs = 10_000;
        assert_eq!(with(0.0, Tally { runs, accepted: 1, ..Tally::default() }), 1);
        assert_eq!(with(8.0, Tally { runs, accepted: 100, ..Tally::default() }), 1);
        assert_eq!(with(9.5, Tally { runs, accepted: 500, ..Tally::default() }), 1);
        assert_eq!(with(12.0, Tally { runs, accepted: 9_999, negative: 1, ..Tally::default() }), 1);
        assert_eq!(with(12.0, Tally { runs, accepted: 9_999, fix: 1, ..Tally::default() }), 1);
    }
}
