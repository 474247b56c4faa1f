// The product of tiles on tensor cores, which convolutions and dense layers share: what lies how in shared memory, and the
// one function that multiplies it.
//
// A number is one of bf16 (PARTS 1, `rounded`) or the sum of two (PARTS 2, `split`: x y is the sum of three products, that
// of both low parts is left out). Shared memory holds rows of chunks of eight numbers of bf16. A chunk's place is its
// number exclusive-or the row's last digits, turned around, so that the eight rows that ldmatrix reads at a time lie in
// all 32 banks, and so does what half a warp writes, of a row's chunks all or half.
//
// A warp multiplies 16 MT rows by 32 columns. Every element is one chain over k whose order a slice and its place in it
// set, so the bits do not depend on which tile an element is in.
#pragma once

#include "images.cuh"
#include "mma.cuh"

constexpr int CHUNK = 16;        // bytes: eight numbers of bf16
constexpr int NT = 4;            // tiles of eight columns of a warp
constexpr int WARP_COLUMNS = 8 * NT;
constexpr int SLICE_ROWS = 32;   // rows of a slice of a right operand: 32 steps of k, or 16 of both parts
constexpr int SLICE_CHUNKS = 4;  // chunks of a row of a left operand's slice, likewise

// Steps of k of a slice.
template <int PARTS>
constexpr int DEPTH = SLICE_ROWS / PARTS;

template <int MT>
struct Sums {
  float at[MT][NT][4];
};

template <int MT>
__device__ __forceinline__ void clear(Sums<MT> &s) {
#pragma unroll
  for (int i = 0; i < MT; ++i)
#pragma unroll
    for (int j = 0; j < NT; ++j)
#pragma unroll
      for (int k = 0; k < 4; ++k) s.at[i][j][k] = 0.0f;
}

// total += s, and s begins another chain: tensor cores cut sums off where f32 rounds them.
template <int MT>
__device__ __forceinline__ void end_chain(Sums<MT> &total, Sums<MT> &s) {
#pragma unroll
  for (int i = 0; i < MT; ++i)
#pragma unroll
    for (int j = 0; j < NT; ++j)
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        total.at[i][j][k] += s.at[i][j][k];
        s.at[i][j][k] = 0.0f;
      }
}

__device__ __forceinline__ u32 own_lane() { return threadIdx.x % 32; }

// Bytes from the beginning of rows of CHUNKS (4, 8, 16 ..) chunks to a chunk.
template <int CHUNKS>
__device__ __forceinline__ u32 chunk_at(u32 row, u32 chunk) {
  const u32 turn = CHUNKS == 4 ? (row & 2) | (row >> 2 & 1) : (row & 1) << 2 | (row & 2) | (row >> 2 & 1);
  return (row * CHUNKS + (chunk ^ turn)) * CHUNK;
}

// Puts four numbers where `high` is, and what rounding leaves of them where `low` is.
template <int PARTS>
__device__ __forceinline__ void put_parts(char *high, char *low, const Floats &v) {
  const uint2 parts = make_uint2(rounded_pair(v.lane[0], v.lane[1]), rounded_pair(v.lane[2], v.lane[3]));
  *reinterpret_cast<uint2 *>(high) = parts;
  if constexpr (PARTS == 2)
    *reinterpret_cast<uint2 *>(low) =
        make_uint2(low_pair(v.lane[0], v.lane[1], parts.x), low_pair(v.lane[2], v.lane[3], parts.y));
}

// Puts four numbers into a row of PARTS x CHUNKS chunks: high parts at half a chunk `quad`, low ones CHUNKS chunks after.
template <int PARTS, int CHUNKS>
__device__ __forceinline__ void put_quad(char *rows, u32 row, u32 quad, const Floats &v) {
  char *at = rows + quad % 2 * (CHUNK / 2);
  put_parts<PARTS>(at + chunk_at<PARTS * CHUNKS>(row, quad / 2), at + chunk_at<PARTS * CHUNKS>(row, CHUNKS + quad / 2), v);
}

// Stores two numbers beside each other, or the first alone, or (count 0 or less) none.
__device__ __forceinline__ void put_pair(float *to, int count, float first, float second) {
  if (count >= 2 && ((u64)to & 7) == 0) {
    *reinterpret_cast<float2 *>(to) = make_float2(first, second);
    return;
  }
  if (count >= 1) to[0] = first;
  if (count >= 2) to[1] = second;
}

// 16 rows (steps of k) from `row` on and 32 columns from `chunk` on, as right operands.
template <int CHUNKS>
__device__ __forceinline__ void load_right(u32 (&to)[NT][2], const char *rows, u32 row, u32 chunk) {
  const u32 own_row = row + own_lane() % 16, own_chunk = chunk + own_lane() / 16;
#pragma unroll
  for (int j = 0; j < NT; j += 2) {
    u32 four[4];
    load_matrices<4, true>(four, rows + chunk_at<CHUNKS>(own_row, own_chunk + j));
    to[j][0] = four[0];
    to[j][1] = four[1];
    to[j + 1][0] = four[2];
    to[j + 1][1] = four[3];
  }
}

// s += A B over a slice. `left` has rows of SLICE_CHUNKS chunks, of which row[i] is this lane's (lane % 16) of the i-th 16;
// `right` has SLICE_ROWS rows of CHUNKS chunks, of which the warp takes four from `chunk` on.
template <int PARTS, int CHUNKS, int MT>
__device__ __forceinline__ void multiply_slice(Sums<MT> &s, const char *left, const u32 (&row)[MT], const char *right,
                                               u32 chunk) {
  const u32 half = own_lane() / 16;
  if constexpr (PARTS == 1) {
#pragma unroll
    for (int k = 0; k < SLICE_ROWS; k += 16) {
      u32 b[NT][2];
      load_right<CHUNKS>(b, right, k, chunk);
#pragma unroll
      for (int i = 0; i < MT; ++i) {
        u32 a[4];
        load_matrices<4, false>(a, left + chunk_at<SLICE_CHUNKS>(row[i], k / 8 + half));
        multiply_add(s.at[i], a, b);
      }
    }
  } else {
    u32 high[NT][2], low[NT][2];
    load_right<CHUNKS>(high, right, 0, chunk);
    load_right<CHUNKS>(low, right, 16, chunk);
#pragma unroll
    for (int i = 0; i < MT; ++i) {
      u32 a[4], b[4];
      load_matrices<4, false>(a, left + chunk_at<SLICE_CHUNKS>(row[i], half));
      load_matrices<4, false>(b, left + chunk_at<SLICE_CHUNKS>(row[i], 2 + half));
      multiply_add(s.at[i], b, high);
      multiply_add(s.at[i], a, low);
      multiply_add(s.at[i], a, high);
    }
  }
}
