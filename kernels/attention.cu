// Attention by multiply-adds of f32: see attention.cuh.
#include "attention.cuh"
#include "tile.cuh"

struct MultiplyAdds {
  using Sums = ::Sums;
  static constexpr int SLICES = TILE * PITCH + DEPTH * TILE, WEIGHT_PITCH = TILE + 4;

  static __device__ __forceinline__ void products(Sums &s, const Matrix &a, u32 a_first, const Matrix &b, u32 b_first,
                                                  float *slices) {
    float *left = slices, *right = slices + TILE * PITCH;
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

  static __device__ __forceinline__ void weighted(Sums &total, const float *weights, const Matrix &b, u32 b_first,
                                                  u32 first_column, float *slices) {
    float *right = slices + TILE * PITCH;
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

  // Since a tile was last read there were the barriers of the products that made this one.
  static __device__ __forceinline__ void keep(float *tile, const Sums &s) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
      *reinterpret_cast<float4 *>(tile + tile_row(i) * WEIGHT_PITCH + tile_column()) =
          make_float4(s.at[i][0], s.at[i][1], s.at[i][2], s.at[i][3]);
  }

  static __device__ __forceinline__ void store(float *to, u64 stride, const Sums &s, u32 rows, u32 first_column,
                                               u32 columns) {
    const u32 column = first_column + (u32)tile_column();
    if (column >= columns) return;
    const int count = (int)min(4u, columns - column);
#pragma unroll
    for (int i = 0; i < ROWS; ++i)
      if ((u32)tile_row(i) < rows)
        ::store(to + tile_row(i) * stride + column, count, {{s.at[i][0], s.at[i][1], s.at[i][2], s.at[i][3]}});
  }
};

ATTENTION_KERNELS(MultiplyAdds, f32)
