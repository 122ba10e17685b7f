// Lines of global memory brought near ahead of their use.
#pragma once

namespace sdpa::hopper::ptx {

// The line that holds `place`, into this multiprocessor's L1.
__device__ __forceinline__ void prefetch_to_l1(const void* place) {
  asm volatile("prefetch.global.L1 [%0];" ::"l"(place));
}

}  // namespace sdpa::hopper::ptx
