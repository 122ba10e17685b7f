// A real call (not inlined) with an array in local memory, and a recursive one, whose stack ptxas
// cannot bound and says so.
__device__ __noinline__ float local_array(const float* in, int pick) {
  float copy[20];
  for (int i = 0; i < 20; ++i) copy[i] = in[i * pick];
  for (int i = 1; i < 20; ++i) copy[(pick * i) % 20] += copy[i - 1];
  return copy[pick % 20];
}

__device__ __noinline__ int descend(const int* next, int at) {
  return at <= 0 ? 0 : 1 + descend(next, next[at] + descend(next, at - 1));
}

extern "C" __global__ void calls_local(const float* in, float* out) {
  out[threadIdx.x] = local_array(in, threadIdx.x) + 1.0f;
}

extern "C" __global__ void calls_recursive(const int* next, int* out) {
  out[threadIdx.x] = descend(next, threadIdx.x);
}
