// One step of the reverse process (Ho et al. 2020, eq. 7, 11; Song et al. 2021, eq. 12).
// The twin of crates/ddpm-kernels/src/posterior/{mod,cpu}.rs, bit for bit.
#include "images.cuh"

// The same fields in the same order as `StepCoefficients` in Rust.
struct StepCoefficients {
  float predict_x, predict_output, clip, from_x_0, from_x, from_output, sigma;
};

// x, output (the network's), next and x_0 are [images, elements_per_image]; x_0 may be null, and next may be x or
// output: an element is read before it is written. Image i is sample first_sample + i of the random numbers.
extern "C" __global__ void posterior_f32(const float *x, const float *output, float *next, float *x_0, u64 images,
                                         u64 elements_per_image, StepCoefficients c, u64 seed, u64 step,
                                         u64 first_sample, u32 purpose) {
  for_each_block(images, elements_per_image, [=](u64 image, u64 block, u64 first, int count) {
    const Floats now = load(x + first, count), out = load(output + first, count);
    Floats predicted, mixed;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float value = fmaf(c.predict_output, out.lane[i], c.predict_x * now.lane[i]);
      if (value < -c.clip) value = -c.clip;  // both comparisons are false for a NaN, which stays
      if (value > c.clip) value = c.clip;
      predicted.lane[i] = value;
      mixed.lane[i] = fmaf(c.from_x_0, value, fmaf(c.from_output, out.lane[i], c.from_x * now.lane[i]));
    }
    if (c.sigma != 0.0f) {
      const Address address = {seed, step, first_sample + image, purpose};
      const Floats z = random_normals(address, (u32)block);
#pragma unroll
      for (int i = 0; i < 4; ++i) mixed.lane[i] = fmaf(c.sigma, z.lane[i], mixed.lane[i]);
    }
    store(next + first, count, mixed);
    if (x_0 != nullptr) store(x_0 + first, count, predicted);
  });
}
