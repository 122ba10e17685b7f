// Purpose: what a kernel says about itself.
// Responsible for: filling Config from the types that the kernel is made of, so that an ignored toggle shows.
// Leaves to others: comparing it with what was asked for (the registry, on the host).
#pragma once

#include "ladder/kernel_cta.cuh"
#include "ladder/kernel_fp8.cuh"
#include "ladder/kernel_raw.cuh"
#include "ladder/kernel_ws.cuh"
#include "ladder/params.h"

namespace sdpa {

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
