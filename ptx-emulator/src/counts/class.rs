//! Classes of PTX instructions, by opcode and modifiers.

/// What kind of work an instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Tensor,
    FloatingPoint,
    SpecialFunction,
    Integer,
    Conversion,
    Move,
    Global,
    Shared,
    MatrixMove,
    Constant,
    Local,
    Generic,
    Atomic,
    AsyncCopy,
    Control,
    Synchronisation,
    WarpWide,
    Other,
}

impl Class {
    pub(super) const ALL: [Class; 18] = [
        Class::Tensor,
        Class::FloatingPoint,
        Class::SpecialFunction,
        Class::Integer,
        Class::Conversion,
        Class::Move,
        Class::Global,
        Class::Shared,
        Class::MatrixMove,
        Class::Constant,
        Class::Local,
        Class::Generic,
        Class::Atomic,
        Class::AsyncCopy,
        Class::Control,
        Class::Synchronisation,
        Class::WarpWide,
        Class::Other,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Class::Tensor => "tensor",
            Class::FloatingPoint => "floating point",
            Class::SpecialFunction => "special functions",
            Class::Integer => "integer and logic",
            Class::Conversion => "conversions",
            Class::Move => "moves",
            Class::Global => "global memory",
            Class::Shared => "shared memory",
            Class::MatrixMove => "matrix moves",
            Class::Constant => "parameters and constants",
            Class::Local => "local memory",
            Class::Generic => "generic memory",
            Class::Atomic => "atomics",
            Class::AsyncCopy => "asynchronous copies",
            Class::Control => "control",
            Class::Synchronisation => "synchronisation",
            Class::WarpWide => "lanes of a warp",
            Class::Other => "others",
        }
    }

    /// The class of an opcode with its modifiers, such as `ld.global.v4.b32`.
    pub(super) fn of(text: &str) -> Class {
        let mut words = text.split('.');
        let opcode = words.next().unwrap_or_default();
        let has = |word: &str| text.split('.').skip(1).any(|one| one == word);
        match opcode {
            "mma" => Class::Tensor,
            "wmma" if has("mma") => Class::Tensor,
            "wgmma" if has("mma_async") => Class::Tensor,
            "wmma" | "ldmatrix" | "stmatrix" | "movmatrix" => Class::MatrixMove,
            "wgmma" | "bar" | "barrier" | "mbarrier" | "fence" | "membar" | "nanosleep" | "griddepcontrol"
            | "setmaxnreg" | "tensormap" => Class::Synchronisation,
            "ld" | "st" | "ldu" => Class::of_space(has),
            "atom" | "red" => Class::Atomic,
            "cp" => Class::AsyncCopy,
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" => Class::Control,
            "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" => Class::WarpWide,
            "ex2" | "lg2" | "sin" | "cos" | "rcp" | "rsqrt" | "sqrt" | "tanh" => Class::SpecialFunction,
            "cvt" => Class::Conversion,
            "mov" | "cvta" | "mapa" => Class::Move,
            "prefetch" | "prefetchu" | "discard" | "applypriority" => Class::Other,
            _ if ["f16", "f16x2", "bf16", "bf16x2", "f32", "f32x2", "f64"].iter().any(|ty| has(ty)) => {
                Class::FloatingPoint
            }
            _ => Class::Integer,
        }
    }

    fn of_space(has: impl Fn(&str) -> bool) -> Class {
        let named = |space: &str| has(space) || has(&format!("{space}::cta")) || has(&format!("{space}::entry"));
        if named("global") {
            Class::Global
        } else if named("shared") || has("shared::cluster") {
            Class::Shared
        } else if named("param") || named("const") {
            Class::Constant
        } else if named("local") {
            Class::Local
        } else {
            Class::Generic
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_at_its_place() {
        assert!(Class::ALL.iter().enumerate().all(|(at, class)| *class as usize == at));
    }

    #[test]
    fn opcodes_have_the_class_of_their_work() {
        let cases = [
            ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", Class::Tensor),
            ("wmma.load.a.sync.aligned.row.m16n16k16.shared.f16", Class::MatrixMove),
            ("wgmma.fence.sync.aligned", Class::Synchronisation),
            ("fma.rn.f32", Class::FloatingPoint),
            ("setp.lt.s32", Class::Integer),
            ("selp.b32", Class::Integer),
            ("ld.global.nc.v4.b32", Class::Global),
            ("st.shared::cta.b32", Class::Shared),
            ("ld.u32", Class::Generic),
            ("cp.async.cg.shared.global", Class::AsyncCopy),
            ("cvt.rn.f16x2.f32", Class::Conversion),
        ];
        for (text, class) in cases {
            assert_eq!(Class::of(text), class, "{text}");
        }
    }
}
