//! Loads, stores, atomics, asynchronous copies and cache hints.

use super::mods::Mods;
use super::operands::{arity, class_of, operand};
use super::{Lower, Lowered};
use crate::isa::alu_table::AluOp;
use crate::isa::op::{Atom, AtomOp, CopyAsync, Load, Op, Order, Store};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{Addr, Space};
use crate::parse::ast::{Inst as AstInst, Operand, Ty};

/// State space word of an access.
pub(super) fn space(mods: &mut Mods<'_>) -> Space {
    mods.pick(|w| match w {
        "global" => Some(Space::Global),
        // A place of another block of the cluster is a shared address beyond the own ones.
        "shared" | "shared::cta" | "shared::cluster" => Some(Space::Shared),
        "local" => Some(Space::Local),
        "const" => Some(Space::Const),
        "param" | "param::entry" | "param::func" => Some(Space::Param),
        _ => None,
    })
    .unwrap_or(Space::Generic)
}

/// Ordering words. Scopes are taken as the block or wider: the emulator has one order for all.
pub(super) fn order(mods: &mut Mods<'_>) -> Order {
    let strong = Order { strong: true, ..Order::default() };
    let word = mods.pick(|w| match w {
        "volatile" => Some(Order { volatile: true, ..strong }),
        "relaxed" => Some(strong),
        "acquire" => Some(Order { acquire: true, ..strong }),
        "release" => Some(Order { release: true, ..strong }),
        "acq_rel" => Some(Order { acquire: true, release: true, ..strong }),
        "weak" => Some(Order::default()),
        _ => None,
    });
    scope(mods);
    word.unwrap_or_default()
}

/// Ticks off a scope word; true when it reaches beyond the block.
pub(super) fn scope(mods: &mut Mods<'_>) -> bool {
    mods.pick(|w| match w {
        "cta" => Some(false),
        "gpu" | "sys" | "cluster" => Some(true),
        _ => None,
    })
    .unwrap_or(false)
}

/// Words that choose a cache policy and nothing else.
fn cache_words(mods: &mut Mods<'_>) {
    for word in ["ca", "cg", "cs", "cv", "lu", "wb", "wt"] {
        mods.flag(word);
    }
}

impl Lower<'_> {
    /// Lowers an instruction of this family; false if the opcode belongs elsewhere.
    pub(super) fn lower_memory(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered<bool> {
        match inst.opcode.as_str() {
            "ld" | "ldu" => self.load(inst, mods)?,
            "st" => self.store(inst, mods)?,
            "atom" | "red" => self.atom(inst, mods)?,
            "cp" if mods.flag("async") => match (mods.flag("bulk"), mods.flag("reduce")) {
                (true, reduces) => self.bulk(inst, mods, reduces)?,
                (false, false) => self.copy_async(inst, mods)?,
                (false, true) => return Err("only bulk copies reduce".into()),
            },
            "tensormap" => self.tensormap(inst, mods)?,
            "prefetch" | "prefetchu" => self.prefetch(inst, mods)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn load(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let non_coherent = mods.flag("nc") || inst.opcode == "ldu";
        let order = order(mods);
        let space = space(mods);
        if non_coherent && !matches!(space, Space::Global | Space::Generic) {
            return Err("non-coherent loads are of global memory".into());
        }
        cache_words(mods);
        let count = vector_count(mods);
        let ty = mods.ty().ok_or("a type is missing")?;
        arity(inst, 2..=2)?;
        let parts = Self::vector(operand(inst, 0)?);
        check_vector(parts.len(), count, ty)?;
        let mut dst = Vec::with_capacity(count);
        for part in parts {
            dst.push(self.dst_at_least(part, ty)?);
        }
        let addr = self.address(operand(inst, 1)?, space)?;
        let (bytes, signed) = (ty.bytes(), ty.signed());
        let loaded = dst.clone();
        self.emit(Op::Load(Box::new(Load { addr, bytes, signed, dst, order, non_coherent })))?;
        for (part, slot) in parts.iter().zip(loaded) {
            // A load extends to 32 bits; rows of 16-bit registers keep zeros above their value.
            if ty == Ty::S8 && self.width(part, slot.class) == 2 {
                self.alu(AluOp::ExtU16, slot.row, &[slot.row], 0)?;
            }
        }
        Ok(())
    }

    fn store(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let order = order(mods);
        let space = space(mods);
        cache_words(mods);
        let count = vector_count(mods);
        let ty = mods.ty().ok_or("a type is missing")?;
        arity(inst, 2..=2)?;
        if space == Space::Const {
            return Err("constant memory cannot be stored to".into());
        }
        let parts = Self::vector(operand(inst, 1)?);
        check_vector(parts.len(), count, ty)?;
        let mut src = Vec::with_capacity(count);
        for part in parts {
            src.push(self.src_at_least(part, ty)?);
        }
        let addr = self.address(operand(inst, 0)?, space)?;
        if addr.space == Space::Param {
            return Err("kernel parameters cannot be stored to".into());
        }
        self.emit(Op::Store(Box::new(Store { addr, bytes: ty.bytes(), src, order })))
    }

    fn atom(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let mut order = order(mods);
        order.strong = true;
        let space = space(mods);
        let word = mods.pick(|w| {
            let known = ["add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas"];
            known.iter().find(|k| **k == w).copied()
        });
        let word = word.ok_or("an operation is missing")?;
        let noftz = mods.flag("noftz");
        let count = vector_count(mods);
        let ty = mods.ty().ok_or("a type is missing")?;
        let op = atom_op(word, ty)?;
        let packed = matches!(op, AtomOp::AddF16x2 | AtomOp::AddBf16x2);
        if noftz && !packed {
            return Err("`.noftz` belongs to sums of 16-bit floats".into());
        }
        let reduction = inst.opcode == "red";
        let first = usize::from(!reduction);
        let values = if op == AtomOp::Cas { 2 } else { 1 };
        arity(inst, first + 1 + values..=first + 1 + values)?;
        let dst = (!reduction).then(|| operand(inst, 0)).transpose()?;
        let addr = self.address(operand(inst, first)?, space)?;
        let a = operand(inst, first + 1)?;
        if count > 1 {
            if !(packed || op == AtomOp::AddF32) || count > 4 {
                return Err(format!("an atomic on {count} elements of .{ty:?} is not supported").to_lowercase());
            }
            return self.atom_vector(op, ty, count, dst, addr, a, order);
        }
        if !matches!(addr.space, Space::Global | Space::Shared | Space::Generic) {
            return Err("atomics work on global and shared memory".into());
        }
        let class = class_of(ty);
        let dst = dst.map(|dst| self.dst(dst, ty)).transpose()?.map(|row| Slot { class, row });
        let a = Slot { class, row: self.src(a, ty)? };
        let b = match values {
            2 => Some(Slot { class, row: self.src(operand(inst, first + 2)?, ty)? }),
            _ => None,
        };
        let bytes = ty.bytes();
        self.emit(Op::Atom(Box::new(Atom { op, addr, bytes, align: bytes, dst, a, b, order })))
    }

    /// An atomic on several elements side by side: each is an atomic of its own.
    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    fn atom_vector(
        &mut self,
        op: AtomOp,
        ty: Ty,
        count: usize,
        dst: Option<&Operand>,
        addr: Addr,
        values: &Operand,
        order: Order,
    ) -> Lowered {
        if !matches!(addr.space, Space::Global | Space::Generic) {
            return Err("atomics on vectors work on global memory".into());
        }
        let (class, bytes) = (class_of(ty), ty.bytes());
        let mut sources = Vec::with_capacity(count);
        // What one element returns may be what the next adds: all sources are read first.
        for row in self.rows(values, count, ty, false)? {
            let temp = if dst.is_some() { self.temp(class)? } else { row };
            if dst.is_some() {
                self.alu(AluOp::MovW, temp, &[row], 0)?;
            }
            sources.push(temp);
        }
        let results = dst.map(|dst| self.rows(dst, count, ty, true)).transpose()?;
        for (i, row) in sources.into_iter().enumerate() {
            let at = Addr { offset: addr.offset + i64::from(bytes) * i as i64, ..addr };
            let align = if i == 0 { bytes * count as u32 } else { bytes };
            let dst = results.as_ref().map(|rows| Slot { class, row: rows[i] });
            let a = Slot { class, row };
            self.emit(Op::Atom(Box::new(Atom { op, addr: at, bytes, align, dst, a, b: None, order })))?;
        }
        Ok(())
    }

    fn copy_async(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if mods.flag("commit_group") {
            arity(inst, 0..=0)?;
            return self.emit(Op::CopyCommit);
        }
        if mods.flag("wait_all") {
            arity(inst, 0..=0)?;
            return self.emit(Op::CopyWait { pending: None });
        }
        if mods.flag("wait_group") {
            arity(inst, 1..=1)?;
            let Operand::Int(pending @ 0..=0xffff) = *operand(inst, 0)? else {
                return Err("the group count must be an immediate".into());
            };
            return self.emit(Op::CopyWait { pending: Some(pending as u32) });
        }
        if mods.flag("mbarrier") {
            if !mods.flag("arrive") {
                return Err("only `.mbarrier.arrive` is supported".into());
            }
            let noinc = mods.flag("noinc");
            let space = space(mods);
            mods.flag("b64");
            arity(inst, 1..=1)?;
            let addr = self.address(operand(inst, 0)?, space)?;
            return self.emit(Op::CopyArrive { addr, noinc });
        }
        self.copy(inst, mods)
    }

    fn copy(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let cached = mods.flag("ca");
        if !cached && !mods.flag("cg") {
            return Err("`.ca` or `.cg` is missing".into());
        }
        if !mods.flag("shared") && !mods.flag("shared::cta") || !mods.flag("global") {
            return Err("only copies from global to shared memory exist".into());
        }
        if mods.flag("L2::cache_hint") {
            return Err("modifier `.L2::cache_hint` is not supported".into());
        }
        arity(inst, 3..=4)?;
        let dst = self.address(operand(inst, 0)?, Space::Shared)?;
        let src = self.address(operand(inst, 1)?, Space::Global)?;
        let bytes = match *operand(inst, 2)? {
            Operand::Int(16) => 16,
            Operand::Int(bytes @ (4 | 8)) if cached => bytes as u32,
            _ => return Err("the size must be 16, or 4 or 8 with `.ca`".into()),
        };
        let src_bytes = match inst.operands.get(3) {
            Some(size) => Some(self.src(size, Ty::U32)?),
            None => None,
        };
        self.emit(Op::CopyAsync(Box::new(CopyAsync { dst, src, bytes, src_bytes })))
    }

    /// Prefetches change nothing that the emulator models; the address is not checked either.
    fn prefetch(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        mods.flag("tensormap");
        let space = space(mods);
        mods.flag("L1");
        mods.flag("L2");
        arity(inst, 1..=1)?;
        self.address(operand(inst, 0)?, space).map(drop)
    }

    /// Emits a load of one value from this thread's local storage.
    pub(super) fn load_local(&mut self, at: u32, bytes: u32) -> Lowered<Slot> {
        let class = if bytes == 8 { Class::D } else { Class::W };
        let dst = Slot { class, row: self.temp(class)? };
        let base = Slot { class: Class::D, row: self.constant(Class::D, u64::from(at))? };
        let addr = crate::isa::space::Addr { space: Space::Local, base, offset: 0 };
        let load = Load { addr, bytes, signed: false, dst: vec![dst], order: Order::default(), non_coherent: false };
        self.emit(Op::Load(Box::new(load)))?;
        Ok(dst)
    }
}

/// Elements of a vector form.
pub(super) fn vector_count(mods: &mut Mods<'_>) -> usize {
    if mods.flag("v2") {
        2
    } else if mods.flag("v4") {
        4
    } else if mods.flag("v8") {
        8
    } else {
        1
    }
}

fn check_vector(parts: usize, count: usize, ty: Ty) -> Lowered {
    if parts != count {
        return Err(format!("{parts} registers given, {count} expected"));
    }
    if ty == Ty::Pred || ty.bytes() as usize * count > 32 {
        return Err(format!("a vector of {count} .{ty:?} is not supported").to_lowercase());
    }
    Ok(())
}

fn atom_op(word: &str, ty: Ty) -> Lowered<AtomOp> {
    let word32_or_64 = matches!(ty.bytes(), 4 | 8) && !ty.float();
    let op = match (word, ty) {
        ("add", Ty::F32) => AtomOp::AddF32,
        ("add", Ty::F64) => AtomOp::AddF64,
        ("add", Ty::F16x2) => AtomOp::AddF16x2,
        ("add", Ty::Bf16x2) => AtomOp::AddBf16x2,
        ("cas", Ty::B16) => AtomOp::Cas,
        _ if !word32_or_64 => {
            return Err(format!("atomic on .{ty:?} is not supported").to_lowercase());
        }
        ("add", _) => AtomOp::Add,
        ("min", _) if ty.signed() => AtomOp::MinS,
        ("min", _) => AtomOp::MinU,
        ("max", _) if ty.signed() => AtomOp::MaxS,
        ("max", _) => AtomOp::MaxU,
        ("and", _) => AtomOp::And,
        ("or", _) => AtomOp::Or,
        ("xor", _) => AtomOp::Xor,
        ("inc", Ty::U32) => AtomOp::Inc,
        ("dec", Ty::U32) => AtomOp::Dec,
        ("exch", _) => AtomOp::Exch,
        ("cas", _) => AtomOp::Cas,
        _ => return Err(format!("atomic `.{word}` on .{ty:?} is not supported").to_lowercase()),
    };
    Ok(op)
}
