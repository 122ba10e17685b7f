//! `tune.jsonl`: appended to and flushed line by line, so that a kill loses at most what was being measured.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use kbench::tune::{Line, parse_journal};

use crate::run_dir::RunDir;

/// Everything that the journal of a run holds.
pub fn read(run: &RunDir, file: &str) -> Result<Vec<Line>> {
    let shown = run.path.join(file);
    parse_journal(&run.text(file)?).map_err(|why| anyhow!("`{}` is not what it should be: {why}", shown.display()))
}

/// The open file, and what it holds.
pub struct Journal {
    file: File,
    lines: Vec<Line>,
}

impl Journal {
    /// Opens the file, new or of an interrupted search. A line that was cut short is cut off.
    pub fn open(path: &Path) -> Result<Journal> {
        let shown = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("failed to read `{shown}`")),
        };
        let lines = parse_journal(&text).map_err(|why| anyhow!("`{shown}` is not what it should be: {why}"))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let file = File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("failed to open `{shown}`"))?;
        file.set_len(whole as u64).with_context(|| format!("failed to write `{shown}`"))?;
        Ok(Journal { file, lines })
    }

    /// Appends a line; it is in the file when this returns.
    pub fn append(&mut self, line: Line) -> Result<()> {
        let text = format!("{}\n", serde_json::to_string(&line)?);
        self.file.write_all(text.as_bytes()).context("failed to write tune.jsonl")?;
        self.file.sync_data().context("failed to write tune.jsonl")?;
        self.lines.push(line);
        Ok(())
    }

    /// Everything that was written.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_is_cut_off_and_the_next_one_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tune.jsonl");
        let line = |n: usize| Line::Session { started: n.to_string(), gpus: vec![] };
        let mut journal = Journal::open(&path).unwrap();
        journal.append(line(1)).unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"line\":\"sess").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.lines(), [line(1)]);
        journal.append(line(2)).unwrap();
        assert_eq!(Journal::open(&path).unwrap().lines(), [line(1), line(2)]);
        std::fs::write(&path, "what\n").unwrap();
        assert!(Journal::open(&path).err().unwrap().to_string().contains("line 1"));
    }
}
