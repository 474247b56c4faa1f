// Kernels with races that the checker must find, and sound ones that it must leave alone.

// Each thread reads its neighbour's number, with the barrier forgotten.
extern "C" __global__ void race_in_block(const int *in, int *out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

// A tile is filled anew while others still read it.
extern "C" __global__ void race_of_rounds(const int *in, int *out) {
  __shared__ int tile[64];
  int sum = 0;
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = in[threadIdx.x] + round;
    __syncthreads();
    sum += tile[63 - threadIdx.x];
  }
  out[threadIdx.x] = sum;
}

// All threads write one place; which number stays is a matter of luck.
extern "C" __global__ void race_of_writers(int *out) { out[0] = (int)threadIdx.x; }

// Two blocks write one element.
extern "C" __global__ void race_of_blocks(int *out) {
  if (threadIdx.x == 0) out[blockIdx.x / 2] = (int)blockIdx.x;
}

// A block reads what another one writes.
extern "C" __global__ void race_across_blocks(int *out) {
  if (threadIdx.x == 0) out[blockIdx.x + 1] = out[blockIdx.x] + 1;
}

// Half of the tile is never written.
extern "C" __global__ void unwritten_shared(const int *in, int *out) {
  __shared__ int tile[64];
  if (threadIdx.x < 32) tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

// The lower half of each warp waits for itself alone, and reads what the upper half wrote.
extern "C" __global__ void race_in_warp(const int *in, int *out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = in[threadIdx.x];
  if (threadIdx.x % 32 < 16) {
    __syncwarp(0xffffu);
    out[threadIdx.x] = tile[threadIdx.x + 16];
  }
}

// A warp's shuffle orders no memory.
extern "C" __global__ void race_despite_shuffle(const int *in, int *out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = in[threadIdx.x];
  const int other = __shfl_xor_sync(0xffffffffu, (int)threadIdx.x, 1);
  out[threadIdx.x] = tile[other];
}

// Two threads write the two halves of each word: no race.
extern "C" __global__ void halves_of_words(const unsigned short *in, unsigned short *out) {
  __shared__ unsigned short tile[64];
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = tile[threadIdx.x];
}

// Warps order themselves, and blocks meet at the end: no race.
extern "C" __global__ void orders_of_every_kind(const int *in, int *out) {
  __shared__ int tile[64];
  __shared__ int sums[2];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncwarp();
  const int own = tile[threadIdx.x ^ 31];
  __syncwarp();
  tile[threadIdx.x] = own;
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    int sum = 0;
    for (int lane = 0; lane < 32; ++lane) sum += tile[threadIdx.x + lane];
    sums[threadIdx.x / 32] = sum;
  }
  __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] = sums[0] + sums[1] + tile[63 - threadIdx.x];
}

// A store whose lanes are `stride` floats apart, and a load that goes through shared memory in the same way.
extern "C" __global__ void strided(float *out, int stride) {
  __shared__ float tile[1024];
  tile[threadIdx.x * stride] = 1.0f;
  __syncthreads();
  out[threadIdx.x * stride] = tile[threadIdx.x * stride];
}

// Vectors of four, one after the other.
extern "C" __global__ void vectors(const float *in, float *out) {
  const float4 v = reinterpret_cast<const float4 *>(in)[threadIdx.x];
  reinterpret_cast<float4 *>(out)[threadIdx.x] = make_float4(v.x, v.y, v.z, v.w);
}
