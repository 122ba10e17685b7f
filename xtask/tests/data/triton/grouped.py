"""The products of groups, each with as many rows of its left matrix as its size says."""

import numpy as np


def reference(a, b, sizes):
    c = a @ b
    for group, size in enumerate(sizes):
        c[group, size:] = 0
    return c
