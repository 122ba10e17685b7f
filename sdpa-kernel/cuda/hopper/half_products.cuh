// The two products of attention by mma on FP16 operands with FP32 sums, from the same shared-memory images that wgmma
// reads. Every e4m3 number is an FP16 number, so that scores have FP32's errors alone. Each warp works on its own 16
// rows.
#pragma once

#include <cstdint>

#include "hopper/fragment.cuh"
#include "hopper/image.cuh"
#include "hopper/params.h"
#include "hopper/ptx/arithmetic.cuh"
#include "common/ptx/mma.cuh"

namespace sdpa::hopper {

template <int kHeadDim>
class HalfProducts {
 public:
  // scores += Q . K^T for keys first_key, first_key + 1, ... of the tile; registers as wgmma has them.
  template <int kRegisters>
  __device__ static void add_scores(const uint8_t* q, const uint8_t* k, int first_key, float (&scores)[kRegisters]) {
    const int row = fragment_row();
#pragma unroll 1
    for (int chunk = 0; chunk < kHeadDim / kChunkBytes; ++chunk) {
      const uint8_t* of_q = place<kHeadDim>(q, row, chunk);
      const Halves top = load(of_q);
      const Halves bottom = load(of_q + 8 * kHeadDim);
      const uint32_t a[4] = {top.low, bottom.low, top.high, bottom.high};
      const uint8_t* of_k = place<kHeadDim>(k, first_key + lane() / 4, chunk);
#pragma unroll
      for (int n = 0; n < kRegisters / 4; ++n) multiply_add(scores + 4 * n, a, load(of_k + n * 8 * kHeadDim));
    }
  }

  // values += P . V and row_sum += P . 1, with P rounded to FP16.
  template <int kRegisters, int kOutRegisters>
  __device__ static void add_values(const uint8_t* v, int first_key, const float (&p)[kRegisters],
                                    float (&values)[kOutRegisters], RowPair& row_sum) {
    float sum[2] = {0.0f, 0.0f};
#pragma unroll
    for (int chunk = 0; chunk < kRegisters / 8; ++chunk) {
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = ptx::pack_half2(p[8 * chunk + 2 * i], p[8 * chunk + 2 * i + 1]);
        sum[i % 2] += ptx::low_half_to_float(a[i]) + ptx::high_half_to_float(a[i]);
      }
      const uint8_t* of_v = place<kTileKeys>(v, lane() / 4, first_key / kChunkBytes + chunk);
#pragma unroll
      for (int n = 0; n < kOutRegisters / 4; ++n) multiply_add(values + 4 * n, a, load(of_v + n * 8 * kTileKeys));
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
      sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
      row_sum.value[h] += sum[h];
    }
  }

 private:
  // Bytes 4t..4t+3 of a chunk of sixteen, as halves. The contraction runs over bytes in whatever order, as long as both
  // operands have the same: for Q and K the one that they lie in, for V the one that its keys are permuted to.
  struct Halves {
    uint32_t low;
    uint32_t high;
  };

  // Where this lane's bytes of a row's chunk lie. Eight rows on, the swizzle is the same.
  template <int kRowBytes>
  __device__ static const uint8_t* place(const uint8_t* tile, int row, int chunk) {
    return tile + row * kRowBytes + swizzled_chunk<kRowBytes>(row, chunk) * kChunkBytes + 4 * quad_lane();
  }

  __device__ static Halves load(const uint8_t* place) {
    const uint32_t bytes = *reinterpret_cast<const uint32_t*>(place);
    return {ptx::unpack_low_e4m3x2(bytes), ptx::unpack_high_e4m3x2(bytes)};
  }

  __device__ static void multiply_add(float* c, const uint32_t (&a)[4], const Halves& b) {
    float sums[4] = {c[0], c[1], c[2], c[3]};
    const uint32_t operand[2] = {b.low, b.high};
    sdpa::ptx::mma_m16n8k16_f32_f16(sums, a, operand);
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] = sums[i];
  }
};

}  // namespace sdpa::hopper
