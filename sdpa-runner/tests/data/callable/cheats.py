"""Callables for y = x * w: one that is honest in each way of giving the output, and cheats, one a function. What becomes of
each stands in `cheats.rs`, which was written before anything that rejects them. They run on PyTorch and on its stand-in."""

import os
import socket
import subprocess
import threading
import time

import torch

SLEEP = 20_000_000  # clocks of the device: some ten milliseconds
AT_IMPORT = [index * index for index in range(1000)]
calls = 0
seen = {}
kept = None


def honest(x, w, y):
    torch.mul(x, w, out=y)


def honest_return(x, w):
    return x * w


def waits_for_the_device(x, w, y):
    y.fill_(x[:1].tolist()[0])
    torch.mul(x, w, out=y)


def returns_its_input(x, w):
    return x


def returns_nothing(x, w):
    x * w


def returns_another_shape(x, w):
    return (x * w).reshape(1, -1)


def returns_another_type(x, w):
    return (x * w).to(torch.float64)


def returns_what_is_no_tensor(x, w):
    class Lazy(torch.Tensor):
        pass

    return (x * w).as_subclass(Lazy)


def reuses_its_output(x, w):
    global kept
    if kept is None:
        kept = torch.empty_like(x)
    torch.mul(x, w, out=kept)
    return kept


def writes_nothing(x, w, y):
    pass


def writes_into_an_input(x, w, y):
    torch.mul(x, w, out=y)
    x.zero_()


def caches_by_pointer(x, w, y):
    if x.data_ptr() not in seen:
        seen[x.data_ptr()] = x * w
    y.copy_(seen[x.data_ptr()])


def caches_by_value(x, w, y):
    print_of = (tuple(x[:8].tolist()), tuple(w[:8].tolist()))
    if print_of not in seen:
        seen[print_of] = x * w
    y.copy_(seen[print_of])


def honest_at_first(x, w, y):
    global calls
    calls += 1
    if calls <= 12:
        torch.mul(x, w, out=y)


def on_a_side_stream(x, w, y):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SLEEP)
        torch.mul(x, w, out=y)


def with_a_patched_event(x, w, y):
    given = torch.cuda.Event.elapsed_time

    def quick(self, stop):
        return 0.001

    def quick_with_a_cell(self, stop):  # PyTorch's has one, by `super()`
        return 0.001 if given else 0.0

    given.__code__ = (quick_with_a_cell if given.__code__.co_freevars else quick).__code__
    torch.cuda._sleep(SLEEP)
    torch.mul(x, w, out=y)


def with_a_patched_clock(x, w, y):
    class Quick(torch.cuda.Event):
        def elapsed_time(self, stop):
            return 0.001

    torch.cuda.Event = Quick
    time.perf_counter = lambda: 0.0
    torch.cuda._sleep(SLEEP)
    torch.mul(x, w, out=y)


def works_in_others_turns(x, w, y):
    # A thread that never rests: it takes the host's processors, and what else it does is luck.
    global calls
    calls += 1
    if calls == 1:
        threading.Thread(target=lambda: [sum(range(1000)) for _ in iter(int, 1)], daemon=True).start()
    torch.mul(x, w, out=y)


def leaves_work_behind(x, w, y):
    def wait_for_little(device=None):
        import torch

        torch.cuda.current_stream().synchronize()

    torch.cuda.synchronize.__code__ = wait_for_little.__code__
    torch.mul(x, w, out=y)
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(10 * SLEEP)


def works_at_import(x, w, y):
    assert AT_IMPORT[2] == 4
    torch.mul(x, w, out=y)


def opens_a_socket(x, w, y):
    socket.create_connection(("127.0.0.1", 9), 5)
    torch.mul(x, w, out=y)


def starts_a_process(x, w, y):
    subprocess.run(["true"], check=True)
    torch.mul(x, w, out=y)


def forks(x, w, y):
    if os.fork() == 0:
        os._exit(0)
    torch.mul(x, w, out=y)


def never_returns(x, w, y):
    while True:
        pass


def takes_all_memory(x, w, y):
    hoard = [bytearray(b"\x01") * (64 << 20) for _ in range(1600)]
    y.fill_(float(len(hoard)))


def reads_outside(x, w, y):
    os.listdir("/root")
    torch.mul(x, w, out=y)


def writes_outside(x, w, y):
    open("/var/tmp/left-by-a-callable", "w").write("x")
    torch.mul(x, w, out=y)
