// Sums of a whole block in f64, in a fixed order.
#pragma once

constexpr int TOTAL_THREADS = 256;

// The threads' values added by halves; the total comes to thread 0, zero to the others. `shared` is [TOTAL_THREADS].
__device__ __forceinline__ double total_of_block(double value, double *shared) {
  __syncthreads();  // the last total is read
  shared[threadIdx.x] = value;
  for (int half = TOTAL_THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if ((int)threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  return threadIdx.x == 0 ? shared[0] : 0.0;
}
