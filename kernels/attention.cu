// Softmax attention (Vaswani et al. 2017, eq. 1), forward and backward; weights are made, used and forgotten tile by tile.
// The twin of crates/ddpm-kernels/src/attention/cpu.rs.
//
// First a pass over the keys leaves of each query the largest score and 1 over the sum of exponentials; then tiles of
// weights W = exp(scale q.k - max) / sum are made again where they are needed. A block computes 64 columns of a head, so
// that a head of more makes them as many times over.
#include "math.cuh"
#include "tile.cuh"

// Where the heads' numbers lie: q, k, v [N, P, heads * size].
struct Heads {
  u32 pixels, heads, size;
};

constexpr int WEIGHT_PITCH = TILE + 4;
constexpr int SLICES = TILE * PITCH + DEPTH * TILE;  // floats of a slice of both operands

// Shared memory of a block: slices to multiply, and tiles of weights or of their gradients.
#define SHARED_SLICES __shared__ __align__(16) float slices[SLICES]
#define SHARED_TILE(name) __shared__ __align__(16) float name[TILE * WEIGHT_PITCH]

struct Block {
  u64 head;    // image * heads + head
  u32 first;   // the first row of the tile
};

__device__ __forceinline__ Block own_block(const Heads &h) {
  const u32 tiles = (h.pixels + TILE - 1) / TILE;
  return {blockIdx.x / tiles, blockIdx.x % tiles * TILE};
}

__device__ __forceinline__ Matrix matrix(const float *x, const Heads &h, u64 head) {
  const u64 channels = (u64)h.heads * h.size;
  return {x + head / h.heads * h.pixels * channels + head % h.heads * h.size, channels, h.pixels, h.size};
}

// s = A B^T of a tile of rows of each. `shared` holds a slice of both.
__device__ __forceinline__ void products(Sums &s, const Matrix &a, u32 a_first, const Matrix &b, u32 b_first,
                                         float *shared) {
  float *left = shared, *right = shared + TILE * PITCH;
  int offset[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; ++i) offset[i] = tile_row(i) * PITCH;
  clear(s);
  for (u32 k = 0; k < a.columns; k += DEPTH) {
    __syncthreads();  // the last slice is read
    load_rows(left, a, a_first, k);
    load_transposed(right, b, b_first, k);
    __syncthreads();
    multiply(s, left, offset, right);
  }
}

// total += W B: W [TILE, TILE] lies in shared memory, B is a tile of columns of TILE rows. `right` holds a slice of B.
__device__ __forceinline__ void weighted(Sums &total, const float *weights, const Matrix &b, u32 b_first,
                                         u32 first_column, float *right) {
  int offset[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; ++i) offset[i] = tile_row(i) * WEIGHT_PITCH;
  Sums s;
  clear(s);
  for (int k = 0; k < TILE; k += DEPTH) {
    __syncthreads();  // the weights are there; the last slice is read
    load_columns(right, b, b_first + k, first_column);
    __syncthreads();
    multiply(s, weights + k, offset, right);
  }
  end_chain(total, s);
}

// Puts a tile into shared memory; since it was last read there were the barriers of the products that made this one.
__device__ __forceinline__ void keep(float *tile, const Sums &s) {
#pragma unroll
  for (int i = 0; i < ROWS; ++i)
    *reinterpret_cast<float4 *>(tile + tile_row(i) * WEIGHT_PITCH + tile_column()) =
        make_float4(s.at[i][0], s.at[i][1], s.at[i][2], s.at[i][3]);
}

// Stores a tile of the rows that begin at the block's and 64 columns of its head.
__device__ __forceinline__ void store_tile(float *to, const Heads &h, const Block &b, const Sums &s, u32 first_column) {
  const u64 channels = (u64)h.heads * h.size;
  const u32 column = first_column + (u32)tile_column();
  if (column >= h.size) return;
  const int count = (int)min(4u, h.size - column);
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const u32 row = b.first + (u32)tile_row(i);
    if (row < h.pixels)
      store(to + (b.head / h.heads * h.pixels + row) * channels + b.head % h.heads * h.size + column, count,
            {{s.at[i][0], s.at[i][1], s.at[i][2], s.at[i][3]}});
  }
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
template <bool GRAD>
__device__ __forceinline__ void statistics(const float *q, const float *k, const float *v, const float *d_o, float *y,
                                           const Heads &h, float scale) {
  SHARED_SLICES;
  SHARED_TILE(scores);
  SHARED_TILE(d_weights);
  __shared__ float largest[TILE], sums[TILE], means[TILE];
  const Block b = own_block(h);
  const u32 lane = threadIdx.x % 32;
  for (u32 row = threadIdx.x; row < TILE; row += THREADS) {
    largest[row] = -3.0e38f;
    sums[row] = 0.0f;
    means[row] = 0.0f;
  }
  for (u32 key = 0; key < h.pixels; key += TILE) {
    Sums s;
    products(s, matrix(q, h, b.head), b.first, matrix(k, h, b.head), key, slices);
    keep(scores, s);
    if (GRAD) {
      products(s, matrix(d_o, h, b.head), b.first, matrix(v, h, b.head), key, slices);
      keep(d_weights, s);
    }
    __syncthreads();  // the tiles are there
#pragma unroll 1
    for (u32 row = threadIdx.x / 32; row < TILE; row += THREADS / 32) {
      const float *score = scores + row * WEIGHT_PITCH + lane, *slope = d_weights + row * WEIGHT_PITCH + lane;
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
  for (u32 row = threadIdx.x; row < TILE && b.first + row < h.pixels; row += THREADS) {
    float *to = y + b.head * LEFT * h.pixels + b.first + row;
    to[(u64)LARGEST * h.pixels] = largest[row];
    to[(u64)PER_SUM * h.pixels] = 1.0f / sums[row];
    if (GRAD) to[(u64)MEAN * h.pixels] = means[row] / sums[row];
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_statistics_f32(const float *q, const float *k, float *y, Heads h, float scale) {
  statistics<false>(q, k, nullptr, nullptr, y, h, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_grad_statistics_f32(const float *q, const float *k, const float *v, const float *d_o, float *y, Heads h,
                                  float scale) {
  statistics<true>(q, k, v, d_o, y, h, scale);
}

// Scores in shared memory become weights W, and (GRAD) the gradients of weights become those of scores, scaled:
// dS = W (dW - sum_j W dW) scale. Rows are queries and columns keys, or the other way around (TURNED).
template <bool GRAD, bool TURNED>
__device__ __forceinline__ void to_weights(float *weights, float *d_weights, const float *left, const Heads &h,
                                           const Block &b, u32 first_column, float scale) {
  __syncthreads();  // the tiles are there
#pragma unroll 1
  for (u32 at = threadIdx.x; at < TILE * TILE; at += THREADS) {
    const u32 i = at / TILE, j = at % TILE, row = b.first + i, column = first_column + j;
    const u32 query = TURNED ? column : row;
    float w = 0.0f, d = 0.0f;
    if (row < h.pixels && column < h.pixels) {
      const float *of = left + b.head * LEFT * h.pixels + query;
      const float largest = of[(u64)LARGEST * h.pixels], per_sum = of[(u64)PER_SUM * h.pixels];
      w = exponential(weights[i * WEIGHT_PITCH + j] * scale - largest) * per_sum;
      if (GRAD) d = w * (d_weights[i * WEIGHT_PITCH + j] - of[(u64)MEAN * h.pixels]) * scale;
    }
    weights[i * WEIGHT_PITCH + j] = w;
    if (GRAD) d_weights[i * WEIGHT_PITCH + j] = d;
  }
}

// W values for a tile of rows and 64 columns of a head: o = W v with rows q and columns k, and, TURNED, dv = W^T do with
// rows k and columns q. Grid x: tiles of rows of all heads, y: columns.
template <bool TURNED>
__device__ __forceinline__ void weighted_sums(const float *rows, const float *columns, const float *values,
                                              const float *left, float *to, const Heads &h, float scale) {
  SHARED_SLICES;
  SHARED_TILE(weights);
  const Block b = own_block(h);
  const u32 first_column = blockIdx.y * TILE;
  Sums s, total;
  clear(total);
  for (u32 first = 0; first < h.pixels; first += TILE) {
    products(s, matrix(rows, h, b.head), b.first, matrix(columns, h, b.head), first, slices);
    keep(weights, s);
    to_weights<false, TURNED>(weights, nullptr, left, h, b, first, scale);
    weighted(total, weights, matrix(values, h, b.head), first, first_column, slices + TILE * PITCH);
  }
  store_tile(to, h, b, total, first_column);
}

// dS columns for a tile of rows and 64 columns of a head: dq = dS k with rows q, columns k and dW = do v^T, and, TURNED,
// dk = dS^T q with rows k, columns q and dW^T = v do^T.
template <bool TURNED>
__device__ __forceinline__ void score_grad(const float *rows, const float *columns, const float *d_rows,
                                           const float *d_columns, const float *left, float *to, const Heads &h,
                                           float scale) {
  SHARED_SLICES;
  SHARED_TILE(weights);
  SHARED_TILE(d_weights);
  const Block b = own_block(h);
  const u32 first_column = blockIdx.y * TILE;
  Sums s, total;
  clear(total);
  for (u32 first = 0; first < h.pixels; first += TILE) {
    products(s, matrix(rows, h, b.head), b.first, matrix(columns, h, b.head), first, slices);
    keep(weights, s);
    products(s, matrix(d_rows, h, b.head), b.first, matrix(d_columns, h, b.head), first, slices);
    keep(d_weights, s);
    to_weights<true, TURNED>(weights, d_weights, left, h, b, first, scale);
    weighted(total, d_weights, matrix(columns, h, b.head), first, first_column, slices + TILE * PITCH);
  }
  store_tile(to, h, b, total, first_column);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_f32(const float *q, const float *k, const float *v, const float *left, float *o, Heads h, float scale) {
  weighted_sums<false>(q, k, v, left, o, h, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_dv_f32(const float *q, const float *k, const float *d_o, const float *left, float *dv, Heads h,
                     float scale) {
  weighted_sums<true>(k, q, d_o, left, dv, h, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_dq_f32(const float *q, const float *k, const float *v, const float *d_o, const float *left, float *dq,
                     Heads h, float scale) {
  score_grad<false>(q, k, d_o, v, left, dq, h, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_dk_f32(const float *q, const float *k, const float *v, const float *d_o, const float *left, float *dk,
                     Heads h, float scale) {
  score_grad<true>(k, q, v, d_o, left, dk, h, scale);
}
