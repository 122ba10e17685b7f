//! Products of a warpgroup: each warp multiplies its 16 rows, the result is its own only after a wait.
//!
//! The values are computed when the instruction is issued, and appear in the registers when a wait ends the group;
//! until then these hold poison. A product added to one in flight takes up where that left off. What is read of shared
//! memory is read by the tensor core as it works for the warp, from the issue until the warp's own wait.

use crate::check::clock::Epoch;
use crate::exec::run::block::{Block, Context};
use crate::exec::run::step::Flow;
use crate::exec::run::warp::{OpenProduct, State, Warp};
use crate::isa::engines::{FactorA as Source, Held, WARPGROUP_ROWS, Wgmma};
use crate::isa::op::{Acc, Elem, Inst, Op};
use crate::isa::reads_writes::moved;
use crate::launch::MmaModel;
use crate::machine::regs::{FULL, LANES, d, w};
use crate::num::float::canon;
use crate::num::small::{f16_to_f32, f32_to_f16};
use crate::report::{Kind, RawSite, Severity};
use crate::tensor::layout;
use crate::tensor::sum::{Aligned, FactorA, M, N, NORMALISED, Tile};
use crate::tensor::warpgroup::{CHUNK, Descriptor, Encoding, FactorRow, ROW_BYTES, decode, integer_product, product};

/// Warps of a warpgroup.
const WARPS: usize = WARPGROUP_ROWS / M;

/// Rows of a factor, and which of them are not wholly defined.
struct Gathered {
    rows: Vec<FactorRow>,
    undefined: Vec<bool>,
}

/// The rows of 32-bit values of an accumulator.
type Sums = Vec<[u32; LANES]>;

impl Block {
    pub(crate) fn wgmma(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        op: &Wgmma,
    ) -> Flow {
        if let Some(flow) = self.aligned(context, warp, current, pc, active) {
            return flow;
        }
        self.check_fence(context, warp, pc, op);
        let place = M * (warp.index % WARPS);
        let a = match &op.a {
            Source::Registers(rows) => fragments(warp, rows),
            Source::Shared(row) => self.operand(context, warp, pc, *row, (place, M), (op, 0)),
        };
        let b = self.operand(context, warp, pc, op.b, (0, op.n), (op, 1));
        let adds = warp.regs.p[usize::from(op.adds)] & active != 0;
        let (mut sums, mut taint) = self.taken_up(context, warp, pc, op, adds);
        if op.acc == Acc::S32 {
            integers(op, &a, &b, &mut sums);
        } else {
            floats(context, op, &a, &b, &mut sums);
        }
        if context.launch.checks.uninitialised {
            taint_sums(op, &a, &b, &mut taint);
        }
        for &row in &op.d {
            warp.regs.set_w(row, &[u32::MAX; LANES], active);
            warp.regs.taint_w(row, FULL, active);
        }
        let group = warp.products_committed + 1;
        if matches!(op.a, Source::Registers(_)) {
            warp.factors.push((pc as u32, group));
        }
        warp.products.push(OpenProduct { pc: pc as u32, group, sums, taint, moved: Vec::new(), taken_up: false });
        Flow::Next
    }

    /// What the accumulator holds: of a product in flight with the same registers, or in these.
    fn taken_up(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        pc: usize,
        op: &Wgmma,
        adds: bool,
    ) -> (Sums, Vec<u32>) {
        let insts = &context.kernel.program.insts;
        let same = |open: &OpenProduct| holds(insts, open, &op.d);
        let shares = |open: &OpenProduct| op.d.iter().any(|&row| place(insts, open, row).is_some());
        let clashes = |open: &&OpenProduct| !same(open) && shares(open);
        if let Some(open) = warp.products.iter().find(clashes) {
            let sites = [site("multiplies", open.pc, warp), site("multiplies", pc as u32, warp)];
            self.report(context, Kind::RegisterInFlight, Severity::Error, &sites, || {
                "an accumulator shares registers with another in flight".into()
            });
        }
        let before = warp.products.iter().position(same).map(|at| {
            let open = &mut warp.products[at];
            let own = registers(insts, open) == op.d;
            open.moved.retain(|(row, _)| !op.d.contains(row));
            if own && open.moved.is_empty() {
                return warp.products.remove(at);
            }
            open.taken_up |= own;
            open.clone()
        });
        if !adds {
            return (vec![[0; LANES]; op.d.len()], vec![0; op.d.len()]);
        }
        match before {
            Some(open) => (open.sums, open.taint),
            None => {
                let sums = op.d.iter().map(|&row| *w(&warp.regs, row)).collect();
                (sums, op.d.iter().map(|&row| warp.regs.tw(row)).collect())
            }
        }
    }

    /// Reports registers of a product that something else touched since the last `wgmma.fence`.
    fn check_fence(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, op: &Wgmma) {
        let Some(culprit) = op.unfenced else { return };
        let sites = [site("touches", culprit, warp), site("multiplies", pc as u32, warp)];
        let sites = if culprit as usize == pc { &sites[1..] } else { &sites };
        self.report(context, Kind::MissingFence, Severity::Error, sites, || {
            "no wgmma.fence between an access to a register and the product that uses it".into()
        });
    }

    /// Rows of a factor in shared memory, `count` from `first` on; `which` is 0 for the first factor, 1 for the second.
    fn operand(
        &mut self,
        context: &Context<'_>,
        warp: &Warp,
        pc: usize,
        descriptor: u16,
        (first, count): (usize, usize),
        (op, which): (&Wgmma, usize),
    ) -> Gathered {
        let words = d(&warp.regs, descriptor);
        if words.iter().any(|word| *word != words[0]) {
            self.report_lane(context, warp, Kind::WarpgroupMisuse, pc, "multiplies", FULL, || {
                "the lanes of the warp name different matrices".into()
            });
        }
        let matrix = Descriptor::of(words[0]);
        if matrix.base_offset != 0 {
            self.report_lane(context, warp, Kind::WarpgroupMisuse, pc, "multiplies", FULL, || {
                "a matrix descriptor with a base offset, which is not modelled".into()
            });
        }
        if context.launch.checks.uninitialised && warp.regs.td(descriptor) != 0 {
            self.report_lane(context, warp, Kind::UninitialisedAddress, pc, "multiplies", FULL, || {
                "uninitialised value used as a matrix descriptor".into()
            });
        }
        let mut found = Gathered { rows: vec![[0xff; ROW_BYTES]; count], undefined: vec![false; count] };
        let mut chunks = Vec::with_capacity(2 * count);
        if op.transposed[which] {
            for k in 0..op.k as u32 {
                for chunk in 0..count / 8 {
                    let at = matrix.along_rows(k, (first / 8 + chunk) as u32);
                    let Some(bytes) = self.chunk(at, &mut chunks) else { continue };
                    let defined = self.shared.is_defined(at, CHUNK);
                    for (i, half) in bytes.as_chunks::<2>().0.iter().enumerate() {
                        found.rows[8 * chunk + i][2 * k as usize..][..2].copy_from_slice(half);
                        found.undefined[8 * chunk + i] |= !defined;
                    }
                }
            }
        } else {
            for (i, row) in found.rows.iter_mut().enumerate() {
                for (chunk, to) in row.as_chunks_mut::<{ CHUNK as usize }>().0.iter_mut().enumerate() {
                    let at = matrix.along_k((first + i) as u32, chunk as u32);
                    let Some(bytes) = self.chunk(at, &mut chunks) else { continue };
                    *to = bytes;
                    found.undefined[i] |= !self.shared.is_defined(at, CHUNK);
                }
            }
        }
        self.note_reads(context, warp, pc, chunks);
        found
    }

    /// The bytes of a chunk, which is noted, if it lies in one variable.
    fn chunk(&self, at: u32, chunks: &mut Vec<u32>) -> Option<[u8; CHUNK as usize]> {
        chunks.push(at);
        let inside = self.shared.covers(at, CHUNK);
        inside.then(|| self.shared.bytes[at as usize..][..CHUNK as usize].try_into().ok()).flatten()
    }

    /// Checks what a product reads: bounds, and that it is visible to the tensor core.
    fn note_reads(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, mut chunks: Vec<u32>) {
        if let Some(&at) = chunks.iter().find(|&&at| !self.shared.covers(at, CHUNK)) {
            let place = self.shared_name(context, at);
            self.report_lane(context, warp, Kind::OutOfBounds, pc, "read", FULL, || {
                format!("out of bounds: a matrix of a warpgroup's product reaches {place}")
            });
            chunks.retain(|&at| self.shared.covers(at, CHUNK));
        }
        if self.shared.shadow.is_none() {
            return;
        }
        chunks.sort_unstable();
        chunks.dedup();
        let agent = self.agents.tensor(warp.index);
        let me = Epoch::new(pc as u32, warp.products_committed + 1, agent as u32);
        let runs = chunks.chunk_by(|a, b| *b == a + CHUNK).map(|run| (run[0], run.len() as u32 * CHUNK));
        let runs: Vec<(u32, u32)> = runs.collect();
        self.engine_access(context, warp, pc, &runs, false, me);
    }

    /// `wgmma.wait_group`.
    pub(crate) fn wgmma_wait(
        &mut self,
        context: &Context<'_>,
        warp: &mut Warp,
        current: usize,
        pc: usize,
        active: u32,
        pending: u32,
    ) -> Flow {
        if let Some(flow) = self.aligned(context, warp, current, pc, active) {
            return flow;
        }
        let done = warp.products_committed.saturating_sub(pending);
        // A product is one operation of four warps: it ends when all have begun it, and then for all of them.
        let first = warp.index / WARPS * WARPS;
        let others = (first..first + WARPS).filter(|other| *other != warp.index && *other < self.warps.len());
        let begun = |other: &Warp| other.alive() == 0 || other.products_committed >= done;
        if !others.clone().all(|other| self.warps[other].as_ref().is_none_or(|other| begun(other))) {
            warp.wants_rest = true;
            warp.fragments[current].state = State::Parked;
            return Flow::Wait;
        }
        let insts = &context.kernel.program.insts;
        for open in warp.products.extract_if(.., |open| open.group <= done) {
            let own = registers(insts, &open).iter().copied().zip(0..);
            for (row, at) in own.chain(open.moved.iter().copied()) {
                warp.regs.set_w(row, &open.sums[at], active);
                warp.regs.taint_w(row, open.taint[at], active);
            }
        }
        warp.factors.retain(|(_, group)| *group > done);
        if self.agents.proxied {
            for agent in others.chain([warp.index]).map(|warp| self.agents.tensor(warp)) {
                self.clocks.complete(warp.index, agent, done);
            }
        }
        Flow::Next
    }

    /// Looks whether registers that the next instruction touches are in flight.
    pub(crate) fn held(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, active: u32, held: &Held) {
        let insts = &context.kernel.program.insts;
        let passes = moved(&insts[pc + 1].op).filter(|_| held.moves && active == FULL);
        let from = passes.and_then(|(to, from)| {
            let of = warp.products.iter().position(|open| place(insts, open, from).is_some())?;
            let at = place(insts, &warp.products[of], from)?;
            Some((to, of, at))
        });
        if let Some((to, of, at)) = from
            && place(insts, &warp.products[of], to) == Some(at)
        {
            return;
        }
        // Nobody misses what was moved to a register that is written anew.
        if active == FULL {
            warp.products.iter_mut().for_each(|open| open.moved.retain(|(row, _)| !held.writes.contains(row)));
        }
        self.check_held(context, warp, pc, held, from.is_some());
        if let Some((to, of, at)) = from {
            warp.products[of].moved.push((to, at));
        }
    }

    /// Reports a register in flight that the next instruction writes, or reads if it does not only pass it on.
    fn check_held(&mut self, context: &Context<'_>, warp: &Warp, pc: usize, held: &Held, passes: bool) {
        let insts = &context.kernel.program.insts;
        let sums = warp.products.iter().find(|open| {
            let touched = |row: &u16| place(insts, open, *row).is_some();
            held.writes.iter().any(touched) || !passes && held.reads.iter().any(touched)
        });
        let factors = || {
            warp.factors.iter().find(|(pc, _)| match &insts[*pc as usize].op {
                Op::Wgmma(op) => matches!(&op.a, Source::Registers(a) if held.writes.iter().any(|row| a.contains(row))),
                _ => false,
            })
        };
        let found = sums.map(|open| (open.pc, true)).or_else(|| factors().map(|(pc, _)| (*pc, false)));
        let Some((at, of_sums)) = found else { return };
        let sites = [site("multiplies", at, warp), site("touches", pc as u32 + 1, warp)];
        self.report(context, Kind::RegisterInFlight, Severity::Error, &sites, || match of_sums {
            true => "a register of an accumulator is used before the wait for its product".into(),
            false => "a register of a factor is written before the wait for its product".into(),
        });
    }
}

/// The registers of the accumulator of a product in flight, unless a later product has taken them up.
fn registers<'a>(insts: &'a [Inst], open: &OpenProduct) -> &'a [u16] {
    match &insts[open.pc as usize].op {
        Op::Wgmma(of) if !open.taken_up => &of.d,
        _ => &[],
    }
}

/// Which register of its accumulator a product in flight will put into `row`, if any.
fn place(insts: &[Inst], open: &OpenProduct, row: u16) -> Option<usize> {
    let own = registers(insts, open).iter().position(|own| *own == row);
    own.or_else(|| open.moved.iter().find(|(to, _)| *to == row).map(|(_, at)| *at))
}

/// Whether these registers, in this order, will hold the accumulator of a product in flight.
fn holds(insts: &[Inst], open: &OpenProduct, rows: &[u16]) -> bool {
    let moved = || rows.iter().enumerate().all(|(at, &row)| open.moved.contains(&(row, at)));
    registers(insts, open) == rows || open.sums.len() == rows.len() && moved()
}

fn site(role: &'static str, pc: u32, warp: &Warp) -> RawSite {
    RawSite { role, pc, warp: warp.index as u32, lane: 0 }
}

/// The first factor from registers.
fn fragments(warp: &Warp, rows: &[u16]) -> Gathered {
    let mut found = Gathered { rows: vec![[0; ROW_BYTES]; M], undefined: vec![false; M] };
    for (reg, &row) in rows.iter().enumerate() {
        let taint = warp.regs.tw(row);
        for (lane, word) in w(&warp.regs, row).iter().enumerate() {
            // Four bytes are as many of 8 bits, two of 16 or one of 32, side by side.
            let (m, byte) = layout::a8(lane, reg, 0);
            found.rows[m][byte..byte + 4].copy_from_slice(&word.to_le_bytes());
            found.undefined[m] |= taint >> lane & 1 == 1;
        }
    }
    found
}

fn encoding(elem: Elem) -> Encoding {
    match elem {
        Elem::F16 => Encoding::F16,
        Elem::Bf16 => Encoding::Bf16,
        Elem::Tf32 => Encoding::Tf32,
        Elem::E5m2 => Encoding::E5m2,
        Elem::E4m3 | Elem::S8 | Elem::U8 => Encoding::E4m3,
    }
}

/// The exponent of the smallest normal number: Hopper's FP8 unit does not normalise those below it.
fn least(elem: Elem) -> i32 {
    match elem {
        Elem::E5m2 => -14,
        _ => -6,
    }
}

/// How Hopper sums, or none for a chain of fused multiply-adds.
fn model_of(model: MmaModel, op: &Wgmma) -> Option<Aligned> {
    let half = op.acc == Acc::F16;
    if op.a_elem.is_byte() {
        let exact = Aligned { fraction: 13, result: 13, chunk: op.k, half, least: [op.a_elem, op.b_elem].map(least) };
        return (model != MmaModel::Fast).then_some(exact);
    }
    let exact = Aligned { fraction: 25, result: 23, chunk: op.k, half, least: NORMALISED };
    (!matches!(model, MmaModel::Fast | MmaModel::FastExceptFp8)).then_some(exact)
}

fn floats(context: &Context<'_>, op: &Wgmma, a: &Gathered, b: &Gathered, sums: &mut Sums) {
    let (mut left, mut tiles): (FactorA, Vec<Tile>) = ([[0.0; 32]; M], vec![[[0.0; N]; M]; op.n / N]);
    for (to, row) in left.iter_mut().zip(&a.rows) {
        *to = decode(row, encoding(op.a_elem), op.negates[0]);
    }
    let right: Vec<_> = b.rows.iter().map(|row| decode(row, encoding(op.b_elem), op.negates[1])).collect();
    for (reg, values) in sums.iter().enumerate() {
        for (lane, &word) in values.iter().enumerate() {
            if op.acc == Acc::F32 {
                let (m, n) = layout::c32(lane, reg % 4);
                tiles[reg / 4][m][n] = f32::from_bits(word);
            } else {
                let (m, n) = layout::c16(lane, reg % 2, 0);
                tiles[reg / 2][m][n] = f32::from_bits(f16_to_f32(word & 0xffff));
                tiles[reg / 2][m][n + 1] = f32::from_bits(f16_to_f32(word >> 16));
            }
        }
    }
    product(context.level, &left, &right, op.k, &mut tiles, model_of(context.launch.mma_model, op));
    for (reg, values) in sums.iter_mut().enumerate() {
        for (lane, word) in values.iter_mut().enumerate() {
            *word = if op.acc == Acc::F32 {
                let (m, n) = layout::c32(lane, reg % 4);
                canon(tiles[reg / 4][m][n])
            } else {
                let (m, n) = layout::c16(lane, reg % 2, 0);
                let tile = &tiles[reg / 2][m];
                f32_to_f16(tile[n].to_bits()) | f32_to_f16(tile[n + 1].to_bits()) << 16
            };
        }
    }
}

fn integers(op: &Wgmma, a: &Gathered, b: &Gathered, sums: &mut Sums) {
    let mut left = [[0; ROW_BYTES]; M];
    left.copy_from_slice(&a.rows);
    let mut tiles = vec![[[0u32; N]; M]; op.n / N];
    for (reg, values) in sums.iter().enumerate() {
        for (lane, &word) in values.iter().enumerate() {
            let (m, n) = layout::c32(lane, reg % 4);
            tiles[reg / 4][m][n] = word;
        }
    }
    let signs = (op.a_elem == Elem::S8, op.b_elem == Elem::S8);
    integer_product(&left, &b.rows, signs, &mut tiles, op.satfinite);
    for (reg, values) in sums.iter_mut().enumerate() {
        for (lane, word) in values.iter_mut().enumerate() {
            let (m, n) = layout::c32(lane, reg % 4);
            *word = tiles[reg / 4][m][n];
        }
    }
}

/// An undefined element of a factor makes its row or column of the result undefined.
fn taint_sums(op: &Wgmma, a: &Gathered, b: &Gathered, taint: &mut [u32]) {
    let any = |undefined: &[bool]| undefined.iter().any(|undefined| *undefined);
    if !any(&a.undefined) && !any(&b.undefined) {
        return;
    }
    for (reg, taint) in taint.iter_mut().enumerate() {
        for lane in 0..LANES {
            let (m, columns) = if op.acc == Acc::F16 {
                let (m, n) = layout::c16(lane, reg % 2, 0);
                (m, reg / 2 * N + n..reg / 2 * N + n + 2)
            } else {
                let (m, n) = layout::c32(lane, reg % 4);
                (m, reg / 4 * N + n..reg / 4 * N + n + 1)
            };
            *taint |= u32::from(a.undefined[m] || any(&b.undefined[columns])) << lane;
        }
    }
}
