"""Layer normalisation, with the statistics of each row."""

import numpy as np


def reference(x, weight, bias, eps):
    mean = x.mean(axis=-1)
    rstd = 1 / np.sqrt(x.var(axis=-1) + eps)
    y = (x - mean[:, None]) * rstd[:, None] * weight + bias
    return {"y": y, "mean": mean, "rstd": rstd}
