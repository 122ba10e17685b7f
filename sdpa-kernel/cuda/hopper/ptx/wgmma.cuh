// Warpgroup matrix multiply (wgmma) on e4m3 operands: descriptors, ordering, and one wrapper per shape in use.
// 8-bit wgmma takes both operands K-major only. Lane 4g+t of warp w owns rows 16w+g and 16w+g+8 of an accumulator:
//   f32: d[4j+2h+e] = row g+8h, column 8j+2t+e          f16: d[2j+h] = row g+8h, columns 8j+2t and 8j+2t+1
// and of a register A operand (16 rows x 32 bytes a warp): a[r] = row g+8(r&1), bytes 4t..4t+3 of half r>>1.
#pragma once

#include <cstdint>

#include "hopper/ptx/mbarrier.cuh"

namespace sdpa::hopper::ptx {

enum class Swizzle : uint32_t { k128Bytes = 1, k64Bytes = 2 };

// Matrix descriptor of a K-major tile in shared memory whose rows are as long as the swizzle span. The tile starts on a
// multiple of eight rows, so the base offset is 0, and the leading dimension is ignored for swizzled K-major layouts.
template <Swizzle kSwizzle>
__device__ __forceinline__ uint64_t matrix_descriptor(const void* tile) {
  constexpr uint32_t kRowBytes = kSwizzle == Swizzle::k128Bytes ? 128 : 64;
  constexpr uint32_t kStride = 8 * kRowBytes / 16;  // between groups of eight rows, in units of 16 bytes
  constexpr uint32_t kHigh = kStride | static_cast<uint32_t>(kSwizzle) << 30;
  return static_cast<uint64_t>(kHigh) << 32 | 1u << 16 | (shared_address(tile) & 0x3ffffu) >> 4;
}

// A place further on in the tile: whole groups of eight rows, or 32-byte steps along a row, where the swizzle follows
// from the address bits.
__device__ __forceinline__ uint64_t advance_descriptor(uint64_t descriptor, int bytes) {
  return descriptor + bytes / 16;
}

// Orders register writes before the wgmmas that follow and read them.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Pins registers at this point of the program: the compiler knows nothing of asynchronous writes and would otherwise be
// free to move their readers above the wait.
template <int kCount>
__device__ __forceinline__ void pin_registers(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

template <int kCount>
__device__ __forceinline__ void pin_registers(uint32_t (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

// Operand lists, four registers at a time; private to this header.
#define SDPA_F32X4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SDPA_B32X4(d, i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])

// d [64 x 32] (+)= a [64 x 32] . b [32 x 32]^T, both from shared memory.
template <bool kAccumulate>
__device__ __forceinline__ void wgmma_m64n32k32_ss(uint64_t a, uint64_t b, float (&d)[16]) {
  asm volatile(
      "{\n"
      ".reg .pred accumulate;\n"
      "setp.ne.b32 accumulate, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "%16, %17, accumulate, 1, 1;\n"
      "}\n"
      : SDPA_F32X4(d, 0), SDPA_F32X4(d, 4), SDPA_F32X4(d, 8), SDPA_F32X4(d, 12)
      : "l"(a), "l"(b), "n"(kAccumulate ? 1 : 0));
}

// d [64 x 64] (+)= a [64 x 32] . b [64 x 32]^T, both from shared memory.
template <bool kAccumulate>
__device__ __forceinline__ void wgmma_m64n64k32_ss(uint64_t a, uint64_t b, float (&d)[32]) {
  asm volatile(
      "{\n"
      ".reg .pred accumulate;\n"
      "setp.ne.b32 accumulate, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, accumulate, 1, 1;\n"
      "}\n"
      : SDPA_F32X4(d, 0), SDPA_F32X4(d, 4), SDPA_F32X4(d, 8), SDPA_F32X4(d, 12), SDPA_F32X4(d, 16), SDPA_F32X4(d, 20),
        SDPA_F32X4(d, 24), SDPA_F32X4(d, 28)
      : "l"(a), "l"(b), "n"(kAccumulate ? 1 : 0));
}

// d [64 x 128] (+)= a [64 x 32] . b [128 x 32]^T, both from shared memory.
template <bool kAccumulate>
__device__ __forceinline__ void wgmma_m64n128k32_ss(uint64_t a, uint64_t b, uint32_t (&d)[32]) {
  asm volatile(
      "{\n"
      ".reg .pred accumulate;\n"
      "setp.ne.b32 accumulate, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f16.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, accumulate, 1, 1;\n"
      "}\n"
      : SDPA_B32X4(d, 0), SDPA_B32X4(d, 4), SDPA_B32X4(d, 8), SDPA_B32X4(d, 12), SDPA_B32X4(d, 16), SDPA_B32X4(d, 20),
        SDPA_B32X4(d, 24), SDPA_B32X4(d, 28)
      : "l"(a), "l"(b), "n"(kAccumulate ? 1 : 0));
}

// d [64 x 72] (+)= a [64 x 32] . b [72 x 32]^T, a from registers.
template <bool kAccumulate>
__device__ __forceinline__ void wgmma_m64n72k32_rs(const uint32_t* a, uint64_t b, float (&d)[36]) {
  asm volatile(
      "{\n"
      ".reg .pred accumulate;\n"
      "setp.ne.b32 accumulate, %41, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n72k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35}, "
      "{%36, %37, %38, %39}, %40, accumulate, 1, 1;\n"
      "}\n"
      : SDPA_F32X4(d, 0), SDPA_F32X4(d, 4), SDPA_F32X4(d, 8), SDPA_F32X4(d, 12), SDPA_F32X4(d, 16), SDPA_F32X4(d, 20),
        SDPA_F32X4(d, 24), SDPA_F32X4(d, 28), SDPA_F32X4(d, 32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kAccumulate ? 1 : 0));
}

// d [64 x 136] (+)= a [64 x 32] . b [136 x 32]^T, a from registers.
template <bool kAccumulate>
__device__ __forceinline__ void wgmma_m64n136k32_rs(const uint32_t* a, uint64_t b, float (&d)[68]) {
  asm volatile(
      "{\n"
      ".reg .pred accumulate;\n"
      "setp.ne.b32 accumulate, %73, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n136k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      " %64, %65, %66, %67}, "
      "{%68, %69, %70, %71}, %72, accumulate, 1, 1;\n"
      "}\n"
      : SDPA_F32X4(d, 0), SDPA_F32X4(d, 4), SDPA_F32X4(d, 8), SDPA_F32X4(d, 12), SDPA_F32X4(d, 16), SDPA_F32X4(d, 20),
        SDPA_F32X4(d, 24), SDPA_F32X4(d, 28), SDPA_F32X4(d, 32), SDPA_F32X4(d, 36), SDPA_F32X4(d, 40),
        SDPA_F32X4(d, 44),
        SDPA_F32X4(d, 48), SDPA_F32X4(d, 52), SDPA_F32X4(d, 56), SDPA_F32X4(d, 60), SDPA_F32X4(d, 64)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kAccumulate ? 1 : 0));
}

#undef SDPA_F32X4
#undef SDPA_B32X4

// Overloads that let a kernel name the shape by its accumulator.
template <bool kAccumulate>
__device__ __forceinline__ void wgmma_scores(uint64_t q, uint64_t k, float (&scores)[16]) {
  wgmma_m64n32k32_ss<kAccumulate>(q, k, scores);
}

template <bool kAccumulate>
__device__ __forceinline__ void wgmma_scores(uint64_t q, uint64_t k, float (&scores)[32]) {
  wgmma_m64n64k32_ss<kAccumulate>(q, k, scores);
}

template <bool kAccumulate>
__device__ __forceinline__ void wgmma_scores(uint64_t q, uint64_t k, uint32_t (&scores)[32]) {
  wgmma_m64n128k32_ss<kAccumulate>(q, k, scores);
}

template <bool kAccumulate>
__device__ __forceinline__ void wgmma_values(const uint32_t* p, uint64_t v, float (&tile)[36]) {
  wgmma_m64n72k32_rs<kAccumulate>(p, v, tile);
}

template <bool kAccumulate>
__device__ __forceinline__ void wgmma_values(const uint32_t* p, uint64_t v, float (&tile)[68]) {
  wgmma_m64n136k32_rs<kAccumulate>(p, v, tile);
}

}  // namespace sdpa::hopper::ptx
