// Where an operand's element lies in its shared-memory image. The quantiser writes by these rules; the attention kernel
// never evaluates them, because wgmma's descriptors and register layouts imply them.
#pragma once

#include <cstdint>

#include "hopper/params.h"

namespace sdpa::hopper {

constexpr int kChunkBytes = 16;

// wgmma's swizzle: chunk c of a row is stored at c ^ (address bits above it). Rows of 128 bytes permute eight chunks by
// the row, rows of 64 bytes four chunks by every second row.
template <int kRowBytes>
__host__ __device__ constexpr int swizzled_chunk(int row, int chunk) {
  static_assert(kRowBytes == 64 || kRowBytes == 128, "the swizzles in use span 64 or 128 bytes");
  return kRowBytes == 128 ? chunk ^ (row & 7) : chunk ^ ((row >> 1) & 3);
}

// The key that sits at position p of each sixteen. The probabilities of two neighbouring 8-column accumulator tiles
// become one register of the next wgmma's A operand as they lie, without a shuffle; that places a lane's columns 2t,
// 2t+1 of both tiles side by side, and V's keys must follow.
__host__ __device__ constexpr int key_at_position(int p) { return (p >> 2) * 2 + (p & 1) + ((p >> 1) & 1) * 8; }

// The image row that holds d. Of each 32 rows, row 8j+2t+e holds d = 8t+2j+e: accumulator lane t then owns eight
// consecutive d, one 16-byte store.
__host__ __device__ constexpr int image_row_of_d(int d) {
  return (d & ~31) + ((d >> 1) & 3) * 8 + ((d >> 3) & 3) * 2 + (d & 1);
}

}  // namespace sdpa::hopper
