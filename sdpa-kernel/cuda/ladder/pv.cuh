// Purpose: O = alpha * O + P V, with O in registers over all key tiles.
// Responsible for: bringing alpha of a row to the threads that hold its O, the product, laying O down at the end.
// Leaves to others: the values of alpha (softmax.cuh) and the division by the sum (epilogue.cuh).
#pragma once

#include <cuda_fp16.h>
#include <mma.h>

#include <cstdint>

#include "ladder/loader.cuh"
#include "ladder/scores.cuh"
#include "ladder/shared_tile.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

// O of a query tile on its way out. 4 floats of padding keep rows 16-byte aligned and apart in the banks.
template <class Traits>
using OutputTile = SharedTile<Traits::Toggles::kSwizzle, float, Traits::kTileQ, Traits::kHeadDim, 4>;

template <uint32_t kKind, class Traits, class ProbabilityTile>
struct ProbabilityTimesValue {
  static_assert(kUnsupported<kKind>, "SDPA_MATH: 0 (scalar), 1 (tensor cores) or 2 (FP8 tensor cores)");
};

// A warp owns 8 rows; a lane holds 4 rows x 4 neighbouring columns of every 64.
template <class Traits, class ProbabilityTile>
struct ProbabilityTimesValue<kMathScalar, Traits, ProbabilityTile> {
  static constexpr uint32_t kMath = kMathScalar;
  static constexpr int kRows = 4;
  static constexpr int kBlocks = Traits::kHeadDim / 64;

  struct SharedStorage {
    float alpha[Traits::kTileQ];
  };

  float o[kRows][kBlocks][4] = {};  // (rows, blocks of 64 columns, columns)

  static __device__ __forceinline__ void publish_alpha(SharedStorage& storage, int row, int lane_of_row, float alpha) {
    if (lane_of_row == 0) storage.alpha[row] = alpha;
  }

  __device__ __forceinline__ void accumulate(const SharedStorage& storage, const ProbabilityTile& p,
                                             const HalfTile<Traits, Traits::kTileK>& v, int group_row, int) {
    const int row = first_row(group_row);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float alpha = storage.alpha[row + r];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 4; ++i) o[r][b][i] *= alpha;
      }
    }
#pragma unroll 4
    for (int key = 0; key < Traits::kTileK; key += 8) {
      float p_values[kRows][8];  // (rows, keys)
#pragma unroll
      for (int r = 0; r < kRows; ++r) load_floats(p_values[r], p.at(row + r, key));
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          const uint2 chunk = *reinterpret_cast<const uint2*>(v.at(key + j, first_column() + 64 * b));
          const float2 low = __half22float2(reinterpret_cast<const __half2&>(chunk.x));
          const float2 high = __half22float2(reinterpret_cast<const __half2&>(chunk.y));
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            o[r][b][0] += p_values[r][j] * low.x;
            o[r][b][1] += p_values[r][j] * low.y;
            o[r][b][2] += p_values[r][j] * high.x;
            o[r][b][3] += p_values[r][j] * high.y;
          }
        }
      }
    }
  }

  __device__ __forceinline__ void store(OutputTile<Traits>& output, int group_row, int) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const float4 columns = make_float4(o[r][b][0], o[r][b][1], o[r][b][2], o[r][b][3]);
        *reinterpret_cast<float4*>(output.at(first_row(group_row) + r, first_column() + 64 * b)) = columns;
      }
    }
  }

 private:
  static __device__ __forceinline__ int first_row(int group_row) {
    return group_row + threadIdx.x % kWarpSize / 16 * kRows;
  }
  static __device__ __forceinline__ int first_column() { return threadIdx.x % 16 * 4; }
};

// The warps of a row group split the columns of O. Which lane holds which element of a fragment is not specified, so
// alpha travels as a 16x16 tile with equal columns, loaded into a fragment of O's own type: element i of both is the
// same place.
template <class Traits, class ProbabilityTile>
struct ProbabilityTimesValue<kMathTensor, Traits, ProbabilityTile> {
  static constexpr uint32_t kMath = kMathTensor;
  static constexpr int kWarpsPerGroup = Scores<kMathTensor, Traits>::kWarpsPerGroup;
  static_assert(Traits::kHeadDim / 16 % kWarpsPerGroup == 0,
                "SDPA_MATH=1: the warps of a row group split the head dimension into whole 16-column blocks");
  static constexpr int kBlocks = Traits::kHeadDim / 16 / kWarpsPerGroup;
  static constexpr int kAlphasPerLane = 16 / Traits::kLanesPerRow;
  static_assert(kAlphasPerLane >= 4 && kAlphasPerLane % 4 == 0,
                "SDPA_MATH=1: at most 4 threads share a query row, each writes 16 bytes of alpha");

  using ProbabilityFragment =
      nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, __half, nvcuda::wmma::row_major>;
  using ValueFragment = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, __half, nvcuda::wmma::row_major>;
  using OutputFragment = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;

  struct SharedStorage {
    SharedTile<Traits::Toggles::kSwizzle, float, Traits::kTileQ, 16, 8> alpha;  // (kTileQ, 16 equal columns)
  };

  OutputFragment o[kBlocks];  // (16 rows, kBlocks x 16 columns)

  __device__ __forceinline__ ProbabilityTimesValue() {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) nvcuda::wmma::fill_fragment(o[b], 0.0f);
  }

  static __device__ __forceinline__ void publish_alpha(SharedStorage& storage, int row, int lane_of_row, float alpha) {
#pragma unroll
    for (int i = 0; i < kAlphasPerLane; i += 4) {
      *reinterpret_cast<float4*>(storage.alpha.at(row, lane_of_row * kAlphasPerLane + i)) =
          make_float4(alpha, alpha, alpha, alpha);
    }
  }

  __device__ __forceinline__ void accumulate(const SharedStorage& storage, const ProbabilityTile& p,
                                             const HalfTile<Traits, Traits::kTileK>& v, int group_row,
                                             int warp_in_group) {
    OutputFragment alpha;  // (16 rows, 16 equal columns)
    nvcuda::wmma::load_matrix_sync(alpha, storage.alpha.at(group_row, 0), storage.alpha.kStride,
                                   nvcuda::wmma::mem_row_major);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int i = 0; i < alpha.num_elements; ++i) o[b].x[i] *= alpha.x[i];
    }
#pragma unroll
    for (int key = 0; key < Traits::kTileK; key += 16) {
      ProbabilityFragment probabilities;  // (16 rows, 16 keys)
      nvcuda::wmma::load_matrix_sync(probabilities, p.at(group_row, key), p.kStride);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        ValueFragment values;  // (16 keys, 16 columns)
        nvcuda::wmma::load_matrix_sync(values, v.at(key, column(warp_in_group, b)), v.kStride);
        nvcuda::wmma::mma_sync(o[b], probabilities, values, o[b]);
      }
    }
  }

  __device__ __forceinline__ void store(OutputTile<Traits>& output, int group_row, int warp_in_group) const {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      nvcuda::wmma::store_matrix_sync(output.at(group_row, column(warp_in_group, b)), o[b], output.kStride,
                                      nvcuda::wmma::mem_row_major);
    }
  }

 private:
  static __device__ __forceinline__ int column(int warp_in_group, int block) {
    return 16 * (warp_in_group * kBlocks + block);
  }
};

}  // namespace sdpa
