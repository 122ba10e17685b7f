// Purpose: the warp-wide matrix instructions whose register layout is documented, unlike that of a WMMA fragment.
// Responsible for: one wrapper per instruction.
// Leaves to others: which rows and columns the registers stand for (operands.cuh).
//
// Lane 4g + t. A (16x16): a[0] row g, columns 2t, 2t+1; a[1] row g+8; a[2] row g, columns 2t+8, 2t+9; a[3] row g+8.
// B (16x8): b[0] rows 2t, 2t+1 of column g; b[1] rows 2t+8, 2t+9. C (16x8): c[0], c[1] row g, columns 2t, 2t+1; c[2],
// c[3] row g+8.
#pragma once

#include <cstdint>

namespace sdpa::ptx {

// Four 8x8 matrices of 16-bit elements; lane 8i + r gives the address of row r of matrix i, 16 bytes at a multiple of
// 16. Register i of lane 4g + t receives elements 2t, 2t+1 of row g of matrix i.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// The same with each matrix transposed: register i receives column g, elements of rows 2t and 2t+1.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// C += A B, halves with FP32 sums.
__device__ __forceinline__ void mma_m16n8k16_f32_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// C (16x8) += A (16x32) B (32x8), e4m3 with FP32 registers for the sums, of which the sm_89 tensor cores keep about 13
// fraction bits. Lane 4g + t, byte b: a[r] is row g + 8 (r % 2), column 4t + b + 16 (r / 2); b[r] is row 4t + b + 16 r of
// column g; C as above.
__device__ __forceinline__ void mma_m16n8k32_f32_e4m3(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The bytes of `low` (0 to 3) and `high` (4 to 7) that the four digits of kSelect name, lowest first.
template <uint32_t kSelect>
__device__ __forceinline__ uint32_t prmt(uint32_t low, uint32_t high) {
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(low), "r"(high), "n"(kSelect));
  return result;
}

}  // namespace sdpa::ptx
