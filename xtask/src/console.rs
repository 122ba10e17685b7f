//! What a person sees while work goes on: a progress bar on a terminal, plain lines when a step ends otherwise.
//! Results go to standard output, everything else to standard error.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A step of the pipeline that is under way.
pub struct Step {
    bar: ProgressBar,
    name: String,
    started: std::time::Instant,
}

impl Step {
    /// Announces a step of `total` parts; 0 where that is not known.
    pub fn begin(name: &str, total: u64) -> Step {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template =
            if total == 0 { "{spinner} {prefix:10} {msg}" } else { "{bar:24} {pos}/{len} {prefix:10} {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Step { bar, name: name.to_owned(), started: std::time::Instant::now() }
    }

    /// How far it is, and what is being done.
    pub fn at(&self, done: u64, total: u64, what: &str) {
        self.bar.set_length(total);
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
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Ends the step with one line: its name, how long it took, and what came of it.
    pub fn end(self, outcome: &str) {
        self.bar.finish_and_clear();
        eprintln!("{:>10} {outcome} ({:.1} s)", self.name, self.started.elapsed().as_secs_f64());
    }
}
