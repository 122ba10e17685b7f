//! The roofline of a timed shape: work a second over work a byte, below the bound that follows from the device. Only what
//! was measured is a mark, and no ceiling is drawn that nobody measured or derived.

use super::svg::{Anchor, Scale, Svg, extent};
use super::timing::{self, Role, Row};
use super::{RunView, page};
use crate::evidence::Device;
use crate::gate::significant;
use crate::operator::{Cost, Shape};

/// FLOP a byte.
fn intensity(cost: &Cost) -> f64 {
    cost.flops / cost.bytes
}

/// TFLOP/s of a time in microseconds.
fn tflops(cost: &Cost, us: f64) -> f64 {
    cost.flops / us / 1e6
}

/// The roofline of one shape. Axes are those of all timed shapes, so that the rooflines of one run can be laid beside each other.
pub(super) fn figure(view: &RunView, device: &Device, rows: &[Row], shape: &Shape) -> String {
    let operator = &view.suite.operator;
    // Both axes are logarithmic: work of no operations, or of no bytes, has no place on them.
    let Some(cost) = &operator.cost(shape).filter(|cost| cost.flops > 0.0 && cost.bytes > 0.0) else {
        return "<p>No roofline: the operator does not say what it costs in operations and bytes.</p>\n".to_owned();
    };
    let timed: Vec<(&Row, f64)> = rows
        .iter()
        .filter(|r| r.role != Role::Again)
        .filter_map(|r| Some((r, tflops(cost, r.p50.filter(|us| *us > 0.0)?))))
        .collect();
    let (Some((least, _)), bound) =
        (extent(&timed.iter().map(|t| t.1).collect::<Vec<_>>()), tflops(cost, device.floor_us(cost)))
    else {
        return "<p>No roofline: nothing was timed in kernel mode.</p>\n".to_owned();
    };
    let intensities: Vec<f64> = view.suite.time().iter().filter_map(|s| Some(intensity(&operator.cost(s)?))).collect();
    let (narrow, wide) = extent(&intensities).unwrap_or((intensity(cost), intensity(cost)));
    let (left, right, top, bottom) = (56.0, 340.0, 26.0, 296.0);
    let mut svg = Svg::new(560.0, 338.0, &format!("Roofline of {}", shape.name));
    let x = Scale::log((narrow / 3.0, wide * 3.0), (left, right));
    let y = Scale::log((least.min(1.0) / 1.5, bound * 2.0), (bottom, top));
    svg.y_axis(&y, (left, right), 6);
    svg.x_axis(&x, (top, bottom), "FLOP / byte (logarithmic axis)");
    svg.text("aside", Anchor::Start, (4.0, top - 8.0), "TFLOP/s (logarithmic axis)");
    svg.text("aside", Anchor::Start, (right + 14.0, top - 8.0), "TFLOP/s (% of the bound)");
    svg.line("bound", (left, y.at(bound)), (right, y.at(bound)));
    let above = format!("theoretical bound {} TFLOP/s", significant(bound));
    svg.text("name", Anchor::Start, (left + 6.0, y.at(bound) - 10.0), &above);
    let measured = view.evidence.ceilings.as_ref().filter(|c| c.device.uuid == device.uuid);
    let rates = measured.and_then(|c| Some((c.fp8_flops()?, c.memory_bytes()?)));
    if let Some((flops, bytes)) = rates {
        let below = |intensity: f64| y.at((bytes * intensity).min(flops) / 1e12);
        let corners = [narrow / 3.0, flops / bytes, wide * 3.0].map(|i| i.clamp(narrow / 3.0, wide * 3.0));
        svg.polyline("ceiling", &corners.map(|i| (x.at(i), below(i))));
        let text = format!("measured {} TFLOP/s, {} GB/s", significant(flops / 1e12), significant(bytes / 1e9));
        svg.text("aside", Anchor::Start, (left + 6.0, y.at(flops / 1e12) + 14.0), &text);
    }
    let mut labels: Vec<(f64, f64, &Row, f64)> = timed.iter().map(|(r, t)| (y.at(*t), y.at(*t), *r, *t)).collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.subject.cmp(b.2.subject)));
    spread_labels(&mut labels, (top + 8.0, bottom));
    let at = x.at(intensity(cost));
    for (exact, label, row, value) in labels {
        let share = 100.0 * value / bound;
        let text = format!("{} {} ({}%)", row.label(), significant(value), significant_share(share));
        svg.polyline("leader", &[(at + 5.0, exact), (right + 4.0, label), (right + 10.0, label)]);
        svg.mark(row.role.mark(), row.role.class(), (at, exact), &text);
        let class = if row.role == Role::Control { "strong" } else { "name" };
        svg.text(class, Anchor::Start, (right + 14.0, label), &text);
    }
    let caption = format!(
        "TFLOP/s at p50 in kernel mode over {} FLOP/byte ({} FLOP; FP8 inputs and FP16 output counted once, for peers \
         too, although those read FP16). The dashed line is a bound that follows from the device, not a measurement: \
         one FP8 MMA a clock on each of {} SMs at {} MHz. Percentages are of it. {} Both axes logarithmic.",
        significant(intensity(cost)),
        page::grouped(cost.flops),
        device.sm_count,
        device.max_sm_clock_mhz,
        match rates {
            Some(_) =>
                "The solid line is what `ceilings` measured on this card: FP8 products, and reads of device memory.",
            None => "What the card can really do was not measured (`cargo xtask ceilings`), so no slope is drawn.",
        }
    );
    format!("<h4>Roofline</h4>\n{}", timing::figure("single", &svg.finish(), &caption))
}

fn significant_share(share: f64) -> String {
    if share < 10.0 { format!("{share:.2}") } else { format!("{share:.1}") }
}

/// Moves labels, sorted from the top, apart until no two overlap.
fn spread_labels<T, U>(labels: &mut [(f64, f64, T, U)], (top, bottom): (f64, f64)) {
    const APART: f64 = 15.0;
    let mut free = top;
    for label in labels.iter_mut() {
        label.1 = label.1.max(free);
        free = label.1 + APART;
    }
    let mut limit = bottom;
    for label in labels.iter_mut().rev() {
        label.1 = label.1.min(limit);
        limit = label.1 - APART;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ceilings::{Ceiling, Ceilings, Quantity};
    use crate::judge::{Evidence, compare, testing};
    use crate::report::testing::with_view;

    fn drawn(evidence: &Evidence) -> String {
        with_view(evidence, |view| {
            timing::section(view, &compare(view.suite, &view.evidence.samples), &"mission".parse().unwrap())
        })
    }

    #[test]
    fn the_roofline_is_that_of_the_shape_and_the_device() {
        let text = drawn(&testing::evidence());
        // 2 * 8 heads, 512 x 512 pairs, 4 * 64 operations each; 58 SMs of 2048 operations at 2040 MHz.
        assert!(text.contains("theoretical bound 242.3 TFLOP/s"), "{text}");
        assert!(text.contains("over 409.6 FLOP/byte") && text.contains("new 13.43 (5.54%)"), "{text}");
        assert!(!text.contains("measured 100") && text.contains("was not measured"), "{text}");
        let mut known = testing::evidence();
        let row = |name: &str, quantity, per_second| Ceiling {
            name: name.into(),
            quantity,
            per_second,
            per_clock_and_sm: None,
        };
        known.ceilings = Some(Ceilings {
            device: testing::device(),
            rows: vec![row("mma.sync e4m3", Quantity::Flop, 100e12), row("memory read", Quantity::Bytes, 250e9)],
            before: Default::default(),
            after: Default::default(),
        });
        let text = drawn(&known);
        assert!(text.contains("measured 100 TFLOP/s, 250 GB/s") && text.contains("class=\"ceiling\""), "{text}");
        // Another card's rates are not this one's.
        known.ceilings.as_mut().unwrap().device.uuid = "GPU-1".into();
        assert!(drawn(&known).contains("was not measured"));
        let mut unknown = testing::evidence();
        unknown.samples.device = None;
        assert!(drawn(&unknown).contains("No roofline: the device is not known."));
    }

    #[test]
    fn labels_do_not_overlap_and_stay_inside() {
        let mut labels: Vec<(f64, f64, (), ())> = [50.0, 51.0, 52.0, 99.0, 100.0].map(|y| (y, y, (), ())).into();
        spread_labels(&mut labels, (10.0, 100.0));
        assert!(labels.windows(2).all(|w| w[1].1 - w[0].1 >= 15.0), "{labels:?}");
        assert!(labels.iter().all(|l| (10.0..=100.0).contains(&l.1)), "{labels:?}");
    }
}
