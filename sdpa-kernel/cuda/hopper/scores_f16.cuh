// Softmax over FP16 scores of one warpgroup tile (64 rows x 128 keys): the fast form. Half the registers of FP32,
// packed arithmetic, and probabilities straight from the format.
//
// A probability is 2^y with y = c*(S - m) + offset, where c = q_scale * k_scale * softmax_scale * log2(e). The e4m3
// code of 2^y is about 8*(y + 7), the mantissa taken as linear. max(0, 8c*S + d) is that code before rounding; adding
// 1024 rounds it, because FP16's spacing is 1 there, and leaves it in the low byte. No special-function unit, which at
// 8 cycles an instruction would bind, and no conversion, which takes 4. The rms error of P is 3.1 %, where rounding
// alone has 2.65 %.
//
// The reference m is some earlier maximum of the row, not always the latest: codes have room for scores 2 octaves above
// it, so that after the first tiles most tiles need no reduction over the row and no rescaling. The offset cancels in O
// / l because the row sum l carries it too.
#pragma once

#include <cstdint>

#include "hopper/fragment.cuh"
#include "hopper/params.h"
#include "hopper/ptx/arithmetic.cuh"

namespace sdpa::hopper {

// With kWide the reference is subtracted before the multiplication, which costs an addition for two scores: d grows
// with the logits, and FP16 holds it ever more coarsely and at last not at all, whereas S - m is as small as its code.
template <bool kWide>
class ScoresF16 {
 public:
  static constexpr uint32_t kExponential = 16;  // in sdpa::Config: probabilities straight from the number format
  static constexpr int kKeys = kTileKeys;
  static constexpr int kRegisters = kKeys / 4;
  using Fragment = uint32_t[kRegisters];
  using Probabilities = uint32_t[kRegisters / 2];
  using Maxima = uint32_t;  // of one lane, or of a row: row g low, row g+8 high

  // `logit_scale` is c.
  __device__ explicit ScoresF16(float logit_scale) {
    // Not zero, so that masked scores (-inf) never meet a zero factor. Nor infinite: beyond kLargestCodeScale the
    // largest score alone decides a row either way.
    code_scale_ = ptx::broadcast_half2(fminf(fmaxf(8.0f * logit_scale, 0x1p-21f), kLargestCodeScale));
    reference_ = ptx::broadcast_half2(kLowestScore);
    code_bias_ = ptx::broadcast_half2(kWide ? kReferenceCode : code_at(kLowestScore));
  }

  // Whether d stays small enough for FP16: |S| is 32768 at most, and hundreds where it is likely.
  __device__ static bool serves(float logit_scale) { return kWide || 8.0f * logit_scale <= kWidestCodeScale; }

  // Overwrites columns at or beyond the row's limit with -inf. `limit` counts from this lane's first column. Packed and
  // without branches: (limit - column - 1/2) * 512 is exact, not zero, and overflows to an infinity of its own sign
  // when multiplied once more.
  __device__ static void mask(Fragment& scores, const int (&limit)[2]) {
    uint32_t limits[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) limits[h] = ptx::broadcast_half2(static_cast<float>(max(-1, min(limit[h], kTileKeys))));
    const uint32_t step = ptx::broadcast_half2(512.0f);
    const uint32_t overflow = ptx::broadcast_half2(32768.0f);
#pragma unroll
    for (int i = 0; i < kRegisters; ++i) {
      const float column = i / 2 * 8;
      const uint32_t threshold = ptx::pack_half2(-512.0f * (column + 0.5f), -512.0f * (column + 1.5f));
      const uint32_t distance = ptx::multiply_add_half2(limits[i % 2], step, threshold);
      scores[i] = ptx::min_half2(scores[i], ptx::multiply_half2(distance, overflow));
    }
  }

  // Over this lane's columns: row g in the low half, row g+8 in the high one.
  __device__ static Maxima largest(const Fragment& scores) {
    uint32_t max0 = scores[0];
    uint32_t max1 = scores[1];
#pragma unroll
    for (int i = 2; i < kRegisters; i += 2) {
      max0 = ptx::max_half2(max0, scores[i]);
      max1 = ptx::max_half2(max1, scores[i + 1]);
    }
    return ptx::max_half2(ptx::permute_bytes<0x5410>(max0, max1), ptx::permute_bytes<0x7632>(max0, max1));
  }

  // Whether some score of the warp's rows lies too far above the reference for its code.
  __device__ bool must_move_reference(Maxima largest) const {
    const uint32_t room = ptx::broadcast_half2(kRoomCodes);
    const uint32_t above = ptx::multiply_half2(ptx::subtract_half2(largest, reference_), code_scale_);
    return __any_sync(0xffffffffu, ptx::max_half2(above, room) != room);
  }

  // To the row's latest maximum. Returns the factor for what was accumulated before.
  __device__ RowPair move_reference(Maxima largest) {
    const RowPair before = {log2_bias(0), log2_bias(1)};
    largest = ptx::max_half2(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = ptx::max_half2(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    reference_ = ptx::max_half2(reference_, largest);
    // Rounded down: codes then never rise above the room left for them, whatever FP16's spacing at d.
    if constexpr (!kWide) {
      code_bias_ = ptx::pack_halves(ptx::float_to_half_round_down(code_at(half_of(reference_, 0))),
                                    ptx::float_to_half_round_down(code_at(half_of(reference_, 1))));
    }
    return {ptx::exp2_approx(log2_bias(0) - before.value[0]), ptx::exp2_approx(log2_bias(1) - before.value[1])};
  }

  // Probabilities by code, in two steps: codes in the low bytes of halves, in place of the scores; then the bytes
  // together.
  __device__ void encode(Fragment& scores) const {
    // Of row g and of row g+8: what is subtracted from S if the logits are wide, otherwise d.
    const uint32_t of_rows = kWide ? reference_ : code_bias_;
    const uint32_t of_row[2] = {ptx::permute_bytes<0x1010>(of_rows, of_rows),
                                ptx::permute_bytes<0x3232>(of_rows, of_rows)};
    const uint32_t rounder = ptx::broadcast_half2(1024.0f);
#pragma unroll
    for (int i = 0; i < kRegisters; ++i) {
      const uint32_t code = kWide ? ptx::multiply_add_relu_half2(ptx::subtract_half2(scores[i], of_row[i % 2]),
                                                                 code_scale_, code_bias_)
                                  : ptx::multiply_add_relu_half2(scores[i], code_scale_, of_row[i % 2]);
      scores[i] = ptx::add_half2(code, rounder);
    }
  }

  __device__ static void pack(const Fragment& codes, Probabilities& p) {
#pragma unroll
    for (int i = 0; i < kRegisters / 2; ++i) {
      const int first = i / 2 * 4 + i % 2;
      p[i] = ptx::permute_bytes<0x6420>(codes[first], codes[first + 2]);
    }
  }

  // log2 of what the accumulated sums are relative to: sum = true sum * 2^log2_bias.
  __device__ float log2_bias(int h) const {
    return 0.125f * ((kWide ? code_at(half_of(reference_, h)) : half_of(code_bias_, h)) - kCodeOfOne);
  }

 private:
  static constexpr float kCodeOfOne = 56.0f;  // e4m3 1.0 = 0x38
  // The code of the reference score, e4m3 104. A compromise between room above it and range below: probabilities less
  // than 2^-13.6 of the reference's are lost. Not a power of two: there a linear mantissa would be exact, and the
  // largest probability, which dominates peaked rows, should carry about the error that the others carry on average (+5
  // %, +4 %).
  static constexpr float kReferenceCode = 109.0f;
  // How far codes may rise above it: 125 is e4m3 416, 127 would be NaN.
  static constexpr float kRoomCodes = 16.0f;
  static constexpr float kLowestScore = -60000.0f;  // finite: -inf minus -inf would be NaN
  static constexpr float kWidestCodeScale = 0.5f;
  static constexpr float kLargestCodeScale = 32768.0f;

  __device__ static float half_of(uint32_t pair, int h) {
    return h == 0 ? ptx::low_half_to_float(pair) : ptx::high_half_to_float(pair);
  }

  __device__ float code_scale() const { return ptx::low_half_to_float(code_scale_); }

  // d for this reference, before rounding.
  __device__ float code_at(float reference) const { return fmaf(-code_scale(), reference, kReferenceCode); }

  uint32_t code_scale_;  // 8c, twice
  uint32_t reference_;   // m, row g low, row g+8 high
  uint32_t code_bias_;   // d of both rows; the reference's own code if the logits are wide
};

}  // namespace sdpa::hopper
