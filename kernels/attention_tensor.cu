// Attention on tensor cores, every number as the sum of two of bf16: see attention.cuh.
#include "attention.cuh"
#include "mma_tile.cuh"

// Two warps by two make a tile, each 32 rows by 32 columns.
struct SplitProducts {
  static constexpr int MT = 2, K = DEPTH<2>, CHAIN_SLICES = 8;
  using Sums = ::Sums<MT>;
  // a slice of either operand: 64 rows of 16 numbers, or 16 rows of 64, in two parts
  static constexpr int SLICE_BYTES = HEAD_TILE * SLICE_CHUNKS * CHUNK, SLICES = 2 * SLICE_BYTES / 4;
  static constexpr int WEIGHT_PITCH = HEAD_TILE + 8;
  static constexpr int COLUMN_CHUNKS = HEAD_TILE / 8;

  static __device__ __forceinline__ u32 first_row() { return threadIdx.x / 32 % 2 * 16 * MT; }
  static __device__ __forceinline__ u32 first_column() { return threadIdx.x / 64 * WARP_COLUMNS; }

  // 64 rows and 16 columns of a matrix, split.
  static __device__ __forceinline__ void load_rows(char *to, const Matrix &m, u32 row, u32 column) {
#pragma unroll
    for (u32 at = threadIdx.x; at < HEAD_TILE * K / 4; at += HEAD_THREADS)
      put_quad<2, 2>(to, at / 4, at % 4, element(m, row + at / 4, column + at % 4 * 4));
  }

  // Rows of the right tile as columns of a right operand: what ldmatrix gives when it does not turn them.
  static __device__ __forceinline__ void load_turned(u32 (&to)[NT][2], const char *rows, u32 chunk) {
    const u32 lane = own_lane(), row = first_column() + lane / 16 * 8 + lane % 8, own = chunk + lane / 8 % 2;
#pragma unroll
    for (int j = 0; j < NT; j += 2) {
      u32 four[4];
      load_matrices<4, false>(four, rows + chunk_at<SLICE_CHUNKS>(row + 8 * j, own));
      to[j][0] = four[0];
      to[j][1] = four[1];
      to[j + 1][0] = four[2];
      to[j + 1][1] = four[3];
    }
  }

  static __device__ __forceinline__ void products(Sums &total, const Matrix &a, u32 a_first, const Matrix &b,
                                                  u32 b_first, float *slices) {
    char *left = reinterpret_cast<char *>(slices), *right = left + SLICE_BYTES;
    Sums s;
    clear(total);
    clear(s);
    u32 slice = 0;
#pragma unroll 1
    for (u32 k = 0; k < a.columns; k += K) {
      __syncthreads();  // the last slice is read
      load_rows(left, a, a_first, k);
      load_rows(right, b, b_first, k);
      __syncthreads();
      u32 high[NT][2], low[NT][2];
      load_turned(high, right, 0);
      load_turned(low, right, 2);
#pragma unroll
      for (int i = 0; i < MT; ++i) {
        const u32 row = first_row() + 16 * i + own_lane() % 16, half = own_lane() / 16;
        u32 of_high[4], of_low[4];
        load_matrices<4, false>(of_high, left + chunk_at<SLICE_CHUNKS>(row, half));
        load_matrices<4, false>(of_low, left + chunk_at<SLICE_CHUNKS>(row, 2 + half));
        multiply_add(s.at[i], of_low, high);
        multiply_add(s.at[i], of_high, low);
        multiply_add(s.at[i], of_high, high);
      }
      if (++slice % CHAIN_SLICES == 0) end_chain(total, s);
    }
    end_chain(total, s);
  }

  static __device__ __forceinline__ void weighted(Sums &total, const float *weights, const Matrix &b, u32 b_first,
                                                  u32 column, float *slices) {
    char *right = reinterpret_cast<char *>(slices);
    const u32 group = own_lane() / 4, pair = own_lane() % 4 * 2;
    Sums s;
    clear(s);
#pragma unroll 1
    for (u32 k = 0; k < HEAD_TILE; k += K) {
      __syncthreads();  // the weights are there; the last slice is read
#pragma unroll
      for (u32 at = threadIdx.x; at < K * HEAD_TILE / 4; at += HEAD_THREADS) {
        const u32 row = at / (HEAD_TILE / 4), quad = at % (HEAD_TILE / 4);
        char *to = right + quad % 2 * (CHUNK / 2);
        put_parts<2>(to + chunk_at<COLUMN_CHUNKS>(row, quad / 2), to + chunk_at<COLUMN_CHUNKS>(K + row, quad / 2),
                     element(b, b_first + k + row, column + 4 * quad));
      }
      __syncthreads();
      u32 high[NT][2], low[NT][2];
      load_right<COLUMN_CHUNKS>(high, right, 0, first_column() / 8);
      load_right<COLUMN_CHUNKS>(low, right, K, first_column() / 8);
#pragma unroll
      for (int i = 0; i < MT; ++i) {
        u32 of_high[4], of_low[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const u32 row = first_row() + 16 * i + group + j % 2 * 8;
          const float2 w = *reinterpret_cast<const float2 *>(weights + row * WEIGHT_PITCH + k + pair + j / 2 * 8);
          of_high[j] = rounded_pair(w.x, w.y);
          of_low[j] = low_pair(w.x, w.y, of_high[j]);
        }
        multiply_add(s.at[i], of_low, high);
        multiply_add(s.at[i], of_high, low);
        multiply_add(s.at[i], of_high, high);
      }
    }
    end_chain(total, s);
  }

  // Calls body(row, column, i, j, k) for the pairs of sums s.at[i][j][k], s.at[i][j][k + 1] of this thread.
  template <class Body>
  static __device__ __forceinline__ void for_each_pair(Body body) {
#pragma unroll
    for (int i = 0; i < MT; ++i)
#pragma unroll
      for (int j = 0; j < NT; ++j)
#pragma unroll
        for (int k = 0; k < 4; k += 2)
          body(first_row() + 16 * i + own_lane() / 4 + 4 * k, first_column() + 8 * j + own_lane() % 4 * 2, i, j, k);
  }

  // Since a tile was last read there were the barriers of the products that made this one.
  static __device__ __forceinline__ void keep(float *tile, const Sums &s) {
    for_each_pair([&](u32 row, u32 column, int i, int j, int k) {
      *reinterpret_cast<float2 *>(tile + row * WEIGHT_PITCH + column) = make_float2(s.at[i][j][k], s.at[i][j][k + 1]);
    });
  }

  static __device__ __forceinline__ void store(float *to, u64 stride, const Sums &s, u32 rows, u32 first, u32 columns) {
    for_each_pair([&](u32 row, u32 column, int i, int j, int k) {
      if (row < rows)
        put_pair(to + row * stride + first + column, (int)columns - (int)(first + column), s.at[i][j][k],
                 s.at[i][j][k + 1]);
    });
  }
};

ATTENTION_KERNELS(SplitProducts, split)
