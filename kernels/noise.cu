// The forward process in one step, x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps (Ho et al. 2020, eq. 4).
// The twin of crates/ddpm-kernels/src/noise/cpu.rs, bit for bit.
#include "images.cuh"

// x_0, x_t and eps are [images, elements_per_image], the two coefficients [images]. Image i is sample first_sample + i
// of the random numbers. x_t may be x_0: an element is read before it is written.
extern "C" __global__ void noise_f32(const float *x_0, const float *sqrt_alpha_bar,
                                     const float *sqrt_one_minus_alpha_bar, float *x_t, float *eps, u64 images,
                                     u64 elements_per_image, u64 seed, u64 step, u64 first_sample, u32 purpose) {
  for_each_block(images, elements_per_image, [=](u64 image, u64 block, u64 first, int count) {
    const Address address = {seed, step, first_sample + image, purpose};
    const Floats z = random_normals(address, (u32)block);
    const Floats clean = load(x_0 + first, count);
    const float signal = sqrt_alpha_bar[image], noise = sqrt_one_minus_alpha_bar[image];
    Floats noised;
#pragma unroll
    for (int i = 0; i < 4; ++i) noised.lane[i] = fmaf(noise, z.lane[i], signal * clean.lane[i]);
    store(eps + first, count, z);
    store(x_t + first, count, noised);
  });
}

// Standard normals alone: y is [images, elements_per_image].
extern "C" __global__ void normals_f32(float *y, u64 images, u64 elements_per_image, u64 seed, u64 step,
                                       u64 first_sample, u32 purpose) {
  for_each_block(images, elements_per_image, [=](u64 image, u64 block, u64 first, int count) {
    const Address address = {seed, step, first_sample + image, purpose};
    store(y + first, count, random_normals(address, (u32)block));
  });
}
