//! Control flow ends, barriers, fences, warp-wide operations and mbarriers.

use super::memory::{scope, space};
use super::mods::Mods;
use super::operands::{arity, operand};
use super::{Lower, Lowered};
use crate::isa::op::{
    AtomOp, Barrier, BarrierKind, Elect, Match, Mbar, MbarOp, Op, Reduce, Shuffle, ShuffleMode, Vote, VoteMode,
};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::Space;
use crate::parse::ast::{Inst as AstInst, Operand, Ty};

impl Lower<'_> {
    /// Lowers an instruction of this family; false if the opcode belongs elsewhere.
    pub(super) fn lower_sync(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered<bool> {
        match inst.opcode.as_str() {
            "ret" => self.ret(mods)?,
            "exit" => self.emit(Op::Exit)?,
            "trap" | "brkpt" => self.emit(Op::Trap)?,
            "nanosleep" => {
                mods.flag("u32");
                arity(inst, 1..=1)?;
                self.emit(Op::Yield)?;
            }
            "bar" | "barrier" => self.barrier(inst, mods)?,
            "membar" | "fence" => self.fence(inst, mods)?,
            "shfl" => self.shuffle(inst, mods)?,
            "vote" => self.vote(inst, mods)?,
            "redux" => self.redux(inst, mods)?,
            "match" => self.match_lanes(inst, mods)?,
            "activemask" => {
                mods.flag("b32");
                arity(inst, 1..=1)?;
                let dst = self.dst(operand(inst, 0)?, Ty::B32)?;
                self.emit(Op::ActiveMask { dst })?;
            }
            "mbarrier" => self.mbarrier(inst, mods)?,
            "elect" => self.elect(inst, mods)?,
            // Whoever launches a kernel waits for the one before it, so that there is nothing to wait for.
            "griddepcontrol" => {
                if !mods.flag("wait") && !mods.flag("launch_dependents") {
                    return Err("`.wait` or `.launch_dependents` is missing".into());
                }
                arity(inst, 0..=0)?;
            }
            "setmaxnreg" => Self::registers(inst, mods)?,
            "mapa" | "getctarank" => self.cluster_address(inst, mods)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `ret` leaves the kernel, or jumps behind an inlined call.
    fn ret(&mut self, mods: &mut Mods<'_>) -> Lowered {
        mods.flag("uni");
        if self.frames.len() <= 1 {
            return self.emit(Op::Exit);
        }
        let at = self.program.insts.len();
        self.frame().returns.push(at);
        self.emit(Op::Bra { target: 0 })
    }

    fn barrier(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if mods.flag("warp") {
            if !mods.flag("sync") {
                return Err("only `.warp.sync` is supported".into());
            }
            arity(inst, 1..=1)?;
            let mask = self.src(operand(inst, 0)?, Ty::B32)?;
            return self.emit(Op::WarpSync { mask });
        }
        if mods.flag("cluster") {
            return self.cluster_barrier(inst, mods);
        }
        mods.flag("cta");
        // `bar` is `barrier` with `.aligned`.
        let aligned = mods.flag("aligned") || inst.opcode == "bar";
        let kind = if mods.flag("sync") {
            BarrierKind::Sync
        } else if mods.flag("arrive") {
            BarrierKind::Arrive
        } else if mods.flag("red") {
            return self.barrier_reduction(inst, mods, aligned);
        } else {
            return Err("`.sync`, `.arrive` or `.red` is missing".into());
        };
        arity(inst, if kind == BarrierKind::Arrive { 2..=2 } else { 1..=2 })?;
        let id = self.src(operand(inst, 0)?, Ty::U32)?;
        let count = match inst.operands.get(1) {
            Some(count) => Some(self.src(count, Ty::U32)?),
            None => None,
        };
        self.emit(Op::Barrier(Box::new(Barrier { kind, id, count, dst: None, src: None, aligned })))
    }

    fn barrier_reduction(&mut self, inst: &AstInst, mods: &mut Mods<'_>, aligned: bool) -> Lowered {
        let kind = mods.pick(|w| match w {
            "popc" => Some(BarrierKind::RedPopc),
            "and" => Some(BarrierKind::RedAnd),
            "or" => Some(BarrierKind::RedOr),
            _ => None,
        });
        let kind = kind.ok_or("a reduction is missing")?;
        mods.ty();
        arity(inst, 3..=4)?;
        let last = inst.operands.len() - 1;
        let (class, ty) = match kind {
            BarrierKind::RedPopc => (Class::W, Ty::U32),
            _ => (Class::P, Ty::Pred),
        };
        let dst = Some(Slot { class, row: self.dst(operand(inst, 0)?, ty)? });
        let id = self.src(operand(inst, 1)?, Ty::U32)?;
        let count = if last == 3 { Some(self.src(operand(inst, 2)?, Ty::U32)?) } else { None };
        let src = Some(self.predicate(operand(inst, last)?)?);
        self.emit(Op::Barrier(Box::new(Barrier { kind, id, count, dst, src, aligned })))
    }

    /// A predicate source and whether it is negated.
    fn predicate(&mut self, operand: &Operand) -> Lowered<(u16, bool)> {
        match operand {
            Operand::Not(inner) => Ok((self.src(inner, Ty::Pred)?, true)),
            plain => Ok((self.src(plain, Ty::Pred)?, false)),
        }
    }

    fn fence(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if mods.flag("tensormap::generic") {
            // A map is read as it is when a copy begins. What is acquired is the map at an address.
            let acquires = usize::from(mods.flag("acquire"));
            if !mods.flag("proxy") || acquires == 0 && !mods.flag("release") {
                return Err("a fence of tensor maps acquires or releases".into());
            }
            scope(mods);
            arity(inst, 2 * acquires..=2 * acquires)?;
            return self.emit(Op::Fence { device: true });
        }
        arity(inst, 0..=0)?;
        if mods.flag("mbarrier_init") {
            if !mods.flag("release") || !mods.flag("cluster") {
                return Err("only `.release.cluster` exists".into());
            }
            return self.emit(Op::ProxyFence { barriers_only: true });
        }
        if mods.flag("proxy") {
            // Aliases and constant memory are one with generic memory here.
            if mods.flag("alias") {
                return self.emit(Op::Fence { device: true });
            }
            if !mods.flag("async") {
                return Err("only `.proxy.async`, `.proxy.alias` and `.proxy.tensormap::generic` are supported".into());
            }
            mods.pick(|w| matches!(w, "global" | "shared::cta" | "shared::cluster").then_some(()));
            return self.emit(Op::ProxyFence { barriers_only: false });
        }
        mods.flag("sc");
        mods.flag("acq_rel");
        let device = mods.flag("gl") || scope(mods);
        self.emit(Op::Fence { device })
    }

    fn sync_flag(mods: &mut Mods<'_>) -> Lowered {
        if mods.flag("sync") { Ok(()) } else { Err("only the `.sync` form exists since sm_70".into()) }
    }

    fn shuffle(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        Self::sync_flag(mods)?;
        let mode = mods.pick(|w| match w {
            "up" => Some(ShuffleMode::Up),
            "down" => Some(ShuffleMode::Down),
            "bfly" => Some(ShuffleMode::Xor),
            "idx" => Some(ShuffleMode::Index),
            _ => None,
        });
        let mode = mode.ok_or("a shuffle mode is missing")?;
        mods.flag("b32");
        arity(inst, 5..=5)?;
        let (dst, in_range) = match operand(inst, 0)? {
            Operand::Pair(d, p) => (self.dst(d, Ty::B32)?, Some(self.dst(p, Ty::Pred)?)),
            single => (self.dst(single, Ty::B32)?, None),
        };
        let src = self.src(operand(inst, 1)?, Ty::B32)?;
        let lane = self.src(operand(inst, 2)?, Ty::B32)?;
        let clamp = self.src(operand(inst, 3)?, Ty::B32)?;
        let members = self.src(operand(inst, 4)?, Ty::B32)?;
        self.emit(Op::Shuffle(Box::new(Shuffle { mode, dst, in_range, src, lane, clamp, members })))
    }

    /// Without `.sync`, the form of old compilers: among the lanes that execute it together.
    fn vote(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let named = mods.flag("sync");
        let mode = mods.pick(|w| match w {
            "all" => Some(VoteMode::All),
            "any" => Some(VoteMode::Any),
            "uni" => Some(VoteMode::Uniform),
            "ballot" => Some(VoteMode::Ballot),
            _ => None,
        });
        let mode = mode.ok_or("a vote mode is missing")?;
        let (class, ty) = if mode == VoteMode::Ballot { (Class::W, Ty::B32) } else { (Class::P, Ty::Pred) };
        if mods.ty() != Some(ty) {
            return Err(format!("type .{ty:?} is missing").to_lowercase());
        }
        arity(inst, if named { 3..=3 } else { 2..=2 })?;
        let dst = Slot { class, row: self.dst(operand(inst, 0)?, ty)? };
        let (src, negated) = self.predicate(operand(inst, 1)?)?;
        let members = if named {
            self.src(operand(inst, 2)?, Ty::B32)?
        } else {
            let present = self.temp(Class::W)?;
            self.emit(Op::ActiveMask { dst: present })?;
            present
        };
        self.emit(Op::Vote(Box::new(Vote { mode, dst, src, negated, members })))
    }

    fn elect(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        Self::sync_flag(mods)?;
        arity(inst, 2..=2)?;
        let (lane, elected) = match operand(inst, 0)? {
            Operand::Pair(lane, elected) => (lane.as_ref(), elected.as_ref()),
            _ => return Err("a lane and a predicate are expected".into()),
        };
        let given = |operand: &Operand| !matches!(operand, Operand::Sink);
        let lane = if given(lane) { Some(self.dst(lane, Ty::B32)?) } else { None };
        let elected = if given(elected) { Some(self.dst(elected, Ty::Pred)?) } else { None };
        let members = self.src(operand(inst, 1)?, Ty::B32)?;
        self.emit(Op::Elect(Box::new(Elect { lane, elected, members })))
    }

    /// `setmaxnreg` moves registers between warpgroups, of which there are always enough here.
    fn registers(inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if !mods.flag("inc") && !mods.flag("dec") {
            return Err("`.inc` or `.dec` is missing".into());
        }
        super::tensor::aligned_sync(mods)?;
        mods.flag("u32");
        arity(inst, 1..=1)?;
        match *operand(inst, 0)? {
            Operand::Int(count @ 24..=256) if count % 8 == 0 => Ok(()),
            _ => Err("registers are 24 to 256, in steps of 8".into()),
        }
    }

    fn redux(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        Self::sync_flag(mods)?;
        let words = ["add", "min", "max", "and", "or", "xor"];
        let word = mods.pick(|w| words.iter().find(|k| **k == w).copied());
        let word = word.ok_or("an operation is missing")?;
        let ty = mods.ty().ok_or("a type is missing")?;
        let op = match (word, ty) {
            ("add", Ty::U32 | Ty::S32) => AtomOp::Add,
            ("min", Ty::U32) => AtomOp::MinU,
            ("min", Ty::S32) => AtomOp::MinS,
            ("max", Ty::U32) => AtomOp::MaxU,
            ("max", Ty::S32) => AtomOp::MaxS,
            ("and", Ty::B32) => AtomOp::And,
            ("or", Ty::B32) => AtomOp::Or,
            ("xor", Ty::B32) => AtomOp::Xor,
            _ => return Err(format!("type .{ty:?} is not supported").to_lowercase()),
        };
        arity(inst, 3..=3)?;
        let dst = self.dst(operand(inst, 0)?, ty)?;
        let src = self.src(operand(inst, 1)?, ty)?;
        let members = self.src(operand(inst, 2)?, Ty::B32)?;
        self.emit(Op::Reduce(Box::new(Reduce { op, dst, src, members })))
    }

    fn match_lanes(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        Self::sync_flag(mods)?;
        let all = mods.flag("all");
        if !all && !mods.flag("any") {
            return Err("`.any` or `.all` is missing".into());
        }
        let ty = mods.ty().ok_or("a type is missing")?;
        arity(inst, 3..=3)?;
        let (dst, pred) = match operand(inst, 0)? {
            Operand::Pair(d, p) if all => (self.dst(d, Ty::B32)?, Some(self.dst(p, Ty::Pred)?)),
            single => (self.dst(single, Ty::B32)?, None),
        };
        let class = if ty.bytes() == 8 { Class::D } else { Class::W };
        let src = Slot { class, row: self.src(operand(inst, 1)?, ty)? };
        let members = self.src(operand(inst, 2)?, Ty::B32)?;
        self.emit(Op::Match(Box::new(Match { all, dst, pred, src, members })))
    }

    fn mbarrier(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        // Ordering and scope at their defaults or stronger: the emulator orders all arrivals.
        for word in ["release", "acquire", "cta", "cluster"] {
            mods.flag(word);
        }
        if mods.flag("pending_count") {
            mods.flag("b64");
            arity(inst, 2..=2)?;
            let dst = self.dst(operand(inst, 0)?, Ty::U32)?;
            let state = self.src(operand(inst, 1)?, Ty::B64)?;
            return self.emit(Op::Mbar(Box::new(Mbar { op: MbarOp::PendingCount { dst, state }, addr: None })));
        }
        let drop = mods.flag("arrive_drop");
        let blocking = mods.flag("try_wait");
        if drop || mods.flag("arrive") {
            return self.mbarrier_arrive(inst, mods, drop);
        }
        if blocking || mods.flag("test_wait") {
            return self.mbarrier_wait(inst, mods, blocking);
        }
        let init = mods.flag("init");
        let expect = mods.flag("expect_tx");
        let complete = mods.flag("complete_tx");
        if !init && !expect && !complete && !mods.flag("inval") {
            return Err("this mbarrier operation is not supported".into());
        }
        mods.flag("relaxed");
        let space = mbarrier_space(mods)?;
        arity(inst, if init || expect || complete { 2..=2 } else { 1..=1 })?;
        let addr = Some(self.address(operand(inst, 0)?, space)?);
        let op = if init {
            MbarOp::Init { count: self.src(operand(inst, 1)?, Ty::U32)? }
        } else if expect {
            MbarOp::ExpectTx { bytes: self.src(operand(inst, 1)?, Ty::U32)?, state: None, only: true }
        } else if complete {
            MbarOp::CompleteTx { bytes: self.src(operand(inst, 1)?, Ty::U32)? }
        } else {
            MbarOp::Inval
        };
        self.emit(Op::Mbar(Box::new(Mbar { op, addr })))
    }

    fn mbarrier_arrive(&mut self, inst: &AstInst, mods: &mut Mods<'_>, drop: bool) -> Lowered {
        let expect = mods.flag("expect_tx");
        mods.flag("relaxed");
        if mods.flag("noComplete") {
            return Err("modifier `.noComplete` is not supported".into());
        }
        let space = mbarrier_space(mods)?;
        // The state operand may be missing or a sink.
        let has_state = !matches!(operand(inst, 0)?, Operand::Addr(..));
        let first = usize::from(has_state);
        arity(inst, first + 1..=first + 2)?;
        let state = if has_state { Some(self.dst(operand(inst, 0)?, Ty::B64)?) } else { None };
        let addr = Some(self.address(operand(inst, first)?, space)?);
        let count = match inst.operands.get(first + 1) {
            Some(count) => Some(self.src(count, Ty::U32)?),
            None => None,
        };
        let op = match (expect, count) {
            (true, Some(bytes)) if !drop => MbarOp::ExpectTx { bytes, state, only: false },
            (true, _) => return Err("`.expect_tx` needs a byte count and no drop".into()),
            (false, count) => MbarOp::Arrive { count, state, drop },
        };
        self.emit(Op::Mbar(Box::new(Mbar { op, addr })))
    }

    fn mbarrier_wait(&mut self, inst: &AstInst, mods: &mut Mods<'_>, blocking: bool) -> Lowered {
        let parity = mods.flag("parity");
        mods.flag("relaxed");
        let space = mbarrier_space(mods)?;
        // `try_wait` may name a time limit, which changes nothing here.
        arity(inst, if blocking { 3..=4 } else { 3..=3 })?;
        let dst = self.dst(operand(inst, 0)?, Ty::Pred)?;
        let addr = Some(self.address(operand(inst, 1)?, space)?);
        let op = if parity {
            MbarOp::TestParity { dst, parity: self.src(operand(inst, 2)?, Ty::U32)? }
        } else {
            MbarOp::TestState { dst, state: self.src(operand(inst, 2)?, Ty::B64)? }
        };
        self.emit(Op::Mbar(Box::new(Mbar { op, addr })))
    }
}

/// Space and type words of an mbarrier operation.
fn mbarrier_space(mods: &mut Mods<'_>) -> Lowered<Space> {
    let space = space(mods);
    mods.flag("b64");
    match space {
        Space::Shared | Space::Generic => Ok(space),
        _ => Err("an mbarrier lives in shared memory".into()),
    }
}
