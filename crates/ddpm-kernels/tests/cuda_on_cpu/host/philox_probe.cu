// The device functions of kernels/philox.cuh, one block each, for words that no run of the kernels would reach.
#include "philox.cuh"

extern "C" __global__ void philox_probe(const u32 *blocks, u32 *words, float *normals, u64 count, u64 seed, u64 step,
                                        u64 sample, u32 purpose) {
  const u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Address address = {seed, step, sample, purpose};
  const Words bits = random_words(address, blocks[i]);
  const Floats z = random_normals(address, blocks[i]);
  for (int lane = 0; lane < 4; ++lane) {
    words[4 * i + lane] = bits.lane[lane];
    normals[4 * i + lane] = z.lane[lane];
  }
}
