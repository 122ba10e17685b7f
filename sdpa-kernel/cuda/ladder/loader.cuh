// Purpose: K and V tiles (and Q, once) from global e4m3 bytes to half tiles in shared memory.
// Responsible for: the way of the bytes: straight through registers, or through a ring of raw tiles filled by cp.async.
// Leaves to others: the barriers around `fill`, and how many half tiles there are.
#pragma once

#include <cstdint>

#include "ladder/dequantise.cuh"
#include "ladder/params.h"
#include "ladder/ptx/cp_async.cuh"
#include "ladder/scheduler.cuh"
#include "ladder/shared_tile.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

// 8 halves of padding turn the row stride into an odd multiple of 16 bytes: eight rows read at the same column, by
// ldmatrix or by 16-byte loads, fall into eight different bank groups.
constexpr int kHalfPad = 8;

template <class Traits, int kRows>
using HalfTile = SharedTile<Traits::Toggles::kSwizzle, __half, kRows, Traits::kHeadDim, kHalfPad>;

template <class Traits>
struct KeyValueTile {
  HalfTile<Traits, Traits::kTileK> k;  // (kTileK, kHeadDim)
  HalfTile<Traits, Traits::kTileK> v;  // (kTileK, kHeadDim)
};

// A tile as 16-byte chunks, dealt to the threads in turn: neighbours take neighbouring chunks. Reading and writing are
// two passes, because the compiler may not move a load above a store that could alias it: in one pass, each chunk would
// wait for the latency of its own load.
template <class Traits, int kRows, int kLoaderThreads>
struct Chunks {
  static constexpr int kPerRow = Traits::kHeadDim / kChunkBytes;
  static constexpr int kCount = kRows * kPerRow;
  static constexpr int kPerThread = (kCount + kLoaderThreads - 1) / kLoaderThreads;
  static constexpr bool kEven = kCount % kLoaderThreads == 0;

  uint4 codes[kPerThread];

  // Calls body(i, chunk, row) for this thread's i-th chunk.
  template <class Body>
  static __device__ __forceinline__ void for_each(int thread, Body body) {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int chunk = thread + i * kLoaderThreads;
      if (kEven || chunk < kCount) body(i, chunk, chunk / kPerRow);
    }
  }

  // From global memory; rows from `rows` on are not read and become zeros.
  __device__ __forceinline__ void read_global(const uint8_t* source, int rows, int thread) {
    for_each(thread, [&](int i, int chunk, int row) {
      codes[i] = row < rows ? __ldg(reinterpret_cast<const uint4*>(source) + chunk) : make_uint4(0, 0, 0, 0);
    });
  }

  __device__ __forceinline__ void read_shared(const uint4* source, int thread) {
    for_each(thread, [&](int i, int chunk, int) { codes[i] = source[chunk]; });
  }

  __device__ __forceinline__ void write_dequantised(HalfTile<Traits, kRows>& tile, int thread) const {
    for_each(thread, [&](int i, int chunk, int row) {
      const int col = chunk % kPerRow * kChunkBytes;
      store_dequantised(tile.at(row, col), tile.at(row, col + 8), codes[i]);
    });
  }
};

// Base of loaders: one head's K and V, and this thread's number among the threads that load.
template <class Traits>
struct KeyValueSource {
  const uint8_t* k;
  const uint8_t* v;
  int seq_kv;
  int key_tiles;
  int thread;

  __device__ __forceinline__ KeyValueSource(const Params& p, const Work& work, int loader_thread)
      : seq_kv(p.seq_kv), key_tiles(work.key_tiles), thread(loader_thread) {
    const size_t head = static_cast<size_t>(work.head) * p.seq_kv * Traits::kHeadDim;
    k = p.k + head;
    v = p.v + head;
  }
};

// A loader offers, to each of kLoaderThreads threads:
//   start()           before the first tile
//   prepare(t)        before the barrier that frees the half tile
//   fill(tile, t)     writes the half tile; visible to others after the next barrier
// with t = 0, 1, 2, ... in this order.
template <uint32_t kKind, class Traits, int kLoaderThreads>
struct KeyValueLoader {
  static_assert(kUnsupported<kKind>, "SDPA_LOADER: 0 (direct), 1 (cp.async) or 2 (cp.async, kept as e4m3)");
};

// Synchronous: nothing is under way while a tile is computed, and each thread converts what it loads as it comes.
template <class Traits, int kLoaderThreads>
struct KeyValueLoader<kLoaderDirect, Traits, kLoaderThreads> : KeyValueSource<Traits> {
  static constexpr uint32_t kKind = kLoaderDirect;
  static constexpr int kStages = 1;
  static_assert(Traits::Toggles::kStages == kStages, "SDPA_LOADER=0 loads one tile at a time: SDPA_STAGES must be 1");

  struct SharedStorage {};

  __device__ __forceinline__ KeyValueLoader(SharedStorage&, const Params& p, const Work& work, int loader_thread)
      : KeyValueSource<Traits>(p, work, loader_thread) {}

  __device__ __forceinline__ void start() {}
  __device__ __forceinline__ void prepare(int) {}

  __device__ __forceinline__ void fill(KeyValueTile<Traits>& tile, int t) {
    const int first_key = t * Traits::kTileK;
    const int rows = this->seq_kv - first_key;
    const size_t offset = static_cast<size_t>(first_key) * Traits::kHeadDim;
    load_words(tile.k, this->k + offset, rows);
    load_words(tile.v, this->v + offset, rows);
  }

 private:
  // The obvious loop: a word of four codes at a time, neighbours reading neighbouring words. No byte is read in vain,
  // but it takes four times the instructions of the 16-byte chunks that cp.async moves.
  __device__ __forceinline__ void load_words(HalfTile<Traits, Traits::kTileK>& tile, const uint8_t* source, int rows) {
    constexpr int kPerRow = Traits::kHeadDim / 4;
    constexpr int kCount = Traits::kTileK * kPerRow;
#pragma unroll
    for (int word = this->thread; word < kCount; word += kLoaderThreads) {
      const int row = word / kPerRow;
      const uint32_t codes = row < rows ? __ldg(reinterpret_cast<const uint32_t*>(source) + word) : 0;
      *reinterpret_cast<uint2*>(tile.at(row, word % kPerRow * 4)) = dequantise_word(codes);
    }
  }
};

// Asynchronous: kStages - 1 raw tiles are under way while one is converted. A thread converts exactly the chunks that
// it copied itself, so its own wait_group is all the synchronisation the ring needs, in both directions.
template <class Traits, int kLoaderThreads>
struct KeyValueLoader<kLoaderCpAsync, Traits, kLoaderThreads> : KeyValueSource<Traits> {
  static constexpr uint32_t kKind = kLoaderCpAsync;
  static constexpr int kStages = Traits::Toggles::kStages;
  static_assert(kStages >= 2, "SDPA_LOADER=1 copies ahead: SDPA_STAGES must be at least 2");

  using TileChunks = Chunks<Traits, Traits::kTileK, kLoaderThreads>;

  struct SharedStorage {
    uint4 k[kStages][TileChunks::kCount];
    uint4 v[kStages][TileChunks::kCount];
  };

  SharedStorage& ring;

  __device__ __forceinline__ KeyValueLoader(SharedStorage& storage, const Params& p, const Work& work,
                                            int loader_thread)
      : KeyValueSource<Traits>(p, work, loader_thread), ring(storage) {}

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int t = 0; t < kStages - 1; ++t) issue(t);
  }

  // The slot of tile t + kStages - 1 is that of tile t - 1, which this thread has converted.
  __device__ __forceinline__ void prepare(int t) {
    issue(t + kStages - 1);
    ptx::cp_async_wait_group<kStages - 1>();
  }

  __device__ __forceinline__ void fill(KeyValueTile<Traits>& tile, int t) {
    const int slot = t % kStages;
    TileChunks k_chunks, v_chunks;
    k_chunks.read_shared(ring.k[slot], this->thread);
    v_chunks.read_shared(ring.v[slot], this->thread);
    k_chunks.write_dequantised(tile.k, this->thread);
    v_chunks.write_dequantised(tile.v, this->thread);
  }

 private:
  // Commits also where there is no tile any more: wait_group counts groups, so each tile must be one. The source
  // address of a key behind the end is not read from.
  __device__ __forceinline__ void issue(int t) {
    if (t < this->key_tiles) {
      const int slot = t % kStages;
      const int rows = this->seq_kv - t * Traits::kTileK;
      const size_t tile = static_cast<size_t>(t) * (Traits::kTileK * Traits::kHeadDim);
      TileChunks::for_each(this->thread, [&](int, int chunk, int row) {
        const uint32_t bytes = row < rows ? kChunkBytes : 0;
        ptx::cp_async_cg_16(&ring.k[slot][chunk], this->k + tile + chunk * kChunkBytes, bytes);
        ptx::cp_async_cg_16(&ring.v[slot][chunk], this->v + tile + chunk * kChunkBytes, bytes);
      });
    }
    ptx::cp_async_commit_group();
  }
};

}  // namespace sdpa
