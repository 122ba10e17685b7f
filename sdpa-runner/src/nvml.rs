//! The device's state through NVML: clocks, temperature, power, what holds the clock down, and who else computes on it.
//! Everything is optional: where NVML is absent or refuses, the figure is absent, never zero.

use kbench::evidence::{GpuState, NvmlDevice};
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::{Device, Nvml};

/// A connection to NVML.
pub struct Monitor {
    nvml: Nvml,
    uuid: String,
}

/// Reasons that spoil a comparison. A power cap is not among them: see `GpuState::power_capped`.
const SPOILING: &[(ThrottleReasons, &str)] = &[
    (ThrottleReasons::HW_SLOWDOWN, "hardware slowdown"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal slowdown (driver)"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "thermal slowdown (hardware)"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power brake"),
];

impl Monitor {
    /// Connects, if NVML is here. The unversioned name is only there with development packages.
    pub fn connect(uuid: &str) -> Option<Monitor> {
        let named = |name: &str| Nvml::builder().lib_path(name.as_ref()).init().ok();
        let nvml = named("libnvidia-ml.so.1").or_else(|| Nvml::init().ok())?;
        Some(Monitor { nvml, uuid: uuid.to_owned() })
    }

    fn device(&self) -> Option<Device<'_>> {
        self.nvml.device_by_uuid(self.uuid.as_str()).ok()
    }

    /// Adds what only NVML knows to what the driver said of the device.
    pub fn complete(&self, description: &mut kbench::evidence::Device) {
        description.nvml = self.describe();
        let max_clock = self.device().and_then(|device| device.max_clock_info(Clock::SM).ok());
        description.max_sm_clock_mhz = max_clock.unwrap_or(description.max_sm_clock_mhz);
    }

    fn describe(&self) -> Option<NvmlDevice> {
        let device = self.device()?;
        Some(NvmlDevice {
            driver: self.nvml.sys_driver_version().ok()?,
            ecc: device.is_ecc_enabled().ok().map(|state| state.currently_enabled),
            power_limit_w: device.enforced_power_limit().ok().map(|mw| f64::from(mw) / 1000.0),
            persistence: device.is_in_persistent_mode().ok(),
        })
    }

    pub fn state(&self) -> GpuState {
        let Some(device) = self.device() else { return GpuState::default() };
        let reasons = device.current_throttle_reasons().unwrap_or(ThrottleReasons::NONE);
        let held = SPOILING.iter().filter(|(reason, _)| reasons.contains(*reason));
        GpuState {
            sm_clock_mhz: device.clock_info(Clock::SM).ok(),
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
            power_w: device.power_usage().ok().map(|mw| f64::from(mw) / 1000.0),
            throttle: held.map(|(_, name)| (*name).to_owned()).collect(),
            power_capped: reasons.contains(ThrottleReasons::SW_POWER_CAP),
        }
    }

    /// Processes that compute on the device, as `pid name`; this process too, once it has a context.
    pub fn compute_processes(&self) -> Vec<String> {
        let processes = self.device().and_then(|device| device.running_compute_processes().ok()).unwrap_or_default();
        let name = |pid: u32| self.nvml.sys_process_name(pid, 64).unwrap_or_else(|_| "(name unknown)".to_owned());
        processes.iter().map(|p| format!("{} {}", p.pid, name(p.pid))).collect()
    }
}
