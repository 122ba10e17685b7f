// Purpose: the translation unit of the ladder: FP8 (e4m3) attention forward for sm_89 and later, in one variant.
// Responsible for: the two entry functions and what the module exports about itself.
// Leaves to others: everything else. kernel_cta.cuh and kernel_ws.cuh are the places to start reading.
#include <cstdint>

#include "ladder/config.cuh"
#include "ladder/params.h"
#include "ladder/traits.cuh"

namespace sdpa {

using KernelD64 = SelectKernel<Traits<Toggles, 64>>::Type;
using KernelD128 = SelectKernel<Traits<Toggles, 128>>::Type;

constexpr int kMaxSharedBytes = 99 * 1024;  // what sm_89 grants one CTA
static_assert(sizeof(KernelD64::SharedStorage) <= kMaxSharedBytes, "D=64: shared memory does not fit an sm_89 CTA");
static_assert(sizeof(KernelD128::SharedStorage) <= kMaxSharedBytes, "D=128: shared memory does not fit an sm_89 CTA");

extern __shared__ __align__(128) uint8_t dynamic_shared[];

}  // namespace sdpa

// The host reads these back and compares them with the registry.
extern "C" __constant__ sdpa::Config sdpa_config_d64 = sdpa::describe<sdpa::KernelD64>();
extern "C" __constant__ sdpa::Config sdpa_config_d128 = sdpa::describe<sdpa::KernelD128>();

// A minimum of CTAs per SM sets the register target; without one, ptxas would choose by itself, and spill for it.
extern "C" __global__ void __launch_bounds__(sdpa::KernelD64::kThreads, sdpa::KernelD64::kMinCtasPerSm)
    sdpa_fwd_d64(const __grid_constant__ sdpa::Params p) {
  using Kernel = sdpa::KernelD64;
  Kernel::run(p, *reinterpret_cast<Kernel::SharedStorage*>(sdpa::dynamic_shared));
}

extern "C" __global__ void __launch_bounds__(sdpa::KernelD128::kThreads, sdpa::KernelD128::kMinCtasPerSm)
    sdpa_fwd_d128(const __grid_constant__ sdpa::Params p) {
  using Kernel = sdpa::KernelD128;
  Kernel::run(p, *reinterpret_cast<Kernel::SharedStorage*>(sdpa::dynamic_shared));
}
