// FP16 tensors to the e4m3 shared-memory images of the Hopper flagship, with one scale per head and operand; Q and K
// rotated, and for V the mean of what rounding lost.
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
#include "hopper/rotation.cuh"

namespace sdpa::hopper {

template <int kHeadDim>
constexpr int kMaxThreads = kHeadDim == 64 ? 768 : 512;  // of a CTA: registers for what a thread holds of its unit
constexpr int kUnitRows = kTileKeys;  // rows of the source that one group of threads converts at a time
constexpr int kGroupThreads = 128;
constexpr int kMaxWarps = kMaxThreads<64> / 32;

// Where they stand is computed anew wherever it is asked for: registers are for what a thread holds of its unit.
__device__ __forceinline__ uint32_t thread() { return ptx::opaque(threadIdx.x); }
__device__ __forceinline__ int thread_in_group() { return thread() % kGroupThreads; }

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

// Plus zero: a zero has no sign, whatever the rotation made of it.
__device__ __forceinline__ float scaled(float x, float factor) { return __fmaf_rn(x, factor, 0.0f); }

// A unit of Q or K, rotated. Each thread converts chunks of 16 consecutive d of one row.
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
#pragma unroll
    for (int i = 0; i < kChunks; ++i) rotate_row(words_[i], thread_in_group() % kChunksPerRow);
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
        bytes[w] = ptx::cvt_e4m3x4(scaled(x[4 * w], factor), scaled(x[4 * w + 1], factor),
                                   scaled(x[4 * w + 2], factor), scaled(x[4 * w + 3], factor));
      }
      const size_t offset = static_cast<size_t>(at.row) * kHeadDim +
                            swizzled_chunk<kHeadDim>(at.row, at.chunk) * kChunkBytes;
      *reinterpret_cast<uint4*>(head.image + offset) = make_uint4(bytes[0], bytes[1], bytes[2], bytes[3]);
    }
  }

 private:
  static constexpr int kChunksPerRow = kHeadDim / kChunkBytes;
  static constexpr int kChunks = kUnitRows * kChunksPerRow / kGroupThreads;  // of one thread
  static_assert(kGroupThreads % kChunksPerRow == 0, "all chunks of a thread are of the same channels");

  struct Place {
    int row;
    int chunk;
  };
  __device__ static Place place(int unit, int i) {
    const int place = thread_in_group();
    return {unit * kUnitRows + i * (kGroupThreads / kChunksPerRow) + place / kChunksPerRow, place % kChunksPerRow};
  }

  uint32_t words_[kChunks][8];
};

// What rounding loses is summed in integers, which any order of adding leaves the same: steps of 1/64, of which the
// values of a key lose 512 at most.
constexpr float kLostSteps = 64.0f;
__device__ __forceinline__ int integer_of(float lost) {
  constexpr float kUnitIsLastPlace = 1.5f * 0x1p17f;  // whose last binary place is 1/64
  return __float_as_int(lost + kUnitIsLastPlace) - __float_as_int(kUnitIsLastPlace);
}

// A unit of V: 128 keys, transposed. Each thread holds 16 keys of a few d, and so whole 16-byte chunks of image rows.
template <int kHeadDim>
class ColumnUnit {
  static constexpr int kKeys = 16;
  static constexpr int kDGroups = kGroupThreads / (kUnitRows / kKeys);

 public:
  static constexpr int kWords = kHeadDim / kDGroups / 2;  // FP16 pairs of one key that a thread holds

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

  // Adds what rounding loses of this thread's keys to the sums of its d.
  __device__ void store(const HeadSlice& head, int unit, float factor, int (&lost)[2 * kWords]) const {
    uint8_t* tile = head.image + static_cast<size_t>(unit) * kHeadDim * kTileKeys;
#pragma unroll
    for (int i = 0; i < 2 * kWords; ++i) {
      uint32_t bytes[4];
      float lost_of_keys = 0.0f;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        float x[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) x[j] = scaled(element(key_at_position(4 * w + j), i), factor);
        bytes[w] = ptx::cvt_e4m3x4(x[0], x[1], x[2], x[3]);
        const uint32_t kept[2] = {ptx::unpack_low_e4m3x2(bytes[w]), ptx::unpack_high_e4m3x2(bytes[w])};
        float rounded[4];
        unpack_halves(kept, rounded);
#pragma unroll
        for (int j = 0; j < 4; ++j) lost_of_keys = lost_of_keys + x[j] - rounded[j];
      }
      lost[i] += integer_of(lost_of_keys);
      const int row = image_row_of_d(d_group() * 2 * kWords + i);
      const int offset = row * kTileKeys + swizzled_chunk<kTileKeys>(row, key_group()) * kChunkBytes;
      *reinterpret_cast<uint4*>(tile + offset) = make_uint4(bytes[0], bytes[1], bytes[2], bytes[3]);
    }
  }

  __device__ static int d_group() { return thread_in_group() % kDGroups; }

 private:
  using Vector = std::conditional_t<kWords == 4, uint4, uint2>;
  static_assert(sizeof(Vector) == kWords * sizeof(uint32_t), "a thread reads its d of one key at once");

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

// Scales and offsets of this CTA's head.
template <int kHeadDim>
__device__ __forceinline__ float* words_of_head(const QuantiseParams& params) {
  return params.scales + blockIdx.y * kWordsPerHead<kHeadDim>;
}

// The units of one group of threads.
struct Share {
  int first;
  int step;
  int units;  // of the head

  __device__ explicit Share(const HeadSlice& head) {
    const int groups = blockDim.x / kGroupThreads;
    first = ptx::cluster_rank() * groups + thread() / kGroupThreads;
    step = ptx::cluster_size() * groups;
    units = (head.padded_rows + kUnitRows - 1) / kUnitRows;
  }
};

// Loads all units of the share for the largest magnitude in the head. The last stays in `held`, whose number is
// returned.
template <class Unit>
__device__ __forceinline__ int load_share(const HeadSlice& head, const Share& share, Unit& held, float& largest) {
  uint32_t magnitudes = 0;
  int unit = share.first;
  for (; unit < share.units; unit += share.step) {
    held.load(head, unit);
    magnitudes = held.max_magnitude(magnitudes);
  }
  largest = cluster_max_magnitude(magnitudes);
  return unit - share.step;
}

template <int kHeadDim>
__device__ __forceinline__ void quantise_rows(const QuantiseParams& params, const HeadSlice& head) {
  RowUnit<kHeadDim> held;
  float largest;
  int unit = load_share(head, Share(head), held, largest);
  const Share share(head);  // once more: what is not kept takes no registers from what is
  if (share.first == 0 && thread_in_group() == 0) {
    const float scale = largest > 0.0f ? __fmul_rn(__fdiv_rn(largest, kQueryKeyTarget), kRotationNorm) : 1.0f;
    words_of_head<kHeadDim>(params)[blockIdx.z] = scale;
  }
  const float factor = largest > 0.0f ? __fdiv_rn(kQueryKeyTarget, largest) : 1.0f;
  if (share.first >= share.units) return;
  while (true) {
    held.store(head, unit, factor);
    unit -= share.step;
    if (unit < 0) return;
    held.load(head, unit);
  }
}

// The sums over the cluster's head, of every d, in CTA 0 alone: those of its own thread d.
template <int kHeadDim>
__device__ __forceinline__ int cluster_sum(const int (&lost)[2 * ColumnUnit<kHeadDim>::kWords]) {
  constexpr int kOfThread = 2 * ColumnUnit<kHeadDim>::kWords;
  constexpr int kLanes = kHeadDim / kOfThread;  // that hold all d of a key once
  __shared__ int warp_sum[kMaxWarps][kHeadDim];
  __shared__ uint32_t cta_sum[ptx::kLargestPortableCluster][kHeadDim];
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {
    int sum = lost[i];
    if constexpr (kLanes < ptx::kWarpThreads) sum += __shfl_xor_sync(0xffffffffu, sum, kLanes);
    if (threadIdx.x % ptx::kWarpThreads < kLanes) {
      warp_sum[threadIdx.x / ptx::kWarpThreads][ColumnUnit<kHeadDim>::d_group() * kOfThread + i] = sum;
    }
  }
  __syncthreads();
  int sum = 0;
  if (threadIdx.x < kHeadDim) {
    for (uint32_t w = 0; w < blockDim.x / ptx::kWarpThreads; ++w) sum += warp_sum[w][threadIdx.x];
    ptx::store_to_peer(cta_sum[ptx::cluster_rank()][threadIdx.x], 0, static_cast<uint32_t>(sum));
  }
  ptx::cluster_arrive();
  ptx::cluster_wait();
  if (ptx::cluster_rank() > 0 || threadIdx.x >= kHeadDim) return 0;
  sum = 0;
  for (uint32_t i = 0; i < ptx::cluster_size(); ++i) sum += static_cast<int>(cta_sum[i][threadIdx.x]);
  return sum;
}

template <int kHeadDim>
__device__ __forceinline__ void quantise_columns(const QuantiseParams& params, const HeadSlice& head) {
  ColumnUnit<kHeadDim> held;
  float largest;
  int unit = load_share(head, Share(head), held, largest);
  const Share share(head);
  const float of_codes = largest > 0.0f ? __fdiv_rn(largest, kValueTarget) : 1.0f;
  if (share.first == 0 && thread_in_group() == 0) words_of_head<kHeadDim>(params)[kOperandV] = of_codes;
  const float factor = largest > 0.0f ? __fdiv_rn(kValueTarget, largest) : 1.0f;
  int lost[2 * ColumnUnit<kHeadDim>::kWords] = {};
  if (share.first < share.units) {
    held.store(head, unit, factor, lost);
    for (unit -= share.step; unit >= 0; unit -= share.step) {
      held.load(head, unit);
      held.store(head, unit, factor, lost);
    }
  }
  const int sum = cluster_sum<kHeadDim>(lost);
  if (ptx::cluster_rank() > 0 || threadIdx.x >= kHeadDim) return;
  const float mean = __fdiv_rn(__int2float_rn(sum), kLostSteps * __int2float_rn(params.seq_kv));
  words_of_head<kHeadDim>(params)[kScalesPerHead + threadIdx.x] = __fmul_rn(mean, of_codes);
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
  if (operand == kOperandV) {
    quantise_columns<kHeadDim>(params, head);
  } else {
    quantise_rows<kHeadDim>(params, head);
  }
}

}  // namespace sdpa::hopper
