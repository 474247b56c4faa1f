// Sums over pixels and images, rows of tables, and what is done to each element alone.
// The twin of crates/ddpm-kernels/src/sums/cpu.rs.
#include "channels.cuh"

// Sums over the pixels of each image: x [N, P, C] -> y [N, C]. Grid x: 32 channels, y: images.
extern "C" __global__ void pixel_sums_f32(const float *x, float *y, u32 images, u32 pixels, u32 channels) {
  __shared__ float shared[LANES * 32];
  const u32 channel = own_channel();
  const bool exists = channel < channels;
  for (u32 image = blockIdx.y; image < images; image += gridDim.y) {
    const float *from = x + (u64)image * pixels * channels + channel;
    float total = 0.0f;
    for (u32 first = 0; first < pixels; first += PART_PIXELS) {
      float sum = 0.0f;
      const u32 end = min(pixels, first + PART_PIXELS);
      for (u32 pixel = first + own_lane(); exists && pixel < end; pixel += LANES) sum += from[(u64)pixel * channels];
      total += sum;
    }
    total = sum_of_lanes(total, shared);
    if (own_lane() == 0 && exists) y[(u64)image * channels + channel] = total;
  }
}

// Rows of table [K, C]: y [N, C]; indices [N] are below K.
extern "C" __global__ void gather_rows_f32(const float *table, const u32 *indices, float *y, u32 images, u32 channels) {
  const u64 len = (u64)images * channels;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x)
    y[i] = table[(u64)indices[i / channels] * channels + i % channels];
}

// Adds rows [N, C] to the rows of grads [K, C] that `indices` name: those of a group of 16 images that go to one row
// are summed from zero first. A thread takes a channel.
extern "C" __global__ void scatter_rows_f32(const float *rows, const u32 *indices, float *grads, u32 images,
                                            u32 channels) {
  const u32 c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  for (u32 first = 0; first < images; first += 16) {
    const u32 end = min(images, first + 16);
    for (u32 image = first; image < end; ++image) {
      const u32 index = indices[image];
      bool done = false;
      for (u32 earlier = first; earlier < image; ++earlier) done |= indices[earlier] == index;
      if (done) continue;
      float sum = 0.0f;
      for (u32 other = image; other < end; ++other)
        if (indices[other] == index) sum += rows[(u64)other * channels + c];
      grads[(u64)index * channels + c] += sum;
    }
  }
}

// y += factor x, elementwise.
extern "C" __global__ void add_scaled_f32(float *y, const float *x, float factor, u64 len) {
  for_each_block(1, len, [=](u64, u64, u64 first, int count) {
    Floats sum = load(y + first, count);
    const Floats add = load(x + first, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum.lane[i] = fmaf(add.lane[i], factor, sum.lane[i]);
    store(y + first, count, sum);
  });
}

// y = factor x + shift, elementwise.
extern "C" __global__ void affine_f32(const float *x, float *y, float factor, float shift, u64 len) {
  for_each_block(1, len, [=](u64, u64, u64 first, int count) {
    Floats v = load(x + first, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) v.lane[i] = fmaf(v.lane[i], factor, shift);
    store(y + first, count, v);
  });
}

// Sums over the images of a batch, to be added to gradients: to[i] += the sum of from[slice * slice_stride + i * stride] over
// the slices, those of a group of 16 images from zero, the groups in order. A slice is one image, or several that were summed.
// The same fields in the same order as `sums::cuda::Addend` in Rust.
struct Addend {
  const float *from;
  float *to;
  u64 len, slice_stride;
  u32 stride, slices, slices_of_group;
  u32 first_block;  // of those that add it
};
constexpr u32 ADDENDS = 8;
struct Addends {
  Addend each[ADDENDS];
  u32 count;
};

// Several such sums at once. Grid x: blocks of all of them, a thread for each element.
extern "C" __global__ void add_sums_f32(Addends all) {
  u32 own = 0;
  while (own + 1 < all.count && blockIdx.x >= all.each[own + 1].first_block) ++own;
  const Addend a = all.each[own];
  const u64 i = (u64)(blockIdx.x - a.first_block) * blockDim.x + threadIdx.x;
  if (i >= a.len) return;
  const float *from = a.from + i * a.stride;
  float grad = a.to[i];
  for (u32 group = 0; group < a.slices; group += a.slices_of_group) {
    const u32 end = min(a.slices, group + a.slices_of_group);
    float sum = 0.0f;
#pragma unroll 8
    for (u32 slice = group; slice < end; ++slice) sum += from[slice * a.slice_stride];
    grad += sum;
  }
  a.to[i] = grad;
}
