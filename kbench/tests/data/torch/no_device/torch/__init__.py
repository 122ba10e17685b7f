"""Stands in for a PyTorch on a machine without a device."""

import warnings

__version__ = "2.11.0+cu130"


class version:
    cuda = "13.0"


class cuda:
    @staticmethod
    def is_available():
        warnings.warn("CUDA initialization: no NVIDIA driver\non your system")
        return False
