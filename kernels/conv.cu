// Convolutions in all three directions: implicit products whose left operand is made once for each slice of channels,
// with its halo, in shared memory, and read there by every tap.
#include "operand.cuh"
#include "tile.cuh"

// The same fields in the same order as `conv::cuda::Shape` in Rust. For the input's gradient the roles are turned:
// the operand is dy, the result has the operand's size, and `dilate` is the stride.
struct ConvShape {
  u32 images, out_height, out_width, out_channels;
  u32 kernel, stride, before, dilate;
  u32 tile_images, tile_height, tile_width;  // their product is a tile's rows, at most 64 (32 for the weights)
  u32 tiles_y, tiles_x;
};

// Where a tile of results lies, and what of the operand it reads.
struct Place {
  u32 image, y, x;               // the first result
  u32 halo_height, halo_width;   // of the operand, for one image
  int in_y, in_x;                // the first row and column of the halo
};

__device__ __forceinline__ Place place(const ConvShape &s, u32 tile) {
  Place p;
  p.x = tile % s.tiles_x * s.tile_width;
  p.y = tile / s.tiles_x % s.tiles_y * s.tile_height;
  p.image = tile / s.tiles_x / s.tiles_y * s.tile_images;
  p.halo_height = (s.tile_height - 1) * s.stride + s.kernel;
  p.halo_width = (s.tile_width - 1) * s.stride + s.kernel;
  p.in_y = (int)(p.y * s.stride) - (int)s.before;
  p.in_x = (int)(p.x * s.stride) - (int)s.before;
  return p;
}

// Makes CHANNELS channels of the operand on a tile's halo: [images][height][width], `pitch` floats each.
template <int CHANNELS>
__device__ __forceinline__ void load_halo(float *to, int pitch, const Operand &x, const ConvShape &s, const Place &p,
                                          u32 first_channel) {
  const u32 shrink = x.enlarge * s.dilate, quads = CHANNELS / 4;
  const u32 count = s.tile_images * p.halo_height * p.halo_width * quads;
  for (u32 at = threadIdx.x; at < count; at += THREADS) {
    const u32 quad = at % quads, position = at / quads;
    const int column = p.in_x + (int)(position % p.halo_width);
    const int row = p.in_y + (int)(position / p.halo_width % p.halo_height);
    const u32 image = p.image + position / p.halo_width / p.halo_height;
    const u32 channel = first_channel + 4 * quad, y = (u32)row / shrink, z = (u32)column / shrink;
    Floats v = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (image < x.images && row >= 0 && column >= 0 && y < x.height && z < x.width && channel < x.channels &&
        (u32)row % s.dilate == 0 && (u32)column % s.dilate == 0) {
      const int count = (int)min(4u, x.channels - channel);
      v = value(x, image, y, z, channel, count);
#pragma unroll
      for (int i = 1; i < 4; ++i)
        if (i >= count) v.lane[i] = 0.0f;  // SiLU or a norm made something of nothing
    }
    put_vector(to + position * pitch + 4 * quad, v);
  }
}

// Row r of a tile: its image, row and column, and whether it is a result at all.
struct Result {
  u32 image, y, x;
  bool exists;
};

__device__ __forceinline__ Result result(const ConvShape &s, const Place &p, u32 row) {
  const u32 x = row % s.tile_width, y = row / s.tile_width % s.tile_height;
  const u32 image = row / s.tile_width / s.tile_height;
  const Result r = {p.image + image, p.y + y, p.x + x, false};
  return {r.image, r.y, r.x,
          image < s.tile_images && r.image < s.images && r.y < s.out_height && r.x < s.out_width};
}

// Where row r of a tile begins in the halo.
__device__ __forceinline__ u32 halo_position(const ConvShape &s, const Place &p, u32 row) {
  const u32 x = row % s.tile_width, y = row / s.tile_width % s.tile_height;
  const u32 image = min(row / s.tile_width / s.tile_height, s.tile_images - 1);
  return (image * p.halo_height + y * s.stride) * p.halo_width + x * s.stride;
}

// Adds the products of one tile to `total`. Dynamic shared memory: the halo, then two slices of weights.
// Weights are [taps, C, O]; TURNED reads them as [flipped taps, O, C].
template <bool TURNED>
__device__ __forceinline__ void conv_tile(Sums &total, const Operand &x, const float *w, const ConvShape &s,
                                          const Place &p, u32 first_column) {
  DYNAMIC_SHARED(shared);
  const u32 taps = s.kernel * s.kernel, k = x.channels, n = s.out_channels;
  float *halo = shared, *weights = shared + s.tile_images * p.halo_height * p.halo_width * PITCH;
  int offset[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; ++i) offset[i] = (int)halo_position(s, p, (u32)tile_row(i)) * PITCH;
  const u32 slices_of_chain = max(1u, CHAIN / (taps * DEPTH));
  Sums sums;
  clear(sums);
  u32 buffer = 0;
  for (u32 channel = 0, slice = 1; channel < k; channel += DEPTH, ++slice) {
    __syncthreads();  // the last slice's halo is read
    load_halo<DEPTH>(halo, PITCH, x, s, p, channel);
    for (u32 tap = 0; tap < taps; ++tap) {
      float *b = weights + buffer * (DEPTH * TILE);
      if (TURNED) {
        const Matrix m = {w + (u64)(taps - 1 - tap) * n * k, k, n, k};
        load_transposed(b, m, first_column, channel);
      } else {
        const Matrix m = {w + (u64)tap * k * n, n, k, n};
        load_columns(b, m, channel, first_column);
      }
      __syncthreads();  // halo and weights are there; the other buffer is read
      multiply(sums, halo + (tap / s.kernel * p.halo_width + tap % s.kernel) * PITCH, offset, b);
      buffer ^= 1;
    }
    if (slice % slices_of_chain == 0) end_chain(total, sums);
  }
  end_chain(total, sums);
}

// y = (conv(x, w) + bias + channel + residual) scale; bias [O], channel [N, O] and residual [N, H, W, O] may be null.
// Grid x: tiles of pixels, y: tiles of channels.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_f32(Operand x, const float *w, const float *bias, const float *channel, const float *residual, float scale,
             float *y, ConvShape s) {
  const Place p = place(s, blockIdx.x);
  const u32 first_column = blockIdx.y * TILE;
  Sums total;
  clear(total);
  conv_tile<false>(total, x, w, s, p, first_column);
  const u32 column = first_column + (u32)tile_column();
  if (column >= s.out_channels) return;
  const int count = (int)min(4u, s.out_channels - column);
  const Floats zero = {{0.0f, 0.0f, 0.0f, 0.0f}};
  const Floats b = bias != nullptr ? load(bias + column, count) : zero;
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const Result r = result(s, p, (u32)tile_row(i));
    if (!r.exists) continue;
    const u64 at = (((u64)r.image * s.out_height + r.y) * s.out_width + r.x) * s.out_channels + column;
    Floats v;
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) v.lane[j] = total.at[i][j] + b.lane[j];
    if (channel != nullptr) {
      const Floats add = load(channel + (u64)r.image * s.out_channels + column, count);
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) v.lane[j] += add.lane[j];
    }
    if (residual != nullptr) {
      const Floats add = load(residual + at, count);
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) v.lane[j] += add.lane[j];
    }
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) v.lane[j] *= scale;
    store(y + at, count, v);
  }
}

// The gradient of the operand's value: dv [N, H, W, C] from dy [N, H', W', O], as a convolution with flipped taps over
// dy with stride - 1 zeros between its pixels.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv_input_grad_f32(Operand dy, const float *w, float *dv, ConvShape s) {
  const Place p = place(s, blockIdx.x);
  const u32 first_column = blockIdx.y * TILE;
  Sums total;
  clear(total);
  conv_tile<true>(total, dy, w, s, p, first_column);
  const u32 column = first_column + (u32)tile_column();
  if (column >= s.out_channels) return;
  const int count = (int)min(4u, s.out_channels - column);
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const Result r = result(s, p, (u32)tile_row(i));
    if (!r.exists) continue;
    Floats v;
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) v.lane[j] = total.at[i][j];
    store(dv + (((u64)r.image * s.out_height + r.y) * s.out_width + r.x) * s.out_channels + column, count, v);
  }
}

// Sums of one slice of images for the weights' gradient: partial [slices, taps, C, O].
//
// A block sums 8 CT channels of the operand by 64 channels of dy for all taps: each thread CT by 4 by taps, so that the
// halo and dy are read from shared memory once for all taps. Grid x: tiles of O, y: tiles of C, z: slices.
// Dynamic shared memory: the halo, then dy [32, 64].
template <int SIDE, int CT>
__device__ __forceinline__ void weight_grad(const float *dy, const Operand &x, float *partial, const ConvShape &s,
                                            u32 slice_images) {
  DYNAMIC_SHARED(shared);
  constexpr int TAPS = SIDE * SIDE, CHANNELS = 8 * CT, HALO_PITCH = CHANNELS + 4, PIXELS = 32;
  const u32 first_o = blockIdx.x * TILE, first_c = blockIdx.y * CHANNELS, slice = blockIdx.z;
  const u32 rows = s.tile_images * s.tile_height * s.tile_width;
  const u32 tiles = slice_images / s.tile_images * s.tiles_y * s.tiles_x;
  const u32 own_o = first_o + (u32)tile_column(), own_c = first_c + threadIdx.x / 16 * CT;
  float *out = partial + (u64)slice * TAPS * x.channels * s.out_channels;
  float sums[TAPS][CT][COLUMNS];
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap)
#pragma unroll
    for (int c = 0; c < CT; ++c)
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) sums[tap][c][j] = 0.0f;
  const u32 tiles_of_chain = CHAIN / PIXELS;
  bool first = true;
  for (u32 t = 0; t < tiles; ++t) {
    const Place p = place(s, slice * tiles + t);
    float *right = shared + s.tile_images * p.halo_height * p.halo_width * HALO_PITCH;
    __syncthreads();  // the last tile is read
    load_halo<CHANNELS>(shared, HALO_PITCH, x, s, p, first_c);
    for (u32 at = threadIdx.x; at < rows * (TILE / 4); at += THREADS) {
      const u32 row = at / (TILE / 4), o = first_o + 4 * (at % (TILE / 4));
      const Result r = result(s, p, row);
      Floats v = {{0.0f, 0.0f, 0.0f, 0.0f}};
      if (r.exists && o < s.out_channels)
        v = load(dy + (((u64)r.image * s.out_height + r.y) * s.out_width + r.x) * s.out_channels + o,
                 (int)min(4u, s.out_channels - o));
      put_vector(right + row * TILE + 4 * (at % (TILE / 4)), v);
    }
    __syncthreads();
    for (u32 row = 0; row < rows; ++row) {
      const float *a = shared + halo_position(s, p, row) * HALO_PITCH + threadIdx.x / 16 * CT;
      const float4 b = vector_at(right + row * TILE + tile_column());
#pragma unroll
      for (int tap = 0; tap < TAPS; ++tap) {
        const float *at = a + (tap / SIDE * p.halo_width + tap % SIDE) * HALO_PITCH;
        float left[CT];
        if constexpr (CT == 2) {
          const float2 v = *reinterpret_cast<const float2 *>(at);
          left[0] = v.x;
          left[1] = v.y;
        } else {
#pragma unroll
          for (int c = 0; c < CT; c += 4) {
            const float4 v = vector_at(at + c);
            left[c] = v.x;
            left[c + 1] = v.y;
            left[c + 2] = v.z;
            left[c + 3] = v.w;
          }
        }
#pragma unroll
        for (int c = 0; c < CT; ++c) multiply_add(sums[tap][c], left[c], b);
      }
    }
    if ((t + 1) % tiles_of_chain != 0 && t + 1 != tiles) continue;
    // a chain ends: to the slice's sums, which this thread alone touches
#pragma unroll
    for (int tap = 0; tap < TAPS; ++tap)
#pragma unroll
      for (int c = 0; c < CT; ++c) {
        if (own_c + c < x.channels && own_o < s.out_channels) {
          const int count = (int)min(4u, s.out_channels - own_o);
          float *to = out + ((u64)tap * x.channels + own_c + c) * s.out_channels + own_o;
          Floats v = {{sums[tap][c][0], sums[tap][c][1], sums[tap][c][2], sums[tap][c][3]}};
          if (!first) {
            const Floats before = load(to, count);
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) v.lane[j] = before.lane[j] + v.lane[j];
          }
          store(to, count, v);
        }
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) sums[tap][c][j] = 0.0f;
      }
    first = false;
  }
}

// Two blocks a multiprocessor: their sums take most of its registers.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv_weight_grad_3_f32(const float *dy, Operand x, float *partial, ConvShape s, u32 slice_images) {
  weight_grad<3, 2>(dy, x, partial, s, slice_images);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv_weight_grad_1_f32(const float *dy, Operand x, float *partial, ConvShape s, u32 slice_images) {
  weight_grad<1, 8>(dy, x, partial, s, slice_images);
}
