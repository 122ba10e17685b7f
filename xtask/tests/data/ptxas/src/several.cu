// Four entry functions in one module: static shared memory, dynamic shared memory, both with two
// named barriers, and a module constant bank plus a global variable.
__constant__ float weights[40];
__device__ int launches;

extern "C" __global__ void static_smem(const float* in, float* out) {
  __shared__ float tile[768];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[767 - threadIdx.x];
}

extern "C" __global__ void dynamic_smem(const float* in, float* out) {
  extern __shared__ float tile_dynamic[];
  tile_dynamic[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile_dynamic[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void named_barriers(const float* in, float* out) {
  __shared__ float tile[128];
  extern __shared__ float tile_dynamic[];
  tile[threadIdx.x] = in[threadIdx.x];
  asm volatile("bar.sync 1, 128;" ::: "memory");
  tile_dynamic[threadIdx.x] = tile[127 - threadIdx.x];
  asm volatile("bar.sync 2, 128;" ::: "memory");
  out[threadIdx.x] = tile_dynamic[threadIdx.x ^ 1];
}

extern "C" __global__ void constants(const float* in, float* out, int pick) {
  if (threadIdx.x == 0) atomicAdd(&launches, 1);
  out[threadIdx.x] = in[threadIdx.x] * weights[pick];
}
