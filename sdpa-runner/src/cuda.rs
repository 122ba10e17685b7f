//! A thin, owning layer over the CUDA driver: context, guarded buffers, modules, events, graphs. One device, one
//! stream; every handle is freed with its owner. Leaves to others: what is launched, and when.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{DriverError, result};
use kbench::deferral::Deferral;
use kbench::evidence::Device;
use kernel_spec::launch::{Argument, Launch, Step};
use kernel_spec::params;
use operators::setup::Pattern;

use crate::workload::{Content, Machine};

/// Why there is no device.
pub fn missing_driver() -> Option<Deferral> {
    // SAFETY: only tries to open the library; nothing else runs before it.
    let present = unsafe { sys::is_culib_present() };
    (!present).then(|| Deferral::new("no CUDA driver library on this machine", "run on a machine with an NVIDIA GPU"))
}

/// The unique id of the first CUDA device, which needs no context: whoever computes on it now is not us.
pub fn first_uuid() -> Result<String> {
    result::init().map_err(|e| anyhow!("CUDA does not start: {}", explain(e)))?;
    let ordinal = result::device::get(0).map_err(|e| anyhow!("no CUDA device: {}", explain(e)))?;
    uuid_of(ordinal)
}

/// Every CUDA device, which needs no context.
pub fn visible() -> Result<Vec<Device>> {
    result::init().map_err(|e| anyhow!("CUDA does not start: {}", explain(e)))?;
    let count = result::device::get_count().map_err(cause)?;
    (0..count).map(|i| describe(result::device::get(i).map_err(cause)?)).collect()
}

fn uuid_of(ordinal: sys::CUdevice) -> Result<String> {
    let uuid = result::device::get_uuid(ordinal).map_err(cause)?;
    let hex: String = uuid.bytes.iter().map(|b| format!("{:02x}", *b as u8)).collect();
    Ok(format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// The first CUDA device, its primary context current on this thread, and one stream.
pub struct Gpu {
    ordinal: sys::CUdevice,
    stream: sys::CUstream,
    /// What the driver says of it.
    pub device: Device,
}

impl Gpu {
    /// Opens device 0. Call [`missing_driver`] first: the driver's functions are looked up when first called.
    pub fn open() -> Result<Gpu> {
        result::init().map_err(|e| anyhow!("CUDA does not start: {}", explain(e)))?;
        let ordinal = result::device::get(0).map_err(|e| anyhow!("no CUDA device: {}", explain(e)))?;
        let device = describe(ordinal)?;
        // SAFETY: the ordinal was just returned by the driver; the context is released in drop.
        unsafe {
            let context = result::primary_ctx::retain(ordinal).map_err(cause)?;
            result::ctx::set_current(context).map_err(cause)?;
        }
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(cause)?;
        Ok(Gpu { ordinal, stream, device })
    }

    /// Launches a function that is no kernel of a record: CTAs and threads along x, and the addresses of its parameters.
    ///
    /// # Safety
    /// The parameters are those that the function declares, and what they point to outlives the work on the stream.
    pub unsafe fn launch(
        &self,
        function: sys::CUfunction,
        [ctas, threads]: [u32; 2],
        parameters: &mut [*mut c_void],
    ) -> Result<(), DriverError> {
        // SAFETY: by the caller; the parameters are copied during the call.
        unsafe { result::launch_kernel(function, (ctas, 1, 1), (threads, 1, 1), 0, self.stream, parameters) }
    }

    /// Whether the device still takes work: an error of a kernel stays in its context, and every call then fails.
    pub fn is_alive(&self) -> bool {
        self.synchronize().is_ok()
    }

    /// Lets lines of the L2 go that a kernel asked to keep: the next one's are as good as they.
    pub fn forget_persisting(&self) -> Result<(), DriverError> {
        // SAFETY: the context is current on this thread.
        unsafe { sys::cuCtxResetPersistingL2Cache() }.result()
    }

    /// Waits for everything on the stream.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        // SAFETY: the stream lives as long as self.
        unsafe { result::stream::synchronize(self.stream) }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: both were made in open and are not used after this. After a kernel fault both calls fail, which
        // changes nothing: the process is about to end.
        unsafe {
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.ordinal);
        }
    }
}

fn describe(ordinal: sys::CUdevice) -> Result<Device> {
    let attribute = |attribute| {
        // SAFETY: the ordinal is valid.
        unsafe { result::device::get_attribute(ordinal, attribute) }.map(|v| v as u32).map_err(cause)
    };
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(cause)?;
    Ok(Device {
        name: result::device::get_name(ordinal).map_err(cause)?,
        uuid: uuid_of(ordinal)?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        sm_count: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        max_sm_clock_mhz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)? / 1000,
        // SAFETY: the ordinal is valid.
        memory_bytes: unsafe { result::device::total_mem(ordinal) }.map_err(cause)? as u64,
        memory_bytes_per_us: {
            // Two transfers a clock; the clock is in kHz, the bus in bits.
            let clock = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
            let bus = attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
            Some(2.0 * f64::from(clock) / 1e3 * f64::from(bus) / 8.0)
        },
        l2_bytes: u64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        max_shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        cuda_driver: format!("{}.{}", version / 1000, version % 1000 / 10),
        nvml: None,
    })
}

/// A driver error as an error of ours.
pub fn cause(error: DriverError) -> anyhow::Error {
    anyhow!("{}", explain(error))
}

/// An error of a launch in words: the driver's with its usual cause, any other as it is.
pub fn words(error: &anyhow::Error) -> String {
    error.downcast_ref::<DriverError>().map_or_else(|| format!("{error:#}"), |error| explain(*error))
}

/// A driver error in words, with its usual cause where there is one.
pub fn explain(error: DriverError) -> String {
    use sys::CUresult as Code;
    let usual = match error.0 {
        Code::CUDA_ERROR_ILLEGAL_ADDRESS => "the kernel reads or writes outside its buffers",
        Code::CUDA_ERROR_MISALIGNED_ADDRESS => "a vector access is not aligned to its size",
        Code::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => {
            "registers times threads, or shared memory, exceed the multiprocessor"
        }
        Code::CUDA_ERROR_INVALID_VALUE => "grid, block or dynamic shared memory is beyond the device's limits",
        Code::CUDA_ERROR_NO_BINARY_FOR_GPU | Code::CUDA_ERROR_INVALID_IMAGE => "the cubin is for another architecture",
        Code::CUDA_ERROR_LAUNCH_TIMEOUT => "the kernel ran into the display watchdog",
        Code::CUDA_ERROR_ILLEGAL_INSTRUCTION => "an instruction that this chip does not have, or a corrupt jump",
        Code::CUDA_ERROR_ASSERT => "a device-side assertion failed",
        Code::CUDA_ERROR_NOT_FOUND => "the module has no symbol of that name",
        _ => "",
    };
    let name = error.error_name().ok().and_then(|n| n.to_str().ok()).unwrap_or("unknown CUDA error");
    let text = error.error_string().ok().and_then(|n| n.to_str().ok()).unwrap_or("");
    if usual.is_empty() { format!("{name}: {text}") } else { format!("{name}: {text} ({usual})") }
}

/// Bytes of the band on each side of a buffer.
const GUARD_BYTES: usize = 4096;
/// What bands hold: NaN in e4m3 (0x7f) and in FP16 (0x7f7f), so that a stray read shows in the result.
pub const GUARD: u8 = 0x7f;

/// Device memory with a guard band on each side.
pub struct Buffer {
    base: sys::CUdeviceptr,
    len: usize,
}

impl Buffer {
    /// `len` bytes, all `fill`.
    pub fn filled(len: usize, fill: u8) -> Result<Buffer> {
        // SAFETY: the pointer is owned by the buffer and freed once; both memsets stay within the allocation.
        unsafe {
            let base = result::malloc_sync(len + 2 * GUARD_BYTES).map_err(cause)?;
            let buffer = Buffer { base, len };
            result::memset_d8_sync(base, GUARD, len + 2 * GUARD_BYTES).map_err(cause)?;
            result::memset_d8_sync(buffer.address(), fill, len).map_err(cause)?;
            // These memsets return before they are done, and our stream does not wait for theirs.
            result::ctx::synchronize().map_err(cause)?;
            Ok(buffer)
        }
    }

    /// A copy of `bytes`.
    pub fn holding(bytes: &[u8]) -> Result<Buffer> {
        let buffer = Buffer::filled(bytes.len(), 0)?;
        // SAFETY: source and destination have the same length.
        unsafe { result::memcpy_htod_sync(buffer.address(), bytes) }.map_err(cause)?;
        Ok(buffer)
    }

    /// Bytes, guards excepted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Device address of the first byte.
    pub fn address(&self) -> u64 {
        self.base + GUARD_BYTES as u64
    }

    /// Sets every byte, guards excepted, in the order of the stream.
    pub fn fill(&self, gpu: &Gpu, value: u8) -> Result<(), DriverError> {
        // SAFETY: within the allocation; the stream is alive.
        unsafe { result::memset_d8_async(self.address(), value, self.len, gpu.stream) }
    }

    /// Sets everything, guards excepted, to a pattern that begins anew every four bytes, in the order of the stream.
    pub fn fill_with(&self, gpu: &Gpu, pattern: Pattern) -> Result<(), DriverError> {
        if pattern == [pattern[0]; 4] {
            return self.fill(gpu, pattern[0]);
        }
        let (words, rest) = (self.len / 4, self.len % 4);
        // SAFETY: within the allocation, whose start is aligned; the stream is alive.
        unsafe { sys::cuMemsetD32Async(self.address(), u32::from_le_bytes(pattern), words, gpu.stream).result()? };
        let tail = self.address() + 4 * words as u64;
        let bytes = pattern.into_iter().zip(0..).take(rest);
        // SAFETY: the bytes behind the last whole word; the stream is alive.
        bytes.into_iter().try_for_each(|(byte, i)| unsafe { result::memset_d8_async(tail + i, byte, 1, gpu.stream) })
    }

    /// Takes the bytes of another buffer of its length, in the order of the stream.
    pub fn copy_from(&self, gpu: &Gpu, other: &Buffer) -> Result<(), DriverError> {
        assert_eq!(other.len, self.len, "the copy has the buffer's length");
        // SAFETY: both are allocations of that length; the stream is alive.
        unsafe { result::memcpy_dtod_async(self.address(), other.address(), self.len, gpu.stream) }
    }

    /// The bytes, guards excepted. Synchronise first.
    pub fn read(&self) -> Result<Vec<u8>, DriverError> {
        let mut bytes = vec![0; self.len];
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    /// The same into memory that is there; `bytes` has the buffer's length.
    pub fn read_into(&self, bytes: &mut [u8]) -> Result<(), DriverError> {
        assert_eq!(bytes.len(), self.len, "the copy has the buffer's length");
        // SAFETY: within the allocation, and within `bytes`.
        unsafe { result::memcpy_dtoh_sync(bytes, self.address()) }
    }

    /// Whether both guard bands still hold what they held.
    pub fn guards_intact(&self) -> Result<bool, DriverError> {
        let mut band = vec![0; GUARD_BYTES];
        for start in [self.base, self.address() + self.len as u64] {
            // SAFETY: both bands are within the allocation.
            unsafe { result::memcpy_dtoh_sync(&mut band, start) }?;
            if band.iter().any(|b| *b != GUARD) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `filled`, freed once. Fails after a kernel fault, when the process ends anyway.
        let _ = unsafe { result::free_sync(self.base) };
    }
}

pub struct LoadedModule {
    handle: sys::CUmodule,
}

impl LoadedModule {
    pub fn load(image: &Path) -> Result<LoadedModule> {
        let bytes = std::fs::read(image).with_context(|| format!("failed to read `{}`", image.display()))?;
        // SAFETY: the driver copies the image during the call.
        let handle = unsafe { result::module::load_data(bytes.as_ptr().cast()) }.map_err(cause)?;
        Ok(LoadedModule { handle })
    }

    /// Has the driver assemble PTX.
    pub fn assembled(ptx: &str) -> Result<LoadedModule> {
        let text = CString::new(ptx)?;
        // SAFETY: the text ends with a zero and is read during the call.
        let handle = unsafe { result::module::load_data(text.as_ptr().cast()) }.map_err(cause)?;
        Ok(LoadedModule { handle })
    }

    /// A function by name; it must not outlive the module.
    pub fn function(&self, name: &str) -> Result<sys::CUfunction> {
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(self.handle, CString::new(name)?) }.map_err(cause)
    }

    /// Launches an entry function that takes pointers, and waits for it.
    pub fn launch_on_pointers(
        &self,
        gpu: &Gpu,
        entry: &str,
        [blocks, threads]: [u32; 2],
        pointers: &mut [u64],
    ) -> Result<()> {
        let mut arguments: Vec<*mut c_void> = pointers.iter_mut().map(|p| std::ptr::from_mut(p).cast()).collect();
        let (grid, block) = ((blocks, 1, 1), (threads, 1, 1));
        // SAFETY: the module is loaded; the arguments are copied during the call, and whoever owns the buffers keeps
        // them until this function has waited for the kernel.
        unsafe {
            let function = result::module::get_function(self.handle, CString::new(entry)?).map_err(cause)?;
            result::launch_kernel(function, grid, block, 0, gpu.stream, &mut arguments).map_err(cause)?;
        }
        gpu.synchronize().map_err(cause)
    }

    /// The bytes of a global or constant symbol.
    pub fn symbol(&self, name: &str) -> Result<Vec<u8>> {
        // SAFETY: the module is loaded; the copy has the length that the driver gave.
        unsafe {
            let (address, len) = result::module::get_global(self.handle, CString::new(name)?).map_err(cause)?;
            let mut bytes = vec![0u8; len];
            result::memcpy_dtoh_sync(&mut bytes, address).map_err(cause)?;
            Ok(bytes)
        }
    }

    /// An entry function, allowed so many bytes of dynamic shared memory.
    pub fn kernel(&self, entry: &str, shared_bytes: u32, gpu: &Gpu) -> Result<Kernel<'_>> {
        if shared_bytes > gpu.device.max_shared_bytes {
            bail!(
                "`{entry}` wants {shared_bytes} bytes of dynamic shared memory, the device allows {}",
                gpu.device.max_shared_bytes
            );
        }
        // SAFETY: the module is loaded, and outlives the kernel by its lifetime.
        let function = unsafe {
            let function = result::module::get_function(self.handle, CString::new(entry)?)?;
            result::function::set_function_attribute(
                function,
                sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                shared_bytes as i32,
            )?;
            function
        };
        Ok(Kernel { function, module: std::marker::PhantomData })
    }
}

impl Drop for LoadedModule {
    fn drop(&mut self) {
        // SAFETY: loaded in `load`, unloaded once.
        let _ = unsafe { result::module::unload(self.handle) };
    }
}

/// An entry function ready to launch.
pub struct Kernel<'m> {
    function: sys::CUfunction,
    module: std::marker::PhantomData<&'m LoadedModule>,
}

impl Kernel<'_> {
    /// Launches on the stream of `gpu`, with the addresses of the tensors that the parameters speak of. An error is one of
    /// the launch itself, not of what the kernel then does.
    pub fn launch(&self, gpu: &Gpu, launch: &Launch, address_of: impl FnMut(&str) -> u64) -> Result<()> {
        use sys::CUlaunchAttributeID as Id;
        let mut block = params::bytes(&launch.params, address_of)?;
        let places = params::layout(&launch.params);
        let mut arguments: Vec<*mut c_void> =
            places.iter().map(|place| std::ptr::from_mut(&mut block[place.offset]).cast()).collect();
        let [grid_x, grid_y, grid_z] = launch.grid;
        let [x, y, z] = launch.cluster.unwrap_or([1; 3]);
        let cluster =
            sys::CUlaunchAttributeValue { clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z } };
        let early = sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 };
        let together = sys::CUlaunchAttributeValue { cooperative: 1 };
        let wanted = [
            (x * y * z > 1, Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, cluster),
            (launch.pdl, Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, early),
            (launch.cooperative, Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, together),
        ];
        let mut attributes: Vec<sys::CUlaunchAttribute> = wanted
            .into_iter()
            .filter(|(is_wanted, ..)| *is_wanted)
            .map(|(_, id, value)| sys::CUlaunchAttribute { id, pad: [0; 4], value })
            .collect();
        let config = sys::CUlaunchConfig {
            gridDimX: grid_x,
            gridDimY: grid_y,
            gridDimZ: grid_z,
            blockDimX: launch.block[0],
            blockDimY: launch.block[1],
            blockDimZ: launch.block[2],
            sharedMemBytes: launch.shared_bytes,
            hStream: gpu.stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        // SAFETY: the parameters are those that the entry declares, by whoever made the launch, and are copied during the
        // call; whoever gave the addresses keeps the memory until it has synchronised.
        let launched = unsafe {
            sys::cuLaunchKernelEx(&config, self.function, arguments.as_mut_ptr(), std::ptr::null_mut()).result()
        };
        Ok(launched?)
    }
}

/// What places bytes of the host, and compares memory with them, more quickly than by copies of the host's.
pub trait Copies {
    /// A copy of bytes; none where it has no quicker way.
    fn copy_of(&self, gpu: &Gpu, bytes: &Arc<Vec<u8>>) -> Result<Option<Buffer>>;
    /// Whether memory holds bytes; none where it does not know them.
    fn holds(&self, gpu: &Gpu, memory: &Buffer, bytes: &Arc<Vec<u8>>) -> Result<Option<bool>>;
}

/// A loaded module on a GPU: where setups are placed and their steps run.
pub struct OnGpu<'m> {
    pub gpu: &'m Gpu,
    module: &'m LoadedModule,
    kernels: RefCell<HashMap<(String, u32), Kernel<'m>>>,
    copies: Option<&'m dyn Copies>,
}

impl<'m> OnGpu<'m> {
    /// Nothing is placed yet.
    pub fn new(gpu: &'m Gpu, module: &'m LoadedModule) -> OnGpu<'m> {
        OnGpu { gpu, module, kernels: RefCell::default(), copies: None }
    }

    /// The same, with a quicker way for bytes.
    pub fn with_copies(self, copies: &'m dyn Copies) -> OnGpu<'m> {
        OnGpu { copies: Some(copies), ..self }
    }
}

impl Machine for OnGpu<'_> {
    type Memory = Buffer;

    fn place(&self, _name: &str, content: &Content) -> Result<Buffer> {
        match content {
            Content::Bytes(bytes) => match self.copies.map(|copies| copies.copy_of(self.gpu, bytes)).transpose()? {
                Some(Some(copy)) => Ok(copy),
                _ => Buffer::holding(bytes),
            },
            Content::Poison(len, pattern) => {
                let buffer = Buffer::filled(*len, pattern[0])?;
                buffer.fill_with(self.gpu, *pattern)?;
                Ok(buffer)
            }
            Content::Zero(len) => Buffer::filled(*len, 0),
        }
    }

    fn refill(&self, memory: &Buffer, content: &Content) -> Result<()> {
        match content {
            Content::Poison(_, pattern) => memory.fill_with(self.gpu, *pattern)?,
            Content::Zero(_) => memory.fill(self.gpu, 0)?,
            Content::Bytes(bytes) => {
                let bytes = &bytes[..memory.len()];
                // SAFETY: the lengths are equal; the bytes are pageable, so the driver has copied them on return.
                unsafe { result::memcpy_htod_async(memory.address(), bytes, self.gpu.stream) }?;
            }
        }
        Ok(())
    }

    fn perform<'a>(&self, step: &Step, named: &dyn Fn(&str) -> Option<&'a Buffer>) -> Result<()>
    where
        Buffer: 'a,
    {
        let memory = |name: &str| named(name).with_context(|| format!("`{name}` has no memory"));
        match step {
            Step::Memset { tensor, byte } => memory(tensor)?.fill(self.gpu, *byte)?,
            Step::Copy { from, to } => {
                let (from, to) = (memory(from)?, memory(to)?);
                ensure!(from.len() == to.len(), "a copy of {} bytes to {}", from.len(), to.len());
                to.copy_from(self.gpu, from)?;
            }
            Step::Launch(launch) => {
                let key = (launch.entry.clone(), launch.shared_bytes);
                if !self.kernels.borrow().contains_key(&key) {
                    let kernel = self.module.kernel(&launch.entry, launch.shared_bytes, self.gpu)?;
                    self.kernels.borrow_mut().insert(key.clone(), kernel);
                }
                for name in launch.params.iter().flat_map(Argument::tensors) {
                    memory(name)?;
                }
                let address = |name: &str| named(name).map_or(0, Buffer::address);
                self.kernels.borrow()[&key].launch(self.gpu, launch, address)?;
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        Ok(self.gpu.synchronize()?)
    }

    fn read(&self, memory: &Buffer) -> Result<Vec<u8>> {
        Ok(memory.read()?)
    }

    fn holds(&self, memory: &Buffer, bytes: &Arc<Vec<u8>>) -> Result<bool> {
        match self.copies.map(|copies| copies.holds(self.gpu, memory, bytes)).transpose()? {
            Some(Some(holds)) => Ok(holds),
            _ => Ok(memory.read()? == **bytes),
        }
    }

    fn guards_intact(&self, memory: &Buffer) -> Result<bool> {
        Ok(memory.guards_intact()?)
    }
}

/// A point in the stream that remembers its time.
pub struct Event {
    handle: sys::CUevent,
}

impl Event {
    /// An event with timing.
    pub fn new() -> Result<Event> {
        let handle = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(cause)?;
        Ok(Event { handle })
    }

    /// Records it on the stream.
    pub fn record(&self, gpu: &Gpu) -> Result<(), DriverError> {
        // SAFETY: both handles are alive.
        unsafe { result::event::record(self.handle, gpu.stream) }
    }

    /// Microseconds from `start` to this event; both must have completed.
    pub fn us_since(&self, start: &Event) -> Result<f64, DriverError> {
        // SAFETY: both events were recorded on the one stream and are alive.
        unsafe { result::event::elapsed(start.handle, self.handle) }.map(|ms| f64::from(ms) * 1000.0)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        let _ = unsafe { result::event::destroy(self.handle) };
    }
}

/// An instantiated CUDA graph.
pub struct Graph {
    exec: sys::CUgraphExec,
}

impl Graph {
    /// Captures what `body` launches on the stream.
    pub fn capture(gpu: &Gpu, body: impl FnOnce() -> Result<()>) -> Result<Graph> {
        // SAFETY: the stream is alive; the graph is destroyed after instantiation, the instance in drop.
        unsafe {
            result::stream::begin_capture(gpu.stream, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
            let recorded = body();
            let graph = result::stream::end_capture(gpu.stream)?;
            let exec = recorded.and_then(|()| Ok(result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0))?));
            let _ = result::graph::destroy(graph);
            let exec = exec?;
            result::graph::upload(exec, gpu.stream)?;
            Ok(Graph { exec })
        }
    }

    /// Launches the whole graph.
    pub fn launch(&self, gpu: &Gpu) -> Result<(), DriverError> {
        // SAFETY: both handles are alive.
        unsafe { result::graph::launch(self.exec, gpu.stream) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: instantiated in `capture`, destroyed once.
        let _ = unsafe { result::graph::exec_destroy(self.exec) };
    }
}
