//! Work on a folder that other machines serve: it may be slow, or away for a while. What fails while it is away is done again
//! when it is back; what fails while it is there has failed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

/// How long a folder may be away.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often in a row something fails in the same way, with the folder there, before it has failed.
const ALIKE: u32 = 3;
/// Between two looks at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Does something that can be done twice. `folder` is there whenever the shared folder is.
pub fn patiently<T>(folder: &Path, work: impl FnMut() -> Result<T>) -> Result<T> {
    patiently_for(PATIENCE, folder, work)
}

fn patiently_for<T>(patience: Duration, folder: &Path, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = PAUSES[0];
    let mut before = String::new();
    let mut alike = 0;
    loop {
        let error = match work() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let mut was_away = false;
        while !folder.is_dir() {
            was_away = true;
            if start.elapsed() > patience {
                bail!("`{}` has been away for {} s; is it mounted here?", folder.display(), start.elapsed().as_secs());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES[1]);
        }
        // It may have come back between the failure and this look. What is really wrong is wrong in the same way again.
        let said = format!("{error:#}");
        alike = if said == before && !was_away { alike + 1 } else { 1 };
        if alike == ALIKE || start.elapsed() > patience {
            return Err(error);
        }
        before = said;
        std::thread::sleep(PAUSES[0]);
    }
}

/// Whether something is there that lies beside `witness`, a file that is there whenever the shared folder is. An error where
/// that is not: then the folder is away, and nothing is known.
pub fn has(path: &Path, witness: &Path) -> Result<bool> {
    // Twice, because it may have come back between the two questions.
    for _ in 0..2 {
        if path.exists() {
            return Ok(true);
        }
        ensure!(witness.is_file(), "`{}` is away", witness.parent().unwrap_or(witness).display());
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_folder_that_is_away_is_waited_for_and_what_is_not_there_is_not() {
        let room = tempfile::tempdir().unwrap();
        let (here, away) = (room.path().join("here"), room.path().join("away"));
        std::fs::create_dir(&away).unwrap();
        std::fs::write(away.join("file"), "x").unwrap();
        let read = || std::fs::read_to_string(here.join("file")).context("no file");
        let back = std::thread::spawn({
            let (here, away) = (here.clone(), away.clone());
            move || {
                std::thread::sleep(Duration::from_millis(300));
                std::fs::rename(away, here).unwrap();
            }
        });
        assert_eq!(patiently(&here, read).unwrap(), "x");
        back.join().unwrap();
        let mut tries = 0;
        let error = patiently(&here, || {
            tries += 1;
            std::fs::read_to_string(here.join("none")).context("no file")
        });
        assert!(error.is_err() && tries == 3);
        let gone =
            patiently_for(Duration::from_millis(200), &room.path().join("gone"), || -> Result<()> { bail!("x") });
        assert!(gone.unwrap_err().to_string().contains("has been away"));
    }
}
