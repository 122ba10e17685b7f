// Purpose: S = Q K^T of one query tile and one key tile, as FP32 in shared memory.
// Responsible for: the dot products, in registers until `store`, and which warps share query rows (a row group).
// Leaves to others: scales, masks, and the barrier after it.
#pragma once

#include <cuda_fp16.h>
#include <mma.h>

#include <cstdint>

#include "ladder/loader.cuh"
#include "ladder/score_tile.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

// Eight halves at a 16-byte aligned address as floats.
__device__ __forceinline__ void load_floats(float (&values)[8], const __half* source) {
  const uint4 chunk = *reinterpret_cast<const uint4*>(source);
  const uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __half22float2(reinterpret_cast<const __half2&>(words[i]));
    values[2 * i] = pair.x;
    values[2 * i + 1] = pair.y;
  }
}

template <uint32_t kKind, class Traits>
struct Scores {
  static_assert(kUnsupported<kKind>, "SDPA_MATH: 0 (scalar), 1 (tensor cores) or 2 (FP8 tensor cores)");
};

// A warp owns 8 rows. A lane computes 2 rows x kTileK/8 keys, so a converted Q or K value is used more than once; sums
// are FP32 because a product of two e4m3 values can exceed the range of a half.
template <class Traits>
struct Scores<kMathScalar, Traits> {
  static constexpr uint32_t kMath = kMathScalar;
  static constexpr int kRowsPerGroup = 8;
  static constexpr int kKeysPerLane = Traits::kTileK / 8;

  float sums[2][kKeysPerLane];  // (rows, keys)

  __device__ __forceinline__ void hold_query(const HalfTile<Traits, Traits::kTileQ>&, int, int) {}

  __device__ __forceinline__ void multiply(const HalfTile<Traits, Traits::kTileQ>& q,
                                           const HalfTile<Traits, Traits::kTileK>& k, int group_row, int) {
    const int row = first_row(group_row);
    const int key = first_key();
#pragma unroll
    for (int j = 0; j < kKeysPerLane; ++j) sums[0][j] = sums[1][j] = 0.0f;

#pragma unroll 8
    for (int d = 0; d < Traits::kHeadDim; d += 8) {
      float q_values[2][8];
      load_floats(q_values[0], q.at(row, d));
      load_floats(q_values[1], q.at(row + 4, d));
#pragma unroll
      for (int j = 0; j < kKeysPerLane; ++j) {
        float k_values[8];
        load_floats(k_values, k.at(key + 8 * j, d));
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          sums[0][j] += q_values[0][i] * k_values[i];
          sums[1][j] += q_values[1][i] * k_values[i];
        }
      }
    }
  }

  __device__ __forceinline__ void store(ScoreTile<Traits>& scores, int group_row, int) const {
#pragma unroll
    for (int j = 0; j < kKeysPerLane; ++j) {
      *scores.at(first_row(group_row), first_key() + 8 * j) = sums[0][j];
      *scores.at(first_row(group_row) + 4, first_key() + 8 * j) = sums[1][j];
    }
  }

 private:
  // A lane's rows are this one and the fourth after it.
  static __device__ __forceinline__ int first_row(int group_row) { return group_row + threadIdx.x % kWarpSize / 8; }
  // A lane's keys are this one and every eighth after it.
  static __device__ __forceinline__ int first_key() { return threadIdx.x % 8; }
};

// A row group is 16 rows; its warps split the keys. Q does not change over the key tiles and stays in fragments.
template <class Traits>
struct Scores<kMathTensor, Traits> {
  static constexpr uint32_t kMath = kMathTensor;
  static constexpr int kRowsPerGroup = 16;
  static constexpr int kWarpsPerGroup = Traits::kConsumerWarps / (Traits::kTileQ / kRowsPerGroup);
  static_assert(kWarpsPerGroup >= 1 && Traits::kConsumerWarps % (Traits::kTileQ / kRowsPerGroup) == 0,
                "SDPA_MATH=1: every 16 query rows need the same number of consumer warps");
  static_assert(Traits::kTileK / 16 % kWarpsPerGroup == 0,
                "SDPA_MATH=1: the warps of a row group split SDPA_TILE_K into whole 16-key blocks");
  static constexpr int kBlocksPerWarp = Traits::kTileK / 16 / kWarpsPerGroup;
  static constexpr int kSteps = Traits::kHeadDim / 16;

  using QueryFragment = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, __half, nvcuda::wmma::row_major>;
  using KeyFragment = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, __half, nvcuda::wmma::col_major>;
  using SumFragment = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;

  QueryFragment query[kSteps];       // (16 rows, kHeadDim)
  SumFragment sums[kBlocksPerWarp];  // (16 rows, kBlocksPerWarp x 16 keys)

  __device__ __forceinline__ void hold_query(const HalfTile<Traits, Traits::kTileQ>& q, int group_row, int) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      nvcuda::wmma::load_matrix_sync(query[step], q.at(group_row, 16 * step), q.kStride);
    }
  }

  __device__ __forceinline__ void multiply(const HalfTile<Traits, Traits::kTileQ>&,
                                           const HalfTile<Traits, Traits::kTileK>& k, int, int warp_in_group) {
#pragma unroll
    for (int block = 0; block < kBlocksPerWarp; ++block) {
      nvcuda::wmma::fill_fragment(sums[block], 0.0f);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        KeyFragment keys;  // (16 of kHeadDim, 16 keys)
        nvcuda::wmma::load_matrix_sync(keys, k.at(first_key(warp_in_group, block), 16 * step), k.kStride);
        nvcuda::wmma::mma_sync(sums[block], query[step], keys, sums[block]);
      }
    }
  }

  __device__ __forceinline__ void store(ScoreTile<Traits>& scores, int group_row, int warp_in_group) const {
#pragma unroll
    for (int block = 0; block < kBlocksPerWarp; ++block) {
      nvcuda::wmma::store_matrix_sync(scores.at(group_row, first_key(warp_in_group, block)), sums[block],
                                      scores.kStride, nvcuda::wmma::mem_row_major);
    }
  }

 private:
  static __device__ __forceinline__ int first_key(int warp_in_group, int block) {
    return 16 * (warp_in_group * kBlocksPerWarp + block);
  }
};

}  // namespace sdpa
