//! The page `raw` of ncu's CSV: a row of names, a row of units, one row for each profiled launch. A cell that is no number
//! is a figure that is missing, never a zero.

use std::collections::BTreeMap;

use super::metrics::stall_reason;
use super::{Figure, Measured, Reading, Stall, Unit};

/// The CSV cannot be read as one profiled launch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CsvError {
    /// Text that is no CSV of ncu.
    #[error("it has no header with `Kernel Name`")]
    NoHeader,
    /// A row of another length than the header.
    #[error("row {row} has {found} cells, the header has {wanted}")]
    Ragged {
        /// Which, from 1.
        row: usize,
        /// Its cells.
        found: usize,
        /// The header's.
        wanted: usize,
    },
    /// None or several launches.
    #[error("it holds {0} launches, one was asked for")]
    Launches(usize),
}

/// Reads the one launch of a CSV.
pub fn read(text: &str) -> Result<Reading, CsvError> {
    // What ncu or the program printed before the header is no part of the table, nor are ncu's messages after it.
    let start = text.lines().position(|line| cells(line).iter().any(|c| c == NAME)).ok_or(CsvError::NoHeader)?;
    let of_table = |line: &&str| !line.trim().is_empty() && !line.starts_with("==");
    let rows: Vec<Vec<String>> = text.lines().skip(start).filter(of_table).map(cells).collect();
    let wanted = rows[0].len();
    if let Some((i, row)) = rows.iter().enumerate().find(|(_, row)| row.len() != wanted) {
        return Err(CsvError::Ragged { row: i + 1, found: row.len(), wanted });
    }
    let [names, units, launch] = rows.as_slice() else {
        return Err(CsvError::Launches(rows.len().saturating_sub(2)));
    };
    let columns = names.iter().zip(units.iter().zip(launch));
    let columns: BTreeMap<&str, (&str, &str)> =
        columns.map(|(name, (unit, cell))| (name.as_str(), (unit.as_str(), cell.as_str()))).collect();
    let text_of = |name: &str| columns.get(name).map_or(String::new(), |(_, cell)| (*cell).to_owned());
    let mut reading = Reading {
        kernel: text_of(NAME),
        grid: text_of("Grid Size"),
        block: text_of("Block Size"),
        figures: BTreeMap::new(),
        missing: BTreeMap::new(),
        stalls: stalls(&columns),
    };
    for figure in Figure::all() {
        match measure(figure, &columns) {
            Ok(measured) => drop(reading.figures.insert(figure, measured)),
            Err(why) => drop(reading.missing.insert(figure, why)),
        }
    }
    Ok(reading)
}

/// The column that makes a line the header.
const NAME: &str = "Kernel Name";

/// Cells of one line; a quoted cell may hold commas, and a doubled quote is one.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.trim_end_matches('\r').chars().peekable();
    while let Some(letter) = letters.next() {
        let cell = cells.last_mut().expect("there is always a cell");
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cell.push(other),
        }
    }
    cells
}

fn measure(figure: Figure, columns: &BTreeMap<&str, (&str, &str)>) -> Result<Measured, String> {
    let found = figure.metrics().iter().find_map(|metric| Some((*metric, *columns.get(metric)?)));
    let Some((metric, (unit, cell))) = found else {
        return Err(format!("neither this chip nor this ncu has {}", figure.metrics().join(" or ")));
    };
    let value = number(cell).ok_or_else(|| format!("{metric} is `{cell}`, which is no number"))?;
    let factor = factor(figure.unit(), unit).ok_or_else(|| format!("{metric} is in `{unit}`, which is not known"))?;
    let metric = metric.to_owned();
    Ok(Measured { value: value * factor, metric, raw: cell.to_owned(), raw_unit: unit.to_owned() })
}

/// A finite number, perhaps with commas between thousands. A comma anywhere else is no number of ours: a decimal comma
/// read as a separator would be off by powers of ten.
fn number(cell: &str) -> Option<f64> {
    let cell = cell.trim();
    let (whole, fraction) = cell.split_once('.').map_or((cell, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut groups = whole.trim_start_matches('-').split(',');
    let first = groups.next()?.len();
    let mut rest = groups.peekable();
    if rest.peek().is_some() && (!(1..=3).contains(&first) || !rest.all(|group| group.len() == 3)) {
        return None;
    }
    if fraction.is_some_and(|digits| digits.contains(',')) {
        return None;
    }
    cell.replace(',', "").parse::<f64>().ok().filter(|value| value.is_finite())
}

/// What a number in `unit` is multiplied with to be in `wanted`; `None` for a unit of another kind.
fn factor(wanted: Unit, unit: &str) -> Option<f64> {
    let table: &[(&str, f64)] = match wanted {
        Unit::Microseconds => &[
            ("ns", 1e-3),
            ("nsecond", 1e-3),
            ("us", 1.0),
            ("usecond", 1.0),
            ("ms", 1e3),
            ("msecond", 1e3),
            ("s", 1e6),
            ("second", 1e6),
        ],
        Unit::Megahertz => &[
            ("hz", 1e-6),
            ("Hz", 1e-6),
            ("Khz", 1e-3),
            ("Mhz", 1.0),
            ("MHz", 1.0),
            ("Ghz", 1e3),
            ("GHz", 1e3),
            ("cycle/second", 1e-6),
            ("cycle/nsecond", 1e3),
            ("cycle/ns", 1e3),
            ("cycle/usecond", 1.0),
            ("cycle/us", 1.0),
        ],
        Unit::Percent => &[("%", 1.0)],
        Unit::Bytes => &[("byte", 1.0), ("Kbyte", 1e3), ("Mbyte", 1e6), ("Gbyte", 1e9), ("Tbyte", 1e12)],
        Unit::Count => &[("", 1.0), ("inst", 1.0), ("sector", 1.0), ("wavefront", 1.0), ("request", 1.0)],
    };
    table.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

/// All stall reasons that hold a number, with their shares.
fn stalls(columns: &BTreeMap<&str, (&str, &str)>) -> Vec<Stall> {
    let reason = |(name, (_, cell)): (&&str, &(&str, &str))| {
        let ratio = name.ends_with(".ratio").then_some(name)?;
        Some((stall_reason(ratio)?.to_owned(), number(cell)?))
    };
    let found: Vec<(String, f64)> = columns.iter().filter_map(reason).collect();
    let total: f64 = found.iter().map(|(_, warps)| warps).sum();
    let share = |warps: f64| if total > 0.0 { warps / total } else { 0.0 };
    let stall = |(reason, warps): (String, f64)| Stall { reason, warps_per_issue: warps, share: share(warps) };
    let mut stalls: Vec<Stall> = found.into_iter().map(stall).collect();
    stalls.sort_by(|a, b| b.warps_per_issue.total_cmp(&a.warps_per_issue));
    stalls
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CSV of three columns beside the fixed ones.
    fn csv(names: [&str; 3], units: [&str; 3], cells: [&str; 3]) -> String {
        let row =
            |fixed: &str, rest: [&str; 3]| format!("{fixed},{}\n", rest.map(|cell| format!("\"{cell}\"")).join(","));
        [
            row("\"Kernel Name\",\"Grid Size\",\"Block Size\"", names),
            row("\"\",\"\",\"\"", units),
            row("\"sdpa\",\"(16, 16, 1)\",\"(128, 1, 1)\"", cells),
        ]
        .concat()
    }

    const TIME: &str = "gpu__time_duration.sum";
    const DRAM: &str = "dram__bytes.sum";
    const TENSOR: &str = "sm__inst_executed_pipe_tensor.sum";

    #[test]
    fn units_become_those_of_the_figure_and_thousands_are_understood() {
        let cases = [
            (TIME, "ns", "12,345", Figure::Time, 12.345),
            (TIME, "us", "12.345", Figure::Time, 12.345),
            (TIME, "ms", "1,234.5", Figure::Time, 1_234_500.0),
            (TIME, "second", "0.5", Figure::Time, 500_000.0),
            (DRAM, "byte", "1,234,567", Figure::DramBytes, 1_234_567.0),
            (DRAM, "Mbyte", "1.5", Figure::DramBytes, 1_500_000.0),
            (TENSOR, "inst", "65536", Figure::TensorInstructions, 65536.0),
            (TENSOR, "", "0", Figure::TensorInstructions, 0.0),
        ];
        for (metric, unit, cell, figure, value) in cases {
            let reading = read(&csv([metric, "a", "b"], [unit, "", ""], [cell, "", ""])).unwrap();
            let measured = &reading.figures[&figure];
            assert!((measured.value - value).abs() <= 1e-12 * value, "{cell} {unit}: {measured:?}");
            assert_eq!((measured.raw.as_str(), measured.raw_unit.as_str()), (cell, unit));
            assert_eq!(reading.grid, "(16, 16, 1)", "a quoted comma is no separator");
        }
    }

    #[test]
    fn what_is_no_number_of_ours_is_missing_with_its_reason_and_never_zero() {
        let cases = [
            (TIME, "ns", "n/a", "`n/a`, which is no number"),
            (TIME, "ns", "", "``, which is no number"),
            (TIME, "ns", "nan", "which is no number"),
            (TIME, "ns", "inf", "which is no number"),
            (TIME, "ns", "1,5", "which is no number"),
            (TIME, "ns", "1234,567", "which is no number"),
            (TIME, "ns", "1.234,5", "which is no number"),
            (TIME, "ns", "-,123", "which is no number"),
            (TIME, "parsec", "1", "in `parsec`, which is not known"),
            (TIME, "%", "1", "in `%`, which is not known"),
            ("other", "ns", "1", "neither this chip nor this ncu has gpu__time_duration.sum"),
        ];
        for (metric, unit, cell, why) in cases {
            let reading = read(&csv([metric, "a", "b"], [unit, "", ""], [cell, "", ""])).unwrap();
            assert!(!reading.figures.contains_key(&Figure::Time), "{cell} {unit}");
            assert!(reading.missing[&Figure::Time].contains(why), "{}", reading.missing[&Figure::Time]);
        }
    }

    #[test]
    fn stall_reasons_are_ordered_and_are_shares_of_all() {
        let name = |reason: &str| format!("smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio");
        let names = [name("wait"), name("barrier"), name("barrier_not_issued")];
        let text = csv([&names[0], &names[1], &names[2]], ["inst"; 3], ["1.0", "3.0", "3.0"]);
        let reading = read(&text).unwrap();
        let shares: Vec<(&str, f64)> = reading.stalls.iter().map(|s| (s.reason.as_str(), s.share)).collect();
        assert_eq!(shares, [("barrier", 0.75), ("wait", 0.25)]);
        assert_eq!(reading.stall_share(&["barrier", "sleeping"]), Some(0.75));
        assert_eq!(read(&csv(["a", "b", "c"], [""; 3], [""; 3])).unwrap().stall_share(&["wait"]), None);
    }

    #[test]
    fn a_table_that_is_not_one_launch_is_refused() {
        let good = csv([TIME, "a", "b"], ["ns", "", ""], ["1", "", ""]);
        let launch = good.lines().last().unwrap();
        let cases = [
            (String::new(), CsvError::NoHeader),
            ("==ERROR== x\n".to_owned(), CsvError::NoHeader),
            (good.replace(&format!("{launch}\n"), ""), CsvError::Launches(0)),
            (format!("{good}{launch}\n"), CsvError::Launches(2)),
            (format!("{good}\"a\",\"b\"\n"), CsvError::Ragged { row: 4, found: 2, wanted: 6 }),
        ];
        for (text, error) in cases {
            assert_eq!(read(&text).unwrap_err(), error, "{text}");
        }
        let noisy = format!("==PROF== Connected\nhello\n{good}==PROF== Disconnected\n");
        assert_eq!(read(&noisy).unwrap(), read(&good).unwrap());
    }
}
