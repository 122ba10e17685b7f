//! Launches: run at once, in the order in which they are asked for, so that streams and events have nothing to wait for.

use ptx_emulator::{EmuError, Finding, Kernel, Kind, Launch, Severity, run};

use super::sites::Site;
use super::{Device, LAUNCH_NS, chip};
use crate::status::{Call, Status};

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: [u32; 3],
    pub shared_bytes: usize,
    pub cooperative: bool,
}

/// `CUlaunchAttribute` and `cudaLaunchAttribute`: which, and a value of 64 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Attribute {
    id: u32,
    padding: u32,
    value: [u32; 16],
}

impl Grid {
    /// With what attributes say of it; those that say how soon or where something runs change nothing here.
    pub fn with(mut self, attributes: &[Attribute]) -> Grid {
        const COOPERATIVE: u32 = 2;
        const CLUSTER: u32 = 4;
        for Attribute { id, value, .. } in attributes {
            match *id {
                COOPERATIVE => self.cooperative = value[0] != 0,
                CLUSTER => self.cluster = [value[0], value[1], value[2]].map(|size| size.max(1)),
                _ => {}
            }
        }
        self
    }
}

/// What a GPU would say of the launch at the next synchronisation.
fn fault(findings: &[Finding]) -> Option<Status> {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors
        .filter_map(|finding| match finding.kind {
            Kind::OutOfBounds | Kind::ReadOnlyStore => Some(Status::ILLEGAL_ADDRESS),
            Kind::Misaligned => Some(Status::MISALIGNED),
            Kind::Trap if finding.message.contains("assert") => Some(Status::ASSERT),
            Kind::Trap => Some(Status::LAUNCH_FAILED),
            Kind::Deadlock | Kind::NoProgress | Kind::Runaway => Some(Status::TIMEOUT),
            _ => None,
        })
        .next()
}

impl Device {
    /// Launches a kernel with a parameter block.
    pub fn launch(&mut self, function: usize, shape: Grid, params: Vec<u8>) -> Call {
        self.flush();
        let kernel = self.kernel(function)?;
        self.check(function, &kernel, shape)?;
        let mut launch = Launch::new(shape.grid, shape.block, params);
        launch.cluster = kernel.required_cluster().unwrap_or(shape.cluster);
        launch.dynamic_shared_bytes = u32::try_from(shape.shared_bytes).map_err(|_| Status::INVALID_VALUE)?;
        launch.schedule = self.settings.schedule;
        launch.checks = self.settings.checks;
        launch.sm_count = self.settings.sm_count;
        launch.limits.threads = self.settings.threads;
        launch.limits.resident_blocks = launch.limits.resident_blocks.max(self.resident(&kernel, shape));
        let site = Site::here();
        self.launches += 1;
        self.take_over()?;
        let outcome = run(&kernel, &self.memory, &launch);
        self.hand_back()?;
        let outcome = outcome.map_err(|error| {
            let (what, status) = (
                error.to_string(),
                match error {
                    EmuError::Shape { .. } => Status::INVALID_CONFIGURATION,
                    EmuError::Parameters { .. } => Status::INVALID_VALUE,
                    _ => Status::NOT_SUPPORTED,
                },
            );
            match status {
                Status::NOT_SUPPORTED => self.report.refused(kernel.name(), &what, &site),
                _ => self.report.misused("launch", &what, &site),
            }
            status
        })?;
        self.clock_ns += LAUNCH_NS + outcome.instructions;
        self.printed.push_str(&outcome.printed);
        if let Some(fault) = fault(&outcome.findings) {
            self.pending.get_or_insert(fault);
        }
        for finding in outcome.findings {
            let named = self.origins.values().filter(|origin| names(&finding.message, &origin.label));
            let mut notes: Vec<String> = named
                .filter_map(|origin| {
                    let place = origin.site.words()?;
                    Some(format!("{} ({} bytes) was allocated at {place}", origin.label, origin.bytes))
                })
                .collect();
            notes.sort();
            self.report.found(kernel.name(), self.launches, finding, notes, &site);
        }
        Ok(())
    }

    /// What the chip refuses.
    fn check(&mut self, function: usize, kernel: &Kernel, shape: Grid) -> Call {
        let threads: u64 = shape.block.iter().map(|d| u64::from(*d)).product();
        if threads == 0 || shape.grid.contains(&0) {
            return Err(Status::INVALID_CONFIGURATION);
        }
        if kernel.max_threads().is_some_and(|most| threads > most) {
            return Err(Status::OUT_OF_RESOURCES);
        }
        let most = self.function_mut(function)?.max_dynamic_shared.max(chip::PLAIN_SHARED);
        if shape.shared_bytes > most {
            return Err(Status::INVALID_VALUE);
        }
        let blocks: u64 = shape.grid.iter().map(|d| u64::from(*d)).product();
        if shape.cooperative && blocks > self.resident(kernel, shape) as u64 {
            return Err(Status::COOPERATIVE_TOO_LARGE);
        }
        Ok(())
    }

    /// Blocks that the chip holds at once.
    fn resident(&self, kernel: &Kernel, shape: Grid) -> usize {
        let threads: u64 = shape.block.iter().map(|d| u64::from(*d)).product();
        let each = chip::resident_blocks(self.arch(), threads, kernel.shared_bytes() + shape.shared_bytes);
        each as usize * self.settings.sm_count as usize
    }

    /// Blocks that one multiprocessor holds at once.
    pub fn occupancy(&mut self, function: usize, threads: u64, shared_bytes: usize) -> Call<u32> {
        let kernel = self.kernel(function)?;
        Ok(chip::resident_blocks(self.arch(), threads, kernel.shared_bytes() + shared_bytes))
    }
}

/// Whether a message has an allocation's name, and not only the beginning of a longer one.
fn names(message: &str, label: &str) -> bool {
    message.match_indices(label).any(|(at, _)| {
        let next = message[at + label.len()..].chars().next();
        !next.is_some_and(|c| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_named_by_its_whole_number() {
        assert!(names("4-byte write at cudaMalloc#1 + 0x40", "cudaMalloc#1"));
        assert!(!names("4-byte write at cudaMalloc#12 + 0x40", "cudaMalloc#1"));
        assert!(names("cudaMalloc#12 and cudaMalloc#1", "cudaMalloc#1"));
    }
}
