// Softmax over FP32 scores, in place in the accumulator registers of one warpgroup tile (64 rows x kKeys). The accurate
// form: the reference is always the row's latest maximum; one FFMA and one special-function exponential a score.
//
// Probabilities are 2^y with y = c*(S - m) + 8: the largest is 256, which e4m3 holds exactly, and those down to 2^-17
// of it are not lost. The offset cancels in O / l because the row sum l carries it too.
#pragma once

#include <cstdint>

#include "hopper/fragment.cuh"
#include "hopper/params.h"
#include "hopper/ptx/arithmetic.cuh"

namespace sdpa::hopper {

template <int kKeys_>
class ScoresF32 {
 public:
  static constexpr int kKeys = kKeys_;
  static constexpr int kRegisters = kKeys / 2;
  static constexpr int kColumnGroups = kKeys / 16;
  using Fragment = float[kRegisters];
  using Probabilities = uint32_t[kRegisters / 4];
  using Maxima = RowPair;

  // Not zero, so that masked scores (-inf) never meet a zero factor.
  __device__ explicit ScoresF32(float logit_scale) : logit_scale_(fmaxf(logit_scale, 0x1p-100f)) {
    row_max_.value[0] = row_max_.value[1] = kLowestScore;
  }

  __device__ static bool serves(float /*logit_scale*/) { return true; }

  // Overwrites columns at or beyond the row's limit with -inf. `limit` counts from this lane's first column.
  __device__ static void mask(Fragment& scores, const int (&limit)[2]) {
#pragma unroll
    for (int i = 0; i < kRegisters; ++i) {
      const int column = i / 4 * 8 + i % 2;
      if (column >= limit[i / 2 % 2]) scores[i] = -INFINITY;
    }
  }

  // Over this lane's columns.
  __device__ static Maxima largest(const Fragment& scores) {
    Maxima largest = {fmaxf(scores[0], scores[1]), fmaxf(scores[2], scores[3])};
#pragma unroll
    for (int i = 4; i < kRegisters; i += 2) {
      float& row = largest.value[i / 2 % 2];
      row = fmaxf(row, fmaxf(scores[i], scores[i + 1]));
    }
    return largest;
  }

  __device__ static bool must_move_reference(const Maxima&) { return true; }

  // To the row's latest maximum. Returns the factor for what was accumulated before.
  __device__ RowPair move_reference(const Maxima& largest) {
    RowPair rescale;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float row_max = largest.value[h];
      row_max = fmaxf(row_max, __shfl_xor_sync(0xffffffffu, row_max, 1));
      row_max = fmaxf(row_max, __shfl_xor_sync(0xffffffffu, row_max, 2));
      row_max = fmaxf(row_max, row_max_.value[h]);
      rescale.value[h] = ptx::exp2_approx(logit_scale_ * (row_max_.value[h] - row_max));
      row_max_.value[h] = row_max;
    }
    return rescale;
  }

  __device__ void encode(Fragment& scores) const { exponentiate(scores); }

  // Probabilities in place of the scores.
  __device__ void exponentiate(Fragment& scores) const {
    const float bias[2] = {log2_bias(0), log2_bias(1)};
#pragma unroll
    for (int i = 0; i < kRegisters; ++i) scores[i] = ptx::exp2_approx(fmaf(scores[i], logit_scale_, bias[i / 2 % 2]));
  }

  __device__ static void pack(const Fragment& scores, Probabilities& p) {
#pragma unroll
    for (int group = 0; group < kColumnGroups; ++group) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float* left = scores + 8 * group + 2 * h;
        p[2 * group + h] = ptx::cvt_e4m3x4(left[0], left[1], left[4], left[5]);
      }
    }
  }

  // Moves what e4m3 holds of the probabilities to `p` and leaves the remainders.
  __device__ static void extract(Fragment& scores, Probabilities& p) {
    pack(scores, p);
#pragma unroll
    for (int i = 0; i < kRegisters / 4; ++i) {
      float* left = scores + i / 2 * 8 + i % 2 * 2;
      const uint32_t low = ptx::unpack_low_e4m3x2(p[i]);
      const uint32_t high = ptx::unpack_high_e4m3x2(p[i]);
      left[0] -= ptx::low_half_to_float(low);
      left[1] -= ptx::high_half_to_float(low);
      left[4] -= ptx::low_half_to_float(high);
      left[5] -= ptx::high_half_to_float(high);
    }
  }

  // log2 of what the accumulated sums are relative to: sum = true sum * 2^log2_bias.
  __device__ float log2_bias(int h) const { return fmaf(-logit_scale_, row_max_.value[h], kOffset); }

 private:
  static constexpr float kOffset = 8.0f;
  // Below any score (D * 448^2 at most), and finite: -inf minus -inf would be NaN.
  static constexpr float kLowestScore = -1e8f;

  float logit_scale_;
  RowPair row_max_;
};

}  // namespace sdpa::hopper
