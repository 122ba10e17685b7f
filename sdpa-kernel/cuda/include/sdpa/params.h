// What crosses the border between host and device: the parameters of every kernel of this project, and the
// configuration that a module exports about itself. The Rust twin is sdpa-kernel/src/abi.rs; both sides assert sizes.
#pragma once

#include <cstdint>

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

// What an entry function was compiled with. Every field is taken from the traits that the kernel itself is instantiated
// with, never from the macro that asked for it: a toggle that the code ignores must show here.
struct Config {
  uint32_t magic;           // kConfigMagic
  uint32_t version;         // kConfigVersion
  uint32_t params_bytes;    // sizeof(Params)
  uint32_t head_dim;
  uint32_t tile_q;          // query rows a CTA works on at a time
  uint32_t tile_k;          // keys a CTA works on at a time
  uint32_t threads;         // CTA size, producer warps included
  uint32_t dynamic_smem;    // bytes to ask for at launch
  uint32_t loader;          // Loader
  uint32_t stages;          // K/V tiles in flight or resident; 1 = no pipelining
  uint32_t math;            // Math
  uint32_t softmax;         // SoftmaxPlace
  uint32_t producer_warps;  // 0: every warp loads and computes
  uint32_t scheduler;       // Scheduler
  uint32_t exp;             // Exp
  uint32_t swizzle;         // 0: padded rows, 1: XOR swizzle
  uint32_t p_format;        // PFormat
  uint32_t workspace_bytes;
  uint32_t reserved[14];
};
static_assert(sizeof(Config) == 128, "sdpa-kernel/src/abi.rs mirrors this struct");

constexpr uint32_t kConfigMagic = 0x41504453u;  // "SDPA", little-endian
constexpr uint32_t kConfigVersion = 1;

enum Loader : uint32_t { kLoaderDirect = 0, kLoaderCpAsync = 1, kLoaderRaw = 2 };
enum Math : uint32_t { kMathScalar = 0, kMathTensor = 1, kMathTensorFp8 = 2 };
enum SoftmaxPlace : uint32_t { kSoftmaxShared = 0, kSoftmaxSharedAlias = 1, kSoftmaxRegisters = 2, kSoftmaxWarp = 3 };
enum Scheduler : uint32_t { kSchedulerOneTile = 0, kSchedulerPersistent = 1 };
enum Exp : uint32_t { kExpMufu = 0, kExpPolynomial = 1 };
enum PFormat : uint32_t { kPFormatF16 = 0, kPFormatE4m3 = 1 };

}  // namespace sdpa
