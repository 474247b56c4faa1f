// Statistics for group normalisation (Wu and He 2018): mean and M2 = sum of (x - mean)^2, never the sum of x^2, which
// loses digits when the mean is large.
#include "channels.cuh"
#include "operand.cuh"

// Mean and M2 of each image and channel: x [N, P, C] -> y [N, C, 2]. Parts of an image are merged in order
// (Chan et al. 1983, eq. 2.1). Grid x: 32 channels, y: images; blocks of LANES * 32 threads.
extern "C" __global__ void channel_statistics_f32(const float *x, float *y, u32 images, u32 pixels, u32 channels) {
  __shared__ float shared[LANES * 32];
  __shared__ float means[32];
  const u32 channel = own_channel();
  const bool exists = channel < channels;
  for (u32 image = blockIdx.y; image < images; image += gridDim.y) {
    const float *from = x + (u64)image * pixels * channels + channel;
    float mean = 0.0f, m2 = 0.0f;  // of what was merged, in lane 0
    for (u32 first = 0; first < pixels; first += PART_PIXELS) {
      const u32 end = min(pixels, first + PART_PIXELS), count = end - first;
      float sum = 0.0f;
      if (exists)
        for (u32 pixel = first + own_lane(); pixel < end; pixel += LANES) sum += from[(u64)pixel * channels];
      sum = sum_of_lanes(sum, shared);
      if (own_lane() == 0) means[threadIdx.x] = sum / (float)count;
      __syncthreads();
      const float part_mean = means[threadIdx.x % 32];
      float squares = 0.0f;
      if (exists)
        for (u32 pixel = first + own_lane(); pixel < end; pixel += LANES) {
          const float d = from[(u64)pixel * channels] - part_mean;
          squares = fmaf(d, d, squares);
        }
      squares = sum_of_lanes(squares, shared);
      const float share = (float)((double)count / (double)end);
      const float weight = (float)((double)first * (double)count / (double)end);
      const float delta = part_mean - mean;
      mean = fmaf(delta, share, mean);
      m2 += fmaf(delta * delta, weight, squares);
    }
    if (own_lane() == 0 && exists) {
      y[((u64)image * channels + channel) * 2] = mean;
      y[((u64)image * channels + channel) * 2 + 1] = m2;
    }
  }
}

// Mean and 1 / sqrt(variance + eps) of each image and group, y [N, groups, 2], from the channels' statistics of one
// tensor (channels_b = 0) or of two that are concatenated; all channels have as many pixels. Where `coefficients` is not null,
// also what a norm with gamma, beta and scale_shift comes to. A block takes an image, a thread its groups, then its channels.
extern "C" __global__ void norm_statistics_f32(const float *a, const float *b, float *y, u32 images, u32 channels_a,
                                               u32 channels_b, u32 groups, u64 pixels, double eps, const float *gamma,
                                               const float *beta, const float *scale_shift, float *coefficients) {
  const u32 channels = channels_a + channels_b, of = channels / groups;
  for (u64 image = blockIdx.x; image < images; image += gridDim.x) {
    float *own = y + image * groups * 2;
    for (u32 group = threadIdx.x; group < groups; group += blockDim.x) {
      const u32 first = group * of;
      const auto at = [=](u32 channel) {
        return channel < channels_a ? a + (image * channels_a + channel) * 2
                                    : b + (image * channels_b + (channel - channels_a)) * 2;
      };
      double mean = 0.0, m2 = 0.0;
      for (u32 c = 0; c < of; ++c) mean += (double)at(first + c)[0];
      mean = mean / (double)of;
      for (u32 c = 0; c < of; ++c) {
        const double d = (double)at(first + c)[0] - mean;
        m2 += (double)at(first + c)[1] + (double)pixels * (d * d);
      }
      const double variance = m2 / (double)(of * pixels);
      own[2 * group] = (float)mean;
      own[2 * group + 1] = (float)(1.0 / sqrt(variance + eps));
    }
    if (coefficients == nullptr) continue;
    __syncthreads();  // the image's groups are there
    for (u32 c = threadIdx.x; c < channels; c += blockDim.x)
      put_coefficients(coefficients, image, c, channels, own[c / of * 2], own[c / of * 2 + 1], gamma, beta, scale_shift);
  }
}
