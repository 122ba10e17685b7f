//! `self-test`: the judge and `verify` against what they must not believe. The judge's lies are `kbench::selftest`; here
//! a run is written, edited as a forger would, and verified. Leaves to others: kernels that lie, which are run.

use std::path::Path;

use anyhow::{Context, Result};
use kbench::evidence::Environment;
use kbench::selftest::{Trial, honest, trials};
use serde_json::Value;

use crate::inspect::{derive, verify};
use crate::run_dir::{MEMORY, RunDir};

/// An edit of a sealed run. Where it seals again, the hashes agree with the files and only judging again can tell.
struct Forgery {
    name: &'static str,
    /// What `verify` must say.
    expected: &'static str,
    forge: fn(&RunDir) -> Result<()>,
}

/// The commit of the run that is forged.
const COMMIT: &str = "0000000";

const FORGERIES: [Forgery; 12] = [
    Forgery { name: "a faster sample", expected: "samples.json was changed", forge: faster_samples },
    Forgery {
        name: "faster samples, sealed again",
        expected: "the evidence gives",
        forge: |run| faster_samples(run).and_then(|()| seal(run)),
    },
    Forgery {
        name: "a gate turned to PASS, sealed again",
        expected: "recorded PASS",
        forge: |run| {
            edit(run, "gates.json", |gates| {
                let failing = gates.as_array_mut()?.iter_mut().find(|gate| gate["state"] == "FAIL")?;
                failing["state"] = "PASS".into();
                Some(())
            })?;
            seal(run)
        },
    },
    Forgery {
        name: "another decision, sealed again",
        expected: "the decision is recorded as",
        forge: |run| {
            edit(run, "decision.json", |decision| {
                decision["headline"] = "MERGE new: latency reduction on mission 99.0%".into();
                Some(())
            })?;
            seal(run)
        },
    },
    Forgery {
        name: "memory checks that were not made, sealed again",
        expected: "recorded PASS",
        forge: |run| std::fs::remove_file(run.path.join(MEMORY)).map_err(Into::into).and_then(|()| seal(run)),
    },
    Forgery {
        name: "a log that is gone",
        expected: "logs/bench.txt is missing",
        forge: |run| Ok(std::fs::remove_file(run.logs().join("bench.txt"))?),
    },
    Forgery {
        name: "a report that says MERGE, sealed again",
        expected: "REPORT.md is not what the evidence gives",
        forge: |run| {
            let report = run.raw_text("REPORT.md")?;
            run.write("REPORT.md", &report.replacen("VALID NEGATIVE", "MERGE", 1))?;
            seal(run)
        },
    },
    Forgery {
        name: "a page of another candidate, sealed again",
        expected: "report.html is not what the evidence gives",
        forge: |run| {
            let page = run.raw_text("report.html")?;
            run.write("report.html", &page.replacen("new", "newer", 1))?;
            seal(run)
        },
    },
    Forgery {
        name: "another device, with everything derived anew",
        expected: "samples.json is of NVIDIA B200",
        forge: |run| {
            edit(run, "samples.json", |samples| {
                samples["device"]["name"] = "NVIDIA B200".into();
                Some(())
            })?;
            let (suite, evidence) = (run.suite()?, run.evidence()?);
            derive(run, &suite, &evidence, &run.read_json("ENV.json")?, &[])?;
            seal(run)
        },
    },
    Forgery {
        name: "a smaller kernel error, with everything derived anew",
        expected: "contradict each other",
        forge: |run| {
            edit(run, "check.json", |checks| {
                checks["cases"][0]["errors"]["floor_max"] = 0.01.into();
                Some(())
            })?;
            let (suite, evidence) = (run.suite()?, run.evidence()?);
            derive(run, &suite, &evidence, &run.read_json("ENV.json")?, &[])?;
            seal(run)
        },
    },
    Forgery {
        name: "a link in a file's place",
        expected: "samples.json is a symbolic link, not a file",
        forge: |run| {
            std::fs::remove_file(run.path.join("samples.json"))?;
            Ok(std::os::unix::fs::symlink("/dev/zero", run.path.join("samples.json"))?)
        },
    },
    Forgery {
        name: "a file that was slipped in",
        expected: "late.json was added",
        forge: |run| run.write("late.json", "{}"),
    },
];

/// As somebody seals who has no root to be held to.
fn seal(run: &RunDir) -> Result<()> {
    run.seal().map(|_| ())
}

fn faster_samples(run: &RunDir) -> Result<()> {
    edit(run, "samples.json", |samples| {
        let blocks = samples["blocks"].as_array_mut()?.iter_mut().filter(|block| block["subject"]["who"] == "new");
        for block in blocks {
            block["us"].as_array_mut()?.iter_mut().for_each(|us| *us = (us.as_f64().unwrap_or(0.0) * 0.5).into());
        }
        Some(())
    })
}

fn edit(run: &RunDir, file: &str, change: impl FnOnce(&mut Value) -> Option<()>) -> Result<()> {
    let mut value: Value = run.read_json(file)?;
    change(&mut value).with_context(|| format!("{file} has not the form that the forgery expects"))?;
    run.write_json(file, &value)
}

/// A sealed run of honest evidence with a candidate that is right and not faster.
fn sealed_run(parent: &Path) -> Result<RunDir> {
    let (suite, evidence) = honest();
    let run = RunDir::create(parent, COMMIT, &suite.name)?;
    run.write("suite.toml", &toml::to_string(&suite)?)?;
    run.write_json("builds.json", &evidence.builds)?;
    run.write_json("check.json", &evidence.checks)?;
    run.write_json("samples.json", &evidence.samples)?;
    run.write_json("peers.json", &evidence.peers)?;
    run.write_json(MEMORY, &evidence.memory)?;
    let compilers = evidence.builds.records.first().map(|build| (build.nvcc.clone(), build.ptxas.clone())).unzip();
    let environment = Environment {
        commit: Some(COMMIT.to_owned()),
        device: evidence.samples.device.clone(),
        nvcc: compilers.0,
        ptxas: compilers.1,
        ..Environment::default()
    };
    run.write_json("ENV.json", &environment)?;
    derive(&run, &suite, &evidence, &environment, &[])?;
    run.write("logs/bench.txt", "a log\n")?;
    run.seal()?;
    Ok(RunDir::at(run.path))
}

/// Everything: the judge's trials, then the forgeries.
pub fn self_test() -> Result<Vec<Trial>> {
    let mut all = trials();
    let parent = tempfile::tempdir()?;
    let faults = verify(&sealed_run(parent.path())?.path)?;
    all.push(Trial {
        name: "a run as it was sealed".to_owned(),
        lie: false,
        expected: "verified".to_owned(),
        found: if faults.is_empty() { "verified".to_owned() } else { faults.join("; ") },
        right: faults.is_empty(),
    });
    for forgery in &FORGERIES {
        let run = sealed_run(parent.path())?;
        (forgery.forge)(&run).with_context(|| format!("the forgery `{}` could not be made", forgery.name))?;
        let faults = verify(&run.path)?;
        all.push(Trial {
            name: forgery.name.to_owned(),
            lie: true,
            expected: format!("verify: {}", forgery.expected),
            found: faults.first().cloned().unwrap_or_else(|| "verified".to_owned()),
            right: faults.iter().any(|fault| fault.contains(forgery.expected)),
        });
    }
    Ok(all)
}

/// One line for each trial; with `all` also those that came out as they must.
pub fn render(trials: &[Trial], all: bool) -> String {
    let line = |trial: &Trial| {
        let (right, kind) = (if trial.right { "ok  " } else { "WRONG" }, if trial.lie { "lie" } else { "honest" });
        format!(
            "{right} {kind:6}  {}\n             expected: {}\n             found: {}\n",
            trial.name, trial.expected, trial.found
        )
    };
    let lines: String = trials.iter().filter(|t| all || !t.right).map(line).collect();
    let (lies, honest): (Vec<&Trial>, Vec<&Trial>) = trials.iter().partition(|t| t.lie);
    let right = |trials: &[&Trial]| trials.iter().filter(|t| t.right).count();
    format!(
        "{lines}{} of {} lies caught, {} of {} honest controls judged as they deserve",
        right(&lies),
        lies.len(),
        right(&honest),
        honest.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_forgery_is_verified() {
        let wrong: Vec<Trial> = self_test().unwrap().into_iter().filter(|t| !t.right).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn what_came_out_wrong_is_always_shown() {
        let trial =
            |right| Trial { name: "x".into(), lie: true, expected: "a gate".into(), found: "PASS".into(), right };
        let text = render(&[trial(true), trial(false)], false);
        assert!(text.contains("WRONG lie") && text.contains("1 of 2 lies caught"), "{text}");
        assert_eq!(text.matches("expected").count(), 1);
    }
}
