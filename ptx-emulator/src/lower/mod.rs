//! Syntax to [`Program`]: registers become rows, labels become indices, calls are inlined.
//!
//! Each family of instructions has its own file; each refuses by name what it does not know.
//! Device functions are inlined, so recursion and indirect calls are refused.

mod allocate;
mod alu;
mod bits;
mod bulk;
mod call;
mod carry;
mod cluster;
mod compare;
mod convert;
mod float;
mod in_flight;
mod layout;
mod memory;
mod mods;
mod multiply;
mod operands;
mod sync;
mod tensor;
mod tensormap;
mod video;
mod warpgroup;
mod wmma;

use std::collections::HashMap;

use crate::isa::alu_table::{AluInst, AluOp};
use crate::isa::op::{Inst, NO_GUARD, Op};
use crate::isa::slot::{Class, Slot};
use crate::parse::ast::{Function, Inst as AstInst, Operand, Pos, Ty, Unit};
use crate::program::{Origin, Program, RowInit, SourceChain};
use layout::Place;
use mods::Mods;

/// PTX that parses but cannot be executed faithfully, refused before anything runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: `{instruction}`: {message}")]
pub struct LoadError {
    /// Line of the PTX text, from 1; 0 when no single line is at fault.
    pub line: u32,
    /// Opcode with modifiers, or the name of the function or variable at fault.
    pub instruction: String,
    /// What is not supported or does not fit.
    pub message: String,
}

/// Most instructions a program may have after inlining; the access records hold 20 bits.
const MAX_INSTS: usize = 1 << 20;
/// Deepest call chain that is inlined.
const MAX_CALL_DEPTH: usize = 32;

/// Comparison class "equal" of the row operations.
const EQUAL: u16 = 2;

/// Result of lowering one thing; the message is completed with line and opcode on the way out.
type Lowered<T = ()> = Result<T, String>;

/// One inlined instance of a function.
struct Frame<'u> {
    function: &'u Function,
    index: usize,
    regs: Vec<Option<Slot>>,
    vars: Vec<Option<Place>>,
    /// Branches of `ret` to patch to the end of this instance.
    returns: Vec<usize>,
}

struct Lower<'u> {
    unit: &'u Unit,
    symbols: &'u HashMap<String, u64>,
    program: Program,
    constants: HashMap<(Class, RowInit), u16>,
    texts: HashMap<String, u32>,
    sources: HashMap<SourceChain, u32>,
    frames: Vec<Frame<'u>>,
    shared: HashMap<(Option<usize>, usize), u32>,
    /// Offsets of module variables that each thread has its own copy of.
    locals: HashMap<usize, u32>,
    /// Rows for the intermediate values of one instruction, used again by the next.
    scratch: [Vec<u16>; 3],
    /// How many of them the instruction being lowered has taken.
    scratch_taken: [usize; 3],
    /// Row of the carry flag, once an instruction needs it.
    carry: Option<u16>,
    // State of the instruction being lowered.
    guard: u16,
    origin: Origin,
    text: u32,
}

/// Lowers the kernel `index` of `unit`; `symbols` gives the address of each module variable.
pub(crate) fn lower(unit: &Unit, index: usize, symbols: &HashMap<String, u64>) -> Result<Program, LoadError> {
    let mut lower = Lower {
        unit,
        symbols,
        program: Program::default(),
        constants: HashMap::new(),
        texts: HashMap::new(),
        sources: HashMap::new(),
        frames: Vec::new(),
        shared: HashMap::new(),
        locals: HashMap::new(),
        scratch: [const { Vec::new() }; 3],
        scratch_taken: [0; 3],
        carry: None,
        guard: NO_GUARD,
        origin: Origin::default(),
        text: 0,
    };
    let function = &unit.functions[index];
    lower.program.name.clone_from(&function.name);
    lower.program.max_threads = function.max_threads;
    lower.program.required_block = function.required_block;
    // Zeros leave it to the launch.
    lower.program.required_cluster = function.required_cluster.filter(|cluster| !cluster.contains(&0));
    let whole = |message: String| LoadError { line: function.line, instruction: function.name.clone(), message };
    lower.lay_out_shared(index).map_err(whole)?;
    let vars = lower.lay_out_params(function).map_err(whole)?;
    lower.instance(index, vars, vec![None; function.regs.len()])?;
    lower.guard = NO_GUARD;
    lower.emit(Op::Exit).map_err(whole)?;
    lower.program.engines = in_flight::engines(&lower.program);
    in_flight::mark(&mut lower.program);
    allocate::share(&mut lower.program);
    Ok(lower.program)
}

impl<'u> Lower<'u> {
    fn frame(&mut self) -> &mut Frame<'u> {
        self.frames.last_mut().expect("instructions are lowered only inside an instance")
    }

    /// Lowers one inlined copy of a function whose parameters are already placed; returns the rows of its registers.
    fn instance(
        &mut self,
        index: usize,
        vars: Vec<Option<Place>>,
        regs: Vec<Option<Slot>>,
    ) -> Result<Vec<Option<Slot>>, LoadError> {
        let function = &self.unit.functions[index];
        self.frames.push(Frame { function, index, regs, vars, returns: Vec::new() });
        let mut starts = Vec::with_capacity(function.insts.len() + 1);
        let mut branches = Vec::new();
        for (at, inst) in function.insts.iter().enumerate() {
            starts.push(self.program.insts.len());
            self.instruction(inst, at, &mut branches)?;
        }
        starts.push(self.program.insts.len());
        for (at, inst, name) in branches {
            let inst = &function.insts[inst];
            let target = find_label(function, inst.scope, name).map_err(|message| error_at(inst, message))?;
            self.patch(at, starts[target]);
        }
        let end = self.program.insts.len();
        let frame = self.frames.pop().unwrap_or_else(|| unreachable!("pushed above"));
        for at in frame.returns {
            self.patch(at, end);
        }
        Ok(frame.regs)
    }

    fn patch(&mut self, at: usize, to: usize) {
        if let Op::Bra { target } = &mut self.program.insts[at].op {
            *target = to as u32;
        }
    }

    fn instruction(
        &mut self,
        inst: &'u AstInst,
        at: usize,
        branches: &mut Vec<(usize, usize, &'u str)>,
    ) -> Result<(), LoadError> {
        self.begin(inst).map_err(|message| error_at(inst, message))?;
        match inst.opcode.as_str() {
            "call" => return self.call(inst),
            "bra" => {
                let mut mods = Mods::new(&inst.modifiers);
                mods.flag("uni");
                single_label(inst).and_then(|name| {
                    branches.push((self.program.insts.len(), at, name));
                    self.emit(Op::Bra { target: 0 }).and_then(|()| finished(&mods))
                })
            }
            "brx" => self.branch_by_index(inst, at, branches),
            _ => self.dispatch(inst),
        }
        .map_err(|message| error_at(inst, message))
    }

    /// `brx.idx index, targets`: a chain of comparisons; an index beyond the list is undefined and traps.
    fn branch_by_index(
        &mut self,
        inst: &'u AstInst,
        at: usize,
        branches: &mut Vec<(usize, usize, &'u str)>,
    ) -> Lowered {
        let mut mods = Mods::new(&inst.modifiers);
        if !mods.flag("idx") {
            return Err("only `.idx` is supported".into());
        }
        mods.flag("uni");
        finished(&mods)?;
        if inst.guard.is_some() {
            return Err("a guarded `brx` is not supported".into());
        }
        let [index, Operand::Name(label, 0)] = inst.operands.as_slice() else {
            return Err("an index and a label of `.branchtargets` are expected".into());
        };
        let index = self.src(index, Ty::U32)?;
        let function = self.frame().function;
        let names = function.targets.get(label).ok_or_else(|| format!("`{label}` has no `.branchtargets`"))?;
        for (value, name) in names.iter().enumerate() {
            let mine = self.constant(Class::W, value as u64)?;
            let hit = self.temp(Class::P)?;
            self.alu(AluOp::SetpU32, hit, &[index, mine], EQUAL)?;
            self.guard = hit << 1;
            branches.push((self.program.insts.len(), at, name));
            self.emit(Op::Bra { target: 0 })?;
            self.guard = NO_GUARD;
        }
        self.emit(Op::Trap)
    }

    /// Sets guard, origin and text for the operations that follow.
    fn begin(&mut self, inst: &AstInst) -> Lowered {
        self.scratch_taken = [0; 3];
        self.guard = match inst.guard {
            None => NO_GUARD,
            Some((reg, negated)) => {
                let slot = self.reg_slot(reg)?;
                slot.row << 1 | u16::from(negated)
            }
        };
        let source = match inst.loc {
            Some(loc) => self.source(loc),
            None => u32::MAX,
        };
        self.origin = Origin { line: inst.line, source, leads: true };
        let text = full_name(inst);
        let next = self.texts.len() as u32;
        self.text = *self.texts.entry(text).or_insert_with_key(|text| {
            self.program.text_table.push(text.clone());
            next
        });
        Ok(())
    }

    /// The chain of positions behind a `.loc`, innermost first.
    fn source(&mut self, loc: usize) -> u32 {
        let locs = &self.frame().function.locs;
        let mut chain = vec![locs[loc].pos];
        let mut outer = locs[loc].inlined_at;
        while let Some(pos) = outer {
            chain.push(pos);
            if chain.len() > 16 {
                break;
            }
            // The caller's own position may itself have been inlined.
            outer = locs[..loc].iter().rev().find(|l| l.pos == pos).and_then(|l| l.inlined_at);
        }
        // Line 0 marks code without a source line of its own.
        chain.retain(|pos: &Pos| pos.line != 0);
        let next = self.sources.len() as u32;
        let sources = &mut self.program.sources;
        *self.sources.entry(SourceChain(chain)).or_insert_with_key(|chain| {
            sources.push(chain.clone());
            next
        })
    }

    fn dispatch(&mut self, inst: &'u AstInst) -> Lowered {
        let mut mods = Mods::new(&inst.modifiers);
        let known = self.lower_carry(inst, &mut mods)?
            || self.lower_alu(inst, &mut mods)?
            || self.lower_float(inst, &mut mods)?
            || self.lower_convert(inst, &mut mods)?
            || self.lower_video(inst, &mut mods)?
            || self.lower_memory(inst, &mut mods)?
            || self.lower_sync(inst, &mut mods)?
            || self.lower_tensor(inst, &mut mods)?;
        if !known {
            return Err(format!("instruction `{}` is not supported", inst.opcode));
        }
        finished(&mods)
    }

    fn emit(&mut self, op: Op) -> Lowered {
        if self.program.insts.len() >= MAX_INSTS {
            return Err(format!("the program exceeds {MAX_INSTS} instructions after inlining"));
        }
        self.program.insts.push(Inst { op, guard: self.guard });
        self.program.origins.push(self.origin);
        self.origin.leads = false;
        self.program.texts.push(self.text);
        Ok(())
    }

    /// Emits a row operation; missing operands are row 0.
    fn alu(&mut self, op: AluOp, d: u16, args: &[u16], x: u16) -> Lowered {
        let arg = |i: usize| args.get(i).copied().unwrap_or(0);
        self.emit(Op::Alu(AluInst { op, d, a: arg(0), b: arg(1), c: arg(2), x }))
    }
}

/// The address that stands for a function of the unit.
pub(crate) fn function_address(unit: &Unit, name: &str) -> Option<u64> {
    unit.functions.iter().position(|f| f.name == name && f.defined && !f.entry).map(layout::function_address)
}

fn finished(mods: &Mods<'_>) -> Lowered {
    match mods.leftover() {
        Some(word) => Err(format!("modifier `.{word}` is not supported")),
        None => Ok(()),
    }
}

fn full_name(inst: &AstInst) -> String {
    let mut text = inst.opcode.clone();
    for word in &inst.modifiers {
        text.push('.');
        text.push_str(word);
    }
    text
}

fn error_at(inst: &AstInst, message: String) -> LoadError {
    LoadError { line: inst.line, instruction: full_name(inst), message }
}

/// The label of a branch.
fn single_label(inst: &AstInst) -> Lowered<&str> {
    match inst.operands.as_slice() {
        [Operand::Name(name, 0)] => Ok(name),
        _ => Err("expected one label".into()),
    }
}

/// The instruction a branch leads to: the label in the innermost enclosing scope.
fn find_label(function: &Function, mut scope: usize, name: &str) -> Lowered<usize> {
    loop {
        let hit = function.labels.iter().find(|l| l.scope == scope && l.name == *name);
        if let Some(label) = hit {
            return Ok(label.at);
        }
        let parent = function.scope_parent[scope];
        if parent == scope {
            return Err(format!("label `{name}` is not declared in an enclosing scope"));
        }
        scope = parent;
    }
}
