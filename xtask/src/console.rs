//! What a person sees: a progress bar while a step runs on a terminal, plain lines when it ends, and how wide and in what
//! colours the rest is printed. Results go to standard output, everything else to standard error.

use std::io::IsTerminal;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kbench::report::hanging;

/// What is printed is never wider, unless COLUMNS asks for it.
const WIDEST: usize = 100;
/// Below this nothing can be read.
const NARROWEST: usize = 40;

/// Columns of what is printed: COLUMNS where that is set, else those of the terminal up to [`WIDEST`].
pub fn width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|text| text.parse::<usize>().ok());
    let terminal = || Term::stdout().size_checked().map(|(_, columns)| usize::from(columns).min(WIDEST));
    asked.or_else(terminal).unwrap_or(WIDEST).max(NARROWEST)
}

/// The same as tables take it.
pub fn columns() -> u16 {
    u16::try_from(width()).unwrap_or(u16::MAX)
}

/// A line on standard error, in as many as it takes.
pub fn line(text: &str) {
    for line in text.lines() {
        eprintln!("{}", fitted(line, width()).join("\n"));
    }
}

/// What ends a command: one line, however long, because it is there to be searched for.
pub fn error(text: &str) {
    eprintln!("error: {text}");
}

/// Text for standard output: long lines go on below, indented; words of states have colours on a terminal.
pub fn dressed(text: &str) -> String {
    let width = width();
    let lines = text.lines().flat_map(|line| fitted(line, width));
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match plain || !std::io::stdout().is_terminal() {
        true => lines.collect::<Vec<_>>().join("\n"),
        false => lines.map(|line| painted(&line)).collect::<Vec<_>>().join("\n"),
    }
}

/// A line in as many as it takes; rows of a table have their own width.
fn fitted(line: &str, width: usize) -> Vec<String> {
    const RULES: [char; 6] = ['│', '┆', '─', '═', '|', '╌'];
    if line.chars().count() <= width || line.trim_start().starts_with(RULES) || line.contains(['│', '═']) {
        return vec![line.to_owned()];
    }
    // A path stays whole, and where it is.
    if line.contains('/') && !line.trim().contains(char::is_whitespace) {
        return vec![line.to_owned()];
    }
    let indent = line.len() - line.trim_start().len();
    // What hangs is two columns further in than the line that it belongs to.
    let (first, rest) = line.trim_start().split_once(' ').unwrap_or((line.trim_start(), ""));
    let mut lines = hanging(&" ".repeat(indent), &format!("{first} {rest}"), width.saturating_sub(2));
    lines.iter_mut().skip(1).for_each(|line| line.insert_str(0, "  "));
    lines
}

/// Words of states and verdicts, those that begin like another one first, and their colours.
const COLOURS: [(&str, &str); 13] = [
    ("VALID NEGATIVE", YELLOW),
    ("INCONCLUSIVE", YELLOW),
    ("DEFERRED", CYAN),
    ("DEFER", CYAN),
    ("MISSING", YELLOW),
    ("MERGE", GREEN),
    ("PASS", GREEN),
    ("FAIL", RED),
    ("FIX", RED),
    ("WRONG", RED),
    ("ERROR", RED),
    ("✓", GREEN),
    ("✗", RED),
];
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

fn painted(line: &str) -> String {
    let mut text = String::new();
    let mut left = line;
    while let Some(letter) = left.chars().next() {
        let apart = |near: Option<char>| !near.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        let none = text.ends_with(" 0 ") || text == "0 ";
        let word = COLOURS.iter().find(|(word, _)| {
            let rest = left.strip_prefix(word);
            rest.is_some_and(|rest| apart(rest.chars().next()) && apart(text.chars().last()) && !none)
        });
        match word {
            Some((word, colour)) => {
                text.extend([colour, word, PLAIN]);
                left = &left[word.len()..];
            }
            None => {
                text.push(letter);
                left = &left[letter.len_utf8()..];
            }
        }
    }
    text
}

/// Steps that are under way at the same time, each with its bar.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
    let is_seen = std::io::stderr().is_terminal();
    let target = if is_seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    MultiProgress::with_draw_target(target)
});

/// A step of the pipeline that is under way.
pub struct Step {
    bar: ProgressBar,
    name: String,
    started: Instant,
}

impl Step {
    /// Announces a step of `total` parts; 0 where that is not known.
    pub fn begin(name: &str, total: u64) -> Step {
        let bar = BARS.add(ProgressBar::new(total));
        let step = Step { bar, name: name.to_owned(), started: Instant::now() };
        step.shape(total);
        step.bar.set_prefix(name.to_owned());
        step.bar.enable_steady_tick(Duration::from_millis(200));
        step
    }

    /// A bar with the time left where the number of parts is known, else the time that it took so far.
    fn shape(&self, total: u64) {
        let template = match total {
            0 => "{spinner} {prefix} {elapsed} {wide_msg}",
            _ => "{bar:24} {pos}/{len} {prefix}, {eta} left  {wide_msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    /// How far it is, and what is being done.
    pub fn at(&self, done: u64, total: u64, what: &str) {
        if self.bar.length() != Some(total) {
            self.shape(total);
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
        self.bar.set_message(what.to_owned());
    }

    /// One more part is done.
    pub fn advance(&self, what: &str) {
        self.bar.inc(1);
        self.bar.set_message(what.to_owned());
    }

    /// What is being done, at the place where it is.
    pub fn message(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// A line above the bar.
    pub fn note(&self, text: &str) {
        BARS.suspend(|| line(text));
    }

    /// Ends the step with one line: its name, how long it took, and what came of it.
    pub fn end(self, outcome: &str) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let said = hanging(&format!("{:>10} ", self.name), &format!("{outcome} ({seconds:.1} s)"), width());
        BARS.suspend(|| eprintln!("{}", said.join("\n")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_goes_on_below_and_a_table_keeps_its_rows() {
        assert_eq!(fitted("  one two three four", 14), ["  one two", "    three four"]);
        assert_eq!(fitted("short", 14), ["short"]);
        let row = format!("│ {} │", "x".repeat(30));
        assert_eq!(fitted(&row, 14), [row.as_str()]);
        assert_eq!(fitted("   `/a/long/path/of/letters`", 14), ["   `/a/long/path/of/letters`"]);
        assert!(fitted(&"y".repeat(50), 20).iter().all(|line| line.len() <= 20));
    }

    #[test]
    fn states_have_colours_and_what_did_not_occur_has_none() {
        assert_eq!(painted("FAIL x: FAILED"), "\x1b[31mFAIL\x1b[0m x: FAILED");
        assert_eq!(painted("3 PASS, 0 FAIL, 10 FAIL"), "3 \x1b[32mPASS\x1b[0m, 0 FAIL, 10 \x1b[31mFAIL\x1b[0m");
        assert_eq!(painted("VALID NEGATIVE a-FIX"), "\x1b[33mVALID NEGATIVE\x1b[0m a-FIX");
        assert_eq!(painted("é✓"), "é✓");
        assert_eq!(painted("1 ✓"), "1 \x1b[32m✓\x1b[0m");
    }
}
