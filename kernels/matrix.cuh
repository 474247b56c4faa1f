// Matrices in memory, of which blocks read tiles four numbers at a time.
#pragma once

#include "images.cuh"

// A matrix in memory, of which a block reads tiles; what lies outside is zero.
struct Matrix {
  const float *data;
  u64 stride;  // from one row to the next
  u32 rows, columns;
};

__device__ __forceinline__ Floats element(const Matrix &m, u32 row, u32 column) {
  const int left = row < m.rows && column < m.columns ? (int)(m.columns - column) : 0;
  const Floats zero = {{0.0f, 0.0f, 0.0f, 0.0f}};
  return left > 0 ? load(m.data + row * m.stride + column, left < 4 ? left : 4) : zero;
}
