"""PyTorch's scaled dot product attention as a peer: the same inputs, on the same device, timed the same two ways.

A process that lives as long as a run. It reads one JSON object a line from standard input and answers each with one JSON
object a line on standard output. Whatever else is printed, by Python or by a library, goes to standard error. A request that
fails is answered with {"ok": false, "error": ONE LINE} and the process goes on; `bye` or the end of input ends it.

    {"op": "hello"}
        versions and device, or why there is no peer here and the remedy
    {"op": "load", "case": NAME, "file": PATH, "sets": N, "causal": BOOL, "softmax_scale": X}
        PATH holds FP16 tensors q0 k0 v0 q1 ... of shape [B, H, S, D] (safetensors). Frees the case loaded before.
        Answers which backends run this case, and by the names of which kernels.
    {"op": "output", "backend": NAME, "set": I, "file": PATH}
        runs once and writes the FP16 tensor `out` (safetensors)
    {"op": "block", "backend": NAME, "mode": "call", "launches": N, "warmup": M}
        N samples in microseconds, each one call between two device events. Where the host is slower than the
        kernel, this holds the host's time to launch, as it does for a caller of PyTorch.
    {"op": "block", "backend": NAME, "mode": "graph", "launches": N, "replays": R}
        R samples in microseconds, each one replay of a CUDA graph of N calls, divided by N. The graph is captured once
        a case, backend and N; its first replay is a warm-up and no sample. Each block starts with one more
        replay that is no sample, so that the first one timed is queued behind work like the others.
    {"op": "bye"}

Timed calls rotate over the input sets. The device is the first one visible: choose it with CUDA_VISIBLE_DEVICES.
With `causal` and unlike lengths of queries and keys, PyTorch aligns the mask to the upper left corner.

Statistics, comparison with other kernels and the meaning of a sample are left to the caller. Needs Python 3.9 and
PyTorch 2.3 or newer, and nothing else.
"""

import contextlib
import gc
import json
import math
import os
import platform
import struct
import sys
import warnings

# The name of each forced backend, and its member of torch.nn.attention.SDPBackend.
FORCED = {
    "flash": "FLASH_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "math": "MATH",
}
BACKENDS = ("default", *FORCED)

# Words in the names of kernels that give a backend away, in the order of asking: cuDNN's kernels have "flash" in
# their names too, and only the math backend runs softmax as a kernel of its own.
KERNEL_WORDS = (
    ("cudnn", ("cudnn",)),
    ("flash", ("flash",)),
    ("efficient", ("fmha_cutlass", "attentionkernel", "mem_eff")),
    ("math", ("softmax",)),
)

ERROR_CHARS_MAX = 600
SETS_MAX = 64
LAUNCHES_MAX = 10_000
HEADER_BYTES_MAX = 1 << 20


class Refusal(Exception):
    """A request that cannot be met: one line of why, and what to do about it where that is known."""

    def __init__(self, error, remedy=None):
        super().__init__(error)
        self.remedy = remedy


def one_line(error):
    """The text of an error as one line of bounded length. An exception without words gives its type."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= ERROR_CHARS_MAX else text[: ERROR_CHARS_MAX - 3] + "..."


# --- requests ---------------------------------------------------------------------------------------------------------


def text(value):
    if not isinstance(value, str) or not value:
        raise ValueError("a string that is not empty")
    return value


def flag(value):
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def positive(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError("a finite number above 0")
    return float(value)


def whole(low, high):
    def check(value):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return check


def one_of(*choices):
    def check(value):
        if not isinstance(value, str) or value not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return value

    return check


LOAD = {"case": text, "file": text, "sets": whole(1, SETS_MAX), "causal": flag, "softmax_scale": positive}
OUTPUT = {"set": whole(0, SETS_MAX - 1), "file": text}
BLOCK = {"mode": one_of("call", "graph"), "launches": whole(1, LAUNCHES_MAX)}
CALL = {**BLOCK, "warmup": whole(0, LAUNCHES_MAX)}
GRAPH = {**BLOCK, "replays": whole(1, LAUNCHES_MAX)}


def fields(request, form):
    """The request's fields, checked against a form: each is required, and there are no others."""
    for name in request:
        if name != "op" and name not in form:
            raise Refusal(f"unknown field `{name}`; known are {', '.join(form) or 'none'}")
    checked = {}
    for name, check in form.items():
        if name not in request:
            raise Refusal(f"field `{name}` is missing")
        try:
            checked[name] = check(request[name])
        except ValueError as wanted:
            raise Refusal(f"field `{name}` must be {wanted}") from None
    return checked


# --- safetensors ------------------------------------------------------------------------------------------------------
#
# The format is a length, a JSON header and raw bytes. It is read by hand so that the peer needs nothing but PyTorch.


def read_tensors(torch, path, names):
    """The named FP16 tensors of a file, on the CPU."""
    try:
        with open(path, "rb") as file:
            data = bytearray(file.read())
    except OSError as error:
        raise Refusal(f"failed to read `{path}`: {error.strerror}") from None
    try:
        (header_bytes,) = struct.unpack_from("<Q", data)
        if header_bytes > min(HEADER_BYTES_MAX, len(data) - 8):
            raise ValueError(f"a header of {header_bytes} bytes in a file of {len(data)}")
        header = json.loads(data[8 : 8 + header_bytes].decode())
        return [tensor(torch, data, 8 + header_bytes, header, name) for name in names]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(f"failed to read `{path}` as safetensors: {one_line(error)}") from None


def tensor(torch, data, start, header, name):
    if name not in header:
        raise ValueError(f"it has no tensor `{name}`")
    entry = header[name]
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if entry["dtype"] != "F16" or len(shape) != 4:
        raise ValueError(f"`{name}` is {entry['dtype']} of shape {shape}, wanted is F16 of [B, H, S, D]")
    count = math.prod(shape)
    if count == 0 or not 0 <= begin <= end <= len(data) - start or end - begin != 2 * count:
        raise ValueError(f"`{name}` of shape {shape} cannot be bytes {begin} to {end} of {len(data) - start}")
    return torch.frombuffer(data, dtype=torch.float16, count=count, offset=start + begin).reshape(shape)


def write_output(torch, path, out):
    """Writes one FP16 tensor as `out`. The file appears whole: written under another name, then renamed."""
    raw = out.to("cpu").contiguous().view(torch.uint8).numpy().tobytes()
    entry = {"dtype": "F16", "shape": list(out.shape), "data_offsets": [0, len(raw)]}
    header = json.dumps({"out": entry}).encode()
    header += b" " * (-len(header) % 8)
    partial = f"{path}.partial-{os.getpid()}"
    try:
        with open(partial, "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header + raw)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise Refusal(f"failed to write `{path}`: {error.strerror}") from None


# --- the device -------------------------------------------------------------------------------------------------------


def import_torch():
    """PyTorch with a device that it can use."""
    try:
        import torch
        import torch.nn.attention
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise Refusal("torch is not installed", "pip install torch") from None
        if error.name == "torch.nn.attention":
            raise Refusal(f"torch {torch.__version__} cannot choose a backend", "pip install --upgrade torch") from None
        raise Refusal(f"torch cannot be imported: {one_line(error)}", "pip install --force-reinstall torch") from None
    except Exception as error:
        raise Refusal(f"torch cannot be imported: {one_line(error)}", "pip install --force-reinstall torch") from None
    if torch.version.cuda is None:
        raise Refusal(f"torch {torch.__version__} is built without CUDA", "pip install torch (a build with CUDA)")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if not usable:
        why = f": {one_line(caught[-1].message)}" if caught else ""
        raise Refusal(f"torch {torch.__version__} sees no CUDA device{why}", "check the driver with nvidia-smi")
    torch.set_grad_enabled(False)
    return torch


def describe(torch):
    properties = torch.cuda.get_device_properties(0)
    uuid = getattr(properties, "uuid", None)
    return {
        "peer": "torch",
        "torch": str(torch.__version__),
        "cudnn": torch.backends.cudnn.version(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "device": properties.name,
        "uuid": None if uuid is None else f"GPU-{uuid}",
        "capability": f"{properties.major}.{properties.minor}",
    }


class Case:
    """One loaded case: its inputs on the device, what runs it, and the graphs captured for it. A peer that is called
    otherwise overrides `BACKENDS`, `call`, and what of the rest differs."""

    BACKENDS = BACKENDS

    def __init__(self, torch, sets, causal, scale):
        self.torch = torch
        self.sets = sets
        self.causal = causal
        self.scale = scale
        self.turn = 0
        self.graphs = {}
        self.backends = {name: self.examine(name) for name in self.BACKENDS}

    def call(self, index):
        q, k, v = self.sets[index % len(self.sets)]
        return self.torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=None, dropout_p=0.0, is_causal=self.causal, scale=self.scale
        )

    def forced(self, name):
        """The context in which only this backend may run."""
        if name == "default":
            return contextlib.nullcontext()
        attention = self.torch.nn.attention
        backend = getattr(attention.SDPBackend, FORCED[name], None)
        if backend is None:
            raise Refusal(f"torch {self.torch.__version__} has no such backend")
        return attention.sdpa_kernel(backend)

    def examine(self, name):
        """Runs a backend, and reads from the profiler which kernels that was."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with self.forced(name):
                    self.call(0)
                    self.torch.cuda.synchronize()
                    kernels = self.profile()
            except (RuntimeError, Refusal) as error:
                return {"name": name, "available": False, "reason": reason(error, caught)}
        resolved = classify(kernels) if kernels else "unknown"
        return {"name": name, "available": True, "resolved": resolved, "kernels": kernels}

    def profile(self):
        """The names of the kernels of one call, in order of appearance; None where the profiler sees none."""
        profiler = self.torch.profiler
        try:
            with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as seen:
                self.call(0)
                self.torch.cuda.synchronize()
            on_device = [event for event in seen.events() if event.device_type == self.torch.autograd.DeviceType.CUDA]
        except Exception as error:
            # A profiler that fails must not take the peer with it: its names are evidence, not the measurement.
            print(f"torch_sdpa: the profiler failed: {one_line(error)}", file=sys.stderr)
            return None
        names = [event.name for event in on_device if not event.name.startswith(("Memcpy", "Memset"))]
        return list(dict.fromkeys(names)) or None

    def available(self, name):
        backend = self.backends[name]
        if not backend["available"]:
            raise Refusal(f"backend {name} cannot run this case: {backend['reason']}")

    def output(self, name, index):
        with self.forced(name):
            out = self.call(index)
        self.torch.cuda.synchronize()
        return out

    def time_calls(self, name, launches, warmup):
        pairs = self.events(launches)
        with self.forced(name):
            for _ in range(warmup):
                self.call_next()
            for start, stop in pairs:
                start.record()
                self.call_next()
                stop.record()
        return self.elapsed_us(pairs)

    def time_graph(self, name, launches, replays):
        graph = self.graphs.get((name, launches))
        if graph is None:
            graph = self.graphs[name, launches] = self.capture(name, launches)
            graph.replay()
            self.torch.cuda.synchronize()
        pairs = self.events(replays)
        # On an idle device the first timed replay would hold the host's time to launch it: 5 to 20% more, as seen on an
        # H200 with graphs of 20 calls.
        graph.replay()
        for start, stop in pairs:
            start.record()
            graph.replay()
            stop.record()
        return [us / launches for us in self.elapsed_us(pairs)]

    def capture(self, name, launches):
        """Records the calls as a graph. They run once on the capturing stream before: cuDNN builds its plans and takes
        its workspace on first use, neither of which a capture allows."""
        cuda = self.torch.cuda
        stream = cuda.Stream()
        graph = cuda.CUDAGraph()
        with self.forced(name):
            stream.wait_stream(cuda.current_stream())
            with cuda.stream(stream):
                for index in range(len(self.sets)):
                    self.call(index)
            cuda.current_stream().wait_stream(stream)
            cuda.synchronize()
            with cuda.graph(graph, stream=stream):
                for index in range(launches):
                    self.call(index)
        return graph

    def call_next(self):
        self.call(self.turn)
        self.turn += 1

    def events(self, count):
        make = self.torch.cuda.Event
        return [(make(enable_timing=True), make(enable_timing=True)) for _ in range(count)]

    def elapsed_us(self, pairs):
        self.torch.cuda.synchronize()
        return [start.elapsed_time(stop) * 1000.0 for start, stop in pairs]


def reason(error, caught):
    """Why a forced backend would not run. PyTorch warns of each backend's obstacle before it gives up; that the others
    are switched off is our own doing and says nothing."""
    said = (one_line(warning.message).split(" (Triggered internally")[0] for warning in caught)
    telling = [line for line in said if "not used because" not in line and "runtime disabled" not in line]
    return one_line("; ".join(dict.fromkeys(telling)) or error)


def classify(kernels):
    """The backend that these kernels belong to, by words in their names."""
    names = " ".join(kernels).lower()
    return next((backend for backend, words in KERNEL_WORDS if any(word in names for word in words)), "unknown")


# --- the conversation -------------------------------------------------------------------------------------------------


class Peer:
    """What is kept between requests. A peer that is asked otherwise overrides `OPS`, and has a method of each name."""

    Case = Case
    OPS = ("hello", "load", "output", "block", "bye")

    def __init__(self):
        self.torch = None
        self.case = None

    def fields_of_backend(self, request, form):
        return fields(request, {"backend": one_of(*self.Case.BACKENDS), **form})

    def device(self):
        if self.torch is None:
            self.torch = import_torch()
        return self.torch

    def hello(self, request):
        fields(request, {})
        return describe(self.device())

    def load(self, request):
        wanted = fields(request, LOAD)
        torch = self.device()
        # The former case goes first, so that two never share the device's memory.
        self.case = None
        gc.collect()
        torch.cuda.empty_cache()
        names = [f"{operand}{index}" for index in range(wanted["sets"]) for operand in "qkv"]
        flat = read_tensors(torch, wanted["file"], names)
        sets = [tuple(flat[at : at + 3]) for at in range(0, len(flat), 3)]
        for index, (q, k, v) in enumerate(sets):
            alike = k.shape == v.shape and q.shape[:2] == k.shape[:2] and q.shape[3] == k.shape[3]
            if not alike or q.shape != sets[0][0].shape or k.shape != sets[0][1].shape:
                shapes = ", ".join(str(list(operand.shape)) for operand in (q, k, v))
                raise Refusal(f"set {index} has shapes that do not fit: {shapes}")
        on_device = [tuple(operand.to("cuda") for operand in one) for one in sets]
        self.case = self.Case(torch, on_device, wanted["causal"], wanted["softmax_scale"])
        return {"case": wanted["case"], "backends": list(self.case.backends.values())}

    def loaded(self, backend):
        if self.case is None:
            raise Refusal("no case is loaded")
        self.case.available(backend)
        return self.case

    def output(self, request):
        wanted = self.fields_of_backend(request, OUTPUT)
        case = self.loaded(wanted["backend"])
        if wanted["set"] >= len(case.sets):
            raise Refusal(f"there is no set {wanted['set']}: the case has {len(case.sets)}")
        write_output(self.torch, wanted["file"], case.output(wanted["backend"], wanted["set"]))
        return {}

    def block(self, request):
        if request.get("mode") == "graph":
            wanted = self.fields_of_backend(request, GRAPH)
            case = self.loaded(wanted["backend"])
            return {"us": case.time_graph(wanted["backend"], wanted["launches"], wanted["replays"])}
        wanted = self.fields_of_backend(request, CALL)
        case = self.loaded(wanted["backend"])
        return {"us": case.time_calls(wanted["backend"], wanted["launches"], wanted["warmup"])}

    def bye(self, request):
        fields(request, {})
        return {}


def parse(line, known):
    try:
        request = json.loads(line.decode())
    except ValueError as error:
        raise Refusal(f"a request must be one JSON object a line: {one_line(error)}") from None
    if not isinstance(request, dict):
        raise Refusal("a request must be one JSON object a line")
    if request.get("op") not in known:
        raise Refusal(f"unknown op {json.dumps(request.get('op'))}; known are {', '.join(known)}")
    return request


def answer(peer, line):
    """The answer to one line, and whether the conversation goes on."""
    try:
        request = parse(line, peer.OPS)
        return {"ok": True, **getattr(peer, request["op"])(request)}, request["op"] != "bye"
    except Refusal as refusal:
        remedy = {"remedy": refusal.remedy} if refusal.remedy else {}
        return {"ok": False, "error": one_line(refusal), **remedy}, True
    except Exception as error:
        # Whatever PyTorch raises ends up here, out of memory and broken devices included.
        return {"ok": False, "error": f"{type(error).__name__}: {one_line(error)}"}, True


def serve(peer, requests=None):
    # Standard output belongs to the answers, against C libraries too: its descriptor is put aside, and
    # the number they know leads to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in requests or sys.stdin.buffer:
        reply, goes_on = answer(peer, line)
        try:
            answers.write(json.dumps(reply) + "\n")
            answers.flush()
        except BrokenPipeError:
            # Nobody listens any more, and closing would only fail the same way.
            os._exit(1)
        if not goes_on:
            break


if __name__ == "__main__":
    serve(Peer())
