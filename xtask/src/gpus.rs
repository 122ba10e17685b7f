//! The GPUs of this machine that share a validation: of one model, each with a runner that sees it and no other.
//! Leaves to others: what each of them does (`spread`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kbench::evidence::Device;
use kbench::job::{Event, Job};

use crate::runner::{End, Runner, VISIBLE_DEVICES};
use crate::work::{Card, probe};

/// Describing every device.
const SILENCE: Duration = Duration::from_secs(60);

/// Which GPUs are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GpuChoice {
    /// The first.
    #[default]
    First,
    /// All of the first one's model.
    All,
    /// So many of the first one's model.
    Count(usize),
    /// These, by their numbers as CUDA counts them or their unique ids.
    Named(Vec<String>),
}

impl FromStr for GpuChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<GpuChoice, String> {
        let is_id = |name: &str| name.starts_with("GPU-") || name.starts_with("MIG-");
        let is_number = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
        let names: Vec<&str> = text.trim_end_matches(',').split(',').map(str::trim).collect();
        match text.parse::<usize>() {
            _ if text == "all" => Ok(GpuChoice::All),
            Ok(count) if count > 0 => Ok(GpuChoice::Count(count)),
            Err(_) if names.iter().all(|name| is_id(name) || is_number(name)) => {
                Ok(GpuChoice::Named(names.into_iter().map(str::to_owned).collect()))
            }
            _ => {
                Err("use all, how many, or a list of numbers or unique ids: `0,` is the first, `0,2` are two"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for GpuChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuChoice::First => f.write_str("1"),
            GpuChoice::All => f.write_str("all"),
            GpuChoice::Count(count) => write!(f, "{count}"),
            GpuChoice::Named(names) if names.len() == 1 => write!(f, "{},", names[0]),
            GpuChoice::Named(names) => f.write_str(&names.join(",")),
        }
    }
}

/// The name by which CUDA shows a process the GPU of a number: what the environment hides stays hidden.
pub fn names() -> impl Fn(usize) -> String {
    let visible = std::env::var(VISIBLE_DEVICES).ok();
    let listed: Vec<String> =
        visible.iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
    move |number| listed.get(number).cloned().unwrap_or_else(|| number.to_string())
}

/// The GPUs that are asked for, each opened once; one entry that says why there is none where there is none.
pub fn find(runner: &Runner, choice: &GpuChoice) -> Result<Vec<Card>> {
    let one = |runner: Runner| probe(&runner).map(|found| Card { runner, found });
    if *choice == GpuChoice::First {
        return Ok(vec![one(runner.clone())?]);
    }
    let mut devices: Vec<Device> = Vec::new();
    let end = runner.run("devices", &Job::Devices, SILENCE, |event| {
        if let Event::Device { device, .. } = event {
            devices.push(device);
        }
    })?;
    if let End::Error(why) | End::Lost { why, .. } = end {
        bail!("the devices could not be asked: {why}");
    }
    if devices.is_empty() {
        return Ok(vec![one(runner.clone())?]);
    }
    let (name, one) = (names(), &one);
    // One that cannot be opened would look like a kernel that fails on it.
    std::thread::scope(|scope| {
        let open = |number| {
            let runner = runner.on_gpu(&name(number));
            scope.spawn(move || {
                let card = one(runner)?;
                if let Some(why) = &card.found.why_not {
                    bail!("GPU {number}: {}", why.why);
                }
                Ok(card)
            })
        };
        let threads: Vec<_> = chosen(&devices, choice)?.into_iter().map(open).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread that opens a GPU died"))?)
            .collect()
    })
}

/// The numbers of those that are asked for.
fn chosen(devices: &[Device], choice: &GpuChoice) -> Result<Vec<usize>> {
    let model = &devices.first().context("there is a GPU")?.name;
    let alike = devices.iter().enumerate().filter(|(_, device)| device.name == *model).map(|(number, _)| number);
    match choice {
        GpuChoice::First => Ok(vec![0]),
        GpuChoice::All => Ok(alike.collect()),
        GpuChoice::Count(count) => {
            let alike: Vec<usize> = alike.collect();
            ensure!(alike.len() >= *count, "--gpus {count}: there are {} of {model} here", alike.len());
            Ok(alike[..*count].to_vec())
        }
        GpuChoice::Named(names) => {
            let mut numbers = Vec::new();
            for name in names {
                let is_it = |(number, device): &(usize, &Device)| number.to_string() == *name || device.uuid == *name;
                let there = || devices.iter().enumerate().map(|(n, d)| format!("{n} ({})", d.uuid)).collect::<Vec<_>>();
                let found = devices.iter().enumerate().find(is_it);
                let (number, device) =
                    found.with_context(|| format!("--gpus: `{name}` is none of {}", there().join(", ")))?;
                let first = numbers.first().map_or(&device.name, |first: &usize| &devices[*first].name);
                ensure!(
                    device.name == *first,
                    "--gpus: {first} and {} are two models; a verdict is of one",
                    device.name
                );
                ensure!(!numbers.contains(&number), "--gpus names GPU {number} twice");
                numbers.push(number);
            }
            Ok(numbers)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Vec<Device> {
        let device = |number: usize, name: &str| Device {
            name: name.into(),
            uuid: format!("GPU-{number}"),
            capability: (9, 0),
            sm_count: 1,
            max_sm_clock_mhz: 1,
            memory_bytes: 1,
            memory_bytes_per_us: None,
            l2_bytes: 1,
            max_shared_bytes: 1,
            cuda_driver: String::new(),
            nvml: None,
        };
        vec![device(0, "H100"), device(1, "L4"), device(2, "H100"), device(3, "H100")]
    }

    fn asked(text: &str) -> Result<Vec<usize>> {
        chosen(&devices(), &text.parse().map_err(anyhow::Error::msg)?)
    }

    #[test]
    fn gpus_are_of_one_model_and_each_once() {
        assert_eq!(asked("all").unwrap(), [0, 2, 3]);
        assert_eq!(asked("2").unwrap(), [0, 2]);
        assert_eq!(asked("3,0").unwrap(), [3, 0]);
        assert_eq!(asked("GPU-1").unwrap(), [1]);
        assert_eq!(asked("2,").unwrap(), [2]);
        for (text, words) in [
            ("4", "there are 3 of H100 here"),
            ("0", "use all, how many"),
            ("two", "use all, how many"),
            ("0,,1", "use all, how many"),
            ("0,7", "`7` is none of 0 (GPU-0), 1 (GPU-1)"),
            ("0,1", "H100 and L4 are two models"),
            ("2,GPU-2", "names GPU 2 twice"),
        ] {
            let error = asked(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        for text in ["all", "2", "3,0", "2,", "GPU-1,"] {
            assert_eq!(text.parse::<GpuChoice>().unwrap().to_string(), text);
        }
    }
}
