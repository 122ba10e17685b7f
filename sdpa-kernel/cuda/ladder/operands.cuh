// Purpose: Q, K and V from shared memory to the registers of mma.sync.
// Responsible for: which lane reads which address, the unpacking of tiles that are still e4m3, and which columns of O
// follow from it.
// Leaves to others: the products (scores_registers.cuh, pv_registers.cuh).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "ladder/loader.cuh"
#include "common/ptx/convert.cuh"
#include "common/ptx/mma.cuh"
#include "ladder/shared_tile.cuh"
#include "ladder/traits.cuh"

namespace sdpa {

// Fragments of a 16x16 or 16x8 block per step of the contraction, as in ptx/mma.cuh.
using FragmentA = uint32_t[4];
using FragmentB = uint32_t[2];

// From half tiles.
template <class Traits>
struct HalfOperands {
  using QueryTile = HalfTile<Traits, Traits::kTileQ>;
  using KeyTile = HalfTile<Traits, Traits::kTileK>;
  using ValueTile = KeyTile;

  // 16 rows from `row` on, 32 columns from `d` on: two steps of the contraction.
  static __device__ __forceinline__ void query(FragmentA (&a)[2], const QueryTile& tile, int row, int d) {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      ptx::ldmatrix_x4(a[step], tile.at(row + lane % 16, d + 16 * step + lane / 16 * 8));
    }
  }

  // 16 keys from `key` on, 32 columns from `d` on: two steps, two blocks of 8 keys.
  static __device__ __forceinline__ void keys(FragmentB (&b)[2][2], const KeyTile& tile, int key, int d) {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      uint32_t r[4];
      ptx::ldmatrix_x4(r, tile.at(key + lane / 16 * 8 + lane % 8, d + 16 * step + lane / 8 % 2 * 8));
#pragma unroll
      for (int i = 0; i < 4; ++i) b[step][i / 2][i % 2] = r[i];
    }
  }

  // 16 keys from `key` on, 32 columns from `d` on: one step, four blocks of 8 columns.
  static __device__ __forceinline__ void values(FragmentB (&b)[4], const ValueTile& tile, int key, int d) {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t r[4];
      ptx::ldmatrix_x4_trans(r, tile.at(key + lane % 16, d + 16 * half + lane / 16 * 8));
#pragma unroll
      for (int i = 0; i < 4; ++i) b[2 * half + i / 2][i % 2] = r[i];
    }
  }

  // One row of two neighbouring blocks of O, scaled: 16 columns of which a lane has two pairs.
  static __device__ __forceinline__ void store(__half* columns, float a0, float a1, float b0, float b1) {
    const int t = threadIdx.x % 4;
    *reinterpret_cast<__half2*>(columns + 2 * t) = __floats2half2_rn(a0, a1);
    *reinterpret_cast<__half2*>(columns + 8 + 2 * t) = __floats2half2_rn(b0, b1);
  }
};

// 16 bytes of padding turn the stride of a row of 64 or 128 bytes into an odd multiple of 16.
template <class Traits, int kRows>
using RawTile = SharedTile<Traits::Toggles::kSwizzle, uint8_t, kRows, Traits::kHeadDim, kChunkBytes>;

// From tiles of e4m3 codes, which ldmatrix reads as 16-bit pairs. A lane receives four codes where it would receive two
// halves, so one load serves two steps. The order of the contraction index is free as long as A and B agree:
// Q K^T: columns 4t, 4t+1 of each 16 feed the first step, 4t+2, 4t+3 the second.
// P V: keys stay in order; of each 16 columns of V the even ones form one block of 8 and the odd ones another, so that
// a lane ends with four neighbouring columns of O.
template <class Traits>
struct RawOperands {
  using QueryTile = RawTile<Traits, Traits::kTileQ>;
  using KeyTile = RawTile<Traits, Traits::kTileK>;
  using ValueTile = KeyTile;

  static __device__ __forceinline__ void query(FragmentA (&a)[2], const QueryTile& tile, int row, int d) {
    const int lane = threadIdx.x % kWarpSize;
    uint32_t r[4];
    ptx::ldmatrix_x4(r, tile.at(row + lane % 16, d + lane / 16 * 16));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[0][i] = low(r[i]);
      a[1][i] = high(r[i]);
    }
  }

  static __device__ __forceinline__ void keys(FragmentB (&b)[2][2], const KeyTile& tile, int key, int d) {
    const int lane = threadIdx.x % kWarpSize;
    uint32_t r[4];
    ptx::ldmatrix_x4(r, tile.at(key + lane / 16 * 8 + lane % 8, d + lane / 8 % 2 * 16));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      b[0][i / 2][i % 2] = low(r[i]);
      b[1][i / 2][i % 2] = high(r[i]);
    }
  }

  static __device__ __forceinline__ void values(FragmentB (&b)[4], const ValueTile& tile, int key, int d) {
    const int lane = threadIdx.x % kWarpSize;
    uint32_t r[4];  // (keys 0 to 7 and 8 to 15) x (columns 0 to 15 and 16 to 31)
    ptx::ldmatrix_x4_trans(r, tile.at(key + lane % 16, d + lane / 16 * 16));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t even = ptx::prmt<0x6420>(r[2 * half], r[2 * half + 1]);
      const uint32_t odd = ptx::prmt<0x7531>(r[2 * half], r[2 * half + 1]);
      b[2 * half][0] = low(even);
      b[2 * half][1] = high(even);
      b[2 * half + 1][0] = low(odd);
      b[2 * half + 1][1] = high(odd);
    }
  }

  static __device__ __forceinline__ void store(__half* columns, float a0, float a1, float b0, float b1) {
    const __half2 halves[2] = {__floats2half2_rn(a0, b0), __floats2half2_rn(a1, b1)};
    *reinterpret_cast<uint2*>(columns + 4 * (threadIdx.x % 4)) = reinterpret_cast<const uint2&>(halves);
  }

 private:
  static __device__ __forceinline__ uint32_t low(uint32_t codes) {
    return ptx::cvt_f16x2_e4m3x2(static_cast<uint16_t>(codes));
  }
  static __device__ __forceinline__ uint32_t high(uint32_t codes) {
    return ptx::cvt_f16x2_e4m3x2(static_cast<uint16_t>(codes >> 16));
  }
};

// What the loader brings decides.
template <uint32_t kLoader, class Traits>
struct Operands : HalfOperands<Traits> {};
template <class Traits>
struct Operands<kLoaderRaw, Traits> : RawOperands<Traits> {};

}  // namespace sdpa
