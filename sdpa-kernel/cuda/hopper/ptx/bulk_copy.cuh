// One-dimensional bulk copies from global to shared memory. The quantiser stores operands as exact shared-memory
// images, so no tensor map is needed: no descriptor fetch before the first byte, and no driver call on the host.
#pragma once

#include <cstdint>

#include "hopper/ptx/mbarrier.cuh"

namespace sdpa::hopper::ptx {

// Both addresses and `bytes` are multiples of 16; `barrier` receives the byte count when the data have landed.
__device__ __forceinline__ void bulk_copy_to_shared(void* destination, const void* source, uint32_t bytes,
                                                    uint64_t& barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(destination)),
               "l"(__cvta_generic_to_global(source)), "r"(bytes), "r"(shared_address(&barrier))
               : "memory");
}

// Orders this thread's ordinary stores to shared memory before later reads by the tensor cores or the copy engine.
__device__ __forceinline__ void fence_shared_for_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

}  // namespace sdpa::hopper::ptx
