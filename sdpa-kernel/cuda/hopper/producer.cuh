// The producer: one warp that keeps the rings of K and V tiles full, and fetches Q for every work item. All lanes keep
// the books, so that addresses are uniform; one issues.
#pragma once

#include <cstdint>

#include "hopper/params.h"
#include "hopper/scheduler.cuh"
#include "hopper/traits.cuh"
#include "hopper/ptx/bulk_copy.cuh"

namespace sdpa::hopper {

template <class Traits>
class Producer {
 public:
  __device__ Producer(const AttentionParams& params, SharedStorage<Traits>& shared)
      : params_(params),
        shared_(shared),
        row_blocks_(ceil_div(params.seq_q, kQBlockRows)),
        tiles_per_head_(ceil_div(params.seq_kv, kTileKeys)),
        tiles_{0},
        empties_exist_(false) {}

  __device__ void load(const WorkItem& item) {
    load_q(item);
    const size_t head_tiles = static_cast<size_t>(item.head) * tiles_per_head_;
    // From the last tile to the first: with a causal mask the row maxima settle early, near the diagonal.
    for (int tile = item.key_tiles - 1; tile >= 0; --tile, ++tiles_.count) {
      const int slot = tiles_.slot();
      const bool reuses_slot = tiles_.count >= Traits::kStages;
      auto& barriers = shared_.barriers;
      if (reuses_slot) wait_empty(barriers.k_empty[slot], tiles_.empty_parity());
      fetch(shared_.k[slot], params_.k + (head_tiles + tile) * Traits::kKTileBytes, Traits::kKTileBytes,
            barriers.k_full[slot]);
      if (reuses_slot) wait_empty(barriers.v_empty[slot], tiles_.empty_parity());
      fetch(shared_.v[slot].rows, params_.v + (head_tiles + tile) * Traits::kVTileBytes, Traits::kVTileBytes,
            barriers.v_full[slot]);
    }
  }

 private:
  __device__ void load_q(const WorkItem& item) {
    const int first_block = item.first_row / kQBlockRows;
    const int blocks = min(Traits::kRowGroups, row_blocks_ - first_block);
    if (item.round > 0) {
      wait_empty(shared_.barriers.q_empty, RingPosition<1>{item.round}.empty_parity());
    }
    fetch(shared_.q, params_.q + (static_cast<size_t>(item.head) * row_blocks_ + first_block) * Traits::kQBlockBytes,
          blocks * Traits::kQBlockBytes, shared_.barriers.q_full);
  }

  // The first copies wait for nothing, not even for the empty barriers to exist; the first reuse waits for that.
  __device__ void wait_empty(uint64_t& barrier, uint32_t parity) {
    if (!empties_exist_) {
      ptx::named_barrier_sync(kBarrierEmpty, 2 * ptx::kWarpThreads);
      empties_exist_ = true;
    }
    ptx::mbarrier_wait(barrier, parity);
  }

  __device__ static void fetch(void* destination, const uint8_t* source, uint32_t bytes, uint64_t& full) {
    if (!ptx::elect_one()) return;
    ptx::mbarrier_arrive_expect_bytes(full, bytes);
    ptx::bulk_copy_to_shared(destination, source, bytes, full);
  }

  const AttentionParams& params_;
  SharedStorage<Traits>& shared_;
  int row_blocks_;
  int tiles_per_head_;
  RingPosition<Traits::kStages> tiles_;
  bool empties_exist_;
};

}  // namespace sdpa::hopper
