// A rotation of Q's and K's rows before they become e4m3: signs, then Hadamard's matrix over each 64 channels. It
// leaves every product q . k as it is and spreads what is large in few channels over 64 of them, so that neither they
// nor single outliers decide what rounding costs.
//
// In FP16: six additions, each rounded by 2^-12 of the value on average, cost a thousandth of what rounding to e4m3
// does, and every addition is that of two halves, which a CPU repeats bit for bit.
#pragma once

#include <cstdint>

#include "hopper/image.cuh"
#include "hopper/ptx/arithmetic.cuh"

namespace sdpa::hopper {

// Values are scaled by a power of two first: the sum of a row's magnitudes may reach 2^21 and stay finite, and halves
// lose nothing above 2^-9. The transform multiplies by 8, the root of 64, which is not divided out but kept in the
// scale.
constexpr float kRotationScale = 0x1p-5f;
constexpr float kRotationNorm = 1.0f / (kRotationScale * 8.0f);

// Rotates 64 channels of a row, of which each of four neighbouring lanes holds a chunk.
//
// Channel d is negative where an odd number of the pairs of bits (0, 1), (2, 3), (4, 5) of d are both set. Without
// signs, what is alike in all channels would be one large number afterwards; a quadratic form of the bits spreads it
// evenly.
__device__ __forceinline__ void rotate_row(uint32_t (&pairs)[kChunkBytes / 2], int chunk) {
  constexpr int kPairs = kChunkBytes / 2;
  const float of_chunk = (chunk & 3) == 3 ? -kRotationScale : kRotationScale;
  const uint32_t alike = ptx::broadcast_half2(of_chunk);
  const uint32_t unlike = ptx::pack_half2(of_chunk, -of_chunk);
  const uint32_t plus_minus = ptx::pack_half2(1.0f, -1.0f);
#pragma unroll
  for (int w = 0; w < kPairs; ++w) {
    uint32_t x = ptx::multiply_half2(pairs[w], w & 1 ? unlike : alike);
    if ((w & 6) == 6) x = ptx::negate_half2(x);
    pairs[w] = ptx::multiply_add_half2(x, plus_minus, ptx::permute_bytes<0x1032>(x, x));
  }
#pragma unroll
  for (int step = 1; step < kPairs; step *= 2) {
#pragma unroll
    for (int w = 0; w < kPairs; ++w) {
      if (w & step) continue;
      const uint32_t a = pairs[w];
      const uint32_t b = pairs[w + step];
      pairs[w] = ptx::add_half2(a, b);
      pairs[w + step] = ptx::subtract_half2(a, b);
    }
  }
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    const uint32_t sign = ptx::broadcast_half2(chunk & step ? -1.0f : 1.0f);
#pragma unroll
    for (int w = 0; w < kPairs; ++w) {
      pairs[w] = ptx::multiply_add_half2(pairs[w], sign, __shfl_xor_sync(0xffffffffu, pairs[w], step));
    }
  }
}

}  // namespace sdpa::hopper
