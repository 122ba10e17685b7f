// Purpose: what the chip can do at most: one kernel for each rate that bounds an attention kernel.
// Responsible for: work that nothing but the rate in question limits, and the clocks that it took.
// Leaves to others: grids, times and what a unit of work is (sdpa-runner/src/ceilings.rs counts it; both name the same
// constants).
#include <cuda_fp16.h>

#include <cstdint>

#include "common/ptx/mma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#include "hopper/ptx/wgmma.cuh"
#endif

namespace sdpa {

struct CeilingParams {
  const uint4* source;
  uint4* sink;         // written only when `keep` says so: nothing may be optimised away, and nothing is to be stored
  uint64_t* clocks;    // [gridDim.x], of a CTA from its first warp's start to its last warp's end
  uint64_t chunks;     // 16-byte chunks of source
  int32_t iterations;
  int32_t keep;
};
static_assert(sizeof(CeilingParams) == 40, "sdpa-runner/src/ceilings.rs mirrors this struct");

constexpr int kChains = 8;  // independent operations of a thread, so that latency does not count
constexpr int kSteps = 16;  // of each chain, per iteration

__device__ __forceinline__ uint32_t hash(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ x >> 16;
}

// Runs body() `iterations` times and leaves the clocks.
template <class Body>
__device__ __forceinline__ void timed(const CeilingParams& p, Body body) {
  __syncthreads();
  const long long start = clock64();
#pragma unroll 1
  for (int i = 0; i < p.iterations; ++i) body();
  __syncthreads();
  if (threadIdx.x == 0) p.clocks[blockIdx.x] = clock64() - start;
}

template <class Step>
__device__ __forceinline__ void chains(const CeilingParams& p, Step step) {
  uint32_t x[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) x[i] = hash(threadIdx.x * kChains + i) & 0x3bff3bffu;  // finite in every format
  timed(p, [&] {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int i = 0; i < kChains; ++i) step(x[i]);
    }
  });
  uint32_t all = 0;
#pragma unroll
  for (int i = 0; i < kChains; ++i) all ^= x[i];
  if (p.keep) p.sink[blockIdx.x * blockDim.x + threadIdx.x].x = all;
}

}  // namespace sdpa

#define SDPA_CEILING(name) extern "C" __global__ void __launch_bounds__(512, 1) name(const __grid_constant__ sdpa::CeilingParams p)

SDPA_CEILING(ceiling_empty) {}

// One instruction a step unless it says otherwise.
SDPA_CEILING(ceiling_exp2_f32) {
  sdpa::chains(p, [](uint32_t& x) { asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+r"(x)); });
}
SDPA_CEILING(ceiling_exp2_f16x2) {
  sdpa::chains(p, [](uint32_t& x) { asm volatile("ex2.approx.f16x2 %0, %0;" : "+r"(x)); });
}
SDPA_CEILING(ceiling_fma_f32) {
  const uint32_t a = __float_as_uint(0.5f), b = __float_as_uint(1.5f + threadIdx.x);
  sdpa::chains(p, [=](uint32_t& x) { asm volatile("fma.rn.f32 %0, %0, %1, %2;" : "+r"(x) : "r"(a), "r"(b)); });
}
SDPA_CEILING(ceiling_fma_f16x2) {
  const uint32_t a = 0x38003800u, b = 0x3c003c00u + threadIdx.x;
  sdpa::chains(p, [=](uint32_t& x) { asm volatile("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(x) : "r"(a), "r"(b)); });
}
SDPA_CEILING(ceiling_prmt) {
  const uint32_t a = threadIdx.x, s = 0x6240u + (threadIdx.x & 1);
  sdpa::chains(p, [=](uint32_t& x) { asm volatile("prmt.b32 %0, %0, %1, %2;" : "+r"(x) : "r"(a), "r"(s)); });
}
SDPA_CEILING(ceiling_shuffle) {
  sdpa::chains(p, [](uint32_t& x) { x = __shfl_xor_sync(0xffffffffu, x, 1); });
}
// Two conversions a step: their halves join in one register without a further instruction.
SDPA_CEILING(ceiling_cvt_e4m3x2_f32) {
  const float a = 1.5f + threadIdx.x;
  sdpa::chains(p, [=](uint32_t& x) {
    asm volatile(
        "{\n.reg .b16 low, high;\n"
        "cvt.rn.satfinite.e4m3x2.f32 low, %0, %1;\n"
        "cvt.rn.satfinite.e4m3x2.f32 high, %1, %0;\n"
        "mov.b32 %0, {low, high};\n}\n"
        : "+r"(x)
        : "r"(__float_as_uint(a)));
  });
}
SDPA_CEILING(ceiling_cvt_e4m3x2_f16x2) {
  sdpa::chains(p, [](uint32_t& x) {
    asm volatile("{\n.reg .b16 low;\ncvt.rn.satfinite.e4m3x2.f16x2 low, %0;\ncvt.u32.u16 %0, low;\n}\n" : "+r"(x));
  });
}
SDPA_CEILING(ceiling_cvt_f16x2_e4m3x2) {
  sdpa::chains(p, [](uint32_t& x) {
    asm volatile("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %0;\ncvt.rn.f16x2.e4m3x2 %0, low;\n}\n" : "+r"(x));
  });
}

// Products of a warp: eight accumulators, one product each an iteration step.
template <class Multiply>
__device__ __forceinline__ void products(const sdpa::CeilingParams& p, Multiply multiply) {
  float c[sdpa::kChains][4] = {};
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = sdpa::hash(threadIdx.x + 1000 * i) & 0x33333333u;
  for (int i = 0; i < 2; ++i) b[i] = sdpa::hash(threadIdx.x + 5000 * i) & 0xb3b3b3b3u;
  sdpa::timed(p, [&] {
#pragma unroll
    for (int s = 0; s < sdpa::kSteps; ++s) {
#pragma unroll
      for (int i = 0; i < sdpa::kChains; ++i) multiply(c[i], a, b);
    }
  });
  float all = 0.0f;
#pragma unroll
  for (int i = 0; i < sdpa::kChains; ++i) all += c[i][0] + c[i][1] + c[i][2] + c[i][3];
  if (p.keep) p.sink[blockIdx.x * blockDim.x + threadIdx.x].x = __float_as_uint(all);
}

SDPA_CEILING(ceiling_mma_f16) {
  products(p, [](float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    sdpa::ptx::mma_m16n8k16_f32_f16(c, a, b);
  });
}

// Later architectures have no such instruction and would convert.
#if __CUDA_ARCH__ == 890
SDPA_CEILING(ceiling_mma_e4m3) {
  products(p, [](float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    sdpa::ptx::mma_m16n8k32_f32_e4m3(c, a, b);
  });
}
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Products of a warpgroup, both operands from shared memory: 64 rows and 128 or 64 columns.
constexpr int kWgmmaBytes = 128 * 64;
template <class Multiply>
__device__ __forceinline__ void warpgroup_products(const sdpa::CeilingParams& p, Multiply multiply) {
  __shared__ __align__(1024) uint32_t tile[kWgmmaBytes / 4];
  for (int i = threadIdx.x; i < kWgmmaBytes / 4; i += blockDim.x) tile[i] = sdpa::hash(i) & 0xb3b3b3b3u;
  asm volatile("fence.proxy.async;" ::: "memory");
  __syncthreads();
  using namespace sdpa::hopper::ptx;
  const uint64_t operand = matrix_descriptor<Swizzle::k64Bytes>(tile);
  sdpa::timed(p, [&] {
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < sdpa::kSteps; ++s) multiply(operand);
    wgmma_commit();
    wgmma_wait<0>();
  });
}

SDPA_CEILING(ceiling_wgmma_e4m3) {
  uint32_t d[32] = {};
  warpgroup_products(p, [&](uint64_t x) { sdpa::hopper::ptx::wgmma_m64n128k32_ss<true>(x, x, d); });
  sdpa::hopper::ptx::pin_registers(d);
  if (p.keep) p.sink[blockIdx.x * blockDim.x + threadIdx.x].x = d[0] ^ d[31];
}

#define SDPA_F32X4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
SDPA_CEILING(ceiling_wgmma_f16) {
  float d[32] = {};
  warpgroup_products(p, [&](uint64_t x) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %32, 1, 1, 1, 0, 0;\n"
        : SDPA_F32X4(0), SDPA_F32X4(4), SDPA_F32X4(8), SDPA_F32X4(12), SDPA_F32X4(16), SDPA_F32X4(20), SDPA_F32X4(24),
          SDPA_F32X4(28)
        : "l"(x));
  });
  sdpa::hopper::ptx::pin_registers(d);
  if (p.keep) p.sink[blockIdx.x * blockDim.x + threadIdx.x].x = __float_as_uint(d[0] + d[31]);
}
#undef SDPA_F32X4
#endif

// The source, `iterations` times, in 16-byte loads of which each thread has eight in flight.
SDPA_CEILING(ceiling_read) {
  const uint64_t threads = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  const uint64_t first = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  uint32_t all = 0;
  sdpa::timed(p, [&] {
    for (uint64_t i = first; i + 7 * threads < p.chunks; i += 8 * threads) {
      uint4 x[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) x[j] = __ldcg(p.source + i + j * threads);
#pragma unroll
      for (int j = 0; j < 8; ++j) all ^= x[j].x ^ x[j].y ^ x[j].z ^ x[j].w;
    }
  });
  if (p.keep) p.sink[blockIdx.x * blockDim.x + threadIdx.x].x = all;
}
