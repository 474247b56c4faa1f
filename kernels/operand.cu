// Whole values of operands, and gradients of what operands are made of.
// The twin of crates/ddpm-kernels/src/operand/cpu/mod.rs.
#include "channels.cuh"
#include "operand.cuh"

// What a norm comes to for each image and channel: coefficients [N, FIELDS, C] from statistics [N, groups, 2].
extern "C" __global__ void norm_coefficients_f32(const float *statistics, const float *gamma, const float *beta,
                                                 const float *scale_shift, float *coefficients, u32 images,
                                                 u32 channels, u32 groups) {
  const u64 len = (u64)images * channels;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
    const u64 image = i / channels;
    const u32 c = (u32)(i % channels), group = c / (channels / groups);
    const float mean = statistics[(image * groups + group) * 2], rstd = statistics[(image * groups + group) * 2 + 1];
    put_coefficients(coefficients, image, c, channels, mean, rstd, gamma, beta, scale_shift);
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

constexpr u32 BACK_THREADS = 256;
constexpr u32 BACK_CHANNELS = 32;                                // of a chunk: four a thread
constexpr u32 BACK_QUADS = BACK_CHANNELS / 4;
constexpr u32 BACK_LANES = BACK_THREADS / BACK_QUADS;            // pixels at a time
constexpr u32 BACK_WARPS = BACK_THREADS / 32;

// What a norm comes to for a thread's channels; of nothing, x^ is what is stored.
struct OwnNorm {
  Floats mean, rstd, gamma, slope, shift;
};

__device__ __forceinline__ OwnNorm own_norm(const Operand &x, u32 image, u32 channel, int count) {
  const Floats zero = {{0.0f, 0.0f, 0.0f, 0.0f}}, one = {{1.0f, 1.0f, 1.0f, 1.0f}};
  if (x.coefficients == nullptr || count <= 0) return {zero, one, one, one, zero};
  return {field(x, image, MEAN, channel, count), field(x, image, RSTD, channel, count),
          field(x, image, GAMMA, channel, count), field(x, image, SLOPE, channel, count),
          field(x, image, SHIFT, channel, count)};
}

__device__ __forceinline__ Floats plus(const Floats &a, const Floats &b) {
  return {{a.lane[0] + b.lane[0], a.lane[1] + b.lane[1], a.lane[2] + b.lane[2], a.lane[3] + b.lane[3]}};
}

// Channels of dv, of which there are parts [parts, N, enlarge H, enlarge W, C] to be added.
__device__ __forceinline__ Floats sum_of_parts(const float *dv, u32 parts, u64 len, u64 at, int count) {
  Floats v = load(dv + at, count);
#pragma unroll 1
  for (u32 part = 1; part < parts; ++part) v = plus(v, load(dv + part * len + at, count));
  return v;
}

// The gradient dn of up to four channels of the normalised value at a stored pixel, and x^ there.
__device__ __forceinline__ Floats pulled_back(const float *dv, u32 parts, const Operand &x, const OwnNorm &k, u32 image,
                                              u32 pixel, u32 channel, int count, Floats &x_hat) {
  const u32 row = pixel / x.width, column = pixel % x.width;
  const u64 len = (u64)x.images * x.height * x.width * x.enlarge * x.enlarge * x.channels;
  // rows of one or two pixels, in which a stored one is
  const u32 side = x.enlarge;
  u64 at = ((((u64)image * x.height + row) * side * x.width + column) * side) * x.channels + channel;
  Floats dn = {{0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll 1
  for (u32 i = 0; i < side; ++i, at += (u64)side * x.width * x.channels) {
    Floats of_row = sum_of_parts(dv, parts, len, at, count);
    if (side == 2) of_row = plus(of_row, sum_of_parts(dv, parts, len, at + x.channels, count));
    dn = plus(dn, of_row);
  }
  if (x.probability > 0.0f) drop_out(x, image, row, column, channel, dn);
  if (x.coefficients != nullptr || x.silu != 0) {
    const Floats v = stored(x, pixel_of(x, image, row, column), channel, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float centred = v.lane[i] - k.mean.lane[i];
      x_hat.lane[i] = centred * k.rstd.lane[i];
      if (x.silu != 0) dn.lane[i] *= silu_slope(fmaf(centred, k.slope.lane[i], k.shift.lane[i]));
    }
  }
  return dn;
}

// Sums of a chunk's channels over the block's pixels; they come to the first warp, a channel a lane. `shared` is
// [BACK_WARPS, BACK_CHANNELS].
__device__ __forceinline__ float sum_of_pixels(Floats v, float *shared) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    for (u32 lanes = BACK_QUADS; lanes < 32; lanes *= 2) v.lane[i] += __shfl_xor_sync(0xffffffffu, v.lane[i], lanes);
  __syncthreads();  // the last sums are read
  if (threadIdx.x % 32 < BACK_QUADS)
    *reinterpret_cast<float4 *>(shared + threadIdx.x / 32 * BACK_CHANNELS + threadIdx.x % BACK_QUADS * 4) =
        make_float4(v.lane[0], v.lane[1], v.lane[2], v.lane[3]);
  __syncthreads();
  float sum = 0.0f;
  if (threadIdx.x < BACK_CHANNELS)
    for (u32 warp = 0; warp < BACK_WARPS; ++warp) sum += shared[warp * BACK_CHANNELS + threadIdx.x];
  return sum;
}

// Stores up to four channels of a pixel, in whichever part holds them.
__device__ __forceinline__ void store_parts(const Operand &x, u64 pixel, u32 channel, int count, const Floats &v, float *to_a,
                                            float *to_b) {
  const u32 channels_b = x.channels - x.channels_a;
  float *a = to_a + pixel * x.channels_a + channel;
  if (channel + count <= x.channels_a) return store(a, count, v);
  float *b = to_b + pixel * channels_b + channel - x.channels_a;
  if (channel >= x.channels_a) return store(b, count, v);
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) (channel + i < x.channels_a ? a : b)[i] = v.lane[i];
}

// From the gradient dv of an operand's value, of which there are parts to be added, to those of its stored parts, in one
// launch: dv is pulled back twice, first for the means over groups of g and g x^ (g the gradient of x^), then for
// dx = rstd (g - mean(g) - x^ mean(g x^)). To dx are added `along` [N, H, W, C] and, in the first part, `add_a`.
//
// With a norm, sums [N, C, 2] gets the sums of dn and dn x^ over the pixels; dx_sums [N, channels_a], where not null, those
// of the first part's dx. Grid x: whole groups, as many as are in 32 channels, y: images.
extern "C" __global__ void __launch_bounds__(BACK_THREADS)
    operand_backward_f32(const float *dv, u32 parts, Operand x, u32 groups, const float *along, const float *add_a,
                         float *to_a, float *to_b, float *sums, float *dx_sums) {
  __shared__ __align__(16) float shared[BACK_WARPS * BACK_CHANNELS];
  __shared__ __align__(16) float scaled[2][BACK_CHANNELS], means[2][BACK_CHANNELS];
  const u32 quad = threadIdx.x % BACK_QUADS, lane = threadIdx.x / BACK_QUADS, pixels = x.height * x.width;
  const bool has_norm = x.coefficients != nullptr;
  const u32 of = has_norm ? x.channels / groups : 1, span = of > BACK_CHANNELS ? of : BACK_CHANNELS / of * of;
  const u32 first = blockIdx.x * span, end = min(x.channels, first + span);
  const float size = (float)(of * pixels);
  const Floats nothing = {{0.0f, 0.0f, 0.0f, 0.0f}};
  for (u32 image = blockIdx.y; image < x.images; image += gridDim.y) {
    float group_zero = 0.0f, group_one = 0.0f;
#pragma unroll 1
    for (u32 chunk = first; has_norm && chunk < end; chunk += BACK_CHANNELS) {
      const u32 channel = chunk + 4 * quad, here = min(BACK_CHANNELS, end - chunk);
      const int count = channel < end ? (int)min(4u, end - channel) : 0;
      const OwnNorm k = own_norm(x, image, channel, count);
      Floats zero = nothing, one = nothing;
#pragma unroll 1
      for (u32 part = 0; part < pixels; part += PART_PIXELS) {
        const u32 part_end = count > 0 ? min(pixels, part + PART_PIXELS) : 0;
        Floats part_zero = nothing, part_one = nothing, x_hat;
#pragma unroll 1
        for (u32 p = part + lane; p < part_end; p += BACK_LANES) {
          const Floats dn = pulled_back(dv, parts, x, k, image, p, channel, count, x_hat);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            part_zero.lane[i] += dn.lane[i];
            part_one.lane[i] = fmaf(dn.lane[i], x_hat.lane[i], part_one.lane[i]);
          }
        }
        zero = plus(zero, part_zero);
        one = plus(one, part_one);
      }
      const float own_zero = sum_of_pixels(zero, shared), own_one = sum_of_pixels(one, shared);
      if (threadIdx.x >= BACK_CHANNELS) continue;
      const u32 c = threadIdx.x;
      if (c < here) {
        float *to = sums + ((u64)image * x.channels + chunk + c) * 2;
        to[0] = own_zero;
        to[1] = own_one;
        const float gamma = x.coefficients[((u64)image * FIELDS + GAMMA) * x.channels + chunk + c];
        scaled[0][c] = gamma * own_zero;
        scaled[1][c] = gamma * own_one;
      }
      __syncwarp();  // a group's sums are there
      const bool is_whole = of <= BACK_CHANNELS;
      const u32 begin = is_whole ? c / of * of : 0, last = is_whole ? min(here, begin + of) : here;
      for (u32 j = begin; j < last; ++j) {
        group_zero += scaled[0][j];
        group_one += scaled[1][j];
      }
      means[0][c] = group_zero / size;
      means[1][c] = group_one / size;
    }
    if (has_norm) __syncthreads();  // the means are there
#pragma unroll 1
    for (u32 chunk = first; chunk < end; chunk += BACK_CHANNELS) {
      const u32 channel = chunk + 4 * quad;
      const int count = channel < end ? (int)min(4u, end - channel) : 0;
      const int in_a = channel < x.channels_a ? min(count, (int)(x.channels_a - channel)) : 0;
      const OwnNorm k = own_norm(x, image, channel, count);
      Floats mean_zero = nothing, mean_one = nothing, total = nothing;
      if (has_norm) {
        mean_zero = load(&means[0][4 * quad], 4);
        mean_one = load(&means[1][4 * quad], 4);
      }
#pragma unroll 1
      for (u32 part = 0; part < pixels; part += PART_PIXELS) {
        const u32 part_end = count > 0 ? min(pixels, part + PART_PIXELS) : 0;
        Floats part_total = nothing, x_hat = nothing;
#pragma unroll 1
        for (u32 p = part + lane; p < part_end; p += BACK_LANES) {
          const u64 pixel = (u64)image * pixels + p;
          Floats dx = pulled_back(dv, parts, x, k, image, p, channel, count, x_hat);
          Floats more = along != nullptr ? load(along + pixel * x.channels + channel, count) : nothing;
          if (add_a != nullptr) more = plus(more, load(add_a + pixel * x.channels_a + channel, in_a));
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (has_norm) {
              const float g = dx.lane[i] * k.gamma.lane[i] - mean_zero.lane[i];
              dx.lane[i] = k.rstd.lane[i] * fmaf(-x_hat.lane[i], mean_one.lane[i], g);
            }
            dx.lane[i] += more.lane[i];
            part_total.lane[i] += dx.lane[i];
          }
          store_parts(x, pixel, channel, count, dx, to_a, to_b);
        }
        total = plus(total, part_total);
      }
      if (dx_sums == nullptr) continue;
      const float own = sum_of_pixels(total, shared);
      const u32 c = chunk + threadIdx.x;
      if (threadIdx.x < BACK_CHANNELS && c < min(end, x.channels_a)) dx_sums[(u64)image * x.channels_a + c] = own;
    }
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
