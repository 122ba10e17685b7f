//! Random programs: valid, without races, and the same whatever the schedule. Each computes the same bits on two
//! schedules, with every instruction set of this machine and every subset of the checks, and nothing is found unless
//! the program works on undefined values.
//!
//! `RANDOM_PROGRAMS=10000 cargo test --release -p ptx-emulator --lib random_programs` tries as many;
//! `RANDOM_SEED` says where to begin.

use std::fmt::Write as _;

use crate::exec::run::grid::run_at;
use crate::machine::simd::Level;
use crate::{Checks, Finding, Kernel, Launch, Memory, Module, Params, Schedule};

/// Programs of a test run that nobody asked for more.
const PROGRAMS: u64 = 40;
/// Threads of a block, and blocks.
const THREADS: u32 = 64;
const BLOCKS: u32 = 2;
/// Bytes of input and of output of a thread.
const ROW: u32 = 64;
const OUT: u32 = 96;

/// Operations of one thread: opcode, kind of the result, kinds of the operands. Kinds are `r` 32 bits, `d` 64 bits,
/// `h` 16 bits, `p` a predicate.
const OPERATIONS: &[(&str, &str, &str)] = &[
    ("add.u32", "r", "rr"),
    ("sub.s32", "r", "rr"),
    ("mul.lo.u32", "r", "rr"),
    ("mul.hi.s32", "r", "rr"),
    ("mad.lo.s32", "r", "rrr"),
    ("mul.wide.u32", "d", "rr"),
    ("mul.wide.s16", "r", "hh"),
    ("mad.wide.s32", "d", "rrd"),
    ("and.b32", "r", "rr"),
    ("or.b32", "r", "rr"),
    ("xor.b32", "r", "rr"),
    ("not.b32", "r", "r"),
    ("shl.b32", "r", "rr"),
    ("shr.u32", "r", "rr"),
    ("shr.s32", "r", "rr"),
    ("shf.l.wrap.b32", "r", "rrr"),
    ("shf.r.clamp.b32", "r", "rrr"),
    ("prmt.b32", "r", "rrr"),
    ("bfe.s32", "r", "rrr"),
    ("bfi.b32", "r", "rrrr"),
    ("popc.b32", "r", "r"),
    ("clz.b64", "r", "d"),
    ("brev.b32", "r", "r"),
    ("bfind.u32", "r", "r"),
    ("min.s32", "r", "rr"),
    ("max.u32", "r", "rr"),
    ("abs.s32", "r", "r"),
    ("div.u32", "r", "rr"),
    ("rem.s32", "r", "rr"),
    ("sad.u32", "r", "rrr"),
    ("dp4a.s32.u32", "r", "rrr"),
    ("add.u64", "d", "dd"),
    ("sub.s64", "d", "dd"),
    ("mul.lo.u64", "d", "dd"),
    ("xor.b64", "d", "dd"),
    ("shl.b64", "d", "dr"),
    ("shr.s64", "d", "dr"),
    ("add.u16", "h", "hh"),
    ("mul.lo.u16", "h", "hh"),
    ("min.s16", "h", "hh"),
    ("shr.s16", "h", "hr"),
    ("add.f32", "r", "rr"),
    ("sub.rn.ftz.f32", "r", "rr"),
    ("mul.f32", "r", "rr"),
    ("fma.rn.f32", "r", "rrr"),
    ("fma.rz.ftz.sat.f32", "r", "rrr"),
    ("min.f32", "r", "rr"),
    ("max.ftz.f32", "r", "rr"),
    ("div.rn.f32", "r", "rr"),
    ("sqrt.rn.f32", "r", "r"),
    ("ex2.approx.ftz.f32", "r", "r"),
    ("rcp.approx.f32", "r", "r"),
    ("fma.rn.f16x2", "r", "rrr"),
    ("max.bf16x2", "r", "rr"),
    ("add.rn.f64", "d", "dd"),
    ("fma.rn.f64", "d", "ddd"),
    ("cvt.rn.f16.f32", "h", "r"),
    ("cvt.f32.f16", "r", "h"),
    ("cvt.rzi.s32.f32", "r", "r"),
    ("cvt.rni.s16.f32", "r", "r"),
    ("cvt.rn.f32.s32", "r", "r"),
    ("cvt.u64.u32", "d", "r"),
    ("cvt.s64.s32", "d", "r"),
    ("cvt.u32.u64", "r", "d"),
    ("cvt.u16.u32", "h", "r"),
    ("cvt.s16.s8", "r", "r"),
    ("cvt.s32.s16", "r", "h"),
    ("cvt.sat.u8.s32", "r", "r"),
    ("cvt.rn.bf16x2.f32", "r", "rr"),
    ("cvt.rn.satfinite.e4m3x2.f32", "h", "rr"),
    ("cvt.rn.f16x2.e4m3x2", "r", "h"),
    ("setp.lt.s32", "p", "rr"),
    ("setp.ne.u64", "p", "dd"),
    ("setp.gtu.f32", "p", "rr"),
    ("setp.eq.s16", "p", "hh"),
    ("setp.ge.or.u32", "p", "rrp"),
    ("and.pred", "p", "pp"),
    ("xor.pred", "p", "pp"),
    ("not.pred", "p", "p"),
    ("selp.b32", "r", "rrp"),
    ("selp.b64", "d", "ddp"),
];

/// Small deterministic generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A program being written.
struct Writer {
    random: Random,
    text: String,
    labels: u32,
}

impl Writer {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}");
    }

    /// A register of a kind.
    fn register(&mut self, kind: char) -> String {
        let count = if kind == 'r' { 10 } else { 4 };
        format!("%{kind}{}", self.random.below(count))
    }

    /// A source: now and then a constant.
    fn source(&mut self, kind: char) -> String {
        match (kind, self.random.below(6)) {
            ('r', 0) => self.random.pick(&["0", "1", "31", "-1", "0x3f800000", "0x7fc00000", "0x80000000"]).to_owned(),
            _ => self.register(kind),
        }
    }

    fn guard(&mut self) -> String {
        match self.random.below(8) {
            0 => format!("@{} ", self.register('p')),
            1 => format!("@!{} ", self.register('p')),
            _ => String::new(),
        }
    }

    fn operation(&mut self) {
        if self.random.below(12) == 0 {
            let first = self.random.pick(&["add.cc", "sub.cc"]);
            let second = self.random.pick(&["addc", "subc"]);
            let [a, b, c] = [(); 3].map(|()| self.register('r'));
            return self.line(&format!("{first}.u32 {a}, {b}, {c};\n{second}.u32 {b}, {c}, {a};"));
        }
        let (opcode, result, sources) = OPERATIONS[self.random.below(OPERATIONS.len() as u64) as usize];
        let mut text = self.guard() + opcode + " " + &self.register(result.chars().next().unwrap_or('r'));
        for kind in sources.chars() {
            text += ", ";
            // Floats take no integer constants, conversions no constants at all.
            text += &if opcode.contains('f') || opcode.starts_with("cvt") {
                self.register(kind)
            } else {
                self.source(kind)
            };
        }
        self.line(&(text + ";"));
    }

    /// Memory that belongs to one thread: input, a slot in shared memory, local memory, counters that only add up.
    fn access(&mut self) {
        let word = 4 * self.random.below(4);
        let guard = self.guard();
        let (r, r2, d, h) = (self.register('r'), self.register('r'), self.register('d'), self.register('h'));
        let counter = self.random.below(4);
        let text = match self.random.below(13) {
            0 => format!("{guard}ld.global.u32 {r}, [%in+{word}];"),
            1 => format!("{guard}ld.global.nc.v2.u32 {{%r2, %r3}}, [%in+{}];", 8 * (word % 8)),
            2 => format!("{guard}ld.global.s8 {r}, [%in+{}];", word + 3),
            3 => format!("{guard}ld.global.u64 {d}, [%in+{}];", 2 * word),
            4 => format!("{guard}ld.global.s16 {h}, [%in+{}];", word + 2),
            5 => format!("{guard}st.shared.u32 [%s+{word}], {r};"),
            6 => format!("{guard}st.shared.v2.u32 [%s+{}], {{{r}, {r2}}};", word & 8),
            7 => format!("{guard}st.shared.u8 [%s+{}], {r};", word + 1),
            8 => format!("{guard}ld.shared.u32 {r}, [%s+{word}];"),
            9 => format!("{guard}ld.shared.v4.u32 {{%r0, %r1, %r2, %r3}}, [%s];"),
            10 => format!("{guard}st.local.u32 [stack+{word}], {r};\nld.local.u16 {h}, [stack+{}];", word ^ 4),
            11 => {
                let operation = ["add.u32", "xor.b32", "max.s32", "or.b32"][counter as usize];
                format!("{guard}red.shared.{operation} [counters+{}], {r};", 4 * counter)
            }
            _ => format!(
                "cp.async.ca.shared.global [%s+1024], [%in+{}], 16;\ncp.async.commit_group;\n\
                 cp.async.wait_group 0;\nld.shared.u32 {r}, [%s+{}];",
                16 * (word / 4),
                1024 + word
            ),
        };
        self.line(&text);
    }

    /// What only a whole warp or block does together.
    fn together(&mut self) {
        let (r, r2, p) = (self.register('r'), self.register('r'), self.register('p'));
        let text = match self.random.below(9) {
            0 => {
                let mode = self.random.pick(&["bfly", "up", "down", "idx"]);
                let (lane, clamp) = (self.random.below(32), self.random.pick(&["31", "0x181f"]));
                let clamp = if mode == "up" { "0" } else { clamp };
                format!("shfl.sync.{mode}.b32 {r}|{p}, {r2}, {lane}, {clamp}, -1;")
            }
            1 => format!("vote.sync.ballot.b32 {r}, {p}, -1;"),
            2 => format!("vote.sync.{}.pred {p}, %p0, -1;", self.random.pick(&["all", "any", "uni"])),
            3 => format!("redux.sync.{} {r}, {r2}, -1;", self.random.pick(&["add.s32", "max.u32", "xor.b32"])),
            4 => format!("and.b32 {r}, {r}, 3;\nmatch.any.sync.b32 {r2}, {r}, -1;"),
            5 => "bar.warp.sync -1;\nldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4, %r5, %r6, %r7}, [%s];\n\
                  bar.warp.sync -1;"
                .to_owned(),
            6 => "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, \
                  {%r8, %r9}, {%r0, %r1, %r2, %r3};"
                .to_owned(),
            7 => format!("bar.red.popc.u32 {r}, 0, {p};"),
            // Slots change hands between two barriers.
            _ => format!(
                "bar.sync 0;\nmov.u32 %t, %tid.x;\nxor.b32 %t, %t, {};\nshl.b32 %t, %t, 4;\nmov.u32 %u, pool;\n\
                 add.u32 %t, %t, %u;\nld.shared.v2.u32 {{{r}, {}}}, [%t+8];\nbar.sync 0;",
                self.random.below(u64::from(THREADS)),
                if r == "%r9" { "%r8" } else { "%r9" }
            ),
        };
        self.line(&text);
    }

    /// Statements of one thread, `depth` branches and loops deep.
    fn statements(&mut self, count: u64, depth: u32) {
        for _ in 0..count {
            match self.random.below(12) {
                0 if depth < 3 => self.branch(depth),
                1 if depth < 3 => self.repeated(depth),
                2..4 => self.access(),
                _ => self.operation(),
            }
        }
    }

    fn branch(&mut self, depth: u32) {
        let label = self.labels;
        self.labels += 1;
        let p = self.register('p');
        self.line(&format!("@{p} bra ELSE{label};"));
        let count = 1 + self.random.below(4);
        self.statements(count, depth + 1);
        self.line(&format!("bra END{label};\nELSE{label}:"));
        let count = self.random.below(4);
        self.statements(count, depth + 1);
        self.line(&format!("END{label}:"));
    }

    /// A loop of one to four trips, by thread.
    fn repeated(&mut self, depth: u32) {
        let label = self.labels;
        self.labels += 1;
        let (r, counter) = (self.register('r'), format!("%c{depth}"));
        self.line(&format!("and.b32 {counter}, {r}, 3;\nLOOP{label}:"));
        let count = 1 + self.random.below(4);
        self.statements(count, depth + 1);
        self.line(&format!(
            "setp.ne.u32 %q{depth}, {counter}, 0;\nsub.u32 {counter}, {counter}, 1;\n@%q{depth} bra LOOP{label};"
        ));
    }

    /// Every register starts from the input, but for two where a program is to be `loose`.
    fn prologue(&mut self, loose: bool) {
        self.line(&format!(
            "ld.param.u64 %in, [p0];\nld.param.u64 %out, [p1];\nmov.u32 %t, %ctaid.x;\nmov.u32 %u, %tid.x;\n\
             mad.lo.u32 %t, %t, {THREADS}, %u;\nmul.wide.u32 %d0, %t, {ROW};\nadd.u64 %in, %in, %d0;\n\
             mul.wide.u32 %d0, %t, {OUT};\nadd.u64 %out, %out, %d0;\nmov.u32 %s, pool;\nmad.lo.u32 %s, %u, 16, %s;"
        ));
        for i in 0..if loose { 8 } else { 10 } {
            self.line(&format!("ld.global.u32 %r{i}, [%in+{}];", 4 * i));
        }
        for i in 0..4 {
            self.line(&format!(
                "ld.global.u64 %d{i}, [%in+{}];\nld.global.u16 %h{i}, [%in+{}];\nsetp.lt.s32 %p{i}, %r{i}, %r{};",
                32 + 8 * i,
                6 * i,
                i + 1
            ));
        }
        self.line(
            "st.shared.v4.u32 [%s], {%r0, %r1, %r2, %r3};\nst.local.v4.u32 [stack], {%r4, %r5, %r6, %r7};\n\
             setp.lt.u32 %q0, %u, 4;\nmov.u32 %t, counters;\nmad.lo.u32 %t, %u, 4, %t;\n@%q0 st.shared.u32 [%t], 0;\n\
             bar.sync 0;",
        );
    }

    fn epilogue(&mut self) {
        self.line("bar.sync 0;\nld.shared.v4.u32 {%c0, %c1, %c2, %t}, [counters];\nst.global.v4.u32 [%out], {%c0, %c1, %c2, %t};");
        for i in 0..4 {
            self.line(&format!(
                "st.global.u64 [%out+{}], %d{i};\nst.global.u16 [%out+{}], %h{i};",
                16 + 8 * i,
                88 + 2 * i
            ));
        }
        for i in 0..10 {
            self.line(&format!("st.global.u32 [%out+{}], %r{i};", 48 + 4 * i));
        }
    }
}

/// The program of a seed; `loose` if it may work on undefined values.
fn program(seed: u64) -> (String, bool) {
    let mut writer = Writer { random: Random(seed), text: String::new(), labels: 0 };
    let loose = writer.random.below(4) == 0;
    let pool = 1024 + 16 * THREADS;
    writer.line(&format!(
        ".version 8.7\n.target sm_89\n.address_size 64\n.visible .entry k(.param .u64 p0, .param .u64 p1)\n{{\n\
         .reg .b32 %r<10>, %c<3>, %s, %t, %u;\n.reg .b64 %d<4>, %in, %out;\n.reg .b16 %h<4>;\n.reg .pred %p<4>, %q<3>;\n\
         .local .align 16 .b8 stack[16];\n.shared .align 16 .b8 pool[{pool}];\n.shared .align 16 .b8 counters[16];"
    ));
    writer.prologue(loose);
    for _ in 0..2 + writer.random.below(4) {
        let count = 3 + writer.random.below(10);
        writer.statements(count, 0);
        writer.together();
    }
    writer.epilogue();
    writer.line("ret;\n}");
    (writer.text, loose)
}

/// The input of every program: bytes of which a third are those that formulas treat apart.
fn input() -> Vec<u8> {
    const EDGES: [u8; 6] = [0, 0xff, 0x80, 0x3f, 0x7f, 1];
    let mut random = Random(7);
    let byte = |_| match random.below(3) {
        0 => EDGES[random.below(6) as usize],
        _ => random.below(256) as u8,
    };
    (0..ROW * THREADS * BLOCKS).map(byte).collect()
}

/// Everything that a run leaves behind.
fn result(
    (module, kernel): (&Module, &Kernel),
    input: &[u8],
    level: Level,
    checks: Checks,
    schedule: Schedule,
) -> (Vec<u8>, Vec<Finding>) {
    let mut memory = Memory::new(module);
    let input = memory.alloc_from("in", input).expect("fits");
    let output = memory.alloc_from("out", &[0; (OUT * THREADS * BLOCKS) as usize]).expect("fits");
    let params = Params::new().pointer(input).pointer(output).finish();
    let mut launch = Launch::new([BLOCKS, 1, 1], [THREADS, 1, 1], params);
    (launch.checks, launch.schedule, launch.limits.threads) = (checks, schedule, 1);
    let outcome = run_at(level, kernel, &memory, &launch).expect("the launch is valid");
    (memory.read(output).expect("own"), outcome.findings)
}

/// A number that the environment may change.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn random_programs_compute_the_same_bits_however_they_are_run() {
    let (first, input) = (setting("RANDOM_SEED", 1), input());
    for seed in first..first + setting("RANDOM_PROGRAMS", PROGRAMS) {
        let (source, loose) = program(seed);
        let module = Module::parse(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
        let kernel = module.entry("k").unwrap_or_else(|e| panic!("{e}\n{source}"));
        let execute = |level, checks, schedule| {
            let (found, findings) = result((&module, &kernel), &input, level, checks, schedule);
            let silent = findings.is_empty() || loose;
            assert!(silent, "seed {seed}, {level:?} {checks:?} {schedule:?}: {findings:#?}\n{source}");
            found
        };
        let wanted = execute(Level::base(), Checks::none(), Schedule::Greedy);
        for schedule in [Schedule::RoundRobin, Schedule::Seeded(seed)] {
            for level in Level::all() {
                for bits in 0..8 {
                    let [races, in_flight, uninitialised] = [1, 2, 4].map(|bit| bits & bit != 0);
                    let checks = Checks { races, in_flight, uninitialised };
                    let found = execute(level, checks, schedule);
                    let at = found.iter().zip(&wanted).position(|(a, b)| a != b);
                    assert_eq!(at, None, "seed {seed}, {level:?} {checks:?} {schedule:?}\n{source}");
                }
            }
        }
    }
}
