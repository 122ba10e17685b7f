"""End-to-end errors of the Hopper flagship and of cuDNN FP8 over many seeds: is a difference of one seed chance?

    cargo xtask build hopper --arch sm_90a --export kernels
    python3 seeds.py kernels/hopper-sm_90a.json [SECONDS]

For each shape of the suite `flagship`: standard normal FP16 inputs, both kernels from them (each quantises by itself), float64
attention on the originals on the GPU, and over all seeds the median and the largest of the largest error, the mean error, and
in how many seeds the flagship's was no larger. Stops drawing seeds of a shape when its share of SECONDS (120) is over.
Needs PyTorch and nvidia-cudnn-frontend.
"""

import math
import pathlib
import statistics
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parents[2] / "kbench/peers"))

# Batch, heads, length, head dimension.
SHAPES = {
    "small": (1, 8, 128, 64),
    "mission": (2, 8, 512, 64),
    "long": (2, 8, 2048, 64),
    "wide": (2, 8, 2048, 128),
    "long-large": (8, 32, 2048, 64),
    "wide-large": (8, 16, 2048, 128),
    "wide-8k": (2, 16, 8192, 128),
}
WITHOUT_CAUSAL = ("small", "mission")
MOST_SEEDS = 48
FIRST_SEED = 1000
# Scores that are in memory in float64 at once.
MOST_SCORES = 1 << 27


def cases():
    for name, sizes in SHAPES.items():
        yield name, sizes, False
        if name not in WITHOUT_CAUSAL:
            yield f"{name}-causal", sizes, True


def errors(torch, inputs, causal, outputs):
    """Largest and mean error of each output, [B, H, S, D]."""
    batch, heads, seq, head_dim = inputs[0].shape
    flat = [x.reshape(batch * heads, seq, head_dim) for x in inputs]
    own = [x.reshape(batch * heads, seq, head_dim) for x in outputs]
    hidden = torch.ones(seq, seq, dtype=torch.bool, device="cuda").triu(1)
    step = max(1, MOST_SCORES // (seq * seq))
    largest, total = [0.0] * len(own), [0.0] * len(own)
    for first in range(0, batch * heads, step):
        q, k, v = (x[first : first + step].double() for x in flat)
        scores = q @ k.transpose(1, 2) / math.sqrt(head_dim)
        if causal:
            scores.masked_fill_(hidden, float("-inf"))
        exact = torch.softmax(scores, 2) @ v
        for i, output in enumerate(own):
            error = (output[first : first + step].double() - exact).abs()
            # NaN is larger than any error, which `max` of Python's numbers would not see.
            largest[i] = max(largest[i], torch.nan_to_num(error, nan=math.inf).max().item())
            total[i] += error.sum().item()
    return [(a, b / flat[0].numel()) for a, b in zip(largest, total)]


def main(record_path, seconds):
    import torch
    from cudnn_fp8 import Fp8Case
    from sdpa_fp8 import Sdpa

    sdpa = Sdpa(record_path)
    all_cases = list(cases())
    print("shape | seeds | max: median, largest | cuDNN FP8's | no larger in | mean | cuDNN FP8's | no larger in")
    for name, sizes, causal in all_cases:
        found = []
        for seed in range(FIRST_SEED, FIRST_SEED + MOST_SEEDS):
            if found and time.monotonic() > end:
                break
            source = torch.Generator("cuda").manual_seed(seed)
            inputs = [torch.randn(*sizes, generator=source, device="cuda").half() for _ in range(3)]
            case = Fp8Case(torch, [inputs], causal, 1.0 / math.sqrt(sizes[3]))
            state = case.backends["fp8"]
            if not state["available"]:
                sys.exit(f"no cuDNN FP8 on {name}: {state['reason']}")
            case.call(0)
            _, codes, factor = case.packs[0]
            ours = sdpa(*inputs, causal=causal)
            torch.cuda.synchronize()
            found.append(errors(torch, inputs, causal, [ours, (codes.float() * factor).half()]))
            if len(found) == 1:  # which loaded kernels and libraries
                end = time.monotonic() + seconds / len(all_cases)
        columns = []
        (own, other) = ([seed[i] for seed in found] for i in range(2))
        for measure, text in ((0, "{:.4f}"), (1, "{:.6f}")):
            values = [[error[measure] for error in side] for side in (own, other)]
            for side in values:
                middle = statistics.median(side) if measure == 0 else statistics.fmean(side)
                worst = [text.format(max(side))] if measure == 0 else []
                columns.append(", ".join([text.format(middle), *worst]))
            columns.append(f"{sum(a <= b for a, b in zip(*values))} of {len(found)}")
        print(" | ".join([name, str(len(found)), *columns]), flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: seeds.py <exported record>.json [seconds]")
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) == 3 else 120.0)
