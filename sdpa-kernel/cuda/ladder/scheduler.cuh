// Purpose: which query tile a CTA works on, and which key tiles that tile needs.
// Responsible for: the map from the grid to (head, rows), and skipping key tiles that causality hides entirely.
// Leaves to others: masking inside a tile (mask.cuh).
#pragma once

#include <cstdint>

#include "ladder/params.h"
#include "ladder/ptx/special.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

// One query tile of one head.
struct Work {
  int head;           // b * H + h
  int first_row;      // of the query tile
  int key_tiles;      // 0 when no row of the tile sees a key
  int causal_offset;  // as in Params, clamped to where it makes a difference: sums with row numbers cannot overflow
};

// A query tile by number within its head.
template <class Traits>
__device__ __forceinline__ Work work_of(const Params& p, int head, int query_tile) {
  Work work;
  work.head = head;
  work.first_row = query_tile * Traits::kTileQ;
  work.causal_offset = max(-p.seq_q, min(p.causal_offset, p.seq_kv));
  int keys = p.seq_kv;
  if (p.causal) {
    const int last_row = min(work.first_row + Traits::kTileQ, p.seq_q) - 1;
    keys = max(0, min(keys, last_row + work.causal_offset + 1));
  }
  work.key_tiles = (keys + Traits::kTileK - 1) / Traits::kTileK;
  return work;
}

// A scheduler calls body(work) for each query tile of this CTA. Grid: x = query tiles of a head, y = batch * heads.
template <uint32_t kKind, class Traits>
struct TileScheduler {
  static_assert(kUnsupported<kKind>, "SDPA_SCHEDULER: 0 (one tile per CTA) or 1 (persistent)");
};

template <class Traits>
struct TileScheduler<kSchedulerOneTile, Traits> {
  static constexpr uint32_t kKind = kSchedulerOneTile;
  static constexpr uint32_t kWorkspaceBytes = 0;

  template <class Body>
  static __device__ __forceinline__ void for_each(const Params& p, Body body) {
    body(work_of<Traits>(p, blockIdx.y, blockIdx.x));
  }
};

// As many CTAs as the chip is meant to hold share all tiles, each a fixed set, so nothing has to be counted or reset
// between launches; the CTAs of the grid beyond that number leave at once. Correct for any number, so the SM count is
// taken from a register that is allowed to be an upper bound. The last tiles of all heads come first: with causality
// they are the longest.
template <class Traits>
struct TileScheduler<kSchedulerPersistent, Traits> {
  static constexpr uint32_t kKind = kSchedulerPersistent;
  static constexpr uint32_t kWorkspaceBytes = 0;
  static constexpr int kCtasPerSm = 4;

  template <class Body>
  static __device__ __forceinline__ void for_each(const Params& p, Body body) {
    const int heads = gridDim.y;
    const int tiles = gridDim.x * heads;
    const int ctas = static_cast<int>(ptx::sm_count()) * kCtasPerSm;
    const int cta = blockIdx.y * gridDim.x + blockIdx.x;
    if (cta >= ctas) return;
    for (int i = cta; i < tiles; i += ctas) {
      body(work_of<Traits>(p, i % heads, gridDim.x - 1 - i / heads));
      __syncthreads();  // every warp has left the shared memory of this tile
    }
  }
};

}  // namespace sdpa
