//! What concerns the blocks of a cluster: their barrier, and the addresses of each other's shared memory.

use super::mods::Mods;
use super::operands::{arity, class_of, operand};
use super::{Lower, Lowered};
use crate::isa::engines::ClusterOp;
use crate::isa::op::Op;
use crate::isa::slot::Slot;
use crate::parse::ast::{Inst as AstInst, Ty};

impl Lower<'_> {
    /// `barrier.cluster.arrive` and `.wait`.
    pub(super) fn cluster_barrier(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        arity(inst, 0..=0)?;
        mods.flag("aligned");
        if mods.flag("arrive") {
            mods.flag("release");
            let relaxed = mods.flag("relaxed");
            return self.emit(Op::Cluster(Box::new(ClusterOp::Arrive { relaxed })));
        }
        if !mods.flag("wait") {
            return Err("`.arrive` or `.wait` is missing".into());
        }
        mods.flag("acquire");
        self.emit(Op::Cluster(Box::new(ClusterOp::Wait)))
    }

    /// `mapa` and `getctarank`.
    pub(super) fn cluster_address(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let generic = !mods.flag("shared::cluster");
        let ty = match mods.ty() {
            Some(ty @ (Ty::U32 | Ty::U64)) => ty,
            _ => return Err("type .u32 or .u64 is missing".into()),
        };
        if generic && ty == Ty::U32 {
            return Err("a generic address has 64 bits".into());
        }
        let class = class_of(ty);
        if inst.opcode == "getctarank" {
            arity(inst, 2..=2)?;
            let dst = self.dst(operand(inst, 0)?, Ty::U32)?;
            let src = Slot { class, row: self.src(operand(inst, 1)?, ty)? };
            return self.emit(Op::Cluster(Box::new(ClusterOp::Rank { dst, src, generic })));
        }
        arity(inst, 3..=3)?;
        let dst = Slot { class, row: self.dst(operand(inst, 0)?, ty)? };
        let src = Slot { class, row: self.src(operand(inst, 1)?, ty)? };
        let rank = self.src(operand(inst, 2)?, Ty::U32)?;
        self.emit(Op::Cluster(Box::new(ClusterOp::Map { dst, src, rank, generic })))
    }
}
