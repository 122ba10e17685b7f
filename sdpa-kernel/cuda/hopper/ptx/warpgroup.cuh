// What a warpgroup does besides multiplying: redistribute registers, meet at a named barrier, know its own index.
#pragma once

#include <cstdint>

namespace sdpa::hopper::ptx {

constexpr int kWarpThreads = 32;
constexpr int kWarpgroupThreads = 128;

// setmaxnreg moves registers within the pool that the launch allocated; an increase waits until they are free.
template <int kRegisters>
__device__ __forceinline__ void grow_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256, "setmaxnreg takes 24..256 in steps of 8");
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ __forceinline__ void shrink_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256, "setmaxnreg takes 24..256 in steps of 8");
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Barrier 0 is __syncthreads; ids 1..15 are free. `threads` counts everyone who meets.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Counts towards a named barrier without waiting at it.
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// True in one lane of a converged warp. The compiler knows that it is one, and may issue bulk copies from uniform
// registers without a loop over the lanes.
__device__ __forceinline__ bool elect_one() {
  uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred elected;\n"
      "elect.sync _|elected, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, elected;\n"
      "}\n"
      : "=r"(elected));
  return elected != 0;
}

// The shuffle tells the compiler that the value is the same in the whole warp, which keeps what derives from it
// (descriptors, barrier addresses, branches) in uniform registers.
__device__ __forceinline__ int warp_uniform(int value) { return __shfl_sync(0xffffffffu, value, 0); }

// The same value, of which the compiler knows nothing: what is computed from it stays where it stands and is not kept
// in registers across a loop.
__device__ __forceinline__ int opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

}  // namespace sdpa::hopper::ptx
