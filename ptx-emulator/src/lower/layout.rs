//! Places of shared variables, parameters and per-thread storage.
//!
//! Shared variables are separated by red zones, so that a small overrun of one never lands in
//! the next unseen.

use std::collections::HashSet;

use super::{Lower, Lowered};
use crate::isa::space::RESERVED_BYTES;
use crate::parse::ast::{Formal, Function, InitItem, Inst as AstInst, Operand, Var, VarSpace, static_name};
use crate::program::{ParamVar, SharedVar};

/// First address that stands for a function.
const FUNCTION_BASE: u64 = 0x7b00_0000_0000;

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Offset in the shared window.
    Shared(u32),
    /// Offset in each thread's local storage; also parameters of inlined calls.
    Local(u32),
    /// Offset in the kernel parameters.
    Param(u32),
    /// Address of a module variable, and its space.
    Module(u64, VarSpace),
}

/// First shared offset in use: offset 0 must not look like a null pointer, and 1024-byte
/// alignment of the first variable is what the hardware gives as well.
const SHARED_START: u32 = 1024;
/// Smallest gap between two shared variables, in bytes.
const SHARED_RED_ZONE: u32 = 32;
/// First local offset in use.
const LOCAL_START: u32 = 16;
/// Largest local storage of one thread, in bytes (hardware limit: 512 KiB).
const MAX_LOCAL: u32 = 512 << 10;
/// Largest parameter block, in bytes.
const MAX_PARAM: u32 = 32_764;
/// Largest shared window, static part, in bytes.
const MAX_SHARED: u32 = 1 << 20;

/// How the special registers that name it begin.
const RESERVED_PREFIX: &str = "%reserved_smem_offset_";

fn align_up(value: u32, align: u32) -> u32 {
    value.next_multiple_of(align.max(1))
}

impl Lower<'_> {
    /// Places every shared variable reachable from the kernel; the dynamic part comes last.
    pub(super) fn lay_out_shared(&mut self, entry: usize) -> Lowered {
        let mut end = SHARED_START;
        let mut dynamic = Vec::new();
        let functions = self.reachable(entry);
        if functions.iter().any(|&at| names_reserved_shared(&self.unit.functions[at])) {
            self.program.reserved_shared = Some(end);
            let name = "reserved shared memory".to_owned();
            self.program.shared.push(SharedVar { name, offset: end, bytes: RESERVED_BYTES });
            end += RESERVED_BYTES + SHARED_RED_ZONE;
        }
        for (owner, index) in self.reachable_shared(&functions) {
            let var = match owner {
                Some(function) => &self.unit.functions[function].vars[index],
                None => &self.unit.vars[index],
            };
            if var.external || var.bytes == 0 {
                dynamic.push((owner, index, var.align, var.name.clone()));
                continue;
            }
            let offset = align_up(end, var.align);
            let bytes = u32::try_from(var.bytes).unwrap_or(u32::MAX);
            if bytes > MAX_SHARED || offset > MAX_SHARED {
                return Err(format!("shared variable `{}` is too large", var.name));
            }
            let name = var.name.clone();
            self.program.shared.push(SharedVar { name, offset, bytes });
            self.shared.insert((owner, index), offset);
            end = offset + bytes + SHARED_RED_ZONE;
        }
        let align = dynamic.iter().map(|d| d.2).max().unwrap_or(16).max(16);
        self.program.shared_static_bytes = align_up(end, align);
        self.program.uses_dynamic_shared = !dynamic.is_empty();
        for (owner, index, _, name) in dynamic {
            let offset = self.program.shared_static_bytes;
            self.shared.insert((owner, index), offset);
            self.program.shared.push(SharedVar { name, offset, bytes: 0 });
        }
        Ok(())
    }

    /// The kernel and the functions that it can reach.
    fn reachable(&self, entry: usize) -> Vec<usize> {
        let mut found = vec![entry];
        let mut next = 0;
        while let Some(&at) = found.get(next) {
            next += 1;
            let function = &self.unit.functions[at];
            let is_indirect = |inst: &AstInst| inst.opcode == "call" && inst.operands.iter().any(is_register);
            let named = names(function);
            let called =
                self.unit.functions.iter().enumerate().filter(|(_, f)| f.defined && named.contains(&f.name.as_str()));
            let mut more: Vec<usize> = called.map(|(index, _)| index).collect();
            if function.insts.iter().any(is_indirect) {
                more.extend(self.address_taken());
            }
            for callee in more {
                if !found.contains(&callee) {
                    found.push(callee);
                }
            }
        }
        found
    }

    /// Shared variables declared in or named by these functions.
    fn reachable_shared(&self, functions: &[usize]) -> Vec<(Option<usize>, usize)> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for &at in functions {
            let function = &self.unit.functions[at];
            for (index, var) in function.vars.iter().enumerate() {
                if var.space == VarSpace::Shared {
                    found.push((Some(at), index));
                }
            }
            for name in names(function) {
                let global = self.unit.vars.iter().position(|v| v.name == name);
                if let Some(index) = global
                    && self.unit.vars[index].space == VarSpace::Shared
                    && seen.insert(index)
                {
                    found.push((None, index));
                }
            }
        }
        found
    }

    /// Offset behind a special register of the shared memory that the system reserves.
    pub(super) fn reserved_shared(&self, name: &str) -> Option<u32> {
        let start = self.program.reserved_shared?;
        match name.strip_prefix(RESERVED_PREFIX)? {
            "begin" | "0" => Some(start),
            // The runtime's own part: the second half.
            "1" => Some(start + RESERVED_BYTES / 2),
            "end" | "cap" => Some(start + RESERVED_BYTES),
            _ => None,
        }
    }

    /// Offsets of the kernel parameters, in order, each at its alignment.
    pub(super) fn lay_out_params(&mut self, function: &Function) -> Lowered<Vec<Option<Place>>> {
        let mut vars = vec![None; function.vars.len()];
        let mut end = 0u32;
        for formal in &function.params {
            let Formal::Var(index) = *formal else {
                return Err("kernel parameters must be `.param` variables".into());
            };
            let var = &function.vars[index];
            let offset = align_up(end, var.align);
            let bytes = u32::try_from(var.bytes).unwrap_or(u32::MAX);
            if bytes > MAX_PARAM || offset + bytes > MAX_PARAM {
                return Err(format!("parameters exceed {MAX_PARAM} bytes"));
            }
            vars[index] = Some(Place::Param(offset));
            self.program.params.push(ParamVar { offset, bytes });
            end = offset + bytes;
        }
        self.program.param_bytes = end;
        Ok(vars)
    }

    /// Reserves per-thread storage and returns its offset.
    pub(super) fn reserve_local(&mut self, var: &Var) -> Lowered<u32> {
        let offset = align_up(self.program.local_bytes.max(LOCAL_START), var.align);
        let bytes = u32::try_from(var.bytes).unwrap_or(u32::MAX);
        if bytes > MAX_LOCAL || offset + bytes > MAX_LOCAL {
            return Err(format!("local storage of a thread exceeds {MAX_LOCAL} bytes"));
        }
        self.program.local_bytes = offset + bytes;
        Ok(offset)
    }

    /// Place of a variable of the current function.
    pub(super) fn place(&mut self, var: usize) -> Lowered<Place> {
        let frame = self.frame();
        if let Some(place) = frame.vars[var] {
            return Ok(place);
        }
        let (function, index) = (frame.function, frame.index);
        let declared = &function.vars[var];
        let place = match declared.space {
            VarSpace::Shared => match self.shared.get(&(Some(index), var)) {
                Some(&offset) => Place::Shared(offset),
                None => return Err(format!("`{}` has no place in shared memory", declared.name)),
            },
            VarSpace::Local | VarSpace::Param => Place::Local(self.reserve_local(declared)?),
            VarSpace::Global | VarSpace::Const => {
                let name = static_name(function, var);
                let address = self.symbols.get(&name).ok_or_else(|| format!("`{name}` has no place"))?;
                Place::Module(*address, declared.space)
            }
        };
        self.frame().vars[var] = Some(place);
        Ok(place)
    }

    /// Address or offset of a module-level variable or function, and its space.
    pub(super) fn symbol(&mut self, name: &str) -> Lowered<(u64, VarSpace)> {
        let unit = self.unit;
        let Some(index) = unit.vars.iter().position(|v| v.name == name) else {
            return match unit.functions.iter().position(|f| f.name == name && f.defined && !f.entry) {
                Some(function) => Ok((function_address(function), VarSpace::Global)),
                None => Err(format!("`{name}` is not declared")),
            };
        };
        let var = &unit.vars[index];
        match var.space {
            VarSpace::Shared => match self.shared.get(&(None, index)) {
                Some(&offset) => Ok((u64::from(offset), var.space)),
                None => Err(format!("`{name}` has no place in shared memory")),
            },
            VarSpace::Local => {
                let offset = match self.locals.get(&index) {
                    Some(&offset) => offset,
                    None => self.reserve_local(var)?,
                };
                self.locals.insert(index, offset);
                Ok((u64::from(offset), var.space))
            }
            _ => match self.symbols.get(name) {
                Some(&address) => Ok((address, var.space)),
                None => Err(format!("external variable `{name}` has no definition here")),
            },
        }
    }

    /// Functions whose address is taken, by an instruction or an initialiser.
    pub(super) fn address_taken(&self) -> Vec<usize> {
        let unit = self.unit;
        let mut taken = HashSet::new();
        for function in unit.functions.iter().filter(|f| f.defined) {
            taken.extend(function.insts.iter().filter(|inst| inst.opcode != "call").flat_map(|inst| {
                let mut out = Vec::new();
                inst.operands.iter().for_each(|operand| collect(operand, &mut out));
                out
            }));
        }
        let vars = unit.vars.iter().chain(unit.functions.iter().flat_map(|f| &f.vars));
        taken.extend(vars.flat_map(|var| &var.init).filter_map(|item| match item {
            InitItem::Address(name, _) => Some(name.as_str()),
            InitItem::Bytes(_) => None,
        }));
        (0..unit.functions.len())
            .filter(|&i| {
                let function = &unit.functions[i];
                function.defined && !function.entry && taken.contains(function.name.as_str())
            })
            .collect()
    }
}

/// The address that stands for a function; nothing can be read there.
pub(super) fn function_address(index: usize) -> u64 {
    FUNCTION_BASE + 16 * index as u64
}

fn names_reserved_shared(function: &Function) -> bool {
    let named = |operand: &Operand| matches!(operand, Operand::Special(name) if name.starts_with(RESERVED_PREFIX));
    function.insts.iter().any(|inst| inst.operands.iter().any(named))
}

fn is_register(operand: &Operand) -> bool {
    matches!(operand, Operand::Reg(_))
}

/// Every name that occurs in the operands of a function.
fn names(function: &Function) -> Vec<&str> {
    let mut out = Vec::new();
    for inst in &function.insts {
        inst.operands.iter().for_each(|operand| collect(operand, &mut out));
    }
    out
}

/// Adds every name in an operand to `out`.
fn collect<'a>(operand: &'a Operand, out: &mut Vec<&'a str>) {
    match operand {
        Operand::Name(name, _) => out.push(name),
        Operand::Addr(base, _) | Operand::Not(base) => collect(base, out),
        Operand::Vector(list) | Operand::List(list) => {
            list.iter().for_each(|item| collect(item, out));
        }
        Operand::Pair(a, b) => {
            collect(a, out);
            collect(b, out);
        }
        _ => {}
    }
}
