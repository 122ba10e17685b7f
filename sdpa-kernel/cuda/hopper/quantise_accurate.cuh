// FP16 tensors to the operands of the accurate form: Q and K as 8-bit integers in the images that e4m3 would have, V as
// e4m3 with a scale for each channel.
//
// Three things keep eight bits enough, and none changes the softmax. K loses its mean over the keys, which would add
// the same to all scores of a row. Q and K are rotated alike by a Hadamard matrix with signs: their products stay, and
// what single channels had too much of is spread over all. And every row of Q and every tile of K has its own scale.
#pragma once

#include <cstdint>

#include "hopper/image.cuh"
#include "hopper/params.h"
#include "hopper/ptx/arithmetic.cuh"
#include "hopper/ptx/cluster.cuh"
#include "hopper/ptx/launch.cuh"
#include "hopper/ptx/warpgroup.cuh"
#include "hopper/quantise.cuh"
#include "hopper/scales.cuh"

namespace sdpa::hopper {

constexpr int kMaxAccurateThreads = 512;
constexpr int kMaxAccurateWarps = kMaxAccurateThreads / ptx::kWarpThreads;
constexpr float kLargestInteger = 127.0f;
constexpr float kLargestHalf = 65504.0f;

// What the threads of a CTA and the CTAs of a cluster tell each other of the channels of a head: sums of K, or the
// largest magnitudes of V.
template <int kHeadDim>
struct ChannelExchange {
  float of_warp[kMaxAccurateWarps][kHeadDim];
  float of_cta[ptx::kLargestPortableCluster][kHeadDim];
  float of_head[kHeadDim];
};

// To `of_head`, in a fixed order, so that results repeat bit for bit. Every warp has written its own before.
template <int kHeadDim, class Combine>
__device__ __forceinline__ void combine_channels(ChannelExchange<kHeadDim>& exchange, Combine combine) {
  __syncthreads();
  ptx::cluster_wait();  // the peers run: their shared memory may be written
  const int d = threadIdx.x;
  if (d < kHeadDim) {
    float value = exchange.of_warp[0][d];
    for (uint32_t w = 1; w < blockDim.x / ptx::kWarpThreads; ++w) value = combine(value, exchange.of_warp[w][d]);
    for (uint32_t peer = 0; peer < ptx::cluster_size(); ++peer) {
      auto& slot = reinterpret_cast<uint32_t&>(exchange.of_cta[ptx::cluster_rank()][d]);
      ptx::store_to_peer(slot, peer, __float_as_uint(value));
    }
  }
  ptx::cluster_arrive();
  ptx::cluster_wait();
  if (d < kHeadDim) {
    float value = exchange.of_cta[0][d];
    for (uint32_t i = 1; i < ptx::cluster_size(); ++i) value = combine(value, exchange.of_cta[i][d]);
    exchange.of_head[d] = value;
  }
  __syncthreads();
}

__device__ __forceinline__ float factor_for(float largest) {
  return largest > 0.0f ? __fdividef(kLargestInteger, largest) : 1.0f;
}

__device__ __forceinline__ float scale_for(float largest) { return largest > 0.0f ? largest / kLargestInteger : 1.0f; }

template <int kHeadDim>
constexpr int kRowThreads = 2 * kHeadDim;  // that share a unit of Q or K: each holds four chunks

// A unit of Q or K on its way to integers.
template <int kHeadDim>
class RotatedUnit : public RowUnit<kHeadDim, kRowThreads<kHeadDim>> {
  using Base = RowUnit<kHeadDim, kRowThreads<kHeadDim>>;
  using Base::kChunks;
  using Base::kChunksPerRow;
  using Base::words_;

 public:
  // The thread's chunk is the same in all its rows.
  __device__ static int chunk() { return threadIdx.x % kChunksPerRow; }

  __device__ void add_to(float (&sums)[kChunkBytes]) const {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      float x[kChunkBytes];
      unpack_halves(words_[i], x);
#pragma unroll
      for (int j = 0; j < kChunkBytes; ++j) sums[j] += x[j];
    }
  }

  // Rows beyond the sequence are zero and stay so. `mean` is null or one of every channel.
  __device__ void rotate(const HeadSlice& head, int unit, const float* mean) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const bool exists = Base::place(unit, i).row < head.rows;
      float x[kChunkBytes];
      unpack_halves(words_[i], x);
#pragma unroll
      for (int j = 0; j < kChunkBytes; ++j) {
        if (mean != nullptr && exists) x[j] -= mean[chunk() * kChunkBytes + j];
        x[j] = flip_sign(x[j], j);
      }
      transform(x);
#pragma unroll
      for (int w = 0; w < kChunkBytes / 2; ++w) words_[i][w] = ptx::pack_half2(norm(x[2 * w]), norm(x[2 * w + 1]));
    }
  }

  // Of the row that chunk i is of, or of all this thread's chunks. As bits of a half, which order alike.
  __device__ uint32_t max_magnitude_of_row(int i) const {
    uint32_t largest = max_magnitude_of_chunk(i);
#pragma unroll
    for (int step = 1; step < kChunksPerRow; step *= 2) {
      largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    }
    return largest;
  }

  __device__ uint32_t max_magnitude_of_unit_share() const {
    uint32_t largest = 0;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) largest = max(largest, max_magnitude_of_chunk(i));
    return largest;
  }

  // With a scale for each row, which the first thread of the row stores.
  __device__ void store_rows(const HeadSlice& head, int unit, float* scales) const {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const float largest = ptx::low_half_to_float(max_magnitude_of_row(i));
      const auto at = Base::place(unit, i);
      if (at.row >= head.padded_rows) continue;
      store_chunk(head, at.row, i, factor_for(largest));
      if (chunk() == 0) scales[at.row] = scale_for(largest);
    }
  }

  __device__ void store(const HeadSlice& head, int unit, float factor) const {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const auto at = Base::place(unit, i);
      if (at.row < head.padded_rows) store_chunk(head, at.row, i, factor);
    }
  }

 private:
  // Any fixed signs would do that no model's channels follow: without them, what is alike in all channels would be one
  // large number after the transform.
  __device__ static float flip_sign(float x, int j) {
    // Bit d % 32 of word d / 32. Chosen, not indexed, which would take memory.
    const int half = chunk() / 2;
    const uint32_t word = half == 0 ? 0x9d2c5680u : half == 1 ? 0x3ad7e15bu : half == 2 ? 0x6c47f0a9u : 0xe51b82c6u;
    return __uint_as_float(__float_as_uint(x) ^ (word >> (chunk() % 2 * 16 + j) << 31));
  }

  // Butterflies over the sixteen channels of the thread, then over the threads of the row.
  __device__ static void transform(float (&x)[kChunkBytes]) {
#pragma unroll
    for (int step = 1; step < kChunkBytes; step *= 2) {
#pragma unroll
      for (int j = 0; j < kChunkBytes; ++j) {
        if (j & step) continue;
        const float a = x[j];
        const float b = x[j + step];
        x[j] = a + b;
        x[j + step] = a - b;
      }
    }
#pragma unroll
    for (int step = 1; step < kChunksPerRow; step *= 2) {
      const float sign = chunk() & step ? -1.0f : 1.0f;
#pragma unroll
      for (int j = 0; j < kChunkBytes; ++j) x[j] = fmaf(x[j], sign, __shfl_xor_sync(0xffffffffu, x[j], step));
    }
  }

  __device__ static float norm(float x) {
    constexpr float kNorm = kHeadDim == 128 ? 0.08838834764831845f : 0.125f;
    return fminf(fmaxf(x * kNorm, -kLargestHalf), kLargestHalf);
  }

  __device__ uint32_t max_magnitude_of_chunk(int i) const {
    uint32_t largest = 0;
#pragma unroll
    for (int w = 0; w < kChunkBytes / 2; ++w) largest = max_magnitude_half2(largest, words_[i][w]);
    return max(largest & 0xffffu, largest >> 16);
  }

  __device__ void store_chunk(const HeadSlice& head, int row, int i, float factor) const {
    float x[kChunkBytes];
    unpack_halves(words_[i], x);
    uint32_t bytes[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      bytes[w] = ptx::permute_bytes<0x5410>(
          ptx::permute_bytes<0x0040>(integer_bits(x[4 * w] * factor), integer_bits(x[4 * w + 1] * factor)),
          ptx::permute_bytes<0x0040>(integer_bits(x[4 * w + 2] * factor), integer_bits(x[4 * w + 3] * factor)));
    }
    const size_t offset = static_cast<size_t>(row) * kHeadDim + swizzled_chunk<kHeadDim>(row, chunk()) * kChunkBytes;
    *reinterpret_cast<uint4*>(head.image + offset) = make_uint4(bytes[0], bytes[1], bytes[2], bytes[3]);
  }

  // The low byte is the integer next to x: adding 1.5 * 2^23 leaves it there.
  __device__ static uint32_t integer_bits(float x) { return __float_as_uint(x + 12582912.0f); }
};

// The largest of what the threads of a unit have.
template <int kThreads>
__device__ __forceinline__ uint32_t max_of_unit(uint32_t largest) {
  constexpr int kWarps = kThreads / ptx::kWarpThreads;
  __shared__ uint32_t of_warp[kMaxAccurateThreads / kThreads][kWarps];
  const int group = ptx::warp_uniform(threadIdx.x / kThreads);
  ptx::named_barrier_sync(1 + group, kThreads);  // the last unit's have been read
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (threadIdx.x % ptx::kWarpThreads == 0) of_warp[group][threadIdx.x % kThreads / ptx::kWarpThreads] = largest;
  ptx::named_barrier_sync(1 + group, kThreads);
#pragma unroll
  for (int w = 0; w < kWarps; ++w) largest = max(largest, of_warp[group][w]);
  return largest;
}

// The units of one group of so many threads.
struct UnitRange {
  __device__ UnitRange(const HeadSlice& head, int threads)
      : first(ptx::cluster_rank() * (blockDim.x / threads) + ptx::warp_uniform(threadIdx.x / threads)),
        step(ptx::cluster_size() * (blockDim.x / threads)),
        count((head.padded_rows + kUnitRows - 1) / kUnitRows) {}
  int first;
  int step;
  int count;
};

template <int kHeadDim>
__device__ __forceinline__ void quantise_queries(const HeadSlice& head, float* scales) {
  const UnitRange units(head, kRowThreads<kHeadDim>);
  RotatedUnit<kHeadDim> held;
  for (int unit = units.first; unit < units.count; unit += units.step) {
    held.load(head, unit);
    held.rotate(head, unit, nullptr);
    held.store_rows(head, unit, scales);
  }
}

template <int kHeadDim>
__device__ __forceinline__ void finish_keys(RotatedUnit<kHeadDim>& held, const HeadSlice& head, int unit,
                                            const float* mean, float* scales) {
  held.rotate(head, unit, mean);
  const uint32_t magnitude = max_of_unit<kRowThreads<kHeadDim>>(held.max_magnitude_of_unit_share());
  const float largest = ptx::low_half_to_float(magnitude);
  held.store(head, unit, factor_for(largest));
  if (threadIdx.x % kRowThreads<kHeadDim> != 0) return;
  reinterpret_cast<float4*>(scales)[unit] = make_float4(scale_for(largest), 0.0f, 0.0f, 0.0f);
}

template <int kHeadDim>
__device__ __forceinline__ void quantise_keys(const HeadSlice& head, float* scales,
                                              ChannelExchange<kHeadDim>& exchange) {
  const UnitRange units(head, kRowThreads<kHeadDim>);
  RotatedUnit<kHeadDim> held;
  float sums[kChunkBytes] = {};
  int last = units.first;
  for (int unit = units.first; unit < units.count; unit += units.step) {
    held.load(head, unit);
    held.add_to(sums);
    last = unit;
  }
  constexpr int kThreadsOfRow = kHeadDim / kChunkBytes;
  const int lane = threadIdx.x % ptx::kWarpThreads;
#pragma unroll
  for (int j = 0; j < kChunkBytes; ++j) {
#pragma unroll
    for (int step = kThreadsOfRow; step < ptx::kWarpThreads; step *= 2) {
      sums[j] += __shfl_xor_sync(0xffffffffu, sums[j], step);
    }
    if (lane < kThreadsOfRow) exchange.of_warp[threadIdx.x / ptx::kWarpThreads][lane * kChunkBytes + j] = sums[j];
  }
  combine_channels(exchange, [](float a, float b) { return a + b; });
  if (threadIdx.x < kHeadDim) exchange.of_head[threadIdx.x] = __fdiv_rn(exchange.of_head[threadIdx.x], head.rows);
  __syncthreads();
  if (units.first >= units.count) return;
  finish_keys(held, head, last, exchange.of_head, scales);
  for (int unit = last - units.step; unit >= 0; unit -= units.step) {
    held.load(head, unit);
    finish_keys(held, head, unit, exchange.of_head, scales);
  }
}

template <int kHeadDim>
__device__ __forceinline__ void quantise_values(const HeadSlice& head, float* scales,
                                                ChannelExchange<kHeadDim>& exchange) {
  using Unit = ColumnUnit<kHeadDim>;
  const UnitRange units(head, kGroupThreads);
  Unit held;
  uint32_t magnitudes[Unit::kWords] = {};
  int last = units.first;
  for (int unit = units.first; unit < units.count; unit += units.step) {
    held.load(head, unit);
    held.max_magnitudes(magnitudes);
    last = unit;
  }
#pragma unroll
  for (int w = 0; w < Unit::kWords; ++w) {
    const uint32_t largest = ptx::max_half2(magnitudes[w], __shfl_xor_sync(0xffffffffu, magnitudes[w], 16));
    float* of_warp = exchange.of_warp[threadIdx.x / ptx::kWarpThreads] + (Unit::d_group() * Unit::kWords + w) * 2;
    of_warp[0] = ptx::low_half_to_float(largest);
    of_warp[1] = ptx::high_half_to_float(largest);
  }
  combine_channels(exchange, [](float a, float b) { return fmaxf(a, b); });
  if (threadIdx.x < kHeadDim) {
    const float largest = exchange.of_head[threadIdx.x];
    if (ptx::cluster_rank() == 0) scales[threadIdx.x] = largest > 0.0f ? __fdiv_rn(largest, kValueTarget) : 1.0f;
    exchange.of_head[threadIdx.x] = largest > 0.0f ? __fdiv_rn(kValueTarget, largest) : 1.0f;
  }
  __syncthreads();
  if (units.first >= units.count) return;
  const float* factors = exchange.of_head;
  const auto factor_of = [factors](int d) { return factors[d]; };
  held.store(head, last, factor_of);
  for (int unit = last - units.step; unit >= 0; unit -= units.step) {
    held.load(head, unit);
    held.store(head, unit, factor_of);
  }
}

// grid: (cluster size, B*H, operands); block: any number of kRowThreads that the entry's launch bound admits.
template <int kHeadDim>
__device__ __forceinline__ void quantise_accurately(const QuantiseParams& params) {
  __shared__ ChannelExchange<kHeadDim> exchange;
  ptx::allow_next_grid();
  ptx::cluster_arrive_relaxed();
  ptx::wait_for_prior_grid();
  const int operand = blockIdx.z;
  const int head_index = blockIdx.y;
  const HeadSlice head = head_slice<kHeadDim>(params, operand, head_index);
  const AccurateScales at(params.scales, gridDim.y, params.seq_q, params.seq_kv);
  if (operand == kOperandQ) {
    quantise_queries<kHeadDim>(head, at.q + static_cast<size_t>(head_index) * at.q_rows);
    ptx::cluster_wait();
  } else if (operand == kOperandK) {
    const size_t tiles = static_cast<size_t>(head_index) * at.k_tiles;
    quantise_keys<kHeadDim>(head, at.k + tiles * AccurateScales::kFloatsOfTile, exchange);
  } else {
    quantise_values<kHeadDim>(head, at.v + head_index * kHeadDim, exchange);
  }
}

}  // namespace sdpa::hopper
