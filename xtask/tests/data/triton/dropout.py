"""Whether each element is dropped or scaled, and about as many are dropped as should be."""

import numpy as np


def check(inputs, outputs, axes, p):
    x, y = inputs["x"], outputs["y"]
    scaled = np.isclose(y, x / (1 - p), rtol=1e-5, atol=1e-7)
    dropped = y == 0
    return {"wrong": int((~scaled & ~dropped).sum()), "share_off": float(abs(dropped.mean() - p))}
