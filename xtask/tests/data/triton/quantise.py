"""Rows as 8-bit integers with a scale each, in the arithmetic of f32, which decides what is rounded up."""

import numpy as np


def reference(x):
    x = x.astype(np.float32)
    scales = np.abs(x).max(axis=-1) / np.float32(127)
    q = np.floor(x / scales[:, None] + np.float32(0.5))
    return {"q": q.astype(np.int8), "scales": scales}
