// Elementary functions that give the CPU's bits: only fma, +, *, / and integer operations, in the order of
// crates/ddpm-tensor/src/math.rs and of the Rust bodies.
#pragma once

// e^x with a relative error below 2e-7, saturating at e^-87 and e^88; a NaN stays one.
__device__ __forceinline__ float exponential(float x) {
  const float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer and leaves that in the low bits
  if (x < -87.0f) x = -87.0f;
  if (x > 88.0f) x = 88.0f;
  const float shifted = fmaf(x, 1.44269504088896341f, round);
  const float n = shifted - round;
  const float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, x));
  float p = 1.0f / 5040.0f;
  p = fmaf(r, p, 1.0f / 720.0f);
  p = fmaf(r, p, 1.0f / 120.0f);
  p = fmaf(r, p, 1.0f / 24.0f);
  p = fmaf(r, p, 1.0f / 6.0f);
  p = fmaf(r, p, 0.5f);
  p = fmaf(r, p, 1.0f);
  p = fmaf(r, p, 1.0f);
  return p * __int_as_float((__float_as_int(shifted) - __float_as_int(round) + 127) << 23);
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

// d/dn n s(n) = s(n) (1 + n (1 - s(n))), s the sigmoid.
__device__ __forceinline__ float silu_slope(float n) {
  const float s = sigmoid(n);
  return s * fmaf(n, 1.0f - s, 1.0f);
}
