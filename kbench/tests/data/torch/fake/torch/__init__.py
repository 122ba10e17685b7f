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
float16, float32, float8_e4m3fn, uint8 = "float16", "float32", "float8_e4m3fn", "uint8"
clock_ms = 0.0
forced = None
recording = None


class Tensor:
    def __init__(self, data, shape):
        self.data, self.shape = data, tuple(shape)

    def reshape(self, shape):
        assert math.prod(shape) == math.prod(self.shape)
        return Tensor(self.data, shape)

    def to(self, device_or_type):
        return self

    def float(self):
        return self

    def abs(self):
        return self

    def amax(self, dim=None):
        return self

    def transpose(self, one, other):
        order = list(self.shape)
        order[one], order[other] = order[other], order[one]
        return Tensor(self.data, order)

    def stride(self):
        return tuple(math.prod(self.shape[at + 1 :]) for at in range(len(self.shape)))

    def data_ptr(self):
        return id(self)

    # Scales change nothing here: every byte of the result still says which input set it came from.
    def __mul__(self, other):
        return self

    def __rtruediv__(self, other):
        return self

    def __truediv__(self, other):
        return self

    def __getitem__(self, places):
        return self

    def __gt__(self, other):
        return self

    def __float__(self):
        return 2.0

    def contiguous(self):
        return self

    def view(self, dtype):
        return self

    def numpy(self):
        return self

    def tobytes(self):
        return self.data


def ones(shape, dtype, device):
    return Tensor(b"", shape)


def empty(size, dtype, device):
    return Tensor(b"", (size,))


def empty_like(tensor):
    return Tensor(b"", tensor.shape)


def where(condition, one, other):
    return one


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
    cuda_stream = 7

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
