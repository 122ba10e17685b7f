// Purpose: who owns which of the CTA's sixteen hardware barriers.
// Responsible for: keeping the ids apart.
// Leaves to others: when to synchronise, and the hand-over between producers and consumers (slots.cuh).
#pragma once

#include <cstdint>

#include "ladder/ptx/barrier.cuh"

namespace sdpa {

constexpr int kMaxRowGroups = 8;

// Id 0 belongs to __syncthreads.
enum NamedBarrier : uint32_t {
  kBarrierCta = 0,
  kBarrierConsumers = 1,
  kBarrierRowGroup = 2,
  kBarrierEnd = kBarrierRowGroup + kMaxRowGroups,
};
static_assert(kBarrierEnd <= 16, "a CTA has sixteen barriers");

// All consumer threads, or all threads of a CTA that has no producers.
template <class Traits>
__device__ __forceinline__ void sync_consumers() {
  ptx::bar_sync(kBarrierConsumers, Traits::kConsumerThreads);
}

// The warps that share the same query rows.
template <int kWarps>
__device__ __forceinline__ void sync_row_group(int group) {
  if constexpr (kWarps == 1) {
    __syncwarp();
  } else {
    ptx::bar_sync(kBarrierRowGroup + group, kWarps * 32);
  }
}

}  // namespace sdpa
