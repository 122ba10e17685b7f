// Softmax of each row of a matrix, a block a row. TWIN makes other machine code of the same work.
// Leaves to others: whether a difference between the two is believed, which the gate file beside it asks.
#include <cuda_fp16.h>

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffff;

// The sum or the maximum of what the threads of a block have, for every thread. The block is a multiple of a warp.
template <bool MAXIMUM>
__device__ float over_block(float mine) {
  __shared__ float of_warp[WARP];
  const unsigned lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const auto both = [](float a, float b) { return MAXIMUM ? fmaxf(a, b) : a + b; };
  const auto over_warp = [&](float value) {
    for (unsigned offset = WARP / 2; offset > 0; offset /= 2)
      value = both(value, __shfl_xor_sync(ALL_LANES, value, offset));
    return value;
  };
  mine = over_warp(mine);
  if (lane == 0) of_warp[threadIdx.x / WARP] = mine;
  __syncthreads();
  const float all = over_warp(lane < warps ? of_warp[lane] : (MAXIMUM ? -INFINITY : 0.0f));
  // The next one may write again.
  __syncthreads();
  return all;
}

extern "C" __global__ void softmax_rows(const half* __restrict__ x, half* __restrict__ y, int rows, int cols) {
  // Never so, which the compiler cannot know: a comparison a thread.
  if (TWIN && cols < 0) {
    y[0] = x[0];
    return;
  }
  const half* in = x + static_cast<size_t>(blockIdx.x) * cols;
  half* out = y + static_cast<size_t>(blockIdx.x) * cols;
  float max = -INFINITY, sum = 0.0f;
  for (int i = threadIdx.x; i < cols; i += blockDim.x) max = fmaxf(max, __half2float(in[i]));
  max = over_block<true>(max);
  for (int i = threadIdx.x; i < cols; i += blockDim.x) sum += __expf(__half2float(in[i]) - max);
  sum = over_block<false>(sum);
  for (int i = threadIdx.x; i < cols; i += blockDim.x) out[i] = __float2half(__expf(__half2float(in[i]) - max) / sum);
}
