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

}  // namespace sdpa::ptx
