"""The product of two matrices, in float64. Leaves to others: drawing a and b, and comparing."""


def reference(a, b):
    return a @ b
