//! What is launched on one shape, with every number in place, and the scratch that it needs.
//! Leaves to others: memory, devices and time.

use std::collections::BTreeMap;

use kernel_spec::dtype::Dtype;
use kernel_spec::expr::{Expr, Lookup};
use kernel_spec::launch::{Argument, Launch, Step};
use kernel_spec::params;
use serde::{Deserialize, Serialize};

use super::param::NO_MAPS_YET;
use super::table::{DeclaredLaunch, DeclaredStep, Zero};
use super::{Param, Variant, build};
use crate::key::BadKey;
use crate::names::{Axes, Names, at};
use crate::operator::declared::{Declared, Layout};

/// What grids and scratch may know of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// Multiprocessors.
    pub sms: u32,
    /// Largest dynamic shared memory of a CTA, in bytes.
    pub max_shared: u32,
    /// CTAs of the variant's kernels that a multiprocessor holds at once, the fewest of them; absent before the build.
    pub max_active: Option<u32>,
}

/// Memory of a variant's own, on one shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scratch {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Where its elements lie.
    pub layout: Layout,
    /// Zeroed before the first launch only; else poisoned before each checked one.
    pub zero_once: bool,
}

/// The values that the places of a launch know.
struct Values {
    /// In entries.
    build: Names,
    /// In parameters, blocks and shared memory.
    launch: Names,
    /// In grids.
    grid: Names,
}

impl DeviceFacts {
    fn add_to(self, names: &mut Names) {
        names.add("sms", i64::from(self.sms));
        names.add("max_shared", i64::from(self.max_shared));
        if let Some(max_active) = self.max_active {
            names.add("max_active", i64::from(max_active));
        }
    }
}

impl Variant {
    /// What is launched on one shape, in order. A plan must have answered.
    pub fn steps(&self, operator: &Declared, axes: &Axes, device: DeviceFacts, seed: u64) -> Result<Vec<Step>, BadKey> {
        let launch = self.names(operator, axes, Some(seed))?;
        let mut grid = launch.clone();
        device.add_to(&mut grid);
        let values = Values { build: self.names(operator, axes, None)?, launch, grid };
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        sizes.extend(operator.tensors(axes)?.into_iter().map(|t| (t.name, t.layout.bytes)));
        sizes.extend(self.scratch(operator, axes, device)?.into_iter().map(|s| (s.name, s.layout.bytes)));
        let step = |(key, step): (String, DeclaredStep)| match step {
            DeclaredStep::Launch(declared) => {
                let launch = numbers(&declared, &values, &key)?;
                fits(&launch, device, &key)?;
                Ok(Step::Launch(launch))
            }
            DeclaredStep::Memset { tensor, byte } => Ok(Step::Memset { tensor, byte }),
            DeclaredStep::Copy { from, to } => {
                let (source, destination) = (sizes.get(&from), sizes.get(&to));
                if source != destination {
                    let bytes = |size: Option<&u64>| size.copied().unwrap_or_default();
                    let why = format!("`{from}` has {} bytes, `{to}` {}", bytes(source), bytes(destination));
                    return BadKey::refuse(format!("{key}.copy"), why);
                }
                Ok(Step::Copy { from, to })
            }
        };
        self.declared_steps()?.into_iter().map(step).collect()
    }

    /// Its scratch on one shape.
    pub fn scratch(&self, operator: &Declared, axes: &Axes, device: DeviceFacts) -> Result<Vec<Scratch>, BadKey> {
        let mut names = self.names(operator, axes, None)?;
        device.add_to(&mut names);
        let scratch = |(name, declared): (&str, &super::DeclaredScratch)| {
            let key = self.key(&format!("scratch.{name}"));
            declared.shape.iter().try_for_each(|extent| known_occupancy(extent, &names, &format!("{key}.shape")))?;
            Ok(Scratch {
                name: name.to_owned(),
                dtype: declared.dtype,
                layout: Layout::dense(&declared.shape, declared.dtype, &names, &key)?,
                zero_once: declared.zero == Some(Zero::Once),
            })
        };
        self.scratch.iter().map(scratch).collect()
    }
}

/// How many CTAs are resident is known only of a kernel that was built, on its device.
fn known_occupancy(expr: &Expr, names: &Names, key: &str) -> Result<(), BadKey> {
    if expr.names().contains("max_active") && names.get("max_active").is_none() {
        return BadKey::refuse(key, "max_active is not known yet: it takes the built kernel and its device");
    }
    Ok(())
}

/// One to three extents, the rest 1.
fn extents(exprs: &[Expr], names: &Names, key: &str) -> Result<[u32; 3], BadKey> {
    let mut extents = [1; 3];
    for (i, (extent, expr)) in extents.iter_mut().zip(exprs).enumerate() {
        let key = format!("{key}[{i}]");
        known_occupancy(expr, names, &key)?;
        *extent = names.small(expr, 1, &key)?;
    }
    Ok(extents)
}

fn numbers(declared: &DeclaredLaunch, values: &Values, key: &str) -> Result<Launch, BadKey> {
    let argument = |(i, param)| argument(param, &values.launch, &format!("{key}.params[{i}]"));
    let shared_bytes = match &declared.shared {
        Some(shared) => values.launch.small(shared, 0, &format!("{key}.shared"))?,
        None => 0,
    };
    let cluster = declared.cluster.as_ref().map(|c| extents(c, &values.launch, &format!("{key}.cluster")));
    let launch = Launch {
        entry: build::entry(&declared.entry, &values.build, &format!("{key}.entry"))?,
        grid: extents(&declared.grid, &values.grid, &format!("{key}.grid"))?,
        block: extents(&declared.block, &values.launch, &format!("{key}.block"))?,
        shared_bytes,
        cluster: cluster.transpose()?,
        cooperative: declared.cooperative,
        pdl: declared.pdl,
        params: declared.params.iter().enumerate().map(argument).collect::<Result<_, _>>()?,
    };
    launch.check().map_err(|error| BadKey::new(format!("{key}.{}", error.key), error.why))?;
    Ok(launch)
}

fn argument(param: &Param, names: &Names, key: &str) -> Result<Argument, BadKey> {
    let argument = match param {
        Param::Tensor(name) => Argument::Tensor(name.clone()),
        Param::Null => Argument::Null,
        Param::Scalar { expr, dtype } => {
            let value = expr.evaluate(names).map_err(at(key))?;
            Argument::Scalar { dtype: *dtype, value, text: expr.to_string() }
        }
        Param::Struct { fields, align } => {
            let fields = fields.iter().map(|field| argument(field, names, key)).collect::<Result<_, _>>()?;
            Argument::Struct { align: *align, fields }
        }
        Param::Map { .. } => {
            return BadKey::refuse(key, NO_MAPS_YET);
        }
    };
    // Whether the value fits its type shows where it is written; addresses do not matter for that.
    params::bytes(std::slice::from_ref(&argument), |_| 0)
        .map_err(|error| BadKey::new(key, format!("`{}` {}", error.shown, error.why)))?;
    Ok(argument)
}

/// What this device can launch.
fn fits(launch: &Launch, device: DeviceFacts, key: &str) -> Result<(), BadKey> {
    if launch.shared_bytes > device.max_shared {
        let why = format!("is {} bytes, and the device allows a CTA {}", launch.shared_bytes, device.max_shared);
        return BadKey::refuse(format!("{key}.shared"), why);
    }
    let Some(max_active) = device.max_active.filter(|_| launch.cooperative) else { return Ok(()) };
    let resident = u64::from(device.sms) * u64::from(max_active);
    if launch.ctas() > resident {
        let why =
            format!("has {} CTAs, and the device holds {resident} at once, which cooperative needs", launch.ctas());
        return BadKey::refuse(format!("{key}.grid"), why);
    }
    Ok(())
}
