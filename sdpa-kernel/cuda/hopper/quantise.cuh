// FP16 tensors to the e4m3 shared-memory images of the Hopper flagship, with one scale per head and operand.
//
// A cluster of CTAs works on one head of one operand, each group of 128 threads on units of 128 rows. Every group reads
// its units for the largest magnitude, the cluster agrees on it through distributed shared memory, and every group
// converts the unit that it still holds in registers, then reads its others again, mostly from the L2 cache.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hopper/image.cuh"
#include "hopper/params.h"
#include "hopper/ptx/arithmetic.cuh"
#include "hopper/ptx/cluster.cuh"
#include "hopper/ptx/launch.cuh"
#include "hopper/ptx/warpgroup.cuh"

namespace sdpa::hopper {

template <int kHeadDim>
constexpr int kMaxThreads = kHeadDim == 64 ? 1024 : 512;  // of a CTA: registers for what a thread holds of its unit
constexpr int kUnitRows = kTileKeys;  // rows of the source that one group of threads converts at a time
constexpr int kGroupThreads = 128;
constexpr int kMaxWarps = 32;

__device__ __forceinline__ int thread_in_group() { return threadIdx.x % kGroupThreads; }

struct HeadSlice {
  const __half* source;  // [rows][D]
  uint8_t* image;
  int rows;
  int padded_rows;
};

// Larger of the absolute values, per half.
__device__ __forceinline__ uint32_t max_magnitude_half2(uint32_t so_far, uint32_t values) {
  return ptx::max_half2(so_far, values & 0x7fff7fffu);
}

template <int kCount>
__device__ __forceinline__ void unpack_halves(const uint32_t (&words)[kCount], float (&values)[2 * kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[2 * i] = ptx::low_half_to_float(words[i]);
    values[2 * i + 1] = ptx::high_half_to_float(words[i]);
  }
}

// A unit of Q or K. Each thread converts chunks of 16 consecutive d of one row.
template <int kHeadDim>
class RowUnit {
 public:
  __device__ void load(const HeadSlice& head, int unit) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const Place at = place(unit, i);
      uint4 halves[2] = {};
      if (at.row < head.rows) {
        const auto* source = reinterpret_cast<const uint4*>(head.source + static_cast<size_t>(at.row) * kHeadDim);
        halves[0] = __ldg(source + 2 * at.chunk);
        halves[1] = __ldg(source + 2 * at.chunk + 1);
      }
      memcpy(words_[i], halves, sizeof(halves));
    }
  }

  __device__ uint32_t max_magnitude(uint32_t so_far) const {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
#pragma unroll
      for (int w = 0; w < 8; ++w) so_far = max_magnitude_half2(so_far, words_[i][w]);
    }
    return so_far;
  }

  __device__ void store(const HeadSlice& head, int unit, float factor) const {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const Place at = place(unit, i);
      if (at.row >= head.padded_rows) continue;
      float x[16];
      unpack_halves(words_[i], x);
      uint32_t bytes[4];
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        bytes[w] = ptx::cvt_e4m3x4(x[4 * w] * factor, x[4 * w + 1] * factor, x[4 * w + 2] * factor,
                                   x[4 * w + 3] * factor);
      }
      const size_t offset = static_cast<size_t>(at.row) * kHeadDim +
                            swizzled_chunk<kHeadDim>(at.row, at.chunk) * kChunkBytes;
      *reinterpret_cast<uint4*>(head.image + offset) = make_uint4(bytes[0], bytes[1], bytes[2], bytes[3]);
    }
  }

 private:
  static constexpr int kChunksPerRow = kHeadDim / kChunkBytes;
  static constexpr int kChunks = kUnitRows * kChunksPerRow / kGroupThreads;  // of one thread

  struct Place {
    int row;
    int chunk;
  };
  __device__ static Place place(int unit, int i) {
    const int index = i * kGroupThreads + thread_in_group();
    return {unit * kUnitRows + index / kChunksPerRow, index % kChunksPerRow};
  }

  uint32_t words_[kChunks][8];
};

// A unit of V: 128 keys, transposed. Each thread holds 16 keys of a few d, and so whole 16-byte chunks of image rows.
template <int kHeadDim>
class ColumnUnit {
 public:
  __device__ void load(const HeadSlice& head, int unit) {
#pragma unroll
    for (int key = 0; key < kKeys; ++key) {
      const int row = unit * kUnitRows + key_group() * kKeys + key;
      Vector halves = {};
      if (row < head.rows) {
        halves = __ldg(reinterpret_cast<const Vector*>(head.source + static_cast<size_t>(row) * kHeadDim) + d_group());
      }
      memcpy(words_[key], &halves, sizeof(halves));
    }
  }

  __device__ uint32_t max_magnitude(uint32_t so_far) const {
#pragma unroll
    for (int key = 0; key < kKeys; ++key) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) so_far = max_magnitude_half2(so_far, words_[key][w]);
    }
    return so_far;
  }

  __device__ void store(const HeadSlice& head, int unit, float factor) const {
    uint8_t* tile = head.image + static_cast<size_t>(unit) * kHeadDim * kTileKeys;
#pragma unroll
    for (int i = 0; i < 2 * kWords; ++i) {
      uint32_t bytes[4];
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        bytes[w] = ptx::cvt_e4m3x4(element(key_at_position(4 * w), i) * factor,
                                   element(key_at_position(4 * w + 1), i) * factor,
                                   element(key_at_position(4 * w + 2), i) * factor,
                                   element(key_at_position(4 * w + 3), i) * factor);
      }
      const int row = image_row_of_d(d_group() * 2 * kWords + i);
      const int offset = row * kTileKeys + swizzled_chunk<kTileKeys>(row, key_group()) * kChunkBytes;
      *reinterpret_cast<uint4*>(tile + offset) = make_uint4(bytes[0], bytes[1], bytes[2], bytes[3]);
    }
  }

 private:
  static constexpr int kKeys = 16;
  static constexpr int kDGroups = kGroupThreads / (kUnitRows / kKeys);
  static constexpr int kWords = kHeadDim / kDGroups / 2;  // FP16 pairs of one key that a thread holds
  using Vector = std::conditional_t<kWords == 4, uint4, uint2>;
  static_assert(sizeof(Vector) == kWords * sizeof(uint32_t), "a thread reads its d of one key at once");

  __device__ static int d_group() { return thread_in_group() % kDGroups; }
  __device__ static int key_group() { return thread_in_group() / kDGroups; }

  __device__ float element(int key, int i) const {
    const uint32_t word = words_[key][i / 2];
    return i % 2 == 0 ? ptx::low_half_to_float(word) : ptx::high_half_to_float(word);
  }

  uint32_t words_[kKeys][kWords];
};

// The largest magnitude in the cluster's head. Magnitudes of halves order like their bits.
__device__ __forceinline__ float cluster_max_magnitude(uint32_t magnitudes) {
  __shared__ uint32_t warp_max[kMaxWarps];
  __shared__ uint32_t cta_max[ptx::kLargestPortableCluster];
  uint32_t largest = max(magnitudes & 0xffffu, magnitudes >> 16);
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (threadIdx.x % ptx::kWarpThreads == 0) warp_max[threadIdx.x / ptx::kWarpThreads] = largest;
  __syncthreads();
  ptx::cluster_wait();  // the peers run: their shared memory may be written
  if (threadIdx.x < ptx::cluster_size()) {
    for (uint32_t i = 0; i < blockDim.x / ptx::kWarpThreads; ++i) largest = max(largest, warp_max[i]);
    ptx::store_to_peer(cta_max[ptx::cluster_rank()], threadIdx.x, largest);
  }
  ptx::cluster_arrive();
  ptx::cluster_wait();
  largest = 0;
  for (uint32_t i = 0; i < ptx::cluster_size(); ++i) largest = max(largest, cta_max[i]);
  return ptx::low_half_to_float(largest);
}

template <class Unit>
__device__ __forceinline__ void quantise_head(const HeadSlice& head, float target, float* scale) {
  const int units = (head.padded_rows + kUnitRows - 1) / kUnitRows;
  const int groups = blockDim.x / kGroupThreads;
  const int step = ptx::cluster_size() * groups;
  const int first = ptx::cluster_rank() * groups + threadIdx.x / kGroupThreads;
  Unit held;
  uint32_t magnitudes = 0;
  int last = first;
  for (int unit = first; unit < units; unit += step) {
    held.load(head, unit);
    magnitudes = held.max_magnitude(magnitudes);
    last = unit;
  }
  const float largest = cluster_max_magnitude(magnitudes);
  if (first == 0 && thread_in_group() == 0) *scale = largest > 0.0f ? __fdiv_rn(largest, target) : 1.0f;
  const float factor = largest > 0.0f ? __fdiv_rn(target, largest) : 1.0f;
  if (first >= units) return;
  held.store(head, last, factor);
  for (int unit = last - step; unit >= 0; unit -= step) {
    held.load(head, unit);
    held.store(head, unit, factor);
  }
}

// grid: (cluster size, B*H, operands); block: any number of groups that the entry's launch bound admits.
template <int kHeadDim>
__device__ __forceinline__ void quantise(const QuantiseParams& params) {
  ptx::allow_next_grid();
  ptx::cluster_arrive_relaxed();
  ptx::wait_for_prior_grid();
  const int operand = blockIdx.z;
  const int granule = operand == kOperandQ ? kQBlockRows : kTileKeys;
  HeadSlice head;
  head.rows = operand == kOperandQ ? params.seq_q : params.seq_kv;
  head.padded_rows = (head.rows + granule - 1) / granule * granule;
  head.source = params.source[operand] + static_cast<size_t>(blockIdx.y) * head.rows * kHeadDim;
  head.image = params.image[operand] + static_cast<size_t>(blockIdx.y) * head.padded_rows * kHeadDim;
  float* scale = params.scales + blockIdx.y * kScalesPerHead + operand;
  if (operand == kOperandV) {
    quantise_head<ColumnUnit<kHeadDim>>(head, kValueTarget, scale);
  } else {
    quantise_head<RowUnit<kHeadDim>>(head, kQueryKeyTarget, scale);
  }
}

}  // namespace sdpa::hopper
