// Two entries that call one function: ptxas prints that function's frame under each of them.
__device__ __noinline__ float shared_callee(const float* in, int pick) {
  float copy[20];
  for (int i = 0; i < 20; ++i) copy[i] = in[i * pick];
  for (int i = 1; i < 20; ++i) copy[(pick * i) % 20] += copy[i - 1];
  return copy[pick % 20];
}

extern "C" __global__ void first(const float* in, float* out) {
  out[threadIdx.x] = shared_callee(in, threadIdx.x) + 1.0f;
}

extern "C" __global__ void second(const float* in, float* out) {
  out[threadIdx.x] = shared_callee(in, threadIdx.x + 2) * 2.0f;
}
