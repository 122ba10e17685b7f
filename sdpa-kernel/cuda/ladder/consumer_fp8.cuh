// Purpose: what a computing warp does when the tensor cores take e4m3 itself: 16 query rows a warp, S, P and O in its
// registers, K and V as they came.
// Responsible for: the two FP8 products, their operands, and composing them with the softmax.
// Leaves to others: numerics of P (softmax_e4m3.cuh), bringing K and V and their barriers (kernel_fp8.cuh).
//
// On sm_89 the product is one instruction (QMMA). Compiled for later architectures it becomes a conversion and a product
// of halves: right, and no faster than that.
#pragma once

#include "ladder/epilogue_registers.cuh"
#include "ladder/mask.cuh"
#include "ladder/operands.cuh"
#include "common/ptx/mma.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/softmax_e4m3.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <class Traits>
struct Fp8Consumer {
  using Tiles = RawOperands<Traits>;
  using SoftmaxPart = E4m3Softmax<Traits>;
  using Codes = typename SoftmaxPart::Codes;
  using QueryTile = typename Tiles::QueryTile;
  using KeyTile = typename Tiles::KeyTile;
  using ValueTile = typename Tiles::ValueTile;

  static constexpr uint32_t kMath = kMathTensorFp8;
  static constexpr int kRowsPerWarp = 16;
  static_assert(Traits::kConsumerWarps * kRowsPerWarp == Traits::kTileQ,
                "SDPA_SOFTMAX=2: one consumer warp for 16 query rows");
  static_assert(Traits::kTileK % 32 == 0, "SDPA_MATH=2: a product takes 32 keys, SDPA_TILE_K must be a multiple");
  static constexpr int kKeyBlocks = Traits::kTileK / 8;
  static constexpr int kKeySteps = Traits::kTileK / 32;
  static constexpr int kColumnBlocks = Traits::kHeadDim / 8;

  // With fewer keys a row averages over too few roundings of P: rows of such tiles get what e4m3 left of P in a second
  // product. All rows of a tile do alike, so that no warp waits for another.
  static constexpr int kFewKeys = 192;

  const int first_row;  // of the warp, in the query tile
  const Mask<Traits> mask[2];
  SoftmaxPart softmax;
  FragmentA q[Traits::kHeadDim / 32];  // (16 rows, kHeadDim)
  float o[kColumnBlocks][4] = {};      // (16 rows, kHeadDim)

  __device__ __forceinline__ Fp8Consumer(const Params& p, const Work& work)
      : first_row(threadIdx.x / kWarpSize * kRowsPerWarp),
        mask{Mask<Traits>(p, work, first_row + lane_row()), Mask<Traits>(p, work, first_row + lane_row() + 8)},
        softmax(fold_scales(p, work.head)) {}

  __device__ __forceinline__ void hold_query(const QueryTile& tile) {
#pragma unroll
    for (int d = 0; d < Traits::kHeadDim; d += 32) {
      ptx::ldmatrix_x4(q[d / 32], tile.at(first_row + lane() % 16, d + lane() / 16 * 16));
    }
  }

  __device__ __forceinline__ bool few_keys() const { return mask[0].unmasked_keys < kFewKeys; }

  // O += P V of tile t, relative to the row maxima so far, with P in one or two terms.
  template <int kTerms>
  __device__ __forceinline__ void attend(const KeyTile& k, const ValueTile& v, int t) {
    float s[kKeyBlocks][4];  // (16 rows, kTileK)
    multiply_scores(s, k);
    float alpha[2];
    softmax.exponentiate(s, alpha, mask, t * Traits::kTileK);
    Codes p[kTerms];
    SoftmaxPart::pack(p[0], s);
    if constexpr (kTerms == 2) {
      SoftmaxPart::subtract(s, p[0]);
      SoftmaxPart::pack(p[1], s);
    }
    accumulate(p, alpha, v);
  }

  __device__ __forceinline__ void finish(const Params& p, const Work& work) {
    const float sums[2] = {softmax.row_sum(0), softmax.row_sum(1)};
    store_rows<Tiles>(p, work, first_row + lane_row(), o, sums);
  }

 private:
  __device__ __forceinline__ void multiply_scores(float (&s)[kKeyBlocks][4], const KeyTile& k) const {
#pragma unroll
    for (int i = 0; i < kKeyBlocks; ++i) s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0f;
#pragma unroll
    for (int d = 0; d < Traits::kHeadDim; d += 32) {
#pragma unroll
      for (int key = 0; key < Traits::kTileK; key += 16) {
        uint32_t r[4];  // (keys 0 to 7 and 8 to 15) x (columns 0 to 15 and 16 to 31)
        ptx::ldmatrix_x4(r, k.at(key + lane() / 16 * 8 + lane() % 8, d + lane() / 8 % 2 * 16));
        ptx::mma_m16n8k32_f32_e4m3(s[key / 8], q[d / 32], {r[0], r[1]});
        ptx::mma_m16n8k32_f32_e4m3(s[key / 8 + 1], q[d / 32], {r[2], r[3]});
      }
    }
  }

  // The sum over a tile starts from zero and joins O in FP32: the tensor cores of sm_89 keep too few bits of a sum to
  // add small tiles to a large O, which would shrink with the length of the sequence.
  template <int kTerms>
  __device__ __forceinline__ void accumulate(const Codes (&p)[kTerms], const float (&alpha)[2], const ValueTile& v) {
#pragma unroll
    for (int d = 0; d < Traits::kHeadDim; d += 16) {
      float tile[2][4] = {};  // even and odd ones of 16 columns
#pragma unroll
      for (int step = 0; step < kKeySteps; ++step) {
        FragmentB b[2];
        values(b, v, 32 * step, d);
#pragma unroll
        for (int term = 0; term < kTerms; ++term) {
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) ptx::mma_m16n8k32_f32_e4m3(tile[odd], p[term][step], b[odd]);
        }
      }
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
        for (int j = 0; j < 4; ++j) o[d / 8 + odd][j] = fmaf(o[d / 8 + odd][j], alpha[j / 2], tile[odd][j]);
      }
    }
  }

  // 32 keys from `key` on, 16 columns from `d` on: one step, the even columns and the odd ones. The transposed load hands
  // a lane two columns of keys 2t and 2t+1 of each 8; the permutations part the columns and leave the keys in the order
  // of P (softmax_e4m3.cuh).
  static __device__ __forceinline__ void values(FragmentB (&b)[2], const ValueTile& v, int key, int d) {
    uint32_t r[4];
    ptx::ldmatrix_x4_trans(r, v.at(key + lane(), d));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      b[0][half] = ptx::prmt<0x6420>(r[2 * half], r[2 * half + 1]);
      b[1][half] = ptx::prmt<0x7531>(r[2 * half], r[2 * half + 1]);
    }
  }

  static __device__ __forceinline__ int lane() { return threadIdx.x % kWarpSize; }
  static __device__ __forceinline__ int lane_row() { return lane() / 4; }
};

}  // namespace sdpa
