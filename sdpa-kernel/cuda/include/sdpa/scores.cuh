// Purpose: S = Q K^T of one query tile and one key tile, as FP32 in shared memory.
// Responsible for: the dot products, and which warps share query rows (a row group).
// Leaves to others: scales, masks, and the barrier after it.
#pragma once

#include <cuda_fp16.h>
#include <mma.h>

#include <cstdint>

#include "sdpa/loader.cuh"
#include "sdpa/shared_tile.cuh"
#include "sdpa/traits.cuh"

namespace sdpa {

// 8 floats of padding: the rows read in one go, as pairs of floats, start 8 banks apart.
template <class Traits>
using ScoreTile = SharedTile<Traits::Toggles::kSwizzle, float, Traits::kTileQ, Traits::kTileK, 8>;

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
  static_assert(kUnsupported<kKind>, "SDPA_MATH: 0 (scalar) or 1 (wmma)");
};

// A warp owns 8 rows. A lane computes 2 rows x kTileK/8 keys, so a converted Q or K value is used more than once; sums
// are FP32 because a product of two e4m3 values can exceed the range of a half.
template <class Traits>
struct Scores<kMathScalar, Traits> {
  static constexpr uint32_t kMath = kMathScalar;
  static constexpr int kRowsPerGroup = 8;
  static constexpr int kKeysPerLane = Traits::kTileK / 8;

  __device__ __forceinline__ void hold_query(const HalfTile<Traits, Traits::kTileQ>&, int, int) {}

  __device__ __forceinline__ void compute(ScoreTile<Traits>& scores, const HalfTile<Traits, Traits::kTileQ>& q,
                                          const HalfTile<Traits, Traits::kTileK>& k, int group_row, int) {
    const int lane = threadIdx.x % kWarpSize;
    const int row = group_row + lane / 8;  // and row + 4
    const int key = lane % 8;              // and every 8th after it
    float sums[2][kKeysPerLane] = {};      // (rows, keys)

#pragma unroll 4
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

#pragma unroll
    for (int j = 0; j < kKeysPerLane; ++j) {
      *scores.at(row, key + 8 * j) = sums[0][j];
      *scores.at(row + 4, key + 8 * j) = sums[1][j];
    }
  }
};

// A row group is 16 rows; its warps split the keys. Q does not change over the key tiles and stays in fragments.
template <class Traits>
struct Scores<kMathWmma, Traits> {
  static constexpr uint32_t kMath = kMathWmma;
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

  QueryFragment query[kSteps];  // (16 rows, kHeadDim)

  __device__ __forceinline__ void hold_query(const HalfTile<Traits, Traits::kTileQ>& q, int group_row, int) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      nvcuda::wmma::load_matrix_sync(query[step], q.at(group_row, 16 * step), q.kStride);
    }
  }

  __device__ __forceinline__ void compute(ScoreTile<Traits>& scores, const HalfTile<Traits, Traits::kTileQ>&,
                                          const HalfTile<Traits, Traits::kTileK>& k, int group_row,
                                          int warp_in_group) {
#pragma unroll
    for (int block = 0; block < kBlocksPerWarp; ++block) {
      const int key = 16 * (warp_in_group * kBlocksPerWarp + block);
      SumFragment sums;  // (16 rows, 16 keys)
      nvcuda::wmma::fill_fragment(sums, 0.0f);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        KeyFragment keys;  // (16 of kHeadDim, 16 keys)
        nvcuda::wmma::load_matrix_sync(keys, k.at(key, 16 * step), k.kStride);
        nvcuda::wmma::mma_sync(sums, query[step], keys, sums);
      }
      nvcuda::wmma::store_matrix_sync(scores.at(group_row, key), sums, scores.kStride, nvcuda::wmma::mem_row_major);
    }
  }
};

}  // namespace sdpa
