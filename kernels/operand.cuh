// An operation's input, a description of how a value follows from stored tensors, applied while it is loaded.
// The twin of crates/ddpm-kernels/src/operand/cpu/rows.rs, bit for bit.
#pragma once

#include "images.cuh"
#include "math.cuh"

// The same fields in the same order as `operand::cuda::Argument` in Rust.
struct Operand {
  const float *a;             // [N, H, W, channels_a]
  const float *b;             // [N, H, W, channels - channels_a], or null
  const float *coefficients;  // [N, FIELDS, channels], or null without a norm
  u64 seed, step, sample;     // of dropout; image i is sample + i
  u32 purpose;
  float probability;  // of dropping; 0 for no dropout
  float keep;         // 1 / (1 - probability)
  u32 channels_a, channels;
  u32 images, height, width;  // as stored
  u32 silu;
  u32 enlarge;  // 2 if each pixel is repeated to 2x2, else 1
};

// What a norm comes to for an image and channel: mean; rstd; gamma' = gamma (1 + scale); gamma' rstd; beta' = beta (1 + scale) + shift.
enum Field { MEAN, RSTD, GAMMA, SLOPE, SHIFT, FIELDS };

// Puts the coefficients of a channel; scale_shift [N, 2C] may be null.
__device__ __forceinline__ void put_coefficients(float *coefficients, u64 image, u32 c, u32 channels, float mean, float rstd,
                                                 const float *gamma, const float *beta, const float *scale_shift) {
  float scaled = gamma[c], shift = beta[c];
  if (scale_shift != nullptr) {
    const float factor = 1.0f + scale_shift[image * 2 * channels + c];
    scaled *= factor;
    shift = fmaf(shift, factor, scale_shift[image * 2 * channels + channels + c]);
  }
  float *to = coefficients + image * FIELDS * channels + c;
  to[(u64)MEAN * channels] = mean;
  to[(u64)RSTD * channels] = rstd;
  to[(u64)GAMMA * channels] = scaled;
  to[(u64)SLOPE * channels] = scaled * rstd;
  to[(u64)SHIFT * channels] = shift;
}

__device__ __forceinline__ Floats field(const Operand &x, u32 image, Field f, u32 channel, int count) {
  return load(x.coefficients + ((u64)image * FIELDS + f) * x.channels + channel, count);
}

__device__ __forceinline__ u64 pixel_of(const Operand &x, u32 image, u32 row, u32 column) {
  return ((u64)image * x.height + row) * x.width + column;
}

// Up to four channels of a stored pixel, from whichever part holds them.
__device__ __forceinline__ Floats stored(const Operand &x, u64 pixel, u32 channel, int count) {
  const u32 channels_b = x.channels - x.channels_a;
  if (channel + count <= x.channels_a) return load(x.a + pixel * x.channels_a + channel, count);
  if (channel >= x.channels_a) return load(x.b + pixel * channels_b + (channel - x.channels_a), count);
  Floats f = {{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const u32 c = channel + i;
    if (i < count)
      f.lane[i] = c < x.channels_a ? x.a[pixel * x.channels_a + c] : x.b[pixel * channels_b + (c - x.channels_a)];
  }
  return f;
}

// Multiplies up to four channels of a stored pixel by their dropout factors, 0 or 1 / (1 - p).
__device__ __forceinline__ void drop_out(const Operand &x, u32 image, u32 row, u32 column, u32 channel, Floats &v) {
  const Address address = {x.seed, x.step, x.sample + image, x.purpose};
  const u64 element = ((u64)row * x.width + column) * x.channels + channel;
  const u32 block = (u32)(element / 4), lane = (u32)element & 3u;
  Floats own = random_uniforms(address, block);
  if (lane != 0) {  // the four straddle two blocks: shifted by one, by two, or by both
    const Floats next = random_uniforms(address, block + 1);
    float u[7] = {own.lane[0], own.lane[1], own.lane[2], own.lane[3], next.lane[0], next.lane[1], next.lane[2]};
#pragma unroll
    for (int i = 0; i < 6; ++i) u[i] = lane & 1u ? u[i + 1] : u[i];
#pragma unroll
    for (int i = 0; i < 4; ++i) own.lane[i] = lane & 2u ? u[i + 2] : u[i];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) v.lane[i] = own.lane[i] >= x.probability ? v.lane[i] * x.keep : 0.0f;
}

// Up to four channels of the value at a stored pixel (before enlarging).
__device__ __forceinline__ Floats value(const Operand &x, u32 image, u32 row, u32 column, u32 channel, int count) {
  Floats v = stored(x, pixel_of(x, image, row, column), channel, count);
  if (x.coefficients != nullptr) {
    const Floats mean = field(x, image, MEAN, channel, count), slope = field(x, image, SLOPE, channel, count);
    const Floats shift = field(x, image, SHIFT, channel, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) v.lane[i] = fmaf(v.lane[i] - mean.lane[i], slope.lane[i], shift.lane[i]);
  }
  if (x.silu != 0) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v.lane[i] = v.lane[i] * sigmoid(v.lane[i]);
  }
  if (x.probability > 0.0f) drop_out(x, image, row, column, channel, v);
  return v;
}
