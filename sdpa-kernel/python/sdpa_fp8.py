"""FP8 attention on Hopper for PyTorch: one file, no build.

    cargo xtask build hopper --arch sm_90a --export kernels      # once, anywhere: a cubin and its launch record
    python3 sdpa_fp8.py kernels/hopper-sm_90a.json               # prints error and time, as the suite `flagship` does

    from sdpa_fp8 import Sdpa
    sdpa = Sdpa("kernels/hopper-sm_90a.json")
    out = sdpa(q, k, v, causal=True)                             # FP16 [B, H, S, D], D = 64 or 128

Loads the cubin through the CUDA driver (ctypes) into PyTorch's own context and launches on PyTorch's current stream, so
it can be captured into a CUDA graph. How a call is launched is decided as in sdpa-kernel/src/hopper.rs, and a test there
compares the two.
"""

import ctypes
import hashlib
import json
import math
import pathlib
import struct
import sys
from dataclasses import dataclass

Q_BLOCK_ROWS, TILE_KEYS, SCALES_PER_HEAD = 64, 128, 4
SECTION_BYTES, LARGEST_CLUSTER, GROUP_THREADS = 32 << 20, 8, 128
MOST_KEYS = 1 << 22


def ceil_div(a, b):
    return -(-a // b)


def reciprocal_of(d):
    return 0 if d == 1 else ceil_div(1 << 32, d)


@dataclass(frozen=True)
class Sizes:
    """What decides how a call is launched: heads is B * H."""

    heads: int
    seq_q: int
    seq_kv: int
    head_dim: int
    causal: bool

    def row_tiles(self, rows):
        return self.heads * ceil_div(self.seq_q, rows)

    def entry(self, sms):
        """The attention entry, or None for other head dimensions."""
        few_rows = self.row_tiles(Q_BLOCK_ROWS) <= sms
        if self.head_dim == 64:
            if self.seq_kv <= TILE_KEYS:
                return "attention_d64_1x1"
            if few_rows:
                return "attention_d64_1x2"
            two_by_two = self.causal and self.row_tiles(256) <= 2 * sms
            return "attention_d64_2x2" if two_by_two else "attention_d64_4x1"
        if self.head_dim == 128:
            if few_rows:
                return "attention_d128_1x2"
            return "attention_d128_3x1" if self.causal or self.row_tiles(192) >= 1000 else "attention_d128_2x1"
        return None

    def attention_grid(self, tile_q, sms):
        return [min(self.row_tiles(tile_q), sms), 1, 1]

    def quantiser(self, max_threads):
        """Grid, threads and cluster."""
        units = max(1, ceil_div(max(self.seq_q, self.seq_kv), TILE_KEYS))
        cluster = min(1 << (units - 1).bit_length(), LARGEST_CLUSTER)
        groups = min(ceil_div(units, cluster), max_threads // GROUP_THREADS)
        return [cluster, self.heads, 3], groups * GROUP_THREADS, cluster

    def section_heads(self):
        head_bytes = max(1, 2 * self.seq_kv * self.head_dim)
        most = min(max(SECTION_BYTES // head_bytes, 1), self.heads) if self.causal else 1
        return next(n for n in range(most, 0, -1) if self.heads % n == 0)

    def fits(self, tile_q):
        """Whether the kernels count this far."""
        tiles = ceil_div(self.seq_q, tile_q)
        elements = self.heads * ceil_div(max(self.seq_q, self.seq_kv), TILE_KEYS) * TILE_KEYS * self.head_dim
        return (
            1 <= self.heads <= 65535
            and self.seq_kv <= MOST_KEYS
            and min(self.seq_q, self.seq_kv) > 0
            and elements < 1 << 31
            and self.heads * tiles * self.section_heads() * tiles < 1 << 32
        )

    def scale_words(self):
        return self.heads * (SCALES_PER_HEAD + self.head_dim)

    def image_bytes(self):
        padded = [ceil_div(self.seq_q, Q_BLOCK_ROWS) * Q_BLOCK_ROWS] + [ceil_div(self.seq_kv, TILE_KEYS) * TILE_KEYS] * 2
        return [self.heads * rows * self.head_dim for rows in padded]

    def attention_params(self, images, scales, out, softmax_scale, tile_q):
        section = self.section_heads()
        items = section * ceil_div(self.seq_q, tile_q)
        sizes = [self.heads, self.seq_q, self.seq_kv, int(self.causal), self.seq_kv - self.seq_q, section]
        reciprocals = [reciprocal_of(section), reciprocal_of(items)]
        return struct.pack("<5Q6i2If4x", *images, scales, out, *sizes, *reciprocals, softmax_scale)

    def quantise_params(self, sources, images, scales):
        return struct.pack("<7Q2i", *sources, *images, scales, self.seq_q, self.seq_kv)


class LaunchAttribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint * 16)]


class LaunchConfig(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_uint) for name in ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared")],
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("attribute_count", ctypes.c_uint),
    ]


CLUSTER_DIMENSION = 4
PROGRAMMATIC_STREAM_SERIALIZATION = 6
MAX_DYNAMIC_SHARED = 8


class Driver:
    """The few driver calls that are needed, each raising what the driver says."""

    def __init__(self):
        self.library = ctypes.CDLL("libcuda.so.1")

    def call(self, function, *arguments):
        code = getattr(self.library, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{function}: {(text.value or b'unknown error').decode()}")

    def load(self, image):
        module = ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), image)
        return module

    def function(self, module, name, shared_bytes):
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        self.call("cuFuncSetAttribute", function, MAX_DYNAMIC_SHARED, shared_bytes)
        return function

    def launch(self, function, grid, threads, shared, cluster, early, stream, params):
        """With `early` it may start as soon as the kernel ahead of it allows; it waits for that one's end by itself."""
        attributes = (LaunchAttribute * 2)(
            LaunchAttribute(id=PROGRAMMATIC_STREAM_SERIALIZATION, value=(int(early),)),
            LaunchAttribute(id=CLUSTER_DIMENSION, value=(cluster, 1, 1)),
        )
        config = LaunchConfig(*grid, threads, 1, 1, shared, stream, attributes, 2 if cluster > 1 else 1)
        buffer = ctypes.create_string_buffer(params, len(params))
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(buffer))
        self.call("cuLaunchKernelEx", ctypes.byref(config), function, arguments, None)


class Sdpa:
    """softmax(scale Q K^T) V with FP8 products. Not differentiable."""

    def __init__(self, record_path):
        import torch

        self.torch = torch
        if torch.cuda.get_device_capability() != (9, 0):
            raise RuntimeError("compiled for compute capability 9.0: run on an H100 or H200")
        path = pathlib.Path(record_path)
        record = json.loads(path.read_text())
        image = (path.parent / record["cubin"]).read_bytes()
        if hashlib.sha256(image).hexdigest() != record["cubin_sha256"]:
            raise RuntimeError(f"{record['cubin']} is not the file that {path.name} was written for: export both again")
        torch.cuda.init()
        torch.cuda.current_stream().synchronize()  # PyTorch's context is current from here on
        self.driver = Driver()
        module = self.driver.load(image)  # stays loaded with the process
        self.records = {launch["entry"]: launch for launch in record["launches"]}
        shared = {name: launch["dynamic_smem_bytes"] for name, launch in self.records.items()}
        self.functions = {name: self.driver.function(module, name, shared[name]) for name in self.records}
        self.device = torch.cuda.current_device()
        self.sms = torch.cuda.get_device_properties(self.device).multi_processor_count

    def __call__(self, q, k, v, causal=False, scale=None):
        """FP16 [B, H, S_q, D] and twice [B, H, S_kv, D] to FP16 [B, H, S_q, D]. With `causal` the last row sees every
        key; `scale` is 1/sqrt(D) unless given."""
        return self.attend(self.quantise(q, k, v, causal), scale, early=True)

    def quantise(self, q, k, v, causal=False):
        """The operands of `attend`: shape of the output, sizes, images, scales."""
        torch = self.torch
        batch, heads, seq_q, head_dim = q.shape
        seq_kv = k.shape[2]
        if k.shape != (batch, heads, seq_kv, head_dim) or v.shape != k.shape:
            raise ValueError(f"shapes do not agree: {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}")
        if any(x.dtype != torch.float16 or not x.is_cuda for x in (q, k, v)):
            raise ValueError("q, k and v must be FP16 tensors on the GPU")
        sizes = Sizes(batch * heads, seq_q, seq_kv, head_dim, causal)
        if len({x.device for x in (q, k, v)}) > 1 or q.device.index != self.device:
            raise ValueError(f"q, k and v must be on cuda:{self.device}, for which the kernel was loaded")
        if sizes.entry(self.sms) is None:
            raise ValueError(f"no kernel for head dimension {head_dim}: use 64 or 128")
        if not sizes.fits(self.records[sizes.entry(self.sms)]["tile_q"]):
            raise ValueError(f"{tuple(q.shape)} with {seq_kv} keys is empty, or too much for one call")
        sources = [x.contiguous() for x in (q, k, v)]
        images = [torch.empty(n, dtype=torch.uint8, device=q.device) for n in sizes.image_bytes()]
        scales = torch.empty(sizes.scale_words(), dtype=torch.float32, device=q.device)
        name = f"quantise_d{head_dim}"
        grid, threads, cluster = sizes.quantiser(self.records[name]["threads"])
        pointers = [[x.data_ptr() for x in group] for group in (sources, images)]
        self._launch(name, grid, threads, cluster, False, sizes.quantise_params(*pointers, scales.data_ptr()))
        return q.shape, sizes, images, scales

    def attend(self, operands, scale=None, early=False):
        """FP16 of the shape that was quantised; `early` lets it begin under the end of the kernel ahead of it."""
        shape, sizes, images, scales = operands
        name = sizes.entry(self.sms)
        record = self.records[name]
        out = self.torch.empty(shape, dtype=self.torch.float16, device=scales.device)
        pointers = [x.data_ptr() for x in images]
        scale = 1.0 / math.sqrt(sizes.head_dim) if scale is None else scale
        params = sizes.attention_params(pointers, scales.data_ptr(), out.data_ptr(), scale, record["tile_q"])
        self._launch(name, sizes.attention_grid(record["tile_q"], self.sms), record["threads"], 1, early, params)
        return out

    def _launch(self, name, grid, threads, cluster, early, params):
        stream = self.torch.cuda.current_stream().cuda_stream
        shared = self.records[name]["dynamic_smem_bytes"]
        self.driver.launch(self.functions[name], grid, threads, shared, cluster, early, stream, params)


def suite_tensor(torch, name, batch=2, heads=8, seq=512, head_dim=64):
    """The suite's standard normal input of shape `mission`, seed 0: ChaCha8, one stream a head, Box and Muller."""
    text = f"sdpa-inputs/1 {batch}x{heads}x{seq}x{seq}x{head_dim} normal seed 0 {name}"
    key = struct.unpack("<8I", hashlib.sha256(text.encode()).digest())
    count, mask = seq * head_dim, 0xFFFFFFFF
    blocks = ceil_div(2 * count, 16)
    total = batch * heads
    counter = torch.arange(blocks, dtype=torch.int64).repeat(total)
    stream = torch.arange(total, dtype=torch.int64).repeat_interleave(blocks)
    zero = torch.zeros_like(counter)
    words = [zero + w for w in struct.unpack("<4I", b"expand 32-byte k")] + [zero + w for w in key]
    start = words + [counter, zero, stream, zero]
    x = list(start)

    def quarter(a, b, c, d):
        for target, other, mixed, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[target] = (x[target] + x[other]) & mask
            y = x[mixed] ^ x[target]
            x[mixed] = ((y << by) | (y >> (32 - by))) & mask

    for _ in range(4):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    output = torch.stack([(a + b) & mask for a, b in zip(x, start)], dim=1).reshape(total, -1)[:, : 2 * count]
    uniform = (output.double() + 0.5) / 4294967296.0
    normal = torch.sqrt(-2.0 * torch.log(uniform[:, 0::2])) * torch.cos(2.0 * math.pi * uniform[:, 1::2])
    return normal.float().half().reshape(batch, heads, seq, head_dim)


def microseconds(torch, launch, launches=20, replays=30):
    """Median over replays of a CUDA graph, per launch."""
    launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [launch() for _ in range(launches)]
    times = []
    for _ in range(replays + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000.0 / launches)
    del kept
    return sorted(times[3:])[replays // 2]


def main(record_path):
    import torch

    sdpa = Sdpa(record_path)
    q, k, v = (suite_tensor(torch, name).cuda() for name in "qkv")
    out = sdpa(q, k, v)
    wide = [x.double() for x in (q, k, v)]
    reference = torch.softmax(wide[0] @ wide[1].transpose(2, 3) / math.sqrt(q.shape[3]), dim=3) @ wide[2]
    error = (out.double() - reference).abs()
    print(f"end-to-end error: max {error.max().item():.5f}, mean {error.mean().item():.6f}")
    operands = sdpa.quantise(q, k, v)
    alone = microseconds(torch, lambda: sdpa.attend(operands))
    whole = microseconds(torch, lambda: sdpa(q, k, v))
    print(f"kernel {alone:.2f} us, quantise + kernel {whole:.2f} us")


def plans():
    """For each line of standard input, a list of heads, S_q, S_kv, D, causal, SMs, tile_q: how it would be launched."""
    for line in sys.stdin:
        heads, seq_q, seq_kv, head_dim, causal, sms, tile_q = json.loads(line)
        sizes = Sizes(heads, seq_q, seq_kv, head_dim, bool(causal))
        plan = {
            "entry": sizes.entry(sms),
            "fits": sizes.fits(tile_q),
            "grid": sizes.attention_grid(tile_q, sms),
            "quantiser": list(sizes.quantiser(512)),
            "images": sizes.image_bytes(),
            "attention": sizes.attention_params([1, 2, 3], 4, 5, 0.125, tile_q).hex(),
            "quantise": sizes.quantise_params([1, 2, 3], [4, 5, 6], 7).hex(),
        }
        print(json.dumps(plan))


if __name__ == "__main__":
    if sys.argv[1:] == ["--plans"]:
        plans()
    elif len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        sys.exit("usage: sdpa_fp8.py <exported record>.json")
