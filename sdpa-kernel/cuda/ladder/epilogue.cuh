// Purpose: O from FP32 in shared memory to FP16 in global memory.
// Responsible for: the factor of a row (value scale over softmax sum), the bounds of the query sequence, wide stores.
// Leaves to others: the barrier between laying O down and storing it.
#pragma once

#include <cuda_fp16.h>

#include "ladder/params.h"
#include "ladder/pv.cuh"
#include "ladder/scheduler.cuh"

namespace sdpa {

// A row that has seen no key has sum 0 and is defined as zero.
__device__ __forceinline__ float row_factor(float v_scale, float row_sum) {
  return row_sum > 0.0f ? v_scale / row_sum : 0.0f;
}

template <class Traits>
struct Epilogue {
  struct SharedStorage {
    OutputTile<Traits> o;  // (kTileQ, kHeadDim)
    float row_factor[Traits::kTileQ];
  };

  // Eight columns a thread and step: 16 bytes, and neighbouring threads write neighbouring bytes.
  static __device__ __forceinline__ void store(const SharedStorage& storage, const Params& p, const Work& work,
                                               int thread) {
    constexpr int kPerRow = Traits::kHeadDim / 8;
    constexpr int kCount = Traits::kTileQ * kPerRow;
    const size_t first = (static_cast<size_t>(work.head) * p.seq_q + work.first_row) * Traits::kHeadDim;
    const int rows = p.seq_q - work.first_row;
#pragma unroll
    for (int i = thread; i < kCount; i += Traits::kConsumerThreads) {
      const int row = i / kPerRow;
      if (row >= rows) break;
      const auto* columns = reinterpret_cast<const float4*>(storage.o.at(row, i % kPerRow * 8));
      const float factor = storage.row_factor[row];
      const float4 low = columns[0];
      const float4 high = columns[1];
      const __half2 halves[4] = {__floats2half2_rn(low.x * factor, low.y * factor),
                                 __floats2half2_rn(low.z * factor, low.w * factor),
                                 __floats2half2_rn(high.x * factor, high.y * factor),
                                 __floats2half2_rn(high.z * factor, high.w * factor)};
      reinterpret_cast<uint4*>(p.out + first)[i] = reinterpret_cast<const uint4&>(halves);
    }
  }
};

}  // namespace sdpa
