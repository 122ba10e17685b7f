//! Calls: device functions are inlined, `__assertfail` and `vprintf` are builtins, all else is refused.

use super::layout::{Place, function_address};
use super::{LoadError, Lower, Lowered, MAX_CALL_DEPTH, error_at};
use crate::isa::alu_table::AluOp;
use crate::isa::op::{NO_GUARD, Op, Order, Print, Store};
use crate::isa::slot::{Class, Slot};
use crate::isa::space::{Addr, Space};
use crate::parse::ast::{Formal, Function, Inst as AstInst, Operand, Ty, VarSpace};

/// Comparison class "less or greater" of the row operations.
const NOT_EQUAL: u16 = 5;

/// `call` taken apart.
struct Call<'a> {
    returns: &'a [Operand],
    callee: &'a Operand,
    args: &'a [Operand],
    /// Label of `.calltargets` or `.callprototype` of an indirect call.
    targets: Option<&'a str>,
}

fn take_apart(inst: &AstInst) -> Lowered<Call<'_>> {
    if inst.guard.is_some() {
        // Inlined code would need the guard on every instruction; nvcc branches around instead.
        return Err("a guarded call is not supported".into());
    }
    for word in &inst.modifiers {
        if word != "uni" {
            return Err(format!("modifier `.{word}` is not supported"));
        }
    }
    let (returns, rest): (&[Operand], _) = match inst.operands.as_slice() {
        [Operand::List(returns), rest @ ..] => (returns, rest),
        rest => (&[], rest),
    };
    let (callee, rest) = rest.split_first().ok_or("the function is missing")?;
    if !matches!(callee, Operand::Name(_, 0) | Operand::Reg(_)) {
        return Err("expected a function or a register that holds one".into());
    }
    let (args, rest): (&[Operand], _) = match rest {
        [Operand::List(args), rest @ ..] => (args, rest),
        rest => (&[], rest),
    };
    let targets = match rest {
        [] => None,
        [Operand::Name(label, 0)] => Some(label.as_str()),
        _ => return Err("these operands of a call are not understood".into()),
    };
    Ok(Call { returns, callee, args, targets })
}

impl<'u> Lower<'u> {
    pub(super) fn call(&mut self, inst: &'u AstInst) -> Result<(), LoadError> {
        let call = take_apart(inst).map_err(|message| error_at(inst, message))?;
        let Operand::Name(name, _) = call.callee else {
            return self.indirect(inst, &call);
        };
        match name.as_str() {
            "__assertfail" => self.assert_fail(&call).map_err(|message| error_at(inst, message)),
            "vprintf" => self.print(&call).map_err(|message| error_at(inst, message)),
            _ => {
                let Some(index) = self.unit.functions.iter().position(|f| f.name == *name && f.defined) else {
                    return Err(error_at(inst, format!("external function `{name}` is not supported")));
                };
                self.inlined(inst, &call, index)
            }
        }
    }

    /// One inlined copy of function `index`, arguments in and results out.
    fn inlined(&mut self, inst: &'u AstInst, call: &Call<'u>, index: usize) -> Result<(), LoadError> {
        let at = |message: String| error_at(inst, message);
        self.check_call(call, index).map_err(at)?;
        let callee = &self.unit.functions[index];
        let mut vars = vec![None; callee.vars.len()];
        let mut regs = vec![None; callee.regs.len()];
        for (formal, actual) in callee.params.iter().zip(call.args) {
            match formal {
                Formal::Var(var) => vars[*var] = Some(self.passed(callee, *var, actual, true).map_err(at)?),
                Formal::Regs(list) => self.pass_registers(callee, list, actual, &mut regs).map_err(at)?,
            }
        }
        for (formal, actual) in callee.returns.iter().zip(call.returns) {
            if let Formal::Var(var) = formal {
                vars[*var] = Some(self.passed(callee, *var, actual, false).map_err(at)?);
            }
        }
        let regs = self.instance(index, vars, regs)?;
        self.begin(inst).map_err(at)?;
        for (formal, actual) in callee.returns.iter().zip(call.returns) {
            if let Formal::Regs(list) = formal {
                self.take_registers(callee, list, actual, &regs).map_err(at)?;
            }
        }
        Ok(())
    }

    fn check_call(&mut self, call: &Call<'_>, index: usize) -> Lowered {
        let callee = &self.unit.functions[index];
        if self.frames.iter().any(|f| f.index == index) {
            return Err(format!("`{}` is recursive, which is not supported", callee.name));
        }
        if self.frames.len() >= MAX_CALL_DEPTH {
            return Err(format!("calls are nested deeper than {MAX_CALL_DEPTH}"));
        }
        if callee.params.len() != call.args.len() || callee.returns.len() != call.returns.len() {
            return Err(format!(
                "`{}` takes {} parameters and returns {}; {} and {} given",
                callee.name,
                callee.params.len(),
                callee.returns.len(),
                call.args.len(),
                call.returns.len()
            ));
        }
        Ok(())
    }

    /// The place of a `.param` formal: the caller's variable, or a new one filled with a register or constant.
    fn passed(&mut self, callee: &Function, formal: usize, actual: &Operand, input: bool) -> Lowered<Place> {
        let var = &callee.vars[formal];
        if let Operand::Var(..) = actual {
            let (place, bytes) = self.argument(actual)?;
            if var.bytes > bytes {
                return Err(format!("an argument of `{}` is too small", callee.name));
            }
            return Ok(place);
        }
        if !input {
            return Err("results must be `.param` variables where the function declares them so".into());
        }
        let ty = match var.bytes {
            1 | 2 => Ty::B16,
            4 => Ty::B32,
            8 => Ty::B64,
            _ => return Err("an array must be passed as a `.param` variable".into()),
        };
        let at = self.reserve_local(var)?;
        let row = self.src(actual, ty)?;
        let class = if ty == Ty::B64 { Class::D } else { Class::W };
        self.store_local(at, var.bytes as u32, Slot { class, row })?;
        Ok(Place::Local(at))
    }

    /// Copies an argument to the registers of a formal.
    fn pass_registers(
        &mut self,
        callee: &Function,
        formal: &[usize],
        actual: &Operand,
        regs: &mut [Option<Slot>],
    ) -> Lowered {
        let parts = Self::vector(actual);
        if parts.len() != formal.len() {
            return Err(format!("{} registers given, {} expected", parts.len(), formal.len()));
        }
        for (&reg, part) in formal.iter().zip(parts) {
            let ty = callee.regs[reg].ty;
            let row = self.src(part, ty)?;
            let slot = self.new_slot(ty)?;
            self.move_row(slot, row)?;
            regs[reg] = Some(slot);
        }
        Ok(())
    }

    /// Copies the registers of a result to the caller's.
    fn take_registers(
        &mut self,
        callee: &Function,
        formal: &[usize],
        actual: &Operand,
        regs: &[Option<Slot>],
    ) -> Lowered {
        let parts = Self::vector(actual);
        if parts.len() != formal.len() {
            return Err(format!("{} registers given, {} expected", parts.len(), formal.len()));
        }
        for (&reg, part) in formal.iter().zip(parts) {
            let ty = callee.regs[reg].ty;
            let row = self.dst(part, ty)?;
            let from = regs[reg].ok_or_else(|| format!("`{}` never sets its result", callee.name))?;
            self.move_row(Slot { class: from.class, row }, from.row)?;
        }
        Ok(())
    }

    fn move_row(&mut self, to: Slot, from: u16) -> Lowered {
        let op = match to.class {
            Class::W => AluOp::MovW,
            Class::D => AluOp::MovD,
            Class::P => AluOp::MovP,
        };
        self.alu(op, to.row, &[from], 0)
    }

    /// A call through a register: each function whose address is taken anywhere and that fits is tried in turn.
    fn indirect(&mut self, inst: &'u AstInst, call: &Call<'u>) -> Result<(), LoadError> {
        let at = |message: String| error_at(inst, message);
        let address = self.src(call.callee, Ty::B64).map_err(at)?;
        let mut ends = Vec::new();
        for index in self.candidates(call) {
            self.begin(inst).map_err(at)?;
            let mine = self.constant(Class::D, function_address(index)).map_err(at)?;
            let other = self.temp(Class::P).map_err(at)?;
            self.alu(AluOp::SetpU64, other, &[address, mine], NOT_EQUAL).map_err(at)?;
            let skip = self.program.insts.len();
            self.guard = other << 1;
            self.emit(Op::Bra { target: 0 }).map_err(at)?;
            self.guard = NO_GUARD;
            self.inlined(inst, call, index)?;
            self.guard = NO_GUARD;
            ends.push(self.program.insts.len());
            self.emit(Op::Bra { target: 0 }).map_err(at)?;
            self.patch(skip, self.program.insts.len());
        }
        self.begin(inst).map_err(at)?;
        // An address that is no function's.
        self.emit(Op::Trap).map_err(at)?;
        let end = self.program.insts.len();
        ends.into_iter().for_each(|at| self.patch(at, end));
        Ok(())
    }

    /// Functions that an indirect call may reach, without those that are being inlined already.
    fn candidates(&mut self, call: &Call<'_>) -> Vec<usize> {
        let named = call.targets.and_then(|label| self.frame().function.targets.get(label));
        let taken = match named {
            Some(names) => {
                names.iter().filter_map(|name| self.unit.functions.iter().position(|f| f.name == *name)).collect()
            }
            None => self.address_taken(),
        };
        let sizes = |list: &[Operand], lower: &mut Self| -> Vec<Option<u64>> {
            list.iter().map(|actual| lower.argument(actual).ok().map(|(_, bytes)| bytes)).collect()
        };
        let (args, returns) = (sizes(call.args, self), sizes(call.returns, self));
        let fits = |formals: &[Formal], sizes: &[Option<u64>], function: &Function| {
            formals.len() == sizes.len()
                && formals.iter().zip(sizes).all(|(formal, size)| match (formal, size) {
                    (Formal::Var(var), Some(bytes)) => function.vars[*var].bytes == *bytes,
                    (Formal::Var(_), None) => true,
                    (Formal::Regs(_), size) => size.is_none(),
                })
        };
        taken
            .into_iter()
            .filter(|&index| {
                let function = &self.unit.functions[index];
                function.defined
                    && fits(&function.params, &args, function)
                    && fits(&function.returns, &returns, function)
                    && !self.frames.iter().any(|frame| frame.index == index)
            })
            .collect()
    }

    /// Place and size of a `.param` variable passed to a call.
    fn argument(&mut self, actual: &Operand) -> Lowered<(Place, u64)> {
        let Operand::Var(var, 0) = actual else {
            return Err("arguments must be `.param` variables".into());
        };
        let declared = &self.frame().function.vars[*var];
        if declared.space != VarSpace::Param {
            return Err("arguments must be `.param` variables".into());
        }
        let bytes = declared.bytes;
        Ok((self.place(*var)?, bytes))
    }

    /// Value of a builtin's argument.
    fn builtin_argument(&mut self, actual: &Operand, bytes: u32) -> Lowered<Slot> {
        match self.argument(actual)? {
            (Place::Local(at), size) if size >= u64::from(bytes) => self.load_local(at, bytes),
            _ => Err("an argument has the wrong size".into()),
        }
    }

    /// `__assertfail(message, file, line, function, size)`.
    fn assert_fail(&mut self, call: &Call<'_>) -> Lowered {
        let [message, file, line, ..] = call.args else {
            return Err("`__assertfail` takes five parameters".into());
        };
        let (message, file) = (self.builtin_argument(message, 8)?, self.builtin_argument(file, 8)?);
        let line = self.builtin_argument(line, 4)?;
        self.emit(Op::AssertFail { message, file, line })
    }

    /// `vprintf(format, arguments)`, which returns how many values it printed.
    fn print(&mut self, call: &Call<'_>) -> Lowered {
        let ([format, values], [result]) = (call.args, call.returns) else {
            return Err("`vprintf` takes two parameters and returns one".into());
        };
        let (format, values) = (self.builtin_argument(format, 8)?, self.builtin_argument(values, 8)?);
        let dst = self.temp(Class::W)?;
        self.emit(Op::Print(Box::new(Print { format, values, dst })))?;
        match self.argument(result)? {
            (Place::Local(at), 4) => self.store_local(at, 4, Slot { class: Class::W, row: dst }),
            _ => Err("the result has the wrong size".into()),
        }
    }

    /// Emits a store of one value to this thread's local storage.
    fn store_local(&mut self, at: u32, bytes: u32, value: Slot) -> Lowered {
        let base = Slot { class: Class::D, row: self.constant(Class::D, u64::from(at))? };
        let addr = Addr { space: Space::Local, base, offset: 0 };
        self.emit(Op::Store(Box::new(Store { addr, bytes, src: vec![value], order: Order::default() })))
    }
}
