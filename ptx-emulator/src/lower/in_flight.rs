//! Registers of products that may be in flight.
//!
//! A product of a warpgroup reads and writes registers until a wait. Found here, by the flow of the program: which
//! accumulators a wait may end the flight of, so that no other register takes their rows before; which instructions may
//! touch a register in flight, before which a [`Held`] then looks whether it is; and which products use a register that
//! was touched without a `wgmma.fence` in between.
//!
//! A move only passes on what a register holds. One that an accumulator in flight was moved to is in flight as well,
//! and one that was moved to after a fence counts as touched if what it was moved from was: nvcc puts such moves
//! between fence and product, and at the end of loops whose wait is at the start of the next round. Its assembler
//! sees through them: the machine code is that without the moves, or waits earlier where they cannot be left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::isa::engines::{BulkWay, Engines, FactorA, Held, TensorWay};
use crate::isa::op::{Inst, NO_GUARD, Op};
use crate::isa::reads_writes::{moved, visit};
use crate::isa::slot::{Class, Role};
use crate::program::{Origin, Program};

/// The engines that a program makes use of.
pub(super) fn engines(program: &Program) -> Engines {
    let mut engines = Engines::default();
    for inst in &program.insts {
        match &inst.op {
            Op::Wgmma(_) => engines.tensor = true,
            Op::Bulk(copy) => match copy.way {
                BulkWay::Send { .. } => engines.groups = true,
                BulkWay::Fetch { multicast, .. } => {
                    engines.copies = true;
                    engines.cluster |= multicast.is_some();
                }
                BulkWay::Pass { .. } => (engines.copies, engines.groups, engines.cluster) = (true, true, true),
            },
            Op::Tensor(copy) => match &copy.way {
                TensorWay::Store { .. } => engines.groups = true,
                TensorWay::Load { multicast, .. } => {
                    engines.copies = true;
                    engines.cluster |= multicast.is_some();
                }
            },
            Op::Cluster(_) => engines.cluster = true,
            _ => {}
        }
    }
    engines
}

/// A set of the registers of products, by their number here.
type Set = Vec<u64>;

fn insert(set: &mut Set, at: usize) {
    set[at / 64] |= 1 << (at % 64);
}

fn contains(set: &Set, at: usize) -> bool {
    set[at / 64] >> (at % 64) & 1 == 1
}

fn join(into: &mut Set, from: &Set) -> bool {
    let mut changed = false;
    for (into, from) in into.iter_mut().zip(from) {
        changed |= from & !*into != 0;
        *into |= from;
    }
    changed
}

/// What may be true before an instruction.
#[derive(Clone)]
struct Flight {
    /// Accumulators of products that no wait has ended, and what they were moved to.
    sums: Set,
    /// First factors of such products.
    factors: Set,
    /// Registers touched since the last `wgmma.fence`.
    touched: Set,
}

impl Flight {
    fn join(&mut self, other: &Flight) -> bool {
        let sums = join(&mut self.sums, &other.sums);
        let factors = join(&mut self.factors, &other.factors);
        join(&mut self.touched, &other.touched) | sums | factors
    }
}

/// The registers of products and their numbers.
struct Registers {
    number: BTreeMap<u16, usize>,
    rows: Vec<u16>,
    is_sum: Set,
    words: usize,
}

impl Registers {
    fn of(insts: &mut [Inst]) -> Registers {
        let mut number = BTreeMap::new();
        let mut rows = Vec::new();
        let mut add = |row: u16| {
            number.entry(row).or_insert_with(|| {
                rows.push(row);
                rows.len() - 1
            });
        };
        for inst in insts.iter() {
            if let Op::Wgmma(wgmma) = &inst.op {
                wgmma.d.iter().copied().for_each(&mut add);
                factor_rows(&wgmma.a).iter().copied().for_each(&mut add);
            }
        }
        let mut sums = BTreeSet::new();
        for inst in insts.iter() {
            if let Op::Wgmma(wgmma) = &inst.op {
                sums.extend(wgmma.d.iter().copied());
            }
        }
        passed_on(insts, &sums).into_iter().for_each(&mut add);
        let words = rows.len().div_ceil(64);
        let mut is_sum = vec![0; words];
        sums.iter().for_each(|row| insert(&mut is_sum, number[row]));
        Registers { number, rows, is_sum, words }
    }

    fn members(&self, set: &Set) -> Vec<u16> {
        (0..self.rows.len()).filter(|&at| contains(set, at)).map(|at| self.rows[at]).collect()
    }
}

/// Registers that accumulators are moved to, and those that registers of products are moved from, but for constants.
fn passed_on(insts: &mut [Inst], sums: &BTreeSet<u16>) -> BTreeSet<u16> {
    let (mut written, mut ends) = (BTreeSet::new(), sums.clone());
    for inst in insts.iter_mut() {
        if let Op::Wgmma(wgmma) = &inst.op {
            ends.extend(factor_rows(&wgmma.a));
        }
        visit(&mut inst.op, &mut |class, row, role| {
            if class == Class::W && matches!(role, Role::Write | Role::WriteSome) {
                written.insert(*row);
            }
        });
    }
    let moves: Vec<(u16, u16)> = insts.iter().filter_map(|inst| moved(&inst.op)).collect();
    let mut starts = sums.clone();
    while moves.iter().fold(false, |more, (to, from)| more | (starts.contains(from) && starts.insert(*to))) {}
    let feeds = |from: &u16| written.contains(from);
    while moves.iter().fold(false, |more, (to, from)| more | (ends.contains(to) && feeds(from) && ends.insert(*from))) {
    }
    starts.extend(ends);
    starts
}

fn factor_rows(a: &FactorA) -> &[u16] {
    match a {
        FactorA::Registers(rows) => rows,
        FactorA::Shared(_) => &[],
    }
}

/// What is found about one instruction.
#[derive(Default)]
struct Found {
    held: Held,
    waits_for: Vec<u16>,
    /// A register of a product that was touched without a fence.
    unfenced: Option<u16>,
}

/// Applies an instruction to what may be true before it.
fn step(op: &mut Op, at: &mut Flight, registers: &Registers) -> Found {
    let mut found = Found::default();
    match op {
        Op::WgmmaFence => at.touched.fill(0),
        Op::WgmmaWait { pending, .. } => {
            found.waits_for = registers.members(&at.sums);
            if *pending == 0 {
                at.sums.fill(0);
                at.factors.fill(0);
            }
        }
        Op::Wgmma(wgmma) => {
            let own = wgmma.d.iter().chain(factor_rows(&wgmma.a));
            found.unfenced = own.copied().find(|row| contains(&at.touched, registers.number[row]));
            wgmma.d.iter().for_each(|row| insert(&mut at.sums, registers.number[row]));
            factor_rows(&wgmma.a).iter().for_each(|row| insert(&mut at.factors, registers.number[row]));
        }
        other => {
            let number = |row| registers.number.get(&row).copied();
            let moved = moved(other).and_then(|(to, from)| Some((number(to)?, number(from)?)));
            visit(other, &mut |class, row, role| {
                let Some(&number) = registers.number.get(row).filter(|_| class == Class::W) else { return };
                let writes = matches!(role, Role::Write | Role::WriteSome);
                if writes && (contains(&at.sums, number) || contains(&at.factors, number)) {
                    found.held.writes.push(*row);
                } else if !writes && contains(&at.sums, number) {
                    found.held.reads.push(*row);
                }
                if moved.is_none() && (writes || contains(&registers.is_sum, number)) {
                    insert(&mut at.touched, number);
                }
            });
            if let Some((to, from)) = moved {
                if contains(&at.touched, from) {
                    insert(&mut at.touched, to);
                }
                if contains(&at.sums, from) {
                    found.held.moves = true;
                    insert(&mut at.sums, to);
                }
            }
        }
    }
    found
}

/// The places that may come after an instruction.
fn next(insts: &[Inst], at: usize) -> [Option<usize>; 2] {
    let inst = &insts[at];
    let goes_on = inst.guard != NO_GUARD || !matches!(inst.op, Op::Bra { .. } | Op::Exit | Op::Trap);
    let jump = match inst.op {
        Op::Bra { target } => Some(target as usize),
        _ => None,
    };
    [jump, goes_on.then_some(at + 1)].map(|next| next.filter(|&next| next < insts.len()))
}

/// What may be true before each instruction that begins a straight run, and which do.
fn flow(insts: &mut [Inst], registers: &Registers) -> (BTreeMap<usize, Flight>, Vec<bool>) {
    let empty = vec![0; registers.words];
    let start = Flight { sums: empty.clone(), factors: empty, touched: vec![u64::MAX; registers.words] };
    let mut begins = vec![false; insts.len()];
    for at in 0..insts.len() {
        if matches!(insts[at].op, Op::Bra { .. } | Op::Exit) {
            next(insts, at).into_iter().flatten().for_each(|next| begins[next] = true);
        }
    }
    let mut before = BTreeMap::from([(0, start)]);
    let mut open = vec![0];
    while let Some(first) = open.pop() {
        let mut state = before[&first].clone();
        let last = walk(insts, first, &begins, |op, _| drop(step(op, &mut state, registers)));
        for next in next(insts, last).into_iter().flatten() {
            let changed = match before.get_mut(&next) {
                Some(known) => known.join(&state),
                None => before.insert(next, state.clone()).is_none(),
            };
            if changed && !open.contains(&next) {
                open.push(next);
            }
        }
    }
    (before, begins)
}

/// Calls `act` with every instruction of a straight run; returns the last.
fn walk(insts: &mut [Inst], first: usize, begins: &[bool], mut act: impl FnMut(&mut Op, usize)) -> usize {
    let mut at = first;
    loop {
        act(&mut insts[at].op, at);
        match next(insts, at) {
            [None, Some(next)] if !begins[next] => at = next,
            _ => return at,
        }
    }
}

/// Completes waits and products, and puts a [`Held`] before whatever may touch a register in flight.
pub(super) fn mark(program: &mut Program) {
    if !program.engines.tensor {
        return;
    }
    let registers = Registers::of(&mut program.insts);
    let (before, begins) = flow(&mut program.insts, &registers);
    let (mut held, mut unfenced) = (BTreeMap::new(), Vec::new());
    for (first, mut state) in before {
        walk(&mut program.insts, first, &begins, |op, at| {
            let found = step(op, &mut state, &registers);
            unfenced.extend(found.unfenced.map(|row| (at, row)));
            if let Op::WgmmaWait { rows, .. } = op {
                *rows = found.waits_for;
            } else if !found.held.reads.is_empty() || !found.held.writes.is_empty() {
                held.insert(at, found.held);
            }
        });
    }
    for (at, row) in unfenced {
        let culprit = last_access(&mut program.insts, at, row);
        if let Op::Wgmma(wgmma) = &mut program.insts[at].op {
            wgmma.unfenced = Some(culprit);
        }
    }
    insert_held(program, &mut held);
}

/// The instruction before `at` in the text that touches a register last; `at` itself if there is none.
fn last_access(insts: &mut [Inst], at: usize, row: u16) -> u32 {
    let touches = |op: &mut Op| {
        let mut found = false;
        if !matches!(op, Op::Wgmma(_) | Op::WgmmaWait { .. }) {
            visit(op, &mut |class, own, _| found |= class == Class::W && *own == row);
        }
        found
    };
    (0..at).rev().find(|&before| touches(&mut insts[before].op)).unwrap_or(at) as u32
}

/// Puts each in front of its instruction; branches to that lead to what is in front.
fn insert_held(program: &mut Program, held: &mut BTreeMap<usize, Held>) {
    if held.is_empty() {
        return;
    }
    let old = std::mem::take(&mut program.insts);
    let (mut origins, mut texts) = (Vec::new(), Vec::new());
    // Where an instruction was, and where it, or what is in front of it, is now.
    let mut moved = Vec::with_capacity(old.len());
    for (at, inst) in old.into_iter().enumerate() {
        moved.push(program.insts.len());
        if let Some(held) = held.remove(&at) {
            program.insts.push(Inst { op: Op::Held(Box::new(held)), guard: inst.guard });
            origins.push(Origin { leads: false, ..program.origins[at] });
            texts.push(program.texts[at]);
        }
        program.insts.push(inst);
        origins.push(program.origins[at]);
        texts.push(program.texts[at]);
    }
    for inst in &mut program.insts {
        match &mut inst.op {
            Op::Bra { target } => *target = moved[*target as usize] as u32,
            Op::Wgmma(wgmma) => wgmma.unfenced = wgmma.unfenced.map(|at| moved[at as usize] as u32),
            _ => {}
        }
    }
    (program.origins, program.texts) = (origins, texts);
}
