// The product of tiles, which convolutions, dense layers and attention share: a block of THREADS threads multiplies
// 64 rows by 64 columns from shared memory, each thread 8 rows by 4 columns in registers.
//
// Thread (tx, ty) owns rows ty, ty + 8, .. and columns 4 tx .. 4 tx + 4: a warp reads two rows (the same address
// within each half) and 64 columns, both without a bank conflict. Every element is one chain of fmaf over k, in order,
// so the bits do not depend on which tile an element is in.
#pragma once

#include "matrix.cuh"

// Shared memory whose size the launch gives.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) float name[]
#endif

constexpr int THREADS = 128;
constexpr int TILE = 64;       // rows and columns of a tile
constexpr int DEPTH = 16;      // k of a slice in shared memory
constexpr int PITCH = 20;      // floats from one row of a slice to the next: aligned for vectors, other banks
constexpr int ROWS = 8;        // of a thread
constexpr int COLUMNS = 4;     // of a thread
constexpr int CHAIN = 1024;    // longest chain of sums

struct Sums {
  float at[ROWS][COLUMNS];
};

__device__ __forceinline__ int tile_row(int i) { return (int)threadIdx.x / 16 + 8 * i; }
__device__ __forceinline__ int tile_column() { return (int)threadIdx.x % 16 * COLUMNS; }

__device__ __forceinline__ void clear(Sums &s) {
#pragma unroll
  for (int i = 0; i < ROWS; ++i)
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) s.at[i][j] = 0.0f;
}

// total += s, and s begins another chain.
__device__ __forceinline__ void end_chain(Sums &total, Sums &s) {
#pragma unroll
  for (int i = 0; i < ROWS; ++i)
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      total.at[i][j] += s.at[i][j];
      s.at[i][j] = 0.0f;
    }
}

__device__ __forceinline__ float4 vector_at(const float *shared) { return *reinterpret_cast<const float4 *>(shared); }
__device__ __forceinline__ void put_vector(float *shared, const Floats &f) {
  *reinterpret_cast<float4 *>(shared) = make_float4(f.lane[0], f.lane[1], f.lane[2], f.lane[3]);
}

__device__ __forceinline__ void multiply_add(float (&sums)[COLUMNS], float a, float4 b) {
  sums[0] = fmaf(a, b.x, sums[0]);
  sums[1] = fmaf(a, b.y, sums[1]);
  sums[2] = fmaf(a, b.z, sums[2]);
  sums[3] = fmaf(a, b.w, sums[3]);
}

// s += A B over DEPTH steps of k: row i of A begins at a + offset[i], B is [DEPTH, TILE].
__device__ __forceinline__ void multiply(Sums &s, const float *a, const int (&offset)[ROWS], const float *b) {
  const float *column = b + tile_column();
#pragma unroll
  for (int k = 0; k < DEPTH; k += 4) {
    float4 left[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; ++i) left[i] = vector_at(a + offset[i] + k);
    const float4 b_0 = vector_at(column + (k + 0) * TILE), b_1 = vector_at(column + (k + 1) * TILE);
    const float4 b_2 = vector_at(column + (k + 2) * TILE), b_3 = vector_at(column + (k + 3) * TILE);
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      multiply_add(s.at[i], left[i].x, b_0);
      multiply_add(s.at[i], left[i].y, b_1);
      multiply_add(s.at[i], left[i].z, b_2);
      multiply_add(s.at[i], left[i].w, b_3);
    }
  }
}

// Copies [TILE, DEPTH] of a matrix to shared memory, rows PITCH apart.
__device__ __forceinline__ void load_rows(float *to, const Matrix &m, u32 first_row, u32 first_column) {
#pragma unroll
  for (int i = 0; i < TILE * DEPTH / 4 / THREADS; ++i) {
    const u32 at = threadIdx.x + i * THREADS, row = at / (DEPTH / 4), quad = at % (DEPTH / 4);
    put_vector(to + row * PITCH + 4 * quad, element(m, first_row + row, first_column + 4 * quad));
  }
}

// Copies the transpose of [TILE, DEPTH] of a matrix to shared memory: [DEPTH, TILE].
__device__ __forceinline__ void load_transposed(float *to, const Matrix &m, u32 first_row, u32 first_column) {
#pragma unroll
  for (int i = 0; i < TILE * DEPTH / 4 / THREADS; ++i) {
    const u32 at = threadIdx.x + i * THREADS, row = at % TILE, quad = at / TILE;
    const Floats f = element(m, first_row + row, first_column + 4 * quad);
#pragma unroll
    for (int j = 0; j < 4; ++j) to[(4 * quad + j) * TILE + row] = f.lane[j];
  }
}

// Copies [DEPTH, TILE] of a matrix to shared memory.
__device__ __forceinline__ void load_columns(float *to, const Matrix &m, u32 first_row, u32 first_column) {
#pragma unroll
  for (int i = 0; i < TILE * DEPTH / 4 / THREADS; ++i) {
    const u32 at = threadIdx.x + i * THREADS, row = at / (TILE / 4), quad = at % (TILE / 4);
    put_vector(to + row * TILE + 4 * quad, element(m, first_row + row, first_column + 4 * quad));
  }
}
