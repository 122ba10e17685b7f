// Softmax over the exact products of 8-bit integers, in FP32: the accurate form. Scales of rows of Q and of the tile of
// K turn products into logits. Probabilities are on the scale of scores_f16.cuh: those of most columns by the
// special-function unit, rounded to e4m3, and, because that takes longest, those of the others by their code.
#pragma once

#include <cstdint>

#include "hopper/codes.cuh"
#include "hopper/fragment.cuh"
#include "hopper/params.h"
#include "hopper/ptx/arithmetic.cuh"

namespace sdpa::hopper {

template <int kGroupsByCode>  // of the eight groups of 16 columns
class ScoresAccurate {
 public:
  static constexpr int kKeys = kTileKeys;
  static constexpr int kRegisters = kKeys / 2;
  using Products = int32_t[kRegisters];
  using Fragment = float[kRegisters];
  using Probabilities = uint32_t[kRegisters / 4];

  __device__ ScoresAccurate() { code_bias_.value[0] = code_bias_.value[1] = kLowestBias; }

  // c of row g and of row g+8 in this tile.
  __device__ void set_logit_scales(const RowPair& scales) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      code_scale_.value[h] = 8.0f * scales.value[h];
      tile_bias_.value[h] = fmaf(-kIntegerBase, code_scale_.value[h], code_bias_.value[h]);
    }
  }

  // To kIntegerBase + product: an addition to the bits of a number whose last binary place is one. What it adds goes into
  // the bias. A conversion (I2FP) takes 8 % longer over all at D=64, where the exponentials are the limit, and as long at
  // D=128.
  __device__ static void convert(const Products& products, Fragment& scores) {
#pragma unroll
    for (int i = 0; i < kRegisters; ++i) scores[i] = __int_as_float(products[i] + __float_as_int(kIntegerBase));
  }

  // Overwrites columns of row g or of row g+8 at or beyond its limit with -inf. `limit` counts from this lane's first
  // column.
  template <int kHalf>
  __device__ static void mask(Fragment& scores, int limit) {
#pragma unroll
    for (int i = 2 * kHalf; i < kRegisters; i += i % 2 == 0 ? 1 : 3) {
      const int column = i / 4 * 8 + i % 2;
      if (column >= limit) scores[i] = -INFINITY;
    }
  }

  // Over this lane's columns.
  __device__ static RowPair largest(const Fragment& scores) {
    RowPair largest = {fmaxf(scores[0], scores[1]), fmaxf(scores[2], scores[3])};
#pragma unroll
    for (int i = 4; i < kRegisters; i += 2) {
      float& row = largest.value[i / 2 % 2];
      row = fmaxf(row, fmaxf(scores[i], scores[i + 1]));
    }
    return largest;
  }

  // Whether some lane's largest score lies too far from the reference.
  __device__ bool must_move_reference(const RowPair& largest) const {
    const float code[2] = {code_of(largest.value[0], 0), code_of(largest.value[1], 1)};
    return __any_sync(0xffffffffu, fmaxf(code[0], code[1]) > kReferenceCode + kRoomCodes ||
                                       fminf(code[0], code[1]) < kReferenceCode - kDepthCodes);
  }

  // In row g or in row g+8: to its maximum in this tile, if that is above the reference or far below it. Returns the
  // factor for what was accumulated before.
  __device__ float move_reference(int h, float largest, float row_sum) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    const float code = code_of(largest, h);
    const float code_bias = fmaf(-code_scale_.value[h], largest - kIntegerBase, kReferenceCode);
    const float rescale = ptx::exp2_approx(0.125f * (code_bias - code_bias_.value[h]));
    const float rescaled = first_of_quad(row_sum) * rescale;
    const bool stays = code <= kReferenceCode && code >= kReferenceCode - kDepthCodes;
    const bool sees_keys = largest > -kInfiniteScore;
    if (stays || !sees_keys || !(rescaled < kLargestSum)) return 1.0f;
    code_bias_.value[h] = code_bias;
    tile_bias_.value[h] = fmaf(-kIntegerBase, code_scale_.value[h], code_bias);
    return rescale;
  }

  __device__ void encode(const Fragment& scores, Probabilities& p) const {
    const uint32_t rounder = ptx::broadcast_half2(1024.0f);
    const RowPair scale = {0.125f * code_scale_.value[0], 0.125f * code_scale_.value[1]};
    constexpr float kOffset = kMeanOfMantissa - 0.125f * kCodeOfOne;
    const RowPair bias = {fmaf(0.125f, tile_bias_.value[0], kOffset), fmaf(0.125f, tile_bias_.value[1], kOffset)};
#pragma unroll
    for (int i = 0; i < kRegisters / 4; ++i) {
      const float* left = scores + i / 2 * 8 + i % 2 * 2;
      const int h = i % 2;
      if (i / 2 % 8 < kGroupsByCode) {
        const uint32_t low = ptx::pack_half2_relu(code_of(left[0], h), code_of(left[1], h));
        const uint32_t high = ptx::pack_half2_relu(code_of(left[4], h), code_of(left[5], h));
        p[i] = ptx::permute_bytes<0x6420>(ptx::add_half2(low, rounder), ptx::add_half2(high, rounder));
      } else {
        const auto exponential = [&](float s) { return ptx::exp2_approx(fmaf(s, scale.value[h], bias.value[h])); };
        p[i] = ptx::cvt_e4m3x4(exponential(left[0]), exponential(left[1]), exponential(left[4]), exponential(left[5]));
      }
    }
  }

  // log2 of what the accumulated sums are relative to: sum = true sum * 2^log2_bias.
  __device__ float log2_bias(int h) const { return 0.125f * (code_bias_.value[h] - kCodeOfOne); }

 private:
  // How far a tile's maximum may lie below the reference before that follows it: what the row's other keys add up to, be
  // they ever so many and each far below one that was seen before, then keeps its codes.
  static constexpr float kDepthCodes = 64.0f;
  // Where sums would be larger than this in terms of a lower reference, what follows is nothing beside them.
  static constexpr float kLargestSum = 0x1p80f;
  static constexpr float kIntegerBase = 12582912.0f;  // 1.5 * 2^23
  static constexpr float kInfiniteScore = 1e9f;        // beyond any product, 127^2 * D
  static constexpr float kLowestBias = 1e9f;
  // What a linear mantissa makes of 2^y is larger by this on average, in log2.
  static constexpr float kMeanOfMantissa = kGroupsByCode > 0 ? 0.057f : 0.0f;

  // Before rounding.
  __device__ float code_of(float score, int h) const {
    return fmaf(score, code_scale_.value[h], tile_bias_.value[h]);
  }

  RowPair code_scale_;  // 8c
  RowPair code_bias_;   // d
  RowPair tile_bias_;   // d - 8c * kIntegerBase: what this tile's scores need
};

}  // namespace sdpa::hopper
