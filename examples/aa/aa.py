"""Softmax of each row, in float64. Leaves to others: drawing x, and comparing."""

import numpy as np


def reference(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
