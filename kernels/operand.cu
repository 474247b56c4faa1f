// Whole values of operands, and gradients of what operands are made of.
// The twin of crates/ddpm-kernels/src/operand/cpu/mod.rs.
#include "channels.cuh"
#include "operand.cuh"

// What a norm comes to for each image and channel: coefficients [N, FIELDS, C] from statistics [N, groups, 2];
// scale_shift [N, 2C] may be null.
extern "C" __global__ void norm_coefficients_f32(const float *statistics, const float *gamma, const float *beta,
                                                 const float *scale_shift, float *coefficients, u32 images,
                                                 u32 channels, u32 groups) {
  const u64 len = (u64)images * channels;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
    const u64 image = i / channels;
    const u32 c = (u32)(i % channels), group = c / (channels / groups);
    const float mean = statistics[(image * groups + group) * 2], rstd = statistics[(image * groups + group) * 2 + 1];
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
}

// The operand's value, stored: y [N, enlarge H, enlarge W, C]. A thread takes four channels of a pixel of y.
extern "C" __global__ void operand_value_f32(Operand x, float *y) {
  const u32 quads = (x.channels + 3) / 4, height = x.height * x.enlarge, width = x.width * x.enlarge;
  const u64 len = (u64)x.images * height * width * quads;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
    const u64 pixel = i / quads;
    const u32 channel = (u32)(i % quads) * 4, column = (u32)(pixel % width), row = (u32)(pixel / width % height);
    const u32 image = (u32)(pixel / width / height);
    const int count = (int)min(4u, x.channels - channel);
    store(y + pixel * x.channels + channel, count,
          value(x, image, row / x.enlarge, column / x.enlarge, channel, count));
  }
}

// Pulls the gradient dv of the value back to the stored pixels: g [N, H, W, C], and with a norm the sums of dn and
// dn x^ over the pixels, sums [N, C, 2]. Grid x: 32 channels, y: images; blocks of LANES * 32 threads.
extern "C" __global__ void operand_pull_f32(const float *dv, Operand x, float *g, float *sums) {
  __shared__ float shared[LANES * 32];
  const u32 c = own_channel(), pixels = x.height * x.width;
  const bool exists = c < x.channels, has_norm = x.coefficients != nullptr;
  for (u32 image = blockIdx.y; image < x.images; image += gridDim.y) {
    float mean = 0.0f, rstd = 0.0f, gamma = 1.0f, slope = 1.0f, shift = 0.0f;
    if (has_norm && exists) {
      const float *k = x.coefficients + (u64)image * FIELDS * x.channels + c;
      mean = k[(u64)MEAN * x.channels];
      rstd = k[(u64)RSTD * x.channels];
      gamma = k[(u64)GAMMA * x.channels];
      slope = k[(u64)SLOPE * x.channels];
      shift = k[(u64)SHIFT * x.channels];
    }
    float zero = 0.0f, one = 0.0f;
    for (u32 first = 0; first < pixels; first += PART_PIXELS) {
      float part_zero = 0.0f, part_one = 0.0f;
      const u32 end = min(pixels, first + PART_PIXELS);
      for (u32 p = first + own_lane(); exists && p < end; p += LANES) {
        const u32 row = p / x.width, column = p % x.width;
        float dn;
        if (x.enlarge == 2) {
          const float *at = dv + (((u64)image * 2 * x.height + 2 * row) * 2 * x.width + 2 * column) * x.channels + c;
          const u64 below = (u64)2 * x.width * x.channels;
          dn = (at[0] + at[x.channels]) + (at[below] + at[below + x.channels]);
        } else {
          dn = dv[pixel_of(x, image, row, column) * x.channels + c];
        }
        if (x.probability > 0.0f) {
          Floats v = {{dn, 0.0f, 0.0f, 0.0f}};
          drop_out(x, image, row, column, c, v);
          dn = v.lane[0];
        }
        if (has_norm || x.silu != 0) {
          const float centred = stored(x, pixel_of(x, image, row, column), c, 1).lane[0] - mean;
          if (x.silu != 0) dn = dn * silu_slope(has_norm ? fmaf(centred, slope, shift) : centred);
          part_zero += dn;
          part_one = fmaf(dn, centred * rstd, part_one);
          if (has_norm) dn = dn * gamma;
        }
        g[pixel_of(x, image, row, column) * x.channels + c] = dn;
      }
      zero += part_zero;
      one += part_one;
    }
    if (has_norm) {
      zero = sum_of_lanes(zero, shared);
      one = sum_of_lanes(one, shared);
      if (own_lane() == 0 && exists) {
        sums[((u64)image * x.channels + c) * 2] = zero;
        sums[((u64)image * x.channels + c) * 2 + 1] = one;
      }
    }
  }
}

// Means over each group of g and g x^, both of the gradient of x^: means [N, groups, 2].
extern "C" __global__ void norm_means_f32(Operand x, const float *sums, float *means, u32 groups) {
  const u32 of = x.channels / groups;
  const float size = (float)(of * x.height * x.width);
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < (u64)x.images * groups;
       i += (u64)gridDim.x * blockDim.x) {
    const u64 image = i / groups;
    const u32 first = (u32)(i % groups) * of;
    float zero = 0.0f, one = 0.0f;
    for (u32 c = first; c < first + of; ++c) {
      const float gamma = x.coefficients[(image * FIELDS + GAMMA) * x.channels + c];
      zero += gamma * sums[(image * x.channels + c) * 2];
      one += gamma * sums[(image * x.channels + c) * 2 + 1];
    }
    means[2 * i] = zero / size;
    means[2 * i + 1] = one / size;
  }
}

// Gradients of the stored parts: finishes the norm where there is one (means [N, groups, 2]), splits, and adds add_a and
// add_b where they are not null. A thread takes one element of g.
extern "C" __global__ void operand_grad_f32(const float *g, Operand x, const float *means, u32 groups,
                                            const float *add_a, const float *add_b, float *to_a, float *to_b) {
  const u64 len = (u64)x.images * x.height * x.width * x.channels;
  const u32 channels_b = x.channels - x.channels_a, of = x.channels / groups;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
    const u64 pixel = i / x.channels;
    const u32 c = (u32)(i % x.channels);
    float dx = g[i];
    if (x.coefficients != nullptr) {
      const u64 image = pixel / x.width / x.height;
      const float *k = x.coefficients + image * FIELDS * x.channels + c;
      const float rstd = k[(u64)RSTD * x.channels];
      const float x_hat = (stored(x, pixel, c, 1).lane[0] - k[(u64)MEAN * x.channels]) * rstd;
      const float *mean = means + (image * groups + c / of) * 2;
      dx = rstd * fmaf(-x_hat, mean[1], dx - mean[0]);
    }
    const bool in_a = c < x.channels_a;
    const u64 at = in_a ? pixel * x.channels_a + c : pixel * channels_b + (c - x.channels_a);
    const float *add = in_a ? add_a : add_b;
    if (add != nullptr) dx += add[at];
    (in_a ? to_a : to_b)[at] = dx;
  }
}

// Gradients of gamma and beta, added, in groups of 16 images; and of scale_shift [N, 2C] where that is not null.
// A thread takes a channel.
extern "C" __global__ void norm_param_grad_f32(const float *sums, const float *gamma, const float *beta,
                                               const float *scale_shift, float *d_gamma, float *d_beta,
                                               float *d_scale_shift, u32 images, u32 channels) {
  const u32 c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  float to_gamma = d_gamma[c], to_beta = d_beta[c];
  for (u32 first = 0; first < images; first += 16) {
    float group_gamma = 0.0f, group_beta = 0.0f;
    for (u32 image = first; image < min(images, first + 16); ++image) {
      const float zero = sums[((u64)image * channels + c) * 2], one = sums[((u64)image * channels + c) * 2 + 1];
      float factor = 1.0f;
      if (scale_shift != nullptr) {
        const u64 at = (u64)image * 2 * channels + c;
        factor += scale_shift[at];
        d_scale_shift[at] = fmaf(gamma[c], one, beta[c] * zero);
        d_scale_shift[at + channels] = zero;
      }
      group_gamma += factor * one;
      group_beta += factor * zero;
    }
    to_gamma += group_gamma;
    to_beta += group_beta;
  }
  d_gamma[c] = to_gamma;
  d_beta[c] = to_beta;
}
