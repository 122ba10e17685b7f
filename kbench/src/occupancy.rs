//! How many CTAs of a kernel an SM holds at once, by what they occupy. The limits are those of NVIDIA's CUDA C++ Programming
//! Guide, "Technical Specifications per Compute Capability". Leaves to others: what a kernel achieves of it, which only a
//! GPU can say.

use serde::{Deserialize, Serialize};

/// What an SM has, by compute capability.
struct Sm {
    capability: u32,
    warps: u32,
    ctas: u32,
    /// Shared memory in bytes, the part that the system takes of each CTA included.
    shared_bytes: u32,
}

const SMS: [Sm; 7] = [
    Sm { capability: 75, warps: 32, ctas: 16, shared_bytes: 64 << 10 },
    Sm { capability: 80, warps: 64, ctas: 32, shared_bytes: 164 << 10 },
    Sm { capability: 86, warps: 48, ctas: 16, shared_bytes: 100 << 10 },
    Sm { capability: 89, warps: 48, ctas: 24, shared_bytes: 100 << 10 },
    Sm { capability: 90, warps: 64, ctas: 32, shared_bytes: 228 << 10 },
    Sm { capability: 100, warps: 64, ctas: 32, shared_bytes: 228 << 10 },
    Sm { capability: 120, warps: 48, ctas: 24, shared_bytes: 100 << 10 },
];

/// Registers of each of the four parts of an SM, and what a warp's are a multiple of.
const PART_REGISTERS: u32 = 16 << 10;
const REGISTER_GRAIN: u32 = 256;
const PARTS: u32 = 4;
const WARP: u32 = 32;
/// What the system takes of each CTA's shared memory, and what that is a multiple of.
const SYSTEM_SHARED_BYTES: u32 = 1 << 10;
const SHARED_GRAIN: u32 = 128;

/// What a CTA occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cta {
    /// Threads.
    pub threads: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Shared memory, static and dynamic, in bytes.
    pub shared_bytes: u32,
}

/// CTAs that an SM holds at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Occupancy {
    /// Registers of a thread, from the assembler.
    pub registers: u32,
    /// CTAs of an SM.
    pub ctas: u32,
    /// Their warps, in percent of the most that an SM holds: the profiler's theoretical occupancy.
    pub percent: f64,
    /// What allows no more of them: `registers`, `shared memory`, `warps`, `CTAs`.
    pub limited_by: Vec<String>,
}

impl Occupancy {
    /// By an architecture such as `sm_90a`; nothing where its limits are not known here.
    pub fn of(arch: &str, cta: Cta) -> Option<Occupancy> {
        let digits: String = arch.strip_prefix("sm_")?.chars().take_while(char::is_ascii_digit).collect();
        let capability: u32 = digits.parse().ok()?;
        let sm = SMS.iter().find(|sm| sm.capability == capability)?;
        let warps = cta.threads.div_ceil(WARP).max(1);
        let warp_registers = (cta.registers.max(1) * WARP).next_multiple_of(REGISTER_GRAIN);
        let shared = (cta.shared_bytes + SYSTEM_SHARED_BYTES).next_multiple_of(SHARED_GRAIN);
        let limits = [
            ("registers", PARTS * (PART_REGISTERS / warp_registers) / warps),
            ("shared memory", sm.shared_bytes / shared),
            ("warps", sm.warps / warps),
            ("CTAs", sm.ctas),
        ];
        let ctas = limits.iter().map(|(_, ctas)| *ctas).min().unwrap_or(0);
        let limited_by =
            limits.iter().filter(|(_, limit)| *limit == ctas).map(|(name, _)| (*name).to_owned()).collect();
        let percent = 100.0 * f64::from(ctas * warps) / f64::from(sm.warps);
        Some(Occupancy { registers: cta.registers, ctas, percent, limited_by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sm_holds_what_its_scarcest_resource_allows() {
        // Threads, registers, shared bytes; CTAs, percent and what limits them.
        let cases = [
            ((128, 32, 0), 16, 100.0, "registers, warps"),
            ((32, 16, 0), 32, 50.0, "CTAs"),
            ((128, 101, 41_984), 4, 25.0, "registers"),
            ((256, 32, 100 << 10), 2, 25.0, "shared memory"),
            ((1024, 64, 0), 1, 50.0, "registers"),
            ((1024, 128, 0), 0, 0.0, "registers"),
        ];
        for ((threads, registers, shared_bytes), ctas, percent, limits) in cases {
            let found = Occupancy::of("sm_90a", Cta { threads, registers, shared_bytes }).unwrap();
            assert_eq!((found.ctas, found.percent, found.limited_by.join(", ").as_str()), (ctas, percent, limits));
        }
        assert_eq!(Occupancy::of("sm_9", Cta { threads: 32, registers: 1, shared_bytes: 0 }), None);
    }
}
