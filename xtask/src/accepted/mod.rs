//! What was accepted: where `accepted.json` lies, the suite of a file beside it, and that a control which is called accepted
//! still is the code that was. Leaves to others: accepting (`accept`), and what the file says (`kbench::ledger`).

mod code;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kbench::ledger::{Accepted, FILE, Ledger};
use kbench::suite::Suite;

use crate::build::BuildSet;
use crate::layout::Layout;
pub use code::{are_one, of_builds, of_cubins};

/// Where the file lies: beside the suite or gate file. What a wheel installed is only read, so that of its own suites lies in
/// the working directory.
pub fn path(layout: &Layout, file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new(""));
    match layout.is_installed() && folder == layout.suites() {
        true => PathBuf::from(FILE),
        false => folder.join(FILE),
    }
}

/// What was accepted, by the file that says so; nothing where there is none.
pub fn ledger(path: &Path) -> Result<Ledger> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ledger::parse(&text).with_context(|| format!("`{}`", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ledger::default()),
        Err(error) => Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    }
}

/// A suite or gate file, and what was accepted that it calls its control.
pub fn suite(layout: &Layout, file: &Path) -> Result<(Suite, Option<Control>)> {
    suite_with(file, &path(layout, file))
}

/// The same of a copy that was packed with what lies beside it.
pub fn packed_suite(file: &Path) -> Result<Suite> {
    Ok(suite_with(file, &file.with_file_name(FILE))?.0)
}

fn suite_with(file: &Path, ledger_file: &Path) -> Result<(Suite, Option<Control>)> {
    let text = std::fs::read_to_string(file).context("failed to read it")?;
    let ledger = ledger(ledger_file)?;
    let suite = Suite::parse_with(&text, &ledger)?;
    let control = Control::of(&text, &suite, &ledger);
    Ok((suite, control))
}

/// A control that is what was accepted last.
#[derive(Clone, Debug)]
pub struct Control {
    accepted: Accepted,
    /// The models of device that it was accepted on.
    devices: Vec<String>,
}

impl Control {
    fn of(text: &str, suite: &Suite, ledger: &Ledger) -> Option<Control> {
        let table: toml::Table = text.parse().ok()?;
        let says = table.get("control")?.as_str()?;
        let accepted = ledger.latest(&suite.name).filter(|_| says == kbench::ledger::ACCEPTED)?;
        let devices = ledger.devices(&suite.name, &accepted.variant).into_iter().map(str::to_owned).collect();
        Some(Control { accepted: accepted.clone(), devices })
    }

    /// An architecture that its code is known of, for a file that names none on a machine without a device.
    pub fn arch(&self) -> Option<&str> {
        self.accepted.code.keys().next().map(String::as_str)
    }

    /// Where it was accepted.
    pub fn shown(&self) -> String {
        format!("{}, accepted on {} in {}", self.accepted.variant, self.devices.join(", "), self.accepted.run)
    }

    /// Refuses a control that is not the accepted code, or was not accepted on the device that times it.
    pub fn hold(&self, suite: &Suite, builds: &BuildSet, device: Option<&str>) -> Result<()> {
        let Accepted { variant, run, nvcc, code, .. } = &self.accepted;
        if let Some(device) = device.filter(|device| self.devices.iter().all(|known| known != device)) {
            let known = self.devices.join(", ");
            bail!(
                "control: `{variant}` was accepted on {known}, and this is {device}: name the control, or accept a run of \
                 this device"
            );
        }
        for (arch, now) in of_builds(suite, builds, variant)? {
            let Some(then) = code.get(&arch) else {
                let known = code.keys().cloned().collect::<Vec<_>>().join(", ");
                bail!("control: `{variant}` was accepted as built for {known}, and this is {arch}: name the control");
            };
            if now == *then {
                continue;
            }
            match builds.get(variant, &arch).filter(|built| built.record.nvcc != *nvcc) {
                Some(other) => bail!(
                    "control: `{variant}` was accepted as nvcc {nvcc} compiles it, and this is nvcc {}: use that one, or name \
                     the control and accept a run made with this one",
                    other.record.nvcc
                ),
                None => bail!(
                    "control: `{variant}` is not the code that was accepted in {run}: its source, its definition or the \
                     shapes have changed since; take that back, or name the control and judge the change as a candidate"
                ),
            }
        }
        Ok(())
    }
}
