// Losses, forward and backward in one pass. The twin of crates/ddpm-kernels/src/loss/cpu.rs.
#include "images.cuh"
#include "totals.cuh"

constexpr u32 CHUNK = 4096;  // elements of one image that a block sums

// Kinds as `LossKind` in Rust: 0 d^2, 1 |d|, 2 Huber's. `factors` [N] is what the slope is multiplied with (2 is in it
// for d^2). sums [N, chunks, 2] gets the sums of the loss and of d^2. Grid x: chunks, y: images.
extern "C" __global__ void loss_f32(const float *output, const float *target, const float *factors, float *d_output,
                                    double *sums, u64 images, u64 elements, u32 kind, float delta) {
  __shared__ double shared[TOTAL_THREADS];
  const u64 chunk = blockIdx.x, end = min(elements, (chunk + 1) * CHUNK);
  for (u64 image = blockIdx.y; image < images; image += gridDim.y) {
    const float factor = factors[image];
    double loss = 0.0, squares = 0.0;
    for (u64 e = chunk * CHUNK + threadIdx.x; e < end; e += TOTAL_THREADS) {
      const u64 i = image * elements + e;
      const float d = output[i] - target[i];
      const double square = (double)d * (double)d;
      float slope = d;
      double value = square;
      if (kind == 1) {
        slope = d > 0.0f ? 1.0f : d * 0.0f;  // a NaN stays one
        if (d < 0.0f) slope = -1.0f;
        value = (double)(d < 0.0f ? -d : d);
      } else if (kind == 2) {
        if (slope > delta) slope = delta;
        if (slope < -delta) slope = -delta;
        value = (double)slope * ((double)d - 0.5 * (double)slope);
      }
      d_output[i] = slope * factor;
      loss += value;
      squares += square;
    }
    loss = total_of_block(loss, shared);
    squares = total_of_block(squares, shared);
    if (threadIdx.x == 0) {
      sums[(image * gridDim.x + chunk) * 2] = loss;
      sums[(image * gridDim.x + chunk) * 2 + 1] = squares;
    }
  }
}
