//! Every row operation computes the same bits in plain Rust as with each instruction set of this
//! machine, with taint as without.

use crate::exec::run::rows::{run_checked, run_plain};
use crate::isa::alu_table::{AluInst, AluOp};
use crate::isa::op::{Inst, NO_GUARD, Op};
use crate::machine::regs::{FULL, LANES, Regs, Row, Row64};
use crate::machine::simd::Level;

/// Values that formulas treat apart: zeros, ones, limits, subnormals, infinities and NaN of every
/// float format.
const SPECIAL: [u64; 24] = [
    0,
    1,
    0x7f,
    0x80,
    0x03ff,
    0x7c00,
    0x7c01,
    0xfe00,
    0x8000_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x0000_0001_0000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x007f_ffff,
    0x8000_0001,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_1234,
    0x4b00_0000,
    0x3ff0_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Registers 0 to 3 of every class, filled from `seed`.
fn registers(seed: u64) -> Regs {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = state ^ state >> 29;
        match value % 5 {
            0 => SPECIAL[(value >> 8) as usize % SPECIAL.len()],
            1 => value & 0x3f,
            _ => value,
        }
    };
    let mut regs = Regs {
        w: vec![Row([0; LANES]); 4],
        d: vec![Row64([0; LANES]); 4],
        p: (0..4).map(|_| next() as u32).collect(),
        tw: (0..4).map(|_| next() as u32).collect(),
        td: (0..4).map(|_| next() as u32).collect(),
        tp: (0..4).map(|_| next() as u32).collect(),
    };
    regs.w.iter_mut().flat_map(|row| &mut row.0).for_each(|value| *value = next() as u32);
    regs.d.iter_mut().flat_map(|row| &mut row.0).for_each(|value| *value = next());
    regs
}

fn values(regs: &Regs) -> (Vec<u32>, Vec<u64>, Vec<u32>) {
    let w = regs.w.iter().flat_map(|row| row.0).collect();
    (w, regs.d.iter().flat_map(|row| row.0).collect(), regs.p.clone())
}

#[test]
fn every_row_operation_is_the_same_at_every_level() {
    // Small immediates select roundings and classes; with a width above them, conversions.
    let immediates = [0u16, 1, 2, 3, 5, 0x200c, 0x2013, 0x1030, 0x403e, 0x0801];
    for (number, &op) in AluOp::ALL.iter().enumerate() {
        for (round, x) in immediates.into_iter().enumerate() {
            // These need a width that is not 0.
            let has_width = matches!(op, AluOp::ClampIntW | AluOp::ClampIntD | AluOp::F64ToIntW | AluOp::F64ToIntD);
            let x = if has_width && x < 0x100 { x | 0x2000 } else { x };
            let inst = Inst { op: Op::Alu(AluInst { op, d: 0, a: 1, b: 2, c: 3, x }), guard: NO_GUARD };
            let mask = [FULL, 0x00ff_f0f1][round % 2];
            let before = registers((number * 100 + round) as u64);
            let mut plain = before.clone();
            run_plain(Level::base(), &mut plain, std::slice::from_ref(&inst), 0, usize::MAX, mask);
            let mut checked = before.clone();
            run_checked(Level::base(), &mut checked, std::slice::from_ref(&inst), 0, usize::MAX, mask);
            assert_eq!(values(&checked), values(&plain), "{op:?} x {x:#x}, taint changed a value");
            for level in Level::all() {
                let mut other = before.clone();
                run_plain(level, &mut other, std::slice::from_ref(&inst), 0, usize::MAX, mask);
                assert_eq!(values(&other), values(&plain), "{op:?} x {x:#x}, {level:?}");
                let mut other = before.clone();
                run_checked(level, &mut other, std::slice::from_ref(&inst), 0, usize::MAX, mask);
                assert_eq!(values(&other), values(&plain), "{op:?} x {x:#x}, {level:?} with taint");
                let taint = |r: &Regs| (r.tw.clone(), r.td.clone(), r.tp.clone());
                assert_eq!(taint(&other), taint(&checked), "{op:?} x {x:#x}, {level:?}");
            }
        }
    }
}
