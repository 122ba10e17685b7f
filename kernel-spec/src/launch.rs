//! The launch of one shape, with every number in place: what a host does to have a kernel's outputs. Evidence and the
//! protocol carry it. Leaves to others: how it came from a gate file, the layout of parameters, and devices.

use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;
use crate::expr::Value;

/// Largest grid in x, y and z.
pub const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// Largest block in x, y and z.
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Most threads of a block.
pub const MAX_THREADS: u64 = 1024;
/// Most CTAs of a cluster; above eight the kernel needs the attribute for non-portable sizes, and the chip must agree.
pub const MAX_CLUSTER: u64 = 16;

/// One thing that the host does. All of them are timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Launches a kernel.
    Launch(Launch),
    /// Sets every byte of a tensor.
    Memset {
        /// Output or scratch.
        tensor: String,
        /// What each of its bytes becomes.
        byte: u8,
    },
    /// Copies a whole tensor to another of the same size.
    Copy {
        /// Source.
        from: String,
        /// Destination: output or scratch.
        to: String,
    },
}

/// One kernel launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// PTX symbol, C++ name or template-id.
    pub entry: String,
    /// CTAs in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a CTA in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a CTA, in bytes.
    #[serde(default)]
    pub shared_bytes: u32,
    /// CTAs of a cluster in x, y and z, where the launch sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<[u32; 3]>,
    /// All CTAs must be resident at once: the kernel synchronises the grid.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cooperative: bool,
    /// May start before the launch before it has ended (programmatic dependent launch).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pdl: bool,
    /// Parameters in the order of the entry function.
    pub params: Vec<Argument>,
}

/// One parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Argument {
    /// The address of a tensor.
    Tensor(String),
    /// A null pointer.
    Null,
    /// A number, passed by value.
    Scalar {
        /// Its type.
        dtype: Dtype,
        /// Its value, before it is rounded to the type.
        value: Value,
        /// The expression that it came from, for messages.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
    },
    /// A struct, passed by value.
    Struct {
        /// Alignment in bytes where it is above that of the fields.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        align: Option<u32>,
        /// Its members in order.
        fields: Vec<Argument>,
    },
    /// A tensor map, which the driver encodes: 128 bytes by value.
    Map {
        /// The tensor that it describes.
        tensor: String,
        /// Elements of a box along each dimension, innermost last.
        #[serde(rename = "box")]
        extent: Vec<u32>,
        /// Bytes of the swizzle: 0, 32, 64 or 128.
        swizzle: u32,
    },
}

impl Argument {
    /// The tensors whose addresses it holds.
    pub fn tensors(&self) -> Vec<&str> {
        match self {
            Argument::Tensor(tensor) | Argument::Map { tensor, .. } => vec![tensor],
            Argument::Null | Argument::Scalar { .. } => Vec::new(),
            Argument::Struct { fields, .. } => fields.iter().flat_map(Argument::tensors).collect(),
        }
    }
}

/// A launch that no device accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct LaunchError {
    /// The key of the launch, e.g. `grid[0]`.
    pub key: String,
    /// What is wrong and what to do.
    pub why: String,
}

fn refuse<T>(key: impl Into<String>, why: impl Into<String>) -> Result<T, LaunchError> {
    Err(LaunchError { key: key.into(), why: why.into() })
}

fn product(extents: [u32; 3]) -> u64 {
    extents.iter().map(|e| u64::from(*e)).fold(1, u64::saturating_mul)
}

fn within(key: &str, extents: [u32; 3], limits: [u32; 3]) -> Result<(), LaunchError> {
    for (i, (extent, limit)) in extents.into_iter().zip(limits).enumerate() {
        if extent == 0 || extent > limit {
            return refuse(format!("{key}[{i}]"), format!("is {extent}, and must be 1 to {limit}"));
        }
    }
    Ok(())
}

impl Launch {
    /// CTAs of the grid.
    pub fn ctas(&self) -> u64 {
        product(self.grid)
    }

    /// Threads of a CTA.
    pub fn threads(&self) -> u64 {
        product(self.block)
    }

    /// Refuses what no CUDA device launches; what this one can do (shared memory, resident CTAs) is not asked here.
    pub fn check(&self) -> Result<(), LaunchError> {
        if self.entry.is_empty() {
            return refuse("entry", "is empty: name a kernel");
        }
        within("grid", self.grid, MAX_GRID)?;
        within("block", self.block, MAX_BLOCK)?;
        if self.threads() > MAX_THREADS {
            return refuse("block", format!("has {} threads, and may have {MAX_THREADS}", self.threads()));
        }
        let Some(cluster) = self.cluster else { return Ok(()) };
        within("cluster", cluster, self.grid)?;
        if product(cluster) > MAX_CLUSTER {
            return refuse("cluster", format!("has {} CTAs, and may have {MAX_CLUSTER}", product(cluster)));
        }
        for (i, (part, whole)) in cluster.into_iter().zip(self.grid).enumerate() {
            if whole % part != 0 {
                return refuse(
                    format!("cluster[{i}]"),
                    format!("is {part}, which does not divide grid[{i}] = {whole}"),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            entry: "softmax".into(),
            grid: [4, 2, 1],
            block: [256, 1, 1],
            shared_bytes: 0,
            cluster: None,
            cooperative: false,
            pdl: false,
            params: vec![Argument::Tensor("x".into()), Argument::Null],
        }
    }

    #[test]
    fn impossible_launches_are_refused_by_key() {
        type Edit = fn(&mut Launch);
        let with = |edit: Edit| {
            let mut launch = launch();
            edit(&mut launch);
            launch.check().map_err(|e| e.to_string())
        };
        let refused: [(Edit, &str); 9] = [
            (|l| l.entry.clear(), "entry: is empty: name a kernel"),
            (|l| l.grid[0] = 0, "grid[0]: is 0, and must be 1 to 2147483647"),
            (|l| l.grid[1] = 65_536, "grid[1]: is 65536, and must be 1 to 65535"),
            (|l| l.block[2] = 65, "block[2]: is 65, and must be 1 to 64"),
            (|l| l.block[1] = 0, "block[1]: is 0, and must be 1 to 1024"),
            (|l| l.block = [256, 8, 1], "block: has 2048 threads, and may have 1024"),
            (|l| l.cluster = Some([0, 1, 1]), "cluster[0]: is 0, and must be 1 to 4"),
            (|l| l.cluster = Some([3, 1, 1]), "cluster[0]: is 3, which does not divide grid[0] = 4"),
            (|l| (l.grid, l.cluster) = ([32, 1, 1], Some([32, 1, 1])), "cluster: has 32 CTAs, and may have 16"),
        ];
        for (edit, line) in refused {
            assert_eq!(with(edit), Err(line.to_owned()));
        }
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|l| l.cluster = Some([2, 2, 1])), Ok(()));
        assert_eq!((launch().ctas(), launch().threads()), (8, 256));
    }

    #[test]
    fn steps_are_plain_data() {
        let mut launch = launch();
        launch.params.push(Argument::Struct {
            align: Some(16),
            fields: vec![
                Argument::Tensor("y".into()),
                Argument::Scalar { dtype: Dtype::F32, value: Value::Float(2.0), text: "scale".into() },
                Argument::Map { tensor: "z".into(), extent: vec![64, 64], swizzle: 128 },
            ],
        });
        assert_eq!(launch.params.iter().flat_map(Argument::tensors).collect::<Vec<_>>(), ["x", "y", "z"]);
        let steps = vec![
            Step::Launch(launch),
            Step::Memset { tensor: "y".into(), byte: 255 },
            Step::Copy { from: "x".into(), to: "y".into() },
        ];
        let json = serde_json::to_string(&steps).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Step>>(&json).unwrap(), steps, "{json}");
        assert!(json.contains(r#"{"scalar":{"dtype":"f32","value":2.0,"text":"scale"}}"#), "{json}");
    }
}
