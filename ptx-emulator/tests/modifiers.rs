//! Every modifier that the lowering knows is obeyed or refused, wherever it is written: put into each instruction of
//! the conformance table it either is an error, or changes some answer, or stands below with the reason why it cannot.

use std::cell::LazyCell;

use ptx_emulator::conformance::{Probe, probes};

/// Words that change what an instruction computes, or how.
const WORDS: &[&str] = &[
    "rn",
    "rz",
    "rm",
    "rp",
    "rni",
    "rzi",
    "rmi",
    "rpi",
    "ftz",
    "noftz",
    "sat",
    "satfinite",
    "relu",
    "NaN",
    "approx",
    "full",
    "cc",
    "lo",
    "hi",
    "wide",
    "uni",
    "shiftamt",
    "wrap",
    "clamp",
    "l",
    "r",
    "and",
    "or",
    "xor",
    "aligned",
    "sync",
    "trans",
    "nc",
];

/// The probe with a word put behind the opcode of one of its own instructions, for each of these.
fn with_word(probe: &Probe, word: &str) -> Vec<(String, Probe)> {
    let lines: Vec<&str> = probe.ptx.lines().collect();
    let first = lines.iter().rposition(|line| line.starts_with("ld.global.b")).map_or(0, |at| at + 1);
    let last = lines.iter().rposition(|line| line.starts_with("st.global.b")).unwrap_or(0);
    let mut changed = Vec::new();
    for at in first..last {
        let (start, rest) = lines[at].split_at(lines[at].find(' ').unwrap_or(0));
        let (guard, start) = start.rsplit_once(' ').map_or(("", start), |(guard, start)| (guard, start));
        let Some((opcode, types)) = start.split_once('.').filter(|_| !start.starts_with('@')) else { continue };
        let line = format!("{guard}{opcode}.{word}.{types}{rest}");
        let mut ptx = lines.clone();
        ptx[at] = &line;
        changed.push((start.to_owned(), Probe { ptx: ptx.join("\n"), ..probe.clone() }));
    }
    changed
}

/// Floats that flushing changes, or whose conversion to f32 it changes.
fn tiny(probe: &Probe) -> Probe {
    const SINGLES: [u64; 6] = [1, 0x8000_0001, 0x007f_ffff, 0x8080_0000, 0, 0x3f80_0000];
    const DOUBLES: [u64; 4] = [0x3770_0000_0000_0000, 0xb7f0_0000_0000_0001, 0, 0x3ff0_0000_0000_0000];
    let wide = probe.ptx.contains("ld.global.b64 %a");
    let pick = |i: usize| if wide { DOUBLES[i % DOUBLES.len()] } else { SINGLES[i % SINGLES.len()] };
    let inputs =
        probe.inputs.iter().map(|bytes| (0..bytes.len() / 8).flat_map(|i| pick(i * 7 / 3).to_le_bytes()).collect());
    Probe { inputs: inputs.collect(), ..probe.clone() }
}

/// Why a word may leave every answer of an instruction as it is.
fn reason(opcode: &str, word: &str) -> Option<&'static str> {
    let types: Vec<&str> = opcode.split('.').collect();
    let (to, from) = match types[..] {
        [.., to, from] => (to, from),
        _ => ("", opcode),
    };
    let integer = |ty: &str| ty.starts_with(['u', 's']) && ty[1..].parse::<u32>().is_ok();
    let conversion = types[0] == "cvt";
    let wider = matches!((to, from), ("f64", "f32" | "f16") | ("f32", "f16" | "bf16" | "f32"));
    match word {
        "cc" => Some("nobody looks at the flag"),
        "aligned" if types[0] == "bar" => Some("the default of this opcode"),
        "rn" if ["add", "sub", "mul"].contains(&types[0]) => Some("the default"),
        "rn" | "rz" | "rm" | "rp" if conversion && wider => Some("exact"),
        "sat" if conversion && integer(to) && !integer(from) => Some("out of range saturates without it"),
        "ftz" if conversion && integer(from) => Some("no integer is subnormal"),
        "ftz" if conversion && from == "f16" => Some("no f16 is subnormal as an f32"),
        "ftz" if conversion && to == "f16" => Some("a subnormal f32 is nothing as an f16"),
        "ftz" if conversion && ["rni", "rzi"].contains(&types[1]) => Some("a subnormal rounds to zero"),
        "ftz" if conversion && types[1] == "rmi" && (to.starts_with('u') || opcode.contains("sat")) => {
            Some("a negative subnormal ends as zero")
        }
        "sat" if ["vmin", "vmax", "vshr", "vabsdiff"].contains(&types[0]) => Some("in range without it"),
        "sat" if opcode == "vadd.u32.u32.u32" => Some("an H100 wraps with it and without"),
        "ftz" if types[0] == "cos" => Some("one, either way"),
        "ftz" if opcode.contains(".nan.") || opcode.contains(".num.") => Some("a question about NaN"),
        _ => None,
    }
}

/// Modifiers that are read and not obeyed. Each word is put into every `of`th probe, each time into others.
fn ignored(of: usize) -> Vec<String> {
    let probes: Vec<Probe> = probes().into_iter().map(|probe| Probe { blocks: 4, ..probe }).collect();
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let probes = &probes;
    std::thread::scope(|scope| {
        let walk = |from: usize| {
            let mut ignored = Vec::new();
            for (number, probe) in probes.iter().enumerate().skip(from).step_by(count) {
                let words = WORDS.iter().enumerate().filter(|(place, _)| (number / count + place).is_multiple_of(of));
                // As it is, on its own inputs and on tiny ones.
                let usual = LazyCell::new(|| probe.emulate());
                let usual_tiny = LazyCell::new(|| tiny(probe).emulate());
                for (word, (start, changed)) in
                    words.flat_map(|(_, word)| with_word(probe, word).into_iter().map(move |case| (word, case)))
                {
                    if reason(&start, word).is_some() {
                        continue;
                    }
                    let answer = changed.emulate();
                    if answer.is_ok() && answer == *usual && tiny(&changed).emulate() == *usual_tiny {
                        ignored.push(format!("`.{word}` in `{start}` of `{}`", probe.name));
                    }
                }
            }
            ignored
        };
        let workers: Vec<_> = (0..count).map(|from| scope.spawn(move || walk(from))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker ends")).collect()
    })
}

#[test]
fn a_modifier_is_obeyed_or_refused_in_some_of_its_places() {
    let ignored = ignored(10);
    assert!(ignored.is_empty(), "read and not obeyed:\n{}", ignored.join("\n"));
}

#[test]
#[ignore = "takes a minute; .ci/run runs it"]
fn every_modifier_is_obeyed_or_refused() {
    let ignored = ignored(1);
    assert!(ignored.is_empty(), "read and not obeyed:\n{}", ignored.join("\n"));
}

/// Flags of the lowering that are part of an operation's name, or choose what another test covers.
const NAMES: &[&str] = &[
    "L1",
    "L2",
    "all",
    "any",
    "acq_rel",
    "arrive",
    "arrive_drop",
    "async",
    "b16",
    "b32",
    "b64",
    "bulk",
    "ca",
    "cg",
    "cluster",
    "col",
    "commit_group",
    "cta",
    "expect_tx",
    "gl",
    "global",
    "idx",
    "init",
    "inval",
    "load",
    "m16n16k16",
    "m8n8",
    "m8n8k4",
    "mbarrier",
    "mbarrier_init",
    "mma",
    "noComplete",
    "noinc",
    "pack",
    "parity",
    "pending_count",
    "proxy",
    "red",
    "relaxed",
    "rna",
    "row",
    "sc",
    "shared",
    "shared::cta",
    "store",
    "tensormap",
    "tensormap::generic",
    "replace",
    "cp_fenceproxy",
    "b1024",
    "test_wait",
    "tf32",
    "to",
    "try_wait",
    "u32",
    "v2",
    "v4",
    "v8",
    "wait_all",
    "wait_group",
    "warp",
    "kind::f8f6f4",
    "L2::cache_hint",
    "acquire",
    "alias",
    "bulk_group",
    "complete_tx",
    "dec",
    "fence",
    "inc",
    "launch_dependents",
    "mbarrier::complete_tx::bytes",
    "mma_async",
    "multicast::cluster",
    "prefetch",
    "read",
    "reduce",
    "release",
    "shared::cluster",
    "sp",
    "tensor",
    "tile",
    "wait",
];

#[test]
fn the_walk_knows_every_flag_of_the_lowering() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lower");
    let mut unknown = Vec::new();
    for file in std::fs::read_dir(folder).expect("the sources are here") {
        let text = std::fs::read_to_string(file.expect("an entry").path()).expect("a source file");
        for (at, _) in text.match_indices("flag(\"") {
            let word = text[at + 6..].split('"').next().expect("it ends");
            if !WORDS.contains(&word) && !NAMES.contains(&word) {
                unknown.push(word.to_owned());
            }
        }
    }
    assert!(unknown.is_empty(), "name them in WORDS, or in NAMES where they name an operation: {unknown:?}");
}
