// Purpose: who owns which of the CTA's sixteen hardware barriers.
// Responsible for: keeping the ids apart, and the three protocols that are built on them.
// Leaves to others: when to synchronise.
#pragma once

#include <cstdint>

#include "sdpa/ptx/barrier.cuh"

namespace sdpa {

constexpr int kMaxSlots = 3;
constexpr int kMaxRowGroups = 8;

// Id 0 belongs to __syncthreads. Every slot has an id of its own in each direction: with a shared id, an early
// arrival for one slot would complete the generation of another.
enum NamedBarrier : uint32_t {
  kBarrierCta = 0,
  kBarrierConsumers = 1,
  kBarrierFull = 2,
  kBarrierEmpty = kBarrierFull + kMaxSlots,
  kBarrierRowGroup = kBarrierEmpty + kMaxSlots,
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

// Hands half tiles from producers to consumers (full) and back (empty). A slot is filled for tile t and again for
// tile t + kSlots; producers wait for `empty` from the second filling on, and consumers announce it only when
// such a filling will come, so no barrier is left half complete when the CTA ends.
template <class Traits, int kSlots>
struct SlotBarriers {
  static_assert(kSlots <= kMaxSlots, "SDPA_STAGES: named_barriers.cuh has no ids for so many slots");
  static constexpr uint32_t kParties = Traits::kProducerThreads + Traits::kConsumerThreads;

  static __device__ __forceinline__ void producer_acquire(int tile) {
    if (tile >= kSlots) ptx::bar_sync(kBarrierEmpty + tile % kSlots, kParties);
  }
  static __device__ __forceinline__ void producer_commit(int tile) {
    ptx::bar_arrive(kBarrierFull + tile % kSlots, kParties);
  }
  static __device__ __forceinline__ void consumer_wait(int tile) {
    ptx::bar_sync(kBarrierFull + tile % kSlots, kParties);
  }
  static __device__ __forceinline__ void consumer_release(int tile, int tiles) {
    if (tile + kSlots < tiles) ptx::bar_arrive(kBarrierEmpty + tile % kSlots, kParties);
  }
};

}  // namespace sdpa
