// Purpose: the online softmax on scores that never leave the registers of mma.sync.
// Responsible for: the same numerics as softmax.cuh, for the two rows whose scores a lane holds; P as halves.
// Leaves to others: the scores, and multiplying O by alpha.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "ladder/mask.cuh"
#include "ladder/softmax.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

// What does not depend on the format of P: masks, maxima and the row sum of the two rows of a lane.
template <class Traits>
struct RowPairSoftmax {
  static constexpr uint32_t kPlace = kSoftmaxRegisters;
  static constexpr int kBlocks = Traits::kTileK / 8;

  using Exponential = Exp2<Traits::Toggles::kExp>;

  float factor;                                         // from a score to log2 units
  float maximum[2] = {kLowestMaximum, kLowestMaximum};  // (rows g, g+8), in score units; equal in the four lanes
  float sum[2] = {0.0f, 0.0f};                          // of this lane's P

  __device__ __forceinline__ explicit RowPairSoftmax(float folded_scales) : factor(folded_scales) {}

  // The sum over a row, in the four lanes that share it.
  __device__ __forceinline__ float row_sum(int row) const {
    float total = sum[row];
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    return total + __shfl_xor_sync(0xffffffffu, total, 2);
  }

 protected:
  static __device__ __forceinline__ void hide(float (&s)[kBlocks][4], const Mask<Traits> (&mask)[2], int first_key) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int limit = mask[row].row_limit - first_key - threadIdx.x % 4 * 2;
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        if (8 * i >= limit) s[i][2 * row] = -INFINITY;
        if (8 * i + 1 >= limit) s[i][2 * row + 1] = -INFINITY;
      }
    }
  }

  __device__ __forceinline__ float raise_maximum(const float (&s)[kBlocks][4], int row) {
    float raised = maximum[row];
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) raised = fmaxf(raised, fmaxf(s[i][2 * row], s[i][2 * row + 1]));
    raised = fmaxf(raised, __shfl_xor_sync(0xffffffffu, raised, 1));
    raised = fmaxf(raised, __shfl_xor_sync(0xffffffffu, raised, 2));
    const float alpha = Exponential::apply(factor * (maximum[row] - raised));
    maximum[row] = raised;
    return alpha;
  }
};

// P as halves.
template <class Traits>
struct Softmax<kSoftmaxRegisters, Traits> : RowPairSoftmax<Traits> {
  using Base = RowPairSoftmax<Traits>;
  using Base::Base, Base::kBlocks;
  using P = Probability<Traits::Toggles::kPFormat>;

  // S of a tile becomes P, packed as the A operand of P V wants it: two neighbouring blocks of 8 keys are one step of
  // 16 keys, register for register. alpha brings earlier O to the new maximum.
  __device__ __forceinline__ void step(uint32_t (&p)[kBlocks][2], float (&alpha)[2], float (&s)[kBlocks][4],
                                       const Mask<Traits> (&mask)[2], int first_key) {
    if (mask[0].crosses(first_key)) Base::hide(s, mask, first_key);
    float bias[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      alpha[row] = Base::raise_maximum(s, row);
      this->sum[row] *= alpha[row];
      bias[row] = P::kBits - this->factor * this->maximum[row];
    }
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const auto pair =
            P::round(make_float2(Base::Exponential::apply(fmaf(s[i][2 * row], this->factor, bias[row])),
                                 Base::Exponential::apply(fmaf(s[i][2 * row + 1], this->factor, bias[row]))));
        p[i][row] = reinterpret_cast<const uint32_t&>(pair);
        const float2 rounded = P::widen(pair);
        this->sum[row] += rounded.x + rounded.y;
      }
    }
  }
};

}  // namespace sdpa
