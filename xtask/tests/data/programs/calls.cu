// A program that asks the runtime for most of what programs ask for, and says what it got. On a GPU it prints the same.
#include <cooperative_groups.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define CHECK(call)                                                                                  \
    do {                                                                                             \
        cudaError_t status = (call);                                                                 \
        if (status != cudaSuccess) {                                                                 \
            std::printf("%s:%d: %s\n", #call, __LINE__, cudaGetErrorString(status));                 \
            std::exit(1);                                                                            \
        }                                                                                            \
    } while (0)

__constant__ int factors[4];
__device__ int counter;
__managed__ int shared_by_both = 5;

__global__ void scale(int* values, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        values[i] *= factors[i % 4];
        atomicAdd(&counter, 1);
    }
    if (i == 0) {
        shared_by_both += 1;
        printf("device: %d values, %s\n", count, "scaled");
    }
}

__global__ void add_everywhere(int* values, int count, int step)
{
    auto grid = cooperative_groups::this_grid();
    for (int i = grid.thread_rank(); i < count; i += grid.size()) {
        values[i] += step;
    }
    grid.sync();
    for (int i = grid.thread_rank(); i < count; i += grid.size()) {
        values[count - 1 - i] += step;
    }
}

extern __shared__ int dynamic[];

__global__ void reverse(int* values)
{
    dynamic[threadIdx.x] = values[threadIdx.x];
    __syncthreads();
    values[threadIdx.x] = dynamic[blockDim.x - 1 - threadIdx.x];
}

static void symbols_and_order()
{
    int const host_factors[4] = {1, 2, 3, 4};
    int values[100], count = 0;
    for (int i = 0; i < 100; ++i) values[i] = i;
    int* device;
    CHECK(cudaMalloc(&device, sizeof values));
    CHECK(cudaMemcpy(device, values, sizeof values, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpyToSymbol(factors, host_factors, sizeof host_factors));
    std::printf("host: before\n");
    scale<<<2, 64>>>(device, 100);
    CHECK(cudaDeviceSynchronize());
    std::printf("host: after\n");
    CHECK(cudaMemcpy(values, device, sizeof values, cudaMemcpyDefault));
    CHECK(cudaMemcpyFromSymbol(&count, counter, sizeof count));
    std::printf("values[99] = %d, counter %d, managed %d\n", values[99], count, shared_by_both);
    void* address;
    size_t bytes;
    CHECK(cudaGetSymbolAddress(&address, factors));
    CHECK(cudaGetSymbolSize(&bytes, factors));
    CHECK(cudaMemset(device, 0xff, 8));
    CHECK(cudaMemcpy(values, device, 12, cudaMemcpyDeviceToHost));
    std::printf("symbol of %zu bytes, memset %d %d %d\n", bytes, values[0], values[1], values[2]);
    CHECK(cudaFree(device));
}

static void memory_of_both()
{
    int* managed;
    CHECK(cudaMallocManaged(&managed, 64 * sizeof(int)));
    for (int i = 0; i < 64; ++i) managed[i] = i;
    reverse<<<1, 64, 64 * sizeof(int)>>>(managed);
    CHECK(cudaDeviceSynchronize());
    int *pinned, *mapped;
    CHECK(cudaHostAlloc(&pinned, 64 * sizeof(int), cudaHostAllocMapped));
    std::memcpy(pinned, managed, 64 * sizeof(int));
    CHECK(cudaHostGetDevicePointer(&mapped, pinned, 0));
    reverse<<<1, 64, 64 * sizeof(int)>>>(mapped);
    CHECK(cudaDeviceSynchronize());
    int own[64];
    std::memcpy(own, pinned, sizeof own);
    CHECK(cudaHostRegister(own, sizeof own, cudaHostRegisterMapped));
    CHECK(cudaHostGetDevicePointer(&mapped, own, 0));
    reverse<<<1, 64, 64 * sizeof(int)>>>(mapped);
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaHostUnregister(own));
    cudaPointerAttributes attributes;
    CHECK(cudaPointerGetAttributes(&attributes, managed));
    std::printf("managed %d, pinned %d, registered %d, type %d\n", managed[0], pinned[0], own[0], int(attributes.type));
    CHECK(cudaFree(managed));
    CHECK(cudaFreeHost(pinned));
}

static void boxes()
{
    char from[6][10], to[6][10];
    std::memset(from, 'a', sizeof from);
    std::memset(to, 'z', sizeof to);
    from[1][2] = 'b';
    char* device;
    size_t pitch;
    CHECK(cudaMallocPitch(&device, &pitch, 10, 6));
    CHECK(cudaMemset2D(device, pitch, 'c', 10, 6));
    CHECK(cudaMemcpy2D(device, pitch, from, 10, 5, 6, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy2D(to, 10, device, pitch, 8, 3, cudaMemcpyDeviceToHost));
    std::printf("lines %.10s %.10s %.10s\n", to[0], to[1], to[3]);
    cudaExtent const extent = make_cudaExtent(4, 3, 2);
    cudaPitchedPtr cube;
    CHECK(cudaMalloc3D(&cube, extent));
    CHECK(cudaMemset3D(cube, 'd', extent));
    char corner[25] = {};
    cudaMemcpy3DParms copy = {};
    copy.srcPtr = cube;
    copy.dstPtr = make_cudaPitchedPtr(corner, 4, 4, 3);
    copy.extent = extent;
    copy.kind = cudaMemcpyDeviceToHost;
    CHECK(cudaMemcpy3D(&copy));
    std::printf("cube %s\n", corner);
    CHECK(cudaFree(cube.ptr));
    CHECK(cudaFree(device));
}

static void CUDART_CB tell(void* text)
{
    std::printf("stream: %s\n", static_cast<char const*>(text));
}

static void streams()
{
    cudaStream_t stream;
    cudaEvent_t begin, end;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    int* values;
    CHECK(cudaMallocAsync(&values, 64 * sizeof(int), stream));
    CHECK(cudaMemsetAsync(values, 0, 64 * sizeof(int), stream));
    CHECK(cudaEventRecord(begin, stream));
    reverse<<<1, 64, 64 * sizeof(int), stream>>>(values);
    CHECK(cudaEventRecord(end, stream));
    static char text[] = "called back";
    CHECK(cudaLaunchHostFunc(stream, tell, text));
    CHECK(cudaEventSynchronize(end));
    float ms = -1;
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    std::printf("time passed: %s, query %s\n", ms > 0 ? "yes" : "no", cudaGetErrorName(cudaStreamQuery(stream)));
    CHECK(cudaFreeAsync(values, stream));
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    CHECK(cudaStreamDestroy(stream));
}

static void kernels()
{
    int *values, count = 256, step = 3, blocks = 0, devices = 0;
    CHECK(cudaGetDeviceCount(&devices));
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0));
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, add_everywhere, 64, 0));
    CHECK(cudaMalloc(&values, count * sizeof(int)));
    CHECK(cudaMemset(values, 0, count * sizeof(int)));
    void* arguments[] = {&values, &count, &step};
    CHECK(cudaLaunchCooperativeKernel((void const*)add_everywhere, dim3(2), dim3(64), arguments, 0, nullptr));
    int last = 0;
    CHECK(cudaMemcpy(&last, values + count - 1, sizeof last, cudaMemcpyDeviceToHost));
    cudaFuncAttributes attributes;
    CHECK(cudaFuncGetAttributes(&attributes, reverse));
    CHECK(cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10));
    std::printf("warp %d, threads %d, cooperative %d, sum %d, bound %d, fits %s\n", properties.warpSize,
        properties.maxThreadsPerBlock, properties.cooperativeLaunch, last, attributes.maxThreadsPerBlock,
        blocks > 0 ? "yes" : "no");
    reverse<<<1, 2000>>>(values);
    std::printf("too many threads: %s\n", cudaGetErrorString(cudaGetLastError()));
    std::printf("afterwards: %s\n", cudaGetErrorString(cudaGetLastError()));
    CHECK(cudaFree(values));
}

int main(int count, char** arguments)
{
    symbols_and_order();
    memory_of_both();
    boxes();
    streams();
    kernels();
    std::printf("argument: %s\n", count > 1 ? arguments[1] : "none");
    return 0;
}
