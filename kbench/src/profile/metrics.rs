//! The figures of a profile and the metrics that give them. Names differ by chip and by version of ncu, so each figure
//! has an ordered list of names, of which the first that ncu says it has is asked for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What is asked of the profiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// Duration of the launch under the profiler; never gated, see [`crate::evidence::Samples`] for times.
    Time,
    /// SM clock while it ran.
    SmClock,
    /// Share of the launch in which an SM had work, over all SMs.
    SmActive,
    /// Share of active cycles in which the tensor pipe worked.
    TensorActive,
    /// The same of all cycles, idle SMs included.
    TensorElapsed,
    /// Warp instructions for the tensor pipe.
    TensorInstructions,
    /// Use of the pipe that computes exponentials and conversions.
    XuPipe,
    /// Use of the FMA pipe.
    FmaPipe,
    /// Use of the ALU pipe.
    AluPipe,
    /// Share of active cycles in which a scheduler issued.
    IssueActive,
    /// Device memory throughput, of its peak.
    DramThroughput,
    /// Bytes to and from device memory.
    DramBytes,
    /// L1 sectors of loads and stores.
    L1LsuSectors,
    /// L2 sectors.
    L2Sectors,
    /// L2 throughput, of its peak.
    L2Throughput,
    /// Passes of shared-memory instructions through the data stage.
    SharedWavefronts,
    /// Those of them that only bank conflicts made necessary.
    BankConflicts,
    /// Warps on an active SM, of the most it can hold.
    AchievedOccupancy,
    /// The most that registers, shared memory and CTA size allow, of the most an SM can hold.
    TheoreticalOccupancy,
    /// CTAs over the CTAs that all SMs hold at once.
    Waves,
}

/// The unit in which a figure is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Microseconds,
    /// Megahertz.
    Megahertz,
    /// Percent.
    Percent,
    /// Bytes.
    Bytes,
    /// A count of what the figure counts.
    Count,
}

/// A figure, its label and unit, and its metrics from best to last.
struct Row {
    figure: Figure,
    label: &'static str,
    unit: Unit,
    metrics: &'static [&'static str],
}

const fn row(figure: Figure, label: &'static str, unit: Unit, metrics: &'static [&'static str]) -> Row {
    Row { figure, label, unit, metrics }
}

/// In the order of reports. Where a chip has a metric with `_v2`, ncu calls the one without it deprecated.
const ROWS: &[Row] = &[
    row(Figure::Time, "time under the profiler, us", Unit::Microseconds, &["gpu__time_duration.sum"]),
    row(
        Figure::SmClock,
        "SM clock, MHz",
        Unit::Megahertz,
        &["smsp__cycles_elapsed.avg.per_second", "sm__cycles_elapsed.avg.per_second"],
    ),
    row(
        Figure::SmActive,
        "SMs with work, % of the launch",
        Unit::Percent,
        &["sm__cycles_active.avg.pct_of_peak_sustained_elapsed"],
    ),
    row(
        Figure::TensorActive,
        "tensor pipe, % of active cycles",
        Unit::Percent,
        &[
            "sm__pipe_tensor_cycles_active_v2.avg.pct_of_peak_sustained_active",
            "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
            "sm__inst_executed_pipe_tensor_v2.avg.pct_of_peak_sustained_active",
            "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
        ],
    ),
    row(
        Figure::TensorElapsed,
        "tensor pipe, % of all cycles",
        Unit::Percent,
        &[
            "sm__pipe_tensor_cycles_active_v2.avg.pct_of_peak_sustained_elapsed",
            "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
            "sm__inst_executed_pipe_tensor_v2.avg.pct_of_peak_sustained_elapsed",
            "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_elapsed",
        ],
    ),
    row(
        Figure::TensorInstructions,
        "tensor instructions",
        Unit::Count,
        &["sm__inst_executed_pipe_tensor_v2.sum", "sm__inst_executed_pipe_tensor.sum"],
    ),
    row(
        Figure::XuPipe,
        "XU pipe (exponentials, conversions), %",
        Unit::Percent,
        &["sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active"],
    ),
    row(
        Figure::FmaPipe,
        "FMA pipe, %",
        Unit::Percent,
        &[
            "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
            "sm__inst_executed_pipe_fma.avg.pct_of_peak_sustained_active",
        ],
    ),
    row(
        Figure::AluPipe,
        "ALU pipe, %",
        Unit::Percent,
        &[
            "sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_active",
            "sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_active",
        ],
    ),
    row(
        Figure::IssueActive,
        "issue slots used, %",
        Unit::Percent,
        &["smsp__issue_active.avg.pct_of_peak_sustained_active", "sm__inst_issued.avg.pct_of_peak_sustained_active"],
    ),
    row(
        Figure::DramThroughput,
        "DRAM throughput, % of peak",
        Unit::Percent,
        &[
            "dram__throughput.avg.pct_of_peak_sustained_elapsed",
            "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
        ],
    ),
    row(Figure::DramBytes, "DRAM bytes", Unit::Bytes, &["dram__bytes.sum"]),
    row(
        Figure::L1LsuSectors,
        "L1 sectors of loads and stores",
        Unit::Count,
        &["l1tex__t_sectors_pipe_lsu.sum", "l1tex__t_sectors.sum"],
    ),
    row(Figure::L2Sectors, "L2 sectors", Unit::Count, &["lts__t_sectors.sum"]),
    row(
        Figure::L2Throughput,
        "L2 throughput, % of peak",
        Unit::Percent,
        &["lts__throughput.avg.pct_of_peak_sustained_elapsed"],
    ),
    row(
        Figure::SharedWavefronts,
        "shared-memory wavefronts",
        Unit::Count,
        &["l1tex__data_pipe_lsu_wavefronts_mem_shared.sum"],
    ),
    row(
        Figure::BankConflicts,
        "shared-memory bank conflicts",
        Unit::Count,
        &["l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"],
    ),
    row(
        Figure::AchievedOccupancy,
        "achieved occupancy, %",
        Unit::Percent,
        &["sm__warps_active.avg.pct_of_peak_sustained_active"],
    ),
    row(
        Figure::TheoreticalOccupancy,
        "theoretical occupancy, %",
        Unit::Percent,
        &["sm__maximum_warps_per_active_cycle_pct"],
    ),
    row(Figure::Waves, "waves of CTAs", Unit::Count, &["launch__waves_per_multiprocessor"]),
];

impl Figure {
    /// Every figure, in the order of reports.
    pub fn all() -> impl Iterator<Item = Figure> {
        ROWS.iter().map(|row| row.figure)
    }

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.figure == self).expect("every figure has a row; a test goes through them")
    }

    /// Its words in reports, with the unit.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// Its unit.
    pub fn unit(self) -> Unit {
        self.row().unit
    }

    /// The metrics that give it, from best to last.
    pub fn metrics(self) -> &'static [&'static str] {
        self.row().metrics
    }
}

/// Around the reason in the names of the stall metrics.
const STALL: (&str, &str) = ("smsp__average_warps_issue_stalled_", "_per_issue_active");

/// The reason that a stall metric counts. Not the same reasons counted only while nothing was issued, nor the parts of a
/// reason by pipe: together with the whole they would count twice.
pub(super) fn stall_reason(metric: &str) -> Option<&str> {
    let base = metric.split('.').next()?;
    let reason = base.strip_prefix(STALL.0)?.strip_suffix(STALL.1)?;
    let partial = ["_not_issued", "_pipe_l1tex", "_pipe_mio"].iter().any(|end| reason.ends_with(end));
    (!partial).then_some(reason)
}

/// Names of metrics, without their suffixes, in what `ncu --query-metrics` prints. Indented lines go on with a description,
/// which may name other metrics.
pub fn available(query: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let word = line.split(' ').next()?;
        let plain = word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        (plain && word.contains("__")).then(|| word.to_owned())
    };
    query.lines().filter_map(name).collect()
}

/// What to ask for: the first metric of each figure that is available, and every stall reason.
pub fn choose(available: &BTreeSet<String>) -> Vec<String> {
    let has = |metric: &&&str| metric.split('.').next().is_some_and(|base| available.contains(base));
    let figures = ROWS.iter().filter_map(|row| row.metrics.iter().find(has)).map(|metric| (*metric).to_owned());
    let stalls = available.iter().filter(|base| stall_reason(base).is_some()).map(|base| format!("{base}.ratio"));
    figures.chain(stalls).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_one_row_with_whole_metric_names() {
        for figure in Figure::all() {
            assert_eq!(ROWS.iter().filter(|row| row.figure == figure).count(), 1, "{figure:?}");
            assert_eq!(figure.row().figure, figure);
            assert!(!figure.metrics().is_empty());
            for metric in figure.metrics() {
                let base = metric.split('.').next().unwrap();
                assert!(available(base).contains(base), "{metric}");
                let percent = metric.contains("pct_of_peak") || metric.ends_with("_pct");
                assert_eq!(percent, figure.unit() == Unit::Percent, "{metric} and its unit");
            }
        }
    }

    #[test]
    fn the_first_name_that_is_there_is_asked_for_and_none_that_is_not() {
        let query = "Device NVIDIA X (GX100)\n-----\nMetric Name   Metric Type  Metric Unit\n\
                     gpu__time_duration          Counter  ns   How long\n\
                     gpu__dram_throughput        Throughput  %  DRAM\n\
                     smsp__average_warps_issue_stalled_wait_per_issue_active Ratio\n\
                     smsp__average_warps_issue_stalled_wait_not_issued_per_issue_active Ratio\n\
                     sm__pipe_tensor_cycles_active   Counter  cycle  [DEPRECATED: use\n\
                     \x20                             sm__pipe_tensor_cycles_active_v2 instead]\n";
        let expected = [
            "gpu__time_duration.sum",
            "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
            "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
            "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
            "smsp__average_warps_issue_stalled_wait_per_issue_active.ratio",
        ];
        assert_eq!(choose(&available(query)), expected);
        assert_eq!(choose(&available("==ERROR== no device")), [""; 0]);
    }
}
