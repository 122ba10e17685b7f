//! Mutated PTX: whatever the text, parsing and loading end with a value or an error, and what still loads ends when it
//! is run. The fuzz target in `fuzz/` is guided by coverage; this one runs everywhere and the same each time.
//! `PTX_FUZZ_INPUTS=1000000 cargo test --release -p ptx-emulator --test fuzz -- --nocapture` tries a million.

use std::fmt::Write as _;

use ptx_emulator::conformance::probes;

#[path = "common/survive.rs"]
mod survive;
use survive::{Reached, survive};

/// Inputs where the environment names no other number.
const INPUTS: u64 = 20_000;
/// Longest seed: a mutation should hit something that matters.
const LONGEST: usize = 6000;

const FIXTURES: [&str; 6] = [
    include_str!("data/calls.ptx"),
    include_str!("data/fp8_mma.ptx"),
    include_str!("data/library.ptx"),
    include_str!("data/mma_flash.ptx"),
    include_str!("data/sync.ptx"),
    include_str!("data/wmma_flash.ptx"),
];

/// Words that the grammar gives a meaning, and numbers at its limits.
const WORDS: [&str; 26] = [
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ";",
    ",",
    ":",
    "@",
    "%",
    "//",
    "/*",
    "\"",
    ".reg",
    ".param",
    ".align",
    ".shared",
    "-",
    "0x",
    "4294967296",
    "99999999999999999999",
    "0f7f800000",
    "%r<4294967295>",
    ".visible .entry x(",
    "<",
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Small modules: probes of every family, and each kernel of the fixtures on its own.
fn seeds() -> Vec<String> {
    let mut seeds: Vec<String> = probes().into_iter().map(|probe| probe.ptx).collect();
    for fixture in FIXTURES {
        let (head, body) = fixture.split_at(fixture.find(".visible").or_else(|| fixture.find(".entry")).unwrap_or(0));
        for kernel in body.split("\n\n\t// .globl").filter(|kernel| kernel.len() < LONGEST) {
            seeds.push(format!("{head}{kernel}"));
        }
    }
    seeds
}

/// Starts and ends of words and of marks.
fn tokens(text: &[u8]) -> Vec<(usize, usize)> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'%' | b'$');
    let mut tokens = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let mut end = start + 1;
        while word(text[start]) && end < text.len() && word(text[end]) {
            end += 1;
        }
        if !text[start].is_ascii_whitespace() {
            tokens.push((start, end));
        }
        start = end;
    }
    tokens
}

fn mutate(seeds: &[String], random: &mut Random) -> Vec<u8> {
    let mut text = seeds[random.below(seeds.len())].clone().into_bytes();
    for _ in 0..1 + random.below(4) {
        let tokens = tokens(&text);
        if tokens.is_empty() {
            break;
        }
        let (start, end) = tokens[random.below(tokens.len())];
        let (other, other_end) = tokens[random.below(tokens.len())];
        match random.below(8) {
            0 => text[start] = random.next() as u8,
            1 => text.truncate(random.below(text.len())),
            2 => drop(text.drain(start..end)),
            3 => {
                let copy = text[other..other_end].to_vec();
                text.splice(start..end, copy);
            }
            4 => drop(text.splice(start..start, WORDS[random.below(WORDS.len())].bytes())),
            5 => drop(text.splice(start..end, WORDS[random.below(WORDS.len())].bytes())),
            6 => {
                let line =
                    seeds[random.below(seeds.len())].lines().nth(random.below(60)).unwrap_or_default().to_owned();
                text.splice(start..start, format!("{line}\n").into_bytes());
            }
            _ => {
                let (from, to) = (start.min(other), end.max(other_end).min(start.min(other) + 400));
                let copy = text[from..to].to_vec();
                text.splice(start..start, copy);
            }
        }
    }
    text
}

#[test]
fn no_input_panics_or_hangs() {
    let inputs = std::env::var("PTX_FUZZ_INPUTS").map_or(INPUTS, |n| n.parse().expect("PTX_FUZZ_INPUTS is a number"));
    let seeds = seeds();
    let workers = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let reached: Vec<Reached> = std::thread::scope(|scope| {
        let work = |worker: u64| {
            let seeds = &seeds;
            move || {
                let mut reached = Reached::default();
                for n in (worker..inputs).step_by(workers as usize) {
                    let input = mutate(seeds, &mut Random(0x9e37_79b9_7f4a_7c15 ^ (n + 1)));
                    let Ok(found) = std::panic::catch_unwind(|| survive(&input)) else {
                        panic!("input {n} panics:\n{}", String::from_utf8_lossy(&input));
                    };
                    reached.parsed += found.parsed;
                    reached.loaded += found.loaded;
                    reached.run += found.run;
                }
                reached
            }
        };
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(work(worker))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no input panics")).collect()
    });
    let sum = |pick: fn(&Reached) -> u64| reached.iter().map(pick).sum::<u64>();
    let mut line = format!("{inputs} inputs: ");
    let (parsed, loaded, run) = (sum(|r| r.parsed), sum(|r| r.loaded), sum(|r| r.run));
    let _ = write!(line, "{parsed} parsed, {loaded} kernels loaded, {run} run");
    println!("{line}");
    // Mutations that never come past the parser would test nothing behind it.
    assert!(parsed > inputs / 20 && loaded > inputs / 50 && run > inputs / 100, "{line}");
}
