//! Clocks, temperature and power over the blocks of a run, in the order in which they were timed, with throttled and
//! power-capped blocks marked. A figure that was not read is a gap, and said in words.

use super::svg::{Anchor, Mark, Scale, Svg, extent};
use super::timing::figure;
use crate::evidence::{Block, GpuState, Samples};

/// One figure of the state: its name, the least span of its axis, and where it is read.
struct Gauge {
    name: &'static str,
    least_span: f64,
    read: fn(&GpuState) -> Option<f64>,
}

const GAUGES: [Gauge; 3] = [
    Gauge { name: "SM clock, MHz", least_span: 60.0, read: |s| s.sm_clock_mhz.map(f64::from) },
    Gauge { name: "temperature, °C", least_span: 6.0, read: |s| s.temperature_c.map(f64::from) },
    Gauge { name: "power, W", least_span: 30.0, read: |s| s.power_w },
];

const LEFT: f64 = 56.0;
const RIGHT: f64 = 1090.0;
const TOP: f64 = 42.0;
const GAUGE: f64 = 96.0;

/// The section; words alone where nothing was timed or read.
pub(super) fn section(samples: &Samples) -> String {
    let blocks = &samples.blocks;
    let unread: Vec<&str> =
        GAUGES.iter().filter(|g| !blocks.iter().any(|b| (g.read)(&b.after).is_some())).map(|g| g.name).collect();
    let words = |name: &str, chosen: &dyn Fn(&Block) -> bool, fate: &str| {
        let count = blocks.iter().filter(|b| chosen(b)).count();
        format!("{count} of {} blocks {name} ({fate})", blocks.len())
    };
    let mut caption = format!(
        "State after each block, in the order of timing, both modes. {}; {}.",
        words("throttled", &|b| b.rejected().is_some(), "dropped from every comparison"),
        words("with the clock held by the power limit", &power_capped, "kept: both arms of a round are alike"),
    );
    if unread.len() == GAUGES.len() {
        return format!("<p>Clocks, temperature and power were not read. {caption}</p>\n");
    }
    if !unread.is_empty() {
        caption.push_str(&format!(" Not read: {}.", unread.join(", ")));
    }
    figure("wide", &drawing(blocks), &caption)
}

fn power_capped(block: &Block) -> bool {
    block.before.power_capped || block.after.power_capped
}

fn drawing(blocks: &[Block]) -> String {
    let gauges: Vec<&Gauge> = GAUGES.iter().filter(|g| blocks.iter().any(|b| (g.read)(&b.after).is_some())).collect();
    let bottom = TOP + GAUGE * gauges.len() as f64;
    let mut svg = Svg::new(1100.0, bottom + 36.0, "Clock, temperature and power over the blocks of the run");
    let x = Scale::linear((0.0, blocks.len() as f64), (LEFT, RIGHT));
    shapes(&mut svg, blocks, &x, bottom);
    for (i, gauge) in gauges.iter().enumerate() {
        let top = TOP + GAUGE * i as f64;
        trace(&mut svg, blocks, gauge, &x, (top + 22.0, top + GAUGE - 8.0));
        svg.text("name", Anchor::Start, (LEFT, top + 10.0), gauge.name);
    }
    held(&mut svg, blocks, &x, bottom);
    for (value, label) in x.ticks(8) {
        svg.text("tick", Anchor::Middle, (x.at(value), bottom + 10.0), &label);
    }
    let title = "block (▼ throttled, ○ power limit)";
    svg.text("title", Anchor::Middle, ((LEFT + RIGHT) / 2.0, bottom + 27.0), title);
    svg.finish()
}

/// Why a block's clock was held, and how that is drawn: the reason, the class and the mark.
fn holding(block: &Block) -> Option<(String, &'static str, Mark)> {
    match block.rejected() {
        Some(why) => Some((format!("throttled, {why}"), "dropped", Mark::Down)),
        None => power_capped(block).then(|| ("power limit".to_owned(), "capped", Mark::Ring)),
    }
}

/// Shades every stretch of blocks whose clock was held for one reason, with one mark above it.
fn held(svg: &mut Svg, blocks: &[Block], x: &Scale, bottom: f64) {
    let mut first = 0;
    for run in blocks.chunk_by(|a, b| holding(a) == holding(b)) {
        if let Some((why, class, mark)) = holding(&run[0]) {
            let last = first + run.len() - 1;
            let (from, to) = (x.at(first as f64), x.at((last + 1) as f64));
            svg.rect(&format!("held {class}"), (from, TOP), (to, bottom));
            let title = match last {
                last if last == first => format!("block {first}: {why}"),
                last => format!("blocks {first} to {last}: {why}"),
            };
            svg.mark(mark, class, ((from + to) / 2.0, TOP - 8.0), &title);
        }
        first += run.len();
    }
}

/// Names the stretch of each shape, and shades every other one.
fn shapes(svg: &mut Svg, blocks: &[Block], x: &Scale, bottom: f64) {
    let mut first = 0;
    for (stretch, run) in blocks.chunk_by(|a, b| a.shape == b.shape).enumerate() {
        let (from, to) = (x.at(first as f64), x.at((first + run.len()) as f64));
        if stretch % 2 == 0 {
            svg.rect("even", (from, TOP), (to, bottom));
        }
        // A stretch too short for its name keeps the name in the titles of its marks.
        if to - from > 8.0 * run[0].shape.len() as f64 {
            svg.text("title", Anchor::Middle, ((from + to) / 2.0, 14.0), &run[0].shape);
        }
        first += run.len();
    }
}

/// A stepped line, broken where the figure was not read.
fn trace(svg: &mut Svg, blocks: &[Block], gauge: &Gauge, x: &Scale, (top, bottom): (f64, f64)) {
    let values: Vec<Option<f64>> =
        blocks.iter().map(|b| (gauge.read)(&b.after).filter(|value| value.is_finite())).collect();
    let Some((low, high)) = extent(&values.iter().flatten().copied().collect::<Vec<_>>()) else { return };
    let room = ((gauge.least_span - (high - low)) / 2.0).max((high - low) * 0.06);
    let y = Scale::linear((low - room, high + room), (bottom, top));
    svg.y_axis(&y, (LEFT, RIGHT), 3);
    let mut first = 0;
    for read in values.chunk_by(|a, b| a.is_some() == b.is_some()) {
        let mut corners: Vec<(f64, f64)> = Vec::new();
        for (i, value) in read.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            let height = y.at(value);
            if corners.last().is_none_or(|(_, last)| *last != height) {
                let at = x.at((first + i) as f64);
                corners.extend(corners.last().map(|(_, last)| (at, *last)));
                corners.push((at, height));
            }
        }
        if let Some((_, last)) = corners.last().copied() {
            corners.push((x.at((first + read.len()) as f64), last));
            svg.polyline("gauge", &corners);
        }
        first += read.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;

    fn state(block: &mut Block, clock: u32) {
        for state in [&mut block.before, &mut block.after] {
            (state.sm_clock_mhz, state.temperature_c, state.power_w) = (Some(clock), Some(60), Some(70.5));
        }
    }

    #[test]
    fn held_blocks_are_marked_and_counted() {
        let mut samples = testing::samples(100.0, 80.0);
        samples.blocks.iter_mut().for_each(|b| state(b, 2040));
        let calm = section(&samples);
        assert!(calm.contains("0 of 96 blocks throttled") && !calm.contains("class=\"held"), "{calm}");
        for block in &mut samples.blocks[7..=9] {
            block.after.throttle.push("thermal slowdown".into());
        }
        samples.blocks[20].before.power_capped = true;
        let held = section(&samples);
        assert!(held.contains("3 of 96 blocks throttled") && held.contains("1 of 96 blocks with the clock held"));
        assert!(held.contains("blocks 7 to 9: throttled, clock held down: thermal slowdown"), "{held}");
        assert!(held.contains("block 20: power limit"), "{held}");
        assert_eq!(held.matches("class=\"held").count(), 2);
    }

    #[test]
    fn a_figure_that_was_not_read_is_a_gap_or_words_never_a_zero() {
        let mut samples = testing::samples(100.0, 80.0);
        assert!(section(&samples).starts_with("<p>Clocks, temperature and power were not read."));
        samples.blocks.iter_mut().for_each(|b| state(b, 2040));
        for block in &mut samples.blocks {
            block.after.power_w = None;
        }
        samples.blocks[40].after.sm_clock_mhz = None;
        let text = section(&samples);
        assert!(text.contains("Not read: power, W."), "{text}");
        // Two stretches of the clock around the gap, one of the temperature, none of the power.
        assert_eq!(text.matches("<polyline").count(), 3, "{text}");
    }
}
