// Purpose: K and V tiles, and Q, from global to shared memory as the e4m3 bytes they are.
// Responsible for: cp.async into a ring of tiles, and how many copies are under way.
// Leaves to others: unpacking (operands.cuh) and the barriers (kernel_raw.cuh).
#pragma once

#include <cstdint>

#include "ladder/loader.cuh"
#include "ladder/operands.cuh"
#include "ladder/params.h"
#include "ladder/ptx/cp_async.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <class Traits>
struct RawLoader : KeyValueSource<Traits> {
  static constexpr uint32_t kKind = kLoaderRaw;
  static constexpr int kStages = Traits::Toggles::kStages;
  static_assert(kStages >= 2, "SDPA_LOADER=2 copies ahead: SDPA_STAGES must be at least 2");

  using QueryTile = RawTile<Traits, Traits::kTileQ>;
  struct Tile {
    RawTile<Traits, Traits::kTileK> k;  // (kTileK, kHeadDim)
    RawTile<Traits, Traits::kTileK> v;  // (kTileK, kHeadDim)
  };

  Tile (&ring)[kStages];

  __device__ __forceinline__ RawLoader(Tile (&tiles)[kStages], const Params& p, const Work& work, int thread)
      : KeyValueSource<Traits>(p, work, thread), ring(tiles) {}

  // Q travels with the first tile.
  __device__ __forceinline__ void start(QueryTile& q, const Params& p, const Work& work) {
    const size_t first = (static_cast<size_t>(work.head) * p.seq_q + work.first_row) * Traits::kHeadDim;
    copy(q, p.q + first, p.seq_q - work.first_row);
#pragma unroll
    for (int t = 0; t < kStages - 1; ++t) issue(t);
  }

  // This thread's copies of tile t have landed.
  __device__ __forceinline__ void wait() { ptx::cp_async_wait_group<kStages - 2>(); }

  // Into the slot of the tile before the current one. Commits also where there is no tile any more: wait_group counts.
  __device__ __forceinline__ void advance(int t) { issue(t + kStages - 1); }

 private:
  template <class Destination>
  __device__ __forceinline__ void copy(Destination& tile, const uint8_t* source, int rows) {
    constexpr int kPerRow = Traits::kHeadDim / kChunkBytes;
    constexpr int kStep = Traits::kThreads / kPerRow;  // rows that all threads copy at once
    static_assert(Traits::kThreads % kPerRow == 0, "SDPA_THREADS: whole rows of chunks at once");
    constexpr bool kOneStride = kStep % Destination::kRowPeriod == 0;
    const int first_row = this->thread / kPerRow;
    const int column = this->thread % kPerRow * kChunkBytes;
    uint8_t* shared = tile.at(first_row, column);
    source += first_row * Traits::kHeadDim + column;
#pragma unroll
    for (int i = 0; i < (Destination::kRows + kStep - 1) / kStep; ++i) {
      const int row = first_row + i * kStep;
      if (Destination::kRows % kStep != 0 && row >= Destination::kRows) break;
      ptx::cp_async_cg_16(kOneStride ? shared + i * kStep * Destination::kRowStride : tile.at(row, column),
                          source + i * kStep * Traits::kHeadDim, row < rows ? kChunkBytes : 0);
    }
  }

  __device__ __forceinline__ void issue(int t) {
    if (t < this->key_tiles) {
      const int first_key = t * Traits::kTileK;
      const size_t offset = static_cast<size_t>(first_key) * Traits::kHeadDim;
      copy(ring[t % kStages].k, this->k + offset, this->seq_kv - first_key);
      copy(ring[t % kStages].v, this->v + offset, this->seq_kv - first_key);
    }
    ptx::cp_async_commit_group();
  }
};

}  // namespace sdpa
