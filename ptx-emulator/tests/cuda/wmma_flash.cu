// Flash attention with WMMA: 32x32 tiles, 4 warps, f16 inputs and f32 output.
// Layout of every tensor: [batch*head][sequence][64], sequence a multiple of 32.
#include <cuda_fp16.h>
#include <mma.h>
using namespace nvcuda;

constexpr int D = 64, BM = 32, BN = 32, LD = 72, LDS = 36, LDO = 68;

extern "C" __global__ void __launch_bounds__(128)
wmma_flash(const half* __restrict__ q, const half* __restrict__ k, const half* __restrict__ v,
           float* __restrict__ o, int seq, float scale_log2) {
  __shared__ __align__(32) half sQ[BM * LD];
  __shared__ __align__(32) half sK[BN * LD];
  __shared__ __align__(32) half sV[BN * LD];
  __shared__ __align__(32) half sP[BM * LD];
  __shared__ __align__(32) float sS[BM * LDS];
  __shared__ __align__(32) float sO[BM * LDO];
  __shared__ float sM[BM], sL[BM];
  const int tid = threadIdx.x, warp = tid / 32;
  const size_t base = size_t(blockIdx.y) * seq * D;
  const int row0 = blockIdx.x * BM;
  for (int i = tid; i < BM * D / 8; i += 128) {
    int r = i / (D / 8), c = i % (D / 8) * 8;
    *reinterpret_cast<float4*>(&sQ[r * LD + c]) =
        *reinterpret_cast<const float4*>(&q[base + size_t(row0 + r) * D + c]);
  }
  for (int i = tid; i < BM * D; i += 128) sO[i / D * LDO + i % D] = 0.f;
  if (tid < BM) { sM[tid] = -INFINITY; sL[tid] = 0.f; }
  for (int n0 = 0; n0 < seq; n0 += BN) {
    for (int i = tid; i < BN * D / 8; i += 128) {
      int r = i / (D / 8), c = i % (D / 8) * 8;
      *reinterpret_cast<float4*>(&sK[r * LD + c]) =
          *reinterpret_cast<const float4*>(&k[base + size_t(n0 + r) * D + c]);
      *reinterpret_cast<float4*>(&sV[r * LD + c]) =
          *reinterpret_cast<const float4*>(&v[base + size_t(n0 + r) * D + c]);
    }
    __syncthreads();
    {
      int mi = warp / 2 * 16, ni = warp % 2 * 16;
      wmma::fragment<wmma::accumulator, 16, 16, 16, float> acc;
      wmma::fill_fragment(acc, 0.f);
      for (int kk = 0; kk < D; kk += 16) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> a;
        wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> b;
        wmma::load_matrix_sync(a, &sQ[mi * LD + kk], LD);
        wmma::load_matrix_sync(b, &sK[ni * LD + kk], LD);
        wmma::mma_sync(acc, a, b, acc);
      }
      for (int i = 0; i < acc.num_elements; i++) acc.x[i] *= scale_log2;
      wmma::store_matrix_sync(&sS[mi * LDS + ni], acc, LDS, wmma::mem_row_major);
    }
    __syncthreads();
    {
      int row = tid / 4, part = tid % 4;
      float m_old = sM[row], m = m_old;
      for (int c = 0; c < 8; c++) m = fmaxf(m, sS[row * LDS + part * 8 + c]);
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
      float alpha = exp2f(m_old - m), sum = 0.f;
      for (int c = 0; c < 8; c++) {
        float p = exp2f(sS[row * LDS + part * 8 + c] - m);
        sum += p;
        sP[row * LD + part * 8 + c] = __float2half(p);
      }
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      __syncwarp();
      if (part == 0) { sM[row] = m; sL[row] = sL[row] * alpha + sum; }
      for (int c = 0; c < D / 4; c++) sO[row * LDO + part * (D / 4) + c] *= alpha;
    }
    __syncthreads();
    for (int j = 0; j < 2; j++) {
      int mi = warp / 2 * 16, ni = (warp % 2 * 2 + j) * 16;
      wmma::fragment<wmma::accumulator, 16, 16, 16, float> acc;
      wmma::load_matrix_sync(acc, &sO[mi * LDO + ni], LDO, wmma::mem_row_major);
      for (int kk = 0; kk < BN; kk += 16) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> a;
        wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> b;
        wmma::load_matrix_sync(a, &sP[mi * LD + kk], LD);
        wmma::load_matrix_sync(b, &sV[kk * LD + ni], LD);
        wmma::mma_sync(acc, a, b, acc);
      }
      wmma::store_matrix_sync(&sO[mi * LDO + ni], acc, LDO, wmma::mem_row_major);
    }
    __syncthreads();
  }
  for (int i = tid; i < BM * D; i += 128) {
    int r = i / D, c = i % D;
    o[base + size_t(row0 + r) * D + c] = sO[r * LDO + c] / sL[r];
  }
}
