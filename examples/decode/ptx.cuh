// What decode.cu needs of single instructions, and conversions of e4m3.
// Leaves to others: in which order they are used.
#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t halves_of(uint16_t codes) {
  const __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(codes, __NV_E4M3);
  return pair.x | static_cast<uint32_t>(pair.y) << 16;
}

__device__ __forceinline__ uint32_t low_halves(uint32_t codes) { return halves_of(static_cast<uint16_t>(codes)); }
__device__ __forceinline__ uint32_t high_halves(uint32_t codes) { return halves_of(static_cast<uint16_t>(codes >> 16)); }

__device__ __forceinline__ uint32_t packed(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// C (16 x 8) += A (16 x 16) B (16 x 8). Lane 4g + t has rows g and g + 8 of A and C, and column g of B.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The transpose of 8 x 8 halves, of which a lane has two of a row.
__device__ __forceinline__ uint32_t transposed(uint32_t pair) {
  uint32_t result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// Worked out once: the compiler would do it again in every turn of a loop rather than keep a register.
__device__ __forceinline__ void keep(int& value) { asm volatile("" : "+r"(value)); }
__device__ __forceinline__ void keep(const uint8_t*& value) { asm volatile("" : "+l"(value)); }

// One instruction, which the compiler makes five of.
__device__ __forceinline__ const uint8_t* row_at(const uint8_t* rows, int row, int stride) {
  const uint8_t* at;
  asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(at) : "r"(row), "r"(stride), "l"(rows));
  return at;
}

// 16 bytes to shared memory, zeros where `there` is false.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// For this thread's copies, but those of the last NEWER groups.
template <int NEWER>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(NEWER) : "memory");
}

// One more has come: how many had before, up to `last`, after which the counter is 0 again. What the block wrote before is
// seen by the blocks that come later, and what those before wrote by this thread, where it is FENCED.
template <bool FENCED>
__device__ __forceinline__ unsigned count_arrival(unsigned* counter, unsigned last) {
  unsigned before;
  if constexpr (FENCED)
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(last) : "memory");
  else
    asm volatile("atom.relaxed.gpu.global.inc.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(last) : "memory");
  return before;
}
