"""Attention of one query row a sequence, in float64 on the values that the cache stands for. Leaves to others: lengths and scales,
which inputs.py draws, and comparing."""

import numpy as np


def reference(q, k, v, k_scale, v_scale, lengths, softmax_scale):
    batch, kv_heads, _, d = k.shape
    rows = q.reshape(batch, kv_heads, -1, d)
    out = np.zeros(rows.shape)
    lse = np.full(rows.shape[:3], -np.inf)
    for b, keys in enumerate(lengths):
        if keys == 0:  # an empty sum, and the logarithm of one
            continue
        scores = rows[b] @ k[b, :, :keys].transpose(0, 2, 1) * (softmax_scale * k_scale[b][:, None, None])
        largest = scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores - largest)
        total = weights.sum(axis=-1, keepdims=True)
        out[b] = weights @ v[b, :, :keys] / total * v_scale[b][:, None, None]
        lse[b] = (largest + np.log(total))[..., 0]
    return {"out": out.reshape(q.shape), "lse": lse.reshape(q.shape[:2])}
