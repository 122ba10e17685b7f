"""How often each number stands there."""

import numpy as np


def reference(x, bins):
    return np.bincount(x, minlength=bins).astype(np.int32)
