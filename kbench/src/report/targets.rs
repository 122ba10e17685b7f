//! The table of targets: for each shape that a suite limits in microseconds on the device of the run, the limit, the time,
//! and the fastest peer of the run. What passes is the gates' to say; this is where a person looks first.

use super::{Comparison, RunView, strings};
use crate::evidence::Mode;
use crate::gate::significant;
use crate::judge::ratio;
use crate::subject::Subject;

/// One row for each limit and candidate; only the header where nothing is limited on this device, or nothing was timed.
pub(super) fn rows(view: &RunView, comparisons: &[Comparison]) -> Vec<Vec<String>> {
    let suite = view.suite;
    let baseline = suite.peers.as_ref().map(|limit| limit.baseline.as_str());
    let mut rows = vec![strings(&["shape", "B x H x S x D", "variant", "must us", "measured us p50"])];
    rows[0].extend(strings(&["best peer", "its us p50", "time / best peer", "from FP16 us p50"]));
    rows[0].push(format!("{} us p50", baseline.unwrap_or("baseline")));
    let device = view.evidence.samples.device.as_ref().map(|d| d.name.as_str());
    let of = |shape: &str, subject: Subject| {
        comparisons.iter().find(|c| c.mode == Mode::Kernel && c.shape == shape && c.subject == subject)
    };
    let time = |c: Option<&Comparison>| c.map_or("-".to_owned(), |c| significant(c.time_us.p50));
    for limit in suite.absolute.iter().filter(|limit| device == Some(limit.device.as_str())) {
        let shape = limit.shape.as_str();
        let peers = comparisons.iter().filter(|c| c.mode == Mode::Kernel && c.shape == shape && c.subject.is_peer());
        let best = peers.min_by(|a, b| a.time_us.p50.total_cmp(&b.time_us.p50));
        for candidate in &suite.candidates {
            let variant = candidate.variant.as_str();
            let ratio = best.and_then(|best| {
                let blocks = &view.evidence.samples.blocks;
                ratio(blocks, &best.setting(), [&Subject::plain(variant), &best.subject])
            });
            let ratio = ratio.map(|r| [r.estimate, r.low, r.high].map(significant));
            rows.push(vec![
                shape.to_owned(),
                suite.shape(shape).map_or_else(|_| String::new(), |shape| suite.operator.sizes_as_product(&shape)),
                variant.to_owned(),
                significant(limit.max_p50_us),
                time(of(shape, Subject::plain(variant))),
                best.map_or("-".to_owned(), |best| best.subject.to_string()),
                time(best),
                ratio.map_or("-".to_owned(), |[at, low, high]| format!("{at} [{low}, {high}]")),
                time(of(shape, Subject::from_originals(variant))),
                time(baseline.and_then(|peer| of(shape, Subject::plain(peer)))),
            ]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{compare, testing};
    use crate::report::testing::with_view_of;
    use crate::suite::AbsoluteLimit;

    #[test]
    fn a_row_holds_the_limit_the_time_and_the_fastest_peer() {
        let mut suite = testing::suite();
        let limit = |device: &str, us| AbsoluteLimit {
            device: device.into(),
            shape: "mission".into(),
            max_p50_us: us,
            required: false,
        };
        suite.absolute = vec![limit("NVIDIA L4", 85.0), limit("NVIDIA H200", 5.0)];
        let mut evidence = testing::evidence();
        for round in 0..16 {
            for (peer, us) in [("torch/flash", 160.0), ("cudnn/fp8", 100.0)] {
                evidence.samples.blocks.push(testing::block(peer, round, Mode::Kernel, us));
            }
            let quantised = Subject::from_originals("new");
            evidence.samples.blocks.push(testing::block(quantised, round, Mode::Kernel, 90.0));
        }
        with_view_of(&suite, &evidence, |view| {
            let rows = rows(view, &compare(view.suite, &view.evidence.samples));
            assert_eq!(rows.len(), 2, "the limit of another device has no row");
            assert_eq!(rows[0].len(), rows[1].len());
            assert_eq!(rows[1][..4], strings(&["mission", "2 x 8 x 512 x 64", "new", "85"]));
            assert_eq!(rows[1][5], "cudnn/fp8");
            assert!(rows[1][7].starts_with("0.8"), "{:?}", rows[1]);
            assert!(rows[1][8].starts_with("89.") || rows[1][8].starts_with("90"), "{:?}", rows[1]);
            assert_eq!(rows[1][9], "-", "the baseline was not timed");
        });
    }
}
