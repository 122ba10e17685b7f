//! Operands to rows: registers, constants, special registers and addresses.

use super::layout::Place;
use super::{Lower, Lowered};
use crate::isa::alu_table::AluOp;
use crate::isa::op::Special;
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{Addr, Space};
use crate::parse::ast::{Inst as AstInst, Operand, Ty, VarSpace};
use crate::program::RowInit;

/// Class of the rows that hold values of a type.
pub(super) fn class_of(ty: Ty) -> Class {
    match ty {
        Ty::Pred => Class::P,
        Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => Class::D,
        _ => Class::W,
    }
}

/// The operand at `index`, or an error that counts them.
pub(super) fn operand(inst: &AstInst, index: usize) -> Lowered<&Operand> {
    inst.operands.get(index).ok_or_else(|| format!("operand {} is missing ({} given)", index + 1, inst.operands.len()))
}

/// Checks the number of operands.
pub(super) fn arity(inst: &AstInst, range: std::ops::RangeInclusive<usize>) -> Lowered {
    if range.contains(&inst.operands.len()) {
        return Ok(());
    }
    Err(format!("{} operands given, {} to {} expected", inst.operands.len(), range.start(), range.end()))
}

impl Lower<'_> {
    /// A fresh row for a register of this type.
    pub(super) fn new_slot(&mut self, ty: Ty) -> Lowered<Slot> {
        let class = class_of(ty);
        Ok(Slot { class, row: self.new_row(class)? })
    }

    fn new_row(&mut self, class: Class) -> Lowered<u16> {
        let rows = match class {
            Class::W => &mut self.program.w_rows,
            Class::D => &mut self.program.d_rows,
            Class::P => &mut self.program.p_rows,
        };
        // Guards pack a predicate row and a sign into 16 bits, one value of which is reserved.
        let limit = if class == Class::P { 0x7fff } else { 0xffff };
        if *rows >= limit {
            return Err(format!("more than {limit} registers of one kind"));
        }
        *rows += 1;
        Ok((*rows - 1) as u16)
    }

    /// A fresh row for an intermediate value.
    pub(super) fn temp(&mut self, class: Class) -> Lowered<u16> {
        self.new_row(class)
    }

    /// As [`Self::temp`], for instructions with so many intermediate values that rows of their own would run out.
    pub(super) fn scratch(&mut self, class: Class) -> Lowered<u16> {
        let at = self.scratch_taken[class as usize];
        self.scratch_taken[class as usize] += 1;
        if let Some(&row) = self.scratch[class as usize].get(at) {
            return Ok(row);
        }
        let row = self.new_row(class)?;
        self.scratch[class as usize].push(row);
        Ok(row)
    }

    /// Row of a declared register of the current frame.
    pub(super) fn reg_slot(&mut self, reg: usize) -> Lowered<Slot> {
        if let Some(slot) = self.frame().regs[reg] {
            return Ok(slot);
        }
        let class = class_of(self.frame().function.regs[reg].ty);
        let slot = Slot { class, row: self.new_row(class)? };
        self.frame().regs[reg] = Some(slot);
        Ok(slot)
    }

    /// Declared type of a register.
    fn reg_ty(&mut self, reg: usize) -> Ty {
        self.frame().function.regs[reg].ty
    }

    /// A constant row.
    pub(super) fn constant(&mut self, class: Class, value: u64) -> Lowered<u16> {
        self.init_row(class, RowInit::Const(value))
    }

    pub(super) fn init_row(&mut self, class: Class, init: RowInit) -> Lowered<u16> {
        if let Some(&row) = self.constants.get(&(class, init)) {
            return Ok(row);
        }
        let row = self.new_row(class)?;
        self.program.inits.push((Slot { class, row }, init));
        self.constants.insert((class, init), row);
        Ok(row)
    }

    /// Checks that a register has exactly the width an instruction type asks for.
    fn check_width(&mut self, reg: usize, ty: Ty) -> Lowered {
        let declared = self.reg_ty(reg);
        let fits = class_of(declared) == class_of(ty) && declared.bytes() == ty.bytes();
        if fits {
            return Ok(());
        }
        let name = self.frame().function.regs[reg].name.clone();
        Err(format!("register `{name}` is .{declared:?}, the instruction type is .{ty:?}").to_lowercase())
    }

    /// Row of a source operand of the given type.
    pub(super) fn src(&mut self, operand: &Operand, ty: Ty) -> Lowered<u16> {
        if let Operand::Reg(reg) = *operand {
            self.check_width(reg, ty)?;
            return Ok(self.reg_slot(reg)?.row);
        }
        if let Operand::Not(inner) = operand
            && ty == Ty::Pred
        {
            let source = self.src(inner, ty)?;
            let temp = self.temp(Class::P)?;
            self.alu(AluOp::NotP, temp, &[source], 0)?;
            return Ok(temp);
        }
        if let Operand::Special(name) = operand {
            return self.special(name, ty);
        }
        if let Operand::Sum(reg, offset) = *operand {
            return self.sum(reg, offset, ty);
        }
        let value = self.value(operand, ty)?;
        self.constant(class_of(ty), value)
    }

    /// `register + constant` where a value is expected.
    fn sum(&mut self, reg: usize, offset: i64, ty: Ty) -> Lowered<u16> {
        let register = self.src(&Operand::Reg(reg), ty)?;
        let constant = self.src(&Operand::Int(offset), ty)?;
        let op = match (ty.float(), ty.bytes()) {
            (false, 4) => AluOp::AddW,
            (false, 8) => AluOp::AddD,
            _ => return Err(format!("a sum of type .{ty:?} is not supported").to_lowercase()),
        };
        let temp = self.temp(class_of(ty))?;
        self.alu(op, temp, &[register, constant], 0)?;
        Ok(temp)
    }

    /// Value of an operand known now.
    fn value(&mut self, operand: &Operand, ty: Ty) -> Lowered<u64> {
        let bytes = ty.bytes();
        match *operand {
            Operand::Int(value) if ty == Ty::Pred => Ok(u64::from(value != 0)),
            Operand::Int(value) if bytes == 8 => {
                if ty == Ty::F64 {
                    Err("an integer cannot stand for a float".into())
                } else {
                    Ok(value as u64)
                }
            }
            Operand::Int(_) if matches!(ty, Ty::F32) => Err("an integer cannot stand for a float".into()),
            Operand::Int(value) => Ok(value as u64 & ((1 << (8 * bytes)) - 1)),
            Operand::F32(bits) if bytes == 4 => Ok(u64::from(bits)),
            Operand::F64(bits) if bytes == 8 => Ok(bits),
            Operand::F64(bits) if ty == Ty::F32 => Ok(u64::from((f64::from_bits(bits) as f32).to_bits())),
            Operand::Var(..) | Operand::Name(..) => self.address_value(operand, bytes),
            _ => Err(format!("operand {operand:?} does not fit type .{ty:?}").to_lowercase()),
        }
    }

    /// Address of a variable as an integer of `bytes` width.
    fn address_value(&mut self, operand: &Operand, bytes: u32) -> Lowered<u64> {
        let (value, offset) = match operand {
            Operand::Var(var, offset) => {
                let value = match self.place(*var)? {
                    Place::Shared(at) | Place::Local(at) | Place::Param(at) => u64::from(at),
                    Place::Module(address, _) => address,
                };
                (value, *offset)
            }
            Operand::Name(name, offset) => (self.symbol(name)?.0, *offset),
            _ => return Err("expected a variable".into()),
        };
        let value = value.wrapping_add(offset as u64);
        match bytes {
            8 => Ok(value),
            4 if value <= u64::from(u32::MAX) => Ok(value),
            _ => Err(format!("an address does not fit {bytes} bytes")),
        }
    }

    fn special(&mut self, name: &str, ty: Ty) -> Lowered<u16> {
        if let Some(offset) = self.reserved_shared(name) {
            return self.constant(class_of(ty), u64::from(offset));
        }
        let Some(special) = special_register(name) else {
            return Err(format!("special register `{name}` is not supported"));
        };
        let class = class_of(ty);
        match (class, ty.bytes()) {
            (Class::W, 4) => self.init_row(Class::W, RowInit::Special(special)),
            (Class::W, 2) => {
                let word = self.init_row(Class::W, RowInit::Special(special))?;
                let temp = self.temp(Class::W)?;
                self.alu(AluOp::ExtU16, temp, &[word], 0)?;
                Ok(temp)
            }
            (Class::D, _) => self.init_row(Class::D, RowInit::Special(special)),
            _ => Err(format!("`{name}` does not fit type .{ty:?}").to_lowercase()),
        }
    }

    /// Row of a destination register of exactly this type; `_` gets a scratch row.
    pub(super) fn dst(&mut self, operand: &Operand, ty: Ty) -> Lowered<u16> {
        match *operand {
            Operand::Reg(reg) => {
                self.check_width(reg, ty)?;
                Ok(self.reg_slot(reg)?.row)
            }
            Operand::Sink => self.temp(class_of(ty)),
            _ => Err("the destination is not a register".into()),
        }
    }

    /// Destination of a load or conversion: the register may be wider than the value.
    pub(super) fn dst_at_least(&mut self, operand: &Operand, ty: Ty) -> Lowered<Slot> {
        match *operand {
            Operand::Reg(reg) => {
                let declared = self.reg_ty(reg);
                if declared == Ty::Pred || declared.bytes() < ty.bytes() {
                    let name = self.frame().function.regs[reg].name.clone();
                    return Err(format!("register `{name}` cannot hold .{ty:?}").to_lowercase());
                }
                self.reg_slot(reg)
            }
            Operand::Sink => {
                let class = class_of(ty);
                Ok(Slot { class, row: self.temp(class)? })
            }
            _ => Err("the destination is not a register".into()),
        }
    }

    /// Bytes of a destination register, or of the scratch row of `class` that stands for `_`.
    pub(super) fn width(&mut self, operand: &Operand, class: Class) -> u32 {
        match (operand, class) {
            (Operand::Reg(reg), _) => self.reg_ty(*reg).bytes(),
            (_, Class::D) => 8,
            _ => 4,
        }
    }

    /// Source of a store or conversion: the register may be wider than the value.
    pub(super) fn src_at_least(&mut self, operand: &Operand, ty: Ty) -> Lowered<Slot> {
        if let Operand::Reg(reg) = *operand {
            let declared = self.reg_ty(reg);
            if declared == Ty::Pred || declared.bytes() < ty.bytes() {
                let name = self.frame().function.regs[reg].name.clone();
                return Err(format!("register `{name}` is narrower than .{ty:?}").to_lowercase());
            }
            return self.reg_slot(reg);
        }
        Ok(Slot { class: class_of(ty), row: self.src(operand, ty)? })
    }

    /// A source that may be 32 or 64 bits wide, brought to a 32-bit row.
    pub(super) fn src_word(&mut self, operand: &Operand) -> Lowered<u16> {
        self.src(operand, Ty::B32)
    }

    /// Registers of a `{…}` operand, or the single register.
    pub(super) fn vector(operand: &Operand) -> &[Operand] {
        match operand {
            Operand::Vector(list) => list,
            single => std::slice::from_ref(single),
        }
    }

    /// `[base+offset]` in a space named by the instruction; `None` is generic.
    pub(super) fn address(&mut self, operand: &Operand, space: Space) -> Lowered<Addr> {
        let Operand::Addr(base, offset) = operand else {
            return Err("expected an address in brackets".into());
        };
        match base.as_ref() {
            Operand::Reg(reg) => {
                let ty = self.reg_ty(*reg);
                if !matches!(ty.bytes(), 4 | 8) || ty == Ty::Pred {
                    return Err("an address register must have 32 or 64 bits".into());
                }
                let base = self.reg_slot(*reg)?;
                if base.class == Class::W
                    && !matches!(space, Space::Shared | Space::Local | Space::Param | Space::Const)
                {
                    return Err("a 32-bit address in a 64-bit space".into());
                }
                Ok(Addr { space, base, offset: *offset })
            }
            Operand::Int(value) => self.fixed(space, *value as u64, *offset),
            Operand::Var(var, inner) => {
                let (at, actual) = match self.place(*var)? {
                    Place::Shared(at) => (u64::from(at), Space::Shared),
                    Place::Local(at) => (u64::from(at), Space::Local),
                    Place::Param(at) => (u64::from(at), Space::Param),
                    Place::Module(address, VarSpace::Const) => (address, Space::Const),
                    Place::Module(address, _) => (address, Space::Global),
                };
                // `.param` of an inlined call lives in local storage.
                let compatible =
                    space == actual || (space == Space::Param && actual == Space::Local) || space == Space::Generic;
                if !compatible {
                    return Err("the variable is in another state space".into());
                }
                self.fixed(actual, at.wrapping_add(*inner as u64), *offset)
            }
            Operand::Name(name, inner) => {
                let (at, declared) = self.symbol(name)?;
                let actual = match declared {
                    VarSpace::Shared => Space::Shared,
                    VarSpace::Const => Space::Const,
                    VarSpace::Local => Space::Local,
                    _ => Space::Global,
                };
                if space != actual && space != Space::Generic {
                    return Err(format!("`{name}` is in another state space"));
                }
                self.fixed(actual, at.wrapping_add(*inner as u64), *offset)
            }
            _ => Err("expected a register or variable in brackets".into()),
        }
    }

    fn fixed(&mut self, space: Space, at: u64, offset: i64) -> Lowered<Addr> {
        let row = self.constant(Class::D, at.wrapping_add(offset as u64))?;
        Ok(Addr { space, base: Slot { class: Class::D, row }, offset: 0 })
    }
}

fn special_register(name: &str) -> Option<Special> {
    let axis = |suffix: &str| match suffix {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((family, suffix)) = name.split_once('.') {
        let axis = axis(suffix)?;
        return match family {
            "%tid" => Some(Special::Tid(axis)),
            "%ntid" => Some(Special::Ntid(axis)),
            "%ctaid" => Some(Special::Ctaid(axis)),
            "%nctaid" => Some(Special::Nctaid(axis)),
            "%clusterid" => Some(Special::ClusterId(axis)),
            "%nclusterid" => Some(Special::ClusterCount(axis)),
            "%cluster_ctaid" => Some(Special::ClusterCta(axis)),
            "%cluster_nctaid" => Some(Special::ClusterCtas(axis)),
            _ => None,
        };
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::WarpCount,
        "%smid" => Special::SmId,
        "%nsmid" => Special::SmCount,
        "%gridid" => Special::GridId,
        "%lanemask_eq" => Special::LaneMaskEq,
        "%lanemask_le" => Special::LaneMaskLe,
        "%lanemask_lt" => Special::LaneMaskLt,
        "%lanemask_ge" => Special::LaneMaskGe,
        "%lanemask_gt" => Special::LaneMaskGt,
        "%cluster_ctarank" => Special::ClusterRank,
        "%cluster_nctarank" => Special::ClusterSize,
        "%is_explicit_cluster" => Special::IsClustered,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%envreg1" => Special::GridWorkspaceHigh,
        "%envreg2" => Special::GridWorkspaceLow,
        _ => return None,
    })
}
