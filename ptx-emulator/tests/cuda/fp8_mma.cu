// One warp multiplies 16x32 by 32x8: e4m3, e5m2 mixed, s8 and bf16 operands, each from global memory.
#include <cstdint>
#define FP8(NAME, TA, TB, TC, CTYPE, CONS)                                                            \
  extern "C" __global__ void NAME(const uint32_t* a, const uint32_t* b, CTYPE* c) {                   \
    int l = threadIdx.x, g = l / 4, t = l % 4;                                                        \
    CTYPE d0 = 0, d1 = 0, d2 = 0, d3 = 0;                                                             \
    asm volatile("mma.sync.aligned.m16n8k32.row.col." TC "." TA "." TB "." TC                         \
                 " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                             \
                 : "+" CONS(d0), "+" CONS(d1), "+" CONS(d2), "+" CONS(d3)                             \
                 : "r"(a[g * 8 + t]), "r"(a[(g + 8) * 8 + t]), "r"(a[g * 8 + t + 4]),                 \
                   "r"(a[(g + 8) * 8 + t + 4]), "r"(b[g * 8 + t]), "r"(b[g * 8 + t + 4]));            \
    c[g * 8 + 2 * t] = d0; c[g * 8 + 2 * t + 1] = d1;                                                 \
    c[(g + 8) * 8 + 2 * t] = d2; c[(g + 8) * 8 + 2 * t + 1] = d3;                                     \
  }
FP8(mma_e4m3, "e4m3", "e4m3", "f32", float, "f")
FP8(mma_mixed, "e4m3", "e5m2", "f32", float, "f")
FP8(mma_s8, "s8", "s8", "s32", int, "r")
extern "C" __global__ void mma_bf16(const uint32_t* a, const uint32_t* b, float* c) {
  int l = threadIdx.x, g = l / 4, t = l % 4;
  float d0 = 1, d1 = 1, d2 = 1, d3 = 1;
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
               : "r"(a[g * 8 + t]), "r"(a[(g + 8) * 8 + t]), "r"(a[g * 8 + t + 4]),
                 "r"(a[(g + 8) * 8 + t + 4]), "r"(b[g * 8 + t]), "r"(b[g * 8 + t + 4]));
  c[g * 8 + 2 * t] = d0; c[g * 8 + 2 * t + 1] = d1;
  c[(g + 8) * 8 + 2 * t] = d2; c[(g + 8) * 8 + 2 * t + 1] = d3;
}
