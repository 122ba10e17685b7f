// The scales of the accurate form: where they lie, and why so many.
#pragma once

#include <cstdint>

#include "hopper/params.h"
#include "hopper/scheduler.cuh"

namespace sdpa::hopper {

// One of every row of Q, since it costs nothing; one of every tile of K, which after the rotation is hardly worse than
// one of every key; one of every channel of V. Heads one after the other in each.
struct AccurateScales {
  __device__ AccurateScales(float* scales, int heads, int seq_q, int seq_kv)
      : q_rows(ceil_div(seq_q, kQBlockRows) * kQBlockRows),
        k_tiles(ceil_div(seq_kv, kTileKeys)),
        q(scales),
        k(q + heads * q_rows),
        v(k + kFloatsOfTile * heads * k_tiles) {}

  __device__ explicit AccurateScales(const AttentionParams& params)
      : AccurateScales(const_cast<float*>(params.scales), params.heads, params.seq_q, params.seq_kv) {}

  static constexpr int kFloatsOfTile = 4;  // of which the first counts: a bulk copy takes 16 bytes

  int q_rows;  // of the image
  int k_tiles;
  float* q;
  float* k;
  float* v;
};

}  // namespace sdpa::hopper
