// Purpose: the geometry of one kernel: the requested toggles and a head dimension, checked and put into relation.
// Responsible for: every assumption about tile and thread counts, each with a message.
// Leaves to others: what a toggle means. The parts are selected by it and report back what they are (config.cuh).
#pragma once

#include <cstdint>

#include "ladder/params.h"

namespace sdpa {

// For a static_assert that fires only when a template is instantiated.
template <uint32_t>
constexpr bool kUnsupported = false;

constexpr int kWarpSize = 32;
constexpr int kChunkBytes = 16;  // the widest load, store and cp.async

template <class Toggles_, int kHeadDim_>
struct Traits {
  using Toggles = Toggles_;

  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kTileQ = Toggles::kTileQ;
  static constexpr int kTileK = Toggles::kTileK;
  static constexpr int kThreads = Toggles::kThreads;
  static constexpr int kProducerWarps = Toggles::kProducerWarps;
  static constexpr int kProducerThreads = kProducerWarps * kWarpSize;
  static constexpr int kConsumerThreads = kThreads - kProducerThreads;
  static constexpr int kConsumerWarps = kConsumerThreads / kWarpSize;
  static constexpr int kLanesPerRow = kConsumerThreads / kTileQ;  // threads that share the softmax of a query row

  static_assert(kHeadDim == 64 || kHeadDim == 128, "head dimension: 64 or 128");
  static_assert(kThreads % kWarpSize == 0 && kThreads <= 1024, "SDPA_THREADS: whole warps, at most 1024 threads");
  static_assert(kConsumerThreads > 0, "SDPA_THREADS counts producer warps too: no consumer is left");
  static_assert(kTileQ % 16 == 0 && kTileK % 16 == 0, "SDPA_TILE_Q, SDPA_TILE_K: multiples of 16");
  static_assert(kConsumerThreads % kTileQ == 0, "consumer threads: a multiple of SDPA_TILE_Q");
  static_assert(kLanesPerRow >= 2 && kLanesPerRow <= kWarpSize && (kLanesPerRow & (kLanesPerRow - 1)) == 0,
                "consumer threads per query row: a power of two from 2 to 32, for the shuffles of the softmax");
  static_assert(kTileK % (2 * kLanesPerRow) == 0, "SDPA_TILE_K: each lane of a row owns pairs of keys");
};

}  // namespace sdpa
