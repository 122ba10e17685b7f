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
  static_assert(kUnsupported<kRequested>, "SDPA_EXP: 0 (MUFU), 1 (rough polynomial) or 2 (polynomial)");
};

// One instruction on the special function unit, which serves a quarter of the lanes that the FMA units serve.
template <>
struct Exp2<kExpMufu> {
  static constexpr uint32_t kKind = kExpMufu;
  static __device__ __forceinline__ float apply(float x) { return ptx::ex2_approx_ftz(x); }
};

// 2^x = 2^n * 2^f with n the nearest integer: a cubic for 2^f on [-1/2, 1/2], and n added to the exponent field. Nine
// instructions on the FMA and integer units.
template <class Cubic>
struct CubicExp2 {
  static __device__ __forceinline__ float apply(float x) {
    // The least exponent of a normal float, so that the result stays one. As a half it is 0, and as alpha it meets an O
    // and a sum that are 0 or about to be dwarfed.
    constexpr float kLeast = -126.0f;
    // Adding it leaves no fraction bits: rounds to the nearest integer, which then stands in the low mantissa bits.
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
    x = fmaxf(x, kLeast);
    const float shifted = x + kRound;
    const float f = x - (shifted - kRound);
    float power = fmaf(f, Cubic::kThird, Cubic::kSecond);
    power = fmaf(f, power, Cubic::kFirst);
    power = fmaf(f, power, Cubic::kAtZero);
    return __int_as_float(__float_as_int(power) + (__float_as_int(shifted) << 23));
  }
};

// 1 at 0, relative error 1.0e-4: O and the sum are multiplied by 2^0 in every tile in which the maximum stays.
struct CubicThroughOne {
  static constexpr float kThird = 0.055008f, kSecond = 0.242211f, kFirst = 0.693283f, kAtZero = 1.0f;
};
template <>
struct Exp2<kExpPolynomial> : CubicExp2<CubicThroughOne> {
  static constexpr uint32_t kKind = kExpPolynomial;
};

// Minimax, relative error 7.5e-5, all of it at 0: of 131 tiles the first weighs 0.9 % less than the last. No variant is
// made of it; it is what GPUs answered with when the emulator's sums were held to theirs bit for bit (xtask golden).
struct MinimaxCubic {
  static constexpr float kThird = 0.055172f, kSecond = 0.242611f, kFirst = 0.693261f, kAtZero = 0.999928f;
};
template <>
struct Exp2<kExpRough> : CubicExp2<MinimaxCubic> {
  static constexpr uint32_t kKind = kExpRough;
};

}  // namespace sdpa
