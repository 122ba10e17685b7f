// What crosses the border between host and device for the Hopper flagship: its operand images, its parameters, and
// those of the quantiser that makes the images. The Rust twin is sdpa-kernel/src/hopper.rs; both sides assert sizes.
//
// All three operands are stored as exact shared-memory images, tile after tile, so that one 1-D bulk copy fetches a
// tile:
//   Q  [B*H][ceil(S_q/64)][64 x D]     rows of D bytes, rotated (rotation.cuh), 16-byte chunks swizzled inside a row
//   K  [B*H][ceil(S_kv/128)][128 x D]  the same
//   V  [B*H][ceil(S_kv/128)][D x 128]  transposed; keys and d permuted (image.cuh), chunks swizzled
// Rows and keys beyond the sequence are zero.
#pragma once

#include <cstdint>

struct __half;

namespace sdpa::hopper {

constexpr int kQBlockRows = 64;   // rows of one wgmma
constexpr int kTileKeys = 128;

// The largest magnitude of Q and K after scaling. |Q8 . K8| <= D * 16^2 then fits FP16 accumulators; e4m3 being a
// floating format, a smaller range costs no accuracy on anything but subnormals.
constexpr float kQueryKeyTarget = 16.0f;
// A power of two: half a step at the largest value is then 1/32 of it, not 1/28 as at 448. The first rows of a causal
// mask are hardly averaged and show it.
constexpr float kValueTarget = 256.0f;

enum Operand : int32_t { kOperandQ = 0, kOperandK = 1, kOperandV = 2 };
// Of each head: scales indexed by Operand, padded to 16 bytes, and behind them an offset of every channel of V. An
// original value of Q or K is scale * e4m3 value, rotated back; one of V is scale * e4m3 value + offset. The offset is
// the mean of what rounding lost over the keys: since a row's probabilities sum to one it is added to the output, and
// takes the part of V's rounding out that all keys share.
constexpr int kScalesPerHead = 4;
template <int kHeadDim>
constexpr int kWordsPerHead = kScalesPerHead + kHeadDim;

// For divisions without a divider, which would stand before the first load of every launch: n / d is the high word of
// n * reciprocal_of(d), as long as n * d < 2^32. Zero stands for division by one.
constexpr uint32_t reciprocal_of(uint32_t d) {
  return d == 1 ? 0 : static_cast<uint32_t>(((uint64_t{1} << 32) + d - 1) / d);
}

struct AttentionParams {
  const uint8_t* q;        // images, 16-byte aligned
  const uint8_t* k;
  const uint8_t* v;
  const float* scales;     // [B * H][kWordsPerHead<D>]
  __half* out;             // FP16 [B * H, S_q, D]
  int32_t heads;           // B * H
  int32_t seq_q;
  int32_t seq_kv;
  int32_t causal;          // 0 or 1
  int32_t causal_offset;   // with causal: row i sees keys j <= i + causal_offset
  int32_t section_heads;   // heads worked on together, longest rows first; divides `heads`; 1 when rows cost the same
  uint32_t section_heads_reciprocal;  // reciprocal_of(section_heads)
  uint32_t section_items_reciprocal;  // reciprocal_of(section_heads * ceil(S_q / rows of the entry's tile))
  float softmax_scale;     // multiplies q . k; not negative
};
static_assert(sizeof(AttentionParams) == 80, "sdpa-kernel/src/hopper.rs mirrors this struct");

struct QuantiseParams {
  const __half* source[3];  // FP16 [B * H, S, D], indexed by Operand
  uint8_t* image[3];
  float* scales;            // [B * H][kWordsPerHead<D>]
  int32_t seq_q;
  int32_t seq_kv;
};
static_assert(sizeof(QuantiseParams) == 64, "sdpa-kernel/src/hopper.rs mirrors this struct");

}  // namespace sdpa::hopper
