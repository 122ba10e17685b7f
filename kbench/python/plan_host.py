"""Asks a gate file's `plan.py` what is launched on one shape, in a process that does nothing else.

One question on standard input, one answer on standard output, both JSON. The file has a function

    def launches(axes, device, let, define):
        return [
            {"memset": "counter", "byte": 0},
            {"entry": "reduce<256>", "params": ["x", "partial", "n: i32"], "grid": [device["sms"] * 2],
             "block": [256], "shared": 1024, "cluster": [2], "cooperative": True, "pdl": False},
            {"copy": ["partial", "y"]},
        ]

with dicts of numbers by name: `axes` of the shape, `device` with `sms`, `max_shared` and (once the kernel is built)
`max_active`, `let` and `define` of the variant. It may leave out parameters that it does not use. What it returns is what
`launches` holds in a gate file: keys from `shared` on may be left out or be None, numbers may be expressions. It is asked
twice, each time of a freshly loaded file, and must answer the same. Leaves to others: whether the answer can be launched.
"""

import importlib.util
import inspect
import json
import operator
import os
import sys
import traceback

GIVEN = ("axes", "device", "let", "define")


class Refused(Exception):
    """What the user's file did wrong: at which part of its answer, and one line."""

    def __init__(self, why, at=""):
        super().__init__(why)
        self.at = at


def one_line(text, longest=300):
    flat = " ".join(str(text).split())
    return flat if len(flat) <= longest else flat[:longest] + "..."


def guarded(file, call, *arguments, **named):
    """Calls the user's code; whatever it raises becomes a refusal."""
    try:
        return call(*arguments, **named)
    except MemoryError as error:
        raise Refused("needs more memory than a plan may use") from error
    except BaseException as error:
        traceback.print_exception(error)
        own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        place = f" ({os.path.basename(file)}:{own[-1].lineno})" if own else ""
        text = one_line(error)
        raise Refused(f"raises {type(error).__name__}{': ' if text else ''}{text}{place}") from error


def function_of(file):
    spec = importlib.util.spec_from_file_location("plan", file)
    module = importlib.util.module_from_spec(spec)
    guarded(file, spec.loader.exec_module, module)
    function = getattr(module, "launches", None)
    if not callable(function):
        raise Refused("has no function `launches`: def launches(axes, device, let, define)")
    return function


def plain(value, at=""):
    """The value as JSON knows it: numbers of numpy become numbers, tuples lists, keys without a value go."""
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise Refused(f"has the key {one_line(key, 40)}, and keys are texts", at)
        return {key: plain(item, f"{at}.{key}") for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{at}[{i}]") for i, item in enumerate(value)]
    if type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Refused(f"is {one_line(repr(value), 60)}: give numbers, texts, lists and dicts", at) from None
    if number != number or number in (float("inf"), float("-inf")):
        raise Refused(f"is {number}, and must be finite", at)
    return number


def answer(question):
    file = question["file"]
    sys.path.insert(0, os.path.dirname(file))
    function = function_of(file)
    names = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    for name in names:
        if name not in GIVEN:
            raise Refused(f"`launches` has the parameter `{name}`, and gets {', '.join(GIVEN)}")
    result = guarded(file, function, **{name: dict(question[name]) for name in names})
    if not isinstance(result, (list, tuple)):
        raise Refused(f"returns {one_line(repr(result), 60)}: return a list of launches")
    return plain(result)


def main():
    # What the user's code prints must not get between the answer's brackets.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    question = json.loads(sys.stdin.read())
    try:
        first, second = answer(question), answer(question)
        if first != second:
            raise Refused("answers differently when it is asked again: it may depend on its arguments alone")
        said = {"launches": first}
    except Refused as refused:
        said = {"error": str(refused), "at": refused.at}
    json.dump(said, out)


main()
