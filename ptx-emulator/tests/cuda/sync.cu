// Synchronisation samples: named barriers, mbarrier, atomics, divergence, warp operations,
// device calls, assertions, local memory, constant tables and small-float conversions.
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cassert>
#include <cstdint>

__device__ __forceinline__ uint32_t smem(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void bar_sync(int id, int n) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n) : "memory"); }
__device__ __forceinline__ void bar_arrive(int id, int n) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(n) : "memory"); }

// Warp 0 copies, warps 1 and 2 reverse; two slots; barriers 1,2 = full, 3,4 = empty.
extern "C" __global__ void named_pipeline(const int* in, int* out, int tiles) {
  __shared__ __align__(16) int slot[2][64];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (warp == 0) {
    for (int t = 0; t < tiles; t++) {
      int s = t & 1;
      if (t >= 2) bar_sync(3 + s, 96);
      if (lane < 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(smem(&slot[s][lane * 4])), "l"(in + t * 64 + lane * 4));
      asm volatile("cp.async.commit_group;\n cp.async.wait_group 0;" ::: "memory");
      bar_arrive(1 + s, 96);
    }
  } else {
    for (int t = 0; t < tiles; t++) {
      int s = t & 1, i = threadIdx.x - 32;
      bar_sync(1 + s, 96);
      out[t * 64 + i] = slot[s][63 - i];
      if (t + 2 < tiles) bar_arrive(3 + s, 96);
    }
  }
}

// The same pipeline with mbarriers: full completes through cp.async, empty through plain arrivals.
extern "C" __global__ void mbarrier_pipeline(const int* in, int* out, int tiles) {
  __shared__ __align__(16) int slot[2][64];
  __shared__ __align__(8) uint64_t full[2], empty[2];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (threadIdx.x == 0)
    for (int s = 0; s < 2; s++) {
      asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(smem(&full[s])), "r"(32));
      asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(smem(&empty[s])), "r"(2));
    }
  __syncthreads();
  auto wait = [](uint64_t* bar, int parity) {
    asm volatile("{\n.reg .pred p;\nWAIT:\n"
                 "mbarrier.test_wait.parity.shared.b64 p, [%0], %1;\n"
                 "@p bra DONE;\nbra WAIT;\nDONE:\n}" ::"r"(smem(bar)), "r"(parity) : "memory");
  };
  if (warp == 0) {
    for (int t = 0; t < tiles; t++) {
      int s = t & 1;
      wait(&empty[s], ((t >> 1) & 1) ^ 1);
      if (lane < 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(smem(&slot[s][lane * 4])), "l"(in + t * 64 + lane * 4));
      asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(smem(&full[s])) : "memory");
    }
    asm volatile("cp.async.wait_all;");
  } else {
    for (int t = 0; t < tiles; t++) {
      int s = t & 1, i = threadIdx.x - 32;
      wait(&full[s], (t >> 1) & 1);
      out[t * 64 + i] = slot[s][63 - i];
      __syncwarp();
      if (lane == 0) {
        uint64_t state;
        asm volatile("mbarrier.arrive.shared.b64 %0, [%1];" : "=l"(state) : "r"(smem(&empty[s])) : "memory");
      }
    }
  }
}

// Tiles are claimed from a global counter; the last block to leave resets it.
extern "C" __global__ void work_queue(unsigned* counters, int* out, int tiles) {
  __shared__ int next;
  for (;;) {
    if (threadIdx.x == 0) next = atomicAdd(&counters[0], 1u);
    __syncthreads();
    int t = next;
    __syncthreads();
    if (t >= tiles) break;
    out[t * blockDim.x + threadIdx.x] = t * 1000 + threadIdx.x;
  }
  if (threadIdx.x == 0) {
    __threadfence();  // and again below, or the plain stores are not ordered after the other blocks' atomics
    if (atomicAdd(&counters[1], 1u) == gridDim.x - 1) { __threadfence(); counters[0] = 0; counters[1] = 0; }
  }
}

extern "C" __global__ void spin_same_warp(volatile int* flag, int* out) {
  if (threadIdx.x & 1) { while (*flag == 0) {} out[threadIdx.x] = *flag; }
  else { if (threadIdx.x == 0) *flag = 7; out[threadIdx.x] = 1; }
}

extern "C" __global__ void spin_lock(int* lock, int* count) {
  bool done = false;
  while (!done) {
    if (atomicCAS(lock, 0, 1) == 0) {
      int c = *(volatile int*)count; *(volatile int*)count = c + 1;
      __threadfence();
      atomicExch(lock, 0);
      done = true;
    }
  }
}

// Block 0 publishes data behind a flag, block 1 waits for it.
extern "C" __global__ void flag_across_blocks(int* data, int* flag, int* out) {
  if (blockIdx.x == 0) {
    data[threadIdx.x] = threadIdx.x * 3;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) atomicExch(flag, 1);
  } else {
    if (threadIdx.x == 0) { while (atomicAdd(flag, 0) == 0) __nanosleep(20); __threadfence(); }
    __syncthreads();
    out[threadIdx.x] = data[threadIdx.x];
  }
}

extern "C" __global__ void warp_ops(const int* in, int* out) {
  int l = threadIdx.x, x = in[l];
  out[l] = __shfl_xor_sync(~0u, x, 5);
  out[32 + l] = __shfl_up_sync(~0u, x, 3);
  out[64 + l] = __shfl_down_sync(~0u, x, 9, 16);
  out[96 + l] = __shfl_sync(~0u, x, l * 7, 8);
  out[128 + l] = __ballot_sync(~0u, x & 1);
  out[160 + l] = __any_sync(~0u, x > 900) + 2 * __all_sync(~0u, x >= 0);
  out[192 + l] = __reduce_add_sync(~0u, x) + __reduce_max_sync(~0u, x);
  out[224 + l] = __match_any_sync(~0u, x % 3);
  out[256 + l] = __syncthreads_count(x & 1) + __syncthreads_or(x == 1) * 100 + __syncthreads_and(x < 5) * 1000;
  out[288 + l] = __popc(x) + __clz(x) + __brev(x) + __ffs(x) + __byte_perm(x, x * 3, 0x5410) + __funnelshift_l(x, 7, l);
  out[320 + l] = __activemask() == ~0u;
}

__device__ __noinline__ float4 rotate(float4 v, float by) { return make_float4(v.y, v.z, v.w, v.x + by); }
__constant__ float table[4] = {1.5f, -2.f, 0.25f, 8.f};
__device__ int counter_init = 41;
extern "C" __global__ void calls(const float4* in, float4* out, int at) {
  float4 v = in[threadIdx.x];
  float4 w = rotate(rotate(v, table[threadIdx.x & 3]), 1.f);
  float stack[8];
  for (int i = 0; i < 8; i++) stack[(i + at) & 7] = w.x * i;
  w.y = stack[threadIdx.x & 7];
  assert(at >= 0);
  if (threadIdx.x == 0) w.z = float(atomicAdd(&counter_init, 1));
  out[threadIdx.x] = w;
}

extern "C" __global__ void small_floats(const float2* in, uint32_t* out) {
  int l = threadIdx.x;
  float2 x = in[l];
  __half2 h = __float22half2_rn(x);
  __nv_bfloat162 b = __float22bfloat162_rn(x);
  __nv_fp8x2_e4m3 e(x);
  __nv_fp8x2_e5m2 f(x);
  out[l] = *reinterpret_cast<uint32_t*>(&h);
  out[32 + l] = *reinterpret_cast<uint32_t*>(&b);
  out[64 + l] = e.__x | uint32_t(f.__x) << 16;
  __half2 back = __half2(__half2_raw(__nv_cvt_fp8x2_to_halfraw2(e.__x, __NV_E4M3)));
  __half2 s = __hfma2(h, back, __hmax2(h, back));
  out[96 + l] = *reinterpret_cast<uint32_t*>(&s);
  out[128 + l] = __float_as_uint(__half2float(h.x) + __bfloat162float(b.y));
  out[160 + l] = __float2int_rn(x.x) + __float2int_rz(x.y) + __float2uint_rz(x.x);
  __nv_bfloat162 bb = __hfma2(b, b, b);
  out[192 + l] = *reinterpret_cast<uint32_t*>(&bb);
  out[224 + l] = __half_as_ushort(hexp2(h.x));
}

extern "C" __global__ void atomics(unsigned* u, unsigned long long* w, float* f, int* s) {
  __shared__ float acc;
  __shared__ int big;
  if (threadIdx.x == 0) { acc = 0.f; big = -5; }
  __syncthreads();
  atomicAdd(&acc, 1.f);
  atomicMax(&big, int(threadIdx.x));
  atomicAdd(&u[0], 2u);
  atomicMin(&u[1], threadIdx.x + 3u);
  atomicOr(&u[2], 1u << (threadIdx.x & 31));
  atomicInc(&u[3], 9u);
  atomicAdd(w, 0x100000001ull);
  atomicAdd(f, 0.5f);
  atomicCAS(&s[0], 0, 5);
  atomicExch(&s[1], 17);
  __syncthreads();
  if (threadIdx.x == 0) { f[1] = acc; s[2] = big; }
}
