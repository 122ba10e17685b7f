//! The Hopper flagship for a Rust program (feature `gpu`): load the exported cubin, quantise FP16 tensors on the device,
//! attend. Lengths, head dimensions and the device are checked before anything is launched, so no call here is unsafe;
//! everything is ordered by the caller's stream and may be captured into a graph. Leaves to others: building the cubin.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUfunction_attribute as FunctionAttribute};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DriverError, SyncOnDrop, result};

use crate::abi::{CONFIG_BYTES, Config, ConfigError};
use crate::hopper::{self, AttentionParams, Geometry, QuantiseParams, Sizes, Start};

/// Why a call was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The driver's own error.
    #[error("CUDA: {0}")]
    Driver(#[from] DriverError),
    /// The cubin is not one of this crate's.
    #[error("the cubin does not describe itself as expected: {0}; export it with the version that loads it")]
    Config(#[from] ConfigError),
    /// wgmma exists on compute capability 9.0 only.
    #[error("the kernel is compiled for compute capability 9.0 and this device has {0}.{1}; run on an H100 or H200")]
    Device(i32, i32),
    /// D is not 64 or 128.
    #[error("no kernel for head dimension {0}: use 64 or 128")]
    HeadDim(u32),
    /// No heads or no rows, or more than the kernels count.
    #[error(
        "{heads} heads of {seq_q} queries and {seq_kv} keys are none, or too many for one call; each must be at least 1"
    )]
    Sizes {
        /// B * H.
        heads: u32,
        /// Query rows per head.
        seq_q: u32,
        /// Keys per head.
        seq_kv: u32,
    },
    /// A tensor is in the memory of another context.
    #[error("`{tensor}` is not in the memory of the stream's device")]
    Elsewhere {
        /// Which.
        tensor: &'static str,
    },
    /// A tensor has another length than the sizes say.
    #[error("`{tensor}` has {found} elements, {wanted} expected")]
    Length {
        /// Which.
        tensor: &'static str,
        /// Its length.
        found: usize,
        /// What the sizes say.
        wanted: usize,
    },
}

/// A loaded module, unloaded with its owner.
struct Module {
    handle: sys::CUmodule,
    /// Keeps the context.
    stream: Arc<CudaStream>,
}

impl Drop for Module {
    fn drop(&mut self) {
        // Launches may still be running from its code.
        let _ = self.stream.synchronize();
        // SAFETY: loaded in `Hopper::load`, unloaded once.
        let _ = unsafe { result::module::unload(self.handle) };
    }
}

/// An entry function and what it was compiled with.
struct Entry {
    function: sys::CUfunction,
    config: Config,
}

impl Entry {
    fn get(&self, field: &str) -> u32 {
        self.config.get(field).unwrap_or(0)
    }
}

/// The kernels, on one stream of one device.
pub struct Hopper {
    module: Module,
    entries: BTreeMap<String, Entry>,
    multiprocessors: u32,
}

/// Q, K and V as the attention kernel takes them: e4m3 images, and scales and offsets. Made by [`Hopper::operands`].
pub struct Operands {
    sizes: Sizes,
    images: [CudaSlice<u8>; 3],
    scales: CudaSlice<f32>,
}

/// FP16 Q `[B*H, S_q, D]`, K and V `[B*H, S_kv, D]`, dense, as their bits.
#[derive(Clone, Copy)]
pub struct Tensors<'a> {
    /// Q.
    pub q: &'a CudaSlice<u16>,
    /// K.
    pub k: &'a CudaSlice<u16>,
    /// V.
    pub v: &'a CudaSlice<u16>,
}

impl Hopper {
    /// Loads the exported cubin for the device of `stream`, on which all work will run.
    pub fn load(stream: &Arc<CudaStream>, cubin: &[u8]) -> Result<Hopper, GpuError> {
        let context = stream.context();
        context.bind_to_thread()?;
        let capability = context.compute_capability()?;
        if capability != (9, 0) {
            return Err(GpuError::Device(capability.0, capability.1));
        }
        let multiprocessors = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32;
        // SAFETY: the driver copies the image during the call, and refuses what is none.
        let handle = unsafe { result::module::load_data(cubin.as_ptr().cast()) }?;
        let module = Module { handle, stream: Arc::clone(stream) };
        let mut entries = BTreeMap::new();
        for point in hopper::entry_points() {
            let name = |text: &str| CString::new(text).expect("names of entries hold no NUL");
            // SAFETY: the module is loaded; the copy has the length that the driver gave.
            let (function, bytes) = unsafe {
                let (address, len) = result::module::get_global(handle, name(&point.config_symbol))?;
                let mut bytes = vec![0u8; len];
                result::memcpy_dtoh_sync(&mut bytes, address)?;
                (result::module::get_function(handle, name(&point.name))?, bytes)
            };
            if bytes.len() != CONFIG_BYTES {
                return Err(ConfigError::Size(bytes.len()).into());
            }
            let config = Config::parse(&bytes)?;
            let entry = Entry { function, config };
            if entry.get("params_bytes") as usize != point.operands.params_bytes() {
                return Err(ConfigError::Params(entry.get("params_bytes")).into());
            }
            // SAFETY: the function belongs to the loaded module.
            unsafe {
                result::function::set_function_attribute(
                    function,
                    FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    entry.get("dynamic_smem") as i32,
                )?;
            }
            entries.insert(point.name, entry);
        }
        Ok(Hopper { module, entries, multiprocessors })
    }

    /// Room for the operands of a problem of these sizes.
    pub fn operands(&self, sizes: Sizes) -> Result<Operands, GpuError> {
        let name = sizes.entry(self.multiprocessors).ok_or(GpuError::HeadDim(sizes.head_dim))?;
        let Sizes { heads, seq_q, seq_kv, .. } = sizes;
        if !sizes.fits(self.entries[name].get("tile_q")) {
            return Err(GpuError::Sizes { heads, seq_q, seq_kv });
        }
        let stream = &self.module.stream;
        let [q, k, v] = sizes.image_bytes();
        let images = [stream.alloc_zeros(q)?, stream.alloc_zeros(k)?, stream.alloc_zeros(v)?];
        Ok(Operands { sizes, images, scales: stream.alloc_zeros(sizes.scale_words())? })
    }

    /// Quantises FP16 tensors into `operands`.
    pub fn quantise(&self, tensors: Tensors, operands: &mut Operands) -> Result<(), GpuError> {
        let sizes = operands.sizes;
        let (q, kv) = (sizes.elements(sizes.seq_q), sizes.elements(sizes.seq_kv));
        for (tensor, slice, wanted) in [("q", tensors.q, q), ("k", tensors.k, kv), ("v", tensors.v, kv)] {
            self.check(tensor, slice, wanted)?;
        }
        let stream = &self.module.stream;
        let (sources, _read) = addresses([tensors.q, tensors.k, tensors.v], stream);
        let [q, k, v] = &mut operands.images;
        let ((q, _q), (k, _k), (v, _v)) =
            (q.device_ptr_mut(stream), k.device_ptr_mut(stream), v.device_ptr_mut(stream));
        let (scales, _scales) = operands.scales.device_ptr_mut(stream);
        let params = QuantiseParams { sources, images: [q, k, v], scales, seq_q: sizes.seq_q, seq_kv: sizes.seq_kv };
        let entry = &self.entries[&format!("quantise_d{}", sizes.head_dim)];
        let geometry = sizes.quantise_geometry(entry.get("threads"));
        self.launch(entry, &geometry, Start::InOrder, &mut params.to_bytes())
    }

    /// O = softmax(`softmax_scale` Q Kᵀ) V into `out`, FP16 bits `[B*H, S_q, D]`. With causal sizes the last row is aligned with
    /// the last key.
    pub fn attend(&self, operands: &Operands, softmax_scale: f32, out: &mut CudaSlice<u16>) -> Result<(), GpuError> {
        self.start_attention(operands, softmax_scale, out, Start::InOrder)
    }

    /// [`Hopper::quantise`], then [`Hopper::attend`] with its beginning under the quantiser's end.
    pub fn attend_from_originals(
        &self,
        tensors: Tensors,
        operands: &mut Operands,
        softmax_scale: f32,
        out: &mut CudaSlice<u16>,
    ) -> Result<(), GpuError> {
        self.quantise(tensors, operands)?;
        self.start_attention(operands, softmax_scale, out, Start::Early)
    }

    fn start_attention(
        &self,
        operands: &Operands,
        softmax_scale: f32,
        out: &mut CudaSlice<u16>,
        start: Start,
    ) -> Result<(), GpuError> {
        let sizes = operands.sizes;
        self.check("out", out, sizes.elements(sizes.seq_q))?;
        let name = sizes.entry(self.multiprocessors).ok_or(GpuError::HeadDim(sizes.head_dim))?;
        let entry = &self.entries[name];
        let stream = &self.module.stream;
        let [q, k, v] = &operands.images;
        let (images, _read) = addresses([q, k, v], stream);
        let (scales, _scales) = operands.scales.device_ptr(stream);
        let (out, _out) = out.device_ptr_mut(stream);
        let params = AttentionParams {
            images,
            scales,
            out,
            sizes,
            causal_offset: sizes.seq_kv as i32 - sizes.seq_q as i32,
            softmax_scale,
            tile_q: entry.get("tile_q"),
        };
        let geometry = sizes.attention_geometry(entry.get("tile_q"), entry.get("threads"), self.multiprocessors);
        self.launch(entry, &geometry, start, &mut params.to_bytes())
    }

    fn check(&self, tensor: &'static str, slice: &CudaSlice<u16>, wanted: usize) -> Result<(), GpuError> {
        if slice.context().cu_ctx() != self.module.stream.context().cu_ctx() {
            return Err(GpuError::Elsewhere { tensor });
        }
        match slice.len() {
            found if found == wanted => Ok(()),
            found => Err(GpuError::Length { tensor, found, wanted }),
        }
    }

    fn launch(&self, entry: &Entry, geometry: &Geometry, start: Start, params: &mut [u8]) -> Result<(), GpuError> {
        use sys::CUlaunchAttributeID as Id;
        let stream = &self.module.stream;
        stream.context().bind_to_thread()?;
        let mut arguments = [params.as_mut_ptr().cast::<c_void>()];
        let [x, y, z] = geometry.grid;
        let cluster = sys::CUlaunchAttributeValue {
            clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: geometry.cluster, y: 1, z: 1 },
        };
        let early =
            sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: (start == Start::Early).into() };
        let attribute = |id, value| sys::CUlaunchAttribute { id, pad: [0; 4], value };
        let mut attributes = [
            attribute(Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, early),
            attribute(Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, cluster),
        ];
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: geometry.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: entry.get("dynamic_smem"),
            hStream: stream.cu_stream(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: if geometry.cluster > 1 { 2 } else { 1 },
        };
        // SAFETY: the entry takes one struct of this very size by value (checked when it was loaded), copied during the
        // call; every pointer in it is that of a slice whose length was checked and whose use the stream orders.
        unsafe { sys::cuLaunchKernelEx(&config, entry.function, arguments.as_mut_ptr(), std::ptr::null_mut()).result() }
            .map_err(GpuError::from)
    }
}

/// Addresses, and the records of the reads, which last until the launch that reads is on the stream.
fn addresses<'a, T>(slices: [&'a CudaSlice<T>; 3], stream: &'a CudaStream) -> ([u64; 3], [SyncOnDrop<'a>; 3]) {
    let [(a, x), (b, y), (c, z)] = slices.map(|slice| slice.device_ptr(stream));
    ([a, b, c], [x, y, z])
}
