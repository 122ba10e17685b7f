// Transaction barriers in shared memory (mbarrier): what Hopper adds to the common forms, one wrapper per instruction, and
// the spin that waits on a phase.
// A build with SDPA_SPIN_LIMIT=n traps after n fruitless polls, so that a lost arrival is an error and not a hang.
#pragma once

#include <cstdint>

#include "common/ptx/mbarrier.cuh"

namespace sdpa::hopper::ptx {

using sdpa::ptx::mbarrier_arrive;
using sdpa::ptx::mbarrier_init;

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Makes initialised barriers visible to the bulk-copy engine and to the other CTAs of a cluster.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive_expect_bytes(uint64_t& barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ bool mbarrier_try_wait(uint64_t& barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n"
      "}\n"
      : "=r"(done)
      : "r"(shared_address(&barrier)), "r"(parity)
      : "memory");
  return done != 0;
}

// Returns once the phase of the given parity has completed.
__device__ __forceinline__ void mbarrier_wait(uint64_t& barrier, uint32_t parity) {
#ifdef SDPA_SPIN_LIMIT
  for (uint32_t polls = 0; !mbarrier_try_wait(barrier, parity); ++polls) {
    if (polls > SDPA_SPIN_LIMIT) __trap();
  }
#else
  while (!mbarrier_try_wait(barrier, parity)) {
  }
#endif
}

}  // namespace sdpa::hopper::ptx
