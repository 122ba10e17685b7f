"""RMSNorm of each row in Triton: one program a row, which it holds as a whole. Leaves to others: launching it."""

import triton
import triton.language as tl


@triton.jit
def rmsnorm(x, weight, y, cols, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * cols
    at = tl.arange(0, BLOCK)
    inside = at < cols
    values = tl.load(x + row + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values) / cols + eps)
    weights = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row + at, (values * scale * weights).to(tl.float16), mask=inside)
