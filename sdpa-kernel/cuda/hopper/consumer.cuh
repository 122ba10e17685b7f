// The consumer: one warpgroup that computes 64 rows of Q against its share of the key tiles.
//
// P.V of each 128-key tile goes to a fresh accumulator and is then added to O in FP32: FP8 wgmma keeps about 13
// fraction bits while it accumulates, which over thousands of keys would shrink O by percents.
#pragma once

#include <cstdint>

#include "hopper/fragment.cuh"
#include "hopper/params.h"
#include "hopper/scheduler.cuh"
#include "hopper/scores_f16.cuh"
#include "hopper/scores_f32.cuh"
#include "hopper/traits.cuh"
#include "hopper/ptx/mbarrier.cuh"
#include "hopper/ptx/prefetch.cuh"
#include "hopper/ptx/warpgroup.cuh"
#include "hopper/ptx/wgmma.cuh"

namespace sdpa::hopper {

// Sums over this warpgroup's keys, relative to 2^log2_bias. Row sums are valid in quad lane 0 only: P.V delivers them
// as the first of the eight columns behind O.
template <class Traits>
struct Accumulator {
  float values[Traits::kOutRegisters];
  RowPair row_sum;

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < Traits::kOutRegisters; ++i) values[i] = 0.0f;
    row_sum.value[0] = row_sum.value[1] = 0.0f;
  }

  __device__ void rescale(const RowPair& factor) {
#pragma unroll
    for (int i = 0; i < Traits::kOutRegisters; ++i) values[i] *= factor.value[i / 2 % 2];
#pragma unroll
    for (int h = 0; h < 2; ++h) row_sum.value[h] *= factor.value[h];
  }

  __device__ void add(const float (&tile)[Traits::kTileRegisters]) {
#pragma unroll
    for (int i = 0; i < Traits::kOutRegisters; ++i) values[i] += tile[i];
#pragma unroll
    for (int h = 0; h < 2; ++h) row_sum.value[h] += tile[Traits::kOutRegisters + 2 * h];
  }
};

template <class Traits>
class Consumer {
 public:
  using Position = RingPosition<Traits::kStages>;

  __device__ Consumer(const AttentionParams& params, SharedStorage<Traits>& shared, int row_group, int key_group)
      : params_(params), shared_(shared), row_group_(row_group), key_group_(key_group), tiles_{0} {}

  // Returns log2 of what the sums are relative to. `logit_scale` turns products of e4m3 numbers into base-2 logits;
  // `offsets` of the head's values, by d, are brought near for the epilogue.
  __device__ RowPair compute(const WorkItem& item, float logit_scale, const float* offsets, Accumulator<Traits>& sums) {
    const Rows rows = rows_of(item);
    ptx::mbarrier_wait(shared_.barriers.q_full, RingPosition<1>{item.round}.full_parity());
    prefetch(offsets);
    const int first_place = skip_unseen_tiles(item, rows);
    sums.clear();
    RowPair log2_bias;
    if (rows.fewest_keys < kKeysThatAverage) {
      log2_bias = run_tiles<Exact>(item, rows, first_place, logit_scale, sums);
    } else if (ScoresF16<false>::serves(logit_scale)) {
      log2_bias = run_tiles<ScoresF16<false>>(item, rows, first_place, logit_scale, sums);
    } else {
      log2_bias = run_tiles<ScoresF16<true>>(item, rows, first_place, logit_scale, sums);
    }
    arrive(shared_.barriers.q_empty);
    tiles_.count += item.key_tiles;
    return log2_bias;
  }

 private:
  // As many at a time as there are registers for: 32 with three consumers at D=128, 64 otherwise.
  static constexpr int kExactKeys = Traits::kConsumerRegisters < 2 * Traits::kOutRegisters + 40 ? 32 : 64;
  using Exact = ScoresF32<kExactKeys>;
  // Where few keys decide a row, errors of P do not average out: from so many on, the mean error stays below 0.003 by
  // code, also where the last keys weigh most.
  static constexpr int kKeysThatAverage = 256;

  struct Rows {
    int first;        // of this warpgroup
    int seen_tiles;   // key tiles that some row of this warpgroup looks at
    int fewest_keys;  // that a row of this warpgroup sees; tiles below need no mask
    int most_keys;
  };

  __device__ Rows rows_of(const WorkItem& item) const {
    Rows rows;
    rows.first = item.first_row + row_group_ * kQBlockRows;
    rows.fewest_keys = key_limit(params_, rows.first);
    rows.most_keys = most_keys_of_rows(params_, rows.first, kQBlockRows);
    rows.seen_tiles = ceil_div(rows.most_keys, kTileKeys);
    return rows;
  }

  // Every line that holds some of them, wherever in a line they begin. Not ahead of the wait for Q, where it costs a
  // microsecond of every launch.
  __device__ static void prefetch(const float* offsets) {
    constexpr int kFloatsOfLine = 32;
    if (lane() > Traits::kHeadDim / kFloatsOfLine) return;
    ptx::prefetch_to_l1(offsets + min(kFloatsOfLine * lane(), Traits::kHeadDim - 1));
  }

  // The CTA's tiles run to what its last row sees; earlier row groups only hand those slots back. The wait keeps a warp
  // from arriving twice in one phase of a barrier.
  __device__ int skip_unseen_tiles(const WorkItem& item, const Rows& rows) {
    int place = key_group_;
    for (; place < item.key_tiles - rows.seen_tiles; place += Traits::kKeyGroups) {
      const Position at{tiles_.count + place};
      ptx::mbarrier_wait(shared_.barriers.k_full[at.slot()], at.full_parity());
      arrive(shared_.barriers.k_empty[at.slot()]);
      ptx::mbarrier_wait(shared_.barriers.v_full[at.slot()], at.full_parity());
      arrive(shared_.barriers.v_empty[at.slot()]);
    }
    return place;
  }

  // Returns log2 of what the sums are relative to.
  template <class Softmax>
  __device__ RowPair run_tiles(const WorkItem& item, const Rows& rows, int first_place, float logit_scale,
                               Accumulator<Traits>& sums) {
    Softmax softmax(logit_scale);
    for (int place = first_place; place < item.key_tiles; place += Traits::kKeyGroups) {
      run_tile(item, rows, place, softmax, sums);
    }
    return {softmax.log2_bias(0), softmax.log2_bias(1)};
  }

  // One tile: Q.K, softmax, P.V one after the other. Overlap comes from the other warpgroups.
  template <bool kWide>
  __device__ void run_tile(const WorkItem& item, const Rows& rows, int place, ScoresF16<kWide>& softmax,
                           Accumulator<Traits>& sums) {
    using Scores = ScoresF16<kWide>;
    const Position at{tiles_.count + place};
    typename Scores::Fragment scores;
    compute_scores<Scores>(at, 0, scores);
    arrive(shared_.barriers.k_empty[at.slot()]);
    mask_if_needed<Scores>(rows, item.key_tiles - 1 - place, 0, scores);
    const typename Scores::Maxima largest = Scores::largest(scores);
    if (softmax.must_move_reference(largest)) sums.rescale(softmax.move_reference(largest));
    softmax.encode(scores);
    typename Scores::Probabilities p;
    Scores::pack(scores, p);
    add_values<Scores>(at, 0, p, sums);
    arrive(shared_.barriers.v_empty[at.slot()]);
  }

  // The same for rows where errors of P do not average out, in FP32 and by parts of the tile. What rounding P to e4m3
  // loses is kept as a second e4m3 number and multiplied as well.
  __device__ void run_tile(const WorkItem& item, const Rows& rows, int place, Exact& softmax,
                           Accumulator<Traits>& sums) {
    const Position at{tiles_.count + place};
    const int tile = item.key_tiles - 1 - place;
#pragma unroll 1
    for (int part = 0; part < kTileKeys / kExactKeys; ++part) {
      if (tile * kTileKeys + part * kExactKeys >= rows.most_keys) continue;
      typename Exact::Fragment scores;
      compute_scores<Exact>(at, part, scores);
      mask_if_needed<Exact>(rows, tile, part, scores);
      sums.rescale(softmax.move_reference(Exact::largest(scores)));
      softmax.exponentiate(scores);
      typename Exact::Probabilities high, low;
      Exact::extract(scores, high);
      Exact::pack(scores, low);
      add_values_of_pair(at, part, high, low, sums);
    }
    arrive(shared_.barriers.k_empty[at.slot()]);
    arrive(shared_.barriers.v_empty[at.slot()]);
  }

  // `part` of the tile: Softmax::kKeys keys.
  template <class Softmax>
  __device__ void compute_scores(const Position& at, int part, typename Softmax::Fragment& scores) {
    issue_scores<Softmax>(at, part, scores);
    ptx::wgmma_wait<0>();
    ptx::pin_registers(scores);
  }

  template <class Softmax>
  __device__ void add_values(const Position& at, int part, typename Softmax::Probabilities& p,
                             Accumulator<Traits>& sums) {
    float tile[Traits::kTileRegisters];
    issue_values<Softmax, false>(at, part, p, tile);
    ptx::wgmma_wait<0>();
    ptx::pin_registers(tile);
    sums.add(tile);
  }

  __device__ void add_values_of_pair(const Position& at, int part, typename Exact::Probabilities& high,
                                     typename Exact::Probabilities& low, Accumulator<Traits>& sums) {
    float tile[Traits::kTileRegisters];
    ptx::pin_registers(low);
    issue_values<Exact, false>(at, part, high, tile);
    issue_values<Exact, true>(at, part, low, tile);
    ptx::wgmma_wait<0>();
    ptx::pin_registers(tile);
    sums.add(tile);
  }

  template <class Softmax>
  __device__ void issue_scores(const Position& at, int part, typename Softmax::Fragment& scores) {
    ptx::mbarrier_wait(shared_.barriers.k_full[at.slot()], at.full_parity());
    const uint64_t q = ptx::matrix_descriptor<Traits::kQKSwizzle>(shared_.q[row_group_]);
    const uint64_t k = ptx::advance_descriptor(ptx::matrix_descriptor<Traits::kQKSwizzle>(shared_.k[at.slot()]),
                                               part * Softmax::kKeys * Traits::kHeadDim);
    ptx::pin_registers(scores);
    ptx::wgmma_fence();
    ptx::wgmma_scores<false>(q, k, scores);
#pragma unroll
    for (int step = 1; step < Traits::kQKSteps; ++step) {
      ptx::wgmma_scores<true>(ptx::advance_descriptor(q, step * 32), ptx::advance_descriptor(k, step * 32), scores);
    }
    ptx::wgmma_commit();
  }

  // To `tile`, or added to what an issue before this one leaves there.
  template <class Softmax, bool kAdds>
  __device__ void issue_values(const Position& at, int part, typename Softmax::Probabilities& p,
                               float (&tile)[Traits::kTileRegisters]) {
    ptx::mbarrier_wait(shared_.barriers.v_full[at.slot()], at.full_parity());
    const uint64_t v = ptx::advance_descriptor(
        ptx::matrix_descriptor<ptx::Swizzle::k128Bytes>(&shared_.v[at.slot()]), part * Softmax::kKeys);
    ptx::pin_registers(p);
    ptx::wgmma_fence();
    ptx::wgmma_values<kAdds>(p, v, tile);
#pragma unroll
    for (int step = 1; step < Softmax::kKeys / 32; ++step) {
      ptx::wgmma_values<true>(p + 4 * step, ptx::advance_descriptor(v, step * 32), tile);
    }
    ptx::wgmma_commit();
  }

  template <class Softmax>
  __device__ void mask_if_needed(const Rows& rows, int tile, int part, typename Softmax::Fragment& scores) {
    if ((tile + 1) * kTileKeys <= rows.fewest_keys) return;
    const int first_column = tile * kTileKeys + part * Softmax::kKeys + 2 * quad_lane();
    const int row = ptx::opaque(rows.first + fragment_row());
    const int limit[2] = {key_limit(params_, row) - first_column, key_limit(params_, row + 8) - first_column};
    Softmax::mask(scores, limit);
  }

  // Every warp arrives for itself: its own wait only covers its own share of a wgmma.
  __device__ static void arrive(uint64_t& barrier) {
    if (lane() == 0) ptx::mbarrier_arrive(barrier);
  }

  const AttentionParams& params_;
  SharedStorage<Traits>& shared_;
  int row_group_;
  int key_group_;
  Position tiles_;
};

}  // namespace sdpa::hopper
