// What crosses the border between host and device for a kernel of the ladder: its parameters. The Rust twin is
// sdpa-kernel/src/abi.rs; both sides assert sizes.
#pragma once

#include <cstdint>

#include "common/config.h"

struct __half;

namespace sdpa {

// Passed by value to every entry function. Tensors are dense and row-major, 16-byte aligned.
struct Params {
  const uint8_t* q;        // e4m3 [B, H, S_q, D]
  const uint8_t* k;        // e4m3 [B, H, S_kv, D]
  const uint8_t* v;        // e4m3 [B, H, S_kv, D]
  const float* q_scale;    // [B * H]: original value = scale * e4m3 value
  const float* k_scale;    // [B * H]
  const float* v_scale;    // [B * H]
  __half* out;             // FP16 [B, H, S_q, D]
  void* workspace;         // zeroed once when the module is loaded; Config::workspace_bytes long, null when that is 0
  int32_t batch;
  int32_t heads;
  int32_t seq_q;
  int32_t seq_kv;
  int32_t head_dim;
  int32_t causal;          // 0 or 1
  int32_t causal_offset;   // with causal: row i sees keys j <= i + causal_offset (S_kv - S_q aligns the last row with the last key)
  float softmax_scale;     // multiplies q . k, usually 1/sqrt(D)
};
static_assert(sizeof(Params) == 96, "sdpa-kernel/src/abi.rs mirrors this struct");

}  // namespace sdpa
