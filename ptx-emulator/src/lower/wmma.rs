//! `wmma`: loads, stores and products of fragments.
//!
//! The common shape of f16 has operations of its own. A fragment of any other shape or type is moved element by element
//! with plain accesses at addresses computed from the lane, marked as made by the warp as a whole, and multiplied as the
//! `mma` products that it is made of.

use super::memory::space;
use super::mods::Mods;
use super::operands::{arity, operand};
use super::tensor::{accumulator, aligned_sync, element, layout, type_words};
use super::{Lower, Lowered};
use crate::isa::alu_table::AluOp;
use crate::isa::op::{
    Acc, Elem, Frag, Load, Mma, MmaHalf, Op, Order, Shuffle, ShuffleMode, Special, Store, Vote, VoteMode, WmmaMove,
};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{Addr, Space};
use crate::num::float::Round;
use crate::parse::ast::{Inst as AstInst, Ty};
use crate::program::RowInit;

/// Rows, columns and depth of a fragment product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    m: u64,
    n: u64,
    k: u64,
}

const SHAPES: [(&str, Shape); 5] = [
    ("m16n16k16", Shape { m: 16, n: 16, k: 16 }),
    ("m32n8k16", Shape { m: 32, n: 8, k: 16 }),
    ("m8n32k16", Shape { m: 8, n: 32, k: 16 }),
    ("m16n16k8", Shape { m: 16, n: 16, k: 8 }),
    ("m8n8k4", Shape { m: 8, n: 8, k: 4 }),
];

/// Which matrix a fragment is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matrix {
    A,
    B,
    C,
}

/// A coordinate of an element: multiples of `lane / 4` and `lane % 4`, and a constant.
#[derive(Clone, Copy, Debug)]
struct Coordinate {
    group: u32,
    member: u32,
    start: u32,
}

/// How a fragment is held.
struct Fragment {
    ty: Ty,
    /// Registers that differ, and all of them: the others are copies.
    distinct: usize,
    registers: usize,
    /// Elements of a register.
    parts: usize,
}

fn shape(mods: &mut Mods<'_>) -> Lowered<Shape> {
    mods.pick(|w| SHAPES.iter().find(|(name, _)| *name == w).map(|(_, shape)| *shape))
        .ok_or_else(|| "only shapes m16n16k16, m32n8k16, m8n32k16, m16n16k8 and m8n8k4 are supported".into())
}

/// How the fragment of a matrix is held, if the shape goes with the type.
fn fragment(shape: Shape, matrix: Matrix, word: &str) -> Option<Fragment> {
    let count = match matrix {
        Matrix::A => shape.m * shape.k,
        Matrix::B => shape.k * shape.n,
        Matrix::C => shape.m * shape.n,
    } as usize;
    let (ty, parts, depth) = match (word, matrix) {
        ("f16", Matrix::A | Matrix::B) => (Ty::B16, 2, 16),
        ("bf16", Matrix::A | Matrix::B) => (Ty::B16, 2, 16),
        ("s8", Matrix::A | Matrix::B) => (Ty::S8, 4, 16),
        ("u8", Matrix::A | Matrix::B) => (Ty::U8, 4, 16),
        ("tf32", Matrix::A | Matrix::B) => (Ty::B32, 1, 8),
        ("f64", _) => (Ty::F64, 1, 4),
        ("f32", Matrix::C) => (Ty::F32, 1, 0),
        ("s32", Matrix::C) => (Ty::B32, 1, 16),
        ("f16", Matrix::C) => (Ty::B16, 2, 16),
        _ => return None,
    };
    // Sums of f32 go with every depth but that of f64.
    let fits = if depth == 0 { shape.k != 4 } else { shape.k == depth };
    let distinct = count / 32 / parts;
    let registers = if word == "f16" && matrix != Matrix::C { 8 } else { distinct };
    fits.then_some(Fragment { ty, distinct, registers, parts })
}

/// Row and column of element `part` of register `reg`.
fn place(shape: Shape, matrix: Matrix, parts: usize, reg: usize, part: usize) -> (Coordinate, Coordinate) {
    let (reg, part, parts, k) = (reg as u32, part as u32, parts as u32, shape.k as u32);
    let at = |group, member, start| Coordinate { group, member, start };
    // The two halves of a 16-row tile, and the elements of one k.
    let first = |reg: u32| (at(1, 0, 8 * (reg & 1)), at(0, parts, part + 4 * parts * (reg >> 1)));
    let second = |reg: u32| (at(0, parts, part + 4 * parts * reg), at(1, 0, 0));
    let sums = |reg: u32| match parts {
        1 => (at(1, 0, 8 * (reg >> 1)), at(0, 2, reg & 1)),
        _ => (at(1, 0, 8 * reg), at(0, 2, part)),
    };
    let (first_regs, second_regs, sum_regs) = (k / 2 / parts, k / 4 / parts, 4 / parts);
    let down = |(row, column): (Coordinate, Coordinate), by: u32| (at(row.group, row.member, row.start + by), column);
    let right =
        |(row, column): (Coordinate, Coordinate), by: u32| (row, at(column.group, column.member, column.start + by));
    let turned = |(row, column): (Coordinate, Coordinate)| (column, row);
    match (matrix, shape.m) {
        _ if shape.k == 4 => match matrix {
            Matrix::A => (at(1, 0, 0), at(0, 1, 0)),
            Matrix::B => (at(0, 1, 0), at(1, 0, 0)),
            Matrix::C => (at(1, 0, 0), at(0, 2, reg)),
        },
        (Matrix::A, 16) => first(reg),
        (Matrix::B, 16) => right(second(reg % second_regs), 8 * (reg / second_regs)),
        (Matrix::C, 16) => right(sums(reg % sum_regs), 8 * (reg / sum_regs)),
        (Matrix::A, 32) => down(first(reg % first_regs), 16 * (reg / first_regs)),
        (Matrix::B, 32) => second(reg),
        (Matrix::C, 32) => down(sums(reg % sum_regs), 16 * (reg / sum_regs)),
        // Eight rows: everything transposed.
        (Matrix::A, _) => turned(second(reg)),
        (Matrix::B, _) => turned(down(first(reg % first_regs), 16 * (reg / first_regs))),
        (Matrix::C, _) => turned(down(sums(reg % sum_regs), 16 * (reg / sum_regs))),
    }
}

impl Lower<'_> {
    pub(super) fn wmma(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        if mods.flag("mma") {
            return self.wmma_mma(inst, mods);
        }
        let store = mods.flag("store");
        if !store && !mods.flag("load") {
            return Err("`.load`, `.store` or `.mma` is missing".into());
        }
        let which = mods.pick(|w| match (w, store) {
            ("a", false) => Some(Matrix::A),
            ("b", false) => Some(Matrix::B),
            ("c", false) | ("d", true) => Some(Matrix::C),
            _ => None,
        });
        let which = which.ok_or("a fragment is missing")?;
        aligned_sync(mods)?;
        let column_major = layout(mods)?;
        let shape = shape(mods)?;
        let space = space(mods);
        if !matches!(space, Space::Shared | Space::Global | Space::Generic) {
            return Err("fragments are in shared or global memory".into());
        }
        let words = type_words(mods)?;
        let [word] = words.as_slice() else {
            return Err("one type is expected".into());
        };
        let fragment = fragment(shape, which, word)
            .ok_or_else(|| format!("a fragment of .{word} is not supported in this shape"))?;
        arity(inst, 2..=3)?;
        let (list, place) = if store { (1, 0) } else { (0, 1) };
        let addr = self.address(operand(inst, place)?, space)?;
        let stride = match inst.operands.get(2) {
            Some(stride) => Some(self.src(stride, Ty::U32)?),
            None => None,
        };
        let common = match (which, word.as_str()) {
            (Matrix::A, "f16") => Some(Frag::A),
            (Matrix::B, "f16") => Some(Frag::B),
            (Matrix::C, "f32") => Some(Frag::AccF32),
            (Matrix::C, "f16") => Some(Frag::AccF16),
            _ => None,
        };
        let reg_ty = if fragment.parts > 1 { Ty::B32 } else { fragment.ty };
        let regs = self.rows(operand(inst, list)?, fragment.registers, reg_ty, !store)?;
        match common {
            Some(frag) if (shape.m, shape.k) == (16, 16) => {
                self.emit(Op::Wmma(Box::new(WmmaMove { store, frag, column_major, addr, stride, regs })))
            }
            _ => self.move_fragment(shape, which, &fragment, column_major, store, addr, stride, &regs),
        }
    }

    /// Moves a fragment element by element.
    #[expect(clippy::too_many_arguments, reason = "the parts of one instruction")]
    fn move_fragment(
        &mut self,
        shape: Shape,
        matrix: Matrix,
        fragment: &Fragment,
        column_major: bool,
        store: bool,
        addr: Addr,
        stride: Option<u16>,
        regs: &[u16],
    ) -> Lowered {
        self.whole_warp()?;
        let (rows, columns) = match matrix {
            Matrix::A => (shape.m, shape.k),
            Matrix::B => (shape.k, shape.n),
            Matrix::C => (shape.m, shape.n),
        };
        let stride = match stride {
            Some(row) => row,
            None => self.constant(Class::W, if column_major { rows } else { columns })?,
        };
        let start = self.fragment_start(addr)?;
        let mut loaded = Vec::new();
        for (reg, &row) in regs.iter().enumerate().take(fragment.distinct) {
            let mut parts = Vec::new();
            for part in 0..fragment.parts {
                let (r, c) = place(shape, matrix, fragment.parts, reg, part);
                let (line, position) = if column_major { (c, r) } else { (r, c) };
                let at = self.element_address(start, line, position, stride, fragment.ty.bytes())?;
                let addr = Addr { space: addr.space, base: at, offset: 0 };
                if store {
                    let value = self.piece_of(row, part, fragment)?;
                    self.store_element(addr, fragment.ty, value)?;
                } else {
                    parts.push(self.load_element(addr, fragment.ty)?);
                }
            }
            loaded.push(parts);
        }
        if store {
            return Ok(());
        }
        for (reg, &row) in regs.iter().enumerate() {
            self.join(row, &loaded[reg % fragment.distinct], fragment)?;
        }
        Ok(())
    }

    /// All lanes are here together; this orders nothing.
    fn whole_warp(&mut self) -> Lowered {
        let members = self.constant(Class::W, 0xffff_ffff)?;
        let (src, dst) = (self.constant_predicate()?, self.scratch(Class::P)?);
        let dst = Slot { class: Class::P, row: dst };
        self.emit(Op::Vote(Box::new(Vote { mode: VoteMode::Any, dst, src, negated: false, members })))
    }

    fn constant_predicate(&mut self) -> Lowered<u16> {
        let zero = self.constant(Class::W, 0)?;
        let row = self.scratch(Class::P)?;
        // Comparison class "equal".
        self.alu(AluOp::SetpU32, row, &[zero, zero], 2)?;
        Ok(row)
    }

    /// Address of the first element as a 64-bit row.
    fn fragment_start(&mut self, addr: Addr) -> Lowered<u16> {
        let wide = match addr.base.class {
            Class::D => addr.base.row,
            _ => {
                let wide = self.scratch(Class::D)?;
                self.alu(AluOp::ZextD, wide, &[addr.base.row], 0)?;
                wide
            }
        };
        let offset = self.constant(Class::D, addr.offset as u64)?;
        let start = self.scratch(Class::D)?;
        self.alu(AluOp::AddD, start, &[wide, offset], 0)?;
        Ok(start)
    }

    /// Address of the element at `position` of `line`.
    fn element_address(
        &mut self,
        start: u16,
        line: Coordinate,
        position: Coordinate,
        stride: u16,
        bytes: u32,
    ) -> Lowered<Slot> {
        let line = self.coordinate(line)?;
        let position = self.coordinate(position)?;
        let (index, offset, at) = (self.scratch(Class::W)?, self.scratch(Class::D)?, self.scratch(Class::D)?);
        let size = self.constant(Class::W, u64::from(bytes))?;
        self.alu(AluOp::MadW, index, &[line, stride, position], 0)?;
        self.alu(AluOp::MulWideU32, offset, &[index, size], 0)?;
        self.alu(AluOp::AddD, at, &[start, offset], 0)?;
        Ok(Slot { class: Class::D, row: at })
    }

    /// A coordinate of each lane's element; known when a warp starts.
    fn coordinate(&mut self, at: Coordinate) -> Lowered<u16> {
        let Coordinate { group, member, start } = at;
        self.init_row(Class::W, RowInit::Special(Special::LanePlace { group, member, start }))
    }

    fn load_element(&mut self, addr: Addr, ty: Ty) -> Lowered<u16> {
        let class = if ty == Ty::F64 { Class::D } else { Class::W };
        let dst = Slot { class, row: self.scratch(class)? };
        let order = Order { collective: true, ..Order::default() };
        let load = Load { addr, bytes: ty.bytes(), signed: false, dst: vec![dst], order, non_coherent: false };
        self.emit(Op::Load(Box::new(load)))?;
        Ok(dst.row)
    }

    fn store_element(&mut self, addr: Addr, ty: Ty, value: u16) -> Lowered {
        let class = if ty == Ty::F64 { Class::D } else { Class::W };
        let order = Order { collective: true, ..Order::default() };
        self.emit(Op::Store(Box::new(Store { addr, bytes: ty.bytes(), src: vec![Slot { class, row: value }], order })))
    }

    /// Element `part` of a register, at the bottom of a row.
    fn piece_of(&mut self, row: u16, part: usize, fragment: &Fragment) -> Lowered<u16> {
        if part == 0 {
            return Ok(row);
        }
        let shift = self.constant(Class::W, u64::from(8 * fragment.ty.bytes()) * part as u64)?;
        let piece = self.scratch(Class::W)?;
        self.alu(AluOp::ShrU32, piece, &[row, shift], 0)?;
        Ok(piece)
    }

    /// Puts the elements of a register together.
    fn join(&mut self, to: u16, parts: &[u16], fragment: &Fragment) -> Lowered {
        match parts {
            [one] => self.alu(if fragment.ty == Ty::F64 { AluOp::MovD } else { AluOp::MovW }, to, &[*one], 0),
            [low, high] => self.alu(AluOp::Pack16, to, &[*low, *high], 0),
            [first, rest @ ..] => {
                let whole = self.scratch(Class::W)?;
                self.alu(AluOp::MovW, whole, &[*first], 0)?;
                let bits = self.constant(Class::W, 8)?;
                for (i, part) in rest.iter().enumerate() {
                    let at = self.constant(Class::W, 8 * (i as u64 + 1))?;
                    self.alu(AluOp::BfiW, whole, &[*part, at, bits], 0)?;
                }
                self.alu(AluOp::MovW, to, &[whole], 0)
            }
            [] => Ok(()),
        }
    }

    /// A product as the m16n8 products that it is made of.
    fn wmma_mma(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        aligned_sync(mods)?;
        // The layouts of the factors matter to the loads only: the fragments are the same.
        layout(mods)?;
        layout(mods)?;
        let shape = shape(mods)?;
        if shape.k == 4 {
            return self.mma_f64(inst, mods);
        }
        let satfinite = mods.flag("satfinite");
        let words = type_words(mods)?;
        let [d_word, a_word, b_word, c_word] = match words.as_slice() {
            [d, c] => [d.as_str(), "f16", "f16", c.as_str()],
            [d, a, b, c] => [d.as_str(), a.as_str(), b.as_str(), c.as_str()],
            _ => return Err("two or four types are expected".into()),
        };
        let held = |matrix, word: &str| {
            fragment(shape, matrix, word).ok_or_else(|| format!("a fragment of .{word} is not supported in this shape"))
        };
        let (a_held, b_held) = (held(Matrix::A, a_word)?, held(Matrix::B, b_word)?);
        let (c_held, d_held) = (held(Matrix::C, c_word)?, held(Matrix::C, d_word)?);
        let (a_elem, b_elem) = (element(a_word)?, element(b_word)?);
        let ((c_acc, c_ty), (d_acc, d_ty)) = (accumulator(c_word)?, accumulator(d_word)?);
        let integer = matches!(a_elem, Elem::S8 | Elem::U8);
        if integer != (c_acc == Acc::S32) || integer != (d_acc == Acc::S32) || a_held.parts != b_held.parts {
            return Err("this combination of types does not exist".into());
        }
        if satfinite && !integer {
            return Err("modifier `.satfinite` is for integers".into());
        }
        arity(inst, 4..=4)?;
        let d = self.rows(operand(inst, 0)?, d_held.registers, d_ty, true)?;
        let a = self.rows(operand(inst, 1)?, a_held.registers, Ty::B32, false)?;
        let b = self.rows(operand(inst, 2)?, b_held.registers, Ty::B32, false)?;
        let c = self.rows(operand(inst, 3)?, c_held.registers, c_ty, false)?;
        let (a, b) = (&a[..a_held.distinct], &b[..b_held.distinct]);
        let k = shape.k as usize;
        let pieces = |rows: &[u16], count: usize| -> Vec<Vec<u16>> {
            rows.chunks(rows.len() / count).map(<[u16]>::to_vec).collect()
        };
        // Eight rows: the transposed product, with the factors in each other's place.
        let (first, second, elems) = if shape.m == 8 { (b, a, (b_elem, a_elem)) } else { (a, b, (a_elem, b_elem)) };
        let product =
            |a: Vec<u16>, halves| Mma { k, a_elem: elems.0, b_elem: elems.1, c_acc, d_acc, a, halves, satfinite };
        if shape.m == 16 {
            let parts = pieces(second, 2).into_iter().zip(pieces(&c, 2)).zip(pieces(&d, 2));
            let halves = parts.map(|((b, c), d)| MmaHalf { b, c, d }).collect();
            return self.emit(Op::Mma(Box::new(product(first.to_vec(), halves))));
        }
        // The second product may read what the first one would replace.
        let temps = d.iter().map(|_| self.scratch(Class::W)).collect::<Lowered<Vec<_>>>()?;
        let parts = pieces(first, 2).into_iter().zip(pieces(&c, 2)).zip(pieces(&temps, 2));
        for ((a, c), d) in parts {
            let halves = vec![MmaHalf { b: second.to_vec(), c, d }];
            self.emit(Op::Mma(Box::new(product(a, halves))))?;
        }
        for (to, from) in d.iter().zip(&temps) {
            self.alu(AluOp::MovW, *to, &[*from], 0)?;
        }
        Ok(())
    }

    /// m8n8k4 of f64: each lane collects its row and its two columns, and chains four fused multiply-adds.
    pub(super) fn mma_f64(&mut self, inst: &AstInst, mods: &mut Mods<'_>) -> Lowered {
        let round = super::float::rounding(mods).unwrap_or(Round::Nearest);
        mods.flag("row");
        mods.flag("col");
        let words = type_words(mods)?;
        if words.len() != 4 || words.iter().any(|word| word != "f64") {
            return Err("only .f64 is supported in shape m8n8k4".into());
        }
        arity(inst, 4..=4)?;
        let d = self.rows(operand(inst, 0)?, 2, Ty::F64, true)?;
        let a = self.rows(operand(inst, 1)?, 1, Ty::F64, false)?;
        let b = self.rows(operand(inst, 2)?, 1, Ty::F64, false)?;
        let c = self.rows(operand(inst, 3)?, 2, Ty::F64, false)?;
        let mut sums = c;
        for k in 0..4 {
            let from = self.coordinate(Coordinate { group: 4, member: 0, start: k })?;
            let left = self.fetched(a[0], from)?;
            for (column, sum) in (0..).zip(&mut sums) {
                // Column 2 * member + `column` is held by the group of that number.
                let from = self.coordinate(Coordinate { group: 0, member: 8, start: 4 * column + k })?;
                let right = self.fetched(b[0], from)?;
                let next = self.scratch(Class::D)?;
                let op = if round == Round::Nearest { AluOp::FmaF64 } else { AluOp::FmaF64Round };
                self.alu(op, next, &[left, right, *sum], round.code())?;
                *sum = next;
            }
        }
        for (to, from) in d.iter().zip(&sums) {
            self.alu(AluOp::MovD, *to, &[*from], 0)?;
        }
        Ok(())
    }

    /// A 64-bit value of another lane.
    fn fetched(&mut self, source: u16, lane: u16) -> Lowered<u16> {
        let (clamp, members) = (self.constant(Class::W, 31)?, self.constant(Class::W, 0xffff_ffff)?);
        let mut halves = [0; 2];
        for (half, op) in halves.iter_mut().zip([AluOp::TruncD, AluOp::HighD]) {
            let (src, dst) = (self.scratch(Class::W)?, self.scratch(Class::W)?);
            self.alu(op, src, &[source], 0)?;
            let mode = ShuffleMode::Index;
            self.emit(Op::Shuffle(Box::new(Shuffle { mode, dst, in_range: None, src, lane, clamp, members })))?;
            *half = dst;
        }
        let value = self.scratch(Class::D)?;
        self.alu(AluOp::PackD, value, &halves, 0)?;
        Ok(value)
    }
}
