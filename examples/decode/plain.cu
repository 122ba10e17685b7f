// Attention of one query row a sequence over keys and values in FP8 (e4m3), as one would write it first: a CTA a query head, keys
// one after the other. The control of decode.cu.
// Leaves to others: everything that makes it fast.
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

constexpr int WARP = 32;
constexpr int WARPS = 4;
constexpr unsigned ALL_LANES = 0xffffffff;
// Before there is a key: finite, so that no difference of two is NaN.
constexpr float NO_KEY = -1e30f;

__device__ float value_of(uint8_t code) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

__device__ float sum_warp(float value) {
  for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
  return value;
}

// A warp has every fourth key, a lane every 32nd element of a row.
template <int D>
__global__ void __launch_bounds__(WARP* WARPS)
    decode_plain(const __half* __restrict__ q, const uint8_t* __restrict__ k, const uint8_t* __restrict__ v,
                 const float* __restrict__ k_scale, const float* __restrict__ v_scale, const int* __restrict__ lengths,
                 __half* __restrict__ out, float* __restrict__ lse, long long batch_stride, long long head_stride,
                 int key_stride, int group, float softmax_scale) {
  constexpr int MINE = D / WARP;
  __shared__ float sums[WARPS][D], largest_of[WARPS], weight_of[WARPS];
  const int head = blockIdx.x, batch = blockIdx.y, kv_head = head / group, kv_heads = gridDim.x / group;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const size_t row = static_cast<size_t>(batch) * gridDim.x + head;
  const long long cache = batch * batch_stride + kv_head * head_stride;
  const float scale = softmax_scale * k_scale[batch * kv_heads + kv_head];
  float query[MINE], sum[MINE] = {}, largest = NO_KEY, weight = 0.0f;
  for (int i = 0; i < MINE; ++i) query[i] = __half2float(q[row * D + i * WARP + lane]);
  for (int key = warp; key < lengths[batch]; key += WARPS) {
    const long long at = cache + static_cast<long long>(key) * key_stride + lane;
    float score = 0.0f;
    for (int i = 0; i < MINE; ++i) score += query[i] * value_of(k[at + i * WARP]);
    score = sum_warp(score) * scale;
    const float raised = fmaxf(largest, score);
    const float alpha = expf(largest - raised), p = expf(score - raised);
    largest = raised;
    weight = weight * alpha + p;
    for (int i = 0; i < MINE; ++i) sum[i] = sum[i] * alpha + p * value_of(v[at + i * WARP]);
  }
  for (int i = 0; i < MINE; ++i) sums[warp][i * WARP + lane] = sum[i];
  if (lane == 0) largest_of[warp] = largest, weight_of[warp] = weight;
  __syncthreads();
  float most = NO_KEY, total = 0.0f;
  for (int w = 0; w < WARPS; ++w) most = fmaxf(most, largest_of[w]);
  for (int w = 0; w < WARPS; ++w) total += weight_of[w] * expf(largest_of[w] - most);
  if (threadIdx.x == 0) lse[row] = most + logf(total);
  if (threadIdx.x >= D) return;
  float all = 0.0f;
  for (int w = 0; w < WARPS; ++w) all += sums[w][threadIdx.x] * expf(largest_of[w] - most);
  out[row * D + threadIdx.x] = __float2half_rn(total == 0.0f ? 0.0f : all * v_scale[batch * kv_heads + kv_head] / total);
}
