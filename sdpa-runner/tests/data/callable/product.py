"""The product, in float64. Leaves to others: drawing x and w, and comparing."""


def reference(x, w):
    return x * w
