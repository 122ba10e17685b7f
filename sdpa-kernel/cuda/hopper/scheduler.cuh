// Which tiles of Q a CTA works on and how many key tiles each needs. A static order: deterministic, no counter to
// reset.
#pragma once

#include <cstdint>

#include "hopper/params.h"

namespace sdpa::hopper {

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

__device__ __forceinline__ int quotient(int n, uint32_t reciprocal) { return reciprocal ? __umulhi(n, reciprocal) : n; }

struct WorkItem {
  uint32_t round;  // how many items this CTA had before
  int head;
  int first_row;  // of the CTA's tile of Q
  int key_tiles;  // enough for the last row of the tile
};

// Keys that the row may look at: 0..limit-1.
__device__ __forceinline__ int key_limit(const AttentionParams& params, int row) {
  if (!params.causal) return params.seq_kv;
  return max(0, min(params.seq_kv, row + params.causal_offset + 1));
}

// Keys that the last of these rows, of those that exist, may look at.
__device__ __forceinline__ int most_keys_of_rows(const AttentionParams& params, int first_row, int rows) {
  if (first_row >= params.seq_q) return 0;
  return key_limit(params, min(first_row + rows, params.seq_q) - 1);
}

// Items are ordered by section of heads (whose K and V should fit the L2 cache together), then longest rows first, then
// head. CTAs take them in rounds of alternating direction, so that who got the longest item of one round gets the
// shortest of the next: for causal work the sums come out nearly equal.
template <int kRows>
class Scheduler {
 public:
  __device__ explicit Scheduler(const AttentionParams& params)
      : params_(params), row_tiles_(ceil_div(params.seq_q, kRows)), round_(0) {}

  __device__ bool next(WorkItem& item) {
    const int place = round_ & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    const int index = round_ * gridDim.x + place;
    // The last round may be partial: a CTA that finds nothing there has no later round either.
    if (index >= params_.heads * row_tiles_) return false;
    item.round = round_++;
    const int section = quotient(index, params_.section_items_reciprocal);
    const int place_in_section = index - section * params_.section_heads * row_tiles_;
    const int rank = quotient(place_in_section, params_.section_heads_reciprocal);
    item.head = (section - rank) * params_.section_heads + place_in_section;
    item.first_row = (row_tiles_ - 1 - rank) * kRows;
    item.key_tiles = ceil_div(most_keys_of_rows(params_, item.first_row, kRows), kTileKeys);
    return true;
  }

 private:
  const AttentionParams& params_;
  int row_tiles_;
  int round_;
};

}  // namespace sdpa::hopper
