"""A stand-in for sdpa-runner: no GPU, no kernels, only the protocol. Times are a function of the toggles, so that a test
knows who must win. Environment: FAKE_DIR, a folder with `gpus` (how many there are) where `timed.log` is written. There a test
says what goes wrong: `kills`, who takes the process along while timed; `faults`, who faults where it is launched;
`lies`, whose own clock leaves out most of its time; `breaks`, as `CULPRIT SHOWN WHERE`, in whose turn the device fails while the culprit takes part, and whether the culprit then
faults `alone` too; `ends`, at which job the process ends without a word; `dies`, on which GPU the process that times is killed,
once."""
import json
import math
import os
import pathlib
import sys
import time
import zlib

folder = pathlib.Path(os.environ["FAKE_DIR"])
job = None
gpu = int(os.environ.get("CUDA_VISIBLE_DEVICES") or 0)
STATE = dict(sm_clock_mhz=None, temperature_c=None, power_w=None, throttle=[], power_capped=False)
capability = folder / "capability"
CAPABILITY = json.loads(capability.read_text()) if capability.exists() else [8, 9]
DEVICE = dict(name="NVIDIA TEST", uuid=f"GPU-{gpu}", capability=CAPABILITY, sm_count=58, max_sm_clock_mhz=2040, memory_bytes=1,
              l2_bytes=1, max_shared_bytes=101376, cuda_driver="13.0", nvml=None)


def say(event, **rest):
    print(json.dumps({"event": event, **rest}), flush=True)


def wrong(variant):
    """Swizzle without a third stage is wrong here."""
    return "st2" in variant and "sw1" in variant


def microseconds(module):
    """By its toggles; one of a gate file takes as many as its first launch has threads, and host code 100."""
    if module.get("call"):
        return 100.0
    for planned in module.get("planned", {}).values():
        return float(planned["steps"][0]["launch"]["block"][0])
    toggles, us = module["toggles"], 200.0
    us *= {32: 1.0, 64: 0.7, 128: 0.8}[toggles["tile_q"]]
    us *= 0.8 if toggles["scheduler"] else 1.0
    us *= 0.9 if toggles["swizzle"] else 1.0
    us *= 0.95 if toggles["stages"] == 3 else 1.0
    return us * (1.05 if toggles["loader"] == 1 else 1.0)


def errors(subject, problem):
    sizes = problem["shape"]["axes"]
    if "B" not in sizes:
        return errors_of_a_gate_file(sizes)
    wide = folder / "wrong-at-128"
    too_wide = wide.exists() and wide.read_text().strip() == subject and sizes["D"] == 128
    rows, more = sizes["B"] * sizes["H"] * sizes["S_q"], {}
    wanted = job.get("sampled", {}).get(f"{problem['shape']['name']}.seed{problem['seed']}.{problem['distribution']}")
    if wanted:
        whole = dict(elements=rows * sizes["D"], block_rms=0.0, worst_at=[0, 0, 0, 0])
        rows, more = wanted, dict(sampled_rows=[[0, row] for row in range(wanted)], whole=whole)
    return dict(elements=rows * sizes["D"], nan=0, inf=0, kernel_max=1.0 if too_wide or wrong(subject) else 0.001,
                kernel_mean=0.01 if too_wide or wrong(subject) else 0.0001, worst_at=[0, 0, 0, 0], floor_max=0.05,
                end_to_end_max=0.05, end_to_end_mean=0.003, bad_share=0.0, reference_amax=1.0, from_control_max=0.0,
                proportion=dict(rows=1, slope=0.0, row_rms=0.0, magnitude=1.0), **more)


def errors_of_a_gate_file(sizes):
    """Of one output `y` that has every axis."""
    elements = math.prod(sizes.values())
    same = dict(elements=elements, worst_at=[0] * len(sizes), reference_amax=1.0)
    y = dict(output="y", wrong=0, max=1e-6, mean=1e-7, relative=1e-6, relative_rms=1e-6, slope=0.0, row_relative=1e-6,
             gaps_intact=True, **same)
    return dict(nan=0, inf=0, kernel_max=1e-6, kernel_mean=1e-7, floor_max=0.0, end_to_end_max=0.0, end_to_end_mean=0.0,
                bad_share=0.0, from_control_max=0.0, outputs=[y], **same)


def outcome(problem):
    return dict(problem=problem, failure=None, output_sha256="00", repeat_equal=True, inputs_unchanged=True,
                guards_intact=True)


def emulated(variant, problem):
    """What the emulator would say: nothing, a finding, or that it does not run this variant."""
    def is_named(file):
        return (folder / file).exists() and (folder / file).read_text().strip() == variant

    if is_named("not-emulated"):
        why = dict(why="the emulator cannot execute it: line 7", remedy="run on a machine with an NVIDIA GPU")
        return {**outcome(problem), "failure": why["why"], "output_sha256": None, "deferred": why}
    if is_named("finding"):
        finding = "ERROR race (write then read, two warps), write a.cuh:1, read b.cuh:2\n  replay: --schedule greedy"
        return {**outcome(problem), "findings": [finding]}
    return outcome(problem)


def breaks():
    """Who breaks the device while timed, in whose turn, and whether alone too."""
    return (folder / "breaks").read_text().split() if (folder / "breaks").exists() else [None, None, None]


def outer(module, us):
    """What the judge's clock said of twenty launches of host code; `lies` names who left out most of them."""
    if not module.get("call"):
        return {}
    lies = (folder / "lies").exists() and (folder / "lies").read_text().strip() == module["variant"]
    return dict(outer=dict(wall_us=20 * us * (5 if lies else 1.005), launches=20))


def shapes_of(suite):
    """What is timed together: all shapes, or, where others share them, one after the other that nobody has yet."""
    share = job.get("share")
    if share is None:
        yield suite["time_shapes"]
        return
    taken = pathlib.Path(share["folder"])
    for claim in taken.iterdir():
        if claim.read_text() == share["worker"]:
            claim.unlink()
    for shape in suite["time_shapes"]:
        try:
            with open(taken / shape, "x") as claim:
                claim.write(share["worker"])
        except FileExistsError:
            continue
        yield [shape]
        # However slowly the others start, each has one.
        deadline = time.time() + 30
        while time.time() < deadline and not any(claim.read_text() != share["worker"] for claim in taken.iterdir()):
            time.sleep(0.01)


def bench():
    suite, blocks, placement = job["suite"], [], job.get("placement", 0)
    names = [m["variant"] for m in job["modules"]]
    with open(folder / "timed.log", "a") as log:
        log.write("".join(f"{gpu} {len(suite['seeds'])} {placement} {name}\n" for name in names))
    if (folder / "hangs").exists():
        sys.stdin.read()
        sys.exit(1)
    for shapes in shapes_of(suite):
        blocks += timed(suite, shapes, names, placement)
    samples = dict(device=DEVICE, deferred=None, cache_mode="hot-l2", input_sets=1, blocks=blocks, failures=[])
    say("timed", samples=samples, peers=dict(wanted=False, deferred=None, versions={}, backends=[]))


def timed(suite, shapes, names, placement):
    blocks = []
    for module in job["modules"]:
        subject = dict(who=module["variant"])
        say("timing", shape=shapes[0], subject=subject)
        if (folder / "dies").exists() and int((folder / "dies").read_text()) == gpu:
            (folder / "dies").unlink()
            os.kill(os.getpid(), 9)
        culprit, shown, _ = breaks()
        if culprit in names and module["variant"] == shown:
            say("fault", shape=shapes[0], subject=subject, why="illegal memory access")
            say("error", why="the device failed")
            sys.exit(1)
        if (folder / "kills").exists() and module["variant"] == (folder / "kills").read_text().strip():
            os.kill(os.getpid(), 9)
        time.sleep(0.002)
        us = microseconds(module)
        arms = [dict(who=module["variant"])]
        if module["variant"] == suite["control"]:
            arms.append(dict(who=module["variant"], arm="again"))
        each = suite["timing"]["rounds"] // suite["timing"]["sittings"]
        places = [(shape, drawn) for shape in shapes for drawn in suite["time_distributions"]]
        for (shape, drawn), arm in [(place, arm) for place in places for arm in arms]:
            for number in range(suite["timing"]["rounds"]):
                kinds = [("kernel", "hot"), ("call", "hot")] + ([("call", "cold")] if number % each == 0 else [])
                for mode, cache in kinds:
                    jitter = 1 + 0.001 * (zlib.crc32(f"{arm} {placement} {number}".encode()) % 5 - 2)
                    blocks.append(dict(shape=shape, distribution=drawn, sitting=number // each, cache=cache, subject=arm,
                                       mode=mode, round=number, slot=0, us=[us * jitter], before=STATE, after=STATE,
                                       outputs_verified=True, **outer(module, us)))
    return blocks


def run():
    if (folder / "ends").exists() and job["job"] == (folder / "ends").read_text().strip():
        sys.exit(0)
    if job["job"] == "probe":
        say("device", device=DEVICE, state=STATE, others=[])
    elif job["job"] == "devices":
        for number in range(int((folder / "gpus").read_text())):
            say("device", device={**DEVICE, "uuid": f"GPU-{number}"}, state=STATE, others=[])
    elif job["job"] == "launch" and job["executor"] == "emulator":
        for problem in job["problems"]:
            say("launched", outcome=emulated(job["module"]["variant"], problem))
    elif job["job"] == "launch":
        with open(folder / "alone.log", "a") as log:
            log.write(job["module"]["variant"] + "\n")
        with open(folder / "launched.log", "a") as log:
            for p in job["problems"]:
                log.write(f"{gpu} {job['module']['variant']} {p['shape']['name']} {p['seed']} {p['distribution']}\n")
        if (folder / "faults").exists() and job["module"]["variant"] == (folder / "faults").read_text().strip():
            say("launched", outcome={**outcome(job["problems"][0]), "failure": "an illegal address", "output_sha256": None})
            say("done")
            return
        culprit, _, where = breaks()
        was_timed = (folder / "timed.log").exists()
        for problem in job["problems"]:
            failing = was_timed and where == "alone" and job["module"]["variant"] == culprit
            say("launched", outcome={**outcome(problem), "failure": "an illegal address" if failing else None})
    elif job["job"] == "profile":
        say("launched", outcome=outcome(job["problem"]))
    elif job["job"] == "launch-batch":
        for problem in job["jobs"][0]["problems"]:
            for one in job["jobs"]:
                variant = one["module"]["variant"]
                if (folder / "faults").exists() and variant == (folder / "faults").read_text().strip():
                    say("error", why=f"`{variant}` faults")
                    sys.exit(1)
                say("launched-of", variant=variant, outcome=outcome(problem))
    elif job["job"] == "errors":
        for problem in job["problems"]:
            for subject in [] if job.get("ahead") else job["outputs"]:
                say("compared", subject=subject, problem=problem, errors=errors(subject, problem))
    else:
        bench()
    say("done")


job = json.loads(sys.stdin.readline())
if job["job"] in ("resident", "comparer"):
    for line in sys.stdin:
        job = json.loads(line)
        run()
else:
    run()
