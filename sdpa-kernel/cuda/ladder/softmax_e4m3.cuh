// Purpose: the online softmax on scores in the registers of mma.sync, with P as e4m3.
// Responsible for: P in one or two e4m3 terms, in the order in which the FP8 product takes it.
// Leaves to others: masks, maxima and sums, which do not depend on the format (softmax_registers.cuh).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "common/ptx/convert.cuh"
#include "ladder/softmax_registers.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

template <>
struct Probability<kPFormatE4m3> {
  static constexpr uint32_t kFormat = kPFormatE4m3;
  // The largest P is 256, which e4m3 holds exactly, and what is 2^-17 of it is not lost.
  static constexpr float kBits = 8.0f;
};

template <class Traits>
struct E4m3Softmax : RowPairSoftmax<Traits> {
  using Base = RowPairSoftmax<Traits>;
  using Base::Base, Base::kBlocks;
  using P = Probability<kPFormatE4m3>;
  static_assert(Traits::Toggles::kPFormat == P::kFormat, "SDPA_MATH=2: both factors are e4m3, SDPA_P_FORMAT must be 1");
  static constexpr int kSteps = Traits::kTileK / 32;
  using Codes = uint32_t[kSteps][4];  // A operands: (16 rows, 32 keys) each

  // S of a tile becomes P in place; alpha brings earlier O to the new maximum. The row sum takes P as it is before it
  // is rounded: the roundings of its parts cancel, and e4m3 codes would have to be unpacked to be added.
  __device__ __forceinline__ void exponentiate(float (&s)[kBlocks][4], float (&alpha)[2], const Mask<Traits> (&mask)[2],
                                               int first_key) {
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
      for (int j = 0; j < 4; ++j) {
        s[i][j] = Base::Exponential::apply(fmaf(s[i][j], this->factor, bias[j / 2]));
        this->sum[j / 2] += s[i][j];
      }
    }
  }

  // Four blocks of 8 keys are one step of 32. Where the contraction index of A runs over columns 4t..4t+3 of 16, a lane
  // has keys 2t, 2t+1 of one block and of the next: the values of K's neighbour must be taken in that order too
  // (consumer_fp8.cuh), and then no code changes lanes.
  static __device__ __forceinline__ void pack(Codes& codes, const float (&p)[kBlocks][4]) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const auto& left = p[4 * step + i / 2 * 2];
        const auto& right = p[4 * step + i / 2 * 2 + 1];
        const int row = i % 2 * 2;
        codes[step][i] = ptx::cvt_e4m3x4(left[row], left[row + 1], right[row], right[row + 1]);
      }
    }
  }

  // What e4m3 did not hold of P.
  static __device__ __forceinline__ void subtract(float (&p)[kBlocks][4], const Codes& codes) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t word = codes[step][i / 2];
        const uint32_t halves = ptx::cvt_f16x2_e4m3x2(static_cast<uint16_t>(i % 2 ? word >> 16 : word));
        const float2 rounded = __half22float2(reinterpret_cast<const __half2&>(halves));
        auto& block = p[4 * step + i / 4 * 2 + i % 2];
        const int row = i / 2 % 2 * 2;
        block[row] -= rounded.x;
        block[row + 1] -= rounded.y;
      }
    }
  }
};

}  // namespace sdpa
