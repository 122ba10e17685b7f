// From sums to output rows: merge the key groups, divide by the row sums, add the offsets of V, store. Each lane owns
// eight consecutive d of each 32 (image.cuh), so rows leave the registers as 16-byte stores, a quad covering 64
// contiguous bytes: no staging.
#pragma once

#include <cstdint>

#include "hopper/consumer.cuh"
#include "hopper/fragment.cuh"
#include "hopper/scheduler.cuh"
#include "hopper/traits.cuh"
#include "hopper/ptx/arithmetic.cuh"
#include "hopper/ptx/warpgroup.cuh"

namespace sdpa::hopper {

template <class Traits>
class Epilogue {
 public:
  __device__ Epilogue(const AttentionParams& params, SharedStorage<Traits>& shared, int row_group, int key_group)
      : params_(params), shared_(shared), row_group_(row_group), key_group_(key_group) {}

  // `offsets`: of the head's values, by d. `log2_bias`: what the sums are relative to.
  __device__ void store(const WorkItem& item, float value_scale, const float* offsets, const RowPair& log2_bias,
                        const Accumulator<Traits>& sums) {
    Offsets of_lane;
    of_lane.load(offsets);
    const size_t head_rows = static_cast<size_t>(item.head) * params_.seq_q;
    RowPair factor;
    if constexpr (Traits::kKeyGroups == 1) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        factor.value[h] = normaliser(first_of_quad(sums.row_sum.value[h]), value_scale);
      }
    } else {
      factor = exchange_row_stats(log2_bias, sums.row_sum, value_scale);
      send_packets(sums, factor);
      meet();
    }
#pragma unroll
    for (int packet = 0; packet < Traits::kPackets; ++packet) {
      if (packet % Traits::kKeyGroups != key_group_) continue;
      const int h = packet % 2;
      const int row = item.first_row + row_group_ * kQBlockRows + fragment_row() + 8 * h;
      uint4 values = make_packet(sums, packet, factor.value[h], of_lane);
      if constexpr (Traits::kKeyGroups > 1) values = gather(values, packet);
      if (key_limit(params_, row) == 0) values = make_uint4(0, 0, 0, 0);
      if (row < params_.seq_q) {
        const int first_d = packet / 2 * 32 + 8 * quad_lane();
        *reinterpret_cast<uint4*>(params_.out + (head_rows + row) * Traits::kHeadDim + first_d) = values;
      }
    }
  }

 private:
  // Of the channels that this lane stores.
  struct Offsets {
    float4 value[Traits::kPackets];  // four d; pairs of rows have the same

    __device__ void load(const float* offsets) {
#pragma unroll
      for (int i = 0; i < Traits::kPackets; ++i) {
        value[i] = __ldg(reinterpret_cast<const float4*>(offsets + i / 2 * 32 + 8 * quad_lane()) + i % 2);
      }
    }
  };

  // A row without keys has no sum; its output is zero, offsets or not.
  __device__ static float normaliser(float row_sum, float value_scale) {
    return row_sum > 0.0f ? __fdividef(value_scale, row_sum) : 0.0f;
  }

  // Eight consecutive d of one row; even packets are row g, odd ones row g+8.
  __device__ static uint4 make_packet(const Accumulator<Traits>& sums, int packet, float factor,
                                      const Offsets& offsets) {
    const float* first = sums.values + packet / 2 * 16 + packet % 2 * 2;
    const float4 low = offsets.value[packet / 2 * 2];
    const float4 high = offsets.value[packet / 2 * 2 + 1];
    uint4 values;
    values.x = ptx::pack_half2(fmaf(first[0], factor, low.x), fmaf(first[1], factor, low.y));
    values.y = ptx::pack_half2(fmaf(first[4], factor, low.z), fmaf(first[5], factor, low.w));
    values.z = ptx::pack_half2(fmaf(first[8], factor, high.x), fmaf(first[9], factor, high.y));
    values.w = ptx::pack_half2(fmaf(first[12], factor, high.z), fmaf(first[13], factor, high.w));
    return values;
  }

  __device__ void meet() {
    ptx::named_barrier_sync(kBarrierMerge + row_group_, Traits::kKeyGroups * ptx::kWarpgroupThreads);
  }

  // What each warpgroup must multiply its sums by, so that over the key groups they add up to the output.
  __device__ RowPair exchange_row_stats(const RowPair& log2_bias, const RowPair& row_sum, float value_scale) {
    auto& stats = shared_.merge.row_stats;
    const int row = row_group_ * kQBlockRows + fragment_row();
    if (quad_lane() == 0) {
#pragma unroll
      for (int h = 0; h < 2; ++h) stats[key_group_][row + 8 * h] = make_float2(log2_bias.value[h], row_sum.value[h]);
    }
    meet();
    RowPair factor;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float2 part[Traits::kKeyGroups];
      float lowest = log2_bias.value[h];
#pragma unroll
      for (int k = 0; k < Traits::kKeyGroups; ++k) {
        part[k] = stats[k][row + 8 * h];
        lowest = fminf(lowest, part[k].x);
      }
      float total = 0.0f;
#pragma unroll
      for (int k = 0; k < Traits::kKeyGroups; ++k) total = fmaf(part[k].y, ptx::exp2_approx(lowest - part[k].x), total);
      factor.value[h] = ptx::exp2_approx(lowest - log2_bias.value[h]) * normaliser(total, value_scale);
    }
    return factor;
  }

  __device__ int packet_column() const { return row_group_ * ptx::kWarpgroupThreads + thread_in_warpgroup(); }

  // Normalised shares are bounded by |V|, so FP16 holds them, with 2^-11 of rounding. Offsets are added by who gathers.
  __device__ void send_packets(const Accumulator<Traits>& sums, const RowPair& factor) {
#pragma unroll
    for (int packet = 0; packet < Traits::kPackets; ++packet) {
      if (packet % Traits::kKeyGroups == key_group_) continue;
      auto& sent = shared_.merge.packets[key_group_][packet][packet_column()];
      sent = make_packet(sums, packet, factor.value[packet % 2], {});
    }
  }

  __device__ uint4 gather(uint4 own, int packet) const {
    __half2 sum[4];
    memcpy(sum, &own, sizeof(own));
#pragma unroll
    for (int k = 1; k < Traits::kKeyGroups; ++k) {
      const int other = (key_group_ + k) % Traits::kKeyGroups;
      const uint4 part = shared_.merge.packets[other][packet][packet_column()];
      __half2 addend[4];
      memcpy(addend, &part, sizeof(part));
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] = __hadd2(sum[i], addend[i]);
    }
    memcpy(&own, sum, sizeof(own));
    return own;
  }

  const AttentionParams& params_;
  SharedStorage<Traits>& shared_;
  int row_group_;
  int key_group_;
};

}  // namespace sdpa::hopper
