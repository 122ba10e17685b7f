//! Nsight Compute around one runner job: which metrics it has, one profiled launch, and the CSV of its report. Whatever
//! keeps it from measuring becomes a deferral with the exact remedy. Leaves to others: which variants, and what it means.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kbench::deferral::Deferral;
use kbench::evidence::{LaunchOutcome, LaunchRecord, Operands};
use kbench::job::{Event, Job, Module, ProfileJob, Task};
use kbench::operator::Problem;
use kbench::profile::{self, KernelProfile, Settings};

use crate::files::write_whole;
use crate::runner::{End, Runner};
use crate::toolchain::child;

/// The program, looked for on PATH.
const PROGRAM: &str = "ncu";
/// Launches before the one that is profiled: caches, clocks and lazily loaded code are as later launches find them.
const WARMUP_LAUNCHES: u32 = 20;
/// ncu's own answers: its version, its metrics, the CSV of a report.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);
/// A launch that is replayed for every metric.
const SILENCE: Duration = Duration::from_secs(180);

/// An ncu that answers, and what it is asked for.
#[derive(Clone, Debug)]
pub struct Ncu {
    /// How it is run.
    pub settings: Settings,
    /// Metrics, with suffixes, that this ncu has for the devices here.
    metrics: Vec<String>,
}

impl Ncu {
    /// Looks for ncu and asks it what it has; the inner error is what stands in the way.
    pub fn find(logs: &Path) -> Result<Result<Ncu, Deferral>> {
        std::fs::create_dir_all(logs).with_context(|| format!("failed to create `{}`", logs.display()))?;
        let version = match answer(&["--version"], &logs.join("ncu-version.log"))? {
            Ok(text) => version(&text),
            Err(why) => return Ok(Err(why)),
        };
        let metrics = match answer(&["--query-metrics"], &logs.join("ncu-metrics.log"))? {
            Ok(text) => profile::choose(&profile::available(&text)),
            Err(why) => return Ok(Err(why)),
        };
        // A megabyte of names in every run tells less than those that were taken.
        write_whole(&logs.join("ncu-metrics.log"), (metrics.join("\n") + "\n").as_bytes())?;
        if metrics.is_empty() {
            return Ok(Err(Deferral::new(
                "ncu has none of the metrics for this GPU",
                "use a version of ncu that knows it",
            )));
        }
        let none = || "none".to_owned();
        let settings = Settings {
            version,
            clock_control: none(),
            cache_control: none(),
            replay_mode: "kernel".to_owned(),
            warmup_launches: WARMUP_LAUNCHES,
        };
        Ok(Ok(Ncu { settings, metrics }))
    }

    /// Profiles one launch of a variant's attention kernel. Report and CSV go to the folder `profile` in `dir`, the paths in the result
    /// are relative to `dir`. What cannot be profiled is in the result as deferred.
    pub fn profile(
        &self,
        runner: &Runner,
        task: &Task,
        module: &Module,
        problem: &Problem,
        dir: &Path,
    ) -> Result<KernelProfile> {
        let name = format!("{}.{}", module.variant, problem.id());
        let [report, csv] = ["ncu-rep", "csv"].map(|extension| format!("profile/{name}.{extension}"));
        std::fs::create_dir_all(dir.join("profile"))
            .with_context(|| format!("failed to create `{}`", dir.join("profile").display()))?;
        let log = runner.logs.join(format!("ncu-{name}.report.txt"));
        let mut command = self.command(module, problem, &dir.join(&report), &log);
        command.extend(runner.command.clone());
        let wrapped = Runner { command, ..runner.clone() };
        let launches = self.settings.warmup_launches + 1;
        let job = ProfileJob { task: task.clone(), module: module.clone(), problem: problem.clone(), launches };
        let mut outcome = None;
        let end = wrapped.run(&format!("ncu-{name}"), &Job::Profile(job), SILENCE, |event| match event {
            Event::Launched { outcome: found } => outcome = Some(found),
            Event::NoDevice(deferral) => outcome = Some(LaunchOutcome::failed(problem, &deferral.to_string())),
            _ => {}
        })?;
        // Its own log, and what it said before it opened that.
        let heard = [log.clone(), runner.logs.join(format!("ncu-{name}.log"))];
        let said: String = heard.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect();
        let deferred = |deferral| Ok(KernelProfile::deferred(&module.variant, problem, deferral));
        let see_report = format!("see `logs/ncu-{name}.report.txt`");
        let last_words = match &end {
            End::Done => "",
            End::Error(why) => why,
            End::Lost { how, .. } => how,
        };
        if let Some(obstacle) = known_obstacle(&said).or_else(|| known_obstacle(last_words)) {
            return deferred(obstacle);
        }
        if end != End::Done {
            let why = first_error(&said).unwrap_or_else(|| last_words.to_owned());
            return deferred(Deferral::new(format!("the launch under ncu broke off: {why}"), see_report));
        }
        if !dir.join(&report).is_file() {
            let why = first_error(&said).unwrap_or_else(|| "it wrote no report".to_owned());
            return deferred(Deferral::new(format!("ncu: {why}"), see_report));
        }
        let text = match csv_of(&dir.join(&report), &runner.logs.join(format!("ncu-{name}.csv.log")))? {
            Ok(text) => text,
            Err(obstacle) => return deferred(obstacle),
        };
        write_whole(&dir.join(&csv), text.as_bytes())?;
        let _ = std::fs::remove_file(runner.logs.join(format!("ncu-{name}.csv.log")));
        let reading = match profile::read(&text) {
            Ok(reading) => reading,
            Err(error) => return deferred(Deferral::new(format!("ncu's CSV: {error}"), format!("see `{csv}`"))),
        };
        if !entries(module, problem).contains(&reading.kernel.as_str()) {
            let why = format!("ncu profiled `{}` instead", reading.kernel);
            return deferred(Deferral::new(why, format!("see `{csv}`")));
        }
        Ok(KernelProfile {
            variant: module.variant.clone(),
            problem: problem.clone(),
            deferred: None,
            output_sha256: outcome.filter(|o| o.repeat_equal && o.inputs_unchanged).and_then(|o| o.output_sha256),
            report: Some(report),
            csv: Some(csv),
            reading: Some(reading),
        })
    }

    /// ncu and its arguments, up to the program that it watches. The user's configuration file has no say.
    fn command(&self, module: &Module, problem: &Problem, report: &Path, log: &Path) -> Vec<String> {
        let settings = &self.settings;
        let path = |path: &Path| path.display().to_string();
        [
            PROGRAM.to_owned(),
            "--config-file".to_owned(),
            "off".to_owned(),
            "--log-file".to_owned(),
            path(log),
            "--force-overwrite".to_owned(),
            "--export".to_owned(),
            path(report),
            "--kernel-name-base".to_owned(),
            "function".to_owned(),
            "--kernel-name".to_owned(),
            format!("regex:^({})$", entries(module, problem).join("|")),
            "--launch-skip".to_owned(),
            settings.warmup_launches.to_string(),
            "--launch-count".to_owned(),
            "1".to_owned(),
            "--clock-control".to_owned(),
            settings.clock_control.clone(),
            "--cache-control".to_owned(),
            settings.cache_control.clone(),
            "--replay-mode".to_owned(),
            settings.replay_mode.clone(),
            "--metrics".to_owned(),
            self.metrics.join(","),
        ]
        .to_vec()
    }
}

/// The judged entries of a module for a problem; the quantiser is none of them.
fn entries<'a>(module: &'a Module, problem: &Problem) -> Vec<&'a str> {
    let of_shape = |l: &&LaunchRecord| l.serves(&problem.shape) && l.operands != Operands::Originals;
    module.launches.iter().filter(of_shape).map(|l| l.entry.as_str()).collect()
}

/// What ncu prints; the inner error is what stands in the way.
fn answer(arguments: &[&str], log: &Path) -> Result<Result<String, Deferral>> {
    let command = duct::cmd(PROGRAM, arguments).env("LC_ALL", "C");
    let shown = format!("ncu {}", arguments.join(" "));
    match child::run(&command, log, ANSWER_LIMIT, &mut |_| {}) {
        Ok(child::End::Exited { success: true, output }) => Ok(Ok(output)),
        Ok(child::End::Exited { output, .. }) => Ok(Err(known_obstacle(&output).unwrap_or_else(|| {
            let why = first_error(&output).unwrap_or_else(|| "it failed without a word".to_owned());
            Deferral::new(format!("`{shown}`: {why}"), format!("see `logs/{}`", file_name(log)))
        }))),
        Ok(child::End::TimedOut) => {
            let limit = ANSWER_LIMIT.as_secs();
            Ok(Err(Deferral::new(format!("`{shown}` did not end within {limit} s"), "run it by hand")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Err(Deferral::new(
            "ncu is not on PATH",
            "install Nsight Compute (package `nsight-compute` of the CUDA repository) and put its folder on PATH",
        ))),
        Err(error) => Ok(Err(Deferral::new(format!("ncu does not start: {error}"), "run `ncu --version` by hand"))),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The raw page of a report. In the units that ncu picks it has six decimals, in base units only two.
fn csv_of(report: &Path, log: &Path) -> Result<Result<String, Deferral>> {
    let report = report.display().to_string();
    answer(&["--import", &report, "--csv", "--page", "raw"], log)
}

/// `2025.3.1.0` of "Version 2025.3.1.0 (build 12345) (public-release)".
fn version(text: &str) -> String {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Version "));
    line.and_then(|rest| rest.split_whitespace().next()).unwrap_or("unknown").to_owned()
}

/// Obstacles that ncu is known to meet: a word of its message, why, and the remedy.
const OBSTACLES: [(&str, &str, &str); 6] = [
    (
        "ERR_NVGPUCTRPERM",
        "no permission to read the GPU's performance counters (ERR_NVGPUCTRPERM)",
        "run as root (in a container with --cap-add=SYS_ADMIN), or put `options nvidia \
         NVreg_RestrictProfilingToAdminUsers=0` into /etc/modprobe.d/nvidia-profiling.conf and reboot",
    ),
    ("nsight-compute-lock", LOCKED, UNLOCK),
    ("InterprocessLockFailed", LOCKED, UNLOCK),
    (
        "driver resource was unavailable",
        "another tool holds the GPU's performance counters",
        "stop it, or pause DCGM with `dcgmi profile --pause`",
    ),
    (
        "LibraryNotLoaded",
        "the driver's profiling library cannot be loaded here (LibraryNotLoaded)",
        "run outside this sandbox, or install the driver's libraries in the container",
    ),
    ("No kernels were profiled", "ncu saw no launch of the kernel", "see ncu's log in `logs/`"),
];
const LOCKED: &str = "ncu's lock file `nsight-compute-lock` in the shared temporary directory belongs to another user";
const UNLOCK: &str = "remove it with `sudo rm /tmp/nsight-compute-lock`, or set TMPDIR to a directory of your own";

/// What ncu would meet here, as far as files tell: counters for administrators only, a lock file of somebody else.
pub fn obstacle_ahead() -> Option<Deferral> {
    let params = std::fs::read_to_string("/proc/driver/nvidia/params").unwrap_or_default();
    let lock = std::env::temp_dir().join("nsight-compute-lock");
    let locked = lock.exists() && std::fs::File::options().write(true).open(&lock).is_err();
    obstacle_in(&params, rustix::process::geteuid().is_root(), locked)
}

fn obstacle_in(params: &str, root: bool, locked: bool) -> Option<Deferral> {
    if params.lines().any(|line| line.trim() == "RmProfilingAdminOnly: 1") && !root {
        return known_obstacle("ERR_NVGPUCTRPERM");
    }
    if locked { known_obstacle("nsight-compute-lock") } else { None }
}

/// What ncu met, if it is known.
fn known_obstacle(said: &str) -> Option<Deferral> {
    let (_, why, remedy) = OBSTACLES.iter().find(|(word, ..)| said.contains(word))?;
    Some(Deferral::new(*why, *remedy))
}

/// The first error that ncu reports, in one line without a semicolon: a reader would take the rest for the remedy.
fn first_error(said: &str) -> Option<String> {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("==ERROR==").map(str::trim));
    let line =
        line.or_else(|| said.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("==")));
    line.map(|line| line.replace("; ", ", ").chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_has_a_reason_and_a_remedy() {
        for (word, ..) in OBSTACLES {
            let found = known_obstacle(&format!("==PROF== a\n==ERROR== b {word} c\n")).unwrap();
            let (why, remedy, text) = (&found.why, &found.remedy, found.to_string());
            assert!(!why.is_empty() && !remedy.is_empty() && !text.contains('\n'), "{text}");
        }
        assert_eq!(known_obstacle("==PROF== Connected to process 1"), None);
    }

    #[test]
    fn the_first_error_is_one_line_that_cannot_be_taken_for_a_remedy() {
        let said = "==PROF== Connected\n==ERROR== no; never\n==ERROR== later\n";
        assert_eq!(first_error(said).unwrap(), "no, never");
        assert_eq!(first_error("sh: ncu: not found\n\n").unwrap(), "sh: ncu: not found");
        assert_eq!(first_error("==PROF== Connected\n"), None);
        assert_eq!(version("NVIDIA (R)\nVersion 2025.3.1.0 (build 1)\n"), "2025.3.1.0");
    }

    #[test]
    fn counters_for_administrators_stop_only_others() {
        let only = "ModifyDeviceFiles: 1\nRmProfilingAdminOnly: 1\n";
        assert!(obstacle_in(only, false, false).unwrap().why.contains("ERR_NVGPUCTRPERM"));
        assert!(obstacle_in(only, true, true).unwrap().remedy.contains("TMPDIR"));
        for (params, root) in [(only, true), ("RmProfilingAdminOnly: 0\n", false), ("", false)] {
            assert_eq!(obstacle_in(params, root, false), None);
        }
    }
}
