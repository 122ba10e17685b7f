//! `cp.async.bulk`: copies of bytes in a row, their groups and waits.

use super::memory::space;
use super::mods::Mods;
use super::operands::{arity, operand};
use super::{Lower, Lowered};
use crate::isa::engines::{BulkCopy, BulkWay, TensorCopy, TensorWay};
use crate::isa::op::{AtomOp, Op};
use crate::isa::reduction::Reduction;
use crate::isa::space::{Addr, Space};
use crate::parse::ast::{Inst as AstInst, Operand, Ty};
use crate::tensor_map::TensorElement;

impl Lower<'_> {
    /// `cp.async.bulk.*` and `cp.reduce.async.bulk.*`.
    pub(super) fn bulk(&mut self, inst: &AstInst, mods: &mut Mods<'_>, reduces: bool) -> Lowered {
        let reduction = match reduces {
            true => Some(mods.pick(Reduction::parse).ok_or("the operation of the reduction is missing")?),
            false => None,
        };
        if mods.flag("commit_group") {
            arity(inst, 0..=0)?;
            return self.emit(Op::BulkCommit);
        }
        if mods.flag("wait_group") {
            arity(inst, 1..=1)?;
            // With `.read`, until the sources may be overwritten: what is written is there at once.
            mods.flag("read");
            let Operand::Int(pending @ 0..=0xffff) = *operand(inst, 0)? else {
                return Err("the group count must be an immediate".into());
            };
            return self.emit(Op::BulkWait { pending: pending as u32 });
        }
        if mods.flag("tensor") {
            return self.tensor_copy(inst, mods, reduction);
        }
        if !reduces && mods.flag("prefetch") {
            arity(inst, 2..=3)?;
            mods.flag("L2");
            mods.flag("L2::cache_hint");
            let source = space(mods);
            return self.address(operand(inst, 0)?, source).map(drop);
        }
        self.bulk_copy(inst, mods, reduction)
    }

    /// `cp.async.bulk.tensor`, `cp.reduce.async.bulk.tensor` and `cp.async.bulk.prefetch.tensor`.
    fn tensor_copy(&mut self, inst: &AstInst, mods: &mut Mods<'_>, reduction: Option<Reduction>) -> Lowered {
        let rank = mods.pick(|w| w.strip_suffix('d')?.parse::<usize>().ok().filter(|rank| (1..=5).contains(rank)));
        let rank = rank.ok_or("`.1d` to `.5d` is missing")?;
        // What else there is, im2col and its like, is refused by its name.
        mods.flag("tile");
        let hinted = usize::from(mods.flag("L2::cache_hint"));
        if reduction.is_none() && mods.flag("prefetch") {
            mods.flag("L2");
            mods.flag("global");
            arity(inst, 1 + hinted..=1 + hinted)?;
            return self.tensor_address(operand(inst, 0)?, rank).map(drop);
        }
        let to = mods.pick(shared_or_global).ok_or("the destination space is missing")?;
        let from = mods.pick(shared_or_global).ok_or("the source space is missing")?;
        if to == Space::Global {
            if from != Space::Shared || !mods.flag("bulk_group") {
                return Err("a tensor is written from shared memory, as part of a bulk group".into());
            }
            arity(inst, 2 + hinted..=2 + hinted)?;
            let (map, coordinates) = self.tensor_address(operand(inst, 0)?, rank)?;
            let shared = self.address(operand(inst, 1)?, Space::Shared)?;
            let way = TensorWay::Store { reduction };
            return self.emit(Op::Tensor(Box::new(TensorCopy { way, shared, map, coordinates })));
        }
        if reduction.is_some() {
            return Err("a tensor is reduced into in global memory".into());
        }
        if from != Space::Global || !mods.flag("mbarrier::complete_tx::bytes") {
            return Err("a tensor is read from global memory, and an mbarrier told of it".into());
        }
        let multicast = mods.flag("multicast::cluster");
        let more = usize::from(multicast) + hinted;
        arity(inst, 3 + more..=3 + more)?;
        let shared = self.address(operand(inst, 0)?, Space::Shared)?;
        let (map, coordinates) = self.tensor_address(operand(inst, 1)?, rank)?;
        let barrier = self.address(operand(inst, 2)?, Space::Shared)?;
        let multicast = if multicast { Some(self.src_at_least(operand(inst, 3)?, Ty::B16)?.row) } else { None };
        let way = TensorWay::Load { barrier, multicast };
        self.emit(Op::Tensor(Box::new(TensorCopy { way, shared, map, coordinates })))
    }

    /// `[map, {c0, c1}]`: the address of a map and the coordinates of a box.
    fn tensor_address(&mut self, operand: &Operand, rank: usize) -> Lowered<(Addr, Vec<u16>)> {
        let Operand::List(parts) = operand else {
            return Err("a tensor map with coordinates is expected".into());
        };
        let [map, coordinates] = parts.as_slice() else {
            return Err("a tensor map with coordinates alone is expected".into());
        };
        let map = self.address(map, Space::Generic)?;
        Ok((map, self.rows(coordinates, rank, Ty::S32, false)?))
    }

    fn bulk_copy(&mut self, inst: &AstInst, mods: &mut Mods<'_>, reduction: Option<Reduction>) -> Lowered {
        // Destination first, then source.
        let to = mods.pick(shared_or_global).ok_or("the destination space is missing")?;
        let from = mods.pick(shared_or_global).ok_or("the source space is missing")?;
        let hinted = mods.flag("L2::cache_hint");
        let counted = mods.flag("mbarrier::complete_tx::bytes");
        let grouped = mods.flag("bulk_group");
        let multicast = mods.flag("multicast::cluster");
        let (to_global, from_global) = (to == Space::Global, from == Space::Global);
        if to_global && from_global || counted == to_global || grouped != to_global || multicast && !from_global {
            return Err("no bulk copy goes this way and tells of its end like that".into());
        }
        let reduction = reduction.map(|reduction| element_operation(reduction, mods)).transpose()?;
        if reduction.is_some() && !to_global {
            return Err("copies that reduce into shared memory are not supported".into());
        }
        let more = usize::from(!to_global) + usize::from(hinted) + usize::from(multicast);
        arity(inst, 3 + more..=3 + more)?;
        let dst = self.address(operand(inst, 0)?, to)?;
        let src = self.address(operand(inst, 1)?, from)?;
        let bytes = self.src(operand(inst, 2)?, Ty::U32)?;
        let way = if to_global {
            BulkWay::Send { reduction }
        } else {
            let barrier = self.address(operand(inst, 3)?, Space::Shared)?;
            match from_global {
                false => BulkWay::Pass { barrier },
                true if multicast => {
                    let mask = self.src_at_least(operand(inst, 4)?, Ty::B16)?.row;
                    BulkWay::Fetch { barrier, multicast: Some(mask) }
                }
                true => BulkWay::Fetch { barrier, multicast: None },
            }
        };
        self.emit(Op::Bulk(Box::new(BulkCopy { way, dst, src, bytes })))
    }
}

/// What a reduction does to elements of the type that follows, and their bytes.
fn element_operation(reduction: Reduction, mods: &mut Mods<'_>) -> Lowered<(AtomOp, u32)> {
    let noftz = mods.flag("noftz");
    let ty = mods.ty().ok_or("a type is missing")?;
    let logical = matches!(reduction, Reduction::And | Reduction::Or | Reduction::Xor);
    let element = match ty {
        Ty::B32 if logical => TensorElement::U32,
        Ty::B64 if logical => TensorElement::U64,
        Ty::U32 if !logical => TensorElement::U32,
        Ty::S32 if !logical => TensorElement::S32,
        Ty::U64 if !logical => TensorElement::U64,
        Ty::S64 if !logical => TensorElement::S64,
        Ty::F16 if noftz => TensorElement::F16,
        Ty::Bf16 if noftz => TensorElement::Bf16,
        Ty::F32 if !noftz => TensorElement::F32,
        Ty::F64 if !noftz => TensorElement::F64,
        _ => return Err(format!("a reduction of .{ty:?} is not supported").to_lowercase()),
    };
    let op = reduction.on(element);
    let op = op.ok_or_else(|| format!("the reduction {reduction:?} of .{ty:?} is not supported").to_lowercase())?;
    Ok((op, element.bytes()))
}

pub(super) fn shared_or_global(word: &str) -> Option<Space> {
    match word {
        "global" => Some(Space::Global),
        "shared::cluster" | "shared::cta" => Some(Space::Shared),
        _ => None,
    }
}
