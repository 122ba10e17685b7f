// Purpose: a matrix in shared memory.
// Responsible for: row stride and alignment, so that no access pattern of the parts meets a bank conflict worth naming.
// Leaves to others: what the elements mean.
#pragma once

#include <cstdint>

#include "sdpa/traits.cuh"

namespace sdpa {

// Rows are padded instead of swizzled: wmma loads want one constant stride, a multiple of 16 bytes, and pointers
// aligned to 32 bytes, which holds for every 16x16 block.
template <uint32_t kRequestedSwizzle, class Element, int kRows_, int kCols_, int kPad>
struct alignas(128) SharedTile {
  static_assert(kRequestedSwizzle == 0, "SDPA_SWIZZLE: only 0 (padded rows) exists");
  static constexpr uint32_t kSwizzle = 0;
  static constexpr int kRows = kRows_;
  static constexpr int kCols = kCols_;
  static constexpr int kStride = kCols + kPad;
  static_assert(kStride * sizeof(Element) % kChunkBytes == 0, "rows start at multiples of 16 bytes");

  Element data[kRows * kStride];

  __device__ __forceinline__ Element* at(int row, int col) { return data + row * kStride + col; }
  __device__ __forceinline__ const Element* at(int row, int col) const { return data + row * kStride + col; }
};

}  // namespace sdpa
