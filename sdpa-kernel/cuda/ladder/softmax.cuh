// Purpose: the online softmax: running maximum and sum of a query row, and P in the format that P V consumes.
// Responsible for: numerics. The scale is folded with log2(e) into one factor, so a probability costs one FFMA and one
// exponential; the maximum stays finite, so no comparison guards against -inf minus -inf.
// Leaves to others: applying alpha to O (pv.cuh), dividing by the sum (epilogue.cuh), barriers.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "ladder/exp2.cuh"
#include "ladder/mask.cuh"
#include "ladder/params.h"
#include "ladder/score_tile.cuh"
#include "ladder/shared_tile.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <uint32_t kRequested>
struct Probability {
  static_assert(kUnsupported<kRequested>, "SDPA_P_FORMAT: 0 (f16) or, with SDPA_MATH=2, 1 (e4m3)");
};

template <>
struct Probability<kPFormatF16> {
  static constexpr uint32_t kFormat = kPFormatF16;
  using Element = __half;
  using Pair = __half2;
  // P is 2^kBits times the probability relative to the row's maximum. The factor cancels in O / sum; it keeps what is
  // 2^-22 of the maximum a normal half, where many small probabilities outweigh the largest.
  static constexpr float kBits = 8.0f;

  static __device__ __forceinline__ Pair round(float2 p) { return __float22half2_rn(p); }
  static __device__ __forceinline__ float2 widen(Pair p) { return __half22float2(p); }
};

// Below every possible score: |q . k| <= 128 * 448 * 448 = 2.6e7. Being finite, it makes 2^(-inf - maximum) = 0 without
// a test, and a row that has seen no key keeps sum 0.
constexpr float kLowestMaximum = -1.0e9f;

constexpr float kLog2E = 1.4426950408889634f;

// Scores are in units of e4m3 products; this factor brings them to log2 units. It must stay positive, so that the
// largest score is the largest probability and -inf times it is -inf: a scale of zero becomes a tiny factor.
__device__ __forceinline__ float fold_scales(const Params& p, int head) {
  constexpr float kLeast = 1.0e-37f;
  return fmaxf(p.softmax_scale * p.q_scale[head] * p.k_scale[head] * kLog2E, kLeast);
}

template <uint32_t kRequested, class Traits>
struct Softmax {
  static_assert(kUnsupported<kRequested>, "SDPA_SOFTMAX: 0 (shared), 1 (P over S), 2 (registers) or 3 (a warp per row)");
};

// Where S and P of a query tile lie: side by side.
template <class Traits>
struct SeparateScores {
  // Padded like a half tile, for the same access patterns.
  using ProbabilityTile = SharedTile<Traits::Toggles::kSwizzle, __half, Traits::kTileQ, Traits::kTileK, 8>;
  static constexpr bool kAliased = false;

  ScoreTile<Traits> scores;       // (kTileQ, kTileK)
  ProbabilityTile probabilities;  // (kTileQ, kTileK)
};

// P over S: a row of halves takes the first half of its own row of floats.
template <class Traits>
struct AliasedScores {
  using ProbabilityTile = SharedTile<Traits::Toggles::kSwizzle, __half, Traits::kTileQ, Traits::kTileK,
                                     2 * ScoreTile<Traits>::kStride - Traits::kTileK>;
  static constexpr bool kAliased = true;
  static_assert(sizeof(ProbabilityTile) == sizeof(ScoreTile<Traits>), "row r of P begins where row r of S begins");
  // Only the barrier per tile of the kernel without producers ensures it.
  static_assert(Traits::kProducerWarps == 0,
                "SDPA_SOFTMAX=1: S of the next tile overwrites P, so no warp may still be in P V");

  union {
    ScoreTile<Traits> scores;
    ProbabilityTile probabilities;
  };
};

// Scores come from shared memory and P goes there. kLanesPerRow neighbouring lanes share a row; each owns pairs of
// keys, 2 * kLanesPerRow apart, so that the lanes of a row touch consecutive banks.
template <class Traits, class Storage>
struct SharedSoftmax {
  static_assert(Traits::Toggles::kSwizzle == 0,
                "SDPA_SWIZZLE=1: scores in shared memory are read along a row; use SDPA_SOFTMAX=2");
  static constexpr int kPairs = Traits::kTileK / (2 * Traits::kLanesPerRow);

  using Exponential = Exp2<Traits::Toggles::kExp>;
  using P = Probability<Traits::Toggles::kPFormat>;
  using SharedStorage = Storage;
  using ProbabilityTile = typename Storage::ProbabilityTile;

  float factor;                    // from a score to log2 units
  float maximum = kLowestMaximum;  // of the row, in score units; equal in all lanes of the row
  float sum = 0.0f;                // of this lane's rounded P: of what P V adds up, so that a constant V stays constant

  __device__ __forceinline__ explicit SharedSoftmax(float folded_scales) : factor(folded_scales) {}

  // One row of a tile: reads `scores`, writes `probabilities`, returns alpha, the factor that brings earlier O to the
  // new maximum. All 32 lanes of the warp take part.
  __device__ __forceinline__ float step(typename P::Element* probabilities, const float* scores,
                                        const Mask<Traits>& mask, int first_key) {
    float2 s[kPairs];  // (pairs of keys)
#pragma unroll
    for (int i = 0; i < kPairs; ++i) s[i] = *reinterpret_cast<const float2*>(scores + key_of(i));
    if (mask.crosses(first_key)) {
      const int limit = mask.row_limit - first_key;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        if (key_of(i) >= limit) s[i].x = -INFINITY;
        if (key_of(i) + 1 >= limit) s[i].y = -INFINITY;
      }
    }

    // Includes shuffles that wait for all lanes of a row, but orders no memory.
    const float alpha = raise_maximum(s);
    if constexpr (Storage::kAliased) __syncwarp();  // every lane has read its scores before one is overwritten
    const float bias = P::kBits - factor * maximum;
    sum *= alpha;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const auto p = P::round(make_float2(Exponential::apply(fmaf(s[i].x, factor, bias)),
                                          Exponential::apply(fmaf(s[i].y, factor, bias))));
      *reinterpret_cast<typename P::Pair*>(probabilities + key_of(i)) = p;
      const float2 rounded = P::widen(p);
      sum += rounded.x + rounded.y;
    }
    return alpha;
  }

  // The sum over the row, in all its lanes.
  __device__ __forceinline__ float row_sum() const {
    float total = sum;
#pragma unroll
    for (int distance = 1; distance < Traits::kLanesPerRow; distance *= 2) {
      total += __shfl_xor_sync(0xffffffffu, total, distance);
    }
    return total;
  }

 private:
  static __device__ __forceinline__ int key_of(int pair) {
    return 2 * (threadIdx.x % Traits::kLanesPerRow + pair * Traits::kLanesPerRow);
  }

  __device__ __forceinline__ float raise_maximum(const float2 (&s)[kPairs]) {
    float raised = maximum;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) raised = fmaxf(raised, fmaxf(s[i].x, s[i].y));
#pragma unroll
    for (int distance = 1; distance < Traits::kLanesPerRow; distance *= 2) {
      raised = fmaxf(raised, __shfl_xor_sync(0xffffffffu, raised, distance));
    }
    const float alpha = Exponential::apply(factor * (maximum - raised));
    maximum = raised;
    return alpha;
  }
};

template <class Traits>
struct Softmax<kSoftmaxShared, Traits> : SharedSoftmax<Traits, SeparateScores<Traits>> {
  static constexpr uint32_t kPlace = kSoftmaxShared;
  using SharedSoftmax<Traits, SeparateScores<Traits>>::SharedSoftmax;
};

template <class Traits>
struct Softmax<kSoftmaxSharedAlias, Traits> : SharedSoftmax<Traits, AliasedScores<Traits>> {
  static constexpr uint32_t kPlace = kSoftmaxSharedAlias;
  using SharedSoftmax<Traits, AliasedScores<Traits>>::SharedSoftmax;
};

}  // namespace sdpa
