//! The bytes that a launch hands to a kernel: where each parameter lies, its value, and whether that is what the entry
//! function declares. The layout is that of C structs passed by value, which CUDA's compilers use.
//! Leaves to others: where tensors are, and reading PTX ([`crate::ptx`]).

use std::fmt;

use crate::dtype::Dtype;
use crate::expr::Value;
use crate::launch::{Argument, Launch};
use crate::ptx::{Entry, PtxKind, PtxParam};

/// Bytes of a pointer.
const POINTER: usize = 8;
/// Bytes and alignment of a tensor map.
const MAP: (usize, usize) = (128, 64);

/// Where a parameter lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the start of the block.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// Alignment in bytes, a power of two.
    pub align: usize,
}

/// A parameter that has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parameter {number} `{shown}` {why}")]
pub struct ParamError {
    /// Which, the first being 1.
    pub number: usize,
    /// As the gate file writes it.
    pub shown: String,
    /// What is wrong and what to do.
    pub why: String,
}

/// Size and alignment of one argument.
fn measure(argument: &Argument) -> (usize, usize) {
    match argument {
        Argument::Tensor(_) | Argument::Null => (POINTER, POINTER),
        Argument::Scalar { dtype, .. } => (dtype.bytes(), dtype.bytes()),
        Argument::Map { .. } => MAP,
        Argument::Struct { align, fields } => {
            let places = layout(fields);
            let widest = places.iter().map(|p| p.align).max().unwrap_or(1);
            let align = widest.max(align.map_or(1, |a| (a as usize).next_power_of_two()));
            (end(&places).next_multiple_of(align), align)
        }
    }
}

fn end(places: &[Place]) -> usize {
    places.last().map_or(0, |p| p.offset + p.size)
}

/// Where each argument lies: at the next multiple of its alignment, in order.
pub fn layout(arguments: &[Argument]) -> Vec<Place> {
    let mut at = 0_usize;
    let place = |argument| {
        let (size, align) = measure(argument);
        let offset = at.next_multiple_of(align);
        at = offset + size;
        Place { offset, size, align }
    };
    arguments.iter().map(place).collect()
}

/// The parameter block, little-endian, with gaps of zeros. `address_of` gives the device address of a tensor.
pub fn bytes(arguments: &[Argument], mut address_of: impl FnMut(&str) -> u64) -> Result<Vec<u8>, ParamError> {
    let places = layout(arguments);
    let mut block = vec![0; end(&places)];
    for (i, (argument, place)) in arguments.iter().zip(places).enumerate() {
        let into = &mut block[place.offset..place.offset + place.size];
        write(argument, into, &mut address_of).map_err(|why| ParamError {
            number: i + 1,
            shown: shown(argument).to_string(),
            why,
        })?;
    }
    Ok(block)
}

fn write(argument: &Argument, into: &mut [u8], address_of: &mut impl FnMut(&str) -> u64) -> Result<(), String> {
    match argument {
        Argument::Null => {}
        Argument::Tensor(name) => into.copy_from_slice(&address_of(name).to_le_bytes()),
        Argument::Scalar { dtype, value, .. } => into.copy_from_slice(&scalar(*dtype, value)?),
        Argument::Struct { fields, .. } => {
            for (field, place) in fields.iter().zip(layout(fields)) {
                write(field, &mut into[place.offset..place.offset + place.size], address_of)?;
            }
        }
        Argument::Map { .. } => return Err("is a tensor map, which only a driver can encode".to_owned()),
    }
    Ok(())
}

/// The element of a scalar: integers exactly, floats to the nearest.
fn scalar(dtype: Dtype, value: &Value) -> Result<Vec<u8>, String> {
    let mut element = Vec::with_capacity(dtype.bytes());
    match value {
        Value::Int(value) => dtype.encode_integer(*value, &mut element).map_err(|e| e.to_string())?,
        Value::Bool(value) => dtype.encode_integer(i64::from(*value), &mut element).map_err(|e| e.to_string())?,
        Value::Float(value) if dtype.is_float() => dtype.encode(*value, &mut element),
        Value::Float(value) => return Err(format!("is {value:?}, and an integer is needed: use //")),
        Value::Str(_) => return Err("is a text, and a number is needed".to_owned()),
    }
    Ok(element)
}

/// An argument as a gate file writes it.
fn shown(argument: &Argument) -> impl fmt::Display {
    fmt::from_fn(move |f| match argument {
        Argument::Tensor(name) => f.write_str(name),
        Argument::Null => f.write_str("null"),
        Argument::Scalar { dtype, value, text } if text.is_empty() => write!(f, "{value}: {dtype}"),
        Argument::Scalar { dtype, text, .. } => write!(f, "{text}: {dtype}"),
        Argument::Struct { fields, .. } => write!(f, "struct of {}", fields.len()),
        Argument::Map { tensor, .. } => write!(f, "map of {tensor}"),
    })
}

/// Whether the arguments are what an entry function declares: how many, and of each size, alignment and kind.
pub fn matches(arguments: &[Argument], declared: &[PtxParam]) -> Result<(), String> {
    if arguments.len() != declared.len() {
        return Err(format!("entry takes {} parameters, {} are given", declared.len(), arguments.len()));
    }
    for (i, ((argument, place), param)) in arguments.iter().zip(layout(arguments)).zip(declared).enumerate() {
        mismatch(argument, place, param)
            .map_or(Ok(()), |why| Err(format!("parameter {} `{}` {why}", i + 1, shown(argument))))?;
    }
    Ok(())
}

fn mismatch(argument: &Argument, place: Place, param: &PtxParam) -> Option<String> {
    if param.kind == PtxKind::Opaque {
        return Some(format!("is a {param} in the PTX, which cannot be passed: read memory through a pointer"));
    }
    if place.size != param.size {
        return Some(format!("is {} bytes, the PTX has {} ({param})", place.size, param.size));
    }
    let kind = match argument {
        Argument::Tensor(_) | Argument::Null => "a pointer",
        Argument::Scalar { dtype, .. } if dtype.is_float() => "a float",
        Argument::Scalar { .. } => "an integer",
        Argument::Struct { .. } | Argument::Map { .. } => "a struct",
    };
    let other = match param.kind {
        PtxKind::Integer => "an integer",
        PtxKind::Float => "a float",
        PtxKind::Pointer => "a pointer",
        PtxKind::Bytes | PtxKind::Bits | PtxKind::Opaque => kind,
    };
    // Compilers declare pointers as 64-bit integers, and structs of one member as that member.
    let agree = kind == other || kind == "a struct" || (kind == "a pointer" && param.kind == PtxKind::Integer);
    if !agree {
        return Some(format!("is {kind}, the PTX has {other} ({param})"));
    }
    let same_alignment = param.align == 0 || place.align == param.align;
    if !same_alignment || place.offset != param.offset {
        return Some(format!(
            "lies at {} aligned to {}, in the PTX at {} aligned to {} ({param}): give the struct that `align`",
            place.offset, place.align, param.offset, param.align
        ));
    }
    None
}

/// Whether a launch is one that the entry function was compiled for: its parameters, block and cluster.
pub fn fits(launch: &Launch, entry: &Entry) -> Result<(), String> {
    matches(&launch.params, &entry.params).map_err(|why| format!("params: {why}"))?;
    if let Some(required) = entry.required_block
        && required != launch.block
    {
        return Err(format!("block: is {:?}, and the kernel is compiled for {required:?}", launch.block));
    }
    let most = entry.max_block.map_or(u64::MAX, |block| block.iter().map(|b| u64::from(*b)).product());
    if launch.threads() > most {
        return Err(format!("block: has {} threads, and the kernel is compiled for at most {most}", launch.threads()));
    }
    match (entry.required_cluster.filter(|c| !c.contains(&0)), launch.cluster) {
        (Some(compiled), Some(given)) if compiled != given => {
            Err(format!("cluster: is {given:?}, and the kernel is compiled for {compiled:?}"))
        }
        (None, None) if entry.explicit_cluster => {
            Err("cluster: is not given, and the kernel is compiled for clusters".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::entries;

    fn tensor(name: &str) -> Argument {
        Argument::Tensor(name.into())
    }

    fn number(dtype: Dtype, value: impl Into<Value>, text: &str) -> Argument {
        Argument::Scalar { dtype, value: value.into(), text: text.into() }
    }

    fn pair(align: Option<u32>, fields: Vec<Argument>) -> Argument {
        Argument::Struct { align, fields }
    }

    /// Offsets as nvcc gives them for `kernel(float*, bool, half, struct { int; short; }, double, struct { float4 })`.
    #[test]
    fn layout_and_bytes_are_those_of_c() {
        let arguments = [
            tensor("x"),
            number(Dtype::Bool, true, ""),
            number(Dtype::F16, 1.5, ""),
            pair(None, vec![number(Dtype::I32, -2, ""), number(Dtype::I16, 3, "")]),
            number(Dtype::F64, 1, ""),
            pair(Some(16), vec![number(Dtype::F32, 0.5, ""), Argument::Null]),
        ];
        let places: Vec<_> = layout(&arguments).iter().map(|p| (p.offset, p.size, p.align)).collect();
        assert_eq!(places, [(0, 8, 8), (8, 1, 1), (10, 2, 2), (12, 8, 4), (24, 8, 8), (32, 16, 16)]);
        let block = bytes(&arguments, |name| if name == "x" { 0x7000_0100 } else { 0 }).unwrap();
        assert_eq!(block.len(), 48);
        assert_eq!(block[..8], 0x7000_0100_u64.to_le_bytes());
        assert_eq!(block[8..24], [1, 0, 0x00, 0x3e, 0xfe, 0xff, 0xff, 0xff, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(block[24..32], 1_f64.to_le_bytes());
        assert_eq!(block[32..36], 0.5_f32.to_le_bytes());
        assert!(bytes(&[], |_| 0).unwrap().is_empty());
        let map = Argument::Map { tensor: "x".into(), extent: vec![64], swizzle: 0 };
        assert_eq!(layout(&[Argument::Null, map])[1], Place { offset: 64, size: 128, align: 64 });
    }

    #[test]
    fn scalars_that_do_not_fit_are_refused() {
        let refused = |argument| bytes(&[tensor("x"), argument], |_| 0).unwrap_err().to_string();
        let table = [
            (number(Dtype::I8, 300, "n"), "parameter 2 `n: i8` 300 does not fit i8, which holds -128 to 127"),
            (
                number(Dtype::I32, 2.5, "rows / 2"),
                "parameter 2 `rows / 2: i32` is 2.5, and an integer is needed: use //",
            ),
            (number(Dtype::F32, "a", ""), "parameter 2 `'a': f32` is a text, and a number is needed"),
            (
                pair(None, vec![number(Dtype::U8, -1, "")]),
                "parameter 2 `struct of 1` -1 does not fit u8, which holds 0 to 255",
            ),
        ];
        for (argument, line) in table {
            assert_eq!(refused(argument), line);
        }
        let map = Argument::Map { tensor: "x".into(), extent: vec![64], swizzle: 0 };
        assert!(refused(map).contains("only a driver can encode"));
    }

    const PTX: &str =
        ".entry k(.param .u64 .ptr .align 1 a, .param .u64 b, .param .u32 c, .param .f32 d, .param .align 2 .b8 e[2],
        .param .align 8 .b8 f[16], .param .b32 g).maxntid 128 { }";

    fn good() -> Vec<Argument> {
        vec![
            tensor("x"),
            tensor("y"),
            number(Dtype::I32, 4, "cols"),
            number(Dtype::F32, 0.5, "scale"),
            number(Dtype::Bf16, 1, ""),
            pair(None, vec![Argument::Null, number(Dtype::U32, 1, "")]),
            number(Dtype::F32, 1, ""),
        ]
    }

    #[test]
    fn arguments_are_held_to_the_declaration() {
        let entry = &entries(PTX).unwrap()[0];
        assert_eq!(matches(&good(), &entry.params), Ok(()));
        let with = |index: usize, argument| {
            let mut arguments = good();
            arguments[index] = argument;
            matches(&arguments, &entry.params).unwrap_err()
        };
        assert_eq!(matches(&good()[..4], &entry.params).unwrap_err(), "entry takes 7 parameters, 4 are given");
        let table = [
            (2, number(Dtype::I64, 4, "cols"), "parameter 3 `cols: i64` is 8 bytes, the PTX has 4 (.u32)"),
            (2, number(Dtype::F32, 4, "cols"), "parameter 3 `cols: f32` is a float, the PTX has an integer (.u32)"),
            (3, number(Dtype::I32, 1, ""), "parameter 4 `1: i32` is an integer, the PTX has a float (.f32)"),
            (0, number(Dtype::I64, 1, "n"), "parameter 1 `n: i64` is an integer, the PTX has a pointer (.u64)"),
            (2, Argument::Null, "parameter 3 `null` is 8 bytes, the PTX has 4 (.u32)"),
            (
                5,
                pair(None, vec![number(Dtype::U32, 1, ""); 4]),
                "parameter 6 `struct of 4` lies at 28 aligned to 4, in the PTX at 32 aligned to 8 (.b8[16]): \
                 give the struct that `align`",
            ),
        ];
        for (index, argument, line) in table {
            assert_eq!(with(index, argument), line);
        }
        let texture = entries(".entry t(.param .texref a) {}").unwrap();
        assert!(matches(&[tensor("x")], &texture[0].params).unwrap_err().contains("read memory through a pointer"));
    }

    #[test]
    fn blocks_and_clusters_are_held_to_what_was_compiled_in() {
        let launch = |block, cluster| Launch {
            entry: "k".into(),
            grid: [4, 1, 1],
            block,
            shared_bytes: 0,
            cluster,
            cooperative: false,
            pdl: false,
            params: Vec::new(),
        };
        let check = |tuning: &str, block, cluster| {
            let entry = &entries(&format!(".entry k() {tuning} {{ }}")).unwrap()[0];
            fits(&launch(block, cluster), entry)
        };
        assert_eq!(check("", [1024, 1, 1], None), Ok(()));
        assert_eq!(check(".maxntid 128", [64, 2, 1], None), Ok(()));
        assert!(check(".maxntid 128", [64, 4, 1], None).unwrap_err().contains("256 threads"));
        assert!(check(".reqntid 128", [64, 2, 1], None).unwrap_err().contains("compiled for [128, 1, 1]"));
        assert!(check(".reqnctapercluster 2", [1, 1, 1], Some([4, 1, 1])).unwrap_err().contains("cluster"));
        assert_eq!(check(".explicitcluster .reqnctapercluster 2", [1, 1, 1], None), Ok(()));
        assert!(check(".explicitcluster", [1, 1, 1], None).unwrap_err().contains("is not given"));
    }
}
