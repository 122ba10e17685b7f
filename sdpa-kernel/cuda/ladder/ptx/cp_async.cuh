// Purpose: the non-bulk asynchronous copies from global to shared memory (sm_80 and later).
// Responsible for: one wrapper per instruction.
// Leaves to others: which bytes to copy, and who has to wait for them.
#pragma once

#include <cstdint>

namespace sdpa::ptx {

// Copies 16 bytes past L1; bytes from `source_bytes` on are written as zeros, so 0 reads nothing and only fills.
// Both addresses are 16-byte aligned.
__device__ __forceinline__ void cp_async_cg_16(void* shared, const void* global, uint32_t source_bytes) {
  const auto destination = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(global), "r"(source_bytes)
               : "memory");
}

// Closes the group of this thread's copies since the last commit; a group may be empty.
__device__ __forceinline__ void cp_async_commit_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending of this thread's youngest groups are under way. Speaks for this thread's copies only.
template <int kPending>
__device__ __forceinline__ void cp_async_wait_group() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace sdpa::ptx
