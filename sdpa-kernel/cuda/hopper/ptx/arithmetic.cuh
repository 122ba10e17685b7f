// Arithmetic that CUDA C++ has no exact spelling for: packed halves as plain 32-bit registers (wgmma delivers and takes
// them so), approximate exponentials, conversions, byte permutation.
#pragma once

#include <cstdint>

#include "common/ptx/convert.cuh"

namespace sdpa::hopper::ptx {

using sdpa::ptx::cvt_e4m3x4;

// `.ftz` matters: without it the compiler adds a compare and two multiplies against subnormal results.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t max_half2(uint32_t a, uint32_t b) {
  uint32_t y;
  asm("max.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}

__device__ __forceinline__ uint32_t negate_half2(uint32_t x) {
  uint32_t y;
  asm("neg.f16x2 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

__device__ __forceinline__ uint32_t min_half2(uint32_t a, uint32_t b) {
  uint32_t y;
  asm("min.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}

__device__ __forceinline__ uint32_t add_half2(uint32_t a, uint32_t b) {
  uint32_t y;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}

__device__ __forceinline__ uint32_t multiply_half2(uint32_t a, uint32_t b) {
  uint32_t y;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}

// max(0, a * b + c): the clamp is free, and leaves the ALU pipe, which max would take, to others.
__device__ __forceinline__ uint32_t multiply_add_relu_half2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t y;
  asm("fma.rn.relu.f16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(c));
  return y;
}

__device__ __forceinline__ uint32_t subtract_half2(uint32_t a, uint32_t b) {
  uint32_t y;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}

__device__ __forceinline__ uint32_t multiply_add_half2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t y;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(c));
  return y;
}

// Both halves of the result hold `x`.
__device__ __forceinline__ uint32_t broadcast_half2(float x) {
  uint32_t y;
  asm("cvt.rn.f16x2.f32 %0, %1, %1;" : "=r"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float half_to_float(uint16_t x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}

__device__ __forceinline__ float low_half_to_float(uint32_t x) { return half_to_float(static_cast<uint16_t>(x)); }

__device__ __forceinline__ float high_half_to_float(uint32_t x) {
  return half_to_float(static_cast<uint16_t>(x >> 16));
}

__device__ __forceinline__ uint16_t float_to_half_round_down(float x) {
  uint16_t y;
  asm("cvt.rm.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}

// `low` becomes the low half.
__device__ __forceinline__ uint32_t pack_half2(float low, float high) {
  uint32_t y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

__device__ __forceinline__ uint32_t pack_halves(uint16_t low, uint16_t high) {
  uint32_t y;
  asm("mov.b32 %0, {%1, %2};" : "=r"(y) : "h"(low), "h"(high));
  return y;
}

template <uint32_t kSelector>
__device__ __forceinline__ uint32_t permute_bytes(uint32_t a, uint32_t b) {
  uint32_t y;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "n"(kSelector));
  return y;
}

// The two low, or the two high, of four e4m3 bytes as halves.
__device__ __forceinline__ uint32_t unpack_low_e4m3x2(uint32_t x) {
  uint32_t y;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.rn.f16x2.e4m3x2 %0, low;\n}\n" : "=r"(y) : "r"(x));
  return y;
}

__device__ __forceinline__ uint32_t unpack_high_e4m3x2(uint32_t x) {
  uint32_t y;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.rn.f16x2.e4m3x2 %0, high;\n}\n" : "=r"(y) : "r"(x));
  return y;
}

}  // namespace sdpa::hopper::ptx
