//! What whoever starts a program wants of the emulator, by environment variables; `emulate run` sets them.

use std::path::PathBuf;

use ptx_emulator::{Checks, Schedule};

/// The environment's words.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where findings go, a line of JSON each; to standard error as text where absent.
    pub report: Option<PathBuf>,
    pub schedule: Schedule,
    pub checks: Checks,
    /// Compute capability, as in 80; that of the newest PTX in the program where absent.
    pub arch: Option<u32>,
    /// Global memory in bytes.
    pub memory_bytes: usize,
    /// Multiprocessors.
    pub sm_count: u32,
    /// Threads of the host; 0 takes all.
    pub threads: usize,
}

/// Global memory unless asked for more: what fits a small machine.
const MEMORY_BYTES: usize = 4 << 30;
/// Multiprocessors unless asked for more: programs that fill the chip stay small.
const SM_COUNT: u32 = 8;

/// `greedy`, `round-robin`, `reverse`, or a seed.
fn schedule(text: &str) -> Option<Schedule> {
    match text {
        "greedy" => Some(Schedule::Greedy),
        "round-robin" => Some(Schedule::RoundRobin),
        "reverse" => Some(Schedule::Reverse),
        seed => seed.parse().ok().map(Schedule::Seeded),
    }
}

impl Settings {
    /// Those of this process.
    pub fn of_environment() -> Settings {
        Settings::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Settings {
        let number = |name: &str| variable(name).and_then(|text| text.parse::<usize>().ok());
        let is_off = variable("PTX_EMULATOR_CHECKS").is_some_and(|text| text == "off");
        Settings {
            report: variable("PTX_EMULATOR_REPORT").map(PathBuf::from),
            schedule: variable("PTX_EMULATOR_SCHEDULE").and_then(|s| schedule(&s)).unwrap_or(Schedule::Greedy),
            checks: if is_off { Checks::none() } else { Checks::all() },
            arch: number("PTX_EMULATOR_ARCH").map(|arch| arch as u32),
            memory_bytes: number("PTX_EMULATOR_MEMORY").unwrap_or(MEMORY_BYTES),
            sm_count: number("PTX_EMULATOR_SMS").map_or(SM_COUNT, |count| count as u32).max(1),
            threads: number("PTX_EMULATOR_THREADS").unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_its_usual_value() {
        let plain = Settings::of(|_| None);
        assert_eq!((plain.schedule, plain.checks), (Schedule::Greedy, Checks::all()));
        assert_eq!((plain.memory_bytes, plain.sm_count, plain.arch), (MEMORY_BYTES, SM_COUNT, None));
        let said = Settings::of(|name| {
            let value = match name {
                "PTX_EMULATOR_SCHEDULE" => "7",
                "PTX_EMULATOR_CHECKS" => "off",
                "PTX_EMULATOR_ARCH" => "90",
                _ => return None,
            };
            Some(value.to_owned())
        });
        assert_eq!((said.schedule, said.checks, said.arch), (Schedule::Seeded(7), Checks::none(), Some(90)));
    }
}
