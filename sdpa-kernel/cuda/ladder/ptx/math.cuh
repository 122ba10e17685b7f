// Purpose: approximate arithmetic in one instruction.
// Responsible for: one wrapper per instruction.
// Leaves to others: ranges, and whether the accuracy (2 ulp) is enough.
#pragma once

namespace sdpa::ptx {

// 2^x, with 2^(-inf) = +0. Without .ftz ptxas adds a compare and two multiplies per call to serve subnormals.
__device__ __forceinline__ float ex2_approx_ftz(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace sdpa::ptx
