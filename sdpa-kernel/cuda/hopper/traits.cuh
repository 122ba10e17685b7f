// What one instantiation of the attention kernel is made of: shapes, roles, registers, and its shared memory.
#pragma once

#include <cstdint>
#include <type_traits>

#include "hopper/params.h"
#include "hopper/ptx/warpgroup.cuh"
#include "hopper/ptx/wgmma.cuh"

namespace sdpa::hopper {

// A CTA has kRowGroups x kKeyGroups consumer warpgroups and a producer. Warpgroups of different row groups work on
// different 64 rows of Q with the same K and V; those of different key groups take turns over the key tiles of the same
// rows and merge at the end.
template <int kHeadDim_, int kRowGroups_, int kKeyGroups_, int kStages_>
struct Traits {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kRowGroups = kRowGroups_;
  static constexpr int kKeyGroups = kKeyGroups_;
  static constexpr int kStages = kStages_;  // tiles of K, and of V, in flight or in use

  static constexpr int kConsumers = kRowGroups * kKeyGroups;
  static constexpr int kConsumerThreads = kConsumers * ptx::kWarpgroupThreads;
  static constexpr int kWarpsPerTile = kRowGroups * 4;  // warps that read one tile of K or V
  static constexpr int kRows = kRowGroups * kQBlockRows;

  // A launch gives every thread the same registers: 65536 / threads, in steps of 8. Where that is too little for
  // consumers, setmaxnreg moves the producer's to them; it works on warpgroups, so that the producer is one then, and a
  // warp otherwise.
  static constexpr bool kMovesRegisters = kConsumers == 4 || (kHeadDim == 128 && kConsumers > 1);
  static constexpr int kProducerThreads = kMovesRegisters ? ptx::kWarpgroupThreads : ptx::kWarpThreads;
  static constexpr int kThreads = kConsumerThreads + kProducerThreads;
  static constexpr int kConsumerRegisters = kConsumers == 4 ? 112 : kConsumers == 3 ? 160 : 232;
  static constexpr int kProducerRegisters = kConsumers == 2 ? 40 : 32;

  static constexpr int kQBlockBytes = kQBlockRows * kHeadDim;
  static constexpr int kKTileBytes = kTileKeys * kHeadDim;
  static constexpr int kVTileBytes = kHeadDim * kTileKeys;
  // Eight more rows of V^T, the first all ones: P.V then also yields the row sums, of the quantised P.
  static constexpr int kOnesBytes = 8 * kTileKeys;
  static constexpr int kOutRegisters = kHeadDim / 2;
  static constexpr int kTileRegisters = kOutRegisters + 4;
  static constexpr int kPackets = kHeadDim / 16;  // 16-byte stores of output a lane makes
  static constexpr ptx::Swizzle kQKSwizzle = kHeadDim == 128 ? ptx::Swizzle::k128Bytes : ptx::Swizzle::k64Bytes;
  static constexpr int kQKSteps = kHeadDim / 32;

  static_assert(kHeadDim == 64 || kHeadDim == 128, "images, swizzles and wgmma shapes exist for 64 and 128");
  static_assert(kConsumers >= 1 && kConsumers <= 4, "the register pool is divided for up to four consumers");
  static_assert((kStages & (kStages - 1)) == 0, "slot and parity are taken from a counter by masking");
};

// Of Q and of each slot: full when the copy has landed, empty when every warp that reads it has done so.
template <int kStages>
struct Barriers {
  uint64_t q_full;
  uint64_t k_full[kStages];
  uint64_t v_full[kStages];
  uint64_t q_empty;
  uint64_t k_empty[kStages];
  uint64_t v_empty[kStages];

  // The producer needs no more than these for its first copies. By one thread.
  __device__ void init_full() {
    ptx::mbarrier_init(q_full, 1);
#pragma unroll
    for (int i = 0; i < kStages; ++i) ptx::mbarrier_init(k_full[i], 1);
#pragma unroll
    for (int i = 0; i < kStages; ++i) ptx::mbarrier_init(v_full[i], 1);
    ptx::fence_mbarrier_init();
  }

  __device__ void init_empty(int warps, int warps_per_tile) {
    ptx::mbarrier_init(q_empty, warps);
#pragma unroll
    for (int i = 0; i < kStages; ++i) ptx::mbarrier_init(k_empty[i], warps_per_tile);
#pragma unroll
    for (int i = 0; i < kStages; ++i) ptx::mbarrier_init(v_empty[i], warps_per_tile);
    ptx::fence_mbarrier_init();
  }
};

template <class Traits>
struct alignas(1024) SharedStorage {
  uint8_t q[Traits::kRowGroups][Traits::kQBlockBytes];
  uint8_t k[Traits::kStages][Traits::kKTileBytes];
  struct ValueTile {
    uint8_t rows[Traits::kVTileBytes];
    uint8_t ones[Traits::kOnesBytes];
  } v[Traits::kStages];

  struct Merge {
    float2 row_stats[Traits::kKeyGroups][Traits::kRows];  // log2 bias, row sum
    uint4 packets[Traits::kKeyGroups][Traits::kPackets][Traits::kRowGroups * ptx::kWarpgroupThreads];
  };
  struct NoMerge {};
  std::conditional_t<(Traits::kKeyGroups > 1), Merge, NoMerge> merge;

  Barriers<Traits::kStages> barriers;

  static_assert(Traits::kQBlockBytes % 1024 == 0, "a swizzled tile of Q starts on 1024 bytes");
  static_assert(Traits::kKTileBytes % 1024 == 0, "a swizzled tile of K starts on 1024 bytes");
  static_assert(sizeof(ValueTile) % 1024 == 0, "a swizzled tile of V starts on 1024 bytes");
};

// Named barriers; 0 is __syncthreads.
enum NamedBarrier : int {
  kBarrierStart = 1,  // all barriers exist and the ones rows are written: consumers wait, the producer arrives
  kBarrierEmpty = 2,  // the empty barriers exist: the producer waits, the consumer warp that made them arrives
  kBarrierMerge = 3,  // + row group
};

// Place of a tile in a ring of slots, from the count of all tiles before it.
template <int kStages>
struct RingPosition {
  uint32_t count;
  __device__ int slot() const { return count % kStages; }
  __device__ uint32_t full_parity() const { return count / kStages & 1; }
  // A fresh barrier counts as having completed the phase before its first: the first round does not wait.
  __device__ uint32_t empty_parity() const { return full_parity() ^ 1; }
};

}  // namespace sdpa::hopper
