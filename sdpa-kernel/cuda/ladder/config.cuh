// Purpose: what a kernel is told when it is compiled, and what it says about itself.
// Responsible for: reading the toggles (-D, all required, meanings in common/config.h), once; filling Config from the types that
// the kernel is made of, so that an ignored toggle shows.
// Leaves to others: comparing it with what was asked for (the registry, on the host).
#pragma once

#include "ladder/kernel_cta.cuh"
#include "ladder/kernel_fp8.cuh"
#include "ladder/kernel_raw.cuh"
#include "ladder/kernel_ws.cuh"
#include "ladder/params.h"

#ifndef SDPA_LOADER
#error "SDPA_LOADER is not defined"
#endif
#ifndef SDPA_STAGES
#error "SDPA_STAGES is not defined"
#endif
#ifndef SDPA_MATH
#error "SDPA_MATH is not defined"
#endif
#ifndef SDPA_SOFTMAX
#error "SDPA_SOFTMAX is not defined"
#endif
#ifndef SDPA_PRODUCER_WARPS
#error "SDPA_PRODUCER_WARPS is not defined"
#endif
#ifndef SDPA_SCHEDULER
#error "SDPA_SCHEDULER is not defined"
#endif
#ifndef SDPA_EXP
#error "SDPA_EXP is not defined"
#endif
#ifndef SDPA_SWIZZLE
#error "SDPA_SWIZZLE is not defined"
#endif
#ifndef SDPA_P_FORMAT
#error "SDPA_P_FORMAT is not defined"
#endif
#ifndef SDPA_TILE_Q
#error "SDPA_TILE_Q is not defined"
#endif
#ifndef SDPA_TILE_K
#error "SDPA_TILE_K is not defined"
#endif
#ifndef SDPA_THREADS
#error "SDPA_THREADS is not defined"
#endif

namespace sdpa {

struct Toggles {
  static constexpr uint32_t kLoader = SDPA_LOADER;
  static constexpr int kStages = SDPA_STAGES;
  static constexpr uint32_t kMath = SDPA_MATH;
  static constexpr uint32_t kSoftmax = SDPA_SOFTMAX;
  static constexpr int kProducerWarps = SDPA_PRODUCER_WARPS;
  static constexpr uint32_t kScheduler = SDPA_SCHEDULER;
  static constexpr uint32_t kExp = SDPA_EXP;
  static constexpr uint32_t kSwizzle = SDPA_SWIZZLE;
  static constexpr uint32_t kPFormat = SDPA_P_FORMAT;
  static constexpr int kTileQ = SDPA_TILE_Q;
  static constexpr int kTileK = SDPA_TILE_K;
  static constexpr int kThreads = SDPA_THREADS;
};

template <class Traits, uint32_t kLoader = Traits::Toggles::kLoader, bool kSpecialised = (Traits::kProducerWarps > 0),
          bool kFp8 = (Traits::Toggles::kMath == kMathTensorFp8)>
struct SelectKernel {
  using Type = KernelCta<Traits>;
};
template <class Traits, uint32_t kLoader>
struct SelectKernel<Traits, kLoader, true, false> {
  using Type = KernelWs<Traits>;
};
template <class Traits>
struct SelectKernel<Traits, kLoaderRaw, false, false> {
  using Type = KernelRaw<Traits>;
};
template <class Traits, uint32_t kLoader, bool kSpecialised>
struct SelectKernel<Traits, kLoader, kSpecialised, true> {
  using Type = KernelFp8<Traits>;
};

template <class Kernel>
constexpr Config describe() {
  using Computing = typename Kernel::Computing;
  Config config{};
  config.magic = kConfigMagic;
  config.version = kConfigVersion;
  config.params_bytes = sizeof(Params);
  config.head_dim = Computing::QueryTile::kCols;
  config.tile_q = Computing::QueryTile::kRows;
  config.tile_k = Computing::KeyTile::kRows;
  config.threads = Kernel::kThreads;
  config.dynamic_smem = sizeof(typename Kernel::SharedStorage);
  config.loader = Kernel::Loading::kKind;
  config.stages = Kernel::kStages;
  config.math = Computing::kMath;
  config.softmax = Computing::SoftmaxPart::kPlace;
  config.producer_warps = Kernel::kProducerWarps;
  config.scheduler = Kernel::Scheduling::kKind;
  config.exp = Computing::SoftmaxPart::Exponential::kKind;
  config.swizzle = Computing::QueryTile::kSwizzle;
  config.p_format = Computing::SoftmaxPart::P::kFormat;
  config.workspace_bytes = Kernel::Scheduling::kWorkspaceBytes;
  return config;
}

}  // namespace sdpa
