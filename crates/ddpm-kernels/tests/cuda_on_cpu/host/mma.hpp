// The functions of kernels/mma.cuh on the CPU: what the lanes of a warp do together is done by the first of them that
// goes on when all have come.
//
// Sums of products are at least as inexact as a tensor core's: of eight products and the sum so far, none keeps a digit
// below the last of the largest one's 24 (Fasi et al. 2021 found at least as many, cut off and not rounded, on V100, T4
// and A100). So a bound that holds here for chains of sums does not rest on sums that round.
#pragma once

#include <cstring>
#include <vector>

#include "cuda_on_cpu.h"

struct alignas(8) uint2 {
  unsigned x, y;
  CUDA_ON_CPU_VECTOR(uint2)
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
struct alignas(16) uint4 {
  unsigned x, y, z, w;
  CUDA_ON_CPU_VECTOR(uint4)
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace cuda_on_cpu {

constexpr int WARP = 32;

// The own part of each thread of the block in what its warp does together.
struct Part {
  void *own = nullptr;
  bool done = true;
  bool late = false;
};
inline thread_local Part parts[1024];

// What each warp did together so far. Of four warps one at a time is late, for sixteen operations: so none goes in step
// with the others for long, and what no barrier orders comes in another order.
inline thread_local unsigned operations[1024 / WARP];
CUDA_ON_CPU_UNCHECKED inline bool is_late(unsigned warp) { return (operations[warp]++ / 16 + warp) % 4 == 0; }

CUDA_ON_CPU_UNCHECKED inline unsigned linear_thread() {
  const Position &p = position;
  return p.thread.x + p.block_size.x * (p.thread.y + p.block_size.y * p.thread.z);
}

// Reports what a thread did wrong, in the words of the site's operation, and ends the launch.
CUDA_ON_CPU_UNCHECKED inline void refuse(Site site) {
  wait_for_warp(site, WarpOperation::synchronise, ~(1u << lane()), 0, 0);  // a mask without this lane is an error
}

inline bool aligned(const void *p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Does for all lanes of a warp what they wait for.
template <class Own, class Compute>
CUDA_ON_CPU_UNCHECKED void finish_together(Site site, Part *warp, Compute compute) {
  Own *all[WARP];
  const bool late = is_late(unsigned(warp - parts) / WARP);
  bool complete = true;
  for (int lane = 0; lane < WARP; ++lane) {
    complete &= !warp[lane].done;
    all[lane] = static_cast<Own *>(warp[lane].own);
    warp[lane].done = true;
    warp[lane].late = late;
  }
  if (complete) compute(all);
  else refuse(site);
}

// Waits for all lanes of the warp and calls `compute` once with what each of them gave.
template <class Own, class Compute>
CUDA_ON_CPU_UNCHECKED void together(Site site, Own &own, Compute compute) {
  Part *const warp = parts + linear_thread() / WARP * WARP;
  Part &self = warp[linear_thread() % WARP];
  self = {&own, false, false};
  wait_for_warp(site, WarpOperation::synchronise, ~0u, 0, 0);
  if (!self.done) finish_together<Own>(site, warp, compute);
  if (self.late) wait_for_warp(site, WarpOperation::synchronise, ~0u, 0, 0);
}

typedef float Floats8 __attribute__((vector_size(32)));
typedef int32_t Ints8 __attribute__((vector_size(32)));

inline Ints8 bits_of(Floats8 x) { return (Ints8)x; }
inline Floats8 floats_of(Ints8 x) { return (Floats8)x; }
inline Ints8 choose(Ints8 mask, Ints8 yes, Ints8 no) { return (mask & yes) | (~mask & no); }

// sum + products[0] + .. + products[7] in eight columns: all shifted to the largest exponent and cut off, added exactly, and
// cut off again.
CUDA_ON_CPU_UNCHECKED inline Floats8 add_products(Floats8 sum, const Floats8 (&products)[8]) {
  const Ints8 exponent = Ints8{} + 0x7f800000, magnitude = Ints8{} + 0x7fffffff;
  Ints8 largest = bits_of(sum) & magnitude;
#pragma GCC unroll 8
  for (const Floats8 &p : products) {
    const Ints8 size = bits_of(p) & magnitude;
    largest = choose(size > largest, size, largest);
  }
  largest &= exponent;
  const Ints8 infinite = largest == exponent;
  int special = 0;
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) special |= infinite[i];
  if (special != 0) {
    for (const Floats8 &p : products) sum += p;
    return sum;
  }
  const Ints8 least = Ints8{} + (24 << 23);
  largest = choose(largest < least, least, largest);
  const Floats8 scale = floats_of((277 << 23) - largest), unit = floats_of(largest - (23 << 23));
  Ints8 total = __builtin_convertvector(sum * scale, Ints8);
#pragma GCC unroll 8
  for (const Floats8 &p : products) total += __builtin_convertvector(p * scale, Ints8);
  const Ints8 negative = total < 0;
  Ints8 size = choose(negative, -total, total), keep = Ints8{} - 1;
#pragma GCC unroll 4
  for (int digits = 1; digits <= 4; ++digits)
    keep = choose(size >= (1 << (23 + digits)), Ints8{} - (1 << digits), keep);
  size &= keep;
  return __builtin_convertvector(choose(negative, -size, size), Floats8) * unit;
}

inline float widened(unsigned bits) { return __uint_as_float((bits & 0xffff) << 16); }

// Bits of the nearest bf16, ties to even.
inline unsigned rounded(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// A copy that a thread began, and the number of its group.
struct Copy {
  void *to;
  const void *from;
  unsigned group;
};
// The copies of a thread that have not landed, from `first` to before `end`, in a ring; `group` is the one that is open.
struct Copies {
  static constexpr unsigned MOST = 256;
  Copy of[MOST];
  unsigned first, end, group;
};
inline thread_local Copies copies[1024];

}  // namespace cuda_on_cpu

template <int COUNT, bool TURNED>
CUDA_ON_CPU_UNCHECKED inline void load_matrices(unsigned (&to)[COUNT], const void *row, CUDA_ON_CPU_SITE) {
  struct Own {
    const void *row;
    unsigned *to;
  } own = {row, to};
  if (!cuda_on_cpu::aligned(row)) cuda_on_cpu::refuse({"ldmatrix of a row that is not aligned", file, line});
  cuda_on_cpu::checker::loads(row, 16, __builtin_return_address(0));
  cuda_on_cpu::together({"ldmatrix", file, line}, own, [](Own *const (&all)[cuda_on_cpu::WARP]) CUDA_ON_CPU_UNCHECKED {
    for (int i = 0; i < COUNT; ++i) {
      uint16_t matrix[8][8];
      for (int r = 0; r < 8; ++r) std::memcpy(matrix[r], all[8 * i + r]->row, 16);
      for (int lane = 0; lane < cuda_on_cpu::WARP; ++lane) {
        const int own_row = lane / 4, first = 2 * (lane % 4);
        const unsigned low = TURNED ? matrix[first][own_row] : matrix[own_row][first];
        const unsigned high = TURNED ? matrix[first + 1][own_row] : matrix[own_row][first + 1];
        all[lane]->to[i] = low | high << 16;
      }
    }
  });
}

template <int TILES>
CUDA_ON_CPU_UNCHECKED inline void multiply_add(float (&sums)[TILES][4], const unsigned (&a)[4],
                                               const unsigned (&b)[TILES][2], CUDA_ON_CPU_SITE) {
  using namespace cuda_on_cpu;
  struct Own {
    float (*sums)[4];
    const unsigned *a;
    const unsigned (*b)[2];
  } own = {sums, a, b};
  together({"mma", file, line}, own, [](Own *const (&all)[WARP]) CUDA_ON_CPU_UNCHECKED {
    float left[16][16];  // row, k
    bool finite = true;
    for (int lane = 0; lane < WARP; ++lane)
      for (int i = 0; i < 4; ++i) {
        const unsigned pair = all[lane]->a[i];
        finite &= (pair & 0x7f80) != 0x7f80 && (pair >> 16 & 0x7f80) != 0x7f80;
      }
    for (int lane = 0; lane < WARP; ++lane)
      for (int i = 0; i < 8; ++i) {
        const int row = lane / 4 + (i / 2 % 2 == 0 ? 0 : 8), k = lane % 4 * 2 + i % 2 + (i < 4 ? 0 : 8);
        left[row][k] = widened(all[lane]->a[i / 2] >> 16 * (i % 2));
      }
    for (int tile = 0; tile < TILES; ++tile) {
      unsigned any = 0;
      for (int lane = 0; lane < WARP; ++lane) any |= all[lane]->b[tile][0] | all[lane]->b[tile][1];
      if (any == 0 && finite) continue;  // columns that are not there
      Floats8 right[16], total[16];      // k; row
      for (int lane = 0; lane < WARP; ++lane) {
        for (int i = 0; i < 4; ++i)
          right[lane % 4 * 2 + i % 2 + (i < 2 ? 0 : 8)][lane / 4] = widened(all[lane]->b[tile][i / 2] >> 16 * (i % 2));
        for (int i = 0; i < 4; ++i) total[lane / 4 + (i < 2 ? 0 : 8)][lane % 4 * 2 + i % 2] = all[lane]->sums[tile][i];
      }
      for (int row = 0; row < 16; ++row)
        for (int first = 0; first < 16; first += 8) {
          Floats8 products[8];
#pragma GCC unroll 8
          for (int k = 0; k < 8; ++k) products[k] = left[row][first + k] * right[first + k];
          total[row] = add_products(total[row], products);
        }
      for (int lane = 0; lane < WARP; ++lane)
        for (int i = 0; i < 4; ++i) all[lane]->sums[tile][i] = total[lane / 4 + (i < 2 ? 0 : 8)][lane % 4 * 2 + i % 2];
    }
  });
}

// What a copy brings is there when it was waited for; until then no number is.
CUDA_ON_CPU_UNCHECKED inline void copy_async(void *to, const void *from, CUDA_ON_CPU_SITE) {
  if (!cuda_on_cpu::aligned(to) || !cuda_on_cpu::aligned(from))
    cuda_on_cpu::refuse({"cp.async of what is not aligned", file, line});
  cuda_on_cpu::Copies &copies = cuda_on_cpu::copies[cuda_on_cpu::linear_thread()];
  if (copies.end - copies.first == copies.MOST) cuda_on_cpu::refuse({"more cp.async than are waited for", file, line});
  cuda_on_cpu::checker::loads(from, 16, __builtin_return_address(0));
  cuda_on_cpu::checker::stores(to, 16, __builtin_return_address(0));
  std::memset(to, 0xff, 16);
  copies.of[copies.end++ % copies.MOST] = {to, from, copies.group};
}
CUDA_ON_CPU_UNCHECKED inline void end_copies() { ++cuda_on_cpu::copies[cuda_on_cpu::linear_thread()].group; }
template <int LEFT>
CUDA_ON_CPU_UNCHECKED inline void wait_for_copies() {
  cuda_on_cpu::Copies &copies = cuda_on_cpu::copies[cuda_on_cpu::linear_thread()];
  for (; copies.first != copies.end; ++copies.first) {
    const cuda_on_cpu::Copy &copy = copies.of[copies.first % copies.MOST];
    if (copy.group + LEFT >= copies.group) break;
    cuda_on_cpu::checker::stores(copy.to, 16, __builtin_return_address(0));
    std::memcpy(copy.to, copy.from, 16);
  }
}

inline unsigned rounded_pair(float first, float second) {
  return cuda_on_cpu::rounded(first) | cuda_on_cpu::rounded(second) << 16;
}
