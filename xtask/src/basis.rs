//! What the evidence of a run rests on. A resumed run must rest on the same, or its parts belong to different runs.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use kbench::evidence::{BuildRecord, Environment};
use kbench::suite::Suite;
use serde::{Deserialize, Serialize};

use crate::build::BuildSet;
use crate::cubin::sha256_hex;
use crate::environment::SourceState;
use crate::run_dir::RunDir;

pub const FILE: &str = "basis.json";

/// What a run rests on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// SHA-256 of the suite as used.
    suite: String,
    source: SourceState,
    /// The unique id of the GPU of a validation; the model of a search's, which may take other cards of it.
    device: Option<String>,
    /// The unique ids of further GPUs that share a validation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other_devices: Vec<String>,
    /// The builds of a validation: PTX and cubin by variant and architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cubins: Option<BTreeMap<String, String>>,
    /// What a gate file names, by path, with SHA-256.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
    /// SHA-256 of a search's plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    /// The compiler of a search, which goes on building.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nvcc: Option<String>,
}

impl Basis {
    /// Of a validation: everything was built before its evidence.
    pub fn of_validation(
        suite: &Suite,
        source: &SourceState,
        device_uuids: Vec<String>,
        builds: &BuildSet,
        files: BTreeMap<String, String>,
    ) -> Result<Basis> {
        let mut uuids = device_uuids.into_iter();
        Ok(Basis {
            device: uuids.next(),
            other_devices: uuids.collect(),
            cubins: Some(cubins(&builds.evidence().records)),
            files,
            ..Basis::of(suite, source)?
        })
    }

    /// Of a search, whose evaluations are of one plan.
    pub fn of_search(
        suite: &Suite,
        source: &SourceState,
        device_name: Option<String>,
        plan: &impl Serialize,
        nvcc: &str,
    ) -> Result<Basis> {
        let plan = sha256_hex(serde_json::to_string(plan)?.as_bytes());
        Ok(Basis { device: device_name, plan: Some(plan), nvcc: Some(nvcc.to_owned()), ..Basis::of(suite, source)? })
    }

    fn of(suite: &Suite, source: &SourceState) -> Result<Basis> {
        let suite = sha256_hex(toml::to_string(suite)?.as_bytes());
        Ok(Basis {
            suite,
            source: source.clone(),
            device: None,
            other_devices: Vec::new(),
            cubins: None,
            files: BTreeMap::new(),
            plan: None,
            nvcc: None,
        })
    }

    /// Writes what the run rests on, or refuses to go on when it rests on something else.
    pub fn hold(&self, run: &RunDir) -> Result<()> {
        let (kernels, what) = if self.plan.is_some() { ("compilers", "search") } else { ("kernels", "run") };
        match run.read_if_there::<Basis>(FILE)? {
            None => run.write_json(FILE, self),
            Some(_) if run.read_written::<Basis>(FILE)?.is_none() => bail!(
                "`{}` cannot be resumed: {FILE}, which says what it rests on, is not what was written; start a new {what}",
                run.path.display()
            ),
            Some(earlier) if earlier == *self => Ok(()),
            Some(_) => bail!(
                "`{}` cannot be resumed: suite, sources, {kernels} or device are not those it began with; start a new \
                 {what}",
                run.path.display()
            ),
        }
    }

    /// What of a whole validation is not what it rests on, a sentence for each fact: its suite, its sources, its device,
    /// its kernels, and the files that a gate file names.
    pub fn contradictions(
        &self,
        suite: &Suite,
        environment: &Environment,
        records: &[BuildRecord],
    ) -> Result<Vec<String>> {
        let SourceState { commit, dirty, diff_sha256, rustc, .. } = &self.source;
        let uuid = environment.device.as_ref().map(|device| &device.uuid);
        let others = environment.other_devices.iter().map(|device| &device.uuid);
        let facts = [
            ("suite.toml is not the suite", Basis::of(suite, &self.source)?.suite == self.suite),
            ("ENV.json has another commit than", *commit == environment.commit),
            ("ENV.json says otherwise whether sources were changed than", *dirty == environment.dirty),
            ("ENV.json has another hash of changes than", *diff_sha256 == environment.diff_sha256),
            ("ENV.json has another rustc than", *rustc == environment.rustc),
            ("ENV.json has another device than", self.device.as_ref() == uuid),
            ("ENV.json has other further GPUs than", others.eq(&self.other_devices)),
            ("builds.json has other kernels than", self.cubins.as_ref().is_none_or(|own| *own == cubins(records))),
        ];
        let differs = facts.into_iter().filter(|(_, same)| !same);
        Ok(differs.map(|(what, _)| format!("{what} {FILE}, which says what the run rests on")).collect())
    }

    /// The sources that it began with.
    pub fn source(&self) -> &SourceState {
        &self.source
    }

    /// What a gate file names, by path, with SHA-256.
    pub fn files(&self) -> &BTreeMap<String, String> {
        &self.files
    }
}

/// PTX and cubin of builds, by variant and architecture.
fn cubins(records: &[BuildRecord]) -> BTreeMap<String, String> {
    let cubin = |b: &BuildRecord| (format!("{} {}", b.variant, b.arch), format!("{} {}", b.ptx_sha256, b.cubin_sha256));
    records.iter().map(cubin).collect()
}
