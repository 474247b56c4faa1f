// AdamW (Loshchilov and Hutter 2019), the EMA and the zeroing of gradients in one pass, and the gradients' norm.
// The twin of crates/ddpm-kernels/src/adamw/cpu.rs, the optimiser to the bit.
#include "images.cuh"
#include "totals.cuh"

constexpr u64 CHUNK = 32768;  // elements whose squares a block sums

// The sums of squares of chunks of x: sums [chunks]. Grid x: chunks.
extern "C" __global__ void squared_norm_f32(const float *x, double *sums, u64 len) {
  __shared__ double shared[TOTAL_THREADS];
  const u64 chunk = blockIdx.x, end = min(len, (chunk + 1) * CHUNK);
  double sum = 0.0;
  for (u64 i = chunk * CHUNK + threadIdx.x; i < end; i += TOTAL_THREADS) sum = fma((double)x[i], (double)x[i], sum);
  sum = total_of_block(sum, shared);
  if (threadIdx.x == 0) sums[chunk] = sum;
}

// The same fields in the same order as `adamw::Coefficients<f32>` in Rust, which explains them.
struct AdamW {
  float clip, share_1, share_2, share_ema, keep, step, per_root, eps;
};

extern "C" __global__ void adamw_f32(AdamW c, float *parameters, float *grads, float *m, float *v, float *ema,
                                     u64 len) {
  for_each_block(1, len, [=](u64, u64, u64 first, int count) {
    Floats p = load(parameters + first, count), grad = load(grads + first, count);
    Floats m_of = load(m + first, count), v_of = load(v + first, count), mean = load(ema + first, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float g = c.clip * grad.lane[i];
      m_of.lane[i] = fmaf(c.share_1, g - m_of.lane[i], m_of.lane[i]);
      v_of.lane[i] = fmaf(c.share_2, g * g - v_of.lane[i], v_of.lane[i]);
      const float root = fmaf(sqrtf(v_of.lane[i]), c.per_root, c.eps);
      p.lane[i] = fmaf(c.step, m_of.lane[i] / root, c.keep * p.lane[i]);
      mean.lane[i] = fmaf(c.share_ema, p.lane[i] - mean.lane[i], mean.lane[i]);
    }
    store(parameters + first, count, p);
    store(grads + first, count, {{0.0f, 0.0f, 0.0f, 0.0f}});
    store(m + first, count, m_of);
    store(v + first, count, v_of);
    store(ema + first, count, mean);
  });
}
