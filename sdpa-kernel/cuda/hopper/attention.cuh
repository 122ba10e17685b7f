// The attention kernel: out = softmax(Q.K^T * softmax_scale) . V with e4m3 operands and FP16 output, for sm_90a.
//
// Warp-specialised: a producer thread streams shared-memory images of K and V through two rings by bulk copy; consumer
// warpgroups multiply with wgmma, keep scores, probabilities and sums in registers, and store rows directly.
#pragma once

#include <cstdint>

#include "hopper/consumer.cuh"
#include "hopper/epilogue.cuh"
#include "hopper/params.h"
#include "hopper/producer.cuh"
#include "hopper/ptx/bulk_copy.cuh"
#include "hopper/ptx/launch.cuh"
#include "hopper/ptx/warpgroup.cuh"
#include "hopper/scheduler.cuh"
#include "hopper/traits.cuh"

namespace sdpa::hopper {

constexpr float kLog2E = 1.4426950408889634f;

// The ones rows behind every V slot, written once: bulk copies never touch them. A row of equal bytes is its own
// swizzle.
template <class Traits>
__device__ __forceinline__ void fill_ones_rows(SharedStorage<Traits>& shared) {
  constexpr uint32_t kFourOnes = 0x38383838u;  // e4m3 1.0
  constexpr int kChunksPerSlot = Traits::kOnesBytes / sizeof(uint4);
  constexpr int kChunks = Traits::kStages * kChunksPerSlot;
  constexpr int kChunksPerRow = kTileKeys / sizeof(uint4);
#pragma unroll
  for (int first = 0; first < kChunks; first += Traits::kConsumerThreads) {
    const int i = first + threadIdx.x;
    if (i >= kChunks) break;
    const int chunk = i % kChunksPerSlot;
    const uint32_t word = chunk < kChunksPerRow ? kFourOnes : 0;
    reinterpret_cast<uint4*>(shared.v[i / kChunksPerSlot].ones)[chunk] = make_uint4(word, word, word, word);
  }
  ptx::fence_shared_for_async_proxy();
}

// Run by a warp, or a whole warpgroup for setmaxnreg; one warp works. It initialises the barriers and goes on to its
// first copies: only the consumers must wait until all barriers exist.
template <class Traits>
__device__ __forceinline__ void produce(const AttentionParams& params, SharedStorage<Traits>& shared, int warp) {
  if (warp == 0) {
    if (ptx::elect_one()) shared.barriers.init_full();
    __syncwarp();
    ptx::named_barrier_arrive(kBarrierStart, Traits::kConsumerThreads + ptx::kWarpThreads);
  }
  if constexpr (Traits::kMovesRegisters) ptx::shrink_registers<Traits::kProducerRegisters>();
  if (warp != 0) return;
  ptx::wait_for_prior_grid();
  Producer<Traits> producer(params, shared);
  Scheduler<Traits::kRows> scheduler(params);
  WorkItem item;
  while (scheduler.next(item)) producer.load(item);
}

template <class Traits>
__device__ __forceinline__ void consume(const AttentionParams& params, SharedStorage<Traits>& shared, int warp) {
  if (warp == 0) {
    if (ptx::elect_one()) shared.barriers.init_empty(Traits::kConsumers * 4, Traits::kWarpsPerTile);
    __syncwarp();
    ptx::named_barrier_arrive(kBarrierEmpty, 2 * ptx::kWarpThreads);
  }
  fill_ones_rows(shared);
  ptx::named_barrier_sync(kBarrierStart, Traits::kConsumerThreads + ptx::kWarpThreads);
  if constexpr (Traits::kMovesRegisters) ptx::grow_registers<Traits::kConsumerRegisters>();
  ptx::wait_for_prior_grid();
  const int warpgroup = warp / 4;
  const int row_group = warpgroup % Traits::kRowGroups;
  const int key_group = warpgroup / Traits::kRowGroups;
  Consumer<Traits> consumer(params, shared, row_group, key_group);
  Epilogue<Traits> epilogue(params, shared, row_group, key_group);
  Scheduler<Traits::kRows> scheduler(params);
  WorkItem item;
  while (scheduler.next(item)) {
    const float* scales = params.scales + item.head * kWordsPerHead<Traits::kHeadDim>;
    const float qk_scale = __ldg(scales + kOperandQ) * __ldg(scales + kOperandK);
    Accumulator<Traits> sums;
    const float* offsets = scales + kScalesPerHead;
    const float logit_scale = qk_scale * params.softmax_scale * kLog2E;
    const RowPair log2_bias = consumer.compute(item, logit_scale, offsets, sums);
    // From the same cache line as the others, and so from L1: not worth a register over the whole loop.
    const float value_scale = __ldg(scales + kOperandV);
    epilogue.store(item, value_scale, offsets, log2_bias, sums);
  }
}

template <class Traits>
__device__ __forceinline__ void attention_fwd(const AttentionParams& params) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& shared = *reinterpret_cast<SharedStorage<Traits>*>(shared_bytes);
  const int warp = ptx::warp_uniform(threadIdx.x / ptx::kWarpThreads);

  ptx::allow_next_grid();
  if (warp < 4 * Traits::kConsumers) {
    consume(params, shared, warp);
  } else {
    produce(params, shared, warp - 4 * Traits::kConsumers);
  }
}

}  // namespace sdpa::hopper
