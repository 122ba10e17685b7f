"""Lengths of the sequences, `seq` and `least` among them, and a scale for each KV head. Leaves to others: q and the cache, which
are drawn by distribution."""

import numpy as np


def inputs(axes, seed):
    random = np.random.default_rng([seed, 1])
    lengths = random.integers(axes["least"], axes["seq"] + 1, axes["batch"])
    lengths[0] = axes["seq"]
    lengths[-1] = axes["least"] if axes["batch"] > 1 else axes["seq"]
    scales = {
        name: random.uniform(0.5, 2.0, (axes["batch"], axes["kv_heads"])).astype(np.float32)
        for name in ("k_scale", "v_scale")
    }
    return {"lengths": lengths.astype(np.int32), **scales}
