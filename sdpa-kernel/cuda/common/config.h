// The configuration that a module exports about itself, in the one form that every kernel of this project has. The Rust
// twin is sdpa-kernel/src/abi.rs; both sides assert sizes.
#pragma once

#include <cstdint>

namespace sdpa {

// What an entry function was compiled with. Every field is taken from the traits that the kernel itself is instantiated
// with, never from the macro that asked for it: a toggle that the code ignores must show here.
struct Config {
  uint32_t magic;           // kConfigMagic
  uint32_t version;         // kConfigVersion
  uint32_t params_bytes;    // size of the parameter struct
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
enum Exp : uint32_t { kExpMufu = 0, kExpRough = 1, kExpPolynomial = 2 };
enum PFormat : uint32_t { kPFormatF16 = 0, kPFormatE4m3 = 1 };

}  // namespace sdpa
