"""A Python function of a gate file as a peer, in a process of its own: the conversation of `torch_sdpa.py`, whose module this
one builds on, about any tensors. Whoever asks is the judge and believes nothing that is said here: it draws the inputs, reads
back the raw bytes of outputs, inputs and guard bands, and looks at a clock of its own.

    {"op": "hello"}
    {"op": "tare", "mode": "call" | "graph", "launches": N, "flush": BYTES}
        a block of launches that do next to nothing, before any code of the user is here: what its samples leave of the
        judge's clock is what a block takes by itself. Answers with the microseconds that its samples are of, and of the hold.
    {"op": "load", "case": NAME, "file": PATH, "sets": N, "tensors": [TENSOR...], "source": PATH, "function": NAME,
     "values": {NAME: VALUE}}
        TENSOR is {"name", "also", "dtype", "shape", "strides", "bytes", "role", "poison"}: `also` is another name for the same
        memory, `role` one of input, output and inplace, `poison` the 32-bit word that an output holds before a call. PATH
        holds the raw bytes `NAME.SET` of every input and set (safetensors). The function is imported once.
    {"op": "place", "slots": N, "pad": BYTES}
        memory for so many calls, with guard bands, elsewhere than before
    {"op": "fill", "slots": [{"set": I, "assign": {NAME: [[PLACE...], [BITS...]]}}...]}
        input values of every slot: those of a set, and at some places others; outputs are poison
    {"op": "call", "slots": [I...]}
        calls once on each
    {"op": "kernels"}
        the names of the kernels of a call on slot 0, as the profiler has them
    {"op": "seal"}
        from now on no process is started
    {"op": "capture"}
        a CUDA graph of a call on every slot, or why that cannot be
    {"op": "block", "mode": "call" | "graph", "launches": N, "flush": BYTES}
        calls on the first N slots, each between two events, behind a write of so many bytes; or one replay of the graph,
        divided by its calls. Samples in microseconds.
    {"op": "output", "slot": I, "file": PATH, "parts": {NAME: [[BEGIN, END]...]}}
        parts of the raw bytes of the slot's tensors, one behind the other; they count from the first guard band (safetensors)
    {"op": "bye"}

The function takes tensors by keyword: inputs by their names, and outputs where it has parameters of their names, which it
then writes; else it returns them, as a tensor, a tuple in their order or a dict. Axes, `let` and `define` are handed over
where it has such parameters. Needs PyTorch 2.3 or newer.
"""

import contextlib
import ctypes
import gc
import importlib.util
import inspect
import json
import math
import os
import signal
import struct
import sys
import traceback

from torch_sdpa import HEADER_BYTES_MAX, Peer, Refusal, fields, one_line, one_of, serve, text, whole

GUARD_BYTES = 4096
GUARD = 0x7F
SLOTS_MAX = 10_000
BYTES_MAX = 1 << 40
# Keeps the stream busy while a graph is launched behind it, in clocks.
HOLD = 200_000
DTYPES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "e4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
    "bool": "bool",
    **{f"{sign}{bits}": f"{'u' * (sign == 'u')}int{bits}" for sign in "iu" for bits in (8, 16, 32, 64)},
}
# Types through which the bits of an element of so many bytes are set.
BITS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}
PR_SET_PDEATHSIG = 1


class Raised(Refusal):
    """The function, or its file, raised an exception."""


def listed(value):
    if not isinstance(value, list):
        raise ValueError("a list")
    return value


def table(value):
    if not isinstance(value, dict):
        raise ValueError("a table")
    return value


def raised_by(error, file):
    """An exception with the innermost line of the user's file."""
    traceback.print_exception(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    place = f" ({os.path.basename(file)}:{frames[-1].lineno})" if frames else ""
    return Raised(f"raises {type(error).__name__}: {one_line(error)}{place}")


# --- safetensors, as raw bytes ----------------------------------------------------------------------------------------


def read_bytes(torch, path):
    """Every tensor of a file as bytes on the host, by name."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    (header_bytes,) = struct.unpack_from("<Q", data)
    if header_bytes > min(HEADER_BYTES_MAX, len(data) - 8):
        raise Refusal(f"`{path}` has a header of {header_bytes} bytes")
    header = json.loads(data[8 : 8 + header_bytes].decode())
    start = 8 + header_bytes
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            found[name] = torch.frombuffer(data, dtype=torch.uint8, count=end - begin, offset=start + begin)
    return found


def write_bytes(path, tensors):
    """Writes tensors of bytes by name."""
    header, at = {}, 0
    for name, raw in tensors:
        size = math.prod(raw.shape)
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for _, raw in tensors:
            file.write(raw.to("cpu").numpy().tobytes())


# --- no more processes ------------------------------------------------------------------------------------------------


def seal():
    """Has the kernel refuse every thread of this process a new one, and another program (x86-64, seccomp)."""

    class Program(ctypes.Structure):
        _fields_ = [("count", ctypes.c_ushort), ("first", ctypes.c_void_p)]

    def step(code, yes, no, value):
        return struct.pack("<HBBI", code, yes, no, value)

    load, jump_equal, jump_above, jump_set, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x00050001, 0x00050026
    forks = (57, 58, 59, 322)  # fork, vfork, execve, execveat
    steps = [step(load, 0, 0, 4), step(jump_equal, 0, 11, 0xC000003E)]  # another machine's numbers: refused
    steps += [step(load, 0, 0, 0), step(jump_above, 9, 0, 0x40000000)]
    steps += [step(jump_equal, 8 - at, 0, number) for at, number in enumerate(forks)]
    steps += [step(jump_equal, 5, 0, 435), step(jump_equal, 0, 2, 56)]  # clone3, after which libraries try clone
    steps += [step(load, 0, 0, 16), step(jump_set, 0, 1, 0x10000)]  # a thread is no process
    steps += [step(answer, 0, 0, allow), step(answer, 0, 0, refuse), step(answer, 0, 0, unknown)]
    code = ctypes.create_string_buffer(b"".join(steps))
    program = Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges
    if libc.syscall(317, 1, 1, ctypes.byref(program)) != 0:  # in all threads
        raise Refusal(f"seccomp: {os.strerror(ctypes.get_errno())}")


# --- the function and its memory --------------------------------------------------------------------------------------


class Function:
    """The user's function, and which of a case's tensors it is given."""

    def __init__(self, file, name):
        self.file, self.name = file, name
        sys.path.insert(0, os.path.dirname(file))
        spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(file))[0], file)
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(spec.name, module)
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            raise raised_by(error, file) from None
        self.call = getattr(module, name, None)
        if not callable(self.call):
            raise Refusal(f"has no function `{name}`")

    def parameters(self, tensors, values):
        """Names of the tensors and the values that it has parameters for."""
        inputs = [t["name"] for t in tensors if t["role"] == "input"]
        outputs = [t["name"] for t in tensors if t["role"] == "output"]
        shared = [tuple(n for n in (t["name"], t.get("also")) if n) for t in tensors if t["role"] == "inplace"]
        try:
            all_parameters = inspect.signature(self.call).parameters.values()
        except (TypeError, ValueError):
            return inputs + [names[-1] for names in shared], dict(values)
        named = [p for p in all_parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names = [p.name for p in named]
        if any(p.kind is p.VAR_KEYWORD for p in all_parameters):
            names += [n for n in inputs + [s[-1] for s in shared] + list(values) if n not in names]
        for name in inputs:
            if name not in names:
                raise Refusal(f"has no parameter for the input `{name}`: it has {', '.join(names) or 'none'}")
        for both in shared:
            if not set(both) & set(names):
                raise Refusal(f"has no parameter for `{both[-1]}`, which it overwrites: it has {', '.join(names) or 'none'}")
        known = [*inputs, *outputs, *(name for both in shared for name in both)]
        for p in named:
            if p.name not in known and p.name not in values and p.default is p.empty:
                raise Refusal(f"has the parameter `{p.name}`, which is no tensor, axis, let or define")
        return [n for n in names if n in known], {n: values[n] for n in names if n in values and n not in known}


class Slot:
    """Memory for one call: every tensor with its guard bands, and what the call returned."""

    def __init__(self, torch, case):
        self.torch, self.case = torch, case
        self.raw, self.data, self.views = {}, {}, {}
        for tensor in case.tensors:
            size = tensor["bytes"]
            raw = torch.empty(size + 2 * GUARD_BYTES, dtype=torch.uint8, device="cuda")
            raw.fill_(GUARD)
            data = raw[GUARD_BYTES : GUARD_BYTES + size]
            view = data.view(case.dtype(tensor)).as_strided(tensor["shape"], tensor["strides"])
            self.raw[tensor["name"]], self.data[tensor["name"]] = raw, data
            self.views[tensor["name"]] = view
            if tensor.get("also"):
                self.views[tensor["also"]] = view
        self.arguments = {name: self.views[name] for name in case.given} | case.values
        self.returned = {}

    def fill(self, base, assign):
        """What the next call finds. What an earlier one returned is forgotten, its values too."""
        for value in self.returned.values():
            value.fill_(0)
        self.returned = {}
        for tensor in self.case.tensors:
            data = self.data[tensor["name"]]
            if tensor["role"] == "output":
                self.poison(data, tensor["poison"])
                continue
            data.copy_(base[tensor["name"]])
            places, bits = assign.get(tensor["name"], ([], []))
            if places:
                of_bits = data.view(getattr(self.torch, BITS[self.case.dtype(tensor).itemsize]))
                make = self.torch.tensor
                of_bits[make(places, device="cuda")] = make(bits, dtype=of_bits.dtype, device="cuda")

    def poison(self, data, word):
        words = math.prod(data.shape) // 4 * 4
        if words:
            data[:words].view(self.torch.int32).fill_(word)
        for at, byte in enumerate(struct.pack("<i", word)):
            data[words:][at : at + 1].fill_(byte)

    def accept(self, result, others):
        """Holds what a call returned to what is declared; it is copied where the judge reads it only once it is asked for."""
        wanted = [t for t in self.case.tensors if t["role"] == "output" and t["name"] not in self.case.given]
        names = ", ".join(f"`{t['name']}`" for t in wanted)
        if not wanted:
            own = [id(view) for view in self.views.values()]
            values = result if isinstance(result, (tuple, list)) else [] if result is None else [result]
            if isinstance(result, dict) or any(id(value) not in own for value in values):
                raise Refusal("returns something, although its outputs are parameters: return nothing, or these")
            return
        if result is None:
            raise Refusal(f"returns nothing, and the outputs are {names}")
        if isinstance(result, dict):
            if set(result) != {t["name"] for t in wanted}:
                raise Refusal(f"returns {', '.join(f'`{one_line(n)}`' for n in result) or 'nothing'}, and the outputs are {names}")
            values = [result[t["name"]] for t in wanted]
        else:
            values = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(values) != len(wanted):
            raise Refusal(f"returns {len(values)} tensors, and the outputs are {names}")
        for tensor, value in zip(wanted, values):
            self.check(tensor, value, others)
            self.returned[tensor["name"]] = value

    def check(self, tensor, value, others):
        what = f"output `{tensor['name']}`"
        if type(value) is not self.torch.Tensor:
            raise Refusal(f"{what} is no plain tensor: it is {one_line(type(value).__name__)}")
        dtype = self.case.dtype(tensor)
        if value.dtype != dtype:
            raise Refusal(f"{what} is {str(value.dtype).rpartition('.')[2]}, and {str(dtype).rpartition('.')[2]} is declared")
        if list(value.shape) != tensor["shape"]:
            raise Refusal(f"{what} has the shape {list(value.shape)}, and {tensor['shape']} is declared")
        if value.device.type != "cuda":
            raise Refusal(f"{what} is on {value.device}, and the inputs are on the GPU")
        pairs = zip(value.stride(), tensor["strides"], tensor["shape"])
        if any(own != declared for own, declared, extent in pairs if extent > 1):
            own = list(value.stride())
            raise Refusal(f"{what} has the strides {own}, and {tensor['strides']} are declared: return it contiguous")
        span = self.case.span(value)
        for name, raw in self.raw.items():
            if overlaps(span, self.case.span(raw)):
                raise Refusal(f"returns memory of `{name}` as {what}")
        if any(overlaps(span, self.case.span(raw)) for base in self.case.base for raw in base.values()):
            raise Refusal(f"returns memory of the judge's as {what}")
        if any(overlaps(span, self.case.span(kept)) for slot in others for kept in slot.returned.values()):
            raise Refusal(f"returns memory that an earlier call returned as {what}")


def overlaps(one, other):
    return one[0] < other[1] and other[0] < one[1]


class Tensors:
    """One loaded case: its input sets on the device, slots, and the graph of a call on each."""

    def __init__(self, peer, wanted):
        self.torch, self.clock = peer.torch, peer.clock
        self.tensors, self.function = wanted["tensors"], peer.function
        self.given, self.values = self.function.parameters(self.tensors, wanted["values"])
        raw = read_bytes(self.torch, wanted["file"])
        inputs = [t["name"] for t in self.tensors if t["role"] != "output"]
        self.base = [{n: raw[f"{n}.{i}"].to("cuda") for n in inputs} for i in range(wanted["sets"])]
        self.slots, self.pad, self.graph, self.flushed, self.results = [], None, None, None, []

    def dtype(self, tensor):
        dtype = getattr(self.torch, DTYPES[tensor["dtype"]], None)
        if dtype is None:
            raise Refusal(f"torch {self.torch.__version__} has no {tensor['dtype']}")
        return dtype

    def span(self, tensor):
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.data_ptr() + storage.nbytes()

    def place(self, count, pad):
        self.slots, self.graph, self.pad, self.results = [], None, None, []
        gc.collect()
        self.torch.cuda.empty_cache()
        self.pad = self.torch.empty(pad, dtype=self.torch.uint8, device="cuda")
        self.slots = [Slot(self.torch, self) for _ in range(count)]

    def fill(self, wanted):
        if len(wanted) > len(self.slots):
            raise Refusal(f"there are {len(self.slots)} slots")
        self.settle()
        for slot, one in zip(self.slots, wanted):
            slot.fill(self.base[one["set"]], one["assign"])
        self.clock.synchronize()

    def invoke(self, slot):
        try:
            return self.function.call(**slot.arguments)
        except BaseException as error:
            raise raised_by(error, self.function.file) from None

    def call(self, places):
        for at in places:
            slot = self.slots[at]
            result = self.invoke(slot)
            self.clock.synchronize()
            slot.accept(result, ())

    def settle(self):
        """Holds what a timed block returned to what is declared, when nobody's clock runs."""
        results, self.results = self.results, []
        for at, (slot, result) in enumerate(zip(self.slots, results)):
            slot.accept(result, self.slots[:at])

    def capture(self):
        """Records a call on every slot; they run once on the capturing stream before."""
        cuda = self.torch.cuda
        stream, graph = cuda.Stream(), cuda.CUDAGraph()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            self.function.call(**self.slots[0].arguments)
        cuda.current_stream().wait_stream(stream)
        self.clock.synchronize()
        with cuda.graph(graph, stream=stream):
            results = [self.function.call(**slot.arguments) for slot in self.slots]
        self.clock.synchronize()
        self.graph = (graph, results)

    def time_calls(self, launches, flush):
        if flush and (self.flushed is None or self.flushed.shape[0] != flush):
            self.flushed = self.torch.empty(flush, dtype=self.torch.uint8, device="cuda")
        flushed = self.flushed if flush else None
        us, self.results = self.clock.time_calls(self.invoke, self.slots[:launches], flushed)
        return us

    def time_graph(self, launches):
        if self.graph is None:
            raise Refusal("there is no graph")
        graph, results = self.graph
        us = self.clock.time_graph(graph)
        self.results = results
        return [us / launches]

    def output(self, at, path, parts):
        slot = self.slots[at]
        self.clock.synchronize()
        self.settle()
        for name, value in slot.returned.items():
            slot.views[name].copy_(value)
        self.clock.synchronize()
        cut = {name: [slot.raw[name][begin:end] for begin, end in of] for name, of in parts.items()}
        joined = [(name, pieces[0] if len(pieces) == 1 else self.torch.cat(pieces)) for name, pieces in cut.items()]
        write_bytes(path, joined)


class Clock:
    """What times, as PyTorch had it before any code of the user ran."""

    def __init__(self, torch):
        cuda = torch.cuda
        self.Event, self.synchronize = cuda.Event, cuda.synchronize
        self.record_of, self.elapsed = cuda.Event.record, cuda.Event.elapsed_time
        self.sleep = getattr(cuda, "_sleep", None)

    def event(self):
        return self.Event(enable_timing=True)

    def record(self, event):
        self.record_of(event)

    def hold(self):
        if self.sleep:
            self.sleep(HOLD)

    def elapsed_us(self, pairs):
        self.synchronize()
        return [self.elapsed(start, stop) * 1000.0 for start, stop in pairs]

    def time_calls(self, call, slots, flushed=None):
        """Microseconds of each call, and what it returned."""
        pairs = [(self.event(), self.event()) for _ in slots]
        results = []
        for at, (slot, (start, stop)) in enumerate(zip(slots, pairs)):
            if flushed is not None:
                flushed.fill_(at % 251)
            self.record(start)
            result = call(slot)
            self.record(stop)
            results.append(result)
        return self.elapsed_us(pairs), results

    def time_graph(self, graph):
        """Microseconds of a replay."""
        start, stop = self.event(), self.event()
        self.hold()
        self.record(start)
        graph.replay()
        self.record(stop)
        return self.elapsed_us([(start, stop)])[0]

    def tare(self, torch, mode, launches, flush):
        """A function that times a block of fills of one element. It answers with the microseconds that its samples are of, and
        those of a hold that other blocks do not have."""
        one = torch.empty(1, device="cuda")
        flushed = torch.empty(flush, dtype=torch.uint8, device="cuda") if flush else None
        if mode == "graph":
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
            with torch.cuda.graph(graph, stream=stream):
                for _ in range(launches):
                    one.fill_(0.0)
            self.synchronize()

            def block():
                return self.time_graph(graph), 0.0
        else:
            start, stop = self.event(), self.event()

            def block():
                # Calls are queued behind a hold, so that what lies between them is the device's alone, as with long ones.
                self.record(start)
                for _ in range(launches):
                    self.hold()
                self.record(stop)
                us, _ = self.time_calls(lambda _: one.fill_(0.0), range(launches), flushed)
                return sum(us), self.elapsed(start, stop) * 1000.0

        block()
        return block


LOAD = {
    "case": text,
    "file": text,
    "sets": whole(1, SLOTS_MAX),
    "tensors": listed,
    "source": text,
    "function": text,
    "values": table,
}


class Callable(Peer):
    """What is kept between requests."""

    OPS = ("hello", "tare", "load", "place", "fill", "call", "kernels", "seal", "capture", "block", "output", "bye")

    def __init__(self):
        super().__init__()
        self.clock = self.function = self.tared = None

    def device(self):
        torch = super().device()
        if self.clock is None:
            self.clock = Clock(torch)
            # The context is made now, so that nobody is taken for a stranger later.
            torch.empty(1, device="cuda")
        return torch

    def tare(self, request):
        limits = {"mode": one_of("call", "graph"), "launches": whole(1, SLOTS_MAX), "flush": whole(0, BYTES_MAX)}
        wanted = fields(request, limits)
        if self.function is not None:
            raise Refusal("the user's code is here already")
        kind = (wanted["mode"], wanted["launches"], wanted["flush"])
        if self.tared is None or self.tared[0] != kind:
            torch = self.device()
            self.tared = (kind, self.clock.tare(torch, *kind))
        us, hold_us = self.tared[1]()
        return {"us": us, "hold_us": hold_us}

    def load(self, request):
        wanted = fields(request, LOAD)
        torch = self.device()
        self.case = None
        gc.collect()
        torch.cuda.empty_cache()
        if self.function is None:
            self.tared = None
            self.function = Function(wanted["source"], wanted["function"])
        self.case = Tensors(self, wanted)
        return {"given": self.case.given}

    def loaded(self):
        if self.case is None:
            raise Refusal("no case is loaded")
        return self.case

    def place(self, request):
        wanted = fields(request, {"slots": whole(1, SLOTS_MAX), "pad": whole(1, BYTES_MAX)})
        self.loaded().place(wanted["slots"], wanted["pad"])
        return {}

    def fill(self, request):
        self.loaded().fill(fields(request, {"slots": listed})["slots"])
        return {}

    def call(self, request):
        self.loaded().call(fields(request, {"slots": listed})["slots"])
        return {}

    def kernels(self, request):
        fields(request, {})
        case, profiler = self.loaded(), self.torch.profiler
        try:
            with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as seen:
                case.invoke(case.slots[0])
                self.clock.synchronize()
            on_device = [event for event in seen.events() if event.device_type == self.torch.autograd.DeviceType.CUDA]
        except Raised:
            raise
        except Exception as error:
            print(f"callable: the profiler failed: {one_line(error)}", file=sys.stderr)
            return {"kernels": []}
        return {"kernels": list(dict.fromkeys(event.name for event in on_device))}

    def seal(self, request):
        fields(request, {})
        seal()
        return {}

    def capture(self, request):
        fields(request, {})
        try:
            self.loaded().capture()
        except Exception as error:
            traceback.print_exception(error)
            return {"captured": False, "why": f"{type(error).__name__}: {one_line(error)}"}
        return {"captured": True}

    def block(self, request):
        wanted = fields(
            request, {"mode": one_of("call", "graph"), "launches": whole(1, SLOTS_MAX), "flush": whole(0, BYTES_MAX)}
        )
        case = self.loaded()
        if wanted["launches"] > len(case.slots):
            raise Refusal(f"there are {len(case.slots)} slots")
        if wanted["mode"] == "graph":
            return {"us": case.time_graph(wanted["launches"])}
        return {"us": case.time_calls(wanted["launches"], wanted["flush"])}

    def output(self, request):
        wanted = fields(request, {"slot": whole(0, SLOTS_MAX), "file": text, "parts": table})
        self.loaded().output(wanted["slot"], wanted["file"], wanted["parts"])
        return {}


def main():
    # Whoever asks may die in the middle of a call; then nobody else would end it.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The user's code has neither end of the conversation: it reads nothing, and prints to the log.
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    serve(Callable(), requests)


if __name__ == "__main__":
    main()
