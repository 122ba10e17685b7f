//! `cp.async.bulk`: copies of bytes in a row, their groups and waits.

use super::memory::space;
use super::mods::Mods;
use super::operands::{arity, operand};
use super::{Lower, Lowered};
use crate::isa::engines::{BulkCopy, BulkWay};
use crate::isa::op::Op;
use crate::isa::space::Space;
use crate::parse::ast::{Inst as AstInst, Operand, Ty};

impl Lower<'_> {
    /// `cp.async.bulk.*`.
    pub(super) fn bulk(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
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
            return Err("bulk copies of tensors (tensor maps) are not supported".into());
        }
        if mods.flag("prefetch") {
            arity(inst, 2..=3)?;
            mods.flag("L2");
            mods.flag("L2::cache_hint");
            let source = space(mods);
            return self.address(operand(inst, 0)?, source).map(drop);
        }
        self.bulk_copy(inst, mods)
    }

    fn bulk_copy(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
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
        let more = usize::from(!to_global) + usize::from(hinted) + usize::from(multicast);
        arity(inst, 3 + more..=3 + more)?;
        let dst = self.address(operand(inst, 0)?, to)?;
        let src = self.address(operand(inst, 1)?, from)?;
        let bytes = self.src(operand(inst, 2)?, Ty::U32)?;
        let way = if to_global {
            BulkWay::Send
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

fn shared_or_global(word: &str) -> Option<Space> {
    match word {
        "global" => Some(Space::Global),
        "shared::cluster" | "shared::cta" => Some(Space::Shared),
        _ => None,
    }
}
