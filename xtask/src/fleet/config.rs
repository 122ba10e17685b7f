//! `fleet.toml`: where the shared folder is, and how Slurm is asked for each kind of device.
//! Leaves to others: what is submitted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kbench::key::{BadKey, from_toml};
use serde::Deserialize;

/// The time limit of a job where the file gives none.
const USUAL_TIME: &str = "04:00:00";

/// The file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A folder that login and compute nodes see under one path; a relative one is taken from the file's own folder.
    pub shared: PathBuf,
    /// Lines of shell before the work of every job.
    #[serde(default)]
    setup: Vec<String>,
    /// Of kinds that name none.
    partition: Option<String>,
    account: Option<String>,
    /// As Slurm writes it, e.g. `02:00:00`.
    time: Option<String>,
    /// By the name that `--on` has.
    kinds: BTreeMap<String, KindConfig>,
}

/// A kind of device.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindConfig {
    /// What its runs must say that they ran on: the name that the driver gives it, or `emulator`.
    device: String,
    /// A GPU of the kind, e.g. `gpu:l4:1`: Slurm gives it to no other job.
    gres: Option<String>,
    /// A feature of its nodes. Without `gres` the whole node is taken, for nothing else keeps others off its GPU.
    constraint: Option<String>,
    partition: Option<String>,
    account: Option<String>,
    time: Option<String>,
    #[serde(default)]
    setup: Vec<String>,
}

/// What the command line asks Slurm for instead of fleet.toml.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub partition: Option<String>,
    pub account: Option<String>,
    /// As Slurm writes it, e.g. `02:00:00`.
    pub time: Option<String>,
}

impl Overrides {
    /// By the names of sbatch's options.
    pub fn named(&self) -> [(&'static str, &Option<String>); 3] {
        [("partition", &self.partition), ("account", &self.account), ("time", &self.time)]
    }
}

/// How one kind is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub kind: String,
    /// What its runs must say that they ran on.
    pub device: String,
    /// Options of sbatch.
    pub options: Vec<String>,
    /// Lines of shell before the work.
    pub setup: Vec<String>,
}

impl Config {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "failed to read `{}`: it names the shared folder and the kinds of device; see docs/fleet.md",
                path.display()
            )
        })?;
        let mut config = Config::parse(&text).with_context(|| format!("`{}`", path.display()))?;
        let folder = std::path::absolute(path)?;
        config.shared = folder.parent().context("a file has a folder")?.join(&config.shared);
        Ok(config)
    }

    fn parse(text: &str) -> Result<Config, BadKey> {
        let config: Config = from_toml(text)?;
        let shared = config.shared.to_string_lossy();
        if shared.is_empty() || shared.contains(['"', '\'', '\\', '%', '\n', '$', '`']) {
            return BadKey::refuse("shared", "name a folder whose path has no quotes, `%`, `$` or backslashes");
        }
        if config.kinds.is_empty() {
            return BadKey::refuse(
                "kinds",
                "name at least one, as in [kinds.l4] device = \"NVIDIA L4\", gres = \"gpu:l4:1\"",
            );
        }
        for (name, kind) in &config.kinds {
            let key = |rest: &str| format!("kinds.{name}{rest}");
            if !is_word(name) {
                return BadKey::refuse(key(""), "a kind is named by letters, digits, `-` and `_`");
            }
            if kind.device.trim().is_empty() {
                return BadKey::refuse(key(".device"), "give the name that the driver gives it, or \"emulator\"");
            }
            if kind.gres.is_none() && kind.constraint.is_none() {
                return BadKey::refuse(key(""), "say how Slurm knows it: gres = \"gpu:l4:1\" or constraint = \"l4\"");
            }
            let texts = [("gres", &kind.gres), ("constraint", &kind.constraint)];
            let own = [("partition", &kind.partition), ("account", &kind.account), ("time", &kind.time)];
            check_options(texts.into_iter().chain(own), |option| key(&format!(".{option}")))?;
        }
        let usual = [("partition", &config.partition), ("account", &config.account), ("time", &config.time)];
        check_options(usual, str::to_owned)?;
        Ok(config)
    }

    /// How the named kinds are asked for. What the command line says comes first.
    pub fn requests(&self, on: &[String], overrides: &Overrides) -> Result<Vec<Request>> {
        ensure!(!on.is_empty(), "name at least one kind of device with --on");
        check_options(overrides.named(), |option| format!("--{option}"))?;
        let mut requests: Vec<Request> = Vec::new();
        for name in on {
            let Some(kind) = self.kinds.get(name) else {
                let known = self.kinds.keys().cloned().collect::<Vec<_>>().join(", ");
                bail!("unknown kind `{name}`: use one of {known}, or add [kinds.{name}] to fleet.toml");
            };
            ensure!(!requests.iter().any(|request| request.kind == *name), "--on names `{name}` twice");
            // Two kinds that are one device would let it stand for both.
            if let Some(same) = requests.iter().find(|r| r.device == kind.device && r.device != super::EMULATOR) {
                bail!("kinds `{}` and `{name}` are the same device, `{}`; name it once", same.kind, kind.device);
            }
            requests.push(self.request(name, kind, overrides));
        }
        Ok(requests)
    }

    fn request(&self, name: &str, kind: &KindConfig, overrides: &Overrides) -> Request {
        let first = |given: &Option<String>, own: &Option<String>, usual: &Option<String>| {
            given.clone().or_else(|| own.clone()).or_else(|| usual.clone())
        };
        let time = first(&overrides.time, &kind.time, &self.time).unwrap_or_else(|| USUAL_TIME.to_owned());
        let options = [
            ("gres", kind.gres.clone()),
            ("constraint", kind.constraint.clone()),
            ("partition", first(&overrides.partition, &kind.partition, &self.partition)),
            ("account", first(&overrides.account, &kind.account, &self.account)),
            ("time", Some(time)),
        ];
        let mut options: Vec<String> =
            options.into_iter().filter_map(|(option, value)| Some(format!("--{option}={}", value?))).collect();
        if kind.gres.is_none() {
            options.push("--exclusive".to_owned());
        }
        let setup = self.setup.iter().chain(&kind.setup).cloned().collect();
        Request { kind: name.to_owned(), device: kind.device.clone(), options, setup }
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// Values of sbatch's options stand in lines of their own, unquoted.
pub fn check_options<'a>(
    texts: impl IntoIterator<Item = (&'static str, &'a Option<String>)>,
    key: impl Fn(&str) -> String,
) -> Result<(), BadKey> {
    let is_bad = |text: &str| {
        text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || "'\"\\#".contains(c))
    };
    match texts.into_iter().find(|(_, text)| text.as_deref().is_some_and(is_bad)) {
        Some((option, _)) => BadKey::refuse(key(option), "is not a value that sbatch takes: no spaces, quotes or `#`"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
shared = "/shared/gates"
partition = "gpu"
time = "02:00:00"
setup = ["module load cuda"]
[kinds.l4]
device = "NVIDIA L4"
gres = "gpu:l4:1"
[kinds.h100]
device = "NVIDIA H100 80GB HBM3"
constraint = "h100"
time = "00:30:00"
setup = ["echo here"]
[kinds.also-l4]
device = "NVIDIA L4"
gres = "gpu:1"
"#;

    fn asked(on: &[&str], partition: Option<&str>) -> Result<Vec<Request>> {
        let on: Vec<String> = on.iter().map(|name| (*name).to_owned()).collect();
        let overrides = Overrides { partition: partition.map(str::to_owned), ..Overrides::default() };
        Config::parse(GOOD)?.requests(&on, &overrides)
    }

    #[test]
    fn a_kind_is_asked_for_by_its_own_words_then_the_usual_ones() {
        let requests = asked(&["l4", "h100"], None).unwrap();
        assert_eq!(requests[0].options, ["--gres=gpu:l4:1", "--partition=gpu", "--time=02:00:00"]);
        assert_eq!(requests[1].options, ["--constraint=h100", "--partition=gpu", "--time=00:30:00", "--exclusive"]);
        assert_eq!(requests[1].setup, ["module load cuda", "echo here"]);
        let longer = Overrides { time: Some("1-0".to_owned()), ..Overrides::default() };
        let longer = Config::parse(GOOD).unwrap().requests(&["h100".to_owned()], &longer).unwrap();
        assert!(longer[0].options.contains(&"--time=1-0".to_owned()));
        assert!(asked(&["l4"], Some("low")).unwrap()[0].options.contains(&"--partition=low".to_owned()));
    }

    #[test]
    fn what_cannot_be_is_one_line() {
        let error = |on: &[&str], partition| format!("{:#}", asked(on, partition).unwrap_err());
        assert!(error(&["b200"], None).contains("unknown kind `b200`: use one of also-l4, h100, l4"));
        assert!(error(&["l4", "l4"], None).contains("twice"));
        assert!(error(&["l4", "also-l4"], None).contains("the same device"));
        assert!(error(&[], None).contains("--on"));
        assert!(error(&["l4"], Some("a b")).contains("--partition"));
        let bad = [
            ("shared = \"/s\"\n[kinds]\n", "kinds: name at least one"),
            ("shared = \"/s'\"\n[kinds.a]\ndevice = \"x\"\ngres = \"g\"", "shared: name a folder"),
            ("shared = \"/s\"\n[kinds.a]\ndevice = \"x\"", "kinds.a: say how Slurm knows it"),
            ("shared = \"/s\"\n[kinds.a]\ndevice = \" \"\ngres = \"g\"", "kinds.a.device: give the name"),
            ("shared = \"/s\"\n[kinds.a]\ndevice = \"x\"\ngres = \"g h\"", "kinds.a.gres: is not a value"),
            ("shared = \"/s\"\n[kinds.\"a/b\"]\ndevice = \"x\"\ngres = \"g\"", "a kind is named by"),
        ];
        for (text, wanted) in bad {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains('\n'), "{error}");
        }
    }
}
