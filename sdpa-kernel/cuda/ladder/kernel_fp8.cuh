// Purpose: the sm_89 flagship: e4m3 tiles in shared memory, multiplied as they are.
// Responsible for: shared memory and the one barrier per key tile.
// Leaves to others: all parts.
#pragma once

#include "ladder/consumer_fp8.cuh"
#include "ladder/loader_raw.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <class Traits_>
struct KernelFp8 {
  using Traits = Traits_;
  using Computing = Fp8Consumer<Traits>;
  using Loading = RawLoader<Traits>;
  using Scheduling = TileScheduler<Traits::Toggles::kScheduler, Traits>;

  static constexpr int kThreads = Traits::kThreads;
  // While one warp of a scheduler waits for shared memory and another is in its softmax, a third should keep the tensor
  // cores busy. sm_89 has registers for four CTAs of 64 columns and two of 128; where the product becomes a conversion
  // and two products, one of them needs more than that.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  static constexpr int kMinCtasPerSm = 1;
#else
  static constexpr int kMinCtasPerSm = Traits::kHeadDim == 64 ? 4 : 2;
#endif
  static constexpr int kProducerWarps = 0;
  static constexpr int kStages = Loading::kStages;
  static_assert(Traits::Toggles::kLoader == kLoaderRaw, "SDPA_MATH=2: e4m3 tiles are multiplied as they are, SDPA_LOADER=2");
  static_assert(Traits::kProducerWarps == 0, "SDPA_LOADER=2: nothing is left for producer warps to convert");
  static_assert(Traits::Toggles::kSoftmax == kSoftmaxRegisters, "SDPA_MATH=2: scores stay in registers, SDPA_SOFTMAX=2");

  // Q is needed once, before the last slot gets its first tile: it lies there.
  union SharedStorage {
    typename Loading::Tile tiles[kStages];
    struct {
      typename Loading::Tile others[kStages - 1];
      typename Loading::QueryTile tile;
    } query;
  };
  static_assert(sizeof(typename Loading::QueryTile) <= sizeof(typename Loading::Tile), "Q must fit the slot of a tile");

  static __device__ __forceinline__ void run(const Params& p, SharedStorage& shared) {
    Scheduling::for_each(p, [&](const Work& work) { attend(p, work, shared); });
  }

 private:
  static __device__ __forceinline__ void attend(const Params& p, const Work& work, SharedStorage& shared) {
    Computing computing(p, work);
    if (work.key_tiles > 0) {
      Loading loading(shared.tiles, p, work, threadIdx.x);
      loading.start(shared.query.tile, p, work);
      loading.wait();
      __syncthreads();  // everyone's copies of Q have landed
      computing.hold_query(shared.query.tile);
      if (computing.few_keys()) {
        visit_tiles<2>(computing, loading, work, shared);
      } else {
        visit_tiles<1>(computing, loading, work, shared);
      }
    }
    computing.finish(p, work);
  }

  template <int kTerms>
  static __device__ __forceinline__ void visit_tiles(Computing& computing, Loading& loading, const Work& work,
                                                     SharedStorage& shared) {
    for (int t = 0; t < work.key_tiles; ++t) {
      loading.wait();
      __syncthreads();  // everyone's copies of t have landed, and every warp has left Q, or the slot of t - 1
      loading.advance(t);
      const auto& tile = shared.tiles[t % kStages];
      computing.template attend<kTerms>(tile.k, tile.v, t);
    }
  }
};

}  // namespace sdpa
