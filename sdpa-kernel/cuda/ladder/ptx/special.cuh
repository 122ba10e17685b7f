// Purpose: special registers that CUDA C++ has no name for.
// Responsible for: one wrapper per register.
// Leaves to others: what to conclude from them.
#pragma once

#include <cstdint>

namespace sdpa::ptx {

// How many SM numbers there are: at least the number of SMs.
__device__ __forceinline__ uint32_t sm_count() {
  uint32_t count;
  asm("mov.u32 %0, %%nsmid;" : "=r"(count));
  return count;
}

}  // namespace sdpa::ptx
