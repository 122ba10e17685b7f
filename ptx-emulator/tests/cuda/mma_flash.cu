// Flash attention with mma.sync in registers: 64x32 tiles, 4 warps, K and V double-buffered
// with cp.async. Tensors: [batch*head][sequence][64] f16 in, f32 out, sequence a multiple of 64.
#include <cuda_fp16.h>
#include <cstdint>

constexpr int D = 64, BM = 64, BN = 32, LD = 72;

__device__ __forceinline__ uint32_t smem(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void copy16(void* dst, const void* src) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(smem(dst)), "l"(src));
}
__device__ __forceinline__ void mma16816(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ uint32_t pack(float lo, float hi) {
  half2 h = __floats2half2_rn(lo, hi);
  return *reinterpret_cast<uint32_t*>(&h);
}

extern "C" __global__ void __launch_bounds__(128)
mma_flash(const half* __restrict__ q, const half* __restrict__ k, const half* __restrict__ v,
          float* __restrict__ o, int seq, float scale_log2) {
  extern __shared__ __align__(128) half smem_raw[];
  half* sQ = smem_raw;
  half* sK = sQ + BM * LD;
  half* sV = sK + 2 * BN * LD;
  const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
  const size_t base = size_t(blockIdx.y) * seq * D;
  const int row0 = blockIdx.x * BM;
  auto load_tile = [&](int tile, int buf) {
    for (int i = tid; i < BN * D / 8; i += 128) {
      int r = i / 8, c = i % 8 * 8;
      copy16(&sK[(buf * BN + r) * LD + c], &k[base + size_t(tile * BN + r) * D + c]);
      copy16(&sV[(buf * BN + r) * LD + c], &v[base + size_t(tile * BN + r) * D + c]);
    }
    asm volatile("cp.async.commit_group;");
  };
  for (int i = tid; i < BM * D / 8; i += 128) {
    int r = i / 8, c = i % 8 * 8;
    copy16(&sQ[r * LD + c], &q[base + size_t(row0 + r) * D + c]);
  }
  load_tile(0, 0);
  uint32_t a[4][4];
  float acc[8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {0.f, 0.f};
  const int tiles = seq / BN;
  for (int t = 0; t < tiles; t++) {
    if (t + 1 < tiles) load_tile(t + 1, (t + 1) & 1);
    else asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    __syncthreads();
    const half* bK = sK + (t & 1) * BN * LD;
    const half* bV = sV + (t & 1) * BN * LD;
    if (t == 0) {
      for (int kk = 0; kk < 4; kk++)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(a[kk][0]), "=r"(a[kk][1]), "=r"(a[kk][2]), "=r"(a[kk][3])
                     : "r"(smem(&sQ[(warp * 16 + lane % 16) * LD + kk * 16 + lane / 16 * 8])));
    }
    float s[4][4] = {};
    for (int n = 0; n < 4; n++)
      for (int kk = 0; kk < 4; kk++) {
        uint32_t b0, b1;
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                     : "=r"(b0), "=r"(b1)
                     : "r"(smem(&bK[(n * 8 + lane % 8) * LD + kk * 16 + (lane / 8 % 2) * 8])));
        mma16816(s[n], a[kk], b0, b1);
      }
    for (int h = 0; h < 2; h++) {
      float mx = m[h];
      for (int n = 0; n < 4; n++) {
        s[n][2 * h] *= scale_log2;
        s[n][2 * h + 1] *= scale_log2;
        mx = fmaxf(mx, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      }
      mx = fmaxf(mx, __shfl_xor_sync(~0u, mx, 1));
      mx = fmaxf(mx, __shfl_xor_sync(~0u, mx, 2));
      float alpha = exp2f(m[h] - mx);
      m[h] = mx;
      l[h] *= alpha;
      for (int n = 0; n < 4; n++)
        for (int e = 0; e < 2; e++) {
          float p = exp2f(s[n][2 * h + e] - mx);
          s[n][2 * h + e] = p;
          l[h] += p;
        }
      for (int n = 0; n < 8; n++) { acc[n][2 * h] *= alpha; acc[n][2 * h + 1] *= alpha; }
    }
    for (int kk = 0; kk < 2; kk++) {
      uint32_t p[4] = {pack(s[2 * kk][0], s[2 * kk][1]), pack(s[2 * kk][2], s[2 * kk][3]),
                       pack(s[2 * kk + 1][0], s[2 * kk + 1][1]), pack(s[2 * kk + 1][2], s[2 * kk + 1][3])};
      for (int n = 0; n < 8; n++) {
        uint32_t b0, b1;
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                     : "=r"(b0), "=r"(b1) : "r"(smem(&bV[(kk * 16 + lane % 16) * LD + n * 8])));
        mma16816(acc[n], p, b0, b1);
      }
    }
    __syncthreads();
  }
  for (int h = 0; h < 2; h++) {
    l[h] += __shfl_xor_sync(~0u, l[h], 1);
    l[h] += __shfl_xor_sync(~0u, l[h], 2);
    size_t row = row0 + warp * 16 + lane / 4 + 8 * h;
    for (int n = 0; n < 8; n++)
      *reinterpret_cast<float2*>(&o[base + row * D + n * 8 + lane % 4 * 2]) =
          make_float2(acc[n][2 * h] / l[h], acc[n][2 * h + 1] / l[h]);
  }
}
