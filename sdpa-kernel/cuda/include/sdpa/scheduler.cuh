// Purpose: which query tile a CTA works on, and which key tiles that tile needs.
// Responsible for: the map from the grid to (head, rows), and skipping key tiles that causality hides entirely.
// Leaves to others: masking inside a tile (mask.cuh).
#pragma once

#include <cstdint>

#include "sdpa/params.h"
#include "sdpa/traits.cuh"

namespace sdpa {

// One query tile of one head.
struct Work {
  int head;           // b * H + h
  int first_row;      // of the query tile
  int key_tiles;      // 0 when no row of the tile sees a key
  int causal_offset;  // as in Params, clamped to where it makes a difference: sums with row numbers cannot overflow
};

template <uint32_t kKind, class Traits>
struct TileScheduler {
  static_assert(kUnsupported<kKind>, "SDPA_SCHEDULER: only 0 (one tile per CTA) exists");
};

// Grid: x = query tiles of a head, y = batch * heads.
template <class Traits>
struct TileScheduler<kSchedulerOneTile, Traits> {
  static constexpr uint32_t kKind = kSchedulerOneTile;
  static constexpr uint32_t kWorkspaceBytes = 0;

  static __device__ __forceinline__ Work first(const Params& p) {
    Work work;
    work.head = blockIdx.y;
    work.first_row = blockIdx.x * Traits::kTileQ;
    work.causal_offset = max(-p.seq_q, min(p.causal_offset, p.seq_kv));
    int keys = p.seq_kv;
    if (p.causal) {
      const int last_row = min(work.first_row + Traits::kTileQ, p.seq_q) - 1;
      keys = max(0, min(keys, last_row + work.causal_offset + 1));
    }
    work.key_tiles = (keys + Traits::kTileK - 1) / Traits::kTileK;
    return work;
  }
};

}  // namespace sdpa
