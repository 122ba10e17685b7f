// Purpose: the warp-specialised kernel: producer warps bring K and V tiles as halves, consumer warps compute.
// Responsible for: shared memory, the split into roles, and the hand-over of the half tiles.
// Leaves to others: all parts. Producers are the same loader, and consumers the same computation, as in kernel_cta.cuh.
#pragma once

#include "sdpa/consumer.cuh"
#include "sdpa/loader.cuh"
#include "sdpa/named_barriers.cuh"
#include "sdpa/scheduler.cuh"
#include "sdpa/traits.cuh"

namespace sdpa {

template <class Traits_>
struct KernelWs {
  using Traits = Traits_;
  using Computing = Consumer<Traits>;
  using Loading = KeyValueLoader<Traits::Toggles::kLoader, Traits, Traits::kProducerThreads>;
  using Scheduling = TileScheduler<Traits::Toggles::kScheduler, Traits>;

  static constexpr int kThreads = Traits::kThreads;
  static constexpr int kProducerWarps = Traits::kProducerWarps;
  static constexpr int kStages = Loading::kStages;
  static_assert(kProducerWarps == 1 || kProducerWarps == 2, "SDPA_PRODUCER_WARPS: 0, 1 or 2");
  static_assert(Loading::kKind == kLoaderCpAsync, "SDPA_PRODUCER_WARPS: producers load asynchronously, SDPA_LOADER=1");
  static_assert(Computing::ScoresPart::kMath == kMathWmma, "SDPA_PRODUCER_WARPS: consumers compute with SDPA_MATH=1");

  static_assert(kStages >= 2, "consumers hold V of one tile and K of the next");

  using Slots = SlotBarriers<Traits, kStages>;

  struct Mainloop {
    typename Loading::SharedStorage loading;  // producers only
    KeyValueTile<Traits> tiles[kStages];      // (slots), handed over by Slots
    typename Computing::SharedStorage computing;
  };
  struct SharedStorage {
    typename Computing::QueryTile q;
    union {
      Mainloop mainloop;
      // O is laid down when all consumers are done with the last tile; producers have written their last by then.
      typename Computing::EpiloguePart::SharedStorage epilogue;
    };
  };

  static __device__ __forceinline__ void run(const Params& p, SharedStorage& shared) {
    const Work work = Scheduling::first(p);
    // Whole warps take one role, so neither role can wait for a lane of the other.
    if (threadIdx.x >= Traits::kConsumerThreads) {
      produce(p, work, shared);
    } else {
      consume(p, work, shared);
    }
  }

 private:
  static __device__ __forceinline__ void produce(const Params& p, const Work& work, SharedStorage& shared) {
    Loading loading(shared.mainloop.loading, p, work, threadIdx.x - Traits::kConsumerThreads);
    loading.start();
    for (int t = 0; t < work.key_tiles; ++t) {
      loading.prepare(t);
      Slots::producer_acquire(t);
      loading.fill(shared.mainloop.tiles[t % kStages], t);
      Slots::producer_commit(t);
    }
  }

  // No __syncthreads from here on: producers would have to take part in it. Q K^T of the next tile goes together with
  // P V of this one: neither depends on the other, so the tensor core has work while first results are on their way.
  static __device__ __forceinline__ void consume(const Params& p, const Work& work, SharedStorage& shared) {
    Computing computing(shared.mainloop.computing, p, work, threadIdx.x);
    const auto multiply_scores = [&](int t) {
      if (t >= work.key_tiles) return;
      Slots::consumer_wait(t);
      computing.multiply_scores(shared.q, shared.mainloop.tiles[t % kStages].k);
    };

    computing.load_query(shared.q, p, work);
    multiply_scores(0);
    for (int t = 0; t < work.key_tiles; ++t) {
      computing.soften(t);
      multiply_scores(t + 1);
      computing.accumulate(shared.mainloop.tiles[t % kStages].v);
      Slots::consumer_release(t, work.key_tiles);
    }
    computing.finish(shared.epilogue, p, work);
  }
};

}  // namespace sdpa
