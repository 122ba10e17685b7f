// A program with one defect a kernel; the numbers of its lines are what the test expects, so that a line has one access.
#include <cstdio>

__global__ void racy(int const* in, int* out)
{
    __shared__ int tile[64];
    tile[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void beyond(int* out)
{
    out[threadIdx.x + 1] = 1;
}

__global__ void undefined(int const* in, int* out)
{
    out[threadIdx.x] = in[threadIdx.x];
}

int main(int count, char**)
{
    int *in, *out;
    cudaMalloc(&in, 64 * sizeof(int));
    cudaMalloc(&out, 64 * sizeof(int));
    if (count > 1) {
        undefined<<<1, 64>>>(in, out);
        cudaTextureObject_t texture;
        cudaCreateTextureObject(&texture, nullptr, nullptr, nullptr);
    }
    cudaMemset(in, 0, 64 * sizeof(int));
    racy<<<1, 64>>>(in, out);
    std::printf("racy: %s\n", cudaGetErrorString(cudaDeviceSynchronize()));
    beyond<<<1, 64>>>(out);
    std::printf("beyond: %s\n", cudaGetErrorString(cudaDeviceSynchronize()));
    cudaFree(in);
    return 0;
}
