// Softmax attention (Vaswani et al. 2017, eq. 1), forward and backward; weights are made, used and forgotten tile by tile.
// The twin of crates/ddpm-kernels/src/attention/cpu.rs.
//
// First a pass over the keys leaves of each query the largest score and 1 over the sum of exponentials; then tiles of
// weights W = exp(scale q.k - max) / sum are made again where they are needed. A block computes 64 columns of a head, so
// that a head of more makes them as many times over.
//
// How tiles are multiplied is the type T's: `Sums`, a thread's part of a tile of sums; `SLICES`, floats of shared memory for
// slices of both operands; `WEIGHT_PITCH`, floats from one row of a tile in shared memory to the next;
//   products(s, a, a_first, b, b_first, slices): s = A B^T of a tile of rows of each;
//   weighted(total, weights, b, b_first, first_column, slices): total += W B, W in shared memory, B a tile of columns;
//   keep(tile, s): a tile into shared memory;
//   store(to, stride, s, rows, first_column, columns): a tile to memory, as far as there are rows and columns.
#pragma once

#include "math.cuh"
#include "matrix.cuh"

constexpr int HEAD_TILE = 64;      // rows and columns of a tile
constexpr int HEAD_THREADS = 128;  // of a block

// Where the heads' numbers lie: q, k, v [N, P, heads * size].
struct Heads {
  u32 pixels, heads, size;
};

// Shared memory of a block: slices to multiply, and tiles of weights or of their gradients.
#define SHARED_SLICES(T) __shared__ __align__(16) float slices[T::SLICES]
#define SHARED_TILE(T, name) __shared__ __align__(16) float name[HEAD_TILE * T::WEIGHT_PITCH]

struct Block {
  u64 head;    // image * heads + head
  u32 first;   // the first row of the tile
};

__device__ __forceinline__ Block own_block(const Heads &h) {
  const u32 tiles = (h.pixels + HEAD_TILE - 1) / HEAD_TILE;
  return {blockIdx.x / tiles, blockIdx.x % tiles * HEAD_TILE};
}

__device__ __forceinline__ Matrix matrix(const float *x, const Heads &h, u64 head) {
  const u64 channels = (u64)h.heads * h.size;
  return {x + head / h.heads * h.pixels * channels + head % h.heads * h.size, channels, h.pixels, h.size};
}

// Stores a tile of the rows that begin at the block's and 64 columns of its head.
template <class T>
__device__ __forceinline__ void store_tile(float *to, const Heads &h, const Block &b, const typename T::Sums &s,
                                           u32 first_column) {
  const u64 channels = (u64)h.heads * h.size;
  float *first = to + (b.head / h.heads * h.pixels + b.first) * channels + b.head % h.heads * h.size;
  T::store(first, channels, s, h.pixels - b.first, first_column, h.size);
}

// The sum, or the largest, over the lanes of a warp.
__device__ __forceinline__ float warp_sum(float x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, x, lanes);
    x = other > x ? other : x;
  }
  return x;
}

// What is left of each query of each head: [N * heads, 3, P], so that a warp reads one of them for 32 queries at once.
enum Left { LARGEST, PER_SUM, MEAN, LEFT };

// The largest score, 1 over the sum of exponentials, and (GRAD) sum_j W dW. A warp takes every fourth row of a tile, a
// lane two of its columns.
template <class T, bool GRAD>
__device__ __forceinline__ void statistics(const float *q, const float *k, const float *v, const float *d_o, float *y,
                                           const Heads &h, float scale) {
  SHARED_SLICES(T);
  SHARED_TILE(T, scores);
  SHARED_TILE(T, d_weights);
  __shared__ float largest[HEAD_TILE], sums[HEAD_TILE], means[HEAD_TILE];
  const Block b = own_block(h);
  const u32 lane = threadIdx.x % 32;
  for (u32 row = threadIdx.x; row < HEAD_TILE; row += HEAD_THREADS) {
    largest[row] = -3.0e38f;
    sums[row] = 0.0f;
    means[row] = 0.0f;
  }
  for (u32 key = 0; key < h.pixels; key += HEAD_TILE) {
    typename T::Sums s;
    T::products(s, matrix(q, h, b.head), b.first, matrix(k, h, b.head), key, slices);
    T::keep(scores, s);
    if (GRAD) {
      T::products(s, matrix(d_o, h, b.head), b.first, matrix(v, h, b.head), key, slices);
      T::keep(d_weights, s);
    }
    __syncthreads();  // the tiles are there
#pragma unroll 1
    for (u32 row = threadIdx.x / 32; row < HEAD_TILE; row += HEAD_THREADS / 32) {
      const float *score = scores + row * T::WEIGHT_PITCH + lane, *slope = d_weights + row * T::WEIGHT_PITCH + lane;
      const bool exists_0 = key + lane < h.pixels, exists_1 = key + 32 + lane < h.pixels;
      const float before = largest[row], score_0 = score[0] * scale, score_1 = score[32] * scale;
      float top = before;
      if (exists_0 && score_0 > top) top = score_0;
      if (exists_1 && score_1 > top) top = score_1;
      top = warp_max(top);
      // a NaN is no largest one, but makes the sum one
      const float w_0 = exists_0 ? exponential(score_0 - top) : 0.0f;
      const float w_1 = exists_1 ? exponential(score_1 - top) : 0.0f;
      const float shrink = exponential(before - top), sum = warp_sum(w_0 + w_1);
      const float mean = GRAD ? warp_sum(fmaf(w_1, slope[32], w_0 * slope[0])) : 0.0f;
      __syncwarp();  // all lanes have read the largest score so far
      if (lane == 0) {
        largest[row] = top;
        sums[row] = fmaf(sums[row], shrink, sum);
        means[row] = fmaf(means[row], shrink, mean);
      }
    }
  }
  __syncthreads();  // all rows are done
  for (u32 row = threadIdx.x; row < HEAD_TILE && b.first + row < h.pixels; row += HEAD_THREADS) {
    float *to = y + b.head * LEFT * h.pixels + b.first + row;
    to[(u64)LARGEST * h.pixels] = largest[row];
    to[(u64)PER_SUM * h.pixels] = 1.0f / sums[row];
    if (GRAD) to[(u64)MEAN * h.pixels] = means[row] / sums[row];
  }
}

// Scores in shared memory become weights W, and (GRAD) the gradients of weights become those of scores, scaled:
// dS = W (dW - sum_j W dW) scale. Rows are queries and columns keys, or the other way around (TURNED).
template <class T, bool GRAD, bool TURNED>
__device__ __forceinline__ void to_weights(float *weights, float *d_weights, const float *left, const Heads &h,
                                           const Block &b, u32 first_column, float scale) {
  __syncthreads();  // the tiles are there
#pragma unroll 1
  for (u32 at = threadIdx.x; at < HEAD_TILE * HEAD_TILE; at += HEAD_THREADS) {
    const u32 i = at / HEAD_TILE, j = at % HEAD_TILE, row = b.first + i, column = first_column + j;
    const u32 query = TURNED ? column : row;
    float w = 0.0f, d = 0.0f;
    if (row < h.pixels && column < h.pixels) {
      const float *of = left + b.head * LEFT * h.pixels + query;
      const float largest = of[(u64)LARGEST * h.pixels], per_sum = of[(u64)PER_SUM * h.pixels];
      w = exponential(weights[i * T::WEIGHT_PITCH + j] * scale - largest) * per_sum;
      if (GRAD) d = w * (d_weights[i * T::WEIGHT_PITCH + j] - of[(u64)MEAN * h.pixels]) * scale;
    }
    weights[i * T::WEIGHT_PITCH + j] = w;
    if (GRAD) d_weights[i * T::WEIGHT_PITCH + j] = d;
  }
}

// W values for a tile of rows and 64 columns of a head: o = W v with rows q and columns k, and, TURNED, dv = W^T do with
// rows k and columns q. Grid x: tiles of rows of all heads, y: columns.
template <class T, bool TURNED>
__device__ __forceinline__ void weighted_sums(const float *rows, const float *columns, const float *values,
                                              const float *left, float *to, const Heads &h, float scale) {
  SHARED_SLICES(T);
  SHARED_TILE(T, weights);
  const Block b = own_block(h);
  const u32 first_column = blockIdx.y * HEAD_TILE;
  typename T::Sums s, total;
  clear(total);
  for (u32 first = 0; first < h.pixels; first += HEAD_TILE) {
    T::products(s, matrix(rows, h, b.head), b.first, matrix(columns, h, b.head), first, slices);
    T::keep(weights, s);
    to_weights<T, false, TURNED>(weights, nullptr, left, h, b, first, scale);
    T::weighted(total, weights, matrix(values, h, b.head), first, first_column, slices);
  }
  store_tile<T>(to, h, b, total, first_column);
}

// dS columns for a tile of rows and 64 columns of a head: dq = dS k with rows q, columns k and dW = do v^T, and, TURNED,
// dk = dS^T q with rows k, columns q and dW^T = v do^T.
template <class T, bool TURNED>
__device__ __forceinline__ void score_grad(const float *rows, const float *columns, const float *d_rows,
                                           const float *d_columns, const float *left, float *to, const Heads &h,
                                           float scale) {
  SHARED_SLICES(T);
  SHARED_TILE(T, weights);
  SHARED_TILE(T, d_weights);
  const Block b = own_block(h);
  const u32 first_column = blockIdx.y * HEAD_TILE;
  typename T::Sums s, total;
  clear(total);
  for (u32 first = 0; first < h.pixels; first += HEAD_TILE) {
    T::products(s, matrix(rows, h, b.head), b.first, matrix(columns, h, b.head), first, slices);
    T::keep(weights, s);
    T::products(s, matrix(d_rows, h, b.head), b.first, matrix(d_columns, h, b.head), first, slices);
    T::keep(d_weights, s);
    to_weights<T, true, TURNED>(weights, d_weights, left, h, b, first, scale);
    T::weighted(total, d_weights, matrix(columns, h, b.head), first, first_column, slices);
  }
  store_tile<T>(to, h, b, total, first_column);
}

// The kernels of one way to multiply tiles, their names ended by it. Grid x: tiles of rows of all heads, y: columns.
#define ATTENTION_KERNELS(T, ending)                                                                                   \
  extern "C" __global__ void __launch_bounds__(HEAD_THREADS)                                                           \
      attention_statistics_##ending(const float *q, const float *k, float *y, Heads h, float scale) {                  \
    statistics<T, false>(q, k, nullptr, nullptr, y, h, scale);                                                         \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(HEAD_THREADS)                                                           \
      attention_grad_statistics_##ending(const float *q, const float *k, const float *v, const float *d_o, float *y,   \
                                         Heads h, float scale) {                                                       \
    statistics<T, true>(q, k, v, d_o, y, h, scale);                                                                    \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(HEAD_THREADS)                                                           \
      attention_##ending(const float *q, const float *k, const float *v, const float *left, float *o, Heads h,         \
                         float scale) {                                                                                \
    weighted_sums<T, false>(q, k, v, left, o, h, scale);                                                               \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(HEAD_THREADS)                                                           \
      attention_dv_##ending(const float *q, const float *k, const float *d_o, const float *left, float *dv, Heads h,   \
                            float scale) {                                                                             \
    weighted_sums<T, true>(k, q, d_o, left, dv, h, scale);                                                             \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(HEAD_THREADS)                                                           \
      attention_dq_##ending(const float *q, const float *k, const float *v, const float *d_o, const float *left,       \
                            float *dq, Heads h, float scale) {                                                         \
    score_grad<T, false>(q, k, d_o, v, left, dq, h, scale);                                                            \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(HEAD_THREADS)                                                           \
      attention_dk_##ending(const float *q, const float *k, const float *v, const float *d_o, const float *left,       \
                            float *dk, Heads h, float scale) {                                                         \
    score_grad<T, true>(k, q, v, d_o, left, dk, h, scale);                                                             \
  }
