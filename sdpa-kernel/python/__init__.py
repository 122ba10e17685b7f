"""The FP8 attention kernel of the project for PyTorch on Hopper, ready to call:

    from kernel_gate import HOPPER
    from kernel_gate.sdpa_fp8 import Sdpa

    sdpa = Sdpa(HOPPER)
    out = sdpa(q, k, v, causal=True)    # FP16 [B, H, S, D], D = 64 or 128

The judge is a program of its own: `kernel-gate --help`.
"""

import pathlib

# The launch record of the cubin beside it.
HOPPER = pathlib.Path(__file__).with_name("hopper-sm_90a.json")
