// Purpose: the kernel in which every warp does everything: load, convert, compute.
// Responsible for: shared memory and the CTA-wide barriers around the half tiles.
// Leaves to others: all parts.
#pragma once

#include "ladder/consumers.cuh"
#include "ladder/loader.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <class Traits_>
struct KernelCta {
  using Traits = Traits_;
  using Computing = typename SelectConsumer<Traits>::Type;
  using Loading = KeyValueLoader<Traits::Toggles::kLoader, Traits, Traits::kThreads>;
  using Scheduling = TileScheduler<Traits::Toggles::kScheduler, Traits>;

  static constexpr int kThreads = Traits::kThreads;
  static constexpr int kMinCtasPerSm = 1;
  static constexpr int kProducerWarps = 0;
  static constexpr int kStages = Loading::kStages;
  static_assert(Traits::kProducerWarps == 0, "producer warps belong to kernel_ws.cuh");

  // Pipelined loading also gets a second half tile: converting tile t then needs no barrier that waits for the last
  // warp to leave tile t - 1.
  static constexpr int kHalfTiles = kStages > 1 ? 2 : 1;

  struct Mainloop {
    typename Loading::SharedStorage loading;
    KeyValueTile<Traits> tiles[kHalfTiles];
    typename Computing::SharedStorage computing;
  };
  struct SharedStorage {
    typename Computing::QueryTile q;
    union {
      Mainloop mainloop;
      typename Computing::EpiloguePart::SharedStorage epilogue;  // O is laid down when the last tile is done with
    };
  };

  static __device__ __forceinline__ void run(const Params& p, SharedStorage& shared) {
    Scheduling::for_each(p, [&](const Work& work) { attend(p, work, shared); });
  }

 private:
  static __device__ __forceinline__ void attend(const Params& p, const Work& work, SharedStorage& shared) {
    Loading loading(shared.mainloop.loading, p, work, threadIdx.x);
    Computing computing(shared.mainloop.computing, p, work, threadIdx.x);

    loading.start();
    computing.load_query(shared.q, p, work);
    for (int t = 0; t < work.key_tiles; ++t) {
      loading.prepare(t);
      if constexpr (kHalfTiles == 1) __syncthreads();  // every warp has left the half tile of t - 1
      KeyValueTile<Traits>& tile = shared.mainloop.tiles[t % kHalfTiles];
      loading.fill(tile, t);
      __syncthreads();  // the half tile of t is complete, and every warp has left that of t - 1
      computing.multiply_scores(shared.q, tile.k);
      computing.soften(t);
      computing.accumulate(tile.v);
    }
    computing.finish(shared.epilogue, p, work);
  }
};

}  // namespace sdpa
