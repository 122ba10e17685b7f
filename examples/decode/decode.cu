// Attention of one query row a sequence over keys and values in FP8 (e4m3), split over CTAs; the last of a KV head's to come merges.
// Leaves to others: how many CTAs share the keys, which the grid says; the control, which is plain.cu.
//
// It is bound by reading the cache. Query heads of one KV head are columns of the products,
// so that what is read serves them all:
//   S^T (16 keys x 8 heads) = K (16 x D) Q^T (D x 8),   O^T (D x 8) += V^T (D x 16) P^T (16 x 8),
// in FP16, which holds every e4m3 value, with FP32 sums. Which element of D and which key stands where in a product is free as
// long as both operands agree, and so is the order of O's rows: so each lane takes whole chunks of a row of the cache. One warp
// copies tiles of the CTA in bulk into a ring, the others have 16 keys each of every tile.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

// What may be tried: warps that compute, tiles of the ring (twice as many where D is 64), CTAs of an SM.
#ifndef WARPS
#define WARPS 8
#endif
#ifndef STAGES
#define STAGES 6
#endif
#ifndef CTAS
#define CTAS 1
#endif

constexpr int WARP = 32;
constexpr int THREADS = WARP * (WARPS + 1);
constexpr int WARP_KEYS = 16;
constexpr int TILE_KEYS = WARP_KEYS * WARPS;
constexpr int BLOCK_HEADS = 8;
constexpr unsigned ALL_LANES = 0xffffffff;
constexpr float LOG2_E = 1.44269504088896340736f;
constexpr float LN_2 = 0.69314718055994530942f;
// A maximum before there is a key: finite, so that no difference of two is NaN.
constexpr float NO_KEY = -1e30f;
// The largest weight is 2^12 instead of 1: FP16 holds it as well, and does not lose those of 2^-36.
constexpr float WEIGHT_BITS = 12.0f;

// Strides count elements; those of scales may be 0. Rows are at multiples of 16 bytes.
struct Cache {
  const uint8_t* codes;
  const float* scale;
  long long batch_stride;
  long long head_stride;
  int key_stride;
  int scale_batch_stride;
  int scale_head_stride;
};

struct Params {
  const void* q;
  Cache k;
  Cache v;
  // Keys of each sequence; where it is null all have `capacity`.
  const int* lengths;
  void* out;
  float* lse;
  // A row of ROW floats for each split and query head: D sums, the largest score and the sum of weights.
  float* partial;
  // A counter for each set of CTAs that merge; 0 between launches.
  unsigned* arrived;
  long long q_batch_stride;
  int q_head_stride;
  int kv_heads;
  int group;
  int capacity;
  float softmax_scale;
};

// Wrong on purpose, for the judge to find.
enum Fault { NONE, UNMASKED, UNFENCED, UNSCALED };

template <int D>
constexpr int ROW = D + 4;

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t halves_of(uint16_t codes) {
  const __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(codes, __NV_E4M3);
  return pair.x | static_cast<uint32_t>(pair.y) << 16;
}

__device__ __forceinline__ uint32_t low_halves(uint32_t codes) { return halves_of(static_cast<uint16_t>(codes)); }
__device__ __forceinline__ uint32_t high_halves(uint32_t codes) { return halves_of(static_cast<uint16_t>(codes >> 16)); }

__device__ __forceinline__ uint32_t packed(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// C (16 x 8) += A (16 x 16) B (16 x 8). Lane 4g + t has rows g and g + 8 of A and C, and column g of B.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The transpose of 8 x 8 halves, of which a lane has two of a row.
__device__ __forceinline__ uint32_t transposed(uint32_t pair) {
  uint32_t result;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// `bytes` to shared memory, of which the barrier is told.
__device__ __forceinline__ void copy_bulk(void* to, const void* from, uint32_t bytes, uint64_t& barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&barrier))
               : "memory");
}

__device__ __forceinline__ void init_barrier(uint64_t& barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void expect_bytes(uint64_t& barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void arrive(uint64_t& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

__device__ __forceinline__ void wait(uint64_t& barrier, uint32_t parity) {
  uint32_t done = 0;
  while (!done)
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}"
        : "=r"(done)
        : "r"(shared_address(&barrier)), "r"(parity)
        : "memory");
}

// What a CTA works on: query heads of one KV head, and of its tiles every `parts`-th, since as many CTAs share them: what they
// read at a time is close together.
struct Work {
  int batch;
  int kv_head;
  int first_head;
  int heads;
  int keys;
  int tiles;
  int parts;
};

template <int BLOCKS>
__device__ __forceinline__ Work work_of(const Params& p) {
  constexpr int MOST_HEADS = BLOCKS * BLOCK_HEADS;
  const int slices = (p.group + MOST_HEADS - 1) / MOST_HEADS;
  const int slice = blockIdx.y % slices;
  Work work;
  work.batch = blockIdx.z;
  work.kv_head = blockIdx.y / slices;
  work.first_head = work.kv_head * p.group + slice * MOST_HEADS;
  work.heads = min(p.group - slice * MOST_HEADS, MOST_HEADS);
  work.keys = p.lengths ? p.lengths[work.batch] : p.capacity;
  work.tiles = (work.keys + TILE_KEYS - 1) / TILE_KEYS;
  work.parts = max(min(work.tiles, static_cast<int>(gridDim.x)), 1);
  return work;
}

// Four rows of V, and what makes those of the next four lie in other banks.
template <int D>
struct Group {
  uint8_t rows[4][D];
  uint8_t apart[32];
};

// In the order of the cache.
template <int D>
struct Tile {
  uint8_t k[TILE_KEYS][D];
  Group<D> v[TILE_KEYS / 4];
};

template <int D>
constexpr int RING_TILES = STAGES * 128 / D;

template <int D>
struct Ring {
  Tile<D>* tiles;
  uint64_t* full;
  uint64_t* empty;
  int stage;
  // Of the phase of `full` that completes next.
  uint32_t parity;
};

template <int D>
__device__ __forceinline__ void advance(Ring<D>& ring) {
  ring.stage = ring.stage == RING_TILES<D> - 1 ? 0 : ring.stage + 1;
  ring.parity ^= ring.stage == 0;
}

// The first `keys` rows of a tile. Where rows follow each other in the cache one copy is of all of K, and others of four of V each.
template <int D>
__device__ __forceinline__ void copy_tile(Tile<D>& to, const uint8_t* k, const uint8_t* v, const Params& p, int keys,
                                          uint64_t& full, int lane) {
  if (p.k.key_stride == D && p.v.key_stride == D) {
    if (lane == 0) copy_bulk(to.k, k, keys * D, full);
    for (int key = 4 * lane; key < keys; key += 4 * WARP)
      copy_bulk(to.v[key / 4].rows, v + key * D, min(keys - key, 4) * D, full);
    return;
  }
  for (int key = lane; key < keys; key += WARP) {
    copy_bulk(to.k[key], k + static_cast<long long>(key) * p.k.key_stride, D, full);
    copy_bulk(to.v[key / 4].rows[key % 4], v + static_cast<long long>(key) * p.v.key_stride, D, full);
  }
}

// The whole of one warp.
template <int D>
__device__ __forceinline__ void copy_tiles(Ring<D> ring, const Params& p, const Work& work, int lane) {
  const uint8_t* k = p.k.codes + work.batch * p.k.batch_stride + work.kv_head * p.k.head_stride;
  const uint8_t* v = p.v.codes + work.batch * p.v.batch_stride + work.kv_head * p.v.head_stride;
  for (int tile = blockIdx.x; tile < work.tiles; tile += work.parts, advance(ring)) {
    const long long first = static_cast<long long>(tile) * TILE_KEYS;
    const int keys = min(work.keys - tile * TILE_KEYS, TILE_KEYS);
    // Of the phase before the first one, which counts as complete.
    wait(ring.empty[ring.stage], ring.parity ^ 1);
    if (lane == 0) expect_bytes(ring.full[ring.stage], 2 * D * keys);
    __syncwarp();
    copy_tile(ring.tiles[ring.stage], k + first * p.k.key_stride, v + first * p.v.key_stride, p, keys, ring.full[ring.stage], lane);
  }
}

// A warp's rows of a tile.
template <int D>
struct Rows {
  uint8_t (*k)[D];
  Group<D>* v;
};

// No key is where none was copied: what lies there may be NaN, which a weight of 0 does not take away.
template <int D>
__device__ __forceinline__ void clear_rows(const Rows<D>& rows, int first, int lane) {
  if (lane < D / 4)
    for (int key = first; key < WARP_KEYS; ++key) {
      reinterpret_cast<uint32_t*>(rows.k[key])[lane] = 0;
      reinterpret_cast<uint32_t*>(rows.v[key / 4].rows[key % 4])[lane] = 0;
    }
  __syncwarp();
}

// Rows of the products are keys in another order, so that those of V that lanes 4g + t read at once are in different groups.
__device__ __forceinline__ int key_of_row(int row) { return row % 8 / 2 * 4 + row / 8 * 2 + row % 2; }

// Q^T as the products take it, and what makes logarithms to base 2 of scores, for the two heads of each block that a lane has.
template <int D, int BLOCKS>
struct Query {
  uint32_t pair[BLOCKS][D / 16][2];
  float factor[BLOCKS][2];
};

__device__ __forceinline__ float2 two_floats(uint32_t pair, __half) {
  return __half22float2(reinterpret_cast<const __half2&>(pair));
}
__device__ __forceinline__ float2 two_floats(uint32_t pair, __nv_bfloat16) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
}

template <int D, int BLOCKS, typename T>
__device__ __forceinline__ Query<D, BLOCKS> load_query(const Params& p, const Work& work, int lane) {
  Query<D, BLOCKS> query;
  const float scale = p.softmax_scale * LOG2_E *
                      p.k.scale[work.batch * p.k.scale_batch_stride + work.kv_head * p.k.scale_head_stride];
  const T* q = static_cast<const T*>(p.q) + work.batch * p.q_batch_stride;
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n) {
    const int head = n * BLOCK_HEADS + lane / 4;
    const T* row = q + static_cast<long long>(work.first_head + head) * p.q_head_stride + 16 * (lane % 4);
    float2 x[D / 8];
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      const uint4 raw = head < work.heads ? *reinterpret_cast<const uint4*>(row + 64 * (i / 2) + 8 * (i % 2)) : uint4{};
      const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        x[4 * i + w] = two_floats(words[w], T{});
        largest = fmaxf(largest, fmaxf(fabsf(x[4 * i + w].x), fabsf(x[4 * i + w].y)));
      }
    }
    largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
    // Divided by a power of two, which is exact, the largest is between 1 and 2: whatever BF16 holds fits FP16.
    const uint32_t power = largest > 0.0f ? __float_as_uint(largest) & 0x7f800000u : 127u << 23;
    const float inverse = __uint_as_float((254u << 23) - power);
#pragma unroll
    for (int i = 0; i < D / 8; ++i) query.pair[n][i / 2][i % 2] = packed(x[i].x * inverse, x[i].y * inverse);
#pragma unroll
    for (int e = 0; e < 2; ++e)
      query.factor[n][e] = scale * __uint_as_float(__shfl_sync(ALL_LANES, power, 8 * (lane % 4) + 4 * e));
  }
  return query;
}

// Of the keys that a warp has seen: for 16 rows of O^T a block (row g of block j is element g D/8 + 2j, row g + 8 the next),
// and for the heads 2t, 2t + 1 of each 8.
template <int D, int BLOCKS>
struct Sums {
  float o[D / 16][BLOCKS][4];
  float largest[BLOCKS][2];
  // Of this lane's keys alone until the end.
  float weight[BLOCKS][2];
};

// Of rows g and g + 8 a lane has 16 bytes of every 64.
template <int D, int BLOCKS>
__device__ __forceinline__ void score(float (&s)[BLOCKS][4], const Rows<D>& rows, const Query<D, BLOCKS>& query, int lane) {
  // Two chains of sums, so that a product waits for every other one alone.
  float odd[BLOCKS][4] = {};
#pragma unroll
  for (int c = 0; c < D / 64; ++c) {
    const int column = 64 * c + 16 * (lane % 4);
    const uint4 upper = *reinterpret_cast<const uint4*>(&rows.k[key_of_row(lane / 4)][column]);
    const uint4 lower = *reinterpret_cast<const uint4*>(&rows.k[key_of_row(lane / 4 + 8)][column]);
    const uint32_t u[4] = {upper.x, upper.y, upper.z, upper.w}, l[4] = {lower.x, lower.y, lower.z, lower.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const uint32_t a[4] = {low_halves(u[w]), low_halves(l[w]), high_halves(u[w]), high_halves(l[w])};
#pragma unroll
      for (int n = 0; n < BLOCKS; ++n) multiply_add(w % 2 ? odd[n] : s[n], a, query.pair[n][4 * c + w]);
    }
  }
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = (s[n][i] + odd[n][i]) * query.factor[n][i % 2];
}

template <int D, int BLOCKS>
__device__ __forceinline__ void raise_maximum(Sums<D, BLOCKS>& sums, const float (&s)[BLOCKS][4]) {
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float largest = fmaxf(sums.largest[n][e], fmaxf(s[n][e], s[n][2 + e]));
#pragma unroll
      for (int distance = 4; distance < WARP; distance *= 2)
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, distance));
      const float alpha = exp2_fast(sums.largest[n][e] - largest);
      sums.largest[n][e] = largest;
      sums.weight[n][e] *= alpha;
#pragma unroll
      for (int j = 0; j < D / 16; ++j) {
        sums.o[j][n][e] *= alpha;
        sums.o[j][n][2 + e] *= alpha;
      }
    }
}

template <int D, int BLOCKS>
__device__ __forceinline__ void add_values(Sums<D, BLOCKS>& sums, const Rows<D>& rows, const uint32_t (&p)[BLOCKS][2], int lane) {
  // Of rows 2t, 2t + 1, 2t + 8 and 2t + 9 a lane has the g-th eighth.
  uint32_t v[4][D / 32];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint8_t* at = &rows.v[lane % 4].rows[i][D / 8 * (lane / 4)];
    if constexpr (D == 128) {
      const uint4 raw = *reinterpret_cast<const uint4*>(at);
      v[i][0] = raw.x, v[i][1] = raw.y, v[i][2] = raw.z, v[i][3] = raw.w;
    } else {
      const uint2 raw = *reinterpret_cast<const uint2*>(at);
      v[i][0] = raw.x, v[i][1] = raw.y;
    }
  }
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    // A product wants an element of two keys side by side: bytes of two rows change places before they are converted.
    const unsigned select = j % 2 ? 0x7362 : 0x5140;
    const uint32_t early = __byte_perm(v[0][j / 2], v[1][j / 2], select);
    const uint32_t late = __byte_perm(v[2][j / 2], v[3][j / 2], select);
    const uint32_t a[4] = {low_halves(early), high_halves(early), low_halves(late), high_halves(late)};
#pragma unroll
    for (int n = 0; n < BLOCKS; ++n) multiply_add(sums.o[j][n], a, p[n]);
  }
}

template <int D, int BLOCKS, Fault FAULT>
__device__ __forceinline__ void add_keys(Sums<D, BLOCKS>& sums, const Rows<D>& rows, const Query<D, BLOCKS>& query,
                                         int keys_left, int lane) {
  float s[BLOCKS][4] = {};
  score(s, rows, query, lane);
  bool raised = false;
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (FAULT != UNMASKED && key_of_row(lane / 4 + 8 * (i / 2)) >= keys_left) s[n][i] = -INFINITY;
      raised |= s[n][i] > sums.largest[n][i % 2];
    }
  // Rare once some keys were seen, and the only thing for which lanes ask each other.
  if (__any_sync(ALL_LANES, raised)) raise_maximum(sums, s);
  uint32_t p[BLOCKS][2];
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n) {
    float weight[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weight[i] = exp2_fast(s[n][i] + (WEIGHT_BITS - sums.largest[n][i % 2]));
      sums.weight[n][i % 2] += weight[i];
    }
    p[n][0] = transposed(packed(weight[0], weight[1]));
    p[n][1] = transposed(packed(weight[2], weight[3]));
  }
  add_values(sums, rows, p, lane);
}

// This warp's keys of all tiles.
template <int D, int BLOCKS, Fault FAULT>
__device__ __forceinline__ void add_tiles(Sums<D, BLOCKS>& sums, Ring<D> ring, const Query<D, BLOCKS>& query, const Work& work,
                                          int warp, int lane) {
  for (int tile = blockIdx.x; tile < work.tiles; tile += work.parts, advance(ring)) {
    Tile<D>& held = ring.tiles[ring.stage];
    const Rows<D> rows = {held.k + warp * WARP_KEYS, held.v + warp * (WARP_KEYS / 4)};
    const int left = work.keys - tile * TILE_KEYS - warp * WARP_KEYS;
    wait(ring.full[ring.stage], ring.parity);
    if (left > 0) {
      if (left < WARP_KEYS) clear_rows(rows, left, lane);
      add_keys<D, BLOCKS, FAULT>(sums, rows, query, left, lane);
    }
    __syncwarp();
    if (lane == 0) arrive(ring.empty[ring.stage]);
  }
}

template <int D, int BLOCKS>
__device__ __forceinline__ void store_sums(float* rows, Sums<D, BLOCKS>& sums, int heads, int lane) {
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float weight = sums.weight[n][e];
#pragma unroll
      for (int distance = 4; distance < WARP; distance *= 2) weight += __shfl_xor_sync(ALL_LANES, weight, distance);
      const int head = n * BLOCK_HEADS + 2 * (lane % 4) + e;
      if (head >= heads) continue;
      float* row = rows + head * ROW<D>;
      if (lane / 4 == 0) *reinterpret_cast<float2*>(row + D) = {sums.largest[n][e], weight};
#pragma unroll
      for (int j = 0; j < D / 16; ++j)
        *reinterpret_cast<float2*>(row + D / 8 * (lane / 4) + 2 * j) = {sums.o[j][n][e], sums.o[j][n][2 + e]};
    }
}

// Four sums of one row over parts.
struct Merged {
  float4 sum;
  float largest;
  float weight;
};

template <typename V, bool GLOBAL>
__device__ __forceinline__ V load(const float* from) {
  const V* at = reinterpret_cast<const V*>(from);
  // What other CTAs have just written is in the L2.
  if constexpr (GLOBAL) return __ldcg(at);
  return *at;
}

// Of parts `first`, `first` + `step`, ..., in this order. AT_ONCE are on their way together, since each is a trip to the L2.
template <int D, bool GLOBAL, int AT_ONCE>
__device__ __forceinline__ Merged merge(const float* row, int column, int part_stride, int first, int parts, int step) {
  Merged all = {{}, NO_KEY, 0.0f};
  for (int base = first; base < parts; base += AT_ONCE * step) {
    float2 part[AT_ONCE];
    float4 sum[AT_ONCE];
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const bool there = base + i * step < parts;
      const float* at = row + static_cast<long long>(base + i * step) * part_stride;
      part[i] = there ? load<float2, GLOBAL>(at + D) : float2{NO_KEY, 0.0f};
      sum[i] = there ? load<float4, GLOBAL>(at + column) : float4{};
    }
    float largest = all.largest;
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) largest = fmaxf(largest, part[i].x);
    const float before = exp2_fast(all.largest - largest);
    all = {{all.sum.x * before, all.sum.y * before, all.sum.z * before, all.sum.w * before}, largest, all.weight * before};
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const float alpha = exp2_fast(part[i].x - largest);
      all.weight += alpha * part[i].y;
      all.sum.x += alpha * sum[i].x, all.sum.y += alpha * sum[i].y, all.sum.z += alpha * sum[i].z, all.sum.w += alpha * sum[i].w;
    }
  }
  return all;
}

template <int D>
__device__ __forceinline__ void store_row(float* row, int column, const Merged& mine) {
  *reinterpret_cast<float4*>(row + column) = mine.sum;
  if (column == 0) *reinterpret_cast<float2*>(row + D) = {mine.largest, mine.weight};
}

__device__ __forceinline__ __half narrowed(float x, __half) { return __float2half_rn(x); }
__device__ __forceinline__ __nv_bfloat16 narrowed(float x, __nv_bfloat16) { return __float2bfloat16_rn(x); }

template <int D, typename T>
__device__ __forceinline__ void store_output(const Params& p, const Work& work, const Merged& all, int head, int column,
                                             float v_scale) {
  const long long row = static_cast<long long>(work.batch) * p.kv_heads * p.group + work.first_head + head;
  const float factor = all.weight == 0.0f ? 0.0f : v_scale / all.weight;
  struct alignas(8) {
    T x, y, z, w;
  } out = {narrowed(all.sum.x * factor, T{}), narrowed(all.sum.y * factor, T{}), narrowed(all.sum.z * factor, T{}),
           narrowed(all.sum.w * factor, T{})};
  *reinterpret_cast<uint2*>(static_cast<T*>(p.out) + row * D + column) = reinterpret_cast<const uint2&>(out);
  if (column == 0) p.lse[row] = (all.largest - WEIGHT_BITS + log2f(all.weight)) * LN_2;
}

// Whether all other CTAs of this one's set have come, whose writes are seen then. The counter begins anew by itself.
template <Fault FAULT>
__device__ __forceinline__ bool last_to_come(unsigned* arrived, int parts) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    if (FAULT != UNFENCED) __threadfence();
    last = atomicInc(arrived, parts - 1) == parts - 1;
    if (FAULT != UNFENCED) __threadfence();
  }
  __syncthreads();
  return last;
}

// The last CTA's: rows of all parts, of which several strands of threads have some each, so that few trips follow each other.
template <int D, int BLOCKS, typename T>
__device__ __forceinline__ void merge_parts(const Params& p, const Work& work, const float* parts, int part_stride, float* rows,
                                            float v_scale) {
  constexpr int ROW_THREADS = D / 4;
  const int column = threadIdx.x % ROW_THREADS * 4, team = threadIdx.x / ROW_THREADS;
  const int strands = max(THREADS / ROW_THREADS / work.heads, 1);
  for (int i = team; i < work.heads * strands; i += THREADS / ROW_THREADS) {
    const int head = i % work.heads, strand = i / work.heads;
    const Merged some = merge<D, true, 8>(parts + head * ROW<D>, column, part_stride, strand, work.parts, strands);
    store_row<D>(rows + i * ROW<D>, column, some);
  }
  __syncthreads();
  for (int head = team; head < work.heads; head += THREADS / ROW_THREADS) {
    const Merged all = merge<D, false, 4>(rows + head * ROW<D>, column, work.heads * ROW<D>, 0, strands, 1);
    store_output<D, T>(p, work, all, head, column, v_scale);
  }
}

template <int D, int BLOCKS, typename T, Fault FAULT>
__global__ void __launch_bounds__(THREADS, BLOCKS == 1 ? CTAS : 1) decode_split(const __grid_constant__ Params p) {
  static_assert(D == 64 || D == 128, "other rows are not whole chunks of a lane");
  static_assert(RING_TILES<D> * sizeof(Tile<D>) >= WARPS * BLOCKS * BLOCK_HEADS * ROW<D> * 4, "sums fit the rings");
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ uint64_t full[RING_TILES<D>], empty[RING_TILES<D>];
  const Work work = work_of<BLOCKS>(p);
  if (blockIdx.x >= work.parts) return;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (threadIdx.x < RING_TILES<D>) {
    init_barrier(full[threadIdx.x], 1);
    init_barrier(empty[threadIdx.x], WARPS);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  const Ring<D> ring = {reinterpret_cast<Tile<D>*>(shared), full, empty, 0, 0};
  auto* rows = reinterpret_cast<float*>(shared);
  Sums<D, BLOCKS> sums = {};
  if (warp == WARPS) {
    copy_tiles(ring, p, work, lane);
  } else {
    const Query<D, BLOCKS> query = load_query<D, BLOCKS, T>(p, work, lane);
#pragma unroll
    for (int n = 0; n < BLOCKS; ++n) sums.largest[n][0] = sums.largest[n][1] = NO_KEY;
    add_tiles<D, BLOCKS, FAULT>(sums, ring, query, work, warp, lane);
  }
  // The warps' sums where the ring was.
  __syncthreads();
  if (warp < WARPS) store_sums(rows + warp * work.heads * ROW<D>, sums, work.heads, lane);
  __syncthreads();
  const float v_scale = FAULT == UNSCALED ? 1.0f : p.v.scale[work.batch * p.v.scale_batch_stride + work.kv_head * p.v.scale_head_stride];
  const int set = blockIdx.z * gridDim.y + blockIdx.y;
  const int part_stride = BLOCKS * BLOCK_HEADS * ROW<D>;
  float* parts = p.partial + static_cast<long long>(set) * gridDim.x * part_stride;
  for (int i = threadIdx.x; i < work.heads * (D / 4); i += THREADS) {
    const int head = i / (D / 4), column = i % (D / 4) * 4;
    const Merged mine = merge<D, false, WARPS>(rows + head * ROW<D>, column, work.heads * ROW<D>, 0, WARPS, 1);
    if (work.parts == 1)
      store_output<D, T>(p, work, mine, head, column, v_scale);
    else
      store_row<D>(parts + static_cast<long long>(blockIdx.x) * part_stride + head * ROW<D>, column, mine);
  }
  if (work.parts == 1 || !last_to_come<FAULT>(p.arrived + set, work.parts)) return;
  merge_parts<D, BLOCKS, T>(p, work, parts, part_stride, rows, v_scale);
}
