//! Rows shared between registers that are never needed at the same time.
//!
//! Compilers write PTX with a new register for almost every value, and a row is 128 or 256 bytes: with a row for each,
//! a warp does not fit the first cache of the host. Here a register keeps a row of its own from the first to the last
//! instruction between which any lane may need it. What may be read before it was written is needed from the start,
//! so that an undefined register is still seen to be undefined.

use std::collections::BTreeMap;

use crate::isa::op::{NO_GUARD, Op};
use crate::isa::reads_writes::visit;
use crate::isa::slot::{Class, Role};
use crate::program::Program;

/// Most words of liveness (blocks times rows) for which the analysis is worth its time.
const MAX_WORDS: usize = 1 << 24;

/// A set of registers.
type Set = Vec<u64>;

fn insert(set: &mut Set, at: usize) {
    set[at / 64] |= 1 << (at % 64);
}

fn contains(set: &Set, at: usize) -> bool {
    set[at / 64] >> (at % 64) & 1 == 1
}

fn members(set: &Set) -> impl Iterator<Item = usize> {
    set.iter()
        .enumerate()
        .flat_map(|(i, &word)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |b| 64 * i + b))
}

/// Instructions without a branch in or out.
struct Straight {
    first: usize,
    last: usize,
    next: Vec<usize>,
    /// Registers read before they are replaced.
    read: Set,
    replaced: Set,
    /// Registers needed at the start and at the end.
    before: Set,
    after: Set,
}

/// First and last instruction of each register's need.
type Spans = Vec<Option<(usize, usize)>>;

struct Rows<'a> {
    program: &'a mut Program,
    w_rows: usize,
    all: usize,
}

/// Gives registers that are never needed at the same time the same row.
pub(super) fn share(program: &mut Program) {
    let (w_rows, all) = (program.w_rows, program.w_rows + program.d_rows);
    let mut rows = Rows { program, w_rows, all };
    let Some(mut blocks) = rows.blocks() else { return };
    flow(&mut blocks);
    let spans = rows.spans(&blocks);
    rows.assign(&spans);
}

impl Rows<'_> {
    fn index(&self, class: Class, row: u16) -> Option<usize> {
        match class {
            Class::W => Some(usize::from(row)),
            Class::D => Some(self.w_rows + usize::from(row)),
            Class::P => None,
        }
    }

    /// Calls `act` with every register of an instruction.
    fn each(&mut self, at: usize, mut act: impl FnMut(usize, Role)) {
        let w_rows = self.w_rows;
        visit(&mut self.program.insts[at].op, &mut |class, row, role| match class {
            Class::W => act(usize::from(*row), role),
            Class::D => act(w_rows + usize::from(*row), role),
            Class::P => {}
        });
    }

    /// The flow graph; none if it is too large to look at.
    fn blocks(&mut self) -> Option<Vec<Straight>> {
        let count = self.program.insts.len();
        let mut starts = vec![false; count];
        for (at, inst) in self.program.insts.iter().enumerate() {
            if let Op::Bra { target } = inst.op {
                *starts.get_mut(target as usize)? = true;
            }
            if matches!(inst.op, Op::Bra { .. } | Op::Exit) && at + 1 < count {
                starts[at + 1] = true;
            }
        }
        *starts.first_mut()? = true;
        let firsts: Vec<usize> = (0..count).filter(|&at| starts[at]).collect();
        let words = self.all.div_ceil(64);
        if words * firsts.len() > MAX_WORDS {
            return None;
        }
        let number: BTreeMap<usize, usize> = firsts.iter().enumerate().map(|(i, &at)| (at, i)).collect();
        let mut blocks = Vec::with_capacity(firsts.len());
        for (i, &first) in firsts.iter().enumerate() {
            let last = firsts.get(i + 1).map_or(count, |&next| next) - 1;
            let inst = &self.program.insts[last];
            let goes_on = inst.guard != NO_GUARD || !matches!(inst.op, Op::Bra { .. } | Op::Exit);
            let mut next = Vec::new();
            if let Op::Bra { target } = inst.op {
                next.push(number[&(target as usize)]);
            }
            if goes_on && last + 1 < count {
                next.push(i + 1);
            }
            let empty = || vec![0; words];
            let (read, replaced, before, after) = (empty(), empty(), empty(), empty());
            let mut block = Straight { first, last, next, read, replaced, before, after };
            for at in first..=last {
                self.add(at, &mut block);
            }
            blocks.push(block);
        }
        Some(blocks)
    }

    /// Adds an instruction to the end of what a block reads and replaces.
    fn add(&mut self, at: usize, block: &mut Straight) {
        let guarded = self.program.insts[at].guard != NO_GUARD;
        self.each(at, |reg, role| {
            if matches!(role, Role::Read | Role::ReadResult) && !contains(&block.replaced, reg) {
                insert(&mut block.read, reg);
            }
        });
        self.each(at, |reg, role| {
            // Lanes whose guard is false keep what they had.
            if role == Role::Write && !guarded {
                insert(&mut block.replaced, reg);
            }
        });
    }

    fn spans(&mut self, blocks: &[Straight]) -> Spans {
        let mut spans: Spans = vec![None; self.all];
        let mut needed = |reg: usize, at: usize| {
            let span = spans[reg].get_or_insert((at, at));
            *span = (span.0.min(at), span.1.max(at));
        };
        for block in blocks {
            members(&block.before).for_each(|reg| needed(reg, block.first));
            members(&block.after).for_each(|reg| needed(reg, block.last));
            for at in block.first..=block.last {
                self.each(at, |reg, _| needed(reg, at));
            }
        }
        // Filled when a warp starts and never written: rows of their own.
        for at in 0..self.program.inits.len() {
            let (slot, _) = self.program.inits[at];
            if let Some(reg) = self.index(slot.class, slot.row) {
                spans[reg] = Some((0, usize::MAX));
            }
        }
        spans
    }

    /// Hands out rows in the order of the first need, the one given back last before all others.
    fn assign(&mut self, spans: &Spans) {
        let mut order: Vec<(usize, usize, usize)> =
            spans.iter().enumerate().filter_map(|(reg, span)| span.map(|(first, last)| (first, last, reg))).collect();
        // Constants first: they stay together.
        order.sort_unstable_by_key(|&(first, last, reg)| (first, last != usize::MAX, reg));
        let mut rows = vec![0u16; self.all];
        let mut used = [0usize; 2];
        let mut free: [Vec<u16>; 2] = [Vec::new(), Vec::new()];
        let mut ends: BTreeMap<(usize, usize), ()> = BTreeMap::new();
        for (first, last, reg) in order {
            while let Some((&(end, old), ())) = ends.first_key_value()
                && end < first
            {
                ends.pop_first();
                free[usize::from(old >= self.w_rows)].push(rows[old]);
            }
            let class = usize::from(reg >= self.w_rows);
            rows[reg] = free[class].pop().unwrap_or_else(|| {
                used[class] += 1;
                (used[class] - 1) as u16
            });
            ends.insert((last, reg), ());
        }
        let w_rows = self.w_rows;
        let renamed = |class: Class, row: u16| match class {
            Class::W => rows[usize::from(row)],
            Class::D => rows[w_rows + usize::from(row)],
            Class::P => row,
        };
        for inst in &mut self.program.insts {
            visit(&mut inst.op, &mut |class, row, role| {
                if role != Role::ReadResult {
                    *row = renamed(class, *row);
                }
            });
        }
        for (slot, _) in &mut self.program.inits {
            slot.row = renamed(slot.class, slot.row);
        }
        (self.program.w_rows, self.program.d_rows) = (used[0], used[1]);
    }
}

/// Spreads need backward until nothing changes.
fn flow(blocks: &mut [Straight]) {
    let mut changed = true;
    while changed {
        changed = false;
        for i in (0..blocks.len()).rev() {
            let mut after = std::mem::take(&mut blocks[i].after);
            for &next in &blocks[i].next {
                for (to, from) in after.iter_mut().zip(&blocks[next].before) {
                    *to |= from;
                }
            }
            let block = &mut blocks[i];
            for (at, before) in block.before.iter_mut().enumerate() {
                let now = block.read[at] | (after[at] & !block.replaced[at]);
                changed |= now != *before;
                *before = now;
            }
            block.after = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Kernel, Kind, Launch, Memory, Module, Outcome, Params, run};

    /// Runs 32 threads of a kernel whose body may use `%r<32>`, `%p<4>`, `%rd2` as its thread's place in the output.
    fn execute(body: &str) -> (Kernel, Outcome, Vec<u32>) {
        let source = format!(
            ".version 9.0
            .target sm_89
            .address_size 64
            .visible .entry probe(.param .u64 out)
            {{
                .reg .b32 %r<32>;
                .reg .b64 %rd<4>;
                .reg .pred %p<4>;
                ld.param.u64 %rd1, [out];
                mov.u32 %r0, %tid.x;
                mul.wide.u32 %rd2, %r0, 4;
                add.s64 %rd2, %rd1, %rd2;
                {body}
                ret;
            }}"
        );
        let module = Module::parse(&source).expect("the source is well formed");
        let kernel = module.entry("probe").expect("the kernel can be executed");
        let mut memory = Memory::new(&module);
        let out = memory.alloc("out", 128).expect("a small buffer");
        let launch = Launch::new([1, 1, 1], [32, 1, 1], Params::new().pointer(out).finish());
        let outcome = run(&kernel, &memory, &launch).expect("the launch is possible");
        let words = memory.read(out).expect("the buffer exists");
        let words = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        (kernel, outcome, words)
    }

    #[test]
    fn values_that_follow_one_another_share_rows() {
        let steps: String = (1..30).map(|i| format!("add.u32 %r{i}, %r{}, %r0;\n", i - 1)).collect();
        let (kernel, outcome, words) = execute(&format!("{steps} st.global.u32 [%rd2], %r29;"));
        assert!(outcome.is_clean());
        assert!((0..32).all(|l| words[l] == 30 * l as u32));
        // Two for the sums, one for the thread, its special register and the constant 4.
        assert_eq!(kernel.registers().0, 5);
    }

    #[test]
    fn what_a_loop_carries_keeps_its_row() {
        // Register 1 is read only at the top of the loop, where the values of the trip before are long dead.
        let (_, outcome, words) = execute(
            "add.u32 %r1, %r0, 100;
            mov.u32 %r2, 0;
            mov.u32 %r3, 0;
            again:
            add.u32 %r4, %r1, %r2;
            add.u32 %r5, %r4, 1;
            add.u32 %r6, %r5, 1;
            add.u32 %r3, %r3, %r6;
            add.u32 %r2, %r2, 1;
            setp.le.u32 %p1, %r2, %r0;
            @%p1 bra again;
            st.global.u32 [%rd2], %r3;",
        );
        assert!(outcome.is_clean());
        let wanted = |l: u32| (0..=l).map(|i| l + 102 + i).sum::<u32>();
        assert!((0..32).all(|l| words[l as usize] == wanted(l)), "{words:?}");
    }

    #[test]
    fn an_undefined_value_is_found_where_others_ended() {
        // Lanes from 8 on never write register 9, long after registers 1 to 3 are dead.
        let (_, outcome, words) = execute(
            "add.u32 %r1, %r0, 1;
            add.u32 %r2, %r1, 1;
            add.u32 %r3, %r2, 1;
            st.global.u32 [%rd2], %r3;
            setp.lt.u32 %p1, %r0, 8;
            @%p1 mov.u32 %r9, 7;
            st.global.u32 [%rd2], %r9;",
        );
        let found: Vec<Kind> = outcome.findings.iter().map(|f| f.kind).collect();
        assert_eq!(found, [Kind::UninitialisedStore]);
        assert_eq!(words[..8], [7; 8]);
        assert_eq!(words[8..], [u32::MAX; 24], "no value of another register");
    }

    #[test]
    fn a_guard_keeps_what_the_other_lanes_had() {
        let (_, outcome, words) = execute(
            "add.u32 %r1, %r0, 1000;
            setp.lt.u32 %p1, %r0, 8;
            add.u32 %r2, %r0, 1;
            @%p1 mov.u32 %r1, 5;
            add.u32 %r3, %r2, 2;
            add.u32 %r4, %r3, %r1;
            st.global.u32 [%rd2], %r4;",
        );
        assert!(outcome.is_clean());
        let wanted = |l: u32| l + 3 + if l < 8 { 5 } else { l + 1000 };
        assert!((0..32).all(|l| words[l as usize] == wanted(l)), "{words:?}");
    }
}
