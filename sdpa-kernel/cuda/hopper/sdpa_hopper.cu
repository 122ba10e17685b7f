// FP8 attention for Hopper (sm_90a): the entry functions of the attention kernel, one instantiation each, and those of
// the quantiser that makes their operands. The launch record (sdpa-kernel/src/hopper.rs) chooses among them by shape.
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hopper/attention.cuh"
#include "hopper/config.cuh"
#include "hopper/quantise.cuh"

#ifndef SDPA_STAGES
#error "SDPA_STAGES is not defined"
#endif
#if SDPA_P_FORMAT != 1
#error "SDPA_P_FORMAT must be 1: this family multiplies P as e4m3"
#endif

// An entry function, and what it was compiled with under the name <entry>_config.
#define SDPA_HOPPER_ENTRY(name, ...)                                                        \
  using name##_traits = sdpa::hopper::Traits<__VA_ARGS__>;                                  \
  extern "C" __global__ void __launch_bounds__(name##_traits::kThreads, 1)                  \
      name(const __grid_constant__ sdpa::hopper::AttentionParams params) {                  \
    sdpa::hopper::attention_fwd<name##_traits>(params);                                     \
  }                                                                                         \
  extern "C" __constant__ sdpa::Config name##_config = sdpa::hopper::describe<name##_traits>();

#define SDPA_HOPPER_QUANTISER(name, head_dim)                                               \
  extern "C" __global__ void __launch_bounds__(sdpa::hopper::kMaxThreads<head_dim>)         \
      name(const __grid_constant__ sdpa::hopper::QuantiseParams params) {                   \
    sdpa::hopper::quantise<head_dim>(params);                                               \
  }                                                                                         \
  extern "C" __constant__ sdpa::Config name##_config = sdpa::hopper::describe_quantiser<head_dim>();

//                head dim, row groups, key groups, stages
SDPA_HOPPER_ENTRY(attention_d64_1x1, 64, 1, 1, SDPA_STAGES)
SDPA_HOPPER_ENTRY(attention_d64_1x2, 64, 1, 2, SDPA_STAGES)
SDPA_HOPPER_ENTRY(attention_d64_2x2, 64, 2, 2, SDPA_STAGES)
SDPA_HOPPER_ENTRY(attention_d64_4x1, 64, 4, 1, SDPA_STAGES)
SDPA_HOPPER_ENTRY(attention_d128_1x2, 128, 1, 2, SDPA_STAGES)
SDPA_HOPPER_ENTRY(attention_d128_2x1, 128, 2, 1, SDPA_STAGES)
SDPA_HOPPER_ENTRY(attention_d128_3x1, 128, 3, 1, SDPA_STAGES)

SDPA_HOPPER_QUANTISER(quantise_d64, 64)
SDPA_HOPPER_QUANTISER(quantise_d128, 128)
