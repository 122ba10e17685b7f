// Where a lane's registers lie in a 64-row accumulator of wgmma: lane 4g+t of warp w owns rows 16w+g and 16w+g+8 and,
// in each group of eight columns, columns 2t and 2t+1.
#pragma once

#include <cstdint>

#include "hopper/ptx/warpgroup.cuh"

namespace sdpa::hopper {

// One value for the lane's row g and one for its row g+8.
struct RowPair {
  float value[2];
};

__device__ __forceinline__ int thread_in_warpgroup() { return threadIdx.x % ptx::kWarpgroupThreads; }

__device__ __forceinline__ int lane() { return threadIdx.x % ptx::kWarpThreads; }

// t: which column pair of eight columns.
__device__ __forceinline__ int quad_lane() { return threadIdx.x % 4; }

// The first of the lane's two rows; the second is 8 further.
__device__ __forceinline__ int fragment_row() {
  return thread_in_warpgroup() / ptx::kWarpThreads * 16 + lane() / 4;
}

// What the first lane of the quad has: row sums are valid there alone.
__device__ __forceinline__ float first_of_quad(float x) { return __shfl_sync(0xffffffffu, x, 0, 4); }

}  // namespace sdpa::hopper
