// What a Hopper entry function says about itself, in the form that every kernel of the project uses (sdpa::Config).
// Each field comes from the types that the kernel is made of.
#pragma once

#include <cstdint>

#include "hopper/params.h"
#include "hopper/quantise.cuh"
#include "hopper/scheduler.cuh"
#include "hopper/scores_f16.cuh"
#include "hopper/traits.cuh"
#include "common/config.h"

namespace sdpa::hopper {

// Values of Config's fields that only this family has.
constexpr uint32_t kLoaderBulkCopy = 16;
constexpr uint32_t kMathWgmma = 16;

template <class Traits>
constexpr Config describe() {
  Config config{};
  config.magic = kConfigMagic;
  config.version = kConfigVersion;
  config.params_bytes = sizeof(AttentionParams);
  config.head_dim = Traits::kHeadDim;
  config.tile_q = Traits::kRows;
  config.tile_k = kTileKeys;
  config.threads = Traits::kThreads;
  config.dynamic_smem = sizeof(SharedStorage<Traits>);
  config.loader = kLoaderBulkCopy;
  config.stages = Traits::kStages;
  config.math = kMathWgmma;
  config.softmax = kSoftmaxRegisters;
  config.producer_warps = 1;
  config.scheduler = kSchedulerPersistent;
  config.exp = ScoresF16<false>::kExponential;
  config.swizzle = 1;
  config.p_format = kPFormatE4m3;
  return config;
}

// The quantiser: `threads` is the most that a CTA may have.
template <int kHeadDim>
constexpr Config describe_quantiser() {
  Config config{};
  config.magic = kConfigMagic;
  config.version = kConfigVersion;
  config.params_bytes = sizeof(QuantiseParams);
  config.head_dim = kHeadDim;
  config.tile_q = kUnitRows;
  config.tile_k = kUnitRows;
  config.threads = kMaxThreads<kHeadDim>;
  return config;
}

}  // namespace sdpa::hopper
