//! What a device was measured to do at most: the schema of `ceilings.json`, its table, and the two rates that a roofline
//! is drawn from. Leaves to others: measuring. No gate reads it: a measured rate can be exceeded, and a kernel that does
//! so is not thereby impossible.

use serde::{Deserialize, Serialize};

use crate::evidence::{Device, GpuState};
use crate::gate::significant;

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// Kernel launches.
    Launches,
    /// Results of an instruction, one a lane and packed value.
    Operations,
    /// Floating-point operations of a matrix product, two a multiply-add.
    Flop,
    /// Bytes.
    Bytes,
}

/// One measured rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// What was measured, e.g. `wgmma e4m3`.
    pub name: String,
    /// What is counted.
    pub quantity: Quantity,
    /// The whole device, per second of wall time.
    pub per_second: f64,
    /// One multiprocessor, per clock of its own counter, where that means something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_clock_and_sm: Option<f64>,
}

/// `ceilings.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Where.
    pub device: Device,
    /// All rates.
    pub rows: Vec<Ceiling>,
    /// State before.
    pub before: GpuState,
    /// State after.
    pub after: GpuState,
}

impl Ceilings {
    /// FLOP per second of FP8 products, by whichever instruction is fastest here.
    pub fn fp8_flops(&self) -> Option<f64> {
        let fp8 = self.rows.iter().filter(|r| r.quantity == Quantity::Flop && r.name.contains("e4m3"));
        fp8.map(|r| r.per_second).max_by(f64::total_cmp)
    }

    /// Bytes per second that can be read from device memory.
    pub fn memory_bytes(&self) -> Option<f64> {
        self.rows.iter().find(|r| r.name == "memory read").map(|r| r.per_second)
    }

    /// The table that a person reads.
    pub fn render(&self) -> String {
        let clock = |state: &GpuState| state.sm_clock_mhz.map_or("unknown".to_owned(), |mhz| format!("{mhz} MHz"));
        let mut lines = vec![format!(
            "{}, {} SMs, at most {} MHz; SM clock before {}, after {}",
            self.device.name,
            self.device.sm_count,
            self.device.max_sm_clock_mhz,
            clock(&self.before),
            clock(&self.after)
        )];
        lines.extend(self.rows.iter().map(|row| {
            let rate = match row.quantity {
                Quantity::Launches => format!("{} us each", significant(1e6 / row.per_second)),
                Quantity::Operations => format!("{} G/s", significant(row.per_second / 1e9)),
                Quantity::Flop => format!("{} TFLOP/s", significant(row.per_second / 1e12)),
                Quantity::Bytes => format!("{} GB/s", significant(row.per_second / 1e9)),
            };
            let each = row.per_clock_and_sm.map(|n| format!("{} per clock and SM", significant(n))).unwrap_or_default();
            format!("{:32} {rate:>18}  {each}", row.name).trim_end().to_owned()
        }));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::testing;

    #[test]
    fn the_roofline_takes_the_fastest_fp8_product_and_memory() {
        let row = |name: &str, quantity, per_second| Ceiling {
            name: name.into(),
            quantity,
            per_second,
            per_clock_and_sm: Some(64.0),
        };
        let ceilings = Ceilings {
            device: testing::device(),
            rows: vec![
                row("empty launch in a graph", Quantity::Launches, 1.6e6),
                row("mma.sync e4m3", Quantity::Flop, 200e12),
                row("wgmma e4m3", Quantity::Flop, 1600e12),
                row("wgmma f16", Quantity::Flop, 1700e12),
                row("memory read", Quantity::Bytes, 4.2e12),
                row("L2 read", Quantity::Bytes, 9e12),
            ],
            before: GpuState::default(),
            after: GpuState::default(),
        };
        assert_eq!((ceilings.fp8_flops(), ceilings.memory_bytes()), (Some(1600e12), Some(4.2e12)));
        let text = ceilings.render();
        assert!(
            text.contains("0.6250 us each") && text.contains("1600 TFLOP/s") && text.contains("4200 GB/s"),
            "{text}"
        );
        let none = Ceilings { rows: vec![], ..ceilings.clone() };
        assert_eq!((none.fp8_flops(), none.memory_bytes()), (None, None));
        let json = serde_json::to_string(&ceilings).unwrap();
        assert_eq!(serde_json::from_str::<Ceilings>(&json).unwrap(), ceilings);
    }
}
