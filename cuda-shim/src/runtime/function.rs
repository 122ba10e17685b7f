//! Launches, and what is asked of kernels.

use std::cell::RefCell;

use super::register::function;
use super::runtime;
use crate::device::{Attribute, Grid, chip};
use crate::ffi::{Dim3, Given, Out, Place, lasting};
use crate::status::{Call, Status};

/// What stands between `<<<` and `>>>`.
#[derive(Clone, Copy)]
struct Configuration {
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    stream: u64,
}

thread_local! {
    /// Those that are pushed and not yet popped.
    static CONFIGURATIONS: RefCell<Vec<Configuration>> = const { RefCell::new(Vec::new()) };
}

#[unsafe(no_mangle)]
extern "C" fn __cudaPushCallConfiguration(grid: Dim3, block: Dim3, shared_bytes: usize, stream: u64) -> u32 {
    CONFIGURATIONS.with_borrow_mut(|all| all.push(Configuration { grid, block, shared_bytes, stream }));
    0
}

/// Launches what the program names by its stub or a handle.
fn launch(host: u64, shape: Grid, arguments: Given<Place>, stream: u64) -> Call {
    let (mut device, function) = function(host)?;
    device.check_stream(stream)?;
    let kernel = device.kernel(function)?;
    let sizes: Vec<usize> = kernel.parameters().into_iter().map(|(_, bytes)| bytes).collect();
    let places = arguments.list(sizes.len())?;
    let values = places.iter().zip(&sizes).map(|(place, bytes)| place.read(*bytes)).collect::<Call<Vec<_>>>()?;
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let params = kernel.pack(&values).ok_or(Status::INVALID_VALUE)?;
    device.launch(function, shape, params)
}

fn plain(grid: Dim3, block: Dim3, shared_bytes: usize) -> Grid {
    Grid { grid: grid.into(), block: block.into(), cluster: [1; 3], shared_bytes, cooperative: false }
}

/// `cudaLaunchConfig_t`.
#[derive(Clone, Copy)]
#[repr(C)]
struct LaunchConfig {
    grid: Dim3,
    block: Dim3,
    shared_bytes: usize,
    stream: u64,
    attributes: Given<Attribute>,
    count: u32,
}

impl LaunchConfig {
    /// The shape that it asks for.
    fn shape(self) -> Call<Grid> {
        let shape = plain(self.grid, self.block, self.shared_bytes);
        Ok(shape.with(&self.attributes.list(self.count as usize)?))
    }
}

/// `cudaFuncAttributes`.
#[repr(C)]
struct FunctionAttributes {
    shared_bytes: usize,
    constant_bytes: usize,
    local_bytes: usize,
    max_threads: i32,
    registers: i32,
    ptx_version: i32,
    binary_version: i32,
    cache_mode: i32,
    max_dynamic_shared: i32,
    carveout: i32,
    cluster_must_be_set: i32,
    cluster: [i32; 3],
    cluster_policy: i32,
    non_portable_cluster: i32,
    reserved: [i32; 16],
}

/// Registers that are told of every kernel: PTX does not say how many the machine code will have.
const REGISTERS: i32 = 32;

runtime! {
    fn __cudaPopCallConfiguration(grid: Out<Dim3>, block: Out<Dim3>, shared_bytes: Out<usize>, stream: Out<u64>) {
        let top = CONFIGURATIONS.with_borrow_mut(Vec::pop).ok_or(Status::MISSING_CONFIGURATION)?;
        grid.put(top.grid)?;
        block.put(top.block)?;
        shared_bytes.put(top.shared_bytes)?;
        stream.put(top.stream)
    }

    fn cudaLaunchKernel(
        host: u64, grid: Dim3, block: Dim3, arguments: Given<Place>, shared_bytes: usize, stream: u64,
    ) {
        launch(host, plain(grid, block, shared_bytes), arguments, stream)
    }

    fn __cudaLaunchKernel(
        host: u64, grid: Dim3, block: Dim3, arguments: Given<Place>, shared_bytes: usize, stream: u64,
    ) {
        launch(host, plain(grid, block, shared_bytes), arguments, stream)
    }

    fn cudaLaunchCooperativeKernel(
        host: u64, grid: Dim3, block: Dim3, arguments: Given<Place>, shared_bytes: usize, stream: u64,
    ) {
        launch(host, Grid { cooperative: true, ..plain(grid, block, shared_bytes) }, arguments, stream)
    }

    fn cudaLaunchKernelExC(config: Given<LaunchConfig>, host: u64, arguments: Given<Place>) {
        let config = config.get()?;
        launch(host, config.shape()?, arguments, config.stream)
    }

    fn cudaFuncGetAttributes(out: Out<FunctionAttributes>, host: u64) {
        let (mut device, function) = function(host)?;
        let kernel = device.kernel(function)?;
        let arch = device.arch() as i32;
        out.put(FunctionAttributes {
            shared_bytes: kernel.shared_bytes(),
            constant_bytes: 0,
            local_bytes: kernel.local_bytes(),
            max_threads: kernel.max_threads().map_or(chip::MAX_THREADS as i32, |most| most as i32),
            registers: REGISTERS,
            ptx_version: arch,
            binary_version: arch,
            cache_mode: 0,
            max_dynamic_shared: device.function_mut(function)?.max_dynamic_shared as i32,
            carveout: -1,
            cluster_must_be_set: kernel.required_cluster().is_some().into(),
            cluster: kernel.required_cluster().unwrap_or([0; 3]).map(|size| size as i32),
            cluster_policy: 0,
            non_portable_cluster: 0,
            reserved: [0; 16],
        })
    }

    fn cudaFuncSetAttribute(host: u64, attribute: i32, value: i32) {
        /// `cudaFuncAttributeMaxDynamicSharedMemorySize`; the others are advice here.
        const MAX_DYNAMIC_SHARED: i32 = 8;
        let (mut device, function) = function(host)?;
        if attribute == MAX_DYNAMIC_SHARED {
            let most = chip::Limits::of(device.arch()).most_shared();
            let asked = usize::try_from(value).ok().filter(|bytes| *bytes <= most).ok_or(Status::INVALID_VALUE)?;
            device.function_mut(function)?.max_dynamic_shared = asked;
        }
        Ok(())
    }

    fn cudaFuncSetCacheConfig(host: u64, _config: i32) {
        function(host).map(drop)
    }

    fn cudaFuncSetSharedMemConfig(host: u64, _config: i32) {
        function(host).map(drop)
    }

    fn cudaFuncGetName(out: Out<usize>, host: u64) {
        let (device, function) = function(host)?;
        out.put(lasting(device.name(function)?) as usize)
    }

    fn cudaOccupancyMaxActiveBlocksPerMultiprocessor(out: Out<i32>, host: u64, threads: i32, shared_bytes: usize) {
        let (mut device, function) = function(host)?;
        let threads = u64::try_from(threads).map_err(|_| Status::INVALID_VALUE)?;
        out.put(device.occupancy(function, threads, shared_bytes)? as i32)
    }

    fn cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        out: Out<i32>, host: u64, threads: i32, shared_bytes: usize, _flags: u32,
    ) {
        let (mut device, function) = function(host)?;
        let threads = u64::try_from(threads).map_err(|_| Status::INVALID_VALUE)?;
        out.put(device.occupancy(function, threads, shared_bytes)? as i32)
    }

    fn cudaOccupancyAvailableDynamicSMemPerBlock(out: Out<usize>, host: u64, blocks: i32, _threads: i32) {
        let (mut device, function) = function(host)?;
        let own = device.kernel(function)?.shared_bytes();
        let blocks = usize::try_from(blocks).ok().filter(|count| *count > 0).ok_or(Status::INVALID_VALUE)?;
        let each = chip::Limits::of(device.arch()).shared / blocks;
        out.put(each.saturating_sub(own + chip::RESERVED_SHARED))
    }
}
