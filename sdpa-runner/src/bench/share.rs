//! Which shapes a job times where several jobs share them, each on a GPU of its own: a file named by the shape says whose it is,
//! and whoever makes it first has the shape. Leaves to others: who else there is.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kbench::job::Share;
use kbench::operator::Shape;
use kbench::suite::Suite;

/// Shapes as far as they are this job's.
pub(super) struct Claims<'a> {
    share: Option<&'a Share>,
}

impl Claims<'_> {
    /// Gives back what the same worker took before: a job that begins anew has nothing of what was measured then.
    pub(super) fn begin(share: Option<&Share>) -> Result<Claims<'_>> {
        if let Some(Share { folder, worker }) = share {
            let shown = || format!("failed to read `{}`", folder.display());
            for entry in fs::read_dir(folder).with_context(shown)? {
                let path = entry.with_context(shown)?.path();
                if fs::read_to_string(&path).is_ok_and(|who| who == *worker) {
                    fs::remove_file(&path).with_context(|| format!("failed to remove `{}`", path.display()))?;
                }
            }
            // A claim gets its name when it is written: nobody sees one of nobody.
            let path = written(folder, worker);
            fs::write(&path, worker).with_context(|| format!("failed to write `{}`", path.display()))?;
        }
        Ok(Claims { share })
    }

    /// The shapes of a suite with their numbers there, in the order in which they are asked for: the largest first where they
    /// are shared, so that nobody waits long for another in the end.
    pub(super) fn order(&self, suite: &Suite) -> Vec<(usize, Shape)> {
        let mut shapes: Vec<(usize, Shape)> = suite.time().into_iter().enumerate().collect();
        if self.share.is_some() {
            shapes.sort_by_key(|(_, shape)| std::cmp::Reverse(suite.operator.elements(shape)));
        }
        shapes
    }

    /// Whether a shape is this job's from now on.
    pub(super) fn take(&self, shape: &str) -> Result<bool> {
        let Some(Share { folder, worker }) = self.share else { return Ok(true) };
        let path = folder.join(shape);
        match fs::hard_link(written(folder, worker), &path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("failed to write `{}`", path.display())),
        }
    }
}

fn written(folder: &Path, worker: &str) -> PathBuf {
    folder.join(format!(".{worker}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_one_jobs_and_what_an_earlier_try_took_is_given_back() {
        let folder = std::env::temp_dir().join(format!("sdpa-shapes-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let share = |worker: &str| Share { folder: folder.clone(), worker: worker.to_owned() };
        let (zero, one) = (share("0"), share("1"));
        let [first, second] = [&zero, &one].map(|share| Claims::begin(Some(share)).unwrap());
        assert!(first.take("small").unwrap() && !second.take("small").unwrap() && !first.take("small").unwrap());
        assert!(second.take("long").unwrap() && first.take("wide").unwrap());
        // The first one's process died; the second goes on.
        let again = Claims::begin(Some(&zero)).unwrap();
        assert!(again.take("small").unwrap() && !again.take("long").unwrap() && second.take("wide").unwrap());
        assert!(Claims::begin(None).unwrap().take("long").unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn each_of_many_shapes_is_taken_once_whoever_asks_first() {
        let folder = std::env::temp_dir().join(format!("sdpa-many-shapes-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let taken = std::thread::scope(|scope| {
            let take = |worker: usize| {
                let share = Share { folder: folder.clone(), worker: worker.to_string() };
                scope.spawn(move || {
                    let claims = Claims::begin(Some(&share)).unwrap();
                    (0..200).filter(|shape| claims.take(&format!("s{shape}")).unwrap()).count()
                })
            };
            let threads: Vec<_> = (0..4).map(take).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(taken, 200);
        fs::remove_dir_all(&folder).unwrap();
    }
}
