// Purpose: conversions between number formats that CUDA C++ has no operator for.
// Responsible for: one wrapper per instruction.
// Leaves to others: scales, which are applied in FP32 elsewhere.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace sdpa::ptx {

// Two e4m3 codes (low byte first) to two halves. Exact: every e4m3 value, subnormals included, is a normal half.
__device__ __forceinline__ uint32_t cvt_f16x2_e4m3x2(uint16_t codes) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(codes));
  return halves;
}

// Four e4m3 codes, the first argument lowest; magnitudes above 448 saturate.
__device__ __forceinline__ uint32_t cvt_e4m3x4(float x0, float x1, float x2, float x3) {
  uint32_t codes;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n"
      "}\n"
      : "=r"(codes)
      : "f"(x0), "f"(x1), "f"(x2), "f"(x3));
  return codes;
}

}  // namespace sdpa::ptx
