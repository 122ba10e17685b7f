// Purpose: the warp-specialised kernel: producer warps bring K and V tiles as halves, consumer warps compute.
// Responsible for: shared memory, the split into roles, and the hand-over of the half tiles.
// Leaves to others: all parts. Producers are the same loader, and consumers the same computation, as in kernel_cta.cuh.
#pragma once

#include "ladder/consumers.cuh"
#include "ladder/loader.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/slots.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <class Traits_>
struct KernelWs {
  using Traits = Traits_;
  using Computing = typename SelectConsumer<Traits>::Type;
  using Loading = KeyValueLoader<Traits::Toggles::kLoader, Traits, Traits::kProducerThreads>;
  using Scheduling = TileScheduler<Traits::Toggles::kScheduler, Traits>;

  static constexpr int kThreads = Traits::kThreads;
  // The loop over works invites ptxas to hoist addresses into registers that a second CTA needs more.
  static constexpr int kMinCtasPerSm = Scheduling::kKind == kSchedulerPersistent && Traits::kHeadDim == 64 ? 2 : 1;
  static constexpr int kProducerWarps = Traits::kProducerWarps;
  static constexpr int kStages = Loading::kStages;
  static_assert(kProducerWarps == 1 || kProducerWarps == 2, "SDPA_PRODUCER_WARPS: 0, 1 or 2");
  static_assert(Loading::kKind == kLoaderCpAsync, "SDPA_PRODUCER_WARPS: producers load asynchronously, SDPA_LOADER=1");
  static_assert(Computing::kMath == kMathTensor, "SDPA_PRODUCER_WARPS: consumers compute with SDPA_MATH=1");

  static_assert(kStages >= 2, "consumers hold V of one tile and K of the next");

  using TileSlots = Slots<kStages>;

  struct Mainloop {
    typename Loading::SharedStorage loading;  // producers only
    KeyValueTile<Traits> tiles[kStages];      // (slots), handed over by TileSlots
    typename Computing::SharedStorage computing;
  };
  struct SharedStorage {
    typename TileSlots::SharedStorage slots;
    typename Computing::QueryTile q;
    union {
      Mainloop mainloop;
      // O is laid down when all consumers are done with the last tile; producers have written their last by then.
      typename Computing::EpiloguePart::SharedStorage epilogue;
    };
  };

  static __device__ __forceinline__ void run(const Params& p, SharedStorage& shared) {
    if (threadIdx.x == 0) TileSlots{shared.slots}.init(Traits::kProducerThreads, Traits::kConsumerThreads);
    int first_tile = 0;  // tiles are numbered through over all works of the CTA, because the slots are
    Scheduling::for_each(p, [&](const Work& work) {
      // Whole warps take one role, so neither role can wait for a lane of the other.
      const bool producing = threadIdx.x >= Traits::kConsumerThreads;
      if (producing) make_loader(p, work, shared).start();
      __syncthreads();  // the slots' barriers are made, while the first copies are under way
      if (producing) {
        produce(p, work, first_tile, shared);
      } else {
        consume(p, work, first_tile, shared);
      }
      first_tile += work.key_tiles;
    });
  }

 private:
  static __device__ __forceinline__ Loading make_loader(const Params& p, const Work& work, SharedStorage& shared) {
    return Loading(shared.mainloop.loading, p, work, threadIdx.x - Traits::kConsumerThreads);
  }

  static __device__ __forceinline__ void produce(const Params& p, const Work& work, int first_tile,
                                                 SharedStorage& shared) {
    Loading loading = make_loader(p, work, shared);
    TileSlots slots{shared.slots};
    for (int t = 0; t < work.key_tiles; ++t) {
      const int tile = first_tile + t;
      loading.prepare(t);
      slots.producer_acquire(tile);
      loading.fill(shared.mainloop.tiles[tile % kStages], t);
      slots.producer_commit(tile);
    }
  }

  // No barrier of the CTA inside: producers would have to take part in it. Q K^T of the next tile goes together
  // with P V of this one: neither depends on the other, so the tensor core has work while first results are on their
  // way.
  static __device__ __forceinline__ void consume(const Params& p, const Work& work, int first_tile,
                                                 SharedStorage& shared) {
    Computing computing(shared.mainloop.computing, p, work, threadIdx.x);
    TileSlots slots{shared.slots};
    const auto multiply_scores = [&](int t) {
      if (t >= work.key_tiles) return;
      slots.consumer_wait(first_tile + t);
      computing.multiply_scores(shared.q, shared.mainloop.tiles[(first_tile + t) % kStages].k);
    };

    computing.load_query(shared.q, p, work);
    multiply_scores(0);
    for (int t = 0; t < work.key_tiles; ++t) {
      computing.soften(t);
      multiply_scores(t + 1);
      computing.accumulate(shared.mainloop.tiles[(first_tile + t) % kStages].v);
      slots.consumer_release(first_tile + t);
    }
    computing.finish(shared.epilogue, p, work);
  }
};

}  // namespace sdpa
