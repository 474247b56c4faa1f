// The warp instructions of kernels/mma.cuh alone, registers in and registers out, for a comparison with what the PTX ISA
// says of them. One warp each.
#include "mma.cuh"

// sums [32, 4] += a [32, 4] b [32, 2], the registers of each lane.
extern "C" __global__ void mma_probe(const u32 *a, const u32 *b, float *sums) {
  const u32 lane = threadIdx.x;
  u32 left[4], right[1][2] = {{b[2 * lane], b[2 * lane + 1]}};
  float own[1][4];
  for (int i = 0; i < 4; ++i) {
    left[i] = a[4 * lane + i];
    own[0][i] = sums[4 * lane + i];
  }
  multiply_add(own, left, right);
  for (int i = 0; i < 4; ++i) sums[4 * lane + i] = own[0][i];
}

template <int COUNT, bool TURNED>
__device__ __forceinline__ void load_probe(const u32 *words, const u32 *rows, u32 *to) {
  __shared__ __align__(16) u32 shared[256];
  for (u32 i = threadIdx.x; i < 256; i += 32) shared[i] = words[i];
  __syncthreads();
  u32 own[COUNT];
  load_matrices<COUNT, TURNED>(own, shared + rows[threadIdx.x]);
  for (int i = 0; i < COUNT; ++i) to[COUNT * threadIdx.x + i] = own[i];
}

// to [32, COUNT]: the registers of each lane, which names the row that begins at word rows[lane] of words [256].
#define LOAD_PROBE(name, COUNT, TURNED)                                                      \
  extern "C" __global__ void name(const u32 *words, const u32 *rows, u32 *to) {              \
    load_probe<COUNT, TURNED>(words, rows, to);                                              \
  }
LOAD_PROBE(load_probe_1, 1, false)
LOAD_PROBE(load_probe_2, 2, false)
LOAD_PROBE(load_probe_4, 4, false)
LOAD_PROBE(load_probe_1_turned, 1, true)
LOAD_PROBE(load_probe_2_turned, 2, true)
LOAD_PROBE(load_probe_4_turned, 4, true)

// Two groups of copies of four words a thread; what is in shared memory after the first was waited for, and after both:
// to [2, 32, 8].
extern "C" __global__ void copy_probe(const u32 *words, u32 *to) {
  __shared__ __align__(16) u32 shared[256];
  u32 *own = shared + 8 * threadIdx.x;
  copy_async(own, words + 8 * threadIdx.x);
  end_copies();
  copy_async(own + 4, words + 8 * threadIdx.x + 4);
  end_copies();
  wait_for_copies<1>();
  for (int i = 0; i < 8; ++i) to[8 * threadIdx.x + i] = own[i];
  wait_for_copies<0>();
  for (int i = 0; i < 8; ++i) to[256 + 8 * threadIdx.x + i] = own[i];
}

// Half of the warp multiplies.
extern "C" __global__ void half_a_warp(float *sums) {
  const u32 left[4] = {0, 0, 0, 0}, right[1][2] = {{0, 0}};
  float own[1][4] = {{0, 0, 0, 0}};
  if (threadIdx.x >= 16) return;
  multiply_add(own, left, right);
  sums[threadIdx.x] = own[0][0];
}

// Pairs rounded to bf16, and what that leaves of them: to [count, 2].
extern "C" __global__ void parts_probe(const float *x, u32 *to, u32 count) {
  for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
    const u32 high = rounded_pair(x[2 * i], x[2 * i + 1]);
    to[2 * i] = high;
    to[2 * i + 1] = low_pair(x[2 * i], x[2 * i + 1], high);
  }
}
