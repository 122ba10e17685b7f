// Purpose: hands tiles in shared memory from producer warps to consumer warps (full) and back (empty).
// Responsible for: the protocol, on one pair of mbarriers a slot.
// Leaves to others: what a slot holds, and who the parties are (kernel_ws.cuh).
#pragma once

#include <cstdint>

#include "common/ptx/mbarrier.cuh"

namespace sdpa {

// Slot t % kSlots is filled for tile t, and again for tile t + kSlots: use u = t / kSlots of the slot.
//
// Why it is correct. Phase u of `full` completes when every producer has arrived after its writes of use u, and a
// consumer waits for it before it reads: reads see the writes. Phase u of `empty` completes when every consumer has
// arrived after its reads of use u, and a producer waits for it before it writes use u + 1: no write meets a read.
// A wait by parity cannot mistake phase u - 2 for u. The consumer that waits for phase u of `full` has arrived at
// `empty` in phase u - 1, without which no producer begins use u, and `full` had completed phase u - 1 before that:
// only u can still be open. The same holds for producers with `empty`, one phase behind.
// No deadlock: a producer waits only for consumers of a tile that it handed over, kSlots tiles ago.
//
// Why this form. With named barriers (bar.arrive, bar.sync) the protocol is as correct and as fast, but the race
// checker does not see that bar.arrive orders a consumer's reads before the next filling, and reports them. It does
// follow an mbarrier, for the threads that arrive themselves; so every thread arrives, though one lane for its warp
// would do.
template <int kSlots>
struct Slots {
  struct SharedStorage {
    ptx::Mbarrier full[kSlots];
    ptx::Mbarrier empty[kSlots];
  };

  SharedStorage& shared;

  // By one thread, before a barrier of the CTA that every thread passes before it waits or arrives here.
  __device__ __forceinline__ void init(int producer_threads, int consumer_threads) {
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      ptx::mbarrier_init(shared.full[slot], producer_threads);
      ptx::mbarrier_init(shared.empty[slot], consumer_threads);
    }
  }

  // The first filling of a slot waits for nobody.
  __device__ __forceinline__ void producer_acquire(int tile) {
    if (tile >= kSlots) wait(shared.empty[tile % kSlots], tile / kSlots - 1);
  }
  __device__ __forceinline__ void producer_commit(int tile) { ptx::mbarrier_arrive(shared.full[tile % kSlots]); }
  __device__ __forceinline__ void consumer_wait(int tile) { wait(shared.full[tile % kSlots], tile / kSlots); }
  __device__ __forceinline__ void consumer_release(int tile) { ptx::mbarrier_arrive(shared.empty[tile % kSlots]); }

 private:
  static __device__ __forceinline__ void wait(ptx::Mbarrier& barrier, int use) {
    while (!ptx::mbarrier_test_wait_parity(barrier, use & 1)) {
    }
  }
};

}  // namespace sdpa
