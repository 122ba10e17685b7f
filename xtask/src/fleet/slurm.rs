//! Slurm's own commands, which answer at once: sbatch, squeue, and sacct where there is accounting. A controller that is busy
//! or away for a moment is asked again. Leaves to others: what is asked for, and what the answers mean.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kbench::deferral::Deferral;
use kbench::fleet::Sighting;
use xshell::{Shell, cmd};

/// How often a controller that does not answer is asked, and how long to wait between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// What Slurm's commands say where the controller is the matter, and not the question.
const AWAY: [&str; 5] = [
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Slurm backup controller in standby mode",
    "temporarily unable to accept job",
];

/// One array task in the queue or in the accounting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Number of the array.
    pub job: u64,
    /// Which of it.
    pub index: usize,
    pub sighting: Sighting,
}

/// The commands of a machine that can submit.
pub struct Slurm {
    shell: Shell,
}

impl Slurm {
    /// The inner error says why nothing can be submitted from here.
    pub fn find() -> Result<Result<Slurm, Deferral>> {
        let slurm = Slurm { shell: Shell::new()? };
        for program in ["sbatch", "squeue"] {
            if cmd!(slurm.shell, "{program} --version").quiet().ignore_stderr().read().is_err() {
                let why = format!("no {program} here");
                return Ok(Err(Deferral::new(why, "run this on a login node of the cluster, or install slurm-client")));
            }
        }
        Ok(Ok(slurm))
    }

    /// Runs a command until the controller answers it; `between` may find out that it was carried out after all.
    fn ask(&self, program: &str, arguments: &[String], between: impl Fn() -> Result<Option<String>>) -> Result<String> {
        for attempt in 1.. {
            let output = cmd!(self.shell, "{program} {arguments...}").quiet().ignore_status().output()?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            if attempt == TRIES || !AWAY.iter().any(|words| said.contains(words)) {
                bail!("{program}: {}", if said.is_empty() { output.status.to_string() } else { said });
            }
            std::thread::sleep(PAUSE);
            if let Some(answer) = between()? {
                return Ok(answer);
            }
        }
        unreachable!("the loop ends by itself")
    }

    /// Submits a script under a name, with further options, and returns the job's number. A job of this name that is in the
    /// queue already is that job: its answer was lost, or the program that submitted it ended before it could say so.
    pub fn submit(&self, script: &Path, name: &str, options: &[String]) -> Result<u64> {
        let there = || Ok(self.queue(&[name.to_owned()])?.first().map(|seen| seen.job.to_string()));
        let arguments = ["--parsable".to_owned(), format!("--job-name={name}")].into_iter().chain(options.to_vec());
        let arguments: Vec<String> = arguments.chain([script.display().to_string()]).collect();
        let answer = match there()? {
            Some(job) => job,
            None => self.ask("sbatch", &arguments, there)?,
        };
        // On a federation the cluster's name follows.
        let number = answer.trim().split(';').next().unwrap_or_default();
        number.parse().with_context(|| format!("sbatch answered `{}` and no number", answer.trim()))
    }

    /// Every task of the named jobs that the queue still knows.
    pub fn queue(&self, names: &[String]) -> Result<Vec<Seen>> {
        let arguments = ["--noheader", "--array", "--states=all", "--format=%F|%K|%T|%N|%r"].map(str::to_owned);
        let arguments: Vec<String> = arguments.into_iter().chain([format!("--name={}", names.join(","))]).collect();
        Ok(parse_queue(&self.ask("squeue", &arguments, || Ok(None))?))
    }

    /// What the accounting knows of jobs; nothing where there is none.
    pub fn accounting(&self, jobs: &[u64]) -> Vec<Seen> {
        if jobs.is_empty() {
            return Vec::new();
        }
        let jobs = format!("--jobs={}", jobs.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
        let answer =
            cmd!(self.shell, "sacct --noheader --parsable2 --allocations --format=JobID,State,NodeList {jobs}");
        answer.quiet().ignore_stderr().read().map(|text| parse_accounting(&text)).unwrap_or_default()
    }
}

fn parse_queue(text: &str) -> Vec<Seen> {
    let seen = |line: &str| {
        let mut fields = line.trim().splitn(5, '|');
        let (job, index) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let mut next = || fields.next().map(|field| field.trim().to_owned());
        Some(Seen { job, index, sighting: Sighting { word: next()?, node: next()?, reason: next()? } })
    };
    text.lines().filter_map(seen).collect()
}

fn parse_accounting(text: &str) -> Vec<Seen> {
    let seen = |line: &str| {
        let mut fields = line.trim().split('|');
        let (job, index) = fields.next()?.split_once('_')?;
        let (word, node) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let sighting = Sighting { word, node, reason: String::new() };
        Some(Seen { job: job.parse().ok()?, index: index.parse().ok()?, sighting })
    };
    text.lines().filter_map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_task_by_task_and_the_rest_is_left() {
        let text = "1|2|PENDING||Resources\n1|0|RUNNING|node-l4|None\n5|N/A|RUNNING|node-l4|None\n\
                    7|3|PENDING||Nodes required for job are DOWN, DRAINED\n";
        let queue = parse_queue(text);
        let shown: Vec<String> =
            queue.iter().map(|s| format!("{}_{} {} {}", s.job, s.index, s.sighting.word, s.sighting.node)).collect();
        assert_eq!(shown, ["1_2 PENDING ", "1_0 RUNNING node-l4", "7_3 PENDING "]);
        assert!(queue[2].sighting.reason.ends_with("DOWN, DRAINED"));
        let accounting = parse_accounting("1_0|CANCELLED by 0|n1\n1_[1-3]|PENDING|None\n1_2|NODE_FAIL|n2\n");
        assert_eq!(accounting.len(), 2);
        assert_eq!((accounting[1].index, accounting[1].sighting.word.as_str()), (2, "NODE_FAIL"));
    }
}
