// Purpose: S of a query tile on its way from the tensor cores to the softmax, where it goes through shared memory.
// Responsible for: its padding.
// Leaves to others: who writes and reads it (scores.cuh, softmax.cuh).
#pragma once

#include "ladder/shared_tile.cuh"

namespace sdpa {

// 8 floats of padding: the rows read in one go, as pairs of floats, start 8 banks apart.
template <class Traits>
using ScoreTile = SharedTile<Traits::Toggles::kSwizzle, float, Traits::kTileQ, Traits::kTileK, 8>;

}  // namespace sdpa
