// How a kernel sums over the pixels of an image channel by channel: a block takes 32 channels of one image, a warp
// reads 32 channels of a pixel, and LANES warps take every LANES-th pixel. Sums end in order, so the bits are a matter
// of one image's shape.
#pragma once

#include "images.cuh"

constexpr u32 LANES = 8;              // pixels at a time
constexpr u32 PART_PIXELS = 1024;     // pixels whose sums are made from zero

__device__ __forceinline__ u32 own_channel() { return blockIdx.x * 32 + threadIdx.x % 32; }
__device__ __forceinline__ u32 own_lane() { return threadIdx.x / 32; }

// The lanes' values added in order; the sum comes to lane 0. `shared` is [LANES, 32].
__device__ __forceinline__ float sum_of_lanes(float value, float *shared) {
  __syncthreads();  // the last sum is read
  shared[threadIdx.x] = value;
  __syncthreads();
  float sum = 0.0f;
  if (own_lane() == 0)
    for (u32 lane = 0; lane < LANES; ++lane) sum += shared[lane * 32 + threadIdx.x % 32];
  return sum;
}
