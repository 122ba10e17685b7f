// Purpose: O from the registers of mma.sync to FP16 in global memory, without a detour through shared memory.
// Responsible for: the factor of a row and the bounds of the query sequence.
// Leaves to others: which columns a lane holds (operands.cuh).
#pragma once

#include <cuda_fp16.h>

#include "ladder/epilogue.cuh"
#include "ladder/params.h"
#include "ladder/scheduler.cuh"

namespace sdpa {

// Rows `row` and `row + 8` of the query tile, in 16 x 8 blocks of O as in ptx/mma.cuh. The lanes of a quad write whole
// 32-byte sectors between them. Each row's factor is made when its turn comes: one register less where they are scarce
// (consumer_registers.cuh, which has its own form, fares better with both at once).
template <class OperandsPart, int kColumnBlocks>
__device__ __forceinline__ void store_rows(const Params& p, const Work& work, int row, const float (&o)[kColumnBlocks][4],
                                           const float (&sums)[2]) {
  const float v_scale = p.v_scale[work.head];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float factor = row_factor(v_scale, sums[half]);
    const int row_of_head = work.first_row + row + 8 * half;
    if (row_of_head >= p.seq_q) break;
    __half* out = p.out + (static_cast<size_t>(work.head) * p.seq_q + row_of_head) * (8 * kColumnBlocks);
#pragma unroll
    for (int i = 0; i < kColumnBlocks; i += 2) {
      OperandsPart::store(out + 8 * i, o[i][2 * half] * factor, o[i][2 * half + 1] * factor, o[i + 1][2 * half] * factor,
                          o[i + 1][2 * half + 1] * factor);
    }
  }
}

}  // namespace sdpa
