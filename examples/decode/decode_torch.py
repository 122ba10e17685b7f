"""decode.cu for PyTorch: one file, which compiles the kernel with nvcc when it is first used.

    python3 decode_torch.py                          # error against float64, and times beside PyTorch's own

    from decode_torch import Decode
    decode = Decode()
    out, lse = decode(q, k, v, k_scale, v_scale)     # q FP16 or BF16 [B, H, D] or [B, H, 1, D]; k, v e4m3 [B, H_kv, S, D]

Launches on PyTorch's current stream through the driver (ctypes), so that a CUDA graph can capture it. What follows from
shapes and strides alone is worked out once and kept; a call fills in pointers. Not differentiable.
Leaves to others: the kernel.
"""

import ctypes
import hashlib
import math
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile

import torch

FOLDER = pathlib.Path(__file__).resolve().parent
WARPS, STAGES, CTAS = 8, 3, 2
THREADS, SHARED_BYTES, TILE_KEYS, LONG = 32 * WARPS, WARPS * STAGES * 4096, 16, 8192
CTYPES = {torch.float16: ("__half", "6__half"), torch.bfloat16: ("__nv_bfloat16", "13__nv_bfloat16")}
# `Params` of decode.cu: q; codes, scale, strides of K; those of V; lengths, out, lse, partial, arrived; strides of q and sizes.
PARAMS = struct.Struct("<Q 2Q2q3i4x 2Q2q3i4x 5Q q4if4x")
MAX_DYNAMIC_SHARED = 8


def ceil_div(a, b):
    return -(-a // b)


def entry(d, blocks, dtype):
    return f"_Z12decode_splitILi{d}ELi{blocks}E{CTYPES[dtype][1]}L5Fault0EEv6Params"


def cubin(arch):
    """The kernel for every head dimension, number of heads and type, compiled once for these sources."""
    sources = [FOLDER / name for name in ("decode.cu", "ptx.cuh")]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "decode"
    target = cache / f"{digest}-{arch}.cubin"
    if target.is_file():
        return target.read_bytes()
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as room:
        lines = ['#include "decode.cu"'] + [
            f"template __global__ void decode_split<{d}, {blocks}, {name}, NONE>(const __grid_constant__ Params);"
            for d in (64, 128)
            for blocks in (1, 2)
            for name, _ in CTYPES.values()
        ]
        source, built = pathlib.Path(room) / "all.cu", pathlib.Path(room) / "all.cubin"
        source.write_text("\n".join(lines))
        defines = [f"-DWARPS={WARPS}", f"-DSTAGES={STAGES}", f"-DCTAS={CTAS}"]
        command = [nvcc, "-std=c++17", f"-arch={arch}", "-cubin", *defines, "-I", FOLDER, "-o", built, source]
        subprocess.run(command, check=True)
        built.replace(target)  # whole or not at all
    return target.read_bytes()


class Plan:
    """What a call with these shapes and strides launches, and the memory that it needs."""

    def __init__(self, decode, q, k, v, k_scale, v_scale):
        batch, heads, d = q.shape[0], q.shape[1], q.shape[-1]
        kv_heads, keys = k.shape[1], k.shape[2]
        if q.dtype not in CTYPES or any(x.dtype != torch.float8_e4m3fn for x in (k, v)):
            raise ValueError(f"q must be FP16 or BF16, k and v e4m3: they are {q.dtype}, {k.dtype}, {v.dtype}")
        if q.shape not in ((batch, heads, d), (batch, heads, 1, d)):
            raise ValueError(f"q must be one row a sequence, [B, H, D] or [B, H, 1, D]: it is {tuple(q.shape)}")
        if d not in (64, 128) or k.shape != (batch, kv_heads, keys, d) or v.shape != k.shape or heads % kv_heads or keys == 0:
            raise ValueError(f"shapes do not agree, or D is not 64 or 128: {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}")
        rows = [(x.stride(-1), *(stride * x.element_size() % 16 for stride in x.stride()[:-1])) for x in (q, k, v)]
        if any(row[0] != 1 or any(row[1:]) for row in rows):
            raise ValueError("rows of q, k and v must be dense and begin at multiples of 16 bytes")
        if any(x.dtype != torch.float32 for x in (k_scale, v_scale)):
            raise ValueError("scales must be FP32")
        group = heads // kv_heads
        blocks = 1 if group <= 8 else 2
        sets = kv_heads * ceil_div(group, 8 * blocks)
        slots = (CTAS if keys > LONG else 1) * decode.sms
        parts = max(1, min(ceil_div(keys, TILE_KEYS * WARPS), slots // (batch * sets)))
        self.function = decode.function(entry(d, blocks, q.dtype))
        self.grid = (parts, sets, batch)
        self.partial = torch.empty(batch * sets * parts * 8 * blocks * (d + 4), dtype=torch.float32, device=q.device)
        self.arrived = torch.zeros(batch * sets, dtype=torch.int32, device=q.device)
        self.lse_shape = q.shape[:-1]
        scales = [x.expand(batch, kv_heads).stride() for x in (k_scale, v_scale)]
        self.strides = [(*x.stride()[:3], *of_scale) for x, of_scale in zip((k, v), scales)]
        self.work = self.partial.data_ptr(), self.arrived.data_ptr(), *q.stride()[:2], kv_heads, group, keys
        self.scale = 1.0 / math.sqrt(d)
        self.buffer = ctypes.create_string_buffer(PARAMS.size)
        self.arguments = (ctypes.c_void_p * 1)(ctypes.addressof(self.buffer))


class Decode:
    """softmax(scale q K^T) V of one row a sequence, and the logarithm of the sum of exponentials."""

    def __init__(self):
        torch.cuda.current_stream().synchronize()  # PyTorch's context is current from here on
        self.device = torch.cuda.current_device()
        self.sms = torch.cuda.get_device_properties(self.device).multi_processor_count
        major, minor = torch.cuda.get_device_capability()
        self.library = ctypes.CDLL("libcuda.so.1")
        self.module = ctypes.c_void_p()  # stays loaded with the process
        self.call("cuModuleLoadData", ctypes.byref(self.module), cubin(f"sm_{major}{minor}"))
        self.functions, self.plans = {}, {}

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'unknown error').decode()}")

    def function(self, name):
        if name not in self.functions:
            function = ctypes.c_void_p()
            self.call("cuModuleGetFunction", ctypes.byref(function), self.module, name.encode())
            self.call("cuFuncSetAttribute", function, MAX_DYNAMIC_SHARED, SHARED_BYTES)
            self.functions[name] = function
        return self.functions[name]

    def __call__(self, q, k, v, k_scale, v_scale, lengths=None, scale=None):
        """Output like q, and FP32 [B, H] (or [B, H, 1]). Scales are FP32 and broadcast to [B, H_kv]; `lengths`, INT32 [B], says how
        many keys of each sequence count, all without it; `scale` is 1/sqrt(D) unless given. Any strides whose rows are dense."""
        stream = torch.cuda.current_stream().cuda_stream
        of_scales = k_scale.shape, k_scale.stride(), v_scale.shape, v_scale.stride()
        key = (stream, q.dtype, q.shape, q.stride(), k.dtype, k.shape, k.stride(), v.dtype, v.shape, v.stride(), of_scales)
        plan = self.plans.get(key)
        if plan is None:
            if any(x.device.index != self.device for x in (q, k, v, k_scale, v_scale)):
                raise ValueError(f"tensors must be on cuda:{self.device}, for which the kernel was loaded")
            plan = self.plans[key] = Plan(self, q, k, v, k_scale, v_scale)
        if torch.is_grad_enabled() and q.requires_grad:
            raise ValueError("has no gradient: call it under torch.no_grad()")
        if lengths is not None and (lengths.dtype != torch.int32 or not lengths.is_contiguous()):
            raise ValueError("lengths must be INT32 and dense")
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        lse = torch.empty(plan.lse_shape, dtype=torch.float32, device=q.device)
        pointers = [q.data_ptr(), k.data_ptr(), v.data_ptr()]
        if (pointers[0] | pointers[1] | pointers[2]) % 16:
            raise ValueError("q, k and v must begin at multiples of 16 bytes")
        of_k, of_v = plan.strides
        PARAMS.pack_into(
            plan.buffer, 0, pointers[0],
            pointers[1], k_scale.data_ptr(), *of_k,
            pointers[2], v_scale.data_ptr(), *of_v,
            0 if lengths is None else lengths.data_ptr(), out.data_ptr(), lse.data_ptr(),
            *plan.work, plan.scale if scale is None else scale,
        )  # fmt: skip
        stream = ctypes.c_void_p(stream)
        self.call("cuLaunchKernel", plan.function, *plan.grid, THREADS, 1, 1, SHARED_BYTES, stream, plan.arguments, None)
        return out, lse


def reference(q, k, v, k_scale, v_scale):
    batch, heads, d = q.shape
    rows = q.double().view(batch, k.shape[1], -1, d)
    keys, values = (x.float().double() * s.double()[:, :, None, None] for x, s in ((k, k_scale), (v, v_scale)))
    scores = rows @ keys.transpose(2, 3) / math.sqrt(d)
    return (torch.softmax(scores, -1) @ values).view(q.shape), torch.logsumexp(scores, -1).view(batch, heads)


def microseconds(launch, calls=200):
    """Of a bare call, on the host's clock and with an idle device at both ends."""
    import time

    for _ in range(20):
        launch()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        launch()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls * 1e6


def main():
    decode = Decode()
    batch, kv_heads, group, d = 2, 8, 4, 128
    for keys in (1, 129, 1000):
        k, v = (torch.randn(batch, keys, kv_heads, d, device="cuda").to(torch.float8_e4m3fn).transpose(1, 2) for _ in range(2))
        k_scale, v_scale = (torch.rand(batch, kv_heads, device="cuda") + 0.5 for _ in range(2))
        for dtype in CTYPES:
            q = torch.randn(batch, kv_heads * group, d, device="cuda", dtype=dtype)
            found, wanted = decode(q, k, v, k_scale, v_scale), reference(q, k, v, k_scale, v_scale)
            errors = [((x.double() - y).norm() / y.norm()).item() for x, y in zip(found, wanted)]
            print(f"{keys} keys, {dtype}: relative error {errors[0]:.1e}, of lse {errors[1]:.1e}")
    half = [x.half() for x in (k, v)]
    attend = torch.nn.functional.scaled_dot_product_attention
    q = q.half()
    ours = microseconds(lambda: decode(q, k, v, k_scale, v_scale))
    torchs = microseconds(lambda: attend(q[:, :, None], *half, enable_gqa=True))
    print(f"a bare call: {ours:.1f} us, PyTorch's on FP16 {torchs:.1f} us")


if __name__ == "__main__":
    main()
