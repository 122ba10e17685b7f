// Purpose: Q of a query tile as halves in shared memory.
// Responsible for: the way of the bytes, and the barrier after it.
// Leaves to others: which registers hold it from there on.
#pragma once

#include "ladder/loader.cuh"
#include "ladder/named_barriers.cuh"
#include "ladder/scheduler.cuh"

namespace sdpa {

// By all consumer threads. Without a ring: nothing runs yet that its latency could be hidden behind, except the first
// copies of K and V, which are under way.
template <class Traits>
__device__ __forceinline__ void load_query_tile(HalfTile<Traits, Traits::kTileQ>& q, const Params& p, const Work& work,
                                                int thread) {
  const size_t first = (static_cast<size_t>(work.head) * p.seq_q + work.first_row) * Traits::kHeadDim;
  Chunks<Traits, Traits::kTileQ, Traits::kConsumerThreads> chunks;
  chunks.read_global(p.q + first, p.seq_q - work.first_row, thread);
  chunks.write_dequantised(q, thread);
  sync_consumers<Traits>();
}

}  // namespace sdpa
