// Purpose: which keys a query row sees: those that exist and, with causality, those up to its diagonal.
// Responsible for: both rules as one limit per row, and knowing the tiles where every row sees every key.
// Leaves to others: writing -inf (softmax.cuh).
#pragma once

#include "ladder/params.h"
#include "ladder/scheduler.cuh"

namespace sdpa {

template <class Traits>
struct Mask {
  int unmasked_keys;  // keys below this are seen by every row of the query tile
  int row_limit;      // keys below this are seen by this thread's row

  __device__ __forceinline__ Mask(const Params& p, const Work& work, int row_in_tile) {
    unmasked_keys = p.seq_kv;
    row_limit = p.seq_kv;
    if (p.causal) {
      const int first_row_limit = work.first_row + work.causal_offset + 1;
      unmasked_keys = min(unmasked_keys, first_row_limit);
      row_limit = min(row_limit, first_row_limit + row_in_tile);
    }
  }

  // The same answer for all threads of a CTA. Zero-filled keys behind the end have score 0, not -inf: they need it too.
  __device__ __forceinline__ bool crosses(int first_key) const { return first_key + Traits::kTileK > unmasked_keys; }
};

}  // namespace sdpa
