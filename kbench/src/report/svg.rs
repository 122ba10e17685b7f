//! A small SVG canvas: axes, ticks, marks and escaped text. Knows nothing of measurements. Colours are classes of the
//! page's style sheet, so that one drawing serves light and dark; coordinates are rounded, so that the same numbers give
//! the same bytes.

use std::fmt::Write;

/// Text made safe inside elements and quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Values that differ by more than this factor get a logarithmic axis: on a linear one the smaller would all lie on
/// each other.
const LOG_FROM: f64 = 6.0;

/// From values to coordinates.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// Linear between two values; a little room is the caller's business.
    pub(super) fn linear((low, high): (f64, f64), (from, to): (f64, f64)) -> Scale {
        Scale { low, high, from, to, log: false }
    }

    /// Logarithmic between two positive values.
    pub(super) fn log((low, high): (f64, f64), (from, to): (f64, f64)) -> Scale {
        Scale { low: low.ln(), high: high.ln(), from, to, log: true }
    }

    /// Over positive values, logarithmic only where they differ by a large factor; `None` without a usable value.
    pub(super) fn over(values: &[f64], ends: (f64, f64)) -> Option<Scale> {
        let (low, high) = extent(values)?;
        if low > 0.0 && high / low > LOG_FROM {
            return Some(Scale::log((low / 1.2, high * 1.2), ends));
        }
        let room = ((high - low) * 0.08).max(high.abs() * 0.005).max(1e-9);
        Some(Scale::linear((low - room, high + room), ends))
    }

    /// Whether the axis is logarithmic.
    pub(super) fn is_log(&self) -> bool {
        self.log
    }

    /// Where a value is; values outside the axis are put on its end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if self.log { value.ln() } else { value };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// Whether a value is on the axis.
    pub(super) fn holds(&self, value: f64) -> bool {
        let value = if self.log { value.ln() } else { value };
        self.low <= value && value <= self.high
    }

    /// About `count` round values with their labels.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        if self.log { self.log_ticks(count) } else { self.linear_ticks(count) }
    }

    fn linear_ticks(&self, count: usize) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
        let far = |step: &f64| (step / rough).ln().abs();
        let step = steps.into_iter().min_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or(rough);
        let decimals = (-(step * 1.0001).log10().floor()).max(0.0) as usize;
        // A tick on the very end is kept although its quotient may be off in the last digit.
        let first = (self.low / step - 1e-6).ceil() as i64;
        let last = (self.high / step + 1e-6).floor() as i64;
        (first..=last)
            .map(|i| i as f64 * step)
            .map(|v| (v, format!("{:.decimals$}", if v == 0.0 { 0.0 } else { v })))
            .collect()
    }

    fn log_ticks(&self, count: usize) -> Vec<(f64, String)> {
        let decades = self.low.exp().log10().floor() as i32..=self.high.exp().log10().ceil() as i32;
        let of = |marks: &[f64]| -> Vec<f64> {
            let all = decades.clone().flat_map(|d| marks.iter().map(move |m| m * 10f64.powi(d)));
            all.filter(|v| self.holds(*v)).collect()
        };
        let fine = of(&[1.0, 2.0, 5.0]);
        let chosen = if fine.len() <= count + 2 { fine } else { of(&[1.0]) };
        chosen.into_iter().map(|v| (v, format!("{v}"))).collect()
    }
}

/// Smallest and largest of the finite values.
pub(super) fn extent(values: &[f64]) -> Option<(f64, f64)> {
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    Some((finite().min_by(f64::total_cmp)?, finite().max_by(f64::total_cmp)?))
}

/// Shapes of a mark; they differ so that colour is never needed to tell two roles apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Filled circle.
    Dot,
    /// Hollow circle.
    Ring,
    /// Square on a corner.
    Diamond,
    /// Hollow square on a corner.
    HollowDiamond,
    /// Square.
    Square,
    /// Two crossed strokes.
    Cross,
    /// Triangle that points left.
    Left,
    /// Triangle that points right.
    Right,
    /// Triangle that points up.
    Up,
    /// Triangle that points down.
    Down,
}

impl Mark {
    /// Its outline around a place.
    fn path(self, (x, y): (f64, f64)) -> String {
        let outline = match self {
            Mark::Dot | Mark::Ring => "m-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0z",
            Mark::Diamond | Mark::HollowDiamond => "m-4.2,0l4.2,-4.2l4.2,4.2l-4.2,4.2z",
            Mark::Square => "m-2.8,-2.8h5.6v5.6h-5.6z",
            Mark::Cross => "m-3.5,-3.5l7,7m-7,0l7,-7",
            Mark::Left => "m-4,0l7,-4v8z",
            Mark::Right => "m4,0l-7,-4v8z",
            Mark::Up => "m0,-4l-4,7h8z",
            Mark::Down => "m0,4l-4,-7h8z",
        };
        format!("M{},{}{outline}", round(x), round(y))
    }

    /// With the class of its role.
    fn class(self, role: &str) -> String {
        let hollow = if matches!(self, Mark::Ring | Mark::HollowDiamond | Mark::Cross) { " hollow" } else { "" };
        format!("mark {role}{hollow}")
    }
}

/// Where text is anchored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// Text begins here.
    Start,
    /// Text is centred here.
    Middle,
    /// Text ends here.
    End,
}

/// A drawing in progress.
pub(super) struct Svg {
    width: f64,
    height: f64,
    label: String,
    body: String,
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0 + 0.0
}

impl Svg {
    /// An empty one; `label` is what a screen reader says.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Svg {
        Svg { width, height, label: label.to_owned(), body: String::new() }
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(round);
        let _ = write!(self.body, r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#);
    }

    /// A rectangle from one corner to the opposite one.
    pub(super) fn rect(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let (x, y) = (round(x1.min(x2)), round(y1.min(y2)));
        let (width, height) = (round((x2 - x1).abs()), round((y2 - y1).abs()));
        let _ = write!(self.body, r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#);
    }

    /// Text whose middle height is at `y`.
    pub(super) fn text(&mut self, class: &str, anchor: Anchor, (x, y): (f64, f64), text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, text) = (round(x), round(y + 4.0), escape(text));
        let _ = write!(self.body, r#"<text class="{class}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>"#);
    }

    /// A line through corners; strokes only.
    pub(super) fn polyline(&mut self, class: &str, corners: &[(f64, f64)]) {
        let points: Vec<String> = corners.iter().map(|(x, y)| format!("{},{}", round(*x), round(*y))).collect();
        let _ = write!(self.body, r#"<polyline class="{class}" points="{}"/>"#, points.join(" "));
    }

    /// A mark; `title` is shown where a pointer rests on it.
    pub(super) fn mark(&mut self, mark: Mark, class: &str, at: (f64, f64), title: &str) {
        let (path, title) = (mark.path(at), escape(title));
        let class = mark.class(class);
        let _ = write!(self.body, r#"<path class="{class}" d="{path}"><title>{title}</title></path>"#);
    }

    /// What follows is a link; `title` is shown where a pointer rests on it.
    pub(super) fn open_link(&mut self, href: &str, title: &str) {
        let _ = write!(self.body, r#"<a href="{}"><title>{}</title>"#, escape(href), escape(title));
    }

    /// Ends a link.
    pub(super) fn close_link(&mut self) {
        self.body.push_str("</a>");
    }

    /// Points of one look, as strokes without length: what is drawn is their round ends.
    pub(super) fn points(&mut self, class: &str, places: &[(f64, f64)]) {
        let path: String = places.iter().map(|(x, y)| format!("M{},{}h0", round(*x), round(*y))).collect();
        let _ = write!(self.body, r#"<path class="{class}" d="{path}"/>"#);
    }

    /// Many marks of one kind, in one element and without titles.
    pub(super) fn marks(&mut self, mark: Mark, class: &str, places: &[(f64, f64)]) {
        let paths: String = places.iter().map(|at| mark.path(*at)).collect();
        let class = mark.class(class);
        let _ = write!(self.body, r#"<path class="{class}" d="{paths}"/>"#);
    }

    /// A horizontal axis below a plot area: grid lines, labels, and what it shows.
    pub(super) fn x_axis(&mut self, scale: &Scale, (top, bottom): (f64, f64), title: &str) {
        for (value, label) in scale.ticks(6) {
            let x = scale.at(value);
            self.line("grid", (x, top), (x, bottom));
            self.text("tick", Anchor::Middle, (x, bottom + 11.0), &label);
        }
        self.text("title", Anchor::Middle, ((scale.from + scale.to) / 2.0, bottom + 29.0), title);
    }

    /// A vertical axis left of a plot area: grid lines and labels.
    pub(super) fn y_axis(&mut self, scale: &Scale, (left, right): (f64, f64), count: usize) {
        for (value, label) in scale.ticks(count) {
            let y = scale.at(value);
            self.line("grid", (left, y), (right, y));
            self.text("tick", Anchor::End, (left - 6.0, y), &label);
        }
    }

    /// The finished element.
    pub(super) fn finish(self) -> String {
        let label = escape(&self.label);
        let (width, height) = (round(self.width), round(self.height));
        let view = format!(r#"viewBox="0 0 {width} {height}""#);
        let tag = format!(r#"<svg class="plot" role="img" aria-label="{label}" {view}>"#);
        format!("{tag}{}</svg>\n", self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_element() {
        let mut svg = Svg::new(10.0, 10.0, "\"><script>");
        svg.text("t", Anchor::Start, (0.0, 0.0), "<b>&'");
        svg.mark(Mark::Dot, "m", (1.0, 1.0), "</title>");
        let text = svg.finish();
        assert!(!text.contains("<script>") && !text.contains("<b>"), "{text}");
        assert_eq!(text.matches("</title>").count(), 1, "{text}");
        assert!(text.contains("&lt;b&gt;&amp;&#39;"), "{text}");
    }

    #[test]
    fn an_axis_is_logarithmic_only_where_it_has_to_be() {
        assert!(!Scale::over(&[4.0, 12.0], (0.0, 1.0)).unwrap().is_log());
        assert!(Scale::over(&[4.0, 400.0], (0.0, 1.0)).unwrap().is_log());
        assert!(Scale::over(&[f64::NAN], (0.0, 1.0)).is_none());
        assert!(Scale::over(&[], (0.0, 1.0)).is_none());
    }

    #[test]
    fn ticks_are_round_within_the_axis_and_told_apart() {
        let labels = |scale: Scale| -> Vec<String> { scale.ticks(5).into_iter().map(|t| t.1).collect() };
        assert_eq!(
            labels(Scale::linear((0.947, 0.952), (0.0, 1.0))),
            ["0.947", "0.948", "0.949", "0.950", "0.951", "0.952"]
        );
        assert_eq!(labels(Scale::linear((-0.5, 0.5), (0.0, 1.0))), ["-0.4", "-0.2", "0.0", "0.2", "0.4"]);
        assert_eq!(labels(Scale::log((3.0, 300.0), (0.0, 1.0))), ["5", "10", "20", "50", "100", "200"]);
    }

    #[test]
    fn one_repeated_value_has_an_axis_around_it() {
        let scale = Scale::over(&[80.0, 80.0], (0.0, 100.0)).unwrap();
        assert!((scale.at(80.0) - 50.0).abs() < 1e-6);
        assert!(scale.at(1e9) == 100.0 && scale.at(-1e9) == 0.0);
    }
}
