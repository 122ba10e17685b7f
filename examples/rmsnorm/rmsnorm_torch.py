"""RMSNorm of each row by PyTorch: a function on tensors, which launches for itself. Leaves to others: calling it."""

import torch


def rmsnorm(x, weight, y, eps):
    values = x.float()
    scale = torch.rsqrt(values.square().mean(-1, keepdim=True) + eps)
    torch.mul(values * scale, weight, out=y)
