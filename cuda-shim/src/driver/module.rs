//! Modules, functions and launches.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::driver;
use crate::device::{Attribute, Device, Grid, chip, hold};
use crate::fatbin::{self, Refusal};
use crate::ffi::{Given, Out, Place, Text, lasting};
use crate::status::{Call, Status};

/// Handles of modules are numbers from here.
const FIRST_MODULE: u64 = 1 << 40;
/// From one to the next.
const STEP: u64 = 16;
/// How machine code begins.
const ELF: u32 = 0x464c_457f;
/// Largest header of an image that is looked at before its size is known, in bytes.
const HEADER: usize = 16;

fn handle(module: usize) -> u64 {
    FIRST_MODULE + module as u64 * STEP
}

fn module(handle: u64) -> Call<usize> {
    let at = handle.checked_sub(FIRST_MODULE).ok_or(Status::INVALID_HANDLE)?;
    usize::try_from(at / STEP).map_err(|_| Status::INVALID_HANDLE)
}

fn function(device: &Device, handle: u64) -> Call<usize> {
    device.function_of_handle(handle).ok_or(Status::INVALID_HANDLE)
}

/// The PTX of an image in the caller's memory: text, or a fat binary, or the structure that points to one.
fn ptx(device: &mut Device, image: Place) -> Call<String> {
    let word = image.word()?;
    let container = if fatbin::is_wrapper(word) {
        let bytes = image.read(HEADER)?;
        let address = bytes[8..16].try_into().map_err(|_| Status::INVALID_IMAGE)?;
        Place::at(u64::from_le_bytes(address))
    } else if word == ELF {
        device.refuse("cuModuleLoadData", "the image is machine code; only PTX is emulated");
        return Err(Status::NO_BINARY);
    } else if fatbin::is_container(word) {
        image
    } else {
        return image.text();
    };
    let bytes = fatbin::container_bytes(&container.read(HEADER)?).ok_or(Status::INVALID_IMAGE)?;
    match fatbin::newest_ptx(&container.read(bytes)?) {
        Ok(ptx) => Ok(ptx.text),
        Err(Refusal::Damaged(why)) => {
            device.refuse("fat binary", why);
            Err(Status::INVALID_IMAGE)
        }
        Err(Refusal::MachineCode(_)) => {
            device.refuse("fat binary", "it has machine code and no PTX");
            Err(Status::NO_BINARY)
        }
    }
}

fn load(out: Out<u64>, image: Place) -> Call {
    let mut device = hold();
    let ptx = ptx(&mut device, image)?;
    out.put(handle(device.load(&ptx)?))
}

fn get_function(out: Out<u64>, handle: u64, name: Text) -> Call {
    let mut device = hold();
    let function = device.function(module(handle)?, &name.get()?)?;
    out.put(device.handle_of_function(function))
}

fn get_global(address: Out<u64>, bytes: Out<usize>, handle: u64, name: Text) -> Call {
    let symbol = hold().symbol(module(handle)?, &name.get()?)?;
    address.offer(symbol.address());
    bytes.offer(symbol.bytes());
    Ok(())
}

fn get_attribute(out: Out<i32>, attribute: i32, handle: u64) -> Call {
    /// Registers that are told of every kernel: PTX does not say how many the machine code will have.
    const REGISTERS: i32 = 32;
    let mut device = hold();
    let function = function(&device, handle)?;
    let kernel = device.kernel(function)?;
    let arch = device.arch() as i32;
    out.put(match attribute {
        0 => kernel.max_threads().map_or(chip::MAX_THREADS as i32, |most| most as i32),
        1 => kernel.shared_bytes() as i32,
        3 => kernel.local_bytes() as i32,
        4 => REGISTERS,
        5 | 6 => arch,
        8 => device.function_mut(function)?.max_dynamic_shared as i32,
        2 | 7 | 9..=15 => 0,
        _ => return Err(Status::INVALID_VALUE),
    })
}

fn set_attribute(handle: u64, attribute: i32, value: i32) -> Call {
    /// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`; the others are advice here.
    const MAX_DYNAMIC_SHARED: i32 = 8;
    let mut device = hold();
    let function = function(&device, handle)?;
    if attribute == MAX_DYNAMIC_SHARED {
        let most = chip::Limits::of(device.arch()).most_shared();
        let asked = usize::try_from(value).ok().filter(|bytes| *bytes <= most).ok_or(Status::INVALID_VALUE)?;
        device.function_mut(function)?.max_dynamic_shared = asked;
    }
    Ok(())
}

/// Launches with arguments by pointers, or as one block.
fn launch(handle: u64, shape: Grid, stream: u64, arguments: Given<Place>, extra: Given<u64>) -> Call {
    let mut device = hold();
    let function = function(&device, handle)?;
    device.check_stream(stream)?;
    let kernel = device.kernel(function)?;
    let params = if extra.is_given() {
        let mut block = block(extra)?;
        // What the caller gives may end before the padding.
        block.resize(kernel.parameter_bytes(), 0);
        block
    } else {
        let sizes: Vec<usize> = kernel.parameters().into_iter().map(|(_, bytes)| bytes).collect();
        let places = arguments.list(sizes.len())?;
        let values = places.iter().zip(&sizes).map(|(place, bytes)| place.read(*bytes)).collect::<Call<Vec<_>>>()?;
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        kernel.pack(&values).ok_or(Status::INVALID_VALUE)?
    };
    device.launch(function, shape, params)
}

/// The block of arguments that a list of keys and values points to.
fn block(extra: Given<u64>) -> Call<Vec<u8>> {
    const END: u64 = 0;
    const POINTER: u64 = 1;
    const SIZE: u64 = 2;
    /// Most keys and values of a list.
    const MOST: usize = 5;
    let (mut address, mut bytes) = (None, None);
    let mut at = 0;
    while at < MOST {
        let pair = extra.list(at + 1)?;
        match pair[at] {
            END => break,
            POINTER => address = extra.list(at + 2)?.last().copied(),
            SIZE => {
                let size = extra.list(at + 2)?.last().copied().ok_or(Status::INVALID_VALUE)?;
                let size = Place::at(size).read(size_of::<usize>())?;
                bytes = size.try_into().ok().map(usize::from_le_bytes);
            }
            _ => return Err(Status::INVALID_VALUE),
        }
        at += 2;
    }
    Place::at(address.ok_or(Status::INVALID_VALUE)?).read(bytes.ok_or(Status::INVALID_VALUE)?)
}

/// `CUlaunchConfig`.
#[derive(Clone, Copy)]
#[repr(C)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: u64,
    attributes: Given<Attribute>,
    count: u32,
}

/// Texts that a linker was given, by its handle; and what it made.
static LINKERS: Mutex<Option<HashMap<u64, String>>> = Mutex::new(None);

fn linkers<T>(act: impl FnOnce(&mut HashMap<u64, String>) -> T) -> T {
    act(LINKERS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

driver! {
    fn cuModuleLoad(out: Out<u64>, path: Text) {
        let mut image = std::fs::read(path.get()?).map_err(|_| Status::NOT_FOUND)?;
        // The file's text has no zero at its end.
        image.push(0);
        load(out, Place::at(image.as_ptr() as u64))
    }

    fn cuModuleLoadData(out: Out<u64>, image: Place) {
        load(out, image)
    }

    fn cuModuleLoadDataEx(out: Out<u64>, image: Place, _count: u32, _options: u64, _values: u64) {
        load(out, image)
    }

    fn cuModuleLoadFatBinary(out: Out<u64>, image: Place) {
        load(out, image)
    }

    fn cuModuleUnload(handle: u64) {
        hold().unload(module(handle)?)
    }

    fn cuModuleGetFunction(out: Out<u64>, handle: u64, name: Text) {
        get_function(out, handle, name)
    }

    fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, handle: u64, name: Text) {
        get_global(address, bytes, handle, name)
    }

    fn cuModuleGetLoadingMode(out: Out<i32>) {
        // Kernels are lowered when they are first used.
        out.put(2)
    }

    fn cuModuleGetFunctionCount(out: Out<u32>, handle: u64) {
        out.put(hold().entries(module(handle)?)?.len() as u32)
    }

    fn cuLibraryLoadData(
        out: Out<u64>, image: Place, _options: u64, _values: u64, _count: u32, _library_options: u64,
        _library_values: u64, _library_count: u32,
    ) {
        load(out, image)
    }

    fn cuLibraryUnload(handle: u64) {
        hold().unload(module(handle)?)
    }

    fn cuLibraryGetKernel(out: Out<u64>, handle: u64, name: Text) {
        get_function(out, handle, name)
    }

    fn cuLibraryGetModule(out: Out<u64>, handle: u64) {
        out.put(handle)
    }

    fn cuLibraryGetGlobal(address: Out<u64>, bytes: Out<usize>, handle: u64, name: Text) {
        get_global(address, bytes, handle, name)
    }

    fn cuKernelGetFunction(out: Out<u64>, kernel: u64) {
        out.put(kernel)
    }

    fn cuKernelGetAttribute(out: Out<i32>, attribute: i32, kernel: u64, _device: i32) {
        get_attribute(out, attribute, kernel)
    }

    fn cuKernelSetAttribute(attribute: i32, value: i32, kernel: u64, _device: i32) {
        set_attribute(kernel, attribute, value)
    }

    fn cuLinkCreate_v2(_count: u32, _options: u64, _values: u64, out: Out<u64>) {
        let linker = linkers(|all| {
            let linker = (all.len() as u64 + 1) * STEP;
            all.insert(linker, String::new());
            linker
        });
        out.put(linker)
    }

    fn cuLinkAddData_v2(
        linker: u64, _kind: i32, data: Place, _bytes: usize, _name: Text, _count: u32, _options: u64, _values: u64,
    ) {
        let text = ptx(&mut hold(), data)?;
        let is_second = linkers(|all| {
            let known = all.get_mut(&linker).ok_or(Status::INVALID_HANDLE)?;
            let is_second = !known.is_empty();
            *known = text;
            Ok(is_second)
        })?;
        if is_second {
            hold().refuse("cuLinkAddData", "only one text of PTX can be linked");
            return Err(Status::NOT_SUPPORTED);
        }
        Ok(())
    }

    fn cuLinkComplete(linker: u64, image: Out<u64>, bytes: Out<usize>) {
        // What is made of PTX here is the PTX.
        let text = linkers(|all| all.get(&linker).cloned()).ok_or(Status::INVALID_HANDLE)?;
        bytes.offer(text.len() + 1);
        image.put(lasting(&text) as u64)
    }

    fn cuLinkDestroy(linker: u64) {
        linkers(|all| all.remove(&linker)).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    fn cuFuncGetAttribute(out: Out<i32>, attribute: i32, handle: u64) {
        get_attribute(out, attribute, handle)
    }

    fn cuFuncSetAttribute(handle: u64, attribute: i32, value: i32) {
        set_attribute(handle, attribute, value)
    }

    fn cuFuncSetCacheConfig(handle: u64, _config: i32) {
        function(&hold(), handle).map(drop)
    }

    fn cuFuncSetSharedMemConfig(handle: u64, _config: i32) {
        function(&hold(), handle).map(drop)
    }

    fn cuFuncGetName(out: Out<u64>, handle: u64) {
        let device = hold();
        out.put(lasting(device.name(function(&device, handle)?)?) as u64)
    }

    fn cuFuncGetModule(out: Out<u64>, handle_of_function: u64) {
        let mut device = hold();
        let function = function(&device, handle_of_function)?;
        out.put(handle(device.function_mut(function)?.module()))
    }

    fn cuFuncGetParamInfo(handle: u64, index: usize, offset: Out<usize>, bytes: Out<usize>) {
        let mut device = hold();
        let function = function(&device, handle)?;
        let parameters = device.kernel(function)?.parameters();
        let (at, size) = parameters.get(index).ok_or(Status::INVALID_VALUE)?;
        offset.put(*at)?;
        bytes.offer(*size);
        Ok(())
    }

    fn cuFuncLoad(handle: u64) {
        function(&hold(), handle).map(drop)
    }

    fn cuLaunchKernel(
        handle: u64, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: u64, arguments: Given<Place>, extra: Given<u64>,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let shape = Grid { grid, block, cluster: [1; 3], shared_bytes: shared_bytes as usize, cooperative: false };
        launch(handle, shape, stream, arguments, extra)
    }

    fn cuLaunchCooperativeKernel(
        handle: u64, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: u64, arguments: Given<Place>,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let shape = Grid { grid, block, cluster: [1; 3], shared_bytes: shared_bytes as usize, cooperative: true };
        launch(handle, shape, stream, arguments, Given::none())
    }

    fn cuLaunchKernelEx(config: Given<LaunchConfig>, handle: u64, arguments: Given<Place>, extra: Given<u64>) {
        let LaunchConfig { grid, block, shared_bytes, stream, attributes, count } = config.get()?;
        let shape = Grid { grid, block, cluster: [1; 3], shared_bytes: shared_bytes as usize, cooperative: false };
        launch(handle, shape.with(&attributes.list(count as usize)?), stream, arguments, extra)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(out: Out<i32>, handle: u64, threads: i32, shared_bytes: usize) {
        let mut device = hold();
        let function = function(&device, handle)?;
        let threads = u64::try_from(threads).map_err(|_| Status::INVALID_VALUE)?;
        out.put(device.occupancy(function, threads, shared_bytes)? as i32)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        out: Out<i32>, handle: u64, threads: i32, shared_bytes: usize, _flags: u32,
    ) {
        let mut device = hold();
        let function = function(&device, handle)?;
        let threads = u64::try_from(threads).map_err(|_| Status::INVALID_VALUE)?;
        out.put(device.occupancy(function, threads, shared_bytes)? as i32)
    }
}
