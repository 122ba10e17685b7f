//! `[variants.V]` as it stands in the file, before inheritance. Leaves to others: what any of it means.

use std::collections::BTreeMap;
use std::fmt;

use kernel_spec::dtype::Dtype;
use kernel_spec::expr::Expr;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::param::Param;
use crate::ordered::Ordered;

/// The table of one variant; every key may be inherited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VariantTable {
    /// The variant whose keys it inherits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Settings of a kernel that comes with the project, by name; for suites of attention alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub toggles: BTreeMap<String, u32>,
    /// `.cu`, `.ptx`, `.cubin` or `.py`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Values that reach the compiler; merged with the base's.
    #[serde(skip_serializing_if = "Ordered::is_empty")]
    pub define: Ordered<Expr>,
    /// Values of launches; merged with the base's.
    #[serde(rename = "let", skip_serializing_if = "Ordered::is_empty")]
    pub values: Ordered<Expr>,
    /// Flags of the compiler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// Folders of headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<String>>,
    /// PTX symbol, unique C++ name or template-id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Several launches, instead of `entry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches: Option<Vec<DeclaredStep>>,
    /// Python file that answers with launches, instead of `entry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Triton function, instead of `entry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triton: Option<String>,
    /// Function on torch tensors, instead of `entry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Warps of a Triton program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_warps: Option<Expr>,
    /// Stages of Triton's software pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_stages: Option<Expr>,
    /// Parameters in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Vec<Param>>,
    /// CTAs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<Vec<Expr>>,
    /// Threads of a CTA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Vec<Expr>>,
    /// Dynamic shared memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<Expr>,
    /// CTAs of a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Vec<Expr>>,
    /// All CTAs must be resident at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooperative: Option<bool>,
    /// Programmatic dependent launch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pdl: Option<bool>,
    /// Memory of its own; merged with the base's.
    #[serde(skip_serializing_if = "Ordered::is_empty")]
    pub scratch: Ordered<DeclaredScratch>,
    /// Device symbols and the inputs copied to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbols: Option<Ordered<String>>,
}

/// `scratch.S`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredScratch {
    /// Extents.
    pub shape: Vec<Expr>,
    /// Element type.
    pub dtype: Dtype,
    /// When it is zeroed; without this it is poisoned before each checked launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero: Option<Zero>,
}

/// When scratch is zeroed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Zero {
    /// Before the first launch only: the kernel leaves it as it found it.
    Once,
}

/// One kernel launch before it has numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredLaunch {
    /// PTX symbol, unique C++ name or template-id; `{name}` inserts a value.
    pub entry: String,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// CTAs, one to three extents.
    pub grid: Vec<Expr>,
    /// Threads of a CTA, one to three extents.
    pub block: Vec<Expr>,
    /// Dynamic shared memory in bytes.
    pub shared: Option<Expr>,
    /// CTAs of a cluster, one to three extents.
    pub cluster: Option<Vec<Expr>>,
    /// All CTAs must be resident at once.
    pub cooperative: bool,
    /// Programmatic dependent launch.
    pub pdl: bool,
}

/// One entry of `launches`, or of what a plan answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "StepTable")]
pub enum DeclaredStep {
    /// A kernel.
    Launch(DeclaredLaunch),
    /// Sets every byte of a tensor.
    Memset {
        /// Which.
        tensor: String,
        /// To what.
        byte: u8,
    },
    /// Copies a tensor to another.
    Copy {
        /// Source.
        from: String,
        /// Destination.
        to: String,
    },
}

/// The keys of all kinds of step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StepTable {
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Vec<Param>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grid: Option<Vec<Expr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<Vec<Expr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<Expr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Vec<Expr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cooperative: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pdl: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    byte: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<[String; 2]>,
}

impl StepTable {
    fn given(&self) -> Vec<&'static str> {
        let keys = [
            ("entry", self.entry.is_some()),
            ("params", self.params.is_some()),
            ("grid", self.grid.is_some()),
            ("block", self.block.is_some()),
            ("shared", self.shared.is_some()),
            ("cluster", self.cluster.is_some()),
            ("cooperative", self.cooperative.is_some()),
            ("pdl", self.pdl.is_some()),
            ("memset", self.memset.is_some()),
            ("byte", self.byte.is_some()),
            ("copy", self.copy.is_some()),
        ];
        keys.into_iter().filter_map(|(key, given)| given.then_some(key)).collect()
    }

    /// Refuses keys that mean nothing to this kind of step.
    fn only(&self, kind: &str, allowed: impl Fn(&str) -> bool) -> Result<(), String> {
        match self.given().into_iter().find(|key| !allowed(key)) {
            None => Ok(()),
            Some(key) => Err(format!("`{key}` does not go with `{kind}`: make two steps of them")),
        }
    }
}

impl TryFrom<StepTable> for DeclaredStep {
    type Error = String;

    fn try_from(table: StepTable) -> Result<DeclaredStep, String> {
        if table.entry.is_some() {
            table.only("entry", |key| !["memset", "byte", "copy"].contains(&key))?;
            let missing = |key: &str| format!("missing field `{key}`, which a launch needs");
            return Ok(DeclaredStep::Launch(DeclaredLaunch {
                entry: table.entry.unwrap_or_default(),
                params: table.params.ok_or_else(|| missing("params"))?,
                grid: table.grid.ok_or_else(|| missing("grid"))?,
                block: table.block.ok_or_else(|| missing("block"))?,
                shared: table.shared,
                cluster: table.cluster,
                cooperative: table.cooperative.unwrap_or_default(),
                pdl: table.pdl.unwrap_or_default(),
            }));
        }
        if table.memset.is_some() {
            table.only("memset", |key| ["memset", "byte"].contains(&key))?;
        } else if table.copy.is_some() {
            table.only("copy", |key| key == "copy")?;
        }
        match (table.memset, table.copy) {
            (Some(tensor), _) => Ok(DeclaredStep::Memset { tensor, byte: table.byte.unwrap_or_default() }),
            (None, Some([from, to])) => Ok(DeclaredStep::Copy { from, to }),
            (None, None) => Err("a step has one of `entry`, `memset` and `copy`".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for DeclaredStep {
    /// Through a visitor, so that a fault of the whole step is found at its place in the list.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DeclaredStep, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = DeclaredStep;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with `entry`, `memset` or `copy`")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DeclaredStep, A::Error> {
                let table = StepTable::deserialize(MapAccessDeserializer::new(map))?;
                table.try_into().map_err(serde::de::Error::custom)
            }
        }
        deserializer.deserialize_map(Table)
    }
}

impl From<DeclaredStep> for StepTable {
    fn from(step: DeclaredStep) -> StepTable {
        match step {
            DeclaredStep::Launch(launch) => StepTable {
                entry: Some(launch.entry),
                params: Some(launch.params),
                grid: Some(launch.grid),
                block: Some(launch.block),
                shared: launch.shared,
                cluster: launch.cluster,
                cooperative: launch.cooperative.then_some(true),
                pdl: launch.pdl.then_some(true),
                ..StepTable::default()
            },
            DeclaredStep::Memset { tensor, byte } => {
                StepTable { memset: Some(tensor), byte: Some(byte), ..StepTable::default() }
            }
            DeclaredStep::Copy { from, to } => StepTable { copy: Some([from, to]), ..StepTable::default() },
        }
    }
}
