//! The device that both libraries show: one memory, modules, functions, streams that run what they are given at once.
//! Leaves to others: how a program names these things (`runtime`, `driver`).

pub mod chip;
mod copies;
mod host;
mod launch;
mod queue;
pub mod report;
mod sites;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ptx_emulator::{Buffer, Kernel, Memory, MemoryError, Module};

use crate::settings::Settings;
use crate::status::{Call, Status};

pub use copies::{Box3, Pitched};
pub use host::Kind as HostKind;
pub use launch::{Attribute, Grid};
use report::Report;
use sites::Site;

/// Time of the emulated device in nanoseconds: for a launch, beside one a warp-wide instruction.
const LAUNCH_NS: u64 = 2000;
/// For an allocation or a copy, beside one for every 16 bytes.
const COPY_NS: u64 = 1000;

/// Where the handles of functions begin: addresses of nothing.
const FUNCTION_HANDLES: u64 = 0x4_0000_0000;
/// From one to the next.
const HANDLE_STEP: u64 = 16;

/// A module that was loaded.
#[derive(Debug)]
struct Loaded {
    module: Module,
    /// Ranges of its variables that the host has as well.
    managed: Vec<u64>,
}

/// A kernel that somebody asked for by name.
#[derive(Clone, Debug)]
pub struct Function {
    module: usize,
    name: String,
    /// Dynamic shared memory that launches may ask for, in bytes.
    pub max_dynamic_shared: usize,
}

impl Function {
    /// The module that it is in.
    pub fn module(&self) -> usize {
        self.module
    }
}

/// What an allocation is called in findings, and where the program made it.
#[derive(Debug)]
struct Origin {
    label: String,
    bytes: usize,
    site: Site,
}

/// The one device.
#[derive(Debug)]
pub struct Device {
    pub settings: Settings,
    memory: Memory,
    modules: Vec<Option<Loaded>>,
    functions: Vec<Function>,
    regions: Vec<host::Region>,
    /// By address.
    origins: HashMap<u64, Origin>,
    allocations: usize,
    allocated_bytes: usize,
    launches: usize,
    /// Emulated time: no measure of anything but how much was executed.
    clock_ns: u64,
    queue: queue::Queue,
    /// What the next synchronisation tells of launches before it.
    pending: Option<Status>,
    /// What kernels printed since the last one.
    printed: String,
    report: Report,
    /// The newest architecture of the modules that were loaded.
    newest: u32,
}

static DEVICE: Mutex<Option<Device>> = Mutex::new(None);

/// The device, for one caller at a time.
pub struct Held(MutexGuard<'static, Option<Device>>);

impl std::ops::Deref for Held {
    type Target = Device;
    fn deref(&self) -> &Device {
        self.0.as_ref().expect("filled when it is held")
    }
}

impl std::ops::DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Device {
        self.0.as_mut().expect("filled when it is held")
    }
}

/// Waits for the device, which is made when it is first asked for.
pub fn hold() -> Held {
    let mut device = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    device.get_or_insert_with(|| {
        crate::ffi::at_exit(close);
        Device::new(Settings::of_environment())
    });
    Held(device)
}

/// The last words, when the program ends.
extern "C" fn close() {
    // Whoever ends it from within a launch holds the device, and has said what there was.
    if let Ok(mut device) = DEVICE.try_lock()
        && let Some(device) = device.as_mut()
    {
        device.report.catch_up();
    }
}

impl Device {
    fn new(settings: Settings) -> Device {
        let report = Report::open(settings.report.as_deref());
        Device {
            settings,
            memory: Memory::default(),
            modules: Vec::new(),
            functions: Vec::new(),
            regions: Vec::new(),
            origins: HashMap::new(),
            allocations: 0,
            allocated_bytes: 0,
            launches: 0,
            clock_ns: 0,
            queue: queue::Queue::default(),
            pending: None,
            printed: String::new(),
            report,
            newest: 0,
        }
    }

    /// Its compute capability, as in 80.
    pub fn arch(&self) -> u32 {
        /// Where neither the program nor whoever started it says.
        const USUAL: u32 = 80;
        self.settings.arch.unwrap_or(if self.newest == 0 { USUAL } else { self.newest })
    }

    /// Parses PTX and places its variables.
    pub fn load(&mut self, ptx: &str) -> Call<usize> {
        let module = match self.memory.load(ptx) {
            Ok(module) => module,
            Err(error) => {
                self.refuse("module", &error.to_string());
                return Err(Status::INVALID_PTX);
            }
        };
        let digits: String = module.target().chars().filter(char::is_ascii_digit).collect();
        self.newest = self.newest.max(digits.parse().unwrap_or(0));
        self.modules.push(Some(Loaded { module, managed: Vec::new() }));
        Ok(self.modules.len() - 1)
    }

    /// Takes a module away, with its variables.
    pub fn unload(&mut self, module: usize) -> Call {
        self.flush();
        let loaded = self.modules.get_mut(module).and_then(Option::take).ok_or(Status::INVALID_HANDLE)?;
        for address in loaded.managed {
            self.drop_region(address)?;
        }
        self.memory.unload(&loaded.module);
        Ok(())
    }

    fn loaded(&self, module: usize) -> Call<&Loaded> {
        self.modules.get(module).and_then(Option::as_ref).ok_or(Status::INVALID_HANDLE)
    }

    /// A kernel by its name; the same one is the same function.
    pub fn function(&mut self, module: usize, name: &str) -> Call<usize> {
        let known = self.functions.iter().position(|f| f.module == module && f.name == name);
        if let Some(known) = known {
            return Ok(known);
        }
        if !self.loaded(module)?.module.entries().contains(&name) {
            return Err(Status::NOT_FOUND);
        }
        self.functions.push(Function { module, name: name.to_owned(), max_dynamic_shared: chip::PLAIN_SHARED });
        Ok(self.functions.len() - 1)
    }

    /// The handle by which the program knows a function.
    pub fn handle_of_function(&self, function: usize) -> u64 {
        FUNCTION_HANDLES + function as u64 * HANDLE_STEP
    }

    /// The function of a handle that was given.
    pub fn function_of_handle(&self, handle: u64) -> Option<usize> {
        let at = handle.checked_sub(FUNCTION_HANDLES)? / HANDLE_STEP;
        usize::try_from(at).ok().filter(|at| *at < self.functions.len())
    }

    /// What is known of a function.
    pub fn function_mut(&mut self, function: usize) -> Call<&mut Function> {
        self.functions.get_mut(function).ok_or(Status::INVALID_FUNCTION)
    }

    /// The kernel of a function, lowered once. What the emulator cannot execute is refused by name.
    pub fn kernel(&mut self, function: usize) -> Call<Kernel> {
        let Function { module, name, .. } = self.functions.get(function).ok_or(Status::INVALID_FUNCTION)?.clone();
        let kernel = self.loaded(module)?.module.entry(&name);
        kernel.map_err(|error| {
            self.refuse(&name, &error.to_string());
            Status::NOT_SUPPORTED
        })
    }

    /// Names of a module's kernels.
    pub fn entries(&self, module: usize) -> Call<Vec<String>> {
        Ok(self.loaded(module)?.module.entries().into_iter().map(str::to_owned).collect())
    }

    /// The name of a function.
    pub fn name(&self, function: usize) -> Call<&str> {
        self.functions.get(function).map(|f| f.name.as_str()).ok_or(Status::INVALID_FUNCTION)
    }

    /// A variable of a module.
    pub fn symbol(&self, module: usize, name: &str) -> Call<Buffer> {
        self.loaded(module)?.module.symbol(name).ok_or(Status::NOT_FOUND)
    }

    /// Makes a variable one that the host has at the same address.
    pub fn manage(&mut self, module: usize, name: &str) -> Call<u64> {
        let symbol = self.symbol(module, name)?;
        self.share(symbol)?;
        let loaded = self.modules.get_mut(module).and_then(Option::as_mut).ok_or(Status::INVALID_HANDLE)?;
        loaded.managed.push(symbol.address());
        Ok(symbol.address())
    }

    /// Memory of so many undefined bytes; `call` is how the program asked for it.
    pub fn alloc(&mut self, call: &str, bytes: usize) -> Call<u64> {
        if bytes > self.settings.memory_bytes.saturating_sub(self.allocated_bytes) {
            return Err(Status::OUT_OF_MEMORY);
        }
        let label = self.label(call);
        let buffer = self.memory.alloc(&label, bytes).map_err(|_| Status::OUT_OF_MEMORY)?;
        self.allocated_bytes += bytes;
        self.clock_ns += COPY_NS;
        self.origins.insert(buffer.address(), Origin { label, bytes, site: Site::here() });
        Ok(buffer.address())
    }

    /// A name for an allocation that no other has.
    fn label(&mut self, call: &str) -> String {
        self.allocations += 1;
        format!("{call}#{}", self.allocations)
    }

    /// Gives memory back; a null pointer is none.
    pub fn free(&mut self, address: u64) -> Call {
        self.flush();
        if address == 0 {
            return Ok(());
        }
        if self.regions.iter().any(|region| region.address == address) {
            return self.drop_region(address);
        }
        match self.memory.locate(address) {
            Some((buffer, 0)) if self.origins.contains_key(&address) => {
                self.memory.free(buffer).map_err(|_| Status::INVALID_VALUE)?;
                self.allocated_bytes -= buffer.bytes();
                Ok(())
            }
            _ => {
                let place = self.memory.describe(address);
                self.misuse("free", &format!("no allocation begins at {place}"));
                Err(Status::INVALID_VALUE)
            }
        }
    }

    /// The buffer that an address lies in.
    pub fn locate(&self, address: u64) -> Option<(Buffer, usize)> {
        self.memory.locate(address)
    }

    /// Free and total memory in bytes.
    pub fn memory_info(&self) -> (usize, usize) {
        (self.settings.memory_bytes - self.allocated_bytes, self.settings.memory_bytes)
    }

    /// Waits for everything: what kernels printed is shown, and what went wrong is told, once.
    pub fn synchronize(&mut self) -> Call {
        self.flush();
        self.pending.take().map_or(Ok(()), Err)
    }

    /// Shows what kernels printed.
    pub fn flush(&mut self) {
        let printed = std::mem::take(&mut self.printed);
        if !printed.is_empty() {
            crate::ffi::print(&printed);
        }
    }

    /// Notes something that the emulator does not do.
    pub fn refuse(&mut self, what: &str, why: &str) {
        self.report.refused(what, why, &Site::here());
    }

    /// Notes a call that cannot be right.
    fn misuse(&mut self, call: &str, what: &str) {
        self.report.misused(call, what, &Site::here());
    }

    /// Notes that a call of the program's failed. What a launch did wrong is a finding already.
    pub fn failed(&mut self, call: &str, status: Status) {
        if !status.is_of_a_launch() {
            self.report.failed(call, status, &Site::here());
        }
    }

    /// Everything anew, as after a reset: memory is given back, modules stay.
    pub fn reset(&mut self) -> Call {
        let end = self.synchronize();
        let addresses: Vec<u64> = self.origins.keys().copied().collect();
        for address in addresses {
            if let Some((buffer, 0)) = self.memory.locate(address)
                && self.memory.free(buffer).is_ok()
            {
                self.allocated_bytes -= buffer.bytes().min(self.allocated_bytes);
            }
        }
        self.origins.clear();
        end
    }
}

/// Memory of the emulator's that does not answer is an address that is not valid.
fn invalid(_: MemoryError) -> Status {
    Status::INVALID_VALUE
}
