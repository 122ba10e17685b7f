//! `vprintf`: formatted output of device code, collected until the launch has ended.

use crate::exec::run::block::{Block, Context};
use crate::exec::run::warp::Warp;
use crate::isa::op::Print;
use crate::isa::space::{LOCAL_WINDOW, WINDOW_BYTES};
use crate::machine::regs::{LANES, each_lane};
use crate::report::{Kind, RawSite, Severity};

/// Output that a launch collects, in bytes: as much as the buffer of the hardware holds unless asked for more.
pub(crate) const MAX_PRINTED: usize = 1 << 20;
/// Longest text behind `%s` and longest format.
const MAX_TEXT: usize = 1 << 14;
/// Widest field and finest precision that a format may ask for.
const MAX_FIELD: usize = 1 << 10;

/// A text in global memory up to its end, at most `limit` bytes.
pub(crate) fn device_text(context: &Context<'_>, mut address: u64, limit: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < limit
        && let Some(allocation) = context.memory.find(address, 1)
        && let byte @ 1..=255 = allocation.load(address - allocation.base, 1)
    {
        out.push(byte as u8);
        address += 1;
    }
    out
}

/// The values behind a format, read one after the other.
struct Values<'a> {
    context: &'a Context<'a>,
    warp: &'a Warp,
    lane: usize,
    next: u64,
    count: u32,
    undefined: bool,
}

impl Values<'_> {
    /// The next value of `bytes` size, at its own alignment; zero where nothing is mapped.
    fn take(&mut self, bytes: u64) -> u64 {
        let at = self.next.next_multiple_of(bytes);
        self.next = at + bytes;
        self.count += 1;
        let size = self.warp.local.len() / LANES;
        let offset = at.wrapping_sub(LOCAL_WINDOW);
        if offset < WINDOW_BYTES {
            let end = (offset + bytes) as usize;
            if end > size {
                self.undefined = true;
                return 0;
            }
            let range = size * self.lane + offset as usize..size * self.lane + end;
            let unknown = self.warp.local_unknown.get(range.clone());
            self.undefined |= unknown.is_some_and(|bytes| bytes.iter().any(|&bits| bits != 0));
            return self.warp.local[range].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        }
        match self.context.memory.find(at, bytes) {
            Some(allocation) => {
                let offset = at - allocation.base;
                self.undefined |= !allocation.is_defined(offset, bytes as u32);
                allocation.load(offset, bytes as u32)
            }
            None => {
                self.undefined = true;
                0
            }
        }
    }
}

/// One `%…` of a format.
#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
    /// Size of an integer in bytes.
    bytes: u64,
}

impl Block {
    pub(crate) fn print(&mut self, context: &Context<'_>, warp: &mut Warp, pc: usize, active: u32, print: &Print) {
        let mut counts = [0; LANES];
        let mut undefined = 0;
        each_lane(active, |lane| {
            let format = warp.regs.d[usize::from(print.format.row)].0[lane];
            let next = warp.regs.d[usize::from(print.values.row)].0[lane];
            let mut values = Values { context, warp, lane, next, count: 0, undefined: false };
            let line = formatted(&device_text(context, format, MAX_TEXT), &mut values);
            if self.printed.len() < MAX_PRINTED {
                self.printed.push_str(&line);
            }
            counts[lane] = values.count;
            undefined |= u32::from(values.undefined) << lane;
        });
        warp.regs.set_w(print.dst, &counts, active);
        if context.launch.checks.uninitialised {
            warp.regs.taint_w(print.dst, 0, active);
            if undefined != 0 {
                let lane = undefined.trailing_zeros();
                let site = RawSite { role: "prints", pc: pc as u32, warp: warp.index as u32, lane };
                self.report(context, Kind::UninitialisedStore, Severity::Error, &[site], || {
                    "uninitialised value printed".into()
                });
            }
        }
    }
}

/// The text that `printf` makes of a format and its values.
fn formatted(format: &[u8], values: &mut Values<'_>) -> String {
    let mut out = Vec::new();
    let mut rest = format;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut spec = Spec::default();
        rest = spec.read(rest, values);
        let Some((&conversion, tail)) = rest.split_first() else { break };
        rest = tail;
        spec.write(conversion, values, &mut out);
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Spec {
    /// Reads flags, width, precision and length; returns what is left from the conversion on.
    fn read<'a>(&mut self, mut rest: &'a [u8], values: &mut Values<'_>) -> &'a [u8] {
        while let Some((&flag, tail)) = rest.split_first() {
            match flag {
                b'-' => self.left = true,
                b'+' => self.plus = true,
                b' ' => self.space = true,
                b'#' => self.alternate = true,
                b'0' => self.zeros = true,
                _ => break,
            }
            rest = tail;
        }
        if let Some((width, tail)) = number(rest, values) {
            self.left |= width < 0;
            self.width = (width.unsigned_abs() as usize).min(MAX_FIELD);
            rest = tail;
        }
        if let Some((b'.', tail)) = rest.split_first() {
            let (precision, tail) = number(tail, values).unwrap_or((0, tail));
            self.precision = usize::try_from(precision).ok().map(|p| p.min(MAX_FIELD));
            rest = tail;
        }
        self.bytes = 4;
        while let Some((&length, tail)) = rest.split_first() {
            match length {
                b'h' => {}
                b'l' | b'j' | b'z' | b't' => self.bytes = 8,
                _ => break,
            }
            rest = tail;
        }
        rest
    }

    fn write(&self, conversion: u8, values: &mut Values<'_>, out: &mut Vec<u8>) {
        match conversion {
            b'%' => out.push(b'%'),
            b'c' => {
                let byte = values.take(4) as u8;
                self.pad(&[], &[byte], false, out);
            }
            b's' => {
                let text = device_text(values.context, values.take(8), MAX_TEXT);
                let shown = self.precision.map_or(text.len(), |p| p.min(text.len()));
                self.pad(&[], &text[..shown], false, out);
            }
            b'p' => {
                let text = format!("0x{:x}", values.take(8));
                self.pad(&[], text.as_bytes(), false, out);
            }
            b'd' | b'i' => {
                let raw = values.take(self.bytes);
                let value = if self.bytes == 4 { i64::from(raw as i32) } else { raw as i64 };
                self.integer(value < 0, "", &value.unsigned_abs().to_string(), out);
            }
            b'u' => self.integer(false, "", &values.take(self.bytes).to_string(), out),
            b'x' => self.integer(false, "0x", &format!("{:x}", values.take(self.bytes)), out),
            b'X' => self.integer(false, "0X", &format!("{:X}", values.take(self.bytes)), out),
            b'o' => self.integer(false, "0", &format!("{:o}", values.take(self.bytes)), out),
            b'f' | b'F' | b'e' | b'E' | b'g' | b'G' | b'a' | b'A' => {
                self.float(conversion, f64::from_bits(values.take(8)), out);
            }
            // `%n` and what does not exist print nothing but themselves.
            other => out.extend([b'%', other]),
        }
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    fn integer(&self, negative: bool, prefix: &str, digits: &str, out: &mut Vec<u8>) {
        let prefix = if self.alternate && digits != "0" { prefix } else { "" };
        let sign = if prefix.is_empty() { self.sign(negative) } else { prefix };
        let missing = self.precision.unwrap_or(1).saturating_sub(digits.len());
        let digits = if self.precision == Some(0) && digits == "0" { "" } else { digits };
        let body = format!("{}{digits}", "0".repeat(missing));
        self.pad(sign.as_bytes(), body.as_bytes(), self.precision.is_none(), out);
    }

    fn float(&self, conversion: u8, value: f64, out: &mut Vec<u8>) {
        let sign = self.sign(value.is_sign_negative());
        let magnitude = value.abs();
        let precision = self.precision.unwrap_or(6);
        let body = match conversion | 0x20 {
            _ if magnitude.is_nan() => "nan".to_owned(),
            _ if magnitude.is_infinite() => "inf".to_owned(),
            b'f' => format!("{magnitude:.precision$}"),
            b'e' => scientific(magnitude, precision),
            b'g' => shortest(magnitude, precision.max(1), self.alternate),
            _ => hexadecimal(magnitude),
        };
        let body = if conversion.is_ascii_uppercase() { body.to_uppercase() } else { body };
        self.pad(sign.as_bytes(), body.as_bytes(), magnitude.is_finite(), out);
    }

    /// Appends sign and body, filled up to the width.
    fn pad(&self, sign: &[u8], body: &[u8], may_fill_with_zeros: bool, out: &mut Vec<u8>) {
        let fill = self.width.saturating_sub(sign.len() + body.len());
        let zeros = self.zeros && !self.left && may_fill_with_zeros;
        if !self.left && !zeros {
            out.extend(std::iter::repeat_n(b' ', fill));
        }
        out.extend(sign);
        if zeros {
            out.extend(std::iter::repeat_n(b'0', fill));
        }
        out.extend(body);
        if self.left {
            out.extend(std::iter::repeat_n(b' ', fill));
        }
    }
}

/// A decimal number or `*`, whose value is the next argument.
fn number<'a>(text: &'a [u8], values: &mut Values<'_>) -> Option<(i64, &'a [u8])> {
    if let Some((b'*', tail)) = text.split_first() {
        return Some((i64::from(values.take(4) as i32), tail));
    }
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = text[..digits]
        .iter()
        .fold(0i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    (digits > 0).then_some((value, &text[digits..]))
}

/// `d.ddde±dd`.
fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// `%g`: as `%e` for large and small exponents, otherwise as `%f`; trailing zeros only where they are asked for.
fn shortest(value: f64, precision: usize, keep_zeros: bool) -> String {
    let rounded = format!("{value:.*e}", precision - 1);
    let exponent: i32 = rounded.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let strip = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= precision as i32 {
        let text = scientific(value, precision - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{exponent}", strip(mantissa));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    strip(&format!("{value:.decimals$}"))
}

/// `%a`: the bits of the number.
fn hexadecimal(value: f64) -> String {
    let bits = value.to_bits();
    let (biased, fraction) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
    let (lead, exponent) = match (biased, fraction) {
        (0, 0) => (0, 0),
        (0, _) => (0, -1022),
        _ => (1, biased - 1023),
    };
    let digits = format!("{fraction:013x}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("0x{lead}{point}{digits}p{exponent:+}")
}
