//! What a program registers before `main`: its fat binaries, kernels and variables. Modules are loaded when the first call
//! needs the device.

use std::collections::HashMap;
use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};

use super::runtime;
use crate::device::{Device, Held, hold};
use crate::fatbin::{self, Refusal};
use crate::ffi::{Out, Place, Text};
use crate::status::{Call, Status};

/// A fat binary of the program.
struct Binary {
    /// Where its container is.
    container: u64,
    /// Its module, once somebody has loaded it.
    module: Option<Call<usize>>,
}

/// A variable that the host has as well, and where the program wants its address.
struct Managed {
    binary: usize,
    name: String,
    pointer: Out<u64>,
}

// SAFETY: the pointer is the program's own variable, written once while the registry is held.
unsafe impl Send for Managed {}

#[derive(Default)]
struct Registry {
    binaries: Vec<Binary>,
    /// By the address of the host's function.
    functions: HashMap<u64, (usize, String)>,
    /// By the address of the host's variable.
    variables: HashMap<u64, (usize, String)>,
    managed: Vec<Managed>,
}

static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);

/// Handles of fat binaries are numbers from here.
const FIRST_BINARY: u64 = 1;

fn registry<T>(act: impl FnOnce(&mut Registry) -> T) -> T {
    act(REGISTRY.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// The device, with everything loaded that the program has registered.
pub(super) fn ready() -> Held {
    registry(|registry| {
        let mut device = hold();
        for binary in registry.binaries.iter_mut().filter(|binary| binary.module.is_none()) {
            binary.module = Some(load(&mut device, binary.container));
        }
        for Managed { binary, name, pointer } in std::mem::take(&mut registry.managed) {
            let module = registry.binaries[binary].module.unwrap_or(Err(Status::NOT_FOUND));
            if let Ok(address) = module.and_then(|module| device.manage(module, &name)) {
                pointer.offer(address);
            }
        }
        device
    })
}

/// Loads the PTX of a container.
fn load(device: &mut Device, container: u64) -> Call<usize> {
    let place = Place::at(container);
    let bytes = fatbin::container_bytes(&place.read(16)?).ok_or(Status::INVALID_IMAGE)?;
    match fatbin::newest_ptx(&place.read(bytes)?) {
        Ok(ptx) => device.load(&ptx.text),
        Err(Refusal::Damaged(why)) => {
            device.refuse("fat binary", why);
            Err(Status::INVALID_IMAGE)
        }
        Err(Refusal::MachineCode(archs)) => {
            let archs: Vec<String> = archs.iter().map(|arch| format!("sm_{arch}")).collect();
            let why = format!(
                "it has machine code for {} and no PTX; compile with -gencode arch=compute_80,code=compute_80",
                archs.join(", ")
            );
            device.refuse("fat binary", &why);
            Err(Status::NO_BINARY)
        }
    }
}

/// What a host address was registered as.
fn module_and_name(of: impl FnOnce(&Registry) -> Option<&(usize, String)>, missing: Status) -> Call<(usize, String)> {
    registry(|registry| {
        let (binary, name) = of(registry).ok_or(missing)?.clone();
        Ok((registry.binaries[binary].module.unwrap_or(Err(Status::NOT_FOUND))?, name))
    })
}

/// The function of a host's stub, or of a handle that somebody was given.
pub(super) fn function(host: u64) -> Call<(Held, usize)> {
    let mut device = ready();
    if let Some(function) = device.function_of_handle(host) {
        return Ok((device, function));
    }
    drop(device);
    let (module, name) = module_and_name(|r| r.functions.get(&host), Status::INVALID_FUNCTION)?;
    device = hold();
    let function = device.function(module, &name).map_err(|_| Status::INVALID_FUNCTION)?;
    Ok((device, function))
}

/// The address and size in bytes of a variable.
pub(super) fn variable(host: u64) -> Call<(Held, u64, usize)> {
    drop(ready());
    let (module, name) = module_and_name(|r| r.variables.get(&host), Status::INVALID_SYMBOL)?;
    let device = hold();
    let symbol = device.symbol(module, &name).map_err(|_| Status::INVALID_SYMBOL)?;
    Ok((device, symbol.address(), symbol.bytes()))
}

#[unsafe(no_mangle)]
extern "C" fn __cudaRegisterFatBinary(wrapper: Place) -> u64 {
    let container = || {
        // The structure has its own mark and version before the pointer.
        let bytes = wrapper.read(16).ok().filter(|_| wrapper.word().is_ok_and(fatbin::is_wrapper))?;
        Some(u64::from_le_bytes(bytes[8..16].try_into().ok()?))
    };
    registry(|registry| {
        let module = container().is_none().then_some(Err(Status::INVALID_IMAGE));
        registry.binaries.push(Binary { container: container().unwrap_or(0), module });
        registry.binaries.len() as u64 - 1 + FIRST_BINARY
    })
}

#[unsafe(no_mangle)]
extern "C" fn __cudaRegisterFatBinaryEnd(_binary: u64) {}

#[unsafe(no_mangle)]
extern "C" fn __cudaUnregisterFatBinary(_binary: u64) {}

#[unsafe(no_mangle)]
extern "C" fn __cudaInitModule(_binary: u64) -> c_char {
    drop(ready());
    1
}

#[unsafe(no_mangle)]
extern "C" fn __cudaRegisterFunction(
    binary: u64,
    host: u64,
    _device: Place,
    name: Text,
    _thread_limit: i32,
    _tid: Place,
    _bid: Place,
    _block: Place,
    _grid: Place,
    _warp_size: Place,
) {
    if let Ok(name) = name.get() {
        registry(|registry| registry.functions.insert(host, ((binary - FIRST_BINARY) as usize, name)));
    }
}

#[unsafe(no_mangle)]
extern "C" fn __cudaRegisterVar(
    binary: u64,
    host: u64,
    _device: Place,
    name: Text,
    _external: i32,
    _bytes: usize,
    _constant: i32,
    _global: i32,
) {
    if let Ok(name) = name.get() {
        registry(|registry| registry.variables.insert(host, ((binary - FIRST_BINARY) as usize, name)));
    }
}

#[unsafe(no_mangle)]
extern "C" fn __cudaRegisterManagedVar(
    binary: u64,
    pointer: Out<u64>,
    _device: Place,
    name: Text,
    _external: i32,
    _bytes: usize,
    _constant: i32,
    _global: i32,
) {
    if let Ok(name) = name.get() {
        registry(|registry| {
            let binary = (binary - FIRST_BINARY) as usize;
            registry.variables.insert(pointer.address(), (binary, name.clone()));
            registry.managed.push(Managed { binary, name, pointer });
        });
    }
}

runtime! {
    fn cudaGetSymbolAddress(out: Out<u64>, symbol: u64) {
        let (_device, address, _) = variable(symbol)?;
        out.put(address)
    }

    fn cudaGetSymbolSize(out: Out<usize>, symbol: u64) {
        let (_device, _, bytes) = variable(symbol)?;
        out.put(bytes)
    }

    fn __cudaGetKernel(out: Out<u64>, host: u64) {
        let (device, function) = function(host)?;
        out.put(device.handle_of_function(function))
    }

    fn cudaGetKernel(out: Out<u64>, host: u64) {
        let (device, function) = function(host)?;
        out.put(device.handle_of_function(function))
    }

    fn cudaGetFuncBySymbol(out: Out<u64>, host: u64) {
        let (device, function) = function(host)?;
        out.put(device.handle_of_function(function))
    }
}
