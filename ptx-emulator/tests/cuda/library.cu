// What CUDA's own headers make of reductions, barriers, pipelines and grid synchronisation, and WMMA with f16 sums.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda/barrier>
#include <cuda/pipeline>
#include <mma.h>
namespace cg = cooperative_groups;
using namespace nvcuda;
extern "C" __global__ void cg_reduce(const float* in, float* out) {
  auto block = cg::this_thread_block();
  auto tile = cg::tiled_partition<8>(block);
  float v = in[block.thread_rank()];
  float s = cg::reduce(tile, v, cg::plus<float>());
  int m = cg::reduce(tile, int(v), cg::greater<int>());
  auto active = cg::coalesced_threads();
  if (tile.thread_rank() == 0) out[tile.meta_group_rank()] = s + m + active.size();
  block.sync();
}
extern "C" __global__ void cuda_barrier(const int* in, int* out) {
  __shared__ cuda::barrier<cuda::thread_scope_block> bar;
  __shared__ int s[256];
  if (threadIdx.x == 0) init(&bar, blockDim.x);
  __syncthreads();
  cuda::memcpy_async(&s[threadIdx.x], &in[threadIdx.x], sizeof(int), bar);
  bar.arrive_and_wait();
  out[threadIdx.x] = s[255 - threadIdx.x];
}
extern "C" __global__ void cuda_pipe(const int4* in, int4* out) {
  __shared__ int4 s[2][64];
  auto p = cuda::make_pipeline();
  for (int i = 0; i < 4; i++) {
    p.producer_acquire();
    cuda::memcpy_async(&s[i & 1][threadIdx.x], &in[i * 64 + threadIdx.x], cuda::aligned_size_t<16>(16), p);
    p.producer_commit();
    p.consumer_wait();
    __syncthreads();
    out[i * 64 + threadIdx.x] = s[i & 1][63 - threadIdx.x];
    __syncthreads();
    p.consumer_release();
  }
}
extern "C" __global__ void grid_sync(int* a, int* b) {
  auto g = cg::this_grid();
  a[g.thread_rank()] = g.thread_rank();
  g.sync();
  b[g.thread_rank()] = a[g.size() - 1 - g.thread_rank()];
}
extern "C" __global__ void wmma_half(const half* a, const half* b, half* c) {
  wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::col_major> fa;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> fb;
  wmma::fragment<wmma::accumulator, 16, 16, 16, half> fc;
  wmma::fill_fragment(fc, __float2half(0.f));
  wmma::load_matrix_sync(fa, a, 16); wmma::load_matrix_sync(fb, b, 16);
  wmma::mma_sync(fc, fa, fb, fc);
  wmma::store_matrix_sync(c, fc, 16, wmma::mem_col_major);
}
