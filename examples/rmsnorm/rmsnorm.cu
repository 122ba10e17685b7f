// RMSNorm of each row of a matrix, three times: the control adds up in a tree over shared memory, the candidate in registers
// with one barrier, and `rmsnorm_unordered` leaves that barrier out.
// Leaves to others: which of them is launched how, which the gate file beside it says.
#include <cuda_fp16.h>

// Elements of a load; the gate file may define another number.
#ifndef VEC
#define VEC 8
#endif

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffff;
constexpr int MOST_THREADS = 1024;

__device__ float square(half value) {
  const float wide = __half2float(value);
  return wide * wide;
}

// One barrier for each step of the tree; the block is a power of two.
extern "C" __global__ void rmsnorm_tree(const half* __restrict__ x, const half* __restrict__ weight,
                                        half* __restrict__ y, int cols, float eps) {
  __shared__ float sums[MOST_THREADS];
  const half* in = x + static_cast<size_t>(blockIdx.x) * cols;
  half* out = y + static_cast<size_t>(blockIdx.x) * cols;
  float sum = 0.0f;
  for (int i = threadIdx.x; i < cols; i += blockDim.x) sum += square(in[i]);
  sums[threadIdx.x] = sum;
  for (int half_block = blockDim.x / 2; half_block > 0; half_block /= 2) {
    __syncthreads();
    if (threadIdx.x < half_block) sums[threadIdx.x] += sums[threadIdx.x + half_block];
  }
  __syncthreads();
  const float scale = rsqrtf(sums[0] / cols + eps);
  for (int i = threadIdx.x; i < cols; i += blockDim.x)
    out[i] = __float2half(__half2float(in[i]) * scale * __half2float(weight[i]));
}

__device__ float sum_warp(float value) {
  for (unsigned offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
  return value;
}

// Every thread gets the sum over the block, by way of one number a warp.
template <int THREADS, bool ORDERED>
__device__ float sum_block(float value) {
  static_assert(THREADS % WARP == 0 && THREADS <= MOST_THREADS, "a block is of whole warps");
  __shared__ float of_warp[THREADS / WARP];
  const float mine = sum_warp(value);
  if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = mine;
  if (ORDERED) __syncthreads();
  const unsigned lane = threadIdx.x % WARP;
  return sum_warp(lane < THREADS / WARP ? of_warp[lane] : 0.0f);
}

template <int N>
struct alignas(N * sizeof(half)) Pack {
  half element[N];
};

template <int N, int THREADS, bool ORDERED>
__device__ void normalise(const half* x, const half* weight, half* y, int cols, float eps) {
  const size_t start = static_cast<size_t>(blockIdx.x) * cols;
  const auto* in = reinterpret_cast<const Pack<N>*>(x + start);
  const auto* weights = reinterpret_cast<const Pack<N>*>(weight);
  auto* out = reinterpret_cast<Pack<N>*>(y + start);
  float sum = 0.0f;
  for (int i = threadIdx.x; i < cols / N; i += THREADS) {
    const Pack<N> pack = in[i];
    for (const half& e : pack.element) sum += square(e);
  }
  const float scale = rsqrtf(sum_block<THREADS, ORDERED>(sum) / cols + eps);
  for (int i = threadIdx.x; i < cols / N; i += THREADS) {
    Pack<N> pack = in[i];
    const Pack<N> factor = weights[i];
    for (int k = 0; k < N; ++k)
      pack.element[k] = __float2half(__half2float(pack.element[k]) * scale * __half2float(factor.element[k]));
    out[i] = pack;
  }
}

template <int THREADS, bool ORDERED>
__device__ void normalise_row(const half* x, const half* weight, half* y, int cols, float eps) {
  // Wide loads need rows that start at a multiple of them.
  if (cols % VEC == 0)
    normalise<VEC, THREADS, ORDERED>(x, weight, y, cols, eps);
  else
    normalise<1, THREADS, ORDERED>(x, weight, y, cols, eps);
}

template <int THREADS>
__global__ void __launch_bounds__(THREADS)
    rmsnorm_registers(const half* __restrict__ x, const half* __restrict__ weight, half* __restrict__ y, int cols,
                      float eps) {
  normalise_row<THREADS, true>(x, weight, y, cols, eps);
}

// Wrong on purpose: a warp may read the sums of the others before they are written, which on most runs it does not.
template <int THREADS>
__global__ void __launch_bounds__(THREADS)
    rmsnorm_unordered(const half* __restrict__ x, const half* __restrict__ weight, half* __restrict__ y, int cols,
                      float eps) {
  normalise_row<THREADS, false>(x, weight, y, cols, eps);
}
