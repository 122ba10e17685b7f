//! `tensormap.replace` and `tensormap.cp_fenceproxy`, with which a kernel makes a tensor map: stores and a copy like any
//! other, of the emulator's own encoding.

use super::bulk::shared_or_global;
use super::memory::scope;
use super::mods::Mods;
use super::operands::{arity, operand};
use super::{Lower, Lowered};
use crate::isa::op::{Load, Op, Order, Store};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{Addr, Space};
use crate::parse::ast::{Inst as AstInst, Operand, Ty};
use crate::tensor_map::{Field, MAGIC, MAP_BYTES};

/// Words that are copied together.
const WORDS: usize = 4;

impl Lower<'_> {
    pub(super) fn tensormap(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if mods.flag("replace") {
            return self.replace(inst, mods);
        }
        if mods.flag("cp_fenceproxy") {
            return self.copy_map(inst, mods);
        }
        Err("only `.replace` and `.cp_fenceproxy` exist".into())
    }

    /// A field, and the mark of a map: a kernel may begin with zeros.
    fn replace(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if !mods.flag("tile") || !mods.flag("b1024") {
            return Err("only `.tile` of `.b1024` exists".into());
        }
        let field = mods.pick(Field::parse).ok_or("the field is missing")?;
        let space = mods.pick(shared_or_global).unwrap_or(Space::Generic);
        let wide = matches!(field, Field::Address | Field::Stride);
        let ty = mods.ty().ok_or("a type is missing")?;
        if ty != if wide { Ty::B64 } else { Ty::B32 } {
            return Err(format!("the field has {} bits", if wide { 64 } else { 32 }));
        }
        let ordinal = usize::from(field.is_of_dimension());
        arity(inst, 2 + ordinal..=2 + ordinal)?;
        let dimension = match operand(inst, 1)? {
            _ if ordinal == 0 => 0,
            Operand::Int(dimension) => usize::try_from(*dimension).unwrap_or(usize::MAX),
            _ => return Err("the dimension must be an immediate".into()),
        };
        let (at, bytes) = field.place(dimension).ok_or("there is no such dimension")?;
        let value = self.src_at_least(operand(inst, 1 + ordinal)?, ty)?;
        let map = self.address(operand(inst, 0)?, space)?;
        let mark = Slot { class: Class::W, row: self.constant(Class::W, u64::from(u32::from_le_bytes(MAGIC)))? };
        self.store_part(map, 0, 4, vec![mark])?;
        self.store_part(map, at, bytes, vec![value])
    }

    fn copy_map(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let ways = [mods.pick(shared_or_global), mods.pick(shared_or_global)];
        let words = ["tensormap::generic", "release", "sync", "aligned"].map(|word| mods.flag(word));
        scope(mods);
        if ways != [Some(Space::Global), Some(Space::Shared)] || words.contains(&false) {
            return Err("only `.global.shared::cta.tensormap::generic.release.SCOPE.sync.aligned` exists".into());
        }
        arity(inst, 3..=3)?;
        if !matches!(operand(inst, 2)?, Operand::Int(size) if *size == MAP_BYTES as i64) {
            return Err(format!("a map has {MAP_BYTES} bytes"));
        }
        let [to, from] =
            [self.address(operand(inst, 0)?, Space::Global)?, self.address(operand(inst, 1)?, Space::Shared)?];
        let mut part = Vec::with_capacity(WORDS);
        for _ in 0..WORDS {
            part.push(Slot { class: Class::W, row: self.temp(Class::W)? });
        }
        for at in (0..MAP_BYTES).step_by(4 * WORDS) {
            let addr = moved(from, at);
            let (dst, order) = (part.clone(), Order::default());
            self.emit(Op::Load(Box::new(Load { addr, bytes: 4, signed: false, dst, order, non_coherent: false })))?;
            self.store_part(to, at, 4, part.clone())?;
        }
        self.emit(Op::Fence { device: true })
    }

    fn store_part(&mut self, map: Addr, at: usize, bytes: u32, src: Vec<Slot>) -> Lowered {
        self.emit(Op::Store(Box::new(Store { addr: moved(map, at), bytes, src, order: Order::default() })))
    }
}

fn moved(addr: Addr, by: usize) -> Addr {
    Addr { offset: addr.offset + by as i64, ..addr }
}
