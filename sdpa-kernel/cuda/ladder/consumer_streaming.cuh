// Purpose: scalar attention in which one warp owns all state of a query row: maximum, sum and O never leave it.
// Responsible for: composing the products, the softmax and the epilogue of such a row. For Q K^T and the softmax a lane
// stands for a key, for P V and O it stands for columns; between them P goes from lane to lane by shuffles.
// Leaves to others: bringing K and V and the barriers around them.
#pragma once

#include <cuda_fp16.h>

#include "ladder/epilogue.cuh"
#include "ladder/loader.cuh"
#include "ladder/mask.cuh"
#include "ladder/query.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/scores.cuh"
#include "ladder/softmax.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <class Traits>
struct StreamingSoftmax {
  static constexpr uint32_t kPlace = kSoftmaxWarp;
  using Exponential = Exp2<Traits::Toggles::kExp>;
  using P = Probability<Traits::Toggles::kPFormat>;
};

template <class Traits>
struct StreamingConsumer {
  using SoftmaxPart = StreamingSoftmax<Traits>;
  using Exponential = typename SoftmaxPart::Exponential;
  using P = typename SoftmaxPart::P;
  using QueryTile = HalfTile<Traits, Traits::kTileQ>;
  using KeyTile = HalfTile<Traits, Traits::kTileK>;
  using ValueTile = HalfTile<Traits, Traits::kTileK>;

  static constexpr uint32_t kMath = kMathScalar;
  static_assert(Traits::Toggles::kMath == kMath, "SDPA_SOFTMAX=3: a lane stands for a key, as only SDPA_MATH=0 can");
  static_assert(Traits::kProducerWarps == 0, "SDPA_SOFTMAX=3: its warps load for themselves, SDPA_PRODUCER_WARPS=0");
  static_assert(Traits::kTileK == kWarpSize, "SDPA_SOFTMAX=3: one lane for a key, SDPA_TILE_K must be 32");
  static_assert(Traits::kTileQ % Traits::kConsumerWarps == 0, "SDPA_SOFTMAX=3: every warp owns as many rows");
  static constexpr int kRows = Traits::kTileQ / Traits::kConsumerWarps;
  static constexpr int kPairs = Traits::kHeadDim / (2 * kWarpSize);

  struct SharedStorage {};
  struct EpiloguePart {
    struct SharedStorage {};
  };

  const int thread;
  const int lane;
  const int first_row;  // of the warp, in the query tile
  const Mask<Traits> mask;
  const float factor;           // from a score to log2 units
  int row_limit[kRows];         // keys below this are seen by the row
  float s[kRows];               // of this lane's key: the score, then P
  float maximum[kRows];         // in score units; equal in all lanes
  float sum[kRows];             // of this lane's P
  float2 o[kRows][kPairs] = {};  // (rows, pairs of columns, 64 apart)

  __device__ __forceinline__ StreamingConsumer(SharedStorage&, const Params& p, const Work& work, int consumer_thread)
      : thread(consumer_thread),
        lane(consumer_thread % kWarpSize),
        first_row(consumer_thread / kWarpSize * kRows),
        mask(p, work, first_row),
        factor(fold_scales(p, work.head)) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      row_limit[r] = Mask<Traits>(p, work, first_row + r).row_limit;
      maximum[r] = kLowestMaximum;
      sum[r] = 0.0f;
    }
  }

  __device__ __forceinline__ void load_query(QueryTile& q, const Params& p, const Work& work) {
    load_query_tile<Traits>(q, p, work, thread);
  }

  // Every lane reads its own key and the same Q. Sums are FP32: a product of two e4m3 values can exceed a half.
  __device__ __forceinline__ void multiply_scores(const QueryTile& q, const KeyTile& k) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) s[r] = 0.0f;
#pragma unroll 1
    for (int d = 0; d < Traits::kHeadDim; d += 8) {
      float k_values[8];
      load_floats(k_values, k.at(lane, d));
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float q_values[8];
        load_floats(q_values, q.at(first_row + r, d));
#pragma unroll
        for (int i = 0; i < 8; ++i) s[r] += q_values[i] * k_values[i];
      }
    }
  }

  // Scores to P, and O at the new maximum.
  __device__ __forceinline__ void soften(int t) {
    const int key = t * Traits::kTileK + lane;
    const bool crosses = mask.crosses(t * Traits::kTileK);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (crosses && key >= row_limit[r]) s[r] = -INFINITY;
      const float raised = fmaxf(maximum[r], warp_maximum(s[r]));
      const float alpha = Exponential::apply(factor * (maximum[r] - raised));
      maximum[r] = raised;
      const auto p = P::round(make_float2(Exponential::apply(fmaf(s[r], factor, P::kBits - factor * raised)), 0.0f));
      s[r] = P::widen(p).x;
      sum[r] = sum[r] * alpha + s[r];
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        o[r][i].x *= alpha;
        o[r][i].y *= alpha;
      }
    }
  }

  // O += P V: lane j's P meets row j of V.
  __device__ __forceinline__ void accumulate(const ValueTile& v) {
#pragma unroll 2
    for (int key = 0; key < Traits::kTileK; ++key) {
      float2 values[kPairs];
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        values[i] = __half22float2(*reinterpret_cast<const __half2*>(v.at(key, 2 * lane + 2 * kWarpSize * i)));
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float p = __shfl_sync(0xffffffffu, s[r], key);
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          o[r][i].x += p * values[i].x;
          o[r][i].y += p * values[i].y;
        }
      }
    }
  }

  // A warp writes whole rows.
  __device__ __forceinline__ void finish(typename EpiloguePart::SharedStorage&, const Params& p, const Work& work) {
    const float v_scale = p.v_scale[work.head];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float factor_of_row = row_factor(v_scale, warp_sum(sum[r]));
      const int row = work.first_row + first_row + r;
      if (row >= p.seq_q) break;
      __half* out = p.out + (static_cast<size_t>(work.head) * p.seq_q + row) * Traits::kHeadDim;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        *reinterpret_cast<__half2*>(out + 2 * lane + 2 * kWarpSize * i) =
            __floats2half2_rn(o[r][i].x * factor_of_row, o[r][i].y * factor_of_row);
      }
    }
  }

 private:
  static __device__ __forceinline__ float warp_maximum(float x) {
#pragma unroll
    for (int distance = 1; distance < kWarpSize; distance *= 2) {
      x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    }
    return x;
  }
  static __device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int distance = 1; distance < kWarpSize; distance *= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
  }
};

}  // namespace sdpa
