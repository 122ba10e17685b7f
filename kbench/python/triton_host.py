"""Has Triton make PTX of one function of somebody's file, in a process that does nothing else and needs no GPU.

One question on standard input, one answer on standard output, both JSON. The question names `file`, `function`, `arch`
(89 of sm_89), `num_warps`, `num_stages`, `constants` (pairs of name and value) and `arguments`: of each parameter that is
no `tl.constexpr`, in order, its type in Triton's words as `kind`, empty for None, and what is `known` of its value:
`one`, `multiple` (of 16) or `nothing`. That is what Triton's JIT would look at, and it is compiled as the JIT would: what
is one, and None, become constants, unless the function asks for it not to be looked at.

The answer has the PTX, the launch (which arguments are left, shared memory, warps, scratch), the version, which
decorators were taken off, and the files of this process below the folder; or `refused` with the part of the variant and
why; or `failed` with the compiler's complaint. Leaves to others: the assembler, and launching.
"""

import importlib.util
import json
import os
import sys
import traceback


class Refused(Exception):
    """What the gate file asks for cannot be: at which part of the variant, and one line."""

    def __init__(self, part, why):
        super().__init__(why)
        self.part = part


class Failed(Exception):
    """The source cannot be compiled."""


def one_line(text, longest=300):
    flat = " ".join(str(text).split())
    return flat if len(flat) <= longest else flat[:longest] + "..."


def loaded(file):
    """The module; whatever it raises is its own fault."""
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(file))[0], file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        traceback.print_exception(error)
        own = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        place = f":{own[-1]}" if own else ""
        raise Failed(f"{os.path.basename(file)}{place}: {type(error).__name__}: {one_line(error)}") from error
    return module


def function_of(file, name):
    """The function below its decorators, and what was taken off."""
    from triton.runtime.jit import JITFunction

    found, removed = getattr(loaded(file), name, None), []
    if found is None:
        raise Refused("triton", f"there is no function `{name}`")
    while not isinstance(found, JITFunction):
        inner = getattr(found, "fn", None)
        if inner is None:
            raise Refused("triton", f"`{name}` is no function of triton.jit")
        kind = type(found).__name__
        removed.append({"Autotuner": "triton.autotune", "Heuristics": "triton.heuristics"}.get(kind, kind))
        found = inner
    return found, removed


def specialised(function, constants, arguments):
    """Signature, constants and attributes as Triton takes them, and the indices of the arguments that are left."""
    signature, values, attributes, kept = {}, {}, {}, []
    own = [parameter for parameter in function.params if not parameter.is_constexpr]
    if len(own) != len(arguments):
        names = ", ".join(parameter.name for parameter in own)
        why = f"`{function.__name__}` takes {len(own)} parameters besides its constants ({names}), {len(arguments)} are given"
        raise Refused("params", why)
    known = [parameter.name for parameter in function.params if parameter.is_constexpr]
    for name in constants:
        if name not in known:
            raise Refused(f"define.{name}", f"`{function.__name__}` has no tl.constexpr `{name}`: it has {', '.join(known) or 'none'}")
    given = iter(enumerate(arguments))
    for place, parameter in enumerate(function.params):
        if parameter.is_constexpr:
            if parameter.name not in constants and not parameter.has_default:
                raise Refused("define", f"gives no `{parameter.name}`, a tl.constexpr of `{function.__name__}`")
            signature[parameter.name] = "constexpr"
            values[(place,)] = constants.get(parameter.name, parameter.default if parameter.has_default else None)
            continue
        index, argument = next(given)
        looked_at = not parameter.do_not_specialize
        if argument["kind"] == "" or (argument["known"] == "one" and looked_at):
            signature[parameter.name] = "constexpr"
            values[(place,)] = None if argument["kind"] == "" else 1
            continue
        signature[parameter.name] = argument["kind"]
        by_alignment = looked_at and not parameter.do_not_specialize_on_alignment
        if argument["known"] == "multiple" and by_alignment:
            attributes[(place,)] = [["tt.divisibility", 16]]
        kept.append(index)
    return signature, values, attributes, kept


def complaint(function, error):
    """The compiler's last word, with the line of the file."""
    node, file = getattr(error, "node", None), os.path.basename(function.fn.__code__.co_filename)
    first = getattr(function, "starting_line_number", function.fn.__code__.co_firstlineno)
    place = f"{file}:{first + node.lineno - 1}" if hasattr(node, "lineno") else file
    cause = getattr(error, "error_message", None) or getattr(error.__cause__, "error_message", None) or error.__cause__ or error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    # Behind the assembler's own words Triton says how to run it again.
    assembler = [line for line in lines if line.startswith("ptxas")]
    return f"{place}: {one_line(([type(error).__name__] + lines + assembler[:1])[-1])}"


def ptx_version(asked, arch):
    """The version of PTX to make: as asked, or what Triton's own assembler takes, which is a step on the way, if less."""
    from triton.backends.nvidia.compiler import get_ptxas, ptx_get_version

    return min(asked, ptx_get_version(get_ptxas(arch).version))


def compiled(question):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    file, arch = question["file"], question["arch"]
    function, removed = function_of(file, question["function"])
    signature, values, attributes, kept = specialised(function, dict(question["constants"]), question["arguments"])
    options = {"num_warps": question["num_warps"], "num_stages": question["num_stages"]}
    if question["ptx_version"]:
        options["ptx_version"] = ptx_version(question["ptx_version"], arch)
    try:
        source = ASTSource(fn=function, signature=signature, constexprs=values, attrs=attributes)
        kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    except Exception as error:
        traceback.print_exception(error)
        raise Failed(complaint(function, error)) from error
    launch = kernel.metadata
    folder = os.path.dirname(os.path.realpath(file)) + os.sep
    sources = {os.path.realpath(m.__file__) for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
    return {
        "ptx": kernel.asm["ptx"],
        "version": triton.__version__,
        "symbol": launch.name,
        "kept": kept,
        "removed": removed,
        "shared": launch.shared,
        "threads": 32 * launch.num_warps,
        "global_scratch": getattr(launch, "global_scratch_size", 0) or 0,
        "profile_scratch": getattr(launch, "profile_scratch_size", 0) or 0,
        "cooperative": bool(getattr(launch, "launch_cooperative_grid", False)),
        "pdl": bool(getattr(launch, "launch_pdl", False)),
        "files": sorted(path for path in sources | {os.path.realpath(file)} if path.startswith(folder)),
    }


def main():
    # What somebody's code prints must not get between the answer's brackets.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    question = json.loads(sys.stdin.read())
    sys.path.insert(0, os.path.dirname(question["file"]))
    try:
        said = compiled(question)
    except Refused as refused:
        said = {"refused": str(refused), "part": refused.part}
    except Failed as failed:
        said = {"failed": str(failed)}
    json.dump(said, out)


main()
