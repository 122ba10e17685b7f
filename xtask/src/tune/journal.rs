//! The journal of a search, appended to line by line: `tune.jsonl`, flushed after each, so that a kill loses at most what was
//! being measured; or, where a search has several workers, what they share.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use kbench::tune::{Line, parse_journal};

use super::share::Share;
use crate::run_dir::RunDir;

/// Everything that the journal of a run holds.
pub fn read(run: &RunDir, file: &str) -> Result<Vec<Line>> {
    let shown = run.path.join(file);
    parse_journal(&run.text(file)?).map_err(|why| anyhow!("`{}` is not what it should be: {why}", shown.display()))
}

/// The same as the text of a file.
pub fn text(lines: &[Line]) -> Result<String> {
    lines.iter().map(|line| Ok(format!("{}\n", serde_json::to_string(line)?))).collect()
}

/// Where lines go.
enum Store<'a> {
    File(File),
    Share {
        share: &'a Share,
        /// Keys whose lines are known.
        known: BTreeSet<String>,
    },
}

/// The open journal, and what it holds.
pub struct Journal<'a> {
    store: Store<'a>,
    lines: Vec<Line>,
}

impl<'a> Journal<'a> {
    /// Opens the file, new or of an interrupted search. A line that was cut short is cut off.
    pub fn open(path: &Path) -> Result<Journal<'a>> {
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
        Ok(Journal { store: Store::File(file), lines })
    }

    /// What workers share, with everything that is there.
    pub fn shared(share: &'a Share) -> Result<Journal<'a>> {
        let mut journal = Journal { store: Store::Share { share, known: BTreeSet::new() }, lines: Vec::new() };
        journal.news()?;
        Ok(journal)
    }

    /// Appends a line, and returns the one that counts: another worker's, where it wrote the same before. It is kept when
    /// this returns.
    pub fn append(&mut self, line: Line) -> Result<Line> {
        let line = match &mut self.store {
            Store::File(file) => {
                let text = format!("{}\n", serde_json::to_string(&line)?);
                file.write_all(text.as_bytes()).context("failed to write tune.jsonl")?;
                file.sync_data().context("failed to write tune.jsonl")?;
                line
            }
            Store::Share { share, known } => {
                let Some(key) = share.key(&line) else { return Ok(line) };
                let there = share.write(&key, &line)?;
                if !known.insert(key) {
                    return Ok(there);
                }
                there
            }
        };
        self.lines.push(line.clone());
        Ok(line)
    }

    /// What others wrote since the last look.
    pub fn news(&mut self) -> Result<Vec<Line>> {
        let Store::Share { share, known } = &mut self.store else { return Ok(Vec::new()) };
        let mut news = Vec::new();
        for key in share.keys()?.into_iter().filter(|key| !known.contains(key)).collect::<Vec<_>>() {
            // What could not be read is looked at again.
            if let Some(line) = share.read(&key)? {
                known.insert(key);
                news.push(line);
            }
        }
        self.lines.extend(news.iter().cloned());
        Ok(news)
    }

    /// Puts what workers wrote into the order in which one alone would have written it.
    pub fn put_in_order(&mut self) {
        if let Store::Share { share, .. } = &self.store {
            self.lines.sort_by_cached_key(|line| share.key(line));
        }
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
