// Purpose: the sixteen hardware barriers of a CTA, by number.
// Responsible for: one wrapper per instruction.
// Leaves to others: the numbers (named_barriers.cuh) and the protocol.
#pragma once

#include <cstdint>

namespace sdpa::ptx {

// Arrives and waits. `threads` counts everyone who arrives or waits in one generation, a multiple of 32.
__device__ __forceinline__ void bar_sync(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Arrives and goes on: what this thread wrote before is visible to whoever waits on the same generation.
__device__ __forceinline__ void bar_arrive(uint32_t id, uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace sdpa::ptx
