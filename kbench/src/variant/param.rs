//! A kernel parameter as a gate file writes it: `"x"`, `"null"`, `"rows: i32"`, a struct or a tensor map.
//! Leaves to others: which tensors there are, and bytes.

use std::fmt;

use kernel_spec::dtype::Dtype;
use kernel_spec::expr::Expr;
use kernel_spec::words;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One parameter before it has a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// The address of an input, output or scratch.
    Tensor(String),
    /// A null pointer.
    Null,
    /// A number by value.
    Scalar {
        /// The number.
        expr: Expr,
        /// What it is rounded to.
        dtype: Dtype,
    },
    /// A struct by value.
    Struct {
        /// Its members.
        fields: Vec<Param>,
        /// Alignment in bytes, where it is above theirs.
        align: Option<u32>,
    },
    /// A tensor map.
    Map {
        /// The tensor that it describes.
        tensor: String,
        /// Elements of a box.
        extent: Vec<Expr>,
        /// Bytes of the swizzle.
        swizzle: u32,
    },
}

/// Why a tensor map is refused, and what to do instead.
pub(super) const NO_MAPS_YET: &str =
    "not yet: tensor maps are not encoded; pass the tensor, and load through its pointer";

impl Param {
    fn from_text(text: &str) -> Result<Param, String> {
        let shown = words::one_line(text);
        // A text within the expression may hold a colon; the dtype cannot.
        if let Some((expr, dtype)) = text.rsplit_once(':') {
            let dtype = dtype.trim().parse().map_err(|e| format!("parameter `{shown}`: {e}"))?;
            let expr = expr.trim().parse().map_err(|e| format!("parameter {e}"))?;
            return Ok(Param::Scalar { expr, dtype });
        }
        let name = text.trim();
        if name == "null" {
            return Ok(Param::Null);
        }
        match kernel_spec::expr::check_name(name) {
            Ok(()) => Ok(Param::Tensor(name.to_owned())),
            Err(_) => Err(format!("parameter `{shown}` is no tensor: give a number its dtype, as in `{shown}: i32`")),
        }
    }

    /// Itself, and the members of structs.
    pub(super) fn flat(&self) -> Vec<&Param> {
        match self {
            Param::Struct { fields, .. } => fields.iter().flat_map(Param::flat).collect(),
            other => vec![other],
        }
    }

    /// Refuses what no compiler or driver takes.
    fn checked(self) -> Result<Param, String> {
        match &self {
            Param::Struct { fields, .. } if fields.is_empty() => Err("a struct has at least one field".to_owned()),
            Param::Struct { align: Some(align), .. } if !align.is_power_of_two() || *align > 128 => {
                Err(format!("align is {align}, and must be a power of two up to 128"))
            }
            Param::Map { swizzle, .. } if ![0, 32, 64, 128].contains(swizzle) => {
                Err(format!("swizzle is {swizzle}, and must be 0, 32, 64 or 128"))
            }
            _ => Ok(self),
        }
    }
}

/// The table forms.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParamTable {
    #[serde(rename = "struct", default, skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<Param>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    align: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    map: Option<String>,
    #[serde(rename = "box", default, skip_serializing_if = "Option::is_none")]
    extent: Option<Vec<Expr>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    swizzle: Option<u32>,
}

impl TryFrom<ParamTable> for Param {
    type Error = String;

    fn try_from(table: ParamTable) -> Result<Param, String> {
        match table {
            ParamTable { fields: Some(fields), align, map: None, extent: None, swizzle: None } => {
                Param::Struct { fields, align }.checked()
            }
            ParamTable { fields: None, align: None, map: Some(tensor), extent: Some(extent), swizzle } => {
                Param::Map { tensor, extent, swizzle: swizzle.unwrap_or_default() }.checked()
            }
            _ => {
                Err("a parameter table is { struct = [...], align } or { map = tensor, box = [...], swizzle }"
                    .to_owned())
            }
        }
    }
}

impl Serialize for Param {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let empty = ParamTable { fields: None, align: None, map: None, extent: None, swizzle: None };
        match self {
            Param::Tensor(name) => serializer.serialize_str(name),
            Param::Null => serializer.serialize_str("null"),
            Param::Scalar { expr, dtype } => serializer.collect_str(&format_args!("{expr}: {dtype}")),
            Param::Struct { fields, align } => {
                ParamTable { fields: Some(fields.clone()), align: *align, ..empty }.serialize(serializer)
            }
            Param::Map { tensor, extent, swizzle } => {
                let (map, extent) = (Some(tensor.clone()), Some(extent.clone()));
                ParamTable { map, extent, swizzle: Some(*swizzle), ..empty }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Param, D::Error> {
        struct TextOrTable;
        impl<'de> Visitor<'de> for TextOrTable {
            type Value = Param;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tensor, `null`, `EXPR: dtype` or a table")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Param, E> {
                Param::from_text(text).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Param, A::Error> {
                let table = ParamTable::deserialize(MapAccessDeserializer::new(map))?;
                table.try_into().map_err(serde::de::Error::custom)
            }
        }
        deserializer.deserialize_any(TextOrTable)
    }
}
