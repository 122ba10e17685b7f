//! Forms that nvcc seldom or never writes, and other compilers and people do.

use super::table::Table;

/// Adds them to the table.
pub(super) fn rows(t: &mut Table) {
    products(t);
    masks(t);
    comparisons(t);
    doubles(t);
    saturated(t);
    video(t);
}

fn products(t: &mut Table) {
    for sign in ["u", "s"] {
        for half in ["lo", "hi"] {
            t.plain(&format!("mul24.{half}.{sign}32"), "ww", 'w');
            t.plain(&format!("mad24.{half}.{sign}32"), "www", 'w');
            for other in ["u", "s"] {
                t.plain(&format!("dp2a.{half}.{sign}32.{other}32"), "www", 'w');
            }
        }
        t.plain(&format!("sad.{sign}16"), "hhh", 'h');
        t.plain(&format!("sad.{sign}64"), "ddd", 'd');
    }
    t.plain("mad.hi.sat.s32", "www", 'w');
    t.plain("mad24.hi.sat.s32", "www", 'w');
}

fn masks(t: &mut Table) {
    t.plain("bmsk.clamp.b32", "ww", 'w');
    t.plain("bmsk.wrap.b32", "ww", 'w');
    for ty in ["u8", "s8"] {
        t.plain(&format!("cvt.pack.sat.{ty}.s32.b32"), "www", 'w');
    }
    for ty in ["u16", "s16"] {
        t.plain(&format!("cvt.pack.sat.{ty}.s32"), "ww", 'w');
    }
}

fn comparisons(t: &mut Table) {
    let odd = "and.b32 %c, %a, 1;\nsetp.ne.u32 %p, %c, 0;\n";
    for combine in ["and", "or", "xor"] {
        for form in ["lt.{}.u32.s32", "hs.{}.f32.u32", "neu.{}.u32.f32", "gtu.{}.ftz.f32.f32"] {
            let name = format!("set.{}", form.replace("{}", combine));
            let (sources, odd) = match form.ends_with("f32.f32") || form.ends_with("u32.f32") {
                true => ("ffw", odd.replace("%a", "%c")),
                false => ("www", odd.to_owned()),
            };
            let result = if name.contains(".f32.") && !name.contains("u32.f32") { 'f' } else { 'w' };
            t.text(&name, &format!("{odd}{name} %d, %a, %b, %p;"), sources, result);
        }
    }
    for form in ["min.ftz.f16", "max.ftz.f16", "min.ftz.NaN.f16", "max.ftz.NaN.f16"] {
        t.plain(form, "ee", 'e');
    }
    t.plain("min.ftz.f16x2", "xx", 'x');
    t.plain("max.ftz.f16x2", "xx", 'x');
    t.plain("set.lt.ftz.u32.f16", "ee", 'w');
}

fn doubles(t: &mut Table) {
    for round in ["rz", "rm", "rp"] {
        for opcode in ["add", "sub", "mul", "div"] {
            t.plain(&format!("{opcode}.{round}.f64"), "gg", 'g');
        }
        t.plain(&format!("fma.{round}.f64"), "ggg", 'g');
        t.plain(&format!("sqrt.{round}.f64"), "g", 'g');
        t.plain(&format!("rcp.{round}.f64"), "g", 'g');
    }
}

fn saturated(t: &mut Table) {
    for round in ["rn", "rz", "rm", "rp"] {
        for (to, kind) in [("f32", 'f'), ("f64", 'g'), ("f16", 'e')] {
            for (from, source) in [("s32", "w"), ("u32", "w"), ("s16", "h"), ("u16", "h")] {
                t.plain(&format!("cvt.{round}.sat.{to}.{from}"), source, kind);
            }
        }
    }
    t.plain("cvt.sat.f16.f16", "e", 'e');
    t.plain("cvt.rna.tf32.f32", "f", 'w');
}

fn video(t: &mut Table) {
    for sat in ["", ".sat"] {
        for opcode in ["vadd", "vsub", "vabsdiff", "vmin", "vmax"] {
            for (to, a, b) in [("u32", "u32", "u32"), ("s32", "s32", "s32"), ("s32", "u32", "s32")] {
                t.plain(&format!("{opcode}.{to}.{a}.{b}{sat}"), "ww", 'w');
            }
            t.plain(&format!("{opcode}.u32.s32.s32{sat}.add"), "www", 'w');
        }
        for mode in ["clamp", "wrap"] {
            for (to, a) in [("u32", "u32"), ("s32", "s32"), ("u32", "s32")] {
                t.plain(&format!("vshr.{to}.{a}.u32{sat}.{mode}"), "ww", 'w');
                t.plain(&format!("vshr.{to}.{a}.u32{sat}.{mode}.add"), "www", 'w');
            }
        }
    }
    for mode in ["clamp", "wrap"] {
        t.plain(&format!("vshl.u32.u32.u32.{mode}"), "ww", 'w');
    }
    let merged = "vadd.u32.u32.u32.sat %d.b2, %a.b0, %b.b3, %c;";
    t.text("vadd of bytes into a byte", merged, "www", 'w');
    t.text("vadd of halves", "vadd.u32.s32.s32 %d, %a.h1, %b.h0;", "ww", 'w');
}
