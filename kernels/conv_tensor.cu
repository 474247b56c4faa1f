// Convolutions in all three directions on tensor cores, as implicit products whose left operand is made once for each
// slice of channels, with its halo, in shared memory as bf16 (`rounded`) or as sums of two of bf16 (`split`), and read
// there by every tap.
#include "mma_tile.cuh"
#include "operand.cuh"

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) float name[]
#endif

// The same fields in the same order as `conv::cuda::tensor::Tiles` in Rust. For the input's gradient the roles are turned:
// the operand is dy, the result has the operand's size, and `dilate` is the stride.
struct ConvTiles {
  u32 images, out_height, out_width, out_channels;
  u32 kernel, stride, before, dilate;
  u32 width_log, images_log, height_log;  // a tile's sides are powers of two; row = x + width (image + images y)
  u32 tiles_y, tiles_x;
  u32 halo_height, halo_width;  // of the operand, for one image
  u32 halo_rows;                // rows of shared memory from one image's halo to the next
  u32 slices, part_slices;      // of the operand's channels, and of those a part sums (grid z)
  u32 columns;                  // of the packed weights: the result's channels and zeros
};

// Where a tile of results lies, and where its halo begins.
struct Place {
  u32 image, y, x;
  int in_y, in_x;
};

__device__ __forceinline__ Place place(const ConvTiles &s, u32 tile) {
  Place p;
  p.x = tile % s.tiles_x << s.width_log;
  p.y = tile / s.tiles_x % s.tiles_y << s.height_log;
  p.image = tile / s.tiles_x / s.tiles_y << s.images_log;
  p.in_y = (int)(p.y * s.stride) - (int)s.before;
  p.in_x = (int)(p.x * s.stride) - (int)s.before;
  return p;
}

// A halo's columns lie in the order in which the pixels of a tile's row need them: with stride 2 first the even ones.
__device__ __forceinline__ u32 column_of(const ConvTiles &s, u32 column) {
  return s.stride == 1 ? column : column / 2 + column % 2 * ((s.halo_width + 1) / 2);
}

__device__ __forceinline__ u32 tap_at(const ConvTiles &s, u32 row, u32 column) {
  return row * s.halo_width + column_of(s, column);
}

// A row of a tile: its pixel, and whether it is a result at all. Rows past the tile are some pixel of it.
struct Pixel {
  u32 image, y, x;
  bool in_tile;
};

__device__ __forceinline__ Pixel pixel(const ConvTiles &s, u32 row) {
  const u32 x = row & ((1u << s.width_log) - 1), image = row >> s.width_log & ((1u << s.images_log) - 1);
  const u32 y = row >> (s.width_log + s.images_log);
  return {image, y & ((1u << s.height_log) - 1), x, y >> s.height_log == 0};
}

// Where a pixel's first tap is in the halo.
__device__ __forceinline__ u32 halo_row(const ConvTiles &s, const Pixel &p) {
  return p.image * s.halo_rows + p.y * s.stride * s.halo_width + p.x;
}

// The pixel's number among all results; false where there is none.
__device__ __forceinline__ bool result(const ConvTiles &s, const Place &p, const Pixel &at, u32 &image, u64 &index) {
  const u32 y = p.y + at.y, x = p.x + at.x;
  image = p.image + at.image;
  index = ((u64)image * s.out_height + y) * s.out_width + x;
  return at.in_tile && image < s.images && y < s.out_height && x < s.out_width;
}

// Makes 8 CHUNKS channels of the operand on a tile's halo: a row of PARTS x CHUNKS chunks for each pixel.
template <int PARTS, int CHUNKS>
__device__ __forceinline__ void load_halo(char *to, const Operand &x, const ConvTiles &s, const Place &p,
                                          u32 first_channel) {
  constexpr u32 QUADS = 2 * CHUNKS;
  const u32 shrink = x.enlarge * s.dilate, count = s.halo_height * s.halo_width * QUADS << s.images_log;
#pragma unroll 1
  for (u32 at = threadIdx.x; at < count; at += blockDim.x) {
    const u32 quad = at % QUADS, position = at / QUADS, halo_x = position % s.halo_width;
    const u32 halo_y = position / s.halo_width % s.halo_height, image = position / s.halo_width / s.halo_height;
    const int column = p.in_x + (int)halo_x, row = p.in_y + (int)halo_y;
    const u32 channel = first_channel + 4 * quad, y = (u32)row / shrink, z = (u32)column / shrink;
    Floats v = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (p.image + image < x.images && row >= 0 && column >= 0 && y < x.height && z < x.width && channel < x.channels &&
        (u32)row % s.dilate == 0 && (u32)column % s.dilate == 0) {
      const int own = (int)min(4u, x.channels - channel);
      v = value(x, p.image + image, y, z, channel, own);
#pragma unroll
      for (int i = 1; i < 4; ++i)
        if (i >= own) v.lane[i] = 0.0f;  // SiLU or a norm made something of nothing
    }
    put_quad<PARTS, CHUNKS>(to, image * s.halo_rows + halo_y * s.halo_width + column_of(s, halo_x), quad, v);
  }
}

// A product's weights, to be packed. The same fields in the same order as `conv::cuda::pack::Entry` in Rust.
struct PackedWeights {
  u64 from;   // floats before them
  uint4 *to;
  u32 taps, depth, width, columns;
  u32 parts;  // numbers of bf16 for one of f32
  u32 turned;
  u32 first_block, chunks;  // blocks before those that pack it; chunks of eight columns
};

template <int PARTS>
__device__ __forceinline__ void pack_chunk(const float *w, const PackedWeights &p, u32 i) {
  const u32 chunks = p.columns / 8, chunk = i % chunks, row = i / chunks % DEPTH<PARTS>, step = i / chunks / DEPTH<PARTS>;
  const u32 tap = step % p.taps, k = step / p.taps * DEPTH<PARTS> + row, column = 8 * chunk;
  float v[8];
#pragma unroll
  for (u32 j = 0; j < 8; ++j) {
    const u64 at = p.turned != 0 ? ((u64)(p.taps - 1 - tap) * p.width + column + j) * p.depth + k
                                 : ((u64)tap * p.depth + k) * p.width + column + j;
    v[j] = k < p.depth && column + j < p.width ? w[at] : 0.0f;
  }
  uint4 *out = p.to + ((u64)step * SLICE_ROWS + row) * chunks + chunk;
  const uint4 high = make_uint4(rounded_pair(v[0], v[1]), rounded_pair(v[2], v[3]), rounded_pair(v[4], v[5]),
                                rounded_pair(v[6], v[7]));
  *out = high;
  if constexpr (PARTS == 2)
    out[DEPTH<PARTS> * chunks] = make_uint4(low_pair(v[0], v[1], high.x), low_pair(v[2], v[3], high.y),
                                            low_pair(v[4], v[5], high.z), low_pair(v[6], v[7], high.w));
}

// Weights [taps, C, O] as right operands: [slices, taps, SLICE_ROWS, columns] of bf16, zeros where there is no channel or no
// column. `turned` reads them as [flipped taps, O, C]: `depth` is then O, and `width` C. All of a list at once, from one
// buffer; a thread packs eight columns of a row.
extern "C" __global__ void pack_weights(const float *weights, const PackedWeights *list, u32 count) {
  u32 own = 0, end = count;  // the last entry whose blocks begin at or before this one
  while (end - own > 1) {
    const u32 middle = (own + end) / 2;
    if (list[middle].first_block <= blockIdx.x) own = middle; else end = middle;
  }
  const PackedWeights p = list[own];
  const u32 i = (blockIdx.x - p.first_block) * blockDim.x + threadIdx.x;
  if (i >= p.chunks) return;
  if (p.parts == 1) pack_chunk<1>(weights + p.from, p, i);
  else pack_chunk<2>(weights + p.from, p, i);
}

constexpr int STAGES = 3;         // slices of weights in shared memory: one is read, two are on their way
constexpr u32 CHAIN_SLICES = 8;   // of a 1x1 product of split numbers; of 3x3, a slice has nine taps

__device__ __forceinline__ void add_two(float (&v)[2], const float *from, int count) {
  v[0] += from[0];
  if (count > 1) v[1] += from[1];
}

// y = (conv(x, w) + bias + channel + residual) scale; bias [O], channel [N, O] and residual [N, H, W, O] may be null. With
// more than one part of channels (grid z) y is [parts, N, H, W, O].
//
// 64 WARPS threads make 32 MT pixels by 32 WARPS channels: two warps beside each other in pixels, WARPS in channels. Grid x:
// tiles of pixels, y: tiles of channels. Dynamic shared memory: the ring of weights, then the halo.
template <int PARTS, int MT, int WARPS>
__device__ __forceinline__ void conv_tile(const Operand &x, const uint4 *weights, const float *bias,
                                          const float *channel, const float *residual, float scale, float *y,
                                          const ConvTiles &s) {
  DYNAMIC_SHARED(shared);
  constexpr u32 CHUNKS = WARPS * WARP_COLUMNS / 8, STAGE = SLICE_ROWS * CHUNKS * CHUNK, THREADS = 64 * WARPS;
  char *ring = reinterpret_cast<char *>(shared), *halo = ring + STAGES * STAGE;
  const Place p = place(s, blockIdx.x);
  const u32 taps = s.kernel * s.kernel, warp = threadIdx.x / 32, first_row = warp % 2 * 16 * MT, own = warp / 2;
  const u32 first_slice = blockIdx.z * s.part_slices, end_slice = min(s.slices, first_slice + s.part_slices);
  const u32 end = end_slice * taps;
  weights += blockIdx.y * CHUNKS;

  const auto copy = [&](u32 step, u32 stage) {
    if (step < end) {
#pragma unroll
      for (u32 at = threadIdx.x; at < SLICE_ROWS * CHUNKS; at += THREADS)
        copy_async(ring + stage * STAGE + chunk_at<CHUNKS>(at / CHUNKS, at % CHUNKS),
                   weights + ((u64)step * SLICE_ROWS + at / CHUNKS) * (s.columns / 8) + at % CHUNKS);
    }
    end_copies();
  };

  u32 rows[MT];
#pragma unroll
  for (int i = 0; i < MT; ++i) rows[i] = halo_row(s, pixel(s, first_row + 16 * i + own_lane() % 16));
  Sums<MT> total, sums;
  clear(total);
  clear(sums);
  const u32 chain = taps == 1 ? CHAIN_SLICES : 1;
  u32 step = first_slice * taps, stage = 0;
  for (u32 i = 0; i < STAGES - 1; ++i) copy(step + i, i);
#pragma unroll 1
  for (u32 slice = first_slice; slice < end_slice; ++slice) {
    __syncthreads();  // the last slice's halo is read
    load_halo<PARTS, SLICE_CHUNKS / PARTS>(halo, x, s, p, slice * DEPTH<PARTS>);
#pragma unroll 1
    for (u32 tap = 0; tap < taps; ++tap, ++step) {
      wait_for_copies<STAGES - 2>();
      __syncthreads();  // halo and weights are there; the stage before this one is read
      copy(step + STAGES - 1, stage == 0 ? STAGES - 1 : stage - 1);
      const u32 offset = tap_at(s, tap / s.kernel, tap % s.kernel);
      u32 shifted[MT];
#pragma unroll
      for (int i = 0; i < MT; ++i) shifted[i] = rows[i] + offset;
      multiply_slice<PARTS, CHUNKS>(sums, halo, shifted, ring + stage * STAGE, own * (WARP_COLUMNS / 8));
      stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    if (PARTS == 2 && (slice + 1 - first_slice) % chain == 0) end_chain(total, sums);
  }
  end_chain(total, sums);

  if (gridDim.z > 1) y += (u64)blockIdx.z * s.images * s.out_height * s.out_width * s.out_channels;
  const u32 first_column = (blockIdx.y * WARPS + own) * WARP_COLUMNS + own_lane() % 4 * 2;
#pragma unroll
  for (int i = 0; i < MT; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      u32 image;
      u64 index;
      if (!result(s, p, pixel(s, first_row + 16 * i + 8 * half + own_lane() / 4), image, index)) continue;
#pragma unroll
      for (int j = 0; j < NT; ++j) {
        const u32 column = first_column + 8 * j;
        if (column >= s.out_channels) continue;
        const int count = (int)min(2u, s.out_channels - column);
        float v[2] = {total.at[i][j][2 * half], total.at[i][j][2 * half + 1]};
        if (bias != nullptr) add_two(v, bias + column, count);
        if (channel != nullptr) add_two(v, channel + (u64)image * s.out_channels + column, count);
        const u64 at = index * s.out_channels + column;
        if (residual != nullptr) add_two(v, residual + at, count);
        v[0] *= scale;
        v[1] *= scale;
        put_pair(y + at, count, v[0], v[1]);
      }
    }
}

#define CONV(name, PARTS, MT, WARPS, BLOCKS)                                                                          \
  extern "C" __global__ void __launch_bounds__(64 * WARPS, BLOCKS)                                                    \
      name(Operand x, const uint4 *weights, const float *bias, const float *channel, const float *residual,           \
           float scale, float *y, ConvTiles s) {                                                                      \
    conv_tile<PARTS, MT, WARPS>(x, weights, bias, channel, residual, scale, y, s);                                    \
  }
CONV(conv_rounded_64x64, 1, 2, 2, 4)
CONV(conv_rounded_128x128, 1, 4, 4, 2)
CONV(conv_split_64x64, 2, 2, 2, 3)
CONV(conv_split_128x64, 2, 4, 2, 2)

// y = (the sum of the parts + bias + channel + residual) scale: parts [parts, N, H, W, O], added in order.
extern "C" __global__ void add_parts_f32(const float *parts, const float *bias, const float *channel,
                                         const float *residual, float scale, float *y, u32 count, u64 len, u64 image_len,
                                         u32 out_channels) {
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < len; i += (u64)gridDim.x * blockDim.x) {
    float v = parts[i];
    for (u32 part = 1; part < count; ++part) v += parts[part * len + i];
    const u64 o = i % out_channels;
    if (bias != nullptr) v += bias[o];
    if (channel != nullptr) v += channel[i / image_len * out_channels + o];
    if (residual != nullptr) v += residual[i];
    y[i] = v * scale;
  }
}

constexpr int GRAD_COLUMNS = 64;   // of dy of a block
constexpr int GRAD_CHUNKS = GRAD_COLUMNS / 8;
constexpr u32 GRAD_CHAIN = 1024;   // longest chain, in pixels

// Sums of one slice of images for the weights' gradient: partial [slices, taps, C, O].
//
// Four warps, two by two, sum 32 MT channels of the operand by 64 of dy for all taps at once. Grid x: tiles of O, y: tiles of
// C, z: slices. Dynamic shared memory: dy of a tile of pixels, then its halo.
template <int PARTS, int SIDE, int MT>
__device__ __forceinline__ void weight_grad(const float *dy, const Operand &x, float *partial, const ConvTiles &s,
                                            u32 slice_images) {
  DYNAMIC_SHARED(shared);
  constexpr int TAPS = SIDE * SIDE, CHUNKS = 4 * MT;
  const u32 rows = 1u << (s.width_log + s.images_log + s.height_log);
  char *right = reinterpret_cast<char *>(shared), *halo = right + max(16u, rows) * PARTS * GRAD_CHUNKS * CHUNK;
  const u32 first_o = blockIdx.x * GRAD_COLUMNS, first_c = blockIdx.y * 32 * MT, slice = blockIdx.z;
  const u32 lane = own_lane(), warp = threadIdx.x / 32, warp_c = warp % 2, warp_o = warp / 2;
  const u32 tiles = (slice_images >> s.images_log) * s.tiles_y * s.tiles_x;
  const u32 tiles_of_chain = max(1u, GRAD_CHAIN / rows);
  float *out = partial + (u64)slice * TAPS * x.channels * s.out_channels;
  Sums<MT> sums[TAPS];
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap) clear(sums[tap]);
  bool first = true;
#pragma unroll 1
  for (u32 t = 0; t < tiles; ++t) {
    const Place p = place(s, slice * tiles + t);
    __syncthreads();  // the last tile is read
    load_halo<PARTS, CHUNKS>(halo, x, s, p, first_c);
#pragma unroll 1
    for (u32 at = threadIdx.x; at < max(16u, rows) * (GRAD_COLUMNS / 4); at += blockDim.x) {
      const u32 row = at / (GRAD_COLUMNS / 4), quad = at % (GRAD_COLUMNS / 4), o = first_o + 4 * quad;
      u32 image;
      u64 index;
      const bool exists = result(s, p, pixel(s, row), image, index);
      Floats v = {{0.0f, 0.0f, 0.0f, 0.0f}};
      if (exists && o < s.out_channels) v = load(dy + index * s.out_channels + o, (int)min(4u, s.out_channels - o));
      put_quad<PARTS, GRAD_CHUNKS>(right, row, quad, v);
    }
    __syncthreads();  // halo and dy are there
#pragma unroll 1
    for (u32 k = 0; k < rows; k += 16) {
      u32 b[PARTS][NT][2];
#pragma unroll
      for (int part = 0; part < PARTS; ++part)
        load_right<PARTS * GRAD_CHUNKS>(b[part], right, k, part * GRAD_CHUNKS + warp_o * (WARP_COLUMNS / 8));
      const u32 row = halo_row(s, pixel(s, k + lane % 8 + lane / 16 * 8));
      const u32 chunk = warp_c * 2 * MT + lane / 8 % 2;
#pragma unroll
      for (int tap = 0; tap < TAPS; ++tap) {
        const u32 at = row + tap_at(s, tap / SIDE, tap % SIDE);
#pragma unroll
        for (int i = 0; i < MT; ++i) {
          u32 a[4];
          load_matrices<4, true>(a, halo + chunk_at<PARTS * CHUNKS>(at, chunk + 2 * i));
          if constexpr (PARTS == 2) {
            u32 low[4];
            load_matrices<4, true>(low, halo + chunk_at<PARTS * CHUNKS>(at, CHUNKS + chunk + 2 * i));
            multiply_add(sums[tap].at[i], low, b[0]);
            multiply_add(sums[tap].at[i], a, b[1]);
          }
          multiply_add(sums[tap].at[i], a, b[0]);
        }
      }
    }
    if ((t + 1) % tiles_of_chain != 0 && t + 1 != tiles) continue;
    // a chain ends: to the slice's sums, which this thread alone touches
#pragma unroll
    for (int tap = 0; tap < TAPS; ++tap)
#pragma unroll
      for (int i = 0; i < MT; ++i)
#pragma unroll
        for (int j = 0; j < NT; ++j)
#pragma unroll
          for (int k = 0; k < 4; k += 2) {
            float(&v)[4] = sums[tap].at[i][j];
            const u32 c = first_c + (warp_c * MT + i) * 16 + lane / 4 + 4 * k;
            const u32 o = first_o + warp_o * WARP_COLUMNS + 8 * j + lane % 4 * 2;
            const int count = c < x.channels ? (int)s.out_channels - (int)o : 0;
            float *to = out + ((u64)tap * x.channels + c) * s.out_channels + o;
            if (!first && count > 0) v[k] += to[0];
            if (!first && count > 1) v[k + 1] += to[1];
            put_pair(to, count, v[k], v[k + 1]);
            v[k] = 0.0f;
            v[k + 1] = 0.0f;
          }
    first = false;
  }
}

#define WEIGHT_GRAD(name, PARTS, SIDE, MT)                                                                       \
  extern "C" __global__ void __launch_bounds__(128, 2)                                                           \
      name(const float *dy, Operand x, float *partial, ConvTiles s, u32 slice_images) {                          \
    weight_grad<PARTS, SIDE, MT>(dy, x, partial, s, slice_images);                                               \
  }
WEIGHT_GRAD(conv_weight_grad_3_rounded, 1, 3, 1)
WEIGHT_GRAD(conv_weight_grad_1_rounded, 1, 1, 2)
WEIGHT_GRAD(conv_weight_grad_3_split, 2, 3, 1)
WEIGHT_GRAD(conv_weight_grad_1_split, 2, 1, 2)
