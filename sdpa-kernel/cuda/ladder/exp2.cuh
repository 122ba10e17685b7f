// Purpose: 2^x, on one of two units.
// Responsible for: 2^(-inf) = 0 or too small to matter, and a relative error far below the rounding of P to a half.
// Leaves to others: the argument: log2(e) is folded into it (softmax.cuh).
#pragma once

#include <cstdint>

#include "ladder/params.h"
#include "ladder/ptx/math.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <uint32_t kRequested>
struct Exp2 {
  static_assert(kUnsupported<kRequested>, "SDPA_EXP: 0 (MUFU) or 1 (polynomial)");
};

// One instruction on the special function unit, which serves a quarter of the lanes that the FMA units serve.
template <>
struct Exp2<kExpMufu> {
  static constexpr uint32_t kKind = kExpMufu;
  static __device__ __forceinline__ float apply(float x) { return ptx::ex2_approx_ftz(x); }
};

// 2^x = 2^n * 2^f with n the nearest integer: a cubic for 2^f on [-1/2, 1/2] (minimax, relative error 7.5e-5), and n
// added to the exponent field. Nine instructions on the FMA and integer units.
template <>
struct Exp2<kExpPolynomial> {
  static constexpr uint32_t kKind = kExpPolynomial;

  static __device__ __forceinline__ float apply(float x) {
    // The least exponent of a normal float, so that the result stays one. As a half it is 0, and as alpha it meets an O
    // and a sum that are 0 or about to be dwarfed.
    constexpr float kLeast = -126.0f;
    // Adding it leaves no fraction bits: rounds to the nearest integer, which then stands in the low mantissa bits.
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
    x = fmaxf(x, kLeast);
    const float shifted = x + kRound;
    const float f = x - (shifted - kRound);
    float power = fmaf(f, 0.055172f, 0.242611f);
    power = fmaf(f, power, 0.693261f);
    power = fmaf(f, power, 0.999928f);
    return __int_as_float(__float_as_int(power) + (__float_as_int(shifted) << 23));
  }
};

}  // namespace sdpa
