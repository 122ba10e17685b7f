//! Places of shared variables, parameters and per-thread storage.
//!
//! Shared variables are separated by red zones, so that a small overrun of one never lands in
//! the next unseen.

use std::collections::HashSet;

use super::{Lower, Lowered};
use crate::parse::ast::{Function, Operand, Var, VarSpace};
use crate::program::{ParamVar, SharedVar};

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Offset in the shared window.
    Shared(u32),
    /// Offset in each thread's local storage; also parameters of inlined calls.
    Local(u32),
    /// Offset in the kernel parameters.
    Param(u32),
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

fn align_up(value: u32, align: u32) -> u32 {
    value.next_multiple_of(align.max(1))
}

impl Lower<'_> {
    /// Places every shared variable reachable from the kernel; the dynamic part comes last.
    pub(super) fn lay_out_shared(&mut self, entry: usize) -> Lowered {
        let mut end = SHARED_START;
        let mut dynamic = Vec::new();
        for (owner, index) in self.reachable_shared(entry) {
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

    /// Shared variables declared in or named by the functions the kernel can reach.
    fn reachable_shared(&self, entry: usize) -> Vec<(Option<usize>, usize)> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut work = vec![entry];
        let mut visited = HashSet::from([entry]);
        while let Some(at) = work.pop() {
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
                let callee = self.unit.functions.iter().position(|f| f.name == name && f.defined);
                if let Some(callee) = callee
                    && visited.insert(callee)
                {
                    work.push(callee);
                }
            }
        }
        found
    }

    /// Offsets of the kernel parameters, in order, each at its alignment.
    pub(super) fn lay_out_params(&mut self, function: &Function) -> Lowered<Vec<Option<Place>>> {
        let mut vars = vec![None; function.vars.len()];
        let mut end = 0u32;
        for &index in &function.params {
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
                return Err(format!("`{}`: global variables inside a function are not supported", declared.name));
            }
        };
        self.frame().vars[var] = Some(place);
        Ok(place)
    }

    /// Address of a module-level variable, and whether it is a shared offset.
    pub(super) fn symbol(&self, name: &str) -> Lowered<(u64, VarSpace)> {
        let Some(index) = self.unit.vars.iter().position(|v| v.name == name) else {
            return Err(format!("`{name}` is not declared"));
        };
        let space = self.unit.vars[index].space;
        if space == VarSpace::Shared {
            return match self.shared.get(&(None, index)) {
                Some(&offset) => Ok((u64::from(offset), space)),
                None => Err(format!("`{name}` has no place in shared memory")),
            };
        }
        match self.symbols.get(name) {
            Some(&address) => Ok((address, space)),
            None => Err(format!("external variable `{name}` has no definition here")),
        }
    }
}

/// Every name that occurs in the operands of a function.
fn names(function: &Function) -> Vec<&str> {
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
    let mut out = Vec::new();
    for inst in &function.insts {
        inst.operands.iter().for_each(|operand| collect(operand, &mut out));
    }
    out
}
