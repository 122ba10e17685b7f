// Copies of 16 bytes to shared memory that the thread goes on without (cp.async).
#pragma once

#include "hopper/ptx/mbarrier.cuh"

namespace sdpa::hopper::ptx {

// Both places are multiples of 16 bytes.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}

// Until all of this thread's copies have landed.
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

}  // namespace sdpa::hopper::ptx
