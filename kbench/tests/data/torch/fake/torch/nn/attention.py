"""See the package above."""

import contextlib
import enum

import torch

SDPBackend = enum.Enum("SDPBackend", "FLASH_ATTENTION CUDNN_ATTENTION EFFICIENT_ATTENTION MATH")


@contextlib.contextmanager
def sdpa_kernel(backend):
    torch.forced = backend.name
    try:
        yield
    finally:
        torch.forced = None
