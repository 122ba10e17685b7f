//! Calls: device functions are inlined, `__assertfail` is a builtin, all else is refused.

use super::layout::Place;
use super::{LoadError, Lower, Lowered, MAX_CALL_DEPTH, error_at};
use crate::isa::op::Op;
use crate::isa::slot::Slot;
use crate::parse::ast::{Inst as AstInst, Operand, VarSpace};

/// `call` taken apart.
struct Call<'a> {
    returns: &'a [Operand],
    name: &'a str,
    args: &'a [Operand],
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
    match rest {
        [Operand::Name(name, 0)] => Ok(Call { returns, name, args: &[] }),
        [Operand::Name(name, 0), Operand::List(args)] => Ok(Call { returns, name, args }),
        _ => Err("indirect calls are not supported".into()),
    }
}

impl Lower<'_> {
    pub(super) fn call(&mut self, inst: &AstInst) -> Result<(), LoadError> {
        let call = take_apart(inst).map_err(|message| error_at(inst, message))?;
        if call.name == "__assertfail" {
            return self.assert_fail(&call).map_err(|message| error_at(inst, message));
        }
        let found = self.unit.functions.iter().position(|f| f.name == call.name && f.defined);
        let Some(index) = found else {
            return Err(error_at(inst, format!("external function `{}` is not supported", call.name)));
        };
        let vars = self.bind(&call, index).map_err(|message| error_at(inst, message))?;
        self.instance(index, vars)
    }

    /// Gives the formal parameters of a callee the places of the caller's arguments.
    fn bind(&mut self, call: &Call<'_>, index: usize) -> Lowered<Vec<Option<Place>>> {
        if self.frames.iter().any(|f| f.index == index) {
            return Err(format!("`{}` is recursive, which is not supported", call.name));
        }
        if self.frames.len() >= MAX_CALL_DEPTH {
            return Err(format!("calls are nested deeper than {MAX_CALL_DEPTH}"));
        }
        let callee = &self.unit.functions[index];
        if callee.params.len() != call.args.len() || callee.returns.len() != call.returns.len() {
            return Err(format!(
                "`{}` takes {} parameters and returns {}; {} and {} given",
                call.name,
                callee.params.len(),
                callee.returns.len(),
                call.args.len(),
                call.returns.len()
            ));
        }
        let mut vars = vec![None; callee.vars.len()];
        let formals = callee.params.iter().chain(&callee.returns);
        for (&formal, actual) in formals.zip(call.args.iter().chain(call.returns)) {
            let (place, bytes) = self.argument(actual)?;
            if callee.vars[formal].bytes > bytes {
                return Err(format!("an argument of `{}` is too small", call.name));
            }
            vars[formal] = Some(place);
        }
        Ok(vars)
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

    /// `__assertfail(message, file, line, function, size)`.
    fn assert_fail(&mut self, call: &Call<'_>) -> Lowered {
        let [message, file, line, ..] = call.args else {
            return Err("`__assertfail` takes five parameters".into());
        };
        let mut load = |actual: &Operand, bytes: u32| -> Lowered<Slot> {
            match self.argument(actual)? {
                (Place::Local(at), size) if size >= u64::from(bytes) => self.load_local(at, bytes),
                _ => Err("an argument of `__assertfail` has the wrong size".into()),
            }
        };
        let (message, file, line) = (load(message, 8)?, load(file, 8)?, load(line, 4)?);
        self.emit(Op::AssertFail { message, file, line })
    }
}
