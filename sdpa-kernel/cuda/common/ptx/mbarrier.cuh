// Purpose: barriers in shared memory, in the forms that sm_80 and later have (no try_wait, no transaction counts).
// Responsible for: one wrapper per instruction.
// Leaves to others: the protocol.
#pragma once

#include <cstdint>

namespace sdpa::ptx {

// What a barrier is in shared memory: eight bytes, aligned to eight.
using Mbarrier = uint64_t;

__device__ __forceinline__ uint32_t mbarrier_address(Mbarrier& barrier) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(&barrier));
}

// `arrivals` complete a phase; the first phase is number 0.
__device__ __forceinline__ void mbarrier_init(Mbarrier& barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(mbarrier_address(barrier)), "r"(arrivals) : "memory");
}

// What this thread wrote and read before is ordered before what a thread does that has seen the phase complete.
__device__ __forceinline__ void mbarrier_arrive(Mbarrier& barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(mbarrier_address(barrier)) : "memory");
}

// Whether the phase of this parity has completed.
__device__ __forceinline__ bool mbarrier_test_wait_parity(Mbarrier& barrier, uint32_t parity) {
  uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(done)
      : "r"(mbarrier_address(barrier)), "r"(parity)
      : "memory");
  return done != 0;
}

}  // namespace sdpa::ptx
