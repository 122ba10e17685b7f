"""Stands in for PyTorch with a device: attention copies q, and takes as many milliseconds as q's first byte says.

So the samples tell which input set each launch took. A graph's first replay takes 500 ms more. A head dimension
above 256 is refused by all backends but `math`, in PyTorch's way. FAKE_PROFILER=blind makes the profiler see nothing.
"""

import contextlib
import math
import os
import types
import warnings

from torch import nn

__version__ = "2.11.0+fake"
float16, uint8 = "float16", "uint8"
clock_ms = 0.0
forced = None
recording = None


class Tensor:
    def __init__(self, data, shape):
        self.data, self.shape = data, tuple(shape)

    def reshape(self, shape):
        assert math.prod(shape) == math.prod(self.shape)
        return Tensor(self.data, shape)

    def to(self, device):
        return self

    def contiguous(self):
        return self

    def view(self, dtype):
        return self

    def numpy(self):
        return self

    def tobytes(self):
        return self.data


def frombuffer(data, dtype, count, offset):
    return Tensor(bytes(data[offset : offset + 2 * count]), (count,))


def set_grad_enabled(enabled):
    assert not enabled


def spend(ms):
    global clock_ms
    if recording is None:
        clock_ms += ms
    else:
        recording.ms += ms


def attention(q, k, v, attn_mask, dropout_p, is_causal, scale):
    assert attn_mask is None and dropout_p == 0.0
    print("a library that prints")
    if q.shape[3] > 256 and forced not in (None, "MATH"):
        warnings.warn("Flash attention kernel not used because: (Triggered internally at sdp_utils.cpp:1.)")
        warnings.warn(f"head_dim should be no more than 256 but is {q.shape[3]} (Triggered internally at x.cpp:2.)")
        warnings.warn("Math attention has been runtime disabled. (Triggered internally at sdp_utils.cpp:3.)")
        raise RuntimeError("No available kernel. Aborting execution.")
    spend(q.data[0])
    return q


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = clock_ms

    def elapsed_time(self, stop):
        return stop.at - self.at


class CUDAGraph:
    def __init__(self):
        self.ms, self.replays = 0.0, 0

    def replay(self):
        spend(self.ms + (500 if self.replays == 0 else 0))
        self.replays += 1


class Stream:
    def wait_stream(self, other):
        pass


@contextlib.contextmanager
def record_graph(graph, stream):
    global recording
    recording = graph
    yield
    recording = None


version = types.SimpleNamespace(cuda="13.0")
backends = types.SimpleNamespace(cudnn=types.SimpleNamespace(version=lambda: 91900))
cuda = types.SimpleNamespace(
    is_available=lambda: True,
    get_device_properties=lambda index: types.SimpleNamespace(name="Fake", major=9, minor=0, uuid="12-34"),
    synchronize=lambda: None,
    empty_cache=lambda: None,
    current_stream=Stream,
    Stream=Stream,
    stream=lambda stream: contextlib.nullcontext(),
    Event=Event,
    CUDAGraph=CUDAGraph,
    graph=record_graph,
)
nn.functional = types.SimpleNamespace(scaled_dot_product_attention=attention)
autograd = types.SimpleNamespace(DeviceType=types.SimpleNamespace(CUDA="cuda"))

KERNELS = {
    None: ["cudnn_generated_fort_native_sdpa_sm90_flash_fprop"],
    "FLASH_ATTENTION": ["void pytorch_flash::flash_fwd_kernel<64>"],
    "CUDNN_ATTENTION": ["cudnn_generated_fort_native_sdpa_sm90_flash_fprop"],
    "EFFICIENT_ATTENTION": ["fmha_cutlassF_f16_aligned_64x64_rf_sm80"],
    "MATH": ["gemm", "softmax_warp_forward", "gemm"],
}


class profile:
    def __init__(self, activities):
        self.blind = os.environ.get("FAKE_PROFILER") == "blind"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def events(self):
        names = [] if self.blind else ["Memset (Device)", *KERNELS[forced]]
        return [types.SimpleNamespace(name=name, device_type="cuda") for name in names]


profiler = types.SimpleNamespace(profile=profile, ProfilerActivity=types.SimpleNamespace(CUDA="cuda"))
