// Purpose: the kernel whose tiles stay e4m3 in shared memory: each warp unpacks what it multiplies, in registers.
// Responsible for: shared memory and the one barrier per key tile.
// Leaves to others: all parts.
#pragma once

#include "ladder/consumers.cuh"
#include "ladder/loader_raw.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <class Traits_>
struct KernelRaw {
  using Traits = Traits_;
  using Computing = typename SelectConsumer<Traits>::Type;
  using Loading = RawLoader<Traits>;
  using Scheduling = TileScheduler<Traits::Toggles::kScheduler, Traits>;

  static constexpr int kThreads = Traits::kThreads;
  static constexpr int kMinCtasPerSm = 1;
  static constexpr int kProducerWarps = 0;
  static constexpr int kStages = Loading::kStages;
  static_assert(Traits::kProducerWarps == 0, "SDPA_LOADER=2: nothing is left for producer warps to convert");
  static_assert(Traits::Toggles::kSoftmax == kSoftmaxRegisters,
                "SDPA_LOADER=2: only the operands of SDPA_SOFTMAX=2 can be unpacked in registers");

  struct SharedStorage {
    typename Loading::QueryTile q;
    typename Loading::Tile tiles[kStages];
    typename Computing::SharedStorage computing;
    typename Computing::EpiloguePart::SharedStorage epilogue;
  };

  static __device__ __forceinline__ void run(const Params& p, SharedStorage& shared) {
    Scheduling::for_each(p, [&](const Work& work) { attend(p, work, shared); });
  }

 private:
  static __device__ __forceinline__ void attend(const Params& p, const Work& work, SharedStorage& shared) {
    Computing computing(shared.computing, p, work, threadIdx.x);
    if (work.key_tiles > 0) {
      Loading loading(shared.tiles, p, work, threadIdx.x);
      loading.start(shared.q, p, work);
      for (int t = 0; t < work.key_tiles; ++t) {
        loading.wait();
        __syncthreads();  // everyone's copies of t have landed, and every warp has left the slot of t - 1
        loading.advance(t);
        if (t == 0) computing.hold_query(shared.q);
        const auto& tile = shared.tiles[t % kStages];
        computing.multiply_scores(shared.q, tile.k);
        computing.soften(t);
        computing.accumulate(tile.v);
      }
    }
    computing.finish(shared.epilogue, p, work);
  }
};

}  // namespace sdpa
