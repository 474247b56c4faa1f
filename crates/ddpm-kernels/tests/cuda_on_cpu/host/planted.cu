// Kernels that prove the harness: sound ones that use what it offers, and faulty ones that it must catch.

// Each block reverses its part of `in` through shared memory.
extern "C" __global__ void reverse(const int *in, int *out) {
  __shared__ int tile[1024];
  const int i = threadIdx.x, first = blockIdx.x * blockDim.x;
  tile[i] = in[first + i];
  __syncthreads();
  out[first + i] = tile[blockDim.x - 1 - i];
}

// The same with its barrier forgotten.
extern "C" __global__ void reverse_without_barrier(const int *in, int *out) {
  __shared__ int tile[1024];
  const int i = threadIdx.x, first = blockIdx.x * blockDim.x;
  tile[i] = in[first + i];
  out[first + i] = tile[blockDim.x - 1 - i];
}

// Blocks that read what other blocks write: no barrier orders them.
extern "C" __global__ void chain_of_blocks(int *out) {
  if (threadIdx.x == 0) out[blockIdx.x + 1] = out[blockIdx.x] + 1;
}

// The sum of a block's numbers: within warps by shuffles, across them through shared memory.
extern "C" __global__ void sum_block(const int *in, int *out, unsigned *odd_lanes) {
  __shared__ int partial[32];
  const int i = threadIdx.x;
  int sum = in[blockIdx.x * blockDim.x + i];
  const unsigned odd = __ballot_sync(0xffffffffu, sum & 1);
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (i % warpSize == 0) partial[i / warpSize] = sum;
  __syncthreads();
  if (i >= warpSize) return;
  sum = i < (int)blockDim.x / warpSize ? partial[i] : 0;
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lanes);
  if (i == 0) {
    out[blockIdx.x] = sum;
    odd_lanes[blockIdx.x] = odd;
  }
}

// Half of a warp waits for the other half, which waits for the block.
extern "C" __global__ void deadlock(int *out) {
  if (threadIdx.x < 16)
    out[threadIdx.x] = __shfl_sync(0xffffffffu, (int)threadIdx.x, 0);
  else
    __syncthreads();
}

// Two barriers where there must be one.
extern "C" __global__ void divergent_barrier(int *out) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
    out[threadIdx.x] = 1;
  } else {
    __syncthreads();
    out[threadIdx.x] = 2;
  }
}
