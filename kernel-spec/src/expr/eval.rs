//! Python's arithmetic on 64-bit integers and finite floats. A step that would leave them is refused with its place.
//! Leaves to others: the tree.

use std::cmp::Ordering;

use super::parse::{Node, Operation};
use super::{Fault, Lookup, Value};
use crate::words;

/// The value of a tree.
pub(super) fn evaluate(node: &Node, names: &dyn Lookup) -> Result<Value, Fault> {
    match node {
        Node::Constant(value) => Ok(value.clone()),
        Node::Name { name, at } => names.get(name).ok_or_else(|| {
            let shown = words::one_line(name);
            Fault::new(*at, format!("unknown name `{shown}`: {}", words::suggestion(name, names.names())))
        }),
        Node::Negate { at, of } => negate(evaluate(of, names)?, *at),
        Node::Not(of) => Ok(Value::Bool(!evaluate(of, names)?.truth())),
        Node::Chain { first, rest } => {
            let mut value = evaluate(first, names)?;
            for Operation { sign, at, right } in rest {
                value = binary(sign, value, evaluate(right, names)?, *at)?;
            }
            Ok(value)
        }
        Node::Compare { first, rest } => compare(first, rest, names),
        Node::Power(base, at, exponent) => power(evaluate(base, names)?, evaluate(exponent, names)?, *at),
        Node::Logic { or, terms } => {
            let mut value = Value::Bool(!or);
            for term in terms {
                value = evaluate(term, names)?;
                if value.truth() == *or {
                    break;
                }
            }
            Ok(value)
        }
        Node::If { condition, then, otherwise } => {
            evaluate(if evaluate(condition, names)?.truth() { then } else { otherwise }, names)
        }
        Node::Call { function, at, arguments } => {
            let values = arguments.iter().map(|a| evaluate(a, names)).collect::<Result<Vec<_>, _>>()?;
            call(function, &values, *at)
        }
    }
}

/// Two numbers as Python would combine them: both integers, or both floats.
enum Pair {
    Int(i64, i64),
    Float(f64, f64),
}

fn pair(sign: &str, left: &Value, right: &Value, at: usize) -> Result<Pair, Fault> {
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return Ok(Pair::Int(a, b));
    }
    Ok(Pair::Float(number(sign, left, at)?, number(sign, right, at)?))
}

fn number(what: &str, value: &Value, at: usize) -> Result<f64, Fault> {
    match value {
        Value::Float(value) => Ok(*value),
        Value::Int(value) => Ok(*value as f64),
        Value::Bool(value) => Ok(f64::from(u8::from(*value))),
        Value::Str(_) => Err(Fault::new(at, format!("{what} needs numbers, and {value} is {}", value.kind()))),
    }
}

fn integer(what: &str, value: &Value, at: usize) -> Result<i64, Fault> {
    value.as_int().ok_or_else(|| Fault::new(at, format!("{what} needs integers, and {value} is {}", value.kind())))
}

fn finite(value: f64, at: usize) -> Result<Value, Fault> {
    if value.is_finite() { Ok(Value::Float(value)) } else { Err(Fault::new(at, "overflow: not a finite number")) }
}

fn whole(value: Option<i64>, at: usize) -> Result<Value, Fault> {
    value.map(Value::Int).ok_or_else(|| Fault::new(at, "overflow: beyond 64-bit integers"))
}

fn by_zero(at: usize) -> Fault {
    Fault::new(at, "division by zero")
}

fn negate(value: Value, at: usize) -> Result<Value, Fault> {
    match value {
        Value::Float(value) => Ok(Value::Float(-value)),
        other => whole(integer("-", &other, at)?.checked_neg(), at),
    }
}

fn binary(sign: &str, left: Value, right: Value, at: usize) -> Result<Value, Fault> {
    if let ("+", Value::Str(a), Value::Str(b)) = (sign, &left, &right) {
        return Ok(Value::Str(format!("{a}{b}")));
    }
    match (sign, pair(sign, &left, &right, at)?) {
        ("+", Pair::Int(a, b)) => whole(a.checked_add(b), at),
        ("-", Pair::Int(a, b)) => whole(a.checked_sub(b), at),
        ("*", Pair::Int(a, b)) => whole(a.checked_mul(b), at),
        ("/" | "//" | "%", Pair::Int(_, 0)) => Err(by_zero(at)),
        ("//", Pair::Int(a, b)) => whole(floor_div(a, b), at),
        // The remainder of the only division that overflows is 0.
        ("%", Pair::Int(a, b)) => {
            Ok(Value::Int(a.checked_rem(b).map_or(0, |r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r })))
        }
        ("/", Pair::Int(a, b)) => finite(a as f64 / b as f64, at),
        ("+", Pair::Float(a, b)) => finite(a + b, at),
        ("-", Pair::Float(a, b)) => finite(a - b, at),
        ("*", Pair::Float(a, b)) => finite(a * b, at),
        (_, Pair::Float(_, 0.0)) => Err(by_zero(at)),
        ("//", Pair::Float(a, b)) => finite(divide_floats(a, b).0, at),
        ("%", Pair::Float(a, b)) => finite(divide_floats(a, b).1, at),
        (_, Pair::Float(a, b)) => finite(a / b, at),
        (other, Pair::Int(..)) => Err(Fault::new(at, format!("unknown operator {other}"))),
    }
}

fn floor_div(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    Some(if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
}

/// Quotient and remainder as CPython computes them: the remainder is exact, and has the sign of the divisor.
fn divide_floats(a: f64, b: f64) -> (f64, f64) {
    let mut remainder = a % b;
    let mut quotient = (a - remainder) / b;
    if remainder == 0.0 {
        remainder = 0_f64.copysign(b);
    } else if (remainder < 0.0) != (b < 0.0) {
        remainder += b;
        quotient -= 1.0;
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, remainder)
}

fn power(base: Value, exponent: Value, at: usize) -> Result<Value, Fault> {
    match pair("**", &base, &exponent, at)? {
        Pair::Int(base, exponent @ 0..) => {
            // Beyond 2^32 only 0, 1 and -1 have a power, and those depend on the parity alone.
            let exponent = u32::try_from(exponent).unwrap_or(u32::MAX - 1 + (exponent % 2) as u32);
            whole(base.checked_pow(exponent), at)
        }
        Pair::Int(base, exponent) => float_power(base as f64, exponent as f64, at),
        Pair::Float(base, exponent) => float_power(base, exponent, at),
    }
}

fn float_power(base: f64, exponent: f64, at: usize) -> Result<Value, Fault> {
    if base == 0.0 && exponent < 0.0 {
        return Err(by_zero(at));
    }
    if base < 0.0 && exponent.fract() != 0.0 {
        return Err(Fault::new(at, "a broken power of a negative number has no real value"));
    }
    finite(base.powf(exponent), at)
}

fn compare(first: &Node, rest: &[Operation], names: &dyn Lookup) -> Result<Value, Fault> {
    let mut left = evaluate(first, names)?;
    for Operation { sign, at, right } in rest {
        let right = evaluate(right, names)?;
        let order = left.order(&right);
        let holds = match (*sign, order) {
            ("==", order) => order == Some(Ordering::Equal),
            ("!=", order) => order != Some(Ordering::Equal),
            (_, None) => {
                let why = format!("{sign} cannot order {} and {}", left.kind(), right.kind());
                return Err(Fault::new(*at, why));
            }
            ("<", Some(order)) => order.is_lt(),
            ("<=", Some(order)) => order.is_le(),
            (">", Some(order)) => order.is_gt(),
            (_, Some(order)) => order.is_ge(),
        };
        if !holds {
            return Ok(Value::Bool(false));
        }
        left = right;
    }
    Ok(Value::Bool(true))
}

fn call(function: &str, arguments: &[Value], at: usize) -> Result<Value, Fault> {
    match (function, arguments) {
        ("ceil_div", [a, b]) => {
            let (a, b) = (integer(function, a, at)?, integer(function, b, at)?);
            if b == 0 {
                return Err(by_zero(at));
            }
            whole(floor_div(a, b).and_then(|floor| floor.checked_add(i64::from(a % b != 0))), at)
        }
        ("next_pow2", [value]) => {
            let value = integer(function, value, at)?.max(1) as u64;
            whole(value.checked_next_power_of_two().and_then(|p| i64::try_from(p).ok()), at)
        }
        ("sqrt", [value]) => {
            let value = number(function, value, at)?;
            if value < 0.0 {
                return Err(Fault::new(at, format!("{value:?} has no square root")));
            }
            finite(value.sqrt(), at)
        }
        ("exp2", [value]) => finite(number(function, value, at)?.exp2(), at),
        ("log2", [value]) => {
            let value = number(function, value, at)?;
            if value <= 0.0 {
                return Err(Fault::new(at, format!("{value:?} has no logarithm")));
            }
            finite(value.log2(), at)
        }
        ("min" | "max", [first, rest @ ..]) => {
            let wanted = if function == "min" { Ordering::Less } else { Ordering::Greater };
            let mut best = first;
            for value in rest {
                let Some(order) = value.order(best) else {
                    return Err(Fault::new(
                        at,
                        format!("{function} cannot order {} and {}", value.kind(), best.kind()),
                    ));
                };
                if order == wanted {
                    best = value;
                }
            }
            Ok(best.clone())
        }
        _ => Err(Fault::new(at, format!("unknown function {function}"))),
    }
}
