//! Where one task of a fleet stands, from what the scheduler, the task's own markers and its log say of it. A scheduler
//! forgets what ended minutes ago, so its word is taken while it has one and the markers stand where it has none.
//! Leaves to others: what the run of the task came to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the scheduler, or its accounting, says of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Slurm's word, e.g. `RUNNING`.
    pub word: String,
    /// Where; empty where it is nowhere yet.
    pub node: String,
    /// Why it waits, in Slurm's words.
    pub reason: String,
}

/// What a job's script writes before its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Which try of the task it is, from 0, whatever job it is of.
    pub attempt: u32,
    /// The number of its job array: what the scheduler queues again keeps it, and what is submitted again has another.
    pub job: u64,
    /// Where.
    pub node: String,
    /// When, in UTC.
    pub at: String,
}

/// What a job's script writes after its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// What it was doing last: `setup`, `validate`, or `search` of a worker that takes part in one.
    pub step: String,
    /// The exit status of that.
    #[serde(default)]
    pub status: Option<i32>,
    /// The signal that the script was sent, where one ended it.
    #[serde(default)]
    pub signal: Option<String>,
}

/// One try of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its first marker.
    pub begin: Begin,
    /// Its last marker, where it came to write one.
    pub end: Option<End>,
    /// What Slurm wrote into the log when it ended the try.
    pub notice: Option<String>,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum TaskState {
    /// Its kind was never submitted.
    NotSubmitted,
    /// In the queue.
    Pending {
        /// Why it waits, in Slurm's words.
        reason: String,
    },
    /// At work.
    Running {
        /// Where.
        node: String,
        /// The last step that ended.
        step: Option<String>,
    },
    /// Its validation ended by itself, with a verdict.
    Finished,
    /// Its setup or its validation ended without a verdict.
    Failed {
        /// Which of the two.
        step: String,
        /// Where.
        node: String,
        /// With which exit status.
        status: i32,
    },
    /// Somebody cancelled it.
    Cancelled,
    /// It ran past its time limit.
    TimedOut,
    /// A job of a higher priority took its place.
    Preempted,
    /// Its node failed.
    NodeFailed,
    /// The scheduler ended it for another reason.
    Ended {
        /// Slurm's word.
        word: String,
    },
    /// Nobody says how it ended.
    Lost {
        /// What is known.
        why: String,
    },
}

impl TaskState {
    /// Whether it may still come to a verdict by itself.
    pub fn is_going_on(&self) -> bool {
        matches!(self, TaskState::Pending { .. } | TaskState::Running { .. })
    }

    /// Whether it ended without a verdict, so that only another submission brings one.
    pub fn wants_another_try(&self) -> bool {
        !self.is_going_on() && !matches!(self, TaskState::Finished | TaskState::NotSubmitted)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskState::NotSubmitted => f.write_str("not submitted"),
            TaskState::Pending { reason } if reason.is_empty() || reason == "None" => f.write_str("pending"),
            TaskState::Pending { reason } => write!(f, "pending ({reason})"),
            TaskState::Running { node, step: Some(step) } => write!(f, "running on {node}, {step} is done"),
            TaskState::Running { node, step: None } => write!(f, "running on {node}"),
            TaskState::Finished => f.write_str("done"),
            TaskState::Failed { step, node, status } => {
                write!(f, "failed job: {step} ended with status {status} on {node}")
            }
            TaskState::Cancelled => f.write_str("cancelled"),
            TaskState::TimedOut => f.write_str("timed out"),
            TaskState::Preempted => f.write_str("preempted"),
            TaskState::NodeFailed => f.write_str("failed node"),
            TaskState::Ended { word } => write!(f, "ended by Slurm: {word}"),
            TaskState::Lost { why } => write!(f, "lost: {why}"),
        }
    }
}

/// Where a task stands, and how it got there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Now.
    #[serde(flatten)]
    pub state: TaskState,
    /// How its earlier tries ended, oldest first.
    pub before: Vec<TaskState>,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        if let Some(last) = self.before.last() {
            write!(f, "; try {}, after one that was: {last}", self.before.len() + 1)?;
        }
        Ok(())
    }
}

/// Exit statuses of a validation that came to a verdict, and of a search that came to an end.
const VERDICTS: [i32; 4] = [0, 1, 3, 4];

impl Standing {
    /// From the queue, where the task is still known there, the accounting, where there is one, and its tries, oldest first.
    /// `step` is the last step that its log names; `job` is the latest array that the scheduler took it in, whose words
    /// `queue` and `accounting` are.
    pub fn of(
        job: Option<u64>,
        queue: Option<&Sighting>,
        accounting: Option<&Sighting>,
        attempts: &[Attempt],
        step: Option<String>,
    ) -> Standing {
        let closed = |attempts: &[Attempt]| attempts.iter().map(|attempt| past(attempt, None)).collect::<Vec<_>>();
        // What was submitted again and has not begun has no try, however many there were before.
        let of_job = attempts.split_last().filter(|(last, _)| Some(last.begin.job) == job);
        let Some((last, earlier)) = of_job else {
            let state = match (job, queue.or(accounting)) {
                (None, _) => TaskState::NotSubmitted,
                (_, Some(seen)) => now(seen, None).unwrap_or_else(|| of_word(seen)),
                (_, None) => TaskState::Lost {
                    why: "it left the queue without having begun: cancelled while it waited, or refused".to_owned(),
                },
            };
            return Standing { state, before: closed(attempts) };
        };
        // A script that has written its last word is over, while the scheduler still says that it is completing.
        let waits = queue.is_some_and(|seen| matches!(now(seen, None), Some(TaskState::Pending { .. })));
        if let Some(state) = queue.and_then(|seen| now(seen, step))
            && (waits || last.end.is_none())
        {
            let before = if waits { attempts } else { earlier };
            return Standing { state, before: closed(before) };
        }
        Standing { state: past(last, queue.or(accounting)), before: closed(earlier) }
    }
}

/// What a word of the scheduler says of a task that goes on; `None` of one that is over.
fn now(seen: &Sighting, step: Option<String>) -> Option<TaskState> {
    match seen.word.as_str() {
        "RUNNING" | "COMPLETING" | "CONFIGURING" | "STAGE_OUT" | "SIGNALING" => {
            Some(TaskState::Running { node: seen.node.clone(), step })
        }
        "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" | "SUSPENDED"
        | "STOPPED" | "RESIZING" => {
            let held = if seen.word == "PENDING" { "" } else { seen.word.as_str() };
            let reason =
                [held, seen.reason.as_str()].into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(", ");
            Some(TaskState::Pending { reason })
        }
        _ => None,
    }
}

/// What a word of the scheduler says of a task that is over and left no word of its own.
fn of_word(seen: &Sighting) -> TaskState {
    // Accounting adds by whom: `CANCELLED by 1000`.
    match seen.word.split(' ').next().unwrap_or_default() {
        "CANCELLED" => TaskState::Cancelled,
        "TIMEOUT" | "DEADLINE" => TaskState::TimedOut,
        "PREEMPTED" => TaskState::Preempted,
        "NODE_FAIL" | "BOOT_FAIL" => TaskState::NodeFailed,
        word => TaskState::Ended { word: word.to_owned() },
    }
}

/// How a try ended. Its own last word comes first; then what Slurm wrote into its log; then what Slurm says now.
fn past(attempt: &Attempt, seen: Option<&Sighting>) -> TaskState {
    let node = &attempt.begin.node;
    if let Some(End { step, status: Some(status), signal: None }) = &attempt.end {
        if step != "setup" && VERDICTS.contains(status) {
            return TaskState::Finished;
        }
        // What Slurm kills may die a moment before its script hears of it.
        if attempt.notice.is_none() {
            return TaskState::Failed { step: step.clone(), node: node.clone(), status: *status };
        }
    }
    if let Some(notice) = &attempt.notice {
        return of_notice(notice);
    }
    match (seen, attempt.end.as_ref().and_then(|end| end.signal.as_deref())) {
        (Some(seen), _) => of_word(seen),
        (None, Some(signal)) => {
            TaskState::Lost { why: format!("SIG{signal} ended it on {node}, and Slurm does not say why") }
        }
        (None, None) => TaskState::Lost {
            why: format!("it began on {node} and ended without a word: its node failed, or it was killed outright"),
        },
    }
}

/// What Slurm's line in a log says.
fn of_notice(notice: &str) -> TaskState {
    match notice.split_once("DUE TO ").map(|(_, why)| why) {
        None => TaskState::Cancelled,
        Some(why) if why.starts_with("TIME LIMIT") => TaskState::TimedOut,
        Some(why) if why.starts_with("PREEMPTION") => TaskState::Preempted,
        Some(why) if why.starts_with("NODE FAILURE") => TaskState::NodeFailed,
        Some(why) => TaskState::Ended { word: why.trim_end_matches([' ', '*']).to_lowercase() },
    }
}

/// What begins the part of a log that a try wrote.
const HEADING: &str = "== try ";

/// What Slurm wrote of each try, by its number, into a log that all of them append to.
pub fn attempts_in_log(log: &str) -> Vec<(u32, Option<String>)> {
    let mut found: Vec<(u32, Option<String>)> = Vec::new();
    for line in log.lines() {
        let number = line.strip_prefix(HEADING).and_then(|rest| rest.split(' ').next()?.parse().ok());
        if let Some(number) = number {
            found.push((number, None));
        } else if let Some((_, notice)) = found.last_mut()
            && (line.starts_with("slurmstepd") || line.starts_with("srun"))
            && let Some(at) = line.find("CANCELLED AT")
        {
            *notice = Some(line[at..].to_owned());
        }
    }
    found
}

/// The last step that the latest try ended: its name, as steps are announced.
pub fn last_step(log: &str) -> Option<String> {
    let latest = log.rsplit(HEADING).next()?;
    let ended = |line: &&str| line.ends_with(" s)") && line.starts_with(' ');
    Some(latest.lines().rfind(ended)?.split_whitespace().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(word: &str) -> Sighting {
        Sighting { word: word.into(), node: "n1".into(), reason: "None".into() }
    }

    fn attempt(end: Option<(&str, Option<i32>, Option<&str>)>, notice: Option<&str>) -> Attempt {
        let end = end.map(|(step, status, signal)| End { step: step.into(), status, signal: signal.map(Into::into) });
        let begin = Begin { attempt: 0, job: 1, node: "n1".into(), at: "2026-01-01T00:00:00Z".into() };
        Attempt { begin, end, notice: notice.map(Into::into) }
    }

    #[test]
    fn every_end_is_told_as_what_it_was_and_never_as_another() {
        let killed = |notice| attempt(Some(("validate", None, Some("TERM"))), Some(notice));
        let rows: &[(Option<&str>, Vec<Attempt>, &str)] = &[
            (Some("PENDING"), vec![], "pending"),
            (Some("RUNNING"), vec![attempt(None, None)], "running on n1, build is done"),
            (None, vec![attempt(Some(("validate", Some(3), None)), None)], "done"),
            (Some("COMPLETED"), vec![attempt(Some(("validate", Some(0), None)), None)], "done"),
            (None, vec![attempt(Some(("search", Some(3), None)), None)], "done"),
            (
                None,
                vec![attempt(Some(("search", Some(2), None)), None)],
                "failed job: search ended with status 2 on n1",
            ),
            (Some("COMPLETING"), vec![attempt(Some(("validate", Some(1), None)), None)], "done"),
            (
                None,
                vec![attempt(Some(("validate", Some(2), None)), None)],
                "failed job: validate ended with status 2 on n1",
            ),
            (
                None,
                vec![attempt(Some(("validate", Some(137), None)), None)],
                "failed job: validate ended with status 137",
            ),
            (None, vec![attempt(Some(("setup", Some(1), None)), None)], "failed job: setup ended with status 1 on n1"),
            (None, vec![attempt(Some(("setup", Some(0), None)), None)], "failed job: setup"),
            (None, vec![attempt(Some(("validate", Some(143), None)), Some("CANCELLED AT x ***"))], "cancelled"),
            (None, vec![attempt(Some(("validate", Some(3), None)), Some("CANCELLED AT x ***"))], "done"),
            (None, vec![killed("CANCELLED AT 2026-01-01T00:00:00 ***")], "cancelled"),
            (None, vec![killed("CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***")], "timed out"),
            (None, vec![killed("CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***")], "preempted"),
            (
                None,
                vec![killed("CANCELLED AT 2026-01-01T00:00:00 DUE TO JOB REQUEUE ***")],
                "ended by Slurm: job requeue",
            ),
            (Some("NODE_FAIL"), vec![attempt(None, None)], "failed node"),
            (Some("TIMEOUT"), vec![attempt(None, None)], "timed out"),
            (Some("OUT_OF_MEMORY"), vec![attempt(None, None)], "ended by Slurm: OUT_OF_MEMORY"),
            (Some("CANCELLED by 1000"), vec![], "cancelled"),
            (None, vec![attempt(None, None)], "lost: it began on n1 and ended without a word"),
            (None, vec![attempt(Some(("validate", None, Some("TERM"))), None)], "lost: SIGTERM ended it on n1"),
            (None, vec![], "lost: it left the queue without having begun"),
        ];
        for (word, attempts, wanted) in rows {
            let queue = word.map(seen);
            let standing = Standing::of(Some(1), queue.as_ref(), None, attempts, Some("build".into()));
            assert!(standing.to_string().starts_with(wanted), "{word:?} {attempts:?}: {standing}");
        }
        assert_eq!(Standing::of(None, None, None, &[], None).state, TaskState::NotSubmitted);
        let accounted = Standing::of(Some(1), None, Some(&seen("NODE_FAIL")), &[attempt(None, None)], None);
        assert_eq!(accounted.state, TaskState::NodeFailed);
    }

    #[test]
    fn a_job_that_was_queued_again_says_what_was_before() {
        let first = attempt(Some(("validate", None, Some("TERM"))), Some("CANCELLED AT x DUE TO PREEMPTION ***"));
        let waits = Standing::of(Some(1), Some(&seen("PENDING")), None, std::slice::from_ref(&first), None);
        assert_eq!(waits.to_string(), "pending; try 2, after one that was: preempted");
        let second = attempt(Some(("validate", Some(3), None)), None);
        let done = Standing::of(Some(1), None, None, &[first.clone(), second], None);
        assert_eq!(done.to_string(), "done; try 2, after one that was: preempted");
        let runs = Standing::of(Some(1), Some(&seen("RUNNING")), None, &[first, attempt(None, None)], None);
        assert_eq!(runs.to_string(), "running on n1; try 2, after one that was: preempted");
    }

    #[test]
    fn a_task_that_was_submitted_again_stands_where_its_latest_job_does() {
        let failed = [attempt(Some(("setup", Some(1), None)), None)];
        let of = |queue: Option<&str>, accounting: Option<&str>| {
            let (queue, accounting) = (queue.map(seen), accounting.map(seen));
            Standing::of(Some(2), queue.as_ref(), accounting.as_ref(), &failed, Some("build".into())).to_string()
        };
        let before = "; try 2, after one that was: failed job: setup ended with status 1 on n1";
        assert_eq!(of(Some("PENDING"), None), format!("pending{before}"));
        // Its script has not come to its first word.
        assert_eq!(of(Some("RUNNING"), None), format!("running on n1{before}"));
        assert_eq!(of(Some("CANCELLED"), None), format!("cancelled{before}"));
        assert_eq!(of(None, Some("CANCELLED by 1000")), format!("cancelled{before}"));
        assert!(of(None, None).starts_with("lost: it left the queue without having begun"));
        assert_eq!(
            Standing::of(Some(1), None, None, &failed, None).to_string(),
            "failed job: setup ended with status 1 on n1"
        );
    }

    #[test]
    fn what_ended_without_a_verdict_and_only_that_wants_another_try() {
        let (node, why, word) = (String::new(), String::new(), String::new());
        let ended = [
            TaskState::Failed { step: "setup".into(), node: node.clone(), status: 1 },
            TaskState::Cancelled,
            TaskState::TimedOut,
            TaskState::Preempted,
            TaskState::NodeFailed,
            TaskState::Ended { word },
            TaskState::Lost { why },
        ];
        assert!(ended.iter().all(TaskState::wants_another_try));
        let others = [
            TaskState::NotSubmitted,
            TaskState::Finished,
            TaskState::Pending { reason: String::new() },
            TaskState::Running { node, step: None },
        ];
        assert!(!others.iter().any(TaskState::wants_another_try));
    }

    #[test]
    fn a_log_is_read_try_by_try_and_only_slurms_own_lines_count() {
        let log = "== try 0 on n1\n    build 2 compiled (0.3 s)\nslurmstepd-n1: error: *** JOB 3 ON n1 CANCELLED AT \
                   2026-01-01T00:00:00 DUE TO PREEMPTION ***\n== try 1 on n2\n  CANCELLED AT noon\n toolchain x (0.1 s)\n";
        let found = attempts_in_log(log);
        assert_eq!(found.len(), 2);
        assert!(found[0].1.as_ref().is_some_and(|notice| notice.contains("PREEMPTION")) && found[1].1.is_none());
        assert_eq!(last_step(log).as_deref(), Some("toolchain"));
        assert_eq!(last_step("== try 0 on n1\n"), None);
    }
}
