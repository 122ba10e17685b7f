//! Atomic read-modify-write on global and shared memory, lane after lane.

use crate::exec::memory::access::source;
use crate::exec::memory::target::{Target, Use};
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::Warp;
use crate::isa::op::{Atom, AtomOp};
use crate::isa::space::Space;
use crate::machine::regs::{LANES, each_lane};
use crate::memory::Allocation;
use crate::num::float::ftz;
use crate::num::small::{self, Bfloat, Fp16, halves2};
use crate::report::{Kind, RawSite, Severity};

/// New value of a read-modify-write of `bytes` width.
pub(crate) fn combine(op: AtomOp, bytes: u32, old: u64, a: u64, b: u64) -> u64 {
    let wide = bytes == 8;
    let signed = |v: u64| {
        if wide { v as i64 } else { i64::from(v as u32 as i32) }
    };
    let out = match op {
        AtomOp::Add => old.wrapping_add(a),
        AtomOp::MinU => old.min(a),
        AtomOp::MaxU => old.max(a),
        AtomOp::MinS => signed(old).min(signed(a)) as u64,
        AtomOp::MaxS => signed(old).max(signed(a)) as u64,
        AtomOp::And => old & a,
        AtomOp::Or => old | a,
        AtomOp::Xor => old ^ a,
        AtomOp::Inc => {
            if old >= a {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Dec => {
            if old == 0 || old > a {
                a
            } else {
                old - 1
            }
        }
        AtomOp::Exch => a,
        AtomOp::Cas => {
            if old == a {
                b
            } else {
                old
            }
        }
        AtomOp::AddF32 => {
            let sum = f32::from_bits(old as u32) + f32::from_bits(a as u32);
            u64::from(crate::num::float::canon(sum))
        }
        AtomOp::AddF64 => (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
        AtomOp::AddF16x2 => u64::from(halves2(old as u32, a as u32, small::add::<Fp16>)),
        AtomOp::AddBf16x2 => u64::from(halves2(old as u32, a as u32, small::add::<Bfloat>)),
    };
    if wide { out } else { out & ((1 << (8 * bytes)) - 1) }
}

/// As [`combine`], of an element of global memory: there an f32 sum flushes subnormal numbers. In shared memory it keeps
/// them, and so does a bulk copy that adds to global memory, of which the ISA says nothing: an H100 was asked.
fn combine_global(op: AtomOp, bytes: u32, old: u64, a: u64, b: u64) -> u64 {
    if op != AtomOp::AddF32 {
        return combine(op, bytes, old, a, b);
    }
    let flush = |v: u64| u64::from(ftz(v as u32));
    flush(combine(op, bytes, flush(old), flush(a), b))
}

impl Block {
    /// Combines elements of `bytes` each, one after the other, with those of global memory at `at`, for a copy that
    /// reduces. What it does to one element is done in one step, and no race with another such.
    pub(crate) fn reduce_elements(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        site: RawSite,
        (index, at): (usize, u64),
        (op, bytes): (AtomOp, u32),
        data: &[u8],
    ) {
        let target = Target { space: Space::Global, at: [at; LANES], lanes: 1, allocation: [index as u32; LANES] };
        let (pc, size) = (site.pc as usize, data.len() as u32);
        self.before_write(context, &target, size);
        self.shadow_global(context, warp, &target, Use { strong: true, ..Use::weak(pc, size, true) }, 0);
        self.note_first(context, &target, size);
        let allocation = context.memory.at(index);
        let offset = at - allocation.base;
        let defined = allocation.is_defined(offset, size);
        for (i, element) in (0..).zip(data.chunks_exact(bytes as usize)) {
            let value = element.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            let new = |old| combine(op, bytes, old, value, 0);
            update(allocation, offset + u64::from(bytes) * i, bytes, new);
        }
        allocation.define(offset, size);
        if !defined && context.launch.checks.uninitialised {
            self.report(
                context,
                Kind::UninitialisedStore,
                Severity::Error,
                &[RawSite { role: "reads", ..site }],
                || "a copy reduces into uninitialised memory".into(),
            );
        }
        self.check_first(context, warp, &target, pc);
    }

    pub(crate) fn atom(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, active: u32, atom: &Atom) -> Flow {
        let usage = Use { strong: true, align: atom.align, ..Use::weak(pc, atom.bytes, true) };
        let (a, a_taint) = source(warp, atom.a, atom.bytes);
        let (b, b_taint) = atom.b.map_or(([0; LANES], 0), |b| source(warp, b, atom.bytes));
        warp.polled = true;
        let tainted = (a_taint | b_taint) & active;
        if context.launch.checks.uninitialised && tainted != 0 {
            self.report_lane(context, warp, Kind::UninitialisedStore, pc, "write", tainted, || {
                "uninitialised value used by an atomic".into()
            });
        }
        let mut old = [u64::MAX; LANES];
        self.for_each_target(context, warp, active, &atom.addr, usage, |block, warp, target| {
            match target.space {
                Space::Shared => block.shadow_shared(context, warp, target, usage, 0),
                Space::Local | Space::Param => {
                    block.report_lane(context, warp, Kind::OutOfBounds, pc, "write", target.lanes, || {
                        "atomic on local or parameter memory".into()
                    });
                    return;
                }
                _ => block.shadow_global(context, warp, target, usage, 0),
            }
            block.before_write(context, target, atom.bytes);
            block.note_first(context, target, atom.bytes);
            let changed = block.atom_lanes(context, warp, pc, target, atom, &a, &b, &mut old);
            if atom.op != AtomOp::Exch {
                block.check_first(context, warp, target, pc);
            }
            block.synchronise(context, warp, target, true, true, atom.order);
            if changed {
                block.progressed_in(context, target.space);
            }
        });
        if let Some(dst) = atom.dst {
            self.set_slot(warp, dst, active, |l| old[l]);
        }
        Flow::Next
    }

    /// Applies the operation for each lane; true if any value changed.
    #[expect(clippy::too_many_arguments, reason = "operands of one atomic")]
    fn atom_lanes(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        pc: usize,
        target: &Target,
        atom: &Atom,
        a: &[u64; LANES],
        b: &[u64; LANES],
        old: &mut [u64; LANES],
    ) -> bool {
        let mut changed = false;
        let mut undefined = 0;
        each_lane(target.lanes, |l| {
            let new = |old: u64| {
                if target.space == Space::Shared {
                    return combine(atom.op, atom.bytes, old, a[l], b[l]);
                }
                combine_global(atom.op, atom.bytes, old, a[l], b[l])
            };
            if target.space == Space::Shared {
                let at = target.at[l] as u32;
                undefined |= u32::from(!self.shared.is_defined(at, atom.bytes)) << l;
                old[l] = self.shared.load(at, atom.bytes);
                self.shared.store(at, atom.bytes, new(old[l]));
                self.shared.define(at, atom.bytes, true);
            } else {
                let allocation = context.memory.at(target.allocation[l] as usize);
                let at = target.at[l] - allocation.base;
                undefined |= u32::from(!allocation.is_defined(at, atom.bytes)) << l;
                old[l] = update(allocation, at, atom.bytes, new);
                allocation.define(at, atom.bytes);
            }
            changed |= new(old[l]) != old[l];
        });
        if undefined != 0 && context.launch.checks.uninitialised && atom.op != AtomOp::Exch {
            self.report_lane(context, warp, Kind::UninitialisedStore, pc, "read", undefined, || {
                "atomic on uninitialised memory".into()
            });
        }
        changed
    }
}

/// Changes an element in one step; what was there.
fn update(allocation: &Allocation, at: u64, bytes: u32, new: impl Fn(u64) -> u64) -> u64 {
    match bytes {
        8 => allocation.update64(at, new),
        4 => u64::from(allocation.update32(at, |v| new(u64::from(v)) as u32)),
        _ => update16(allocation, at, new),
    }
}

/// 16-bit update inside a 32-bit word.
fn update16(allocation: &Allocation, at: u64, new: impl Fn(u64) -> u64) -> u64 {
    let shift = 8 * (at & 2) as u32;
    let old = allocation.update32(at & !3, |word| {
        let half = u64::from(word >> shift & 0xffff);
        (word & !(0xffff << shift)) | (new(half) as u32 & 0xffff) << shift
    });
    u64::from(old >> shift & 0xffff)
}
