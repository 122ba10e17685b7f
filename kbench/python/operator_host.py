"""Runs the Python that a gate file names: `reference`, `check` and `inputs`, in a process that does nothing else.

One question a line on standard input, one answer a line on standard output, both JSON; arrays are raw little-endian
files. What the user's code prints goes to standard error. What it does wrong is answered as one line, never as a
traceback; the traceback goes to standard error too. Leaves to others: what arrays mean, limits on time, verdicts.
"""

import ast
import contextlib
import ctypes
import importlib.util
import inspect
import json
import os
import resource
import signal
import sys
import traceback

DTYPES = {
    "f64": "<f8",
    "i8": "<i1",
    "u8": "<u1",
    "i16": "<i2",
    "u16": "<u2",
    "i32": "<i4",
    "u32": "<u4",
    "i64": "<i8",
    "u64": "<u8",
    "bool": "?",
}
FLOATS = {"f32": "<f4", "f16": "<f2"}


PR_SET_PDEATHSIG = 1


class Refused(Exception):
    """What the user's code did wrong, in one line."""


class Raised(Refused):
    """It raised an exception."""


def one_line(text, longest=300):
    flat = " ".join(str(text).split())
    return flat if len(flat) <= longest else flat[:longest] + "..."


def one_line_of(error, file):
    """An exception with the innermost line of the user's file that raised it."""
    traceback.print_exception(error)
    folder = os.path.dirname(file)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == file] or [f for f in frames if os.path.dirname(f.filename) == folder]
    place = f" ({os.path.basename(own[-1].filename)}:{own[-1].lineno})" if own else ""
    text = one_line(error)
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


class Host:
    def __init__(self):
        self.numpy = None
        self.function = None
        self.file = ""
        self.memory = 0
        self.torch = None

    def guarded(self, call, *arguments, **named):
        """Calls the user's code; whatever it raises becomes a refusal."""
        try:
            return call(*arguments, **named)
        except MemoryError as error:
            traceback.print_exception(error)
            raise Refused(f"needs more than {self.memory >> 20} MiB of memory") from error
        except BaseException as error:
            raise Raised(f"raises {one_line_of(error, self.file)}") from error

    def hello(self, question):
        self.memory = question["memory"]
        try:
            import numpy
        except ImportError as error:
            raise Refused(f"numpy is missing: {one_line(error)}") from error
        self.numpy = numpy
        resource.setrlimit(resource.RLIMIT_AS, (self.memory, self.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return {"python": sys.version.split()[0], "numpy": numpy.__version__}

    def load(self, question):
        self.file, name = question["file"], question["function"]
        sys.path.insert(0, os.path.dirname(self.file))
        spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(self.file))[0], self.file)
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(spec.name, module)
        self.guarded(spec.loader.exec_module, module)
        self.function = getattr(module, name, None)
        if not callable(self.function):
            raise Refused(f"has no function `{name}`")
        self.torch = sys.modules.get("torch") if self.imports_torch() else None
        return {}

    def imports_torch(self):
        with open(self.file, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        names = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
        return any(name.split(".")[0] == "torch" for name in names)

    def read(self, tensor):
        array = self.numpy.fromfile(tensor["file"], dtype=DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        return self.torch.from_numpy(array) if self.torch else array

    def write(self, value, tensor, what):
        numpy = self.numpy
        if self.torch is not None and isinstance(value, self.torch.Tensor):
            value = value.detach().cpu()
            value = (value.double() if value.is_floating_point() else value).numpy()
        try:
            array = numpy.asarray(value)
        except ValueError as error:
            raise Refused(f"{what} is no array: {one_line(error)}") from error
        if array.dtype.kind not in "biuf":
            raise Refused(f"{what} is no array of numbers: its dtype is {array.dtype}")
        if list(array.shape) != tensor["shape"]:
            raise Refused(f"{what} has the shape {list(array.shape)}, and {tensor['shape']} is declared")
        self.converted(array, tensor, what).tofile(tensor["file"])

    def converted(self, array, tensor, what):
        """As the tensor's type; where it must be exact, a value that the type cannot hold is refused."""
        numpy, dtype = self.numpy, tensor["dtype"]
        exact = tensor.get("exact", dtype)
        with numpy.errstate(all="ignore"):
            there = array.astype(FLOATS.get(exact) or DTYPES[dtype])
            if exact != "f64":
                same = (there == array) & ((there < 0) == (array < 0))
                if array.dtype.kind == "f":
                    same |= numpy.isnan(array) & numpy.isnan(there.astype("<f8"))
                if not same.all():
                    first = array.reshape(-1)[int(numpy.argmin(same.reshape(-1)))]
                    raise Refused(f"{what} holds {first}, which {exact} cannot hold")
        return numpy.ascontiguousarray(there.astype(DTYPES[dtype]))

    def arguments(self, given, also):
        """Keywords for the function: what is given, and what else it has a parameter for."""
        function = self.function.__name__
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):
            return dict(given)
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return {**also, **given}
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names = [p.name for p in named]
        for name in given:
            if name not in names:
                raise Refused(f"`{function}` has no parameter for the input `{name}`: it has {', '.join(names)}")
        for p in named:
            if p.name not in given and p.name not in also and p.default is p.empty:
                raise Refused(f"`{function}` has the parameter `{p.name}`, which is no input, axis or let")
        return {**given, **{name: also[name] for name in names if name in also and name not in given}}

    def extras(self, values, taken):
        """Keywords for a function that takes others by position: the values that it has a parameter for."""
        try:
            names = list(inspect.signature(self.function).parameters)[taken:]
        except (TypeError, ValueError):
            return {}
        return {name: values[name] for name in names if name in values}

    def reference(self, question):
        inputs = {t["name"]: self.guarded(self.read, t) for t in question["inputs"]}
        values = {**question["axes"], **question["let"]}
        result = self.guarded(self.function, **self.arguments(inputs, values))
        outputs = question["outputs"]
        for tensor, value in zip(outputs, self.in_order(result, [t["name"] for t in outputs])):
            self.guarded_write(value, tensor, f"output `{tensor['name']}`")
        return {}

    def guarded_write(self, value, tensor, what):
        try:
            self.write(value, tensor, what)
        except MemoryError as error:
            raise Refused(f"needs more than {self.memory >> 20} MiB of memory") from error

    def in_order(self, result, names):
        all_names = ", ".join(f"`{name}`" for name in names)
        if result is None:
            raise Refused("returns nothing: return an array")
        if isinstance(result, dict):
            if set(result) != set(names):
                found = ", ".join(f"`{one_line(name, 40)}`" for name in result) or "nothing"
                raise Refused(f"returns {found}, and the outputs are {all_names}")
            return [result[name] for name in names]
        if isinstance(result, tuple) or isinstance(result, list) and len(names) > 1:
            if len(result) != len(names):
                raise Refused(f"returns {len(result)} arrays, and the outputs are {all_names}")
            return list(result)
        if len(names) > 1:
            raise Refused(f"returns one array, and the outputs are {all_names}: return a dict")
        return [result]

    def check(self, question):
        inputs = {t["name"]: self.guarded(self.read, t) for t in question["inputs"]}
        outputs = {t["name"]: self.guarded(self.read, t) for t in question["outputs"]}
        extras = self.extras(question["let"], 3)
        figures = self.guarded(self.function, inputs, outputs, dict(question["axes"]), **extras)
        if not isinstance(figures, dict):
            raise Refused(f"returns {type(figures).__name__}: return a dict of figures")
        told = {}
        for name, value in figures.items():
            try:
                told[str(name)] = repr(float(value))
            except (TypeError, ValueError, OverflowError) as error:
                raise Refused(f"figure `{one_line(name, 40)}` is no number: {one_line(value, 60)}") from error
        return {"figures": told}

    def generate(self, question):
        extras = self.extras(question["let"], 2)
        made = self.guarded(self.function, dict(question["axes"]), question["seed"], **extras)
        if not isinstance(made, dict):
            raise Refused(f"returns {type(made).__name__}: return a dict of inputs")
        tensors = {t["name"]: t for t in question["inputs"]}
        for name, value in made.items():
            if name not in tensors:
                raise Refused(f"makes `{one_line(name, 40)}`, which is no input: there are {', '.join(tensors)}")
            self.guarded_write(value, tensors[name], f"input `{name}`")
        return {"made": list(made)}


def main():
    # Whoever asks may die in the middle of a call; then nobody else would end it.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    questions = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # The user's code has neither end of the protocol: it reads nothing, and prints to the log.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    host = Host()
    known = {name: getattr(host, name) for name in ("hello", "load", "reference", "check", "generate")}
    for line in questions:
        question = json.loads(line)
        try:
            answer = {"ok": True, **known[question["op"]](question)}
        except Refused as refused:
            answer = {"ok": False, "error": str(refused), "raised": isinstance(refused, Raised)}
        except MemoryError:
            answer = {"ok": False, "error": f"needs more than {host.memory >> 20} MiB of memory"}
        sys.stdout.flush()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


main()
