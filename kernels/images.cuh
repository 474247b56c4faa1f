// How the kernels that work element by element walk over a batch: a thread takes four elements of one image, which
// are one Philox block. Grid x strides over an image's blocks and grid y over images, so any grid gives the same
// bits, and every index is 64 bits wide.
#pragma once

#include "philox.cuh"

// Runs `body(image, block, first, count)` for the blocks of this thread: elements first .. first + count of the whole
// batch, count = 4 but for the last block of an image.
template <class Body>
__device__ __forceinline__ void for_each_block(u64 images, u64 elements_per_image, Body body) {
  const u64 blocks = (elements_per_image + 3) / 4;
  for (u64 image = blockIdx.y; image < images; image += gridDim.y) {
    for (u64 block = (u64)blockIdx.x * blockDim.x + threadIdx.x; block < blocks; block += (u64)gridDim.x * blockDim.x) {
      const u64 left = elements_per_image - 4 * block;
      body(image, block, image * elements_per_image + 4 * block, left < 4 ? (int)left : 4);
    }
  }
}

// Whether four elements may move as one vector.
__device__ __forceinline__ bool is_vector(const float *p, int count) { return count == 4 && ((u64)p & 15) == 0; }

__device__ __forceinline__ Floats load(const float *p, int count) {
  if (is_vector(p, count)) {
    const float4 v = *reinterpret_cast<const float4 *>(p);
    return {{v.x, v.y, v.z, v.w}};
  }
  Floats f = {{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) f.lane[i] = p[i];
  return f;
}

__device__ __forceinline__ void store(float *p, int count, const Floats &f) {
  if (is_vector(p, count)) {
    *reinterpret_cast<float4 *>(p) = make_float4(f.lane[0], f.lane[1], f.lane[2], f.lane[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) p[i] = f.lane[i];
}
