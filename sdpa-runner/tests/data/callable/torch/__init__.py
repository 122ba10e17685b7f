"""Stands in for PyTorch with a device, on numpy: as much of it as the driver of callables and `cheats.py` use.

What is queued on a stream of one's own happens when the device is synchronised; what is queued while a graph is captured
happens when that is replayed. Time is the host's. CALLABLE_TORCH says what goes wrong: `no-device`.
"""

import contextlib
import os
import types
from time import perf_counter as now, sleep

import numpy

from torch import nn

__version__ = "2.11.0+stand-in"
pending = []
capturing = None
on_own_stream = False


class dtype:
    def __init__(self, name, of):
        self.name, self.of = name, numpy.dtype(of)
        self.itemsize = self.of.itemsize

    def __repr__(self):
        return f"torch.{self.name}"


KINDS = {name: dtype(name, name) for name in ("float64", "float32", "float16")}
KINDS |= {f"{u}int{bits}": dtype(f"{u}int{bits}", f"{u}int{bits}") for u in ("", "u") for bits in (8, 16, 32, 64)}
KINDS["bool"] = dtype("bool", "?")
globals().update(KINDS)


def perform(work):
    """Does it, in the order of the device."""
    if on_own_stream:
        pending.append(work)
    elif capturing is not None:
        capturing.steps.append(work)
    else:
        work()


class Tensor:
    def __init__(self, array, storage=None):
        self.array, self.storage = array, array if storage is None else storage

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: KINDS[{"bool": "bool"}.get(self.array.dtype.name, self.array.dtype.name)])
    device = property(lambda self: types.SimpleNamespace(type="cuda"))

    def stride(self):
        return tuple(step // self.array.itemsize for step in self.array.strides)

    def data_ptr(self):
        return self.array.ctypes.data

    def untyped_storage(self):
        at, size = self.storage.ctypes.data, self.storage.nbytes
        return types.SimpleNamespace(data_ptr=lambda: at, nbytes=lambda: size)

    def of(self, array):
        return Tensor(array, self.storage)

    def view(self, kind):
        return self.of(self.array.view(kind.of))

    def as_strided(self, shape, strides):
        steps = [step * self.array.itemsize for step in strides]
        return self.of(numpy.lib.stride_tricks.as_strided(self.array, shape, steps))

    def reshape(self, *shape):
        return self.of(self.array.reshape(shape))

    def as_subclass(self, kind):
        return kind(self.array)

    def to(self, where):
        if isinstance(where, dtype):
            return computed(lambda: self.array.astype(where.of), self.array.shape, where)
        return Tensor(self.array.copy()) if where == "cuda" else self

    def numpy(self):
        return self.array

    def tolist(self):
        if capturing is not None and not on_own_stream:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        synchronize()
        return self.array.tolist()

    def __getitem__(self, places):
        return self.of(self.array[places])

    def __setitem__(self, places, values):
        self.array[places.array] = values.array

    def fill_(self, value):
        perform(lambda: self.array.fill(value))
        return self

    def zero_(self):
        return self.fill_(0)

    def copy_(self, other):
        def copy():
            self.array[...] = other.array

        perform(copy)
        return self

    def __mul__(self, other):
        return computed(lambda: self.array * other.array, self.array.shape, self.dtype)


def computed(work, shape, kind):
    result = Tensor(numpy.empty(shape, kind.of))

    def fill():
        result.array[...] = work()

    perform(fill)
    return result


def mul(one, other, out):
    def multiply():
        out.array[...] = one.array * other.array

    perform(multiply)


def empty(size, dtype=KINDS["float32"], device=None):
    return Tensor(numpy.empty(size, dtype.of))


def empty_like(tensor):
    return Tensor(numpy.empty(tensor.array.shape, tensor.array.dtype))


def cat(tensors):
    return Tensor(numpy.concatenate([tensor.array for tensor in tensors]))


def tensor(values, dtype=KINDS["int64"], device=None):
    return Tensor(numpy.array(values, dtype.of))


def frombuffer(data, dtype, count, offset):
    return Tensor(numpy.frombuffer(data, dtype.of, count, offset))


def set_grad_enabled(enabled):
    assert not enabled


def synchronize(device=None):
    while pending:
        pending.pop(0)()


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = now()

    def elapsed_time(self, stop):
        return (stop.at - self.at) * 1000.0


class Stream:
    def wait_stream(self, other):
        pass

    def synchronize(self):
        pass


class CUDAGraph:
    def __init__(self):
        self.steps = []

    def replay(self):
        for step in self.steps:
            step()


@contextlib.contextmanager
def graph(made, stream):
    global capturing
    capturing = made
    try:
        yield
    finally:
        capturing = None


@contextlib.contextmanager
def on_stream(stream):
    global on_own_stream
    on_own_stream, before = True, on_own_stream
    try:
        yield
    finally:
        on_own_stream = before


version = types.SimpleNamespace(cuda="13.0")
backends = types.SimpleNamespace(cudnn=types.SimpleNamespace(version=lambda: 91900))
cuda = types.SimpleNamespace(
    is_available=lambda: os.environ.get("CALLABLE_TORCH") != "no-device",
    get_device_properties=lambda index: types.SimpleNamespace(name="Stand-in", major=9, minor=0, uuid="12-34"),
    synchronize=synchronize,
    empty_cache=lambda: None,
    current_stream=Stream,
    Stream=Stream,
    stream=on_stream,
    Event=Event,
    CUDAGraph=CUDAGraph,
    graph=graph,
    _sleep=lambda clocks: perform(lambda: sleep(clocks / 2e9)),
)
autograd = types.SimpleNamespace(DeviceType=types.SimpleNamespace(CUDA="cuda"))


class profile:
    def __init__(self, activities):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def events(self):
        return [types.SimpleNamespace(name="elementwise_kernel", device_type="cuda")]


profiler = types.SimpleNamespace(profile=profile, ProfilerActivity=types.SimpleNamespace(CUDA="cuda"))
