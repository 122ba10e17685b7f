// Purpose: what a computing warp does: hold Q, turn each half tile of K and V into a step of the online softmax, lay
// O down. The same code whether these warps also load (kernel_cta.cuh) or not (kernel_ws.cuh).
// Responsible for: composing scores, softmax, P V and epilogue, and the barriers between them.
// Leaves to others: bringing K and V, and saying when a half tile is ready and when it may be overwritten.
#pragma once

#include "ladder/epilogue.cuh"
#include "ladder/loader.cuh"
#include "ladder/mask.cuh"
#include "ladder/named_barriers.cuh"
#include "ladder/pv.cuh"
#include "ladder/query.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/scores.cuh"
#include "ladder/softmax.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <class Traits>
struct Consumer {
  using ScoresPart = Scores<Traits::Toggles::kMath, Traits>;
  using SoftmaxPart = Softmax<Traits::Toggles::kSoftmax, Traits>;
  using ProbabilityTile = typename SoftmaxPart::ProbabilityTile;
  using PvPart = ProbabilityTimesValue<Traits::Toggles::kMath, Traits, ProbabilityTile>;
  using EpiloguePart = Epilogue<Traits>;
  using QueryTile = HalfTile<Traits, Traits::kTileQ>;
  using KeyTile = HalfTile<Traits, Traits::kTileK>;
  using ValueTile = HalfTile<Traits, Traits::kTileK>;

  static constexpr int kRowsPerGroup = ScoresPart::kRowsPerGroup;
  static constexpr uint32_t kMath = ScoresPart::kMath;
  static constexpr int kGroups = Traits::kTileQ / kRowsPerGroup;
  static constexpr int kWarpsPerGroup = Traits::kConsumerWarps / kGroups;
  static_assert(kWarpsPerGroup * kGroups == Traits::kConsumerWarps, "every row group has the same number of warps");
  static_assert(ScoresPart::kMath != kMathScalar || kWarpsPerGroup == 1, "SDPA_MATH=0: one warp for 8 query rows");
  static_assert(kWarpsPerGroup == 1 || kGroups <= kMaxRowGroups, "named_barriers.cuh: no ids for so many row groups");
  static_assert(ScoresPart::kMath == PvPart::kMath, "both products run on the same unit");

  struct SharedStorage {
    typename SoftmaxPart::SharedStorage softmax;
    typename PvPart::SharedStorage pv;
  };

  const int thread;     // among the consumers
  const int group_row;  // first query row of the row group
  const int warp_in_group;
  const Mask<Traits> mask;
  SharedStorage& shared;
  ScoresPart scores;
  SoftmaxPart softmax;
  PvPart pv;

  __device__ __forceinline__ Consumer(SharedStorage& storage, const Params& p, const Work& work, int consumer_thread)
      : thread(consumer_thread),
        group_row(consumer_thread / kWarpSize / kWarpsPerGroup * kRowsPerGroup),
        warp_in_group(consumer_thread / kWarpSize % kWarpsPerGroup),
        mask(p, work, consumer_thread / Traits::kLanesPerRow),
        shared(storage),
        softmax(fold_scales(p, work.head)) {}

  // Q is read once.
  __device__ __forceinline__ void load_query(QueryTile& q, const Params& p, const Work& work) {
    load_query_tile<Traits>(q, p, work, thread);
    scores.hold_query(q, group_row, warp_in_group);
  }

  // S of a tile, in registers.
  __device__ __forceinline__ void multiply_scores(const QueryTile& q, const KeyTile& k) {
    scores.multiply(q, k, group_row, warp_in_group);
  }

  // S to shared memory, then P and alpha of tile t. The two barriers of the row group, S before it is read, and P and
  // alpha before they are read, also order the other direction: S is overwritten after the second one, P and alpha
  // after the first one of the next tile.
  __device__ __forceinline__ void soften(int t) {
    const int group = group_row / kRowsPerGroup;
    const int row = thread / Traits::kLanesPerRow;
    scores.store(shared.softmax.scores, group_row, warp_in_group);
    sync_row_group<kWarpsPerGroup>(group);
    const float alpha = softmax.step(shared.softmax.probabilities.at(row, 0), shared.softmax.scores.at(row, 0), mask,
                                     t * Traits::kTileK);
    PvPart::publish_alpha(shared.pv, row, thread % Traits::kLanesPerRow, alpha);
    sync_row_group<kWarpsPerGroup>(group);
  }

  // O = alpha * O + P V.
  __device__ __forceinline__ void accumulate(const ValueTile& v) {
    pv.accumulate(shared.pv, shared.softmax.probabilities, v, group_row, warp_in_group);
  }

  // `storage` may lie over anything that only the key tiles needed.
  __device__ __forceinline__ void finish(typename EpiloguePart::SharedStorage& storage, const Params& p,
                                         const Work& work) {
    const float row_sum = softmax.row_sum();
    sync_consumers<Traits>();
    pv.store(storage.o, group_row, warp_in_group);
    if (thread % Traits::kLanesPerRow == 0) {
      storage.row_factor[thread / Traits::kLanesPerRow] = row_factor(p.v_scale[work.head], row_sum);
    }
    sync_consumers<Traits>();
    EpiloguePart::store(storage, p, work, thread);
  }
};

}  // namespace sdpa
