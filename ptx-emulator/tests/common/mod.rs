//! What the integration tests share: data, fixtures, schedules.

use std::fmt::Write as _;

use ptx_emulator::{Module, Outcome, Schedule};

/// Small deterministic generator: the test data must be the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// About normal, within ±3.5.
    pub fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.next() % 1000).sum();
        sum as f32 / 1000.0 - 6.0
    }
}

pub fn load(source: &str, name: &str) -> (Module, ptx_emulator::Kernel) {
    let module = Module::parse(source).expect("the fixture parses");
    let kernel = module.entry(name).expect("the fixture loads");
    (module, kernel)
}

pub fn report(outcome: &Outcome) -> String {
    outcome.findings.iter().fold(String::new(), |mut text, finding| {
        let _ = writeln!(text, "{finding}");
        text
    })
}

pub const SCHEDULES: [Schedule; 5] =
    [Schedule::RoundRobin, Schedule::Greedy, Schedule::Reverse, Schedule::Seeded(1), Schedule::Seeded(77)];

/// Dynamic shared memory of `mma_flash`.
pub const MMA_SHARED: u32 = (64 * 72 + 4 * 32 * 72) * 2;
