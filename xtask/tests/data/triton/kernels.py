"""Kernels in Triton, as people write them, and what goes wrong with them. Leaves to others: how each is launched, which the
gate files beside it say, and what is right, which the references say."""

import triton
import triton.language as tl


@triton.jit
def softmax(x, y, cols, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * cols
    at = tl.arange(0, BLOCK)
    values = tl.load(x + row + at, mask=at < cols, other=-float("inf")).to(tl.float32)
    powers = tl.exp(values - tl.max(values, axis=0))
    tl.store(y + row + at, (powers / tl.sum(powers, axis=0)).to(tl.float16), mask=at < cols)


@triton.jit
def softmax_unmasked(x, y, cols, BLOCK: tl.constexpr):
    """Without the mask on the tail."""
    row = tl.program_id(0).to(tl.int64) * cols
    at = tl.arange(0, BLOCK)
    values = tl.load(x + row + at).to(tl.float32)
    powers = tl.exp(values - tl.max(values, axis=0))
    tl.store(y + row + at, (powers / tl.sum(powers, axis=0)).to(tl.float16))


@triton.jit
def layernorm(x, weight, bias, y, mean, rstd, cols, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    x += row * cols
    y += row * cols
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, cols, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(x + at, mask=at < cols, other=0.0).to(tl.float32)
    average = tl.sum(total, axis=0) / cols
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, cols, BLOCK):
        at = start + tl.arange(0, BLOCK)
        values = tl.load(x + at, mask=at < cols, other=0.0).to(tl.float32)
        squares += tl.where(at < cols, (values - average) * (values - average), 0.0)
    scale = tl.rsqrt(tl.sum(squares, axis=0) / cols + eps)
    tl.store(mean + row, average)
    tl.store(rstd + row, scale)
    for start in range(0, cols, BLOCK):
        at = start + tl.arange(0, BLOCK)
        values = tl.load(x + at, mask=at < cols, other=0.0).to(tl.float32)
        w = tl.load(weight + at, mask=at < cols, other=0.0).to(tl.float32)
        b = tl.load(bias + at, mask=at < cols, other=0.0).to(tl.float32)
        tl.store(y + at, ((values - average) * scale * w + b).to(tl.float16), mask=at < cols)


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, MASK_K: tl.constexpr):
    program, tiles_m, tiles_n = tl.program_id(0), tl.cdiv(M, BM), tl.cdiv(N, BN)
    group = program // (GROUP * tiles_n)
    first = group * GROUP
    height = min(tiles_m - first, GROUP)
    tile_m = first + (program % (GROUP * tiles_n)) % height
    tile_n = (program % (GROUP * tiles_n)) // height
    rows = tile_m * BM + tl.arange(0, BM)
    cols = tile_n * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    left = a + rows[:, None] * K + depth[None, :]
    right = b + depth[:, None] * N + cols[None, :]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        inside_a, inside_b = rows[:, None] < M, cols[None, :] < N
        if MASK_K:
            inside_a = inside_a & (start + depth[None, :] < K)
            inside_b = inside_b & (start + depth[:, None] < K)
        total = tl.dot(tl.load(left, mask=inside_a, other=0.0), tl.load(right, mask=inside_b, other=0.0), total)
        left += BK
        right += BK * N
    inside = (rows[:, None] < M) & (cols[None, :] < N)
    tl.store(c + rows[:, None] * N + cols[None, :], total.to(tl.float16), mask=inside)


@triton.jit
def attention(q, k, v, o, scale, seq, D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr):
    head = tl.program_id(1).to(tl.int64) * seq * D
    rows, dims = tl.program_id(0) * BQ + tl.arange(0, BQ), tl.arange(0, D)
    inside = rows[:, None] < seq
    query = tl.load(q + head + rows[:, None] * D + dims[None, :], mask=inside, other=0.0)
    largest = tl.full([BQ], -float("inf"), dtype=tl.float32)
    weight = tl.zeros([BQ], dtype=tl.float32)
    total = tl.zeros([BQ, D], dtype=tl.float32)
    end = min(seq, (tl.program_id(0) + 1) * BQ)
    for start in range(0, end, BK):
        keys = start + tl.arange(0, BK)
        key = tl.load(k + head + keys[None, :] * D + dims[:, None], mask=keys[None, :] < seq, other=0.0)
        scores = tl.dot(query, key) * (scale * 1.4426950408889634)
        scores = tl.where((rows[:, None] >= keys[None, :]) & (keys[None, :] < seq), scores, -float("inf"))
        above = tl.maximum(largest, tl.max(scores, axis=1))
        powers = tl.exp2(scores - above[:, None])
        shrink = tl.exp2(largest - above)
        value = tl.load(v + head + keys[:, None] * D + dims[None, :], mask=keys[:, None] < seq, other=0.0)
        total = tl.dot(powers.to(tl.float16), value, total * shrink[:, None])
        weight = weight * shrink + tl.sum(powers, axis=1)
        largest = above
    out = (total / weight[:, None]).to(tl.float16)
    tl.store(o + head + rows[:, None] * D + dims[None, :], out, mask=inside)


@triton.jit
def dropout(x, y, n, p, seed, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at, mask=at < n, other=0.0)
    keep = tl.rand(seed, at) > p
    tl.store(y + at, tl.where(keep, values / (1 - p), 0.0), mask=at < n)


@triton.jit
def sort(x, y, cols, BLOCK: tl.constexpr):
    row, at = tl.program_id(0) * cols, tl.arange(0, BLOCK)
    values = tl.load(x + row + at, mask=at < cols, other=float("inf"))
    tl.store(y + row + at, tl.sort(values), mask=at < cols)


@triton.jit
def cumsum(x, y, cols, BLOCK: tl.constexpr):
    row, at = tl.program_id(0) * cols, tl.arange(0, BLOCK)
    values = tl.load(x + row + at, mask=at < cols, other=0.0)
    tl.store(y + row + at, tl.cumsum(values, axis=0), mask=at < cols)


@triton.jit
def histogram(x, counts, n, BLOCK: tl.constexpr, BINS: tl.constexpr):
    total = tl.zeros([BINS], dtype=tl.int32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.histogram(tl.load(x + at, mask=at < n, other=0), BINS, mask=at < n)
    tl.store(counts + tl.arange(0, BINS), total)


@triton.jit
def histogram_racing(x, counts, n, BLOCK: tl.constexpr, BINS: tl.constexpr):
    """A program for each block, all of which add to the same counts, without atomics."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    own = tl.histogram(tl.load(x + at, mask=at < n, other=0), BINS, mask=at < n)
    bins = tl.arange(0, BINS)
    before = tl.load(counts + bins, mask=bins + BINS * tl.program_id(0) >= BINS, other=0)
    tl.store(counts + bins, before + own)


@triton.jit
def quantise(x, q, scales, cols, BLOCK: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    values = tl.load(x + row * cols + at, mask=at < cols, other=0.0)
    scale = tl.div_rn(tl.max(tl.abs(values), axis=0), 127.0)
    tl.store(scales + row, scale)
    nearest = tl.floor(tl.div_rn(values, scale) + 0.5)
    tl.store(q + row * cols + at, nearest.to(tl.int8), mask=at < cols)


@triton.jit
def grouped(a, b, sizes, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Of each group only as many rows as its size says; the others are zero."""
    group = tl.program_id(2)
    size = tl.load(sizes + group)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    cols = tl.program_id(1) * BN + tl.arange(0, BN)
    a += group.to(tl.int64) * M * K
    b += group.to(tl.int64) * K * N
    c += group.to(tl.int64) * M * N
    total = tl.zeros((BM, BN), dtype=tl.float32)
    if tl.program_id(0) * BM < size:
        for start in range(0, K, BK):
            depth = start + tl.arange(0, BK)
            left = tl.load(a + rows[:, None] * K + depth[None, :], mask=(rows[:, None] < size) & (depth[None, :] < K), other=0.0)
            right = tl.load(b + depth[:, None] * N + cols[None, :], mask=(depth[:, None] < K) & (cols[None, :] < N), other=0.0)
            total = tl.dot(left, right, total)
    tl.store(c + rows[:, None] * N + cols[None, :], total.to(tl.float16), mask=(rows[:, None] < M) & (cols[None, :] < N))
