// A wgmma whose accumulator is read before the group is waited for: ptxas serialises it and says
// so (C75xx). The second entry waits, and draws no remark.
#define ACC4(s) "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
#define WGMMA(s, a, b)                                                                        \
  asm volatile("{.reg .pred p; setp.ne.b32 p, 1, 0;\n"                                        \
               "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0,%1,%2,%3}, %4, %5, p, 1, 1, 0, 0;}\n" \
               : ACC4(s) : "l"(a), "l"(b))

extern "C" __global__ void wgmma_serialised(float* out, unsigned long long a, unsigned long long b, int depth) {
  float s[4] = {0, 0, 0, 0};
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  for (int k = 0; k < depth; ++k) {
    WGMMA(s, a + k, b + k);
    s[0] *= 2.0f;
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = s[i];
}

extern "C" __global__ void wgmma_pipelined(float* out, unsigned long long a, unsigned long long b) {
  float s[4] = {0, 0, 0, 0};
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  WGMMA(s, a, b);
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = s[i];
}
