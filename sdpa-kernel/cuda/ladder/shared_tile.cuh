// Purpose: a matrix in shared memory.
// Responsible for: row stride and alignment, so that no access pattern of the parts meets a bank conflict worth naming.
// Leaves to others: what the elements mean.
#pragma once

#include <cstdint>

#include "ladder/traits.cuh"

namespace sdpa {

template <uint32_t kRequestedSwizzle, class Element, int kRows_, int kCols_, int kPad>
struct SharedTile {
  static_assert(kUnsupported<kRequestedSwizzle>, "SDPA_SWIZZLE: 0 (padded rows) or 1 (XOR)");
};

// Padded rows: wmma loads want one constant stride, a multiple of 16 bytes, and pointers aligned to 32 bytes, which
// holds for every 16x16 block.
template <class Element, int kRows_, int kCols_, int kPad>
struct alignas(128) SharedTile<0, Element, kRows_, kCols_, kPad> {
  static constexpr uint32_t kSwizzle = 0;
  static constexpr int kRows = kRows_;
  static constexpr int kCols = kCols_;
  static constexpr int kStride = kCols + kPad;
  static constexpr int kRowStride = kStride;
  static constexpr int kRowPeriod = 1;  // at(row + kRowPeriod, col) is kRowPeriod * kRowStride further, for every col
  static_assert(kStride * sizeof(Element) % kChunkBytes == 0, "rows start at multiples of 16 bytes");

  Element data[kRows * kStride];

  __device__ __forceinline__ Element* at(int row, int col) { return data + row * kStride + col; }
  __device__ __forceinline__ const Element* at(int row, int col) const { return data + row * kStride + col; }
};

// XOR: no padding; the 16-byte chunks of a row change places, so that eight rows read at the same column fall into
// eight different bank groups. Where a row is shorter than the 128 bytes of all banks, rows that share them form a
// line, and the line number takes the place of the row number. Contiguous only within a chunk.
template <class Element, int kRows_, int kCols_, int kPad>
struct alignas(128) SharedTile<1, Element, kRows_, kCols_, kPad> {
  static constexpr uint32_t kSwizzle = 1;
  static constexpr int kRows = kRows_;
  static constexpr int kCols = kCols_;
  static constexpr int kRowStride = kCols;
  static constexpr int kPerChunk = kChunkBytes / sizeof(Element);
  static constexpr int kChunksPerRow = kCols / kPerChunk;
  static constexpr int kRowsPerLine = kChunksPerRow >= 8 ? 1 : 8 / kChunksPerRow;
  static constexpr int kMask = kChunksPerRow >= 8 ? 7 : kChunksPerRow - 1;
  static constexpr int kRowPeriod = kRowsPerLine * (kMask + 1);
  static_assert((kChunksPerRow & (kChunksPerRow - 1)) == 0, "chunks of a row: a power of two");

  Element data[kRows * kCols];

  __device__ __forceinline__ Element* at(int row, int col) { return data + offset(row, col); }
  __device__ __forceinline__ const Element* at(int row, int col) const { return data + offset(row, col); }

 private:
  static __device__ __forceinline__ int offset(int row, int col) {
    const int chunk = col / kPerChunk ^ (row / kRowsPerLine & kMask);
    return row * kCols + chunk * kPerChunk + col % kPerChunk;
  }
};

}  // namespace sdpa
