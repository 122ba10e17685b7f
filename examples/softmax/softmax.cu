// Softmax of each row of a matrix, three times: the control reads a row three times, the candidate reads it twice and in
// wide loads, and `softmax_unrolled` forgets what is left over when a row is no multiple of four.
// Leaves to others: which of them is launched how, which the gate file beside it says.
#include <cuda_fp16.h>

// Elements of a load; the gate file may define another number.
#ifndef VEC
#define VEC 8
#endif

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffff;

// The largest element so far, and the sum of exp(element - max).
struct Partial {
  float max;
  float sum;
};

__device__ Partial merge(Partial a, Partial b) {
  const float max = fmaxf(a.max, b.max);
  // A thread without elements has seen -inf alone, and -inf - -inf is NaN.
  if (max == -INFINITY) return a;
  return {max, a.sum * __expf(a.max - max) + b.sum * __expf(b.max - max)};
}

// Every thread gets what the whole block has. The block is a multiple of a warp.
__device__ Partial merge_block(Partial mine) {
  __shared__ Partial of_warp[WARP];
  const unsigned lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const auto merge_warp = [](Partial p) {
    for (unsigned offset = WARP / 2; offset > 0; offset /= 2)
      p = merge(p, {__shfl_xor_sync(ALL_LANES, p.max, offset), __shfl_xor_sync(ALL_LANES, p.sum, offset)});
    return p;
  };
  mine = merge_warp(mine);
  if (lane == 0) of_warp[threadIdx.x / WARP] = mine;
  __syncthreads();
  const Partial all = merge_warp(lane < warps ? of_warp[lane] : Partial{-INFINITY, 0.0f});
  // The next row may write again.
  __syncthreads();
  return all;
}

// The textbook's: the maximum, then the sum, then the quotients.
extern "C" __global__ void softmax_two_pass(const half* __restrict__ x, half* __restrict__ y, int rows, int cols) {
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const half* in = x + static_cast<size_t>(row) * cols;
    half* out = y + static_cast<size_t>(row) * cols;
    float max = -INFINITY, sum = 0.0f;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) max = fmaxf(max, __half2float(in[i]));
    max = merge_block({max, 0.0f}).max;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) sum += __expf(__half2float(in[i]) - max);
    sum = merge_block({max, sum}).sum;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) out[i] = __float2half(__expf(__half2float(in[i]) - max) / sum);
  }
}

// Elements of a row that a thread takes at a time, in one load where they are aligned as a whole.
template <int N, size_t ALIGNMENT>
struct alignas(ALIGNMENT) Pack {
  static constexpr int SIZE = N;
  half element[N];
};
using Wide = Pack<VEC, VEC * sizeof(half)>;
using Single = Pack<1, sizeof(half)>;
using Loose = Pack<4, sizeof(half)>;

// The maximum and the sum in one reading.
template <typename Pack, int THREADS>
__device__ void softmax_row(const half* in, half* out, int cols) {
  const auto* packs_in = reinterpret_cast<const Pack*>(in);
  auto* packs_out = reinterpret_cast<Pack*>(out);
  Partial mine{-INFINITY, 0.0f};
  for (int i = threadIdx.x; i < cols / Pack::SIZE; i += THREADS) {
    const Pack pack = packs_in[i];
    Partial here{-INFINITY, 0.0f};
    for (const half& e : pack.element) here.max = fmaxf(here.max, __half2float(e));
    for (const half& e : pack.element) here.sum += __expf(__half2float(e) - here.max);
    mine = merge(mine, here);
  }
  const Partial row = merge_block(mine);
  const float scale = 1.0f / row.sum;
  for (int i = threadIdx.x; i < cols / Pack::SIZE; i += THREADS) {
    Pack pack = packs_in[i];
    for (half& e : pack.element) e = __float2half(__expf(__half2float(e) - row.max) * scale);
    packs_out[i] = pack;
  }
}

template <int THREADS>
__global__ void __launch_bounds__(THREADS)
    softmax_online(const half* __restrict__ x, half* __restrict__ y, int rows, int cols) {
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const size_t start = static_cast<size_t>(row) * cols;
    // A wide load needs a row that starts at a multiple of it.
    if (cols % Wide::SIZE == 0)
      softmax_row<Wide, THREADS>(x + start, y + start, cols);
    else
      softmax_row<Single, THREADS>(x + start, y + start, cols);
  }
}

// Wrong on purpose: four elements at a time, and nobody takes those that are left over.
template <int THREADS>
__global__ void __launch_bounds__(THREADS)
    softmax_unrolled(const half* __restrict__ x, half* __restrict__ y, int rows, int cols) {
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const size_t start = static_cast<size_t>(row) * cols;
    softmax_row<Loose, THREADS>(x + start, y + start, cols);
  }
}
