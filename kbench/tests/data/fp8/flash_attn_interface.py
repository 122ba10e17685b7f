"""Stands in for FlashAttention-3 beside the stand-in for PyTorch: attention copies q and takes as many milliseconds as q's
first byte says. It wants [B, S, H, D] and scales of [B, H], which here are the tensors themselves.
"""

import torch

__version__ = "3.0.0+fake"


def flash_attn_func(q, k, v, softmax_scale, causal, q_descale, k_descale, v_descale):
    if q.shape[3] > 256:
        raise RuntimeError("FlashAttention forward only supports head dimension at most 256")
    torch.spend(q.data[0])
    return q
