// Purpose: e4m3 codes to halves, sixteen at a time.
// Responsible for: the register conversion and the two wide stores.
// Leaves to others: scales. They are constant over a head, so they are folded into the softmax and the epilogue.
#pragma once

#include <cstdint>

#include "common/ptx/convert.cuh"

namespace sdpa {

// Four codes become two registers of two halves.
__device__ __forceinline__ uint2 dequantise_word(uint32_t codes) {
  return make_uint2(ptx::cvt_f16x2_e4m3x2(static_cast<uint16_t>(codes)),
                    ptx::cvt_f16x2_e4m3x2(static_cast<uint16_t>(codes >> 16)));
}

// Sixteen codes become two chunks of eight halves, each 16-byte aligned.
__device__ __forceinline__ void store_dequantised(__half* first, __half* second, uint4 codes) {
  const uint2 a = dequantise_word(codes.x);
  const uint2 b = dequantise_word(codes.y);
  const uint2 c = dequantise_word(codes.z);
  const uint2 d = dequantise_word(codes.w);
  *reinterpret_cast<uint4*>(first) = make_uint4(a.x, a.y, b.x, b.y);
  *reinterpret_cast<uint4*>(second) = make_uint4(c.x, c.y, d.x, d.y);
}

}  // namespace sdpa
