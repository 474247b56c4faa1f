// Addressed random numbers: Philox4x32-10 (Salmon et al. 2011) and standard normals from it.
//
// The twin of crates/ddpm-tensor/src/random/{mod,philox,normal}.rs, which explain what is done here; the two give
// the same bits, and a test compares them. So: only integer operations, +, *, fmaf and sqrtf, all correctly rounded,
// in the same order; compile with --fmad=false, so that nothing else becomes a fused multiply-add.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

// Where a sequence of random numbers stands (`Address` in Rust).
struct Address {
  u64 seed;
  u64 step;     // the lower 48 bits count
  u64 sample;   // the lower 40 bits count
  u32 purpose;  // 8 bits
};

// Four words, or four floats: one Philox block.
struct Words {
  u32 lane[4];
};
struct Floats {
  float lane[4];
};

__device__ __forceinline__ Words philox4x32_10(Words counter, u32 key_0, u32 key_1) {
  u32 c0 = counter.lane[0], c1 = counter.lane[1], c2 = counter.lane[2], c3 = counter.lane[3];
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const u32 high_0 = __umulhi(0xD2511F53u, c0), low_0 = 0xD2511F53u * c0;
    const u32 high_2 = __umulhi(0xCD9E8D57u, c2), low_2 = 0xCD9E8D57u * c2;
    c0 = high_2 ^ c1 ^ key_0;
    c1 = low_2;
    c2 = high_0 ^ c3 ^ key_1;
    c3 = low_0;
    key_0 += 0x9E3779B9u;
    key_1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The 128 random bits of elements 4 * block .. 4 * block + 4.
__device__ __forceinline__ Words random_words(const Address &a, u32 block) {
  const u32 last = a.purpose << 24 | ((u32)(a.sample >> 32) & 0xffu) << 16 | ((u32)(a.step >> 32) & 0xffffu);
  return philox4x32_10({{block, (u32)a.sample, (u32)a.step, last}}, (u32)a.seed, (u32)(a.seed >> 32));
}

// ln u for a normal float u in (0, 1].
__device__ __forceinline__ float ln_of_unit(float u) {
  const int bits = __float_as_int(u);
  const int e = (bits - 0x3f2aaaab) >> 23;  // u = 2^e m with m in [2/3, 4/3)
  const float f = __int_as_float(bits - e * (1 << 23)) - 1.0f;
  float p = 1.216143519e-01f;
  p = fmaf(p, f, -1.303501576e-01f);
  p = fmaf(p, f, 1.071017683e-01f);
  p = fmaf(p, f, -1.214466542e-01f);
  p = fmaf(p, f, 1.430887580e-01f);
  p = fmaf(p, f, -1.668430567e-01f);
  p = fmaf(p, f, 1.999941766e-01f);
  p = fmaf(p, f, -2.499964833e-01f);
  p = fmaf(p, f, 3.333333731e-01f);
  p = fmaf(p, f, -5.000000000e-01f);
  const float ln_m = fmaf(p, f * f, f);
  return fmaf((float)e, 0.693147180559945309f, ln_m);
}

// cos and sin of 2 pi turn / 2^32.
__device__ __forceinline__ void cos_sin_of_turn(u32 turn, float &cosine, float &sine) {
  const u32 quarter = (turn + (1u << 29)) >> 30;
  const float t = (float)(int)(turn - (quarter << 30)) * 1.4629180792671596e-9f;  // in [-pi/4, pi/4)
  const float t2 = t * t;
  float s = -1.951528247e-04f;
  s = fmaf(s, t2, 8.332160302e-03f);
  s = fmaf(s, t2, -1.666665524e-01f);
  s = fmaf(s * t2, t, t);
  float c = 2.443315680e-05f;
  c = fmaf(c, t2, -1.388731645e-03f);
  c = fmaf(c, t2, 4.166664556e-02f);
  c = fmaf(c, t2, -0.5f);
  c = fmaf(c, t2, 1.0f);
  const bool swapped = (quarter & 1u) != 0;
  cosine = swapped ? s : c;
  sine = swapped ? c : s;
  if (((quarter + 1u) & 2u) != 0) cosine = -cosine;
  if ((quarter & 2u) != 0) sine = -sine;
}

// Two standard normals from 64 random bits (Box and Muller).
__device__ __forceinline__ void box_muller(u32 radius_bits, u32 turn, float &z_0, float &z_1) {
  const float u = fmaf((float)radius_bits, 2.3283064365386963e-10f, 1.1641532182693481e-10f);
  const float r = sqrtf(-2.0f * ln_of_unit(u));
  float cosine, sine;
  cos_sin_of_turn(turn, cosine, sine);
  z_0 = r * cosine;
  z_1 = r * sine;
}

// The standard normals of elements 4 * block .. 4 * block + 4.
__device__ __forceinline__ Floats random_normals(const Address &a, u32 block) {
  const Words bits = random_words(a, block);
  Floats z;
  box_muller(bits.lane[0], bits.lane[1], z.lane[0], z.lane[1]);
  box_muller(bits.lane[2], bits.lane[3], z.lane[2], z.lane[3]);
  return z;
}

// The numbers in [0, 1) of elements 4 * block .. 4 * block + 4, multiples of 2^-24.
__device__ __forceinline__ Floats random_uniforms(const Address &a, u32 block) {
  const Words bits = random_words(a, block);
  Floats u;
#pragma unroll
  for (int i = 0; i < 4; ++i) u.lane[i] = (float)(bits.lane[i] >> 8) * (1.0f / 16777216.0f);
  return u;
}
