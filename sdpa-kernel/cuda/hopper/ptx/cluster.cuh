// Thread block clusters: rank, size, barrier, and stores into a peer's shared memory.
#pragma once

#include <cstdint>

#include "hopper/ptx/mbarrier.cuh"

namespace sdpa::hopper::ptx {

constexpr int kLargestPortableCluster = 8;

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ __forceinline__ uint32_t cluster_size() {
  uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}

__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.aligned;" ::: "memory"); }

// Enough to know that the peers run; orders no memory.
__device__ __forceinline__ void cluster_arrive_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.aligned;" ::: "memory"); }

// Stores to the variable of CTA `rank` that `local` is here.
__device__ __forceinline__ void store_to_peer(uint32_t& local, uint32_t rank, uint32_t value) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "st.shared::cluster.b32 [remote], %2;\n"
      "}\n" ::"r"(shared_address(&local)),
      "r"(rank), "r"(value)
      : "memory");
}

}  // namespace sdpa::hopper::ptx
