// Attention of one query row a sequence over keys and values in FP8 (e4m3), split over CTAs; the last of a KV head's to come merges.
// Leaves to others: how many CTAs share the keys, which the grid says; the control, which is plain.cu.
//
// It is bound by reading the cache. Query heads of one KV head are columns of the products,
// so that what is read serves them all:
//   S^T (16 keys x 8 heads) = K (16 x D) Q^T (D x 8),   O^T (D x 8) += V^T (D x 16) P^T (16 x 8),
// in FP16, which holds every e4m3 value, with FP32 sums. Which element of D and which key stands where in a product is free as
// long as both operands agree, and so is the order of O's rows: so each lane takes whole chunks of a row of the cache. A tile
// is 16 keys of one warp, which has a ring of them to itself.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "ptx.cuh"

// What may be tried: warps of a CTA, tiles of a warp's ring (twice as many where D is 64), CTAs of an SM.
#ifndef WARPS
#define WARPS 8
#endif
#ifndef STAGES
#define STAGES 3
#endif
#ifndef CTAS
#define CTAS 2
#endif

constexpr int WARP = 32;
constexpr int THREADS = WARP * WARPS;
constexpr int TILE_KEYS = 16;
constexpr int BLOCK_HEADS = 8;
// Parts of which a thread asks for sums before it waits.
constexpr int MERGED_AT_ONCE = 12;
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

// What a CTA works on: query heads of one KV head, and `share` tiles of its keys.
struct Work {
  int batch;
  int kv_head;
  int first_head;
  int heads;
  int keys;
  int share;
  int first_tile;
  int end_tile;
};

template <int BLOCKS>
__device__ __forceinline__ Work work_of(const Params& p) {
  constexpr int MOST_HEADS = BLOCKS * BLOCK_HEADS;
  const unsigned slices = (p.group + MOST_HEADS - 1) / MOST_HEADS;
  const int slice = slices == 1 ? 0 : blockIdx.y % slices;
  Work work;
  work.batch = blockIdx.z;
  work.kv_head = slices == 1 ? blockIdx.y : blockIdx.y / slices;
  work.first_head = work.kv_head * p.group + slice * MOST_HEADS;
  work.heads = min(p.group - slice * MOST_HEADS, MOST_HEADS);
  work.keys = p.lengths ? p.lengths[work.batch] : p.capacity;
  const unsigned tiles = (work.keys + TILE_KEYS - 1) / TILE_KEYS;
  // At least a tile a warp: more parts would be more to merge, and no faster.
  const unsigned share = max((tiles + gridDim.x - 1) / gridDim.x, WARPS);
  work.share = share;
  work.first_tile = blockIdx.x * share;
  work.end_tile = min(work.first_tile + share, tiles);
  return work;
}

// CTAs that share the keys, one of them where there is no key. Asked at the end, since a division takes its time.
__device__ __forceinline__ unsigned parts_of(const Work& work) {
  const unsigned keys_of_part = work.share * TILE_KEYS;
  return max((work.keys + keys_of_part - 1) / keys_of_part, 1);
}

// 16 rows of K, and 16 of V, in chunks of 16 bytes that change places within a row, so that the eight lanes that read at once
// find theirs in different banks.
template <int D>
struct Tile {
  static constexpr int CHUNKS = D / 16;
  uint8_t k[TILE_KEYS * D];
  uint8_t v[TILE_KEYS * D];
};

template <int D>
constexpr int RING_TILES = STAGES * 128 / D;

// Where a chunk lies among 16 rows. Row + 8 is alike; where D is 128, row + 4, an odd row after an even one and chunk + 4
// differ in this bit of the place.
constexpr int FAR = 64;

template <int D>
__device__ __forceinline__ int place(int row, int chunk) {
  return row * D + 16 * (D == 128 ? chunk ^ ((row & 6) ^ (row & 1) << 2) : chunk ^ (row >> 1 & 3));
}

// Of a lane: its first row in the cache, and the places where it writes, and reads its first chunks of K and V.
template <int D>
struct Lane {
  const uint8_t* from_k;
  const uint8_t* from_v;
  int first_row;
  int write;
  int read_k;
  int read_v;
};

template <int D>
__device__ __forceinline__ Lane<D> lane_of(const Params& p, const Work& work, int lane) {
  const int row = lane / Tile<D>::CHUNKS, chunk = lane % Tile<D>::CHUNKS, g = lane / 4, t = lane % 4;
  Lane<D> of = {p.k.codes + work.batch * p.k.batch_stride + work.kv_head * p.k.head_stride + 16 * chunk,
                p.v.codes + work.batch * p.v.batch_stride + work.kv_head * p.v.head_stride + 16 * chunk,
                row,
                place<D>(row, chunk),
                place<D>(g, t),
                place<D>(2 * t, g * D / 128) + (D == 64 ? 8 * (g % 2) : 0)};
  keep(of.from_k), keep(of.from_v), keep(of.first_row), keep(of.write), keep(of.read_k), keep(of.read_v);
  return of;
}

// By the whole warp: whole rows, as many at once as its lanes have chunks for. Past the last key there are zeros.
template <int D>
__device__ __forceinline__ void copy_tile(Tile<D>& tile, const Params& p, const Lane<D>& lane, int first_key, int keys) {
  constexpr int ROWS = WARP / Tile<D>::CHUNKS;
#pragma unroll
  for (int row = 0; row < TILE_KEYS; row += ROWS) {
    const int key = first_key + lane.first_row + row, to = (lane.write ^ (row % 8 == 4 ? FAR : 0)) + row * D;
    copy_async(tile.k + to, row_at(lane.from_k, key, p.k.key_stride), key < keys);
  }
#pragma unroll
  for (int row = 0; row < TILE_KEYS; row += ROWS) {
    const int key = first_key + lane.first_row + row, to = (lane.write ^ (row % 8 == 4 ? FAR : 0)) + row * D;
    copy_async(tile.v + to, row_at(lane.from_v, key, p.v.key_stride), key < keys);
  }
}

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
__device__ __forceinline__ void score(float (&s)[BLOCKS][4], const Tile<D>& tile, const Query<D, BLOCKS>& query,
                                      const Lane<D>& lane) {
  // Two chains of sums, so that a product waits for every other one alone.
  float odd[BLOCKS][4] = {};
#pragma unroll
  for (int c = 0; c < D / 64; ++c) {
    const uint4* at = reinterpret_cast<const uint4*>(tile.k + (lane.read_k ^ (c == 1 ? FAR : 0)));
    const uint4 upper = at[0], lower = at[8 * D / 16];
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
__device__ __forceinline__ void add_values(Sums<D, BLOCKS>& sums, const Tile<D>& tile, const uint32_t (&p)[BLOCKS][2],
                                           const Lane<D>& lane) {
  // Of rows 2t, 2t + 1, 2t + 8 and 2t + 9 a lane has the g-th eighth.
  uint32_t v[4][D / 32];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int odd = i % 2, at = (lane.read_v ^ (D == 128 && odd ? FAR : 0)) + (odd + 8 * (i / 2)) * D;
    if constexpr (D == 128) {
      const uint4 raw = *reinterpret_cast<const uint4*>(tile.v + at);
      v[i][0] = raw.x, v[i][1] = raw.y, v[i][2] = raw.z, v[i][3] = raw.w;
    } else {
      const uint2 raw = *reinterpret_cast<const uint2*>(tile.v + at);
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
__device__ __forceinline__ void add_tile(Sums<D, BLOCKS>& sums, const Tile<D>& tile, const Query<D, BLOCKS>& query,
                                         const Lane<D>& lane, int keys_left, int row) {
  float s[BLOCKS][4] = {};
  score(s, tile, query, lane);
  bool raised = false;
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (FAULT != UNMASKED && row + 8 * (i / 2) >= keys_left) s[n][i] = -INFINITY;
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
  add_values(sums, tile, p, lane);
}

// All tiles of this warp; the first ones are on their way.
template <int D, int BLOCKS, Fault FAULT>
__device__ __forceinline__ void add_tiles(Sums<D, BLOCKS>& sums, Tile<D>* ring, const Query<D, BLOCKS>& query, const Params& p,
                                          const Lane<D>& lane, const Work& work, int first, int row) {
  int stage = 0;
  for (int tile = first; tile < work.end_tile; tile += WARPS) {
    const int next = tile + (RING_TILES<D> - 1) * WARPS;
    wait_for_copies<RING_TILES<D> - 2>();
    // What other lanes copied is there, and the tile of the last turn is done with.
    __syncwarp();
    if (next < work.end_tile)
      copy_tile(ring[stage == 0 ? RING_TILES<D> - 1 : stage - 1], p, lane, next * TILE_KEYS, work.keys);
    commit_copies();
    add_tile<D, BLOCKS, FAULT>(sums, ring[stage], query, lane, work.keys - tile * TILE_KEYS, row);
    stage = stage == RING_TILES<D> - 1 ? 0 : stage + 1;
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

// Whether all other CTAs of this one's set have come, whose writes are seen then.
template <Fault FAULT>
__device__ __forceinline__ bool last_to_come(unsigned* arrived, unsigned parts) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) last = count_arrival<FAULT != UNFENCED>(arrived, parts - 1) == parts - 1;
  __syncthreads();
  return last;
}

// The last CTA's: rows of all parts, of which several strands of threads have some each, so that few trips follow each other.
template <int D, int BLOCKS, typename T>
__device__ __forceinline__ void merge_parts(const Params& p, const Work& work, const float* partial, int parts, int part_stride,
                                            float* rows, float v_scale) {
  constexpr int ROW_THREADS = D / 4;
  const int column = threadIdx.x % ROW_THREADS * 4, team = threadIdx.x / ROW_THREADS;
  const int strands = max(THREADS / ROW_THREADS / work.heads, 1);
  for (int i = team; i < work.heads * strands; i += THREADS / ROW_THREADS) {
    const int head = i % work.heads, strand = i / work.heads;
    const Merged some = merge<D, true, MERGED_AT_ONCE>(partial + head * ROW<D>, column, part_stride, strand, parts, strands);
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
  static_assert(WARPS * RING_TILES<D> * sizeof(Tile<D>) >= WARPS * BLOCKS * BLOCK_HEADS * ROW<D> * 4, "sums fit the rings");
  extern __shared__ __align__(16) uint8_t shared[];
  const Work work = work_of<BLOCKS>(p);
  if (blockIdx.x > 0 && work.first_tile >= work.end_tile) return;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  auto* ring = reinterpret_cast<Tile<D>*>(shared) + warp * RING_TILES<D>;
  const Lane<D> of_lane = lane_of<D>(p, work, lane);
  const int first = work.first_tile + warp;
#pragma unroll
  for (int s = 0; s < RING_TILES<D> - 1; ++s) {
    const int tile = first + s * WARPS;
    if (tile < work.end_tile) copy_tile(ring[s], p, of_lane, tile * TILE_KEYS, work.keys);
    commit_copies();
  }
  const Query<D, BLOCKS> query = load_query<D, BLOCKS, T>(p, work, lane);
  Sums<D, BLOCKS> sums = {};
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n) sums.largest[n][0] = sums.largest[n][1] = NO_KEY;
  add_tiles<D, BLOCKS, FAULT>(sums, ring, query, p, of_lane, work, first, lane / 4);

  // The warps' sums where the rings were.
  __syncthreads();
  auto* rows = reinterpret_cast<float*>(shared);
  store_sums(rows + warp * work.heads * ROW<D>, sums, work.heads, lane);
  __syncthreads();
  const float v_scale = FAULT == UNSCALED ? 1.0f : p.v.scale[work.batch * p.v.scale_batch_stride + work.kv_head * p.v.scale_head_stride];
  const unsigned parts = parts_of(work);
  const int set = blockIdx.z * gridDim.y + blockIdx.y;
  const int part_stride = BLOCKS * BLOCK_HEADS * ROW<D>;
  float* partial = p.partial + static_cast<long long>(set) * gridDim.x * part_stride;
  for (int i = threadIdx.x; i < work.heads * (D / 4); i += THREADS) {
    const int head = i / (D / 4), column = i % (D / 4) * 4;
    const Merged mine = merge<D, false, WARPS>(rows + head * ROW<D>, column, work.heads * ROW<D>, 0, WARPS, 1);
    if (parts == 1)
      store_output<D, T>(p, work, mine, head, column, v_scale);
    else
      store_row<D>(partial + static_cast<long long>(blockIdx.x) * part_stride + head * ROW<D>, column, mine);
  }
  if (parts == 1 || !last_to_come<FAULT>(p.arrived + set, parts)) return;
  merge_parts<D, BLOCKS, T>(p, work, partial, parts, part_stride, rows, v_scale);
}
