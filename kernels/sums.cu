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

// grads[c] += the sum over the images of rows [N, C], in groups of 16 images. A thread takes a channel.
extern "C" __global__ void batch_sums_f32(const float *rows, float *grads, u32 images, u32 channels) {
  const u32 c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  float grad = grads[c];
  for (u32 first = 0; first < images; first += 16) {
    float sum = 0.0f;
    for (u32 image = first; image < min(images, first + 16); ++image) sum += rows[(u64)image * channels + c];
    grad += sum;
  }
  grads[c] = grad;
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

// grads[i] += the sums of slices of images, partial [slices, len]: those of a group of 16 images from zero, the groups in order.
extern "C" __global__ void add_slices_f32(const float *partial, float *grads, u64 len, u32 slices,
                                          u32 slices_of_group) {
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
    float grad = grads[i];
    for (u32 group = 0; group < slices; group += slices_of_group) {
      float sum = 0.0f;
      for (u32 slice = group; slice < min(slices, group + slices_of_group); ++slice) sum += partial[slice * len + i];
      grad += sum;
    }
    grads[i] = grad;
  }
}
