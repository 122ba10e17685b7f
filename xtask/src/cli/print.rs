//! Results on standard output: as JSON where that is asked for, else in words that fit.

use std::io::Write;

use anyhow::Result;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::console;

/// Prints a value or its words.
pub fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    if json { raw(&serde_json::to_string_pretty(value)?) } else { say(&text()) }
}

/// Words for a person.
pub fn say(text: &str) -> Result<()> {
    raw(&console::dressed(text))
}

/// Text for a program, as it is. A reader that has seen enough (`| head`) is no error of ours: the exit status stays the
/// verdict.
pub fn raw(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n')) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Rows under a header, with long cells on several lines.
pub fn table(header: &[String], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(console::columns());
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    table.add_rows(rows);
    // Names stand first, and are copied from there.
    if let Some(names) = table.column_mut(0) {
        names.set_constraint(ColumnConstraint::ContentWidth);
    }
    // Every cell is padded on both sides, the first one too.
    let lines = table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}
