// Purpose: what a computing warp does when S, P and O stay in its registers: 16 query rows a warp, mma.sync for both
// products, and no memory shared with another warp but the tiles of K and V.
// Responsible for: the two products, composing them with the softmax, and O on its way out.
// Leaves to others: operands (operands.cuh), numerics (softmax_registers.cuh), bringing K and V and their barriers.
#pragma once

#include "ladder/epilogue.cuh"
#include "ladder/mask.cuh"
#include "ladder/operands.cuh"
#include "common/ptx/mma.cuh"
#include "ladder/query.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/softmax_registers.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <class Traits>
struct RegisterConsumer {
  using OperandsPart = Operands<Traits::Toggles::kLoader, Traits>;
  using SoftmaxPart = Softmax<kSoftmaxRegisters, Traits>;
  using QueryTile = typename OperandsPart::QueryTile;
  using KeyTile = typename OperandsPart::KeyTile;
  using ValueTile = typename OperandsPart::ValueTile;

  static constexpr uint32_t kMath = kMathTensor;
  static_assert(Traits::Toggles::kMath == kMath, "SDPA_SOFTMAX=2: scores stay in the registers of SDPA_MATH=1");
  static constexpr int kRowsPerWarp = 16;
  static_assert(Traits::kConsumerWarps * kRowsPerWarp == Traits::kTileQ,
                "SDPA_SOFTMAX=2: one consumer warp for 16 query rows");
  static constexpr int kKeyBlocks = Traits::kTileK / 8;
  static constexpr int kColumnBlocks = Traits::kHeadDim / 8;

  struct SharedStorage {};
  struct EpiloguePart {
    struct SharedStorage {};
  };

  const int thread;     // among the consumers
  const int first_row;  // of the warp, in the query tile
  const Mask<Traits> mask[2];
  SoftmaxPart softmax;
  FragmentA q[Traits::kHeadDim / 16];  // (16 rows, kHeadDim), as pairs of steps of the contraction
  float s[kKeyBlocks][4];              // (16 rows, kTileK)
  uint32_t probabilities[kKeyBlocks][2];  // (16 rows, kTileK) halves
  float o[kColumnBlocks][4] = {};         // (16 rows, kHeadDim)

  __device__ __forceinline__ RegisterConsumer(SharedStorage&, const Params& p, const Work& work, int consumer_thread)
      : thread(consumer_thread),
        first_row(consumer_thread / kWarpSize * kRowsPerWarp),
        mask{Mask<Traits>(p, work, first_row + lane_row()), Mask<Traits>(p, work, first_row + lane_row() + 8)},
        softmax(fold_scales(p, work.head)) {}

  // Dequantises Q of the consumers into a half tile, once.
  __device__ __forceinline__ void load_query(QueryTile& tile, const Params& p, const Work& work) {
    load_query_tile<Traits>(tile, p, work, thread);
    hold_query(tile);
  }

  // Q does not change over the key tiles. All of it must be in `tile`.
  __device__ __forceinline__ void hold_query(const QueryTile& tile) {
#pragma unroll
    for (int d = 0; d < Traits::kHeadDim; d += 32) {
      OperandsPart::query(reinterpret_cast<FragmentA(&)[2]>(q[d / 16]), tile, first_row, d);
    }
  }

  // S of a tile.
  __device__ __forceinline__ void multiply_scores(const QueryTile&, const KeyTile& k) {
#pragma unroll
    for (int i = 0; i < kKeyBlocks; ++i) s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0f;
#pragma unroll
    for (int d = 0; d < Traits::kHeadDim; d += 32) {
#pragma unroll
      for (int key = 0; key < Traits::kTileK; key += 16) {
        FragmentB b[2][2];  // (steps of 16 columns, blocks of 8 keys)
        OperandsPart::keys(b, k, key, d);
#pragma unroll
        for (int step = 0; step < 2; ++step) {
#pragma unroll
          for (int block = 0; block < 2; ++block) {
            ptx::mma_m16n8k16_f32_f16(s[key / 8 + block], q[d / 16 + step], b[step][block]);
          }
        }
      }
    }
  }

  // P of tile t, and O at the new maximum. No other warp takes part.
  __device__ __forceinline__ void soften(int t) {
    float alpha[2];
    softmax.step(probabilities, alpha, s, mask, t * Traits::kTileK);
#pragma unroll
    for (int i = 0; i < kColumnBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) o[i][j] *= alpha[j / 2];
    }
  }

  // O += P V.
  __device__ __forceinline__ void accumulate(const ValueTile& v) {
#pragma unroll
    for (int key = 0; key < Traits::kTileK; key += 16) {
      const uint32_t (&p)[2][2] = reinterpret_cast<const uint32_t(&)[2][2]>(probabilities[key / 8]);
      const FragmentA a = {p[0][0], p[0][1], p[1][0], p[1][1]};
#pragma unroll
      for (int d = 0; d < Traits::kHeadDim; d += 32) {
        FragmentB b[4];  // (blocks of 8 columns)
        OperandsPart::values(b, v, key, d);
#pragma unroll
        for (int block = 0; block < 4; ++block) ptx::mma_m16n8k16_f32_f16(o[d / 8 + block], a, b[block]);
      }
    }
  }

  // Straight from registers: the lanes of a quad write whole 32-byte sectors between them.
  __device__ __forceinline__ void finish(typename EpiloguePart::SharedStorage&, const Params& p, const Work& work) {
    const float v_scale = p.v_scale[work.head];
    const float factors[2] = {row_factor(v_scale, softmax.row_sum(0)), row_factor(v_scale, softmax.row_sum(1))};
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float factor = factors[row];
      const int row_of_head = work.first_row + first_row + lane_row() + 8 * row;
      if (row_of_head >= p.seq_q) break;
      __half* out = p.out + (static_cast<size_t>(work.head) * p.seq_q + row_of_head) * Traits::kHeadDim;
#pragma unroll
      for (int i = 0; i < kColumnBlocks; i += 2) {
        OperandsPart::store(out + 8 * i, o[i][2 * row] * factor, o[i][2 * row + 1] * factor, o[i + 1][2 * row] * factor,
                            o[i + 1][2 * row + 1] * factor);
      }
    }
  }

 private:
  static __device__ __forceinline__ int lane_row() { return threadIdx.x % kWarpSize / 4; }
};

}  // namespace sdpa
