//! What a launch does, counted and not timed: instructions by class, sectors of global memory, conflicts of shared
//! memory's banks, divergence, in all and by source line. The interpreter tells of each instruction when a launch asks for
//! it; nothing here changes what is computed. Leaves to others: occupancy, which registers decide, and showing it.

mod access;
mod class;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

pub(crate) use access::{Access, Sectors};

use crate::isa::op::Op;
use crate::module::Kernel;
use crate::program::Program;
use crate::report::source_of;
use class::Class;

/// What some instructions of a kernel did. Instructions are those of the PTX, each executed once by each warp that comes
/// to it, its guard being false or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Instructions of warps.
    pub instructions: u64,
    /// The same by thread: lanes that were there, their guard being false or not.
    pub thread_instructions: u64,
    /// Instructions of warps of which only a part of the lanes was there.
    pub partial_instructions: u64,
    /// Branches, and those of them of which some lanes were taken and some were not.
    pub branches: u64,
    /// See `branches`.
    pub divergent_branches: u64,
    /// Products of a 16x8 tile, one instruction of the tensor pipe each; of `wgmma`, one a warp.
    pub tensor_instructions: u64,
    /// Loads from global memory, `cp.async` among them, of whole warps.
    pub global_load_requests: u64,
    /// Sectors of 32 bytes that they touch, each counted once a request.
    pub global_load_sectors: u64,
    /// The fewest sectors that hold as many bytes, by request.
    pub global_load_sectors_ideal: u64,
    /// Stores to global memory.
    pub global_store_requests: u64,
    /// Sectors that they touch.
    pub global_store_sectors: u64,
    /// The fewest sectors that hold as many bytes, by request.
    pub global_store_sectors_ideal: u64,
    /// Sectors that atomics and reductions touch.
    pub global_atomic_sectors: u64,
    /// Passes of loads and stores through shared memory's banks: of plain ones, of matrices and, without its conflicts, of
    /// `cp.async`.
    pub shared_wavefronts: u64,
    /// Those of them that two words of one bank made necessary.
    pub bank_conflicts: u64,
    /// Passes that two words of one bank made necessary for `cp.async`. An H200's profiler counted one more sector of the L1
    /// for each, and none among its bank conflicts.
    pub async_copy_conflicts: u64,
}

impl Tally {
    /// L1 sectors of loads and stores, as the profiler counts them (`l1tex__t_sectors_pipe_lsu`), but for local memory's.
    pub fn l1_sectors(&self) -> u64 {
        let memory = self.global_load_sectors + self.global_store_sectors + self.global_atomic_sectors;
        memory + self.async_copy_conflicts
    }

    /// Adds another.
    pub fn add(&mut self, other: &Tally) {
        let Tally {
            instructions,
            thread_instructions,
            partial_instructions,
            branches,
            divergent_branches,
            tensor_instructions,
            global_load_requests,
            global_load_sectors,
            global_load_sectors_ideal,
            global_store_requests,
            global_store_sectors,
            global_store_sectors_ideal,
            global_atomic_sectors,
            shared_wavefronts,
            bank_conflicts,
            async_copy_conflicts,
        } = self;
        *instructions += other.instructions;
        *thread_instructions += other.thread_instructions;
        *partial_instructions += other.partial_instructions;
        *branches += other.branches;
        *divergent_branches += other.divergent_branches;
        *tensor_instructions += other.tensor_instructions;
        *global_load_requests += other.global_load_requests;
        *global_load_sectors += other.global_load_sectors;
        *global_load_sectors_ideal += other.global_load_sectors_ideal;
        *global_store_requests += other.global_store_requests;
        *global_store_sectors += other.global_store_sectors;
        *global_store_sectors_ideal += other.global_store_sectors_ideal;
        *global_atomic_sectors += other.global_atomic_sectors;
        *shared_wavefronts += other.shared_wavefronts;
        *bank_conflicts += other.bank_conflicts;
        *async_copy_conflicts += other.async_copy_conflicts;
    }
}

/// Instructions of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// Name of the class, such as `floating point`.
    pub class: String,
    /// PTX instructions of warps.
    pub instructions: u64,
}

/// What the instructions of one line did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCounts {
    /// `file:line` of the source with the whole path, the outermost caller first; of the PTX without line information.
    pub source: Vec<String>,
    /// What they did.
    #[serde(flatten)]
    pub tally: Tally,
}

/// What a launch did, counted and not timed. Where a launch ran a sample of the blocks, this is what those did: see
/// [`crate::Outcome::blocks_run`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All of it.
    pub total: Tally,
    /// By class, the most frequent first; classes without an instruction are left out.
    pub classes: Vec<ClassCount>,
    /// By line, in the order of the kernel's code; lines that no warp came to are left out.
    pub lines: Vec<LineCounts>,
}

/// Tallies of a block, or of some, one an instruction of the decoded kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallies(Vec<Tally>);

impl Tallies {
    pub(crate) fn new(program: &Program) -> Tallies {
        Tallies(vec![Tally::default(); program.insts.len()])
    }

    /// A run of row operations by the lanes of `mask`, of the `exist` that the warp has.
    pub(crate) fn rows(&mut self, from: usize, to: usize, mask: u32, exist: u32) {
        for tally in &mut self.0[from..to] {
            one(tally, mask, exist);
        }
    }

    /// Another instruction, of which the lanes of `active` have a guard that holds.
    pub(crate) fn other(&mut self, pc: usize, op: &Op, (mask, active, exist): (u32, u32, u32), access: &Access) {
        let tally = &mut self.0[pc];
        one(tally, mask, exist);
        match op {
            Op::Bra { .. } => {
                tally.branches += 1;
                tally.divergent_branches += u64::from(active != 0 && active != mask);
            }
            Op::Mma(mma) if active != 0 => tally.tensor_instructions += mma.halves.len() as u64,
            Op::Wgmma(_) if active != 0 => tally.tensor_instructions += 1,
            _ => {}
        }
        access.book(tally);
    }

    /// Adds those of another block.
    pub(crate) fn merge(&mut self, other: &Tallies) {
        if self.0.is_empty() {
            *self = other.clone();
            return;
        }
        self.0.iter_mut().zip(&other.0).for_each(|(tally, more)| tally.add(more));
    }

    /// Adds up by class and line.
    pub(crate) fn conclude(mut self, kernel: &Kernel) -> Counts {
        let program = &kernel.program;
        let mut counts = Counts::default();
        let mut classes = vec![0; Class::ALL.len()];
        let mut places = HashMap::new();
        for (pc, tally) in self.0.iter_mut().enumerate() {
            if tally.instructions == 0 {
                continue;
            }
            let origin = program.origins[pc];
            if origin.leads {
                let text = program.texts.get(pc).and_then(|&text| program.text_table.get(text as usize));
                classes[Class::of(text.map_or("", String::as_str)) as usize] += tally.instructions;
            } else {
                // One PTX instruction may be several here; it counts once.
                (tally.instructions, tally.thread_instructions, tally.partial_instructions) = (0, 0, 0);
            }
            counts.total.add(tally);
            let mut source = source_of(kernel, origin);
            if source.is_empty() {
                source.push(format!("ptx:{}", origin.line));
            }
            let at = *places.entry(source).or_insert_with_key(|source| {
                counts.lines.push(LineCounts { source: source.clone(), tally: Tally::default() });
                counts.lines.len() - 1
            });
            counts.lines[at].tally.add(tally);
        }
        let named = Class::ALL.iter().zip(classes).filter(|(_, instructions)| *instructions > 0);
        counts.classes =
            named.map(|(class, instructions)| ClassCount { class: class.name().to_owned(), instructions }).collect();
        counts.classes.sort_by_key(|count| std::cmp::Reverse(count.instructions));
        counts
    }
}

fn one(tally: &mut Tally, mask: u32, exist: u32) {
    tally.instructions += 1;
    tally.thread_instructions += u64::from(mask.count_ones());
    tally.partial_instructions += u64::from(mask != exist);
}
