//! Every row operation computes the same bits in plain Rust as with each instruction set of this
//! machine, with taint as without.

use crate::exec::run::rows::{run_checked, run_plain};
use crate::isa::alu_table::{AluInst, AluOp};
use crate::isa::op::{Inst, NO_GUARD, Op};
use crate::isa::slot::{Class, Slot};
use crate::machine::regs::{DEFINED, FULL, LANES, Regs};
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

/// Numbers that often are those that formulas treat apart.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = self.0 ^ self.0 >> 29;
        match value % 5 {
            0 => SPECIAL[(value >> 8) as usize % SPECIAL.len()],
            1 => value & 0x3f,
            _ => value,
        }
    }

    /// Undefined bits: most often none, all, or some bytes.
    fn bits(&mut self) -> u64 {
        let spread = |flags: u64| (0..8).fold(0, |out, i| out | ((flags >> i & 1) * 0xff) << (8 * i));
        match self.next() % 4 {
            0 => 0,
            1 => u64::MAX,
            2 => spread(self.next()),
            _ => self.next(),
        }
    }
}

const CLASSES: [Class; 3] = [Class::W, Class::D, Class::P];

/// Registers 0 to 3 of every class, filled from `seed`, in part undefined.
fn registers(seed: u64) -> Regs {
    let mut numbers = Numbers(seed);
    let mut regs = Regs::undefined(4, 4, 4, true);
    regs.p.iter_mut().for_each(|bits| *bits = numbers.next() as u32);
    regs.w.iter_mut().flat_map(|row| &mut row.0).for_each(|value| *value = numbers.next() as u32);
    regs.d.iter_mut().flat_map(|row| &mut row.0).for_each(|value| *value = numbers.next());
    for row in 0..4 {
        // Amounts and selectors are most often defined.
        let defined = row > 1 && !numbers.next().is_multiple_of(3);
        for class in CLASSES {
            let bits = std::array::from_fn(|_| if defined { 0 } else { numbers.bits() });
            regs.set_unknown(Slot { class, row }, &bits, FULL);
        }
    }
    regs
}

/// The same registers with another choice of what is undefined.
fn another_choice(regs: &Regs, numbers: &mut Numbers) -> Regs {
    let mut other = regs.clone();
    for row in 0..4 {
        for class in CLASSES {
            let unknown = regs.unknown(Slot { class, row });
            for (l, bits) in unknown.into_iter().enumerate() {
                let turned = bits & numbers.bits();
                match class {
                    Class::W => other.w[usize::from(row)].0[l] ^= turned as u32,
                    Class::D => other.d[usize::from(row)].0[l] ^= turned,
                    Class::P => other.p[usize::from(row)] ^= (turned as u32 & 1) << l,
                }
            }
        }
    }
    other
}

fn values(regs: &Regs) -> (Vec<u32>, Vec<u64>, Vec<u32>) {
    let w = regs.w.iter().flat_map(|row| row.0).collect();
    (w, regs.d.iter().flat_map(|row| row.0).collect(), regs.p.clone())
}

/// The value of row 0 of a class, lane by lane.
fn result(regs: &Regs, class: Class) -> [u64; LANES] {
    match class {
        Class::W => regs.w[0].0.map(u64::from),
        Class::D => regs.d[0].0,
        Class::P => std::array::from_fn(|l| u64::from(regs.p[0] >> l & 1)),
    }
}

/// An operation whose result is row 0, with those of its sources that it has.
fn instruction(op: AluOp, rows: [u16; 3], x: u16) -> AluInst {
    let sources = op.rows().sources;
    let [a, b, c] = std::array::from_fn(|i| if sources[i] == DEFINED { 0 } else { rows[i] });
    AluInst { op, d: 0, a, b, c, x }
}

#[test]
fn a_bit_that_counts_as_defined_does_not_depend_on_undefined_ones() {
    let immediates = [0u16, 1, 2, 3, 5, 0x96, 0xea, 0x200c, 0x2013, 0x1030];
    for (number, &op) in AluOp::ALL.iter().enumerate() {
        for round in 0..40 {
            let x = immediates[round % immediates.len()];
            let has_width = matches!(op, AluOp::ClampIntW | AluOp::ClampIntD | AluOp::F64ToIntW | AluOp::F64ToIntD);
            let x = if has_width && x < 0x100 { x | 0x2000 } else { x };
            // Now and then both sources are one register, and the operation has a guard that is not defined.
            let b = if round % 7 == 0 { 1 } else { 2 };
            let guard = if round % 3 == 0 { 2 * 3 } else { NO_GUARD };
            let inst = Inst { op: Op::Alu(instruction(op, [1, b, 3], x)), guard };
            let before = registers((number * 1000 + round) as u64);
            let mut checked = before.clone();
            run_checked(Level::detect(), &mut checked, std::slice::from_ref(&inst), 0, usize::MAX, FULL);
            let class = op.result();
            let unknown = checked.unknown(Slot { class, row: 0 });
            let mut numbers = Numbers(round as u64);
            for _ in 0..8 {
                let mut other = another_choice(&before, &mut numbers);
                run_plain(Level::detect(), &mut other, std::slice::from_ref(&inst), 0, usize::MAX, FULL);
                let (a, b) = (result(&checked, class), result(&other, class));
                for l in 0..LANES {
                    let changed = (a[l] ^ b[l]) & !unknown[l];
                    assert_eq!(changed, 0, "{op:?} x {x:#x} lane {l}: {:#x}, {:#x} of {:#x}", a[l], b[l], unknown[l]);
                }
            }
        }
    }
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
            let inst = Inst { op: Op::Alu(instruction(op, [1, 2, 3], x)), guard: NO_GUARD };
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
                let unknown = |r: &Regs| CLASSES.map(|class| r.unknown(Slot { class, row: 0 }));
                assert_eq!(unknown(&other), unknown(&checked), "{op:?} x {x:#x}, {level:?}");
            }
        }
    }
}
